"""Fixtures shared by all tests: the real command line, one cache for all workers, the shipped sample."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgekit.core.run import Run
from edgekit.process import QUIET_ENVIRONMENT
from edgekit.sandbox import decode

# Engines imported by tests themselves read this when their libraries are loaded.
os.environ.update(QUIET_ENVIRONMENT)

ROOT = Path(__file__).parent.parent

# A shell that starts a job in the background has it ignore these, and so would all that the tests start and interrupt.
for number, action in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, action)

SAMPLE = ROOT / "calibration_data" / "digits"

# `.ci/run` asks for boards, and has the minutes that sanitized builds and long simulations take.
thorough = pytest.mark.skipif(
    os.environ.get("EDGEKIT_REQUIRE_BOARD") != "1", reason="takes long: runs with EDGEKIT_REQUIRE_BOARD=1"
)


class _SignalStack(ctypes.Structure):
    _fields_ = [("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


SS_DISABLE = 2


@pytest.fixture(autouse=True)
def on_the_plain_stack() -> None:
    """Signals are handled on the thread's own stack: OpenVINO's CPU plugin, where a test loads it into this process, leaves an
    alternate one behind that is no longer mapped, and the next signal, a later test's SIGINT or a timeout's, would end pytest."""
    ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, SS_DISABLE, 0)), None)


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line an error is; fails the test when there is more, or a traceback."""
        lines = self.err.splitlines()
        assert "Traceback" not in self.err + self.out, self.err
        assert len(lines) == 1, self.err
        assert lines[0].startswith("edgekit: "), lines[0]
        assert lines[0].isprintable()
        return lines[0]


Cli = Callable[..., Ended]


def done(ended: Ended, code: int = 0) -> Ended:
    """It, when it ended so."""
    assert ended.code == code, ended.err
    return ended


def load(folder: Path) -> Run:
    """The record in a run's folder."""
    run: Run = decode((folder / "run.json").read_bytes(), Run)
    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules that take minutes come first: a worker that begins one while the others have nothing left makes all wait."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for every worker of this test run: what one built, the others reuse."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "edgekit-cache"


@pytest.fixture(scope="session")
def edgekit(cache: Path) -> Cli:
    """Run the real command in a process of its own: `edgekit("inspect", path, cwd=...)`."""

    def run(
        *arguments: object, cwd: Path | None = None, timeout: float = 240, env: dict[str, str] | None = None
    ) -> Ended:
        argv = [sys.executable, "-m", "edgekit", "--cache", str(cache), *map(str, arguments)]
        done = subprocess.run(
            argv,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run
