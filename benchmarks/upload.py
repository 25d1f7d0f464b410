"""Uploads over a link that is cut at random bytes: `python -m benchmarks.upload [--uploads N] [--kind openssh|dropbear] [--write]`.

Each upload is a new file of 30 MB to a real SSH server on loopback, through a proxy that cuts every connection after a random
number of bytes; every other cut leaves the server's side open, as a pulled cable does. Bars, exit 1 when one is missed:

- every file arrives byte-exact;
- what the proxy delivers to the board beyond the files' own size, handshakes and SSH framing included, is at most 64 KiB a cut;
- no two processes of the board ever have the same partial upload open: the old writer is dead before the resume.

The servers are measured at the same time: bytes are counted, not seconds.
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
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.page import machine, table, write_section
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


@dataclass(frozen=True)
class Tally:
    """What became of the uploads to one server; `beyond_bytes` is what the proxy delivered beyond the files' size."""

    kind: str
    uploads: int
    exact: int
    cuts: int
    beyond_bytes: int
    writers: int
    doubles: int
    wall_s: float

    @property
    def bytes_a_cut(self) -> float:
        return self.beyond_bytes / max(1, self.cuts)

    @property
    def met(self) -> bool:
        """Whether every bar is met, and anything was cut at all."""
        return (
            self.exact == self.uploads
            and self.bytes_a_cut <= BAR_BYTES_A_CUT
            and not self.doubles
            and self.cuts > 0
            and self.writers > 0
        )


def measure(kind: str, uploads: int, seed: int) -> Tally:
    """Upload to a server of `kind` and count."""
    plan, exact, sent = plans(seed), 0, 0
    with tempfile.TemporaryDirectory() as name, serving(kind, Path(name)) as server, watched(server) as writers:
        with Proxy(server.port) as proxy:
            connect(server, proxy).close()
            proxy.plan = lambda: next(plan)
            before, started = proxy.up, time.monotonic()
            for index in range(uploads):
                exact += upload(server, proxy, Path(name) / "file", random.Random(seed + index))
                sent += FILE_BYTES
                if (index + 1) % 10 == 0:
                    print(f"{kind}: {index + 1} of {uploads}, {proxy.cuts} cuts", flush=True)
            beyond, wall_s = proxy.up - before - sent, time.monotonic() - started
            return Tally(kind, uploads, exact, proxy.cuts, beyond, len(writers.seen), writers.doubles, wall_s)


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


HEADINGS = [
    *("server", "uploads", "byte-exact", "cuts", f"KiB beyond the files a cut (bar {BAR_BYTES_A_CUT >> 10})"),
    *("writers seen", "two at once", "s"),
]


def row(t: Tally) -> list[str]:
    """A line of the table."""
    counts = [str(t.uploads), str(t.exact), str(t.cuts), f"{t.bytes_a_cut / 1024:.1f}"]
    return [t.kind, *counts, str(t.writers), str(t.doubles), f"{t.wall_s:.0f}"]


def main() -> int:
    """Both servers unless one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    arguments = parser.parse_args()
    os.environ["EDGEKIT_REQUIRE_BOARD"] = "1"  # what keeps real servers out of a plain `make test`
    kinds = arguments.kind or KINDS
    with ProcessPoolExecutor(len(kinds)) as pool:
        found = list(pool.map(measure, kinds, [arguments.uploads] * len(kinds), [arguments.seed] * len(kinds)))
    text = f"{machine()}; files of {FILE_BYTES} bytes, seed {arguments.seed}.\n\n{table(HEADINGS, [row(t) for t in found])}"
    print(text)
    if arguments.write:
        write_section("upload", text)
    return 0 if all(t.met for t in found) else 1


if __name__ == "__main__":
    sys.exit(main())
