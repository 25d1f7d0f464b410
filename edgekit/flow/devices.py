"""Devices by what the user calls them: opened, and closed whatever happens."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.core.device_url import EMULATED, LOCAL, SSH, DeviceUrl, parse_device
from edgekit.devices.base import Device
from edgekit.devices.emulated import GENERIC_TARGET, EmulatedDevice
from edgekit.devices.local import LocalDevice
from edgekit.devices.names import DeviceNames
from edgekit.devices.ssh import SshDevice
from edgekit.errors import TargetIncompatible
from edgekit.flow.workshop import Progress
from edgekit.resources import load_target
from edgekit.runner import ekrun_facts_path
from edgekit.store import Cache


@dataclass(frozen=True)
class Reach:
    """What it takes to reach a device: the file of the user's own names, and an ssh configuration in place of the user's.

    `sysroot` is an arm64 root for emulated boards; `offline` fetches none.
    """

    names: Path | None = None
    ssh_config: Path | None = None
    sysroot: Path | None = None
    offline: bool = False


@contextlib.contextmanager
def opened(text: str, reach: Reach, cache: Path, cwd: Path, progress: Progress) -> Iterator[Device]:
    """The device that `text` names, a URL or one of the user's names.

    Raises UsageError for what is no device, DeviceError for one that can't be reached, TargetIncompatible for one that runs no
    ekrun.
    """
    url = find_url(text, reach)
    progress(f"connecting to {text}")
    device = _OPENERS[url.kind](url, reach, Cache(cache), cwd, progress)
    try:
        yield device
    finally:
        device.close()


def find_url(text: str, reach: Reach) -> DeviceUrl:
    """The URL that `text` is, or that it names. Raises UsageError, and InputRejected for a damaged file of names."""
    return DeviceNames(reach.names).find(text) if reach.names else parse_device(text)


@contextlib.contextmanager
def opened_for_facts(text: str, reach: Reach, cache: Path, cwd: Path, progress: Progress) -> Iterator[Device]:
    """As `opened`; a board whose C library is older than ekrun's, or none, gets the static build that knows facts only."""
    with contextlib.ExitStack() as stack:
        try:
            device = stack.enter_context(opened(text, reach, cache, cwd, progress))
        except TargetIncompatible:
            url = find_url(text, reach)
            if url.kind != SSH:
                raise
            progress("the board cannot start ekrun: trying its static build")
            device = SshDevice(url, ssh_config=reach.ssh_config, say=progress, program=ekrun_facts_path)
            stack.callback(device.close)
        yield device


def _local(url: DeviceUrl, reach: Reach, cache: Cache, cwd: Path, progress: Progress) -> Device:
    return LocalDevice()


def _emulated(url: DeviceUrl, reach: Reach, cache: Cache, cwd: Path, progress: Progress) -> Device:
    target = load_target(url.target or GENERIC_TARGET, cwd)
    return EmulatedDevice(target, cache, sysroot=reach.sysroot, offline=reach.offline, say=progress)


def _ssh(url: DeviceUrl, reach: Reach, cache: Cache, cwd: Path, progress: Progress) -> Device:
    return SshDevice(url, ssh_config=reach.ssh_config, say=progress)


_OPENERS: Mapping[str, Callable[[DeviceUrl, Reach, Cache, Path, Progress], Device]] = {
    LOCAL: _local,
    EMULATED: _emulated,
    SSH: _ssh,
}
