"""The folders that `optimize` left: read, listed, and compared with each other.

- A record's schema is read before the record: one that is newer, or that nobody knows, is refused by name and not by its fields.
- What an older schema lacks is filled in by the record's own defaults; nothing on disk is changed.
- A list never ends at a folder that can't be read: it says why, and goes on.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgekit import sandbox
from edgekit.core.choose import figures
from edgekit.core.run import RUN_SCHEMA, Run
from edgekit.core.rundiff import RunDiff, diff
from edgekit.errors import EdgekitError, InputRejected
from edgekit.resources import read_regular
from edgekit.store import RUN_FILE

RUNS_FOLDER = "edgekit-runs"
MAX_RUN_BYTES = 256 << 20
OLDEST_SCHEMA = 1
MOST_LISTED = 10_000
LEAST, MOST = 1e-15, 1e15  # of a ratio, a rate or nanoseconds


@dataclass(frozen=True)
class Listed:
    """A folder that holds a run: its record, or why that can't be read; when it was written, in seconds since 1970."""

    folder: str
    written_s: float
    run: Run | None
    error: str = ""


@dataclass(frozen=True)
class _Head:
    schema: Any = None


def run_folder(source: Path) -> Path:
    """The folder of a run that is named by itself or by its record."""
    return source.parent if source.name == RUN_FILE else source


def read_run(folder: Path) -> Run:
    """The record of the run in `folder`. Raises InputRejected when there is none that this edgekit reads."""
    path = folder / RUN_FILE
    if not os.path.lexists(path):
        raise InputRejected(f"holds no {RUN_FILE}", where=str(folder), next_step="name a folder of `edgekit optimize`")
    data = read_regular(path, MAX_RUN_BYTES)
    schema = _schema(data, path)
    try:
        run: Run = sandbox.decode(data, Run)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputRejected(
            f"is no run of schema {schema}: {error}", where=str(path), next_step="optimize anew"
        ) from error
    if fault := _fault(run):
        raise InputRejected(f"is no run that edgekit wrote: {fault}", where=str(path), next_step="optimize anew")
    return run


def _fault(run: Run) -> str:
    """What in a record can't be, though every field is of its type; an empty string for a sound one."""
    chosen = run.choice.chosen
    if chosen is not None and not any(o.name == chosen and o.artifact is not None for o in run.outcomes):
        return f"it chose {chosen}, which it does not have"
    if run.noise is not None and not _possible(run.noise.spread):
        return "its noise is not positive"
    for name, figures_of in _measured(run):
        if not all(map(_possible, figures_of)):
            return f"a figure of {name} is not positive, or no figure of this world"
    if run.evaluation is not None and run.evaluation.n < 1:
        return "it was evaluated on no samples"
    return ""


def _possible(value: float) -> bool:
    """Whether there is a logarithm, and whether the ratio of two such values is a number."""
    return LEAST < value < MOST


def _measured(run: Run) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Who was measured, with the figures that others are divided by."""
    for outcome in run.outcomes:
        if (m := outcome.measurement) is not None:
            ends = (min(m.latencies_ns, default=1), max(m.latencies_ns, default=1))
            yield outcome.name, (m.ratio, m.throughput_ips, *(m.ratio_interval or ()), *ends)
    for point in run.exploration.points if run.exploration is not None else ():
        intervals = (*point.ratio_interval, *point.throughput_interval)
        yield point.candidate, (point.ratio, point.throughput_ips, *intervals)


def _schema(data: bytes, path: Path) -> int:
    """The number the record bears, one that this edgekit reads. Raises InputRejected."""
    try:
        schema = msgspec.json.decode(data, type=_Head).schema
    except msgspec.ValidationError:
        schema = None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputRejected(f"is not JSON: {error}", where=str(path), next_step="optimize anew") from error
    if isinstance(schema, bool) or not isinstance(schema, int):
        raise InputRejected("names no schema: it is no record of a run", where=str(path), next_step="optimize anew")
    if schema > RUN_SCHEMA:
        known = f"{OLDEST_SCHEMA} to {RUN_SCHEMA}" if RUN_SCHEMA > OLDEST_SCHEMA else str(RUN_SCHEMA)
        raise InputRejected(
            f"has schema {schema}, this edgekit reads {known}",
            where=str(path),
            next_step="use the edgekit that wrote it, or a newer one",
        )
    if schema < OLDEST_SCHEMA:
        raise InputRejected(f"has schema {schema}, which there never was", where=str(path), next_step="optimize anew")
    return schema


def list_runs(places: Sequence[Path]) -> tuple[Listed, ...]:
    """The runs in and directly below the `places`, the newest first. Raises InputRejected for a place that is not there."""
    found: dict[Path, Listed] = {}
    for place in places:
        if not place.is_dir():
            raise InputRejected("is no folder", where=str(place), next_step="name a folder that holds runs")
        for folder in (place, *_below(place)):
            if os.path.lexists(folder / RUN_FILE):
                found.setdefault(folder.resolve(), _listed(folder))
    return tuple(sorted(found.values(), key=lambda listed: (-listed.written_s, listed.folder)))


def summary(listed: Listed) -> dict[str, Any]:
    """A run in a list's JSON: what tells it from others; the record itself is in its folder."""
    run = listed.run
    if run is None:
        return {"folder": listed.folder, "written_s": listed.written_s, "error": listed.error}
    outcome = run.outcome(run.choice.chosen) if run.choice.chosen is not None else None
    return {
        "folder": listed.folder,
        "written_s": listed.written_s,
        "schema": run.schema,
        "model_name": run.model_name,
        "model_sha256": run.model_sha256,
        "target": run.target.name,
        "target_origin": run.target_origin,
        "chosen": run.choice.chosen,
        "satisfies_constraints": run.satisfies_constraints,
        "figures": figures(outcome, run.target_origin) if outcome is not None else None,
        "evaluation": run.evaluation,
    }


def _below(place: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(p for p in place.iterdir() if not p.name.startswith(".") and p.is_dir())[:MOST_LISTED]
    return []


def _listed(folder: Path) -> Listed:
    try:
        written = (folder / RUN_FILE).stat().st_mtime
        return Listed(str(folder), written, read_run(folder))
    except EdgekitError as error:
        return Listed(str(folder), written, None, error.what)
    except OSError as error:
        return Listed(str(folder), 0.0, None, error.strerror or type(error).__name__)


def diff_runs(before: Path, after: Path) -> RunDiff:
    """What changed from one run to another. Raises InputRejected for what is no run."""
    one, other = run_folder(before), run_folder(after)
    return diff(read_run(one), read_run(other), (str(one), str(other)))
