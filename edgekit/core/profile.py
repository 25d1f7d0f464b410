"""Records of a profile: how queries come, what was seen beside them, and where the time goes inside the model.

- Times of a run are offsets from the start of its clock.
- What a machine does not tell is None.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgekit.errors import UsageError

Kind = Literal["single-stream", "multi-stream", "server", "offline", "fixed-rate"]

SAMPLES_PER_QUERY = 8  # of MLPerf Inference's multi-stream, since v2.0

MOST_STREAMS = 64

# Which scenario cannot do without which rate.
_RATE_OF: Mapping[Kind, str] = {"server": "qps", "fixed-rate": "fps"}


def check_integers(record: object) -> None:
    """Raise ValueError when an integer field does not fit 64 bits: a board's answer must not overflow a float later on."""
    if any(isinstance(value, int) and abs(value) >= 1 << 63 for value in vars(record).values()):
        raise ValueError("an integer of more than 64 bits")


@dataclass(frozen=True)
class Scenario:
    """How queries come, after MLPerf Inference's LoadGen; a run lasts until `duration_s` is over and `min_runs` have come.

    `qps` is for server, `fps` for fixed-rate, `samples_per_query` for multi-stream; `streams` run at a time.
    Raises UsageError for what cannot be run.
    """

    kind: Kind = "single-stream"
    duration_s: float = 0.0
    min_runs: int = 0
    streams: int = 1
    qps: float | None = None
    fps: float | None = None
    samples_per_query: int = SAMPLES_PER_QUERY
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.duration_s) and self.duration_s >= 0 and self.min_runs >= 0):
            raise UsageError("a duration and a number of runs are not negative", where=self.kind)
        if not (self.duration_s or self.min_runs):
            raise UsageError("it has no end", where=self.kind, next_step="give a duration or a number of runs")
        if not 1 <= self.streams <= MOST_STREAMS:
            raise UsageError(f"streams go from 1 to {MOST_STREAMS}", where=self.kind)
        if self.kind == "single-stream" and self.streams > 1:
            raise UsageError("it has one stream", where=self.kind, next_step="offline and server use several")
        for rate, value in (("qps", self.qps), ("fps", self.fps)):
            self._check_rate(rate, value)

    def _check_rate(self, rate: str, value: float | None) -> None:
        if _RATE_OF.get(self.kind) == rate:
            if value is None or not (math.isfinite(value) and value > 0):
                raise UsageError(f"it needs {rate}, above 0", where=self.kind)
        elif value is not None:
            raise UsageError(f"it takes no {rate}", where=self.kind)


@dataclass(frozen=True)
class CpuJiffies:
    """Time of all CPUs together since boot, in jiffies (proc(5), /proc/stat): `system` with interrupts, `user` with nice."""

    user: int | None = None
    system: int | None = None
    idle: int | None = None
    iowait: int | None = None
    steal: int | None = None

    def __post_init__(self) -> None:
        check_integers(self)


@dataclass(frozen=True)
class TracePoint:
    """One look at the machine beside a run.

    `khz` by policy and `millideg` by thermal zone are in the order of their names in the reply. Jiffies, CPU time of ekrun,
    context switches, page faults and `throttle_count` (x86: of all cores) only ever grow. `throttle_flags` are the Raspberry
    Pi's (bits 0-3 now, 16-19 since boot); `load` is the average of one minute.
    """

    t_ms: float
    khz: tuple[int | None, ...]
    millideg: tuple[int | None, ...]
    cpu_jiffies: CpuJiffies
    own_cpu_ns: int
    load: float | None
    throttle_flags: int | None
    throttle_count: int | None
    voluntary_switches: int
    involuntary_switches: int
    minor_faults: int
    major_faults: int

    def __post_init__(self) -> None:
        check_integers(self)
        if any(value is not None and abs(value) >= 1 << 63 for value in (*self.khz, *self.millideg)):
            raise ValueError("a reading of more than 64 bits")

    @property
    def hottest_millideg(self) -> int | None:
        """The hottest zone, in thousandths of a degree Celsius."""
        return max((value for value in self.millideg if value is not None), default=None)


@dataclass(frozen=True)
class Trace:
    """What was seen beside a run, oldest first, with the names of what it lists; empty when nothing was sampled."""

    points: tuple[TracePoint, ...] = ()
    interval_ms: int | None = None
    jiffies_per_second: int | None = None
    policies: tuple[int, ...] = ()
    zones: tuple[str, ...] = ()
    governors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """Percentiles of durations in nanoseconds, from bins 3 % wide; `mean` and `max` are exact."""

    count: int
    mean: int
    p50: int
    p90: int
    p99: int
    max: int

    def __post_init__(self) -> None:
        check_integers(self)


@dataclass(frozen=True)
class Layer:
    """One layer as executed: mean time of an inference in microseconds, and its share of all layers, 0 to 1.

    `exec_type` is the kernel (OpenVINO) or the execution provider (ONNX Runtime) that ran it.
    """

    name: str
    op: str
    exec_type: str
    mean_us: float
    share: float
