"""Artifacts for OpenVINO: `model.xml` and `model.bin`, quantized by NNCF on the OpenVINO model. Runs in the sandbox only.

- a model is read by `Core.read_model`, never by `convert_model`, which would ask an analytics host;
- NNCF works on OpenVINO's own model: its ONNX output is wrong in OpenVINO on some detectors;
- what NNCF quantizes is fused first, as `convert_model` does: it quantizes the pieces of a LayerNorm that is not, and squares in
  8 bits lose the small variances, which collapsed a text recognizer;
- sums, ratios, norms and what a root or a logarithm is taken of are never quantized: other models write their norms out; nor is
  a product whose weights stand on the left, which the CPU plugin computes wrong;
- Identity nodes go: newer readers keep them as an operator that older runtimes do not have;
- f32 is asked for by name: the default on a CPU with bf16 is bf16.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nncf
import onnx
import openvino as ov
from nncf.quantization.advanced_parameters import (
    AdvancedCompressionParameters,
    AdvancedQuantizationParameters,
    GroupSizeFallbackMode,
    OverflowFix,
)
from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet
from openvino._offline_transformations import apply_moc_transformations
from openvino.utils import replace_output_update_name

from edgekit.core.types import Built
from edgekit.engines import nncf_scope
from edgekit.engines.base import Ports, Steps, Task, one_line, onnx_ports
from edgekit.errors import InputRejected, InternalError
from edgekit.quantize.feeds import Feeds
from edgekit.quantize.samples import Samples

name = "openvino"

FILES = ("model.xml", "model.bin")
PRESETS = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}
# How a tensor's range comes of its samples: the mean of each one's least and greatest value, or the least and greatest of all.
ACTIVATION_RANGES = {
    "mean": RangeEstimatorParameters(),  # NNCF's default, which is the least and greatest where a range is per channel
    "minmax": RangeEstimatorParametersSet.MINMAX,
}
CORRECTS_BIASES = {"fast": True, "off": False}
INT8_WEIGHTS = {"int8_sym": nncf.CompressWeightsMode.INT8_SYM, "int8_asym": nncf.CompressWeightsMode.INT8_ASYM}
INT4_WEIGHTS = {"int4_sym": nncf.CompressWeightsMode.INT4_SYM, "int4_asym": nncf.CompressWeightsMode.INT4_ASYM}
ARITHMETIC = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
    | {"LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell"}
)


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
    """(operators of arithmetic that are quantized, all of them), bodies included, each counting one whatever its work."""
    counts = [nncf_scope.count_quantized(part, ARITHMETIC) for part in (model, *nncf_scope.bodies(model))]
    return sum(quantized for quantized, _ in counts), sum(total for _, total in counts)


# --------------------------------------------------------------------------------------------------------------- steps


def convert(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """OpenVINO's IR; with `compress_to_fp16`, weights are stored as float16."""
    return _save(task, _read(model), compress_to_fp16=params.get("compress_to_fp16", False))


