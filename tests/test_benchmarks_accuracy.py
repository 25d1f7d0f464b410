"""The comparison of accuracy: its conclusions from figures, how it watches a build, and the whole of it on the sample."""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from benchmarks.accuracy import builders, verdicts
from benchmarks.accuracy.bench import Settings, find_case
from benchmarks.accuracy.child import Limits, watch
from benchmarks.accuracy.measure import measure
from benchmarks.accuracy.records import BASELINE, TOOLS, Build, Entry, Result
from benchmarks.accuracy.report import HEADINGS, cell, report
from edgekit.core.accuracy import Accuracy, MetricOptions, OutputSet
from edgekit.core.types import NumericRules
from edgekit.data import score
from edgekit.quantize.samples import Samples
from tests.conftest import SAMPLE, thorough

pytestmark = pytest.mark.long

MIB = 1 << 20
ROUNDS = 15


def accuracy(drop=0.0, upper=0.01, n=1000):
    return Accuracy("top-1", "task", "evaluation", 0.9 - drop, 0.9, drop, n, -0.01, upper, 0.9, 1.0, 30.0, 0, False)


def entry(tool, ms, drop=0.0, precision="f32", noise=0.001, seconds=10.0, **rest):
    turns = tuple(1e6 * ms * (1 + noise * (-1) ** i) for i in range(ROUNDS)) if ms else ()
    return Entry(tool, precision, Build(seconds=seconds), MIB, accuracy(drop) if ms else None, turns, **rest)


def result(*entries, spread=1.02, model="m"):
    return Result(model, 2, spread, (replace(entry(BASELINE.name, 10), build=None), *entries))


# ----------------------------------------------------------------------------------------------------------- conclusions


@pytest.mark.parametrize(
    ("own", "other", "missed"),
    [
        (entry("edgekit", 5), entry("nncf-f32", 6), False),
        (entry("edgekit", 5), entry("nncf-f32", 4.95), False),  # within the A/A spread
        (entry("edgekit", 5), entry("nncf-f32", 4), True),
        (entry("edgekit", 5), entry("nncf-f32", 4, drop=0.02), False),  # faster, but does not hold
        (entry("edgekit", 5, drop=0.02), entry("nncf-f32", 6), True),
        (entry("edgekit", 0, reason="nothing fits"), entry("nncf-f32", 6), True),
        (entry("edgekit", 11), entry("nncf-f32", 0, reason="killed"), True),  # slower than fp32 itself
    ],
)
def test_edgekits_choice_is_put_beside_the_fastest_that_holds(own, other, missed):
    found = verdicts.beside_the_fastest(result(other, own), "")
    assert found.missed is missed, found.words


def test_a_difference_within_the_noise_of_the_pair_is_none():
    noisy = replace(entry("edgekit", 5), turns_ns=tuple(5e6 * (1 + 0.3 * (-1) ** i) for i in range(ROUNDS)))
    found = verdicts.beside_the_fastest(result(entry("nncf-f32", 4.8), noisy), "")
    assert not found.missed, found.words


def test_without_bf16_the_artifacts_in_bf16_are_no_rivals():
    rows = result(entry("openvino-bf16", 2, precision="bf16"), entry("nncf-f32", 5), entry("edgekit --forbid bf16", 5))
    assert "nncf-f32" in verdicts.beside_the_fastest(rows, "bf16").words


def test_the_geometric_mean_has_its_own_bar_without_bf16():
    rows = [
        result(entry("edgekit", ms), entry("edgekit --forbid bf16", ms), entry("openvino-bf16", 3, precision="bf16"))
        for ms in (5, 10)
    ]
    assert "1.41x" in verdicts.speed_up(rows, "").words
    assert verdicts.speed_up(rows, "").missed
    assert not verdicts.speed_up(rows, "bf16").missed


def test_a_machine_without_bf16_has_no_bar_that_needs_it():
    assert not verdicts.speed_up([result(entry("edgekit", 9))], "").missed


def test_models_where_nothing_is_faster_are_named():
    rows = [result(entry("edgekit", 10), model="a"), result(entry("edgekit", 5), model="b")]
    assert verdicts.nothing_faster(rows).words.endswith("on: a.")


