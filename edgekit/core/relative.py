"""How fast one candidate is beside another, with what may be claimed of it. Pure.

- A measured ratio has the 95 % interval of its race; a difference is shown where it lies beyond that and beyond the A/A spread.
- A predicted ratio has no interval: it differs where it is beyond what the cost model tells apart, and says that it is predicted.
"""

import math
from dataclasses import dataclass

# No A/A noise excuses more than this when two candidates are called equal; a roofline can't tell finer than its own tie.
MAX_TIE = 1.03
PREDICTED_TIE = 1.1


def tie_of(spread: float | None) -> float:
    """The factor within which two candidates are equal: of a race by its A/A spread, of predictions (None) their own."""
    return PREDICTED_TIE if spread is None else min(spread, MAX_TIE)


@dataclass(frozen=True)
class RelativeTime:
    """A p50 over the reference's with its 95 % interval; both ends are the ratio itself where it was predicted."""

    name: str
    ratio: float
    low: float
    high: float
    predicted: bool


@dataclass(frozen=True)
class TimeRatio:
    """The p50 of one candidate over that of another, `base`; `noise` is the factor >= 1 that explains itself."""

    name: str
    base: str
    value: float
    low: float
    high: float
    noise: float
    predicted: bool

    @property
    def is_faster(self) -> bool:
        return self.high < 1 and self.value < 1 / self.noise

    @property
    def is_slower(self) -> bool:
        return self.low > 1 and self.value > self.noise

    @property
    def as_speed(self) -> str:
        """ "1.58x as fast as ort-fp32 (95% 1.50 to 1.66)"."""
        return f"{1 / self.value:.2f}x as fast as {self.base} ({self._interval(1 / self.high, 1 / self.low)})"

    @property
    def as_time(self) -> str:
        """ "ov-bf16 1.36x the p50 of ov-f32 (95% 1.30 to 1.42)"."""
        return f"{self.name} {self.value:.2f}x the p50 of {self.base} ({self._interval(self.low, self.high)})"

    def _interval(self, low: float, high: float) -> str:
        return "predicted" if self.predicted else f"95% {low:.2f} to {high:.2f}"


def time_ratio(a: RelativeTime, b: RelativeTime, noise: float) -> TimeRatio:
    """`a` over `b`.

    The interval of a quotient from those of its parts, on logarithms: Zou and Donner, "Construction of confidence limits about
    effect measures: a general approach", Statistics in Medicine 27 (2008). It takes the parts as independent; both share the
    reference's rounds and move together, which makes it too wide rather than too narrow.
    """
    middle = math.log(a.ratio / b.ratio)
    down = math.hypot(math.log(a.ratio / a.low), math.log(b.high / b.ratio))
    up = math.hypot(math.log(a.high / a.ratio), math.log(b.ratio / b.low))
    value, predicted = a.ratio / b.ratio, a.predicted or b.predicted
    return TimeRatio(a.name, b.name, value, math.exp(middle - down), math.exp(middle + up), noise, predicted)
