//! The manifest of a bundle: its rules, and the strict inverse of its canonical text. See docs/bundle-format.md; the
//! same rules in Python are edgekit/core/manifest.py.
//!
//! - what std.json understood is written again and compared: no space, escape, order or form of number is left open;
//! - every text is made of harmless characters, so none needs escaping, in JSON or on a terminal.

const std = @import("std");
const host = @import("host.zig");
const json = @import("json.zig");
const trust = @import("trust.zig");

pub const max_bytes = 1 << 20;
const max_files = 1000;
const max_isa = 64;
const max_path = 96;
const max_segments = 8;
const max_bundle = (1 << 31) - 1; // bytes of all files, unpacked
const max_number = (1 << 53) - 1;

/// Room for a copy of every text of 1 MiB and the records of more files than the thousand that are allowed.
const parse_room = 4 << 20;

pub const File = struct {
    path: []const u8,
    mode: u32,
    size: u64,
    sha256: [32]u8,
    compressed: bool,
    stored_size: u64,
    stored_sha256: [32]u8,
};

pub const Manifest = struct {
    application: []const u8,
    version: []const u8,
    counter: u64,
    size: u64, // of all files, unpacked
    arch: []const u8,
    glibc: []const u8,
    libstdcxx: []const u8,
    isa: []const json.Text,
    files: []const Raw.File,

    pub fn file(self: Manifest, index: usize) File {
        const raw = self.files[index];
        return .{
            .path = raw.path.text,
            .mode = @intCast(raw.mode.value),
            .size = raw.size.value,
            .sha256 = trust.hexadecimal(32, raw.sha256.text).?,
            .compressed = eql(raw.encoding.text, "zstd"),
            .stored_size = raw.stored_size.value,
            .stored_sha256 = trust.hexadecimal(32, raw.stored_sha256.text).?,
        };
    }
};

/// As it is written, before any rule but JSON's.
const Raw = struct {
    application: json.Text,
    counter: json.Number,
    files: []const Raw.File,
    format: json.Number,
    requires: Requires,
    version: json.Text,

    const File = struct {
        encoding: json.Text,
        mode: json.Number,
        path: json.Text,
        sha256: json.Text,
        size: json.Number,
        stored_sha256: json.Text,
        stored_size: json.Number,
    };

    const Requires = struct {
        arch: json.Text,
        glibc: json.Text,
        isa: []const json.Text,
        libstdcxx: json.Text,
    };
};

/// The manifest whose canonical text `text` is; refuses any other bytes.
pub fn parse(text: []const u8) Manifest {
    host.reading = "manifest.json";
    var room: std.heap.FixedBufferAllocator = .init(host.memory(parse_room));
    const raw = json.parse(Raw, text, room.allocator(), false) catch |problem|
        host.refuse("not a manifest ({s})", .{@errorName(problem)});
    if (raw.format.value != 1) host.refuse("format {d} is not known, this ekrun reads 1", .{raw.format.value});
    if (!isCanonical(raw, text)) host.refuse("not in canonical form", .{});
    checkHead(raw);
    checkRequires(raw.requires);
    var size: u64 = 0;
    for (raw.files) |file| {
        checkFile(file);
        size += file.size.value;
    }
    if (size > max_bundle) host.refuse("its files have {d} bytes, more than {d}", .{ size, @as(u64, max_bundle) });
    checkPaths(raw.files);
    return .{
        .application = raw.application.text,
        .version = raw.version.text,
        .counter = raw.counter.value,
        .size = size,
        .arch = raw.requires.arch.text,
        .glibc = raw.requires.glibc.text,
        .libstdcxx = raw.requires.libstdcxx.text,
        .isa = raw.requires.isa,
        .files = raw.files,
    };
}

fn checkHead(raw: Raw) void {
    if (!isApplication(raw.application.text))
        host.refuse("application is not such a name", .{});
    if (!isLabel(raw.version.text, "._+-")) host.refuse("version is not such a label", .{});
    if (raw.counter.value > max_number) host.refuse("counter is not from 0 to 2^53 - 1", .{});
    if (raw.files.len == 0 or raw.files.len > max_files)
        host.refuse("it does not name 1 to {d} files", .{@as(u64, max_files)});
}

fn checkRequires(requires: Raw.Requires) void {
    if (!eql(requires.arch.text, "x86_64") and !eql(requires.arch.text, "aarch64"))
        host.refuse("arch is neither x86_64 nor aarch64", .{});
    if (!isDotted(requires.glibc.text)) host.refuse("glibc is not a version", .{});
    if (requires.libstdcxx.text.len != 0 and !isDotted(requires.libstdcxx.text))
        host.refuse("libstdcxx is not a version", .{});
    if (requires.isa.len > max_isa) host.refuse("isa has too many names", .{});
    for (requires.isa, 0..) |name, i| {
        if (!isFeature(name.text)) host.refuse("isa is not a list of names of /proc/cpuinfo", .{});
        if (i > 0 and !before(requires.isa[i - 1].text, name.text))
            host.refuse("isa is not sorted, each name once", .{});
    }
}

fn checkFile(file: Raw.File) void {
    const path, const size, const stored_size = .{ file.path.text, file.size.value, file.stored_size.value };
    const identity = eql(file.encoding.text, "identity");
    if (!isPath(path)) host.refuse("it holds a path that no file of a bundle may have", .{});
    if (file.mode.value != 0o644 and file.mode.value != 0o755) host.refuse("{s}: mode is neither 420 nor 493", .{path});
    if (size > max_bundle or stored_size > size) host.refuse("{s}: its sizes are not possible", .{path});
    if (trust.hexadecimal(32, file.sha256.text) == null or trust.hexadecimal(32, file.stored_sha256.text) == null)
        host.refuse("{s}: a digest is not 64 lower-case hexadecimal digits", .{path});
    if (!identity and !eql(file.encoding.text, "zstd")) host.refuse("{s}: its encoding is not known", .{path});
    if (identity and (size != stored_size or !eql(file.sha256.text, file.stored_sha256.text)))
        host.refuse("{s}: stored as it is, but with another size or digest", .{path});
}

