"""This machine as a device: ekrun run in place, files used where they lie."""

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from edgekit.process import Completed, Conversation, run
from edgekit.runner import ekrun_path
from edgekit.store import disk_errors, sha256_file


class LocalDevice:
    """Runs ekrun on the host. `run` and `talk` take ekrun's arguments without its own path.

    Scratch folders are made below `folder`, the system's temporary folder if it is None.
    """

    name = "local"
    most_talks = 64

    def __init__(self, folder: Path | None = None) -> None:
        self.arch = platform.machine()
        self.path = ekrun_path(self.arch)
        self.ekrun_sha256 = sha256_file(self.path)
        self._folder = folder
        self._gathered: list[str] = []

    def run(
        self, arguments: Sequence[str], *, deadline_s: float, max_rss_bytes: int = 0, grace_s: int = 0
    ) -> Completed:
        """Run ekrun to its end. Raises ResourceLimit when it cannot be started."""
        argv = [str(self.path), *arguments]
        return run(argv, deadline_s=deadline_s, max_rss_bytes=max_rss_bytes, grace_s=grace_s)

    def talk(self, arguments: Sequence[str]) -> Conversation:
        """A live ekrun, to be used as a context manager."""
        return Conversation([str(self.path), *arguments])

    def put(self, files: Mapping[str, Path]) -> str:
        """The folder the files lie in, if they lie in one under these names; else one of its own with links to them."""
        if (there := _common_folder(files)) is not None:
            return there
        folder = tempfile.mkdtemp(prefix="edgekit-", dir=self._folder)
        self._gathered.append(folder)
        for name, path in files.items():
            link_or_copy(path, Path(folder) / name)
        return folder

    @contextlib.contextmanager
    def lent(self, files: Mapping[str, Path]) -> Iterator[str]:
        """As `put`, but what was gathered goes with the context."""
        if (there := _common_folder(files)) is not None:
            yield there
            return
        with self.scratch() as folder:
            for name, path in files.items():
                link_or_copy(path, Path(folder) / name)
            yield folder

    def lacking(self, files: Iterable[Path]) -> int:
        """Nothing has to be sent here."""
        return 0

    def get(self, path: str, to: Path) -> None:
        """Link or copy the file to `to`. Raises DiskFull."""
        to.unlink(missing_ok=True)
        link_or_copy(Path(path), to)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A fresh folder, removed with the context."""
        with tempfile.TemporaryDirectory(prefix="edgekit-", dir=self._folder, ignore_cleanup_errors=True) as folder:
            yield folder

    def clean(self) -> None:
        """Remove the folders that `put` gathered files in; nothing else is kept here."""
        while self._gathered:
            shutil.rmtree(self._gathered.pop(), ignore_errors=True)

    def close(self) -> None:
        """As `clean`: there is no link to end."""
        self.clean()


def _common_folder(files: Mapping[str, Path]) -> str | None:
    """The one folder that `files` lie in under these names, None when there is none."""
    first = next(iter(files.values()))
    return str(first.parent.absolute()) if all(p == first.parent / name for name, p in files.items()) else None


def link_or_copy(source: Path, to: Path) -> None:
    """A hard link where the file system allows it, else a copy. Raises DiskFull, ResourceLimit."""
    with disk_errors(to):
        try:
            os.link(source, to)
        except OSError:
            shutil.copyfile(source, to)
