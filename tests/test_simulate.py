"""Simulated quantization rounds what ONNX Runtime's quantizer rounds, at its scales, and answers what its model answers."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.recipes import INT8_ARITHMETIC, INT8_PASSED_ON
from edgekit.core.types import NumericRules
from edgekit.quantize.collect import collect, load
from edgekit.quantize.flatten import FILE, flatten
from edgekit.quantize.groups import tensors_to_calibrate
from edgekit.quantize.qdq import QdqPlan, activation_grid, insert
from edgekit.quantize.ranges import find_ranges, grid
from edgekit.quantize.simulate import RAW, Simulator, round_values, round_weight

OPS = INT8_ARITHMETIC + INT8_PASSED_ON
HOST = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
RULES = [
    HOST,
    NumericRules("int8", "int8", per_channel=False, reduce_range=False),
    NumericRules("uint8", "int8", True, True),
]


def weight(rng, name, *shape):
    return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32), name)


def integers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def every_kind():
    """A network with each kind of operator that ONNX Runtime's quantizer treats in a way of its own."""
    rng = np.random.default_rng(4)
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["r2"], "relu2"),
        node("Clip", ["r2", "zero", "six"], ["k2"], "clip2"),
        node("Add", ["r1", "k2"], ["a"], "add"),
        node("Sigmoid", ["c3"], ["s"], "sigmoid"),
        node("Mul", ["c3", "s"], ["m"], "mul"),
        node("Mul", ["m", "scales"], ["ms"], "mul_stored"),
        node("Split", ["ms", "halves"], ["p", "q"], "split", axis=1),
        node("Concat", ["q", "p"], ["cat"], "concat", axis=1),
        node("Pad", ["cat", "pads"], ["padded"], "pad"),
        node("MaxPool", ["padded"], ["pooled"], "maxpool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Resize", ["pooled", "", "", "sizes"], ["resized"], "resize", mode="linear"),
        node("AveragePool", ["resized"], ["averaged"], "averagepool", kernel_shape=[3, 3]),
        node("LeakyRelu", ["averaged"], ["leaky"], "leaky"),
        node("Tanh", ["leaky"], ["tanh"], "tanh"),  # stays float
        node("Relu", ["tanh"], ["r4"], "relu4"),
        node("Transpose", ["r4"], ["t"], "transpose", perm=[0, 2, 3, 1]),
        node("MatMul", ["t", "w4"], ["mm"], "matmul"),
        node("Relu", ["mm"], ["features"], "relu5"),  # its input is read twice
        node("GlobalAveragePool", ["mm"], ["g"], "global"),
        node("Flatten", ["g"], ["f"], "flatten"),
        node("Gemm", ["f", "w5", "b5"], ["y"], "gemm", transB=1),
    ]
    nodes.insert(6, node("Conv", ["a", "w3"], ["c3"], "conv3", group=2))
    stored = [
        weight(rng, "w1", 8, 3, 3, 3),
        weight(rng, "b1", 8),
        weight(rng, "w2", 8, 8, 3, 3),
        weight(rng, "w3", 8, 4, 1, 1),
        weight(rng, "scales", 1, 8, 1, 1),
        weight(rng, "w4", 8, 6),
        weight(rng, "w5", 5, 9),
        weight(rng, "b5", 5),
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(np.float32(0.8), "six"),
        integers("halves", 3, 5),
        integers("pads", 0, 0, 1, 1, 0, 0, 1, 1),
        integers("sizes", 1, 8, 11, 11),
    ]
    ports = [("x", (1, 3, 12, 12)), ("features", (1, 9, 9, 6)), ("y", (1, 5))]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports]
    graph = helper.make_graph(nodes, "every kind", made[:1], made[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """(flat model, histograms, feeds) of the network above."""
    folder = tmp_path_factory.mktemp("every-kind")
    onnx.save(every_kind(), folder / "model.onnx")
    flatten(folder / "model.onnx", folder)
    flat = onnx.load(folder / FILE)
    samples = np.random.default_rng(5).standard_normal((24, 1, 3, 12, 12)).astype(np.float32)
    np.save(folder / "0.npy", samples)
    collect(folder / FILE, folder, tensors_to_calibrate(flat, OPS), folder / "histograms.npz")
    return flat, load(folder / "histograms.npz"), samples


def answers(model, samples):
    """What the model answers as it stands: ONNX Runtime changes and fuses nothing."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
    return [session.run(["y", "features"], {"x": sample}) for sample in samples]


def error(found, wanted):
    """Noise over signal of the worst output."""
    pairs = [(np.stack([s[i] for s in found]), np.stack([s[i] for s in wanted])) for i in range(2)]
    return max(float(((a - b) ** 2).sum() / (b**2).sum()) for a, b in pairs)


def roundings(model):
    """(scale, zero point) by the name of the tensor that a QuantizeLinear rounds."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        node.input[0].removesuffix(f".{RAW}").removesuffix("_QuantizeLinear_Input"): tuple(
            float(stored[name]) for name in node.input[1:]
        )
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    }


