//! The Zig part of libekrun: the reader of deployment.json, and nothing of the bundle's container.

const std = @import("std");
const host = @import("host.zig");

pub const panic = host.panic;
pub const std_options: std.Options = .{ .enable_segfault_handler = false };

comptime {
    _ = @import("deployment.zig");
}
