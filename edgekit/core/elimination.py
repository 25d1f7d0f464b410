"""Which points of a search over settings are still worth the machine's time, by intervals alone. Pure.

- Every point has figures by round: the median latency of its requests, and its time a sample (its streams' work together). What
  ran in the same round met the same machine: two points are compared by the rounds they share, else both through the reference,
  which runs in every round.
- A difference is sure when both 95 % intervals of the paired ratio say so: Student's on logarithms, which is honest about few
  rounds, and the bootstrap over rounds, which knows no distribution.
- A point is beaten when another one is surely faster and surely has more throughput, and needs no more memory, size or drop: then
  it is the best in no direction. Memory is compared with a tolerance, the rest as it is.
- A point contends for an end, the least latency or the most throughput, as long as no other one that fits is surely ahead there.
  What neither contends nor is beaten is on the front, and needs no more rounds than it takes to draw it.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median, stdev

from edgekit.core.clusters import t_975
from edgekit.core.relative import RelativeTime, time_ratio
from edgekit.core.stats import bootstrap_ratio_ci, median_ratio

# Fewer rounds tell nothing surely.
LEAST_ROUNDS = 3
# Resident memory differs by so much from process to process.
MEMORY_SHARE, MEMORY_BYTES = 1.02, 1 << 20

# Who is not surely behind one of so many of the best is not behind anyone.
LEADERS = 3

RoundId = tuple[int, int]  # heat, round


LATENCY = "latency"
COST = "time a sample"
AXES = (LATENCY, COST)


@dataclass(frozen=True)
class Turn:
    """What a point did in one round: latencies of its requests, and what `span_ns` they took together, of `samples` in all."""

    latencies_ns: tuple[int, ...]
    span_ns: int
    samples: int
    peak_memory_bytes: int | None = None


@dataclass
class Track:
    """A point as far as it is known.

    `figures` hold, by axis and round, the median latency of a request and the time a sample, in ms. `beaten` is why it was dropped,
    empty while it was not; `behind` are the ends that it can no longer be the best at.
    """

    name: str
    size_bytes: int
    drop: float | None
    turns: dict[RoundId, Turn] = field(default_factory=dict)
    figures: dict[str, dict[RoundId, float]] = field(default_factory=lambda: {axis: {} for axis in AXES})
    beaten: str = ""
    behind: set[str] = field(default_factory=set)

    def add(self, at: RoundId, turn: Turn) -> None:
        """Take a round's turn in."""
        self.turns[at] = turn
        self.figures[LATENCY][at] = median(turn.latencies_ns) / 1e6
        self.figures[COST][at] = turn.span_ns / turn.samples / 1e6

    @property
    def rounds(self) -> int:
        return len(self.turns)

    @property
    def memory_bytes(self) -> int | None:
        known = [turn.peak_memory_bytes for turn in self.turns.values() if turn.peak_memory_bytes is not None]
        return max(known, default=None)

    @property
    def latencies_ns(self) -> tuple[int, ...]:
        return tuple(ns for turn in self.turns.values() for ns in turn.latencies_ns)

    def middle(self, axis: str) -> float:
        """The median of the rounds' figures; infinite without rounds."""
        return median(self.figures[axis].values()) if self.turns else math.inf

    @property
    def throughput_ips(self) -> float:
        """Samples a second: the median of the rounds."""
        return median(1e3 / cost for cost in self.figures[COST].values())


@dataclass(frozen=True)
class Ratio:
    """One point's figure over another's with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x (95% {self.low:.2f} to {self.high:.2f})"


def paired(a: Track, b: Track, axis: str) -> Ratio | None:
    """By the rounds both ran, Student's interval on logarithms; None when they share too few."""
    one, other = a.figures[axis], b.figures[axis]
    shared = one.keys() & other.keys()
    if len(shared) < LEAST_ROUNDS:
        return None
    logs = [math.log(one[i] / other[i]) for i in sorted(shared)]
    half = t_975(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(fmean(logs)), math.exp(fmean(logs) - half), math.exp(fmean(logs) + half))