def quantize(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """NNCF's post-training quantization, statistics in f32 over up to `subset_size` samples.

    `params`: "preset"; "subset_size"; "bias_correction", a key of CORRECTS_BIASES; and optional: "keep", names of nodes of the flat
    model that stay in floating point; "activation_range", a key of ACTIVATION_RANGES. NNCF 3.4's channel alignment raises on
    every model with two convolutions: it is not offered. Raises InputRejected without calibration data, when nothing is left to
    be quantized, or NNCF cannot do it on this model.
    """
    keep = tuple(params.get("keep", ()))
    if keep and task.flat is None:
        raise InternalError("nodes are kept by their names in the flat model, which was not given")
    if task.calibration is None:
        raise InputRejected("needs calibration data", next_step="give representative samples with --data")
    source = task.flat or model
    loaded = onnx.load(str(source), load_external_data=False)
    fused = _fused(source)
    kept = nncf_scope.scope(fused, loaded.graph, keep)
    ignored = {*kept.nodes, *nncf_scope.fragile(fused, ARITHMETIC), *nncf_scope.left_weights(fused)}
    samples = Samples(task.calibration, onnx_ports(loaded).inputs, task.state)
    quantized = _nncf(task, fused, Feeds(source, samples, params["subset_size"]), sorted(ignored), params)
    if keep and not any(node.get_type_name() == "FakeQuantize" for node in quantized.get_ops()):
        raise InputRejected("nothing is left to be quantized", next_step="keep fewer layers in full precision")
    _note_kept(task, quantized, kept)
    _note_bodies(task, quantized)
    return _save(task, quantized)


def _nncf(task: Task, model: ov.Model, feeds: Feeds, ignored: Iterable[str], params: Mapping[str, Any]) -> ov.Model:
    try:
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            preset=PRESETS[params["preset"]],
            subset_size=len(feeds),
            ignored_scope=nncf.IgnoredScope(names=list(ignored)),
            advanced_parameters=AdvancedQuantizationParameters(
                # Without VNNI two int8 products overflow int16: halve the weights' range there, nowhere else.
                overflow_fix=OverflowFix.ENABLE if task.numeric.reduce_range else OverflowFix.DISABLE,
                disable_bias_correction=not CORRECTS_BIASES[params["bias_correction"]],
                activations_range_estimator_params=ACTIVATION_RANGES[params.get("activation_range", "mean")],
            ),
        )
    except nncf.InternalError as error:  # it looks for nodes of the body in the graph around it
        if loops := {node.get_type_name() for node in model.get_ops()} & {"Loop", "TensorIterator"}:
            raise InputRejected(f"NNCF does not quantize models with {min(loops)}: {one_line(error)}") from error
        raise


def _note_kept(task: Task, quantized: ov.Model, kept: nncf_scope.Scope) -> None:
    """Say which nodes could not be kept: those that were not found, and those that NNCF quantized all the same."""
    if kept.missing:
        task.notes.append(f"not found in OpenVINO's model, so not kept in full precision: {', '.join(kept.missing)}")
    if quantized_anyway := nncf_scope.still_quantized(quantized, ARITHMETIC, kept.nodes):
        task.notes.append(f"quantized although they were to be kept: {', '.join(quantized_anyway)}")


def _note_bodies(task: Task, quantized: ov.Model) -> None:
    """NNCF quantizes the bodies of If that calibration entered, and no others: say what stays."""
    counts = [nncf_scope.count_quantized(body, ARITHMETIC) for body in nncf_scope.bodies(quantized)]
    if left := sum(total - done for done, total in counts):
        task.notes.append(f"{left} operators inside If or Loop bodies stay in floating point: NNCF did not reach them")


def _fused(path: Path) -> ov.Model:
    """The model as NNCF expects it: LayerNorm, Gelu, Swish and attention in one piece each. Names of inputs and outputs stay."""
    model = _read(path)
    apply_moc_transformations(model, cf=False, smart_reshape=False)
    return model


def compress_weights(task: Task, model: Path, params: Mapping[str, Any]) -> Path:
    """Weights stored as int8, or with an int4 mode those of matrix products as int4; arithmetic stays f32.

    `params`: "mode"; for int4 modes also "group_size", weights that share a scale, fewer where it does not divide a matrix;
    "ratio", the share of weights that become int4, the rest int8; "all_layers", whether embeddings and the last product are
    among them.
    """
    mode = params["mode"]
    if mode in INT8_WEIGHTS:
        return _save(task, nncf.compress_weights(_read(model), mode=INT8_WEIGHTS[mode]))
    compressed = nncf.compress_weights(
        _read(model),
        mode=INT4_WEIGHTS[mode],
        ratio=params.get("ratio", 1.0),
        group_size=params.get("group_size", 64),
        all_layers=params.get("all_layers", False),
        advanced_parameters=AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST),
    )
    return _save(task, compressed)


def _save(task: Task, model: ov.Model, compress_to_fp16: bool = False) -> Path:
    out = task.out / FILES[0]
    nncf_scope.name_nodes(model)
    ov.save_model(model, out, compress_to_fp16=compress_to_fp16)
    return out


STEPS: Steps = {"convert": convert, "quantize": quantize, "compress_weights": compress_weights}
