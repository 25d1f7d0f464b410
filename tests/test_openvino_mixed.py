"""OpenVINO with parts kept in floating point: what NNCF is told, and what of it is true of the artifact. Real NNCF."""

import hashlib
import os
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit import sandbox
from edgekit.core.types import BuildSpec, Built, NumericRules, Recipe, Step
from edgekit.errors import InputRejected, InternalError
from edgekit.process import QUIET_ENVIRONMENT
from edgekit.quantize.flatten import flatten

os.environ.update(QUIET_ENVIRONMENT)
import nncf
import openvino as ov  # its telemetry is off only if the environment says so before
from openvino import opset13 as ops

from edgekit.engines import nncf_scope
from edgekit.engines import openvino as engine
from edgekit.engines.base import Task

X86 = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
PLAIN = {"preset": "mixed", "subset_size": 300, "bias_correction": "fast"}
SAMPLES = 4


def rng():
    return np.random.default_rng(11)


def weight(name, *shape, scale=0.2):
    seed = sum(map(ord, name))
    return numpy_helper.from_array((np.random.default_rng(seed).standard_normal(shape) * scale).astype("f"), name)


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, inputs, outputs, weights, opset=17):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def network(path):
    """Convolutions with and without bias, activations in pieces, a residual, a dense layer: x [1, 8, 8, 8] to y [1, 10]."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "first", pads=[1, 1, 1, 1]),
        node("HardSwish", ["c1"], ["h1"], "swish"),
        node("Conv", ["h1", "w2"], ["c2"], "depthwise", pads=[1, 1, 1, 1], group=8),
        node("Sigmoid", ["c2"], ["s2"], "gate"),
        node("Mul", ["c2", "s2"], ["m2"], "gated"),
        node("Add", ["m2", "h1"], ["a2"], "residual"),
        node("Conv", ["a2", "w3", "b3"], ["c3"], "last_conv"),
        node("Relu", ["c3"], ["r3"], "relu"),
        node("GlobalAveragePool", ["r3"], ["p"], "pool"),
        node("Flatten", ["p"], ["f"], "flatten"),
        node("Gemm", ["f", "w4", "b4"], ["y"], "dense", transB=1),
    ]
    weights = [
        *(weight("w1", 8, 8, 3, 3), weight("b1", 8), weight("w2", 8, 1, 3, 3)),
        *(weight("w3", 16, 8, 1, 1), weight("b3", 16), weight("w4", 10, 16), weight("b4", 10)),
    ]
    return save(path, nodes, [value("x", 1, 8, 8, 8)], [value("y", 1, 10)], weights)


def samples(folder, array):
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "0.npy", array.astype("f"))
    return folder


class Bench:
    """A model, its flat form and calibration data, quantized by settings."""

    def __init__(self, folder, model, array):
        self.folder, self.model = folder, model
        self.data = samples(folder / "data", array)
        self.flat = folder / flatten(model, folder).file
        self.graph = onnx.load(str(self.flat)).graph
        self.count = 0

    def task(self, step="quantize", **settings):
        self.count += 1
        out = self.folder / str(self.count)
        scratch = out / "scratch"
        scratch.mkdir(parents=True)
        params = settings if step != "quantize" else {**PLAIN, **settings}
        recipe = Recipe("t", "openvino", "int8", (Step(step, params),), True)
        return Task(recipe, X86, self.model, self.model, self.data, out, scratch, self.flat, None, {})

    def build(self, **settings):
        """(Built, the artifact as OpenVINO reads it)."""
        task = self.task(**settings)
        built = engine.build(task)
        return built, ov.Core().read_model(task.out / "model.xml")

    def name(self, tensor):
        """The name of the flat node that makes `tensor`."""
        return next(node.name for node in self.graph.node if tensor in node.output)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    return Bench(folder, network(folder / "model.onnx"), rng().standard_normal((SAMPLES, 1, 8, 8, 8)))


def maker(model, tensor):
    """The node whose output is called `tensor`, before OpenVINO's Result and the Add of a bias."""
    node = next(n for n in model.get_ordered_ops() for o in n.outputs() if tensor in o.get_names())
    while node.get_type_name() in ("Result", "Add"):
        node = node.input_value(0).get_node()
    return node


