"""Stored samples to the model's tensors: checked, converted, digested and written a block at a time.

- Only casts that can't change what a sample means happen silently or with a notice; pixels 0..255 are never taken for 0..1.
- A value that is not finite, or that the model's type can't hold, is refused with the sample's number.
- bfloat16 travels as uint16, the upper half of a float32.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.contract import Contract
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column
from edgekit.data.parts import fixed_shape
from edgekit.data.preprocess import arithmetic
from edgekit.errors import InputRejected
from edgekit.store import sha256_file

BLOCK_BYTES = 16 << 20

STORAGE: dict[str, np.dtype[Any]] = {
    "bfloat16": np.dtype("<u2"),
    "bool": np.dtype("bool"),
    **{name: np.dtype(name).newbyteorder("<") for name in ("float16", "float32", "float64")},
    **{
        f"{sign}int{bits}": np.dtype(f"{sign}int{bits}").newbyteorder("<")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


def storage_dtype(spec: TensorSpec) -> np.dtype[Any]:
    """The type a tensor has in the feed layout. Raises InputRejected for one that can't be fed."""
    if spec.dtype not in STORAGE:
        raise InputRejected(
            f"input '{spec.name}' takes {spec.dtype}, which edgekit can't feed", next_step="export it with numbers"
        )
    return STORAGE[spec.dtype]


@dataclass(frozen=True)
class Feed:
    """One input's column with the tensor it becomes, by the contract that data.toml gives it, if any."""

    column: Column
    spec: TensorSpec
    contract: Contract | None

    def blocks(self, indices: Array) -> Iterator[Array]:
        """The samples at `indices` as the model's tensors, a bounded block at a time."""
        row = max(1, int(np.prod(self.column.shape)) * max(8, self.column.dtype.itemsize))
        step = max(1, BLOCK_BYTES // row)
        for start in range(0, len(indices), step):
            chosen = indices[start : start + step]
            yield convert(self.column.take(chosen), self, chosen)


def check_dtype(feed: Feed) -> str | None:
    """A notice when the stored type is cast, None when it is the model's. Raises InputRejected when the cast isn't safe."""
    stored, target = feed.column.dtype, storage_dtype(feed.spec)
    what = f"'{feed.spec.name}' is stored as {stored.name} and fed as {feed.spec.dtype}"
    if feed.contract is not None:
        return None
    if feed.spec.dtype == "bfloat16":
        if stored.kind == "u" and stored.itemsize == 2:
            return None
        if stored.kind == "f":
            return what
    elif stored.newbyteorder("<") == target:
        return None
    elif stored.kind == target.kind == "f" or (stored.kind in "iu" and target.kind in "iu"):
        return what
    raise InputRejected(
        f"is {stored.name}, but input '{feed.spec.name}' takes {feed.spec.dtype}",
        where=feed.column.where,
        next_step=f"store {feed.spec.dtype}, or declare in data.toml: [inputs] {feed.spec.name} = {{ scale = ..., offset = ... }}",
    )


def convert(stored: Array, feed: Feed, indices: Array) -> Array:
    """A block [n, *shape] in the storage type, C order. Raises InputRejected naming the first bad sample."""
    target = storage_dtype(feed.spec)
    if feed.spec.dtype == "bfloat16" and stored.dtype.kind == "u" and feed.contract is None:
        bits = stored.astype(target)
        _refuse((bits & 0x7F80) == 0x7F80, feed, indices, "is not finite")
        return np.ascontiguousarray(bits)
    _refuse(~np.isfinite(stored), feed, indices, "is not finite")
    if feed.contract is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            stored = arithmetic(stored, feed.contract)
        _refuse(~np.isfinite(stored), feed, indices, "is too large for float32")
    if feed.spec.dtype == "bfloat16":
        bits = to_bfloat16(stored)
        _refuse((bits & 0x7F80) == 0x7F80, feed, indices, "is too large for bfloat16")
        return np.ascontiguousarray(bits, target)
    if target.kind == "f":
        with np.errstate(over="ignore"):
            result = np.ascontiguousarray(stored, target)
        _refuse(~np.isfinite(result), feed, indices, f"is too large for {feed.spec.dtype}")
        return result
    if stored.dtype.kind == "f":
        stored = np.rint(stored)
    low, high = (0, 1) if target.kind == "b" else (int(np.iinfo(target).min), int(np.iinfo(target).max))
    if stored.dtype.kind != "b" and stored.size and (int(stored.min()) < low or int(stored.max()) > high):
        _refuse((stored < low) | (stored > high), feed, indices, f"does not fit {feed.spec.dtype}")
    return np.ascontiguousarray(stored, target)


def to_bfloat16(values: Array) -> Array:
    """float32 bits rounded to the nearest, ties to even, upper 16 bits kept. Finite values only."""
    with np.errstate(over="ignore"):
        bits = values.astype("<f4").view("<u4")
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    upper: Array = ((bits + rounding) >> np.uint32(16)).astype("<u2")
    return upper


def _refuse(bad: Array, feed: Feed, indices: Array, what: str) -> None:
    if bad.any():
        sample = int(indices[int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))])
        raise InputRejected(
            f"sample {sample} of input '{feed.spec.name}' holds a value that {what}", where=feed.column.where
        )


# -------------------------------------------------------------------------------------------------- digests and writing


def sample_digests(feeds: Iterable[Feed], indices: Array) -> list[bytes]:
    """One digest a sample over all its inputs as fed."""
    hashes = [hashlib.blake2b(digest_size=16) for _ in indices]
    for feed in feeds:
        rows = (row for block in feed.blocks(indices) for row in block)
        for hash_, row in zip(hashes, rows, strict=True):
            hash_.update(row.tobytes())
    return [h.digest() for h in hashes]


def write_feed(path: Path, feed: Feed, indices: Array) -> str:
    """Write [n, *shape] in C order; returns the file's sha256."""
    return write_npy(path, storage_dtype(feed.spec), (len(indices), *fixed_shape(feed.spec)), feed.blocks(indices))


def write_npy(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[Array]) -> str:
    """Write blocks of rows as one .npy, front to back; returns the sha256 of the file."""
    with path.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(block.astype(dtype, order="C", copy=False).tobytes())
    return sha256_file(path)
