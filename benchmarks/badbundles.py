"""Bad bundles, installed over a good one: what the device runs afterwards, and how long it ran anything else.

    python -m benchmarks.badbundles [--times 20] [--write]

The good bundle is of the shipped sample, for this machine and ONNX Runtime, as `edgekit bundle` packs it. The bad ones are signed
and whole, and differ from it in one thing: an engine that aborts, or hangs, a model with weights that are no numbers, or of the
other sign, a latency budget of a tenth of what the good one takes. Half of the times it shows in the self-test, before the switch;
in the other half the self-test is made to pass, and it shows in the health check after it. Each time the exit code must be 8 for
that very reason, `current` the old bundle, which verifies and passes its check, and the time that `current` led elsewhere within
the check's limit and SPARE_S. Exit 1 when one of them is not.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.bundles import ORT, packed
from benchmarks.page import machine, table, write_section
from edgekit.bundle.keys import SigningKey, admitting, new_key
from edgekit.bundle.trust import Signer, Trust, public_line
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.bundle.write import write_bundle
from edgekit.core.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from edgekit.store import Cache

CHECK_S, SPARE_S = 10, 1.0
REFUSED = 8
POLL_S = 0.001
# A program that passes where it is checked in its slot, and is what it is where `current` leads to it.
LATE = b"""#!/bin/sh
case "$2" in
*/slots/*) echo '{"protocol":1,"verb":"check","passed":true}' ;;
*) exec "${0%/*}/real" "$@" ;;
esac
"""


@dataclass(frozen=True)
class Device:
    """ROOT with the good bundle in use; `head` is its manifest, `folder` its unpacked files."""

    root: Path
    folder: Path
    head: Manifest
    key: SigningKey
    trust: Path

    @property
    def current(self) -> Path:
        return self.root / "apps" / self.head.application / "current"

    def install(self, bundle: Path) -> tuple[int, str]:
        """ekrun's exit code, and the words of its error."""
        told = ("--root", self.root, "--check-seconds", CHECK_S, "--trust", self.trust)
        done = ekrun(self.folder, "install", bundle, *told)
        return done.returncode, done.stderr.decode(errors="replace")

    def runs(self, slot: Path) -> bool:
        """Whether `current` is this slot, verifies, and passes its own check."""
        return (
            self.current.resolve() == slot
            and ekrun(self.current, "verify", slot, "--trust", self.trust).returncode == 0
            and ekrun(self.current, "check", self.current).returncode == 0
        )


@dataclass(frozen=True)
class Row:
    """One kind of bad bundle: how often it was tried, refused, and taken back; the longest time `current` led to it."""

    kind: str
    times: int
    refused: int
    back: int
    longest_s: float

    @property
    def met(self) -> bool:
        return self.refused == self.back == self.times and self.longest_s <= CHECK_S + SPARE_S


def ekrun(folder: Path, *words: object) -> subprocess.CompletedProcess[bytes]:
    """A call of the ekrun that a folder carries."""
    argv = [str(folder / "bin/ekrun"), *map(str, words)]
    return subprocess.run(argv, capture_output=True, check=False, timeout=120)


# --------------------------------------------------------------------------------------------------- what is made bad how


def with_engine(folder: Path, body: str) -> None:
    """An engine library whose first call does this."""
    (library,) = folder.glob("lib/libonnxruntime.so*")
    source = folder.parent / "engine.c"
    source.write_text(f"#include <stdlib.h>\n#include <unistd.h>\nvoid *OrtGetApiBase(void) {{ {body} return 0; }}\n")
    library.unlink()
    argv = [sys.executable, "-m", "ziglang", "cc", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(argv, check=True)


def with_weights(folder: Path, change: Callable[[np.ndarray[Any, Any]], object]) -> None:
    """A model whose largest tensor of floats is changed."""
    (path,) = (folder / "model").glob("*.onnx")
    model = onnx.load(path)
    floats = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    tensor = max(floats, key=lambda one: int(np.prod(one.dims)))
    values = onnx.numpy_helper.to_array(tensor).copy()
    change(values.reshape(-1))
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


def with_budget(folder: Path, share: float) -> None:
    """A latency budget of this share of what the bundle takes here now."""
    place = folder / "deployment.json"
    record = json.loads(place.read_bytes())
    place.write_text(json.dumps({**record, "latency_budget": {"percentile": 50, "ms": 60000}}))
    argv = [str(folder / "bin/ekrun"), "check", str(folder), "--budget"]
    found = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)["latency"]["found_ms"]
    place.write_text(json.dumps({**record, "latency_budget": {"percentile": 50, "ms": found * share}}))


# What is done to the good one, and what the refusal must say: that this is why.
KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    "crashes": (lambda folder: with_engine(folder, "abort();"), "it died by signal 6"),
    "hangs": (lambda folder: with_engine(folder, "for (;;) pause();"), f"it has not ended after {CHECK_S} s"),
    "gives NaN": (lambda folder: with_weights(folder, lambda values: values.fill(np.nan)), "nan where"),
    "wrong output": (lambda folder: with_weights(folder, lambda values: np.negative(values, out=values)), "output '"),
    "budget missed 10 times": (lambda folder: with_budget(folder, 0.1), "latency: p50 is"),
}


def bad_bundle(device: Device, kind: str, number: int, scratch: Path) -> Path:
    """A bundle of that kind; the odd ones show it only after the switch."""
    folder = scratch / "bad"
    shutil.copytree(device.folder, folder, ignore=shutil.ignore_patterns(MANIFEST_FILE, SIGNATURE_FILE))
    KINDS[kind][0](folder)
    if number % 2:
        program = folder / "bin/ekrun"
        program.rename(folder / "bin/real")
        program.write_bytes(LATE)
        program.chmod(0o755)
    out = scratch / "bad.ekb"
    head = replace(device.head, version=f"2.{number}", counter=2, files=())
    write_bundle(out, folder, head, device.key.seal, force=True, cache=Cache(scratch / "cache"))
    shutil.rmtree(folder)
    return out


# ------------------------------------------------------------------------------------------------------------------ trials


@contextmanager
def watching(link: Path) -> Iterator[Callable[[], float]]:
    """Tells for how many seconds in all a link led elsewhere than at first."""
    first, away, over = link.readlink(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal away
        last = time.monotonic()
        while not over.wait(POLL_S):
            now = time.monotonic()
            away += now - last if link.readlink() != first else 0.0
            last = now

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: away
    finally:
        over.set()
        watcher.join()


def tried(device: Device, kind: str, times: int, scratch: Path) -> Row:
    """One kind, so many times."""
    slot = device.current.resolve()
    row = Row(kind, times, 0, 0, 0.0)
    for number in range(times):
        file = bad_bundle(device, kind, number, scratch)
        with watching(device.current) as away:
            code, words = device.install(file)
        if number % 2 and not away():
            raise RuntimeError(f"{kind} {number} was never switched to: nothing was tried after the switch")
        row = replace(
            row,
            refused=row.refused + (code == REFUSED and KINDS[kind][1] in words),
            back=row.back + device.runs(slot),
            longest_s=max(row.longest_s, away()),
        )
    return row


def made_device(scratch: Path) -> Device:
    """A device that runs the good bundle."""
    packed("digits", None, "host", ORT, scratch / "good")
    head = unpack_bundle(scratch / "good.ekb", scratch / "head", admitting(Trust(), allow_unsigned=True)).manifest
    key = new_key(scratch / "keys", "maker")
    trust = scratch / "trust"
    trust.write_bytes(public_line(Signer("maker", key.public)))
    folder = scratch / "files"
    shutil.copytree(scratch / "good", folder, ignore=shutil.ignore_patterns(MANIFEST_FILE, SIGNATURE_FILE))
    write_bundle(scratch / "signed.ekb", folder, replace(head, counter=1, files=()), key.seal)
    device = Device(scratch / "root", folder, head, key, trust)
    code, words = device.install(scratch / "signed.ekb")
    if code != 0:
        raise RuntimeError(f"the good bundle does not install: {words}")
    return device


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.badbundles", description="Bad bundles over a good one.")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as text:
        device = made_device(Path(text))
        rows = []
        for kind in KINDS:
            rows.append(tried(device, kind, arguments.times, Path(text)))
            print(rows[-1], flush=True)
    met = all(row.met for row in rows)
    headings = ["the new bundle", "installed", "refused", "back on the old one", "longest time away s"]
    lines = [[r.kind, str(r.times), str(r.refused), str(r.back), f"{r.longest_s:.2f}"] for r in rows]
    words = (
        f"{machine()}; each check may take {CHECK_S} s.\n\n{table(headings, lines)}\n"
        f"{'All bars are met' if met else 'A bar is missed'}."
    )
    print(words)
    if arguments.write:
        write_section("badbundles", words)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