def int8_inputs(node):
    """How many of a node's inputs are int8 in effect: counted apart from the code under test."""
    count = 0
    for index in range(node.get_input_size()):
        source = node.input_value(index).get_node()
        while source.get_type_name() in ("Reshape", "Multiply", "Subtract", "Convert", "Squeeze"):
            source = source.input_value(0).get_node()
        constant = source.get_type_name() == "Constant" and source.get_element_type() in (ov.Type.i8, ov.Type.u8)
        count += constant or source.get_type_name() == "FakeQuantize"
    return count


def fake_quantizes(model):
    return [node for node in model.get_ordered_ops() if node.get_type_name() == "FakeQuantize"]


def cosine(a, b):
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def answer(model, feed):
    model = ov.Core().read_model(model) if not isinstance(model, ov.Model) else model
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}
    return ov.Core().compile_model(model, "CPU", hint)(feed)[0]


# ---------------------------------------------------------------------------------------------------------------- keep


ARITHMETIC = {"first": "c1", "depthwise": "c2", "last_conv": "c3", "dense": "y"}


@pytest.mark.parametrize("kept", [*ARITHMETIC, "first dense", "depthwise last_conv"])
def test_what_is_kept_is_float_and_nothing_else_is(bench, kept):
    names = kept.split()
    built, model = bench.build(keep=tuple(bench.name(ARITHMETIC[name]) for name in names))
    assert not built.notes
    found = {name: int8_inputs(maker(model, tensor)) for name, tensor in ARITHMETIC.items()}
    assert found == {name: 0 if name in names else 2 for name in ARITHMETIC}
    assert built.quantized_ops == len(ARITHMETIC) - len(names) and built.quantizable_ops == len(ARITHMETIC)


def test_without_keep_everything_is_int8(bench):
    built, model = bench.build()
    assert (built.quantized_ops, built.notes) == (4, ())
    assert all(int8_inputs(maker(model, tensor)) == 2 for tensor in ARITHMETIC.values())


def test_passing_operators_are_kept_too(bench):
    residual = bench.name("a2")
    _, plain = bench.build()
    _, kept = bench.build(keep=(residual,))
    feeders = {
        which: [
            n.input_value(i).get_node().get_type_name()
            for n in model.get_ordered_ops()
            if n.get_friendly_name() == "residual"
            for i in range(2)
        ]
        for which, model in (("plain", plain), ("kept", kept))
    }
    assert "FakeQuantize" in feeders["plain"] and "FakeQuantize" not in feeders["kept"]


def test_a_node_stands_for_all_its_pieces(bench):
    model = engine._fused(bench.flat)
    kinds = {node.get_friendly_name(): node.get_type_name() for node in model.get_ordered_ops()}

    def pieces(tensor):
        scope = nncf_scope.scope(model, bench.graph, (bench.name(tensor),))
        return sorted(kinds[name] for name in scope.nodes), scope.missing

    assert pieces("c1") == (["Add", "Convolution"], ())
    assert pieces("c2") == (["GroupConvolution"], ())
    assert pieces("m2") == (["Swish"], ())
    assert pieces("s2") == (["Swish"], ()), "what was fused away is kept with what it was fused into"
    assert pieces("y") == (["Add", "MatMul"], ())


