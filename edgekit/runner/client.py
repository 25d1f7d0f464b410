"""Speak to ekrun: build its argument lists and read its answers, as `PROTOCOL.md` has them. Starts no process.

What comes back is untrusted: every field is checked for its type, anything else is a DeviceError.
"""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from edgekit.core.facts import Cluster, DeviceFacts, Disk, FactSheet, Soc, ThermalZone, Throttled
from edgekit.core.match import device_facts
from edgekit.core.types import RunConfig
from edgekit.errors import (
    Busy,
    DeviceError,
    EdgekitError,
    InputRejected,
    InternalError,
    OutOfMemory,
    ResourceLimit,
    TargetIncompatible,
    VerificationFailed,
)
from edgekit.process import Completed, describe_exit
from edgekit.runner.isa import decode_isa, describe_feature, is_trap

T = TypeVar("T")

# Numbers that are compared: ASCII digits and dots, and few of them.
Version = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9}){0,5}\Z")]

LINK_CLOSED = 10  # the exit code of a runner started with --tether whose stdin has ended


@dataclass(frozen=True)
class Runnable:
    """A model file with the engine library that runs it and how; `*_files` must lie beside theirs."""

    engine: str
    library: Path
    model: Path
    run: RunConfig
    library_files: tuple[Path, ...] = ()
    model_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Feeds:
    """Stacked inputs by name, `[samples, *shape]` each; `state` maps an output to the input it is fed back to."""

    inputs: Mapping[str, Path]
    state: Mapping[str, str] = field(default_factory=dict)
    reset: Path | None = None


