"""Whether two sets of outputs of one artifact agree: the same model run on a device and here."""

import numpy as np

from edgekit.core.accuracy import Agreement, OutputSet
from edgekit.data.arrays import Array
from edgekit.data.outputs import Outputs, blocks, check_fit


def agree(own: OutputSet, base: OutputSet) -> Agreement:
    """Count the samples that are equal bit for bit, and the decisions that differ. Raises InputRejected as `check_fit` does.

    The decision of a float output with two or more scores along its last axis is the highest one (argmax); with a single value,
    whether it is above one half; of an integer or bool output, its value.
    """
    left, right = Outputs(own), Outputs(base)
    check_fit(left, right)
    identical = decisions = flipped = 0
    largest = 0.0
    for rows in blocks(left, right):
        a, b = left.read(rows), right.read(rows)
        same = np.ones(rows.stop - rows.start, dtype=bool)
        for name, base_values in b.items():
            values = a[name]
            if values.shape != base_values.shape:
                same[:] = False
                decisions += 1
                flipped += 1
                continue
            same &= _same_bytes(values, base_values)
            largest = max(largest, _largest_difference(values, base_values))
            differs = _decide(values) != _decide(base_values)
            decisions += differs.size
            flipped += int(differs.sum())
        identical += int(same.sum())
    return Agreement(left.count, identical, decisions, flipped, largest)


def _same_bytes(a: Array, b: Array) -> Array:
    """By sample; a NaN equals itself."""
    rows = (len(a), -1)
    x, y = (np.ascontiguousarray(v).reshape(rows).view(np.uint8) if v.size else np.zeros((len(a), 0)) for v in (a, b))
    same: Array = (x == y).all(axis=1)
    return same


def _largest_difference(a: Array, b: Array) -> float:
    with np.errstate(all="ignore"):
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
    return float(np.max(gap, where=np.isfinite(gap), initial=0.0))


def _decide(values: Array) -> Array:
    if values.dtype.kind != "f":
        return values
    if values.ndim > 1 and values.shape[-1] > 1:
        decided: Array = values.argmax(axis=-1)
        return decided
    above: Array = values > 0.5
    return above
