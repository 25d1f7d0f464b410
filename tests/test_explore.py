"""`edgekit optimize --explore` end to end on the shipped sample: settings, batches, and what bundle and profile make of them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.core.recipes import RECIPES
from edgekit.core.run import RUN_SCHEMA
from edgekit.core.tradeoffs import key
from tests.conftest import SAMPLE, Cli, done, load, thorough

pytestmark = pytest.mark.long

KEPT = ("ort-fp32", "ort-fp32-opt")
FEW = [word for name in RECIPES if name not in KEPT for word in ("--forbid", name)]
# Enough to see it work, whatever else the machine does.
ARGS = ("--data", SAMPLE, "--samples", "64", "--time-budget", "15s", *FEW)
# With one core: the reference is the only point of batch 1, and nothing else starts it.
ALONE = (*FEW, "--forbid", "ort-fp32-opt", "--cores", "1")


@pytest.fixture(scope="module")
def wide(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that prefers throughput."""
    out = tmp_path_factory.mktemp("wide") / "run"
    done(edgekit("optimize", SAMPLE / "model.onnx", *ARGS, "--prefer", "throughput", "-o", out, timeout=600))
    return out


def test_points_cover_streams_batches_and_options(wide: Path) -> None:
    run = load(wide)
    assert run.schema == RUN_SCHEMA == 2
    found = run.exploration
    assert found is not None
    settings = [p.setting for p in found.points]
    assert {s.streams for s in settings} > {1}
    assert {s.batch for s in settings} > {1}
    assert len(settings) <= found.space
    names = {key(p) for p in found.points}
    assert {*found.front, found.knee, found.sweet_spot, found.latency_choice, found.throughput_choice} <= names
    assert all(p.ended == "measured" or p.ended.startswith("dropped: ") for p in found.points)
    assert all(p.throughput_interval[0] <= p.throughput_ips <= p.throughput_interval[1] for p in found.points)
    assert all(p.cold_start_ms and p.peak_memory_bytes for p in found.points)


def test_the_chosen_candidate_runs_in_its_setting(wide: Path) -> None:
    run = load(wide)
    assert run.exploration is not None and run.choice.chosen is not None
    point = next(p for p in run.exploration.points if key(p) == run.exploration.throughput_choice)
    outcome = run.outcome(run.choice.chosen)
    config = outcome.candidate.run
    assert (point.candidate, point.setting.threads) == (run.choice.chosen, config.threads)
    assert (point.setting.streams, point.setting.batch) == (config.streams, config.batch)
    assert outcome.measurement is not None
    assert outcome.measurement.throughput_ips == point.throughput_ips
    latency = next(p for p in run.exploration.points if key(p) == run.exploration.latency_choice)
    assert latency.setting.batch == 1
    assert point.throughput_ips > latency.throughput_ips


def test_the_artifact_takes_the_batch(wide: Path) -> None:
    run = load(wide)
    assert run.choice.chosen is not None
    outcome = run.outcome(run.choice.chosen)
    model = onnx.load(wide / run.artifact_files[0])
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert dim.dim_value in (0, outcome.candidate.run.batch)  # 0: the model as given, whose batch is open
    assert outcome.artifact is not None


def test_a_bundle_is_of_the_setting_and_passes_its_own_check(edgekit: Cli, wide: Path, tmp_path: Path) -> None:
    done(edgekit("bundle", wide, "--unsigned", "-o", tmp_path / "m.ekb"))
    shown = json.loads(done(edgekit("inspect", tmp_path / "m.ekb", "--json")).out)
    run = load(wide)
    assert run.choice.chosen is not None
    config = run.outcome(run.choice.chosen).candidate.run
    text = json.dumps(shown)
    assert f'"threads": {config.threads}' in text
    short = ("--duration", "0.5s", "--json", "-o", tmp_path / "profile")
    done(edgekit("profile", tmp_path / "m.ekb", "--allow-unsigned", *short))


def test_a_profile_of_the_run_feeds_whole_batches(edgekit: Cli, wide: Path, tmp_path: Path) -> None:
    short = ("--duration", "0.5s", "--json", "-o", tmp_path / "profile")
    ended = done(edgekit("profile", wide, "--data", SAMPLE, *short))
    record = json.loads(ended.out)
    assert record["figures"]["queries"] > 0
    run = load(wide)
    batch = run.outcome(run.choice.chosen or "").candidate.run.batch
    said = f"an inference takes a batch of {batch} samples: throughput in samples is {batch} times that in inferences"
    assert (said in record["notices"]) == (batch > 1)


def test_without_batches_where_samples_do_not_wait(edgekit: Cli, tmp_path: Path) -> None:
    asked = tmp_path / "requirements.toml"
    asked.write_text("schema = 1\n[data]\nbatchable = false\n")
    out = tmp_path / "run"
    ended = edgekit(
        *("optimize", SAMPLE / "model.onnx", *ARGS, *ALONE, "--explore", "--requirements", asked, "-o", out),
        timeout=600,
    )
    done(ended)
    found = load(out).exploration
    assert found is not None
    assert {p.setting.batch for p in found.points} == {1}
    assert found.latency_choice and found.throughput_choice


def test_settings_are_searched_when_asked_for_or_when_throughput_counts(edgekit: Cli, tmp_path: Path) -> None:
    done(edgekit("optimize", SAMPLE / "model.onnx", *ARGS, "-o", tmp_path / "run", timeout=600))
    assert load(tmp_path / "run").exploration is None


@thorough
def test_quantized_candidates_answer_alike_in_batches(edgekit: Cli, tmp_path: Path) -> None:
    """Static int8 is quantized anew for a batch: with the ranges of batch 1 it must come to the same."""
    names = ("ort-int8", "ov-int8")
    few = [word for other in RECIPES if other not in ("ort-fp32", *names) for word in ("--forbid", other)]
    out = tmp_path / "run"
    little = ("--data", SAMPLE, "--cores", "1")
    done(edgekit("optimize", SAMPLE / "model.onnx", *little, "--explore", *few, "-o", out, timeout=600))
    found = load(out).exploration
    assert found is not None
    searched = {p.candidate for p in found.points} & {*names}
    assert searched
    for name in searched:
        assert {p.setting.batch for p in found.points if p.candidate == name} > {1}, name
    assert "could not be run" not in found.ended


def test_answers_that_depend_on_the_batch_are_not_counted(edgekit: Cli, tmp_path: Path) -> None:
    """A model whose samples disturb each other: each is divided by the sum over the batch."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])
    axes = onnx.numpy_helper.from_array(np.array([0, 1]), "axes")
    nodes = [
        onnx.helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        onnx.helper.make_node("Div", ["x", "s"], ["y"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [axes])
    path = tmp_path / "m.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    np.savez(tmp_path / "d.npz", x=np.random.default_rng(0).uniform(1, 2, (64, 4)).astype(np.float32))
    out = tmp_path / "run"
    ended = edgekit(
        "optimize",
        path,
        "--data",
        tmp_path / "d.npz",
        "--explore",
        *ALONE,
        "-o",
        out,
        timeout=600,
    )
    done(ended)
    found = load(out).exploration
    assert found is not None
    assert {p.setting.batch for p in found.points} == {1}
    assert "output 'y' is off by" in found.ended
