"""Streaming calibration on real engines: equal to ORT's MinMax, the same for every budget, after a kill, in flat memory."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit import sandbox
from edgekit.core.calibration import Collected, NonFinite
from edgekit.errors import DiskFull, InputRejected
from edgekit.models.external import DATA_FILE
from edgekit.process import child_environment
from edgekit.quantize import groups
from edgekit.quantize.collect import collect, load
from edgekit.quantize.histogram import EMPTY, add

os.environ.update(child_environment())
import onnxruntime as ort  # its telemetry is off only if the environment says so before
from onnxruntime.quantization.calibrate import CalibraterBase, MinMaxCalibrater

RNG = np.random.default_rng(3)
EVERYTHING = ()


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape or None)


def weight(name, *shape):
    return numpy_helper.from_array((RNG.standard_normal(shape) * 0.4).astype(np.float32), name)


def save(path, nodes, inputs, outputs, weights=(), infer=True):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.shape_inference.infer_shapes(model) if infer else model, str(path))
    return path


def layers(path, infer=True):
    """Two branches that meet: x [1, 3, 16, 16] to y [1, 5]."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Sigmoid", ["c1"], ["s"]),
        helper.make_node("Mul", ["c2", "s"], ["m"]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"]),
    ]
    weights = [weight("w1", 8, 3, 3, 3), weight("w2", 8, 8, 3, 3), weight("w3", 8, 5)]
    return save(path, nodes, [value("x", 1, 3, 16, 16)], [value("y", 1, 5)], weights, infer)


def recurrent(path):
    """h' = 0.9 h + tanh(xW + hU): inputs x, h [1, 4], outputs y, h'."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("MatMul", ["h", "u"], ["hu"]),
        helper.make_node("Add", ["xw", "hu"], ["a"]),
        helper.make_node("Tanh", ["a"], ["t"]),
        helper.make_node("Mul", ["h", "decay"], ["kept"]),
        helper.make_node("Add", ["kept", "t"], ["h_next"]),
        helper.make_node("MatMul", ["h_next", "v"], ["y"]),
    ]
    weights = [weight("w", 4, 4), weight("u", 4, 4), weight("v", 4, 2)]
    weights.append(numpy_helper.from_array(np.array(0.9, np.float32), "decay"))
    ends = [value("x", 1, 4), value("h", 1, 4)], [value("y", 1, 2), value("h_next", 1, 4)]
    return save(path, nodes, *ends, weights)


STATE = {"h_next": "h"}


def feeds(folder, *arrays, reset=None):
    folder.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays):
        np.save(folder / f"{i}.npy", array)
    if reset is not None:
        np.save(folder / "reset.npy", np.asarray(reset, np.uint8))
    return folder


def images(folder, n, size=16):
    return feeds(folder, np.random.default_rng(n).standard_normal((n, 1, 3, size, size)).astype(np.float32))


def sequences(folder, n, every=None):
    x = np.random.default_rng(n).standard_normal((n, 1, 4)).astype(np.float32)
    reset = None if every is None else np.arange(n) % every == 0
    return feeds(folder, x, np.zeros((n, 1, 4), np.float32), reset=reset)


def wanted(model, ops=EVERYTHING):
    return groups.tensors_to_calibrate(onnx.load(str(model)), ops)


def onnxruntime_minmax(model, ops, samples, scratch):
    """What ORT's own calibrater finds, by tensor."""

    class Reader:
        def __init__(self):
            self.left = iter(samples)

        def get_next(self):
            return next(self.left, None)

    calibrater = MinMaxCalibrater(model, list(ops), augmented_model_path=str(scratch / "augmented.onnx"))
    calibrater.augment_graph()
    calibrater.create_inference_session()
    calibrater.collect_data(Reader())
    return {name: tuple(end.item() for end in data.range_value) for name, data in calibrater.compute_data().items()}


