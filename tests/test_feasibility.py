"""Bounds by arithmetic: the sums are right, they err to one side only, and what they refuse is refused before a build."""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from edgekit.core.cost import predict
from edgekit.core.facts import DeviceFacts
from edgekit.core.feasibility import Bound, bounds, require_possible
from edgekit.core.targets import host_target, parse_target
from edgekit.core.types import Cluster, LatencyBudget, LayerCost, ModelInfo, Requirements, Sources, Target
from edgekit.devices.local import LocalDevice
from edgekit.errors import RequirementsNotMet
from edgekit.flow.inspect import inspect
from edgekit.measure import device_facts
from tests.conftest import ROOT, Cli
from tests.hostile import linear, value
from tests.hostile import model as onnx_model
from tests.records import MIB, artifact, candidate, model, target

FP32 = (candidate("ort-fp32"),)
INT8 = (*FP32, candidate("ov-int8"))
PEAKS = {
    "clusters": "a manual",
    "bandwidth_gb_s": "a data sheet",
    "ram_mib": "a product brief",
    "storage_mib": "assumption",
}
BOARD = target("asimddp", sources=PEAKS)


def dense(macs: int, weights: int, op: str = "MatMul", **changes: object) -> ModelInfo:
    """A model of one layer."""
    layers = (LayerCost(op, macs, weights, 1000),)
    changes = {"op_counts": {op: 1}, **changes}
    return model(layers=layers, macs=macs, params=weights, weight_bytes=4 * weights, **changes)


def named(name: str) -> Target:
    return parse_target((ROOT / "targets" / f"{name}.toml").read_text(), name)


def only(found: Iterable[Bound], requirement: str = "latency") -> Bound:
    """The bound of one requirement."""
    (one,) = (bound for bound in found if bound.requirement == requirement)
    return one


def latency(limit_ms: float, **others: object) -> Requirements:
    return Requirements(latency=LatencyBudget(limit_ms), **others)


def test_the_sum_of_a_latency() -> None:
    """4 cores at 2 GHz with 8 fp32 and 32 int8 multiply-accumulates a cycle: 64 and 256 G a second."""
    bound = only(bounds(dense(1_000_000_000, 1000), BOARD, latency(10), FP32))
    assert bound.least == pytest.approx(1e3 / 64)
    assert not bound.holds
    assert bound.text == (
        "latency 10 ms: 1000 M MACs of matrix products / (4 x cortex-a76 at 2 GHz x 8 MACs a cycle (fp32)) = 15.63 ms at least"
    )
    assert bound.relaxed == "latency to 15.63 ms or more"
    assert only(bounds(dense(1_000_000_000, 1000), BOARD, latency(10), INT8)).least == pytest.approx(1e3 / 256)


def test_a_convolution_may_run_by_winograd() -> None:
    bound = only(bounds(dense(1_000_000_000, 1000, "Conv"), BOARD, latency(1), FP32))
    assert bound.least == pytest.approx(1e3 / 64 / 4)


def test_fewer_cores_take_longer_and_the_fastest_count() -> None:
    two = replace(BOARD, clusters=(Cluster("cortex-a55", 4, 1000, 4, 8, 16), Cluster("cortex-a76", 2, 2000, 8, 16, 32)))
    heavy = dense(1_000_000_000, 1000)
    found = [only(bounds(heavy, two, latency(1, max_cores=n), FP32)).least for n in (1, 2, 3, 6)]
    assert found == pytest.approx([1e3 / 16, 1e3 / 32, 1e3 / 36, 1e3 / 48])


def test_a_throughput_is_of_all_cores_and_what_comes_counts() -> None:
    camera = Requirements(sources=Sources(frame_rate=30, count=3))
    bound = only(bounds(dense(1_000_000_000, 1000), BOARD, camera, FP32), "throughput")
    assert (bound.limit, bound.least) == (90, pytest.approx(64))
    assert bound.text.endswith("= 64 a second at most")


def test_a_cold_start_takes_one_inference() -> None:
    bound = only(bounds(dense(1_000_000_000, 1000), BOARD, Requirements(max_cold_start_ms=10), FP32), "cold start")
    assert not bound.holds


