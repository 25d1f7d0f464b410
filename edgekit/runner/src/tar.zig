//! The 512 bytes before each entry of a bundle. They are made and compared, never read (POSIX ustar).

const std = @import("std");

pub const block = 512;

/// Where the size stands, eleven octal digits: the one field read from a header, from the first.
pub const size_field = .{ 124, 135 };

pub fn header(name: []const u8, mode: u32, size: u64) [block]u8 {
    var h: [block]u8 = @splat(0);
    @memcpy(h[0..name.len], name);
    octal(h[100..107], mode);
    octal(h[108..115], 0); // uid
    octal(h[116..123], 0); // gid
    octal(h[size_field[0]..size_field[1]], size);
    octal(h[136..147], 0); // mtime
    @memset(h[148..156], ' '); // the checksum counts as spaces
    h[156] = '0'; // a regular file
    @memcpy(h[257..265], "ustar\x0000");
    octal(h[329..336], 0); // device numbers
    octal(h[337..344], 0);
    var sum: u32 = 0;
    for (h) |byte| sum += byte;
    octal(h[148..154], sum);
    h[154] = 0;
    return h;
}

/// Zero bytes that fill an entry of `size` bytes up to a block.
pub fn padding(size: u64) usize {
    return @intCast((block - size % block) % block);
}

fn octal(field: []u8, number: u64) void {
    var rest = number;
    var i = field.len;
    while (i > 0) : (rest /= 8) {
        i -= 1;
        field[i] = '0' + @as(u8, @intCast(rest % 8));
    }
    std.debug.assert(rest == 0);
}