CHOICES = {
    "everything": lambda name: True,
    "the first": lambda name: name in ("conv1", "relu1"),
    "a layer without its Relu": lambda name: name == "conv2",
    "a sum": lambda name: name == "add",
    "all but a layer": lambda name: name not in ("conv3", "split", "pad"),
    "all but a sum and what leads to it": lambda name: name not in ("add", "conv2", "relu2", "clip2"),
    "what only views": lambda name: name in ("transpose", "flatten", "relu4", "maxpool"),
    "a cut": lambda name: name in ("split", "pad"),
    "the products": lambda name: name in ("mul", "mul_stored", "concat"),
    "the end": lambda name: name in ("matmul", "relu5", "global", "flatten", "gemm"),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("rules", RULES, ids=["uint8", "int8 per tensor", "7 bits"])
def test_what_onnx_runtime_rounds_is_rounded_at_its_scales(choice, rules, calibrated):
    flat, histograms, samples = calibrated
    names = [node.name for node in flat.graph.node if node.op_type in OPS and CHOICES[choice](node.name)]
    ranges = find_ranges(histograms, "mse", activation_grid(rules))
    simulated = Simulator(flat, ranges, rules).quantizing(names)
    inserted = insert(flat, ranges, QdqPlan(OPS, only=tuple(names)), rules)
    found, wanted = roundings(simulated), roundings(inserted)
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert found[name] == pytest.approx(wanted[name], rel=1e-6), name
    exact = answers(flat, samples)
    theirs, ours = answers(inserted, samples), answers(simulated, samples)
    assert error(ours, theirs) <= 0.05 * error(theirs, exact) + 1e-9


def test_nothing_quantized_is_the_model_itself(calibrated):
    flat, histograms, samples = calibrated
    ranges = find_ranges(histograms, "minmax", activation_grid(HOST))
    assert error(answers(Simulator(flat, ranges, HOST).quantizing(()), samples), answers(flat, samples)) == 0


def test_the_flat_model_is_not_touched(calibrated):
    flat, histograms, _ = calibrated
    before = flat.SerializeToString(deterministic=True)
    ranges = find_ranges(histograms, "minmax", activation_grid(HOST))
    Simulator(flat, ranges, HOST).quantizing([node.name for node in flat.graph.node])
    assert flat.SerializeToString(deterministic=True) == before


def test_a_weight_has_a_scale_for_each_channel_or_one():
    array = np.array([[1.0, -0.5], [100.0, 25.0]], np.float32)
    by_channel = round_weight(array, 0, reduce_range=False)
    assert abs(by_channel - array).max(axis=1) == pytest.approx([0, 0], abs=0.5 * 100 / 127)
    assert abs(by_channel[0] - array[0]).max() <= 0.5 / 127
    assert round_weight(array, None, reduce_range=False)[0].tolist() == pytest.approx([100 / 127, -100 / 127])
    assert (round_weight(np.zeros((2, 3), np.float32), 0, reduce_range=True) == 0).all()


def test_stored_values_have_one_scale_from_their_minimum_and_maximum():
    values = np.array([-1.0, 0.0, 0.3, 254.0], np.float32)
    assert round_values(values, grid("uint8")).tolist() == [-1, 0, 0, 254]
    assert round_values(np.zeros(0, np.float32), grid("uint8")).size == 0
