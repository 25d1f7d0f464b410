"""What is worth building, and why the rest is left out; what the cost model may and may not say."""

from dataclasses import replace

import pytest

from edgekit.core.cost import fastest_cluster, has_dot_product, predict
from edgekit.core.plan import Facts, forbiddable, make_plan
from edgekit.core.recipes import RECIPES, REFERENCE
from edgekit.core.types import Cluster, LayerCost, Requirements
from edgekit.errors import TargetIncompatible
from tests.records import artifact, candidate, model, target

NO_DATA = Facts(model_sha256="0" * 64, host_isa=(), calibration_sha256="", builder_versions={}, threads=2)
DATA = replace(NO_DATA, calibration_sha256="1" * 64)
ANY = Requirements()


def planned(*args: object) -> set[str]:
    return {c.name for c in make_plan(*args).candidates}  # type: ignore[arg-type]


def test_every_recipe_is_planned_or_left_out_with_a_reason() -> None:
    plan = make_plan(model(), target(), ANY, DATA)
    assert {c.name for c in plan.candidates} | set(plan.left_out) == set(RECIPES)
    assert not {c.name for c in plan.candidates} & set(plan.left_out)
    assert all(plan.left_out.values())


def test_the_reference_comes_first_and_nothing_leaves_it_out() -> None:
    refused = model(refusals={"onnxruntime": ("no",)})
    plan = make_plan(refused, target(), Requirements(forbid=forbiddable()), NO_DATA)
    assert [c.name for c in plan.candidates] == [REFERENCE]


def test_a_target_without_the_reference_engine_is_incompatible() -> None:
    with pytest.raises(TargetIncompatible, match="glibc"):
        make_plan(model(), target(engines={"openvino": "2026.4.1"}, glibc="2.17"), ANY, NO_DATA)


def test_a_model_without_layers_is_predicted_too() -> None:
    found = predict(model(layers=()), target(), candidate(REFERENCE), artifact(REFERENCE), None)
    assert found.p50_ms > 0
    assert found.ratio == 1


def test_without_data_nothing_is_calibrated() -> None:
    plan = make_plan(model(), target("bf16"), ANY, replace(NO_DATA, host_isa=("avx512_bf16",)))
    assert "ov-bf16" in {c.name for c in plan.candidates}
    assert not any(c.build.recipe.needs_calibration for c in plan.candidates)
    assert plan.left_out["ort-int8"].startswith("needs calibration data: add --data")
    assert "ort-int8" in planned(model(), target(), ANY, DATA)


def test_the_reference_runs_with_default_options_and_every_other_onnxruntime_candidate_flushes_denormals() -> None:
    for c in make_plan(model(), target(), ANY, DATA).candidates:
        flushes = c.run.options.get("session.set_denormal_as_zero") == "1"
        assert flushes == (c.build.recipe.engine == "onnxruntime" and c.name != REFERENCE)
    assert candidate(REFERENCE).run.options == {}


def test_the_calibration_digest_keys_only_what_is_calibrated() -> None:
    for c in make_plan(model(), target(), ANY, DATA).candidates:
        assert bool(c.build.calibration_sha256) == c.build.recipe.needs_calibration


@pytest.mark.parametrize(
    ("target_isa", "host_isa", "there"),
    [
        ((), ("avx512_bf16",), False),
        (("bf16",), (), False),
        (("bf16",), ("avx512_bf16",), True),
        (("bf16",), ("amx_bf16",), True),
    ],
)
def test_bf16_needs_the_instructions_on_the_target_and_on_the_host_that_proves_it(
    target_isa: tuple[str, ...], host_isa: tuple[str, ...], there: bool
) -> None:
    names = planned(model(), target(*target_isa), ANY, replace(DATA, host_isa=host_isa))
    assert ("ov-bf16" in names) == there
    assert ("ov-int8-bf16" in names) == there


@pytest.mark.parametrize("word", ["bf16", "openvino", "int8", "ov-f32"])
def test_forbid_takes_precisions_engines_and_recipes(word: str) -> None:
    bf16 = target("bf16"), replace(DATA, host_isa=("avx512_bf16",))
    allowed = planned(model(), bf16[0], ANY, bf16[1])
    left = planned(model(), bf16[0], Requirements(forbid=(word,)), bf16[1])
    gone = {name for name in allowed if word in (name, RECIPES[name].engine, RECIPES[name].precision)}
    if word == "bf16":
        gone.add("ov-int8-bf16")
    assert gone
    assert left == allowed - gone


