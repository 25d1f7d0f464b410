"""Recipes on real engines: every recipe on a tiny model, the quantizers' known defects, and what a build must never do."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

from edgekit import sandbox
from edgekit.core.calibration import Collected, Flattened
from edgekit.core.recipes import RECIPES, REFERENCE, reads_histograms, run_config
from edgekit.core.types import BuildSpec, Built, NumericRules
from edgekit.engines.base import one_line
from edgekit.errors import EdgekitError, InputRejected, ResourceLimit
from edgekit.flow.calibrate import OPS
from edgekit.process import QUIET_ENVIRONMENT
from edgekit.quantize.graphs import own_biases, quantized_ops, symmetric_int8, walk

os.environ.update(QUIET_ENVIRONMENT)
import onnxruntime as ort  # its telemetry is off only if the environment says so before

RNG = np.random.default_rng(7)
X86 = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
INT8 = {
    "ort-int8",
    "ort-int8-conv",
    "ort-int8-dynamic",
    "ort-int8-weights",
    "ov-int8",
    "ov-int8-asym",
    "ov-int8-bf16",
    "ov-int8-weights",
    "ov-int4-weights",
}


def tensor(name, *shape, scale=0.2):
    return numpy_helper.from_array((RNG.standard_normal(shape) * scale).astype(np.float32), name)


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, weights, opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))
    return path


def network(path, opset=17):
    """A small convolutional classifier: input x [1, 16, 8, 8], output y [1, 80]."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=16),
        helper.make_node("Add", ["c2", "r1"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["y"]),
    ]
    weights = [
        tensor("w1", 16, 16, 3, 3),
        tensor("b1", 16),
        tensor("w2", 16, 1, 3, 3),
        tensor("b2", 16),
        tensor("w3", 16, 80),
    ]
    return save(path, nodes, [value("x", 1, 16, 8, 8)], [value("y", 1, 80)], weights, opset)


def samples(folder, array):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "0.npy", array.astype(np.float32))
    return folder


def spec(recipe):
    return BuildSpec("0" * 64, RECIPES[recipe], "1", {}, X86)


def build(recipe, model, out, calibration=None, original=None, cwd=None):
    place = out.parent / f"{out.name}-flat"
    flat, histograms = calibrated(model, place, calibration) if reads_histograms(RECIPES[recipe]) else (None, None)
    return sandbox.call(
        "edgekit.engines.build:build_artifact",
        returns=Built,
        cwd=cwd,
        spec=spec(recipe),
        original=original or model,
        model=model,
        calibration=calibration if RECIPES[recipe].needs_calibration else None,
        out=out,
        flat=flat,
        histograms=histograms,
    )


def calibrated(model, place, feeds):
    """The flat model and the histograms in `place`, as the flow makes them; None for what there is no data for."""
    if feeds is None:
        return None, None
    place.mkdir(exist_ok=True)
    flattened = sandbox.call(
        "edgekit.quantize.flatten:flatten", returns=Flattened, model=model, out=place, ops=OPS, activation_bytes=0
    )
    if not flattened.tensors:
        return place / "flat.onnx", None
    sandbox.call(
        "edgekit.quantize.collect:collect",
        returns=Collected,
        model=place / "flat.onnx",
        feeds=feeds,
        tensors=flattened.tensors,
        out=place / "h.npz",
    )
    return place / "flat.onnx", place / "h.npz"


def session(path, options=(), level=None, save_to=None):
    config = ort.SessionOptions()
    config.intra_op_num_threads = 1
    config.log_severity_level = 3
    for key, text in options:
        config.add_session_config_entry(key, text)
    if level is not None:
        config.graph_optimization_level = level
    if save_to is not None:
        config.optimized_model_filepath = str(save_to)
    return ort.InferenceSession(str(path), config, providers=["CPUExecutionProvider"])


