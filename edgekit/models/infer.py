"""Shapes of intermediate tensors once the inputs are fixed.

Neither onnx nor ONNX Runtime follows shape arithmetic (Shape, Gather, Concat, Reshape) all the way, so three steps alternate
until nothing new is learnt: infer shapes, fold what follows from constants and known shapes, enter the subgraphs.

- a scratch copy is worked on; the model itself only gets its shapes recorded;
- large weights become inputs of the scratch copy: nothing here depends on their values;
- folding never makes a tensor of more than FOLD_LIMIT elements, and never from an operator whose output can be far larger
  than its inputs unless that output's size is known.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper, shape_inference

from edgekit.models import runtime
from edgekit.models.external import is_external
from edgekit.models.graph import PartialShape, attribute_tensors, domain_of, subgraphs
from edgekit.models.runtime import Array, tensor_type

FOLD_LIMIT = 4096
_MAX_ROUNDS = 200
_GROWING = frozenset(
    [
        "ConstantOfShape",
        "Expand",
        "Tile",
        "Range",
        "Pad",
        "Resize",
        "Upsample",
        "OneHot",
        "NonZero",
        "EyeLike",
        "ImageDecoder",
        "CenterCropPad",
    ]
)
_RANDOM = frozenset(
    ["RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout"]
)


@dataclass(frozen=True)
class TensorType:
    """Element type (TensorProto's number) and shape as far as they are known."""

    elem_type: int
    shape: PartialShape

    @property
    def elements(self) -> int | None:
        """Number of elements; None when unknown."""
        dims = self.shape
        if dims is None or any(dim is None for dim in dims):
            return None
        return math.prod(dim for dim in dims if dim is not None)


@dataclass
class Facts:
    """What is known of one graph: types by tensor name (outer scopes included), small constants, and the graphs inside."""

    types: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, Array] = field(default_factory=dict)
    inner: dict[tuple[int, str], "Facts"] = field(default_factory=dict)  # (node index, attribute name)


def infer(model: ModelProto) -> Facts:
    """Facts of the model's main graph. Unknown stays unknown: nothing is raised for it."""
    return _Graph(model.graph, list(model.opset_import), model.ir_version, Facts()).solve()


def record(model: ModelProto, facts: Facts) -> None:
    """Write fully known shapes into the model's value_info and outputs, in place."""
    placed = {value.name for value in [*model.graph.input, *model.graph.output]}
    placed |= {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.output:
        known = facts.types.get(value.name)
        if known and known.elements is not None and value.type.HasField("tensor_type"):
            value.CopyFrom(_value(value.name, known))
    for node in model.graph.node:
        for name in node.output:
            known = facts.types.get(name)
            if name and name not in placed and known and known.elements is not None:
                model.graph.value_info.append(_value(name, known))


def _value(name: str, known: TensorType) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, known.elem_type, known.shape)


