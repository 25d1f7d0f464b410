"""Runs the model of an unpacked edgekit bundle: this file and libekrun.so are all it takes, and Python 3.8 or later.

    import ekrun

    with ekrun.Model("/var/lib/edgekit/apps/digits/current") as model:
        answers = model.run({"image": pixels})

- with numpy, arrays go in and come out; bfloat16 travels as uint16. Without it, what comes out are `Tensor`s of bytes, and what
  goes in are those, or anything with a buffer (bytes, array.array, memoryview) that fills the shape the model declares;
- what comes out is a copy, and stays;
- a Model may be used by any number of threads. A Stream is one sequence of runs, with states of its own; threads take turns on it;
- engines do not survive a fork: after one that follows a Model, the child can open and run none. Fork first, or start processes by
  multiprocessing's "spawn" or "forkserver";
- what fails raises Error, with one of libekrun's codes.
"""

from __future__ import annotations

import ctypes
import operator
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]  # a device may have none: looked at before each use

API = 1

OK, USAGE, LIBRARY, MODEL, INPUT, INFERENCE, IO, MEMORY = 0, 2, 3, 4, 5, 6, 7, 11

_DTYPES = (
    *("", "float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64", "bool"),
)
# The formats of buffers, by kind: how wide the integers are is this machine's business. Of bytes nobody knows what they are.
_KINDS = {**dict.fromkeys("bhilqn", "int"), **dict.fromkeys("HILQN", "uint"), **dict.fromkeys("efd", "float")}


class Error(RuntimeError):
    """What libekrun refused, or could not do; `code` is one of the constants of this module."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, str(self))  # it travels from one process to another


class Tensor(NamedTuple):
    """A tensor without numpy: its elements in C order, as bytes of this machine's order; or an array of whatever order."""

    dtype: str
    shape: tuple[int, ...]
    data: Any


