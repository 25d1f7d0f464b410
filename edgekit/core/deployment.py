"""What a bundle says of its own use, `deployment.json`: how the model is opened and run, and what shows that it works.

- written by `edgekit bundle`, read by ekrun on the device; every file it names is a file of the bundle;
- JSON with these keys in any order; the manifest's digest covers its bytes;
- golden samples are inputs with the answers that this very artifact gave on the machine that made the bundle, run with the same
  version of the engine; a device passes when every element is finite and within its output's tolerance, and every decision that the
  expected answers make clearly is the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgekit.core.types import LatencyBudget, TensorSpec

FORMAT: Final = 1
DEPLOYMENT_FILE: Final = "deployment.json"
ARGMAX: Final = "argmax"
NO_DECISIONS: Final = "none"

# A dimension that differs from sample to sample, in `outputs`.
ANY: Final = -1


@dataclass(frozen=True)
class Port:
    """An input or output of the model; `shape` without the axis of samples, -1 where it differs between samples."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GoldenOutput:
    """What output `index` of the model is held to.

    `file` holds the expected answers as `ekrun run` writes them, [samples, *shape]; `tolerance` is the greatest allowed difference
    of any element. With `decisions` "argmax" the index of the greatest value along `axis` must be the same, the first of equals,
    wherever `decided` says so: one flag a decision, over the other axes in C order.
    """

    index: int
    file: str
    tolerance: float
    decisions: str = NO_DECISIONS
    axis: int = -1
    decided: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Golden:
    """Golden samples: `inputs` by name, [samples, *shape] each; `reset` marks where a sequence starts, None without state."""

    samples: int
    inputs: Mapping[str, str]
    reset: str | None
    outputs: tuple[GoldenOutput, ...]


@dataclass(frozen=True)
class Budget:
    """The latency an inference may have: `ms` at a percentile of 0..100."""

    percentile: float
    ms: float


@dataclass(frozen=True)
class Deployment:
    """All that ekrun needs to open, run and check what lies beside it. `state` maps an output to the input it is fed back to.

    `library` is the file to open, its closure lies in the same folder, and the `model`'s other files lie in that of the model.
    `options` are engine options by name. `golden` is None in a bundle that carries no samples. `streams` requests at a time and
    `cores`, a cpu list, are what it was measured with: for the application, ekrun's own verbs take theirs as options.
    """

    format: int
    engine: str
    engine_version: str
    library: str
    model: str
    threads: int
    precision: str
    options: Mapping[str, str]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    state: Mapping[str, str]
    golden: Golden | None = None
    latency_budget: Budget | None = None
    streams: int = 1
    cores: str = ""


def port(spec: TensorSpec) -> Port:
    """A tensor of the model as it is deployed."""
    return Port(spec.name, spec.dtype, tuple(dim if isinstance(dim, int) else ANY for dim in spec.shape))


def budget(asked: LatencyBudget | None) -> Budget | None:
    """A required latency ("p99" is the percentile 99) as it is deployed."""
    return None if asked is None else Budget(float(asked.percentile.removeprefix("p")), asked.limit_ms)
