"""Reading and changing ONNX graphs for quantization: what is quantized, and weights as int8. Runs in the sandbox only.

- a graph here is the main one or the body of an If, Loop or Scan; `walk` yields them all;
- weight-only quantization keeps every name: the dequantized tensor takes the weight's own name, so no consumer changes.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT_ARITHMETIC = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedMatMul", "LSTM", "GRU", "RNN", "Attention"}
)
INT8_ARITHMETIC = frozenset(
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
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from walk(attribute.g)
            for body in attribute.graphs:
                yield from walk(body)


def opset(model: ModelProto) -> int:
    """The version of the default operator set."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def quantized_ops(model: ModelProto) -> tuple[int, int]:
    """(operators of arithmetic that take int8, all operators of arithmetic), bodies included.

    A float operator counts as quantized when a DequantizeLinear feeds one of its first three inputs.
    """
    quantized = total = 0
    for graph in walk(model.graph):
        dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
        for node in graph.node:
            if node.op_type in INT8_ARITHMETIC:
                quantized, total = quantized + 1, total + 1
            elif node.op_type in FLOAT_ARITHMETIC:
                quantized, total = quantized + bool(dequantized & set(node.input[:3])), total + 1
    return quantized, total


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
