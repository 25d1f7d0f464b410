"""What a search over settings comes to: front, knee, sweet spot, and the settings for each end. Pure.

- The front is of latency, throughput, memory, size and drop, by what was measured.
- An end goes to the best that meets the requirements. Points within the noise of it are equal: then the latency end goes to the
  plainest setting, the throughput end to the one with the least latency.
- The knee is where, on the front of latency and throughput, giving more of one begins to buy less of the other: the point
  farthest from the line between the two ends, on logarithms (Das, "On characterizing the 'knee' of the Pareto curve", 1999).
- The sweet spot has the least weighted sum of what each point gives away against the best there is, on logarithms: a factor of
  two costs the same wherever it is lost. What is preferred counts twice, unless weights were given.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from edgekit.core.needs import Need, limits, ruling
from edgekit.core.results import Figures, Origin
from edgekit.core.tradeoffs import Point, Setting, key
from edgekit.core.types import Prefer, Requirements

# Points whose figures differ by less are equal: less than the noise of most races, and a third of what counts as a miss.
TIE = 1.02
PREFERRED = 2.0
MEASURED = "measured"


def front(points: Sequence[Point]) -> tuple[str, ...]:
    """Keys of the points that no other one is at least as good as in everything, and better in something."""
    costs = {key(p): _costs(p) for p in points}
    return tuple(name for name, own in costs.items() if not any(_dominates(other, own) for other in costs.values()))


def _costs(point: Point) -> tuple[float, ...]:
    memory = point.peak_memory_bytes if point.peak_memory_bytes is not None else math.inf
    drop = max(point.drop or 0.0, 0.0)
    return (p50(point), -point.throughput_ips, float(memory), float(point.size_bytes), drop)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def p50(point: Point) -> float:
    """The median latency in ms; of few runs the mean, which is what there is."""
    return point.latency_ms.mean if point.latency_ms.p50 is None else point.latency_ms.p50


def figures_of(point: Point) -> Figures:
    """The numbers of a point as a choice has them."""
    memory, size = point.peak_memory_bytes, point.size_bytes
    rate, cold, latency = point.throughput_ips, point.cold_start_ms, point.latency_ms
    return Figures(Origin.TARGET, p50(point), point.ratio, rate, memory, size, cold, latency)


def fitting(points: Sequence[Point], requirements: Requirements) -> list[Point]:
    """Those that meet the stated requirements; a percentile that is not known is not met. Answers are not looked at."""
    asked = limits(requirements)
    return [point for point in points if _meets(point, asked)]


def _meets(point: Point, asked: Sequence[Need]) -> bool:
    numbers = figures_of(point)
    return all(ruling(need, numbers).admits for need in asked)


def best(points: Sequence[Point], prefer: Prefer, requirements: Requirements, tie: float = TIE) -> Point | None:
    """The point for a preference among those that meet the requirements; where none does, among all. None without points."""
    able = fitting(points, requirements) or list(points)
    if not able:
        return None
    figure, then = _ORDERS[prefer]
    least = min(map(figure, able))
    return min((p for p in able if figure(p) <= least * tie), key=lambda p: (*then(p), key(p)))


def settled_on(points: Sequence[Point], requirements: Requirements, tie: float = TIE) -> Point | None:
    """The point in which a candidate is taken: the best for what is preferred, of several preferences the sweet spot."""
    if len(requirements.weights) > 1:
        return sweet_spot(points, requirements)
    return best(points, requirements.prefer, requirements, tie)


def plainness(setting: Setting) -> tuple[float, ...]:
    """What of two equal settings is preferred: the one that asks for less. Options count first, then the rest."""
    return (len(setting.options), setting.batch, setting.streams, setting.threads, len(setting.cores))


def _memory(point: Point) -> float:
    return math.inf if point.peak_memory_bytes is None else float(point.peak_memory_bytes)


def _plain(point: Point) -> tuple[float, ...]:
    return (*plainness(point.setting), point.ratio)


def _short(point: Point) -> tuple[float, ...]:
    return (round(math.log(p50(point)) / math.log(TIE)), *plainness(point.setting), p50(point))


_ORDERS: Mapping[Prefer, tuple[Callable[[Point], float], Callable[[Point], tuple[float, ...]]]] = {
    Prefer.LATENCY: (lambda p: p.ratio, _plain),
    Prefer.THROUGHPUT: (lambda p: 1 / p.throughput_ips, _short),
    Prefer.MEMORY: (_memory, lambda p: (p.ratio,)),
    Prefer.SIZE: (lambda p: float(p.size_bytes), lambda p: (p.ratio,)),
}


def knee(points: Sequence[Point]) -> Point | None:
    """The knee of latency against throughput; None without points."""
    edge = sorted(_two_ends(points), key=p50)
    if not edge:
        return None
    x = [math.log(p50(p)) for p in edge]
    y = [math.log(p.throughput_ips) for p in edge]
    width, height = x[-1] - x[0], y[-1] - y[0]
    if width <= 0 or height <= 0:
        return edge[0]
    above = [(b - y[0]) / height - (a - x[0]) / width for a, b in zip(x, y, strict=True)]
    return edge[above.index(max(above))]


def _two_ends(points: Sequence[Point]) -> list[Point]:
    """The front of latency and throughput alone."""
    costs = [(p50(p), -p.throughput_ips) for p in points]
    return [p for p, own in zip(points, costs, strict=True) if not any(_dominates(other, own) for other in costs)]


def sweet_spot(points: Sequence[Point], requirements: Requirements) -> Point | None:
    """The balanced point among those that meet the requirements; where none does, among all. None without points."""
    able = fitting(points, requirements) or list(points)
    if not able:
        return None
    weights = weights_of(requirements)
    least = {axis: min(figure(p) for p in able) for axis, figure in _GIVEN_UP.items()}

    def given_up(point: Point) -> float:
        lost = (
            weights[axis] * math.log(figure(point) / least[axis])
            for axis, figure in _GIVEN_UP.items()
            if least[axis] > 0
        )
        return math.fsum(part for part in lost if math.isfinite(part))

    return min(able, key=lambda p: (given_up(p), plainness(p.setting), key(p)))


_GIVEN_UP: Mapping[Prefer, Callable[[Point], float]] = {
    Prefer.LATENCY: p50,
    Prefer.THROUGHPUT: lambda p: 1 / p.throughput_ips,
    Prefer.MEMORY: _memory,
    Prefer.SIZE: lambda p: float(p.size_bytes),
}


def weights_of(requirements: Requirements) -> Mapping[Prefer, float]:
    """Stated weights with 0 for the rest; else latency and throughput count once and what is preferred twice."""
    if requirements.weights:
        return {axis: requirements.weights.get(axis, 0.0) for axis in Prefer}
    usual = {Prefer.LATENCY: 1.0, Prefer.THROUGHPUT: 1.0, Prefer.MEMORY: 0.0, Prefer.SIZE: 0.0}
    return {axis: PREFERRED if axis is requirements.prefer else usual[axis] for axis in Prefer}
