"""Decide which candidates are worth building for a model on a target, and why the others are left out. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekit.core.recipes import FAMILIES, MIXED, RECIPES, REFERENCE, run_config
from edgekit.core.types import BuildSpec, Candidate, ModelInfo, Recipe, Requirements, Target
from edgekit.errors import TargetIncompatible

# An ISA that executes bf16 dot products or tiles; without one an engine emulates bf16 slower than f32.
BF16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

# Opset 13 gave QuantizeLinear its `axis`: per-channel QDQ below it builds a model that does not load.
MIN_QDQ_OPSET = 13


# How the operators of a model that is quantized already begin, without their domain; weights alone may be.
QUANTIZED_MARKS = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "QLinear", "QGemm", "QAttention"),
    *("MatMulInteger", "ConvInteger", "MatMulNBits"),
)

# int4 is for models that are mostly matrices: elsewhere it leaves most weights as they are, and costs answers.
MATRIX_OPS = frozenset({"MatMul", "Gemm"})
MATRIX_SHARE = 0.5


@dataclass(frozen=True)
class Plan:
    """The candidates to build, the reference first, and the recipes left out with their reasons."""

    candidates: tuple[Candidate, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """What planning needs to know beyond the model and the target.

    `model_sha256` covers all that builds read of the model, fixed shapes included; `calibration_sha256` is empty without data.
    """

    model_sha256: str
    host_isa: tuple[str, ...]
    calibration_sha256: str
    builder_versions: Mapping[str, str]
    threads: int


def make_plan(model: ModelInfo, target: Target, requirements: Requirements, facts: Facts) -> Plan:
    """The reference always comes first and is never left out: the worst answer is the model as it was given.

    Raises TargetIncompatible when the target has no engine for the reference.
    """
    if RECIPES[REFERENCE].engine not in target.engines:
        raise TargetIncompatible(
            f"no {RECIPES[REFERENCE].engine} runs there, and it is what every answer is compared with",
            where=f"{target.name} ({target.arch}, glibc {target.glibc})",
            next_step="choose a target with glibc 2.27 or later",
        )
    left_out: dict[str, str] = {}
    candidates: list[Candidate] = []
    for recipe in RECIPES.values():
        reason = "" if recipe.name == REFERENCE else _why_not(recipe, model, target, requirements, facts)
        if reason:
            left_out[recipe.name] = reason
        else:
            candidates.append(_candidate(recipe, target, facts))
    candidates.sort(key=lambda c: c.name != REFERENCE)
    return Plan(tuple(candidates), left_out)


def _candidate(recipe: Recipe, target: Target, facts: Facts) -> Candidate:
    spec = BuildSpec(
        model_sha256=facts.model_sha256,
        recipe=recipe,
        engine_version=target.engines[recipe.engine],
        builder_versions=facts.builder_versions,
        numeric=target.numeric,
        calibration_sha256=facts.calibration_sha256 if recipe.needs_calibration else "",
    )
    return Candidate(spec, run_config(recipe.name, facts.threads))


def _why_not(recipe: Recipe, model: ModelInfo, target: Target, requirements: Requirements, facts: Facts) -> str:
    """The first reason to leave a recipe out, or an empty string."""
    forbidden = {recipe.name, recipe.engine, *precision_words(recipe)} & set(requirements.forbid)
    if forbidden:
        return f"forbidden by --forbid {sorted(forbidden)[0]}"
    if recipe.engine not in target.engines:
        return f"no {recipe.engine} edgekit knows runs on {target.arch} with glibc {target.glibc}"
    if refused := model.refusals.get(recipe.engine):
        return f"{recipe.engine} does not take the model: {refused[0]}"
    if "bf16" in precision_words(recipe) and (missing := _why_not_bf16(target.isa, facts.host_isa, target.name)):
        return missing
    if recipe.needs_calibration and not facts.calibration_sha256:
        return "needs calibration data: add --data, or a calibration split to the data set"
    if _quantizes(recipe) and _already_quantized(model.op_counts):
        return "the model is already quantized"
    if recipe.needs_calibration and recipe.engine == "onnxruntime" and model.opset < MIN_QDQ_OPSET:
        return f"per-channel QDQ needs opset {MIN_QDQ_OPSET}, the model stayed at {model.opset}"
    if recipe.precision.startswith("int4") and (share := _matrix_share(model)) < MATRIX_SHARE:
        return f"matrix products hold {share:.0%} of the weights, int4 is for models where they hold most"
    return ""


def _matrix_share(model: ModelInfo) -> float:
    """The part of all weights that matrix products read."""
    total = sum(layer.weight_elements for layer in model.layers)
    return sum(layer.weight_elements for layer in model.layers if layer.op in MATRIX_OPS) / total if total else 0.0


def _why_not_bf16(target_isa: Iterable[str], host_isa: Iterable[str], name: str) -> str:
    if not BF16_FEATURES & set(target_isa):
        return f"{name} has no bf16 instructions"
    if not BF16_FEATURES & set(host_isa):
        return "this host has no bf16 instructions to prove the accuracy with"
    return ""


def precision_words(recipe: Recipe) -> tuple[str, ...]:
    """What `--forbid` may call a recipe's arithmetic: its own precision, and bf16 where the rest of it runs in bf16."""
    hint = run_config(recipe.name, 1).precision
    return (recipe.precision,) if hint == "f32" else tuple(dict.fromkeys((recipe.precision, hint)))


def forbiddable() -> tuple[str, ...]:
    """Every word `--forbid` takes: engines, precisions, recipes. The reference can't be forbidden."""
    words: dict[str, None] = {}
    for recipe in RECIPES.values():
        if recipe.name != REFERENCE:
            words.update(dict.fromkeys((recipe.engine, *precision_words(recipe), recipe.name)))
    return (*words, *(parent + MIXED for family in FAMILIES for parent in family))


def _quantizes(recipe: Recipe) -> bool:
    return recipe.precision.startswith(("int8", "int4"))


def _already_quantized(op_counts: Mapping[str, int]) -> bool:
    return any(op.replace(".", ":").rpartition(":")[2].startswith(QUANTIZED_MARKS) for op in op_counts)
