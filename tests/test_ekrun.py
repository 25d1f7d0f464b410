"""`ekrun run`: outputs equal the engines' own Python bindings, and what is refused, with which exit code."""

import re
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.ekrun_tools import (
    Feeds,
    conv_feed,
    conv_model,
    ekrun,
    engine_args,
    feed_args,
    library,
    outputs,
    python_onnxruntime,
    python_openvino,
    rename_input,
    save_ir,
    save_model,
)

ENGINES = ("onnxruntime", "openvino")
USAGE, LIBRARY, MODEL, BAD_INPUT, INFERENCE, IO, MEMORY = 2, 3, 4, 5, 6, 7, 11

# numpy's name of what travels in the file, and the ONNX type. bfloat16 travels as uint16.
DTYPES = {
    "float16": ("float16", TensorProto.FLOAT16),
    "bfloat16": ("uint16", TensorProto.BFLOAT16),
    "float32": ("float32", TensorProto.FLOAT),
    "float64": ("float64", TensorProto.DOUBLE),
    "int8": ("int8", TensorProto.INT8),
    "int16": ("int16", TensorProto.INT16),
    "int32": ("int32", TensorProto.INT32),
    "int64": ("int64", TensorProto.INT64),
    "uint8": ("uint8", TensorProto.UINT8),
    "uint16": ("uint16", TensorProto.UINT16),
    "uint32": ("uint32", TensorProto.UINT32),
    "uint64": ("uint64", TensorProto.UINT64),
    "bool": ("bool", TensorProto.BOOL),
}


def run_model(engine: str, model: Path, folder: Path, feeds: Feeds, *extra: object) -> list[np.ndarray]:
    """Run `model` (ONNX; IR is made of it for OpenVINO) over the stacked feeds."""
    source = model if engine == "onnxruntime" else save_ir(model)
    out = folder / "out"
    answer = ekrun("run", *engine_args(engine, source), *feed_args(folder, feeds), "--out", out, *extra)
    return outputs(answer, out)


@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_equal_python_onnxruntime_bit_for_bit(tmp_path: Path, threads: int) -> None:
    model, feeds = conv_model(tmp_path / "m.onnx"), conv_feed()
    out = tmp_path / "out"
    args = [*engine_args("onnxruntime", model, threads=threads), *feed_args(tmp_path, feeds)]
    (stacked,) = outputs(ekrun("run", *args, "--out", out), out)
    session = python_onnxruntime(model, threads)
    expected = np.stack([session.run(None, {"x": sample})[0] for sample in feeds["x"]])
    assert stacked.tobytes() == expected.tobytes()
    assert len(np.unique(stacked)) > 1000


def test_outputs_equal_python_openvino(tmp_path: Path) -> None:
    model, feeds = conv_model(tmp_path / "m.onnx"), conv_feed()
    (stacked,) = run_model("openvino", model, tmp_path, feeds)
    for sample, result in zip(feeds["x"], stacked, strict=True):
        np.testing.assert_allclose(result, python_openvino(model, {"x": sample})[0], rtol=1e-6, atol=0)


def all_types_model(path: Path) -> Path:
    """One input and one output of each type: y_T = concat(x_T, x_T)."""
    nodes = [helper.make_node("Concat", [f"x_{t}", f"x_{t}"], [f"y_{t}"], axis=0) for t in DTYPES]
    inputs = [(f"x_{t}", element, [2, 3]) for t, (_, element) in DTYPES.items()]
    return save_model(path, nodes, inputs, [(f"y_{t}", element, [4, 3]) for t, (_, element) in DTYPES.items()])


