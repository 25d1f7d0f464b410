"""A bundle in parts, for a device that has some of its files already: its head, and the stored bytes of single files.

- the bundle is read whole and verified first, from one open file: what is taken afterwards is of the very file that was verified;
- where each part lies follows from the manifest; it is hashed again while it is taken, for the file may be changed in its place.
"""

import contextlib
import hashlib
import io
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from edgekit.bundle.container import Admit, Reader, Verified, bundle_errors, check_digest, naming, open_regular
from edgekit.bundle.frames import CHUNK
from edgekit.bundle.layout import BLOCK, padding
from edgekit.core.deployment import DEPLOYMENT_FILE
from edgekit.core.manifest import BundleFile
from edgekit.errors import VerificationFailed
from edgekit.store import disk_errors

HEAD_FILE: Final = "head.ekb"  # no stored file's name: those are digests
MAX_DEPLOYMENT_BYTES: Final = 1 << 20


class Parts:
    """A verified bundle, to take parts from; made by `opened_bundle`. `deployment` is what its file of that name holds."""

    def __init__(self, bundle: Path, stream: BinaryIO, verified: Verified, head_size: int, deployment: bytes) -> None:
        self.verified = verified
        self.deployment = deployment
        self._bundle = bundle
        self._stream = stream
        self._head_size = head_size

    def head(self, folder: Path) -> dict[str, Path]:
        """The first two entries, manifest and signature, as the file HEAD_FILE of `folder`. Raises DiskFull, ResourceLimit."""
        place = folder / HEAD_FILE
        with disk_errors(place):
            self._stream.seek(0)
            place.write_bytes(self._stream.read(self._head_size))
        return {HEAD_FILE: place}

    def files(self, wanted: Collection[str], folder: Path) -> dict[str, Path]:
        """The files with these stored digests, as they are stored, in `folder` under their stored digests.

        Raises VerificationFailed when the bundle was changed since it was verified, DiskFull and ResourceLimit.
        """
        taken: dict[str, Path] = {}
        at = self._head_size
        for file in self.verified.manifest.files:
            at += BLOCK
            if file.stored_sha256 in wanted and file.stored_sha256 not in taken:
                place = taken[file.stored_sha256] = folder / file.stored_sha256
                with bundle_errors(self._bundle), naming(file.path), disk_errors(place):
                    self._copy(at, file, place)
            at += file.stored_size + len(padding(file.stored_size))
        return taken

    def _copy(self, at: int, file: BundleFile, place: Path) -> None:
        digest, left = hashlib.sha256(), file.stored_size
        self._stream.seek(at)
        with place.open("wb") as out:
            while left:
                piece = self._stream.read(min(CHUNK, left))
                if not piece:
                    raise VerificationFailed("is not whole any more")
                digest.update(piece)
                out.write(piece)
                left -= len(piece)
        check_digest(digest.hexdigest(), file.stored_sha256)


@contextlib.contextmanager
def opened_bundle(bundle: Path, admit: Admit) -> Iterator[Parts]:
    """A bundle, read whole and verified. Raises VerificationFailed, and InputRejected for what cannot be read."""
    with open_regular(bundle) as stream:
        with bundle_errors(bundle):
            reader = Reader(stream, admit)
            head_size = stream.tell()
            kept = io.BytesIO()
            reader.files(lambda file: contextlib.nullcontext(kept.write if _is_document(file) else len))
        yield Parts(bundle, stream, reader.verified, head_size, kept.getvalue())


def _is_document(file: BundleFile) -> bool:
    return file.path == DEPLOYMENT_FILE and file.size <= MAX_DEPLOYMENT_BYTES
