"""`ekrun check|run|bench DIR`: what deployment.json says stands for the options, and golden samples show what is broken."""

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgekit.engines.closure import native_library
from tests.board import default_cache, emulated
from tests.ekrun_tools import Answer, built, compile_engine, ekrun, library, python_onnxruntime, save_model

REFUSED, USAGE, BAD_INPUT, LIBRARY, MODEL = 8, 2, 5, 3, 4
Record = dict[str, Any]


@dataclass(frozen=True)
class Folder:
    """An unpacked bundle, without manifest: ekrun's engine verbs do not read that."""

    path: Path
    record: Record

    def check(self, *more: object) -> Answer:
        (self.path / "deployment.json").write_text(json.dumps(self.record))
        return ekrun("check", self.path, *more)

    def expected(self, index: int = 0) -> np.ndarray:
        return np.load(self.path / f"golden/expected-{index}.npy")

    def expect(self, values: np.ndarray, index: int = 0) -> None:
        np.save(self.path / f"golden/expected-{index}.npy", values)

    @property
    def output(self) -> Record:
        """What the first output is held to."""
        return self.record["golden"]["outputs"][0]


def golden_output(index: int, tolerance: float = 1e-5, **more: object) -> Record:
    file = f"golden/expected-{index}.npy"
    return {
        "index": index,
        "file": file,
        "tolerance": tolerance,
        "decisions": "none",
        "axis": -1,
        "decided": [],
        **more,
    }


def fill(path: Path, model: Path, inputs: dict[str, np.ndarray], answers: list[np.ndarray], **golden: object) -> Folder:
    """A folder as `edgekit bundle` makes it."""
    for name in ("lib", "golden"):
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "lib/libonnxruntime.so.1").symlink_to(library("onnxruntime"))
    for number, array in enumerate(inputs.values()):
        np.save(path / f"golden/{number}.npy", array)
    for number, array in enumerate(answers):
        np.save(path / f"golden/expected-{number}.npy", array)
    record = {
        "format": 1,
        "engine": "onnxruntime",
        "engine_version": "1.32.0",
        "library": "lib/libonnxruntime.so.1",
        "model": model.name,
        "threads": 1,
        "precision": "f32",
        "options": {"graph_optimization": "basic"},
        "inputs": [],
        "outputs": [],
        "state": {},
        "golden": {
            "samples": len(next(iter(inputs.values()))),
            "inputs": {name: f"golden/{number}.npy" for number, name in enumerate(inputs)},
            "reset": None,
            "outputs": [golden_output(number) for number in range(len(answers))],
            **golden,
        },
        "latency_budget": None,
    }
    return Folder(path, record)


def scores_model(path: Path) -> Path:
    """x[1,3,5] -> y = x @ w, [1,3,4]."""
    weights = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    x, y = ("x", TensorProto.FLOAT, [1, 3, 5]), ("y", TensorProto.FLOAT, [1, 3, 4])
    return save_model(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [x], [y], {"w": weights})


@pytest.fixture
def scores(tmp_path: Path) -> Folder:
    """Six samples of three decisions among four, along the last axis."""
    path = tmp_path / "bundle"
    path.mkdir()
    model = scores_model(path / "model.onnx")
    samples = np.random.default_rng(1).normal(size=(6, 1, 3, 5)).astype(np.float32)
    session = python_onnxruntime(model)
    answers = np.stack([session.run(None, {"x": sample})[0] for sample in samples])
    return fill(
        path, model, {"x": samples}, [answers], outputs=[golden_output(0, decisions="argmax", decided=[True] * 18)]
    )


def failed(answer: Answer) -> str:
    """Why a check failed."""
    assert (answer.code, answer.json["verb"], answer.json["passed"]) == (REFUSED, "check", False)
    assert answer.json["error"]["code"] == "verification_failed"
    assert answer.stderr.count("\n") == 1
    return str(answer.json["error"]["message"])


def test_a_good_bundle_passes(scores: Folder) -> None:
    answer = scores.check()
    assert answer.code == 0, answer.stderr
    (output,) = answer.json["outputs"]
    assert answer.json["passed"] and answer.json["samples"] == 6
    assert answer.json["settings_asked"] == {
        "threads": 1,
        "precision": "f32",
        "options": {"graph_optimization": "basic"},
    }
    assert output == {
        **{"index": 0, "name": "y", "passed": True, "tolerance": 1e-5},
        **{"greatest_difference": output["greatest_difference"], "nonfinite": 0, "decisions": 18, "differing": 0},
    }
    assert output["greatest_difference"] < 1e-6


