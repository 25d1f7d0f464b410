"""The Python binding of libekrun: one file, with numpy or without, for Python 3.8 and later."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit.devices.arm64_root import PACKAGES, cpuinfo, fetch_packages
from edgekit.engines.closure import native_library
from edgekit.runner import BUNDLED
from edgekit.runner.build import LIBRARY
from edgekit.store import Cache
from tests.board import QEMU, default_cache, require_board
from tests.ekrun_tools import ekrun, outputs
from tests.libekrun_desk import FILE, HEAD, Folder, equip, mixed, python, said, sums, with_openvino

NUMPY = [True, False]


@pytest.mark.parametrize("path", [FILE, BUNDLED["examples/example.py"]])
def test_it_is_written_for_python_3_8(path: Path) -> None:
    """Its grammar; annotations stay texts, so what they say need not exist there."""
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {
        "__future__",
        "ctypes",
        "operator",
        "os",
        "threading",
        "collections.abc",
        "pathlib",
        "typing",
        "numpy",
        "sys",
        "ekrun",
    }
    methods = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not methods & {
        "removeprefix",
        "removesuffix",
        "is_relative_to",
        "with_stem",
        "readlink",
        "bit_count",
        "batched",
    }
    zips = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip"]
    assert not [node for node in zips if node.keywords]
    with pytest.raises(SyntaxError):
        ast.parse("match x:\n    case 1: pass", feature_version=(3, 8))


def test_its_dtypes_and_codes_are_the_headers() -> None:
    script = HEAD + "print(json.dumps([ekrun._DTYPES, ekrun.USAGE, ekrun.MEMORY, ekrun.API]))"
    dtypes, usage, memory, api = json.loads(said(script, "."))
    header = (LIBRARY / "include/ekrun.h").read_text()
    for number, name in enumerate(dtypes[1:], 1):
        assert f"EKRUN_{name.upper()} = {number}," in header
    assert f"EKRUN_USAGE = {usage}," in header and f"EKRUN_MEMORY = {memory}," in header
    assert f"#define EKRUN_API {api}\n" in header


RUN = (
    HEAD
    + """
samples, threads = int(sys.argv[2]), int(sys.argv[3])
with ekrun.Model(folder, library=sys.argv[4]) as model:
    def feed(port, k):
        with open(f"{folder}/{port.name}.bin", "rb") as file:
            data = file.read()
        size = len(data) // samples
        piece = data[k * size : (k + 1) * size]
        if ekrun.numpy is None:
            return ekrun.Tensor(port.dtype, port.shape, piece) if k % 2 else piece
        return ekrun.numpy.frombuffer(piece, port.dtype).reshape(port.shape)

    def work(found):
        with model.stream() as stream:
            for k in range(samples):
                answers = stream.run({port.name: feed(port, k) for port in model.inputs if not port.state})
                for name, answer in answers.items():
                    found.setdefault(name, []).append(bytes(answer.data) if ekrun.numpy is None else answer.tobytes())
                    assert isinstance(answer, ekrun.Tensor) == (ekrun.numpy is None)

    found = [{} for _ in range(threads)]
    workers = [threading.Thread(target=work, args=(one,)) for one in found]
    [worker.start() for worker in workers], [worker.join() for worker in workers]
    assert all(one == found[0] and one for one in found)
    for index, port in enumerate(model.outputs):
        with open(f"{folder}/out.{index}", "wb") as file:
            file.write(b"".join(found[0][port.name]))
"""
)


def expect_the_same(folder: Folder, numpy: bool, threads: int = 1) -> None:
    """What Python gets is what ekrun writes, to the bit."""
    wanted = outputs(ekrun("run", folder.path, "--out", folder.path / "out"), folder.path / "out")
    for name, file in folder.record["golden"]["inputs"].items():
        (folder.path / f"{name}.bin").write_bytes(np.load(folder.path / file).tobytes())
    libekrun = next(folder.path.glob("*/libekrun.so"))
    said(RUN, folder.path, folder.record["golden"]["samples"], threads, libekrun, numpy=numpy)
    for index, array in enumerate(wanted):
        assert (folder.path / f"out.{index}").read_bytes() == array.tobytes()


@pytest.mark.parametrize("numpy", NUMPY)
def test_answers_are_those_of_ekrun_run(tmp_path: Path, numpy: bool) -> None:
    expect_the_same(mixed(tmp_path / "one"), numpy)
    expect_the_same(sums(tmp_path / "two"), numpy, threads=6)


def test_openvino(tmp_path: Path) -> None:
    expect_the_same(with_openvino(mixed(tmp_path / "bundle")), numpy=True, threads=3)


TOLD = (
    HEAD
    + """
