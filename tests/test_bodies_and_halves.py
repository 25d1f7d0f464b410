"""Graphs that ONNX Runtime's quantizer would break: bodies that look at what it takes out, float16, values that are not finite."""

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.recipes import INT8_ARITHMETIC, INT8_PASSED_ON
from edgekit.core.types import NumericRules
from edgekit.engines import onnxruntime as engine
from edgekit.quantize.collect import collect, load
from edgekit.quantize.flatten import FILE, flatten
from edgekit.quantize.groups import tensors_to_calibrate
from edgekit.quantize.histogram import EMPTY, add, to_arrays
from edgekit.quantize.qdq import (
    QdqPlan,
    activation_grid,
    bounded,
    insert,
    pinned,
    planned_nodes,
    unbounded_note,
)
from edgekit.quantize.ranges import find_ranges, scale_and_zero_point
from edgekit.quantize.simulate import Simulator
from edgekit.quantize.units import units_of

OPS = INT8_ARITHMETIC + INT8_PASSED_ON
HOST = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
PLAN = QdqPlan(OPS)
node = helper.make_node


def weight(rng, name, *shape, dtype=np.float32):
    array = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array(array.astype(dtype), name)


def port(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, tensors, opset=17):
    graph = helper.make_graph(nodes, "small", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model, feed, as_it_stands=False):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    if as_it_stands:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options).run(None, feed)


def noise(found, wanted):
    """Noise over signal of the worst output."""
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(found, wanted, strict=True)]
    return max(float(np.square(a - b).sum() / np.square(b).sum()) for a, b in pairs)


def calibrated(model, folder, samples):
    """(flat model, ranges) by `samples`: arrays [N, *shape], an input each."""
    onnx.save(model, folder / "model.onnx")
    flatten(folder / "model.onnx", folder, OPS)
    flat = onnx.load(folder / FILE)
    for i, array in enumerate(samples):
        np.save(folder / f"{i}.npy", array)
    collect(folder / FILE, folder, tensors_to_calibrate(flat, OPS), folder / "histograms.npz")
    return flat, find_ranges(load(folder / "histograms.npz"), "minmax", activation_grid(HOST))


# -------------------------------------------------------------------------------------------------------------- bodies


def looked_at(seen):
    """Two convolutions with a Relu behind each, and an If whose bodies look at the tensor `seen`: x, flag to y, z."""
    rng = np.random.default_rng(0)
    shape = (1, 4, 6, 6)
    bodies = {
        f"{name}_branch": helper.make_graph([node(op, [seen], [name])], name, [], [port(name, shape)])
        for name, op in (("then", "Neg"), ("else", "Exp"))
    }
    nodes = [
        node("Conv", ["x", "w1"], ["c"], "conv1"),
        node("Relu", ["c"], ["r"], "relu1"),
        node("If", ["flag"], ["z"], "if", **bodies),
        node("Conv", ["r", "w2"], ["d"], "conv2"),
        node("Relu", ["d"], ["y"], "relu2"),
    ]
    inputs = [port("x", shape), port("flag", (), TensorProto.BOOL)]
    tensors = [weight(rng, "w1", 4, 4, 1, 1), weight(rng, "w2", 4, 4, 1, 1)]
    return model_of(nodes, inputs, [port("y", shape), port("z", shape)], tensors)


@pytest.fixture(params=["c", "r"])
def seen_by_a_body(request, tmp_path):
    x = np.random.default_rng(1).standard_normal((12, 1, 4, 6, 6)).astype(np.float32)
    flags = np.arange(12) % 2 == 0
    flat, ranges = calibrated(looked_at(request.param), tmp_path, [x, flags])
    return flat, ranges, {"x": x[0], "flag": np.array(flags[0])}


def test_a_relu_that_a_body_looks_at_stays_and_the_model_answers_as_before(seen_by_a_body):
    """ORT would take it out: a body then reads a name that nothing makes (c), or values that are not clipped (r)."""
    flat, ranges, feed = seen_by_a_body
    quantized = insert(flat, ranges, PLAN, HOST)
    assert [n.name for n in quantized.graph.node if n.op_type == "Relu"] == ["relu1"]
    assert noise(run(quantized, feed), run(flat, feed)) < 0.01
    assert pinned(flat.graph) == {"relu1"}
    assert [n.name for n in planned_nodes(flat, PLAN)] == ["conv1", "conv2", "relu2"]
    assert {name for unit in units_of(flat, OPS, INT8_ARITHMETIC) for name in unit.nodes} == {
        "conv1",
        "conv2",
        "relu2",
    }


def test_its_simulation_loads_and_answers_what_the_quantized_model_does(seen_by_a_body):
    flat, ranges, feed = seen_by_a_body
    simulated = Simulator(flat, ranges, HOST).quantizing([n.name for n in flat.graph.node])
    quantized = insert(flat, ranges, PLAN, HOST)
    found, theirs, exact = (run(model, feed, as_it_stands=True) for model in (simulated, quantized, flat))
    assert 0 < noise(found, exact) < 0.01
    assert noise(found[:1], theirs[:1]) < 0.05 * noise(theirs[:1], exact[:1])


# ------------------------------------------------------------------------------------------------------------- float16


