//! What std.json reads into: texts and numbers, and nothing that would pass for one.
//!
//! - std.json alone takes "1", 1.0 and 1e0 for a whole number, by way of 128-bit floats, and lists of numbers for text;
//! - texts are terminated, for C, and hold no zero byte.

const std = @import("std");
const Allocator = std.mem.Allocator;
const Options = std.json.ParseOptions;

pub const Text = struct {
    text: [:0]const u8,

    pub fn jsonParse(allocator: Allocator, source: anytype, _: Options) !Text {
        return switch (try source.nextAlloc(allocator, .alloc_if_needed)) {
            .string, .allocated_string => |text| terminated(allocator, text),
            else => error.UnexpectedToken,
        };
    }

    fn terminated(allocator: Allocator, text: []const u8) !Text {
        if (std.mem.findScalar(u8, text, 0) != null) return error.UnexpectedToken;
        return .{ .text = try allocator.dupeSentinel(u8, text, 0) };
    }
};

pub const Number = struct {
    value: u64,

    pub fn jsonParse(_: Allocator, source: anytype, _: Options) !Number {
        return switch (try source.next()) {
            .number => |digits| .{ .value = try std.fmt.parseInt(u64, digits, 10) },
            else => error.UnexpectedToken,
        };
    }
};

pub const Integer = struct {
    value: i64,

    pub fn jsonParse(_: Allocator, source: anytype, _: Options) !Integer {
        return switch (try source.next()) {
            .number => |digits| .{ .value = try std.fmt.parseInt(i64, digits, 10) },
            else => error.UnexpectedToken,
        };
    }
};

/// A number as it is written, for strtod.
pub const Real = struct {
    text: [:0]const u8,

    pub fn jsonParse(allocator: Allocator, source: anytype, _: Options) !Real {
        return switch (try source.next()) {
            .number => |digits| .{ .text = try allocator.dupeSentinel(u8, digits, 0) },
            else => error.UnexpectedToken,
        };
    }
};

/// As `struct pair` in args.h.
pub const Pair = extern struct { key: [*:0]const u8, value: [*:0]const u8 };

/// An object of texts.
pub const Pairs = struct {
    items: []const Pair,

    pub fn jsonParse(allocator: Allocator, source: anytype, options: Options) !Pairs {
        var items: std.ArrayList(Pair) = .empty;
        if (try source.next() != .object_begin) return error.UnexpectedToken;
        while (try source.peekNextTokenType() != .object_end) {
            const key: Text = try .jsonParse(allocator, source, options);
            const value: Text = try .jsonParse(allocator, source, options);
            for (items.items) |other|
                if (std.mem.eql(u8, std.mem.span(other.key), key.text)) return error.DuplicateField;
            try items.append(allocator, .{ .key = key.text, .value = value.text });
        }
        _ = try source.next();
        return .{ .items = items.items };
    }
};

/// A record of type T, its memory from `allocator`, or why there is none.
pub fn parse(comptime T: type, text: []const u8, allocator: Allocator, ignore_unknown: bool) !T {
    return std.json.parseFromSliceLeaky(T, allocator, text, .{ .ignore_unknown_fields = ignore_unknown });
}
