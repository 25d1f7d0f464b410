"""Weights of matrix products as int4, a scale to a block: ONNX Runtime's `MatMulNBits`. Runs in the sandbox only.

- Only MatMul with a constant float32 matrix is changed, in If and Loop bodies too; other operators have no such kernel.
- Activations stay float32 unless `accuracy_level` is 4, which quantizes them to int8 a block at a time where the CPU has a kernel.
- ONNX Runtime has kernels for x86-64 from AVX2 on and for aarch64, block sizes 16 to 256. Anywhere else the operator turns the
  weights back into float32 in every inference: right, but slow.
- ONNX Runtime's own tool for this needs a package that is not among edgekit's; the format is the operator's documented one.
"""

import copy
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgekit.models.graph import subgraphs
from edgekit.quantize.graphs import walk

DOMAIN = "com.microsoft"
BITS = 4
MIDDLE = 8  # the zero point of weights that are symmetric
BLOCK_SIZES = (16, 32, 64, 128, 256)
# ONNX Runtime's `accuracy_level`: what activations are multiplied as. 2 and 3 (fp16, bf16) mean float32 on CPUs.
FLOAT32, INT8 = 1, 4


class _Weight(NamedTuple):
    """A constant matrix and the graph that holds it."""

    owner: GraphProto
    tensor: TensorProto


def quantize_matmuls(
    model: ModelProto, block_size: int, symmetric: bool, accuracy_level: int, min_elements: int = 1024
) -> ModelProto:
    """A copy of `model` whose float32 MatMul weights of `min_elements` or more are int4, `block_size` of a column to a scale.

    `symmetric` weights have no zero points. Smaller matrices, and those with fewer rows than a block, stay as they are. Raises
    ValueError for a block size without a kernel.
    """
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"block_size is one of {BLOCK_SIZES}")
    changed = copy.deepcopy(model)
    taken = {name for graph in walk(changed.graph) for name in _names(graph)}
    stored: dict[tuple[int, str], list[str]] = {}
    for node, weight in list(_constant_products(changed.graph, {})):
        rows, columns = weight.tensor.dims
        if rows >= block_size and rows * columns >= min_elements:
            key = id(weight.owner), weight.tensor.name  # the matrix of several products is stored once
            stored[key] = stored.get(key) or _store(weight, block_size, symmetric, taken)
            how = {"K": rows, "N": columns, "bits": BITS, "block_size": block_size, "accuracy_level": accuracy_level}
            names = [node.input[0], *stored[key]], list(node.output), node.name
            node.CopyFrom(helper.make_node("MatMulNBits", *names, domain=DOMAIN, **how))
    _drop_unused(changed)
    if all(entry.domain != DOMAIN for entry in changed.opset_import):
        changed.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return changed


def _constant_products(graph: GraphProto, around: Mapping[str, _Weight]) -> Iterator[tuple[NodeProto, _Weight]]:
    """Each MatMul by a constant float32 matrix, bodies included; a body sees the weights of the graphs `around` it."""
    ports = {port.name for port in graph.input}
    own = {
        tensor.name: _Weight(graph, tensor)
        for tensor in graph.initializer
        if tensor.name not in ports and tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2
    }
    seen = {**around, **own}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in seen:
            yield node, seen[node.input[1]]
        for _, body in subgraphs(node):
            yield from _constant_products(body, seen)


def _store(weight: _Weight, block_size: int, symmetric: bool, taken: set[str]) -> list[str]:
    """Put the int4 matrix, its scales and zero points beside the weight; returns their names, which join `taken`."""
    arrays = int4_blocks(numpy_helper.to_array(weight.tensor), block_size, symmetric)
    names = []
    for array, kind in zip(arrays[: 2 if symmetric else 3], ("int4", "scales", "zero_points"), strict=False):
        stem = f"{weight.tensor.name}_{kind}"
        name = stem if stem not in taken else next(n for i in count() if (n := f"{stem}_{i}") not in taken)
        weight.owner.initializer.append(numpy_helper.from_array(array, name))
        taken.add(name)
        names.append(name)
    return names


def _names(graph: GraphProto) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (name for node in graph.node for name in (*node.input, *node.output))


def int4_blocks(matrix: np.ndarray, block_size: int, symmetric: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(codes uint8 [N, blocks, block_size / 2], scales float32 [N, blocks], zero points uint8 [N, blocks / 2 rounded up]).

    `matrix` is [K, N]; blocks run along K, the last one filled with zeros; two codes to a byte, the first in the low half, as the
    operator's documentation (ContribOperators.md, com.microsoft.MatMulNBits) has it. Symmetric: a block's largest
    magnitude becomes code 0, so all 16 are used (ggml's Q4_0).
    """
    rows, columns = matrix.shape
    blocks = -(-rows // block_size)
    padded = np.zeros((columns, blocks * block_size), np.float32)
    padded[:, :rows] = matrix.T
    cut = padded.reshape(columns, blocks, block_size)
    if symmetric:
        peak = np.take_along_axis(cut, np.abs(cut).argmax(axis=2)[..., None], axis=2)
        scale = peak / np.float32(-MIDDLE)
        zero = np.full_like(scale, MIDDLE)
    else:
        low, high = cut.min(axis=2, keepdims=True).clip(max=0), cut.max(axis=2, keepdims=True).clip(min=0)
        scale = (high - low) / np.float32(15)
        zero = np.rint(-low / np.where(scale == 0, np.float32(1), scale))
    scale = np.where(scale == 0, np.float32(1), scale).astype(np.float32)
    codes = (np.rint(cut / scale) + zero).clip(0, 15).astype(np.uint8)
    return _packed(codes), scale[..., 0], _packed(zero[..., 0].astype(np.uint8))


def _packed(codes: np.ndarray) -> np.ndarray:
    """Two 4-bit codes to a byte along the last axis, the first in the low half; an odd last one is alone."""
    even = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, codes.shape[-1] % 2)])
    return np.asarray(even[..., 0::2] | even[..., 1::2] << 4, np.uint8)


def _drop_unused(model: ModelProto) -> None:
    used = {name for graph in walk(model.graph) for node in graph.node for name in node.input}
    used |= {port.name for graph in walk(model.graph) for port in graph.output}
    for graph in walk(model.graph):
        for index in reversed(range(len(graph.initializer))):
            if graph.initializer[index].name not in used:
                del graph.initializer[index]
