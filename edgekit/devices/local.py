"""This machine as a device: ekrun run in place, files used where they lie."""

import platform
from collections.abc import Sequence

from edgekit.process import Completed, Conversation, run
from edgekit.runner import ekrun_path
from edgekit.store import sha256_file


class LocalDevice:
    """Runs ekrun on the host. `run` and `talk` take ekrun's arguments without its own path."""

    name = "local"

    def __init__(self) -> None:
        self.path = ekrun_path(platform.machine())
        self.ekrun_sha256 = sha256_file(self.path)

    def run(self, arguments: Sequence[str], *, deadline_s: float, max_rss_bytes: int = 0) -> Completed:
        """Run ekrun to its end. Raises ResourceLimit when it cannot be started."""
        return run([str(self.path), *arguments], deadline_s=deadline_s, max_rss_bytes=max_rss_bytes)

    def talk(self, arguments: Sequence[str]) -> Conversation:
        """A live ekrun, to be used as a context manager."""
        return Conversation([str(self.path), *arguments])