@pytest.mark.parametrize("engine", ENGINES)
def test_every_type_goes_through_unchanged(tmp_path: Path, engine: str) -> None:
    # float64 and 64-bit integers lose range inside OpenVINO's CPU plugin, so the values are small.
    rng = np.random.default_rng(2)
    feeds = {
        f"x_{t}": rng.integers(0, 2 if t == "bool" else 100, (4, 2, 3)).astype(dtype)
        for t, (dtype, _) in DTYPES.items()
    }
    feeds["x_bfloat16"] = (rng.normal(size=(4, 2, 3)).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    feeds["x_float32"] = rng.normal(size=(4, 2, 3)).astype(np.float32)
    results = run_model(engine, all_types_model(tmp_path / "m.onnx"), tmp_path, feeds)
    for (name, (dtype, _)), result in zip(DTYPES.items(), results, strict=True):
        expected = feeds[f"x_{name}"]
        assert result.dtype == np.dtype(dtype), name
        np.testing.assert_array_equal(result, np.concatenate([expected, expected], axis=1), err_msg=name)


def test_onnxruntime_keeps_all_bits_of_wide_types(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    feeds = {
        f"x_{t}": rng.integers(0, 2, (2, 2, 3)).astype(bool)
        if t == "bool"
        else rng.bytes(12 * np.dtype(dtype).itemsize)
        for t, (dtype, _) in DTYPES.items()
    }
    feeds = {
        name: value if isinstance(value, np.ndarray) else np.frombuffer(value, DTYPES[name[2:]][0]).reshape(2, 2, 3)
        for name, value in feeds.items()
    }
    results = run_model("onnxruntime", all_types_model(tmp_path / "m.onnx"), tmp_path, feeds)
    for array, result in zip(feeds.values(), results, strict=True):
        assert result.tobytes() == np.concatenate([array, array], axis=1).tobytes()


@pytest.mark.parametrize("engine", ENGINES)
def test_scalars(tmp_path: Path, engine: str) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    scalar = TensorProto.FLOAT, []
    model = save_model(tmp_path / "m.onnx", nodes, [("a", *scalar), ("b", *scalar)], [("y", *scalar)])
    feeds = {"a": np.array([1, 2, 3], np.float32), "b": np.array([10, 20, 30], np.float32)}
    (result,) = run_model(engine, model, tmp_path, feeds)
    np.testing.assert_array_equal(result, np.array([11, 22, 33], np.float32))


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_without_elements(tmp_path: Path, engine: str) -> None:
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], axis=0), helper.make_node("Relu", ["a"], ["z"])]
    rows = TensorProto.FLOAT, ["n", 3]
    model = save_model(tmp_path / "m.onnx", nodes, [("a", *rows), ("b", *rows)], [("y", *rows), ("z", *rows)])
    feeds = {"a": np.zeros((2, 0, 3), np.float32), "b": np.ones((2, 1, 3), np.float32)}
    joined, empty = run_model(engine, model, tmp_path, feeds)
    np.testing.assert_array_equal(joined, feeds["b"])
    assert empty.shape == (2, 0, 3)


@pytest.mark.parametrize("engine", ENGINES)
def test_output_shapes_may_differ_between_samples(tmp_path: Path, engine: str) -> None:
    x, y = ("x", TensorProto.FLOAT, [4]), ("y", TensorProto.INT64, [1, "n"])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"])], [x], [y])
    feeds = {"x": np.array([[1, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0, 2, 0, 0], [1, 1, 1, 0]], np.float32)}
    source = model if engine == "onnxruntime" else save_ir(model)
    out = tmp_path / "out"
    answer = ekrun("run", *engine_args(engine, source), *feed_args(tmp_path, feeds), "--out", out)
    (flat,) = outputs(answer, out)
    assert answer.json["outputs"][0]["shapes"] == [[1, 3], [1, 3], [1, 0], [1, 1], [1, 3]]
    np.testing.assert_array_equal(flat, [0, 2, 3, 1, 2, 3, 1, 0, 1, 2])


