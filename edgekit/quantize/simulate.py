"""What quantization does to the values, simulated in float: any choice of nodes, in milliseconds. Pure graph work.

ONNX Runtime's quantizer takes seconds on a large graph, and attribution needs a model for each layer. Here a tensor that ORT's
would round is rounded by a QuantizeLinear and DequantizeLinear pair, and weights are rounded beforehand; arithmetic stays float.
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference" (2018), section 3.1.2.

- Which tensors are rounded, and at whose scale, is decided node by node as in ORT's QDQQuantizer (`_Marks`): a rounded tensor is
  rounded for whoever reads it, float nodes too, and a Relu or Clip behind a quantized node is left to the rounding's own ends.
- Biases stay float: int32 at the product of two scales loses nothing that matters.
- Simulations are for finding out; what ships is made by `qdq.insert` and judged by what it answers.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.core.types import NumericRules
from edgekit.quantize import graphs
from edgekit.quantize.groups import declared, fed_inputs
from edgekit.quantize.qdq import ACTIVATIONS, activation_grid, pinned
from edgekit.quantize.ranges import Grid, Range, grid, scale_and_zero_point

Floats = NDArray[np.floating[Any]]  # float32 or float16

# onnxruntime/quantization/registry.py, QDQRegistry. QDQDirect8BitOp: quantized behind a rounded tensor only, at its scale.
SHARING = frozenset(
    {"AveragePool", "Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
# QDQSplit, QDQPad: at their input's scale, and they have it rounded themselves.
CUTTING = frozenset({"Pad", "Split"})
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})

_TYPES = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8}
_FLOATS: Mapping[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
}
_ORT_DOMAIN = "com.microsoft"  # whose QuantizeLinear takes float16 whatever the model's opset
RAW = "edgekit.raw"  # what a rounded tensor is called before it is rounded
ROUNDED = "edgekit.rounded"  # what a rounded input of the graph is called


class Simulator:
    """Simulations of one flat model with `ranges` by tensor name, under a target's rules. Float32 and float16 are rounded."""

    def __init__(self, flat: ModelProto, ranges: Mapping[str, Range], numeric: NumericRules) -> None:
        self._flat = flat
        self._numeric = numeric
        self._dtypes = {
            n: _FLOATS[known.elem_type] for n, known in declared(flat).items() if known.elem_type in _FLOATS
        }
        self._ranges = {name: found for name, found in ranges.items() if name in self._dtypes}
        self._pinned = pinned(flat.graph)
        self._stored = {tensor.name: tensor for tensor in flat.graph.initializer}
        self._inputs = set(fed_inputs(flat.graph))

    def quantizing(self, names: Collection[str]) -> ModelProto:
        """The model with the nodes of these names quantized, in simulation."""
        wanted = set(names) - self._pinned
        marks = _Marks(self._flat.graph, self._ranges, self._stored)
        for node in self._flat.graph.node:
            if node.name in wanted:
                marks.quantize(node)
        model = _without_body(self._flat)
        model.graph.initializer.extend(
            self._rounded(tensor, marks) if tensor.name in marks.stored else tensor
            for tensor in self._flat.graph.initializer
        )
        self._add_nodes(model.graph, marks)
        return model

    def _rounded(self, tensor: TensorProto, marks: "_Marks") -> TensorProto:
        """A stored tensor: a weight symmetric, anything else the way activations are."""
        array, axis = numpy_helper.to_array(tensor), marks.stored[tensor.name]
        if axis is None:
            codes = grid(self._numeric.activation_type, reduce_range=self._numeric.reduce_range)
            return numpy_helper.from_array(round_values(array, codes), tensor.name)
        per_channel = self._numeric.per_channel and -array.ndim <= axis < array.ndim
        rounded = round_weight(array, axis % array.ndim if per_channel else None, self._numeric.reduce_range)
        return numpy_helper.from_array(rounded, tensor.name)

    def _add_nodes(self, graph: GraphProto, marks: "_Marks") -> None:
        """The flat model's nodes in their order, each rounded tensor's pair right behind the node that makes it."""
        fed = {name: f"{name}.{ROUNDED}" for name in marks.rounded if name in self._inputs}
        for name, result in fed.items():
            self._add_pair(graph, name, result, name, marks)
        for original in self._flat.graph.node:
            if original.name in marks.removed:
                continue
            node = graph.node.add()
            node.CopyFrom(original)
            _rename(node.input, fed)
            made = {name: marks.name_of(name) for name in original.output}
            raw = {name: f"{final}.{RAW}" for name, final in made.items() if final in marks.rounded}
            _rename(node.output, raw)
            for name, source in raw.items():
                self._add_pair(graph, source, made[name], made[name], marks)

    def _add_pair(self, graph: GraphProto, source: str, result: str, name: str, marks: "_Marks") -> None:
        dtype = self._dtypes[name]
        scale, zero = _stored_scale(self._ranges[marks.rounded[name]], activation_grid(self._numeric), dtype)
        parameters = [f"{name}.edgekit.scale", f"{name}.edgekit.zero"]
        graph.initializer.append(numpy_helper.from_array(scale, parameters[0]))
        graph.initializer.append(helper.make_tensor(parameters[1], _TYPES[self._numeric.activation_type], [], [zero]))
        codes = f"{name}.edgekit.codes"
        domain = _ORT_DOMAIN if dtype == np.float16 else ""
        graph.node.append(helper.make_node("QuantizeLinear", [source, *parameters], [codes], domain=domain))
        graph.node.append(helper.make_node("DequantizeLinear", [codes, *parameters], [result], domain=domain))


