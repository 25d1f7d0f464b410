"""Models that misbehave, built in code: each `Case` writes one into a folder and says how it must be refused.

`bytes`-returning builders make whole files; `Case.write(folder)` returns the path to pass to edgekit.
"""

import io
import os
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from edgekit.errors import EdgekitError, InputRejected, ResourceLimit, UsageError

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Case:
    """`says` stands in the error; `isolate` marks what hangs, swells or crashes: only ever to be run in a limited child."""

    write: Callable[[Path], Path]
    error: type[EdgekitError] | None
    says: str = ""
    isolate: bool = False


# ------------------------------------------------------------------------------------------------------- building blocks


def value(name: str, shape: list[int | str | None] | None, elem_type: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, elem_type, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    ir: int = 8,
    domains: tuple[tuple[str, int], ...] = (),
) -> ModelProto:
    """A model from its parts; `domains` are further opset imports."""
    stored = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, stored)
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)


def linear(weight: np.ndarray | None = None, **options: int) -> ModelProto:
    """y = x @ w, x is [1, 4]; w is [4, 3] unless given."""
    w = np.arange(12, dtype=np.float32).reshape(4, 3) if weight is None else weight
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return model([node], [value("x", [1, w.shape[0]])], [value("y", [1, w.shape[1]])], {"w": w}, **options)


def unary(op: str = "Relu", *, domain: str = "", shape: list[int | str | None] | None = None) -> ModelProto:
    """y = op(x)."""
    node = helper.make_node(op, ["x"], ["y"], domain=domain, name="node 0")
    form = [1, 4] if shape is None else shape
    return model([node], [value("x", form)], [value("y", form)], domains=((domain, 1),) if domain else ())


def _file(make: Callable[[], bytes | ModelProto], name: str = "model.onnx") -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        made = make()
        path = folder / name
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return path

    return write


# -------------------------------------------------------------------------------------------------------- not a model


def zero_bytes() -> bytes:
    return b""


def truncated() -> bytes:
    data = linear().SerializeToString()
    return data[: len(data) * 2 // 3]


def random_bytes() -> bytes:
    return random.Random(7).randbytes(4096)


def pytorch_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("net/data.pkl", b"\x80\x02}q\x00.")
    return buffer.getvalue()


def tflite() -> bytes:
    return b"\x1c\x00\x00\x00TFL3" + bytes(64)


def safetensors() -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    return len(header).to_bytes(8, "little") + header + bytes(4)


def tensorflow_graph() -> bytes:
    """A frozen GraphDef: its field 1 is a message, ONNX's is a number."""
    node = b"\x0a\x01x\x12\x0bPlaceholder"
    return b"\x0a" + bytes([len(node)]) + node


def git_lfs_pointer() -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def html() -> bytes:
    return b"<!DOCTYPE html><html><body>Not found</body></html>"


def openvino_xml() -> bytes:
    return b'<?xml version="1.0"?>\n<net name="g" version="11"></net>'


def fifo(folder: Path) -> Path:
    path = folder / "pipe.onnx"
    os.mkfifo(path)
    return path


def directory(folder: Path) -> Path:
    path = folder / "model.onnx"
    path.mkdir()
    return path


# ---------------------------------------------------------------------------------------------------- wrong structure


def no_nodes() -> ModelProto:
    return model([], [value("x", [1])], [value("x", [1])])


def no_outputs() -> ModelProto:
    made = unary()
    del made.graph.output[:]
    return made


def future_opset() -> ModelProto:
    return linear(opset=999)


def future_ir() -> ModelProto:
    return linear(ir=99)


def nan_weights() -> ModelProto:
    w = np.ones((4, 3), np.float32)
    w[2, 1] = np.nan
    return linear(w)


def infinite_weights() -> ModelProto:
    """Legal: attention masks hold -inf."""
    return linear(np.array([[-np.inf], [np.inf], [1], [1]], np.float32))


def short_weight() -> ModelProto:
    made = linear()
    made.graph.initializer[0].raw_data = b"\0" * 8
    return made


def type_mismatch() -> ModelProto:
    """Parses and has known operators, but no runtime loads it: a float is added to an integer."""
    node = helper.make_node("Add", ["x", "n"], ["y"])
    return model([node], [value("x", [1])], [value("y", [1])], {"n": np.ones(1, np.int64)})


def cyclic() -> ModelProto:
    nodes = [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])]
    return model(nodes, [value("x", [1])], [value("b", [1])])


