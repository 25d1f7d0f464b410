"""One zstd frame for each file that gets smaller by it, written and read in bounded memory.

- a frame states its content size, has a window of at most 8 MiB, no dictionary and no checksum (the manifest's digests are
  better ones): the low five bits of its descriptor are zero;
- a frame is walked block by block, so it is known where it ends and no step expands to more than 128 KiB;
- zstd with one thread and fixed parameters gives the same bytes every time, for one version of libzstd.

Source of the frame's layout: RFC 8878, sections 3.1.1.1 and 3.1.1.2.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from edgekit.errors import VerificationFailed

LEVEL: Final = 19
WINDOW_LOG: Final = 23
MAX_WINDOW: Final = 1 << WINDOW_LOG
MAX_BLOCK: Final = 128 << 10
CHUNK: Final = 1 << 20

# All that a frame's bytes depend on beside the content.
FRAME_KEY: Final = f"zstd{'.'.join(map(str, zstandard.ZSTD_VERSION))}-{LEVEL}-{WINDOW_LOG}"

_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_RLE, _COMPRESSED = 1, 2

Take = Callable[[int], bytes]  # exactly so many bytes of what is stored; refuses when they are not there


def compress(source: Path, place: Path) -> str:
    """Write `source` as one frame into `place`. Returns the frame's SHA-256.

    Raises VerificationFailed when the file does not have the size it had at first.
    """
    size = source.stat().st_size
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL,
        source_size=size,
        window_log=WINDOW_LOG,
        write_content_size=True,
        write_checksum=False,
        write_dict_id=False,
    )
    digest = hashlib.sha256()
    with source.open("rb") as reader, place.open("xb") as writer:
        for data in _compressed(parameters, size, reader, source):
            digest.update(data)
            writer.write(data)
    return digest.hexdigest()


def expand(take: Take, stored_size: int, size: int) -> Iterator[bytes]:
    """The content of the frame that the next `stored_size` bytes are, `size` bytes of it, in pieces of at most 128 KiB.

    Raises VerificationFailed for bytes that are not exactly one such frame.
    """
    frame = _Frame(take, stored_size)
    window = _check_head(frame, size)
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj(write_size=MAX_BLOCK)
    left = size - len(_decode(decoder.decompress, frame.seen))
    last = False
    while not last:
        head = frame.take(3)
        bits = int.from_bytes(head, "little")
        last, kind, length = bool(bits & 1), bits >> 1 & 3, bits >> 3
        check_block(kind, length, window)
        data = _decode(decoder.decompress, head + frame.take(1 if kind == _RLE else length))
        left -= len(data)
        check_left(left)
        yield data
    check_end(frame.left, left, decoder.eof)


def check_block(kind: int, length: int, window: int) -> None:
    """Raise VerificationFailed for a block that no frame of such a window holds."""
    if kind > _COMPRESSED or length > min(window, MAX_BLOCK):
        raise _wrong("has a block that zstd does not know")


def check_left(left: int) -> None:
    """Raise VerificationFailed when more came out than the manifest says."""
    if left < 0:
        raise _wrong("expands to more than its size")


def check_end(stored_left: int, left: int, ended: bool) -> None:
    """Raise VerificationFailed unless frame, stored bytes and content end together."""
    if stored_left:
        raise _wrong("has bytes behind its zstd frame")
    if left or not ended:
        raise _wrong("expands to less than its size")


class _Frame:
    """The stored bytes, taken piece by piece; `seen` are those of the head."""

    def __init__(self, take: Take, stored_size: int) -> None:
        self._take = take
        self.left = stored_size
        self.seen = b""

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _wrong("has a zstd frame that does not end where it should")
        self.left -= count
        return self._take(count)

    def head(self, count: int) -> bytes:
        data = self.take(count)
        self.seen += data
        return data


def _check_head(frame: _Frame, size: int) -> int:
    """Read a frame's head. Returns its window in bytes; raises VerificationFailed for one that is not allowed."""
    if frame.head(4) != _MAGIC:
        raise _wrong("is not a zstd frame")
    descriptor = frame.head(1)[0]
    check_descriptor(descriptor)
    single, size_flag = bool(descriptor & 0x20), descriptor >> 6
    window = size if single else _window(frame.head(1)[0])
    check_stated(_stated(frame, single, size_flag), size)
    check_window(window)
    return window


def check_descriptor(descriptor: int) -> None:
    """Raise VerificationFailed for a frame with a dictionary, a checksum, or bits that zstd does not use."""
    if descriptor & 0x1F:
        raise _wrong("has a zstd frame with a dictionary or a checksum")


def check_stated(stated: int | None, size: int) -> None:
    """Raise VerificationFailed unless the frame states the content size that the manifest does."""
    if stated != size:
        raise _wrong("has a zstd frame that does not state its size")


def check_window(window: int) -> None:
    """Raise VerificationFailed for a window that takes too much memory."""
    if window > MAX_WINDOW:
        raise _wrong(f"has a zstd frame with a window of more than {MAX_WINDOW >> 20} MiB")


def _window(descriptor: int) -> int:
    base = 1 << 10 + (descriptor >> 3)
    return base + base // 8 * (descriptor & 7)


def _stated(frame: _Frame, single: bool, size_flag: int) -> int | None:
    if size_flag == 0 and not single:
        return None
    stated = int.from_bytes(frame.head(1 << size_flag), "little")
    return stated + 256 if size_flag == 1 else stated


def _compressed(
    parameters: zstandard.ZstdCompressionParameters, size: int, reader: BinaryIO, source: Path
) -> Iterator[bytes]:
    frame = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=size)
    try:
        while chunk := reader.read(CHUNK):
            yield frame.compress(chunk)
        yield frame.flush()
    except zstandard.ZstdError as error:
        raise VerificationFailed("changed while it was packed", where=str(source), next_step="pack it again") from error


def _decode(decompress: Callable[[bytes], bytes], data: bytes) -> bytes:
    try:
        return decompress(data)
    except zstandard.ZstdError as error:
        raise _wrong("has a damaged zstd frame") from error


def _wrong(what: str) -> VerificationFailed:
    return VerificationFailed(what)
