"""A float model with QuantizeLinear and DequantizeLinear around the nodes that are to be int8, by ONNX Runtime's quantizer.

- Ranges come from outside (`ranges`); which nodes, from the plan; insertion itself is ORT's `QDQQuantizer`.
- The model must be flat (`flatten`): named nodes, folded constants, opset 13 or later.
- The same plan gives the same model; the model that is given is not touched.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
from onnxruntime.quantization import QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from edgekit.core.types import NumericRules
from edgekit.errors import InputRejected
from edgekit.quantize.ranges import Grid, Range, grid

TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}


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
    wanted = [node.name for node in model.graph.node if is_planned(node, plan)]
    if not wanted:
        raise InputRejected("nothing is left to be quantized", next_step="keep fewer layers in full precision")
    with _quiet():
        quantizer = QDQQuantizer(
            copy.deepcopy(model),
            numeric.per_channel,
            numeric.reduce_range,
            TYPES[numeric.weight_type],
            TYPES[numeric.activation_type],
            _as_ort(ranges),
            wanted,
            [],
            list(plan.ops),
            {},
        )
        quantizer.quantize_model()
    return quantizer.model.model


def is_planned(node: onnx.NodeProto, plan: QdqPlan) -> bool:
    """Whether the plan makes a node int8."""
    return node.op_type in plan.ops and node.name not in plan.keep and (not plan.only or node.name in plan.only)


def _as_ort(ranges: Mapping[str, Range]) -> TensorsData:
    return TensorsData(
        CalibrationMethod.MinMax,
        {
            name: TensorData(lowest=np.float32(found.low), highest=np.float32(found.high))
            for name, found in ranges.items()
        },
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """ORT logs a warning for each tensor it leaves alone."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)