def function_bomb(levels: int = 10, width: int = 8) -> ModelProto:
    """width ** levels nodes in a few hundred bytes: each function calls the next one `width` times."""
    made = unary("F0", domain="bomb")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("bomb", 1)]
    for level in range(levels):
        inner, domain = ("Relu", "") if level == levels - 1 else (f"F{level + 1}", "bomb")
        nodes = [helper.make_node(inner, [f"t{i}"], [f"t{i + 1}"], domain=domain) for i in range(width)]
        made.functions.append(helper.make_function("bomb", f"F{level}", ["t0"], [f"t{width}"], nodes, opsets))
    return made


def recursive_function() -> ModelProto:
    made = unary("F", domain="loop")
    node = helper.make_node("F", ["a"], ["b"], domain="loop")
    made.functions.append(helper.make_function("loop", "F", ["a"], ["b"], [node], [helper.make_opsetid("loop", 1)]))
    return made


def nested_subgraphs(depth: int = 20) -> ModelProto:
    """`If` within `If`, `depth` deep."""
    leaf = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "leaf", [], [value("o", [1])])
    graph = leaf
    for level in range(depth):
        node = helper.make_node("If", ["c"], [f"o{level}"], then_branch=graph, else_branch=leaf)
        graph = helper.make_graph([node], f"l{level}", [], [value(f"o{level}", [1])])
    graph.input.extend([value("x", [1]), value("c", [1], TensorProto.BOOL)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def escape_codes() -> ModelProto:
    """Names that would clear a terminal, if they were printed."""
    node = helper.make_node("Relu", ["x\x1b[2J$(touch pwned)"], ["../../y\n"])
    return model([node], [value("x\x1b[2J$(touch pwned)", [1, "n\x1b[31m"])], [value("../../y\n", [1, None])])


def not_utf8() -> bytes:
    return unary("Relu").SerializeToString().replace(b"node 0", b"node\xff0")


def symbolic_axis() -> ModelProto:
    """The batch is open, and so is the width."""
    return unary(shape=["batch", 3, 32, "width"])


# ------------------------------------------------------------------------------------------------------ external data


def external_model(folder: Path, location: str = "weights.bin", *, write: bool = True) -> Path:
    """`linear` with its weight in another file beside the model."""
    made = linear(np.arange(4096, dtype=np.float32).reshape(4, 1024))
    tensor = made.graph.initializer[0]
    data = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=text)
    if write:
        (folder / location).write_bytes(data)
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def external_missing(folder: Path) -> Path:
    return external_model(folder, write=False)


def external_outside(folder: Path) -> Path:
    inner = folder / "inner"
    inner.mkdir()
    (folder / "weights.bin").write_bytes(bytes(16384))
    return external_model(inner, "../weights.bin", write=False)


def external_absolute(folder: Path) -> Path:
    return external_model(folder, str(folder / "weights.bin"))


def external_memory_address(folder: Path) -> Path:
    return external_model(folder, "*/_ORT_MEM_ADDR_/*", write=False)


def external_short(folder: Path) -> Path:
    path = external_model(folder)
    (folder / "weights.bin").write_bytes(bytes(100))
    return path


def external_symlink(folder: Path) -> Path:
    path = external_model(folder)
    (folder / "weights.bin").rename(folder / "blob")
    (folder / "weights.bin").symlink_to("blob")
    return path


def external_folder_symlink(folder: Path) -> Path:
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    return external_model(folder, "link/weights.bin")


def external_hardlink(folder: Path) -> Path:
    path = external_model(folder)
    (folder / "other").hardlink_to(folder / "weights.bin")
    return path


# ------------------------------------------------------------------------------------------ what hangs, swells, crashes


def _loop_body() -> GraphProto:
    nodes = [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Add", ["v", "v"], ["w"])]
    inputs = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("v", [1])]
    return helper.make_graph(nodes, "body", inputs, [value("again", [], TensorProto.BOOL), value("w", [1])])


def endless_loop() -> ModelProto:
    node = helper.make_node("Loop", ["", "yes", "x"], ["y"], body=_loop_body())
    return model([node], [value("x", [1])], [value("y", [1])], {"yes": np.array(True)})


def huge_constant(elements: int = 1 << 33) -> ModelProto:
    """150 bytes that ask for `elements` floats."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["big"]),
        helper.make_node("ReduceMax", ["big"], ["top"], keepdims=0),
        helper.make_node("Add", ["x", "top"], ["y"]),
    ]
    return model(nodes, [value("x", [1])], [value("y", [1])], {"n": np.array([elements], np.int64)})


def openvino_crasher() -> ModelProto:
    """OpenVINO 2026.4 dies of SIGSEGV when it runs this (GatherND does not check its indices); ONNX Runtime reports an error."""
    node = helper.make_node("GatherND", ["x", "i"], ["y"])
    return model([node], [value("x", [4])], [value("y", [1])], {"i": np.array([[10**9]], np.int64)})


def integer_overflow() -> ModelProto:
    """ONNX Runtime 1.32 dies of SIGFPE when it runs this: -2^31 / -1 has no int32 result."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
        helper.make_node("Mul", ["i", "zero"], ["z"]),
        helper.make_node("Add", ["z", "least"], ["low"]),
        helper.make_node("Div", ["low", "minus one"], ["q"]),
        helper.make_node("Cast", ["q"], ["y"], to=FLOAT),
    ]
    numbers = {"zero": 0, "least": -(2**31), "minus one": -1}
    weights = {name: np.array([number], np.int32) for name, number in numbers.items()}
    return model(nodes, [value("x", [1])], [value("y", [1])], weights)