/// No two are one, and none is a folder of another, also when case is ignored and with `.zst` behind; the container's
/// own two entries count among them.
fn checkPaths(files: []const Raw.File) void {
    for (files, 0..) |file, i| {
        const path = file.path.text;
        if (i > 0 and !before(files[i - 1].path.text, path))
            host.refuse("{s} does not come after the file before it", .{path});
        checkBeside(path, "manifest.json");
        checkBeside(path, "manifest.sig");
        for (files, 0..) |other, k| if (k != i) checkBeside(path, other.path.text);
    }
}

fn checkBeside(path: []const u8, other: []const u8) void {
    if (isName(path, other)) host.refuse("{s} cannot stand beside {s}", .{ path, other });
    for (path, 0..) |c, i|
        if (c == '/' and isName(path[0..i], other)) host.refuse("{s} lies below the file {s}", .{ path, other });
}

/// Whether `name` is `path`, or what `path` is called where it is stored compressed.
fn isName(name: []const u8, path: []const u8) bool {
    if (!std.ascii.startsWithIgnoreCase(name, path)) return false;
    return name.len == path.len or std.ascii.eqlIgnoreCase(name[path.len..], ".zst");
}

pub fn isPath(path: []const u8) bool {
    if (path.len > max_path) return false;
    var segments = std.mem.splitScalar(u8, path, '/');
    var count: usize = 0;
    while (segments.next()) |segment| : (count += 1)
        if (segment.len == 0 or segment[0] == '.' or !isMadeOf(segment, "._+-")) return false;
    return count <= max_segments;
}

pub fn isApplication(text: []const u8) bool {
    return isLabel(text, "._-") and !hasUpper(text);
}

/// An alphanumeric character and up to 63 that may also be one of `others`.
fn isLabel(text: []const u8, others: []const u8) bool {
    return text.len >= 1 and text.len <= 64 and std.ascii.isAlphanumeric(text[0]) and isMadeOf(text, others);
}

fn isMadeOf(text: []const u8, others: []const u8) bool {
    for (text) |c| if (!std.ascii.isAlphanumeric(c) and std.mem.findScalar(u8, others, c) == null) return false;
    return true;
}

fn hasUpper(text: []const u8) bool {
    for (text) |c| if (std.ascii.isUpper(c)) return true;
    return false;
}

/// Two to four numbers of one to five digits.
fn isDotted(text: []const u8) bool {
    var numbers = std.mem.splitScalar(u8, text, '.');
    var count: usize = 0;
    while (numbers.next()) |number| : (count += 1) {
        if (number.len == 0 or number.len > 5) return false;
        for (number) |c| if (!std.ascii.isDigit(c)) return false;
    }
    return count >= 2 and count <= 4;
}

fn isFeature(text: []const u8) bool {
    return text.len >= 1 and text.len <= 32 and isMadeOf(text, "_") and !hasUpper(text);
}

fn eql(a: []const u8, b: []const u8) bool {
    return std.mem.eql(u8, a, b);
}

fn before(a: []const u8, b: []const u8) bool {
    return std.mem.order(u8, a, b) == .lt;
}

// ----------------------------------------------------------------------------------------------------- canonical text

/// The text that would be written, compared as it comes.
const Canonical = struct {
    expected: []const u8,
    same: bool = true,

    fn put(self: *Canonical, text: []const u8) void {
        self.same = self.same and std.mem.startsWith(u8, self.expected, text);
        if (self.same) self.expected = self.expected[text.len..];
    }

    fn string(self: *Canonical, before_it: []const u8, value: json.Text) void {
        for (value.text) |c| self.same = self.same and c >= 0x20 and c <= 0x7e and c != '"' and c != '\\';
        self.put(before_it);
        self.put("\"");
        self.put(value.text);
        self.put("\"");
    }

    fn number(self: *Canonical, before_it: []const u8, value: json.Number) void {
        var digits: [20]u8 = undefined;
        self.put(before_it);
        self.put(std.fmt.bufPrint(&digits, "{d}", .{value.value}) catch unreachable);
    }
};

/// Keys in the order of their bytes.
fn isCanonical(raw: Raw, text: []const u8) bool {
    var c: Canonical = .{ .expected = text };
    c.string("{\"application\":", raw.application);
    c.number(",\"counter\":", raw.counter);
    c.put(",\"files\":[");
    for (raw.files, 0..) |file, i| {
        c.string(if (i == 0) "{\"encoding\":" else ",{\"encoding\":", file.encoding);
        c.number(",\"mode\":", file.mode);
        c.string(",\"path\":", file.path);
        c.string(",\"sha256\":", file.sha256);
        c.number(",\"size\":", file.size);
        c.string(",\"stored_sha256\":", file.stored_sha256);
        c.number(",\"stored_size\":", file.stored_size);
        c.put("}");
    }
    c.number("],\"format\":", raw.format);
    c.string(",\"requires\":{\"arch\":", raw.requires.arch);
    c.string(",\"glibc\":", raw.requires.glibc);
    c.put(",\"isa\":[");
    for (raw.requires.isa, 0..) |name, i| c.string(if (i == 0) "" else ",", name);
    c.string("],\"libstdcxx\":", raw.requires.libstdcxx);
    c.string("},\"version\":", raw.version);
    c.put("}");
    return c.same and c.expected.len == 0;
}
