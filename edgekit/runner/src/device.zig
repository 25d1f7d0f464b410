//! What ekrun reads on a device besides bundles (docs/device-layout.md): the line `state`, trust files, the words of a
//! self-test, names.
//!
//! - a line of state is written again and compared: there is one way to write it;
//! - what is not understood is said, and never taken for nothing.

const std = @import("std");
const host = @import("host.zig");
const json = @import("json.zig");
const manifest = @import("manifest.zig");
const trust = @import("trust.zig");

const max_counter = (1 << 53) - 1;

/// As in state.h.
const most_slots = 64;
const state_room = 32 + 65 * (1 + most_slots);

const Id = [65]u8;

/// As `struct state` in state.h.
const State = extern struct { counter: u64, trial: Id, count: usize, slots: [most_slots]Id };

/// What the line says, or why it says nothing.
export fn state_parse(text: [*]const u8, size: usize, state: *State) ?[*:0]const u8 {
    host.reading = "state";
    const line = text[0..size];
    if (!std.mem.endsWith(u8, line, "\n")) return "it is not one whole line";
    var words = std.mem.splitScalar(u8, line[0 .. size - 1], ' ');
    if (!std.mem.eql(u8, words.first(), "1")) return "its format is not known, this ekrun reads 1";
    state.* = std.mem.zeroes(State);
    state.counter = std.fmt.parseInt(u64, words.next() orelse "", 10) catch return "it has no counter";
    if (state.counter > max_counter) return "its counter is above 2^53 - 1";
    const trial = words.next() orelse return "it does not say what is on trial";
    if (!std.mem.eql(u8, trial, "-")) state.trial = id(trial) orelse return "what is on trial is no slot";
    while (words.next()) |word| {
        if (state.count == most_slots) return "it lists too many slots";
        const slot = id(word) orelse return "it lists what is no slot";
        for (state.slots[0..state.count]) |other| if (std.mem.eql(u8, &slot, &other)) return "it lists a slot twice";
        state.slots[state.count] = slot;
        state.count += 1;
    }
    if (state.count > 0 and std.mem.eql(u8, &state.slots[0], &state.trial)) return "what is confirmed is on trial";
    var again: [state_room]u8 = undefined;
    if (!std.mem.eql(u8, again[0..state_text(state, &again)], line)) return "it is not as ekrun writes it";
    return null;
}

/// The line; returns its length.
export fn state_text(state: *const State, room: *[state_room]u8) usize {
    var text: std.Io.Writer = .fixed(room);
    const trial: []const u8 = if (state.trial[0] == 0) "-" else state.trial[0..64];
    text.print("1 {d} {s}", .{ state.counter, trial }) catch unreachable;
    for (state.slots[0..state.count]) |slot| text.print(" {s}", .{slot[0..64]}) catch unreachable;
    text.writeAll("\n") catch unreachable;
    return text.end;
}

fn id(word: []const u8) ?Id {
    if (trust.hexadecimal(32, word) == null) return null;
    return word[0..64].* ++ .{0};
}

export fn is_slot(name: [*:0]const u8) bool {
    return id(std.mem.span(name)) != null;
}

export fn is_application(name: [*:0]const u8) bool {
    return manifest.isApplication(std.mem.span(name));
}

/// Rejects what is no trust file.
export fn trust_check(text: [*]const u8, size: usize) void {
    trust.check(text[0..size]);
}

const Reply = struct {
    @"error": ?struct { message: json.Text } = null,
};

const reply_room = 1 << 20;

/// What the last line of `text`, the output of a bundle's own ekrun, gives for the reason: empty when nothing.
export fn reply_words(text: [*]const u8, size: usize, words: *[512]u8) void {
    host.reading = "the check's answer";
    words[0] = 0;
    const lines = std.mem.trimEnd(u8, text[0..size], "\n");
    const last = lines[if (std.mem.findScalarLast(u8, lines, '\n')) |at| at + 1 else 0..];
    var room: std.heap.FixedBufferAllocator = .init(host.memory(reply_room));
    const reply = json.parse(Reply, last, room.allocator(), true) catch return;
    const message = if (reply.@"error") |problem| problem.message.text else return;
    const length = @min(message.len, words.len - 1);
    @memcpy(words[0..length], message[0..length]);
    words[length] = 0;
}