def test_one_element_outside_the_tolerance_fails(scores: Folder) -> None:
    right = scores.expected()
    wrong = right.copy()
    wrong[4, 0, 2, 1] += 0.25
    scores.expect(wrong)
    scores.output["tolerance"] = 0.3
    scores.output["decisions"], scores.output["decided"] = "none", []
    assert scores.check().code == 0, "negative control"
    scores.output["tolerance"] = 0.2
    answer = scores.check()
    assert "output 'y', sample 4, element 9: " in failed(answer)
    assert answer.json["outputs"][0]["greatest_difference"] == pytest.approx(0.25, rel=1e-5)


def test_one_other_decision_fails_where_it_counts(scores: Folder) -> None:
    wrong = scores.expected()
    first, second = np.argsort(wrong[2, 0, 1])[[-1, -2]]
    wrong[2, 0, 1, [first, second]] = wrong[2, 0, 1, [second, first]]
    scores.expect(wrong)
    scores.output["tolerance"] = 100
    answer = scores.check()
    assert failed(answer) == f"output 'y', sample 2, decision 1: {first} where {second} is expected"
    assert (answer.json["outputs"][0]["decisions"], answer.json["outputs"][0]["differing"]) == (18, 1)
    scores.output["decided"][2 * 3 + 1] = False
    answer = scores.check()
    assert (answer.code, answer.json["outputs"][0]["decisions"]) == (0, 17)
    np.save(scores.path / "golden/decided.npy", np.array(scores.output["decided"]))
    scores.output["decided"] = "golden/decided.npy"
    assert scores.check().json["outputs"][0]["decisions"] == 17


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_decisions_along_any_axis(scores: Folder, axis: int) -> None:
    right = scores.expected()
    count = right[0].size // right[0].shape[axis]
    scores.output.update(axis=axis, tolerance=100, decided=[True] * (6 * count))
    assert scores.check().code == 0
    other = np.random.default_rng(3).permutation(right.ravel()).reshape(right.shape)
    scores.expect(other)
    along = axis % 3 + 1
    differing = int((right.argmax(along) != other.argmax(along)).sum())
    assert scores.check().json["outputs"][0]["differing"] == differing
    assert differing == 0 if axis in (0, -3) else differing > 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_fails_whatever_the_tolerance(scores: Folder, value: float) -> None:
    inputs = np.load(scores.path / "golden/0.npy")
    inputs[3, 0, 1, 2] = value
    np.save(scores.path / "golden/0.npy", inputs)
    scores.output.update(tolerance=1e300, decisions="none", decided=[])
    answer = scores.check()
    assert "sample 3, element 4" in failed(answer)
    assert answer.json["outputs"][0]["nonfinite"] == 4
    wrong = scores.expected()
    wrong[3, 0, 1] = value
    scores.expect(wrong)
    assert failed(scores.check()), "expected NaN is no excuse"


def test_flipped_weights_fail(scores: Folder) -> None:
    model = bytearray((scores.path / "model.onnx").read_bytes())
    at = model.index(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32).tobytes())
    model[at + 3] ^= 0x80  # the sign of the first weight
    (scores.path / "model.onnx").write_bytes(model)
    assert "output 'y', sample 0" in failed(scores.check())


SHAPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "another dtype": lambda values: values.astype(np.float64),
    "another rank": lambda values: values[:, 0],
    "another dimension": lambda values: values.reshape(6, 1, 4, 3),
    "a sample less": lambda values: values[:5],
    "a sample more": lambda values: np.concatenate([values, values[:1]]),
    "flat, an element less": lambda values: values.ravel()[:-1],
    "flat, an element more": lambda values: np.append(values.ravel(), np.float32(0)),
}


@pytest.mark.parametrize("case", SHAPES)
def test_other_shapes_fail(scores: Folder, case: str) -> None:
    scores.expect(SHAPES[case](scores.expected()))
    failed(scores.check())


