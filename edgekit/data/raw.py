"""Plain numbers in a .bin file: little-endian, C order, no header; what they are stands in data.toml."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.contract import RawRules
from edgekit.data.arrays import Array, StoredArray, require_regular
from edgekit.data.feed import STORAGE
from edgekit.errors import InputRejected


def open_bin(path: Path, rules: RawRules) -> StoredArray:
    """All samples of a file, [samples, *shape]. bfloat16 is still its bits. Raises InputRejected when the last one is cut."""
    size = require_regular(path)
    dtype = STORAGE[rules.dtype]
    sample = math.prod(rules.shape) * dtype.itemsize
    if size == 0 or size % sample:
        raise InputRejected(
            f"holds {size} bytes, not a whole number of samples of {list(rules.shape)} {rules.dtype}, {sample} bytes each",
            where=str(path),
            next_step="write stored_dtype and stored_shape as they are in the file",
        )
    return StoredArray(str(path), path, dtype, (size // sample, *rules.shape), False, 0)


def widened(stored: Array, rules: RawRules, where: str) -> Array:
    """bfloat16 bits as the float32 they stand for; anything else as it is. A bool must be 0 or 1. Raises InputRejected."""
    if rules.dtype == "bfloat16":
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if rules.dtype == "bool" and (stored.view(np.uint8) > 1).any():
        raise InputRejected("holds bytes above 1 where bools are declared", where=where)
    return stored


def widened_dtype(rules: RawRules) -> np.dtype[Any]:
    """The type of `widened`."""
    return np.dtype(np.float32) if rules.dtype == "bfloat16" else STORAGE[rules.dtype]
