"""SIGINT for the process of the tests itself, such that one that comes late does not end the run of the tests."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def interrupt() -> None:
    """Send it."""
    os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def interrupted_by(send: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Run `send` beside the block, in which SIGINT is a KeyboardInterrupt, and nothing once the block has ended.

    The block is given whether SIGINT is handled as at its beginning.
    """
    inside = True

    def handle(*_: object) -> None:
        if inside:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield lambda: signal.getsignal(signal.SIGINT) is handle
    finally:
        inside = False
        thread.join()
        signal.signal(signal.SIGINT, before)
