"""The readers of single samples, one table: what a list or a folder names becomes rows of the model's shape, not yet scaled.

- A reader gets a path, or for jsonl the numbers themselves, and gives [k, *shape]: one row, or one for each frame of a recording.
- It raises InputRejected for a sample that can't be read; such a one may be left out with --skip-bad.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.contract import Contract
from edgekit.core.types import TensorSpec
from edgekit.data import audio, images
from edgekit.data.arrays import Array, open_npy
from edgekit.data.parts import fixed_shape, wrong_shape
from edgekit.data.preprocess import framed, laid_out
from edgekit.data.raw import open_bin, widened
from edgekit.errors import InputRejected

Reader = Callable[[Any, Contract, TensorSpec], Array]

# A JSON number may be written in more digits than it has; no input needs more than these.
_JSON_TYPES = {"f": np.dtype(np.float64), "i": np.dtype(np.int64), "u": np.dtype(np.int64), "b": np.dtype(np.bool_)}


def _image(path: Path, contract: Contract, spec: TensorSpec) -> Array:
    assert contract.image is not None
    row = laid_out(images.read_image(path, contract.image)[np.newaxis], "HWC", contract.layout)
    if row.shape[1:] != fixed_shape(spec):
        raise InputRejected(
            f"becomes {list(row.shape[1:])}, but input '{spec.name}' takes {list(spec.shape)}",
            where=str(path),
            next_step="write resize and size, or crop, in data.toml",
        )
    return row


def _audio(path: Path, contract: Contract, spec: TensorSpec) -> Array:
    assert contract.audio is not None
    return laid_out(framed(audio.read_sound(path, contract.audio), contract.audio), "TC", contract.layout)


def _array(path: Path, contract: Contract, spec: TensorSpec) -> Array:
    return as_row(open_npy(path).mapped().copy(), spec, str(path))


def _bin(path: Path, contract: Contract, spec: TensorSpec) -> Array:
    assert contract.raw is not None
    stored = open_bin(path, contract.raw)
    if stored.shape[0] != 1:
        raise InputRejected(f"holds {stored.shape[0]} samples, not one", where=str(path))
    return as_row(widened(stored.mapped()[0].copy(), contract.raw, str(path)), spec, str(path))


def _jsonl(value: Any, contract: Contract, spec: TensorSpec) -> Array:
    """Nested numbers. Fractions for an input of whole numbers are refused unless arithmetic is declared."""
    what = f"'{spec.name}'"
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputRejected(f"{what} is not an array: its rows differ in length or hold no numbers") from error
    kind = "f" if "float" in spec.dtype or contract.has_arithmetic else "b" if spec.dtype == "bool" else "i"
    if array.dtype.kind not in {"f": "iuf", "i": "iu", "b": "b"}[kind] and array.size:
        raise InputRejected(f"{what} holds {_json_kind(array)}, but the model takes {spec.dtype}")
    if array.dtype.kind == "u" and kind == "i":
        raise InputRejected(f"{what} holds a number above {2**63 - 1}")
    return as_row(array.astype(_JSON_TYPES[kind]), spec, what)


def _json_kind(array: Array) -> str:
    """In the words of JSON; NumPy makes floats of numbers that no integer type holds together."""
    return {"f": "fractions or numbers beyond 64 bits", "b": "true and false", "i": "numbers", "u": "numbers"}.get(
        array.dtype.kind, "text, null or numbers beyond 64 bits"
    )


def as_row(array: Array, spec: TensorSpec, where: str) -> Array:
    """One sample as [1, *shape]; a batch axis of 1 may be left out. Raises InputRejected for another shape, or NaN and infinity."""
    shape = fixed_shape(spec)
    if array.shape != shape and not (shape[:1] == (1,) and array.shape == shape[1:]):
        raise wrong_shape(where, array.shape, spec)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputRejected("holds values that are not finite", where=where)
    return array.reshape(1, *shape)


SAMPLE_READERS: Mapping[str, Reader] = {
    "array": _array,
    "image": _image,
    "audio": _audio,
    "bin": _bin,
    "jsonl": _jsonl,
}
