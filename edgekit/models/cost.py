"""Multiply-accumulates of one node from the shapes of its tensors.

- only sums of products count: element-wise work, pooling and softmax are 0, as in the usual "MACs" of a model;
- an unknown shape gives None, never a guess;
- ONNX Runtime's fused and quantized variants count as the operator they replace; operand positions differ and stand in the table.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from onnx import NodeProto, helper

from edgekit.models.graph import op_name
from edgekit.models.infer import TensorType

Types = list[TensorType | None]


class _Unknown(Exception):
    """A shape that a formula needs is not known."""


class _Site:
    """A node with the shapes of its tensors; every access to an unknown one raises _Unknown."""

    def __init__(self, node: NodeProto, inputs: Types, outputs: Types) -> None:
        self.node = node
        self.inputs = inputs
        self.outputs = outputs

    def shape(self, position: int) -> tuple[int, ...]:
        return _dims(self.inputs, position)

    def has(self, position: int) -> bool:
        return position < len(self.inputs) and bool(self.node.input[position])

    @property
    def out(self) -> tuple[int, ...]:
        return _dims(self.outputs, 0)

    def attribute(self, name: str, default: Any) -> Any:
        return next((helper.get_attribute_value(a) for a in self.node.attribute if a.name == name), default)


def _dims(types: Types, position: int) -> tuple[int, ...]:
    known = types[position] if position < len(types) else None
    if known is None or known.elements is None or known.shape is None:
        raise _Unknown
    return tuple(dim for dim in known.shape if dim is not None)


def _conv(weight: int) -> Callable[[_Site], int]:
    """Each output element takes in_channels / groups x kernel products: the weight is [M, C / groups, k...]."""
    return lambda s: math.prod(s.out) * math.prod(s.shape(weight)[1:])


def _conv_transpose(s: _Site) -> int:
    """Each input element meets M / groups x kernel weights: the weight is [C, M / groups, k...]."""
    return math.prod(s.shape(0)) * math.prod(s.shape(1)[1:])


def _matmul(left: int) -> Callable[[_Site], int]:
    """Each output element sums over the left operand's last axis."""
    return lambda s: math.prod(s.out) * (s.shape(left)[-2 if s.attribute("transA", 0) else -1])


def _gemm(s: _Site) -> int:
    return math.prod(s.out) * s.shape(0)[0 if s.attribute("transA", 0) else 1]


def _recurrent(s: _Site) -> int:
    """Per step and sample, every element of W and R (all directions and gates) is used once."""
    steps_and_samples = math.prod(s.shape(0)[:2])
    return steps_and_samples * (math.prod(s.shape(1)) + math.prod(s.shape(2)))


def _einsum(s: _Site) -> int:
    """One product for each combination of output and summed indices, for two or more operands."""
    left, _, right = s.attribute("equation", b"").decode().replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) < 2:
        return 0
    sizes: dict[str, int] = {}
    for position, term in enumerate(terms):
        labels = re.sub(r"\.\.\..*", "", term), re.sub(r".*\.\.\.", "", term) if "..." in term else ""
        shape = s.shape(position)
        sizes.update(zip(labels[0], shape, strict=False))
        sizes.update(zip(reversed(labels[1]), reversed(shape), strict=False))
    summed = (
        math.prod(size for label, size in sizes.items() if label not in right) if right else math.prod(sizes.values())
    )
    return math.prod(s.out) * summed


def _scaled_attention(s: _Site) -> int:
    """Scores and their product with V: per pair of positions, the hidden size of Q and that of the output."""
    q, k = s.shape(0), s.shape(1)
    hidden = math.prod(q) // (q[0] * q[-2])
    past = s.shape(4)[-2] if s.node.op_type == "Attention" and s.has(4) else 0
    return q[0] * q[-2] * (k[-2] + past) * (hidden + math.prod(s.out) // (q[0] * q[-2]))


def _packed_attention(s: _Site) -> int:
    """com.microsoft.Attention projects to Q, K and V itself: input [B, S, D], weight [D, 3 H]."""
    batch, length, width = s.shape(0)
    projected = s.shape(1)[-1]
    return batch * length * width * projected + 2 * batch * length * length * (projected // 3)


MS = "com.microsoft."
MACS: dict[str, Callable[[_Site], int]] = {
    **dict.fromkeys(("Conv", "ConvInteger", "DeformConv", MS + "FusedConv", MS + "NhwcFusedConv"), _conv(1)),
    **dict.fromkeys(("QLinearConv", MS + "QLinearConv"), _conv(3)),
    **dict.fromkeys(("ConvTranspose", MS + "ConvTransposeWithDynamicPads"), _conv_transpose),
    **dict.fromkeys(("Gemm", MS + "QGemm", MS + "FusedGemm"), _gemm),
    **dict.fromkeys(
        (
            *(
                "MatMul",
                "MatMulInteger",
                "QLinearMatMul",
                MS + "FusedMatMul",
                MS + "MatMulNBits",
                MS + "MatMulIntegerToFloat",
            ),
            *(MS + "DynamicQuantizeMatMul", MS + "TransposeMatMul", MS + "FusedMatMulActivation"),
        ),
        _matmul(0),
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN", MS + "DynamicQuantizeLSTM"), _recurrent),
    "Einsum": _einsum,
    **dict.fromkeys(("Attention", MS + "MultiHeadAttention"), _scaled_attention),
    **dict.fromkeys((MS + "Attention", MS + "QAttention"), _packed_attention),
}


def node_macs(node: NodeProto, inputs: Types, outputs: Types) -> int | None:
    """Multiply-accumulates of a node without its subgraphs; None when a shape they depend on is not known."""
    formula = MACS.get(op_name(node))
    if formula is None:
        return 0
    try:
        return formula(_Site(node, inputs, outputs))
    except (_Unknown, IndexError):
        return None
