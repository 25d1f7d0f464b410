"""Send a file's bytes no further ahead of what the board has written than the link needs.

What ssh, the network and the server hold when a link is cut is lost and sent again: an OpenSSH server alone takes 2 MiB in
advance. So the board is asked how much it has written, over a session beside the upload, and the lead is bounded.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import BinaryIO

from edgekit.devices.board import metered
from edgekit.devices.openssh import Cut, Lines

BLOCK_BYTES = 1 << 15  # what an SSH packet takes
IDLE_S = 60.0  # an upload that moves nothing for so long is stuck
LEAST_LEAD_BYTES, MOST_LEAD_BYTES = 1 << 17, 1 << 22
GAIN = 1.5  # above 1, so that the lead grows until the link, not the lead, is what bounds the rate
RATE_OVER_ANSWERS = 16
RETRIES = 6  # without progress
LONGEST_PAUSE_S = 4.0


class Window:
    """How far ahead of the board's disk to send: what the link carries while a question to the board goes there and back.

    The rate is that of the latest answers, the way there and back the shortest seen: a queue makes neither better, so none is
    built up.
    Times are in seconds of one clock.
    """

    def __init__(self, start: int, now: float) -> None:
        self.sent = start
        self.written = start
        self.lead = LEAST_LEAD_BYTES
        self._shortest = float("inf")
        self._answers = deque([(now, start)], maxlen=RATE_OVER_ANSWERS)
        self._asked: float | None = None  # None once the board has answered

    @property
    def open(self) -> bool:
        """Whether a block may go."""
        return self.sent - self.written < self.lead

    @property
    def due(self) -> bool:
        """Whether to ask the board: half the lead is used, and no question is under way."""
        return self._asked is None and self.sent - self.written >= self.lead // 2

    def ask(self, now: float) -> None:
        """The board is being asked."""
        self._asked = now

    def answered(self, written: int, now: float) -> None:
        """The board has written so many bytes of the file."""
        assert self._asked is not None
        self._shortest = min(self._shortest, now - self._asked)
        self._answers.append((now, written))
        (since, before), *_ = self._answers
        rate = (written - before) / max(now - since, 1e-6)
        self.lead = int(min(MOST_LEAD_BYTES, max(LEAST_LEAD_BYTES, GAIN * rate * self._shortest)))
        self.written, self._asked = written, None


def feed(stream: BinaryIO, writer: Lines, meter: Lines, progress: Callable[[int], None]) -> None:
    """Send the rest of `stream` to `writer`; ends early when it reads no more. Raises Cut."""
    moved = time.monotonic()
    window = Window(stream.tell(), moved)
    block = stream.read(BLOCK_BYTES)
    while block:
        if window.due:
            meter.tell("")
            window.ask(time.monotonic())
        if window.open:
            if not writer.write(block, IDLE_S):
                return
            window.sent += len(block)
            block = stream.read(BLOCK_BYTES)
            continue
        before = window.written
        window.answered(metered(meter.answer(IDLE_S)), time.monotonic())
        progress(window.written)
        if window.written < before or not writer.running:
            return
        if window.written > before:
            moved = time.monotonic()
        elif time.monotonic() - moved > IDLE_S:
            raise Cut(f"the board wrote nothing for {IDLE_S:.0f} s")


class Patience:
    """Tries again after a cut, for as long as tries bring the upload on."""

    def __init__(self) -> None:
        self._arrived = -1
        self._in_vain = 0

    def saw(self, arrived: int) -> None:
        """So many bytes are on the board."""
        if arrived > self._arrived:
            self._arrived, self._in_vain = arrived, 0

    def after(self, cut: Cut) -> None:
        """Wait before the next try; raises `cut` when there should be none."""
        self._in_vain += 1
        if self._in_vain > RETRIES:
            raise cut
        if self._in_vain > 1:
            time.sleep(min(LONGEST_PAUSE_S, 0.1 * 2**self._in_vain))


class Progress:
    """Says how far a transfer is, once a second."""

    def __init__(self, say: Callable[[str], None], name: str, total: int) -> None:
        self._say, self._name, self._total = say, name, total
        self._last = time.monotonic()

    def at(self, done: int) -> None:
        """`done` bytes have left."""
        if time.monotonic() - self._last >= 1.0:
            self._last = time.monotonic()
            self._say(f"sending {self._name}: {done >> 20} of {self._total >> 20} MiB")
