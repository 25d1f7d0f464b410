"""Read what the user gave, in limited child processes: the model first, then the data that must fit its inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit import sandbox
from edgekit.core.dataset import DataSetInfo
from edgekit.core.types import ModelInfo, PreparedModel, TensorSpec, content_digest
from edgekit.flow.workshop import Materials, Workshop

# A model's preflight ends here: a graph that loops or computes for longer than this on one sample is no model for a device.
PREFLIGHT = sandbox.Limits(rss_bytes=6 << 30, cpu_s=120, wall_s=120.0)
READING = sandbox.Limits(rss_bytes=4 << 30, cpu_s=600, wall_s=600.0)

SYNTHETIC_SAMPLES = 32


def prepare(source: Path, out: Path, shapes: Mapping[str, Sequence[int]]) -> PreparedModel:
    """Stage and check a model: `out`/original.onnx as given, `out`/model.onnx with fixed shapes.

    Raises InputRejected, UsageError for shapes, ResourceLimit for a model that needs too much.
    """
    out.mkdir(parents=True)
    return sandbox.call(
        "edgekit.models.prepare:prepare_model",
        returns=PreparedModel,
        limits=PREFLIGHT,
        task=str(source),
        source=source.absolute(),
        out=out,
        shapes={name: list(shape) for name, shape in shapes.items()},
    )


def gather(
    shop: Workshop,
    model: Path,
    data: Path | None,
    shapes: Mapping[str, Sequence[int]],
    samples: int | None,
    metric: str | None,
) -> tuple[ModelInfo, Materials]:
    """The checked model and the data in ekrun's feed layout; synthetic inputs where there is no data."""
    shop.progress("reading the model")
    place = shop.scratch / "model"
    prepared = prepare(model, place, shapes)
    shop.progress("reading the data")
    folder = shop.scratch / "data"
    dataset = (
        _read(data, prepared.info.inputs, folder, samples)
        if data is not None
        else _draw(prepared.info.inputs, folder, samples)
    )
    if metric is not None:
        dataset = replace(dataset, metric=metric)
    info = prepared.info
    names = tuple(spec.name for spec in info.inputs)
    key = content_digest([info.sha256, prepared.model_sha256])
    return info, Materials(place / "original.onnx", place / "model.onnx", key, dataset, folder, names)


def _read(source: Path, inputs: tuple[TensorSpec, ...], out: Path, samples: int | None) -> DataSetInfo:
    return sandbox.call(
        "edgekit.data.read:prepare_data",
        returns=DataSetInfo,
        limits=READING,
        task=str(source),
        source=source.absolute(),
        inputs=inputs,
        out=out,
        samples=samples,
    )


def _draw(inputs: tuple[TensorSpec, ...], out: Path, samples: int | None) -> DataSetInfo:
    return sandbox.call(
        "edgekit.data.synthetic:synthetic_data",
        returns=DataSetInfo,
        limits=READING,
        task="drawing synthetic inputs",
        inputs=inputs,
        out=out,
        samples=samples or SYNTHETIC_SAMPLES,
        seed=0,
    )