model = ekrun.Model(folder)
print(json.dumps([model.engine, model.inputs, model.outputs]))
model.close()
model.close()
refused(ekrun.USAGE, "a model and a place", model.stream)
"""
)


@pytest.mark.parametrize("numpy", NUMPY)
def test_a_model_tells_what_it_is(tmp_path: Path, numpy: bool) -> None:
    engine, inputs, results = json.loads(said(TOLD, mixed(tmp_path / "one").path, numpy=numpy))
    assert engine.startswith("onnxruntime 1.")
    assert inputs == [["x", "float32", [1, 3, 5], None], ["k", "int64", [1], None]]
    y, where, half = ("y", "float32", [1, 3, 4]), ("where", "int64", [3, -1]), ("half", "float16", [1, 3, 5])
    assert results == [[*port, None] for port in (y, where, half)]
    _, inputs, _ = json.loads(said(TOLD, sums(tmp_path / "two").path, numpy=numpy))
    assert inputs == [["x", "float32", [2], None], ["s", "float32", [2], "t"]]


WRONG = (
    HEAD
    + """
model = ekrun.Model(folder)
x, k = ekrun.Tensor("float32", (1, 3, 5), bytes(60)), ekrun.Tensor("int64", (1,), bytes(8))
right = model.run({"x": x, "k": k})
for name, inputs, words in (
    ("absent", {"x": x, "k": k, "absent": x}, "no input 'absent'"),
    ("not given", {"x": x}, "input 'k' is not given"),
    ("nothing", {}, "input 'x' is not given"),
    ("dtype", {"x": x._replace(dtype="float64", data=bytes(120)), "k": k}, "input 'x' is float32, float64 is given"),
    ("no dtype", {"x": x._replace(dtype="complex64"), "k": k}, "no dtype is given"),
    ("bytes", {"x": x._replace(data=bytes(59)), "k": k}, "input 'x' is given 59 bytes, its shape and type need 60"),
    ("more", {"x": x._replace(data=bytes(64)), "k": k}, "given 64 bytes"),
    ("shape", {"x": x._replace(shape=(1, 5, 3)), "k": k}, "input 'x' has shape [1,3,5], [1,5,3] is given"),
    ("rank", {"x": x._replace(shape=(15,)), "k": k}, "[15] is given"),
    ("ranks", {"x": x._replace(shape=(1,) * 40), "k": k}, "40 dimensions"),
    ("negative", {"x": x._replace(shape=(1, -3, -5)), "k": k}, "[1,?,?] is given"),
    ("raw", {"x": bytes(59), "k": k}, "given 59 bytes"),
    ("numbers", {"x": array.array("d", [0] * 15), "k": k}, "float64 is given"),
    ("terminal", {"x": x, "k": k, "\\x1b[31m": x}, "no input '\\\\x1b[31m'"),
    ("cut to 3", {"x": x._replace(shape=(1, 2**64 + 3, 5)), "k": k}, "too large"),
    ("cut to -1", {"x": x._replace(shape=(1, 2**64 - 1, 5)), "k": k}, "too large"),
    ("no shape", {"x": x._replace(shape=None), "k": k}, "its shape None is none"),
    ("half a shape", {"x": x._replace(shape=(1, 3, 5.0)), "k": k}, "its shape (1, 3, 5.0) is none"),
    ("a list", {"x": x._replace(data=[0.0] * 15), "k": k}, "the data of its Tensor is list, which is no buffer"),
    ("a text", {"x": x._replace(data="x"), "k": k}, "is str, which is no buffer"),
    ("a number", {3: x, "k": k}, "an input is called 3"),
):
    refused(ekrun.INPUT, words, model.run, inputs)
    assert ekrun.numpy is not None or model.run({"x": x, "k": k}) == right, name
for zeros in (array.array("f", [0] * 15), (ctypes.c_float * 15)(), x._replace(data=(ctypes.c_float * 15)())):
    same = model.run({"x": zeros, "k": array.array("q", [0])})
    assert ekrun.numpy is not None or same == right
