"""Artifacts for OpenVINO: `model.xml` and `model.bin`, quantized by NNCF on the OpenVINO model. Runs in the sandbox only.

- a model is read by `Core.read_model`, never by `convert_model`, which would ask an analytics host;
- NNCF works on OpenVINO's own model: its ONNX output is wrong in OpenVINO on some detectors;
- Identity nodes go: newer readers keep them as an operator that older runtimes do not have;
- f32 is asked for by name: the default on a CPU with bf16 is bf16.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nncf
import onnx
import openvino as ov
from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
from openvino.utils import replace_output_update_name

from edgekit.core.types import Built
from edgekit.engines.base import Ports, Samples, Steps, Task, one_line, onnx_ports

name = "openvino"

FILES = ("model.xml", "model.bin")
PRESETS = {"mixed": nncf.QuantizationPreset.MIXED}
WEIGHT_MODES = {"int8_sym": nncf.CompressWeightsMode.INT8_SYM}
ARITHMETIC = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
    | {"LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell"}
)
# What may stand between an operator and its int8 source: NNCF dequantizes weights by these, and moves FakeQuantize through them.
TRANSPARENT = frozenset({"Convert", "Subtract", "Multiply", "Reshape", "Transpose", "Unsqueeze", "Squeeze"})
INT8_TYPES = (ov.Type.i8, ov.Type.u8)


def build(task: Task) -> Built:
    """Read the model, run the recipe's one step, and save it."""
    (step,) = task.recipe.steps
    STEPS[step.name](task, task.model, step.params)
    quantized, quantizable = quantized_ops(_core().read_model(task.out / FILES[0]))
    return Built(FILES, tuple(task.notes), quantized, quantizable)


def check(model: Path) -> tuple[str, ...]:
    """Why the model cannot be read or compiled; this is the named boundary for what it raises. It may also die by signal."""
    try:
        core = _core()
        core.compile_model(
            core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
        )
    except Exception as error:  # noqa: BLE001 - OpenVINO raises RuntimeError and more
        return (one_line(error),)
    return ()


def ports(artifact: Path, wanted: Ports) -> Ports:
    """The artifact's names, the wanted one at each place if the port answers to it."""
    model = _core().read_model(artifact)
    return Ports(_names(model.inputs, wanted.inputs), _names(model.outputs, wanted.outputs))


def _core() -> ov.Core:
    return ov.Core()


def _read(path: Path) -> ov.Model:
    """The ONNX model as OpenVINO's, without Identity nodes. Names stay: what an Identity fed is called as before."""
    model = _core().read_model(path)
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Identity":
            replace_output_update_name(node.output(0), node.input_value(0))
    return model


def _names(found: list[Any], wanted: tuple[str, ...]) -> tuple[str, ...]:
    hoped = wanted if len(wanted) == len(found) else ("",) * len(found)
    return tuple(_name(port, want) for port, want in zip(found, hoped, strict=True))


def _name(port: Any, want: str) -> str:
    names = port.get_names()
    return want if want in names else min(names, default="")


def quantized_ops(model: ov.Model) -> tuple[int, int]:
    """(operators of arithmetic fed by FakeQuantize or int8 weights, all operators of arithmetic)."""
    arithmetic = [node for node in model.get_ops() if node.get_type_name() in ARITHMETIC]
    return sum(any(_is_int8(source) for source in _sources(node)) for node in arithmetic), len(arithmetic)


def _sources(node: Any) -> list[Any]:
    return [node.input_value(i).get_node() for i in range(node.get_input_size())]


def _is_int8(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "Constant":
        return node.get_element_type() in INT8_TYPES
    if kind in TRANSPARENT:
        return _is_int8(_sources(node)[0])
    return bool(kind == "FakeQuantize")


# --------------------------------------------------------------------------------------------------------------- steps


def convert(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """OpenVINO's IR; with `compress_to_fp16`, weights are stored as float16."""
    return _save(task, _read(model), compress_to_fp16=params.get("compress_to_fp16", False))


def quantize(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """NNCF's post-training quantization, statistics in f32 over up to `subset_size` samples."""
    samples = Samples(task.calibration, onnx_ports(onnx.load(str(model), load_external_data=False)).inputs)
    count = min(len(samples), params["subset_size"])
    # Without VNNI two int8 products overflow int16: halve the weights' range there, nowhere else.
    overflow = OverflowFix.ENABLE if task.numeric.reduce_range else OverflowFix.DISABLE
    quantized = nncf.quantize(
        _read(model),
        nncf.Dataset(range(count), samples.__getitem__),
        preset=PRESETS[params["preset"]],
        subset_size=count,
        fast_bias_correction=params["fast_bias_correction"],
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=overflow),
    )
    return _save(task, quantized)


def compress_weights(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Weights stored as int8; arithmetic stays f32."""
    return _save(task, nncf.compress_weights(_read(model), mode=WEIGHT_MODES[params["mode"]]))


def _save(task: Task, model: ov.Model, compress_to_fp16: bool = False) -> Path:
    out = task.out / FILES[0]
    ov.save_model(model, out, compress_to_fp16=compress_to_fp16)
    return out


STEPS: Steps = {"convert": convert, "quantize": quantize, "compress_weights": compress_weights}