def test_weights_that_no_cache_holds_are_read_from_memory() -> None:
    """64 M weights of 8 bits, 16 MiB of caches on the chip, 10 GB a second."""
    large = dense(64 << 20, 64 << 20)
    bound = only(bounds(large, BOARD, latency(1), INT8))
    assert bound.least == pytest.approx((64 - 16) * MIB / 10e9 * 1e3)
    unknown = replace(BOARD, clusters=(replace(BOARD.clusters[0], cpu="cortex-x9"),))
    assert only(bounds(large, unknown, latency(1), INT8)).least < 1
    found = bounds(large, BOARD, latency(1), INT8, measured_ram_bytes=1 << 33)
    assert only(found).least < 1, "a variant may have a faster memory"


def test_memory_and_storage_hold_the_weights_at_their_narrowest() -> None:
    asked = Requirements(max_memory_bytes=MIB, max_size_bytes=MIB)
    for ones, bits in ((FP32, 32), (INT8, 8), ((*INT8, candidate("ort-int4-weights")), 4)):
        found = {b.requirement: b.least * MIB for b in bounds(dense(1000, 8 << 20), BOARD, asked, ones)}
        assert found == {"memory": pytest.approx(MIB * bits), "storage": pytest.approx(MIB * bits)}


def test_a_board_has_no_more_memory_than_it_has() -> None:
    small = replace(BOARD, ram_bytes=MIB)
    bound = only(bounds(dense(1000, 8 << 20), small, Requirements(), FP32), "memory")
    assert (bound.limit, bound.holds) == (1, False)
    assert only(bounds(dense(1000, 8 << 20), small, Requirements(), FP32, measured_ram_bytes=1 << 30), "memory").holds


def test_shared_weights_count_once() -> None:
    layers = (LayerCost("MatMul", 1000, MIB, 10),) * 5 + (LayerCost("Gather", 0, MIB, 10),)
    shared = model(layers=layers, op_counts={"MatMul": 5, "Gather": 1}, params=2 * MIB, weight_bytes=8 * MIB)
    assert only(bounds(shared, BOARD, Requirements(max_size_bytes=1), FP32), "storage").least == pytest.approx(4)


def test_a_model_that_is_narrow_already_may_run_in_any_arithmetic() -> None:
    narrow = dense(1_000_000_000, 1000, "QLinearMatMul")
    narrow = replace(narrow, weight_bytes=1000)
    found = {b.requirement: b.least for b in bounds(narrow, BOARD, latency(1, max_size_bytes=1), FP32)}
    assert found == {"latency": pytest.approx(1e3 / 256), "storage": 1000, "memory": 1000}


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_what_may_not_run_has_no_bound_of_time_or_memory(op: str) -> None:
    branched = dense(1_000_000_000, 8 << 20, op_counts={"MatMul": 1, op: 1})
    asked = latency(1e-9, min_throughput_ips=1e9, max_memory_bytes=1, max_size_bytes=1)
    assert {b.requirement for b in bounds(branched, BOARD, asked, FP32)} == {"storage"}


@pytest.mark.parametrize("op", ["LSTM", "Einsum", "Relu"])
def test_what_may_take_fewer_steps_counts_nothing(op: str) -> None:
    assert not bounds(dense(1_000_000_000, 1000, op), target(ram_bytes=1), latency(1e-9), FP32)[1:]


# ------------------------------------------------------------------------------------------------ bounds are never too strict


def test_the_least_a_machine_does_is_no_peak() -> None:
    """`host` is described by the least its instructions promise, and a virtual machine tells the clock it likes."""
    facts = DeviceFacts("x86_64", ("avx2", "fma"), "Some CPU", 2, 1 << 33, None, "2.36", max_mhz=2100)
    bound = only(bounds(dense(10**9, 1000), host_target(facts), latency(1), FP32))
    assert bound.least == pytest.approx(1e12 / (2 * 6.2e9 * 16))


def test_a_class_of_machines_has_no_peak_of_its_own() -> None:
    for name in ("cpu-arm", "cpu-x86"):
        found = {b.requirement: b for b in bounds(dense(10**9, 1000), named(name), latency(100), FP32)}
        own = named(name).clusters[0]
        stated = own.cores * own.max_mhz * 1e6 * own.fp32_macs_per_cycle
        assert found["latency"].least < 0.9 * 1e12 / stated


