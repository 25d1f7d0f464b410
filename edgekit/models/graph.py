"""Walking ONNX graphs: subgraphs, tensors and names.

- `If`, `Loop` and `Scan` hold graphs as attributes; functions hold nodes: both are walked;
- the default domain has two spellings, "" and "ai.onnx".
"""

from collections.abc import Iterable, Iterator

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

# The field's dimensions where known: None for one unknown dimension; a whole None is an unknown rank.
PartialShape = tuple[int | None, ...] | None


def domain_of(name: str) -> str:
    """The domain with the default one spelled ""."""
    return "" if name == "ai.onnx" else name


def op_name(node: NodeProto) -> str:
    """The operator, qualified by its domain when that is not the default one."""
    domain = domain_of(node.domain)
    return f"{domain}.{node.op_type}" if domain else str(node.op_type)


def subgraphs(node: NodeProto) -> Iterator[tuple[str, GraphProto]]:
    """Attribute name and graph of each graph a node holds."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for graph in attribute.graphs:
            yield attribute.name, graph


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """`graph` and every graph below it."""
    yield graph
    yield from _below(graph.node)


def _below(nodes: Iterable[NodeProto]) -> Iterator[GraphProto]:
    for node in nodes:
        for _, inner in subgraphs(node):
            yield from graphs(inner)


def all_nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of the model, of its subgraphs and of its functions."""
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node
        for graph in _below(function.node):
            yield from graph.node


def stored_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor stored in the model: initializers, sparse ones, and node attributes, at every level."""
    outer = list(graphs(model.graph))
    inner = [graph for function in model.functions for graph in _below(function.node)]
    for graph in [*outer, *inner]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in all_nodes(model):
        for attribute in node.attribute:
            yield from attribute_tensors(attribute)


def attribute_tensors(attribute: AttributeProto) -> Iterator[TensorProto]:
    """The tensors a node attribute holds."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for each in [*sparse, *attribute.sparse_tensors]:
        yield from (each.values, each.indices)


def default_opset(model: ModelProto) -> int:
    """The model's version of the default domain, 0 when it imports none."""
    return max((int(o.version) for o in model.opset_import if domain_of(o.domain) == ""), default=0)


def dtype_name(elem_type: int) -> str:
    """numpy's name of an ONNX element type: "float32", "bfloat16", "string", "int4"."""
    if elem_type == TensorProto.STRING:
        return "string"
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type).name)


def element_bits(elem_type: int) -> int:
    """Bits of one stored element; 0 for strings and unknown types."""
    if elem_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return 0
    name = dtype_name(elem_type)
    narrow = {"int4": 4, "uint4": 4, "float4_e2m1fn": 4, "int2": 2, "uint2": 2}
    return narrow.get(name, int(onnx.helper.tensor_dtype_to_np_dtype(elem_type).itemsize) * 8)
