"""A board over SSH: ekrun there, files by their content, everything under one folder of the board.

- what the board has is not sent again; a cut upload goes on where it stopped, once nobody writes to it any more;
- only an upload outlives a cut: it connects anew by itself, as long as it makes progress;
- the board tidies up itself when the link ends: it ends this connection's processes and removes its scratch folders.
"""

import contextlib
import hashlib
import itertools
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from edgekit.core.device_url import DeviceUrl
from edgekit.devices import board
from edgekit.devices.feed import IDLE_S, Patience, Progress, feed
from edgekit.devices.openssh import Cut, Lines, Link, last_line, rubbish
from edgekit.errors import Busy, DeviceError, DiskFull, EdgekitError, InternalError, ResourceLimit, TargetIncompatible
from edgekit.process import Asking, Completed
from edgekit.runner import ekrun_path
from edgekit.store import disk_errors, sha256_file

ARCHITECTURES = ("x86_64", "aarch64")
EKRUN = "ekrun"
SCRIPT_DEADLINE_S = 60.0
ASK_DEADLINE_S = 20.0  # a user waits for it
SLOWEST_DISK_BYTES_S = 2e6  # the board hashes and copies at least so fast
MAX_GET_BYTES = 2 << 30
MAX_BOARD_LINES = 50

_KILLED = b"\nkilled, by the board's out-of-memory killer most likely\n"
_NO_ROOM = re.compile(r"No space left|Disk quota exceeded")
_CLEAN_STEP = (
    "free some space there, `edgekit device clean` takes away what edgekit left, or name another folder in the URL"
)
_FOLDER_STEP = "name another folder in the URL, such as ssh://host/data/edgekit"
_REFUSALS: Mapping[str, tuple[type[EdgekitError], str]] = {
    "link": (DeviceError, "edgekit's folder on the board is a symbolic link"),
    "owner": (DeviceError, "edgekit's folder on the board belongs to another user"),
    "foreign": (DeviceError, "the folder on the board holds files that are not edgekit's; nothing was touched"),
    "make": (DeviceError, "edgekit's folder cannot be made on the board"),
    "write": (DeviceError, "edgekit's folder on the board cannot be written to"),
}


