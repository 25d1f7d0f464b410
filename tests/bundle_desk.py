"""A folder to unpack bundles in with ekrun, and the ways to change an unpacked one that `verify` must notice."""

import os
from collections.abc import Callable
from pathlib import Path

from edgekit.bundle.container import verify_bundle
from edgekit.bundle.keys import admitting
from edgekit.bundle.trust import parse_trust
from edgekit.errors import VerificationFailed
from tests.bundles import TRUST
from tests.ekrun_tools import Answer, ekrun

REFUSED, USAGE, BAD_INPUT, IO, MEMORY = 8, 2, 5, 7, 11
ADMIT = admitting(parse_trust(TRUST, "trust"))
MIB = 1 << 20


class Desk:
    """A folder with a trust file and one bundle in it, and nothing else but what the bundle is unpacked to."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bundle, self.out = folder, folder / "b.ekb", folder / "out"
        self.trust = folder / "trust"
        self.trust.write_bytes(TRUST)

    def unpack(self, data: bytes, *more: object, program: list[str] | None = None, **how: object) -> Answer:
        self.bundle.write_bytes(data)
        trust = () if "--trust" in more else ("--trust", self.trust)
        return ekrun("unpack", self.bundle, self.out, *trust, *more, program=program or [], **how)

    def verify(self, *more: object) -> Answer:
        return ekrun("verify", self.out, "--trust", self.trust, *more)

    def left(self) -> list[str]:
        """What lies here besides trust file and bundle."""
        return sorted({path.name for path in self.folder.iterdir()} - {"trust", "b.ekb"})

    def python(self, data: bytes) -> bool:
        """Whether the Python reader takes a bundle."""
        self.bundle.write_bytes(data)
        try:
            verify_bundle(self.bundle, ADMIT)
        except VerificationFailed:
            return False
        return True


def tree(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and bytes of everything below a folder, and of itself."""
    found = [folder, *folder.rglob("*")]
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in found
    }


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


FOLDER_TAMPERED: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda out: (out / "model/model.onnx").write_bytes(
        bytes([(out / "model/model.onnx").read_bytes()[0] ^ 1]) + (out / "model/model.onnx").read_bytes()[1:]
    ),
    "a byte more": lambda out: append(out / "model/model.onnx", b"\0"),
    "a byte less": lambda out: os.truncate(out / "model/model.onnx", 20_000),
    "a file in an empty one's place": lambda out: (out / "golden/empty").write_bytes(b"x"),
    "no file": lambda out: (out / "golden/empty").unlink(),
    "one file more": lambda out: (out / "lib/libevil.so").touch(),
    "one hidden file more": lambda out: (out / ".evil").touch(),
    "one folder more": lambda out: (out / "lib/empty").mkdir(),
    "a link more": lambda out: (out / "lib/link").symlink_to("libstub.so.1"),
    "a link for a file": lambda out: (
        (out / "bin/run").rename(out.parent / "run"),
        (out / "bin/run").symlink_to(out.parent / "run"),
    ),
    "a link for a folder": lambda out: (
        (out / "lib").rename(out.parent / "lib"),
        (out / "lib").symlink_to(out.parent / "lib"),
    ),
    "a link for the manifest": lambda out: (
        (out / "manifest.json").rename(out.parent / "m"),
        (out / "manifest.json").symlink_to(out.parent / "m"),
    ),
    "a fifo for a file": lambda out: ((out / "bin/run").unlink(), os.mkfifo(out / "bin/run")),
    "a folder for a file": lambda out: ((out / "bin/run").unlink(), (out / "bin/run").mkdir()),
    "set-user-ID": lambda out: (out / "bin/run").chmod(0o4755),
    "not executable": lambda out: (out / "bin/run").chmod(0o644),
    "writable for all": lambda out: (out / "model/model.onnx").chmod(0o666),
    "a manifest writable for all": lambda out: (out / "manifest.json").chmod(0o666),
    "no signature": lambda out: (out / "manifest.sig").unlink(),
    "no manifest": lambda out: (out / "manifest.json").unlink(),
    "unsigned": lambda out: (out / "manifest.sig").write_bytes(b"unsigned\n"),
    "a manifest of 2 MiB": lambda out: os.truncate(out / "manifest.json", 2 * MIB),
    "a space in the manifest": lambda out: append(out / "manifest.json", b" "),
}
