"""Refuse what is not a usable ONNX model, before any engine sees it, with one sentence that names the way out.

- the file is looked at before it is parsed, the structure before anything is computed;
- limits are on what a model expands to, not only on its bytes: 2 KB of nested functions can mean 2^30 nodes;
- -inf and +inf are legal weights (attention masks); NaN is not.
"""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # ships no types
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as ort_native

from edgekit.errors import InputRejected
from edgekit.models.graph import all_nodes, default_opset, domain_of, op_name, stored_tensors, subgraphs

MAX_FILE_BYTES = (2 << 30) - 1  # a protobuf message's own limit
MAX_NODES = 100_000
MAX_DEPTH = 16
_HEAD_BYTES = 1 << 16

_EXPORT_TORCH = "export it with torch.onnx.export(model, example_input, 'model.onnx')"
_EXPORT_TF = "convert it with tf2onnx, see 'python -m tf2onnx.convert --help'"
_EXPORT_SOURCE = "export ONNX from the original model instead"

# (offset, first bytes, what it looks like, next step); formats from their own specifications
_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (
        4,
        b"TFL3",
        "a TensorFlow Lite model",
        "convert it with 'python -m tf2onnx.convert --tflite FILE --output model.onnx'",
    ),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights)", _EXPORT_TF),
    (4, b"ORTM", "an ONNX Runtime .ort model", _EXPORT_SOURCE),
    (0, b"GGUF", "a GGUF model", _EXPORT_SOURCE),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (0, b"\x93NUMPY", "a numpy array", "pass the .onnx file; data goes to --data"),
    (0, b"\x80\x02", "a Python pickle (an old PyTorch file?)", _EXPORT_TORCH),
    (0, b"\x80\x04", "a Python pickle", _EXPORT_TORCH),
    (0, b"\x80\x05", "a Python pickle", _EXPORT_TORCH),
    (0, b"\x7fELF", "a program", "pass the .onnx file"),
    (
        0,
        b"version https://git-lfs",
        "a git-lfs pointer file",
        "run 'git lfs pull' to fetch the real file",
    ),
)
_TEXT: tuple[tuple[bytes, str, str], ...] = (
    (rb"\s*(<\?xml[^>]*>\s*)?<net\b", "an OpenVINO IR model", _EXPORT_SOURCE),
    (rb"\s*(<!doctype\s+html|<html)", "a web page", "download the file itself, not the page that shows it"),
    (rb"\s*[{\[]\s*[\"{\[\]}]", "JSON text", "pass the .onnx file"),
)


def check_file(source: Path) -> int:
    """The size in bytes of a regular file that may be ONNX. Raises InputRejected for anything else; never blocks on a FIFO."""
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _refused(source, "no such file", "check the path") from None
    except (OSError, ValueError) as error:
        raise _refused(source, f"cannot be opened: {error}", "check the path and its permissions") from error
    try:
        found = os.fstat(handle)
        head = os.read(handle, _HEAD_BYTES) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(handle)
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(source, found.st_mode)
    if found.st_size == 0:
        raise _refused(source, "is empty (0 bytes)", "copy or export it again")
    looks_like(source, head, found.st_size)
    if found.st_size > MAX_FILE_BYTES:
        raise _refused(
            source,
            f"has {found.st_size} bytes, more than one protobuf file may hold (2 GiB)",
            "save it with external data: onnx.save(model, path, save_as_external_data=True)",
        )
    return found.st_size


def _refused(source: Path, what: str, next_step: str) -> InputRejected:
    return InputRejected(what, where=str(source), next_step=next_step)


def _not_regular(source: Path, mode: int) -> InputRejected:
    if not stat.S_ISDIR(mode):
        return _refused(source, "is not a regular file", "pass the path of an .onnx file")
    if (source / "saved_model.pb").is_file():
        convert = "convert it with 'python -m tf2onnx.convert --saved-model FOLDER --output model.onnx'"
        return _refused(source, "is a TensorFlow SavedModel folder, not an ONNX file", convert)
    return _refused(source, "is a folder, not an ONNX file", "pass the .onnx file inside it")


def looks_like(source: Path, head: bytes, size: int) -> None:
    """Raises InputRejected when the first bytes are those of another format."""
    for offset, magic, name, next_step in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            raise _refused(source, f"is {name}, not ONNX", next_step)
    for pattern, name, next_step in _TEXT:
        if re.match(pattern, head, re.IGNORECASE):
            raise _refused(source, f"is {name}, not ONNX", next_step)
    if head[:4] == b"PK\x03\x04":
        torch = b"data.pkl" in head or source.suffix in (".pt", ".pth")
        name = "a PyTorch file (a zip archive)" if torch else "a zip archive"
        raise _refused(source, f"is {name}, not ONNX", _EXPORT_TORCH if torch else "unpack it and pass the .onnx file")
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= size - 8:
        raise _refused(source, "is a safetensors file (weights without a graph), not ONNX", _EXPORT_TORCH)


def parse(data: bytes, source: Path) -> ModelProto:
    """The protobuf in `data`, without its external data. Raises InputRejected when it is not an ONNX model."""
    try:
        model = ModelProto.FromString(data)
    except DecodeError as error:
        raise _refused(
            source, "cannot be read as ONNX: it is damaged, cut short, or not an ONNX file", "copy or export it again"
        ) from error
    if not model.HasField("graph"):
        tensorflow = source.suffix == ".pb" or b"Placeholder" in data[: 1 << 20] or b"saved_model" in data[: 1 << 20]
        what = "is a TensorFlow graph, not ONNX" if tensorflow else "holds no ONNX graph"
        raise _refused(source, what, _EXPORT_TF if tensorflow else "copy or export it again")
    return model


