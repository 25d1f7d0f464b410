"""An emulated board as a device: ekrun under qemu's user mode on this host, without privileges.

- It shows that an artifact is correct on the target's architecture and instruction set; it has no latency and no memory.
- Files lie on the host and are named by the host's paths, except that what the small arm64 root holds comes first.
- Its folders are in the cache's scratch, so that what a killed process left is swept by the next one.
"""

import platform
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edgekit.core.device_url import EMULATED
from edgekit.core.types import Target
from edgekit.devices.arm64_root import CORES, find_libraries, make_root
from edgekit.devices.local import LocalDevice
from edgekit.errors import DeviceError, UsageError
from edgekit.process import Completed, Conversation, describe_exit, run
from edgekit.runner import ekrun_path
from edgekit.runner.client import FactsReply, parse
from edgekit.store import Cache, sha256_file

GENERIC_TARGET = "cpu-arm"  # what `emulated` alone means
QEMU_PACKAGE = "qemu-user-static"
START_DEADLINE_S = 60.0
_START_ADVICE = "look at the target's emulation_cpu, and at --sysroot if you gave one"


class EmulatedDevice(LocalDevice):
    """Runs the ekrun of `target`'s architecture on qemu's model of its core, `target.emulation_cpu`.

    `sysroot` is an arm64 root to use; without one it is found, or fetched unless `offline`. Raises UsageError when qemu, the
    root or the core is not there, ResourceLimit when the fetch fails, DeviceError when ekrun does not come up.
    """

    def __init__(
        self,
        target: Target,
        cache: Cache,
        *,
        sysroot: Path | None = None,
        offline: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        qemu = _qemu(target)
        libraries = _libraries(target, cache, sysroot, offline, say)
        self.target = target
        self._own = ExitStack()
        try:
            folder = self._own.enter_context(cache.scratch())
            super().__init__(folder)
            self.name = f"{EMULATED}:{target.name}"
            self.arch = target.arch
            self.path = ekrun_path(target.arch)
            self.ekrun_sha256 = sha256_file(self.path)
            self._cwd = folder  # where a crash leaves its core file
            self._argv = [
                qemu,
                "-cpu",
                target.emulation_cpu,
                *_root(target, folder / "root", libraries),
                str(self.path),
            ]
            self._check()
        except BaseException:
            self.close()
            raise

    def run(
        self, arguments: Sequence[str], *, deadline_s: float, max_rss_bytes: int = 0, grace_s: int = 0
    ) -> Completed:
        """Run ekrun to its end; `max_rss_bytes` bounds ekrun and qemu together."""
        argv = [*self._argv, *arguments]
        return run(argv, deadline_s=deadline_s, max_rss_bytes=max_rss_bytes, cwd=self._cwd, grace_s=grace_s)

    def talk(self, arguments: Sequence[str]) -> Conversation:
        """A live ekrun, to be used as a context manager."""
        return Conversation([*self._argv, *arguments], cwd=self._cwd)

    def close(self) -> None:
        """Remove all the device kept. Harmless when it is closed."""
        self._own.close()

    def _check(self) -> None:
        """ekrun must start here, and know that it is emulated: nobody may take its times for a board's."""
        done = self.run(["facts"], deadline_s=START_DEADLINE_S)
        if done.returncode and not done.timed_out:
            words = done.stderr.decode(errors="replace").strip().splitlines()
            reason = words[-1][:300] if words else describe_exit(done)
            raise UsageError(f"ekrun does not start under qemu ({reason})", where=self.name, next_step=_START_ADVICE)
        facts = parse(done, FactsReply, self.name)
        if (facts.arch, facts.emulated) != (self.arch, True):
            raise DeviceError(f"qemu runs ekrun as {facts.arch}, emulated: {facts.emulated}", where=self.name)


def _qemu(target: Target) -> str:
    """The emulator of the target's architecture."""
    if not target.emulation_cpu:
        raise UsageError("names no emulation_cpu, so it cannot be emulated", where=f"target {target.name}")
    name = f"qemu-{target.arch}"
    found = shutil.which(f"{name}-static") or shutil.which(name)
    if found is None:
        raise UsageError(
            f"{EMULATED}:{target.name} needs {name}-static, which is not here",
            next_step=f"install the package {QEMU_PACKAGE}",
        )
    return found


def _libraries(
    target: Target, cache: Cache, sysroot: Path | None, offline: bool, say: Callable[[str], None]
) -> Path | None:
    """The libraries of the target's architecture, None where this host's own are."""
    if target.arch == "aarch64" and target.emulation_cpu not in CORES:
        what = f"emulation_cpu {target.emulation_cpu!r} is no core edgekit knows the features of"
        raise UsageError(what, where=f"target {target.name}", next_step=f"use one of {', '.join(CORES)}")
    if sysroot is None and platform.machine() == target.arch:
        return None
    if target.arch != "aarch64":
        raise UsageError(
            f"an {target.arch} target is emulated on {target.arch} hosts only, and without --sysroot",
            where=f"{EMULATED}:{target.name}",
            next_step="choose an aarch64 target",
        )
    return find_libraries(cache, sysroot, offline=offline, say=say)


def _root(target: Target, root: Path, libraries: Path | None) -> list[str]:
    """qemu's option for the root, made here. x86 needs none: its engines ask the CPU itself, not /proc/cpuinfo."""
    if target.arch != "aarch64":
        return []
    make_root(root, target.emulation_cpu, libraries)
    return ["-L", str(root)]
