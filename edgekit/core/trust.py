"""Whether a measurement can be trusted, and why not: latencies over time, and the conditions sampled beside them.

- What the machine does not tell is said in a notice, and never guessed.
- A cause comes before its effect: `unstable` means that latencies moved and nothing that was sampled explains it.
- The governor is a notice, not a verdict: what counts is what the clock did.
"""

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from statistics import median

from edgekit.core.conditions import Clock, Conditions, busy_clocks, summarize
from edgekit.core.profile import Trace
from edgekit.core.series import FEWEST_RUNS, Drift, Step, block_medians, drift, restlessness, steps, warm_up_runs
from edgekit.core.stats import BOOTSTRAP_RESAMPLES, LatencyStats, latency_stats, percentile

OTHERS_SHARE = 0.10  # of the CPUs we may use: a fifth of a core on two cores, far above what an idle system does
STOLEN_SHARE = 0.10  # of the time that CPUs wanted to run
PREEMPTIONS = 100.0  # a second of our CPU time: someone else wants a CPU every 10 ms
CLOCK_DROP = 0.20  # a fall of the clock that counts by itself
CLOCK_DROP_FELT = 0.05  # and one that counts when latencies rise by half as much or more
UNSTABLE = 0.10  # a step, a drift over the run, or a level that wanders, by this much
DRIFT_AT_LEAST = 0.05  # a drift counts when its interval's near end is beyond this over the run

MOST_JUDGED = 200_000  # of more runs every n-th is judged; percentiles are of all
MINUTE_NS = 60_000_000_000
_MINUTE_BLOCKS = 20


class TrustVerdict(StrEnum):
    TRUSTED = "trusted"
    UNSTABLE = "unstable"
    THROTTLED = "throttled"
    CONTENDED = "contended"


@dataclass(frozen=True)
class Sustained:
    """The last minute against the first: medians, and their ratio with its 95 % interval."""

    first_ms: float
    last_ms: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Trust:
    """The verdict with its reason and what it rests on.

    `latency_ms` and the four below it are of the steady part, after `warm_up_runs`; a change point's run counts from the first run.
    `change_points`, `drift_per_minute` and `restlessness` (relative, `core.series`) are empty or None when the runs are too few to
    tell, `sustained` in runs under two minutes.
    """

    verdict: TrustVerdict
    reason: str
    warm_up_runs: int
    latency_ms: LatencyStats
    change_points: tuple[Step, ...]
    drift_per_minute: Drift | None
    restlessness: float | None
    sustained: Sustained | None
    conditions: Conditions
    notices: tuple[str, ...]


