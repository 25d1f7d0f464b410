"""The bytes of a tar with nothing left to choose: what an entry's name, mode and size determine, and the end.

- a header is never interpreted: it is made from what the manifest says, and compared;
- the one number read from a header, the size of the first two entries, is what the signature then covers.
"""

import re
from typing import Final

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)

_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb"[0-7]{11}\0")


def header(name: str, mode: int, size: int) -> bytes:
    """The 512-byte ustar header of a regular file: name, mode, size in bytes; every other field is fixed."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,  # uid, gid
        b"%011o\0" % size,
        b"00000000000\0",  # mtime
        b" " * 8,  # the checksum counts itself as spaces
        b"0",
        bytes(100),  # linkname
        b"ustar\x0000",
        bytes(32 + 32),  # owner names
        b"0000000\0" * 2,  # device numbers
        bytes(155 + 12),  # prefix, and the rest of the block
    )
    block = b"".join(fields)
    assert len(block) == BLOCK, f"the name of an entry has more than 100 bytes: {name}"
    checksum = b"%06o\0 " % sum(block)
    return block[: _CHECKSUM.start] + checksum + block[_CHECKSUM.stop :]


def stated_size(block: bytes) -> int | None:
    """The size that a header states, in bytes; None when that is not eleven octal digits and a NUL."""
    field = block[_SIZE]
    return int(field[:-1], 8) if _OCTAL.fullmatch(field) else None


def padding(size: int) -> bytes:
    """The zeros that fill an entry of `size` bytes up to whole blocks."""
    return bytes(-size % BLOCK)


def entry(name: str, mode: int, data: bytes) -> bytes:
    """A whole entry: header, bytes, zeros."""
    return header(name, mode, len(data)) + data + padding(len(data))
