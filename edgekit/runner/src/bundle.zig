//! What ekrun believes of a bundle, in which order (docs/bundle-format.md). C opens, makes and syncs files (bundle.h).
//!
//! - nothing is believed before the signature holds; then the manifest determines every byte: it is compared or hashed;
//! - memory is bounded: the manifest and its records, one window of 8 MiB, a few buffers;
//! - built with Zig's safety checks; one that fails is a refusal.

const std = @import("std");
const host = @import("host.zig");
const manifest = @import("manifest.zig");
const tar = @import("tar.zig");
const trust = @import("trust.zig");
const zstd = @import("zstd.zig");
const Sha256 = std.crypto.hash.sha2.Sha256;
const Reader = std.Io.Reader;

pub const panic = host.panic;
pub const std_options: std.Options = .{ .enable_segfault_handler = false };

comptime {
    _ = @import("deployment.zig");
    _ = @import("device.zig");
}

const Bytes = extern struct {
    at: [*]const u8,
    size: usize,

    fn slice(self: Bytes) []const u8 {
        return self.at[0..self.size];
    }

    fn of(bytes: []const u8) Bytes {
        return .{ .at = bytes.ptr, .size = bytes.len };
    }
};

/// As `struct bundle` in bundle.h.
const Bundle = extern struct {
    trust: Bytes,
    allow_unsigned: bool,
    manifest: Bytes,
    signature: Bytes,
    believed: ?*const manifest.Manifest,
    files: usize,
    isa: usize,
    counter: u64,
    size: u64,
    read: u64,
    application: [65]u8,
    version: [65]u8,
    arch: [65]u8,
    glibc: [65]u8,
    libstdcxx: [65]u8,
    signer: [65]u8,
    manifest_sha256: [65]u8,

    fn file(self: *const Bundle, index: usize) manifest.File {
        return self.believed.?.file(index);
    }
};

/// As `struct bundle_file`.
const File = extern struct { path: [97]u8, mode: u32, size: u64, stored_size: u64, stored_sha256: [65]u8 };

// -------------------------------------------------------------------------------------------------------- a container

/// Bytes of the container read so far.
var position: u64 = 0;

/// Reads and believes manifest and signature of the container that C has open.
export fn bundle_open(bundle: *Bundle) void {
    bundle.manifest = .of(readFirst("manifest.json", manifest.max_bytes));
    bundle.signature = .of(readFirst("manifest.sig", trust.signed_size));
    bundle_believe(bundle);
    bundle.read = position;
}

/// Reads the entry of file `index`, whose bytes go to `bundle_write`.
export fn bundle_unpack_file(bundle: *Bundle, index: usize) void {
    const file = bundle.file(index);
    var name: [100]u8 = undefined;
    host.reading = file.path;
    const stored_name = std.fmt.bufPrint(&name, "{s}{s}", .{ file.path, if (file.compressed) ".zst" else "" });
    compareHeader(&tar.header(stored_name catch unreachable, file.mode, file.stored_size));
    unpack(file);
    readZeros(tar.padding(file.stored_size));
    bundle.read = position;
}

/// Writes file `index` from its stored bytes, a file of their own that C has open.
export fn bundle_expand_file(bundle: *const Bundle, index: usize) void {
    const file = bundle.file(index);
    host.reading = file.path;
    position = 0;
    unpack(file);
    refuseMore();
}

/// Reads the end.
export fn bundle_close(bundle: *Bundle) void {
    host.reading = "the end of the bundle";
    readZeros(2 * tar.block);
    refuseMore();
    bundle.read = position;
}

fn refuseMore() void {
    var byte: [1]u8 = undefined;
    if (host.read(&byte) != 0) host.refuse("there are bytes behind it, at {d}", .{position});
}

