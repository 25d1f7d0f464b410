"""Artifacts for ONNX Runtime: one `model.onnx`, made by ONNX Runtime's own optimizer and quantizers. Runs in the sandbox only.

- what is stored means the same on every CPU: optimization stops at EXTENDED, and no hardware layout gets through;
- every session names its threads and the CPU provider;
- constants are folded before quantizing: weights behind a Constant, Identity or BatchNormalization node are not seen otherwise;
- static int8 takes its ranges from `quantize`; where QDQ pairs go and what they fuse to is ONNX Runtime's own.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgekit.core.types import Built
from edgekit.engines.base import Ports, Steps, Task, one_line, onnx_ports
from edgekit.errors import InputRejected
from edgekit.quantize import collect, graphs, nbits, qdq
from edgekit.quantize import optimize as stored
from edgekit.quantize.ranges import find_ranges

name = "onnxruntime"

FILE = "model.onnx"
HARDWARE_LAYOUT = "com.microsoft.nchwc"


def build(task: Task) -> Built:
    """Run the steps, each from a file to a file; no step: the original itself."""
    current = task.model if task.recipe.steps else task.original
    for step in task.recipe.steps:
        current = STEPS[step.name](task, current, step.params)
    model = onnx.load(str(current))
    _refuse_hardware_layout(model)
    if current == task.original and not _has_external_data(current):
        shutil.copyfile(current, task.out / FILE)
    else:
        onnx.save(model, str(task.out / FILE))
    quantized, quantizable = graphs.quantized_ops(model)
    return Built((FILE,), tuple(task.notes), quantized, quantizable)


def check(model: Path) -> tuple[str, ...]:
    """Why a session cannot be made; this is the named boundary for what it raises."""
    try:
        ort.InferenceSession(str(model), _options(), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has a dozen exception types
        return (one_line(error),)
    return ()


def ports(artifact: Path, wanted: Ports) -> Ports:
    """The names in the file; `wanted` is not needed, a port has one name here."""
    return onnx_ports(onnx.load(str(artifact), load_external_data=False))


def _options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _refuse_hardware_layout(model: onnx.ModelProto) -> None:
    if any(node.domain == HARDWARE_LAYOUT for graph in graphs.walk(model.graph) for node in graph.node):
        raise InputRejected(
            f"holds {HARDWARE_LAYOUT} operators: it was saved for one CPU and is wrong on others",
            next_step="use the model from before it was optimized",
        )


def _has_external_data(path: Path) -> bool:
    model = onnx.load(str(path), load_external_data=False)
    return any(onnx.external_data_helper.uses_external_data(t) for g in graphs.walk(model.graph) for t in g.initializer)


# --------------------------------------------------------------------------------------------------------------- steps


def fold(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Fold constants and infer shapes: what the quantizers need to see weights and types. Without it, if ORT cannot."""
    folded, out = task.scratch / "basic.onnx", task.scratch / "folded.onnx"
    try:
        stored.optimize(model, folded, "basic", params["growth"], params.get("without", ()))
        onnx.shape_inference.infer_shapes_path(str(folded), str(out))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's and onnx's own; the next step may do without
        task.notes.append(f"constants were not folded before quantizing: {one_line(error)}")
        return model
    return out


def optimize(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """ONNX Runtime's graph optimization, stored."""
    out = task.scratch / f"{params['level']}.onnx"
    stored.optimize(model, out, params["level"], params["growth"])
    return out


def float16(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Float weights and arithmetic as float16; inputs and outputs keep their types."""
    converted = convert_float_to_float16(onnx.load(str(model)), keep_io_types=True)
    ordered = OnnxModel(converted)
    ordered.topological_sort()  # the converter appends its Cast nodes at the end
    out = task.scratch / "float16.onnx"
    onnx.save(ordered.model, str(out))
    return out


def dynamic(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Weights stored as int8, activations quantized in every inference; Gemm becomes MatMul on the way."""
    out = task.scratch / "dynamic.onnx"
    quantize_dynamic(
        model,
        out,
        op_types_to_quantize=list(params["ops"]),
        per_channel=task.numeric.per_channel,
        reduce_range=task.numeric.reduce_range,
        weight_type=qdq.TYPES[task.numeric.weight_type],
        extra_options={"EnableSubgraph": True},
    )
    return out


def weights(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Large weights stored as int8 with a scale a channel; arithmetic stays fp32."""
    loaded = onnx.load(str(model))
    graphs.quantize_weights(loaded, params["min_elements"])
    out = task.scratch / "weights.onnx"
    onnx.save(loaded, str(out))
    return out


def weights_int4(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Matrices of MatMul stored as int4, a scale to a block of a column; "activations" says what they are multiplied as."""
    level = {"float32": nbits.FLOAT32, "int8": nbits.INT8}[params["activations"]]
    changed = nbits.quantize_matmuls(onnx.load(str(model)), params["block_size"], params["symmetric"], level)
    out = task.scratch / "int4.onnx"
    onnx.save(changed, str(out))
    return out


def static(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """QDQ on the flat model, with the ranges that `params["ranges"]` finds in the histograms; nodes in "keep" stay float.

    Where nothing can be quantized, the flat model itself: that it has no int8 is seen when it is counted.
    """
    if task.flat is None:
        raise InputRejected("needs calibration data", next_step="give representative samples with --data")
    flat = onnx.load(str(task.flat))
    if inner := graphs.arithmetic_ops_in_bodies(flat):
        task.notes.append(f"{inner} operators inside If or Loop bodies stay fp32: static int8 does not reach them")
    if task.histograms is None:
        return task.flat
    histograms, floating = qdq.bounded(flat, collect.load(task.histograms), params["ops"])
    if note := qdq.unbounded_note(floating):
        task.notes.append(note)
    plan = qdq.QdqPlan(tuple(params["ops"]), tuple(sorted({*params.get("keep", ()), *floating})))
    if not qdq.planned_nodes(flat, plan):
        return task.flat
    ranges = find_ranges(histograms, params["ranges"], qdq.activation_grid(task.numeric))
    out = task.scratch / "static.onnx"
    onnx.save(qdq.insert(flat, ranges, plan, task.numeric), str(out))
    return out


STEPS: Steps = {
    "fold": fold,
    "optimize": optimize,
    "float16": float16,
    "quantize_dynamic": dynamic,
    "quantize_weights": weights,
    "quantize_weights_int4": weights_int4,
    "quantize_static": static,
}
