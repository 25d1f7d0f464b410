"""Run a function in a limited child process: everything that touches a model, an engine or a data file goes through here.

- a fresh `python -m edgekit.sandbox`, never a fork: forked children deadlock on engine threads;
- address space, CPU time, file size and core dumps are limited in the child; its resident memory and wall time are watched;
- arguments and results are JSON, converted by the function's own annotations; arrays travel as .npy files, never pickle;
- an `EdgekitError` raised inside arrives as the same error outside; anything else is one `ResourceLimit` with its reason.
"""

import errno
import importlib
import os
import resource
import sys
import traceback
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from edgekit.errors import ERRORS_BY_NAME, EdgekitError, InternalError, ResourceLimit
from edgekit.process import Completed, describe_exit, run

T = TypeVar("T")


@dataclass(frozen=True)
class Limits:
    """What a child may use. The address space has headroom: near the real peak, engines hang or crash instead of failing."""

    rss_bytes: int = 6 << 30
    address_space_bytes: int = 16 << 30
    cpu_s: int = 1200
    wall_s: float = 900.0
    file_bytes: int = 8 << 30


def encode(value: Any) -> bytes:
    """JSON of builtins, dataclasses and paths."""
    return msgspec.json.encode(value, enc_hook=_enc_hook)


def decode(data: bytes, type_: Any) -> Any:
    """The inverse of `encode` for an annotation. Raises msgspec.ValidationError."""
    return msgspec.json.decode(data, type=type_, dec_hook=_dec_hook)


def _enc_hook(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value).__name__)


def _dec_hook(type_: type, value: Any) -> Any:
    if issubclass(type_, Path):
        return Path(value)
    raise NotImplementedError(type_.__name__)


@overload
def call(
    function: str, *, returns: type[T], limits: Limits = ..., cwd: Path | None = ..., task: str = ..., **arguments: Any
) -> T: ...
@overload
def call(
    function: str, *, returns: Any, limits: Limits = ..., cwd: Path | None = ..., task: str = ..., **arguments: Any
) -> Any: ...
def call(
    function: str,
    *,
    returns: Any,
    limits: Limits = Limits(),
    cwd: Path | None = None,
    task: str = "",
    **arguments: Any,
) -> Any:
    """Call `"edgekit.module:function"` with keyword `arguments` in a child and return its result as `returns`.

    `task` names the work in errors ("inspecting model.onnx"). Raises whatever EdgekitError the function raised, ResourceLimit
    when the child crashed, ran out of a limit, or raised anything else.
    """
    request = encode({"function": function, "arguments": arguments, "limits": limits})
    done = run(
        [sys.executable, "-P", "-m", "edgekit.sandbox"],  # -P: no module is ever taken from the working folder
        stdin=request,
        deadline_s=limits.wall_s,
        max_rss_bytes=limits.rss_bytes,
        max_output_bytes=256 << 20,
        cwd=cwd,
        env={"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
    )
    return _result(done, returns, task or function, limits)


def _result(done: Completed, returns: Any, task: str, limits: Limits) -> Any:
    reply: dict[str, Any] = {}
    if done.returncode == 0 and done.stdout:
        try:
            reply = msgspec.json.decode(done.stdout)
        except msgspec.DecodeError as error:
            raise ResourceLimit("the child process answered garbage", where=task) from error
    if "error" in reply:
        raised = reply["error"]
        kind = ERRORS_BY_NAME.get(raised["type"], InternalError)
        raise kind(raised["what"], where=raised["where"], next_step=raised["next_step"])
    if "result" in reply:
        return msgspec.convert(reply["result"], type=returns, dec_hook=_dec_hook)
    if done.out_of_memory:
        raise ResourceLimit(f"needs more than {limits.rss_bytes >> 20} MiB of memory", where=task)
    raise ResourceLimit(f"the child process {describe_exit(done)}{_last_words(done.stderr)}", where=task)


def _last_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return f" ({lines[-1][:300]})" if lines else ""


# ------------------------------------------------------------------------------------------------------------ the child


def _limit(limits: Limits) -> None:
    for kind, value in (
        (resource.RLIMIT_AS, limits.address_space_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (ceiling, ceiling))


def _resolve(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    if not module.startswith("edgekit."):
        raise InternalError("only edgekit's own functions run in the sandbox", where=function)
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _invoke(request: dict[str, Any]) -> dict[str, Any]:
    """Call the function; this is the one boundary where any exception of a library becomes a typed error."""
    # openvino and nncf look this module up and go without it: no analytics client is ever made.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # None means: not to be imported
    try:
        function = _resolve(request["function"])
        hints = typing.get_type_hints(function)
        arguments = {
            name: msgspec.convert(value, type=hints[name], dec_hook=_dec_hook)
            for name, value in request["arguments"].items()
        }
        return {"result": function(**arguments)}
    except EdgekitError as error:
        return _error(type(error).__name__, error.what, error.where, error.next_step)
    except MemoryError:
        return _error("ResourceLimit", "ran out of memory", request["function"])
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _error(
                "DiskFull",
                "the disk is full",
                str(error.filename or ""),
                "free some space or choose another folder with -o or --cache",
            )
        traceback.print_exc()
        return _error("ResourceLimit", f"{type(error).__name__}: {error}", request["function"])
    except Exception as error:  # noqa: BLE001 - the boundary named above
        traceback.print_exc()
        return _error("ResourceLimit", _one_line(error), request["function"])


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"


def _error(kind: str, what: str, where: str, next_step: str = "") -> dict[str, Any]:
    return {"error": {"type": kind, "what": what, "where": where, "next_step": next_step}}


def main() -> None:
    """Read one request from stdin, answer on the original stdout; whatever libraries print goes to stderr."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read())
    _limit(msgspec.convert(request["limits"], type=Limits))
    answer.write(encode(_invoke(request)))
    answer.flush()
    os._exit(0)  # engine destructors have nothing left to do and are known to crash


if __name__ == "__main__":
    main()