def test_outputs_of_changing_shape_and_of_every_type(tmp_path: Path) -> None:
    """NonZero's result has another shape for each sample: a flat file, as `run` writes it."""
    kinds = [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.UINT64]
    kinds += [TensorProto.INT32, TensorProto.BOOL]
    nodes = [helper.make_node("NonZero", ["x"], ["n"])]
    nodes += [helper.make_node("Cast", ["x"], [f"c{kind}"], to=kind) for kind in kinds]
    results = [("n", TensorProto.INT64, [1, None]), *((f"c{kind}", kind, [7]) for kind in kinds)]
    nodes.append(helper.make_node("Identity", ["k"], ["large"]))  # its neighbours are the same number to a double
    results.append(("large", TensorProto.INT64, [1]))
    weights = {"k": np.int64([10**18])}
    model = save_model(tmp_path / "model.onnx", nodes, [("x", TensorProto.FLOAT, [7])], results, weights)
    samples = np.float32([[0, 1, 2, 0, 0.1, 9, 0], [0] * 7, [3, 1e-7, 100, 5, 60000, 7, 0.5]])
    folder = fill(tmp_path, model, {"x": samples}, [])
    folder.record["golden"]["outputs"] = [golden_output(index, 0) for index in range(len(results))]
    (tmp_path / "deployment.json").write_text(json.dumps(folder.record))
    assert ekrun("run", tmp_path, "--out", tmp_path / "out").code == 0
    for index in range(len(results)):
        (tmp_path / f"out/{index}.npy").rename(tmp_path / f"golden/expected-{index}.npy")
    answer = folder.check()
    assert answer.code == 0, answer.stderr
    for index in range(len(results)):
        right = folder.expected(index)
        wrong = right.copy()
        wrong.reshape(-1).view(np.uint8)[-right.itemsize] ^= 1  # the last element's lowest bit
        folder.expect(wrong, index)
        assert f"output '{results[index][0]}'" in failed(folder.check())
        folder.expect(right, index)


def test_state_goes_from_sample_to_sample(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "s"], ["y"]), helper.make_node("Identity", ["y"], ["t"])]
    ports = [(name, TensorProto.FLOAT, [2]) for name in "xsyt"]
    model = save_model(tmp_path / "model.onnx", nodes, ports[:2], ports[2:])
    samples = np.arange(8, dtype=np.float32).reshape(4, 2)
    sums = np.stack([samples[0], samples[:2].sum(0), samples[2], samples[2:].sum(0)])
    folder = fill(tmp_path, model, {"x": samples}, [sums], reset="golden/reset.npy")
    folder.record["state"] = {"t": "s"}
    np.save(tmp_path / "golden/reset.npy", np.array([False, False, True, False]))
    assert folder.check().code == 0
    folder.record["golden"]["reset"] = None
    assert "sample 2" in failed(folder.check()), "negative control"


def test_run_and_bench_take_what_is_not_given_from_the_folder(scores: Folder, tmp_path: Path) -> None:
    assert scores.check().code == 0
    out = tmp_path / "out"
    answer = ekrun("run", scores.path, "--out", out)
    assert answer.code == 0, answer.stderr
    np.testing.assert_array_equal(np.load(out / "0.npy"), scores.expected())
    two = np.load(scores.path / "golden/0.npy")[:2]
    np.save(tmp_path / "x.npy", two)
    given = ["--input", f"x={tmp_path / 'x.npy'}", "--threads", "2", "--option", "graph_optimization=disable"]
    answer = ekrun("run", scores.path, "--out", out, *given, "--option", "mem_pattern=0")
    assert len(np.load(out / "0.npy")) == 2
    asked = answer.json["settings_asked"]
    assert (asked["threads"], asked["options"]) == (2, {"graph_optimization": "disable", "mem_pattern": "0"})
    assert ekrun("bench", scores.path, "--runs", 5).json["runs"] == 5
    assert ekrun("bench", scores.path, "--scenario", "offline", "--min-runs", 5).json["count"] >= 5
    assert "profile" in ekrun("layers", scores.path, "--runs", 2, "--out", out).json


def test_a_folder_by_a_relative_name_and_through_a_link(scores: Folder, tmp_path: Path) -> None:
    scores.check()
    (tmp_path / "current").symlink_to("bundle")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert ekrun("check", "current").code == 0
        assert ekrun("check", "./bundle/").code == 0
    finally:
        os.chdir(before)


def change(*keys: Any, to: Any) -> Callable[[Folder], object]:
    def apply(folder: Folder) -> None:
        record: Any = folder.record
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = to

    return apply