@pytest.mark.parametrize(
    ("own", "control", "where"),
    [
        (entry("edgekit", 5, seconds=10), entry("nncf-control-f32", 5, seconds=20), "1 models (m)"),
        (entry("edgekit", 5, seconds=11), entry("nncf-control-f32", 5, seconds=20), "0 models"),
        (entry("edgekit", 6, seconds=10), entry("nncf-control-f32", 5, seconds=20), "0 models"),
        (entry("edgekit", 6, seconds=10), entry("nncf-control-f32", 5, drop=0.02, seconds=20), "1 models (m)"),
        (entry("edgekit", 6, seconds=10), entry("nncf-control-f32", 0, seconds=600, reason="limit"), "1 models (m)"),
    ],
)
def test_where_the_search_is_sooner_done_is_said(own, control, where):
    assert where in verdicts.search_time([result(control, own)]).words


def test_the_page_says_what_is_missed_and_keeps_within_its_cells():
    rows = [result(entry("nncf-f32", 4), entry("edgekit", 5), entry("ort-dynamic", 0, reason="a | b\n" + "x" * 300))]
    text = report(rows, verdicts.conclude(rows, ""), ["n was not measured: no data."], "2026-11-22")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(HEADINGS) + 1}
    assert len(lines) == 2 + 4
    assert "Missed: 2 of" in text
    assert sum(line.startswith("- Missed: ") for line in text.splitlines()) == 2
    assert len(cell("x" * 300)) == 160


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at /srv/run/static/model.onnx: Node (m_1/conv/x) failed", "at model.onnx: Node (m_1/conv/x) failed"),
        ("19 of 19 operators / int8", "19 of 19 operators / int8"),
    ],
)
def test_a_message_does_not_tell_this_machines_folders(text, shown):
    assert cell(text) == shown


# -------------------------------------------------------------------------------------------------------------- children


def child(tmp_path, code, wall_s=20.0, memory_bytes=1 << 30):
    return watch([sys.executable, "-c", code], tmp_path / "log.txt", Limits(wall_s, memory_bytes))


def test_the_memory_of_what_a_build_starts_counts(tmp_path):
    hold = "x = bytearray(150 << 20); import time; time.sleep(0.6)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], start_new_session=True)"
    found = child(tmp_path, code)
    assert found.failure == ""
    assert 150 * MIB < found.peak_bytes < 300 * MIB
    assert found.seconds > 0.6


@pytest.mark.parametrize(
    ("code", "limits", "words"),
    [
        ("import time; time.sleep(60)", {"wall_s": 0.5}, "no result within 0.5 s"),
        ("x = bytearray(400 << 20); import time; time.sleep(60)", {"memory_bytes": 200 << 20}, "outgrew 200 MiB"),
        ("import os; os.kill(os.getpid(), 11)", {}, "died by SIGSEGV"),
        ("raise SystemExit('no such operator')", {}, "ended with exit code 1 (no such operator)"),
    ],
)
def test_a_build_that_ends_badly_says_how(tmp_path, code, limits, words):
    assert words in child(tmp_path, code, **limits).failure


def test_what_a_killed_build_started_is_killed_too(tmp_path):
    hold = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}], start_new_session=True)"
    assert "no result" in child(tmp_path, code, wall_s=1.5).failure
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_running(pid)


def is_running(pid):
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# -------------------------------------------------------------------------------------------------------------- builders


def request(tmp_path, build, **rest):
    """The sample's model and a few of its samples, as fed."""
    for split in ("calibration", "selection"):
        (tmp_path / split).mkdir()
        images = np.load(SAMPLE / f"{split}.image.npy", mmap_mode="r")[:8]
        np.save(tmp_path / split / "0.npy", (images / 255).astype(np.float32).reshape(8, 1, 1, 28, 28))
    np.save(tmp_path / "selection" / "labels.npy", np.load(SAMPLE / "selection.labels.npy", mmap_mode="r")[:8])
    given = {
        "build": build,
        "model": SAMPLE / "model.onnx",
        "data": tmp_path,
        "inputs": ("image",),
        "state": {},
        "numeric": NumericRules("uint8", "int8", True, False),
        "metric": "top-1",
        "options": MetricOptions(),
        "max_drop": 0.01,
        "reference": OutputSet((), (), (), ()),
        "out": tmp_path,
    }
    return builders.Request(**{**given, **rest})


def test_a_tool_that_raises_is_a_build_with_its_reason(tmp_path):
    found = builders.build(request(tmp_path, "ort-dynamic", model=tmp_path / "none.onnx"))
    assert found.reason
    assert not found.files


