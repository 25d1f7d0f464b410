"""ONNX Runtime as edgekit uses it inside a sandbox child: explicit threads, silent, unoptimized, its errors typed.

- graph optimization is off: what is asked is whether the model itself loads and what it computes;
- running out of memory is a ResourceLimit, whatever words the runtime finds for it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.capi import onnxruntime_pybind11_state as native

from edgekit.core.types import TensorSpec
from edgekit.errors import ResourceLimit

Array = NDArray[Any]

# Everything the binding raises: its own classes derive from Exception one by one, the rest comes from pybind's conversions.
ERRORS: tuple[type[Exception], ...] = (
    *(error for error in vars(native).values() if isinstance(error, type) and issubclass(error, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
)

_OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|bad_array_new_length|[Ff]ailed to allocate|out of memory|BFCArena"
)
_PREAMBLE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|/onnxruntime_src/\S+ |onnxruntime::\S+\([^)]*\)( const)? "
)


def open_session(model: Path | ModelProto, threads: int = 2, *, optimized: bool = False) -> ort.InferenceSession:
    """A CPU session on a file or a protobuf without external data. Raises one of ERRORS, or ResourceLimit."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except ERRORS as error:
        raise_if_out_of_memory(error)
        raise


def run_session(session: ort.InferenceSession, feeds: Mapping[str, Array]) -> list[Array]:
    """All outputs. Raises one of ERRORS, or ResourceLimit."""
    options = ort.RunOptions()
    options.log_severity_level = 4
    try:
        outputs: list[Array] = session.run(None, dict(feeds), options)
    except ERRORS as error:
        raise_if_out_of_memory(error)
        raise
    return outputs


def raise_if_out_of_memory(error: Exception) -> None:
    """Raises ResourceLimit when the runtime's error is about memory."""
    if _OUT_OF_MEMORY.search(str(error)):
        raise ResourceLimit(
            "the model needs more memory than it may use",
            next_step="fix smaller shapes with --shape, or use a smaller model",
        ) from error


def reason(error: Exception) -> str:
    """The runtime's message as one short line, without its source locations."""
    text = _PREAMBLE.sub("", " ".join(str(error).split()))
    return text if len(text) <= 240 else f"{text[:240]}..."


def synthetic_feeds(inputs: tuple[TensorSpec, ...], sample: int, integer: int = 0) -> dict[str, Array]:
    """Seeded inputs of the declared shapes: sample 0 uniform in [0, 1), later ones standard normal; integers all `integer`."""
    rng = np.random.default_rng(sample)
    return {spec.name: _synthetic(spec, rng, sample, integer) for spec in inputs}


def _synthetic(spec: TensorSpec, rng: np.random.Generator, sample: int, integer: int) -> Array:
    shape = tuple(int(dim) for dim in spec.shape)
    if spec.dtype == "string":
        return np.full(shape, "", dtype=object)
    dtype = np.dtype(getattr(ml_dtypes, spec.dtype, None) or spec.dtype)
    if dtype.kind in "fV" and "int" not in dtype.name:
        values = rng.random(shape, np.float32) if sample == 0 else rng.standard_normal(shape, np.float32)
        return np.asarray(values).astype(dtype)
    fits = dtype.kind in "iu" and integer <= np.iinfo(dtype).max
    return np.full(shape, integer if fits else 0, dtype)


def tensor_type(value: onnx.ValueInfoProto) -> tuple[int, tuple[int | None, ...] | None]:
    """Element type and shape of a typed value; None for an unknown dimension or rank."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return int(tensor.elem_type), None
    dims = tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
    return int(tensor.elem_type), dims
