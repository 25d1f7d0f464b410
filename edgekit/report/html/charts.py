"""What the page's charts draw, as JSON: points, bins and series, each with its units, from records alone.

- Only what is drawn is sent: a long series is one median and one largest value a bucket, a distribution is its bins.
- Numbers carry four significant digits; what is not finite is not sent.
- A candidate that does not work, or that collapsed, is in no plot: its figures say nothing and would squeeze the others.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from edgekit.core.choose import figures
from edgekit.core.dossier import Profiled
from edgekit.core.profile import TracePoint
from edgekit.core.results import Origin, Outcome
from edgekit.core.run import Run
from edgekit.core.stats import percentile
from edgekit.core.tradeoffs import Exploration, Point, key
from edgekit.report.overview import cold_start, reference, subject
from edgekit.report.tables import MOST_POINTS, picks, status

MOST_BUCKETS = 600
BINS = 60
# A histogram ends at this percentile, and at so many medians of its slowest side: a long tail would squeeze all the rest.
SHOWN_SHARE, SHOWN_MEDIANS = 99.5, 4.0
LOG_FROM = 20.0  # an axis is logarithmic when its values span more than this
MIB = float(1 << 20)

Json = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """A chart: its name in the page, its title, what it shows in a sentence, and what the script draws."""

    name: str
    title: str
    caption: str
    data: Json


@dataclass(frozen=True)
class Spot:
    """What is drawn once in every plot: `group` is how, `name` what stands beside it, `intervals` 95 % ones by figure."""

    label: str
    group: str
    values: Mapping[str, float | None]
    name: str = ""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Axis:
    """One figure: its key among a spot's values, what the axis says, and whether less is better."""

    key: str
    label: str
    less: bool = True


P50 = Axis("p50", "p50 latency, ms")
DROP = Axis("drop", "drop in accuracy")
MEMORY = Axis("memory", "peak memory, MiB")
SIZE = Axis("size", "size, MiB")
COLD = Axis("cold", "cold start, ms")
RATE = Axis("rate", "samples a second", less=False)


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


# ------------------------------------------------------------------------------------------------------------ trade-offs


def tradeoffs(run: Run) -> Iterator[Chart]:
    """Candidates two figures at a time; a plot without two spots is left out."""
    spots = [_spot(run, o) for o in run.outcomes if status(run, o) in ("chosen", "feasible", "rejected")]
    r = run.requirements
    budget = r.latency.limit_ms if r.latency is not None and r.latency.percentile == "p50" else None
    memory = r.max_memory_bytes / MIB if r.max_memory_bytes else None
    size = r.max_size_bytes / MIB if r.max_size_bytes else None
    limits = {"p50": budget, "drop": r.max_drop, "memory": memory, "size": size, "cold": r.max_cold_start_ms}
    yield from _plot("accuracy", "Accuracy against latency", spots, P50, DROP, limits)
    yield from _plot("memory", "Memory against latency", spots, P50, MEMORY, limits)
    yield from _plot("size", "Accuracy against size", spots, SIZE, DROP, limits)
    yield from _plot("cold", "Cold start against latency", spots, P50, COLD, limits)


def _spot(run: Run, outcome: Outcome) -> Spot:
    f = figures(outcome, run.target_origin)
    base = reference(run)
    group = status(run, outcome)
    if group == "feasible" and outcome.name in run.choice.front:
        group = "front"
    if base is not None and base.name == outcome.name and group != "chosen":
        group = "reference"
    m, a = outcome.measurement, outcome.accuracy
    times = m.ratio_interval if m is not None and run.target_origin is Origin.TARGET else None
    return Spot(
        outcome.name,
        group,
        {
            "p50": f.p50_ms if f else None,
            "rate": f.throughput_ips if f else None,
            "drop": outcome.accuracy.drop if outcome.accuracy else None,
            "memory": f.peak_memory_bytes / MIB if f and f.peak_memory_bytes else None,
            "size": f.size_bytes / MIB if f else None,
            "cold": cold_start(run, outcome),
        },
        outcome.name if group in ("chosen", "reference") else "",
        {
            **({"p50": _around(f.p50_ms, f.ratio, times)} if f is not None and times is not None else {}),
            **({"drop": (a.ci_low, a.ci_high)} if a is not None else {}),
        },
    )


def _around(value: float, ratio: float, interval: tuple[float, float]) -> tuple[float, float]:
    """The interval of a ratio, at the figure that the ratio is of."""
    return (value * interval[0] / ratio, value * interval[1] / ratio) if ratio > 0 else (value, value)


def explored(exploration: Exploration, own: str, max_drop: float) -> Iterator[Chart]:
    """The points of a search over settings, two figures at a time; `own` is the key of the one that is run."""
    chosen, front = picks(exploration, own), set(exploration.front)
    ranked = sorted(exploration.points, key=lambda p: (key(p) not in chosen, key(p) not in front))
    spots = [_point_spot(p, chosen.get(key(p), []), key(p) in front) for p in ranked[:MOST_POINTS]]
    yield from _plot("rate", "Throughput against latency", spots, P50, RATE, {})
    yield from _plot("rate-memory", "Memory against throughput", spots, RATE, MEMORY, {})
    yield from _plot("rate-cold", "Cold start against steady latency", spots, P50, COLD, {})
    yield from _plot("rate-accuracy", "Accuracy against throughput", spots, RATE, DROP, {"drop": max_drop})