def test_an_assumed_rate_is_no_peak() -> None:
    """The N100's int8 rate is an assumption, a lower bound: the best of its instruction set stands in."""
    n100 = named("intel-n100")
    assert only(bounds(dense(10**9, 1000), n100, latency(1), INT8)).least < 1e12 / (4 * 3.4e9 * 16)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Conv", "MatMul", "Gemm", "Relu", "Gather", "LSTM"]),
            st.integers(0, 10**10),
            st.integers(0, 10**8),
        ),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(sorted(path.stem for path in (ROOT / "targets").glob("*.toml"))),
    st.sampled_from(["ort-fp32", "ort-int8", "ov-int8", "ort-fp16", "ov-int4-weights"]),
    st.integers(1, 8),
)
def test_no_bound_is_above_a_prediction(layers: list, name: str, recipe: str, threads: int) -> None:
    """The predictions' roofline has overheads and an efficiency; a bound with neither lies below it, whatever the model."""
    there = named(name)
    made = tuple(LayerCost(op, macs, weights, 1000) for op, macs, weights in layers)
    params = sum(layer.weight_elements for layer in made)
    info = model(layers=made, op_counts={layer.op: 1 for layer in made}, params=params, weight_bytes=4 * params)
    one = candidate(recipe, threads)
    told = predict(info, there, one, artifact(recipe, quantized=2), None)
    for bound in bounds(info, there, latency(1.0, min_throughput_ips=1.0), (*FP32, one)):
        if bound.requirement == "latency":
            assert bound.least <= told.p50_ms
        if bound.requirement == "throughput":
            assert bound.least >= told.throughput_ips


@given(st.floats(1e-6, 1e12), st.floats(1e-6, 1e12))
def test_what_is_asked_for_as_told_is_not_refused_again(limit: float, least: float) -> None:
    for requirement in ("latency", "throughput"):
        told = float(Bound(requirement, limit, least, "u", "").relaxed.split()[2])
        assert Bound(requirement, told, least, "u", "").holds
        assert told == pytest.approx(least, rel=2e-3)


def test_no_real_engine_is_faster_than_the_bound(tmp_path: Path) -> None:
    """A product that comes near to a machine's peak, on this machine: its fastest run takes longer than the bound."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(1024, 1024)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    made = onnx_model([node], [value("x", [512, 1024])], [value("y", [512, 1024])], {"w": w})
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    info = inspect(tmp_path / "m.onnx", cache=tmp_path / "cache")
    facts = device_facts(LocalDevice())
    found = bounds(info, host_target(facts), latency(1.0, min_throughput_ips=1.0), FP32, facts.ram_bytes)
    least = {b.requirement: b.least for b in found}
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    feeds = {"x": rng.normal(size=(512, 1024)).astype(np.float32)}
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - begun)
    assert least["latency"] <= min(times) * 1e3
    assert least["throughput"] >= 1 / min(times)


def test_what_nothing_needs_costs_nothing(tmp_path: Path) -> None:
    """A layer that no output depends on is dropped by engines: a bound on it would be false."""
    w = np.ones((64, 64), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("MatMul", ["y", "w"], ["unused"])]
    made = onnx_model(nodes, [value("x", [1, 64])], [value("y", [1, 64])], {"w": w})
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert inspect(tmp_path / "m.onnx", cache=tmp_path / "cache").macs == 64 * 64


# --------------------------------------------------------------------------------------------------------------- refusing


def test_all_that_cannot_be_met_is_told_at_once() -> None:
    asked = latency(1.0, max_size_bytes=MIB, max_memory_bytes=512 * MIB)
    with pytest.raises(RequirementsNotMet) as refused:
        require_possible(dense(10**9, 8 << 20), BOARD, asked, FP32)
    line = str(refused.value)
    assert line.startswith("board: no configuration of this model can meet latency 1 ms: 1000 M MACs")
    assert "; nor storage 1 MiB: 8.389 M weights x 32 bits = 32 MiB at least" in line
    assert line.endswith("relax latency to 15.63 ms or more and storage to 32 MiB or more")
    assert "memory" not in line
    require_possible(dense(10**9, 8 << 20), BOARD, latency(15.63, max_size_bytes=32 * MIB), FP32)


def test_it_is_refused_before_anything_is_built(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(linear().SerializeToString())
    found = edgekit("optimize", tmp_path / "m.onnx", "--max-size", "1B", "--target", "cpu-arm", "-o", tmp_path / "run")
    assert found.code == RequirementsNotMet.exit_code
    said = [line for line in found.err.splitlines() if line.startswith("edgekit: ")]
    assert "storage 1 B: 12 weights x 4 bits = 6 B at least" in said[0]
    assert "building" not in found.err
    assert not (tmp_path / "run").exists()