def compared(a: Track, b: Track, reference: Track, axis: str) -> Ratio | None:
    """`a` over `b`: paired where they met, else both against the reference; None when too little is known."""
    if (met := paired(a, b, axis)) is not None:
        return met
    one, other = paired(a, reference, axis), paired(b, reference, axis)
    if one is None or other is None:
        return None
    x, y = (RelativeTime("", r.value, r.low, r.high, False) for r in (one, other))
    found = time_ratio(x, y, 1.0)
    return Ratio(found.value, found.low, found.high)


def bootstrapped(a: Track, b: Track, axis: str, seed: int) -> Ratio:
    """Over the shared rounds: the median ratio with the interval of the bootstrap. Raises ValueError when there are none."""
    shared = sorted(a.turns.keys() & b.turns.keys())
    one, other = ([track.figures[axis][i] for i in shared] for track in (a, b))
    low, high = bootstrap_ratio_ci(one, other, seed)
    return Ratio(median_ratio(one, other), low, high)


def surely_more(a: Track, b: Track, reference: Track, axis: str, factor: float = 1.0) -> Ratio | None:
    """The ratio when `a`'s figure is surely more than `factor` times `b`'s, else None."""
    found = compared(a, b, reference, axis)
    if found is None or found.low <= factor or not _resampled_too(a, b, axis, factor):
        return None
    return found


def _resampled_too(a: Track, b: Track, axis: str, factor: float) -> bool:
    """Whether the bootstrap agrees, where both met: it costs the most, so it is asked last."""
    met = len(a.turns.keys() & b.turns.keys()) >= LEAST_ROUNDS
    return not met or bootstrapped(a, b, axis, 0).low > factor


def beaten_by(point: Track, other: Track, reference: Track) -> str:
    """Why `other` leaves nothing for `point` to be the best in, or an empty string."""
    if other is point or not _no_larger(other, point):
        return ""
    words = []
    for axis in AXES:
        ratio = compared(point, other, reference, axis)
        if ratio is None or ratio.low <= 1.0:
            return ""
        words.append(f"{axis} {ratio}")
    if not all(_resampled_too(point, other, axis, 1.0) for axis in AXES):
        return ""
    return f"{', '.join(words)} of {other.name}"


def _no_larger(other: Track, point: Track) -> bool:
    """Whether the other costs no more in what does not depend on the moment."""
    if other.size_bytes > point.size_bytes or max(other.drop or 0.0, 0.0) > max(point.drop or 0.0, 0.0):
        return False
    theirs, own = other.memory_bytes, point.memory_bytes
    return own is None or theirs is None or theirs <= max(own * MEMORY_SHARE, own + MEMORY_BYTES)


def eliminate(tracks: Sequence[Track], reference: Track, fresh: Collection[str] | None = None) -> list[Track]:
    """Mark as beaten who is by another one that is not; returns them. The reference stays.

    `fresh` names those that ran since the last time: of two that did not, nothing new is known.
    """
    known = sorted((t for t in tracks if not t.beaten and t.rounds >= LEAST_ROUNDS), key=_merit)
    gone = []
    for point in reversed(known):
        is_fresh = fresh is None or point.name in fresh
        others = (t for t in known if not t.beaten and (is_fresh or fresh is None or t.name in fresh))
        if point is not reference:
            point.beaten = next((why for other in others if (why := beaten_by(point, other, reference))), "")
        if point.beaten:
            gone.append(point)
    return gone


def _merit(track: Track) -> float:
    """A rough order, best first: those that beat others are found soonest."""
    return math.fsum(math.log(track.middle(axis)) for axis in AXES)


def fall_behind(tracks: Sequence[Track], reference: Track, axis: str) -> None:
    """Mark who can no longer have the least figure among `tracks`: another one is surely ahead."""
    racing = [t for t in tracks if not t.beaten and axis not in t.behind and t.rounds >= LEAST_ROUNDS]
    ahead = sorted(racing, key=lambda t: t.middle(axis))[:LEADERS]
    for track in racing:
        if any(surely_more(track, best, reference, axis) for best in ahead if best is not track):
            track.behind.add(axis)