def carried(model, folder, every):
    """The recurrent model's feeds with its state carried, by the simplest loop there is."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    h = None
    for i, x in enumerate(np.load(folder / "0.npy")):
        h = np.zeros((1, 4), np.float32) if i % every == 0 else h
        yield {"x": x, "h": h}
        h = session.run(["h_next"], {"x": x, "h": h})[0]


# ------------------------------------------------------------------------------------------ equal to ONNX Runtime's


@pytest.mark.parametrize("ops", [EVERYTHING, ("Conv", "Gemm"), ("Relu",)])
def test_minmax_is_onnx_runtimes(ops, tmp_path):
    model, data = layers(tmp_path / "m.onnx"), images(tmp_path / "data", 7)
    done = collect(model, data, wanted(model, ops), tmp_path / "out.npz")
    samples = [{"x": x} for x in np.load(data / "0.npy")]
    expected = onnxruntime_minmax(model, ops, samples, tmp_path)
    found = load(tmp_path / "out.npz")
    assert {name: (h.low, h.high) for name, h in found.items()} == expected
    assert done == Collected(7, tuple(found), {}, (), 1, 7)
    assert all(h.count == 7 * h.count // 7 > 0 for h in found.values())


def test_minmax_is_onnx_runtimes_where_state_is_carried(tmp_path):
    model, data = recurrent(tmp_path / "m.onnx"), sequences(tmp_path / "data", 30, every=10)
    collect(model, data, wanted(model), tmp_path / "out.npz", state=STATE)
    expected = onnxruntime_minmax(model, EVERYTHING, carried(model, data, 10), tmp_path)
    assert {name: (h.low, h.high) for name, h in load(tmp_path / "out.npz").items()} == expected
    assert "h" in expected


def test_state_that_is_not_carried_or_not_reset_is_seen(tmp_path):
    """The control for the test above."""
    model, names = recurrent(tmp_path / "m.onnx"), ("h", "y")
    with_resets = sequences(tmp_path / "resets", 30, every=10)
    without = sequences(tmp_path / "one", 30)
    assert np.array_equal(np.load(with_resets / "0.npy"), np.load(without / "0.npy"))
    found = []
    for data, state in ((with_resets, STATE), (without, STATE), (with_resets, None)):
        collect(model, data, names, tmp_path / "out.npz", state=state)
        found.append(load(tmp_path / "out.npz")["h"])
    assert len({h.high for h in found}) == 3
    assert found[2].zeros == 30 * 4


def test_histograms_are_of_every_value(tmp_path):
    model, data = layers(tmp_path / "m.onnx"), images(tmp_path / "data", 5)
    collect(model, data, ("c1", "x"), tmp_path / "out.npz", budget_bytes=1)
    loaded = onnx.load(str(model))
    loaded.graph.output.append(value("c1", 1, 8, 16, 16))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(loaded.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = np.load(data / "0.npy")
    whole = add(EMPTY, np.stack([session.run(["c1"], {"x": sample})[0] for sample in x]))
    found = load(tmp_path / "out.npz")
    assert np.array_equal(found["c1"].counts, whole.counts)
    assert np.array_equal(found["x"].counts, add(EMPTY, x).counts)
    assert (found["c1"].count, found["x"].count) == (5 * 8 * 256, x.size)


# ------------------------------------------------------------------------------------------------ groups and shapes


@pytest.mark.parametrize("build", [layers, recurrent])
def test_every_budget_gives_the_same_file(build, tmp_path):
    model = build(tmp_path / "m.onnx")
    state = STATE if build is recurrent else None
    data = images(tmp_path / "data", 4) if build is layers else sequences(tmp_path / "data", 9, every=4)
    files, parts = set(), set()
    for budget in (1, 40, 9000, 1 << 30):
        done = collect(model, data, wanted(model), tmp_path / "out.npz", state=state, budget_bytes=budget)
        files.add((tmp_path / "out.npz").read_bytes())
        parts.add(done.groups)
    assert len(files) == 1
    assert len(parts) >= 3


def test_shapes_that_the_model_does_not_record_are_measured(tmp_path):
    recorded, bare = layers(tmp_path / "m.onnx"), layers(tmp_path / "bare.onnx", infer=False)
    onnx.save(_same_weights(recorded, bare), str(bare))
    data, names = images(tmp_path / "data", 4), wanted(recorded)
    done = [collect(m, data, names, tmp_path / f"{m.stem}.npz", budget_bytes=9000) for m in (recorded, bare)]
    assert done[0] == done[1]
    assert done[0].groups > 1
    assert (tmp_path / "m.npz").read_bytes() == (tmp_path / "bare.npz").read_bytes()


def _same_weights(source, target):
    given, taking = onnx.load(str(source)), onnx.load(str(target))
    del taking.graph.initializer[:]
    taking.graph.initializer.extend(given.graph.initializer)
    return taking


def test_weights_may_lie_in_a_file_beside_the_model(tmp_path):
    inline, data = layers(tmp_path / "m.onnx"), images(tmp_path / "data", 3)
    outside = tmp_path / "outside" / "m.onnx"
    outside.parent.mkdir()
    options = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    onnx.save_model(onnx.load(str(inline)), str(outside), **options)
    assert onnx.load(str(outside), load_external_data=False).graph.initializer[0].external_data
    for model in (inline, outside):
        collect(model, data, wanted(inline), model.with_name("out.npz"), budget_bytes=9000)
    assert (tmp_path / "out.npz").read_bytes() == (outside.parent / "out.npz").read_bytes()


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 60))
def test_groups_keep_order_and_budget(sizes, budget):
    named = {str(i): size for i, size in enumerate(sizes)}
    cut = groups.grouped(named, budget)
    assert [name for group in cut for name in group] == list(named)
    assert all(len(group) == 1 or sum(named[name] for name in group) <= budget for group in cut)
    assert all(sum(named[n] for n in (*a, b[0])) > budget for a, b in itertools.pairwise(cut))


def test_a_group_runs_only_what_it_needs(tmp_path):
    model = onnx.load(str(layers(tmp_path / "m.onnx")))
    groups.prune(model, ["s"])
    assert [node.op_type for node in model.graph.node] == ["Conv", "Sigmoid"]
    assert [tensor.name for tensor in model.graph.initializer] == ["w1"]


@pytest.mark.parametrize("ops", [EVERYTHING, ("Conv",), ("Relu", "Gemm"), ("Nothing",)])
def test_tensors_to_calibrate_are_what_onnx_runtime_selects(ops, tmp_path):
    for model in (layers(tmp_path / "m.onnx"), recurrent(tmp_path / "r.onnx"), branching(tmp_path / "b.onnx")):
        calibrater = CalibraterBase(model, list(ops))
        selected, _ = calibrater.select_tensors_to_calibrate(calibrater.model)
        assert set(groups.tensors_to_calibrate(calibrater.model, ops)) == selected


# ------------------------------------------------------------------------------------------- what cannot be collected


def branching(path):
    """x [1, 4] through an If whose bodies see `double`; a string, a sequence, integers, and values counted by the data."""
    bodies = {
        name: helper.make_graph(
            [helper.make_node(op, ["double"], [f"in_{name}"])], name, [], [value(f"in_{name}", 1, 4)]
        )
        for name, op in (("then", "Relu"), ("else", "Neg"))
    }
    nodes = [
        helper.make_node("Add", ["x", "x"], ["double"]),
        helper.make_node("If", ["flag"], ["chosen"], then_branch=bodies["then"], else_branch=bodies["else"]),
        helper.make_node("NonZero", ["chosen"], ["places"]),
        helper.make_node("Cast", ["places"], ["far"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["x"], ["text"], to=TensorProto.STRING),
        helper.make_node("SequenceConstruct", ["x"], ["list"]),
        helper.make_node("Log", ["x"], ["log"]),
        helper.make_node("Add", ["chosen", "w"], ["y"]),
    ]
    inputs = [value("x", 1, 4), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    return save(path, nodes, inputs, [value("y", 1, 4)], [weight("w", 1, 4)])


def branching_data(folder):
    x = np.array([[[1, 2, 3, 4]], [[0, 1, 0, 2]], [[-1, 5, -1, 0]]], np.float32)
    return feeds(folder, x, np.array([True, True, False]))


def test_what_cannot_be_fetched_is_named(tmp_path):
    model, data = branching(tmp_path / "m.onnx"), branching_data(tmp_path / "data")
    names = ("in_then", "in_else", "nowhere", "w", "text", "list", "places", "far", "chosen", "flag", "log")
    done = collect(model, data, names, tmp_path / "out.npz")
    assert done.left_out == {
        "in_then": "is inside an If, Loop or Scan body",
        "in_else": "is inside an If, Loop or Scan body",
        "nowhere": "is not in the model",
        "w": "is a stored weight, not an activation",
        "text": "holds string, not plain numbers",
        "list": "holds seq(tensor(float)), not plain numbers",
    }
    found = load(tmp_path / "out.npz")
    assert set(found) == {"places", "far", "chosen", "flag", "log"} == set(done.tensors)
    assert (found["chosen"].low, found["chosen"].high, found["flag"].count) == (-10, 8, 3)
    assert (found["far"].high, found["far"].count, found["places"].count) == (3, 18, 18)


def test_values_that_are_not_finite_are_named_by_tensor_and_sample(tmp_path):
    model, data = branching(tmp_path / "m.onnx"), branching_data(tmp_path / "data")
    done = collect(model, data, ("log", "double"), tmp_path / "out.npz")
    assert done.nonfinite == (NonFinite("log", 1, 5),)
    assert load(tmp_path / "out.npz")["log"].nonfinite == 5


@pytest.mark.parametrize(
    ("names", "state", "words"),
    [
        (("nowhere",), {}, "no tensor can be calibrated: 'nowhere' is not in the model"),
        ((), {}, "no tensor can be calibrated"),
        (("y",), {"y": "z"}, "has no input 'z' to carry state to"),
        (("y",), {"z": "h"}, "has no output 'z' to carry state from"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(names, state, words, tmp_path):
    model, data = recurrent(tmp_path / "m.onnx"), sequences(tmp_path / "data", 4)
    with pytest.raises(InputRejected, match=words):
        collect(model, data, names, tmp_path / "out.npz", state=state)
    assert not (tmp_path / "out.npz").exists()


def test_a_sample_that_cannot_be_run_is_named(tmp_path):
    nodes = [helper.make_node("Gather", ["w", "i"], ["y"])]
    ends = [helper.make_tensor_value_info("i", TensorProto.INT64, [1])], [value("y", 1)]
    model = save(tmp_path / "m.onnx", nodes, *ends, [weight("w", 4)])
    data = feeds(tmp_path / "data", np.array([[0], [3], [7]]))
    with pytest.raises(InputRejected, match="calibration sample 2 cannot be run") as caught:
        collect(model, data, ("y",), tmp_path / "out.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "reset"),
    [
        ([np.zeros((3, 1, 4), np.float32), np.zeros((2, 1, 4), np.float32)], None),
        ([np.zeros((0, 1, 4), np.float32), np.zeros((0, 1, 4), np.float32)], None),
        ([np.zeros((3, 1, 4), np.float32)], None),
        ([np.zeros((3, 1, 4), np.float32), np.zeros((3, 1, 4), np.float32)], [1, 0]),
        ([np.zeros((3, 1, 5), np.float32), np.zeros((3, 1, 4), np.float32)], None),
        ([np.zeros((3, 1, 4), np.float64), np.zeros((3, 1, 4), np.float32)], None),
    ],
)
def test_feeds_that_do_not_fit_are_refused(arrays, reset, tmp_path):
    model, data = recurrent(tmp_path / "m.onnx"), feeds(tmp_path / "data", *arrays, reset=reset)
    with pytest.raises(InputRejected):
        collect(model, data, ("y",), tmp_path / "out.npz")


# ------------------------------------------------------------------------------------------- interrupted and resumed

SLOW = """
import sys
from pathlib import Path
from edgekit.quantize.collect import collect
root = Path(sys.argv[1])
collect(root / "m.onnx", root / "data", tuple(sys.argv[2].split()), root / "killed.npz", state={"h_next": "h"},
        budget_bytes=40, threads=1, checkpoint=root / "checkpoint.npz", checkpoint_s=0.0)
