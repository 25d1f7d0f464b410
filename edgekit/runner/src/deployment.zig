//! Reads deployment.json of a bundle into the C record of deployment.h.
//!
//! - keys in any order, those unknown here are left alone; its bytes are covered by the manifest's digest;
//! - paths are such as a manifest holds, so none leads out of the bundle's folder.

const std = @import("std");
const host = @import("host.zig");
const json = @import("json.zig");
const manifest = @import("manifest.zig");

const Raw = struct {
    format: json.Number,
    engine: json.Text,
    engine_version: ?json.Text = null,
    library: json.Text,
    model: json.Text,
    threads: json.Number,
    precision: json.Text,
    options: json.Pairs,
    state: json.Pairs,
    golden: ?Golden,
    latency_budget: ?Budget = null,

    const Budget = struct { percentile: json.Real, ms: json.Real };

    const Golden = struct {
        samples: json.Number,
        inputs: json.Pairs,
        reset: ?json.Text,
        outputs: []const Expected,
    };

    const Expected = struct {
        index: json.Number,
        file: json.Text,
        tolerance: json.Real,
        decisions: json.Text,
        axis: json.Integer,
        decided: Decided,
    };
};

/// Whether each decision counts: a list, or the name of a file.
const Decided = union(enum) {
    list: []const bool,
    file: json.Text,

    pub fn jsonParse(allocator: std.mem.Allocator, source: anytype, options: std.json.ParseOptions) !Decided {
        if (try source.peekNextTokenType() == .string) return .{ .file = try .jsonParse(allocator, source, options) };
        return .{ .list = try std.json.innerParse([]const bool, allocator, source, options) };
    }
};

/// DEPLOYMENT_ROOM in deployment.h.
const room_bytes = 4 << 20;

const Pairs = extern struct { items: ?[*]const json.Pair, count: usize };

const Output = extern struct {
    index: u64,
    file: [*:0]const u8,
    tolerance: [*:0]const u8,
    argmax: bool,
    axis: i64,
    decided_file: ?[*:0]const u8,
    decided: ?[*]const bool,
    decided_count: usize,
};

/// As `struct deployment` in deployment.h.
const Deployment = extern struct {
    engine: [*:0]const u8,
    library: [*:0]const u8,
    model: [*:0]const u8,
    precision: [*:0]const u8,
    reset: ?[*:0]const u8,
    threads: u64,
    samples: u64,
    options: Pairs,
    states: Pairs,
    inputs: Pairs,
    outputs: ?[*]const Output,
    output_count: usize,
    budget_percentile: ?[*:0]const u8,
    budget_ms: ?[*:0]const u8,
    engine_version: [*:0]const u8,
};

/// What is read is kept in `room`.
export fn deployment_parse(text: [*]const u8, size: usize, room: *[room_bytes]u8, deployment: *Deployment) ?[*:0]const u8 {
    host.reading = "deployment.json";
    var memory: std.heap.FixedBufferAllocator = .init(room);
    const raw = json.parse(Raw, text[0..size], memory.allocator(), true) catch |problem| return @errorName(problem);
    if (raw.format.value != 1) return "its format is not known, this ekrun reads 1";
    fill(raw, deployment, memory.allocator()) catch |problem| return @errorName(problem);
    return null;
}

const Problem = error{ OutOfMemory, NotAPath, NotADecision, NotANumberOfThreads };

fn fill(raw: Raw, deployment: *Deployment, allocator: std.mem.Allocator) Problem!void {
    if (raw.threads.value < 1 or raw.threads.value > 1024) return error.NotANumberOfThreads;
    deployment.* = .{
        .engine = raw.engine.text,
        .library = try path(raw.library),
        .model = try path(raw.model),
        .precision = raw.precision.text,
        .reset = null,
        .threads = raw.threads.value,
        .samples = 0,
        .options = pairs(raw.options),
        .states = pairs(raw.state),
        .inputs = .{ .items = null, .count = 0 },
        .outputs = null,
        .output_count = 0,
        .engine_version = if (raw.engine_version) |version| version.text else "",
        .budget_percentile = if (raw.latency_budget) |budget| budget.percentile.text else null,
        .budget_ms = if (raw.latency_budget) |budget| budget.ms.text else null,
    };
    const golden = raw.golden orelse return;
    for (golden.inputs.items) |pair| if (!manifest.isPath(std.mem.span(pair.value))) return error.NotAPath;
    deployment.samples = golden.samples.value;
    deployment.inputs = pairs(golden.inputs);
    if (golden.reset) |reset| deployment.reset = try path(reset);
    const outputs = try allocator.alloc(Output, golden.outputs.len);
    for (golden.outputs, outputs) |from, *to| to.* = try output(from);
    deployment.outputs = outputs.ptr;
    deployment.output_count = outputs.len;
}

fn output(raw: Raw.Expected) Problem!Output {
    const argmax = std.mem.eql(u8, raw.decisions.text, "argmax");
    if (!argmax and !std.mem.eql(u8, raw.decisions.text, "none")) return error.NotADecision;
    return .{
        .index = raw.index.value,
        .file = try path(raw.file),
        .tolerance = raw.tolerance.text,
        .argmax = argmax,
        .axis = raw.axis.value,
        .decided_file = if (raw.decided == .file) try path(raw.decided.file) else null,
        .decided = if (raw.decided == .list) raw.decided.list.ptr else null,
        .decided_count = if (raw.decided == .list) raw.decided.list.len else 0,
    };
}

fn path(text: json.Text) Problem![*:0]const u8 {
    return if (manifest.isPath(text.text)) text.text else error.NotAPath;
}

fn pairs(from: json.Pairs) Pairs {
    return .{ .items = from.items.ptr, .count = from.items.len };
}