def accumulator(path: Path, rows: Any = 1) -> Path:
    """y = x + s, s' = 0.5 s + x."""
    value = TensorProto.FLOAT, [rows, 4]
    nodes = [
        helper.make_node("Add", ["x", "s"], ["y"]),
        helper.make_node("Mul", ["s", "half"], ["h"]),
        helper.make_node("Add", ["h", "x"], ["s_next"]),
    ]
    results = [("y", *value), ("s_next", *value)]
    return save_model(path, nodes, [("x", *value), ("s", *value)], results, {"half": np.array(0.5, np.float32)})


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fed", [False, True], ids=["zeros", "fed"])
def test_state_is_carried_and_reset(tmp_path: Path, engine: str, fed: bool) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(7, 1, 4)).astype(np.float32)
    initial = rng.normal(size=(7, 1, 4)).astype(np.float32) if fed else np.zeros_like(x)
    resets = np.array([0, 0, 0, 1, 0, 1, 0], bool)
    np.save(tmp_path / "resets.npy", resets)
    model = accumulator(tmp_path / "m.onnx", "rows" if fed else 1)
    feeds = {"x": x, "s": initial} if fed else {"x": x}
    y, _ = run_model(engine, model, tmp_path, feeds, "--state", "s_next=s", "--reset", tmp_path / "resets.npy")

    expected, state = [], np.zeros((1, 4), np.float32)
    session = python_onnxruntime(model)
    for k, sample in enumerate(x):
        if k == 0 or resets[k]:
            state = initial[k]
        result, state = session.run(None, {"x": sample, "s": state})
        expected.append(result)
    np.testing.assert_array_equal(y, np.stack(expected))
    assert not np.array_equal(y, x + initial), "the state never mattered"


def test_states_that_swap_do_not_overwrite_each_other(tmp_path: Path) -> None:
    value = TensorProto.FLOAT, [2]
    nodes = [helper.make_node("Identity", ["b"], ["a_next"]), helper.make_node("Identity", ["a"], ["b_next"])]
    results = [("a_next", *value), ("b_next", *value)]
    model = save_model(tmp_path / "m.onnx", nodes, [("a", *value), ("b", *value)], results)
    feeds = {"a": np.full((4, 2), 1, np.float32), "b": np.full((4, 2), 2, np.float32)}
    a, b = run_model("onnxruntime", model, tmp_path, feeds, "--state", "a_next=a", "--state", "b_next=b")
    np.testing.assert_array_equal(a[:, 0], [2, 1, 2, 1])
    np.testing.assert_array_equal(b[:, 0], [1, 2, 1, 2])


def test_a_state_may_grow(tmp_path: Path) -> None:
    rows = TensorProto.FLOAT, ["n", 2]
    nodes = [helper.make_node("Concat", ["s", "x"], ["s_next"], axis=0)]
    x = ("x", TensorProto.FLOAT, [1, 2])
    model = save_model(tmp_path / "m.onnx", nodes, [x, ("s", *rows)], [("s_next", *rows)])
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(3, 1, 2), "s": np.zeros((3, 0, 2), np.float32)}
    (flat,) = run_model("onnxruntime", model, tmp_path, feeds, "--state", "s_next=s")
    np.testing.assert_array_equal(flat, [0, 1, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5])


def test_nonfinite_values_are_counted(tmp_path: Path) -> None:
    x, y = ("x", TensorProto.FLOAT, [3]), ("y", TensorProto.FLOAT, [3])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Log", ["x"], ["y"])], [x], [y])
    feeds = feed_args(tmp_path, {"x": np.array([[1, 0, -1], [1, 2, 3]], np.float32)})
    answer = ekrun("run", *engine_args("onnxruntime", model), *feeds, "--out", tmp_path / "out")
    assert answer.json["outputs"][0]["nonfinite"] == 2  # log(0) and log(-1)


def test_an_input_may_be_called_by_any_of_its_names(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "m.onnx")
    ir = rename_input(model, tmp_path / "m.xml", {"a", "x", "z"})
    for name in ("a", "x", "z"):
        feeds = feed_args(tmp_path, {name: conv_feed()["x"]})
        assert ekrun("run", *engine_args("openvino", ir), *feeds, "--out", tmp_path / "out").code == 0


