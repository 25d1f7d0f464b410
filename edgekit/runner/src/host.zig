//! What C does for the Zig parts of ekrun (bundle.h), and the one way out when untrusted bytes are refused.
//!
//! - a process serves one request: a refusal ends it, nothing is unwound. In libekrun it ends a call, on its own thread;
//! - a safety check of Zig that fails is a refusal too: `panic` says where the reader was.

const std = @import("std");

extern fn bundle_read(bytes: [*]u8, size: usize) usize;
extern fn bundle_write(bytes: [*]const u8, size: usize) void;
extern fn bundle_refuse(text: [*:0]const u8, is_bundle: bool) noreturn;
extern fn allocate(count: usize, size: usize) [*]u8;

/// What is being read, for messages.
pub threadlocal var reading: []const u8 = "the bundle";

threadlocal var line: [512]u8 = undefined;

/// Ends the process with exit code 8 and one line that begins with what was being read.
pub fn refuse(comptime format: []const u8, values: anytype) noreturn {
    @branchHint(.cold);
    var text = begin();
    text.print(format, values) catch {}; // cut short, where names are long
    end(text, true);
}

/// As `refuse`, of a file that is no part of the bundle: bad input.
pub fn reject(comptime format: []const u8, values: anytype) noreturn {
    @branchHint(.cold);
    var text = begin();
    text.print(format, values) catch {};
    end(text, false);
}

noinline fn begin() std.Io.Writer {
    var text: std.Io.Writer = .fixed(line[0 .. line.len - 1]);
    text.writeAll(reading[0..@min(reading.len, 200)]) catch {};
    text.writeAll(": ") catch {};
    return text;
}

noinline fn end(text: std.Io.Writer, is_bundle: bool) noreturn {
    line[text.end] = 0;
    bundle_refuse(line[0..text.end :0], is_bundle);
}

pub const panic = std.debug.FullPanic(broken);

fn broken(message: []const u8, _: ?usize) noreturn {
    refuse("malformed: it breaks a safety check ({s})", .{message});
}

/// Up to `bytes.len` bytes of the source that C has open; 0 at its end only.
pub fn read(bytes: []u8) usize {
    return bundle_read(bytes.ptr, bytes.len);
}

/// All of `bytes` to the file that C has open.
pub fn write(bytes: []const u8) void {
    bundle_write(bytes.ptr, bytes.len);
}

/// Zeroed memory that is never freed.
pub fn memory(size: usize) []u8 {
    return allocate(size, 1)[0..size];
}
