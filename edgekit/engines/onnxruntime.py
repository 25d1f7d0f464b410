"""Artifacts for ONNX Runtime: one `model.onnx`, made by ONNX Runtime's own optimizer and quantizers. Runs in the sandbox only.

- what is stored means the same on every CPU: optimization stops at EXTENDED, and no hardware layout gets through;
- every session names its threads and the CPU provider;
- constants are folded before quantizing: weights behind a Constant, Identity or BatchNormalization node are not seen otherwise.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.calibrate import MinMaxCalibrater, save_tensors_data
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

from edgekit.core.types import Built
from edgekit.engines import graphs
from edgekit.engines.base import Ports, Samples, Steps, Task, one_line, onnx_ports
from edgekit.errors import InputRejected

name = "onnxruntime"

FILE = "model.onnx"
THREADS = 2
HARDWARE_LAYOUT = "com.microsoft.nchwc"
TABLE_BYTES = 4096  # constants above it are left to be folded at load in a model that would grow too much
PER_CHANNEL_OPSET = 13  # QuantizeLinear has an `axis` since
LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}
TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}


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
        onnx.shape_inference.infer_shapes_path(str(_optimized(task, model, "basic", params["growth"])), str(out))
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's and onnx's own; the next step may do without
        task.notes.append(f"constants were not folded before quantizing: {one_line(error)}")
        return model
    return out


def optimize(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """ONNX Runtime's graph optimization, stored."""
    return _optimized(task, model, params["level"], params["growth"])


def _optimized(task: Task, model: Path, level: str, growth: float) -> Path:
    """The model as optimized at `level`; if that made it more than `growth` times larger, again with its tables not folded.

    ORT folds those at load: what is stored is smaller, what runs is the same.
    """
    out = task.scratch / f"{level}.onnx"
    ort.InferenceSession(str(model), _options(level=level, save_to=out), providers=["CPUExecutionProvider"])
    if out.stat().st_size > growth * model.stat().st_size:
        options = _options(level=level, save_to=out)
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(TABLE_BYTES))
        ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
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
        weight_type=TYPES[task.numeric.weight_type],
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


def static(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """QDQ with ranges from calibration data, minimum and maximum over all samples."""
    loaded = onnx.load(str(model))
    if graphs.opset(loaded) < PER_CHANNEL_OPSET:
        raise InputRejected(
            f"static int8 needs opset {PER_CHANNEL_OPSET} or later, the model has {graphs.opset(loaded)}"
        )
    inner = graphs.arithmetic_ops_in_bodies(loaded)
    if inner:
        task.notes.append(f"{inner} operators inside If or Loop bodies stay fp32: static int8 does not reach them")
    graphs.own_biases(loaded)
    flat, ranges, out = (task.scratch / name for name in ("flat.onnx", "ranges.json", "static.onnx"))
    onnx.save(loaded, str(flat))
    samples = Samples(task.calibration, onnx_ports(loaded).inputs)
    calibrate(flat, tuple(params["ops"]), samples, ranges, task.scratch)
    quantize_static(
        flat,
        out,
        calibration_cache_path=ranges,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(params["ops"]),
        per_channel=task.numeric.per_channel,
        reduce_range=task.numeric.reduce_range,
        activation_type=TYPES[task.numeric.activation_type],
        weight_type=TYPES[task.numeric.weight_type],
    )
    return out


STEPS: Steps = {
    "fold": fold,
    "optimize": optimize,
    "float16": float16,
    "quantize_dynamic": dynamic,
    "quantize_weights": weights,
    "quantize_static": static,
}


# --------------------------------------------------------------------------------------------------------- calibration


class _Calibrater(MinMaxCalibrater):  # type: ignore[misc]  # untyped base
    """ORT's own, with explicit threads. The graph reduces every tensor to its minimum and maximum: memory stays flat."""

    def create_inference_session(self) -> None:
        self.infer_session = ort.InferenceSession(
            self.augmented_model_path, _options(level="none"), providers=["CPUExecutionProvider"]
        )


class _Reader:
    """What the calibrater reads: a feed per call, None at the end."""

    def __init__(self, samples: Samples) -> None:
        self._feeds = iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def calibrate(model: Path, ops: tuple[str, ...], samples: Samples, ranges: Path, scratch: Path) -> None:
    """Write the range of every tensor that `ops` touch to `ranges`, as ORT's `quantize_static` reads it.

    `CalibMaxIntermediateOutputs` is never set: with it ORT forgets samples.
    """
    calibrater = _Calibrater(model, list(ops), augmented_model_path=str(scratch / "augmented.onnx"))
    calibrater.augment_graph()
    calibrater.create_inference_session()
    calibrater.collect_data(_Reader(samples))
    save_tensors_data(calibrater.compute_data(), ranges)
