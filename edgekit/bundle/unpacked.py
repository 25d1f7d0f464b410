"""A bundle as files: unpacked complete or not at all, and verified again where it lies (docs/bundle-format.md).

- nothing is written before signature and manifest hold, and then only below a private folder beside the destination;
- files are made anew, never opened: what lies there already, or is a link, refuses the bundle;
- files, folders and names are synced before the folder gets its name, and the name after it;
- a refusal, a full disk and an interrupt leave nothing behind.
"""

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from edgekit.bundle.container import (
    MAX_SIGNATURE_BYTES,
    Admit,
    Reader,
    Verified,
    Write,
    bundle_errors,
    check_digest,
    naming,
    reading,
    sync_folder,
)
from edgekit.bundle.write import private_folder
from edgekit.core.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    PLAIN_MODE,
    RESERVED,
    SIGNATURE_FILE,
    BundleFile,
    Manifest,
    parse_manifest,
)
from edgekit.errors import InputRejected, UsageError, VerificationFailed
from edgekit.store import disk_errors


def unpack_bundle(bundle: Path, destination: Path, admit: Admit) -> Verified:
    """Verify a bundle and make the folder `destination` of it, in one pass.

    Raises VerificationFailed, InputRejected for what cannot be read, UsageError when `destination` exists or its parent does
    not, ResourceLimit and DiskFull.
    """
    _check_free(destination)
    with reading(bundle, admit) as reader, _staging(destination) as folder:
        _fill(folder, reader)
    return reader.verified


def verify_folder(folder: Path, admit: Admit) -> Verified:
    """Read all of an unpacked bundle again. Raises VerificationFailed for anything that is not as it was signed."""
    if not folder.is_dir():
        raise InputRejected("is not a folder", where=str(folder))
    with bundle_errors(folder):
        text = _read_first(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
        line = _read_first(folder, SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        signer = admit(text, line)
        manifest = parse_manifest(text)
        _check_names(folder, "", {*RESERVED, *(file.path for file in manifest.files)}, folders(manifest))
        for file in manifest.files:
            _check_content(folder, file)
    return Verified(manifest, hashlib.sha256(text).hexdigest(), signer)


def folders(manifest: Manifest) -> set[str]:
    """The folders that a bundle's files need."""
    parts = (file.path.split("/") for file in manifest.files)
    return {"/".join(segments[:depth]) for segments in parts for depth in range(1, len(segments))}


# ------------------------------------------------------------------------------------------------------------ unpacking


@contextlib.contextmanager
def _staging(destination: Path) -> Iterator[Path]:
    """A private folder beside `destination`, which takes its name when the block ends without an error."""
    with disk_errors(destination), private_folder(destination) as folder:
        yield folder
        _check_free(destination)
        folder.rename(destination)
        sync_folder(destination.parent)


def _fill(folder: Path, reader: Reader) -> None:
    """Write all of a bundle below an empty folder, synced."""

    @contextlib.contextmanager
    def place(file: BundleFile) -> Iterator[Write]:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with _new_file(path, file.mode) as stream:
            yield stream.write

    for name, data in ((MANIFEST_FILE, reader.text), (SIGNATURE_FILE, reader.line)):
        with _new_file(folder / name, PLAIN_MODE) as stream:
            stream.write(data)
    reader.files(place)
    for name in sorted(folders(reader.manifest), reverse=True):  # what lies deeper comes first
        (folder / name).chmod(0o755)
        sync_folder(folder / name)
    folder.chmod(0o755)
    sync_folder(folder)


@contextlib.contextmanager
def _new_file(path: Path, mode: int) -> Iterator[BinaryIO]:
    """A file that did not exist, of this mode whatever the umask; synced at the end."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        yield stream
        stream.flush()
        os.fchmod(stream.fileno(), mode)
        os.fsync(stream.fileno())


def _check_free(destination: Path) -> None:
    if os.path.lexists(destination):
        raise UsageError("exists already", where=str(destination), next_step="unpack to a new folder")
    if not destination.parent.is_dir():
        raise UsageError("there is no such folder", where=str(destination.parent), next_step="make it first")


# ------------------------------------------------------------------------------------------------------------ verifying


def _read_first(folder: Path, name: str, limit: int) -> bytes:
    with _as_signed(folder, name, PLAIN_MODE) as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise VerificationFailed(f"is larger than {limit} bytes", where=name)
    return data


def _check_names(folder: Path, prefix: str, files: Collection[str], inner: Collection[str]) -> None:
    """Raise VerificationFailed for anything that is neither a file of the bundle nor a folder one needs."""
    with os.scandir(folder) as entries:
        for item in entries:
            path = prefix + item.name
            is_folder = item.is_dir(follow_symlinks=False)
            check_known(path, inner if is_folder else files)
            if is_folder:
                _check_names(folder / item.name, f"{path}/", files, inner)


def check_known(path: str, known: Collection[str]) -> None:
    """Raise VerificationFailed for a name that no bundle's manifest has."""
    if path not in known:
        raise VerificationFailed("is not part of the bundle", where=path)


def _check_content(folder: Path, file: BundleFile) -> None:
    with naming(file.path), _as_signed(folder, file.path, file.mode) as stream:
        check_size(os.fstat(stream.fileno()).st_size, file.size)
        check_digest(hashlib.file_digest(stream, "sha256").hexdigest(), file.sha256)


def check_size(found: int, expected: int) -> None:
    """Raise VerificationFailed for a file that is too long to be read, or too short."""
    if found != expected:
        raise VerificationFailed(f"has {found} bytes, not {expected}")


@contextlib.contextmanager
def _as_signed(folder: Path, name: str, mode: int) -> Iterator[io.BufferedReader]:
    """A file of an unpacked bundle to read. Raises VerificationFailed unless it is a regular file of this mode."""
    try:
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise VerificationFailed(f"cannot be opened: {error.strerror}", where=name) from error
    with os.fdopen(handle, "rb") as stream:
        check_kind(name, os.fstat(handle).st_mode, mode)
        yield stream


def check_kind(name: str, found: int, mode: int) -> None:
    """Raise VerificationFailed unless `found`, a file's st_mode, is that of a regular file of this mode."""
    if not stat.S_ISREG(found):
        raise VerificationFailed("is no regular file", where=name)
    if stat.S_IMODE(found) != mode:
        raise VerificationFailed(f"has mode {stat.S_IMODE(found):o}, not {mode:o}", where=name)
