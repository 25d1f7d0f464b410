"""magika's file-type classifier on the machine's own files, labelled by their extension: differs from machine to machine."""

import hashlib
import json
import os
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.zoo import fetch
from benchmarks.zoo.dataset import Array, Case, Input, write
from edgekit.errors import InputRejected

WHEEL = "magika==1.0.3"
FOLDER = "magika/models/standard_v3_3"
ROOTS = (Path("/usr/share"), Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib")))
CONFIG_SHA256 = "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db"
MODEL_SHA256 = "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
SIZES = (200, 800, 800)
MOST_PER_LABEL = 80

# From config.min.json: 1,024 tokens from each end of at most 4,096 bytes, 256 is padding, fewer than 8 bytes are not for the model.
END_TOKENS, BLOCK_BYTES, PADDING, FEWEST_BYTES = 1024, 4096, 256, 8

# Extensions that mean one type only, in the words of the model's labels.
EXTENSIONS = {
    ".bmp": "bmp",
    ".bz2": "bzip",
    ".c": "c",
    ".cmake": "cmake",
    ".cpp": "cpp",
    ".css": "css",
    ".csv": "csv",
    ".f90": "fortran",
    ".gif": "gif",
    ".gz": "gzip",
    ".html": "html",
    ".ico": "ico",
    ".ini": "ini",
    ".jar": "jar",
    ".java": "java",
    ".jpg": "jpeg",
    ".js": "javascript",
    ".json": "json",
    ".lua": "lua",
    ".m4": "m4",
    ".md": "markdown",
    ".npy": "npy",
    ".npz": "npz",
    ".otf": "otf",
    ".pdf": "pdf",
    ".php": "php",
    ".pl": "perl",
    ".pm": "perl",
    ".png": "png",
    ".ps": "postscript",
    ".py": "python",
    ".pyc": "pythonbytecode",
    ".rb": "ruby",
    ".rs": "rust",
    ".rst": "rst",
    ".sh": "shell",
    ".so": "elf",
    ".sql": "sql",
    ".svg": "svg",
    ".tcl": "tcl",
    ".tiff": "tiff",
    ".toml": "toml",
    ".ttf": "ttf",
    ".wav": "wav",
    ".woff": "woff",
    ".woff2": "woff2",
    ".xml": "xml",
    ".xz": "xz",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".zig": "zig",
    ".zip": "zip",
}


def make(out: Path, cache: Path) -> None:
    """Labels: indices into the model's own list of types."""
    classes = json.loads(_file("config.min.json", CONFIG_SHA256, cache))["target_labels_space"]
    samples = balanced(_samples(), MOST_PER_LABEL)[: sum(SIZES)]
    if len(samples) < sum(SIZES):
        raise InputRejected(f"{len(samples)} usable files, {sum(SIZES)} needed", where=", ".join(map(str, ROOTS)))
    np.random.default_rng(4).shuffle(samples)
    write(
        Case(
            name="magika",
            summary="file type from the first and last kilobyte, on the machine's own files, labelled by extension",
            license="Apache-2.0 (model); the files belong to their packages",
            source=f"PyPI {WHEEL}; files under the system's and Python's folders: not reproducible elsewhere",
            metric="top-1",
            model=_file("model.onnx", MODEL_SHA256, cache),
            inputs={"bytes": Input(np.stack([tokens for _, tokens in samples]), dtype="int32")},
            sizes=SIZES,
            labels=np.array([classes.index(label) for label, _ in samples], np.int64),
        ),
        out,
    )


def features(head: bytes, tail: bytes) -> Array | None:
    """The model's 2,048 tokens from a file's first and last block, int32; None when too little is left without white space."""
    head, tail = head.lstrip()[:END_TOKENS], tail.rstrip()[-END_TOKENS:]
    if len(head) < FEWEST_BYTES:
        return None
    tokens = np.full(2 * END_TOKENS, PADDING, np.int32)
    tokens[: len(head)] = np.frombuffer(head, np.uint8)
    tokens[len(tokens) - len(tail) :] = np.frombuffer(tail, np.uint8)
    return tokens


def balanced(samples: Iterable[tuple[str, Array]], most: int) -> list[tuple[str, Array]]:
    """At most `most` samples of each label, the first of every label, then the second of every label, and so on."""
    groups: dict[str, list[tuple[str, Array]]] = defaultdict(list)
    for label, tokens in samples:
        if len(groups[label]) < most:
            groups[label].append((label, tokens))
    return [group[i] for i in range(most) for group in groups.values() if i < len(group)]


def _samples() -> Iterator[tuple[str, Array]]:
    """(label, tokens) of the files under ROOTS, no content twice, in an order that mixes the folders."""
    seen = set()
    for path in sorted(_files(), key=lambda path: hashlib.sha256(os.fsencode(path)).digest()):
        tokens = _tokens(path)
        if tokens is not None and tokens.tobytes() not in seen:
            seen.add(tokens.tobytes())
            yield EXTENSIONS[path.suffix], tokens


def _files() -> Iterator[Path]:
    for root in ROOTS:
        for folder, _, names in os.walk(root):
            paths = (Path(folder, name) for name in names)
            yield from (
                path for path in paths if path.suffix in EXTENSIONS and path.is_file() and not path.is_symlink()
            )


def _tokens(path: Path) -> Array | None:
    try:
        with path.open("rb") as stream:
            head = stream.read(BLOCK_BYTES)
            stream.seek(max(0, path.stat().st_size - BLOCK_BYTES))
            return features(head, stream.read(BLOCK_BYTES))
    except PermissionError:
        return None


def _file(name: str, sha256: str, cache: Path) -> bytes:
    return fetch.wheel_file(WHEEL, f"{FOLDER}/{name}", sha256, cache)