def test_an_openvino_output_without_a_name(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "m.onnx")
    ir = save_ir(model)
    named = ekrun("run", *engine_args("openvino", ir), *feed_args(tmp_path, conv_feed()), "--out", tmp_path / "out")
    text = ir.read_text()
    ir.write_text(re.sub(r' (output_)?names="y"', "", text))
    args = [*engine_args("openvino", ir), *feed_args(tmp_path, conv_feed())]
    unnamed = ekrun("run", *args, "--out", tmp_path / "unnamed")
    assert [answer.json["outputs"][0]["name"] for answer in (named, unnamed)] == ["y", "output0"]
    for one, other in zip(outputs(named, tmp_path / "out"), outputs(unnamed, tmp_path / "unnamed"), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("engine", ENGINES)
def test_settings_asked_and_in_force(tmp_path: Path, engine: str) -> None:
    model = conv_model(tmp_path / "m.onnx")
    source = model if engine == "onnxruntime" else save_ir(model)
    key, value = {"onnxruntime": ("session.intra_op.allow_spinning", "0"), "openvino": ("PERFORMANCE_HINT", "LATENCY")}[
        engine
    ]
    args = [*engine_args(engine, source, threads=2), *feed_args(tmp_path, conv_feed()), "--option", f"{key}={value}"]
    answer = ekrun("run", *args, "--out", tmp_path / "out")
    assert answer.code == 0, answer.stderr
    asked, in_force = answer.json["settings_asked"], answer.json["settings_in_force"]
    assert (asked["threads"], asked["options"]) == (2, {key: value})
    assert (in_force["threads"], in_force["options"][key]) == (2, value)
    assert in_force["precision"] == {"onnxruntime": None, "openvino": "f32"}[engine]


# ------------------------------------------------------------------------------------------------------------- refusals


def save_raw(path: Path, header: str, data: bytes) -> Path:
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data)
    return path


def bad_feeds(folder: Path) -> dict[str, list[str]]:
    """Arguments that must be refused as bad input, by a phrase of the message."""
    good = conv_feed()["x"]

    def feed(name: str, array: np.ndarray) -> str:
        path = folder / f"{name}.npy"
        np.save(path, array)
        return f"x={path}"

    (folder / "folder.npy").mkdir()
    (folder / "empty.npy").touch()
    whole = Path(feed("cut", good)[2:])
    whole.write_bytes(whole.read_bytes()[:-1])
    empty_header = "{'descr': '', 'fortran_order': False, 'shape': (3,), }"
    object_header = "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }"
    x = feed("good", good)
    return {
        "no input 'other'": ["--input", x, "--input", "other" + x[1:]],
        "has no feed": [],
        "fed twice": ["--input", x, "--input", x],
        "is float32": ["--input", feed("double", good.astype(np.float64))],
        "has shape [1,8,32,32]": ["--input", feed("rank", good[:, 0])],
        "samples in": ["--input", feed("dims", good[..., :-1])],
        "Fortran": ["--input", feed("fortran", np.asfortranarray(good))],
        "big endian": ["--input", feed("big", good.astype(">f4"))],
        "truncated": ["--input", f"x={whole}"],
        "not a .npy file": ["--input", f"x={folder / 'empty.npy'}"],
        "not a regular file": ["--input", f"x={folder / 'folder.npy'}"],
        "No such file": ["--input", f"x={folder / 'missing.npy'}"],
        "dtype is not one of": ["--input", f"x={save_raw(folder / 'object.npy', object_header, b'pickle')}"],
        "dtype is empty": ["--input", f"x={save_raw(folder / 'typeless.npy', empty_header, bytes(12))}"],
        "no samples": ["--input", feed("none", good[:0])],
        "no sample axis": ["--input", feed("scalar", np.array(1.0, np.float32))],
        "one bool or uint8": ["--input", x, "--state", "y=x", "--reset", x[2:]],
        "no output 'q'": ["--input", x, "--state", "q=x"],
        "the input takes": ["--input", x, "--state", "y=x"],  # 16 channels into 8
    }


def test_each_bad_feed_is_one_clear_line(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "m.onnx")
    for phrase, args in bad_feeds(tmp_path).items():
        out = tmp_path / "out"
        answer = ekrun("run", *engine_args("onnxruntime", model), *args, "--out", out)
        assert answer.code == BAD_INPUT, phrase
        assert answer.json["error"]["code"] == "bad_input"
        assert phrase in answer.json["error"]["message"]
        assert answer.stderr.startswith("ekrun: ") and answer.stderr.count("\n") == 1, answer.stderr
        assert not list(out.glob("*")) if out.exists() else True


def test_feeds_must_agree_in_samples(tmp_path: Path) -> None:
    feeds = feed_args(tmp_path, {"x": np.zeros((3, 1, 4), np.float32), "s": np.zeros((2, 1, 4), np.float32)})
    answer = ekrun(
        "run", *engine_args("onnxruntime", accumulator(tmp_path / "m.onnx")), *feeds, "--out", tmp_path / "out"
    )
    assert answer.code == BAD_INPUT
    assert "holds 2 samples" in answer.json["error"]["message"]


