"""Calling ekrun from tests: the built binaries, the installed engines' libraries, one call, its parsed answer."""

import atexit
import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.process import QUIET_ENVIRONMENT
from edgekit.runner.build import ARCHITECTURES, build_all, build_zig
from tests.sshd import boards_are_asked_for

os.environ.update(
    QUIET_ENVIRONMENT
)  # the engines' telemetry is off only if the environment says so before their import
import onnxruntime
import openvino

Feeds = dict[str, np.ndarray]
Tree = Mapping[str, str | bytes]


@functools.cache
def built() -> dict[str, Path]:
    """The binaries by architecture, built if the sources changed."""
    return _by_architecture("ekrun", static=False)


@functools.cache
def libraries() -> dict[str, Path]:
    """libekrun by architecture."""
    return _by_architecture("libekrun", static=False)


def _by_architecture(program: str, *, static: bool) -> dict[str, Path]:
    made = {path.name.removesuffix(".so"): path for path in build_all(static=static)}
    return {arch: made[f"{program}-{arch}"] for arch in ARCHITECTURES}


@functools.cache
def zig_part() -> Path:
    """The Zig part of ekrun for this machine, to be linked with its C by another compiler."""
    folder = Path(tempfile.mkdtemp(prefix="edgekit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return build_zig(folder, "x86_64")


@functools.cache
def facts_only() -> dict[str, Path]:
    """The static binaries with the verb `facts` only, by architecture: their first build compiles a C library, for minutes."""
    if not boards_are_asked_for():
        pytest.skip("the static programs are built with EDGEKIT_REQUIRE_BOARD=1")
    return _by_architecture("ekrun-facts", static=True)


def _library(package: str, pattern: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return str(next(Path(spec.origin).parent.glob(pattern)))


@functools.cache
def library(engine: str) -> str:
    """The absolute path of an installed engine's shared library."""
    if engine == "onnxruntime":
        return _library("onnxruntime", "capi/libonnxruntime.so.*")
    return _library("openvino", "libs/libopenvino_c.so.*")


@dataclass(frozen=True)
class Answer:
    """How a call of ekrun ended: exit code, the object on stdout's last line, stderr."""

    code: int
    json: dict[str, Any]
    stderr: str


def ekrun(
    *args: object,
    program: Sequence[str] = (),
    stdin: str = "",
    env: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Answer:
    """Run ekrun (or `program`) to its end. `before` runs in the child before exec."""
    argv = [*(program or [str(built()["x86_64"])]), *map(str, args)]
    done = subprocess.run(argv, input=stdin.encode(), capture_output=True, timeout=120, env=env, preexec_fn=before)
    lines = done.stdout.decode().splitlines()
    return Answer(done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr.decode(errors="replace"))


def engine_args(engine: str, model: Path, *, threads: int = 1) -> list[str]:
    """The options every engine verb needs."""
    return ["--engine", engine, "--lib", library(engine), "--model", str(model), "--threads", str(threads)]


def compile_engine(folder: Path, body: str, arch: str = "x86_64") -> list[str]:
    """The arguments that load a library which runs `body` when it is opened, as an engine's static initializers do."""
    source = folder / "engine.c"
    source.write_text(f"{ENGINE_HEAD}\n{body}\n__attribute__((constructor)) static void open_me(void) {{ body(); }}\n")
    library = folder / "libonnxruntime.so"
    argv = [sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu.2.17", "-O1", "-shared", "-fPIC"]
    subprocess.run([*argv, source.name, "-o", library.name, "-lpthread"], cwd=folder, check=True, timeout=120)
    (folder / "m.onnx").touch()
    model = str(folder / "m.onnx")
    return ["--engine", "onnxruntime", "--lib", str(library), "--model", model, "--threads", "1", "--out", str(folder)]


ENGINE_HEAD = """
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
"""


def feed_args(folder: Path, feeds: Feeds) -> list[str]:
    """Write each stacked array into `folder` and name it by `--input`."""
    args = []
    for index, (name, array) in enumerate(feeds.items()):
        path = folder / f"feed{index}.npy"
        np.save(path, array)
        args += ["--input", f"{name}={path}"]
    return args


def outputs(answer: Answer, folder: Path) -> list[np.ndarray]:
    """The arrays `ekrun run` wrote, in the order of the model's outputs."""
    assert answer.code == 0, answer.stderr
    return [np.load(folder / output["file"]) for output in answer.json["outputs"]]


def save_model(
    path: Path, nodes: Sequence[Any], inputs: Sequence[Any], results: Sequence[Any], weights: Feeds | None = None
) -> Path:
    """Save a graph; `inputs` and `results` are (name, element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in results],
        [onnx.numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def save_ir(model: Path) -> Path:
    """The same model as OpenVINO IR, weights unchanged, beside it."""
    path = model.with_suffix(".xml")
    openvino.save_model(openvino.Core().read_model(model), path, compress_to_fp16=False)
    return path


def python_onnxruntime(model: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """The reference: the same model in Python, default options, the same threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(model), options)


def python_openvino(model: Path, sample: Feeds) -> list[np.ndarray]:
    """The reference: one sample through the same IR in Python, f32 forced."""
    compiled = openvino.Core().compile_model(
        save_ir(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    )
    results = compiled(sample)
    return [results[output] for output in compiled.outputs]


def rename_input(model: Path, ir: Path, names: set[str]) -> Path:
    """IR whose first input has several names."""
    read = openvino.Core().read_model(model)
    read.inputs[0].set_names(names)
    openvino.save_model(read, ir, compress_to_fp16=False)
    return ir


def conv_model(path: Path) -> Path:
    """x[1,8,32,32] -> Conv 3x3, Relu -> y[1,16,32,32]."""
    weights = np.random.default_rng(0).normal(size=(16, 8, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]), helper.make_node("Relu", ["c"], ["y"])]
    x, y = ("x", TensorProto.FLOAT, [1, 8, 32, 32]), ("y", TensorProto.FLOAT, [1, 16, 32, 32])
    return save_model(path, nodes, [x], [y], {"w": weights})


def conv_feed(samples: int = 3) -> Feeds:
    """Samples for `conv_model`."""
    return {"x": np.random.default_rng(1).normal(size=(samples, 1, 8, 32, 32)).astype(np.float32)}


def plant(root: Path, files: Tree) -> Path:
    """Write each file, by its path below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode(errors="surrogateescape") if isinstance(content, str) else content)
    return root
