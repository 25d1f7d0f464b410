"""Gather what a report shows: a run, and profiles of its model. What they say is untrusted: bounded, and read as records."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from edgekit import sandbox
from edgekit.core.dossier import Dossier, Profiled
from edgekit.core.profile_run import PROFILE_SCHEMA, Profile
from edgekit.core.run import Run
from edgekit.errors import DeviceError, InputRejected
from edgekit.flow.runs import MAX_RUN_BYTES, read_run, run_folder
from edgekit.resources import read_regular
from edgekit.runner.scenarios import raw_samples
from edgekit.store import LATENCY_FILE, PROFILE_FILE, write_atomic

MAX_PROFILE_BYTES = 256 << 20
MAX_LATENCY_BYTES = 256 << 20  # 16 million queries


def gather(run: Path, profiles: Sequence[Path] = ()) -> Dossier:
    """The run in the folder `run`, or of the file run.json, and profiles of its model.

    Raises InputRejected when one of them is no such record, or a profile is of another model.
    """
    folder = run_folder(run)
    record = read_run(folder)
    found = tuple(_profiled(path.parent if path.name == PROFILE_FILE else path, record) for path in profiles)
    return Dossier(record, folder.absolute().name, found)


def beside(run: Path) -> Path:
    """Where a run's HTML is left when nothing else is asked: beside its folder, which holds a run and nothing else."""
    folder = run_folder(run).absolute()
    return folder.with_name(f"{folder.name}.html")


def _profiled(folder: Path, run: Run) -> Profiled:
    path = folder / PROFILE_FILE
    if not path.is_file():
        raise InputRejected(
            f"holds no {PROFILE_FILE}", where=str(folder), next_step="name a folder of `edgekit profile`"
        )
    try:
        profile: Profile = sandbox.decode(read_regular(path, MAX_PROFILE_BYTES), Profile)
    except msgspec.MsgspecError as error:
        raise InputRejected(
            f"is no profile this edgekit reads: {error}", where=str(path), next_step="profile anew"
        ) from error
    if profile.schema != PROFILE_SCHEMA:
        raise InputRejected(f"has schema {profile.schema}, this edgekit reads {PROFILE_SCHEMA}", where=str(path))
    if profile.model_sha256 != run.model_sha256:
        raise InputRejected(
            "is a profile of another model than the run's", where=str(path), next_step="profile the run itself"
        )
    return _with_latencies(profile, folder / LATENCY_FILE) if profile.latency_file is not None else Profiled(profile)


def _with_latencies(profile: Profile, path: Path) -> Profiled:
    """The raw latencies beside a profile; the file is always of one name, whatever the record says."""
    try:
        raw = raw_samples(read_regular(path, MAX_LATENCY_BYTES), str(path))
    except DeviceError as error:
        raise InputRejected(error.what, where=str(path), next_step="profile anew") from error
    return Profiled(profile, tuple(raw.start_ns), tuple(raw.latency_ns))


def write(path: Path, text: str, mark: str, *, force: bool = False) -> None:
    """Write a report to `path` in one step. Raises InputRejected when something else than a report is there, but for `force`."""
    if path.exists() and not path.is_file():  # a folder, or a device that a new file would take the place of
        raise InputRejected("is no file", where=str(path), next_step="name a file with -o")
    if path.exists() and not force and mark.encode() not in read_regular(path, MAX_RUN_BYTES)[: len(mark) + 64]:
        raise InputRejected("exists and is no report; it was not touched", where=str(path), next_step="give --force")
    try:
        write_atomic(path, text.encode())
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise InputRejected(
            "its folder cannot be made", where=str(path), next_step="name another file with -o"
        ) from error
