"""The records that flow through edgekit, one frozen type per stage so that a stage can't be skipped by accident.

Sizes are bytes (`_bytes`), times are nanoseconds (`_ns`) or milliseconds (`_ms`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class TensorSpec:
    """A model input or output; `dtype` is numpy's name ("float32", "bfloat16", "string"), a str in `shape` is symbolic."""

    name: str
    dtype: str
    shape: Shape


# --------------------------------------------------------------------------------------------------------------- model


@dataclass(frozen=True)
class LayerCost:
    """What one node costs: multiply-accumulates, and elements moved (weights once, activations read and written)."""

    op: str
    macs: int
    weight_elements: int
    activation_elements: int


@dataclass(frozen=True)
class ModelInfo:
    """What `inspect` learns of a model. `peak_activation_bytes` is the liveness peak in node order, inputs included."""

    sha256: str
    file_bytes: int
    ir_version: int
    opset: int
    producer: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    op_counts: Mapping[str, int]
    params: int
    macs: int
    weight_bytes: int
    peak_activation_bytes: int
    layers: tuple[LayerCost, ...]
    refusals: Mapping[str, tuple[str, ...]]  # engine -> reasons it will not take the model
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedModel:
    """A model that passed every check. `files` are model.onnx and its data file, if any, relative to the output folder.

    `info.sha256` is that of the file the user gave; `model_sha256` covers all of `files` and so also the fixed shapes: it is what
    builds depend on. `integer` is a value its integer inputs run with: an index, a count or a sample rate.
    """

    info: ModelInfo
    model_sha256: str
    files: tuple[str, ...]
    notices: tuple[str, ...]
    integer: int = 0


# -------------------------------------------------------------------------------------------------------------- target


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind. MACs per cycle are per core, the architectural peak for that element type; 0 = not supported."""

    cpu: str
    cores: int
    max_mhz: int
    fp32_macs_per_cycle: float
    fp16_macs_per_cycle: float
    int8_macs_per_cycle: float


@dataclass(frozen=True)
class NumericRules:
    """How int8 must be laid out for the target's kernels."""

    activation_type: str  # "uint8" | "int8"
    weight_type: str  # "uint8" | "int8"
    per_channel: bool
    reduce_range: bool  # 7-bit weights, for U8S8 without VNNI


@dataclass(frozen=True)
class Target:
    """A hardware target, read from `targets/<name>.toml`; `sources` gives the origin of each figure.

    `compatible` are device-tree names that only this board, or this system on a chip, bears.
    """

    name: str
    summary: str
    arch: str  # "aarch64" | "x86_64"
    isa: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    ram_bytes: int
    storage_bytes: int
    glibc: str
    bandwidth_bytes_per_s: float
    engines: Mapping[str, str]  # engine -> newest version the glibc admits
    numeric: NumericRules
    emulation_cpu: str
    sources: Mapping[str, str] = field(default_factory=dict)
    compatible: tuple[str, ...] = ()

    @property
    def cores(self) -> int:
        return sum(c.cores for c in self.clusters)


# -------------------------------------------------------------------------------------------------------- requirements


class Prefer(StrEnum):
    LATENCY = "latency"
    THROUGHPUT = "throughput"
    MEMORY = "memory"
    SIZE = "size"


@dataclass(frozen=True)
class LatencyBudget:
    """`limit_ms` at `percentile` ("p50", "p90", "p95", "p99")."""

    limit_ms: float
    percentile: str = "p99"


@dataclass(frozen=True)
class Arrivals:
    """How requests come: `scenario` as `edgekit profile` names them, `rate_ips` of them a second where it has a rate."""

    scenario: str
    rate_ips: float | None = None


@dataclass(frozen=True)
class Sources:
    """What feeds the model: `count` cameras of `frame_rate` frames a second each, or as many recorders of `sample_rate_hz`.

    `hop` is how many samples of a recording lie between two inferences.
    """

    frame_rate: float | None = None
    sample_rate_hz: float | None = None
    hop: int | None = None
    count: int = 1

    @property
    def rate_ips(self) -> float | None:
        """Inferences a second that all of them call for together."""
        if self.frame_rate is not None:
            return self.frame_rate * self.count
        if self.sample_rate_hz is not None and self.hop:
            return self.sample_rate_hz / self.hop * self.count
        return None


