"""Reading and changing ONNX graphs for quantization: what is quantized, and weights as int8. Runs in the sandbox only.

- a graph here is the main one or the body of an If, Loop or Scan; `walk` yields them all;
- weight-only quantization keeps every name: the dequantized tensor takes the weight's own name, so no consumer changes.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT_ARITHMETIC = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedMatMul", "LSTM", "GRU", "RNN", "Attention"}
)
INT8_OPERATORS = frozenset(
    {
        "ConvInteger",
        "MatMulInteger",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "DynamicQuantizeLSTM",
        "QAttention",
    }
    | {"QLinearConv", "QLinearMatMul", "QGemm", "MatMulNBits"}
)

# What changes the shape of a weight and none of its values.
_MOVES = frozenset({"Reshape", "Transpose"})

# Where a weight stands among an operator's inputs, and the axis along which it has one scale a channel; Gemm's depends on transB.
WEIGHT_INPUTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1,),
    "MatMul": (0, 1),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
    "Gather": (0,),
}
CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1, "LSTM": 1, "GRU": 1, "RNN": 1, "Gather": 0}


def walk(graph: GraphProto) -> Iterator[GraphProto]:
    """`graph` and every body nested in it."""
    yield graph
    for node in graph.node:
        for body in _bodies(node):
            yield from walk(body)


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def opset(model: ModelProto) -> int:
    """The version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def quantized_ops(model: ModelProto) -> tuple[int, int]:
    """(operators of arithmetic that take int8, all operators of arithmetic), bodies included, each counting one whatever its work.

    A float operator takes int8 when a DequantizeLinear gives it its weights; a matrix product also when both inputs come from one.
    One that reads an activation which was rounded for another operator does not.
    """
    found = list(_which_take_int8(model.graph, {}))
    return sum(found), len(found)


