"""Weights as int4 blocks in ONNX Runtime: what is changed, what is left alone, and that it runs. Real engine."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.process import QUIET_ENVIRONMENT
from edgekit.quantize import nbits
from edgekit.quantize.graphs import quantized_ops, walk

os.environ.update(QUIET_ENVIRONMENT)
import onnxruntime as ort  # its telemetry is off only if the environment says so before


def weight(name, *shape):
    seed = sum(map(ord, name))
    return numpy_helper.from_array((np.random.default_rng(seed).standard_normal(shape) * 0.1).astype("f"), name)


def value(name, *shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(nodes, inputs, outputs, weights):
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def matmul(*names):
    left, right, out = names
    return helper.make_node("MatMul", [left, right], [out])  # without a name: they are given by the code under test


@pytest.fixture(scope="module")
def dense():
    """Four products: two large, one whose 96 rows no block of 64 divides, one too small; one matrix is used twice."""
    nodes = [matmul("x", "a", "h1"), matmul("h1", "b", "h2"), matmul("h2", "c", "h3"), matmul("h3", "small", "y")]
    nodes += [matmul("x", "a", "again")]
    weights = [weight("a", 256, 96), weight("b", 96, 256), weight("c", 256, 128), weight("small", 128, 4)]
    return model_of(nodes, [value("x", 1, 5, 256)], [value("y", 1, 5, 4), value("again", 1, 5, 96)], weights)


def answers(model, feeds):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def cosine(a, b):
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def kinds(model):
    return [node.op_type for graph in walk(model.graph) for node in graph.node]


@pytest.mark.parametrize("block_size", [32, 64])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("level", [nbits.FLOAT32, nbits.INT8])
def test_large_products_become_int4_and_answer_alike(dense, block_size, symmetric, level):
    before = dense.SerializeToString()
    changed = nbits.quantize_matmuls(dense, block_size, symmetric, level)
    assert dense.SerializeToString() == before, "the model that is given is not touched"
    onnx.checker.check_model(changed)
    assert sorted(kinds(changed)) == ["MatMul"] + ["MatMulNBits"] * 4
    assert quantized_ops(changed) == (4, 5)
    assert changed.ByteSize() < 0.25 * dense.ByteSize()
    feed = {"x": np.random.default_rng(3).standard_normal((1, 5, 256)).astype("f")}
    for found, exact in zip(answers(changed, feed), answers(dense, feed), strict=True):
        assert cosine(found, exact) > 0.97


def test_the_same_model_gives_the_same_bytes(dense):
    made = {nbits.quantize_matmuls(dense, 64, True, nbits.INT8).SerializeToString(deterministic=True) for _ in range(2)}
    assert len(made) == 1


def test_products_in_bodies_are_changed_and_their_weights_found_outside():
    def branch(name):
        return helper.make_graph([matmul("x", "w", name)], name, [], [value(name, 1, 64)])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=branch("yes"), else_branch=branch("no")),
    ]
    weights = [weight("w", 64, 64), numpy_helper.from_array(np.array(0, "f"), "zero")]
    model = model_of(nodes, [value("x", 1, 64)], [value("y", 1, 64)], weights)
    changed = nbits.quantize_matmuls(model, 32, True, nbits.FLOAT32)
    assert kinds(changed).count("MatMulNBits") == 2
    feed = {"x": np.random.default_rng(5).standard_normal((1, 64)).astype("f")}
    assert cosine(answers(changed, feed)[0], answers(model, feed)[0]) > 0.97


def test_other_weights_are_left_alone():
    nodes = [helper.make_node("Gemm", ["x", "g"], ["h"]), matmul("h", "x2", "y")]
    model = model_of(nodes, [value("x", 4, 64), value("x2", 64, 8)], [value("y", 4, 8)], [weight("g", 64, 64)])
    assert kinds(nbits.quantize_matmuls(model, 32, True, nbits.FLOAT32)) == ["Gemm", "MatMul"]


def test_names_that_are_taken_are_not_taken_again():
    nodes = [matmul("x", "w", "w_int4"), matmul("w_int4", "w", "y")]
    model = model_of(nodes, [value("x", 1, 64)], [value("y", 1, 64)], [weight("w", 64, 64)])
    changed = nbits.quantize_matmuls(model, 32, False, nbits.FLOAT32)
    feed = {"x": np.random.default_rng(5).standard_normal((1, 64)).astype("f")}
    assert cosine(answers(changed, feed)[0], answers(model, feed)[0]) > 0.97
    assert len(changed.graph.initializer) == 3


def test_codes_in_the_wrong_order_are_noticed(dense, monkeypatch):
    """Negative control: the first code of a byte in its high half."""
    monkeypatch.setattr(nbits, "_packed", lambda codes: (codes[..., 1::2] | codes[..., 0::2] << 4).astype(np.uint8))
    changed = nbits.quantize_matmuls(dense, 32, True, nbits.FLOAT32)
    feed = {"x": np.random.default_rng(3).standard_normal((1, 5, 256)).astype("f")}
    assert cosine(answers(changed, feed)[0], answers(dense, feed)[0]) < 0.5


def test_blocks_without_a_kernel_are_refused(dense):
    with pytest.raises(ValueError, match="block_size"):
        nbits.quantize_matmuls(dense, 48, True, nbits.FLOAT32)
