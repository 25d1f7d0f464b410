"""What was asked for, need by need, and whether a figure meets it: the one place that decides. Pure.

The choice, the search over settings, the explanation, the report and the gate ask here.

- A figure meets its limit at the limit and on the better side of it. Nothing is taken off for noise.
- What is not known meets nothing.
- A prediction that meets its limit leaves the need unproven, and so is a cold start on a target that was not measured: nothing
  predicts it. The size of an artifact is known before anything runs.
- A drop is met where `core.accuracy.feasible` says that it holds.
"""

from dataclasses import dataclass
from enum import StrEnum

from edgekit.core.accuracy import Accuracy, feasible
from edgekit.core.results import Figures, Origin
from edgekit.core.types import Requirements


class Kind(StrEnum):
    """What a need is about, and the option that states it."""

    DROP = "--max-drop"
    LATENCY = "--latency-budget"
    THROUGHPUT = "--min-throughput"
    COLD_START = "--max-cold-start"
    MEMORY = "--max-memory"
    SIZE = "--max-size"

    @property
    def word(self) -> str:
        """What it is called in a sentence."""
        return _WORDS[self]


_WORDS = {
    Kind.DROP: "drop",
    Kind.LATENCY: "latency",
    Kind.THROUGHPUT: "throughput",
    Kind.MEMORY: "peak memory",
    Kind.SIZE: "size",
    Kind.COLD_START: "cold start",
}


class Ruling(StrEnum):
    """How a candidate stands to a need; `admits` tells whether it may be chosen."""

    MET = "met"
    MISSED = "missed"
    UNPROVEN = "unproven"
    UNKNOWN = "not known"

    @property
    def admits(self) -> bool:
        return self in (Ruling.MET, Ruling.UNPROVEN)


@dataclass(frozen=True)
class Need:
    """One stated requirement: `limit` in ms, bytes, inferences a second or the metric's unit; `percentile` is of a latency."""

    kind: Kind
    limit: float
    percentile: str = ""

    @property
    def label(self) -> str:
        """What it limits: "p99 latency"."""
        return f"{self.percentile} {self.kind.word}".lstrip()

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.kind is Kind.THROUGHPUT

    def admits(self, value: float | None) -> bool:
        """Whether a figure is within the limit; of a drop the figure alone does not decide (`ruling`)."""
        return value is not None and within(value, self.limit, at_least=self.at_least)


def within(value: float, limit: float, *, at_least: bool = False) -> bool:
    """Whether a figure is at its limit or better."""
    return value >= limit if at_least else value <= limit


def needs(requirements: Requirements) -> tuple[Need, ...]:
    """All that were stated, and first max-drop, which always is."""
    return (Need(Kind.DROP, requirements.max_drop), *limits(requirements))


def limits(requirements: Requirements) -> tuple[Need, ...]:
    """Those that figures are held against."""
    r = requirements
    stated: tuple[tuple[Kind, float | None], ...] = (
        (Kind.LATENCY, r.latency.limit_ms if r.latency is not None else None),
        (Kind.THROUGHPUT, r.needed_ips),
        (Kind.MEMORY, r.max_memory_bytes),
        (Kind.SIZE, r.max_size_bytes),
        (Kind.COLD_START, r.max_cold_start_ms),
    )
    percentile = {Kind.LATENCY: r.latency.percentile} if r.latency is not None else {}
    return tuple(Need(kind, limit, percentile.get(kind, "")) for kind, limit in stated if limit is not None)


def figure(need: Need, numbers: Figures) -> float | None:
    """What a candidate has of it; None where that is not known. Raises ValueError of a drop, which is no figure of a race."""
    match need.kind:
        case Kind.LATENCY:
            return numbers.at(need.percentile)
        case Kind.THROUGHPUT:
            return numbers.throughput_ips
        case Kind.MEMORY:
            return numbers.peak_memory_bytes
        case Kind.SIZE:
            return numbers.size_bytes
        case Kind.COLD_START:
            return numbers.cold_start_ms
        case Kind.DROP:
            raise ValueError(need.kind)


def ruling(need: Need, numbers: Figures | None, accuracy: Accuracy | None = None) -> Ruling:
    """Whether a candidate of these figures meets the need; `accuracy` is what a drop is judged by."""
    if need.kind is Kind.DROP:
        return Ruling.UNKNOWN if accuracy is None else _verdict(feasible(accuracy, need.limit).ok)
    if numbers is None:
        return Ruling.UNKNOWN
    predicted = numbers.origin is not Origin.TARGET
    value = figure(need, numbers)
    if value is None:
        return Ruling.UNPROVEN if predicted and need.kind is Kind.COLD_START else Ruling.UNKNOWN
    return _verdict(need.admits(value), unproven=predicted and need.kind is not Kind.SIZE)


def _verdict(holds: bool, *, unproven: bool = False) -> Ruling:
    if not holds:
        return Ruling.MISSED
    return Ruling.UNPROVEN if unproven else Ruling.MET