CASES: dict[str, Case] = {
    "missing file": Case(lambda folder: folder / "absent.onnx", InputRejected, "no such file"),
    "fifo": Case(fifo, InputRejected, "not a regular file"),
    "folder": Case(directory, InputRejected, "is a folder"),
    "zero bytes": Case(_file(zero_bytes), InputRejected, "is empty"),
    "truncated": Case(_file(truncated), InputRejected, "cut short"),
    "random bytes": Case(_file(random_bytes), InputRejected, "not an ONNX file"),
    "pytorch": Case(_file(pytorch_zip, "model.pt"), InputRejected, "torch.onnx.export"),
    "tflite": Case(_file(tflite, "model.tflite"), InputRejected, "TensorFlow Lite"),
    "safetensors": Case(_file(safetensors), InputRejected, "safetensors"),
    "tensorflow": Case(_file(tensorflow_graph, "model.pb"), InputRejected, "TensorFlow"),
    "git-lfs": Case(_file(git_lfs_pointer), InputRejected, "git lfs pull"),
    "html": Case(_file(html), InputRejected, "web page"),
    "openvino": Case(_file(openvino_xml, "model.xml"), InputRejected, "OpenVINO"),
    "no nodes": Case(_file(no_nodes), InputRejected, "no nodes"),
    "no outputs": Case(_file(no_outputs), InputRejected, "no outputs"),
    "future opset": Case(_file(future_opset), InputRejected, "opset 999"),
    "future ir": Case(_file(future_ir), InputRejected, "IR version 99"),
    "unknown op": Case(_file(lambda: unary("Frobnicate")), InputRejected, "unknown operator 'Frobnicate'"),
    "unknown domain": Case(_file(lambda: unary("Relu", domain="acme")), InputRejected, "unknown domain 'acme'"),
    "name not utf-8": Case(_file(not_utf8), InputRejected, "not UTF-8"),
    "nan weights": Case(_file(nan_weights), InputRejected, "weight 'w' holds NaN"),
    "short weight": Case(_file(short_weight), InputRejected, "weight 'w' is damaged"),
    "type mismatch": Case(_file(type_mismatch), InputRejected, "ONNX Runtime does not accept it"),
    "cyclic": Case(_file(cyclic), InputRejected, "ONNX Runtime does not accept it"),
    "function bomb": Case(_file(function_bomb), InputRejected, "expands to"),
    "recursive function": Case(_file(recursive_function), InputRejected, "calls itself"),
    "nested subgraphs": Case(_file(nested_subgraphs), InputRejected, "deeper than"),
    "unknown axis": Case(_file(symbolic_axis), UsageError, "--shape x:1x3x32x224"),
    "escape codes": Case(_file(escape_codes), UsageError, "\\x1b"),
    "external missing": Case(external_missing, InputRejected, "missing"),
    "external outside": Case(external_outside, InputRejected, "leaves the model's folder"),
    "external absolute": Case(external_absolute, InputRejected, "leaves the model's folder"),
    "external memory address": Case(external_memory_address, InputRejected, "leaves the model's folder"),
    "external short": Case(external_short, InputRejected, "too short"),
    "external symlink": Case(external_symlink, InputRejected, "cp -L"),
    "external folder symlink": Case(external_folder_symlink, InputRejected, "cp -rL"),
    "external hard link": Case(external_hardlink, InputRejected, "cp -L"),
    "endless loop": Case(_file(endless_loop), ResourceLimit, isolate=True),
    "engine crash": Case(_file(integer_overflow), ResourceLimit, "SIGFPE", isolate=True),
    "huge constant": Case(_file(huge_constant), ResourceLimit, isolate=True),
}
"""Every hostile model by name. `openvino_crasher` is not among them: it is refused by no check, one engine dies of it."""
