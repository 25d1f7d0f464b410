"""`edgekit optimize` and `demo` end to end on the shipped sample, through the real command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgekit.core.results import BLOCKING
from tests.conftest import ROOT, SAMPLE, Cli, Ended, done, load

pytestmark = pytest.mark.long

MODEL = SAMPLE / "model.onnx"
# What is not needed to see the flow work: fewer candidates, fewer seconds.
FEW = ("--forbid", "ort-int8-conv", "--forbid", "ov-fp16", "--forbid", "ov-int8-weights", "--forbid", "ort-fp16")
# The reference and its optimized form, predicted: seconds.
QUICK = ("--target", "cpu-arm", "--forbid", "int8", "--forbid", "int8-weights", "--forbid", "fp16")


@pytest.fixture(scope="module")
def host(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A run for this machine, on data."""
    out = tmp_path_factory.mktemp("host") / "run"
    return out, done(edgekit("optimize", MODEL, "--data", SAMPLE, "-o", out, *FEW))


@pytest.fixture(scope="module")
def demo(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The demo: the sample for cpu-arm."""
    folder = tmp_path_factory.mktemp("demo")
    return folder / "edgekit-runs" / "digits-cpu-arm", done(edgekit("demo", cwd=folder))


def test_the_demo_ends_with_an_artifact_for_cpu_arm_and_a_table(demo: tuple[Path, Ended]) -> None:
    folder, ended = demo
    assert "chosen" in ended.out
    assert "predicted" in ended.out
    run = load(folder)
    assert run.target.name == "cpu-arm"
    onnx.checker.check_model(onnx.load(folder / run.artifact_files[0]))


def test_predictions_are_marked_everywhere_and_no_host_latency_is_the_targets(demo: tuple[Path, Ended]) -> None:
    run = load(demo[0])
    assert run.target_origin == "predicted"
    assert all(o.measurement is None for o in run.outcomes), "an x86 latency has no place in an ARM run"
    assert all(o.prediction is not None for o in run.outcomes if o.blocked is None)
    assert "figures of cpu-arm by the cost model, not measured" in demo[1].out
    assert any(step.endswith("--target cpu-arm --device ssh://USER@BOARD") for step in run.next_steps)


def test_int8_is_not_chosen_by_prediction_without_dot_product(demo: tuple[Path, Ended]) -> None:
    run = load(demo[0])
    assert run.choice.chosen is not None
    assert run.outcome(run.choice.chosen).candidate.build.recipe.precision == "fp32"


def test_the_chosen_artifact_answers_as_promised(host: tuple[Path, Ended]) -> None:
    """The artifact in the run folder, run by Python onnxruntime or OpenVINO on the raw evaluation files, has the accuracy told."""
    folder, _ = host
    run = load(folder)
    assert run.evaluation is not None
    images = np.load(SAMPLE / "evaluation.image.npy").astype(np.float32) * np.float32(1 / 255)
    labels = np.load(SAMPLE / "evaluation.labels.npy")
    right = predict(folder / run.artifact_files[0], images.reshape(-1, 1, 1, 28, 28)) == labels
    assert run.evaluation.n == 2000
    # Another library version or thread count may flip a digit that lies on the line, not more.
    assert abs(right.mean() - run.evaluation.value) <= 0.001
    assert run.evaluation.reference_value == pytest.approx(0.9935, abs=0.001)
    assert run.evaluation.drop <= 0.01
    assert run.evaluation.ci_low <= run.evaluation.drop <= run.evaluation.ci_high


def predict(path: Path, images: np.ndarray) -> np.ndarray:
    if path.suffix == ".onnx":
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.array([int(np.argmax(session.run(None, {"image": image})[0])) for image in images])
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array([int(np.argmax(compiled(image)[0])) for image in images])


def test_every_candidate_was_measured_or_has_its_verdict(host: tuple[Path, Ended]) -> None:
    run = load(host[0])
    names = {o.name for o in run.outcomes}
    assert {
        "ort-fp32",
        "ort-fp32-opt",
        "ort-int8",
        "ort-int8-dynamic",
        "ort-int8-weights",
        "ov-f32",
        "ov-int8",
    } <= names
    for outcome in run.outcomes:
        if any(v.code in BLOCKING for v in outcome.verdicts):
            continue
        m = outcome.measurement
        assert m is not None
        assert m.origin == "target"
        assert len(m.latencies_ns) == m.latency_ms.count >= 50
        assert m.latency_ms.p50 == pytest.approx(float(np.median(m.latencies_ns)) / 1e6, rel=1e-6)
        assert m.memory.peak is not None
        assert m.memory.baseline_rss is not None
        assert m.memory.baseline_rss < m.memory.peak
        assert m.load.session_create_ms is not None
        assert m.load.first_inference_ms is not None
    assert set(run.choice.rejected) == names - {run.choice.chosen}


def test_percentiles_are_claimed_only_with_enough_runs(host: tuple[Path, Ended]) -> None:
    for outcome in load(host[0]).outcomes:
        if outcome.measurement is not None:
            stats = outcome.measurement.latency_ms
            assert (stats.p99 is None) == (stats.count < 662)


def test_the_race_has_its_noise_and_the_reference_its_ratio(host: tuple[Path, Ended]) -> None:
    run = load(host[0])
    assert run.noise is not None
    assert run.noise.spread >= 1
    reference = run.outcome("ort-fp32").measurement
    assert reference is not None
    assert reference.ratio == 1.0


def test_the_choice_is_never_slower_than_the_reference(host: tuple[Path, Ended]) -> None:
    run = load(host[0])
    assert run.choice.chosen is not None
    chosen = run.outcome(run.choice.chosen).measurement
    assert chosen is not None
    assert run.noise is not None
    assert chosen.ratio <= max(1.0, min(run.noise.spread, 1.03))


def test_the_same_command_again_reuses_and_chooses_the_same(
    host: tuple[Path, Ended], edgekit: Cli, tmp_path: Path
) -> None:
    again = done(edgekit("optimize", MODEL, "--data", SAMPLE, "-o", tmp_path / "again", *FEW, "--json"))
    first, second = load(host[0]), load(tmp_path / "again")
    assert second == first
    assert json.loads(again.out)["choice"]["chosen"] == first.choice.chosen
    for name in first.artifact_files:
        assert (host[0] / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_changed_cache_entry_is_built_again(edgekit: Cli, tmp_path: Path) -> None:
    own = tmp_path / "cache"
    fp32_and_fp16 = ("--target", "cpu-arm", "--forbid", "int8", "--forbid", "int8-weights")
    arguments = ("--cache", own, "optimize", MODEL, *fp32_and_fp16, "-o", tmp_path / "run", "--json")
    done(edgekit(*arguments))
    victims = sorted(own.glob("artifacts/*/model.onnx"))
    before = [victim.read_bytes() for victim in victims]
    assert len(victims) >= 3
    victims[0].write_bytes(before[0][:-1] + b"x")
    victims[1].unlink()
    (victims[2].parent / "record.json").write_text("{")
    done(edgekit(*arguments))
    assert [victim.read_bytes() for victim in victims] == before


@pytest.fixture(scope="module")
def bare(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The mission's own command line: no data."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copy(MODEL, folder / "model.onnx")
    return folder / "edgekit-runs" / "model-raspberry-pi-5", done(
        edgekit("optimize", "model.onnx", "--target", "raspberry-pi-5", cwd=folder)
    )


def test_without_data_nothing_is_calibrated_and_the_next_command_is_shown(bare: tuple[Path, Ended]) -> None:
    folder, ended = bare
    run = load(folder)
    assert run.data.synthetic
    assert all(not o.candidate.build.recipe.needs_calibration for o in run.outcomes)
    assert run.left_out["ort-int8"].startswith("needs calibration data")
    assert all(o.accuracy is None or o.accuracy.kind == "synthetic" for o in run.outcomes)
    assert run.evaluation is None
    assert "edgekit optimize model.onnx --target raspberry-pi-5 --data" in ended.out
    assert "synthetic" in ended.out


def test_a_requirement_on_a_prediction_is_unproven_and_exits_0_or_missed_and_exits_3(
    edgekit: Cli, tmp_path: Path
) -> None:
    common = ("optimize", MODEL, *QUICK)
    met = edgekit(*common, "--latency-budget", "10s", "-o", tmp_path / "met")
    assert met.code == 0
    assert "unproven" in met.out
    assert load(tmp_path / "met").choice.unproven == ("latency budget",)
    missed = edgekit(*common, "--latency-budget", "20us", "-o", tmp_path / "missed")  # less is refused by arithmetic
    assert missed.code == 3
    assert "nearest" in missed.out
    run = load(tmp_path / "missed")
    assert not run.satisfies_constraints
    assert run.artifact_files == ()


def test_json_is_one_object_with_the_documented_names(host: tuple[Path, Ended], edgekit: Cli, tmp_path: Path) -> None:
    ended = done(edgekit("optimize", MODEL, *QUICK, "-o", tmp_path / "run", "--json"))
    assert ended.err == ""
    assert json.loads(ended.out) == json.loads((tmp_path / "run" / "run.json").read_text())
    record: dict[str, Any] = json.loads((host[0] / "run.json").read_text())
    documented = (ROOT / "docs" / "run-json.md").read_text()
    for key in record:
        assert f"`{key}`" in documented, key
    measurement = next(o["measurement"] for o in record["outcomes"] if o["measurement"])
    for key in (*measurement, *measurement["latency_ms"], *measurement["memory"], *measurement["load"]):
        assert f"`{key}`" in documented, key


def test_a_users_own_metric(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def even(outputs, reference, labels):\n"
        "    return (outputs['logits'].reshape(len(labels), -1).argmax(-1) % 2 == labels % 2).astype(float)\n"
    )
    arguments = (*QUICK, "--metric", "mine:even", "-o", "run", "--json")
    record = json.loads(done(edgekit("optimize", MODEL, "--data", SAMPLE, *arguments, cwd=tmp_path)).out)
    assert record["evaluation"]["metric"] == "mine:even"
    assert record["evaluation"]["value"] > 0.99


def test_a_module_in_the_working_folder_is_never_imported(edgekit: Cli, tmp_path: Path) -> None:
    for name in ("numpy", "onnx", "openvino", "msgspec", "nncf"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')")
    command = [str(Path(sys.executable).with_name("edgekit")), "inspect", str(MODEL), "--json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


def test_names_with_escape_codes_reach_no_terminal(edgekit: Cli, tmp_path: Path) -> None:
    """A legal model whose names would clear a terminal is inspected and optimized; what is printed is plain."""
    model = onnx.load(MODEL)
    hostile = "\x1b[2J$(id)\n`x`"
    for node in model.graph.node:
        node.input[:] = [hostile if name == "image" else name for name in node.input]
    model.graph.input[0].name = hostile
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    for arguments in (
        ("inspect", path),
        ("optimize", path, *QUICK, "-o", tmp_path / "run"),
    ):
        ended = done(edgekit(*arguments))
        assert "\x1b[2J" not in ended.out + ended.err
    assert load(tmp_path / "run").choice.chosen is not None
