"""Read what the user gave, in limited child processes: the model first, then the data that must fit its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgekit import sandbox
from edgekit.core.dataset import DataSetInfo
from edgekit.core.types import ModelInfo, PreparedModel, TensorSpec, content_digest
from edgekit.flow.workshop import Materials, Workshop

# A model's preflight ends here: a graph that loops or computes for longer than this on a few samples is no model for a device.
PREFLIGHT_SECONDS = 60
READING = sandbox.Limits(rss_bytes=4 << 30, cpu_s=600, wall_s=600.0)

SYNTHETIC_SAMPLES = 32
TIME_BUDGET_S = 600.0


@dataclass(frozen=True)
class Options:
    """How to go about it, apart from what is required of the result.

    `shapes` fixes inputs by name; `samples` bounds each split; `metric` replaces the data set's; `threads` 0 means all that the
    target lets one inference use; `offline` fetches no engine; `fresh` measures again what was measured before. `skip_bad` leaves
    out samples that can't be read, and counts them in a notice of the data set; `time_budget_s` bounds the search for a mixed
    precision and that over settings together, whose best so far are kept. `explore` searches settings, None where throughput is
    preferred; `seed` settles the order they are tried in.
    """

    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    samples: int | None = None
    metric: str | None = None
    threads: int = 0
    preflight_seconds: int = PREFLIGHT_SECONDS
    offline: bool = False
    fresh: bool = False
    skip_bad: bool = False
    time_budget_s: float = TIME_BUDGET_S
    explore: bool | None = None
    seed: int = 0


def prepare(source: Path, out: Path, shapes: Mapping[str, Sequence[int]], seconds: int) -> PreparedModel:
    """Stage and check a model: `out`/original.onnx as given, `out`/model.onnx with fixed shapes.

    Raises InputRejected, UsageError for shapes, ResourceLimit for a model that needs too much.
    """
    out.mkdir(parents=True)
    return sandbox.call(
        "edgekit.models.prepare:prepare_model",
        returns=PreparedModel,
        limits=sandbox.Limits(rss_bytes=6 << 30, cpu_s=seconds, wall_s=float(2 * seconds)),
        task=str(source),
        source=source.absolute(),
        out=out,
        shapes={name: list(shape) for name, shape in shapes.items()},
    )


def gather(shop: Workshop, model: Path, data: Path | None, options: Options) -> tuple[ModelInfo, Materials]:
    """The checked model and the data in ekrun's feed layout; synthetic inputs where there is no data."""
    shop.progress("reading the model")
    place = shop.scratch / "model"
    prepared = prepare(model, place, options.shapes, options.preflight_seconds)
    folder = shop.scratch / "data"
    dataset = gather_data(shop, prepared.info.inputs, prepared.integer, data, folder, options)
    info = prepared.info
    names = tuple(spec.name for spec in info.inputs)
    key = content_digest([info.sha256, prepared.model_sha256])
    return info, Materials(place / "original.onnx", place / "model.onnx", key, dataset, folder, names)


def gather_data(
    shop: Workshop, inputs: tuple[TensorSpec, ...], integer: int, data: Path | None, folder: Path, options: Options
) -> DataSetInfo:
    """The data that feeds `inputs`, in ekrun's feed layout in `folder`; drawn at random without `data`, integers all `integer`."""
    shop.progress("reading the data")
    dataset = (
        _read(data, inputs, folder, options) if data is not None else _draw(inputs, integer, folder, options.samples)
    )
    return dataset if options.metric is None else replace(dataset, metric=options.metric)


def _read(source: Path, inputs: tuple[TensorSpec, ...], out: Path, options: Options) -> DataSetInfo:
    return sandbox.call(
        "edgekit.data.read:prepare_data",
        returns=DataSetInfo,
        limits=READING,
        task=str(source),
        source=source.absolute(),
        inputs=inputs,
        out=out,
        samples=options.samples,
        skip_bad=options.skip_bad,
    )


def _draw(inputs: tuple[TensorSpec, ...], integer: int, out: Path, samples: int | None) -> DataSetInfo:
    return sandbox.call(
        "edgekit.data.synthetic:synthetic_data",
        returns=DataSetInfo,
        limits=READING,
        task="drawing synthetic inputs",
        inputs=inputs,
        out=out,
        samples=samples or SYNTHETIC_SAMPLES,
        seed=0,
        integer=integer,
    )