def _which_take_int8(graph: GraphProto, around: Mapping[str, NodeProto | None]) -> Iterator[bool]:
    """For each operator of arithmetic; `around` has the makers of the tensors that a body sees, None for those that are stored."""
    makers: dict[str, NodeProto | None] = {**around, **{tensor.name: None for tensor in graph.initializer}}
    makers |= {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in FLOAT_ARITHMETIC | INT8_OPERATORS:
            yield node.op_type in INT8_OPERATORS or _takes_int8(node, makers)
        for body in _bodies(node):
            yield from _which_take_int8(body, makers)


def _takes_int8(node: NodeProto, makers: Mapping[str, NodeProto | None]) -> bool:
    if node.op_type in ("MatMul", "FusedMatMul"):
        dequantized = [name for name in node.input[:2] if _is_dequantized(name, makers)]
        return len(dequantized) == 2 or any(_is_stored(name, makers) for name in dequantized)
    return any(_is_dequantized(node.input[i], makers) for i in weight_inputs(node) or (1,))


def _is_dequantized(name: str, makers: Mapping[str, NodeProto | None]) -> bool:
    maker = makers.get(_origin(name, makers, _MOVES))
    return maker is not None and maker.op_type == "DequantizeLinear"


def _is_stored(name: str, makers: Mapping[str, NodeProto | None]) -> bool:
    name = _origin(name, makers, _MOVES | {"DequantizeLinear", "QuantizeLinear"})
    maker = makers.get(name)
    return name in makers and (maker is None or maker.op_type == "Constant")


def _origin(name: str, makers: Mapping[str, NodeProto | None], through: Collection[str]) -> str:
    """The tensor that `name` is made of by nodes of the types `through` alone."""
    while (maker := makers.get(name)) is not None and maker.op_type in through:
        name = maker.input[0]
    return name


def arithmetic_ops_in_bodies(model: ModelProto) -> int:
    """How many operators of arithmetic stand inside If, Loop or Scan bodies."""
    bodies = (graph for graph in walk(model.graph) if graph is not model.graph)
    return sum(node.op_type in FLOAT_ARITHMETIC for graph in bodies for node in graph.node)


def own_biases(model: ModelProto) -> None:
    """Give each Conv and Gemm of the main graph a bias of its own, of shape [N].

    ORT's QDQ quantizer raises on biases of shape [1, N], and names its copies of shared ones like tensors that exist.
    """
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    taken = set(tensors) | {
        name for inner in walk(graph) for node in inner.node for name in (*node.input, *node.output)
    }
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 and node.input[2] in tensors:
            array = numpy_helper.to_array(tensors[node.input[2]])
            name = _fresh(f"{node.input[2]}_bias", taken)
            graph.initializer.append(
                numpy_helper.from_array(array[0] if array.ndim == 2 and len(array) == 1 else array, name)
            )
            node.input[2] = name
    used = {name for inner in walk(graph) for node in inner.node for name in node.input} | {
        o.name for o in graph.output
    }
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _fresh(stem: str, taken: set[str]) -> str:
    """A name like `stem` that is not in `taken`, and is from now on."""
    name = next(name for i in itertools.count() if (name := f"{stem}_{i}") not in taken)
    taken.add(name)
    return name


def quantize_weights(model: ModelProto, min_elements: int) -> int:
    """Store float32 weights of `min_elements` or more as symmetric int8 with a scale per channel; returns how many.

    Only weights of convolutions, matrix products, recurrent layers and embeddings: tables that feed anything else stay exact.
    """
    return sum(_quantize_weights_of(graph, min_elements) for graph in walk(model.graph))


def _quantize_weights_of(graph: GraphProto, min_elements: int) -> int:
    axes = _weight_axes(graph)
    overridable = {port.name for port in graph.input}
    chosen = [
        tensor
        for tensor in graph.initializer
        if tensor.name in axes
        and tensor.name not in overridable
        and tensor.data_type == TensorProto.FLOAT
        and np.prod(tensor.dims) >= min_elements
    ]
    for tensor in reversed(chosen):
        graph.node.insert(0, _as_int8(graph, tensor, axes[tensor.name]))
    return len(chosen)


def _weight_axes(graph: GraphProto) -> dict[str, int]:
    """The channel axis by name of every tensor that is some operator's weight, in this graph or in a body that sees it."""
    return {
        node.input[i]: channel_axis(node)
        for inner in walk(graph)
        for node in inner.node
        for i in weight_inputs(node)
        if i < len(node.input)
    }


def weight_inputs(node: NodeProto) -> tuple[int, ...]:
    """Where among its inputs an operator may have a weight."""
    return WEIGHT_INPUTS.get(node.op_type, ())


def channel_axis(node: NodeProto) -> int:
    """The axis of the operator's weight along which it has one scale a channel."""
    if node.op_type == "Gemm":
        return 0 if any(attribute.name == "transB" and attribute.i for attribute in node.attribute) else 1
    return CHANNEL_AXIS[node.op_type]


def _as_int8(graph: GraphProto, tensor: TensorProto, axis: int) -> NodeProto:
    """Replace the float weight by int8 values and scales; returns the DequantizeLinear that gives it back under its name."""
    name = tensor.name
    array = numpy_helper.to_array(tensor)
    axis %= array.ndim
    values, scales = symmetric_int8(array, axis)
    tensor.CopyFrom(numpy_helper.from_array(values, f"{name}_int8"))
    graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scale"))
    return helper.make_node(
        "DequantizeLinear", [f"{name}_int8", f"{name}_scale"], [name], f"{name}_dequantize", axis=axis
    )


def symmetric_int8(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """(int8 values in [-127, 127], float32 scales [channels]) with `values * scale` nearest to `array`."""
    others = tuple(i for i in range(array.ndim) if i != axis)
    peak = np.abs(array).max(axis=others, keepdims=True)
    scale = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(array / scale).clip(-127, 127).astype(np.int8), scale.reshape(-1)
