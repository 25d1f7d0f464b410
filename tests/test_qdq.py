"""A model is made ready to be quantized (`flatten`), and int8 goes where the plan says, with the ranges that were given (`qdq`)."""

import logging

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.core.recipes import INT8_ARITHMETIC, INT8_PASSED_ON
from edgekit.core.types import NumericRules
from edgekit.errors import InputRejected
from edgekit.models.external import DATA_FILE
from edgekit.quantize.flatten import FILE, GROWTH, flatten
from edgekit.quantize.groups import tensors_to_calibrate
from edgekit.quantize.optimize import stored_bytes
from edgekit.quantize.qdq import QdqPlan, activation_grid, insert
from edgekit.quantize.ranges import Range, scale_and_zero_point

OPS = INT8_ARITHMETIC + INT8_PASSED_ON
HOST = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
node = helper.make_node


def stored(name, array):
    return numpy_helper.from_array(np.asarray(array, np.float32), name)


def made(nodes, initializers, ports, opset=17):
    """A model of float ports: `ports` are (name, shape), the input first and then the outputs."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports]
    graph = helper.make_graph(nodes, "small", values[:1], values[1:], initializers)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("strange", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def flattened(model, folder, ops=()):
    onnx.save(model, folder / "model.onnx")
    found = flatten(folder / "model.onnx", folder, ops)
    assert sorted(path.name for path in folder.iterdir()) == [FILE, "model.onnx"]
    return found, onnx.load(folder / FILE)


def answer(model, x):
    return ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]


# -------------------------------------------------------------------------------------------------------------- flatten


@pytest.fixture
def tangled():
    """Weights behind Constant, Identity and BatchNormalization, nodes without a name of their own, one bias for two Gemms."""
    rng = np.random.default_rng(0)
    nodes = [
        node("Constant", [], ["w1"], value=stored("", rng.standard_normal((4, 2, 1, 1)))),
        node("Identity", ["w1"], ["w1_again"]),
        node("Conv", ["x", "w1_again"], ["c"]),
        node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"]),
        node("GlobalAveragePool", ["n"], ["g"], "Gemm_3"),
        node("Flatten", ["g"], ["f"]),
        node("Gemm", ["f", "w2", "b"], ["h"]),
        node("Gemm", ["h", "w2", "b"], ["y"]),
    ]
    tensors = [stored(name, rng.uniform(0.5, 1, 4)) for name in ("scale", "shift", "mean", "variance")]
    tensors += [stored("w2", rng.standard_normal((4, 4))), stored("b", rng.standard_normal((1, 4)))]
    return made(nodes, tensors, [("x", (1, 2, 3, 3)), ("y", (1, 4))])


def test_constants_are_folded_and_every_node_has_a_name_of_its_own(tangled, tmp_path):
    found, flat = flattened(tangled, tmp_path, OPS)
    assert [n.op_type for n in flat.graph.node] == ["Conv", "GlobalAveragePool", "Flatten", "Gemm", "Gemm"]
    names = [n.name for n in flat.graph.node]
    assert all(names)
    assert len(set(names)) == len(names)
    assert found.notes == ()
    assert found.tensors == tensors_to_calibrate(flat, OPS)
    assert found.tensors[0] == "x"
    assert {"g", "f", "h", "y"} <= set(found.tensors)
    x = np.random.default_rng(1).standard_normal((1, 2, 3, 3)).astype(np.float32)
    assert answer(flat, x) == pytest.approx(answer(tangled, x), rel=1e-4, abs=1e-5)


def test_each_gemm_has_a_bias_of_its_own_of_one_axis(tangled, tmp_path):
    _, flat = flattened(tangled, tmp_path)
    shapes = {tensor.name: list(tensor.dims) for tensor in flat.graph.initializer}
    biases = [n.input[2] for n in flat.graph.node if n.op_type == "Gemm"]
    assert len(set(biases)) == 2
    assert all(shapes[bias] == [4] for bias in biases)


def test_flattening_again_changes_nothing_but_names(tangled, tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    _, once = flattened(tangled, tmp_path / "first")
    _, twice = flattened(once, tmp_path / "second")
    assert [n.op_type for n in once.graph.node] == [n.op_type for n in twice.graph.node]
    assert [list(n.output) for n in once.graph.node] == [list(n.output) for n in twice.graph.node]


def test_a_model_without_channels_in_its_operator_set_is_refused(tangled, tmp_path):
    tangled.opset_import[0].version = 12
    onnx.save(tangled, tmp_path / "model.onnx")
    with pytest.raises(InputRejected, match="opset 13 or later, the model has 12"):
        flatten(tmp_path / "model.onnx", tmp_path)


def test_what_onnx_runtime_cannot_fold_stays_and_is_noted(tmp_path):
    nodes = [
        node("Identity", ["w"], ["v"]),
        node("MatMul", ["x", "v"], ["m"]),
        node("Strange", ["m"], ["y"], domain="strange"),
    ]
    model = made(nodes, [stored("w", np.eye(2))], [("x", (1, 2)), ("y", (1, 2))])
    found, flat = flattened(model, tmp_path)
    assert [n.op_type for n in flat.graph.node] == ["Identity", "MatMul", "Strange"]
    assert found.notes[0].startswith("constants were not folded before quantizing: ")


def test_a_table_is_not_folded_into_a_model_that_would_grow_too_much(tmp_path):
    nodes = [
        node("ConstantOfShape", ["shape"], ["table"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [0.5])),
        node("Add", ["x", "table"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([256, 256], np.int64), "shape")
    model = made(nodes, [shape], [("x", (256, 256)), ("y", (256, 256))])
    _, flat = flattened(model, tmp_path)
    assert [n.op_type for n in flat.graph.node] == ["ConstantOfShape", "Add"]
    assert (tmp_path / FILE).stat().st_size < GROWTH * 4096


def test_weights_beside_the_model_count_where_growth_is_judged(tmp_path):
    """256 KiB of weights lie in a file of their own: a table of 64 KiB is no great growth."""
    nodes = [
        node("ConstantOfShape", ["shape"], ["table"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [0.5])),
        node("MatMul", ["x", "w"], ["m"]),
        node("Mul", ["m", "table"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.array([64, 256], np.int64), "shape"), stored("w", np.ones((256, 256)))]
    model = made(nodes, tensors, [("x", (64, 256)), ("y", (64, 256))])
    (tmp_path / "outside").mkdir()
    path = tmp_path / "outside" / "model.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location=DATA_FILE, size_threshold=1024)
    assert path.stat().st_size < 1024 < 256 * 256 * 4 < stored_bytes(path)
    assert flatten(path, tmp_path).notes == ()
    flat = onnx.load(tmp_path / FILE)
    assert [n.op_type for n in flat.graph.node] == ["MatMul", "Mul"]
    assert not any(tensor.external_data for tensor in flat.graph.initializer)


# ------------------------------------------------------------------------------------------------------------------ qdq


@pytest.fixture
def chain():
    """Three convolutions with a Relu behind each; x and y are the ports."""
    rng = np.random.default_rng(0)
    nodes, tensors, before = [], [], "x"
    for i in (1, 2, 3):
        after = "y" if i == 3 else f"r{i}"
        nodes += [
            node("Conv", [before, f"w{i}", f"b{i}"], [f"c{i}"], f"conv{i}"),
            node("Relu", [f"c{i}"], [after], f"relu{i}"),
        ]
        tensors += [stored(f"w{i}", rng.standard_normal((4, 4, 1, 1)) * [[[[2.0**i]]]]), stored(f"b{i}", rng.random(4))]
        before = after
    model = made(nodes, tensors, [("x", (1, 4, 3, 3)), ("y", (1, 4, 3, 3))])
    return onnx.shape_inference.infer_shapes(model)


RANGES = {
    "x": Range(-3.0, 3.0),
    "c1": Range(-20.0, 20.0),
    "r1": Range(0.0, 17.0),
    "c2": Range(-90.0, 90.0),
    "r2": Range(0.0, 80.0),
    "c3": Range(-900.0, 900.0),
    "y": Range(0.0, 700.0),
}


def int8_weights(model):
    """The convolutions whose weights are int8."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {
        name.removesuffix("_quantized") for name, kind in types.items() if kind == TensorProto.INT8 and "w" in name
    } - {name for name in types if name.endswith("zero_point")}


