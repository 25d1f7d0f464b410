"""What a machine did beside a run: looks at its counters become shares, rates and falls of the clock. Pure.

- What is not told (a VM has no clock, an old kernel no steal) is None, and never guessed.
- A figure is one that held, or was exceeded, for a fifth of the time: a blip beside a run is normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from edgekit.core.profile import Trace, TracePoint
from edgekit.core.stats import percentile

USER_HZ = 100  # jiffies a second where the trace does not say: so on every architecture edgekit runs on (proc(5))
WINDOW_MS = 1000.0  # in less time a single jiffy is a large share
LASTING = 0.2  # share of the time for which a figure must hold
TOP = 0.1  # share of the time after which a clock is one that the machine can hold
IDLE_CPUS = 0.5  # busy with less than this, a governor lowers the clock because there is little to do

# The Raspberry Pi's firmware, vcgencmd get_throttled: bit n is set now, bit n + 16 since boot.
# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
FIRMWARE_FLAGS = ("under-voltage", "the frequency capped", "throttling", "the soft temperature limit")
_SINCE_BOOT = 16


@dataclass(frozen=True)
class Clock:
    """The fastest clock of the machine while it was busy: `top_khz` was held for a tenth of the time, `low_khz` for a fifth."""

    top_khz: float
    low_khz: float

    @property
    def drop(self) -> float:
        return 1 - self.low_khz / self.top_khz


@dataclass(frozen=True)
class Conditions:
    """Shares that held for a fifth of the time, and what throttling left; None where it was not told.

    `others_share` is of the CPUs we may use, `stolen_share` of the time they wanted to run; `preemptions` are involuntary
    switches a second of own CPU time. `throttled` names each flag seen set and each count that rose. `hottest_c` is in Celsius.
    """

    others_share: float | None
    stolen_share: float | None
    preemptions: float | None
    clock: Clock | None
    throttled: tuple[str, ...]
    hottest_c: float | None


@dataclass(frozen=True)
class _Window:
    """What happened between two looks."""

    seconds: float
    others_share: float | None
    stolen_share: float | None
    preemptions: float | None


def summarize(trace: Trace, usable_cpus: float | None = None) -> Conditions:
    """The conditions of a run by its trace; `usable_cpus` is what affinity and quota leave, all by default."""
    hz = trace.jiffies_per_second or USER_HZ
    windows = [_window(a, b, hz, usable_cpus) for a, b in pairwise(_window_ends(trace.points))]
    hottest = [point.hottest_millideg for point in trace.points if point.hottest_millideg is not None]
    return Conditions(
        others_share=_lasting([(w.others_share, w.seconds) for w in windows]),
        stolen_share=_lasting([(w.stolen_share, w.seconds) for w in windows]),
        preemptions=_lasting([(w.preemptions, w.seconds) for w in windows]),
        clock=_clock(busy_clocks(trace.points)),
        throttled=_throttled(trace.points),
        hottest_c=max(hottest) / 1000 if hottest else None,
    )


def _window_ends(points: Sequence[TracePoint]) -> list[TracePoint]:
    """Looks at least WINDOW_MS apart; first and last are kept, so a short run is one window."""
    ends = list(points[:1])
    for point in points[1:]:
        if point.t_ms - ends[-1].t_ms >= WINDOW_MS:
            ends.append(point)
    if len(points) > 1 and ends[-1] is not points[-1]:
        ends[1 if len(ends) == 1 else -1 :] = [points[-1]]
    return ends


def _window(a: TracePoint, b: TracePoint, hz: int, usable_cpus: float | None) -> _Window:
    seconds = max((b.t_ms - a.t_ms) / 1e3, 1e-9)
    own_s = (b.own_cpu_ns - a.own_cpu_ns) / 1e9
    preempted = (b.involuntary_switches - a.involuntary_switches) / own_s if own_s > 0 else None
    return _Window(seconds, _others(a, b, hz, usable_cpus), _stolen(a, b), preempted)


def _others(a: TracePoint, b: TracePoint, hz: int, usable_cpus: float | None) -> float | None:
    """The share of our CPUs that others must have had; on a machine with more CPUs than ours they may have been elsewhere."""
    busy, idle, steal = _busy(a, b), _rise(a.cpu_jiffies.idle, b.cpu_jiffies.idle), _steal(a, b)
    if busy is None or idle is None or b.t_ms <= a.t_ms:
        return None
    ticks = busy + idle + (_rise(a.cpu_jiffies.iowait, b.cpu_jiffies.iowait) or 0) + (steal or 0)
    if ticks <= 0:
        return None
    cpus = ticks / (hz * (b.t_ms - a.t_ms) / 1e3)
    ours = min(usable_cpus or cpus, cpus)
    own = (b.own_cpu_ns - a.own_cpu_ns) * hz / 1e9
    others = (busy - own) / ticks * cpus
    return max(0.0, others - (cpus - ours)) / ours


def _stolen(a: TracePoint, b: TracePoint) -> float | None:
    busy, steal = _busy(a, b), _steal(a, b)
    return steal / (busy + steal) if busy is not None and steal is not None and busy + steal > 0 else None


def _busy(a: TracePoint, b: TracePoint) -> int | None:
    user, system = _rise(a.cpu_jiffies.user, b.cpu_jiffies.user), _rise(a.cpu_jiffies.system, b.cpu_jiffies.system)
    return None if user is None or system is None else user + system


def _steal(a: TracePoint, b: TracePoint) -> int | None:
    return _rise(a.cpu_jiffies.steal, b.cpu_jiffies.steal)


def _rise(a: int | None, b: int | None) -> int | None:
    return None if a is None or b is None else max(0, b - a)


def _lasting(values: Sequence[tuple[float | None, float]]) -> float | None:
    """The largest value that was reached for LASTING of the time, by (value, seconds); None when none was told."""
    told = sorted(((v, s) for v, s in values if v is not None), reverse=True)
    needed = LASTING * sum(s for _, s in told)
    for value, seconds in told:
        needed -= seconds
        if needed <= 1e-9:
            return value
    return None


# -------------------------------------------------------------------------------------------------------------- throttling


def busy_clocks(points: Sequence[TracePoint]) -> list[tuple[float, int]]:
    """(ms, kHz) of the fastest policy at each look at the end of a time in which we kept a CPU busy.

    The fastest, as a scheduler leaves slow clusters idle and moves a run between fast ones.
    """
    busy = [b for a, b in pairwise(points) if b.own_cpu_ns - a.own_cpu_ns >= IDLE_CPUS * (b.t_ms - a.t_ms) * 1e6]
    return [(b.t_ms, max(khz)) for b in busy if (khz := [k for k in b.khz if k is not None and k > 0])]


def _clock(clocks: Sequence[tuple[float, int]]) -> Clock | None:
    khz = [khz for _, khz in clocks]
    return Clock(percentile(khz, 100 * (1 - TOP)), percentile(khz, 100 * LASTING)) if khz else None


def _throttled(points: Sequence[TracePoint]) -> tuple[str, ...]:
    """Flags that are set now at any look, or since boot at one but the first; and "thermal throttling" where its count rose."""
    flags = [point.throttle_flags for point in points if point.throttle_flags is not None]
    counts = [point.throttle_count for point in points if point.throttle_count is not None]
    seen = 0
    for bits in flags:
        seen |= bits | (bits & ~flags[0]) >> _SINCE_BOOT
    found = [name for bit, name in enumerate(FIRMWARE_FLAGS) if seen >> bit & 1]
    return tuple(found + (["thermal throttling"] if counts and max(counts) > counts[0] else []))
