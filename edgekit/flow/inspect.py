"""What a model is, and which engines refuse it, before anything is built."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgekit.core.types import ModelInfo
from edgekit.flow.build import refusals
from edgekit.flow.materials import PREFLIGHT_SECONDS, prepare
from edgekit.flow.workshop import Progress
from edgekit.store import Cache, default_cache

ENGINES = ("onnxruntime", "openvino")


def inspect(
    model: str | Path,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    preflight_seconds: int = PREFLIGHT_SECONDS,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> ModelInfo:
    """Inputs, operators, costs and refusals of a model. Raises InputRejected, UsageError for shapes, ResourceLimit."""
    with Cache(cache or default_cache()).scratch() as scratch:
        progress("reading the model")
        prepared = prepare(Path(model), scratch / "model", shapes or {}, preflight_seconds)
        refused = refusals(ENGINES, scratch / "model" / "model.onnx", progress)
        return replace(prepared.info, refusals=refused)
