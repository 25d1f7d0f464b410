"""The container, read in one pass: manifest, signature, files, end (docs/bundle-format.md).

- what the manifest says determines every other byte, so a reader makes the bytes it expects and compares;
- nothing is believed before the signature holds, and no file is kept in memory;
- each piece goes to the caller as it is hashed: what the caller made of it holds only when the pass ends without an error.
"""

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from edgekit.bundle.frames import CHUNK, expand
from edgekit.bundle.layout import BLOCK, END, header, stated_size
from edgekit.bundle.likeness import unlike_bundle
from edgekit.bundle.trust import Signer
from edgekit.core.manifest import (
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    PLAIN_MODE,
    SIGNATURE_FILE,
    ZSTD,
    BundleFile,
    Manifest,
    parse_manifest,
)
from edgekit.errors import InputRejected, VerificationFailed

UNSIGNED: Final = b"unsigned\n"
MAX_SIGNATURE_BYTES: Final = 202

Admit = Callable[[bytes, bytes], Signer | None]  # text and line -> who signed; raises VerificationFailed
Write = Callable[[bytes], object]
Place = Callable[[BundleFile], contextlib.AbstractContextManager[Write]]

_MAKE = "`edgekit bundle` makes bundles, files NAME.ekb"
_DAMAGED = "the bundle was damaged or changed on its way: get it again from who made it"


@dataclass(frozen=True)
class Verified:
    """What a bundle turned out to be. `signer` is None for an unsigned one; `manifest_sha256` names the bundle's content."""

    manifest: Manifest
    manifest_sha256: str
    signer: Signer | None


# -------------------------------------------------------------------------------------------------------------- reading


class Source(Protocol):
    """What a bundle is read from: `read` gives so many bytes, fewer only at the end."""

    def read(self, count: int, /) -> bytes: ...


class Reader:
    """One pass over a bundle: made when signature and manifest hold; `files` reads the rest, to the end.

    Raises VerificationFailed, whose `where` is the entry, for any byte that is not as it must be.
    """

    def __init__(self, stream: Source, admit: Admit) -> None:
        self._stream = stream
        self.text = self._first(MANIFEST_FILE, MAX_MANIFEST_BYTES)
        self.line = self._first(SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
        self.signer = admit(self.text, self.line)
        self.manifest = parse_manifest(self.text)

    @property
    def verified(self) -> Verified:
        return Verified(self.manifest, hashlib.sha256(self.text).hexdigest(), self.signer)

    def files(self, place: Place) -> None:
        """Read every file and the end; each file's bytes go to the writer that `place` gives for it."""
        for file in self.manifest.files:
            with naming(file.path), place(file) as write:
                self._file(file, write)
        check_end(self._read(len(END) + 1))

    def _first(self, name: str, limit: int) -> bytes:
        """One of the first two entries, whose size is what its header says."""
        with naming(name):
            block = self._take(BLOCK)
            size = check_first(block, name, limit)
            data = self._take(size)
            check_padding(self._take(-size % BLOCK))
            return data

    def _file(self, file: BundleFile, write: Write) -> None:
        check_header(self._take(BLOCK), file)
        stored, content = hashlib.sha256(), hashlib.sha256()

        def take(count: int) -> bytes:
            data = self._take(count)
            stored.update(data)
            return data

        pieces = expand(take, file.stored_size, file.size) if file.encoding == ZSTD else _plain(take, file.size)
        for piece in pieces:
            content.update(piece)
            write(piece)
        check_digest(stored.hexdigest(), file.stored_sha256)
        check_digest(content.hexdigest(), file.sha256)
        check_padding(self._take(-file.stored_size % BLOCK))

    def _take(self, count: int) -> bytes:
        data = self._read(count)
        check_there(data, count)
        return data

    def _read(self, count: int) -> bytes:
        try:
            return self._stream.read(count)
        except OSError as error:
            raise InputRejected(f"the bundle cannot be read: {error.strerror}") from error


def check_first(block: bytes, name: str, limit: int) -> int:
    """The size of one of the first two entries, by its header. Raises VerificationFailed for any other header."""
    size = stated_size(block)
    if size is None or not 0 < size <= limit or block != header(name, PLAIN_MODE, size):
        raise VerificationFailed("is not where it should be")
    return size


def check_header(block: bytes, file: BundleFile) -> None:
    """Raise VerificationFailed unless a header is the one that the manifest determines."""
    if block != header(file.stored_path, file.mode, file.stored_size):
        raise VerificationFailed("is not where it should be, or not as the manifest says")


def check_digest(found: str, expected: str) -> None:
    """Raise VerificationFailed when bytes are not those of the manifest."""
    if found != expected:
        raise VerificationFailed("does not have the bytes that were signed")


def check_padding(data: bytes) -> None:
    """Raise VerificationFailed unless what fills an entry is zeros."""
    if data.strip(b"\0"):
        raise VerificationFailed("has bytes behind its end")


def check_there(data: bytes, count: int) -> None:
    """Raise VerificationFailed when a bundle ends before it should."""
    if len(data) != count:
        raise VerificationFailed("is not whole: the bundle ends early")


def check_end(data: bytes) -> None:
    """Raise VerificationFailed unless a bundle ends with two blocks of zeros, and then ends."""
    if data != END:
        raise VerificationFailed("does not end where it should")


def nowhere(_file: BundleFile) -> contextlib.AbstractContextManager[Write]:
    """The Place of what is only verified."""
    return contextlib.nullcontext(len)


def verify_bundle(bundle: Path, admit: Admit) -> Verified:
    """Read all of a bundle. Raises VerificationFailed, and InputRejected for what is not a file that can be read."""
    with reading(bundle, admit) as reader:
        reader.files(nowhere)
    return reader.verified


@contextlib.contextmanager
def reading(bundle: Path, admit: Admit) -> Iterator[Reader]:
    """A Reader of a file; what it refuses inside the block is said with the file's name."""
    with bundle_errors(bundle), open_regular(bundle) as stream:
        yield Reader(stream, admit)


@contextlib.contextmanager
def bundle_errors(bundle: Path) -> Iterator[None]:
    """Refusals with the bundle's own name in front, and what to do next."""
    try:
        yield
    except VerificationFailed as error:
        if kind := unlike_bundle(bundle):
            raise VerificationFailed(f"is no bundle but {kind}", where=str(bundle), next_step=_MAKE) from error
        where = f"{bundle}: {error.where}" if error.where else str(bundle)
        raise VerificationFailed(error.what, where=where, next_step=error.next_step or _DAMAGED) from error


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file to read; opening a FIFO does not wait. Raises InputRejected."""
    try:
        raw = io.FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}", where=str(path)) from error
    with io.BufferedReader(raw, CHUNK) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise InputRejected("not a regular file", where=str(path))
        yield stream


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(take: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    for start in range(0, size, CHUNK):
        yield take(min(CHUNK, size - start))


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Refusals that do not say where, with the name of an entry."""
    try:
        yield
    except VerificationFailed as error:
        error.where = error.where or name
        raise