"""
NAMES = ("x", "h", "xw", "a", "h_next", "y")


def test_a_killed_collection_goes_on_and_ends_the_same(tmp_path):
    model, data = recurrent(tmp_path / "m.onnx"), sequences(tmp_path / "data", 400, every=150)
    checkpoint = tmp_path / "checkpoint.npz"
    options = {"state": STATE, "budget_bytes": 40, "threads": 1}
    whole = collect(model, data, NAMES, tmp_path / "whole.npz", **options)
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path), " ".join(NAMES)])
        before = _moment(checkpoint)
        while _moment(checkpoint) in (None, before):
            assert child.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed.npz").exists()
    done = collect(model, data, NAMES, tmp_path / "killed.npz", checkpoint=checkpoint, **options)
    assert 0 < done.runs < whole.runs == 400 * whole.groups
    assert (tmp_path / "killed.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not checkpoint.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "data", "killed.npz", "whole.npz"}


def _moment(path):
    return path.stat().st_mtime_ns if path.exists() else None


def interrupted(model, data, checkpoint, out):
    """Leave the checkpoint of a collection that died after its third inference."""

    class Stop(Exception):
        pass

    class Full:
        def __init__(self, runs):
            self.runs = runs

    import edgekit.quantize.collect as module

    real, seen = module._part_steps, Full(0)

    def dying(*arguments):
        for step in real(*arguments):
            seen.runs += 1
            yield step
            if seen.runs == 3:
                raise Stop

    module._part_steps = dying
    try:
        with pytest.raises(Stop):
            collect(model, data, NAMES, out, state=STATE, checkpoint=checkpoint, checkpoint_s=0)
    finally:
        module._part_steps = real


def changed(checkpoint, **arrays):
    with np.load(checkpoint) as stored:
        kept = {name: stored[name] for name in stored.files}
    np.savez(checkpoint, **{**kept, **arrays})


def test_a_checkpoint_decides_the_result(tmp_path):
    """The control for resuming: with another state in the checkpoint the end is another one."""
    model, data = recurrent(tmp_path / "m.onnx"), sequences(tmp_path / "data", 9)
    checkpoint, out = tmp_path / "checkpoint.npz", tmp_path / "out.npz"
    collect(model, data, NAMES, out, state=STATE)
    whole = out.read_bytes()
    for tampered in (False, True):
        interrupted(model, data, checkpoint, out)
        if tampered:
            changed(checkpoint, **{"carried.0": np.full((1, 4), 9, np.float32)})
        done = collect(model, data, NAMES, out, state=STATE, checkpoint=checkpoint)
        assert done.runs == 6
        assert (out.read_bytes() == whole) is not tampered


def test_weights_beside_the_model_decide_the_result_too(tmp_path):
    model, data = tmp_path / "m.onnx", sequences(tmp_path / "data", 9)
    options = {"save_as_external_data": True, "location": DATA_FILE, "size_threshold": 0}
    onnx.save_model(onnx.load(str(recurrent(model))), str(model), **options)
    checkpoint, out = tmp_path / "checkpoint.npz", tmp_path / "out.npz"
    interrupted(model, data, checkpoint, out)
    weights = np.fromfile(tmp_path / DATA_FILE, np.float32)
    (weights * np.float32(0.5)).tofile(tmp_path / DATA_FILE)
    done = collect(model, data, NAMES, out, state=STATE, checkpoint=checkpoint)
    assert done.runs == 9 * done.groups


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path, monkeypatch):
    model, data = layers(tmp_path / "m.onnx"), images(tmp_path / "data", 3)

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DiskFull):
        collect(model, data, ("c1",), tmp_path / "out.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "data"}


def test_each_process_writes_a_file_of_its_own_and_only_dead_ones_leave_theirs(tmp_path, monkeypatch):
    model, data = recurrent(tmp_path / "m.onnx"), sequences(tmp_path / "data", 9)
    checkpoint = tmp_path / "checkpoint.npz"
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead, living = (tmp_path / f".checkpoint.npz.{pid}.partial" for pid in (child.pid, os.getppid()))
    for path in (dead, living):
        path.write_bytes(b"half")
    seen, savez = set(), np.savez

    def watched(stream, **arrays):
        seen.add(stream.name)
        savez(stream, **arrays)

    monkeypatch.setattr(np, "savez", watched)
    collect(model, data, NAMES, tmp_path / "out.npz", state=STATE, checkpoint=checkpoint, checkpoint_s=0)
    assert seen == {str(tmp_path / f".{name}.npz.{os.getpid()}.partial") for name in ("checkpoint", "out")}
    assert not dead.exists()
    assert living.read_bytes() == b"half"
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "data", "out.npz", living.name}


@pytest.mark.parametrize("what", ["data", "reset", "model", "threads", "tensors", "budget", "garbage", "empty"])
def test_a_checkpoint_of_anything_else_is_ignored(what, tmp_path):
    model, data = recurrent(tmp_path / "m.onnx"), sequences(tmp_path / "data", 9, every=9)
    checkpoint, out = tmp_path / "checkpoint.npz", tmp_path / "out.npz"
    interrupted(model, data, checkpoint, out)
    names, options = NAMES, {"state": STATE, "threads": 2}
    if what == "data":
        sequences(data, 9, every=9)
        np.save(data / "0.npy", np.load(data / "0.npy") + 1)
    elif what == "reset":
        np.save(data / "reset.npy", np.eye(1, 9, dtype=np.uint8)[0] + np.eye(1, 9, 4, dtype=np.uint8)[0])
    elif what == "model":
        recurrent(model)
    elif what == "threads":
        options["threads"] = 1
    elif what == "tensors":
        names = NAMES[:-1]
    elif what == "budget":
        options["budget_bytes"] = 16
    else:
        checkpoint.write_bytes(b"PK\3\4 not a zip" if what == "garbage" else b"")
    done = collect(model, data, names, out, checkpoint=checkpoint, **options)
    assert done.runs == 9 * done.groups
    again = tmp_path / "again.npz"
    collect(model, data, names, again, **options)
    assert out.read_bytes() == again.read_bytes()


def test_progress_is_told_in_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.quantize.collect.PROGRESS_S", 0)
    model, data = layers(tmp_path / "m.onnx"), images(tmp_path / "data", 5)
    done = collect(model, data, wanted(model), tmp_path / "out.npz", budget_bytes=1, progress=tmp_path / "progress")
    lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [line["done"] for line in lines] == [*range(1, 5 * done.groups + 1), 5 * done.groups]
    assert {line["total"] for line in lines} == {5 * done.groups}
    assert all(line["eta_s"] >= 0 for line in lines)
    assert lines[-1]["eta_s"] == 0


def test_it_runs_in_the_sandbox(tmp_path):
    model, data = layers(tmp_path / "m.onnx"), images(tmp_path / "data", 3)
    done = sandbox.call(
        "edgekit.quantize.collect:collect",
        returns=Collected,
        model=model,
        feeds=data,
        tensors=("c1", "nowhere"),
        out=tmp_path / "out.npz",
        state={},
        progress=tmp_path / "progress",
    )
    assert done == Collected(3, ("c1",), {"nowhere": "is not in the model"}, (), 1, 3)
    assert json.loads((tmp_path / "progress").read_text().splitlines()[-1])["done"] == 3


# ----------------------------------------------------------------------------------------------------------- memory

PEAK = """
import sys
from pathlib import Path
import edgekit.quantize.collect as module
root, data, keep = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "keep"
kept, count = [], module.add
if keep:
    module.add = lambda state, values: (kept.append(values), count(state, values))[1]
