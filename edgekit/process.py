"""The only place that starts a process.

- argv lists, never a shell;
- every process leads its own session (group), and the whole group is killed at the deadline or on an interrupt;
- what it prints is bounded: a child can't fill the parent's memory;
- what is still running can be killed at once, whichever thread started it;
- the environment is built here: telemetry of every engine is off, thread pools are explicit.
"""

import contextlib
import os
import select
import selectors
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edgekit.errors import ResourceLimit

MAX_OUTPUT_BYTES = 8 << 20

Asking = Callable[[subprocess.Popen[bytes]], object]

# ORT 1.32 starts an uploader thread at CreateEnv unless ORT_DISABLE_TELEMETRY is set before the library is loaded; NNCF and
# ov.convert_model try an analytics host unless CI is set. MALLOC_ARENA_MAX bounds the address space glibc reserves per thread.
QUIET_ENVIRONMENT: Mapping[str, str] = {
    "ORT_DISABLE_TELEMETRY": "1",
    "CI": "true",
    "NNCF_CI": "1",
    "DO_NOT_TRACK": "1",
    "MALLOC_ARENA_MAX": "2",
}


@dataclass(frozen=True)
class Completed:
    """How a process ended: `returncode` is negative for a signal, as in `subprocess`."""

    returncode: int
    stdout: bytes
    stderr: bytes
    wall_s: float
    timed_out: bool = False
    flooded: bool = False
    out_of_memory: bool = False


class Interrupted(KeyboardInterrupt):
    """An interrupt of a process that was given time: `done` is how it ended by itself, None when it had to be killed."""

    def __init__(self, done: Completed | None) -> None:
        super().__init__()
        self.done = done


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment every child gets: the caller's, telemetry off, `extra` last."""
    return {**os.environ, **QUIET_ENVIRONMENT, **(extra or {})}


