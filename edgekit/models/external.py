"""External data: weights that a model keeps in files beside it.

- a location is untrusted: it stays inside the model's folder, and only regular files with one name are read, never through
  a symbolic or hard link (onnx and ONNX Runtime disagree on links, and a link can point at anything);
- ranges are read here, never by an engine, so that an engine only ever opens files edgekit wrote;
- up to INLINE_LIMIT the weights go into the protobuf; beyond, into one file beside the model, copied in blocks.
"""

import math
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from edgekit.errors import InputRejected
from edgekit.models.graph import element_bits, stored_tensors
from edgekit.models.preflight import nan_found

INLINE_LIMIT = 1 << 30
MAX_TOTAL_BYTES = 16 << 30
DATA_FILE = "model.onnx.data"
_SMALL_BYTES = 1024  # tensors up to here stay in the protobuf: shape arithmetic needs them
_BLOCK_BYTES = 16 << 20
_ALIGN = 4096


@dataclass(frozen=True)
class _Range:
    """Where a tensor's bytes lie."""

    path: Path
    offset: int
    length: int


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's bytes lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _expected_bytes(tensor: TensorProto) -> int:
    if any(dim < 0 for dim in tensor.dims):
        return 0
    return (int(math.prod(tensor.dims)) * element_bits(tensor.data_type) + 7) // 8


def take_in(model: ModelProto, source: Path, folder: Path) -> int:
    """Bring the external data of the model at `source` into it, in place; returns how many bytes lay outside.

    When the model then weighs more than INLINE_LIMIT the data is copied to `folder`/DATA_FILE instead. Raises InputRejected.
    """
    tensors = [tensor for tensor in stored_tensors(model) if is_external(tensor)]
    ranges = [_locate(tensor, source) for tensor in tensors]
    total = sum(each.length for each in ranges)
    if total > MAX_TOTAL_BYTES:
        raise _refused(
            source, f"has {total} bytes of weights; at most {MAX_TOTAL_BYTES} are accepted", "use a smaller model"
        )
    inline = total + model.ByteSize() <= INLINE_LIMIT
    with ExitStack() as stack:
        sink = None if inline or not tensors else stack.enter_context((folder / DATA_FILE).open("wb"))
        for tensor, where in zip(tensors, ranges, strict=True):
            if sink is None or where.length <= _SMALL_BYTES:
                _set_bytes(tensor, b"".join(_blocks(where, source)))
            else:
                _copy_out(tensor, _checked(tensor, _blocks(where, source), source), sink)
    return total


def push_out(model: ModelProto, folder: Path) -> None:
    """Move large weights of the model to `folder`/DATA_FILE, in place, when it weighs more than INLINE_LIMIT."""
    if model.ByteSize() <= INLINE_LIMIT:
        return
    with (folder / DATA_FILE).open("ab") as sink:
        for tensor in stored_tensors(model):
            if tensor.HasField("raw_data") and len(tensor.raw_data) > _SMALL_BYTES:
                _copy_out(tensor, iter([tensor.raw_data]), sink)


def _refused(source: Path, what: str, next_step: str) -> InputRejected:
    return InputRejected(what, where=str(source), next_step=next_step)


def _locate(tensor: TensorProto, source: Path) -> _Range:
    """Check a tensor's location, then its range. Raises InputRejected."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = _safe_path(entries.get("location", ""), source)
    size = _check_data_file(path, source)
    try:
        offset, stated = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
    except ValueError as error:
        raise _refused(source, f"weight '{tensor.name}' has a malformed external range", "export it again") from error
    length = _expected_bytes(tensor)
    if offset < 0 or offset + length > size or stated not in (-1, length):
        what = f"external data '{path.name}' is too short for weight '{tensor.name}' ({size} bytes, needs {offset + length})"
        raise _refused(source, what, "copy or export the data file again")
    return _Range(path, offset, length)


def _safe_path(location: str, source: Path) -> Path:
    parts = PurePosixPath(location)
    outside = parts.is_absolute() or ".." in parts.parts or "\\" in location or ":" in location or "\0" in location
    if not location or outside or "_ORT_MEM_ADDR_" in location:
        what = f"its external data location '{location}' leaves the model's folder"
        raise _refused(
            source, what, "save the model with its data beside it: onnx.save(..., save_as_external_data=True)"
        )
    return source.parent / parts


def _check_data_file(path: Path, source: Path) -> int:
    """Size of a data file that is regular, has one name, and lies in the model's folder without symbolic links."""
    try:
        found = path.lstat()
    except OSError as error:
        what = f"its external data file '{path.name}' is missing"
        raise _refused(source, what, f"put it beside the model, in {source.parent}") from error
    linked = path.parent.resolve() != source.parent.resolve() / path.parent.relative_to(source.parent)
    if stat.S_ISLNK(found.st_mode) or linked or found.st_nlink > 1:
        kind = "hard link" if stat.S_ISREG(found.st_mode) and not linked else "symbolic link"
        raise _refused(
            source,
            f"its external data '{path.name}' is a {kind}",
            f"copy the real files: {_copy_command(source, path)}",
        )
    if not stat.S_ISREG(found.st_mode):
        raise _refused(
            source, f"its external data '{path.name}' is not a regular file", "put the real file beside the model"
        )
    return found.st_size


def _copy_command(source: Path, path: Path) -> str:
    """A shell command that copies a model and its data as real files."""
    if path.parent != source.parent:
        return f"cp -rL -- {shlex.quote(str(source.parent))} real"
    return f"mkdir real && cp -L -- {shlex.quote(str(source))} {shlex.quote(str(path))} real/"


def _blocks(where: _Range, source: Path) -> Iterator[bytes]:
    """The bytes of a range, in blocks; the file is opened without following a link."""
    handle = os.open(where.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        stream.seek(where.offset)
        left = where.length
        while left > 0:
            block = stream.read(min(left, _BLOCK_BYTES))
            if not block:
                raise _refused(source, f"its external data '{where.path.name}' shrank while it was read", "try again")
            left -= len(block)
            yield block


def _checked(tensor: TensorProto, blocks: Iterator[bytes], source: Path) -> Iterator[bytes]:
    """Pass blocks through, refusing NaN: _BLOCK_BYTES is a multiple of every element size."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    for block in blocks:
        if dtype.kind in "fV" and element_bits(tensor.data_type) >= 8 and np.isnan(np.frombuffer(block, dtype)).any():
            raise nan_found(tensor.name, source)
        yield block


def _set_bytes(tensor: TensorProto, data: bytes) -> None:
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = data


def _copy_out(tensor: TensorProto, blocks: Iterator[bytes], sink: BinaryIO) -> None:
    """Append the blocks to `sink` on a page boundary and make the tensor point at them."""
    sink.seek(0, os.SEEK_END)
    offset = -(-sink.tell() // _ALIGN) * _ALIGN
    sink.write(b"\0" * (offset - sink.tell()))
    length = sum(sink.write(block) for block in blocks)
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", DATA_FILE), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
