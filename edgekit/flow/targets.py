"""Targets by name: from a file, or `host`, detected."""

from pathlib import Path

from edgekit.core.facts import DeviceFacts
from edgekit.core.targets import HOST, host_target
from edgekit.core.types import Target
from edgekit.devices.local import LocalDevice
from edgekit.measure import device_facts
from edgekit.resources import list_targets, load_target


def find_target(name: str, facts: DeviceFacts, cwd: Path) -> Target:
    """The target called `name`. Raises UsageError with the nearest name, InputRejected for a file that is no target."""
    return host_target(facts) if name == HOST else load_target(name, cwd)


def target_by_name(name: str, cwd: Path) -> Target:
    """As `find_target`; this machine is looked at only for `host`."""
    return find_target(HOST, device_facts(LocalDevice()), cwd) if name == HOST else load_target(name, cwd)


def all_targets(cwd: Path) -> list[Target]:
    """`host`, then every target file by name."""
    return [target_by_name(HOST, cwd), *(load_target(name, cwd) for name in sorted(list_targets(cwd)))]
