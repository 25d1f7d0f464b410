"""Speak to ekrun: build its argument lists and read its answers, as `PROTOCOL.md` has them. Starts no process.

What comes back is untrusted: every field is checked for its type, anything else is a DeviceError.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgekit.core.facts import DeviceFacts
from edgekit.core.types import RunConfig
from edgekit.errors import DeviceError, EdgekitError, InputRejected, InternalError, ResourceLimit, TargetIncompatible
from edgekit.process import Completed, describe_exit

PROTOCOL = 1

T = TypeVar("T")


@dataclass(frozen=True)
class Runnable:
    """A model file with the engine library that runs it and how."""

    engine: str
    library: Path
    model: Path
    run: RunConfig


@dataclass(frozen=True)
class Feeds:
    """Stacked inputs by name, `[samples, *shape]` each; `state` maps an output to the input it is fed back to."""

    inputs: Mapping[str, Path]
    state: Mapping[str, str] = field(default_factory=dict)
    reset: Path | None = None


@dataclass(frozen=True)
class LoadReply:
    """Cold phases of one ekrun process: milliseconds, bytes; None where the engine or the kernel does not tell."""

    library_load_ms: float | None = None
    model_read_ms: float | None = None
    session_create_ms: float | None = None
    first_inference_ms: float | None = None
    process_to_first_inference_ms: float | None = None
    memory: Mapping[str, int | None] = field(default_factory=dict)
    settings_asked: Mapping[str, Any] = field(default_factory=dict)
    settings_in_force: Mapping[str, Any] = field(default_factory=dict)
    engine_version: str = ""
    emulated: bool = False


@dataclass(frozen=True)
class BenchReply(LoadReply):
    """`bench`: the load phases and every latency."""

    latencies_ns: tuple[int, ...] = ()


@dataclass(frozen=True)
class RanReply:
    """One answer to `go N`."""

    latencies_ns: tuple[int, ...]
    event: str = "ran"


@dataclass(frozen=True)
class OutputReply:
    """One output of `run`: `shapes` is "equal", or one shape a sample when they differ."""

    index: int
    name: str
    dtype: str
    file: str
    shapes: str | tuple[tuple[int, ...], ...]
    shape: tuple[int, ...] | None = None
    nonfinite: int | None = None


@dataclass(frozen=True)
class RunReply:
    """`run`: the outputs written."""

    outputs: tuple[OutputReply, ...]
    samples: int
    engine_version: str = ""


@dataclass(frozen=True)
class FactsReply:
    """`facts`, as far as planning and measuring need it; what the kernel does not tell is None."""

    arch: str
    isa: tuple[str, ...]
    usable_threads: int
    ram_total_bytes: int
    emulated: bool
    cpu_model: str | None = None
    kernel: str | None = None
    glibc: str | None = None
    cores_by_max_khz: Mapping[str, int] | None = None
    governors: Mapping[str, str] | None = None

    def facts(self) -> DeviceFacts:
        """As the record the rest of edgekit reads."""
        governors = sorted(set((self.governors or {}).values()))
        return DeviceFacts(
            arch=self.arch,
            isa=self.isa,
            cpu_model=self.cpu_model,
            usable_threads=max(1, self.usable_threads),
            ram_bytes=self.ram_total_bytes,
            kernel=self.kernel,
            glibc=self.glibc,
            max_mhz=max(map(int, self.cores_by_max_khz)) // 1000 if self.cores_by_max_khz else None,
            governor="+".join(governors) or None,
            emulated=self.emulated,
        )


def engine_arguments(runnable: Runnable, feeds: Feeds) -> list[str]:
    """The options that `run` and `bench` share."""
    r = runnable.run
    words = ["--engine", runnable.engine, "--lib", str(runnable.library), "--model", str(runnable.model)]
    words += ["--threads", str(r.threads), "--precision", r.precision]
    for key, value in r.options.items():
        words += ["--option", f"{key}={value}"]
    for name, path in feeds.inputs.items():
        words += ["--input", f"{name}={path}"]
    for output, name in feeds.state.items():
        words += ["--state", f"{output}={name}"]
    return words + (["--reset", str(feeds.reset)] if feeds.reset else [])


def parse(done: Completed, type_: type[T], where: str) -> T:
    """The last line of a finished ekrun as `type_`; its failure as the error it stands for."""
    if done.returncode == 0 and not done.timed_out:
        lines = done.stdout.splitlines()
        return parse_line(lines[-1] if lines else b"", type_, where)
    raise failure(done, where)


def parse_line(line: bytes, type_: type[T], where: str) -> T:
    """One JSON line as `type_`. Raises DeviceError when it is anything else, or of another protocol."""
    try:
        raw = msgspec.json.decode(line)
        if isinstance(raw, dict) and "error" in raw:
            raise _typed(str(raw["error"].get("code", "")), str(raw["error"].get("message", "")), where)
        if not isinstance(raw, dict) or raw.get("protocol", PROTOCOL) != PROTOCOL:
            raise DeviceError("ekrun speaks another protocol", where=where, next_step="reinstall edgekit")
        return msgspec.convert(raw, type_)
    except (msgspec.DecodeError, msgspec.ValidationError, AttributeError) as error:
        raise DeviceError(f"ekrun answered out of protocol ({error})", where=where) from error


def failure(done: Completed, where: str) -> EdgekitError:
    """The error that ended an ekrun process."""
    lines = done.stdout.splitlines()
    if lines and not done.timed_out:
        try:
            raw = msgspec.json.decode(lines[-1])
            return _typed(str(raw["error"]["code"]), str(raw["error"]["message"]), where)
        except (msgspec.DecodeError, KeyError, TypeError):
            pass
    words = done.stderr.decode(errors="replace").strip().splitlines()
    tail = f" ({words[-1][:300]})" if words else ""
    return ResourceLimit(f"the runner {describe_exit(done)}{tail}", where=where)


_ERRORS: Mapping[str, type[EdgekitError]] = {
    "usage": InternalError,
    "library": TargetIncompatible,
    "model_refused": InputRejected,
    "bad_input": InputRejected,
    "inference_failed": ResourceLimit,
    "io": ResourceLimit,
    "out_of_memory": ResourceLimit,
}


def _typed(code: str, message: str, where: str) -> EdgekitError:
    return _ERRORS.get(code, DeviceError)(" ".join(message.split())[:500], where=where)