module.collect(root / "wide.onnx", data, ("a", "b", "c"), root / "out.npz", budget_bytes=5 << 20, threads=1)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
SIDE_BYTES = 64 * 64 * 64 * 4  # of each of a, b and c: 1 MiB


def peak_kib(root, data, keep=""):
    argv = [sys.executable, "-c", PEAK, str(root), str(data), keep]
    return int(subprocess.run(argv, check=True, capture_output=True, env=child_environment()).stdout)


def test_memory_does_not_grow_with_the_samples(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
    ]
    ends = [value("x", 1, 1, 64, 64)], [value("c", 1, 64, 64, 64)]
    save(tmp_path / "wide.onnx", nodes, *ends, [weight("w", 64, 1, 1, 1)])
    few, many = (
        feeds(tmp_path / str(n), np.random.default_rng(0).random((n, 1, 1, 64, 64), np.float32)) for n in (8, 64)
    )
    peaks = [peak_kib(tmp_path, data) for data in (few, many)]
    assert peaks[1] < 1.05 * peaks[0]
    keeping = [peak_kib(tmp_path, data, "keep") for data in (few, many)]
    assert keeping[1] > 1.5 * keeping[0]  # the control: 56 samples more of 3 MiB would be seen
    weights, live = 64 * 4, 2 * SIDE_BYTES
    assert peaks[1] << 10 < groups.peak_bytes(weights, live, 3, budget=5 << 20)
    assert peaks[1] << 10 > groups.peak_bytes(weights, live, 3, budget=5 << 20) / 3