def cosine(a, b):
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def op_types(path):
    return {(node.domain, node.op_type) for graph in walk(onnx.load(str(path)).graph) for node in graph.node}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return samples(tmp_path_factory.mktemp("data"), RNG.standard_normal((8, 1, 16, 8, 8)))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory, model, data):
    """recipe -> (Built, folder); recipes that share an artifact are built once, by the spec's own digest."""
    root, made = tmp_path_factory.mktemp("artifacts"), {}

    def get(recipe):
        key = spec(recipe).digest
        if key not in made:
            made[key] = (build(recipe, model, root / key, data), root / key)
        return made[key]

    return get


# ------------------------------------------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds_and_answers_like_the_model(recipe, model, artifacts):
    built, folder = artifacts(recipe)
    feed = RNG.standard_normal((1, 16, 8, 8)).astype(np.float32)
    expected = session(model).run(None, {"x": feed})[0]
    path = folder / built.files[0]
    if RECIPES[recipe].engine == "onnxruntime":
        found = session(path, run_config(recipe, 1).options.items()).run(None, {"x": feed})[0]
    else:
        import openvino as ov

        hint = run_config(recipe, 1).precision
        compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": hint})
        found = compiled({"x": feed})["y"]
    assert found.shape == expected.shape
    assert cosine(found, expected) > (0.99999 if RECIPES[recipe].precision == "fp32" else 0.99)
    assert built.quantizable_ops == 3
    assert (built.quantized_ops > 0) == (recipe in INT8)
    assert {p.name for p in folder.iterdir()} == set(built.files), "a build leaves the artifact and nothing else"


def test_the_reference_is_the_model_byte_for_byte(model, artifacts):
    built, folder = artifacts(REFERENCE)
    assert (folder / built.files[0]).read_bytes() == model.read_bytes()


def test_weights_are_stored_small_and_dequantized_once_at_load(tmp_path, artifacts):
    _, folder = artifacts("ort-int8-weights")
    everywhere = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session(
        folder / "model.onnx", run_config("ort-int8-weights", 1).options.items(), everywhere, tmp_path / "with.onnx"
    )
    session(folder / "model.onnx", (), everywhere, tmp_path / "without.onnx")
    assert ("", "DequantizeLinear") not in op_types(tmp_path / "with.onnx")
    assert ("", "DequantizeLinear") in op_types(tmp_path / "without.onnx"), "the option is what folds them"


def test_recipes_that_differ_in_how_they_run_share_an_artifact():
    assert spec("ov-f32").digest == spec("ov-bf16").digest != spec("ov-fp16").digest
    assert spec("ov-int8").digest == spec("ov-int8-bf16").digest
    assert replace(spec("ov-int8"), numeric=replace(X86, reduce_range=True)).digest != spec("ov-int8").digest
    shared = {"ov-bf16", "ov-int8-bf16"}
    others = [name for name in RECIPES if name not in shared]
    assert len({spec(name).digest for name in others}) == len(others)
    assert run_config("ov-f32", 2).precision == "f32" and run_config("ov-bf16", 2).precision == "bf16"


# -------------------------------------------------------------------------------------------- what must never be stored


def test_no_hardware_layout_is_stored(artifacts, model, tmp_path):
    session(model, (), ort.GraphOptimizationLevel.ORT_ENABLE_ALL, tmp_path / "all.onnx")
    if not any(domain == "com.microsoft.nchwc" for domain, _ in op_types(tmp_path / "all.onnx")):
        pytest.skip("this CPU has no blocked layout to store")
    for recipe in RECIPES:
        if RECIPES[recipe].engine == "onnxruntime":
            built, folder = artifacts(recipe)
            assert not any(domain == "com.microsoft.nchwc" for domain, _ in op_types(folder / built.files[0]))
    with pytest.raises(InputRejected, match="saved for one CPU"):
        build(REFERENCE, tmp_path / "all.onnx", tmp_path / "out")


