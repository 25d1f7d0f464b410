"""Stored arrays: .npy, .npz members and ONNX .pb tensors, opened so that hostile files can do no harm.

- Regular files only, pickles never, and a header's shape must agree with the file's real size before anything is mapped.
- An .npz is judged by its zip directory first; its members are then unpacked to disk, not into memory.
- Rows are read through a mapping that lives for one call, so that resident memory stays bounded by what was asked for.
"""

import math
import stat
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray

from edgekit.errors import InputRejected

Array = NDArray[Any]

MAX_NPZ_BYTES = 4 << 30  # of all members, uncompressed
MAX_NPZ_MEMBERS = 4096
MAX_PB_BYTES = 1 << 30
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class StoredArray:
    """An array in a file: `where` names it in errors."""

    where: str
    path: Path
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran_order: bool
    offset: int

    def mapped(self) -> Array:
        """The whole array, mapped read-only."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        order = "F" if self.fortran_order else "C"
        # numpy's stubs take no plain str for the order
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape, order).view(np.ndarray)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True)
class Column:
    """`count` equally shaped things, read by index: `take(indices)` stacks them along a new leading axis."""

    where: str
    dtype: np.dtype[Any]
    count: int
    shape: tuple[int, ...]
    take: Callable[[Array], Array]


def by_rows(stored: StoredArray) -> Column:
    """An array as a column along its first axis. Raises InputRejected for a scalar."""
    if not stored.shape:
        raise InputRejected("is a single value, not one row a sample", where=stored.where)
    return Column(stored.where, stored.dtype, stored.shape[0], stored.shape[1:], lambda i: stored.mapped()[i])


def require_regular(path: Path) -> int:
    """The size of a regular file in bytes. Raises InputRejected for anything else: reading a FIFO would wait for ever."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not stat.S_ISREG(status.st_mode):
        raise InputRejected("is not a regular file", where=str(path))
    return status.st_size


# ------------------------------------------------------------------------------------------------------------------ npy


def open_npy(path: Path, where: str = "") -> StoredArray:
    """Open a .npy file. Raises InputRejected when it is not one, holds objects, or is not as long as its header says."""
    size = require_regular(path)
    where = where or str(path)
    with path.open("rb") as stream:
        dtype, shape, fortran_order = _read_header(stream, where)
        offset = stream.tell()
    _check_length(size - offset, dtype, shape, where)
    return StoredArray(where, path, dtype, shape, fortran_order, offset)


def _read_header(stream: IO[bytes], where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Only format 1.0: the later ones are for what is refused here anyway, and let a header be 4 GiB long."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise InputRejected(f"uses .npy format {version[0]}.{version[1]}, not 1.0", where=where)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, TypeError, SyntaxError, tokenize.TokenError, RecursionError, OverflowError) as error:
        raise InputRejected("is not a .npy array", where=where) from error
    if dtype.hasobject:
        raise InputRejected("holds pickled objects, which could run code", where=where, next_step="save plain numbers")
    if dtype.kind not in "biuf" or dtype.subdtype is not None:
        raise InputRejected(f"holds {dtype}, not plain numbers", where=where)
    if any(n < 0 for n in shape):
        raise InputRejected("has a negative dimension", where=where)
    return dtype, shape, fortran_order


def _check_length(actual: int, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> None:
    expected = math.prod(shape) * dtype.itemsize
    if actual < expected:
        raise InputRejected(f"is truncated: {actual} of {expected} bytes", where=where)
    if actual > expected:
        raise InputRejected(f"has {actual - expected} bytes more than its header says", where=where)


# ------------------------------------------------------------------------------------------------------------------ npz


def open_npz(path: Path, scratch: Path) -> dict[str, StoredArray]:
    """Open an .npz by name; members are unpacked under `scratch`. Raises InputRejected, also for a bomb."""
    require_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _checked_directory(archive, path)
            return {
                name: _unpack(archive, info, scratch / f"{i}.npy", f"{path}[{name}]")
                for i, (name, info) in enumerate(members.items())
            }
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputRejected(f"is not a readable .npz: {error}", where=str(path)) from error


def _checked_directory(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if total > MAX_NPZ_BYTES or len(infos) > MAX_NPZ_MEMBERS:
        raise InputRejected(
            f"would unpack to {len(infos)} arrays and {total >> 20} MiB, over {MAX_NPZ_MEMBERS} or {MAX_NPZ_BYTES >> 20} MiB",
            where=str(path),
            next_step="give a folder of .npy files instead",
        )
    members = {info.filename.removesuffix(".npy"): info for info in infos if info.filename.endswith(".npy")}
    if len(members) != len(infos):
        raise InputRejected("holds members that are not arrays, or one name twice", where=str(path))
    return members


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, where: str) -> StoredArray:
    """zipfile yields at most the size its directory gives and checks the CRC: a lying directory can't unpack more."""
    with archive.open(info) as member:
        dtype, shape, _ = _read_header(member, where)
        _check_length(info.file_size - member.tell(), dtype, shape, where)
    with archive.open(info) as member, target.open("wb") as out:
        while block := member.read(_COPY_BYTES):
            out.write(block)
    return open_npy(target, where)


# ------------------------------------------------------------------------------------------------------------------- pb


def read_pb(path: Path) -> Array:
    """The array of an ONNX TensorProto file; bfloat16 as uint16. Raises InputRejected when it is anything else."""
    if require_regular(path) > MAX_PB_BYTES:
        raise InputRejected(f"is larger than {MAX_PB_BYTES >> 20} MiB", where=str(path))
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise InputRejected("keeps its data in another file", where=str(path))
        array: Array = onnx.numpy_helper.to_array(tensor)
    except (DecodeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputRejected("is not an ONNX tensor", where=str(path)) from error
    if tensor.data_type == onnx.TensorProto.BFLOAT16:
        return array.view(np.uint16)
    if array.dtype.kind not in "biuf":
        raise InputRejected(f"holds {array.dtype}, not plain numbers", where=str(path))
    return array
