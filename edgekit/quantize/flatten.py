"""A model made ready to be quantized: what calibration observes and QDQ insertion changes is this one file.

- Constants are folded: weights behind Constant, Identity or BatchNormalization nodes are not seen otherwise. Tables are not folded
  into a model that would grow too much.
- Shapes and types are inferred; every node has a name of its own; each Conv and Gemm has a bias of its own.
- Tensor names stay what they are from here on: ranges found on this file hold for what is made of it.
"""

from pathlib import Path

import onnx
import onnxruntime as ort
from onnxruntime.quantization.quant_utils import add_infer_metadata

from edgekit.core.calibration import Flattened
from edgekit.errors import InputRejected
from edgekit.models import runtime
from edgekit.quantize import graphs
from edgekit.quantize.groups import peak_bytes, tensors_to_calibrate

FILE = "flat.onnx"
PER_CHANNEL_OPSET = 13  # QuantizeLinear has an `axis` since
TABLE_BYTES = 4096  # constants above it stay to be folded at load in a model that would grow too much
GROWTH = 2.0  # what becomes int8 after folding is a quarter of it


def flatten(model: Path, out: Path, ops: tuple[str, ...] = (), activation_bytes: int = 0) -> Flattened:
    """Write the flat model into the folder `out`; its tensors are those that nodes of the types `ops` touch (none: any type).

    `activation_bytes` is the model's liveness peak, for the estimate of what calibrating it takes. Raises InputRejected when its
    opset has no per-channel QDQ.
    """
    notes: list[str] = []
    loaded = _folded(model, out, notes)
    if graphs.opset(loaded) < PER_CHANNEL_OPSET:
        raise InputRejected(
            f"static int8 needs opset {PER_CHANNEL_OPSET} or later, the model has {graphs.opset(loaded)}"
        )
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
        _optimized(model, folded)
        return onnx.shape_inference.infer_shapes(onnx.load(str(folded)))
    except (*runtime.ERRORS, onnx.shape_inference.InferenceError) as error:
        notes.append(f"constants were not folded before quantizing: {runtime.reason(error)}")
        return onnx.shape_inference.infer_shapes(onnx.load(str(model)))
    finally:
        folded.unlink(missing_ok=True)


def _optimized(model: Path, out: Path) -> None:
    options = _options(out)
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    if out.stat().st_size > GROWTH * model.stat().st_size:
        options = _options(out)
        options.add_session_config_entry("optimization.constant_folding_max_output_size_in_bytes", str(TABLE_BYTES))
        ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def _options(save_to: Path) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(save_to)
    return options


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
