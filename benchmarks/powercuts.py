"""Power cuts while `ekrun install` is at work: what a device finds when it comes up again.

    python -m benchmarks.powercuts [--cuts 100] [--write]        # as root, on Linux with XFS and loop devices

One bundle after the other is installed on an ext4 disk, which is an image on XFS. A cut is a reflink of that image at a random
moment: what ext4 had handed to its disk by then, and nothing that was still in memory. Each image is mounted, so that ext4
recovers as after a power cut, and looked at:

- broken: `current` leads nowhere, or what it leads to does not verify;
- lost: an install that was acknowledged before the cut is not the confirmed one, nor is a newer one;
- stuck: the next install fails.

The control is the same without any fsync (a preloaded library takes them away): it must break, or the cuts would show nothing.
Exit 1 when a cut with fsync is broken, lost or stuck, or none of the control is.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import machine, table, write_section
from edgekit.bundle.keys import SigningKey, new_key
from edgekit.bundle.trust import Signer, public_line
from edgekit.bundle.write import write_bundle
from edgekit.core.manifest import MANIFEST_FILE, Manifest, Requires
from edgekit.runner import ekrun_path

APPLICATION = "app"
LONGEST_PAUSE_S = 0.3
DISK_MIB, HOST_MIB = 192, 24 << 10  # sparse
PAYLOAD_BYTES = 300_000

# A program that answers as a good ekrun does: what is tried here is the order of writes, not the engine.
PROGRAM = b'#!/bin/sh\necho \'{"protocol":1,"verb":"check","passed":true}\'\n'

NO_SYNC = """\
int fsync(int fd) { return fd < 0; }
int fdatasync(int fd) { return fd < 0; }
int syncfs(int fd) { return fd < 0; }
void sync(void) {}
"""


@dataclass(frozen=True)
class Cut:
    """An image, the newest version that was acknowledged before it was taken, and the newest that was begun after."""

    image: Path
    acknowledged: int
    begun: int


@dataclass
class Tally:
    """What the cuts of one series came to."""

    cuts: int = 0
    installs: int = 0
    broken: int = 0
    lost: int = 0
    stuck: int = 0


@dataclass(frozen=True)
class Yard:
    """Where it happens: `host` is on XFS; the bundles and the trust file lie outside of all disks."""

    host: Path
    bundles: Path
    trust: Path
    key: SigningKey

    def bundle(self, version: int) -> Path:
        """The bundle of a version, made when it is first asked for; its counter is its version."""
        out = self.bundles / f"{version}.ekb"
        if not out.exists():
            with tempfile.TemporaryDirectory(dir=self.bundles) as folder:
                files = {"bin/ekrun": PROGRAM, "model/model.onnx": random.Random(version).randbytes(PAYLOAD_BYTES)}
                for path, data in files.items():
                    (Path(folder) / path).parent.mkdir()
                    (Path(folder) / path).write_bytes(data)
                    (Path(folder) / path).chmod(0o755 if path == "bin/ekrun" else 0o644)
                requires = Requires(os.uname().machine, "2.17", (), "")
                write_bundle(out, Path(folder), Manifest(APPLICATION, str(version), version, requires), self.key.seal)
        return out


# ------------------------------------------------------------------------------------------------------------------ disks


def do(*argv: object) -> None:
    subprocess.run(list(map(str, argv)), check=True, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def disk(image: Path, place: Path, options: str = "loop") -> Iterator[Path]:
    """An image, mounted."""
    place.mkdir(exist_ok=True)
    do("mount", "-o", options, image, place)
    try:
        yield place
    finally:
        do("umount", place)


def blank(image: Path, mib: int, *maker: str) -> Path:
    """A new sparse image with a file system on it."""
    with image.open("xb") as stream:
        stream.truncate(mib << 20)
    do(*maker, image)
    return image


# ------------------------------------------------------------------------------------------------------------------- cuts


def install(yard: Yard, version: int, root: Path, environment: Mapping[str, str]) -> str:
    """Why an install was not acknowledged; empty when it was."""
    argv = [ekrun_path(os.uname().machine), "install", yard.bundle(version), "--root", root, "--trust", yard.trust]
    done = subprocess.run(
        list(map(str, argv)), env={**os.environ, **environment}, capture_output=True, check=False, timeout=60
    )
    return f"exit code {done.returncode}: {done.stderr.decode(errors='replace')[-300:]}" if done.returncode else ""


def take_cuts(yard: Yard, cuts: int, environment: Mapping[str, str]) -> tuple[list[Cut], int]:
    """Install without a pause, and take images meanwhile; them, and how many installs were acknowledged."""
    image = blank(yard.host / "disk.img", DISK_MIB, "mkfs.ext4", "-q")
    begun = acknowledged = 0
    over = threading.Event()

    def work(root: Path) -> None:
        nonlocal begun, acknowledged
        while not over.is_set():
            begun += 1
            if refusal := install(yard, begun, root, environment):
                raise RuntimeError(f"install {begun} failed: {refusal}")
            acknowledged = begun

    found: list[Cut] = []
    with disk(image, yard.host / "device", "loop,commit=1") as device:
        worker = threading.Thread(target=work, args=(device / "apps",))
        worker.start()
        try:
            for number in range(cuts):
                time.sleep(random.uniform(0, LONGEST_PAUSE_S))
                before, copy = acknowledged, yard.host / f"cut-{number}.img"
                do("cp", "--reflink=always", image, copy)
                found.append(Cut(copy, before, begun))
        finally:
            over.set()
            worker.join()
    image.unlink()
    return found, acknowledged


def version_at(slot: Path) -> int:
    """The version of what is installed in a folder; 0 where nothing can be read."""
    try:
        return int(json.loads((slot / MANIFEST_FILE).read_bytes())["version"])
    except (OSError, ValueError, KeyError):
        return 0


def verifies(yard: Yard, slot: Path) -> bool:
    """Whether an installed bundle is whole."""
    argv = [ekrun_path(os.uname().machine), "verify", slot.resolve(), "--trust", yard.trust]
    return subprocess.run(list(map(str, argv)), capture_output=True, check=False, timeout=60).returncode == 0


def confirmed_at(application: Path) -> int:
    """The version that was confirmed last, by the device's own record (docs/device-layout.md); 0 for none."""
    try:
        words = (application / "state").read_text().split()
    except OSError:
        return 0
    return version_at(application / "slots" / words[3]) if len(words) > 3 else 0