for threads in (1025, 2**32 + 1, -1, "2", None):
    refused(ekrun.USAGE, "threads", ekrun.Model, folder, threads=threads)
refused(ekrun.INPUT, "not an unpacked bundle", ekrun.Model, folder + "/lib", library="ignored: it is there")
with model.stream() as stream:
    pass
refused(ekrun.USAGE, "a stream", stream.run, {"x": x, "k": k})
if ekrun.numpy is not None:
    import numpy
    noise = numpy.random.default_rng(0).normal(size=(1, 3, 5)).astype("f4")
    one = numpy.int64([3])
    wanted = model.run({"x": noise, "k": one})
    for name, other in (
        ("fortran", numpy.asfortranarray(noise)), ("big-endian", noise.astype(">f4")), ("strided", noise.repeat(2, 2)[..., ::2]),
        ("read-only", numpy.frombuffer(noise.tobytes(), "f4").reshape(1, 3, 5)), ("list", None),
    ):
        for given in (noise if other is None else other, ekrun.Tensor("float32", (1, 3, 5), noise if other is None else other)):
            found = model.run({"x": given, "k": one})
            assert all((found[key] == wanted[key]).all() for key in wanted), name
    reversed = ekrun.Tensor("float32", (1, 3, 5), noise[:, ::-1, ::-1])
    found = model.run({"x": reversed, "k": one})
    wanted = model.run({"x": noise[:, ::-1, ::-1].copy(), "k": one})
    assert all((found[key] == wanted[key]).all() for key in wanted), "from its end"
    refused(ekrun.INPUT, "other things than numbers", model.run, {"x": x, "k": ekrun.Tensor("int64", (1,), numpy.array([None]))})
    refused(ekrun.INPUT, "input 'x': ", model.run, {"x": [[1.0], [1.0, 2.0]], "k": one})
    refused(ekrun.INPUT, "byte order", model.run, {"x": x._replace(data=memoryview(noise.astype(">f4"))), "k": one})
    refused(ekrun.INPUT, "float64 is given", model.run, {"x": noise.astype("f8"), "k": one})
    refused(ekrun.INPUT, "[3,5] is given", model.run, {"x": noise[0], "k": one})
    kept = model.run({"x": noise, "k": one})["y"]
    before = kept.copy()
    model.run({"x": -noise, "k": one})
    assert (kept == before).all() and kept.flags.writeable, "what comes out is a copy"
else:
    refused(ekrun.INPUT, "list is neither a Tensor nor a buffer", model.run, {"x": [0] * 15, "k": k})
print("done")
"""
)


@pytest.mark.parametrize("numpy", NUMPY)
def test_wrong_names_sizes_and_types_are_refused_and_leave_the_stream_well(tmp_path: Path, numpy: bool) -> None:
    assert said(WRONG, mixed(tmp_path / "bundle").path, numpy=numpy) == "done\n"


CLOSED = (
    HEAD
    + """
import pickle
error = pickle.loads(pickle.dumps(ekrun.Error(ekrun.INPUT, "words")))
assert (type(error), error.code, str(error), error.args) == (ekrun.Error, ekrun.INPUT, "words", ("words",))
model = ekrun.Model(folder)
began, closed, answers, ended = threading.Event(), threading.Event(), [], []
class Held(dict):
    def items(self):
        began.set()
        assert closed.wait(30)
        return super().items()
feeds = {"x": ekrun.Tensor("float32", (1, 3, 5), bytes(60)), "k": ekrun.Tensor("int64", (1,), bytes(8))}
free = model._lib.ekrun_stream_close
model._lib.ekrun_stream_close = lambda stream: (ended.append(stream.value), free(stream))
model.run(feeds)
one = threading.Thread(target=lambda: answers.append(model.run(Held(feeds))))
one.start()
assert began.wait(30)
model.close()
assert not ended, "a run is under way"
closed.set()
one.join()
assert len(answers) == len(ended) == 1 and not model._idle, "and frees its stream"
refused(ekrun.USAGE, "a model and a place", model.run, feeds)
model.close()
print("done")
"""
)


def test_a_model_that_is_closed_while_it_runs_is_freed_after_that_run(tmp_path: Path) -> None:
    """Errors travel between processes, too."""
    assert said(CLOSED, mixed(tmp_path / "bundle").path, numpy=False) == "done\n"


STATES = (
    HEAD
    + """
