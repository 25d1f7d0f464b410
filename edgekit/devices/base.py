"""The port to a machine that ekrun runs on. Three implementations: this host, a board over SSH, an emulated board.

- ekrun's arguments name files as the device sees them: `put` brings files there and says where they lie, `get` brings them back;
- what a device keeps lives under one folder of its own; a `scratch` folder goes with its context, whatever happened in it;
- a failure of the link is a DeviceError; how ekrun itself ended is in what `run` returns.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from edgekit.process import Completed, Conversation


class Device(Protocol):
    """A machine with an ekrun of its architecture on it, in place before the first call below.

    `name` is how the user called it; `arch` is "x86_64" or "aarch64"; `ekrun_sha256` identifies the program that measures.
    """

    @property
    def name(self) -> str: ...

    @property
    def arch(self) -> str: ...

    @property
    def ekrun_sha256(self) -> str: ...

    @property
    def most_talks(self) -> int:
        """How many live ekruns it holds at a time."""

    def run(
        self, arguments: Sequence[str], *, deadline_s: float, max_rss_bytes: int = 0, grace_s: int = 0
    ) -> Completed:
        """Run ekrun to its end; killed at the deadline, and where the device can watch it, beyond `max_rss_bytes` (0: any).

        On an interrupt here ekrun is told to end (SIGTERM), and has `grace_s` to put things right before it is killed: raises
        Interrupted, with what it answered. A death by signal is a negative `returncode`, as in `subprocess`. Raises DeviceError
        when the link fails.
        """

    def talk(self, arguments: Sequence[str]) -> Conversation:
        """A live ekrun, to be used as a context manager; it ends with the context and with the link."""

    def put(self, files: Mapping[str, Path]) -> str:
        """The device's folder that holds `files` by their names there (plain names, no folders), sent as far as it lacks them.

        Verified by digest. Raises DeviceError when the link fails, DiskFull when the device has no room.
        """

    def lent(self, files: Mapping[str, Path]) -> AbstractContextManager[str]:
        """A folder that holds `files` as `put` would, for as long as the context lasts; nothing of them stays on the device.

        What other uploads have in common with it stays. An upload that was cut for good is kept, for whoever sends the same
        files. Raises as `put` does.
        """

    def lacking(self, files: Iterable[Path]) -> int:
        """How many bytes of `files` would have to be sent. Raises DeviceError when the link fails."""

    def get(self, path: str, to: Path) -> None:
        """Bring the device's file `path` to `to`, complete or absent. Raises DeviceError."""

    def scratch(self) -> AbstractContextManager[str]:
        """A fresh folder on the device that goes, with all in it, when the context ends."""

    def clean(self) -> None:
        """Empty the device's folder: everything edgekit ever put there. Raises DeviceError."""

    def close(self) -> None:
        """End the link. Harmless when it has ended."""
