"""The 95 % interval of a drop: how far off it may be by the luck of which samples were drawn.

- What was drawn at random are samples, or whole sequences where state is carried: both sides are drawn together (paired).
- Right-or-wrong answers: Tango's score interval, at the effective sample size where several stand in a sample or a sequence.
- Any other value: the percentile bootstrap, with a fixed seed and memory of one resample at a time.
- An interval never shrinks to a point because nothing differed in a few samples.
"""

from dataclasses import dataclass

import numpy as np

from edgekit.core.clusters import clustered_interval, effective_answers
from edgekit.core.stats import paired_difference_interval
from edgekit.data.metrics.record import Array, Metric, Scores
from edgekit.data.tally import Gathered

RESAMPLES = 2000
SEED = 20261122

# A value that has many rows to look at is computed fewer times: rows x resamples stay below WORK, but for LEAST_RESAMPLES.
WORK = 400_000_000
LEAST_RESAMPLES = 200

# What a drop may be where nothing bounds it and nothing is known.
UNKNOWN = 1e9


@dataclass(frozen=True)
class Interval:
    """`effective` is the number of independent answers it rests on, None when answers are not counted."""

    low: float
    high: float
    effective: float | None = None


class PairedAnswers:
    """Right and wrong answers of both sides by sample, as long as every score is 0 or 1."""

    def __init__(self) -> None:
        self.binary = True
        self._worse: list[Array] = []
        self._better: list[Array] = []
        self._count: list[Array] = []

    def add(self, own: Array, base: Array) -> None:
        """Scores [n, positions] of a block, higher is better; NaN where nothing is asked."""
        if own.shape != base.shape:
            # Positions differ when an output's length does (ragged): no answer has its counterpart.
            self.binary = False
            return
        asked = ~np.isnan(base)
        self.binary = self.binary and bool((np.isin(own, (0, 1)) & np.isin(base, (0, 1)) | ~asked).all())
        self._worse.append((base > own).sum(axis=1))
        self._better.append((base < own).sum(axis=1))
        self._count.append(asked.sum(axis=1))

    def columns(self) -> tuple[Array, Array, Array]:
        """Worse, better and all answers, float64 [n] each."""
        worse, better, count = (
            np.concatenate(column).astype(np.float64) for column in (self._worse, self._better, self._count)
        )
        return worse, better, count


def drop_interval(
    metric: Metric, own: Gathered, base: Gathered, answers: PairedAnswers | None, starts: Array | None
) -> Interval:
    """The interval of the drop from `base`, the reference, to `own`; `starts` marks where sequences begin.

    - `answers` given (right or wrong): Tango 1998 for one answer a sample, else `core.clusters`.
    - Else the percentile bootstrap over samples or sequences (Efron and Tibshirani 1993, chapter 13; cluster bootstrap: Davison and
      Hinkley 1997, section 3.8). Sums and whole-set values of decisions are given at least what as many equal answers would have:
      a set that is too small to show a difference shows no equality.
    - One unit tells nothing: -1 to 1, or UNKNOWN where the unit is not bounded.
    """
    drop = drop_of(metric, own, base, np.ones(len(base.answers)))
    unit = units(len(base.answers), starts)
    if answers is not None:
        counted = clustered_interval(*(by_unit(column, unit).tolist() for column in answers.columns()))
        if counted is not None:
            return Interval(counted.low, counted.high, counted.effective)
    if unit[-1] == 0 or answers is not None:
        bound = 1.0 if metric.unit in ("fraction", "cosine") else UNKNOWN
        return Interval(min(-bound, drop), max(bound, drop))
    found = bootstrap(metric, own, base, unit)
    low, high = found if found is not None else (-1.0, 1.0)
    least = 0.0 if isinstance(metric.form, Scores) else _least_half_width(by_unit(base.answers, unit))
    return Interval(min(low, drop - least), max(high, drop + least))


def drop_of(metric: Metric, own: Gathered, base: Gathered, weights: Array) -> float:
    """By how much `own` is worse when each sample counts as often as `weights` says; NaN when a side has no value."""
    better, worse = (base.value, own.value) if not metric.lower_is_better else (own.value, base.value)
    return better(weights) - worse(weights) if base.value is not own.value else 0.0


def units(n: int, starts: Array | None) -> Array:
    """int64 [n]: the number of the unit each sample belongs to, itself or its sequence."""
    if starts is None:
        return np.arange(n)
    begins = starts != 0
    begins[:1] = True
    number: Array = np.cumsum(begins) - 1
    return number


def by_unit(column: Array, unit: Array) -> Array:
    """Sums over each unit's samples."""
    return np.bincount(unit, weights=column, minlength=int(unit[-1]) + 1)


def bootstrap(metric: Metric, own: Gathered, base: Gathered, unit: Array) -> tuple[float, float] | None:
    """The 2.5 and 97.5 % points of the drop over resampled units; None when most resamples have no value."""
    rng = np.random.default_rng(SEED)
    count = int(unit[-1]) + 1
    resamples = int(np.clip(WORK // max(own.rows, base.rows, count, 1), LEAST_RESAMPLES, RESAMPLES))
    drops = np.empty(resamples)
    for i in range(resamples):
        drawn = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        drops[i] = drop_of(metric, own, base, drawn[unit])
    valued = drops[np.isfinite(drops)]
    if 2 * len(valued) < resamples:
        return None
    low, high = np.percentile(valued, (2.5, 97.5))
    return float(low), float(high)


def _least_half_width(answers: Array) -> float:
    """What an interval around no difference has, of as many answers a unit."""
    sizes = answers[answers > 0].tolist()
    return paired_difference_interval(0, 0, effective_answers(sizes))[1] if len(sizes) > 1 else 1.0
