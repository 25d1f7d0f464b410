"""Which tensors to fetch, in which groups, from which part of the graph. Functions on an ONNX model's graph.

- Only tensors of the main graph can be fetched; what stands inside If, Loop and Scan bodies is named with its reason.
- A group's tensors are outputs of a pruned graph: what none of them needs is not run. Names and values stay as they are.
- A group's outputs are all held at once, so their bytes are what a group is bounded by; a tensor above the budget is alone in its.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgekit.models.graph import dtype_name, element_bits, graphs, subgraphs
from edgekit.models.runtime import tensor_type
from edgekit.quantize.histogram import COUNTS_BYTES

DEFAULT_GROUP_BYTES = 256 << 20

# An interpreter with numpy, onnx and ONNX Runtime loaded, and a session without weights.
BASE_BYTES = 160 << 20

_QUANTIZED = (TensorProto.FLOAT, TensorProto.FLOAT16)
COUNTABLE = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL}
    | {getattr(TensorProto, f"{sign}INT{bits}") for sign in ("", "U") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True)
class Known:
    """A tensor's element type (TensorProto's number, 0 unknown) and bytes, None where its shape is not fully known."""

    elem_type: int
    bytes: int | None


def tensors_to_calibrate(model: ModelProto, ops: Collection[str]) -> tuple[str, ...]:
    """The tensors whose range a QDQ insertion over operator types `ops` (all when empty) asks for, in the graph's order.

    They are the inputs and outputs of those nodes that are float32 or float16 by the model's recorded types, and no initializers:
    what ONNX Runtime's `CalibraterBase.select_tensors_to_calibrate` selects. Run shape inference first: no type, no range.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    types = declared(model)
    touched = (
        name
        for node in model.graph.node
        if not ops or node.op_type in ops
        for name in (*node.input, *node.output)
        if name not in stored and name in types and types[name].elem_type in _QUANTIZED
    )
    return tuple(dict.fromkeys(touched))


def declared(model: ModelProto) -> dict[str, Known]:
    """What the model records of its main graph's tensors."""
    graph = model.graph
    values = [*graph.value_info, *graph.output, *graph.input]
    return {value.name: _known(value) for value in values if value.type.HasField("tensor_type")}


def _known(value: ValueInfoProto) -> Known:
    elem_type, dims = tensor_type(value)
    if dims is None or any(dim is None for dim in dims):
        return Known(elem_type, None)
    return Known(elem_type, math.prod(dim or 0 for dim in dims) * element_bits(elem_type) // 8)


def outline(path: Path) -> ModelProto:
    """The model in a file without the contents of its weights."""
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        tensor.CopyFrom(bare)
    return model


def fed_inputs(graph: GraphProto) -> tuple[str, ...]:
    """The inputs a caller feeds: those that are no initializers."""
    stored = {tensor.name for tensor in graph.initializer}
    return tuple(value.name for value in graph.input if value.name not in stored)


def left_out(model: ModelProto, wanted: Iterable[str]) -> dict[str, str]:
    """The reason, by name, for each wanted tensor that the model says cannot be collected."""
    graph = model.graph
    types = declared(model)
    stored = {tensor.name for tensor in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    made = {name for node in graph.node for name in node.output} | set(fed_inputs(graph))
    inner = {name for body in graphs(graph) if body is not graph for node in body.node for name in node.output}
    reasons = {}
    for name in wanted:
        if name in stored:
            reasons[name] = "is a stored weight, not an activation"
        elif name not in made:
            reasons[name] = "is inside an If, Loop or Scan body" if name in inner else "is not in the model"
        elif name in types and types[name].elem_type not in (TensorProto.UNDEFINED, *COUNTABLE):
            reasons[name] = f"holds {dtype_name(types[name].elem_type)}, not plain numbers"
    return reasons


def in_order(graph: GraphProto, names: Collection[str]) -> tuple[str, ...]:
    """`names` in the order in which the graph makes them."""
    wanted = set(names)
    order = [*fed_inputs(graph), *(name for node in graph.node for name in node.output)]
    return tuple(name for name in order if name in wanted)


def grouped(sizes: Mapping[str, int], budget: int) -> tuple[tuple[str, ...], ...]:
    """Names of `sizes` (bytes) in their order, cut into groups of at most `budget` bytes, or of one tensor that is larger."""
    groups: list[list[str]] = []
    left = 0
    for name, size in sizes.items():
        if not groups or size > left:
            groups.append([])
            left = budget
        groups[-1].append(name)
        left -= size
    return tuple(map(tuple, groups))


def peak_bytes(weight_bytes: int, activation_bytes: int, tensors: int, budget: int = DEFAULT_GROUP_BYTES) -> int:
    """An estimate from above of the most memory a collection takes, in bytes; it does not depend on the number of samples.

    BASE_BYTES; three times the weights (serialized, and twice while the session is made); `activation_bytes`, the model's
    liveness peak; the largest group, which is the budget or a single tensor, and that is no larger than the liveness peak; and
    the histograms of `tensors` tensors.
    """
    group = max(budget, activation_bytes)
    return BASE_BYTES + 3 * weight_bytes + activation_bytes + group + tensors * COUNTS_BYTES


# ------------------------------------------------------------------------------------------------------------- pruning


def prune(model: ModelProto, outputs: Sequence[str]) -> None:
    """Reduce the main graph to what `outputs` need, in place; they become its outputs."""
    graph = model.graph
    kept = needed_nodes(graph, outputs)
    used = {name for node in kept for name in reads(node)} | set(outputs)
    copies = [_copy(node) for node in kept]  # deleting frees what the fields hold
    del graph.node[:]
    graph.node.extend(copies)
    # One by one, and in place: copies of the weights that stay would take as much memory again.
    _keep(graph.initializer, lambda tensor: tensor.name in used)
    _keep(graph.sparse_initializer, lambda tensor: tensor.values.name in used)
    _keep(graph.input, lambda value: value.name in used)
    del graph.value_info[:]  # those of the whole model; ONNX Runtime infers what it needs
    del graph.output[:]
    graph.output.extend(ValueInfoProto(name=name) for name in outputs)


def _copy(node: NodeProto) -> NodeProto:
    twin = NodeProto()
    twin.CopyFrom(node)
    return twin


def _keep(entries: Any, wanted: Callable[[Any], bool]) -> None:
    for index in reversed(range(len(entries))):
        if not wanted(entries[index]):
            del entries[index]


def needed_nodes(graph: GraphProto, outputs: Iterable[str]) -> list[NodeProto]:
    """The nodes that `outputs` depend on, in their order."""
    maker = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    needed: set[int] = set()
    pending = [maker[name] for name in outputs if name in maker]
    while pending:
        index = pending.pop()
        if index not in needed:
            needed.add(index)
            pending.extend(maker[name] for name in reads(graph.node[index]) if name in maker)
    return [graph.node[index] for index in sorted(needed)]


def reads(node: NodeProto) -> Iterable[str]:
    """Every name a node may read: its inputs, and what its bodies mention."""
    yield from node.input
    yield from body_reads(node)


def body_reads(node: NodeProto) -> Iterable[str]:
    """Every name a node's bodies mention: a body sees the tensors around it."""
    for _, body in subgraphs(node):
        for graph in graphs(body):
            yield from (name for inner in graph.node for name in inner.input)
            yield from (value.name for value in graph.output)
