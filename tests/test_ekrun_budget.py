"""`ekrun check --budget`, and bundles with a real engine that must prove themselves by it to be installed."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgekit.engines.closure import native_library
from tests.board import default_cache, emulated
from tests.bundle_desk import BAD_INPUT, REFUSED, tree
from tests.bundles import Draft, draft
from tests.ekrun_tools import built, compile_engine, python_onnxruntime
from tests.install_desk import Device, bundle, id_of
from tests.test_ekrun_check import Folder, fill, scores_model

NEVER = {"percentile": 99.0, "ms": 1e-6}
ALWAYS = {"percentile": 50, "ms": 60000}


def scores_folder(path: Path) -> Folder:
    path.mkdir()
    model = scores_model(path / "model.onnx")
    samples = np.random.default_rng(1).normal(size=(6, 1, 3, 5)).astype(np.float32)
    session = python_onnxruntime(model)
    return fill(path, model, {"x": samples}, [np.stack([session.run(None, {"x": one})[0] for one in samples])])


@pytest.fixture
def scores(tmp_path: Path) -> Folder:
    return scores_folder(tmp_path / "bundle")


def test_without_a_budget_nothing_is_timed(scores: Folder) -> None:
    assert scores.check("--budget").json["latency"] is None
    scores.record["latency_budget"] = NEVER
    answer = scores.check()
    assert answer.code == 0 and "latency" not in answer.json


def test_a_budget_that_is_met(scores: Folder) -> None:
    scores.record["latency_budget"] = ALWAYS
    answer = scores.check("--budget")
    assert (answer.code, answer.json["passed"]) == (0, True)
    found = answer.json["latency"].pop("found_ms")
    assert answer.json["latency"] == {"percentile": 50, "budget_ms": 60000} and 0 < found < 60000


def test_a_budget_that_is_missed(scores: Folder) -> None:
    scores.record["latency_budget"] = NEVER
    answer = scores.check("--budget")
    assert (answer.code, answer.json["passed"], answer.json["error"]["code"]) == (REFUSED, False, "verification_failed")
    assert answer.json["error"]["message"].startswith("latency: p99 is ")
    assert answer.json["latency"]["found_ms"] > 1e-6 and answer.json["outputs"][0]["passed"]


def test_what_is_wrong_is_not_timed(scores: Folder) -> None:
    scores.record["latency_budget"] = NEVER
    scores.expect(scores.expected() + 1)
    answer = scores.check("--budget")
    assert answer.code == REFUSED and answer.json["latency"] is None
    assert answer.json["error"]["message"].startswith("output 'y'")


@pytest.mark.parametrize(
    "budget", [{"percentile": 0}, {"percentile": 100.1}, {"ms": 0}, {"ms": -1}, {"ms": 1e400}], ids=repr
)
def test_budgets_that_are_none(scores: Folder, budget: dict[str, float]) -> None:
    scores.record["latency_budget"] = {**ALWAYS, **budget}
    assert scores.check("--budget").code == BAD_INPUT


@pytest.mark.parametrize("budget", [{"ms": 1}, {"percentile": "99", "ms": 1}, 5], ids=repr)
def test_budgets_that_cannot_be_read(scores: Folder, budget: object) -> None:
    scores.record["latency_budget"] = budget
    assert scores.check().code == BAD_INPUT


@pytest.mark.board
def test_an_emulator_has_no_latency(scores: Folder) -> None:
    with closing(emulated("raspberry-pi-5")) as board:
        there = native_library("onnxruntime", board.target.engines["onnxruntime"], board.arch, default_cache()).library
        (scores.path / "lib/libonnxruntime.so.1").unlink()
        (scores.path / "lib/libonnxruntime.so.1").symlink_to(there)
        (scores.path / "deployment.json").write_text(json.dumps({**scores.record, "latency_budget": NEVER}))
        done = board.run(["check", str(scores.path), "--budget"], deadline_s=120)
        assert done.returncode == 0 and json.loads(done.stdout.splitlines()[-1])["latency"] is None


# ---------------------------------------------------------------------------------------------------- bundles of the real


def real_bundle(folder: Folder, number: int) -> bytes:
    """What is in the folder and this ekrun, signed."""
    (folder.path / "deployment.json").write_text(json.dumps(folder.record))
    made = Draft({**draft(bundle()).top, "version": str(number), "counter": number}, [])
    for path in sorted(path for path in folder.path.rglob("*") if path.is_file()):
        made.add(str(path.relative_to(folder.path)), path.read_bytes())
    return made.add("bin/ekrun", built()["x86_64"].read_bytes(), mode=0o755).build()


def flip_weight(folder: Folder) -> None:
    model = bytearray((folder.path / "model.onnx").read_bytes())
    model[model.index(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32).tobytes()) + 3] ^= 0x80
    (folder.path / "model.onnx").write_bytes(model)


def feed_nan(folder: Folder) -> None:
    inputs = np.load(folder.path / "golden/0.npy")
    inputs[3, 0, 1, 2] = np.nan
    np.save(folder.path / "golden/0.npy", inputs)


def crash(folder: Folder) -> None:
    place = folder.path.parent / "crash"
    place.mkdir()
    compile_engine(place, "static void body(void) { abort(); }")
    (folder.path / "lib/libonnxruntime.so.1").unlink()
    (folder.path / "lib/libonnxruntime.so.1").write_bytes((place / "libonnxruntime.so").read_bytes())


def ask_too_much(folder: Folder) -> None:
    folder.record["latency_budget"] = NEVER


SPOILED: dict[str, tuple[Callable[[Folder], None], str]] = {
    "a flipped weight": (flip_weight, "exit code 8: output 'y', sample 0"),
    "NaN": (feed_nan, "exit code 8: output 'y', sample 3, element 4: nan where"),
    "a crash": (crash, "it died by signal 6, Aborted"),
    "a missed budget": (ask_too_much, "exit code 8: latency: p99 is"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_only_what_proves_itself_is_installed(scores: Folder, tmp_path: Path, case: str) -> None:
    spoil, words = SPOILED[case]
    device = Device(tmp_path)
    scores.record["latency_budget"] = ALWAYS
    good = dataclasses.replace(scores)
    first = real_bundle(good, 1)
    assert device.install(first).code == 0
    before = tree(device.root)
    spoil(scores)
    answer = device.install(real_bundle(scores, 2))
    assert answer.code == REFUSED and words in answer.json["error"]["message"], answer.stderr
    assert tree(device.root) == before and device.current == id_of(first)
