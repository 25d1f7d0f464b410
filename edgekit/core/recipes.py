"""Every way edgekit can make an artifact, as data.

- a recipe is an engine, steps from that engine's table, and whether they need data; which suit a target, the planner decides;
- recipes with the same engine and steps share one artifact and differ in how it is run;
- the first recipe is the reference: the model exactly as it was given;
- a search makes recipes of its own from those that quantize: `mixed`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from edgekit.core.types import Recipe, RunConfig, Step

ONNXRUNTIME = "onnxruntime"
OPENVINO = "openvino"

REFERENCE = "ort-fp32"

# Operators that are worth int8 arithmetic, then those that only pass int8 on: without the latter each would cost a
# dequantize and a quantize. Operators without an int8 kernel in ONNX Runtime (ConvTranspose, InstanceNormalization) stay out.
INT8_ARITHMETIC = ("Conv", "Gemm", "MatMul")
INT8_PASSED_ON = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
    "LeakyRelu",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# Folding constants may make a model larger; what becomes int8 after it may grow more.
FOLD = Step("fold", {"growth": 1.25})
FOLD_FOR_INT8 = Step("fold", {"growth": 2.0})


def _ort(name: str, precision: str, *steps: Step, needs_calibration: bool = False) -> Recipe:
    return Recipe(name, ONNXRUNTIME, precision, steps, needs_calibration)


def _ov(name: str, precision: str, *steps: Step, needs_calibration: bool = False) -> Recipe:
    return Recipe(name, OPENVINO, precision, steps, needs_calibration)


def _nncf(preset: str) -> Step:
    return Step("quantize", {"preset": preset, "subset_size": 300, "bias_correction": "fast"})


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _ort(REFERENCE, "fp32"),
        _ort("ort-fp32-opt", "fp32", Step("optimize", {"level": "extended", "growth": 1.25})),
        _ort("ort-fp16", "fp16", FOLD, Step("float16")),
        # Convolutions stay fp32: dynamic int8 convolution is 4 to 10 times slower.
        _ort("ort-int8-dynamic", "int8", FOLD_FOR_INT8, Step("quantize_dynamic", {"ops": ("MatMul", "LSTM")})),
        _ort("ort-int8-weights", "int8-weights", FOLD_FOR_INT8, Step("quantize_weights", {"min_elements": 1024})),
        # A matrix product reads each weight once: where they hold most of the model, its time is that of reading them.
        _ort(
            "ort-int4-weights",
            "int4-weights",
            Step("fold", {"growth": 2.0, "without": ("MatMulAddFusion",)}),
            Step("quantize_weights_int4", {"block_size": 32, "symmetric": False, "activations": "int8"}),
        ),
        _ort(
            "ort-int8",
            "int8",
            Step("quantize_static", {"ops": INT8_ARITHMETIC + INT8_PASSED_ON, "ranges": "minmax"}),
            needs_calibration=True,
        ),
        # Attention and other MatMuls stay fp32: where they carry the answer, this keeps it.
        _ort(
            "ort-int8-conv",
            "int8",
            Step("quantize_static", {"ops": ("Conv", "Clip", "MaxPool", "Relu"), "ranges": "minmax"}),
            needs_calibration=True,
        ),
        _ov("ov-f32", "fp32", Step("convert")),
        _ov("ov-bf16", "bf16", Step("convert")),
        _ov("ov-fp16", "fp16-weights", Step("convert", {"compress_to_fp16": True})),
        # Symmetric activations are faster in most models by a few percent; what is not centred at zero wants the others.
        _ov("ov-int8", "int8", _nncf("performance"), needs_calibration=True),
        _ov("ov-int8-asym", "int8", _nncf("mixed"), needs_calibration=True),
        _ov("ov-int8-bf16", "int8", _nncf("performance"), needs_calibration=True),
        _ov("ov-int8-weights", "int8-weights", Step("compress_weights", {"mode": "int8_sym"})),
        _ov(
            "ov-int4-weights",
            "int4-weights",
            Step("compress_weights", {"mode": "int4_asym", "group_size": 64, "ratio": 1.0, "all_layers": True}),
        ),
    )
}

# OpenVINO computes in bf16 wherever the CPU has it unless told otherwise; everything not named here runs in f32.
_PRECISION_HINTS: Mapping[str, str] = {"ov-bf16": "bf16", "ov-int8-bf16": "bf16"}

# Numbers below 1e-38 (denormals) cost a hundred cycles an operation on x86. On PP-OCR det, whose flat page areas make many, they
# take more than half of ONNX Runtime's time. OpenVINO flushes them by itself; the reference runs with the defaults.
_FLUSH_DENORMALS = {"session.set_denormal_as_zero": "1"}

# Without it ONNX Runtime dequantizes the weights in every inference; with it, constant folding does so once at load.
_FOLD_WEIGHTS = {"session.disable_quant_qdq": "1"}


# What a mixed recipe is called after its parent.
MIXED = "-mixed"

# Recipes a search for a mixed precision may begin from; of those in one family, from the best.
FAMILIES = (("ort-int8",), ("ov-int8", "ov-int8-asym", "ov-int8-bf16"))


def mixed(parent: Recipe, keep: Iterable[str], settings: Mapping[str, Any]) -> Recipe:
    """The int8 recipe `parent`, quantized by `settings`, with the nodes `keep` of the flat model left in floating point."""
    *before, last = parent.steps
    params = {**last.params, **settings, "keep": tuple(sorted(keep))}
    return replace(parent, name=parent.name + MIXED, steps=(*before, replace(last, params=params)))


def reads_flat(recipe: Recipe) -> bool:
    """Whether the recipe is made from the flat model, or speaks of its nodes."""
    return reads_histograms(recipe) or any("keep" in step.params for step in recipe.steps)


def reads_histograms(recipe: Recipe) -> bool:
    """Whether the recipe's ranges are found in edgekit's own calibration."""
    return any(step.name == "quantize_static" for step in recipe.steps)


def run_config(recipe: str, threads: int) -> RunConfig:
    """How the artifact of `recipe` is run on `threads` threads; a mixed one as its parent."""
    name = recipe.removesuffix(MIXED)
    options: dict[str, str] = {}
    if RECIPES[name].engine == ONNXRUNTIME and name != REFERENCE:
        options |= _FLUSH_DENORMALS
    if name == "ort-int8-weights":
        options |= _FOLD_WEIGHTS
    return RunConfig(threads, _PRECISION_HINTS.get(name, "f32"), options)