def test_tables_that_a_model_computes_are_not_stored(tmp_path):
    """Range -> Cos of 60,000 elements is a few nodes; folded it is 240 kB."""
    nodes = [
        helper.make_node("Range", ["start", "limit", "delta"], ["r"]),
        helper.make_node("Cos", ["r"], ["table"]),
        helper.make_node("Mul", ["x", "table"], ["y"]),
    ]
    limits = [numpy_helper.from_array(np.float32(v), n) for n, v in (("start", 0), ("limit", 60000), ("delta", 1))]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 60000)], [value("y", 1, 60000)], limits)
    build("ort-fp32-opt", path, tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 2000


@pytest.mark.parametrize("recipe", ["ort-int8", "ov-int8"])
def test_a_build_touches_only_its_folder(recipe, model, data, tmp_path, monkeypatch):
    before = model.read_bytes()
    for name in ("cwd", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PYTHONPATH", str(Path(sandbox.__file__).parents[1]))  # the working folder is not the checkout's
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    built = build(recipe, model, tmp_path / "out", data, cwd=tmp_path / "cwd")
    assert list((tmp_path / "cwd").iterdir()) == list((tmp_path / "tmp").iterdir()) == []
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(built.files)
    assert model.read_bytes() == before


def test_external_data_of_the_reference_moves_into_one_file(model, tmp_path):
    loaded = onnx.load(str(model))
    path = tmp_path / "m.onnx"
    onnx.save(loaded, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    built = build(REFERENCE, path, tmp_path / "out")
    assert built.files == ("model.onnx",)
    feed = np.ones((1, 16, 8, 8), np.float32)
    found = session(tmp_path / "out" / "model.onnx").run(None, {"x": feed})[0]
    assert np.array_equal(found, session(model).run(None, {"x": feed})[0])


# --------------------------------------------------------------------------------------------------------- calibration


@pytest.mark.parametrize("with_the_last", [True, False])
def test_every_sample_counts(with_the_last, model, tmp_path):
    """Seven samples within +-1, the last with a peak of 50: the input's scale must come from that one."""
    array = RNG.uniform(-1, 1, (7, 1, 16, 8, 8))
    array[:, 0, 0, 0, 0], array[:, 0, 0, 0, 1] = -1, 1
    array[-1, 0, 3, 3, 3] = 50
    build("ort-int8", model, tmp_path / "out", samples(tmp_path / "d", array if with_the_last else array[:-1]))
    stored = onnx.load(str(tmp_path / "out" / "model.onnx")).graph.initializer
    scale = float(next(numpy_helper.to_array(t) for t in stored if t.name == "x_scale"))
    assert scale == pytest.approx((51 if with_the_last else 2) / 255, rel=1e-4)


def test_nothing_is_calibrated_without_data(model, tmp_path):
    for recipe in ("ort-int8", "ov-int8"):
        with pytest.raises(InputRejected, match="needs calibration data"):
            build(recipe, model, tmp_path / recipe)


def test_inputs_that_disagree_on_the_number_of_samples_are_refused(tmp_path):
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"])]
    path = save(tmp_path / "m.onnx", nodes, [value("a", 2, 2), value("b", 2, 2)], [value("y", 2, 2)], [])
    samples(tmp_path / "d", np.zeros((3, 2, 2)))
    np.save(tmp_path / "d" / "1.npy", np.zeros((2, 2, 2), np.float32))
    with pytest.raises(InputRejected, match=r"\[2, 3\] samples"):
        build("ort-int8", path, tmp_path / "out", tmp_path / "d")


# ---------------------------------------------------------------------------------------------------- named quantizer defects


def test_biases_of_shape_1_n_and_shared_biases_are_quantized(tmp_path):
    """ORT raises "truth value of an array" on the first, and calls its copy of the second `b2`, which exists here."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c0"], name="k0"),
        helper.make_node("Conv", ["c0", "v", "b"], ["b2"], name="k1"),
        helper.make_node("Conv", ["b2", "u", "b"], ["c2"], name="k2"),
        helper.make_node("Flatten", ["c2"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "row"], ["y"], name="k3"),
    ]
    weights = [tensor(name, 8, 8, 1, 1) for name in "wvu"] + [tensor("b", 8), tensor("g", 32, 10), tensor("row", 1, 10)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 8, 2, 2)], [value("y", 1, 10)], weights)
    array = RNG.standard_normal((4, 1, 8, 2, 2)).astype(np.float32)
    built = build("ort-int8", path, tmp_path / "out", samples(tmp_path / "d", array))
    assert (built.quantized_ops, built.quantizable_ops) == (4, 4)
    results = [session(p).run(None, {"x": array[0]})[0] for p in (path, tmp_path / "out" / "model.onnx")]
    assert cosine(*results) > 0.99


def test_own_biases_change_nothing_but_names(tmp_path):
    path = network(tmp_path / "m.onnx")
    loaded = onnx.load(str(path))
    own_biases(loaded)
    onnx.save(loaded, str(tmp_path / "n.onnx"))
    feed = RNG.standard_normal((1, 16, 8, 8)).astype(np.float32)
    results = [session(tmp_path / name).run(None, {"x": feed})[0] for name in ("m.onnx", "n.onnx")]
    assert np.array_equal(*results)


def branching(path):
    """An If with a MatMul of 32x64 weights in each branch."""

    def body(name):
        return helper.make_graph(
            [helper.make_node("MatMul", ["x", f"w_{name}"], [f"y_{name}"])],
            name,
            [],
            [value(f"y_{name}", 1, 64)],
            [tensor(f"w_{name}", 32, 64)],
        )

    node = helper.make_node("If", ["flag"], ["y"], then_branch=body("then"), else_branch=body("else"))
    inputs = [value("flag", kind=TensorProto.BOOL), value("x", 1, 32)]
    return save(path, [node], inputs, [value("y", 1, 64)], [])


def test_weights_in_bodies_are_out_of_static_int8s_reach_and_it_says_so(tmp_path):
    path = branching(tmp_path / "m.onnx")
    np.save(samples(tmp_path / "d", np.zeros(3)) / "0.npy", np.array([True, False, True]))
    np.save(tmp_path / "d" / "1.npy", RNG.standard_normal((3, 1, 32)).astype(np.float32))
    built = build("ort-int8", path, tmp_path / "static", tmp_path / "d")
    assert (built.quantized_ops, built.quantizable_ops) == (0, 2)
    assert any("If or Loop" in note for note in built.notes)


def test_weights_in_bodies_are_in_reach_of_weight_only_int8(tmp_path):
    path = branching(tmp_path / "m.onnx")
    built = build("ort-int8-weights", path, tmp_path / "out")
    assert (built.quantized_ops, built.quantizable_ops) == (2, 2)
    feed = {"flag": np.array(False), "x": RNG.standard_normal((1, 32)).astype(np.float32)}
    results = [session(p).run(None, feed)[0] for p in (path, tmp_path / "out" / "model.onnx")]
    assert cosine(*results) > 0.999


@pytest.mark.parametrize(("recipe", "most"), [("ort-int4-weights", 0.25), ("ov-int4-weights", 0.35)])
def test_matrices_with_a_bias_become_int4(recipe, most, tmp_path):
    """MatMul and Add stay apart: as a Gemm, which folding makes of them, ONNX Runtime has no int4 kernel."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    weights = [tensor("w", 256, 512), tensor("b", 512), tensor("v", 512, 64)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 256)], [value("y", 1, 64)], weights)
    built = build(recipe, path, tmp_path / "out")
    assert (built.quantized_ops, built.quantizable_ops) == (2, 2)
    assert sum((tmp_path / "out" / name).stat().st_size for name in built.files) < most * path.stat().st_size
    if recipe.startswith("ort"):
        feed = {"x": RNG.standard_normal((1, 256)).astype(np.float32)}
        results = [session(p).run(None, feed)[0] for p in (path, tmp_path / "out" / "model.onnx")]
        assert cosine(*results) > 0.98


def test_openvino_gets_no_identity_nodes_and_keeps_names(tmp_path):
    nodes = [
        helper.make_node("Identity", ["x"], ["i"]),
        helper.make_node("Relu", ["i"], ["r"]),
        helper.make_node("Identity", ["r"], ["y"]),
        helper.make_node("Identity", ["x"], ["z"]),
    ]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 4)], [value("y", 1, 4), value("z", 1, 4)], [])
    build("ov-f32", path, tmp_path / "out")  # raises if a name or the order changed
    assert (tmp_path / "out" / "model.xml").read_text().count('type="Identity"') <= 1  # x -> z must stay something


