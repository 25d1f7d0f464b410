"""What a run's chosen artifact was measured to do, on its own and over the reference of the same race. Pure.

- Where settings were searched, a candidate's figures are those of its best setting; the reference that ratios are over is then the
  reference's own point, whatever setting became of it as a candidate.
- Predictions and figures of a host that is not the target are no figures here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from edgekit.core.compare import block_bootstrap
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Measurement, Origin, Outcome
from edgekit.core.run import Run
from edgekit.core.stats import LatencyStats
from edgekit.core.tradeoffs import Point, Setting

BLOCKS = 20  # of a series of latencies, for the interval of its mean


@dataclass(frozen=True)
class Standing:
    """Figures of the chosen artifact as it runs, and over the reference's.

    `ratio` is of p50 and `rate` of throughput; `ratio_reach` and `rate_reach` are how far their logarithms may be off to either
    side (95 %), infinite where no interval was kept. `is_reference`: it is the reference itself, in the setting ratios are over.
    """

    latency_ms: LatencyStats
    throughput_ips: float
    memory_bytes: int | None
    cold_start_ms: float | None
    ratio: float
    ratio_reach: float
    rate: float
    rate_reach: float
    is_reference: bool


def chosen_outcome(run: Run) -> Outcome | None:
    """What is known of the chosen candidate; None when nothing was chosen."""
    return run.outcome(run.choice.chosen) if run.choice.chosen is not None else None


@dataclass(frozen=True)
class Reference:
    """What every ratio of a run is over: the model as given, in fp32, on `threads`; `settings` in force, None if not recorded."""

    p50_ms: float | None
    throughput_ips: float
    rate_reach: float
    engine_version: str
    threads: int
    settings: Mapping[str, str] | None


def reference(run: Run) -> Reference | None:
    """The reference as measured on the target; None where it was not."""
    outcome = next((o for o in run.outcomes if o.name == REFERENCE), None)
    if outcome is None or outcome.measurement is None or run.target_origin is not Origin.TARGET:
        return None
    version, m = outcome.candidate.build.engine_version, outcome.measurement
    for point in run.exploration.points if run.exploration is not None else ():
        if point.candidate == REFERENCE and point.setting == Setting(run.threads):
            reach = _reach(point.throughput_ips, point.throughput_interval)
            return Reference(point.latency_ms.p50, point.throughput_ips, reach, version, run.threads, None)
    reach, threads = _mean_reach(m.latencies_ns), outcome.candidate.run.threads
    return Reference(m.latency_ms.p50, m.throughput_ips, reach, version, threads, m.settings_in_force)


def standing(run: Run) -> Standing | None:
    """The figures, or None when nothing was chosen or the choice was not measured on the target."""
    chosen, base = chosen_outcome(run), reference(run)
    if chosen is None or chosen.measurement is None or base is None:
        return None
    m = chosen.measurement
    point = _point_of(run, m)
    is_reference = chosen.name == REFERENCE and (point is None or point.setting == Setting(run.threads))
    own = _mean_reach(m.latencies_ns) if point is None else _reach(point.throughput_ips, point.throughput_interval)
    return Standing(
        latency_ms=m.latency_ms,
        throughput_ips=m.throughput_ips,
        memory_bytes=m.memory.peak,
        cold_start_ms=m.load.process_to_first_inference_ms,
        ratio=m.ratio,
        ratio_reach=0.0 if is_reference else _reach(m.ratio, m.ratio_interval),
        rate=m.throughput_ips / base.throughput_ips,
        rate_reach=math.hypot(own, base.rate_reach),
        is_reference=is_reference,
    )


def _point_of(run: Run, m: Measurement) -> Point | None:
    """The point of a search over settings that the chosen candidate's figures were taken from."""
    points = run.exploration.points if run.exploration is not None else ()
    same = (
        p for p in points if (p.candidate, p.ratio, p.throughput_ips) == (run.choice.chosen, m.ratio, m.throughput_ips)
    )
    return next(same, None)


def _reach(value: float, interval: tuple[float, float] | None) -> float:
    """The longer half of an interval, on logarithms. Without one, it may be anything."""
    if interval is None:
        return math.inf
    low, high = interval
    return max(math.log(value / low), math.log(high / value))


def _mean_reach(latencies_ns: Sequence[int]) -> float:
    """The same of a mean latency: blocks of neighbouring runs are resampled. Without any, it may be anything."""
    if not latencies_ns:
        return math.inf
    size = max(1, len(latencies_ns) // BLOCKS)
    logs = [math.log(fmean(latencies_ns[i : i + size])) for i in range(0, len(latencies_ns) - size + 1, size)]
    low, high = block_bootstrap(logs, seed=0)
    return max(high - median(logs), median(logs) - low)
