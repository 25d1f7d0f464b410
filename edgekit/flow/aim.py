"""What a run is for and where its figures come from: the target, the device that was given, and whether the one is the other."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.facts import DeviceFacts, FactSheet
from edgekit.core.results import Origin
from edgekit.core.targets import HOST, host_matches
from edgekit.core.types import Target
from edgekit.devices.base import Device
from edgekit.devices.emulated import GENERIC_TARGET, EmulatedDevice
from edgekit.errors import TargetIncompatible
from edgekit.flow.gate import engines_for
from edgekit.flow.prove import Ground
from edgekit.flow.targets import find_target
from edgekit.measure import fact_sheet

# What an emulated board that is no target by name stands for: a class of machines, whose figures are predictions.
CLASS_OF: Mapping[str, str] = {"aarch64": GENERIC_TARGET, "x86_64": "cpu-x86"}


@dataclass(frozen=True)
class Aim:
    """`ground` is the device asked for, None for this machine; `sheet` its facts. `origin` is TARGET when it is the target."""

    target: Target
    origin: Origin
    ground: Ground | None
    sheet: FactSheet | None
    notices: tuple[str, ...] = ()

    @property
    def measuring(self) -> Device | None:
        """The device to measure on, None where that is this machine: an emulated one only proves."""
        return self.ground.device if self.ground is not None and not self.ground.emulated else None


def take_aim(name: str, ground: Ground | None, host: DeviceFacts, cwd: Path) -> Aim:
    """The target called `name`; `host` is the device that was given, or this machine.

    Raises TargetIncompatible when the device is of another architecture than the target, and as `find_target` does.
    """
    if ground is None:
        target = find_target(name, host, cwd)
        return Aim(target, Origin.PREDICTED if host_matches(target, host) else Origin.TARGET, None, None)
    device, sheet = ground.device, fact_sheet(ground.device)
    target = _own_target(ground, cwd) if name == HOST else find_target(name, ground.facts, cwd)
    if target.arch != ground.facts.arch:
        raise TargetIncompatible(
            f"the device is {ground.facts.arch}, {target.name} is {target.arch}",
            where=device.name,
            next_step="name a target of the device's architecture, or none",
        )
    if ground.emulated:
        return Aim(target, Origin.PREDICTED, ground, sheet)
    there = engines_for(sheet, device.name)
    target = replace(target, engines={engine: there[engine] for engine in target.engines if engine in there})
    reasons = [] if name == HOST else host_matches(target, ground.facts, device.name)
    if not reasons:
        return Aim(target, Origin.TARGET, ground, sheet)
    notice = f"{device.name} is not {target.name} ({'; '.join(reasons)}): what it measures is marked host"
    return Aim(target, Origin.PREDICTED, ground, sheet, (notice,))


def _own_target(ground: Ground, cwd: Path) -> Target:
    """The board an emulator stands for; else the device itself, by its own facts."""
    if isinstance(ground.device, EmulatedDevice):
        return ground.device.target
    if ground.emulated:
        return find_target(CLASS_OF[ground.facts.arch], ground.facts, cwd)
    summary = f"{ground.device.name}: {ground.facts.cpu_model or ground.facts.arch}"
    return replace(find_target(HOST, ground.facts, cwd), name=ground.device.name, summary=summary)
