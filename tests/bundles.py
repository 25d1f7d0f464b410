"""Bundles for tests: a small good one, made from fixed keys and bytes, and the pieces to spoil one with.

`stub_bundle()` is a good bundle below 1 MB; `make_bundle(files)` makes another. Both are signed with KEY, which TRUST trusts.
`draft` takes a bundle apart and builds what may be ill-formed but is properly signed; `tests/tamper.py` is the corpus.
"""

import functools
import hashlib
import json
import random
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edgekit.bundle.keys import Seal, SigningKey
from edgekit.bundle.trust import Signer, public_line
from edgekit.bundle.write import write_bundle
from edgekit.core.manifest import Manifest, Requires
from tests.conftest import SAMPLE


def fixed_key(seed: int) -> SigningKey:
    """The same key every time."""
    return SigningKey(Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"%d" % seed).digest()))


KEY, OTHER_KEY, REVOKED_KEY = map(fixed_key, range(3))
SIGNER = Signer("test", KEY.public)
TRUST = public_line(SIGNER) + b"# a comment\n\n" + f"revoked {REVOKED_KEY.public} lost\n".encode()
HEAD = Manifest("digits", "1.0.0+stub", 7, Requires("x86_64", "2.28", ("avx2", "fma"), "3.4.22"))


def stub_files() -> dict[str, bytes]:
    """Files of every kind: empty, small, stored as they are (random bytes), stored as a frame, programs (`bin/`)."""
    noise = random.Random(5)
    return {
        "bin/run": b"#!/bin/sh\nexit 0\n" * 40,
        "deployment.json": b'{"format":1}\n',
        "golden/0.npy": noise.randbytes(700),
        "golden/empty": b"",
        "lib/libstub.so.1": b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(6_000)),
        "model/model.onnx": noise.randbytes(20_001),
    }


def make_bundle(files: Mapping[str, bytes], head: Manifest = HEAD, seal: Seal = KEY.seal) -> bytes:
    """A good bundle of these files; what lies in `bin/` may be executed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = Path(scratch, "files"), Path(scratch, "out.ekb")
        for path, data in files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            place.chmod(0o755 if path.startswith("bin/") else 0o644)
        write_bundle(out, folder, head, seal)
        return out.read_bytes()


@functools.cache
def stub_bundle() -> bytes:
    """A good bundle of `stub_files`."""
    return make_bundle(stub_files())


@functools.cache
def other_bundle() -> bytes:
    """Another good one: the same names and sizes, other bytes."""
    return make_bundle(
        {path: data[:-1] + bytes([data[-1] ^ 1]) if data else data for path, data in stub_files().items()}
    )


@functools.cache
def real_bundles() -> tuple[bytes, bytes]:
    """An engine's own library and a model, and the same names with zeros."""
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    files = {f"lib/{library.name}": library.read_bytes(), "model/model.onnx": (SAMPLE / "model.onnx").read_bytes()}
    return make_bundle(files), make_bundle({name: bytes(len(data)) for name, data in files.items()})


# ------------------------------------------------------------------------------------- bundles that no edgekit would make


def text_of(record: object) -> bytes:
    """A record as canonical JSON, whatever it is."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def raw_header(name: bytes, mode: int, size: int, kind: bytes = b"0", link: bytes = b"") -> bytes:
    """A tar header from the definition of ustar, with anything in it: not the code that the readers compare with."""
    block = bytearray(512)
    numbers = (
        (100, b"%07o" % (mode & 0o7777777)),
        (108, b"0000000"),
        (116, b"0000000"),
        (124, b"%011o" % (size % 8**11)),
    )
    for offset, value in (
        (0, name[:100]),
        *numbers,
        (136, b"00000000000"),
        (156, kind),
        (157, link[:100]),
        (257, b"ustar\x0000"),
        (329, b"0000000"),
        (337, b"0000000"),
    ):
        block[offset : offset + len(value)] = value
    return with_checksum(bytes(block))


def with_checksum(block: bytes) -> bytes:
    """A header with its checksum set right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def blocks(data: bytes) -> bytes:
    """Bytes, filled up with zeros."""
    return data + bytes(-len(data) % 512)


def raw_entry(name: str, mode: int, data: bytes, size: int | None = None) -> bytes:
    return raw_header(name.encode(), mode, len(data) if size is None else size) + blocks(data)


def join(text: bytes, line: bytes, entries: Iterable[bytes], end: bytes = bytes(1024)) -> bytes:
    """A bundle of these pieces."""
    first = raw_entry("manifest.json", 0o644, text) + raw_entry("manifest.sig", 0o644, line)
    return b"".join((first, *entries, end))


@dataclass
class Draft:
    """A bundle in pieces, to be changed and signed again: the manifest's keys, and each file's keys with its stored bytes."""

    top: dict[str, Any]
    files: list[tuple[dict[str, Any], bytes]]

    def record(self) -> dict[str, Any]:
        return {**self.top, "files": [file for file, _ in self.files]}

    def entries(self) -> list[bytes]:
        return [self._entry(file, stored) for file, stored in self.files]

    def text(self) -> bytes:
        return text_of(self.record())

    def build(self, text: bytes | None = None, key: SigningKey = KEY) -> bytes:
        """The whole bundle; `text` is a manifest in place of the canonical one, signed all the same."""
        text = self.text() if text is None else text
        return join(text, key.seal(text), self.entries())

    def add(self, path: str, data: bytes, stored: bytes | None = None, **keys: Any) -> "Draft":
        """Another file in its place by path: as it is, or as the frame `stored`; `keys` are set over what is right."""
        held = data if stored is None else stored
        file = {
            "path": path,
            "mode": 0o644,
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "encoding": "identity" if stored is None else "zstd",
            "stored_size": len(held),
            "stored_sha256": hashlib.sha256(held).hexdigest(),
            **keys,
        }
        self.files = sorted([*self.files, (file, held)], key=lambda item: item[0]["path"])
        return self

    def _entry(self, file: dict[str, Any], stored: bytes) -> bytes:
        name = str(file.get("path", "")) + (".zst" if file.get("encoding") == "zstd" else "")
        mode, size = file.get("mode"), file.get("stored_size")
        return raw_entry(
            name,
            mode if type(mode) is int else 0o644,
            stored,
            size if type(size) is int else None,
        )


def draft(bundle: bytes) -> Draft:
    """A good bundle in pieces."""
    text, _, entries = pieces(bundle)
    top = json.loads(text)
    files = top.pop("files")
    return Draft(
        top, [(file, entry[512 : 512 + file["stored_size"]]) for file, entry in zip(files, entries, strict=True)]
    )


def pieces(bundle: bytes) -> tuple[bytes, bytes, list[bytes]]:
    """The manifest, the signature's line, and the other entries, whole, of a good bundle."""
    found, at = [], 0
    while bundle[at]:
        size = int(bundle[at + 124 : at + 135], 8)
        found.append(bundle[at : at + 512 + size + -size % 512])
        at += len(found[-1])
    first, second = (entry[512 : 512 + int(entry[124:135], 8)] for entry in found[:2])
    return first, second, found[2:]