class Port(NamedTuple):
    """An input or output of a model. `shape` has -1 where a dimension is not fixed, and is None where nothing is declared.

    `state` is, for an input that need not be given, the name of the output it holds in the next run.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    state: str | None = None


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("dims", ctypes.POINTER(ctypes.c_int64)),
        ("rank", ctypes.c_int32),
        ("dtype", ctypes.c_int32),
    )


class _Options(ctypes.Structure):
    _fields_ = (("size", ctypes.c_size_t), ("threads", ctypes.c_int32), ("reserved", ctypes.c_int32))


# ------------------------------------------------------------------------------------------------------------ the library

_loading = threading.Lock()
_loaded: list[ctypes.CDLL] = []


def _library(path: Path) -> ctypes.CDLL:
    """libekrun, from `path` unless it is there already: a process has one, as it has one of each engine."""
    if not _loaded:
        with _loading:
            if not _loaded:
                _loaded.append(_declared(_opened(path)))
    return _loaded[0]


def _opened(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Error(LIBRARY, str(error)) from error


def _declared(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, size, tensor = ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(_Tensor)
    signatures = {
        "ekrun_api": (ctypes.c_uint32, ()),
        "ekrun_error": (ctypes.c_char_p, ()),
        "ekrun_dtype_size": (size, (ctypes.c_int32,)),
        "ekrun_model_open": (ctypes.c_int, (ctypes.c_char_p, ctypes.POINTER(_Options), ctypes.POINTER(pointer))),
        "ekrun_model_close": (None, (pointer,)),
        "ekrun_model_engine": (ctypes.c_char_p, (pointer,)),
        "ekrun_model_inputs": (size, (pointer,)),
        "ekrun_model_outputs": (size, (pointer,)),
        "ekrun_model_input": (ctypes.c_int, (pointer, size, tensor)),
        "ekrun_model_output": (ctypes.c_int, (pointer, size, tensor)),
        "ekrun_model_state": (ctypes.c_int64, (pointer, size)),
        "ekrun_stream_open": (ctypes.c_int, (pointer, ctypes.POINTER(pointer))),
        "ekrun_stream_close": (None, (pointer,)),
        "ekrun_stream_run": (ctypes.c_int, (pointer, tensor, size)),
        "ekrun_stream_output": (ctypes.c_int, (pointer, size, tensor)),
        "ekrun_stream_reset": (ctypes.c_int, (pointer,)),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    if lib.ekrun_api() < API:
        raise Error(LIBRARY, f"libekrun has API {lib.ekrun_api()}, {API} is needed")
    return lib


def _check(lib: ctypes.CDLL, status: int) -> None:
    if status != OK:
        raise Error(status, lib.ekrun_error().decode("ascii"))


# ------------------------------------------------------------------------------------------------------ models and streams


def _refuse_after_fork(process: int) -> None:
    """Before a lock is asked for that another thread may have held at the fork. libekrun would say the same."""
    if process != os.getpid():
        raise Error(
            USAGE, "the model was opened before this process was forked, and engines do not survive that: fork first"
        )


class Model:
    """The model of the unpacked bundle in `folder`; `threads` 0 are those that the bundle says, for all streams together.

    libekrun is the bundle's own, or the file `library`; the first one that is opened serves the whole process. Raises Error.
    """

    def __init__(self, folder: Any, *, threads: int = 0, library: Any = None) -> None:
        self._model = ctypes.c_void_p()
        self._process = os.getpid()
        self._idle: list[Stream] = []
        self._changing = threading.Lock()  # what is open: closing ends nobody else's call
        if not isinstance(threads, int) or not 0 <= threads <= 1024:
            raise Error(USAGE, f"threads are 1 to 1024, or 0 for those of the bundle, not {threads!r}")
        place = Path(folder)
        self._lib = _library(Path(library) if library is not None else place.resolve() / "lib" / "libekrun.so")
        options = _Options(ctypes.sizeof(_Options), threads, 0)
        opened = self._lib.ekrun_model_open(bytes(place), ctypes.byref(options), ctypes.byref(self._model))
        _check(self._lib, opened)
        self.engine: str = self._lib.ekrun_model_engine(self._model).decode("utf-8", "replace")
        self.outputs = tuple(self._port(index, False) for index in range(self._lib.ekrun_model_outputs(self._model)))
        self.inputs = tuple(self._port(index, True) for index in range(self._lib.ekrun_model_inputs(self._model)))

    def _port(self, index: int, is_input: bool) -> Port:
        told = _Tensor()
        ask = self._lib.ekrun_model_input if is_input else self._lib.ekrun_model_output
        _check(self._lib, ask(self._model, index, ctypes.byref(told)))
        shape = None if told.rank < 0 else tuple(told.dims[: told.rank])
        state = self._lib.ekrun_model_state(self._model, index) if is_input else -1
        name = told.name.decode("utf-8", "surrogateescape")
        return Port(name, _DTYPES[told.dtype], shape, self.outputs[state].name if state >= 0 else None)

    def stream(self) -> Stream:
        """A new stream. Raises Error."""
        return Stream(self)

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference of a model without states, on whatever stream is idle: the outputs by name. Raises Error."""
        if any(port.state for port in self.inputs):
            raise Error(USAGE, "this model carries states from run to run: use a stream")
        _refuse_after_fork(self._process)
        stream = self._take()
        try:
            return stream.run(inputs)
        finally:
            self._give_back(stream)

    def _take(self) -> Stream:
        with self._changing:
            if self._idle:
                return self._idle.pop()
        return self.stream()

    def _give_back(self, stream: Stream) -> None:
        """Where the model was closed meanwhile, nobody else closes its stream."""
        with self._changing:
            if self._model:
                self._idle.append(stream)
                return
        stream.close()

    def close(self) -> None:
        """Free it, when its streams are closed too, and the runs that are under way are done."""
        if self._process != os.getpid():
            return  # a lock that another thread held at the fork stays held, and libekrun does nothing either
        with self._changing:
            idle, self._idle = self._idle, []
            model, self._model = self._model, ctypes.c_void_p()
        for stream in idle:
            stream.close()
        if model:
            self._lib.ekrun_model_close(model)

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_model", None):
            self.close()