/// One of the first two entries: its size is what its header says, and nothing else of the header is.
fn readFirst(name: []const u8, limit: u64) []const u8 {
    host.reading = name;
    var found: [tar.block]u8 = undefined;
    readExactly(&found);
    var size: u64 = 0;
    for (found[tar.size_field[0]..tar.size_field[1]]) |digit| size = size * 8 + (digit -% '0') % 8;
    if (size == 0 or size > limit or !std.mem.eql(u8, &found, &tar.header(name, 0o644, size)))
        host.refuse("not where it should be, at byte {d}", .{position - tar.block});
    const text = host.memory(@intCast(size));
    readExactly(text);
    readZeros(tar.padding(size));
    return text;
}

fn compareHeader(expected: *const [tar.block]u8) void {
    var found: [tar.block]u8 = undefined;
    readExactly(&found);
    if (!std.mem.eql(u8, &found, expected))
        host.refuse("not where it should be, or not as the manifest says, at byte {d}", .{position - tar.block});
}

/// What is stored as it is has one digest, by the manifest's rules.
fn unpack(file: manifest.File) void {
    var stored: Stored = .init(file.stored_size);
    if (file.compressed) {
        expand(file, &stored);
    } else {
        while (stored.piece()) |bytes| host.write(bytes);
    }
    compareDigest(&stored.hash, file.stored_sha256);
}

fn expand(file: manifest.File, stored: *Stored) void {
    var content: Content = .{};
    zstd.expand(&stored.reader, file.size, &content);
    if (stored.left != 0 or stored.reader.bufferedLen() != 0) host.refuse("there are bytes behind its zstd frame", .{});
    compareDigest(&content.hash, file.sha256);
}

fn compareDigest(hash: *Sha256, expected: [32]u8) void {
    if (!std.mem.eql(u8, &hash.finalResult(), &expected))
        host.refuse("not the bytes that were signed", .{});
}

fn readExactly(bytes: []u8) void {
    var done: usize = 0;
    while (done < bytes.len) {
        const count = host.read(bytes[done..]);
        position += count;
        done += count;
        if (count == 0) host.refuse("the bundle ends too early, at byte {d}", .{position});
    }
}

fn readZeros(count: usize) void {
    var bytes: [2 * tar.block]u8 = undefined;
    readExactly(bytes[0..count]);
    if (!std.mem.allEqual(u8, bytes[0..count], 0))
        host.refuse("bytes that fill it up are not zero, before byte {d}", .{position});
}

/// The stored bytes of one file, hashed as they are read.
const Stored = struct {
    reader: Reader,
    left: u64,
    hash: Sha256,

    var room: [128 << 10]u8 = undefined;

    fn init(size: u64) Stored {
        const vtable: Reader.VTable = .{ .stream = stream };
        return .{
            .reader = .{ .vtable = &vtable, .buffer = &room, .seek = 0, .end = 0 },
            .left = size,
            .hash = .init(.{}),
        };
    }

    fn fetch(self: *Stored, bytes: []u8) []u8 {
        const wanted = bytes[0..@intCast(@min(bytes.len, self.left))];
        readExactly(wanted);
        self.left -= wanted.len;
        self.hash.update(wanted);
        return wanted;
    }

    fn piece(self: *Stored) ?[]u8 {
        return if (self.left == 0) null else self.fetch(&room);
    }

    fn stream(reader: *Reader, out: *std.Io.Writer, limit: std.Io.Limit) Reader.StreamError!usize {
        const self: *Stored = @alignCast(@fieldParentPtr("reader", reader));
        if (self.left == 0) return error.EndOfStream;
        const count = self.fetch(limit.slice(try out.writableSliceGreedy(1))).len;
        out.advance(count);
        return count;
    }
};

/// The bytes of a frame as they are expanded, hashed as they are written.
const Content = struct {
    hash: Sha256 = .init(.{}),

    pub fn take(self: *Content, bytes: []const u8) void {
        self.hash.update(bytes);
        host.write(bytes);
    }
};

// ----------------------------------------------------------------------------------------------- container and folder