OUTPUT = ("golden", "outputs", 0)
UNFIT: dict[str, tuple[Callable[[Folder], object], int]] = {
    "another format": (change("format", to=2), BAD_INPUT),
    "no format": (lambda folder: folder.record.pop("format"), BAD_INPUT),
    "a library outside": (change("library", to="../lib/libonnxruntime.so.1"), BAD_INPUT),
    "an absolute library": (change("library", to=library("onnxruntime")), BAD_INPUT),
    "a model outside": (change("model", to="../model.onnx"), BAD_INPUT),
    "an input outside": (change("golden", "inputs", "x", to="/dev/zero"), BAD_INPUT),
    "expected outside": (change(*OUTPUT, "file", to="a/../../b"), BAD_INPUT),
    "a zero in a path": (change("model", to="model.onnx\0"), BAD_INPUT),
    "as it is": (change("threads", to=1), 0),
    "no threads": (change("threads", to=0), BAD_INPUT),
    "many threads": (change("threads", to=1025), BAD_INPUT),
    "threads as text": (change("threads", to="1"), BAD_INPUT),
    "options that are no text": (change("options", "arena", to=1), BAD_INPUT),
    "no golden samples": (change("golden", to=None), BAD_INPUT),
    "no golden outputs": (change("golden", "outputs", to=[]), BAD_INPUT),
    "another number of samples": (change("golden", "samples", to=7), BAD_INPUT),
    "no such output": (change(*OUTPUT, "index", to=1), BAD_INPUT),
    "a negative output": (change(*OUTPUT, "index", to=-1), BAD_INPUT),
    "a negative tolerance": (change(*OUTPUT, "tolerance", to=-1), BAD_INPUT),
    "an endless tolerance": (change(*OUTPUT, "tolerance", to=10**400), BAD_INPUT),
    "a tolerance as text": (change(*OUTPUT, "tolerance", to="1"), BAD_INPUT),
    "another kind of decision": (change(*OUTPUT, "decisions", to="top5"), BAD_INPUT),
    "no such axis": (change(*OUTPUT, "axis", to=3), BAD_INPUT),
    "no such negative axis": (change(*OUTPUT, "axis", to=-4), BAD_INPUT),
    "a decision less": (change(*OUTPUT, "decided", to=[True] * 17), BAD_INPUT),
    "decisions that are no bool": (change(*OUTPUT, "decided", to=[1] * 18), BAD_INPUT),
    "decisions of another type": (change(*OUTPUT, "decided", to="golden/0.npy"), BAD_INPUT),
    "an unknown key": (change("colour", to=[{"deep": [1, 2.5, None]}]), 0),
    "an unknown engine": (change("engine", to="tvm"), USAGE),
    "no library": (lambda folder: (folder.path / "lib/libonnxruntime.so.1").unlink(), LIBRARY),
    "no model": (lambda folder: (folder.path / "model.onnx").unlink(), MODEL),
    "no expected values": (lambda folder: (folder.path / "golden/expected-0.npy").unlink(), BAD_INPUT),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_said(scores: Folder, case: str) -> None:
    spoil, code = UNFIT[case]
    spoil(scores)
    answer = scores.check()
    assert answer.code == code, answer.stderr


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "[" * 100_000, '{"format":1,"format":1}', "\xff", '{"format":1e0}']
)
def test_what_is_no_record_is_said(scores: Folder, text: str) -> None:
    (scores.path / "deployment.json").write_text(text, encoding="latin-1")
    answer = ekrun("check", scores.path)
    assert (answer.code, answer.json["error"]["code"]) == (BAD_INPUT, "bad_input")
    assert "deployment.json: " in answer.stderr


def test_other_folders(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        assert ekrun("check", place).code == BAD_INPUT
    assert ekrun("check").code == USAGE
    assert ekrun("check", tmp_path, "--input", "x=y").code == USAGE
    assert ekrun("bench", tmp_path, "extra", "--runs", 1).code == USAGE


def test_an_engine_that_crashes_is_no_pass(scores: Folder, tmp_path: Path) -> None:
    compile_engine(tmp_path, "static void body(void) { abort(); }")
    (scores.path / "lib/libonnxruntime.so.1").unlink()
    (tmp_path / "libonnxruntime.so").rename(scores.path / "lib/libonnxruntime.so.1")
    (scores.path / "deployment.json").write_text(json.dumps(scores.record))
    argv = [str(built()["x86_64"]), "check", str(scores.path)]
    assert subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode < 0


@pytest.mark.board
def test_on_an_emulated_board(scores: Folder) -> None:
    with closing(emulated("raspberry-pi-5")) as board:
        there = native_library("onnxruntime", board.target.engines["onnxruntime"], board.arch, default_cache()).library
        (scores.path / "lib/libonnxruntime.so.1").unlink()
        (scores.path / "lib/libonnxruntime.so.1").symlink_to(there)
        (scores.path / "deployment.json").write_text(json.dumps(scores.record))
        done = board.run(["check", str(scores.path)], deadline_s=120)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout.splitlines()[-1])
        assert answer["emulated"] and answer["passed"] and answer["outputs"][0]["decisions"] == 18
        scores.expect(scores.expected() + np.float32(0.01))
        assert board.run(["check", str(scores.path)], deadline_s=120).returncode == REFUSED
