"""A device's folder to install bundles in with ekrun, and small bundles whose own `bin/ekrun` is a script."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from edgekit.bundle.keys import Seal
from edgekit.bundle.unpacked import verify_folder
from edgekit.core.manifest import Manifest
from tests.bundle_desk import ADMIT
from tests.bundles import HEAD, KEY, TRUST, make_bundle, pieces
from tests.ekrun_tools import Answer, built, ekrun

APPLICATION = HEAD.application
INCOMPATIBLE, BUSY = 12, 13

PASS = """echo '{"protocol":1,"verb":"check","passed":true}'"""
BAD: dict[str, str] = {
    "fails": """echo '{"protocol":1,"error":{"code":"verification_failed","message":"it is wrong"}}'; exit 8""",
    "gives NaN": """echo '{"protocol":1,"passed":NaN,"error":{"message":"nan where 1 is expected"}}'; exit 8""",
    "says nothing": "exit 5",
    "crashes": "kill -SEGV $$",
    "hangs": "sleep 600",
    "hangs with its output closed": "exec >&-; sleep 600",
    "prints without end": "while :; do echo 0123456789012345678901234567890123456789; done",
}
SAYS: dict[str, str] = {
    "fails": "exit code 8: it is wrong",
    "gives NaN": "exit code 8",
    "says nothing": "exit code 5",
    "crashes": "it died by signal 11, Segmentation fault",
    "hangs": "it has not ended after 1 s",
    "hangs with its output closed": "it has not ended after 1 s",
    "prints without end": "it prints without end",
}


def program(body: str) -> bytes:
    return f"#!/bin/sh\n{body}\n".encode()


def from_call(number: int, bad: str, folder: Path) -> str:
    """What passes until its call `number`, from 1 on, and then is bad; `folder` is where it counts."""
    count = folder / f"calls-{hashlib.sha256(bad.encode()).hexdigest()[:8]}"
    return f"echo x >> {count}\nif [ $(wc -l < {count}) -lt {number} ]; then {PASS}; exit 0; fi\n{bad}"


@functools.cache
def bundle(
    version: str = "1", counter: int = 7, body: str = PASS, *, seal: Seal = KEY.seal, head: Manifest = HEAD
) -> bytes:
    """A small bundle with some files of its own and some that all have."""
    files = {
        "bin/ekrun": program(body),
        "deployment.json": b'{"format":1}\n',
        "lib/shared": b"the same in all of them\n" * 4000,
        "lib/stored": hashlib.shake_128(b"noise").digest(3000),
        "model/model.onnx": version.encode() * 5000,
    }
    return make_bundle(files, dataclasses.replace(head, version=version, counter=counter), seal)


def id_of(data: bytes) -> str:
    """The name of its slot."""
    return hashlib.sha256(pieces(data)[0]).hexdigest()


def head_of(data: bytes) -> bytes:
    """Manifest and signature, as the first two entries."""
    return data[: len(data) - 1024 - sum(map(len, pieces(data)[2]))]


def parts_of(data: bytes) -> dict[str, bytes]:
    """The stored bytes of every file, by their SHA-256."""
    files = json.loads(pieces(data)[0])["files"]
    stored = [entry[512 : 512 + file["stored_size"]] for file, entry in zip(files, pieces(data)[2], strict=True)]
    return {hashlib.sha256(one).hexdigest(): one for one in stored}


class Device:
    """ROOT, which trusts KEY, and beside it a bundle's file."""

    def __init__(self, folder: Path, *, trusting: bool = True) -> None:
        self.folder, self.root, self.file = folder, folder / "root", folder / "b.ekb"
        self.program: list[str] = []
        self.app = self.root / "apps" / APPLICATION
        if trusting:
            self.root.mkdir()
            (self.root / "trust").write_bytes(TRUST)

    def install(self, data: bytes, *more: object, program: list[str] | None = None, **how: object) -> Answer:
        self.file.write_bytes(data)
        return ekrun("install", self.file, "--root", self.root, *more, program=program or self.program, **how)

    def rollback(self, *more: object, program: list[str] | None = None) -> Answer:
        return ekrun("rollback", APPLICATION, "--root", self.root, *more, program=program or self.program)

    def status(self) -> Answer:
        return ekrun("status", "--root", self.root)

    @property
    def current(self) -> str | None:
        """The slot that `current` leads to."""
        link = self.app / "current"
        return link.readlink().name if link.is_symlink() else None

    @property
    def state(self) -> list[str]:
        """The words of the line `state`."""
        text = (self.app / "state").read_text()
        assert text.endswith("\n") and text.count("\n") == 1
        return text.split()

    def slots(self) -> set[str]:
        return {path.name for path in (self.app / "slots").iterdir()}

    def entries(self) -> set[str]:
        """What lies in the application's folder."""
        return {path.name for path in self.app.iterdir()}

    def check_sound(self) -> None:
        """`current` leads to a slot that verifies and runs; fails the test when not."""
        assert self.current is not None
        assert verify_folder(self.app / "slots" / self.current, ADMIT).manifest_sha256 == self.current
        subprocess.run([self.app / "current/bin/ekrun", "check", self.app / "current"], check=True, capture_output=True)

    def check_settled(self, *slots: str) -> None:
        """Nothing is on trial or under way, exactly these slots are there, the first one current and confirmed."""
        self.check_sound()
        assert self.current == slots[0]
        assert self.state[2:] == ["-", *slots]
        assert self.slots() == set(slots)
        assert self.entries() == {"current", "lock", "slots", "state"}

    def copy(self, name: str) -> "Device":
        """Another device, the same."""
        other = Device(self.folder / name, trusting=False)
        shutil.copytree(self.root, other.root, symlinks=True)
        return other


def traced(name: str, number: int, what: str) -> list[str]:
    """ekrun, to whose main thread this happens at the how manieth call of that name; not to what it starts."""
    return ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={name}:{what}:when={number}", str(built()["x86_64"])]


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[tuple[Device, Device]]:
    """A device whose ROOT is a tmpfs in a mount namespace of its own, and the same device as it is seen from here."""
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    device = Device(folder)
    script = f"mount -t tmpfs -o {options} none {device.root} && echo && exec cat"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", script], stdin=-1, stdout=-1, stderr=-1) as holder:
        assert holder.stdout is not None
        if not holder.stdout.readline():
            pytest.skip("no mount namespaces here")
        device.program = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", str(built()["x86_64"])]
        seen = Device(Path(f"/proc/{holder.pid}/root{folder}"), trusting=False)
        (seen.root / "trust").write_bytes(TRUST)
        yield device, seen


def within(device: Device, *argv: object) -> None:
    """Run something where a device of `mounted` is."""
    subprocess.run([*device.program[:-1], *map(str, argv)], check=True, timeout=60)


ONE, TWO, THREE = (bundle(str(number), number) for number in (1, 2, 3))
ID1, ID2, ID3 = map(id_of, (ONE, TWO, THREE))


def installed(device: Device, *bundles: bytes, keep: int = 2) -> Device:
    for data in bundles:
        answer = device.install(data, "--keep", keep)
        assert answer.code == 0, answer.stderr
    return device


def refused(answer: Answer, code: int, words: str) -> None:
    assert answer.code == code, answer.stderr
    assert words in answer.json["error"]["message"]
    assert answer.stderr.count("\n") == 1


def put_parts(device: Device, data: bytes, wanted: Iterable[str]) -> Path:
    """A folder with these stored files of a bundle, and no others."""
    folder = device.folder / "parts"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in wanted:
        (folder / name).write_bytes(parts_of(data)[name])
        (folder / name).chmod(0o600)
    return folder
