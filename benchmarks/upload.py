"""Uploads over a link that is cut at random bytes: `python -m benchmarks.upload [--uploads N] [--kind openssh|dropbear]`.

Each upload is a new file of 30 MB to a real SSH server on loopback, through a proxy that cuts every connection after a random
number of bytes; every other cut leaves the server's side open, as a pulled cable does. Bars, exit 1 when one is missed:

- every file arrives byte-exact;
- what the proxy delivers to the board beyond the files' own size, handshakes and SSH framing included, is at most 64 KiB a cut;
- no two processes of the board ever have the same partial upload open: the old writer is dead before the resume.
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edgekit.devices.openssh import Cut
from edgekit.devices.ssh import SshDevice
from tests.proxy import How, Proxy
from tests.sshd import KINDS, Server, serving

FILE_BYTES = 30_000_000
BAR_BYTES_A_CUT = 64 << 10
# A connection costs some 10 KB before it can carry anything, so that a cut comes at any byte from there to half a file.
CUT_BYTES = (10_000, FILE_BYTES // 2)
POLL_S = 0.004


class Writers(threading.Thread):
    """Watches which processes of the board have a partial upload open."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.seen: set[int] = set()
        self.doubles = 0
        self.polls = 0
        self._server = server
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(POLL_S):
            open_by: dict[str, list[int]] = {}
            for pid in self._server.processes():
                with suppress(OSError):
                    path = os.readlink(f"/proc/{pid}/fd/1")  # noqa: PTH115 - a deleted file's name is wanted as it is
                    if "/parts/" in path:
                        open_by.setdefault(path.split("/parts/")[1].split(".")[0], []).append(pid)
            self.polls += 1
            self.seen |= {pid for pids in open_by.values() for pid in pids}
            self.doubles += sum(len(pids) > 1 for pids in open_by.values())

    def stop(self) -> None:
        self._end.set()
        self.join()


@contextmanager
def watched(server: Server) -> Iterator[Writers]:
    """Writers watched for as long as the context lasts."""
    writers = Writers(server)
    writers.start()
    try:
        yield writers
    finally:
        writers.stop()


def plans(seed: int) -> Iterator[tuple[int, How]]:
    """Where each connection is cut, and how."""
    choose = random.Random(seed)
    while True:
        yield choose.randint(*CUT_BYTES), choose.choice(("close", "half"))


def measure(kind: str, uploads: int, seed: int) -> bool:
    """Upload, print the figures, and say whether all bars are met."""
    plan, exact, sent = plans(seed), 0, 0
    with tempfile.TemporaryDirectory() as name, serving(kind, Path(name)) as server, watched(server) as writers:
        with Proxy(server.port) as proxy:
            connect(server, proxy).close()
            proxy.plan = lambda: next(plan)
            before, started = proxy.up, time.monotonic()
            for index in range(uploads):
                exact += upload(server, proxy, Path(name) / "file", random.Random(seed + index))
                sent += FILE_BYTES
            overhead, wall_s = proxy.up - before - sent, time.monotonic() - started
            a_cut = overhead / max(1, proxy.cuts)
            print(f"{kind}: {uploads} uploads of {FILE_BYTES} bytes in {wall_s:.0f} s, {proxy.cuts} cuts")
            print(f"  byte-exact: {exact} of {uploads}")
            print(f"  delivered beyond the files' size: {a_cut / 1024:.1f} KiB a cut (bar {BAR_BYTES_A_CUT >> 10})")
            print(f"  writers: {len(writers.seen)} seen in {writers.polls} polls, two at once: {writers.doubles}")
    return exact == uploads and a_cut <= BAR_BYTES_A_CUT and not writers.doubles and proxy.cuts > 0


def upload(server: Server, proxy: Proxy, path: Path, noise: random.Random) -> bool:
    """One new file through the proxy; whether it arrived byte-exact. It is taken away again, ekrun stays."""
    path.write_bytes(noise.randbytes(FILE_BYTES))
    with closing(connect(server, proxy)) as device:
        there = Path(device.put({"file": path}))
    proxy.cut_all()
    found = server.home / there.relative_to(server.there) / "file"
    exact = digest(found) == digest(path)
    (server.edgekit / "store" / digest(path)).unlink()
    found.unlink()
    return exact


def connect(server: Server, proxy: Proxy) -> SshDevice:
    """A device through the proxy: opening one gives up at the first cut, and is tried again here."""
    while True:
        with suppress(Cut):
            return SshDevice(server.url(port=proxy.port), ssh_config=server.client.config)


def digest(path: Path) -> str:
    """A file's SHA-256, read here, whatever the board says."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Both servers unless one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    met = [measure(kind, arguments.uploads, arguments.seed) for kind in arguments.kind or KINDS]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
