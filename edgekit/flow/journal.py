"""What a search over settings has measured, line by line in the cache, so that one that was killed goes on where it was.

A line is a round of a heat, or what a point ended with; a line that was cut is as good as none. Whoever reads it makes the same
decisions from it: a resumed search differs from one left alone in nothing but when its last rounds were run.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgekit import sandbox
from edgekit.core.elimination import RoundId
from edgekit.heat import Ran
from edgekit.store import disk_errors


@dataclass(frozen=True)
class Line:
    """What came of one point's turn in a round of a heat, `at_s` seconds into the search: what it ran, or why it failed."""

    heat: int
    round: int
    point: str
    ran: Ran | None
    failed: str = ""
    at_s: float = 0.0


@dataclass
class Journal:
    """Lines by round and point, those of before and those to come."""

    path: Path
    known: dict[tuple[RoundId, str], Line] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """What it took to measure what is known."""
        return max((line.at_s for line in self.known.values()), default=0.0)

    def find(self, at: RoundId, point: str) -> Line | None:
        return self.known.get((at, point))

    def note(self, line: Line) -> None:
        """Keep a line, on disk when this returns."""
        self.known[(line.heat, line.round), line.point] = line
        with disk_errors(self.path), self.path.open("ab") as stream:
            stream.write(sandbox.encode(line) + b"\n")


def open_journal(path: Path, fresh: bool) -> Journal:
    """The journal at `path` as far as it can be read; an empty one with `fresh`."""
    if fresh:
        path.unlink(missing_ok=True)
    journal = Journal(path)
    whole = b""
    for line in _lines(path):
        try:
            record = sandbox.decode(line, Line)
        except msgspec.MsgspecError:
            break
        journal.known[(record.heat, record.round), record.point] = record
        whole += line + b"\n"
    if path.exists() and path.stat().st_size != len(whole):  # what was cut would spoil the next line
        with disk_errors(path):
            path.write_bytes(whole)
    return journal


def _lines(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(FileNotFoundError):
        yield from path.read_bytes().split(b"\n")[:-1]
