//! A file that is stored as one zstd frame (RFC 8878), expanded in bounded memory.
//!
//! - the frame states the size the manifest does, uses no dictionary, at most 8 MiB of window, and carries no checksum:
//!   the manifest's digests are better ones, and std's decoder does not look at it;
//! - one block a step, into a buffer with room for it, whose writer takes nothing that does not fit: a block that lies
//!   about its size is refused before it can write anywhere else.

const std = @import("std");
const host = @import("host.zig");
const Reader = std.Io.Reader;
const Writer = std.Io.Writer;
const Decompress = std.compress.zstd.Decompress;

const max_window = 8 << 20;
const max_block = std.compress.zstd.block_size_max;

/// Bytes expanded between two moves of the window to the buffer's start.
const slack = 2 << 20;

var buffer: []u8 = &.{};

/// Hands what the frame holds, `size` bytes, to `sink.take` piece by piece, and reads nothing behind the frame.
pub fn expand(in: *Reader, size: u64, sink: anytype) void {
    const window = checkHead(in, size);
    if (buffer.len == 0) buffer = host.memory(max_window + max_block + slack);
    var decoder: Decompress = .init(in, &.{}, .{ .window_len = max_window });
    var out: Writer = .{ .buffer = buffer, .vtable = &.{ .drain = full, .rebase = cannotMove } };
    var left = size;
    while (true) {
        if (out.unusedCapacityLen() < max_block) slide(&out, window);
        const before = out.end;
        _ = decoder.reader.stream(&out, .limited(out.unusedCapacityLen())) catch
            host.refuse("a damaged zstd frame ({s})", .{@errorName(decoder.err orelse error.MalformedBlock)});
        const piece = out.buffer[before..out.end];
        if (piece.len > left) host.refuse("it expands to more than its {d} bytes", .{size});
        left -= piece.len;
        sink.take(piece);
        if (decoder.state == .new_frame) break;
    }
    if (left != 0) host.refuse("it expands to less than its {d} bytes", .{size});
}

/// The window's size in bytes.
fn checkHead(in: *Reader, size: u64) usize {
    // at most: magic 4, descriptor 1, window 1, dictionary 4, content size 8
    in.fillMore() catch {};
    const head = in.buffered();
    var copy: Reader = .fixed(head[0..@min(head.len, 18)]);
    const magic = copy.takeInt(u32, .little) catch 0;
    if (magic != @backingInt(Decompress.Frame.Zstandard.magic)) host.refuse("not a zstd frame", .{});
    const frame = Decompress.Frame.Zstandard.Header.decode(&copy) catch host.refuse("a damaged zstd frame", .{});
    const flags = frame.descriptor;
    if (flags.dictionary_id_flag != 0 or flags.content_checksum_flag or flags.unused or flags.reserved)
        host.refuse("a zstd frame with a dictionary or a checksum", .{});
    if (frame.content_size != size) host.refuse("a zstd frame that does not state its size", .{});
    const window = frame.windowSize() orelse max_window + 1;
    if (window > max_window) host.refuse("a zstd frame with a window of more than 8 MiB", .{});
    return @intCast(window);
}

/// Moves what later blocks may refer to to the buffer's start.
fn slide(out: *Writer, window: usize) void {
    const kept = out.buffer[out.end - @min(window, out.end) .. out.end];
    @memmove(out.buffer[0..kept.len], kept);
    out.end = kept.len;
}

fn full(_: *Writer, _: []const []const u8, _: usize) Writer.Error!usize {
    return error.WriteFailed;
}

fn cannotMove(_: *Writer, _: usize, _: usize) Writer.Error!void {
    return error.WriteFailed;
}
