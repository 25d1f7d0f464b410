"""A float model with QuantizeLinear and DequantizeLinear around the nodes that are to be int8, by ONNX Runtime's quantizer.

- Ranges come from outside (`ranges`); which nodes, from the plan; insertion itself is ORT's `QDQQuantizer`.
- The model must be flat (`flatten`): named nodes, folded constants, opset 13 or later.
- A node that touches a tensor without a range stays float (`bounded`), and so does a Relu or Clip that a body looks at (`pinned`).
- Scales have the type of what they scale: float16 beside float32.
- The same plan gives the same model; the model that is given is not touched.
"""

import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from edgekit.core.types import NumericRules
from edgekit.errors import InputRejected
from edgekit.quantize.graphs import opset
from edgekit.quantize.groups import body_reads, declared
from edgekit.quantize.histogram import Histogram
from edgekit.quantize.ranges import Grid, Range, grid

TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}

# QDQRemovableActivation in onnxruntime/quantization/registry.py: behind a rounded tensor only, and as a rule taken out.
ACTIVATIONS = frozenset({"Clip", "Relu"})

FLOAT16_OPSET = 19  # before it, only ONNX Runtime's own QuantizeLinear takes float16


@dataclass(frozen=True)
class QdqPlan:
    """What becomes int8: nodes of the types in `ops` but those named in `keep`; with `only`, no others than those."""

    ops: tuple[str, ...]
    keep: tuple[str, ...] = ()
    only: tuple[str, ...] = ()


def activation_grid(numeric: NumericRules) -> Grid:
    """The codes activations get on the target; ORT makes int8 activations asymmetric as it does uint8."""
    return grid(numeric.activation_type)


def insert(
    model: onnx.ModelProto, ranges: Mapping[str, Range], plan: QdqPlan, numeric: NumericRules
) -> onnx.ModelProto:
    """The quantized model. Raises InputRejected when nothing in it is of the plan's types."""
    wanted = [node.name for node in planned_nodes(model, plan)]
    if not wanted:
        raise InputRejected("nothing is left to be quantized", next_step="keep fewer layers in full precision")
    with _quiet():
        quantizer = QDQQuantizer(
            copy.deepcopy(model),
            numeric.per_channel,
            numeric.reduce_range,
            TYPES[numeric.weight_type],
            TYPES[numeric.activation_type],
            _as_ort(model, ranges),
            wanted,
            [],
            list(plan.ops),
            {"UseQDQContribOps": opset(model) < FLOAT16_OPSET and _has_float16(model)},
        )
        quantizer.quantize_model()
    return quantizer.model.model


def planned_nodes(model: onnx.ModelProto, plan: QdqPlan) -> list[onnx.NodeProto]:
    """The nodes that the plan makes int8."""
    floating = {*plan.keep, *pinned(model.graph)}
    return [
        node
        for node in model.graph.node
        if node.op_type in plan.ops and node.name not in floating and (not plan.only or node.name in plan.only)
    ]


def pinned(graph: onnx.GraphProto) -> set[str]:
    """The names of Relu and Clip nodes whose input or output an If, Loop or Scan body reads: they stay where they are.

    ORT's quantizer counts readers in the main graph only. It would take the node out and give its output's name to its input: a
    body that reads the input finds none any more, and one that reads the output gets what no Relu has seen.
    """
    seen = {name for node in graph.node for name in body_reads(node)}
    return {
        node.name
        for node in graph.node
        if node.op_type in ACTIVATIONS and not seen.isdisjoint((node.input[0], node.output[0]))
    }


def bounded(
    flat: onnx.ModelProto, histograms: Mapping[str, Histogram], ops: Collection[str]
) -> tuple[dict[str, Histogram], dict[str, str]]:
    """The histograms that have a range, and the nodes of the types `ops` that stay float, each with the tensor it is for.

    No range holds NaN or infinities: nodes that touch a tensor which calibration saw them in stay float.
    """
    finite = {name: histogram for name, histogram in histograms.items() if not histogram.nonfinite}
    floating = {}
    for node in flat.graph.node:
        unbounded = [name for name in (*node.input, *node.output) if name in histograms and name not in finite]
        if node.op_type in ops and unbounded:
            floating[node.name] = unbounded[0]
    return finite, floating


def unbounded_note(floating: Mapping[str, str]) -> str:
    """What is to be said of the nodes that `bounded` leaves float; nothing when there are none."""
    if not floating:
        return ""
    tensor = next(iter(floating.values()))
    return f"{len(floating)} operators stay fp32: calibration saw values that are not finite in '{tensor}'"


def _as_ort(model: onnx.ModelProto, ranges: Mapping[str, Range]) -> TensorsData:
    """ORT takes the type of a tensor's scale from that of its range."""
    half = {name for name, known in declared(model).items() if known.elem_type == TensorProto.FLOAT16}
    kinds = {name: np.float16 if name in half else np.float32 for name in ranges}
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=kinds[name](found.low), highest=kinds[name](found.high))
            for name, found in ranges.items()
        },
    )


def _has_float16(model: onnx.ModelProto) -> bool:
    return any(known.elem_type == TensorProto.FLOAT16 for known in declared(model).values())


@contextmanager
def _quiet() -> Iterator[None]:
    """ORT logs a warning for each tensor it leaves alone."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)
