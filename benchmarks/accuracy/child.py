"""Run a build in a process of its own and watch what it takes: wall time, and the memory of it and of all that it starts.

- Memory is sampled: it is the most that the processes held together (resident sets added up, pages they share counted in each), or
  the highest peak of one of them, whichever is more.
- What outlives its time or outgrows its memory is killed with all that it started, also what leads a session of its own.
"""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.process import Completed, child_environment, describe_exit

ROOT = Path(__file__).parents[2]
INTERVAL_S = 0.2  # a look takes about a millisecond: rare enough for what edgekit measures meanwhile
LAST_WORDS = 300


@dataclass(frozen=True)
class Limits:
    """What a build may take."""

    wall_s: float
    memory_bytes: int


@dataclass(frozen=True)
class Watched:
    """What a process took, and why it was no success, or an empty string."""

    seconds: float
    peak_bytes: int
    failure: str


def watch(argv: Sequence[str], log: Path, limits: Limits) -> Watched:
    """Run `argv` from the repository's folder until it ends or meets a limit; all it prints goes to `log`."""
    started = time.monotonic()
    peak, stopped = 0, ""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(argv),
            cwd=ROOT,
            env=child_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None and not stopped:
                held, highest = memory(process.pid)
                peak = max(peak, held, highest)
                if time.monotonic() - started > limits.wall_s:
                    stopped = f"no result within {limits.wall_s:g} s"
                elif held > limits.memory_bytes:
                    stopped = f"killed: it outgrew {limits.memory_bytes >> 20} MiB"
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(INTERVAL_S)
        finally:
            end(process)
    seconds = time.monotonic() - started
    if not stopped and process.returncode:
        stopped = describe_exit(Completed(process.returncode, b"", b"", seconds)) + last_words(log)
    return Watched(seconds, peak, stopped)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its descendants, unless it has ended, and reap it."""
    if process.poll() is None:
        for pid in family(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    process.wait()


def family(pid: int) -> list[int]:
    """A process and all its descendants, itself first; those that end meanwhile are left out."""
    found = [pid]
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [relative for child in thread.read_text().split() for relative in family(int(child))]
    return found


def memory(pid: int) -> tuple[int, int]:
    """Bytes that a process and its descendants hold now, added up, and the highest peak of one of them."""
    statuses = [status for status in map(_status, family(pid)) if status]
    return sum(_kib(s, "VmRSS") for s in statuses) << 10, max((_kib(s, "VmHWM") for s in statuses), default=0) << 10


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""


def _kib(status: str, field: str) -> int:
    """A field of /proc/PID/status; 0 where a process that ends has none any more."""
    found = re.search(rf"^{field}:\s+(\d+) kB", status, re.M)
    return int(found[1]) if found else 0


def last_words(log: Path) -> str:
    """The last line of a log, for people."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f" ({lines[-1].strip()[:LAST_WORDS]})" if lines else ""
