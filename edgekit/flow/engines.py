"""The engines' native libraries on this machine."""

import platform
from pathlib import Path

from edgekit.core.facts import EngineLibrary
from edgekit.core.types import Target
from edgekit.devices.emulated import EmulatedDevice
from edgekit.engines.closure import native_library, native_notices, pins
from edgekit.errors import EdgekitError
from edgekit.flow.targets import target_by_name
from edgekit.flow.workshop import Progress
from edgekit.store import Cache


def engine_table(cache: Path) -> list[EngineLibrary]:
    """Every pinned closure."""
    return [_row(pin.engine, pin.version, pin.arch, cache) for pin in pins().values()]


def fetch(target_name: str, cache: Path, cwd: Path, offline: bool, progress: Progress) -> list[EngineLibrary]:
    """Bring the target's engines for its own architecture, and for this host's to prove accuracy with.

    With qemu here, also what its emulated board takes. Raises what `engines.closure.native_library` raises.
    """
    target = target_by_name(target_name, cwd)
    rows = []
    for engine, version in target.engines.items():
        for arch in dict.fromkeys((target.arch, platform.machine())):
            progress(f"{engine} {version} for {arch}")
            for bring in (native_library, native_notices):
                bring(engine, version, arch, cache, offline=offline, target=target.name)
            rows.append(_row(engine, version, arch, cache))
    if target.arch != platform.machine():
        _fetch_board(target, cache, offline, progress)
    return rows


def _fetch_board(target: Target, cache: Path, offline: bool, progress: Progress) -> None:
    """What an emulated board of the target takes, if there is a way to it: nothing else depends on it."""
    try:
        EmulatedDevice(target, Cache(cache), offline=offline, say=progress).close()
    except EdgekitError as error:
        progress(f"no emulated {target.name}: {error}")


def _row(engine: str, version: str, arch: str, cache: Path) -> EngineLibrary:
    size = sum(file.size_bytes for file in pins()[f"{engine}-{version}-{arch}"].files)
    try:
        folder = str(native_library(engine, version, arch, cache, offline=True).folder)
    except EdgekitError:
        folder = ""
    return EngineLibrary(engine, version, arch, size, folder)