@dataclass(frozen=True)
class Settings:
    """Engine settings as asked, or as the engine says they are in force; None where it does not say."""

    threads: int | None
    precision: str | None
    options: Mapping[str, str | None]

    def flat(self) -> dict[str, str]:
        """One text by name; what is not known is left out."""
        known = {"threads": self.threads, "precision": self.precision, **self.options}
        return {name: str(value) for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class MemoryLimit:
    """The cap a runner ran under, and what held it."""

    bytes: int
    kind: Literal["cgroup", "rlimit_data"]


@dataclass(frozen=True)
class LoadReply:
    """Cold phases of one ekrun process, in milliseconds; None where the engine does not tell."""

    protocol: Literal[1]
    engine_version: str
    emulated: bool
    settings_asked: Settings
    settings_in_force: Settings
    library_load_ms: float | None
    model_read_ms: float | None
    session_create_ms: float | None
    first_inference_ms: float | None
    process_to_first_inference_ms: float | None
    memory_limit: MemoryLimit | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ReadyReply(LoadReply):
    """`bench --stdin` waits for `go N`."""

    event: Literal["ready"]


@dataclass(frozen=True)
class BenchReply(LoadReply):
    """`bench`: the load phases, every latency, and resident sets in bytes, None where the kernel does not tell."""

    latencies_ns: tuple[int, ...]
    memory: Mapping[str, int | None]


@dataclass(frozen=True)
class RanReply:
    """One answer to `go N`; `span_ns` is from the burst's start to its last completion, memory in bytes.

    `resident_bytes` of the memory after the load are samples.
    """

    protocol: Literal[1]
    event: Literal["ran"]
    latencies_ns: tuple[int, ...]
    span_ns: int = 0
    memory: Mapping[str, int | None] = field(default_factory=dict)
    resident_bytes: int = 0


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

    protocol: Literal[1]
    outputs: tuple[OutputReply, ...]
    samples: int


@dataclass(frozen=True)
class FactsReply:
    """`facts`; what the machine does not tell is None."""

    protocol: Literal[1]
    arch: str
    isa: tuple[str, ...]
    usable_threads: int
    emulated: bool
    ram_total_bytes: int | None
    cpu_model: str | None
    kernel: str | None
    glibc: Version | None
    governors: Mapping[str, str] | None
    # facts_version 2
    facts_version: int = 1
    board: str | None = None
    soc: Soc = field(default_factory=Soc)
    cpus_online: int | None = None
    cpus_affinity: int | None = None
    clusters: tuple[Cluster, ...] | None = None
    cpuset: tuple[int, ...] | None = None
    cgroup_cpu_quota: float | None = None
    cgroup_memory_limit_bytes: int | None = None
    hwcap: str | None = None
    hwcap2: str | None = None
    ram_available_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    page_bytes: int | None = None
    disk: Disk | None = None
    libc: str | None = None
    libstdcxx: Version | None = None
    userland_bits: int | None = None
    thermal: tuple[ThermalZone, ...] | None = None
    throttled: Throttled = field(default_factory=Throttled)

    def facts(self) -> DeviceFacts:
        """As the record that planning and targets read."""
        return device_facts(self.sheet())

    def sheet(self) -> FactSheet:
        """Everything the machine told."""
        shared = {f.name for f in fields(FactSheet)} & {f.name for f in fields(self)}
        told = {name: getattr(self, name) for name in shared}
        for name, empty in (("clusters", ()), ("thermal", ()), ("governors", {})):
            told[name] = empty if told[name] is None else told[name]
        return FactSheet(**told)


def engine_arguments(runnable: Runnable, feeds: Feeds) -> list[str]:
    """The options that `run` and `bench` share."""
    r = runnable.run
    words = ["--engine", runnable.engine, "--lib", str(runnable.library), "--model", str(runnable.model)]
    words += ["--threads", str(r.threads), "--precision", r.precision]
    words += ["--cores", r.cores] if r.cores else []
    for key, value in r.options.items():
        words += ["--option", f"{key}={value}"]
    for name, path in feeds.inputs.items():
        words += ["--input", f"{name}={path}"]
    for output, name in feeds.state.items():
        words += ["--state", f"{output}={name}"]
    return words + (["--reset", str(feeds.reset)] if feeds.reset else [])


def parse(done: Completed, type_: type[T], where: str, usage: type[EdgekitError] = InternalError) -> T:
    """The last line of a finished ekrun as `type_`; its failure as the error it stands for.

    Wrong usage is `usage`: an error of edgekit's own, unless the words were the user's.
    """
    if done.returncode == 0 and not done.timed_out:
        lines = done.stdout.splitlines()
        return parse_line(lines[-1] if lines else b"", type_, where, usage)
    raise failure(done, where, usage)


def parse_line(line: bytes, type_: type[T], where: str, usage: type[EdgekitError] = InternalError) -> T:
    """One JSON line as `type_`, or the error it stands for. Raises DeviceError when it is anything else."""
    if (error := _error_in(line, where, usage)) is not None:
        raise error
    try:
        return msgspec.json.decode(line, type=type_)
    except _NO_ANSWER as error:
        raise DeviceError(f"ekrun answered out of protocol ({error})", where=where) from error


def failure(done: Completed, where: str, usage: type[EdgekitError] = InternalError) -> EdgekitError:
    """The error that ended an ekrun process."""
    lines = done.stdout.splitlines()
    if lines and not done.timed_out and (error := _error_in(lines[-1], where, usage)) is not None:
        return error
    if done.returncode == LINK_CLOSED:
        return DeviceError("the runner ended because its link was closed", where=where)
    words = done.stderr.decode(errors="replace").strip().splitlines()
    tail = f" ({words[-1][:300]})" if words else ""
    killed = done.returncode == -signal.SIGKILL and not done.timed_out and not done.flooded
    kind = OutOfMemory if killed or done.out_of_memory else ResourceLimit  # nobody else kills it
    return kind(f"the runner {describe_exit(done)}{tail}", where=where)


def answered(done: Completed) -> bool:
    """Whether an ekrun process came to its end and said which: an answer, or an error in its own words."""
    lines = done.stdout.splitlines()
    said = done.returncode == 0 or (bool(lines) and _error_in(lines[-1], "") is not None)
    return said and not (done.timed_out or done.flooded)


# msgspec's own, and what it raises for text that is none and for brackets in brackets without end.
_NO_ANSWER = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class _Failure:
    code: str
    message: str
    arch: str = ""
    instruction: str = ""


@dataclass(frozen=True)
class _FailureReply:
    protocol: Literal[1]
    error: _Failure


def _error_in(line: bytes, where: str, usage: type[EdgekitError] = InternalError) -> EdgekitError | None:
    """The error an answer holds, or None when it is no error."""
    try:
        error = msgspec.json.decode(line, type=_FailureReply).error
    except _NO_ANSWER:
        return None
    message = " ".join(error.message.split())[:500]
    if error.code == "illegal_instruction":
        return _illegal_instruction(error, message, where)
    kind = usage if error.code == "usage" else _ERRORS.get(error.code, DeviceError)
    return kind(message, where=where)


def _illegal_instruction(error: _Failure, message: str, where: str) -> EdgekitError:
    """What the instruction needs, where its encoding tells; a program's own trap is a crash, whatever the CPU."""
    try:
        instruction = bytes.fromhex(error.instruction)
    except ValueError:
        instruction = b""
    if is_trap(error.arch, instruction):
        return ResourceLimit(f"the runner crashed: it stopped itself ({message})", where=where)
    feature = decode_isa(error.arch, instruction)
    if feature is not None:
        message = message.replace("illegal instruction", f"illegal instruction (needs {describe_feature(feature)}):", 1)
    return TargetIncompatible(message, where=where)


_ERRORS: Mapping[str, type[EdgekitError]] = {
    "library": TargetIncompatible,
    "model_refused": InputRejected,
    "bad_input": InputRejected,
    "inference_failed": ResourceLimit,
    "io": ResourceLimit,
    "verification_failed": VerificationFailed,
    "out_of_memory": OutOfMemory,
    "illegal_instruction": TargetIncompatible,
    "incompatible": TargetIncompatible,
    "busy": Busy,
}