def test_an_engine_the_target_has_not_and_one_that_refuses_are_left_out() -> None:
    plan = make_plan(model(), target(engines={"onnxruntime": "1.32.0"}), ANY, DATA)
    assert "glibc" in plan.left_out["ov-f32"]
    plan = make_plan(model(refusals={"openvino": ("it has an If",)}), target(), ANY, DATA)
    assert "it has an If" in plan.left_out["ov-f32"]


def test_an_already_quantized_model_is_recognised_also_by_qualified_names() -> None:
    for op in ("QuantizeLinear", "QLinearConv", "com.microsoft.QLinearAdd", "com.microsoft::QLinearAdd"):
        plan = make_plan(model(op_counts={op: 1}), target(), ANY, DATA)
        assert plan.left_out["ort-int8"] == "the model is already quantized", op
    assert "ort-int8" in planned(model(op_counts={"Conv": 1}), target(), ANY, DATA)


def test_an_old_opset_leaves_per_channel_qdq_out() -> None:
    assert "opset 13" in make_plan(model(opset=11), target(), ANY, DATA).left_out["ort-int8"]


# ---------------------------------------------------------------------------------------------------------- predictions


def p50(recipe: str, *isa: str, threads: int = 1, quantized: int = 2) -> float:
    return predict(
        model(), target(*isa), candidate(recipe, threads), artifact(recipe, quantized=quantized), None
    ).p50_ms


@pytest.mark.parametrize("recipe", [name for name, r in RECIPES.items() if r.precision.startswith("int8")])
def test_int8_is_never_predicted_faster_without_dot_product(recipe: str) -> None:
    assert not has_dot_product(target())
    reference = p50(REFERENCE) if RECIPES[recipe].engine == "onnxruntime" else p50("ov-f32")
    if recipe != "ov-int8-bf16":  # its other half is bf16, which such a target has not either: never planned there
        assert p50(recipe) >= reference


def test_int8_is_predicted_faster_with_dot_product_in_proportion_to_what_was_quantized() -> None:
    assert p50("ort-int8", "asimddp", quantized=2) < p50("ort-int8", "asimddp", quantized=1) < p50(REFERENCE, "asimddp")


def test_threads_beyond_the_fastest_cluster_change_nothing() -> None:
    assert p50(REFERENCE, threads=4) < p50(REFERENCE, threads=1)
    assert p50(REFERENCE, threads=9) == p50(REFERENCE, threads=4)


def test_the_roofline_is_the_documented_sum() -> None:
    """One compute-bound layer by hand: 8e9 MACs at 8 a cycle, 1 GHz, efficiency 0.4 are 2.5 s, and the overhead of a node."""

    one = model(layers=(LayerCost("Conv", 8_000_000_000, 1, 1),))
    board = target(clusters=(Cluster("x", 1, 1000, 8, 0, 8),))
    found = predict(one, board, candidate(REFERENCE), artifact(REFERENCE), 123)
    assert found.p50_ms == pytest.approx(2500 + 0.004)
    assert found.peak_memory_bytes == 123
    assert found.throughput_ips == pytest.approx(1000 / found.p50_ms)


def test_the_fastest_cluster_is_taken_not_the_largest() -> None:
    little, big = Cluster("a55", 6, 1800, 4, 8, 16), Cluster("a76", 2, 2400, 8, 16, 32)
    assert fastest_cluster(target(clusters=(little, big))) is big


def test_int4_is_for_models_that_are_mostly_matrices() -> None:
    def layers(matrix: int, kernel: int) -> tuple[LayerCost, ...]:
        return (LayerCost("MatMul", 100, matrix, 10), LayerCost("Conv", 100, kernel, 10))

    mostly_kernels = make_plan(model(layers=layers(400, 600)), target(), ANY, DATA)
    assert mostly_kernels.left_out["ort-int4-weights"].startswith("matrix products hold 40% of the weights")
    mostly_matrices = make_plan(model(layers=layers(600, 400)), target(), ANY, DATA)
    assert "ort-int4-weights" in {candidate.name for candidate in mostly_matrices.candidates}
    assert "ort-int4-weights" in make_plan(model(layers=()), target(), ANY, DATA).left_out
