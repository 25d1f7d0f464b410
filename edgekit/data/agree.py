"""Whether two sets of outputs of one artifact agree: the same model run on a device and here."""

import numpy as np

from edgekit.core.accuracy import Agreement, OutputSet
from edgekit.data.arrays import Array
from edgekit.data.outputs import Outputs, blocks, check_fit
from edgekit.errors import InputRejected

# A single number decides nothing by itself; it counts as flipped when it moves by more than this share of the largest here.
MOVED = 0.01


def agree(own: OutputSet, base: OutputSet) -> Agreement:
    """Count the samples that are equal bit for bit, and the decisions that differ from this host's, `base`.

    The decision of a float output with two or more scores along its last axis is the highest one (argmax); of an integer or bool
    output its value; of any other float whether it stayed within MOVED. Values that are finite in `base` only, and outputs of
    another shape, always count as flipped. Raises InputRejected when the two are not outputs of one model on the same samples.
    """
    left, right = Outputs(own), Outputs(base)
    check_fit(left, right)
    tally = _Tally()
    for rows in blocks(left, right):
        tally.add(left.read(rows), right.read(rows), rows.stop - rows.start)
    return Agreement(left.count, tally.identical, tally.decisions, tally.flipped, tally.nonfinite, tally.largest)


class _Tally:
    """Counts over blocks of samples."""

    def __init__(self) -> None:
        self.identical = self.decisions = self.flipped = self.nonfinite = 0
        self.largest = 0.0

    def add(self, own: dict[str, Array], base: dict[str, Array], samples: int) -> None:
        same = np.ones(samples, dtype=bool)
        for name, b in base.items():
            a = own[name]
            if a.dtype != b.dtype:
                raise InputRejected(f"output is {a.dtype} there and {b.dtype} here", where=name)
            if a.shape != b.shape:
                same[:] = False
                self.decisions += samples
                self.flipped += samples
                continue
            same &= _same_bytes(a, b)
            self._compare(a, b)
        self.identical += int(same.sum())

    def _compare(self, a: Array, b: Array) -> None:
        lost = np.isfinite(b) & ~np.isfinite(a) if b.dtype.kind == "f" else np.zeros(b.shape, dtype=bool)
        self.nonfinite += int(lost.sum())
        with np.errstate(all="ignore"):
            gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        self.largest = max(self.largest, float(np.max(gap, where=np.isfinite(gap), initial=0.0)))
        differs = _differs(a, b, gap, lost)
        self.decisions += differs.size
        self.flipped += int(differs.sum())


def _differs(a: Array, b: Array, gap: Array, lost: Array) -> Array:
    """Decision by decision."""
    if b.dtype.kind != "f":
        changed: Array = a != b
        return changed
    if b.ndim > 1 and b.shape[-1] > 1:
        scores: Array = (a.argmax(axis=-1) != b.argmax(axis=-1)) | lost.any(axis=-1)
        return scores
    magnitude = np.abs(b.astype(np.float64))
    moved: Array = (gap > MOVED * float(np.max(magnitude, where=np.isfinite(magnitude), initial=0.0))) | lost
    return moved


def _same_bytes(a: Array, b: Array) -> Array:
    """By sample; a NaN equals itself."""
    if not a.size:
        return np.ones(len(a), dtype=bool)
    x, y = (np.ascontiguousarray(values).reshape(len(a), -1).view(np.uint8) for values in (a, b))
    same: Array = (x == y).all(axis=1)
    return same