@pytest.mark.parametrize("samples", [10**6 + 1, 10**17])
def test_samples_without_elements_are_not_claimed_by_the_million(tmp_path: Path, samples: int) -> None:
    rows = TensorProto.FLOAT, ["n", 3]
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], [("x", *rows)], [("y", *rows)])
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({samples}, 0, 3), }}"
    feed = save_raw(tmp_path / "forged.npy", header, b"")
    answer = ekrun("run", *engine_args("onnxruntime", model), "--input", f"x={feed}", "--out", tmp_path / "out")
    assert answer.code == BAD_INPUT
    assert f"claims {samples} samples, at most 1000000 " in answer.json["error"]["message"]


def test_no_feed_holds_more_samples_than_may_be_asked_for(tmp_path: Path) -> None:
    samples = 10**9 + 1
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({samples},), }}"
    resets = save_raw(tmp_path / "resets.npy", header, b"")
    with resets.open("ab") as file:
        file.truncate(file.tell() + samples)  # sparse: it takes no room
    model = accumulator(tmp_path / "m.onnx")
    args = [*engine_args("onnxruntime", model), "--state", "s_next=s", "--state", "y=x", "--reset", resets]
    answer = ekrun("run", *args, "--out", tmp_path / "out")
    assert answer.code == BAD_INPUT
    assert "at most 1000000000 " in answer.json["error"]["message"]


def test_a_state_of_unknown_shape_needs_an_initial_value(tmp_path: Path) -> None:
    model = accumulator(tmp_path / "m.onnx", "rows")
    feeds = feed_args(tmp_path, {"x": np.zeros((3, 1, 4), np.float32)})
    answer = ekrun("run", *engine_args("onnxruntime", model), *feeds, "--state", "s_next=s", "--out", tmp_path / "out")
    assert answer.code == BAD_INPUT
    assert "initial value" in answer.json["error"]["message"]


def test_strings_are_refused(tmp_path: Path) -> None:
    value = TensorProto.STRING, [1]
    model = save_model(
        tmp_path / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], [("x", *value)], [("y", *value)]
    )
    answer = ekrun("run", *engine_args("onnxruntime", model), "--out", tmp_path / "out")
    assert answer.code == MODEL
    assert "not strings" in answer.json["error"]["message"]


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    name = 'in"\\\n\x1b[31m$(reboot)é'
    x, y = (name, TensorProto.FLOAT, [1]), ("out\t" + name, TensorProto.FLOAT, [1])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Relu", [name], ["out\t" + name])], [x], [y])
    feeds = feed_args(tmp_path, {name: np.array([[-1.0], [2.0]], np.float32)})
    answer = ekrun("run", *engine_args("onnxruntime", model), *feeds, "--out", tmp_path / "out")
    assert answer.json["outputs"][0]["name"] == "out\t" + name
    refused = ekrun("run", *engine_args("onnxruntime", model), "--out", tmp_path / "out")
    assert name in refused.json["error"]["message"]
    assert "\x1b" not in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_models_the_engine_refuses(tmp_path: Path, engine: str) -> None:
    suffix = {"onnxruntime": ".onnx", "openvino": ".xml"}[engine]
    noise, empty = tmp_path / f"noise{suffix}", tmp_path / f"empty{suffix}"
    noise.write_bytes(np.random.default_rng(5).bytes(1000))
    empty.touch()
    for model in (noise, empty, tmp_path / f"missing{suffix}", tmp_path):
        answer = ekrun("run", *engine_args(engine, model), "--out", tmp_path / "out")
        assert (answer.code, answer.json["error"]["code"]) == (MODEL, "model_refused"), model


def test_libraries_that_cannot_be_used(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "m.onnx")
    (tmp_path / "noise.so").write_bytes(b"noise")
    for lib in (tmp_path / "missing.so", tmp_path / "noise.so", Path(library("openvino"))):
        args = ["--engine", "onnxruntime", "--lib", lib, "--model", model, "--threads", 1]
        answer = ekrun("run", *args, "--out", tmp_path / "out")
        assert (answer.code, answer.json["error"]["code"]) == (LIBRARY, "library"), lib
        assert str(lib) in answer.json["error"]["message"]