def look_at(yard: Yard, cut: Cut, tally: Tally) -> None:
    """Count what a cut left."""
    tally.cuts += 1
    with disk(cut.image, yard.host / "after") as after:
        root = after / "apps"
        application = root / "apps" / APPLICATION
        current = application / "current"
        if cut.acknowledged or os.path.lexists(current):
            tally.broken += not (current.exists() and verifies(yard, current))
            tally.lost += confirmed_at(application) < cut.acknowledged
        tally.stuck += bool(install(yard, cut.begun + 1, root, {})) or version_at(current) != cut.begun + 1
    cut.image.unlink()


def series(yard: Yard, cuts: int, environment: Mapping[str, str]) -> Tally:
    """So many cuts, each looked at."""
    taken, installs = take_cuts(yard, cuts, environment)
    tally = Tally(installs=installs)
    for cut in taken:
        look_at(yard, cut, tally)
    return tally


def without_sync(folder: Path) -> dict[str, str]:
    """The environment in which no fsync does anything."""
    source, library = folder / "nosync.c", folder / "libnosync.so"
    source.write_text(NO_SYNC)
    do(sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", source, "-o", library)
    return {"LD_PRELOAD": str(library)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.powercuts", description="Power cuts during installs.")
    parser.add_argument("--cuts", type=int, default=100)
    parser.add_argument("--control-cuts", type=int, default=30)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:  # mounts of our own: they go with the process, however it ends
        os.execvp(
            "unshare", ["unshare", "--mount", sys.executable, "-m", "benchmarks.powercuts", *sys.argv[1:], "--inside"]
        )
    with tempfile.TemporaryDirectory() as text:
        scratch = Path(text)
        key = new_key(scratch / "keys", "maker")
        (scratch / "trust").write_bytes(public_line(Signer("maker", key.public)))
        (scratch / "bundles").mkdir()
        image = blank(scratch / "host.img", HOST_MIB, "mkfs.xfs", "-q", "-m", "reflink=1")
        with disk(image, scratch / "host") as host:
            yard = Yard(host, scratch / "bundles", scratch / "trust", key)
            rows = [("with fsync", series(yard, arguments.cuts, {}))]
            print(rows[0], flush=True)
            rows.append(("control, without", series(yard, arguments.control_cuts, without_sync(scratch))))
    safe, control = rows[0][1], rows[1][1]
    met = safe.broken == safe.lost == safe.stuck == 0 and control.broken + control.lost > 0
    headings = ["", "cuts", "installs acknowledged", "broken", "lost", "stuck"]
    lines = [[name, *map(str, (t.cuts, t.installs, t.broken, t.lost, t.stuck))] for name, t in rows]
    words = f"{machine()}.\n\n{table(headings, lines)}\n{'All bars are met' if met else 'A bar is missed'}."
    print(words)
    if arguments.write:
        write_section("powercuts", words)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
