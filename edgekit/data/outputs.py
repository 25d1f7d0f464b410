"""What `ekrun run` left, read a block of samples at a time; a sample's outputs may differ in shape from the next one's."""

import math
from collections.abc import Iterator

import numpy as np

from edgekit.core.accuracy import OutputSet
from edgekit.data.arrays import Array, StoredArray, open_npy
from edgekit.data.feed import BLOCK_BYTES
from edgekit.errors import InputRejected


class Outputs:
    """An OutputSet opened: `read(rows)` gives arrays by name. Raises InputRejected when its files do not agree."""

    def __init__(self, outputs: OutputSet) -> None:
        lengths = {len(column) for column in (outputs.names, outputs.dtypes, outputs.files, outputs.shapes)}
        if lengths != {len(outputs.names)} or not outputs.names:
            raise InputRejected("there are no outputs to score, or not one file for each")
        self.arrays = {name: open_npy(file) for name, file in zip(outputs.names, outputs.files, strict=True)}
        self.bfloat16 = {n for n, dtype in zip(outputs.names, outputs.dtypes, strict=True) if dtype == "bfloat16"}
        self.shapes = {n: shapes for n, shapes in zip(outputs.names, outputs.shapes, strict=True) if shapes is not None}
        self.ends = {name: np.cumsum([0, *(math.prod(s) for s in shapes)]) for name, shapes in self.shapes.items()}
        counts = {self._count(name, array) for name, array in self.arrays.items()}
        if len(counts) != 1 or 0 in counts:
            raise InputRejected(f"outputs hold {sorted(counts)} samples", where=str(outputs.files[0].parent))
        self.count = counts.pop()

    def _count(self, name: str, array: StoredArray) -> int:
        if name not in self.shapes:
            return array.shape[0] if array.shape else 0
        if array.shape != (int(self.ends[name][-1]),):
            raise InputRejected("does not hold what its samples' shapes add up to", where=array.where)
        return len(self.shapes[name])

    def read(self, rows: slice) -> dict[str, Array]:
        return {
            name: self._widened(name, self._rows(name, array.mapped(), rows)) for name, array in self.arrays.items()
        }

    def _rows(self, name: str, mapped: Array, rows: slice) -> Array:
        if name not in self.shapes:
            return mapped[rows].copy()
        i = rows.start
        return mapped[self.ends[name][i] : self.ends[name][i + 1]].reshape(1, *self.shapes[name][i]).copy()

    def _widened(self, name: str, values: Array) -> Array:
        return (values.astype(np.uint32) << 16).view(np.float32) if name in self.bfloat16 else values

    @property
    def row_bytes(self) -> int:
        return sum(8 * math.prod(a.shape) for a in self.arrays.values()) // self.count


def check_fit(own: Outputs, base: Outputs) -> None:
    """Raises InputRejected when the two do not hold the same outputs of as many samples."""
    if set(own.arrays) != set(base.arrays):
        raise InputRejected(f"the outputs are {sorted(own.arrays)}, the reference's {sorted(base.arrays)}")
    if own.count != base.count:
        raise InputRejected(f"{own.count} samples of outputs against {base.count} of the reference")


def blocks(own: Outputs, base: Outputs) -> Iterator[slice]:
    """Consecutive rows; one at a time when any output is ragged."""
    ragged = own.shapes or base.shapes
    step = 1 if ragged else max(1, BLOCK_BYTES // max(1, own.row_bytes, base.row_bytes))
    for start in range(0, base.count, step):
        yield slice(start, min(start + step, base.count))
