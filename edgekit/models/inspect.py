"""What a prepared model holds and costs.

- what follows from weights alone (an Identity or DequantizeLinear of a weight) counts as a weight: engines fold it;
- nodes that no output depends on count nothing: engines drop them;
- views (Reshape, Squeeze and the like) move nothing and share their input's buffer;
- the caller owns inputs and outputs: both live from start, or from where they are made, to the end;
- an `If` counts its more expensive branch, a `Loop` or `Scan` one turn.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgekit.core.types import LayerCost, ModelInfo, Shape, TensorSpec
from edgekit.models.axes import real_inputs
from edgekit.models.cost import node_macs
from edgekit.models.graph import (
    all_nodes,
    attribute_tensors,
    default_opset,
    dtype_name,
    element_bits,
    graphs,
    op_name,
    subgraphs,
)
from edgekit.models.infer import Facts, TensorType, live_branches
from edgekit.models.runtime import tensor_type

_VIEWS = frozenset(("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Dropout"))
_RANDOM = frozenset(("RandomNormal", "RandomUniform"))
_FREE = frozenset(("Shape", "Size", "Constant"))
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinear", "ConvInteger", "MatMulInteger")
_WEIGHT_CONSTANT_ELEMENTS = 16  # smaller Constant nodes are parameters of operators, not weights


@dataclass
class _Cost:
    layers: list[LayerCost] = field(default_factory=list)
    peak_bytes: int = 0
    unknown_shapes: int = 0
    unknown_macs: int = 0
    loops: int = 0
    branches: int = 0

    @property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)


def model_info(
    model: ModelProto, facts: Facts, *, sha256: str, file_bytes: int, notices: Iterable[str] = ()
) -> ModelInfo:
    """The facts sheet of a model whose inputs are fixed. `sha256` and `file_bytes` are those of the file the user gave.

    `peak_activation_bytes` and MACs leave out what has an unknown shape, with a notice.
    """
    cost = _graph_cost(model.graph, facts, set())
    weights = list(_weights(model))
    counts = Counter(op_name(node) for node in all_nodes(model))
    return ModelInfo(
        sha256=sha256,
        file_bytes=file_bytes,
        ir_version=model.ir_version,
        opset=default_opset(model),
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        inputs=tuple(_spec(value.name, facts) for value in real_inputs(model.graph)),
        outputs=tuple(_output_spec(value, facts) for value in model.graph.output),
        op_counts=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        params=sum(math.prod(tensor.dims) for tensor in weights),
        macs=cost.macs,
        weight_bytes=sum((math.prod(t.dims) * element_bits(t.data_type) + 7) // 8 for t in weights),
        peak_activation_bytes=cost.peak_bytes,
        layers=tuple(cost.layers),
        refusals={},
        notices=(*notices, *_cost_notices(cost), *_content_notices(counts)),
    )


def _spec(name: str, facts: Facts) -> TensorSpec:
    known = facts.types.get(name)
    if known is None or known.elem_type == TensorProto.UNDEFINED:
        return TensorSpec(name, "unknown", ("?",))
    dims: Shape = ("...",) if known.shape is None else tuple("?" if dim is None else dim for dim in known.shape)
    return TensorSpec(name, dtype_name(known.elem_type), dims)


def _output_spec(value: ValueInfoProto, facts: Facts) -> TensorSpec:
    """What was inferred, else what the model declares."""
    known = facts.types.get(value.name)
    if (known is None or known.shape is None) and value.type.tensor_type.elem_type:
        facts = Facts(types={value.name: TensorType(*tensor_type(value))})
    return _spec(value.name, facts)


def _weights(model: ModelProto) -> Iterator[TensorProto]:
    """Stored tensors that hold learnt numbers: int64 and bool ones are shapes, axes and masks."""
    for graph in graphs(model.graph):
        yield from (tensor for tensor in graph.initializer if _is_numeric(tensor))
        yield from (sparse.values for sparse in graph.sparse_initializer)
    for node in all_nodes(model):
        if node.op_type == "Constant":
            for attribute in node.attribute:
                for tensor in attribute_tensors(attribute):
                    if _is_numeric(tensor) and math.prod(tensor.dims) >= _WEIGHT_CONSTANT_ELEMENTS:
                        yield tensor


def _is_numeric(tensor: TensorProto) -> bool:
    return tensor.data_type not in (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)


def _cost_notices(cost: _Cost) -> Iterator[str]:
    if cost.unknown_shapes:
        yield f"{cost.unknown_shapes} intermediate tensors have unknown shapes and count as 0 bytes of activations"
    if cost.unknown_macs:
        yield f"{cost.unknown_macs} nodes have unknown shapes and count as 0 MACs"
    if cost.branches:
        yield "MACs of an If are those of its larger branch"
    if cost.loops:
        yield "MACs of a Loop or Scan are those of one iteration"


def _content_notices(counts: Counter[str]) -> Iterator[str]:
    if any(op.rpartition(".")[2].startswith(_QUANTIZED) for op in counts):
        yield "the model is already quantized: int8 recipes have little left to do"


# ---------------------------------------------------------------------------------------------------------------- costs


def _graph_cost(graph: GraphProto, facts: Facts, outer_constants: set[str]) -> _Cost:
    """Costs of a graph in node order, with the liveness peak of its activations."""
    constants = (
        outer_constants | {t.name for t in graph.initializer} | {s.values.name for s in graph.sparse_initializer}
    )
    constants |= set(facts.constants)
    cost = _Cost()
    live = _Liveness(graph, facts)
    needed = _needed(graph)
    for index, node in enumerate(graph.node):
        if index not in needed:
            continue
        if _folds(node, constants):
            constants.update(node.output)
            continue
        inner = _subgraph_cost(index, node, facts, constants, cost)
        cost.layers.append(_layer(node, facts, constants, cost))
        cost.layers.extend(inner.layers)
        cost.unknown_shapes += sum(1 for name in node.output if name and _elements(name, facts) is None)
        live.step(index, node, inner.peak_bytes)
    cost.peak_bytes = live.peak
    return cost


def _needed(graph: GraphProto) -> set[int]:
    """The nodes that an output of the graph depends on."""
    wanted, needed = {value.name for value in graph.output}, set()
    for index in range(len(graph.node) - 1, -1, -1):
        if wanted.intersection(graph.node[index].output):
            needed.add(index)
            wanted.update(_reads(graph.node[index]))
    return needed


def _folds(node: NodeProto, constants: set[str]) -> bool:
    if all(name in constants for name in node.output if name):
        return True
    return not any(subgraphs(node)) and node.op_type not in _RANDOM and all(n in constants for n in node.input if n)


def _subgraph_cost(index: int, node: NodeProto, facts: Facts, constants: set[str], total: _Cost) -> _Cost:
    """The most expensive of a node's subgraphs that can run; their remarks go to `total`."""
    held = dict(subgraphs(node))
    if not held:
        return _Cost()
    names = live_branches(node, facts.constants) if node.op_type == "If" else list(held)
    each = [_graph_cost(held[n], facts.inner.get((index, n), Facts()), constants) for n in names]
    chosen = max(each, key=lambda c: (c.macs, sum(layer.activation_elements for layer in c.layers)))
    total.branches += chosen.branches + (node.op_type == "If" and len(names) > 1 and any(c.macs for c in each))
    total.loops += chosen.loops + (node.op_type != "If" and chosen.macs > 0)
    total.unknown_shapes += chosen.unknown_shapes
    total.unknown_macs += chosen.unknown_macs
    return chosen