def _point_spot(point: Point, words: Sequence[str], on_front: bool) -> Spot:
    group = "chosen" if "chosen" in words else "picked" if words else "front" if on_front else "feasible"
    label = f"{key(point)} ({', '.join(words)})" if words else key(point)
    p50, whole = point.latency_ms.p50, {"rate": point.throughput_interval}
    if p50 is not None:
        whole["p50"] = _around(p50, point.ratio, point.ratio_interval)
    return Spot(
        label,
        group,
        {
            "p50": point.latency_ms.p50,
            "rate": point.throughput_ips,
            "drop": point.drop,
            "memory": point.peak_memory_bytes / MIB if point.peak_memory_bytes else None,
            "size": point.size_bytes / MIB,
            "cold": point.cold_start_ms,
        },
        ", ".join(words),
        whole if words else {},  # of all points they would be a thicket; the table has them
    )


def _plot(
    name: str, title: str, spots: Sequence[Spot], x: Axis, y: Axis, limits: Mapping[str, float | None]
) -> Iterator[Chart]:
    known = [(s, a, b) for s in spots if _finite(a := s.values.get(x.key)) and _finite(b := s.values.get(y.key))]
    drawn = [(s, rounded(float(a)), rounded(float(b))) for s, a, b in known if a is not None and b is not None]
    if len(drawn) < 2:
        return
    good = [(a, b) for s, a, b in drawn if s.group != "rejected"]
    data: Json = {
        "kind": "scatter",
        "x": _axis(x, [a for _, a, _ in drawn], limits),
        "y": _axis(y, [b for _, _, b in drawn], limits),
        "spots": [[a, b, s.label, s.group, s.name, _bar(s, x), _bar(s, y)] for s, a, b in drawn],
        "front": front_line(good, x.less, y.less),
        "step": 1 if x.less else -1,
    }
    barred = any(_bar(s, x) or _bar(s, y) for s, _, _ in drawn)
    bars = " Whiskers are 95% intervals." if barred else ""
    of = " of what meets the requirements" if len(good) < len(drawn) else ""
    line = f"; the line is the front{of}: nothing is beyond it in these two" if len(data["front"]) > 1 else ""
    way = " and ".join(f"{axis.label.partition(',')[0]} {'down' if axis.less else 'up'}" for axis in (x, y))
    yield Chart(name, title, f"Better is {way}{line}.{bars}", data)


def _bar(spot: Spot, axis: Axis) -> list[float] | None:
    interval = spot.intervals.get(axis.key)
    return [rounded(end) for end in interval] if interval is not None and all(map(math.isfinite, interval)) else None


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _axis(axis: Axis, values: Sequence[float], limits: Mapping[str, float | None]) -> Json:
    """A limit is drawn where it is not far from what is: a budget ten times off would squeeze all the rest."""
    low, high = min(values), max(values)
    limit = limits.get(axis.key)
    near = limit is not None and limit <= 3 * high and limit >= low / 3 if high > 0 else limit is not None
    return {
        "label": axis.label,
        "log": low > 0 and high / low > LOG_FROM,
        "limit": rounded(limit) if near and limit is not None else None,
    }


def front_line(points: Sequence[tuple[float, float]], x_less: bool, y_less: bool) -> list[list[float]]:
    """The points that no other beats in both figures, by the first one upwards."""
    best: list[list[float]] = []
    for x, y in sorted(points, key=lambda p: (p[0] if x_less else -p[0], p[1] if y_less else -p[1])):
        if not best or (y < best[-1][1] if y_less else y > best[-1][1]):
            best.append([x, y])
    return best if x_less else best[::-1]


# --------------------------------------------------------------------------------------------------------------- latency


def latencies(run: Run) -> Iterator[Chart]:
    """The race's own runs: the chosen candidate, or the nearest, and the model as given."""
    sides = {o.name: o.measurement.latencies_ns for o in (subject(run), reference(run)) if o and o.measurement}
    known = {name: [ns / 1e6 for ns in values] for name, values in sides.items() if values}
    if not known:
        return
    yield histogram("histogram", "How latencies spread", known)
    most = max(map(len, known.values()))
    yield Chart(
        "timeline",
        "Latency from run to run",
        f"Every counted run in its order{_bucketed(most)}. In the race the sides take turns, round by round.",
        {"kind": "lines", "x": "run", "y": "ms", "log": _is_wide(known), "series": _series(known)},
    )