def test_a_decomposed_node_is_kept_whole(tmp_path):
    nodes = [helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["n"], "norm")]
    nodes += [helper.make_node("HardSwish", ["n"], ["y"], "swish")]
    weights = [numpy_helper.from_array(np.ones(4, "f") * k, name) for k, name in enumerate("sbmv", 1)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 4, 3, 3)], [value("y", 1, 4, 3, 3)], weights)
    graph, model = onnx.load(str(path)).graph, engine._read(path)
    inside = {name: set(nncf_scope.scope(model, graph, (name,)).nodes) for name in ("norm", "swish")}
    everything = {n.get_friendly_name() for n in model.get_ordered_ops()}
    ends = {
        n.get_friendly_name()
        for n in model.get_ordered_ops()
        if n.get_type_name() in ("Parameter", "Constant", "Result")
    }
    assert inside["norm"] and inside["swish"] and not inside["norm"] & inside["swish"]
    assert inside["norm"] | inside["swish"] == everything - ends


def test_a_recurrent_node_is_found(tmp_path):
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["s", "h"], "recurrent", hidden_size=4)]
    nodes += [helper.make_node("Squeeze", ["s", "axis"], ["y"], "squeeze")]
    weights = [weight("w", 1, 16, 3), weight("r", 1, 16, 4), numpy_helper.from_array(np.array([1]), "axis")]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 5, 1, 3)], [value("y", 5, 1, 4)], weights)
    model = engine._fused(path)
    found = nncf_scope.scope(model, onnx.load(str(path)).graph, ("recurrent",)).nodes
    kinds = {n.get_type_name() for n in model.get_ordered_ops() if n.get_friendly_name() in found}
    assert "LSTMSequence" in kinds


def test_names_that_are_nowhere_are_noted(bench):
    built, model = bench.build(keep=(bench.name("c1"), "no such node"))
    assert [note for note in built.notes if "no such node" in note and bench.name("c1") not in note]
    assert int8_inputs(maker(model, "c1")) == 0


def test_what_was_quantized_all_the_same_is_noted(bench, monkeypatch):
    """Negative control of the artifact's own check: a scope that says what it found but is not passed on."""
    monkeypatch.setattr(nncf, "IgnoredScope", lambda names: None)
    built, model = bench.build(keep=(bench.name("c1"),))
    assert int8_inputs(maker(model, "c1")) == 2
    assert any("although" in note for note in built.notes)


def test_nothing_left_is_refused(bench):
    everything = tuple(node.name for node in bench.graph.node)
    with pytest.raises(InputRejected, match="nothing is left"):
        bench.build(keep=everything)


def test_keeping_needs_the_flat_model(bench):
    task = replace(bench.task(keep=("first",)), flat=None)
    with pytest.raises(InternalError, match="flat"):
        engine.build(task)


def test_nodes_get_names_of_their_own(bench):
    model = engine._fused(bench.flat)
    for node in model.get_ordered_ops():
        node.set_friendly_name("same")
    nncf_scope.name_nodes(model)
    names = [node.get_friendly_name() for node in model.get_ordered_ops()]
    assert len(set(names)) == len(names)


def test_the_same_settings_give_the_same_bytes(bench, tmp_path):
    recipe = bench.task(keep=(bench.name("c2"),), activation_range="minmax").recipe
    made = []
    for run in ("a", "b"):
        sandbox.call(
            "edgekit.engines.build:build_artifact",
            returns=Built,
            spec=BuildSpec("0" * 64, recipe, "1", {}, X86),
            original=bench.model,
            model=bench.model,
            calibration=bench.data,
            out=tmp_path / run,
            flat=bench.flat,
        )
        made.append([hashlib.sha256((tmp_path / run / name).read_bytes()).hexdigest() for name in engine.FILES])
    assert made[0] == made[1]


# ------------------------------------------------------------------------------------------------------------- settings


