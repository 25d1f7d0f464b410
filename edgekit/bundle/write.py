"""The container, written and signed (docs/bundle-format.md).

- a bundle is complete or absent, and read back before it gets its name;
- the same files, head and zstd give the same bytes: no time, owner, locale or order of a folder gets in;
- signing replaces the second entry, which takes two blocks with and without a signature.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from edgekit.bundle.container import Reader, Verified, bundle_errors, nowhere, open_regular, sync_folder
from edgekit.bundle.frames import CHUNK, FRAME_KEY, compress
from edgekit.bundle.keys import Seal, unsigned
from edgekit.bundle.layout import END, entry, header, padding
from edgekit.core.manifest import (
    IDENTITY,
    MANIFEST_FILE,
    PLAIN_MODE,
    PROGRAM_MODE,
    SIGNATURE_FILE,
    ZSTD,
    BundleFile,
    Manifest,
    canonical_text,
)
from edgekit.errors import InputRejected, UsageError, VerificationFailed
from edgekit.store import Cache, disk_errors, sha256_file

_PAYS = 32  # a frame is worth expanding when it saves at least this part of a file
_LARGE = 4 << 20  # bytes, of which compressing takes a second or so
_FRAMES = "frames"  # of the cache


def write_bundle(
    out: Path, folder: Path, head: Manifest, seal: Seal = unsigned, *, force: bool = False, cache: Cache | None = None
) -> Verified:
    """Pack every file below `folder` into the bundle `out`; `head` is the manifest without its files.

    `cache` keeps the frames of large files: an engine is compressed once, and not for every bundle. Raises UsageError when `out`
    exists and `force` is not given, InputRejected for what is no regular file and for a head or paths that break a rule,
    VerificationFailed for files that change meanwhile, ResourceLimit and DiskFull.
    """
    with drafting(out, force) as (stream, scratch):
        stored = dict(_store(folder, scratch, cache))
        text = _text(replace(head, files=tuple(stored)), folder)
        stream.write(first_entries(text, seal(text)))
        for file, place in stored.items():
            stream.write(header(file.stored_path, file.mode, file.stored_size))
            with place.open("rb") as source:
                shutil.copyfileobj(source, stream, CHUNK)
            stream.write(padding(file.stored_size))
        stream.write(END)
        return _read_back(stream, out)


def sign_bundle(bundle: Path, seal: Seal, out: Path | None = None, *, force: bool = False) -> Verified:
    """Put another signature into a bundle, in its own place or as `out`. Whoever signed it before counts for nothing.

    Raises VerificationFailed, before anything is written under the bundle's name, when the bundle is damaged.
    """
    place = out or bundle.resolve()  # a link to the bundle stays a link
    with drafting(place, force or out is None) as (stream, _):
        with bundle_errors(bundle), open_regular(bundle) as source:
            reader = Reader(_Copying(source, stream, place), _anyone)
            reader.files(nowhere)
        stream.seek(0)
        stream.write(first_entries(reader.text, seal(reader.text)))
        return _read_back(stream, place)


def first_entries(text: bytes, line: bytes) -> bytes:
    """Manifest and signature."""
    return entry(MANIFEST_FILE, PLAIN_MODE, text) + entry(SIGNATURE_FILE, PLAIN_MODE, line)


@contextlib.contextmanager
def drafting(out: Path, force: bool) -> Iterator[tuple[BinaryIO, Path]]:
    """A stream that becomes `out` when the block ends without an error, and a private folder beside it for the meantime."""
    check_free(out, force)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with private_folder(out) as scratch:
            draft = scratch / "draft"
            with draft.open("x+b") as stream:
                yield stream, scratch
                stream.flush()
                os.fsync(stream.fileno())
            draft.chmod(0o644)
            check_free(out, force)
            draft.replace(out)
            sync_folder(out.parent)


@contextlib.contextmanager
def private_folder(beside: Path) -> Iterator[Path]:
    """A new folder that only its owner may enter, beside a path and on its file system; removed if it still is there."""
    folder = beside.with_name(f".{beside.name[:80]}.{secrets.token_hex(8)}")
    try:
        folder.mkdir(mode=0o700)  # inside: an interrupt right behind it leaves nothing either
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:  # an interrupt in the midst of it: nothing is left all the same
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Copying:
    """A stream to read from that writes what was read to another, which will be `out`."""

    def __init__(self, source: BinaryIO, copy: BinaryIO, out: Path) -> None:
        self._source, self._copy, self._out = source, copy, out

    def read(self, count: int) -> bytes:
        data = self._source.read(count)
        with disk_errors(self._out):  # here, or a full disk would be taken for a bundle that cannot be read
            self._copy.write(data)
        return data


def _anyone(_text: bytes, _line: bytes) -> None:
    """The Admit of one who is about to sign, and of one who reads back what was written."""


def check_free(out: Path, force: bool) -> None:
    """Raise UsageError unless a bundle may be written as `out`."""
    if not os.path.lexists(out):
        return
    if not force:
        raise UsageError("exists already", where=str(out), next_step="choose another name, or replace it with --force")
    if not out.is_file():
        raise UsageError("is not a file, and is left as it is", where=str(out), next_step="choose another name")


def _text(manifest: Manifest, folder: Path) -> bytes:
    """The canonical text. What breaks a rule was handed over so: nobody's bundle is damaged. Raises InputRejected."""
    try:
        return canonical_text(manifest)
    except VerificationFailed as error:
        raise InputRejected(error.what, where=str(folder), next_step="see docs/bundle-format.md") from error