def _series(known: Mapping[str, Sequence[float]]) -> list[Json]:
    """Of each side its medians; where runs share a bucket, also the largest."""
    found = []
    for index, (name, values) in enumerate(known.items()):
        middle, largest, xs = bucketed(range(1, len(values) + 1), values)
        found.append({"label": name, "role": index, "x": xs, "y": middle})
        if len(values) > MOST_BUCKETS:
            found.append({"label": f"{name}, largest", "role": index, "faint": True, "x": xs, "y": largest})
    return found


def _bucketed(runs: int) -> str:
    return f": the median and the largest of every {-(-runs // MOST_BUCKETS)}" if runs > MOST_BUCKETS else ""


def _is_wide(known: Mapping[str, Sequence[float]]) -> bool:
    low = min(map(min, known.values()))
    return low > 0 and max(map(max, known.values())) > LOG_FROM * low


def bucketed(xs: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float], list[float]]:
    """At most MOST_BUCKETS medians and largest values, with the first x of each."""
    stride = max(1, -(-len(values) // MOST_BUCKETS))
    parts = [values[i : i + stride] for i in range(0, len(values), stride)]
    return (
        [rounded(median(part)) for part in parts],
        [rounded(max(part)) for part in parts],
        [float(x) for x in xs[::stride]],
    )


def histogram(name: str, title: str, known: Mapping[str, Sequence[float]]) -> Chart:
    """The share of runs in each of BINS equal bins, of all sides alike."""
    low = min(map(min, known.values()))
    high = max(min(percentile(v, SHOWN_SHARE), SHOWN_MEDIANS * median(v)) for v in known.values())
    step = (high - low) / BINS or max(abs(low), 1e-6) / BINS
    beyond = {side: sum(v > high for v in values) for side, values in known.items()}
    told = ", ".join(f"{count} of {len(known[side])} of {side}" for side, count in beyond.items() if count)
    counts = {side: _binned(values, low, step) for side, values in known.items()}
    data = {
        "kind": "histogram",
        "low": rounded(low),
        "step": step,
        "series": [
            {"label": side, "role": i, "y": [rounded(100 * c / len(known[side])) for c in bins]}
            for i, (side, bins) in enumerate(counts.items())
        ],
    }
    tail = f" Longer than {high:.3g} ms and not drawn: {told}." if told else ""
    return Chart(name, title, f"Share of runs by their latency.{tail}", data)


def _binned(values: Sequence[float], low: float, step: float) -> list[int]:
    bins = [0] * BINS
    for value in values:
        index = int((value - low) / step)
        if index <= BINS:  # the largest that is shown belongs to the last bin
            bins[min(index, BINS - 1)] += 1
    return bins


# -------------------------------------------------------------------------------------------------------------- profiles


def profile_charts(profiled: Profiled, index: int) -> Iterator[Chart]:
    """A profile's latencies over time, their spread, and what was seen of clock and heat beside them."""
    p = profiled.profile
    label = f"{p.recipe} on {p.device}"
    if profiled.latencies_ns:
        ms = [ns / 1e6 for ns in profiled.latencies_ns]
        seconds = [rounded_s(ns / 1e9) for ns in profiled.starts_ns]
        middle, largest, xs = bucketed(seconds, ms)
        series = [{"label": "latency", "role": 0, "x": xs, "y": middle}]
        if len(ms) > MOST_BUCKETS:
            series.append({"label": "largest", "role": 0, "faint": True, "x": xs, "y": largest})
        known = {label: ms}
        yield histogram(f"profile-{index}-histogram", "How latencies spread", known)
        yield Chart(
            f"profile-{index}-timeline",
            "Latency over time",
            f"Every query by its start{_bucketed(len(ms))}.",
            {
                "kind": "lines",
                "x": "s",
                "y": "ms",
                "log": _is_wide(known),
                "series": series,
                "sync": f"profile-{index}",
            },
        )
    if p.figures is not None:
        yield from _conditions(p.figures.trace.points, index)


def rounded_s(value: float) -> float:
    """Seconds to the millisecond."""
    return round(value, 3)


def _conditions(points: Sequence[TracePoint], index: int) -> Iterator[Chart]:
    """The hottest zone and the fastest clock; nothing where neither was told."""
    looks: dict[str, Callable[[TracePoint], float | None]] = {
        "hottest zone, °C": lambda p: p.hottest_millideg / 1000 if p.hottest_millideg is not None else None,
        "fastest clock, MHz": lambda p: max((k / 1000 for k in p.khz if k is not None), default=None),
    }
    series: list[Json] = []
    for role, (label, look) in enumerate(looks.items()):
        told = [(p.t_ms / 1e3, value) for p in points if (value := look(p)) is not None]
        if len(told) > 1:
            middle, _, xs = bucketed([t for t, _ in told], [value for _, value in told])
            axis = "right" if series else "left"
            series.append({"label": label, "role": role, "axis": axis, "x": list(map(rounded_s, xs)), "y": middle})
    if series:
        yield Chart(
            f"profile-{index}-conditions",
            "Temperature and clock beside it",
            "What the machine told while the queries ran, on the same time axis.",
            {"kind": "lines", "x": "s", "y": series[0]["label"], "series": series, "sync": f"profile-{index}"},
        )
