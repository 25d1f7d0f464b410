"""What a search over settings measured: points, and which of them answer a preference."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgekit.core.stats import LatencyStats


@dataclass(frozen=True)
class Setting:
    """How an artifact is run: `streams` requests of `batch` samples at a time.

    `cores` is a cpu list such as `0-3`, empty for all that may be used; `options` are engine options that differ from the
    candidate's own, by name.
    """

    threads: int
    streams: int = 1
    batch: int = 1
    cores: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Point:
    """One candidate under one setting, as measured.

    Latency is of one request, which with batch B is B samples; throughput is samples a second. `ratio` is the p50 over the
    reference point's, paired by rounds. `cold_start_ms` is from the process's start to its first answer. `ended` is `measured`, or
    `dropped: ` and the interval that said so.
    """

    candidate: str
    setting: Setting
    latency_ms: LatencyStats
    throughput_ips: float
    throughput_interval: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]
    cold_start_ms: float | None
    peak_memory_bytes: int | None
    size_bytes: int
    drop: float | None
    rounds: int
    ended: str


@dataclass(frozen=True)
class Exploration:
    """A search over settings. `front`, `sweet_spot`, `knee` and the two choices are keys of points; `space` counts all settings."""

    points: tuple[Point, ...]
    space: int
    seconds: float
    seed: int
    ended: str
    front: tuple[str, ...]
    sweet_spot: str
    knee: str
    latency_choice: str
    throughput_choice: str


def key(point: Point) -> str:
    """A point's name among all: `ort-int8 t2 s1 b4`, with its cores and options where it has any."""
    return point_key(point.candidate, point.setting)


def point_key(candidate: str, setting: Setting) -> str:
    """The name of the point that a candidate and a setting make."""
    words = [candidate, f"t{setting.threads}", f"s{setting.streams}", f"b{setting.batch}"]
    words += [f"cores={setting.cores}"] if setting.cores else []
    return " ".join([*words, *(f"{name}={value}" for name, value in sorted(setting.options.items()))])