def _layer(node: NodeProto, facts: Facts, constants: set[str], total: _Cost) -> LayerCost:
    macs = node_macs(node, [facts.types.get(n) for n in node.input], [facts.types.get(n) for n in node.output])
    total.unknown_macs += macs is None
    if node.op_type in _VIEWS or node.op_type in _FREE or any(subgraphs(node)):
        return LayerCost(op_name(node), macs or 0, 0, 0)
    read = {name for name in node.input if name}
    weights = sum(_elements(name, facts) or 0 for name in read if name in constants)
    moved = sum(_elements(name, facts) or 0 for name in [*(read - constants), *node.output] if name)
    return LayerCost(op_name(node), macs or 0, weights, moved)


def _elements(name: str, facts: Facts) -> int | None:
    known = facts.types.get(name)
    return known.elements if known else None


def _bytes(known: TensorType | None) -> int:
    if known is None or known.elements is None:
        return 0
    return (known.elements * element_bits(known.elem_type) + 7) // 8


class _Liveness:
    """Bytes alive while the nodes run in order: a buffer dies after the last node that reads it or a view of it."""

    def __init__(self, graph: GraphProto, facts: Facts) -> None:
        self.facts = facts
        self.root: dict[str, str] = {}
        for node in graph.node:
            if node.op_type in _VIEWS and node.input:
                self.root[node.output[0]] = self._find(node.input[0])
        self.last: dict[str, int] = {}
        for index, node in enumerate(graph.node):
            for name in _reads(node):
                self.last[self._find(name)] = index
        forever = [value.name for value in [*graph.input, *graph.output]]
        self.last.update(dict.fromkeys(map(self._find, forever), len(graph.node)))
        stored = {tensor.name for tensor in graph.initializer}
        self.alive = {v.name: _bytes(facts.types.get(v.name)) for v in graph.input if v.name not in stored}
        self.peak = sum(self.alive.values())

    def _find(self, name: str) -> str:
        return self.root.get(name, name)

    def step(self, index: int, node: NodeProto, inner_peak: int) -> None:
        for name in node.output:
            if name and self._find(name) == name:
                self.alive[name] = _bytes(self.facts.types.get(name))
        self.peak = max(self.peak, sum(self.alive.values()) + inner_peak)
        for name in [*_reads(node), *node.output]:
            if self.last.get(self._find(name), index) <= index:
                self.alive.pop(self._find(name), None)


def _reads(node: NodeProto) -> Iterator[str]:
    """Names a node reads, those its subgraphs capture included."""
    yield from (name for name in node.input if name)
    for _, graph in subgraphs(node):
        for each in graphs(graph):
            for inner in each.node:
                yield from (name for name in inner.input if name)
            yield from (value.name for value in each.output)
