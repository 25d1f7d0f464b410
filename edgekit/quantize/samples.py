"""Calibration feeds from the feed layout (`edgekit.data.read`), one sample at a time, with state carried. Runs in the sandbox only.

- `<i>.npy` holds the model's input i as [N, *shape]; of a state input it holds what a sequence starts with;
- `reset.npy`, if there is one, says with a 1 where a sequence starts; without it all samples are one sequence;
- a sample is read when it is asked for, so that memory does not grow with their number.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekit.data.arrays import Array, Column, by_rows, open_npy
from edgekit.errors import InputRejected

RESET = "reset.npy"


class Samples:
    """The samples of one split for a model's `inputs`; `state` maps an output to the input it is fed back to.

    Raises InputRejected when there are none, the inputs disagree on how many, or state goes to an input that is not there.
    """

    def __init__(self, folder: Path, inputs: tuple[str, ...], state: Mapping[str, str]) -> None:
        strange = sorted(set(state.values()) - set(inputs))
        if strange:
            raise InputRejected(f"the model has no input '{strange[0]}' to carry state to", where=str(folder))
        self.state = dict(state)
        self.inputs = inputs
        self.files = [folder / f"{i}.npy" for i in range(len(inputs))]
        self._columns = {name: by_rows(open_npy(path)) for name, path in zip(inputs, self.files, strict=True)}
        counts = {column.count for column in self._columns.values()}
        if len(counts) != 1 or counts == {0}:
            raise InputRejected(f"calibration arrays hold {sorted(counts)} samples", where=str(folder))
        self._count = counts.pop()
        self._starts = np.arange(self._count) == 0
        if (folder / RESET).exists():
            self.files.append(folder / RESET)
            self._starts |= _marks(by_rows(open_npy(folder / RESET)), self._count)

    def __len__(self) -> int:
        return self._count

    def feed(self, index: int, carried: Mapping[str, Array]) -> dict[str, Array]:
        """Sample `index` by input name; state inputs are as `carried`, or as stored where a sequence starts."""
        kept = {} if self._starts[index] else carried
        rows = {
            name: np.asarray(column.take(np.array([index]))[0])
            for name, column in self._columns.items()
            if name not in kept
        }
        return {**rows, **kept}


def _marks(column: Column, count: int) -> Array:
    if column.count != count or column.shape:
        raise InputRejected(f"must hold one 0 or 1 for each of {count} samples", where=column.where)
    marks: Array = column.take(np.arange(count)) != 0
    return marks