def _store(folder: Path, scratch: Path, cache: Cache | None) -> Iterator[tuple[BundleFile, Path]]:
    """Every file below a folder as it will be stored, sorted by path, and where those bytes are."""
    for number, (path, source) in enumerate(sorted(_walk(folder, ""))):
        stat = source.stat()
        plain = BundleFile(
            path=path,
            mode=PROGRAM_MODE if stat.st_mode & 0o100 else PLAIN_MODE,
            size=stat.st_size,
            sha256=(digest := sha256_file(source)),
            encoding=IDENTITY,
            stored_size=stat.st_size,
            stored_sha256=digest,
        )
        place, stored_digest = _frame(source, digest, scratch / f"{number}", cache)
        size = place.stat().st_size
        if size <= stat.st_size - stat.st_size // _PAYS - 1:
            yield replace(plain, encoding=ZSTD, stored_size=size, stored_sha256=stored_digest), place
        else:
            yield plain, source


def _frame(source: Path, digest: str, place: Path, cache: Cache | None) -> tuple[Path, str]:
    """The file's frame, in `place` or in the cache, and its SHA-256.

    A cached frame is called by its digest, as it was written: one that was damaged since is made anew.
    """
    if cache is None or source.stat().st_size < _LARGE:
        return place, compress(source, place)
    key = f"{digest}-{FRAME_KEY}"
    if (entry := cache.get(_FRAMES, key)) is not None:
        found = next(entry.iterdir(), None)
        if found is not None and sha256_file(found) == found.name:
            return found, found.name
        cache.discard(_FRAMES, key)
    name = compress(source, place)
    with cache.filling(_FRAMES, key) as folder:
        shutil.copyfile(place, folder / name)
    return place, name


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Paths in the bundle and on disk. Folders without files are no part of a bundle."""
    with os.scandir(folder) as entries:
        found = list(entries)
    for item in found:
        path = prefix + item.name
        if item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), f"{path}/")
        elif item.is_file(follow_symlinks=False):
            yield path, Path(item.path)
        else:
            raise InputRejected("is no regular file: a bundle holds nothing else", where=item.path)


def _read_back(stream: BinaryIO, out: Path) -> Verified:
    """A file that changed while it was packed, and a disk that forgets, are noticed here and not on a device."""
    stream.flush()
    stream.seek(0)
    with bundle_errors(out):
        reader = Reader(stream, _anyone)
        reader.files(nowhere)
    return reader.verified
