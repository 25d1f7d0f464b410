"""Unpacked bundles for libekrun, C programs that are linked with it, and the Python binding in a process of its own."""

import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from edgekit.runner import BUNDLED
from edgekit.runner.build import LIBRARY
from tests.ekrun_tools import libraries, library, save_ir, save_model
from tests.test_ekrun_check import Folder, Record, fill

FILE = LIBRARY / "python/ekrun.py"
PROBE = Path(__file__).parent / "runner/libekrun_probe.c"
CFLAGS = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE=")


def place(path: Path, model: Path, inputs: dict[str, np.ndarray], **record: object) -> Folder:
    """A folder as `edgekit bundle` makes it, whose golden samples expect nothing, with libekrun."""
    path.mkdir(parents=True)
    shutil.move(model, path / model.name)
    folder = fill(path, path / model.name, inputs, [])
    folder.record.update(record)
    return equip(folder)


def equip(folder: Folder, arch: str = "x86_64") -> Folder:
    """Put libekrun and what comes with it where a bundle has them, and write deployment.json."""
    for name, source in (("lib/libekrun.so", libraries()[arch]), *BUNDLED.items()):
        target = folder.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return write(folder)


def write(folder: Folder, **record: object) -> Folder:
    """deployment.json, as it is with these keys changed."""
    folder.record.update(record)
    (folder.path / "deployment.json").write_text(json.dumps(folder.record))
    return folder


def mixed_model(path: Path) -> Path:
    """x[1,3,5], k[1] int64 -> y = x @ w * k, [1,3,4]; where x is not 0, an output whose shape changes; x as float16."""
    weights = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]),
        helper.make_node("Cast", ["k"], ["kf"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["xw", "kf"], ["y"]),
        helper.make_node("NonZero", ["x"], ["where"]),
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
    ]
    inputs = [("x", TensorProto.FLOAT, [1, 3, 5]), ("k", TensorProto.INT64, [1])]
    results = [("y", TensorProto.FLOAT, [1, 3, 4]), ("where", TensorProto.INT64, [3, None])]
    return save_model(path, nodes, inputs, [*results, ("half", TensorProto.FLOAT16, [1, 3, 5])], {"w": weights})


def mixed_feeds(samples: int = 5) -> dict[str, np.ndarray]:
    noise = np.random.default_rng(1)
    x = noise.normal(size=(samples, 1, 3, 5)).astype(np.float32)
    return {"x": x * (noise.random(x.shape) < 0.7), "k": noise.integers(-9, 9, (samples, 1))}


def mixed(path: Path) -> Folder:
    path.parent.mkdir(parents=True, exist_ok=True)
    return place(path, mixed_model(path.parent / f"{path.name}.onnx"), mixed_feeds())


def sums_model(path: Path) -> Path:
    """x[2], s[2] -> t = s + x, fed back to s, and y = 10 t."""
    nodes = [helper.make_node("Add", ["x", "s"], ["t"]), helper.make_node("Mul", ["t", "ten"], ["y"])]
    ports = [(name, TensorProto.FLOAT, [2]) for name in ("x", "s", "y", "t")]
    return save_model(path, nodes, ports[:2], ports[2:], {"ten": np.float32([10])})


def sums(path: Path) -> Folder:
    """A bundle with a state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    feeds = {"x": np.float32([[1, 2], [3, 4], [5, 6]])}
    return place(path, sums_model(path.parent / f"{path.name}.onnx"), feeds, state={"t": "s"})


def with_openvino(folder: Folder) -> Folder:
    """The same bundle for OpenVINO: its library folder is the installed wheel's, so libekrun is in another."""
    model = save_ir(folder.path / folder.record["model"])
    (folder.path / "lib").rename(folder.path / "own")
    installed = Path(library("openvino"))
    (folder.path / "lib").symlink_to(installed.parent)
    return write(folder, engine="openvino", library=f"lib/{installed.name}", model=model.name, options={})


@functools.cache
def compiler(arch: str) -> tuple[str, ...]:
    """The system's own where it can, Zig's for the other architecture."""
    if arch == "x86_64":
        return ("gcc",)
    return (sys.executable, "-m", "ziglang", "cc", "-target", f"{arch}-linux-gnu.2.17")


def compile_with(out: Path, source: Path, kit: Path, arch: str = "x86_64", more: Sequence[str] = ()) -> Path:
    """A program of one C source, linked with the libekrun.so of the folder `kit` by the header beside it."""
    argv = [*compiler(arch), *CFLAGS, f"-I{LIBRARY / 'include'}", str(source), *more]
    argv += [f"-L{kit}", "-lekrun", "-lpthread", f"-Wl,-rpath,{kit}", "-o", str(out)]
    subprocess.run(argv, check=True, timeout=120)
    return out


def probe_args(folder: Folder, out: Path, threads: int = 1, names: Sequence[str] = ()) -> list[str]:
    """The arguments of the probe that give it the folder's golden inputs."""
    words = [str(folder.path), str(out), str(folder.record["golden"]["samples"]), str(threads)]
    for name, file in folder.record["golden"]["inputs"].items():
        array = np.load(folder.path / file)
        raw = out.parent / f"{name}.bin"
        raw.write_bytes(array.tobytes())
        words += [name, str(array.dtype), ",".join(map(str, array.shape[1:])) or "-", str(raw)]
    return words


def python(script: str, *args: object, numpy: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own; without numpy, in one that has no packages at all."""
    flags = [] if numpy else ["-I", "-S"]
    argv = [sys.executable, *flags, "-c", script, *map(str, args)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, env={**os.environ, **env}, check=False)


def said(script: str, *args: object, numpy: bool = True, **env: str) -> str:
    """What a script printed, that ended well and had nothing to complain of."""
    done = python(script, *args, numpy=numpy, **env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


# What scripts begin with: the binding, the bundle's folder, and how a call is refused.
HEAD = f"""
import array, ctypes, json, sys, threading
sys.path.insert(0, {str(FILE.parent)!r})
import ekrun
folder = sys.argv[1]
def refused(code, words, call, *args, **more):
    try:
        call(*args, **more)
    except ekrun.Error as error:
        assert error.code == code and words in str(error), (error.code, str(error))
    else:
        raise AssertionError(f"{{words}}: not refused")
"""

__all__ = ["Folder", "Record"]