def test_ranges_are_those_that_were_asked_for(tmp_path):
    model = save(
        tmp_path / "m.onnx",
        [helper.make_node("Conv", ["x", "w1"], ["y"], "conv")],
        [value("x", 1, 8, 8, 8)],
        [value("y", 1, 4, 6, 6)],
        [weight("w1", 4, 8, 3, 3)],
    )
    array = rng().uniform(0, 1, (4, 1, 8, 8, 8))
    array[0] *= 9
    bench = Bench(tmp_path, model, array)

    def high(**settings):
        _, artifact = bench.build(**settings)
        (only,) = fake_quantizes(artifact)
        return float(only.input_value(2).get_node().data.max())

    peaks = array.reshape(4, -1).max(axis=1)
    assert high(activation_range="minmax") == pytest.approx(peaks.max(), rel=0.01)
    assert high(activation_range="mean") == pytest.approx(peaks.mean(), rel=0.01)
    assert high() == high(activation_range="mean")


def test_bias_correction_is_as_it_was_asked_for(bench):
    def bias(kind):
        _, model = bench.build(bias_correction=kind)
        node = next(n for n in model.get_ordered_ops() for o in n.outputs() if "c3" in o.get_names())
        return node.input_value(1).get_node().data.ravel()

    off = bias("off")
    assert np.allclose(off, numpy_helper.to_array(weight("b3", 16)))
    assert not np.allclose(off, bias("fast"), atol=1e-7)


# --------------------------------------------------------------------------------------------------------------- fusion


def loud():
    """What makes the first of 16 tokens 60 times as loud as the others."""
    return numpy_helper.from_array(np.array([60] + [1] * 15, "f").reshape(1, 16, 1), "loud")


def layer_norm(folder):
    """LayerNormalization with one loud token, then a product: squares in 8 bits lose the other tokens' variances."""
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "before"),
        helper.make_node("Mul", ["h", "loud"], ["l"], "louder"),
        helper.make_node("LayerNormalization", ["l", "g", "b"], ["n"], "norm", axis=-1, epsilon=1e-6),
        helper.make_node("MatMul", ["n", "w2"], ["y"], "after"),
    ]
    weights = [weight("w1", 32, 32), weight("w2", 32, 16)]
    weights += [numpy_helper.from_array(np.ones(32, "f"), "g"), numpy_helper.from_array(np.zeros(32, "f"), "b"), loud()]
    path = save(folder / "m.onnx", nodes, [value("x", 1, 16, 32)], [value("y", 1, 16, 16)], weights)
    array = rng().standard_normal((SAMPLES, 1, 16, 32))
    return Bench(folder, path, array), array[0].astype("f")


def test_a_layer_norm_survives_quantization(tmp_path, monkeypatch):
    bench, feed = layer_norm(tmp_path)
    exact = answer(bench.model, feed)
    built, fused = bench.build()
    assert built.quantized_ops == 2 and "MVN" in {n.get_type_name() for n in fused.get_ops()}
    assert cosine(answer(fused, feed), exact) > 0.99
    # Negative control: what NNCF makes of it in pieces.
    monkeypatch.setattr(engine, "_fused", engine._read)
    monkeypatch.setattr(nncf_scope, "fragile", lambda model, arithmetic: ())
    _, pieces = bench.build()
    assert cosine(answer(pieces, feed), exact) < 0.97


