"""The search for a mixed precision, end to end by the real CLI: on the sample made as fragile as PP-OCR: its int8 collapses.

Size decides here, never time: the same machine gives the same answer, interrupted or not.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.conftest import SAMPLE, Cli, thorough
from tests.fragile import GUILTY, fragile_sample

pytestmark = pytest.mark.long

# What else is small, is out: the search has to carry it.
FORBIDDEN = ("openvino", "int8-weights", "fp16", "ort-fp32-opt", "ort-int8-dynamic", "ort-int8-conv")
ASKED = ("--prefer", "size", *(word for name in FORBIDDEN for word in ("--forbid", name)))


def words(model: Path, cache: Path, out: Path) -> tuple[str, ...]:
    where = ("--cache", str(cache), "optimize", str(model), "--data", str(SAMPLE), "-o", str(out))
    return (*where, *ASKED)


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fragile_sample(tmp_path_factory.mktemp("fragile") / "fragile.onnx")


@pytest.fixture(scope="module")
def kept(edgekit: Cli, fragile: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("run") / "run"
    done = edgekit(*words(fragile, cache, out))
    assert done.code == 0, done.err
    record: dict[str, Any] = json.loads((out / "run.json").read_text())
    return record | {"stdout": done.out, "folder": str(out)}


def outcome(record: dict[str, Any], name: str) -> dict[str, Any]:
    return next(o for o in record["outcomes"] if o["candidate"]["build"]["recipe"]["name"] == name)


def test_the_rescaled_model_answers_as_before(fragile: Path) -> None:
    images = np.load(SAMPLE / "selection.image.npy")[:20].astype(np.float32) / 255
    feeds = images.reshape(20, 1, 1, *images.shape[-2:])
    before, after = (ort.InferenceSession(str(path)) for path in (SAMPLE / "model.onnx", fragile))
    assert all(
        np.array_equal(before.run(None, {"image": feed})[0], after.run(None, {"image": feed})[0]) for feed in feeds
    )


def test_plain_int8_collapses_and_a_mixed_precision_carries_it(kept: dict[str, Any]) -> None:
    plain, mixed = outcome(kept, "ort-int8"), outcome(kept, "ort-int8-mixed")
    assert plain["accuracy"]["collapsed"] and plain["accuracy"]["drop"] > 0.05
    assert kept["choice"]["chosen"] == "ort-int8-mixed"
    assert mixed["accuracy"]["drop"] <= 0.01 and kept["evaluation"]["ci_high"] <= 0.02
    assert mixed["artifact"]["quantized_ops"] > mixed["artifact"]["quantizable_ops"] / 2


def test_attribution_names_the_guilty_layers_first(kept: dict[str, Any]) -> None:
    (search,) = kept["searches"]
    names = [layer["unit"]["name"] for layer in search["attribution"]["layers"]]
    assert set(names[:3]) >= GUILTY
    assert search["best"] == "ort-int8-mixed" and set(search["tries"][-1]["kept"]) & GUILTY


def test_what_was_kept_is_float_in_the_artifact(kept: dict[str, Any]) -> None:
    import onnx

    (search,) = kept["searches"]
    best = min((t for t in search["tries"] if t["held"]), key=lambda t: len(t["kept"]))
    model = onnx.load(f"{kept['folder']}/{kept['artifact_files'][0]}")
    made = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv":
            assert (made.get(node.input[1]) == "DequantizeLinear") == (node.name not in best["kept"])


def test_a_collapsed_candidate_is_shown_with_its_verdict(kept: dict[str, Any]) -> None:
    assert "ort-int8: collapsed" in kept["stdout"]
    assert outcome(kept, "ort-int8")["measurement"] is not None  # its speed is what keeping the answers may be worth


@thorough
def test_an_interrupted_search_ends_the_same(edgekit: Cli, fragile: Path, kept: dict[str, Any], tmp_path: Path) -> None:
    """Ctrl-C at three moments, from calibration to the tries; then once to the end."""
    for mark in ("calibrating", "which layers cost", "keeping"):
        interrupted([sys.executable, "-m", "edgekit", *words(fragile, tmp_path / "cache", tmp_path / "run")], mark)
        assert not (tmp_path / "run").exists()
    done = edgekit(*words(fragile, tmp_path / "cache", tmp_path / "run"))
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found["choice"]["chosen"] == kept["choice"]["chosen"]
    assert found["searches"] == kept["searches"]
    assert outcome(found, "ort-int8-mixed")["artifact"]["files"] == outcome(kept, "ort-int8-mixed")["artifact"]["files"]


def interrupted(argv: list[str], mark: str) -> None:
    """Run until a progress line holds `mark`, then Ctrl-C; the exit code is that of an interrupt, without a traceback."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if mark in line:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, "".join(seen) + rest
    assert "Traceback" not in rest


@thorough
def test_a_budget_too_short_keeps_the_best_known_and_says_so(edgekit: Cli, fragile: Path, tmp_path: Path) -> None:
    done = edgekit(*words(fragile, tmp_path / "cache", tmp_path / "run"), "--time-budget", "0.01s")
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    (search,) = record["searches"]
    assert search["best"] is None and "time budget" in search["ended"]
    assert record["choice"]["chosen"] not in (None, "ort-int8")
    assert "time budget" in done.out
