"""One figure of two runs: how far apart, how sure, and what may be said of it. Pure."""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

LATENCY, TAIL, THROUGHPUT = "p50 latency", "p99 latency", "throughput"
MEMORY, COLD_START, SIZE, SCORE = "peak memory", "cold start", "size", "score"


class Shown(StrEnum):
    """What may be said of a difference."""

    BETTER = "better"
    WORSE = "worse"
    NOT_SHOWN = "no difference shown"
    EQUAL = "equal"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Delta:
    """One figure of two runs. `change` is after / before - 1, of a score after - before; `low`..`high` its 95 % interval.

    `unit` of a score is its metric. `low` and `high` are None where no interval is known. `rising_is_worse` tells a cost from a
    yield, `basis` what was compared.
    """

    figure: str
    unit: str
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    rising_is_worse: bool
    shown: Shown
    basis: str

    @property
    def worsening(self) -> tuple[float, float, float] | None:
        """By how much `after` is worse, at least and at most: positive is worse. None where the ends are not known."""
        if self.change is None or self.low is None or self.high is None:
            return None
        return (self.change, self.low, self.high) if self.rising_is_worse else (-self.change, -self.high, -self.low)


def ratio_delta(
    name: str, unit: str, before: float | None, after: float | None, middle: float, reach: float, basis: str
) -> Delta:
    """A factor by its logarithm and how far that may be off to either side."""
    change, low, high = (math.expm1(x) for x in (middle, middle - reach, middle + reach))
    made = Delta(name, unit, before, after, change, low, high, name != THROUGHPUT, Shown.UNKNOWN, basis)
    return replace(made, shown=judged(made))


def judged(delta: Delta) -> Shown:
    """Different where the interval leaves out no change at all, on the side it lies on."""
    if delta.worsening is None:
        return Shown.UNKNOWN
    _, low, high = delta.worsening
    if low == high == 0:
        return Shown.EQUAL
    return Shown.WORSE if low > 0 else Shown.BETTER if high < 0 else Shown.NOT_SHOWN


def unknown(name: str, unit: str, before: float | None, after: float | None, why: str) -> Delta:
    """Two values, of which nothing may be said, and why."""
    return Delta(name, unit, before, after, None, None, None, name != THROUGHPUT, Shown.UNKNOWN, why)