def test_a_tool_that_quantized_nothing_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(builders.BUILDERS, "ort-dynamic", lambda _: Build(("model.onnx",), 0, 5))
    assert builders.build(request(tmp_path, "ort-dynamic")).reason.startswith("nothing was quantized, of 5")


def test_nncf_is_told_the_drop_that_edgekit_finds(tmp_path):
    """fp32 answers have no drop: 1; answers that are all wrong lose all that the reference has right: 0."""
    asked = request(tmp_path, "nncf-control")
    right = np.load(tmp_path / "selection" / "labels.npy")
    logits = np.eye(10, dtype=np.float32)[right][:, None]
    np.save(tmp_path / "reference.npy", logits)
    reference = OutputSet(("logits",), ("float32",), (tmp_path / "reference.npy",), (None,))
    (tmp_path / "scratch").mkdir()
    validation = builders.Validation(replace(asked, reference=reference), tmp_path / "scratch")
    at = {validation.samples.feed(i, {})["image"].tobytes(): i for i in range(8)}

    def compiled(sign):
        return lambda feed: {"logits": sign * logits[at[feed["image"].tobytes()]]}

    assert validation(compiled(1), range(8)) == 1
    assert validation(compiled(-1), iter(range(8))) == 0
    assert validation(compiled(-1), [5]) == 0


@thorough
def test_nncf_ranks_and_reverts_layers_by_what_it_is_told(tmp_path):
    """No drop at all is allowed, and int8 always has some cosine: NNCF goes through all layers, with part of the samples.

    In a process of its own: OpenVINO's plugins leave this thread with a signal stack that is unmapped, and any signal would end it.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        found, calls = pool.submit(_controlled, tmp_path).result()
    assert found.quantized_ops < found.quantizable_ops
    assert set(calls) == {1, 8}
    assert len(calls) > 20


def _controlled(tmp_path):
    """What NNCF's accuracy control built, and the number of samples in each of its calls of the metric."""
    asked = request(tmp_path, "nncf-control", metric="cosine", max_drop=0.0, out=tmp_path / "out")
    asked.out.mkdir()
    session = ort.InferenceSession(asked.model, providers=["CPUExecutionProvider"])
    samples = Samples(tmp_path / "selection", ("image",), {})
    feeds = [samples.feed(row, {}) for row in range(len(samples))]
    np.save(tmp_path / "reference.npy", np.stack([session.run(None, feed)[0] for feed in feeds]))
    (name,) = (output.name for output in session.get_outputs())
    reference = OutputSet((name,), ("float32",), (tmp_path / "reference.npy",), (None,))
    calls, scored = [], score.score

    def counted(own, base, *rest, **more):
        calls.append(len(np.load(own.files[0])))
        return scored(own, base, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "score", counted)
        return builders.build(replace(asked, reference=reference)), calls


# ------------------------------------------------------------------------------------------------------------- the whole


@thorough
@pytest.mark.timeout(900)
def test_the_whole_comparison_on_the_sample(tmp_path):
    """Every tool makes something of it; a second call reads what the first one left."""
    settings = Settings(forbid="bf16", samples=24, race_s=0.1, rounds=3, control_s=120)
    said = []
    found = measure(find_case("digits", None), tmp_path, settings, said.append)
    assert [e.tool for e in found.entries] == [
        BASELINE.name,
        *(tool.name for tool in TOOLS),
        "edgekit",
        "edgekit --forbid bf16",
    ]
    without_bf16 = [e for e in found.entries if e.precision != "bf16"]
    assert [(e.tool, e.reason) for e in without_bf16 if e.reason] == []
    assert all(e.accuracy.n == 24 and e.turns_ns for e in without_bf16)
    assert all(e.build.seconds > 0 and e.build.peak_bytes > 20 * MIB for e in found.entries[1:])
    assert found.baseline.accuracy.drop == 0
    assert "race" in said
    assert report([found], verdicts.conclude([found], "bf16"), [], "today").count("| digits |") == len(found.entries)

    (tmp_path / "digits.json").unlink()
    said.clear()
    again = measure(find_case("digits", None), tmp_path, settings, said.append)
    assert {e.tool: e.accuracy for e in again.entries} == {e.tool: e.accuracy for e in found.entries}
    assert not {"nncf", "edgekit", "ort-static"} & set(said)
    said.clear()
    assert measure(find_case("digits", None), tmp_path, settings, said.append) == again
    assert said == []
