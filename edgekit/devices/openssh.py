"""One multiplexed connection of the system's own ssh, and what its failures mean.

- the user's configuration, agent and jump hosts are respected; host keys are checked strictly and never added;
- the first session on the connection is the one that opened it: its stdin is a pipe of ours, so that the connection ends
  when this process does, however it does;
- other sessions go through the connection's socket or nowhere: a dead connection is never replaced behind our back;
- the login shell is only ever told `SHELL`: a script reaches sh as one line on stdin, whatever shell it starts from;
- scripts print a marker first, so that what startup files print is not taken for an answer.
"""

import contextlib
import os
import select
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekit.core.device_url import DeviceUrl
from edgekit.errors import DeviceError, EdgekitError, ResourceLimit, UsageError, printable
from edgekit.process import Asking, Completed, Conversation, Interrupted, describe_exit, run

CONNECT_TIMEOUT_S = 10
LAST_WORDS_S = 5.0  # until what a script printed is here, after it has ended
START_DEADLINE_S = 60.0  # until a session's script runs, on a slow and loaded board
LINK_EXIT_CODE = 255  # ssh's own; no script here ends with it
BLOCK_BYTES = 1 << 16
MAX_NOISE_BYTES = 1 << 20
MAX_SOCKET_FOLDER_CHARS = 60  # a socket's path has 108 bytes, of which ssh takes some for a temporary name

SHELL = """exec sh -c 'IFS= read -r script; eval "$script"'"""