@dataclass(frozen=True)
class Requirements:
    """What the deployment must satisfy. `max_drop` is absolute, in the metric's own unit.

    `batchable` says whether samples may wait for each other, None where it was not said. `cpus` is a cpu list such as `0-3`, and
    `max_cores` how many may be used; `power_mode` is a cpufreq governor. `weights` are there when more than one thing is preferred:
    `prefer` is then the heaviest.
    """

    max_drop: float = 0.01
    latency: LatencyBudget | None = None
    min_throughput_ips: float | None = None
    max_memory_bytes: int | None = None
    max_size_bytes: int | None = None
    prefer: Prefer = Prefer.LATENCY
    forbid: tuple[str, ...] = ()  # precisions or engines that must not be used
    arrivals: Arrivals | None = None
    sources: Sources | None = None
    batchable: bool | None = None
    max_cold_start_ms: float | None = None
    max_cores: int | None = None
    cpus: str = ""
    power_mode: str = ""
    weights: Mapping[Prefer, float] = field(default_factory=dict)

    @property
    def rate_ips(self) -> float | None:
        """Inferences a second that come and must be kept up with, None where nothing was said of it."""
        if self.arrivals is not None and self.arrivals.rate_ips is not None:
            return self.arrivals.rate_ips
        return self.sources.rate_ips if self.sources is not None else None

    @property
    def needed_ips(self) -> float | None:
        """The throughput it takes: the stated minimum, or what comes where that is more."""
        stated = [rate for rate in (self.min_throughput_ips, self.rate_ips) if rate is not None]
        return max(stated, default=None)


# ---------------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class Step:
    """One transformation of a recipe: a name from the engine's table of steps and its parameters."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """How an artifact is made from the model: data, not code."""

    name: str
    engine: str
    precision: str
    steps: tuple[Step, ...] = ()
    needs_calibration: bool = False


def content_digest(record: Any) -> str:
    """SHA-256 over the canonical JSON of builtins and dataclasses: the key of every cache."""
    text = json.dumps(record, default=asdict, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class BuildSpec:
    """All that an artifact's bytes depend on. `calibration_sha256` is empty for recipes that need no calibration."""

    model_sha256: str
    recipe: Recipe
    engine_version: str
    builder_versions: Mapping[str, str]
    numeric: NumericRules
    calibration_sha256: str = ""

    @property
    def digest(self) -> str:
        """The artifact's key: recipes that differ only in name or precision share an artifact."""
        return content_digest(replace(self, recipe=replace(self.recipe, name="", precision="")))


@dataclass(frozen=True)
class RunConfig:
    """How an artifact is run; `precision` is a hint to the engine, `options` are engine options by name.

    `streams` requests at a time, of `batch` samples each; `cores` is a cpu list such as `0-3`, empty for all that may be used.
    """

    threads: int
    precision: str = "f32"
    options: Mapping[str, str] = field(default_factory=dict)
    streams: int = 1
    batch: int = 1
    cores: str = ""


@dataclass(frozen=True)
class Candidate:
    """A thing that can be chosen: how it is built and how it is run."""

    build: BuildSpec
    run: RunConfig

    @property
    def name(self) -> str:
        return self.build.recipe.name


@dataclass(frozen=True)
class Built:
    """What a build left in its folder: `files` are relative to it, `files[0]` is the one an engine opens.

    `quantizable_ops` counts convolutions, matrix products and recurrent layers; `quantized_ops` those of them that take int8.
    """

    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
    quantized_ops: int = 0
    quantizable_ops: int = 0


@dataclass(frozen=True)
class ArtifactFile:
    """A file of an artifact, relative to the artifact's folder."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Artifact:
    """What a build left on disk; `files[0]` is the one an engine opens."""

    spec: BuildSpec
    files: tuple[ArtifactFile, ...]
    notes: tuple[str, ...] = ()
    quantized_ops: int = 0
    quantizable_ops: int = 0

    @property
    def size_bytes(self) -> int:
        return sum(f.size_bytes for f in self.files)

    @property
    def digest(self) -> str:
        """Of the files' bytes alone: recipes that made the same bytes share it."""
        return content_digest(self.files)