import struct
def floats(*values):
    return ekrun.Tensor("float32", (len(values),), struct.pack("2f", *values))
def told(answers):
    return tuple(struct.unpack("2f", answers["y"].data))
with ekrun.Model(folder) as model:
    refused(ekrun.USAGE, "use a stream", model.run, {"x": floats(1, 2)})
    one, other = model.stream(), model.stream()
    assert told(one.run({"x": floats(1, 2)})) == (10, 20)
    assert told(one.run({"x": floats(1, 2)})) == (20, 40)
    assert told(other.run({"x": floats(1, 2)})) == (10, 20), "a stream's states are its own"
    refused(ekrun.INPUT, "not given", one.run, {})
    refused(ekrun.INPUT, "float64 is given", one.run, {"x": ekrun.Tensor("float64", (2,), bytes(16))})
    long = ekrun.Tensor("float32", (3,), bytes(12))
    refused(ekrun.INPUT, "input 's' has shape [2], [3] is given", one.run, {"x": floats(1, 2), "s": long})
    assert told(one.run({"x": floats(1, 2)})) == (30, 60), "a refused run leaves the states"
    assert told(one.run({"x": floats(1, 2), "s": floats(100, 200)})) == (1010, 2020)
    assert told(one.run({"x": floats(1, 2)})) == (1020, 2040)
    one.reset()
    assert told(one.run({"x": floats(1, 2)})) == (10, 20)
    assert told(other.run({"x": floats(1, 2)})) == (20, 40)
    one.close(), other.close()
print("done")
"""
)


def test_states(tmp_path: Path) -> None:
    """Carried by their stream, from zeros or from what is given, until a reset."""
    assert said(STATES, sums(tmp_path / "bundle").path, numpy=False) == "done\n"


TWO = (
    HEAD
    + """
import ctypes
one, other = ekrun.Model(folder), ekrun.Model(sys.argv[2])
x, k = ekrun.Tensor("float32", (1, 3, 5), bytes(60)), ekrun.Tensor("int64", (1,), bytes(8))
alone = one.run({"x": x, "k": k})["half"].data
def work():
    for _ in range(200):
        assert one.run({"x": x, "k": k})["half"].data == alone
def sum_up():
    with other.stream() as stream:
        for _ in range(200):
            stream.run({"x": ekrun.Tensor("float32", (2,), bytes(8))})