_OPTIONS = (
    *("-T", "-a", "-x", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"),
    *("-o", "LogLevel=ERROR", "-o", "Compression=no", "-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none", "-o", "RequestTTY=no"),
)
_MASTER_OPTIONS = (
    *("-o", "ControlMaster=yes", "-o", "ControlPersist=no", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"),
    *("-o", "ConnectionAttempts=1", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3"),
)
_SESSION_OPTIONS = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false")


class Cut(DeviceError):
    """The link is gone or cannot be made just now: trying again may help."""


class Lines(Conversation):
    """A session's script, once it has printed `marker`. Failures of the link are Cut, silence and rubbish DeviceError.

    `on_exit` is called when the context has ended, link or no link.
    """

    on_exit: Callable[[], None] | None = None

    def __init__(self, link: "Link", argv: list[str], script: str, marker: str) -> None:
        super().__init__(argv)
        self._link = link
        self._script = script
        self._marker = marker.encode()
        self._where = str(link.url)

    def __enter__(self) -> "Lines":
        super().__enter__()
        try:
            self.tell(self._script)
            self._skip_noise()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if self.on_exit is not None:
            self.on_exit()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def tell(self, line: str) -> None:
        """Send one line. Raises Cut when the link is gone."""
        try:
            super().tell(line)
        except ResourceLimit as error:
            raise self._failure(error) from error

    def answer(self, deadline_s: float) -> bytes:
        """The next line. Raises Cut when the link is gone, DeviceError on a flood or a silence, ResourceLimit for what ended."""
        try:
            return super().answer(deadline_s)
        except ResourceLimit as error:
            raise self._failure(error) from error

    def blocks(self, total: int, idle_s: float) -> Iterator[bytes]:
        """The next `total` bytes as they come, each within `idle_s` seconds. Raises Cut when they end early."""
        assert self._process.stdout is not None
        while total:
            if not self._pending:
                if not select.select([self._process.stdout], [], [], idle_s)[0]:
                    raise Cut(f"sent nothing for {idle_s:.0f} s", where=self._where)
                self._pending = os.read(self._process.stdout.fileno(), BLOCK_BYTES)
            if not self._pending:
                raise self._failure(ResourceLimit("ended early"), Cut)
            block, self._pending = self._pending[:total], self._pending[total:]
            total -= len(block)
            yield block

    def write(self, block: bytes, idle_s: float) -> bool:
        """Send bytes, waiting at most `idle_s` seconds for any to go; False when the other end reads no more."""
        assert self._process.stdin is not None
        fd = self._process.stdin.fileno()
        os.set_blocking(fd, False)
        rest = memoryview(block)
        while rest:
            if not select.select([], [fd], [], idle_s)[1]:
                raise Cut(f"took nothing for {idle_s:.0f} s", where=self._where)
            try:
                rest = rest[os.write(fd, rest) :]
            except BrokenPipeError:
                return False
        return True

    def end_input(self) -> None:
        """Close the other end's stdin; it may go on."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self, deadline_s: float) -> int | None:
        """How it ended, None when it has not within the deadline."""
        end = time.monotonic() + deadline_s
        while self._process.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        return self._process.poll()

    def stderr(self) -> str:
        """What it has printed there so far."""
        self._errors.seek(0)
        return self._errors.read(MAX_NOISE_BYTES).decode(errors="replace")

    def _skip_noise(self) -> None:
        end, noise = time.monotonic() + START_DEADLINE_S, 0
        try:
            while (line := self.answer(max(0.0, end - time.monotonic()))) != self._marker:
                noise += len(line) + 1
                if noise > MAX_NOISE_BYTES:
                    raise rubbish(self._link.url, "prints without end where a shell would answer")
        except ResourceLimit as error:
            raise rubbish(self._link.url, f"does not answer as a shell does ({error.what})") from error

    def _failure(self, error: ResourceLimit, kind: type[EdgekitError] | None = None) -> EdgekitError:
        code = self.wait(1.0)
        if code == LINK_EXIT_CODE:
            return self._link.cut(self.stderr(), self)
        if kind is not None:
            return kind(error.what, where=self._where)
        if code is None:
            return DeviceError(error.what, where=self._where)
        done = Completed(as_returncode(code), b"", b"", 0.0)
        words = f" ({last_line(self.stderr())})" if last_line(self.stderr()) else ""
        return ResourceLimit(f"the process {describe_exit(done)}{words}", where=self._where)


class Link:
    """The connection to one board. `ssh_config` is used in place of the user's own configuration.

    Raises UsageError when there is no ssh client or no such configuration.
    """

    def __init__(self, url: DeviceUrl, ssh_config: Path | None) -> None:
        ssh = shutil.which("ssh")
        if ssh is None:
            advice = "install it: `apt-get install openssh-client`, or your system's like"
            raise UsageError("there is no ssh client on this machine", where=str(url), next_step=advice)
        if ssh_config is not None and not ssh_config.is_file():
            raise UsageError("there is no such ssh configuration", where=str(ssh_config))
        self.url = url
        self._ssh_config = ssh_config
        self._ssh = [ssh, *(["-F", str(ssh_config)] if ssh_config else []), *_OPTIONS]
        self._folder = Path(tempfile.mkdtemp(prefix="ek-", dir=_socket_base()))
        self._master: Lines | None = None
        self._count = 0

    @property
    def up(self) -> bool:
        """Whether the connection stands, as far as is known here."""
        return self._master is not None and self._master.running

    @property
    def lost(self) -> bool:
        """Whether ssh itself gave the connection up."""
        return self._master is not None and self._master.wait(0) == LINK_EXIT_CODE

    def open(self, script: str, marker: str) -> Lines:
        """Connect anew; `script` runs on the board for as long as the connection lives.

        Raises Cut when it may work later, DeviceError when it will not.
        """
        self.drop()
        self._count += 1
        argv = [*self._ssh, *_MASTER_OPTIONS, *self._address()]
        master = Lines(self, argv, script, marker)
        master.__enter__()
        self._master = master
        return master

    def session(self, script: str, marker: str) -> Lines:
        """A script on the open connection, to be used as a context manager."""
        return Lines(self, self._session_argv(), script, marker)

    def run(
        self,
        script: str,
        marker: str,
        *,
        deadline_s: float,
        hold_stdin: bool = False,
        ask: Asking | None = None,
    ) -> Completed:
        """Run a script to its end; its stdout from the marker on. Raises Cut, and DeviceError when no marker came.

        On an interrupt `ask` is called, which ends it on the board; then the interrupt is an Interrupted.
        """
        argv, stdin = self._session_argv(), os.fsencode(script) + b"\n"
        if ask is None:
            return self._told(run(argv, stdin=stdin, hold_stdin=hold_stdin, deadline_s=deadline_s), marker)
        try:
            done = run(argv, stdin=stdin, hold_stdin=hold_stdin, deadline_s=deadline_s, grace_s=LAST_WORDS_S, ask=ask)
        except Interrupted as stop:
            told, stop.done = stop.done, None
            with contextlib.suppress(EdgekitError):
                stop.done = None if told is None else self._told(told, marker)
            raise
        return self._told(done, marker)

    def _told(self, done: Completed, marker: str) -> Completed:
        """What a session said from the marker on."""
        if done.returncode == LINK_EXIT_CODE:
            raise self.cut(done.stderr.decode(errors="replace"))
        _, found, stdout = (b"\n" + done.stdout).partition(f"\n{marker}\n".encode())
        if not found and not done.timed_out:
            raise rubbish(self.url, f"does not answer as a shell does (the session {describe_exit(done)})")
        return Completed(as_returncode(done.returncode), stdout, done.stderr, done.wall_s, done.timed_out, done.flooded)

    def drop(self) -> None:
        """End the connection at once. Harmless when there is none."""
        if self._master is not None:
            self._master.close()
            self._master = None

    def close(self, deadline_s: float = 5.0) -> None:
        """End the connection, giving the board's own script time to tidy up."""
        if self._master is not None and self._master.running:
            self._master.end_input()
            self._master.wait(deadline_s)
        self.drop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def cut(self, words: str, session: Lines | None = None) -> EdgekitError:
        """Why a session ended with the link's exit code: the connection's own words come before the session's."""
        if self._master is not None and session is not self._master and self._master.wait(1.0) is not None:
            words = self._master.stderr() or words
        return explain(words, self.url, self._ssh_config)

    def _session_argv(self) -> list[str]:
        return [*self._ssh, *_SESSION_OPTIONS, *self._address()]

    def _address(self) -> list[str]:
        """The socket of this connection and whom it leads to; a new connection never meets an old one's socket."""
        port = [] if self.url.port is None else ["-p", str(self.url.port)]
        user = ["-l", self.url.user] if self.url.user else []
        return ["-S", str(self._folder / str(self._count)), *port, *user, "--", self.url.host, SHELL]


def as_returncode(code: int) -> int:
    """A shell's exit code as `subprocess` has it: a death by signal is negative."""
    return 128 - code if 128 < code < 128 + 65 else code


def last_line(text: str) -> str:
    """The last line that says anything, cut to a line's length."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return printable(lines[-1][:300]) if lines else ""


def rubbish(url: DeviceUrl, what: str) -> DeviceError:
    """The other end is not a shell that runs what it is told."""
    command = shlex.join(["ssh", *_by_hand(url, None), "sh", "-c", "exit"])
    return DeviceError(what, where=str(url), next_step=f"`{command}` must print nothing and end at once")


def _by_hand(url: DeviceUrl, ssh_config: Path | None) -> list[str]:
    """ssh's words for the same board as a user types them."""
    config = ["-F", str(ssh_config)] if ssh_config else []
    port = ["-p", str(url.port)] if url.port is not None else []
    return [*config, *port, f"{url.user}@{url.host}" if url.user else url.host]


def explain(words: str, url: DeviceUrl, ssh_config: Path | None = None) -> EdgekitError:
    """ssh's own words as the error they stand for; what is not known is a Cut with ssh's last line."""
    where, command = str(url), shlex.join(["ssh", *_by_hand(url, ssh_config), "exit"])
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in words:
        advice = (
            "compare `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the board's own console with what "
            f"`{command}` shows; only if they agree remove the old key with `ssh-keygen -R {_known_as(url)}`"
        )
        return DeviceError("the board's host key has changed, so it was refused", where=where, next_step=advice)
    if "host key is known for" in words or "Host key verification failed" in words:
        return DeviceError(
            "the board's host key is not known", where=where, next_step=f"`{command}` shows it and accepts it"
        )
    for pattern, what, advice in _REASONS:
        if pattern in words:
            kind = Cut if pattern in _PASSING else DeviceError
            return kind(f"{what} (ssh: {last_line(words)})", where=where, next_step=advice.format(command=command))
    reason = f" (ssh: {last_line(words)})" if last_line(words) else ""
    return Cut(f"the link to the board was cut{reason}", where=where, next_step="run the command again")


def _known_as(url: DeviceUrl) -> str:
    return shlex.quote(f"[{url.host}]:{url.port}" if url.port not in (None, 22) else url.host)


_PASSING = {"Connection refused", "timed out", "No route to host", "Network is unreachable"}
_REASONS = (
    ("Could not resolve hostname", "no such host is known", "check the name, or add it to ~/.ssh/config"),
    ("Connection refused", "the board refuses the connection", "check that its ssh server runs, and the port"),
    ("timed out", "the board does not answer", "check that it is on and in reach: `{command}`"),
    ("No route to host", "the board is not in reach", "check that it is on and in reach: `{command}`"),
    ("Network is unreachable", "the board is not in reach", "check this machine's network"),
    (
        "Permission denied (",
        "the board does not accept the user or the key",
        "`{command}` must work without a password: see ssh-copy-id and ssh-add",
    ),
    ("Bad configuration option", "ssh does not accept its configuration", "mend it: `{command}` must work"),
    ("Bad owner or permissions", "ssh does not accept its configuration", "mend it: `{command}` must work"),
    ("Too many authentication failures", "the board does not accept the user or the key", "name one with IdentityFile"),
    ("no matching", "the board's ssh server and this one's client share no method", "update the older one"),
)


def _socket_base() -> str | None:
    base = tempfile.gettempdir()
    return base if len(os.fsencode(base)) <= MAX_SOCKET_FOLDER_CHARS else "/tmp"