class Stream:
    """One sequence of runs of `model`. Its states are its own. Raises Error."""

    def __init__(self, model: Model) -> None:
        self._stream = ctypes.c_void_p()
        self._process = os.getpid()
        self._lib, self._ports, self._outputs = model._lib, {port.name: port for port in model.inputs}, model.outputs
        self._turn = threading.Lock()
        _refuse_after_fork(model._process)
        with model._changing:
            _check(self._lib, self._lib.ekrun_stream_open(model._model, ctypes.byref(self._stream)))

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One inference: the outputs by name. A state that is given is used in place of the one carried. Raises Error."""
        _refuse_after_fork(self._process)
        given = (_Tensor * len(inputs))()
        kept = [_fill(given[index], name, value, self._ports) for index, (name, value) in enumerate(inputs.items())]
        with self._turn:
            _check(self._lib, self._lib.ekrun_stream_run(self._stream, given, len(inputs)))
            del kept  # what was read is the caller's again
            return {port.name: self._output(index) for index, port in enumerate(self._outputs)}

    def _output(self, index: int) -> Any:
        view = _Tensor()
        _check(self._lib, self._lib.ekrun_stream_output(self._stream, index, ctypes.byref(view)))
        dtype, shape = _DTYPES[view.dtype], tuple(view.dims[: view.rank])
        if numpy is None:
            return Tensor(dtype, shape, ctypes.string_at(view.data, view.bytes))
        array = numpy.empty(shape, "uint16" if dtype == "bfloat16" else dtype)
        ctypes.memmove(array.ctypes.data, view.data, view.bytes)
        return array

    def reset(self) -> None:
        """States hold zeros again in the next run. Raises Error."""
        _refuse_after_fork(self._process)
        with self._turn:
            _check(self._lib, self._lib.ekrun_stream_reset(self._stream))

    def close(self) -> None:
        """Free it."""
        if self._process != os.getpid():
            return
        with self._turn:
            stream, self._stream = self._stream, ctypes.c_void_p()
            if stream:
                self._lib.ekrun_stream_close(stream)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_stream", None):
            self.close()


# ------------------------------------------------------------------------------------------------------------ what goes in


def _fill(tensor: _Tensor, name: str, value: Any, ports: Mapping[str, Port]) -> object:
    """Describe `value` in `tensor`; what must live as long as that is used."""
    if not isinstance(name, str):
        raise Error(INPUT, f"an input is called {name!r}, which is no text")
    port = ports.get(name)
    if not isinstance(value, Tensor):
        value = _buffer(name, value, port) if numpy is None else _array(name, value, port)
    dtype, shape, data = value
    sizes = _sizes(name, shape)
    pointer, size, kept = _memory(name, data)
    # numpy has no bfloat16: its bits come as uint16
    if port is not None and (port.dtype, dtype) == ("bfloat16", "uint16"):
        dtype = "bfloat16"
    dims = (ctypes.c_int64 * max(len(sizes), 1))(*sizes)
    tensor.name, tensor.data, tensor.bytes = name.encode("utf-8", "surrogateescape"), pointer, size
    tensor.dims, tensor.rank = dims, len(sizes)
    tensor.dtype = _DTYPES.index(dtype) if dtype in _DTYPES else 0
    return dims, kept, tensor.name


def _array(name: str, value: Any, port: Port | None) -> Tensor:
    if not isinstance(value, numpy.ndarray) and _is_buffer(value):
        return _buffer(name, value, port)
    array = _plain(name, value)
    return Tensor(array.dtype.name, array.shape, array)


def _plain(name: str, value: Any) -> Any:
    """An array of elements in C order and in this machine's byte order."""
    try:
        array = numpy.asarray(value, order="C")
    except (TypeError, ValueError, OverflowError) as error:
        raise Error(INPUT, f"input '{name}': {error}") from error
    if array.dtype.hasobject:
        raise Error(INPUT, f"input '{name}': {type(value).__name__} holds other things than numbers")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _sizes(name: str, shape: Any) -> list[int]:
    """ctypes would cut what does not fit."""
    try:
        sizes = [operator.index(size) for size in shape]
    except TypeError as error:
        raise Error(INPUT, f"input '{name}': its shape {shape!r} is none: {error}") from error
    if not all(-(2**63) <= size < 2**63 for size in sizes):
        raise Error(INPUT, f"input '{name}': its shape {shape!r} has a dimension that is too large")
    return sizes


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True


def _buffer(name: str, value: Any, port: Port | None) -> Tensor:
    """Bytes are the elements themselves, numbers say what they are. One dimension is shaped as the model declares."""
    if not _is_buffer(value):
        raise Error(INPUT, f"input '{name}': {type(value).__name__} is neither a Tensor nor a buffer")
    view = memoryview(value)
    if port is None:
        raise Error(INPUT, f"the model has no input '{name}'")
    dtype = port.dtype if view.format in "Bc" else _dtype(view)
    if view.ndim != 1:
        return Tensor(dtype, tuple(view.shape or ()), view)
    if port.shape is None or -1 in port.shape:
        raise Error(INPUT, f"input '{name}' has no fixed shape: give an ekrun.Tensor, which has one")
    return Tensor(dtype, port.shape, view)


def _dtype(view: memoryview) -> str:
    """The kind of a buffer's elements; both architectures are little-endian."""
    code = view.format.lstrip("@=<")
    return "bool" if code == "?" else f"{_KINDS.get(code, 'unknown')}{8 * view.itemsize}"


def _memory(name: str, data: Any) -> tuple[int | None, int, object]:
    """Where elements in C order lie, how many bytes they are, and what keeps them there."""
    if numpy is not None and isinstance(data, numpy.ndarray):
        array = _plain(name, data)
        return array.ctypes.data, array.nbytes, array
    if not _is_buffer(data):
        raise Error(INPUT, f"input '{name}': the data of its Tensor is {type(data).__name__}, which is no buffer")
    view = memoryview(data)
    if view.format[:1] in (">", "!"):
        raise Error(INPUT, f"input '{name}': the data of its Tensor is not in this machine's byte order")
    flat = view if view.c_contiguous and view.nbytes else memoryview(view.tobytes())
    held = ctypes.c_char * flat.nbytes
    kept = held.from_buffer_copy(flat) if flat.readonly else held.from_buffer(flat)
    return ctypes.addressof(kept), flat.nbytes, kept