def in_half(opset=17):
    """A float16 network: x [1, 3, 8, 8] to y [1, 4]."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c"], "conv"),
        node("Relu", ["c"], ["r"], "relu"),
        node("Add", ["r", "k"], ["a"], "add"),
        node("GlobalAveragePool", ["a"], ["g"], "pool"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("Gemm", ["f", "w2", "b2"], ["y"], "gemm"),
    ]
    shapes = {"w1": (8, 3, 3, 3), "b1": (8,), "k": (1, 8, 1, 1), "w2": (8, 4), "b2": (4,)}
    tensors = [weight(rng, name, *shape, dtype=np.float16) for name, shape in shapes.items()]
    ports = [port("x", (1, 3, 8, 8), TensorProto.FLOAT16), port("y", (1, 4), TensorProto.FLOAT16)]
    return onnx.shape_inference.infer_shapes(model_of(nodes, ports[:1], ports[1:], tensors, opset))


HALVES = np.random.default_rng(2).standard_normal((12, 1, 3, 8, 8)).astype(np.float16)


def test_a_float16_model_is_quantized_with_its_weights(tmp_path):
    model = in_half()
    flat, ranges = calibrated(model, tmp_path, [HALVES])
    quantized = insert(flat, ranges, PLAN, HOST)
    kinds = [t.data_type for t in quantized.graph.initializer if len(t.dims) > 1]
    assert kinds.count(TensorProto.INT8) == 2  # the weights of convolution and Gemm, not what is computed of them
    assert 0 < noise(run(quantized, {"x": HALVES[0]}), run(model, {"x": HALVES[0]})) < 0.01


@pytest.mark.parametrize("opset", [17, 19, 21])
def test_float16_tensors_get_float16_scales(opset, tmp_path):
    """Where nothing widened them: ORT's own kernels take them as they are."""
    model = in_half(opset)
    _, wide = calibrated(model, tmp_path, [HALVES])
    ranges = {name.removeprefix("InsertedPrecisionFreeCast_"): found for name, found in wide.items()}
    quantized = insert(model, ranges, PLAN, HOST)
    stored = {tensor.name: tensor for tensor in quantized.graph.initializer}
    scales = [stored[n.input[1]] for n in quantized.graph.node if n.op_type == "QuantizeLinear"]
    assert {scale.data_type for scale in scales} == {TensorProto.FLOAT16}
    exact = run(model, {"x": HALVES[0]})
    theirs = run(quantized, {"x": HALVES[0]})
    assert 0 < noise(theirs, exact) < 0.01

    everything = [n.name for n in model.graph.node]
    simulated = Simulator(model, ranges, HOST).quantizing(everything)
    ours = run(simulated, {"x": HALVES[0]})
    assert 0 < noise(ours, exact) < 0.01
    rounded = {n.input[0] for n in quantized.graph.node if n.op_type == "QuantizeLinear"}
    pairs = [n for n in simulated.graph.node if n.op_type == "QuantizeLinear"]
    assert len(pairs) == len(rounded)
    values = {t.name: numpy_helper.to_array(t) for t in (*simulated.graph.initializer, *quantized.graph.initializer)}
    for name in ("x", "g"):
        scale, _ = scale_and_zero_point(ranges[name], activation_grid(HOST))
        own = next(n for n in pairs if n.input[1] == f"{name}.edgekit.scale")
        assert values[own.input[1]] == np.float16(scale)
    assert not np.array_equal(values["w1"], numpy_helper.to_array(model.graph.initializer[0]))
    assert values["w1"].dtype == np.float16


# ------------------------------------------------------------------------------------------- values that are not finite


def overflowing():
    """Two chains; in the first a sum is not finite, in the second a Relu. Histograms as calibration saw them."""
    nodes = [
        node("Add", ["x", "x"], ["aaa"], "sum"),
        node("Relu", ["x"], ["zzz"], "relu"),
        node("Conv", ["zzz", "w"], ["y"], "conv"),
        node("Conv", ["x", "w2"], ["v"], "fine"),
    ]
    shape = (1, 2, 3, 3)
    tensors = [weight(np.random.default_rng(0), name, 2, 2, 1, 1) for name in ("w", "w2")]
    model = model_of(nodes, [port("x", shape)], [port(name, shape) for name in ("aaa", "y", "v")], tensors)
    bad, good = add(EMPTY, np.array([1.0, np.inf])), add(EMPTY, np.array([-1.0, 1.0]))
    return onnx.shape_inference.infer_shapes(model), {"x": good, "aaa": bad, "zzz": bad, "y": good, "v": good}


def test_the_nodes_that_no_range_holds_are_told_with_the_tensor_they_touch():
    model, histograms = overflowing()
    finite, floating = bounded(model, histograms, ("Conv", "Relu"))
    assert finite.keys() == {"x", "y", "v"}
    assert floating == {"relu": "zzz", "conv": "zzz"}
    assert unbounded_note(floating).endswith("not finite in 'zzz'")  # not in 'aaa', which none of them touches
    assert unbounded_note({}) == ""
    assert bounded(model, histograms, OPS)[1] == {"sum": "aaa", "relu": "zzz", "conv": "zzz"}


def test_static_int8_keeps_them_float_and_says_which_tensor_it_is_for(tmp_path):
    model, histograms = overflowing()
    onnx.save(model, tmp_path / FILE)
    np.savez(tmp_path / "histograms.npz", **to_arrays(histograms))
    task = SimpleNamespace(
        flat=tmp_path / FILE, histograms=tmp_path / "histograms.npz", numeric=HOST, notes=[], scratch=tmp_path
    )
    made = engine.static(task, tmp_path / FILE, {"ops": ("Conv", "Relu"), "ranges": "minmax"})
    quantized = onnx.load(made)
    weights = {t.name: t.data_type for t in quantized.graph.initializer}
    readers = {n.name: n.input[1] for n in quantized.graph.node if n.op_type == "Conv"}
    assert readers["conv"] == "w"
    assert weights["w"] == TensorProto.FLOAT
    assert readers["fine"] == "w2_DequantizeLinear_Output"
    assert task.notes == ["2 operators stay fp32: calibration saw values that are not finite in 'zzz'"]