class SshDevice:
    """The board at `url`, connected, with ekrun in place. `ssh_config` replaces the user's own; `say` hears of long transfers.

    `program` names the ekrun to place for an architecture. Raises DeviceError when the board cannot be reached or does not
    answer as a shell does, TargetIncompatible when ekrun cannot run there, DiskFull, and UsageError without an ssh client.
    """

    # OpenSSH's server grants 10 sessions a connection by default (sshd_config, MaxSessions); what goes on beside a race needs one.
    most_talks = 8

    def __init__(
        self,
        url: DeviceUrl,
        *,
        ssh_config: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
        program: Callable[[str], Path] = ekrun_path,
    ) -> None:
        self.name = str(url)
        self._url = url
        self._say = say
        self._link = Link(url, ssh_config)
        self._owner = ""
        self._owners: list[str] = []  # whom the next connection takes over
        self._labels = itertools.count(1)
        self._scratches = 0
        self._digests: dict[tuple[object, ...], str] = {}
        self._stored: set[str] = set()  # digests re-hashed over this connection
        self._sets: set[str] = set()
        self._program = ""
        try:
            self._board = self._enter()
            self.arch = _architecture(self._board.machine, self.name)
            self._source = program(self.arch)
            self.ekrun_sha256 = sha256_file(self._source)
            self._prove()
        except BaseException:
            self._link.close()
            raise

    def run(
        self, arguments: Sequence[str], *, deadline_s: float, max_rss_bytes: int = 0, grace_s: int = 0
    ) -> Completed:
        """Run ekrun to its end; it cannot be watched from here, so `max_rss_bytes` is not enforced. Raises DeviceError."""
        self._place()
        label = f"run.{next(self._labels)}"
        words = [label, self._program, *arguments, "--tether"]

        def ask(_: object) -> None:
            self._ask(label, grace_s)

        try:
            done = self._script(board.RUN, words, deadline_s=deadline_s, hold_stdin=True, ask=ask if grace_s else None)
        except BaseException:
            self._stop(label)
            raise
        if done.timed_out or done.flooded:
            self._stop(label)
            return done
        if done.returncode in (board.CANNOT_EXECUTE, board.NOT_FOUND, board.GONE):
            self._refused(done.returncode, done.stderr.decode(errors="replace"))
        if done.returncode == -9:
            return replace(done, stderr=done.stderr + _KILLED)
        return done

    def talk(self, arguments: Sequence[str]) -> Lines:
        """A live ekrun, to be used as a context manager; it is gone from the board when the context ends."""
        self._place()
        label = f"talk.{next(self._labels)}"
        tether = [] if "--stdin" in arguments else ["--tether"]
        marker = _marker()
        lines = self._link.session(self._line(marker, board.RUN, [label, self._program, *arguments, *tether]), marker)
        lines.on_exit = lambda: self._stop(label)
        return lines

    def put(self, files: Mapping[str, Path]) -> str:
        """The board's folder that holds `files` by their names. Raises DeviceError, DiskFull."""
        digests = {_plain(name): self._digest(path) for name, path in files.items()}
        key = hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()
        if not (self._link.up and key in self._sets):
            self._bring(board.GATHER, key, digests, files)
            self._sets.add(key)
        return f"{self._board.folder}/sets/{key}"

    @contextlib.contextmanager
    def lent(self, files: Mapping[str, Path]) -> Iterator[str]:
        """A folder of the board that holds `files` by their names, gone with the context. Raises DeviceError, DiskFull."""
        digests = {_plain(name): self._digest(path) for name, path in files.items()}
        folder = f"lent.{next(self._labels)}"
        try:
            self._bring(board.LEND, folder, digests, files)
        except BaseException:
            self._give_back(folder, digests.values())
            raise
        with self._own_folder(folder, digests.values()) as path:
            yield path

    def lacking(self, files: Iterable[Path]) -> int:
        """Bytes of `files` that the board has not. Raises DeviceError."""
        self._ensure()
        sizes = {self._digest(path): path.stat().st_size for path in files}
        return _missing(sizes, self._query({d: size for d, size in sizes.items() if d not in self._stored}))

    def get(self, path: str, to: Path) -> None:
        """Bring the board's file `path` to `to`, its digest verified, complete or absent. Raises DeviceError, DiskFull."""
        self._ensure()
        with disk_errors(to):
            to.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".get.", dir=to.parent) as folder:
                self._receive(path, Path(folder) / "file")
                (Path(folder) / "file").replace(to)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A fresh folder on the board, removed with the context; a cut link removes it, too."""
        self._ensure()
        name = f"scratch.{next(self._labels)}"
        self._checked(board.MAKE_SCRATCH, [name])
        with self._own_folder(name) as path:
            yield path

    def clean(self) -> None:
        """Empty the board's folder. Raises DeviceError, and Busy when another edgekit is at work there."""
        self._ensure()
        self._stored.clear()
        self._sets.clear()
        self._program = ""
        done = self._checked(board.CLEAN, [], deadline_s=5 * SCRIPT_DEADLINE_S)
        if done.stdout.split() == [b"busy"]:
            raise Busy("another edgekit is at work on the board", where=self.name, next_step="wait for its end")

    def close(self) -> None:
        """End the link; after a cut, come back once to end what may still run there. Harmless when it has ended."""
        if self._link.lost:
            with contextlib.suppress(EdgekitError):
                self._enter()
        self._link.close()

    # The connection.

    def _enter(self) -> board.Board:
        """Connect, and become the owner of a folder of our own in the board's."""
        self._stored.clear()
        self._sets.clear()
        owner, marker, earlier = secrets.token_hex(8), _marker(), self._owners
        self._owners = [*earlier, owner]
        master = self._link.open(board.entering(marker, self._url.folder, owner, earlier), marker)
        try:
            found = self._entered(master)
        except BaseException:
            self._link.drop()
            raise
        self._owner, self._owners = owner, [owner]
        return found

    def _entered(self, master: Lines) -> board.Board:
        """Read what the board says of itself."""
        lines: list[str] = []
        try:
            while (line := master.answer(SCRIPT_DEADLINE_S).decode(errors="replace")) != "entered":
                if line.startswith("refused "):
                    self._refuse_folder(line.removeprefix("refused "), master.stderr())
                if len(lines) > MAX_BOARD_LINES:
                    raise rubbish(self._url, "prints without end where a shell would answer")
                lines.append(line)
        except ResourceLimit as error:
            raise rubbish(self._url, f"does not answer as a shell does ({error.what})") from error
        found = board.parse_board(lines)
        if found is None:
            raise rubbish(self._url, "does not answer as a shell does")
        return found

    def _refuse_folder(self, reason: str, stderr: str) -> NoReturn:
        self._no_room(stderr)
        kind, what = _REFUSALS.get(reason, (DeviceError, "the board refuses edgekit's folder"))
        words = f" ({last_line(stderr)})" if reason in ("make", "write") and last_line(stderr) else ""
        raise kind(what + words, where=self.name, next_step=_FOLDER_STEP)

    def _ensure(self) -> None:
        """A connection that stands. Within a scratch folder there is no second one: the first one's end removed it."""
        if self._link.up:
            return
        if self._scratches:
            raise Cut("the link to the board was cut", where=self.name, next_step="run the command again")
        self._board = self._enter()

    # Scripts.

    def _line(self, marker: str, script: str, arguments: Sequence[str]) -> str:
        return board.inside(marker, script, self._board.folder, self._owner, arguments)

    def _script(
        self,
        script: str,
        arguments: Sequence[str],
        *,
        deadline_s: float,
        hold_stdin: bool = False,
        ask: Asking | None = None,
    ) -> Completed:
        marker = _marker()
        line = self._line(marker, script, arguments)
        return self._link.run(line, marker, deadline_s=deadline_s, hold_stdin=hold_stdin, ask=ask)

    def _checked(self, script: str, arguments: Sequence[str], *, deadline_s: float = SCRIPT_DEADLINE_S) -> Completed:
        """A script that must do what it is for."""
        done = self._script(script, arguments, deadline_s=deadline_s)
        if done.timed_out:
            raise DeviceError(f"did not answer within {deadline_s:.0f} s", where=self.name)
        if done.returncode:
            self._refused(done.returncode, done.stderr.decode(errors="replace"))
        return done

    def _refused(self, code: int, stderr: str) -> NoReturn:
        """What a script that failed, or a shell that could not start ekrun, said."""
        self._no_room(stderr)
        words = f" ({last_line(stderr)})" if last_line(stderr) else ""
        if code == board.CANNOT_EXECUTE:
            what = f"the board does not execute what lies in {self._board.folder}{words}"
            advice = f"its file system is mounted noexec, most likely: {_FOLDER_STEP}"
            raise TargetIncompatible(what, where=self.name, next_step=advice)
        if code in (board.GONE, board.NOT_FOUND):
            what = "edgekit's folder on the board was emptied meanwhile"
            raise DeviceError(f"{what}{words}", where=self.name, next_step="run the command again")
        raise DeviceError(f"a step on the board failed{words}", where=self.name)

    def _no_room(self, stderr: str) -> None:
        if _NO_ROOM.search(stderr):
            raise DiskFull("the board's disk is full", where=self.name, next_step=_CLEAN_STEP)

    def _stop(self, label: str) -> None:
        """End an ekrun that may still run; without a link the board does it itself."""
        with contextlib.suppress(DeviceError):
            if self._link.up:
                self._script(board.STOP, [label], deadline_s=SCRIPT_DEADLINE_S)

    def _ask(self, label: str, seconds: int) -> None:
        """Tell an ekrun to end, and wait for it."""
        with contextlib.suppress(DeviceError):
            self._script(board.ASK, [label, str(seconds)], deadline_s=ASK_DEADLINE_S + seconds)

    @contextlib.contextmanager
    def _own_folder(self, name: str, digests: Collection[str] = ()) -> Iterator[str]:
        """The path of a folder that was made in this connection's own; it goes with the context, as do the files that it alone has
        of `digests`."""
        owner = self._owner
        self._scratches += 1
        try:
            yield f"{self._board.folder}/jobs/{owner}/{name}"
        except BaseException:
            with contextlib.suppress(EdgekitError):  # the first error is the one to hear of
                self._end_folder(owner, name, digests)
            raise
        else:
            self._end_folder(owner, name, digests)

    def _give_back(self, folder: str, digests: Collection[str]) -> None:
        """Take away what has come of a loan that came to nothing; without a link the board keeps it, for the next try."""
        self._stored.difference_update(digests)
        with contextlib.suppress(EdgekitError):
            if self._link.up:
                self._checked(board.REMOVE_SCRATCH, [folder, *digests])

    def _end_folder(self, owner: str, name: str, digests: Collection[str]) -> None:
        self._scratches -= 1
        if self._link.up and owner == self._owner:
            self._stored.difference_update(digests)
            self._checked(board.REMOVE_SCRATCH, [name, *digests])
        elif self._link.lost:
            self._ensure()

    # ekrun.

    def _place(self) -> None:
        """ekrun is there, for a connection that stands."""
        self._ensure()
        if not self._program or not self._sets:
            self._program = f"{self.put({EKRUN: self._source})}/{EKRUN}"

    def _prove(self) -> None:
        """ekrun starts on this board. Raises TargetIncompatible with what to do about it."""
        self._place()
        done = self._script(board.RUN, ["prove", self._program, "facts", "--tether"], deadline_s=60.0, hold_stdin=True)
        words = last_line(done.stderr.decode(errors="replace"))
        if done.returncode == board.NOT_FOUND:
            advice = f"it needs a 64-bit system with glibc for {self.arch}: 32-bit and musl systems cannot run it"
            raise TargetIncompatible(
                f"the board finds no loader for ekrun ({words})", where=self.name, next_step=advice
            )
        if done.returncode == board.CANNOT_EXECUTE:
            self._refused(done.returncode, words)
        if done.returncode or done.timed_out:
            raise TargetIncompatible(
                f"ekrun does not run on the board (exit {done.returncode}) {words}", where=self.name
            )

    # Files to the board.

    def _digest(self, path: Path) -> str:
        """A file's digest, computed once for as long as it looks the same."""
        with disk_errors(path):
            stat = path.stat()
            key = (path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if key not in self._digests:
                self._digests[key] = sha256_file(path)
        return self._digests[key]

    def _bring(self, script: str, folder: str, digests: Mapping[str, str], files: Mapping[str, Path]) -> None:
        """Send what the board lacks of `files`, and have `script` fill `folder` with links to them; cut uploads go on."""
        patience = Patience()
        while True:
            try:
                self._ensure()
                if script == board.LEND:
                    self._checked(board.CLAIM, list(digests.values()))
                self._send_missing({digests[name]: path for name, path in files.items()}, patience)
                return self._linked(script, folder, digests)
            except Cut as cut:
                if self._scratches:
                    raise
                patience.after(cut)

    def _send_missing(self, sources: Mapping[str, Path], patience: Patience) -> None:
        """Send what the board lacks of `sources`, by digest."""
        asked = [digest for digest in sources if digest not in self._stored]
        if not asked:
            return
        sizes = {digest: sources[digest].stat().st_size for digest in asked}
        lack = self._query(sizes)
        missing = _missing(sizes, lack)
        patience.saw(sum(sizes.values()) - missing)
        if lack.free_bytes is not None and missing > lack.free_bytes:
            what = f"the board has {lack.free_bytes >> 20} MiB free, and {missing >> 20} MiB must go there"
            raise DiskFull(what, where=self.name, next_step=_CLEAN_STEP)
        for digest, offset in lack.offsets.items():
            self._send(digest, sources[digest], offset)
        self._stored.update(asked)

    def _query(self, sizes: Mapping[str, int]) -> board.Lack:
        """Which of the files, by digest, the board has not, and how far each has come."""
        deadline_s = SCRIPT_DEADLINE_S + sum(sizes.values()) / SLOWEST_DISK_BYTES_S
        asked = list(sizes)
        lack = board.parse_query(self._checked(board.QUERY, asked, deadline_s=deadline_s).stdout, asked)
        if lack is None:
            raise rubbish(self._url, "does not answer as a shell does")
        return lack

    def _send(self, digest: str, path: Path, offset: int) -> None:
        """Send a file from `offset` on, and once more from its start if it arrived damaged."""
        for start in (offset, 0):
            reply, stderr = self._stream(digest, path, start)
            if reply == b"stored":
                return
            if reply == b"unwritten":
                self._no_room(stderr)
                raise DeviceError(f"the board cannot write ({last_line(stderr)})", where=self.name)
            if reply == b"short":
                raise Cut(f"{path.name} did not arrive whole", where=self.name, next_step="run the command again")
            if reply != b"differs":
                raise rubbish(self._url, "does not answer as a shell does")
        advice = "the board's disk or memory may be failing, or the file was changed meanwhile"
        raise DeviceError(f"{path.name} arrived damaged twice", where=self.name, next_step=advice)

    def _stream(self, digest: str, path: Path, offset: int) -> tuple[bytes, str]:
        """One writer's reply and its stderr."""
        size, marker, meter_marker = path.stat().st_size, _marker(), _marker()
        script = self._line(marker, board.PUT, [digest, str(size)])
        meter_script = self._line(meter_marker, board.METER, [digest])
        with self._link.session(script, marker) as lines, path.open("rb") as stream:
            stream.seek(offset)
            with self._link.session(meter_script, meter_marker) as meter:
                feed(stream, lines, meter, Progress(self._say, path.name, size).at)
            lines.end_input()
            try:
                return lines.answer(SCRIPT_DEADLINE_S + size / SLOWEST_DISK_BYTES_S), lines.stderr()
            except ResourceLimit:
                self._refused(lines.wait(0) or 0, lines.stderr())

    def _linked(self, script: str, folder: str, digests: Mapping[str, str]) -> None:
        """A folder of links to what was sent, by names. Raises Cut when another edgekit took a file away meanwhile."""
        words = [word for name, digest in digests.items() for word in (digest, name)]
        done = self._checked(script, [folder, *words], deadline_s=5 * SCRIPT_DEADLINE_S)
        if done.stdout.split() == [b"taken"]:
            self._stored.difference_update(digests.values())
            raise Cut("what was sent is gone from the board", where=self.name, next_step="run the command again")

    # Files from the board.

    def _receive(self, path: str, to: Path) -> None:
        marker = _marker()
        script = self._line(marker, board.GET, [path, str(MAX_GET_BYTES)])
        with self._link.session(script, marker) as lines:
            deadline_s = SCRIPT_DEADLINE_S + MAX_GET_BYTES / SLOWEST_DISK_BYTES_S
            try:
                size, digest = self._heading(lines.answer(deadline_s), path)
            except ResourceLimit:
                self._refused(lines.wait(0) or 0, lines.stderr())
            seen = hashlib.sha256()
            with to.open("wb") as stream:
                for block in lines.blocks(size, IDLE_S):
                    seen.update(block)
                    stream.write(block)
        if seen.hexdigest() != digest:
            raise DeviceError(f"{path} changed on its way here", where=self.name, next_step="run the command again")

    def _heading(self, line: bytes, path: str) -> tuple[int, str]:
        """The size and digest of the file that follows."""
        match line.decode(errors="replace").split(" "):
            case ["file", size, digest] if size.isdecimal() and int(size) <= MAX_GET_BYTES:
                return int(size), digest
            case ["absent"]:
                raise DeviceError(f"there is no file {path} on the board", where=self.name)
            case ["large", size]:
                raise DeviceError(f"{path} holds {size[:20]} bytes, more than {MAX_GET_BYTES}", where=self.name)
        raise rubbish(self._url, "does not answer as a shell does")


def _missing(sizes: Mapping[str, int], lack: board.Lack) -> int:
    return sum(max(0, sizes[digest] - offset) for digest, offset in lack.offsets.items())


def _marker() -> str:
    return f"edgekit-{secrets.token_hex(12)}"


def _plain(name: str) -> str:
    """A file's name on the board. Raises InternalError for one that is a path or cannot be a name."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode()) > 255:
        raise InternalError(f"{name!r} is no plain file name")
    return name


def _architecture(machine: str, where: str) -> str:
    """The architecture edgekit knows by the kernel's name for it. Raises TargetIncompatible."""
    if machine in ARCHITECTURES:
        return machine
    advice = "install its 64-bit system, if it has one" if machine.startswith(("arm", "i")) else ""
    what = f"the board is {machine[:40]!r}; edgekit runs on {' and '.join(ARCHITECTURES)}"
    raise TargetIncompatible(what, where=where, next_step=advice)