class _Marks:
    """What is rounded when some nodes are quantized, told to `quantize` in the graph's order, as ORT's QDQQuantizer marks it.

    - `rounded`: activations, each with the one whose range it takes (itself, as a rule);
    - `stored`: initializers, each with the axis of its channels, None where it is rounded as activations are;
    - `removed`: nodes that are taken out; `name_of` says what the maker of their input writes instead.
    """

    def __init__(self, graph: GraphProto, ranges: Collection[str], stored: Mapping[str, TensorProto]) -> None:
        self.rounded: dict[str, str] = {}
        self.stored: dict[str, int | None] = {}
        self.removed: set[str] = set()
        self._renamed: dict[str, str] = {}
        self._ranges = ranges
        self._weights = stored
        self._ports = {port.name for port in (*graph.input, *graph.output)}
        self._readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1

    def quantize(self, node: NodeProto) -> None:
        """Mark what this node would have rounded (onnxruntime/quantization/operators)."""
        if node.op_type in ACTIVATIONS:
            self._activation(node.input[0], node)
        elif node.op_type in SHARING:
            self._share(node)
        elif node.op_type in CUTTING:
            self._each(node.input)
            if node.op_type == "Split" or _pads_with_zero_or_data(node, self._weights):
                self._share(node)
            else:
                self._each(node.output)
        elif node.op_type in WEIGHTED:
            self._each([node.input[0], *node.output])
            self._weight(node.input[1], graphs.channel_axis(node))
        elif node.op_type == "MatMul":
            for name in node.input:
                self._weight(name, 1)  # QDQMatMul: axis 1, whatever the rank
            self._each(node.output)
        else:
            self._each([*node.input, *node.output])

    def name_of(self, name: str) -> str:
        """What a tensor is called once the nodes behind it are taken out."""
        while name in self._renamed:
            name = self._renamed[name]
        return name

    def _each(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self._ranges:
                self.rounded.setdefault(name, name)
            elif self._is_float(name):
                self.stored.setdefault(name, None)

    def _weight(self, name: str, axis: int) -> None:
        if self._is_float(name):
            self.stored[name] = axis
        else:
            self._each([name])

    def _is_float(self, name: str) -> bool:
        return name in self._weights and self._weights[name].data_type in _FLOATS

    def _share(self, node: NodeProto) -> None:
        """Outputs are rounded at the scale of the first input, if that is rounded."""
        if node.input[0] in self.rounded:
            found = self.rounded[node.input[0]]
            self.rounded.update((name, found) for name in node.output if name in self._ranges)

    def _activation(self, source: str, node: NodeProto) -> None:
        result = node.output[0]
        if source not in self.rounded:
            return
        if result in self._ranges and self._readers[source] == 1 and source not in self._ports:
            del self.rounded[source]
            self.removed.add(node.name)
            self._renamed[source] = result
        self._each([result])


def _pads_with_zero_or_data(node: NodeProto, stored: Mapping[str, TensorProto]) -> bool:
    """Whether what a Pad adds has a code at its input's scale (QDQPad)."""
    mode: Any = next((a.s for a in node.attribute if a.name == "mode"), b"constant")
    if mode != b"constant":
        return True
    if len(node.input) < 3 or not node.input[2]:
        return True
    return node.input[2] in stored and not numpy_helper.to_array(stored[node.input[2]]).any()


# ------------------------------------------------------------------------------------------------------------- rounding


def round_weight(array: Floats, axis: int | None, reduce_range: bool) -> Floats:
    """Weights as symmetric int8 gives them back, a scale of their own type for each channel along `axis`, or one for all."""
    others = tuple(i for i in range(array.ndim) if i != axis) if axis is not None else None
    codes = grid("int8", symmetric=True, reduce_range=reduce_range)
    exact = array.astype(np.float32)
    peak = np.abs(exact).max(axis=others, keepdims=True, initial=0)
    stored = (peak / np.float32(codes.highest)).astype(array.dtype)
    scale = np.where(stored > 0, stored, 1).astype(np.float32)
    rounded: Floats = (np.rint(exact / scale).clip(codes.lowest, codes.highest) * scale).astype(array.dtype)
    return rounded


def round_values(array: Floats, codes: Grid) -> Floats:
    """Stored values as an 8-bit type gives them back that has one scale for all of them, made of their minimum and maximum."""
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    stored, zero = _stored_scale(Range(low, high), codes, array.dtype)
    scale = np.float32(stored)
    steps = np.rint(array.astype(np.float32) / scale) + zero
    rounded: Floats = ((steps.clip(codes.lowest, codes.highest) - zero) * scale).astype(array.dtype)
    return rounded


def _stored_scale(found: Range, codes: Grid, dtype: np.dtype[Any]) -> tuple[Any, int]:
    """Scale and zero point as a tensor of this type has them; a range too narrow for its scale gets (1, 0)."""
    scale, zero = scale_and_zero_point(found, codes)
    stored = dtype.type(scale)
    return (stored, zero) if stored > 0 else (dtype.type(1), 0)


# --------------------------------------------------------------------------------------------------------------- parts


def _without_body(model: ModelProto) -> ModelProto:
    """Everything of a model but its nodes and weights."""
    empty = ModelProto()
    for entry in model.opset_import:
        empty.opset_import.add().CopyFrom(entry)
    if all(entry.domain != _ORT_DOMAIN for entry in model.opset_import):
        empty.opset_import.add(domain=_ORT_DOMAIN, version=1)
    empty.ir_version = model.ir_version
    empty.functions.extend(model.functions)
    empty.graph.name = model.graph.name
    empty.graph.input.extend(model.graph.input)
    empty.graph.output.extend(model.graph.output)
    empty.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    return empty


def _rename(names: Iterable[str], new: Mapping[str, str]) -> None:
    for index, name in enumerate(list(names)):
        if name in new:
            names[index] = new[name]  # type: ignore[index]  # a repeated field
