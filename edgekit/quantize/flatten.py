"""A model made ready to be quantized: what calibration observes and QDQ insertion changes is this one file.

- Constants are folded: weights behind Constant, Identity or BatchNormalization nodes are not seen otherwise. Tables are not folded
  into a model that would grow too much.
- Shapes and types are inferred; every node has a name of its own; each Conv and Gemm has a bias of its own.
- Tensor names stay what they are from here on: ranges found on this file hold for what is made of it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization.quant_utils import add_infer_metadata

from edgekit.core.calibration import Flattened
from edgekit.core.plan import MIN_QDQ_OPSET
from edgekit.errors import InputRejected
from edgekit.models import runtime
from edgekit.quantize import graphs
from edgekit.quantize.groups import peak_bytes, tensors_to_calibrate
from edgekit.quantize.optimize import optimize

FILE = "flat.onnx"
GROWTH = 2.0  # what becomes int8 after folding is a quarter of it


def flatten(model: Path, out: Path, ops: tuple[str, ...] = (), activation_bytes: int = 0) -> Flattened:
    """Write the flat model into the folder `out`; its tensors are those that nodes of the types `ops` touch (none: any type).

    `activation_bytes` is the model's liveness peak, for the estimate of what calibrating it takes. Raises InputRejected when its
    opset has no per-channel QDQ.
    """
    notes: list[str] = []
    loaded = _folded(model, out, notes)
    if graphs.opset(loaded) < MIN_QDQ_OPSET:
        raise InputRejected(f"static int8 needs opset {MIN_QDQ_OPSET} or later, the model has {graphs.opset(loaded)}")
    graphs.own_biases(loaded)
    _name_nodes(loaded)
    add_infer_metadata(loaded)  # ORT's quantizer infers shapes again and again without it
    onnx.save(loaded, str(out / FILE))
    tensors = tensors_to_calibrate(loaded, ops)
    weight_bytes = sum(tensor.ByteSize() for tensor in loaded.graph.initializer)
    return Flattened(FILE, tuple(notes), tensors, peak_bytes(weight_bytes, activation_bytes, len(tensors)))


def _folded(model: Path, out: Path, notes: list[str]) -> onnx.ModelProto:
    """The model with constants folded and shapes inferred; as it is, if ONNX Runtime cannot."""
    folded = out / "folded.onnx"
    try:
        optimize(model, folded, "basic", GROWTH)
        loaded = onnx.load(str(folded))
        _fold_casts(loaded)
        return onnx.shape_inference.infer_shapes(loaded)
    except (*runtime.ERRORS, onnx.shape_inference.InferenceError) as error:
        notes.append(f"constants were not folded before quantizing: {runtime.reason(error)}")
        return onnx.shape_inference.infer_shapes(onnx.load(str(model)))
    finally:
        folded.unlink(missing_ok=True)


def _fold_casts(model: onnx.ModelProto) -> None:
    """Float16 weights behind a Cast become float32 ones: ONNX Runtime puts Casts where a CPU has no float16 kernel."""
    graph = model.graph
    half = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    overridable = {port.name for port in graph.input}
    answers = {port.name for port in graph.output}
    for index, node in reversed(list(enumerate(graph.node))):
        widens = node.op_type == "Cast" and any(a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute)
        if widens and node.input[0] in half.keys() - overridable and node.output[0] not in answers:
            array = numpy_helper.to_array(half[node.input[0]]).astype(np.float32)
            graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            del graph.node[index]


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node of the main graph a name that no other has: plans speak of nodes by their names."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            stem = node.name or node.op_type
            node.name = next(
                name for i in range(len(model.graph.node) + 1) if (name := f"{stem}_{index + i}") not in taken
            )
        taken.add(node.name)
