"""What is quantized or kept as one when a model's layers are looked into. Reads graphs only.

- An operator of arithmetic is a unit; the computing operators that only pass int8 on (Add, Mul, Sigmoid...) are one unit a type,
  until it turns out to cost much: then `parts_of` takes it apart.
- What views, cuts, pools or clips a quantized result (`LED`) shares its scale or vanishes into it, and so belongs to the unit that
  made it: kept alone in int8 behind a float layer, a Split would have the layer's result rounded all the same.
- Names are those of the flat model. `keep` are nodes that are float whatever is tried, and in no unit.
"""

from collections.abc import Collection, Mapping, Sequence

from onnx import ModelProto, NodeProto

from edgekit.core.sensitivity import Unit
from edgekit.models.cost import node_macs
from edgekit.models.infer import infer
from edgekit.quantize import qdq
from edgekit.quantize.qdq import ACTIVATIONS, QdqPlan
from edgekit.quantize.simulate import CUTTING, SHARING

LED = SHARING | ACTIVATIONS | CUTTING

# A unit of more nodes is taken apart into this many runs of consecutive ones.
MOST_PARTS = 64


def planned_nodes(model: ModelProto, ops: Sequence[str], keep: Collection[str] = ()) -> list[NodeProto]:
    """The nodes that are int8 when everything is."""
    return qdq.planned_nodes(model, QdqPlan(tuple(ops), tuple(keep)))


def followers(model: ModelProto, ops: Sequence[str], keep: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """The nodes that lead, in the graph's order: by name, itself and those that follow it.

    A Pad or Split of what no quantized node makes leads: it has its input rounded. Other views of that are float and in no unit.
    """
    leader: dict[str, str] = {}
    found: dict[str, list[str]] = {}
    for node in planned_nodes(model, ops, keep):
        follows = leader.get(node.input[0]) if node.op_type in LED and node.input else None
        if follows is None and node.op_type in LED - CUTTING:
            continue
        found.setdefault(follows or node.name, []).append(node.name)
        leader.update((name, follows or node.name) for name in node.output if name)
    return {name: tuple(nodes) for name, nodes in found.items()}


def units_of(
    model: ModelProto, ops: Sequence[str], arithmetic: Sequence[str], keep: Collection[str] = ()
) -> tuple[Unit, ...]:
    """Each operator of arithmetic by itself, the passing ones together by type, each with what follows it."""
    groups = followers(model, ops, keep)
    leading = [node for node in planned_nodes(model, ops, keep) if node.name in groups]
    macs = _macs(model, leading)
    total = max(1, sum(macs.values()))
    alone = [
        Unit(node.name, node.op_type, groups[node.name], macs[node.name] / total)
        for node in leading
        if node.op_type in arithmetic
    ]
    together: dict[str, list[str]] = {}
    for node in leading:
        if node.op_type not in arithmetic:
            together.setdefault(node.op_type, []).append(node.name)
    return (*alone, *(_joined(f"every {op}", op, names, groups) for op, names in sorted(together.items())))


def parts_of(unit: Unit, groups: Mapping[str, tuple[str, ...]]) -> tuple[Unit, ...]:
    """A type's unit taken apart: its nodes one by one, or MOST_PARTS runs of neighbours; itself alone when it is one."""
    names = [name for name in unit.nodes if name in groups]
    size = -(-len(names) // MOST_PARTS)
    runs = [names[i : i + size] for i in range(0, len(names), size)]
    return tuple(_joined(f"{run[0]} to {run[-1]}", unit.op, run, groups) for run in runs)


def _joined(name: str, op: str, leading: Sequence[str], groups: Mapping[str, tuple[str, ...]]) -> Unit:
    """Several leading nodes as one unit; a single one gives it its name."""
    nodes = tuple(node for lead in leading for node in groups[lead])
    return Unit(leading[0] if len(leading) == 1 else name, op, nodes, 0.0)


def _macs(model: ModelProto, nodes: Sequence[NodeProto]) -> dict[str, int]:
    facts = infer(model)
    return {
        node.name: node_macs(node, [facts.types.get(n) for n in node.input], [facts.types.get(n) for n in node.output])
        or 0
        for node in nodes
    }
