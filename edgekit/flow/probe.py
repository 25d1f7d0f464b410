"""What a device is: its own facts, the target it matches, and a target's file for one that matches none."""

import datetime
import re
from pathlib import Path

from edgekit.core.facts import FactSheet
from edgekit.core.match import match_target, target_from_facts
from edgekit.core.probe import PROBE_SCHEMA, Probe
from edgekit.core.targets import is_name
from edgekit.errors import UsageError
from edgekit.flow.devices import Reach, opened_for_facts
from edgekit.flow.workshop import Progress
from edgekit.measure import fact_sheet
from edgekit.resources import list_targets, load_target
from edgekit.store import write_atomic

FOLDER = "targets"


def probe(
    device: str, reach: Reach, cache: Path, cwd: Path, progress: Progress, write: bool, name: str | None
) -> Probe:
    """The fact sheet of `device`; with `write` also `targets/<name>.toml` in `cwd`, where an older one is never replaced.

    Raises DeviceError, TargetIncompatible, and UsageError for a name that is none or taken.
    """
    with opened_for_facts(device, reach, cache, cwd, progress) as found:
        progress("asking for its facts")
        sheet = fact_sheet(found)
        called = found.name
    match = match_target(sheet, [load_target(target, cwd) for target in sorted(list_targets(cwd))])
    written = _write(sheet, cwd, name or _own_name(sheet)) if write else None
    if match is None:
        why = "it is emulated" if sheet.emulated else "no target edgekit knows has its cores"
        return Probe(PROBE_SCHEMA, called, sheet, None, why, (), written)
    return Probe(PROBE_SCHEMA, called, sheet, match.target.name, match.reason, match.differences, written)


def _own_name(sheet: FactSheet) -> str:
    """A target's name from what the board calls itself."""
    name = "-".join(re.findall(r"[a-z0-9]+", (sheet.board or sheet.cpu_model or sheet.arch).lower()))[:60]
    return name if is_name(name) else f"board-{sheet.arch.replace('_', '-')}"


def _write(sheet: FactSheet, cwd: Path, name: str) -> str:
    if not is_name(name):
        raise UsageError(
            f"{name!r} is no target's name", where="--name", next_step="use lower case letters, digits, dashes"
        )
    path = cwd / FOLDER / f"{name}.toml"
    if path.exists() or path.is_symlink():
        raise UsageError("is there already and is left as it is", where=str(path), next_step="choose another --name")
    write_atomic(path, target_from_facts(sheet, name, datetime.date.today().isoformat()).encode())
    return f"{FOLDER}/{name}.toml"