def judge(
    starts_ns: Sequence[int],
    latencies_ns: Sequence[int],
    trace: Trace,
    *,
    usable_cpus: float | None = None,
    seed: int = 0,
) -> Trust:
    """Judge one run by its latencies with their starts since the first one, in order, and the trace beside it.

    `usable_cpus` is what affinity and quota leave, all by default. Raises ValueError when there is no run, a latency is not
    positive or the starts do not pair up.
    """
    if not latencies_ns or len(starts_ns) != len(latencies_ns) or min(latencies_ns) <= 0:
        raise ValueError(f"{len(starts_ns)} starts of {len(latencies_ns)} latencies, which must be positive")
    stride = -(-len(latencies_ns) // MOST_JUDGED)
    latencies = [ns / 1e6 for ns in latencies_ns[::stride]]
    cut = warm_up_runs(latencies)
    warm = cut * stride
    times, steady = [ns / 1e9 for ns in starts_ns[warm::stride]], latencies[cut:]
    enough = len(steady) >= FEWEST_RUNS
    changes = steps(times, steady, seed) if enough else ()
    trend = drift(times, steady) if enough else None
    wander = restlessness(steady, seed) if enough else None
    conditions = summarize(trace, usable_cpus)
    findings = [
        *_throttle_events(conditions),
        *_contention(conditions),
        *_clock_falls(conditions.clock, busy_clocks(trace.points), times, steady),
        *_unstable(len(steady), changes, trend, wander),
    ]
    return Trust(
        verdict=findings[0][0] if findings else TrustVerdict.TRUSTED,
        reason="; ".join(text for _, text in findings) or _quiet(conditions),
        warm_up_runs=warm,
        latency_ms=latency_stats(latencies_ns[warm:]),
        change_points=tuple(replace(step, run=warm + step.run * stride) for step in changes),
        drift_per_minute=trend,
        restlessness=wander,
        sustained=sustained(starts_ns[warm:], latencies_ns[warm:], seed),
        conditions=conditions,
        notices=_notices(trace, conditions),
    )


# --------------------------------------------------------------------------------------------------------------- findings

_Finding = tuple[TrustVerdict, str]


def _throttle_events(conditions: Conditions) -> list[_Finding]:
    if not conditions.throttled:
        return []
    heat = f" at up to {conditions.hottest_c:.0f} °C" if conditions.hottest_c is not None else ""
    return [(TrustVerdict.THROTTLED, f"the machine reports {', '.join(conditions.throttled)}{heat}")]


def _contention(conditions: Conditions) -> list[_Finding]:
    found = []
    if (others := conditions.others_share) is not None and others >= OTHERS_SHARE:
        found.append(f"other processes took {others:.0%} of the CPUs")
    if (stolen := conditions.stolen_share) is not None and stolen >= STOLEN_SHARE:
        found.append(f"the hypervisor withheld {stolen:.0%} of the CPU time")
    if (preempted := conditions.preemptions) is not None and preempted >= PREEMPTIONS:
        found.append(f"other threads took the CPU away {preempted:.0f} times a second")
    return [(TrustVerdict.CONTENDED, text) for text in found]


def _clock_falls(
    clock: Clock | None, clocks: Sequence[tuple[float, int]], times_s: Sequence[float], latencies: Sequence[float]
) -> list[_Finding]:
    """A clock that fell far, or that fell and took the latencies with it."""
    if clock is None or clock.drop < CLOCK_DROP_FELT:
        return []
    fell = f"the clock fell from {clock.top_khz / 1000:.0f} to {clock.low_khz / 1000:.0f} MHz"
    middle = (clock.top_khz + clock.low_khz) / 2
    slower = _slower_at([(t_ms, khz < middle) for t_ms, khz in clocks], times_s, latencies)
    if slower is not None and slower >= clock.drop / 2:
        return [(TrustVerdict.THROTTLED, f"{fell}, and latency rose by {slower:.0%} with it")]
    return [(TrustVerdict.THROTTLED, fell)] if clock.drop >= CLOCK_DROP else []


def _slower_at(
    looks: Sequence[tuple[float, bool]], times_s: Sequence[float], latencies: Sequence[float]
) -> float | None:
    """By how much runs nearest to a look that is marked are slower than the others; None without both."""
    ends = [(a + b) / 2e3 for (a, _), (b, _) in pairwise(looks)]
    sides: dict[bool, list[float]] = {True: [], False: []}
    for start, latency in zip(times_s, latencies, strict=True):
        sides[looks[bisect.bisect(ends, start)][1]].append(latency)
    return median(sides[True]) / median(sides[False]) - 1 if all(sides.values()) else None


def _unstable(count: int, changes: Sequence[Step], trend: Drift | None, wander: float | None) -> list[_Finding]:
    found = []
    if count < FEWEST_RUNS:
        found.append(f"{count} steady runs are too few to show that latency holds still ({FEWEST_RUNS} are needed)")
    if large := [step for step in changes if max(step.ratio, 1 / step.ratio) >= 1 + UNSTABLE]:
        worst = max(large, key=lambda step: max(step.ratio, 1 / step.ratio))
        moved = f"{worst.before_ms:.3g} to {worst.after_ms:.3g} ms after {worst.at_s:.1f} s"
        found.append(f"latency steps from {moved}" + (f" and {len(large) - 1} times more" if len(large) > 1 else ""))
    elif trend is not None and abs(trend.over_run) >= UNSTABLE and abs(trend.at_least) >= DRIFT_AT_LEAST:
        found.append(f"latency drifts by {trend.over_run:+.0%} over the run")
    elif wander is not None and wander >= UNSTABLE:
        found.append(f"the level of parts of the run wanders by {wander:.0%}")
    return [(TrustVerdict.UNSTABLE, text) for text in found]


def _quiet(conditions: Conditions) -> str:
    told = ["latency holds still"]
    if conditions.others_share is not None:
        told.append(f"other processes took {conditions.others_share:.0%} of the CPUs")
    if conditions.clock is not None:
        told.append("the clock held")
    return ", ".join(told)


def _notices(trace: Trace, conditions: Conditions) -> tuple[str, ...]:
    if len(trace.points) < 2:
        return ("no conditions were sampled beside the run: contention and throttling cannot be seen",)
    notices = []
    if conditions.others_share is None:
        notices.append("this machine does not tell its CPU time: contention cannot be seen")
    if not any(khz for point in trace.points for khz in point.khz):
        notices.append("this machine does not tell its clock: a fall of it cannot be seen")
    elif conditions.clock is None:
        notices.append("the CPU was mostly idle: its clock says nothing")
    if slow := sorted(set(trace.governors.values()) - {"performance"}):
        notices.append(f"the governor is {', '.join(slow)}: the clock may change with the load")
    return tuple(notices)


# -------------------------------------------------------------------------------------------------------------- sustained


def sustained(starts_ns: Sequence[int], latencies_ns: Sequence[int], seed: int = 0) -> Sustained | None:
    """Minute 1 against the last minute; None when the series is under two minutes or a minute is empty.

    The interval is a percentile bootstrap over blocks of consecutive runs, which resemble each other (Kuensch, "The jackknife
    and the bootstrap for general stationary observations", Annals of Statistics 17, 1989).
    """
    if not starts_ns or starts_ns[-1] - starts_ns[0] < 2 * MINUTE_NS:
        return None
    first = [ns / 1e6 for ns in latencies_ns[: bisect.bisect_left(starts_ns, starts_ns[0] + MINUTE_NS)]]
    last = [ns / 1e6 for ns in latencies_ns[bisect.bisect_left(starts_ns, starts_ns[-1] - MINUTE_NS) :]]
    rng = random.Random(seed)
    blocks = [block_medians(part, max(1, len(part) // _MINUTE_BLOCKS)) for part in (first, last)]
    ratios = [
        median(rng.choices(blocks[1], k=len(blocks[1]))) / median(rng.choices(blocks[0], k=len(blocks[0])))
        for _ in range(BOOTSTRAP_RESAMPLES)
    ]
    a, b = median(first), median(last)
    return Sustained(a, b, b / a, percentile(ratios, 2.5), percentile(ratios, 97.5))
