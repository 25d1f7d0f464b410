"""Speak to ekrun of scenarios and layers: argument lists, answers, and the file of raw samples. Starts no process.

What comes back is untrusted: anything that is not as PROTOCOL.md has it is a DeviceError.
"""

import sys
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekit.core.profile import Scenario, Spread, Trace, TracePoint, check_integers
from edgekit.errors import DeviceError
from edgekit.runner.client import Feeds, LoadReply, Runnable, engine_arguments
from edgekit.runner.layers import OpenvinoLayer


@dataclass(frozen=True)
class ScenarioReply(LoadReply):
    """`bench --scenario`: what came of it. Raw samples are in `latencies_ns`, or in the file that was asked for.

    `count` queries of `inferences` took `span_ns`. `scheduled` queries came, of which `dropped` found no place and `unfinished`
    were still waiting at the end; `deadline_misses` counts dropped frames too. `wait_ns` is from due to begun, `late_ns` how late
    the system woke a lane that slept: the timer's noise. Memory in bytes, None where the kernel does not tell.
    """

    verb: Literal["bench"]
    count: int
    inferences: int
    span_ns: int
    call_ns: Spread | None
    scheduled: int | None
    dropped: int | None
    unfinished: int | None
    longest_queue: int | None
    deadline_misses: int | None
    wait_ns: Spread | None
    late_ns: Spread | None
    resident_samples: int
    resident_bytes: int
    wall_ns: int
    cpu_ns: int
    voluntary_switches: int
    involuntary_switches: int
    minor_faults: int
    major_faults: int
    memory: Mapping[str, int | None]
    latencies_ns: tuple[int, ...] | None = None
    trace: tuple[TracePoint, ...] = ()
    trace_interval_ms: int | None = None
    trace_policies: tuple[int, ...] = ()
    trace_zones: tuple[str, ...] = ()
    jiffies_per_second: int | None = None
    governors: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        check_integers(self)

    @property
    def overloaded(self) -> bool:
        """Queries came faster than they could be served."""
        return bool(self.dropped or self.unfinished)

    @property
    def queries_per_second(self) -> float:
        """What was achieved, from the start to the last completion."""
        return self.count / self.span_ns * 1e9 if self.span_ns > 0 else 0.0

    @property
    def inferences_per_second(self) -> float:
        """Throughput in samples, over all streams."""
        return self.inferences / self.span_ns * 1e9 if self.span_ns > 0 else 0.0

    def seen(self) -> Trace:
        """What was seen beside the run."""
        return Trace(
            points=self.trace,
            interval_ms=self.trace_interval_ms,
            jiffies_per_second=self.jiffies_per_second,
            policies=self.trace_policies,
            zones=self.trace_zones,
            governors=self.governors or {},
        )


@dataclass(frozen=True)
class LayersReply:
    """`layers`: OpenVINO's in `layers`; ONNX Runtime's in the file `profile`, in the folder asked for."""

    protocol: Literal[1]
    verb: Literal["layers"]
    engine: str
    engine_version: str
    emulated: bool
    runs: int
    calls_ns: int
    layers: tuple[OpenvinoLayer, ...] | None
    profile: str | None


@dataclass(frozen=True)
class RawSamples:
    """Start and latency of each query, in the order of the queries, in nanoseconds."""

    start_ns: "array[int]"  # generic for type checkers only, before Python 3.12
    latency_ns: "array[int]"


def scenario_arguments(
    runnable: Runnable,
    feeds: Feeds,
    scenario: Scenario,
    *,
    warmup: int = 0,
    latencies: Path | str | None = None,
    sample_ms: int = 0,
) -> list[str]:
    """The arguments of ekrun, from the verb on, for one scenario."""
    words = [
        "bench",
        *engine_arguments(runnable, feeds),
        "--scenario",
        scenario.kind,
        "--streams",
        str(scenario.streams),
    ]
    if scenario.duration_s:
        words += ["--duration", f"{scenario.duration_s:.6f}"]
    if scenario.min_runs:
        words += ["--min-runs", str(scenario.min_runs)]
    for name, rate in (("--qps", scenario.qps), ("--fps", scenario.fps)):
        if rate is not None:
            words += [name, f"{rate:.6f}"]
    if scenario.kind == "multi-stream":
        words += ["--samples-per-query", str(scenario.samples_per_query)]
    if scenario.kind == "server":
        words += ["--seed", str(scenario.seed)]
    words += ["--warmup", str(warmup), "--sample-ms", str(sample_ms)]
    return words + (["--latencies", str(latencies)] if latencies is not None else [])


def layers_arguments(runnable: Runnable, feeds: Feeds, runs: int, out: Path | str) -> list[str]:
    """The arguments of ekrun, from the verb on, for a profile of layers over `runs` inferences."""
    return ["layers", *engine_arguments(runnable, feeds), "--runs", str(runs), "--out", str(out)]


def raw_samples(data: bytes, where: str) -> RawSamples:
    """The file of `--latencies`: a .npy 1.0 of little-endian int64 [n, 2]. Raises DeviceError when it is anything else."""
    size = 10 + int.from_bytes(data[8:10], "little")
    words = b"".join(data[10:size].split())
    whole, rest = divmod(len(data) - size, 16)
    if not data.startswith(b"\x93NUMPY\x01\x00") or rest or whole < 0:
        raise DeviceError("it is no whole .npy file", where=where)
    if words != b"{'descr':'<i8','fortran_order':False,'shape':(%d,2,)}" % whole:
        raise DeviceError("it does not hold the samples its header claims", where=where)
    flat = array("q")
    flat.frombytes(data[size:])
    if sys.byteorder == "big":
        flat.byteswap()
    return RawSamples(flat[0::2], flat[1::2])
