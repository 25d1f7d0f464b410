"""The gate before a byte of model is sent: what an artifact and its engine need, against what the board says of itself.

- a refusal says what is wrong and what helps;
- what the board does not tell refuses nothing: it is a notice;
- all refusals are collected: nobody should have to fix one to see the next.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.core.facts import FactSheet
from edgekit.core.targets import newest_engine, version_key
from edgekit.errors import TargetIncompatible

_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The newest model a runtime loads."""

    opset: int
    ir_version: int


# engine -> version -> the newest opset and IR it accepts. Found by loading an Add stamped with each, 22 to 29 and 9 to 15, with
# the pinned x86_64 libraries. OpenVINO artifacts are converted where edgekit runs: no ONNX file reaches the board.
MODEL_LIMITS: Mapping[str, Mapping[str, Limits]] = {
    "onnxruntime": {"1.28.0": Limits(opset=26, ir_version=13), "1.32.0": Limits(opset=28, ir_version=14)},
}

# (engine, arch) -> the instructions its library uses without asking. onnxruntime picks its kernels at run time: both pinned
# x86_64 libraries ran the digits sample under qemu-x86_64 -cpu qemu64, which has SSE3 only. OpenVINO's system requirements
# ask for SSE4.2; below it, under qemu, 2026.4.1 and 2025.2.0 died of SIGILL (qemu64), and 2026.4.1 found no kernel (Penryn,
# SSE4.1), while both ran on Nehalem (SSE4.2). Advanced SIMD is what AArch64 wheels are compiled for.
ENGINE_ISA: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("onnxruntime", "x86_64"): (),
    ("onnxruntime", "aarch64"): ("asimd",),
    ("openvino", "x86_64"): ("sse4_2",),
    ("openvino", "aarch64"): ("asimd",),
}


@dataclass(frozen=True)
class Needs:
    """What has to be there. None and 0: nothing is asked. `glibc` and `glibcxx` are symbol floors ("2.28", "3.4.22").

    `opset` and `ir_version` are the model's, for engines that read ONNX on the board. `ram_bytes` is the peak of a run,
    `disk_bytes` what is to be sent.
    """

    arch: str
    engine: str
    engine_version: str
    isa: tuple[str, ...] = ()
    glibc: str | None = None
    glibcxx: str | None = None
    ram_bytes: int = 0
    disk_bytes: int = 0
    opset: int | None = None
    ir_version: int | None = None

    @property
    def runtime(self) -> str:
        return f"{self.engine} {self.engine_version}"


@dataclass(frozen=True)
class Refusal:
    """One thing that keeps the artifact off the board, and what helps."""

    what: str
    fix: str


def refusals(needs: Needs, facts: FactSheet) -> tuple[Refusal, ...]:
    """Everything that is known to be in the way; on another architecture nothing else is worth saying."""
    if needs.arch != facts.arch:
        return (
            Refusal(f"the artifact is for {needs.arch}, the board is {facts.arch}", "build it for the board's target"),
        )
    checks = (_isa, _libc, _libstdcxx, _model, _ram, _disk)
    return tuple(refusal for check in checks if (refusal := check(needs, facts)) is not None)


def admit(needs: Needs, facts: FactSheet, where: str = "") -> tuple[str, ...]:
    """Let the artifact pass, with notices of what could not be checked, or raise TargetIncompatible with all that is wrong."""
    if found := refusals(needs, facts):
        what = "; ".join(refusal.what for refusal in found)
        raise TargetIncompatible(what, where=where, next_step="; ".join(refusal.fix for refusal in found))
    return unknowns(needs, facts)


def unknowns(needs: Needs, facts: FactSheet) -> tuple[str, ...]:
    """What the board does not tell of the things that are needed."""
    limits = MODEL_LIMITS.get(needs.engine)
    untold = (
        ("glibc version", needs.glibc is not None and facts.glibc is None),
        ("libstdc++ version", needs.glibcxx is not None and facts.libstdcxx is None),
        ("free memory", needs.ram_bytes > 0 and _free_ram(facts) is None),
        ("free disk", needs.disk_bytes > 0 and (facts.disk is None or facts.disk.free_bytes is None)),
    )
    notices = [f"the board does not tell its {what}: not checked" for what, missing in untold if missing]
    if limits is not None and needs.engine_version not in limits and needs.opset is not None:
        notices.append(f"which opsets {needs.runtime} takes is not known: not checked")
    return tuple(notices)