# -------------------------------------------------------------------------------------------------------------- refusals


def test_refusals_are_one_line_and_absent_for_a_good_model(model, tmp_path):
    nodes = [helper.make_node("Nonsense", ["x"], ["y"], domain="example.invalid")]
    graph = helper.make_graph(nodes, "g", [value("x", 1)], [value("y", 1)])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.invalid", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(tmp_path / "bad.onnx"))
    for engine in ("onnxruntime", "openvino"):
        ask = {"returns": tuple[str, ...], "engine": engine}
        assert sandbox.call("edgekit.engines.build:refusals", model=model, **ask) == ()
        (reason,) = sandbox.call("edgekit.engines.build:refusals", model=tmp_path / "bad.onnx", **ask)
        assert reason.splitlines() == [reason] and "Nonsense" in reason


def test_a_failed_build_names_the_recipe_and_gives_one_line(tmp_path, data):
    with pytest.raises(InputRejected, match="needs opset 13"):
        build("ort-int8", network(tmp_path / "old.onnx", opset=11), tmp_path / "a", data)
    with pytest.raises(InputRejected, match="calibration data") as caught:
        build("ov-int8", network(tmp_path / "new.onnx"), tmp_path / "a")
    assert caught.value.where == "ov-int8"
    (tmp_path / "rubbish.onnx").write_bytes(b"\x08\x08" + b"\xff" * 40)
    with pytest.raises(EdgekitError) as raised:
        build("ov-f32", tmp_path / "rubbish.onnx", tmp_path / "b")
    assert len(str(raised.value).splitlines()) == 1