/// Believes `bundle.manifest` by `bundle.signature`, fills in the rest.
export fn bundle_believe(bundle: *Bundle) void {
    const text = bundle.manifest.slice();
    const signer = trust.signer(bundle.trust.slice(), bundle.allow_unsigned, bundle.signature.slice(), text);
    const believed = manifest.parse(text);
    bundle.believed = kept(believed);
    bundle.files = believed.files.len;
    bundle.isa = believed.isa.len;
    bundle.counter = believed.counter;
    bundle.size = believed.size;
    copy(&bundle.application, believed.application);
    copy(&bundle.version, believed.version);
    copy(&bundle.arch, believed.arch);
    copy(&bundle.glibc, believed.glibc);
    copy(&bundle.libstdcxx, believed.libstdcxx);
    copy(&bundle.signer, signer orelse "");
    var digest: [32]u8 = undefined;
    Sha256.hash(text, &digest, .{});
    copy(&bundle.manifest_sha256, &std.fmt.bytesToHex(digest, .lower));
}

fn kept(believed: manifest.Manifest) *const manifest.Manifest {
    const place: *manifest.Manifest = @ptrCast(@alignCast(host.memory(@sizeOf(manifest.Manifest)).ptr));
    place.* = believed;
    return place;
}

/// What the manifest says of file `index`.
export fn bundle_file(bundle: *const Bundle, index: usize, file: *File) void {
    fill(file, bundle.file(index));
}

/// Whether another bundle has a file with the bytes of file `index`, and which.
export fn bundle_find(bundle: *const Bundle, index: usize, other: *const Bundle, file: *File) bool {
    const wanted = bundle.file(index);
    for (0..other.files) |i| {
        const found = other.file(i);
        if (found.size != wanted.size or !std.mem.eql(u8, &found.sha256, &wanted.sha256)) continue;
        fill(file, found);
        return true;
    }
    return false;
}

fn fill(file: *File, found: manifest.File) void {
    file.mode = found.mode;
    file.size = found.size;
    file.stored_size = found.stored_size;
    copy(&file.path, found.path);
    copy(&file.stored_sha256, &std.fmt.bytesToHex(found.stored_sha256, .lower));
}

/// The CPU feature `index` that the bundle asks for.
export fn bundle_isa(bundle: *const Bundle, index: usize) [*:0]const u8 {
    return bundle.believed.?.isa[index].text;
}

/// Hashes file `index`, unpacked, which C has open; with `copying` its bytes go to `bundle_write`.
export fn bundle_read_file(bundle: *const Bundle, index: usize, copying: bool) void {
    const file = bundle.file(index);
    var hash: Sha256 = .init(.{});
    var left = file.size;
    host.reading = file.path;
    while (true) {
        const count = host.read(&Stored.room);
        if (count == 0) break;
        if (count > left) host.refuse("longer than its {d} bytes", .{file.size});
        left -= count;
        hash.update(Stored.room[0..count]);
        if (copying) host.write(Stored.room[0..count]);
    }
    if (left != 0) host.refuse("shorter than its {d} bytes", .{file.size});
    compareDigest(&hash, file.sha256);
}

/// Whether an unpacked bundle has a file, or else a folder, at `path`.
export fn bundle_has(bundle: *const Bundle, path: [*:0]const u8, folder: bool) bool {
    const name = std.mem.span(path);
    for (bundle.believed.?.files) |file| {
        const path_of = file.path.text;
        if (!std.mem.startsWith(u8, path_of, name)) continue;
        if (if (folder) path_of.len > name.len and path_of[name.len] == '/' else path_of.len == name.len) return true;
    }
    return !folder and (std.mem.eql(u8, name, "manifest.json") or std.mem.eql(u8, name, "manifest.sig"));
}

fn copy(field: []u8, text: []const u8) void {
    @memset(field, 0);
    @memcpy(field[0..text.len], text);
}
