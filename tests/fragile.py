"""The sample model made as fragile as PP-OCR: the same answers to the last bit in float, another model in int8.

A Relu commutes with a positive factor. So a channel of what "widen" makes may be 2^k times as large if "narrow" weighs it 2^-k:
with factors from 1 to 2^13 over the channels, one scale a tensor leaves most of them a few codes, or none.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.conftest import SAMPLE

BLOCK = "stage1.1"
GUILTY = {f"/stage1/{BLOCK}/widen/conv/Conv", f"/stage1/{BLOCK}/narrow/conv/Conv"}
LARGEST = 13


def fragile_sample(path: Path) -> Path:
    """Write the rescaled sample model to `path`."""
    model = onnx.load(str(SAMPLE / "model.onnx"))
    factors = 2.0 ** np.round(np.linspace(0, LARGEST, 192))
    _rescale(model, f"{BLOCK}.widen.conv.weight", factors[:, None, None, None])
    _rescale(model, f"{BLOCK}.widen.conv.bias", factors)
    _rescale(model, f"{BLOCK}.narrow.conv.weight", 1 / factors[None, :, None, None])
    onnx.save(model, str(path))
    return path


def _rescale(model: onnx.ModelProto, name: str, factors: np.ndarray) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((array * factors).astype(np.float32), name))