def test_an_artifact_with_other_names_is_refused(model):
    from edgekit.engines import build as module
    from edgekit.engines import onnxruntime
    from edgekit.engines.base import Ports

    good, bad = Ports(("x",), ("y",)), Ports(("x",), ("z",))
    module._verify(onnxruntime, model.parent, Built((model.name,)), good, "r")
    with pytest.raises(InputRejected, match="instead of"):
        module._verify(onnxruntime, model.parent, Built((model.name,)), bad, "r")


def test_a_full_disk_is_told_from_a_bad_model(tmp_path, monkeypatch):
    from edgekit.engines import build as module

    assert isinstance(module._failed("reason", "r", tmp_path), InputRejected)
    monkeypatch.setattr(module, "FULL_DISK_BYTES", 1 << 62)
    assert isinstance(module._failed("reason", "r", tmp_path), ResourceLimit)


def test_a_reason_is_picked_out_of_openvinos_preamble():
    text = "Exception from src/a.cpp:84:\nCheck 'false' failed at src/b.cpp:1:\nFrontEnd API failed with X:\nrank must be known\n"
    assert one_line(RuntimeError(text)) == "RuntimeError: rank must be known"
    assert one_line(RuntimeError("")) == "RuntimeError"


# ------------------------------------------------------------------------------------------------------------ arithmetic


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2).flatmap(
        lambda axis: st.tuples(
            st.just(axis),
            arrays.arrays(
                np.float32,
                arrays.array_shapes(min_dims=3, max_dims=3, max_side=5),
                elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False),
            ),
        )
    )
)
def test_int8_weights_are_within_half_a_step(case):
    axis, array = case
    values, scales = symmetric_int8(array, axis)
    shape = [1] * array.ndim
    shape[axis] = -1
    error = np.abs(values * scales.reshape(shape).astype(np.float64) - array)
    assert (error <= scales.reshape(shape).astype(np.float64) * 0.5001).all()
    assert values.dtype == np.int8 and values.min() >= -127