def check_structure(model: ModelProto, source: Path) -> None:
    """Raises InputRejected for a graph without content, from the future, too big when expanded, or of unknown operators."""
    if not model.graph.node:
        raise _refused(source, "its graph has no nodes: there is nothing to run", "export it again")
    if not model.graph.output:
        raise _refused(source, "its graph has no outputs", "export it again with the outputs named")
    _check_names(model, source)
    _check_versions(model, source)
    _check_size(model, source)
    _check_operators(model, source)


def _check_names(model: ModelProto, source: Path) -> None:
    """protobuf hands out a string that is not UTF-8 as bytes."""
    if not all(isinstance(name, str) for name in _names(model)):
        raise _refused(source, "holds a name that is not UTF-8", "copy or export it again")


def _names(model: ModelProto) -> Iterator[str]:
    for node in all_nodes(model):
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output, *(a.name for a in node.attribute))
    for value in [*model.graph.input, *model.graph.output]:
        yield from (value.name, *(dim.dim_param for dim in value.type.tensor_type.shape.dim))
    yield from (tensor.name for tensor in stored_tensors(model))
    yield from (opset.domain for opset in model.opset_import)
    yield from (model.producer_name, model.producer_version)


def _check_versions(model: ModelProto, source: Path) -> None:
    if model.ir_version > onnx.IR_VERSION:
        raise _refused(
            source,
            f"has IR version {model.ir_version}; the newest supported is {onnx.IR_VERSION}",
            f"save it with model.ir_version = {onnx.IR_VERSION}, or export it with an older onnx",
        )
    newest = {domain: int(versions[1]) for domain, versions in onnx.defs.C.schema_version_map().items()}
    for opset in model.opset_import:
        limit = newest.get(domain_of(opset.domain), opset.version)
        if opset.version > limit:
            raise _refused(
                source,
                f"has opset {opset.version} of domain '{opset.domain or 'ai.onnx'}'; the newest supported is {limit}",
                f"export it with opset {limit} or lower",
            )
    if default_opset(model) == 0 and any(domain_of(node.domain) == "" for node in all_nodes(model)):
        raise _refused(source, "does not say which opset it uses", "export it again with an opset version")


def _check_size(model: ModelProto, source: Path) -> None:
    functions = {(domain_of(f.domain), f.name): f for f in model.functions}
    counter = _Expansion(functions, source)
    total = counter.graph(model.graph, 1)
    if total > MAX_NODES:
        raise _refused(source, f"expands to {total} nodes; at most {MAX_NODES} are accepted", "export a simpler graph")


class _Expansion:
    """Counts nodes with every local function expanded; each function is counted once, so a function bomb costs nothing."""

    def __init__(self, functions: dict[tuple[str, str], FunctionProto], source: Path) -> None:
        self.functions = functions
        self.source = source
        self.known: dict[tuple[str, str], int] = {}
        self.open: set[tuple[str, str]] = set()

    def graph(self, graph: GraphProto, depth: int) -> int:
        return sum(self.node(node, depth) for node in graph.node)

    def node(self, node: NodeProto, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise _refused(self.source, f"nests graphs or functions deeper than {MAX_DEPTH}", "export a simpler graph")
        key = (domain_of(node.domain), node.op_type)
        inner = sum(self.graph(graph, depth + 1) for _, graph in subgraphs(node))
        return 1 + inner + (self.function(key, depth) if key in self.functions else 0)

    def function(self, key: tuple[str, str], depth: int) -> int:
        if key in self.open:
            raise _refused(self.source, f"its function '{key[1]}' calls itself", "export a graph without recursion")
        if key not in self.known:
            self.open.add(key)
            self.known[key] = sum(self.node(node, depth + 1) for node in self.functions[key].node)
            self.open.discard(key)
        return self.known[key]


def _check_operators(model: ModelProto, source: Path) -> None:
    """Every operator is ONNX's, ONNX Runtime's own, or one of the model's functions."""
    known = {(domain_of(schema.domain), schema.name) for schema in ort_native.get_all_operator_schema()}
    known |= {(domain_of(f.domain), f.name) for f in model.functions}
    domains = {domain for domain, _ in known}
    for node in all_nodes(model):
        domain = domain_of(node.domain)
        if (domain, node.op_type) in known:
            continue
        if domain not in domains:
            what = f"node '{node.name}' uses '{op_name(node)}' of the unknown domain '{domain}'"
        else:
            what = f"node '{node.name}' uses the unknown operator '{op_name(node)}'"
        raise _refused(source, what, "custom operators are not supported: export it with standard operators")


def check_tensor(tensor: TensorProto, source: Path) -> None:
    """Raises InputRejected for a stored tensor whose data does not fill its shape, or that holds NaN."""
    if tensor.data_type == TensorProto.STRING:
        return
    try:
        values = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, NotImplementedError) as error:
        what = f"weight '{tensor.name}' is damaged: its data does not fill its shape"
        raise _refused(source, what, "copy or export it again") from error
    if values.dtype.kind in "fV" and np.isnan(values).any():
        raise nan_found(tensor.name, source)


def nan_found(name: str, source: Path) -> InputRejected:
    """The refusal of a weight that holds NaN."""
    next_step = "its training diverged or the file is damaged: export it from a good checkpoint"
    return _refused(source, f"weight '{name}' holds NaN", next_step)