def spawn(
    argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None, stderr: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start `argv` as the leader of its own group with piped output. The caller must `kill_group` it in the end.

    Raises ResourceLimit when the program cannot be started.
    """
    with _starting:
        if _closed:
            raise ResourceLimit("nothing is started after an interrupt", where=str(argv[0]))
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=cwd,
                env=child_environment(env),
                start_new_session=True,
            )
        except OSError as error:
            raise ResourceLimit(f"cannot start a process: {error.strerror}", where=str(argv[0])) from error
        _live.add(process)
    return process


_live: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()
_closed: list[bool] = []  # not empty: no process may start


@contextlib.contextmanager
def killing_all() -> Iterator[None]:
    """Kill every process that runs, with its group, and let none start within the context: for an interrupt of other threads.

    A thread between two of its processes would else start the next one, and be waited for.
    """
    with _starting:
        _closed.append(True)
    try:
        for process in list(_live):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        yield
    finally:
        _closed.pop()


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and everything it started, and reap it. Harmless when it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _live.discard(process)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def run(
    argv: Sequence[str],
    *,
    deadline_s: float,
    stdin: bytes = b"",
    hold_stdin: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    max_rss_bytes: int = 0,
    grace_s: float = 0.0,
    ask: Asking = subprocess.Popen.terminate,
) -> Completed:
    """Run `argv` until it ends, `deadline_s` seconds have passed, it floods its output, or it outgrows `max_rss_bytes` (0: any).

    `hold_stdin` keeps its stdin open after `stdin` was sent, for a child that takes the end of input for the end of its caller.
    On an interrupt of this process, `ask` tells it to end, by SIGTERM unless given, and it has `grace_s` seconds before it is
    killed: then the interrupt is an Interrupted. Further interrupts within that time change nothing.
    """
    started = time.monotonic()
    process = spawn(argv, cwd=cwd, env=env)
    talk = _Talk(process, max_output_bytes, max_rss_bytes)
    try:
        stopped = talk.follow(stdin, hold_stdin, started + deadline_s)
    except KeyboardInterrupt:
        if not grace_s:
            raise
        with _undisturbed():
            ask(process)
            stopped = talk.follow(b"", True, time.monotonic() + grace_s)
            kill_group(process)
        raise Interrupted(None if stopped else talk.completed(started, "")) from None
    finally:
        kill_group(process)
    return talk.completed(started, stopped)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Within it interrupts of this process are dropped: who asks twice shall not cut off what the first one began."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no other thread gets one
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # A function, not SIG_IGN, which would be handed on to a process that is started meanwhile.
    before = {n: signal.signal(n, _drop) for n in numbers if callable(signal.getsignal(n))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drop(_number: int, _frame: object) -> None:
    pass


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


class _Talk:
    """What a process prints on stdout (1) and stderr (2), as far as it has come and within bounds."""

    def __init__(self, process: subprocess.Popen[bytes], limit: int, max_rss_bytes: int) -> None:
        self._process = process
        self._max_rss_bytes = max_rss_bytes
        self._chunks: dict[int, list[bytes]] = {1: [], 2: []}
        self._room = {1: limit, 2: limit}

    def follow(self, stdin: bytes, hold: bool, end: float) -> str:
        """Until the process has ended and its output is closed; or why it was left before, in a word."""
        if stopped := self._pump(stdin, hold, end):
            return stopped
        try:
            self._process.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "deadline"
        return ""

    def completed(self, started: float, stopped: str) -> Completed:
        """The record of a process that has ended."""
        return Completed(
            self._process.returncode,
            b"".join(self._chunks[1]),
            b"".join(self._chunks[2]),
            time.monotonic() - started,
            timed_out=stopped == "deadline",
            flooded=stopped == "flood",
            out_of_memory=stopped == "memory",
        )

    def _pump(self, stdin: bytes, hold: bool, end: float) -> str:
        """Feed stdin and drain the others until both are closed; returns why it was stopped or ""."""
        process, max_rss_bytes = self._process, self._max_rss_bytes
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        pending = memoryview(stdin)
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, 1)
            selector.register(process.stderr, selectors.EVENT_READ, 2)
            if stdin:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, 0)
            elif not hold:
                process.stdin.close()
            while selector.get_map():
                left = end - time.monotonic()
                if left <= 0:
                    return "deadline"
                if max_rss_bytes and _resident_bytes(process.pid) > max_rss_bytes:
                    return "memory"
                for key, _ in selector.select(min(left, 0.1) if max_rss_bytes else left):
                    if key.data == 0:
                        pending = _feed(process.stdin, pending)
                        if not pending:
                            selector.unregister(process.stdin)
                            if not hold:
                                process.stdin.close()
                        continue
                    block = os.read(key.fd, 65536)
                    if not block:
                        selector.unregister(key.fileobj)
                        continue
                    self._room[key.data] -= len(block)
                    if self._room[key.data] < 0:
                        return "flood"
                    self._chunks[key.data].append(block)
        return ""


def _feed(stream: IO[bytes], pending: memoryview) -> memoryview:
    """Write what the pipe takes; a child that closed its stdin gets no more."""
    try:
        return pending[os.write(stream.fileno(), pending[:65536]) :]
    except BrokenPipeError:
        return pending[:0]


def describe_exit(done: Completed) -> str:
    """One phrase for how a process ended, for people."""
    if done.timed_out:
        return f"did not finish within {done.wall_s:.0f} s"
    if done.out_of_memory:
        return "outgrew its memory limit"
    if done.flooded:
        return "printed more than it may"
    if done.returncode < 0:
        try:
            return f"died by {signal.Signals(-done.returncode).name}"
        except ValueError:
            return f"died by signal {-done.returncode}"
    return f"ended with exit code {done.returncode}"


class Conversation:
    """A live process that is told lines and answers lines, each within a deadline. Leaving the context kills its group."""

    def __init__(self, argv: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        self._argv = list(argv)
        self._cwd = cwd
        self._env = env
        self._pending = b""

    def __enter__(self) -> "Conversation":
        self._errors = tempfile.TemporaryFile()  # a pipe nobody drains would block the child
        self._process = spawn(self._argv, cwd=self._cwd, env=self._env, stderr=self._errors.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process and all it started; harmless when it has ended."""
        kill_group(self._process)
        self._errors.close()

    def tell(self, line: str) -> None:
        """Send one line. Raises ResourceLimit when the process is gone."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(os.fsencode(line) + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ResourceLimit(f"the process is gone{self._last_words()}", where=self._argv[0]) from error

    def answer(self, deadline_s: float) -> bytes:
        """The next line without its newline. Raises ResourceLimit at the deadline, at the end of output, or on a flood."""
        assert self._process.stdout is not None
        end = time.monotonic() + deadline_s
        fd = self._process.stdout.fileno()
        while b"\n" not in self._pending:
            ready, _, _ = select.select([fd], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise ResourceLimit(f"no answer within {deadline_s:.0f} s", where=self._argv[0])
            block = os.read(fd, 65536)
            if not block:
                raise ResourceLimit(f"the process {self._ending()}{self._last_words()}", where=self._argv[0])
            self._pending += block
            if len(self._pending) > MAX_OUTPUT_BYTES:
                raise ResourceLimit("printed more than it may", where=self._argv[0])
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _ending(self) -> str:
        try:
            code = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return "closed its output"
        return describe_exit(Completed(code, b"", b"", 0.0))

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read(1 << 20).decode(errors="replace").strip().splitlines()
        return f" ({lines[-1][:300]})" if lines else ""