# ----------------------------------------------------------------------------------------------------------------- checks


def _isa(needs: Needs, facts: FactSheet) -> Refusal | None:
    missing = [feature for feature in needs.isa if feature not in facts.isa]
    if not missing:
        return None
    return Refusal(f"{needs.runtime} needs {', '.join(missing)}, which this CPU lacks", "use another engine or board")


def _libc(needs: Needs, facts: FactSheet) -> Refusal | None:
    if needs.glibc is None:
        return None
    if facts.glibc is None:
        return _foreign_userland(needs, facts)
    if version_key(facts.glibc) >= version_key(needs.glibc):
        return None
    older = newest_engine(needs.engine, needs.arch, facts.glibc)
    fix = f"use {needs.engine} {older}" if older else f"update the board's system to glibc {needs.glibc}"
    return Refusal(f"{needs.runtime} needs glibc {needs.glibc}, the board has {facts.glibc}", fix)


def _foreign_userland(needs: Needs, facts: FactSheet) -> Refusal | None:
    """A system without a glibc of this architecture, as far as it tells."""
    if facts.userland_bits == 32:
        what = f"the board runs a 32-bit system on a 64-bit kernel: {needs.runtime} has no library for it"
        return Refusal(what, "install the 64-bit image of the system")
    if facts.libc is not None and facts.libc != "glibc":
        what = f"the board's system is built on {facts.libc}, {needs.runtime} on glibc {needs.glibc}"
        return Refusal(what, "install a system that is built on glibc, such as Debian")
    return None


def _libstdcxx(needs: Needs, facts: FactSheet) -> Refusal | None:
    if needs.glibcxx is None or facts.libstdcxx is None:
        return None
    if version_key(facts.libstdcxx) >= version_key(needs.glibcxx):
        return None
    what = f"{needs.runtime} needs libstdc++ with GLIBCXX_{needs.glibcxx}, the board's ends at {facts.libstdcxx}"
    return Refusal(what, "update the board's libstdc++6 package")


def _model(needs: Needs, facts: FactSheet) -> Refusal | None:
    limits = MODEL_LIMITS.get(needs.engine, {}).get(needs.engine_version)
    if limits is None:
        return None
    if needs.opset is not None and needs.opset > limits.opset:
        what = f"the model has opset {needs.opset}, {needs.runtime} ends at {limits.opset}"
        return Refusal(what, f"export the model with opset {limits.opset} or lower")
    if needs.ir_version is not None and needs.ir_version > limits.ir_version:
        what = f"the model has IR version {needs.ir_version}, {needs.runtime} ends at {limits.ir_version}"
        return Refusal(what, f"save the model with IR version {limits.ir_version} or lower")
    return None


def _free_ram(facts: FactSheet) -> int | None:
    """What a process may take: what is available, within what the control group grants."""
    known = [n for n in (facts.ram_available_bytes, facts.cgroup_memory_limit_bytes) if n is not None]
    return min(known, default=None)


def _ram(needs: Needs, facts: FactSheet) -> Refusal | None:
    free = _free_ram(facts)
    if free is None or needs.ram_bytes <= free:
        return None
    what = f"a run takes about {_mib(needs.ram_bytes)} of memory, the board has {_mib(free)} to give"
    return Refusal(what, "end other programs there, or ask for a smaller artifact with --max-memory")


def _disk(needs: Needs, facts: FactSheet) -> Refusal | None:
    disk = facts.disk
    if disk is None or not needs.disk_bytes:
        return None
    if disk.noexec:
        return Refusal(f"the file system of {disk.path} refuses programs (noexec)", "name another folder in the URL")
    if disk.free_bytes is None or needs.disk_bytes <= disk.free_bytes:
        return None
    what = f"{_mib(needs.disk_bytes)} are to be sent, {disk.path} has {_mib(disk.free_bytes)} free"
    return Refusal(what, "free some there (`edgekit device clean` empties edgekit's own folder) or name another folder")


def _mib(size: int) -> str:
    """Whole MiB, rounded up."""
    return f"{-(-size // _MIB)} MiB"
