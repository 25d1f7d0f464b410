"""Raise a model's opset, and believe the result only after comparing it with the original.

- quantization per channel needs opset 13, newer passes 17: older models give engines that do not load;
- the converter loses nothing silently here: both models run on the same inputs, and any doubt keeps the original opset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import ModelProto, version_converter

from edgekit.core.types import TensorSpec
from edgekit.models import runtime
from edgekit.models.graph import default_opset, domain_of
from edgekit.models.runtime import Array

MIN_OPSET = 17
_MIN_IR = 8  # the IR version that belongs to opset 17
_RTOL = 1e-3
_ATOL_OF_SCALE = 1e-4
_INTEGERS = (0, 1, 16000)  # an index, a count, a sample rate: what integer inputs commonly mean
_SAMPLES = 2


@dataclass(frozen=True)
class Trial:
    """Outputs of a model for each synthetic sample; `failure` is the runtime's reason when it would not run.

    `integer` is what integer inputs were given: the first of a few common meanings the model runs with.
    """

    outputs: tuple[list[Array], ...] = ()
    failure: str = ""
    integer: int = 0


def try_model(model: ModelProto, inputs: tuple[TensorSpec, ...], folder: Path) -> Trial:
    """Load the model and run it on synthetic inputs; `folder` holds its external data, if any.

    Raises one of runtime.ERRORS when it does not load, ResourceLimit when it needs too much memory.
    """
    draft = folder / "draft.onnx"
    onnx.save_model(model, draft)
    try:
        return _run_trial(runtime.open_session(draft), inputs)
    finally:
        draft.unlink()


def _run_trial(session: ort.InferenceSession, inputs: tuple[TensorSpec, ...]) -> Trial:
    failure = ""
    for integer in _INTEGERS:
        try:
            feeds = [runtime.synthetic_feeds(inputs, sample, integer) for sample in range(_SAMPLES)]
            return Trial(tuple(runtime.run_session(session, feed) for feed in feeds), integer=integer)
        except runtime.ERRORS as error:
            failure = failure or runtime.reason(error)
        if all(not spec.dtype.startswith(("int", "uint")) for spec in inputs):
            break
    return Trial(failure=failure)


def raise_opset(
    model: ModelProto, inputs: tuple[TensorSpec, ...], folder: Path, reference: Trial
) -> tuple[ModelProto, list[str]]:
    """The model at opset 17 or later, or as it was with a notice why.

    `folder` holds its external data, if any; `reference` is what the model itself answered.
    """
    have = default_opset(model)
    if have >= MIN_OPSET or have == 0:
        return model, []
    raised, trouble = _converted(model)
    if raised is not None:
        trouble = _difference(reference, raised, inputs, folder)
    if raised is None or trouble:
        return model, [f"opset {have} was kept, int8 may be left out: {trouble}"]
    return raised, [f"opset raised from {have} to {MIN_OPSET}; outputs agree with the original"]


def _converted(model: ModelProto) -> tuple[ModelProto | None, str]:
    try:
        raised = version_converter.convert_version(model, MIN_OPSET)
    except (version_converter.ConvertError, RuntimeError, ValueError, IndexError, TypeError) as error:
        return None, f"the converter gave up ({runtime.reason(error)})"
    raised.ir_version = max(raised.ir_version, _MIN_IR)
    if [v.name for v in raised.graph.output] != [v.name for v in model.graph.output]:
        return None, "the converter renamed outputs"
    foreign = {domain_of(o.domain): o.version for o in model.opset_import if domain_of(o.domain)}
    have = {domain_of(o.domain) for o in raised.opset_import}
    raised.opset_import.extend(onnx.helper.make_opsetid(d, v) for d, v in foreign.items() if d not in have)
    return raised, ""


def _difference(reference: Trial, raised: ModelProto, inputs: tuple[TensorSpec, ...], folder: Path) -> str:
    """Why the raised model can't be trusted, or ""."""
    if reference.failure:
        return f"it does not run on synthetic inputs, so the result could not be compared ({reference.failure})"
    try:
        result = try_model(raised, inputs, folder)
    except runtime.ERRORS as error:
        return f"the converted model does not load ({runtime.reason(error)})"
    if result.failure:
        return f"the converted model does not run ({result.failure})"
    names = [value.name for value in raised.graph.output]
    return next(_mismatches(names, reference, result), "")


def _mismatches(names: list[str], reference: Trial, result: Trial) -> Iterator[str]:
    for expected, got in zip(reference.outputs, result.outputs, strict=True):
        for name, a, b in zip(names, expected, got, strict=True):
            if not same(a, b):
                yield f"the converted model's output '{name}' differs"


def same(a: Array, b: Array) -> bool:
    """Whether two outputs agree to 1e-3 relative and 1e-4 of the first one's largest magnitude; NaN equals NaN."""
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return bool(a == b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fV":
        return bool(np.array_equal(a, b))
    x, y = a.astype(np.float64), b.astype(np.float64)
    finite = np.abs(x[np.isfinite(x)])
    scale = float(finite.max()) if finite.size else 0.0
    return bool(np.allclose(x, y, rtol=_RTOL, atol=_ATOL_OF_SCALE * scale, equal_nan=True))