threads = [threading.Thread(target=work) for _ in range(4)] + [threading.Thread(target=sum_up) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert 1 <= len(one._idle) <= 4
# what C alone lets one do
lib, busy = one._lib, one.stream()
assert lib.ekrun_model_open(None, None, None) == ekrun.USAGE and b"a folder and a place" in lib.ekrun_error()
for open_nothing in (lambda place: lib.ekrun_model_open(None, None, place), lambda place: lib.ekrun_stream_open(None, place)):
    place = ctypes.c_void_p(77)
    assert open_nothing(ctypes.byref(place)) == ekrun.USAGE and not place, "on failure it is NULL"
assert lib.ekrun_stream_run(None, None, 0) == ekrun.USAGE
view = ekrun._Tensor()
assert lib.ekrun_stream_output(busy._stream, 0, ctypes.byref(view)) == ekrun.USAGE and b"no outputs" in lib.ekrun_error()
busy.run({"x": x, "k": k})
assert lib.ekrun_stream_output(busy._stream, 3, ctypes.byref(view)) == ekrun.USAGE
assert lib.ekrun_model_input(one._model, 2, ctypes.byref(view)) == ekrun.USAGE
assert lib.ekrun_model_state(one._model, 99) == -1 and lib.ekrun_dtype_size(99) == 0
lib.ekrun_model_close(None), lib.ekrun_stream_close(None)
class Later(ctypes.Structure):
    _fields_ = (("known", ekrun._Options), ("more", ctypes.c_int64))
lib.ekrun_model_open.argtypes = None
place = ctypes.c_void_p()
for options, status in (
    (ekrun._Options(16, 2, 0), 0), (ekrun._Options(12, 2, 77), 0), (ekrun._Options(16, 2, 77), 2), (ekrun._Options(4, 2, 0), 2),
    (Later(ekrun._Options(24, 1, 0), 0), 0), (Later(ekrun._Options(24, 1, 0), 1), 2),
):
    assert lib.ekrun_model_open(folder.encode(), ctypes.byref(options), ctypes.byref(place)) == status, options
    assert bool(place) == (status == 0)
    lib.ekrun_model_close(place)
print("done")
"""
)


def test_two_models_at_once_and_what_c_alone_can_do_wrong(tmp_path: Path) -> None:
    """Options of an older and of a later header too."""
    assert said(TWO, mixed(tmp_path / "one").path, sums(tmp_path / "two").path, numpy=False) == "done\n"


BUSY = (
    HEAD
    + """
stream = ekrun.Model(folder).stream()
feeds = {"x": ekrun.Tensor("float32", (1, 3, 5), bytes(60)), "k": ekrun.Tensor("int64", (1,), bytes(8))}
stream._turn = type("NoTurn", (), {"__enter__": lambda self: None, "__exit__": lambda self, *_: None})()
codes = set()
def work():
    for _ in range(20000):
        try:
            stream.run(feeds)
        except ekrun.Error as error:
            codes.add(error.code)
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
print(sorted(codes))
"""
)


def test_a_stream_that_two_threads_use_at_once_is_refused(tmp_path: Path) -> None:
    """C notices what the binding's lock, taken away here, prevents."""
    assert said(BUSY, mixed(tmp_path / "bundle").path, numpy=False) == "[2]\n"


def test_without_libekrun_or_with_another_file_in_its_place(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "bundle").path
    (folder / "lib/libekrun.so").unlink()
    script = HEAD + "refused(ekrun.LIBRARY, 'libekrun.so', ekrun.Model, folder)"
    said(script, folder)
    (folder / "lib/libekrun.so").write_text("no library")
    said(script, folder)


@pytest.mark.parametrize("numpy", NUMPY)
def test_the_example(tmp_path: Path, numpy: bool) -> None:
    folder = mixed(tmp_path / "bundle").path
    flags = [] if numpy else ["-S"]
    argv = [sys.executable, *flags, str(folder / "examples/example.py")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path, env=env)
    assert not list(folder.rglob("__pycache__")), "a slot stays as it was signed"
    lines = done.stdout.splitlines()
    assert lines[0].startswith("onnxruntime 1.")
    assert lines[1:] == ["y float32 (1, 3, 4)", "where int64 (3, 0)", "half float16 (1, 3, 5)"]


def test_a_program_that_fails_ends_as_programs_do(tmp_path: Path) -> None:
    """Negative control of `said`: an error that nobody catches."""
    done = python(HEAD + "ekrun.Model(folder)", tmp_path)
    assert done.returncode == 1
    assert "ekrun.Error: " in done.stderr


PYTHON_PACKAGES = "python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libexpat1 libffi8 libbz2-1.0 liblzma5"


@pytest.mark.board
def test_on_an_emulated_board(tmp_path: Path) -> None:
    """Debian's Python for arm64, which has no numpy, runs the example of the bundle."""
    require_board()
    cache = Cache(default_cache())
    if cache.get("test-roots", "python-1") is None:
        with cache.scratch() as work, cache.filling("test-roots", "python-1") as root:
            fetch_packages([*PACKAGES, *PYTHON_PACKAGES.split()], root, work)
            (root / "proc").mkdir()
            (root / "proc/cpuinfo").write_text(cpuinfo("cortex-a76", 2))
    root = cache.root / "test-roots/python-1"
    folder = equip(sums(tmp_path / "bundle"), "aarch64")
    (folder.path / "lib/libonnxruntime.so.1").unlink()
    there = native_library("onnxruntime", "1.32.0", "aarch64", default_cache()).library
    (folder.path / "lib/libonnxruntime.so.1").symlink_to(there)
    script = folder.path / "states.py"
    script.write_text(STATES.replace(repr(str(FILE.parent)), repr(str(folder.path / "python"))))
    interpreter = [QEMU, "-cpu", "cortex-a76", "-L", str(root), str(root / "usr/bin/python3.11")]
    for argv in ([str(script), str(folder.path)], [str(folder.path / "examples/example.py")]):
        done = subprocess.run([*interpreter, *argv], capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1:] == ["y float32 (2,)", "t float32 (2,)"]