class _Graph:
    """One graph being solved: `pending` nodes shrink as they are folded or their subgraphs are entered."""

    def __init__(self, graph: GraphProto, opsets: list[onnx.OperatorSetIdProto], ir_version: int, outer: Facts) -> None:
        self.graph = graph
        self.opsets = opsets
        self.ir_version = ir_version
        self.facts = Facts(types=dict(outer.types), constants=dict(outer.constants))
        self.pending = dict(enumerate(graph.node))
        for value in graph.input:
            if value.type.HasField("tensor_type"):
                self.facts.types.setdefault(value.name, TensorType(*tensor_type(value)))
        for tensor in graph.initializer:
            self._store(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self.facts.types[sparse.values.name] = TensorType(sparse.values.data_type, tuple(sparse.dims))

    def _store(self, name: str, tensor: TensorProto) -> None:
        known = TensorType(tensor.data_type, tuple(tensor.dims))
        self.facts.types[name] = known
        if (known.elements or 0) <= FOLD_LIMIT and not is_external(tensor) and tensor.data_type != TensorProto.STRING:
            self.facts.constants[name] = numpy_helper.to_array(tensor)

    def solve(self) -> Facts:
        self._take_constants()
        for _ in range(_MAX_ROUNDS):
            self._infer()
            if not self._fold() and not self._enter():
                break
        return self.facts

    def _take_constants(self) -> None:
        for index, node in list(self.pending.items()):
            tensors = [t for a in node.attribute for t in attribute_tensors(a)]
            if node.op_type == "Constant" and tensors and not node.attribute[0].HasField("sparse_tensor"):
                self._store(node.output[0], tensors[0])
                del self.pending[index]

    # ------------------------------------------------------------------------------------------------ infer

    def _infer(self) -> None:
        scratch = self._scratch(self.pending.values())
        try:
            inferred = shape_inference.infer_shapes(scratch, data_prop=True)
        except (shape_inference.InferenceError, RuntimeError, ValueError):
            inferred = scratch
        for value in inferred.graph.value_info:
            self._learn(value)
        if any(domain_of(node.domain) for node in self.pending.values()):
            self._ask_runtime(scratch)

    def _learn(self, value: ValueInfoProto) -> None:
        if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type:
            known = TensorType(*tensor_type(value))
            if value.name not in self.facts.types or known.elements is not None:
                self.facts.types[value.name] = known

    def _ask_runtime(self, scratch: ModelProto) -> None:
        """onnx knows no other domain's operators; ONNX Runtime does, and tells the types of outputs."""
        asked = ModelProto()
        asked.CopyFrom(scratch)
        del asked.graph.output[:]
        asked.graph.output.extend(
            ValueInfoProto(name=name) for node in asked.graph.node for name in node.output if name
        )
        try:
            outputs = runtime.open_session(asked, threads=1).get_outputs()
        except runtime.ERRORS:
            return
        numbers = {f"tensor({_ort_name(number)})": number for number in TensorProto.DataType.values() if number}
        for output in outputs:
            if output.type in numbers:
                dims = tuple(dim if isinstance(dim, int) and dim >= 0 else None for dim in output.shape)
                known = TensorType(numbers[output.type], dims)
                if known.elements is not None:
                    self.facts.types[output.name] = known

    def _scratch(self, nodes: Iterable[NodeProto]) -> ModelProto:
        """A model of `nodes` in which all that is known stands as an initializer or a typed input; subgraph nodes are left out."""
        kept = [node for node in nodes if not any(subgraphs(node))]
        made = {name for node in kept for name in node.output}
        needed = dict.fromkeys(name for node in kept for name in node.input if name and name not in made)
        constants = [n for n in needed if n in self.facts.constants]
        inputs = [n for n in needed if n not in self.facts.constants and n in self.facts.types]
        graph = helper.make_graph(
            kept,
            "scratch",
            [_value(name, self.facts.types[name]) for name in inputs],
            [],
            [numpy_helper.from_array(np.asarray(self.facts.constants[name]), name) for name in constants],
        )
        return helper.make_model(graph, opset_imports=self.opsets, ir_version=max(self.ir_version, 8))

    # ------------------------------------------------------------------------------------------------- fold

    def _fold(self) -> bool:
        """Compute what follows from constants; True when something was."""
        found = self._shape_nodes()
        chosen = self._computable(set(self.facts.constants) | set(found))
        self.facts.constants.update(found)
        results = self._evaluate([self.pending[index] for index in chosen])
        for name, value in results.items():
            if value.size <= FOLD_LIMIT:
                self._settle(name, value)
        for name, value in found.items():
            self._settle(name, value)
        done = {name for name in [*found, *results] if name in self.facts.constants}
        before = len(self.pending)
        self.pending = {i: n for i, n in self.pending.items() if not n.output or n.output[0] not in done}
        return len(self.pending) < before

    def _settle(self, name: str, value: Array) -> None:
        self.facts.constants[name] = value
        self.facts.types[name] = TensorType(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)

    def _shape_nodes(self) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for node in self.pending.values():
            known = self.facts.types.get(node.input[0]) if node.input else None
            if node.op_type not in ("Shape", "Size") or known is None or known.elements is None or known.shape is None:
                continue
            ends = {a.name: int(a.i) for a in node.attribute}
            dims = np.array(known.shape[slice(ends.get("start", 0), ends.get("end"))], np.int64)
            found[node.output[0]] = dims if node.op_type == "Shape" else np.array(known.elements, np.int64)
        return found

    def _computable(self, constants: set[str]) -> list[int]:
        """Pending nodes whose inputs are all constant and whose outputs are sure to be small."""
        chosen = []
        for index, node in self.pending.items():
            ready = all(name in constants for name in node.input if name) and (node.input or node.op_type == "Constant")
            if not ready or domain_of(node.domain) or node.op_type in _RANDOM or any(subgraphs(node)):
                continue
            if node.op_type in _GROWING and not self._known_small(node):
                continue
            chosen.append(index)
            constants.update(node.output)
        return chosen

    def _known_small(self, node: NodeProto) -> bool:
        known = [self.facts.types.get(name) for name in node.output if name]
        return all(k is not None and k.elements is not None and k.elements <= FOLD_LIMIT for k in known)

    def _evaluate(self, nodes: list[NodeProto]) -> dict[str, Array]:
        if not nodes:
            return {}
        model = self._scratch(nodes)
        names = [name for node in nodes for name in node.output if name]
        model.graph.output.extend(ValueInfoProto(name=name) for name in names)
        try:
            values = runtime.run_session(runtime.open_session(model, threads=1), {})
        except runtime.ERRORS:
            return {}
        return {
            n: v for n, v in zip(names, values, strict=True) if isinstance(v, np.ndarray) and v.dtype.kind in "biuf"
        }

    # ------------------------------------------------------------------------------------------------ enter

    def _enter(self) -> bool:
        """Solve the subgraphs of the first node that has some: later ones may depend on what it yields."""
        for index, node in self.pending.items():
            held = dict(subgraphs(node))
            if held:
                self._enter_node(index, node, held)
                del self.pending[index]
                return True
        return False

    def _enter_node(self, index: int, node: NodeProto, held: Mapping[str, GraphProto]) -> None:
        solved = {}
        for name, graph in held.items():
            outer = Facts({**self.facts.types, **_body_types(node, graph, self.facts)}, self.facts.constants)
            solved[name] = _Graph(graph, self.opsets, self.ir_version, outer).solve()
            self.facts.inner[index, name] = solved[name]
        if node.op_type != "If":
            return
        live = live_branches(node, self.facts.constants)
        for position, output in enumerate(node.output):
            ends = [solved[name].types.get(held[name].output[position].name) for name in live]
            first = ends[0]
            if first is not None and all(end == first for end in ends):
                self.facts.types[output] = first
            values = [solved[name].constants.get(held[name].output[position].name) for name in live]
            if len(values) == 1 and values[0] is not None:
                self.facts.constants[output] = values[0]


def live_branches(node: NodeProto, constants: Mapping[str, Array]) -> list[str]:
    """The branches of an `If` that can be taken: one when its condition is a known constant."""
    condition = constants.get(node.input[0])
    if condition is None:
        return ["then_branch", "else_branch"]
    return ["then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"]


def _body_types(node: NodeProto, graph: GraphProto, facts: Facts) -> dict[str, TensorType]:
    """Types of a Loop's or Scan's body inputs, taking carried shapes as constant and one slice of what is scanned."""
    given = [facts.types.get(name) for name in node.input]
    if node.op_type == "Loop":
        given = [TensorType(TensorProto.INT64, ()), TensorType(TensorProto.BOOL, ()), *given[2:]]
    if node.op_type == "Scan":
        scanned = next((int(a.i) for a in node.attribute if a.name == "num_scan_inputs"), 0)
        axes = next((list(a.ints) for a in node.attribute if a.name == "scan_input_axes"), [0] * scanned)
        first = len(given) - scanned
        given = [*given[:first], *(_without(g, axis) for g, axis in zip(given[first:], axes, strict=False))]
    return {value.name: known for value, known in zip(graph.input, given, strict=False) if known is not None}


def _without(known: TensorType | None, axis: int) -> TensorType | None:
    if known is None or known.shape is None:
        return None
    dims = list(known.shape)
    del dims[axis]
    return TensorType(known.elem_type, tuple(dims))


def _ort_name(number: int) -> str:
    names = {TensorProto.FLOAT: "float", TensorProto.DOUBLE: "double"}
    return names.get(number, str(TensorProto.DataType.Name(number)).lower())
