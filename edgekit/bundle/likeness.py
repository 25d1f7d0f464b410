"""What a file is that was taken for a bundle: words for an error, never a verdict."""

import os
from pathlib import Path
from typing import Final

from edgekit.bundle.layout import BLOCK
from edgekit.core.manifest import MANIFEST_FILE

# How files begin that people have beside their bundles, or get in their place.
_BEGINNINGS: Final = (
    (b"PK\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x7fELF", "a program or library"),
    (b"\x93NUMPY", "a numpy array"),
    (b"version https://git-lfs", "a pointer of Git LFS; `git lfs pull` brings the file"),
    (b"<", "a web page or XML, as OpenVINO's models are"),
    (b"{", "JSON"),
    (b"\x08", "an ONNX model"),  # the first field of its protobuf is ir_version, a number
)
_MAGIC: Final = slice(257, 262)
_ENOUGH: Final = 9  # of the 13 characters of the first name: so damaged a bundle is one still


def begins_like_bundle(data: bytes) -> bool:
    """Whether a file's first bytes are those of a bundle, but for some damage."""
    return sum(a == b for a, b in zip(data, MANIFEST_FILE.encode(), strict=False)) >= min(_ENOUGH, max(1, len(data)))


def unlike_bundle(path: Path) -> str:
    """What a file or folder is instead of a bundle; empty for one that may be a bundle, damaged or not."""
    if path.is_dir():
        return "" if os.path.lexists(path / MANIFEST_FILE) else f"a folder without {MANIFEST_FILE}"
    try:
        with path.open("rb") as stream:
            data = stream.read(BLOCK)
    except OSError:
        return ""
    if not data:
        return "an empty file"
    if begins_like_bundle(data):
        return ""
    if data[_MAGIC] == b"ustar":
        return f"a tar archive that does not begin with {MANIFEST_FILE}"
    return next((words for beginning, words in _BEGINNINGS if data.startswith(beginning)), "a file of another kind")