def test_usage(tmp_path: Path) -> None:
    model = conv_model(tmp_path / "m.onnx")
    good = [*engine_args("onnxruntime", model), "--out", tmp_path / "out"]
    openvino = [*engine_args("openvino", save_ir(model)), "--out", tmp_path / "out"]
    wrong: list[list[Any]] = [
        [],
        ["fly"],
        ["run"],
        ["run", *good[:6], "--out", tmp_path / "out"],  # no --threads
        ["run", *good, "--threads", "2"],
        ["run", *good, "--precision", "f8"],
        ["run", *good, "--precision", "bf16"],  # openvino's
        ["run", *good, "--option", "graph_optimization=most"],
        ["run", *good, "--option", "a=1", "--option", "a=2"],
        ["run", *openvino, "--option", "NO_SUCH_THING=1"],
        ["run", *openvino, "--option", "NUM_STREAMS=banana"],
        ["run", *good, "--warmup", "1"],
        ["run", *good, "--input"],
        ["bench", *good[:-2]],
        ["bench", *good[:-2], "--runs", "0"],
        ["bench", *good[:-2], "--runs", "1x"],
        ["bench", *good[:-2], "--runs", "1", "--stdin"],
        ["run", *good[:2], "--lib", "libonnxruntime.so", *good[4:]],
    ]
    for args in wrong:
        answer = ekrun(*args)
        assert (answer.code, answer.json["error"]["code"]) == (USAGE, "usage"), args


def test_a_failing_inference(tmp_path: Path) -> None:
    x, i, y = ("x", TensorProto.FLOAT, [3]), ("i", TensorProto.INT64, [1]), ("y", TensorProto.FLOAT, [1])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Gather", ["x", "i"], ["y"])], [x, i], [y])
    feeds = feed_args(tmp_path, {"x": np.zeros((2, 3), np.float32), "i": np.array([[2], [7]], np.int64)})
    answer = ekrun("run", *engine_args("onnxruntime", model), *feeds, "--out", tmp_path / "out")
    assert (answer.code, answer.json["error"]["code"]) == (INFERENCE, "inference_failed")
    assert not list((tmp_path / "out").iterdir()), "the first sample's output must not stay behind"


def test_a_failed_run_leaves_no_older_runs_output(tmp_path: Path) -> None:
    x, i, y = ("x", TensorProto.FLOAT, [3]), ("i", TensorProto.INT64, [1]), ("y", TensorProto.FLOAT, [1])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("Gather", ["x", "i"], ["y"])], [x, i], [y])
    for index, left in ((2, ["0.npy", "kept"]), (7, ["kept"])):
        feeds = feed_args(tmp_path, {"x": np.zeros((1, 3), np.float32), "i": np.array([[index]], np.int64)})
        ekrun("run", *engine_args("onnxruntime", model), *feeds, "--out", tmp_path / "out")
        (tmp_path / "out" / "kept").touch()
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == left


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    args = [*engine_args("onnxruntime", conv_model(tmp_path / "m.onnx")), *feed_args(tmp_path, conv_feed())]
    out = tmp_path / "out"
    answer = ekrun("run", *args, "--out", out, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2))
    assert (answer.code, answer.json["error"]["code"]) == (IO, "io")
    assert not list(out.iterdir())
    assert ekrun("run", *args, "--out", out).code == 0  # the same without the limit


def test_out_of_memory_has_its_own_code(tmp_path: Path) -> None:
    shape, y = ("shape", TensorProto.INT64, [1]), ("y", TensorProto.FLOAT, ["n"])
    model = save_model(tmp_path / "m.onnx", [helper.make_node("ConstantOfShape", ["shape"], ["y"])], [shape], [y])
    feeds = feed_args(tmp_path, {"shape": np.array([[1 << 31]], np.int64)})
    limit = (2 << 30,) * 2
    args = [*engine_args("onnxruntime", model), *feeds, "--out", tmp_path / "out"]
    answer = ekrun("run", *args, before=lambda: resource.setrlimit(resource.RLIMIT_AS, limit))
    assert (answer.code, answer.json["error"]["code"]) == (MEMORY, "out_of_memory")