def rounded(model):
    """(scale, zero point) by tensor."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        n.input[0].removesuffix("_QuantizeLinear_Input"): (float(values[n.input[1]]), int(values[n.input[2]]))
        for n in model.graph.node
        if n.op_type == "QuantizeLinear"
    }


def test_everything_of_the_plans_types_becomes_int8_at_the_ranges_that_were_given(chain):
    model = insert(chain, RANGES, QdqPlan(OPS), HOST)
    assert int8_weights(model) == {"w1", "w2", "w3"}
    codes = activation_grid(HOST)
    expected = {name: scale_and_zero_point(RANGES[name], codes) for name in ("x", "r1", "r2", "y")}
    assert rounded(model) == {name: (pytest.approx(scale), zero) for name, (scale, zero) in expected.items()}
    assert not any(n.op_type == "Relu" for n in model.graph.node)  # uint8 ends at zero by itself


def test_nodes_to_keep_stay_float_and_the_rest_does_not(chain):
    model = insert(chain, RANGES, QdqPlan(OPS, keep=("conv2", "relu2")), HOST)
    assert int8_weights(model) == {"w1", "w3"}
    assert [n.name for n in model.graph.node if n.op_type == "Relu"] == ["relu2"]
    assert rounded(model).keys() == {"x", "r1", "r2", "y"}  # the neighbours have them rounded


def test_only_named_nodes_become_int8(chain):
    model = insert(chain, RANGES, QdqPlan(OPS, only=("conv2", "relu2")), HOST)
    assert int8_weights(model) == {"w2"}
    assert rounded(model).keys() == {"r1", "r2"}
    only_types = insert(chain, RANGES, QdqPlan(("Conv",)), HOST)
    assert rounded(only_types).keys() == {"x", "c1", "r1", "c2", "r2", "c3"}


@pytest.mark.parametrize("plan", [QdqPlan(("LSTM",)), QdqPlan(("Conv",), keep=("conv1", "conv2", "conv3"))])
def test_a_plan_that_leaves_nothing_is_refused(plan, chain):
    with pytest.raises(InputRejected, match="nothing is left to be quantized"):
        insert(chain, RANGES, plan, HOST)


def test_scales_of_weights_are_by_channel_or_one(chain):
    for per_channel, count in ((True, 4), (False, 1)):
        model = insert(chain, RANGES, QdqPlan(OPS), NumericRules("uint8", "int8", per_channel, False))
        scales = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("_scale")}
        assert scales["w1_scale"].size == count


def test_seven_bits_leave_half_of_the_codes(chain):
    model = insert(chain, RANGES, QdqPlan(OPS), NumericRules("uint8", "int8", True, reduce_range=True))
    codes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("_quantized")}
    assert np.abs(codes["w1_quantized"].astype(int)).max() == 64


def test_the_same_plan_makes_the_same_model_and_the_one_given_is_not_touched(chain):
    before = chain.SerializeToString(deterministic=True)
    level = logging.getLogger().level
    one, two = (insert(chain, RANGES, QdqPlan(OPS), HOST).SerializeToString(deterministic=True) for _ in range(2))
    assert one == two
    assert chain.SerializeToString(deterministic=True) == before
    assert logging.getLogger().level == level


def test_the_quantized_model_answers_nearly_what_the_float_one_does(chain):
    x = np.random.default_rng(3).uniform(-3, 3, (1, 4, 3, 3)).astype(np.float32)
    exact = [
        ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (chain, insert(chain, RANGES, QdqPlan(OPS), HOST))
    ]
    inside = np.clip(exact[0], 0, RANGES["y"].high)
    assert np.square(exact[1] - inside).sum() < 0.01 * np.square(inside).sum()