def test_counting_tells_float_from_int8(model, artifacts):
    assert quantized_ops(onnx.load(str(model))) == (0, 3)
    _, folder = artifacts("ort-int8-conv")
    assert quantized_ops(onnx.load(str(folder / "model.onnx"))) == (2, 3)


def rounded(name):
    """`name` through QuantizeLinear and DequantizeLinear, as `name_`."""
    return [
        helper.make_node("QuantizeLinear", [name, "scale"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", "scale"], [f"{name}_"]),
    ]


BACK = helper.make_node("DequantizeLinear", ["w_int8", "scale"], ["w_"])
TURNED = helper.make_node("Transpose", ["w_"], ["w_turned"])
LSTM = {"op_type": "LSTM", "hidden_size": 4}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([*rounded("x"), helper.make_node("Conv", ["x_", "w"], ["y"])], False),
        ([*rounded("x"), helper.make_node("Conv", ["x_", "w", "b"], ["y"])], False),
        ([BACK, helper.make_node("Conv", ["x", "w_"], ["y"])], True),
        ([BACK, TURNED, helper.make_node("Gemm", ["x", "w_turned"], ["y"])], True),
        ([*rounded("x"), helper.make_node("ConvTranspose", ["x_", "w"], ["y"])], False),
        ([*rounded("x"), helper.make_node("MatMul", ["x_", "w"], ["y"])], False),
        ([*rounded("x"), helper.make_node("MatMul", ["x_", "x"], ["y"])], False),
        ([*rounded("x"), helper.make_node("MatMul", ["x_", "x_"], ["y"])], True),
        ([BACK, helper.make_node("MatMul", ["x", "w_"], ["y"])], True),
        ([BACK, TURNED, helper.make_node("MatMul", ["w_turned", "x"], ["y"])], True),
        ([*rounded("w"), helper.make_node("MatMul", ["x", "w_"], ["y"])], True),
        ([*rounded("x"), helper.make_node(inputs=["x_", "w", "w"], outputs=["y"], **LSTM)], False),
        ([BACK, helper.make_node(inputs=["x", "w_", "w"], outputs=["y"], **LSTM)], True),
        ([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], True),
    ],
)
def test_an_operator_counts_by_its_weights(nodes, expected):
    """A DequantizeLinear that another operator's input was rounded by makes none int8."""
    stored = [tensor("w", 4, 4), tensor("b", 4), tensor("scale")]
    stored.append(numpy_helper.from_array(np.ones((4, 4), np.int8), "w_int8"))
    graph = helper.make_graph(nodes, "g", [value("x", 1, 4)], [value("y", 1, 4)], stored)
    assert quantized_ops(helper.make_model(graph)) == (int(expected), 1)


def test_a_body_counts_by_weights_that_were_dequantized_around_it():
    product = helper.make_node("MatMul", ["x", "w_"], ["z"])
    body = helper.make_graph([product], "body", [], [value("z", 1, 4)])
    nodes = [BACK, helper.make_node("If", ["flag"], ["y"], then_branch=body, else_branch=body)]
    stored = [tensor("scale"), numpy_helper.from_array(np.ones((4, 4), np.int8), "w_int8")]
    inputs = [value("flag", kind=TensorProto.BOOL), value("x", 1, 4)]
    assert quantized_ops(helper.make_model(helper.make_graph(nodes, "g", inputs, [value("y", 1, 4)], stored))) == (2, 2)


def test_recipes_are_plain_data():
    text = json.dumps([sandbox.encode(recipe).decode() for recipe in RECIPES.values()])
    assert all(name in text for name in RECIPES)
