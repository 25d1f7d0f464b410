"""Artifacts for ONNX Runtime: one `model.onnx`, made by ONNX Runtime's own optimizer and quantizers. Runs in the sandbox only.

- what is stored means the same on every CPU: optimization stops at EXTENDED, and no hardware layout gets through;
- every session names its threads and the CPU provider;
- constants are folded before quantizing: weights behind a Constant, Identity or BatchNormalization node are not seen otherwise;
- static int8 takes its ranges from `quantize`; where QDQ pairs go and what they fuse to is ONNX Runtime's own.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
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
from edgekit.quantize.ranges import find_ranges

name = "onnxruntime"

FILE = "model.onnx"
THREADS = 2
HARDWARE_LAYOUT = "com.microsoft.nchwc"
TABLE_BYTES = 4096  # constants above it are left to be folded at load in a model that would grow too much
LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


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
        ort.InferenceSession(str(model), _options(threads=1), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has a dozen exception types
        return (one_line(error),)
    return ()


def ports(artifact: Path, wanted: Ports) -> Ports:
    """The names in the file; `wanted` is not needed, a port has one name here."""
    return onnx_ports(onnx.load(str(artifact), load_external_data=False))


def _options(threads: int = THREADS, level: str = "", save_to: Path | None = None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if level:
        options.graph_optimization_level = LEVELS[level]
    if save_to:
        options.optimized_model_filepath = str(save_to)
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
    out = task.scratch / "folded.onnx"
    try:
        folded = _optimized(task, model, "basic", params["growth"], params.get("without", ()))
        onnx.shape_inference.infer_shapes_path(str(folded), str(out))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's and onnx's own; the next step may do without
        task.notes.append(f"constants were not folded before quantizing: {one_line(error)}")
        return model
    return out


def optimize(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """ONNX Runtime's graph optimization, stored."""
    return _optimized(task, model, params["level"], params["growth"])


def _optimized(task: Task, model: Path, level: str, growth: float, without: Sequence[str] = ()) -> Path:
    """The model as optimized at `level`, but for the optimizers in `without`.

    If that made it more than `growth` times larger, again with its tables not folded. ORT folds
    those at load: what is stored is smaller, what runs is the same.
    """
    out = task.scratch / f"{level}.onnx"
    how = {"providers": ["CPUExecutionProvider"], "disabled_optimizers": list(without)}
    ort.InferenceSession(str(model), _options(level=level, save_to=out), **how)
    if out.stat().st_size > growth * model.stat().st_size:
        options = _options(level=level, save_to=out)
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(TABLE_BYTES))
        ort.InferenceSession(str(model), options, **how)
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
    found = collect.load(task.histograms)
    finite = {name: histogram for name, histogram in found.items() if not histogram.nonfinite}
    keep = {*params.get("keep", ()), *_unbounded(task, flat, params["ops"], found.keys() - finite.keys())}
    plan = qdq.QdqPlan(tuple(params["ops"]), tuple(sorted(keep)))
    if not any(qdq.is_planned(node, plan) for node in flat.graph.node):
        return task.flat
    ranges = find_ranges(finite, params["ranges"], qdq.activation_grid(task.numeric))
    out = task.scratch / "static.onnx"
    onnx.save(qdq.insert(flat, ranges, plan, task.numeric), str(out))
    return out


def _unbounded(task: Task, flat: onnx.ModelProto, ops: Collection[str], nonfinite: Collection[str]) -> list[str]:
    """The nodes that touch tensors which calibration saw NaN or infinities in: no range holds those, they stay float."""
    found = [
        node.name
        for node in flat.graph.node
        if node.op_type in ops and not set(nonfinite).isdisjoint((*node.input, *node.output))
    ]
    if found:
        task.notes.append(
            f"{len(found)} operators stay fp32: calibration saw values that are not finite in '{min(nonfinite)}'"
        )
    return found


STEPS: Steps = {
    "fold": fold,
    "optimize": optimize,
    "float16": float16,
    "quantize_dynamic": dynamic,
    "quantize_weights": weights,
    "quantize_weights_int4": weights_int4,
    "quantize_static": static,
}
