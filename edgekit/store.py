"""Run folders and the content-keyed cache: what is written is complete or absent.

- everything is written to a sibling temporary name, synced, then renamed into place;
- a cache entry is a folder named by the digest of all it depends on; two processes may make the same one, the first rename wins;
- a leftover temporary folder of a killed process is removed by the next one that finds it stale.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import Busy, DiskFull, InputRejected, ResourceLimit

RUN_FILE = "run.json"
ARTIFACT_FOLDER = "artifact"
PROFILE_FILE = "profile.json"
LATENCY_FILE = "latencies.npy"
LOCK_DEADLINE_S = 5.0


@dataclass(frozen=True)
class ResultFolder:
    """What a command leaves: a folder with the file `record` and at most these other `contents`."""

    name: str
    record: str
    contents: frozenset[str]


RUN = ResultFolder("run", RUN_FILE, frozenset({ARTIFACT_FOLDER}))
PROFILE = ResultFolder("profile", PROFILE_FILE, frozenset({LATENCY_FILE}))


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn a full disk or a refused write into one typed error."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFull(
                "the disk is full", where=str(place), next_step="free some space or choose another folder"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.EBUSY):
            raise ResourceLimit(
                "cannot write here", where=str(place), next_step="choose a folder you may write to"
            ) from error
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, also after a power cut."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def alone_with(path: Path, doing: str) -> Iterator[None]:
    """Alone among edgekit's processes with a small file that is rewritten whole; its folder is made.

    Raises Busy, with what the other is `doing`, when one keeps it for long, and OSError.
    """
    end = time.monotonic() + LOCK_DEADLINE_S
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _take(lock):
            if time.monotonic() > end:
                raise Busy(f"another edgekit is {doing}", where=str(path))
            time.sleep(0.02)
        yield
    finally:
        os.close(lock)


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def default_cache() -> Path:
    """The user's own cache folder."""
    return Path.home() / ".cache" / "edgekit"


def safe_name(text: str) -> str:
    """`text` as a file name: letters, digits, dot, dash and underscore; anything else becomes an underscore."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".-")[:80] or "model"


class Cache:
    """Folders by content key under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, kind: str, key: str) -> Path | None:
        """The entry's folder, or None when it was never completed."""
        place = self.root / kind / key
        return place if place.is_dir() else None

    def discard(self, kind: str, key: str) -> None:
        """Take an entry away in one step; harmless when there is none."""
        place = self.root / kind / key
        with self.scratch() as scratch, disk_errors(place), contextlib.suppress(FileNotFoundError):
            place.rename(scratch / "discarded")

    @contextlib.contextmanager
    def filling(self, kind: str, key: str) -> Iterator[Path]:
        """A private folder to fill; when the block ends without an error it becomes the entry, else it is removed."""
        place = self.root / kind / key
        with self.scratch() as folder:
            yield folder
            with disk_errors(place):
                place.parent.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o755)
                try:
                    folder.rename(place)
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A private temporary folder on the cache's own file system, removed afterwards, locked while in use."""
        base = self.root / "tmp"
        with disk_errors(base):
            base.mkdir(parents=True, exist_ok=True)
            _sweep(base)
            # The lock exists and is held before the folder does, so that no sweep takes a live folder for a leftover.
            lock, name = tempfile.mkstemp(suffix=".lock", dir=base)
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = Path(name).with_suffix("")
            folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(name).unlink(missing_ok=True)
            os.close(lock)


def _sweep(base: Path) -> None:
    """Remove temporary folders whose owner is gone: its lock went with it."""
    for lock_path in base.glob("*.lock"):
        with contextlib.suppress(OSError):
            lock = os.open(lock_path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
                lock_path.unlink(missing_ok=True)
            finally:
                os.close(lock)


def check_result_folder(folder: Path, kind: ResultFolder = RUN) -> None:
    """Refuse an output folder that a result could not replace, or that holds anything but one. Raises InputRejected."""
    with disk_errors(folder):
        if not folder.exists():
            return
    advice = "choose another folder with -o"
    if not folder.is_dir():
        raise InputRejected("is a file, not a folder", where=str(folder), next_step=advice)
    if folder.resolve() == Path.cwd() or folder.is_mount():
        raise InputRejected(
            f"is a folder a {kind.name} cannot replace",
            where=str(folder),
            next_step="choose a folder inside it with -o",
        )
    found = {path.name for path in folder.iterdir()}
    if found and (kind.record not in found or found - kind.contents - {kind.record}):
        raise InputRejected(
            f"exists and is not an edgekit {kind.name}; nothing in it was touched", where=str(folder), next_step=advice
        )


@contextlib.contextmanager
def filling_result(folder: Path, kind: ResultFolder = RUN) -> Iterator[Path]:
    """A temporary sibling of `folder` to fill; it takes the folder's place when the block ends without an error.

    An earlier result in `folder` stays whole until then, and is put back when the exchange fails.
    """
    check_result_folder(folder, kind)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield draft
        with disk_errors(folder):
            draft.chmod(0o755)
            check_result_folder(folder, kind)
            _exchange(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _exchange(draft: Path, folder: Path) -> None:
    """Put `draft` in the place of `folder`."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    try:
        folder.rename(old / "run")
        try:
            draft.rename(folder)
        except BaseException:
            (old / "run").rename(folder)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)
