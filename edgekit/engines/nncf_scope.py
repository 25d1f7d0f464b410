"""Which nodes of an OpenVINO model NNCF must leave alone, by name, and what came of it. Runs in the sandbox only.

- Nodes are kept by their names in the ONNX model. Tensor names are what both models share: the frontend cuts a node into pieces (a
  bias becomes an Add), fusion makes one of several, and the name of what comes out stays on the last piece.
- An ONNX node is everything between the named tensors before it and its output. Where its output was fused away, the next tensor
  that is still named takes its place: what was fused is kept as a whole.
- A node without effect, which fusion removed, is nothing here and needs no keeping.
- What 8 bits ruin is found by the model's structure alone: norms and spectra that are written out.
- An operator counts as quantized by its weights: NNCF rounds a tensor for one reader, and others that stay float read it too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import openvino as ov

ENDS = frozenset({"Constant", "Parameter"})


@dataclass(frozen=True)
class Scope:
    """`nodes`: friendly names of OpenVINO nodes, sorted; `missing`: ONNX nodes that nothing was found for, as they were given."""

    nodes: tuple[str, ...]
    missing: tuple[str, ...]


def scope(model: ov.Model, graph: onnx.GraphProto, keep: Sequence[str]) -> Scope:
    """The nodes of `model` that stand for those of `graph` named in `keep`. Gives nodes of `model` distinct names first."""
    name_nodes(model)
    finder = _Finder(model, graph)
    found = {name: finder.pieces(name) for name in dict.fromkeys(keep)}
    names = {node for pieces in found.values() if pieces for node in pieces}
    return Scope(tuple(sorted(names)), tuple(name for name, pieces in found.items() if pieces is None))


def name_nodes(model: ov.Model) -> None:
    """Give every node a friendly name that no other has, by which a scope speaks of it, and that is the same in every build.

    OpenVINO numbers nodes without a name by a count of all it has made so far, on several threads.
    """
    nodes = model.get_ordered_ops()
    given = [node for node in nodes if node.get_friendly_name() != node.get_name()]
    taken = {node.get_friendly_name() for node in given}
    seen: set[str] = set()
    for index, node in enumerate(nodes):
        name = node.get_friendly_name()
        if name == node.get_name() or name in seen:
            stem = node.get_type_name() if name == node.get_name() else name
            name = next(new for i in range(index, index + len(nodes) + 1) if (new := f"{stem}_{i}") not in taken)
            node.set_friendly_name(name)
            taken.add(name)
        seen.add(name)


class _Finder:
    """Both graphs, indexed by the names of their tensors."""

    def __init__(self, model: ov.Model, graph: onnx.GraphProto) -> None:
        self._nodes = {node.name: node for node in graph.node}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        tensors = {name for node in graph.node for name in node.output} | {port.name for port in graph.input}
        self._outputs: dict[str, Any] = {
            name: output
            for node in model.get_ordered_ops()
            if node.get_type_name() != "Result"  # it repeats the names of what it returns
            for output in node.outputs()
            for name in output.get_names() & tensors
        }
        self._named = tensors

    def pieces(self, name: str) -> frozenset[str] | None:
        """Friendly names of what stands for the ONNX node; empty when it has no effect, None when it is nowhere."""
        node = self._nodes.get(name)
        if node is None:
            return None
        ends = list(self._ends(node))
        made = [end for end in ends if not end.get_names() & set(node.input)]
        return frozenset(self._behind(made)) if ends else None

    def _ends(self, node: onnx.NodeProto) -> Iterator[Any]:
        """OpenVINO's outputs that carry the node's outputs, or the next tensors that are made of them."""
        pending, seen = list(node.output), set[str]()
        while pending:
            name = pending.pop()
            if name in self._outputs:
                yield self._outputs[name]
            elif name and name not in seen:
                seen.add(name)
                pending.extend(output for reader in self._readers.get(name, []) for output in reader.output)

    def _behind(self, outputs: Sequence[Any]) -> set[str]:
        """The nodes that make `outputs`, back to constants, inputs and tensors that ONNX names too."""
        pending, found = [output.get_node() for output in outputs], set[str]()
        while pending:
            node = pending.pop()
            if node.get_friendly_name() in found or node.get_type_name() in ENDS:
                continue
            found.add(node.get_friendly_name())
            sources = [node.input_value(i) for i in range(node.get_input_size())]
            pending.extend(source.get_node() for source in sources if not source.get_names() & self._named)
        return found


# ------------------------------------------------------------------------------------------------------------- fragile


# Sums, ratios, differences and norms: quantized they save no time worth having next to convolutions and matrix products, while
# their error is a bias (a sum of rounded values) or a ratio of two. A file classifier and a pitch tracker collapsed by them.
NEVER_QUANTIZED = frozenset(
    {"Divide", "MVN", "Maximum", "Minimum", "NormalizeL2", "Power"}
    | {"ReduceL1", "ReduceL2", "ReduceMax", "ReduceMin", "ReduceSum", "SquaredDifference", "Subtract"}
)


def fragile(model: ov.Model, arithmetic: Collection[str]) -> tuple[str, ...]:
    """Friendly names of nodes that 8 bits ruin, sorted: those of the types NEVER_QUANTIZED, and what is under a root."""
    named = {node.get_friendly_name() for node in model.get_ordered_ops() if node.get_type_name() in NEVER_QUANTIZED}
    return tuple(sorted(named | _under_roots(model, arithmetic)))


def _under_roots(model: ov.Model, arithmetic: Collection[str]) -> set[str]:
    """What a root or a logarithm is taken of: a fixed step of 8 bits is more than most of its values.

    A sum of squares that is a variance or a magnitude spans the square of the range of what was squared: where one channel or
    frequency is loud, those that are not become 0, and the root's reciprocal or the logarithm unbounded. From a root the
    squares are the end; from a logarithm operators of the types `arithmetic` are, which are not among them.
    """
    found: set[str] = set()
    for node in model.get_ordered_ops():
        if _is_root(node) or node.get_type_name() == "Log":
            found |= _leading_to(node, arithmetic, to_squares=_is_root(node))
    return found


def _leading_to(end: Any, arithmetic: Collection[str], to_squares: bool) -> set[str]:
    pending, found = [end], set[str]()
    while pending:
        node = pending.pop()
        if node.get_friendly_name() in found or node.get_type_name() in ENDS or node.get_type_name() in arithmetic:
            continue
        found.add(node.get_friendly_name())
        if not (to_squares and _is_square(node)):
            pending.extend(_sources(node))
    return found


def _is_square(node: Any) -> bool:
    if node.get_type_name() == "Multiply":
        left, right = (node.input_value(i) for i in range(2))
        return bool(left.get_node() == right.get_node() and left.get_index() == right.get_index())
    return _exponent(node) == 2


def _is_root(node: Any) -> bool:
    exponent = _exponent(node)
    return node.get_type_name() == "Sqrt" or (exponent is not None and (exponent < 0 or exponent % 1 != 0))


def _exponent(node: Any) -> float | None:
    """The constant that a Power raises to, None for anything else."""
    power = node.input_value(1).get_node() if node.get_type_name() == "Power" else None
    if power is None or power.get_type_name() != "Constant" or power.data.size != 1:
        return None
    return float(power.data.item())


def left_weights(model: ov.Model) -> tuple[str, ...]:
    """Friendly names of matrix products whose first input is stored, sorted.

    NNCF gives such weights a scale a row. Where the product is quantized again, for another behind it, OpenVINO 2026.4's CPU
    plugin takes them for scales of columns: it refuses to compile, or where there are as many of both, the answer is wrong.
    """
    products = (node for node in model.get_ordered_ops() if node.get_type_name() == "MatMul")
    return tuple(sorted(node.get_friendly_name() for node in products if _is_stored(_sources(node)[0])))


# ------------------------------------------------------------------------------------------------------------- results

LOW_BITS = (ov.Type.i8, ov.Type.u8, ov.Type.i4, ov.Type.u4)
# What moves values without changing them, and what stands between stored weights and who reads them.
MOVES = frozenset({"Reshape", "Transpose", "Unsqueeze", "Squeeze"})
FROM_STORED = MOVES | {"Convert", "Subtract", "Multiply", "FakeQuantize"}
# Where an operator has its weights, if it is not the second input.
RECURRENT_WEIGHTS = {
    **{"LSTMSequence": (4, 5), "GRUSequence": (3, 4), "RNNSequence": (3, 4)},
    **{"LSTMCell": (3, 4), "GRUCell": (2, 3), "RNNCell": (2, 3)},
}


def bodies(model: ov.Model) -> Iterator[ov.Model]:
    """The bodies of If, Loop and TensorIterator in `model`, and those nested in them."""
    for node in model.get_ordered_ops():
        for body in _bodies_of(node):
            yield body
            yield from bodies(body)


def _bodies_of(node: Any) -> list[ov.Model]:
    kind = node.get_type_name()
    if kind == "If":
        return [node.get_function(0), node.get_function(1)]
    return [node.get_function()] if kind in ("Loop", "TensorIterator") else []


def count_quantized(model: ov.Model, kinds: Collection[str]) -> tuple[int, int]:
    """(operators of the types `kinds` that are quantized, all of them), without bodies."""
    nodes = [node for node in model.get_ordered_ops() if node.get_type_name() in kinds]
    return sum(is_quantized(node) for node in nodes), len(nodes)


def still_quantized(model: ov.Model, kinds: Collection[str], names: Collection[str]) -> tuple[str, ...]:
    """Those of the nodes called `names`, of the types `kinds`, that are quantized all the same."""
    by_name: Mapping[str, Any] = {
        node.get_friendly_name(): node for node in model.get_ordered_ops() if node.get_type_name() in kinds
    }
    return tuple(name for name in names if name in by_name and is_quantized(by_name[name]))


def is_quantized(node: Any) -> bool:
    """Whether an operator of arithmetic has low-bit weights; of a matrix product, whether those or both its inputs are."""
    sources = _sources(node)
    if node.get_type_name() == "MatMul":
        return all(_is_low(source) for source in sources) or any(_is_low(s) and _is_stored(s) for s in sources)
    return any(_is_low(sources[i]) for i in RECURRENT_WEIGHTS.get(node.get_type_name(), (1,)))


def _sources(node: Any) -> list[Any]:
    return [node.input_value(i).get_node() for i in range(node.get_input_size())]


def _is_low(node: Any) -> bool:
    """Whether its values are rounded: by a FakeQuantize, or stored in few bits."""
    while node.get_type_name() in MOVES:
        node = _sources(node)[0]
    return node.get_type_name() == "FakeQuantize" or (_is_stored(node) and _stored_type(node) in LOW_BITS)


def _is_stored(node: Any) -> bool:
    """Whether it is a constant, or one that was moved, rounded or made floating point."""
    pending = [node]
    while pending:
        node = pending.pop()
        if node.get_type_name() in FROM_STORED:
            pending.extend(_sources(node))
        elif node.get_type_name() != "Constant":
            return False
    return True


def _stored_type(node: Any) -> ov.Type:
    while node.get_type_name() != "Constant":
        node = _sources(node)[0]
    return node.get_element_type()
