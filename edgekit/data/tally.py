"""A metric's values over all samples, kept small: the value can be had again for any weights of the samples.

- Scores and statistics become sums a sample, of which the zeros are not kept; whole-set rows are kept as they are.
- `weights` are [n], how often each sample counts: ones give the value itself, a bootstrap's draws the value of a resample.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from edgekit.data.metrics.record import Array, Evaluator, Metric, Rows, Scores, Statistics, WholeSet


class Gathered(NamedTuple):
    """One side's answers to the metric. `answers` [n] counts each sample's decisions, `rows` what a value has to look at."""

    value: Evaluator
    answers: Array
    rows: int


class Tally:
    """Takes a metric's results block by block."""

    def __init__(self, metric: Metric) -> None:
        self._sums = None if isinstance(metric.form, WholeSet) else _Sums(_value_of(metric.form))
        self._rows = _AllRows(metric.form) if isinstance(metric.form, WholeSet) else None

    def add(self, found: Array | Rows) -> None:
        """A block: scores [n, positions], statistics [n, 1 + k] or rows, as the metric's form has it."""
        if isinstance(found, Rows):
            assert self._rows is not None
            self._rows.add(found)
        else:
            assert self._sums is not None
            self._sums.add(found)

    def gathered(self) -> Gathered:
        """All blocks together."""
        kept = self._sums or self._rows
        assert kept is not None
        return kept.gathered()


def _value_of(form: Scores | Statistics) -> Callable[[Array], float] | None:
    return form.value if isinstance(form, Statistics) else None


def _mean(sums: Array) -> float:
    return float(sums[1] / sums[0]) if sums[0] else float("nan")


class _Sums:
    """Sums by sample, kept as (sample, column, amount) of what is not 0. Without `value` blocks are scores, to be averaged."""

    def __init__(self, value: Callable[[Array], float] | None) -> None:
        self._value = value
        self._blocks: list[tuple[Array, Array, Array]] = []
        self._answers: list[Array] = []
        self._count = self._width = 0

    def add(self, found: Array) -> None:
        if self._value is None:
            asked = ~np.isnan(found)
            found = np.stack([asked.sum(axis=1), np.where(asked, found, 0.0).sum(axis=1)], axis=1)
        sample, column = np.nonzero(found)
        self._blocks.append(
            ((sample + self._count).astype(np.int32), column.astype(np.int32), found[sample, column].astype(np.float64))
        )
        self._answers.append(found[:, 0].astype(np.float64))
        self._count += len(found)
        self._width = max(self._width, found.shape[1])

    def gathered(self) -> Gathered:
        sample, column, amount = (np.concatenate(part) for part in zip(*self._blocks, strict=True))
        width, of_sums = self._width, self._value or _mean

        def value(weights: Array) -> float:
            return of_sums(np.bincount(column, weights=weights[sample] * amount, minlength=width))

        return Gathered(value, np.concatenate(self._answers), len(amount))


class _AllRows:
    """Rows with the sample each one is of."""

    def __init__(self, form: WholeSet) -> None:
        self._form = form
        self._rows: list[Array] = []
        self._answers: list[Array] = []

    def add(self, found: Rows) -> None:
        self._rows.extend(found.rows)
        self._answers.append(np.asarray(found.answers, dtype=np.float64))

    def gathered(self) -> Gathered:
        rows = np.concatenate(self._rows)
        sample = np.repeat(np.arange(len(self._rows)), [len(r) for r in self._rows])
        return Gathered(self._form.value(rows, sample), np.concatenate(self._answers), len(rows))