def written_out(folder):
    """A norm as JAX exports it, E[x^2] - E[x]^2 by sums, and the logarithm of a magnitude: nothing that fusion knows."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "w1"], ["h"], "before"),
        node("Mul", ["h", "loud"], ["l"], "louder"),
        node("Mul", ["l", "l"], ["hh"], "square"),
        node("ReduceSum", ["hh", "axis"], ["sum2"], "sum_of_squares"),
        node("Mul", ["sum2", "share"], ["mean2"], "mean_of_squares"),
        node("ReduceSum", ["l", "axis"], ["sum1"], "sum"),
        node("Mul", ["sum1", "share"], ["mean1"], "mean"),
        node("Mul", ["mean1", "mean1"], ["square1"], "square_of_mean"),
        node("Sub", ["mean2", "square1"], ["variance"], "variance"),
        node("Add", ["variance", "eps"], ["above"], "above"),
        node("Sqrt", ["above"], ["root"], "root"),
        node("Sub", ["l", "mean1"], ["centred"], "centred"),
        node("Div", ["centred", "root"], ["n"], "normed"),
        node("MatMul", ["n", "w2"], ["y"], "after"),
    ]
    weights = [weight("w1", 32, 32), weight("w2", 32, 16), numpy_helper.from_array(np.array([2]), "axis")]
    weights += [numpy_helper.from_array(np.array(k, "f"), name) for name, k in (("share", 1 / 32), ("eps", 1e-6))]
    weights.append(loud())
    path = save(folder / "m.onnx", nodes, [value("x", 1, 16, 32)], [value("y", 1, 16, 16)], weights)
    array = rng().standard_normal((SAMPLES, 1, 16, 32))
    return Bench(folder, path, array), array[0].astype("f")


def test_a_norm_that_is_written_out_survives_too(tmp_path, monkeypatch):
    bench, feed = written_out(tmp_path)
    exact = answer(bench.model, feed)
    built, model = bench.build()
    assert built.quantized_ops == 2
    assert cosine(answer(model, feed), exact) > 0.99
    monkeypatch.setattr(nncf_scope, "fragile", lambda model, arithmetic: ())  # negative control
    _, ruined = bench.build()
    assert not cosine(answer(ruined, feed), exact) > 0.9


def test_what_a_root_is_taken_of_ends_at_the_squares(tmp_path):
    bench, _ = written_out(tmp_path)
    found = set(nncf_scope.fragile(engine._fused(bench.model), engine.ARITHMETIC))
    assert {"square", "sum_of_squares", "mean_of_squares", "square_of_mean", "variance", "above", "root"} <= found
    assert not found & {"before", "louder", "after", "x"}


def test_what_a_logarithm_is_taken_of_ends_at_the_arithmetic(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "before"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Add", ["r", "eps"], ["a"], "above"),
        helper.make_node("Log", ["a"], ["y"], "log"),
    ]
    weights = [weight("w1", 32, 32), numpy_helper.from_array(np.array([1e-6], "f"), "eps")]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 32)], [value("y", 1, 32)], weights)
    assert nncf_scope.fragile(engine._fused(path), engine.ARITHMETIC) == ("above", "relu", "y")


# --------------------------------------------------------------------------------------------------------- left weights


def products(folder, rows):
    """A matrix times x, then the result times another one: x [4, 48, 32] to y [4, rows, 32]."""
    nodes = [
        helper.make_node("MatMul", ["w1", "x"], ["h"], "left"),
        helper.make_node("MatMul", ["h", "w2"], ["y"], "right"),
    ]
    weights = [weight("w1", rows, 48), weight("w2", 32, 32)]
    path = save(folder / "m.onnx", nodes, [value("x", 4, 48, 32)], [value("y", 4, rows, 32)], weights)
    array = rng().standard_normal((SAMPLES, 4, 48, 32))
    return Bench(folder, path, array), array[0].astype("f")


def test_a_product_with_weights_on_the_left_stays_float(tmp_path, monkeypatch):
    bench, feed = products(tmp_path, rows=32)
    exact = answer(bench.model, feed)
    built, model = bench.build(preset="performance")
    assert (built.quantized_ops, built.quantizable_ops) == (1, 2)
    assert int8_inputs(maker(model, "h")) == 0 and int8_inputs(maker(model, "y")) == 2
    assert cosine(answer(model, feed), exact) > 0.999
    monkeypatch.setattr(nncf_scope, "left_weights", lambda model: ())  # negative control: as many rows as columns
    _, wrong = bench.build(preset="performance")
    assert cosine(answer(wrong, feed), exact) < 0.9


def test_nor_does_it_keep_the_artifact_from_loading(tmp_path, monkeypatch):
    bench, feed = products(tmp_path, rows=40)
    _, model = bench.build(preset="performance")
    assert cosine(answer(model, feed), answer(bench.model, feed)) > 0.999
    monkeypatch.setattr(nncf_scope, "left_weights", lambda model: ())  # negative control
    bench.build(preset="performance")
    assert engine.check(tmp_path / str(bench.count) / "model.xml")


@pytest.mark.parametrize("factors", [["two", "x"], ["x", "two"]])
def test_a_product_of_two_activations_has_no_weights(tmp_path, factors):
    nodes = [
        helper.make_node("Mul", factors, ["l"], "twice"),
        helper.make_node("MatMul", ["l", "x"], ["y"], "product"),
    ]
    weights = [numpy_helper.from_array(np.full((1, 4, 4), 2, "f"), "two")]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 1, 4, 4)], [value("y", 1, 4, 4)], weights)
    assert nncf_scope.left_weights(engine._fused(path)) == ()


# ------------------------------------------------------------------------------------------------------------- counting


def rounded(source):
    limits = [ops.constant(np.array(limit, "f")) for limit in (-1, 1, -1, 1)]
    return ops.fake_quantize(source, *limits, levels=255)


def stored(*shape, low=False):
    """Weights: float32, or int8 with a scale."""
    if not low:
        return ops.constant(np.ones(shape, "f"))
    return ops.multiply(ops.convert(ops.constant(np.ones(shape, np.int8)), "f32"), ops.constant(np.array(0.1, "f")))


def convolution(x, w):
    return ops.convolution(x, w, [1, 1], [0, 0], [0, 0], [1, 1])


def lstm(x, low):
    start = ops.constant(np.zeros((1, 1, 4), "f"))
    weights = stored(1, 16, 4, low=low), stored(1, 16, 4), stored(1, 16)
    return ops.lstm_sequence(x, start, start, ops.constant(np.array([4])), *weights, 4, "forward")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda x: convolution(rounded(x), stored(4, 1, 1, 1)), False),
        (lambda x: convolution(rounded(x), stored(4, 1, 1, 1, low=True)), True),
        (lambda x: convolution(x, rounded(stored(4, 1, 1, 1))), True),
        (lambda x: ops.matmul(rounded(x), stored(4, 4), False, False), False),
        (lambda x: ops.matmul(rounded(x), x, False, False), False),
        (lambda x: ops.matmul(rounded(x), rounded(x), False, True), True),
        (lambda x: ops.matmul(x, stored(4, 4, low=True), False, False), True),
        (lambda x: ops.matmul(x, ops.multiply(stored(4, 4), x), False, False), False),
        (lambda x: lstm(ops.reshape(rounded(x), [1, 4, 4], False), low=False), False),
        (lambda x: lstm(ops.reshape(x, [1, 4, 4], False), low=True), True),
    ],
)
def test_an_operator_counts_by_its_weights(make, expected):
    x = ops.parameter([1, 1, 4, 4], ov.Type.f32)
    assert engine.quantized_ops(ov.Model([make(x).output(0)], [x])) == (int(expected), 1)


def test_reading_what_was_rounded_for_others_is_no_remark():
    x = ops.parameter([1, 1, 4, 4], ov.Type.f32)
    nodes = {
        "float": convolution(rounded(x), stored(4, 1, 1, 1)),
        "int8": convolution(rounded(x), stored(4, 1, 1, 1, low=True)),
        "sum": ops.add(x, rounded(x)),
    }
    for name, node in nodes.items():
        node.set_friendly_name(name)
    model = ov.Model([node.output(0) for node in nodes.values()], [x])
    assert nncf_scope.still_quantized(model, engine.ARITHMETIC, sorted(nodes)) == ("int8",)


# --------------------------------------------------------------------------------------------------------------- bodies


def branch(output):
    return helper.make_graph([helper.make_node("MatMul", ["x", "w"], [output])], output, [], [value(output, 1, 32)])


def loop_body():
    nodes = [helper.make_node("MatMul", ["state", "w"], ["next"]), helper.make_node("Identity", ["go"], ["on"])]
    inputs = [value("i", kind=TensorProto.INT64), value("go", kind=TensorProto.BOOL), value("state", 1, 32)]
    return helper.make_graph(nodes, "body", inputs, [value("on", kind=TensorProto.BOOL), value("next", 1, 32)])


def with_bodies(folder, nodes):
    weights = [weight("w", 32, 32), numpy_helper.from_array(np.array(0, "f"), "zero")]
    weights += [numpy_helper.from_array(np.array(3), "trips")]
    path = save(folder / "m.onnx", nodes, [value("x", 1, 32)], [value("y", 1, 32)], weights)
    return Bench(folder, path, rng().standard_normal((SAMPLES, 1, 32)))


def test_a_loop_is_refused_in_one_line(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "outside"),
        helper.make_node("Loop", ["trips", "", "h"], ["y"], "loop", body=loop_body()),
    ]
    bench = with_bodies(tmp_path, nodes)
    with pytest.raises(InputRejected, match="models with Loop") as raised:
        bench.build()
    assert "\n" not in str(raised.value)
    assert engine.quantized_ops(engine._read(bench.model)) == (0, 2), "what is inside counts"


def test_bodies_of_if_are_counted(tmp_path):
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["h"], then_branch=branch("yes"), else_branch=branch("no")),
        helper.make_node("MatMul", ["h", "w"], ["y"], "outside"),
    ]
    bench = with_bodies(tmp_path, nodes)
    built, _ = bench.build()
    assert built.quantizable_ops == 3
    left = built.quantizable_ops - built.quantized_ops
    assert bool(left) == any("inside If or Loop" in note for note in built.notes)


# --------------------------------------------------------------------------------------------------------- int4 weights


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Three products of [1, 8, 256] by constant matrices; the second has 96 rows, which no group of 64 divides."""
    folder = tmp_path_factory.mktemp("dense")
    sizes = (256, 96, 256, 256)
    nodes, weights, last = [], [], "x"
    for i, (rows, columns) in enumerate(pairwise(sizes)):
        nodes += [
            helper.make_node("MatMul", [last, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [f"r{i}"]),
        ]
        weights.append(weight(f"w{i}", rows, columns))
        last = f"r{i}"
    path = save(folder / "m.onnx", nodes, [value("x", 1, 8, 256)], [value(last, 1, 8, 256)], weights)
    return Bench(folder, path, rng().standard_normal((SAMPLES, 1, 8, 256)))


def weight_types(model):
    constants = [n for n in model.get_ordered_ops() if n.get_type_name() == "Constant"]
    return sorted(
        n.get_element_type().get_type_name() for n in constants if np.prod(list(n.get_output_shape(0))) >= 4096
    )


@pytest.mark.parametrize(
    ("mode", "settings", "expected", "least"),
    [
        ("int8_sym", {}, ["i8", "i8", "i8"], 0.9999),
        ("int4_sym", {"group_size": 64, "all_layers": True}, ["i4", "i4", "i4"], 0.97),
        ("int4_asym", {"group_size": 64, "all_layers": True}, ["u4", "u4", "u4"], 0.97),
        ("int4_asym", {"group_size": 32, "all_layers": False}, ["u4", "u4", "u8"], 0.97),
        ("int4_sym", {"group_size": 64, "all_layers": True, "ratio": 0.4}, ["i4", "u8", "u8"], 0.97),
    ],
)
def test_weights_are_as_small_as_they_were_asked_for(dense, mode, settings, expected, least):
    task = dense.task("compress_weights", mode=mode, **settings)
    built = engine.build(task)
    model = ov.Core().read_model(task.out / "model.xml")
    assert weight_types(model) == expected
    feed = np.load(dense.data / "0.npy")[0]
    assert cosine(answer(model, feed), answer(dense.model, feed)) > least
    assert (built.quantized_ops, built.quantizable_ops) == (3, 3)
    bits = {"i4": 4, "u4": 4, "i8": 8, "u8": 8}
    assert (task.out / "model.bin").stat().st_size < dense.model.stat().st_size * max(
        bits[k] for k in expected
    ) / 32 * 1.35
