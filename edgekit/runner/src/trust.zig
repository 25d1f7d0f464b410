//! Whose signature counts: trust files, the signature's line, Ed25519 (RFC 8032). See docs/bundle-format.md.

const std = @import("std");
const host = @import("host.zig");
const Ed25519 = std.crypto.sign.Ed25519;

/// Begins what is signed, so that no signature over anything else holds for a manifest.
const domain = "edgekit bundle 1\n";

pub const unsigned = "unsigned\n";
pub const signed_size = "ed25519 ".len + 64 + 1 + 128 + 1;

const Line = struct { revoked: bool, key: [32]u8, name: []const u8 };

/// The name under which `text` (a trust file's) lists the key of `signature`, once the signature over `manifest` holds.
/// Null for an unsigned bundle, where that is allowed.
pub fn signer(text: []const u8, allow_unsigned: bool, signature: []const u8, manifest: []const u8) ?[]const u8 {
    check(text);
    host.reading = "manifest.sig";
    if (std.mem.eql(u8, signature, unsigned)) {
        if (!allow_unsigned) host.refuse("the bundle is not signed, and --allow-unsigned was not given", .{});
        return null;
    }
    const key, const value = parse(signature) orelse
        host.refuse("neither 'ed25519 PUBLIC-KEY SIGNATURE' in lower-case hexadecimal nor 'unsigned'", .{});
    const name = trusted(text, key);
    holds(key, value, manifest) catch host.refuse("the signature does not hold for manifest.json", .{});
    return name;
}

/// A trust file with one line that is none is no trust file: a typing error must not drop a revocation.
pub fn check(text: []const u8) void {
    host.reading = "the trust file";
    var lines = std.mem.splitScalar(u8, text, '\n');
    var number: usize = 1;
    while (lines.next()) |line| : (number += 1) {
        if (counts(line) and parseLine(line) == null)
            host.reject("line {d} is neither 'ed25519 PUBLIC-KEY NAME' nor 'revoked PUBLIC-KEY NAME'", .{number});
    }
}

fn trusted(text: []const u8, key: [32]u8) []const u8 {
    var name: ?[]const u8 = null;
    var lines = std.mem.splitScalar(u8, text, '\n');
    while (lines.next()) |text_line| {
        if (!counts(text_line)) continue;
        const line = parseLine(text_line).?;
        if (!std.mem.eql(u8, &line.key, &key)) continue;
        if (line.revoked) host.refuse("signed with key {x} '{s}', which is revoked", .{ &key, line.name });
        if (name == null) name = line.name;
    }
    return name orelse host.refuse("signed with key {x}, which the trust file does not list", .{&key});
}

fn counts(line: []const u8) bool {
    return line.len != 0 and line[0] != '#';
}

fn parseLine(line: []const u8) ?Line {
    var words = std.mem.splitScalar(u8, line, ' ');
    const kind = words.first();
    const key = hexadecimal(32, words.next() orelse return null) orelse return null;
    const name = words.next() orelse return null;
    if (words.next() != null or !isName(name)) return null;
    const revoked = std.mem.eql(u8, kind, "revoked");
    if (!revoked and !std.mem.eql(u8, kind, "ed25519")) return null;
    return .{ .revoked = revoked, .key = key, .name = name };
}

fn isName(name: []const u8) bool {
    if (name.len == 0 or name.len > 64 or !std.ascii.isAlphanumeric(name[0])) return false;
    for (name) |c| if (!std.ascii.isAlphanumeric(c) and std.mem.findScalar(u8, "._-", c) == null) return false;
    return true;
}

fn parse(line: []const u8) ?struct { [32]u8, [64]u8 } {
    if (line.len != signed_size or !std.mem.startsWith(u8, line, "ed25519 ") or line[72] != ' ' or line[201] != '\n')
        return null;
    return .{ hexadecimal(32, line[8..72]) orelse return null, hexadecimal(64, line[73..201]) orelse return null };
}

/// `size` bytes from lower-case hexadecimal.
pub fn hexadecimal(comptime size: usize, text: []const u8) ?[size]u8 {
    var bytes: [size]u8 = undefined;
    if (text.len != 2 * size) return null;
    for (text) |c| if (std.ascii.isUpper(c)) return null;
    _ = std.fmt.hexToBytes(&bytes, text) catch return null;
    return bytes;
}

/// Without the cofactor, as OpenSSL decides. Keys of small order, for which anybody can sign, are refused.
fn holds(key: [32]u8, signature: [64]u8, manifest: []const u8) !void {
    var verifier = try Ed25519.Signature.fromBytes(signature).verifier(try .fromBytes(key));
    verifier.update(domain);
    verifier.update(manifest);
    try verifier.verifyStrict();
}
