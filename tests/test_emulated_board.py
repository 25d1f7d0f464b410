"""The SSH board that other tests use: an arm64 Linux of its own, by either daemon, that goes without a trace."""

import contextlib
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from edgekit.devices.arm64_root import CORES
from edgekit.devices.ssh import SshDevice
from edgekit.runner.client import FactsReply, parse
from tests.board import require_ssh_board, ssh_board
from tests.conftest import ROOT
from tests.sshd import Server

pytestmark = pytest.mark.board


def on(board: Server, command: str, program: str = "ssh", timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """One command by the system's own client."""
    port = ["-P" if program == "sftp" else "-p", str(board.port)]
    argv = [program, "-F", str(board.client.config), *port, f"{board.user}@127.0.0.1", command]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.mark.parametrize(("daemon", "core"), [("dropbear", "cortex-a53"), ("openssh", "cortex-a76")])
def test_a_board_is_an_emulated_core_and_says_so(tmp_path: Path, daemon: str, core: str) -> None:
    """By ssh, too: nothing but ekrun's word keeps its times from being taken for a board's."""
    with ssh_board(daemon, tmp_path, core=core) as board:
        with closing(SshDevice(board.url(), ssh_config=board.client.config)) as device:
            facts = parse(device.run(["facts"], deadline_s=60), FactsReply, device.name)
        assert not board.running(".edgekit")
    assert (facts.arch, facts.emulated, (facts.cpu_model or "").lower()) == ("aarch64", True, core)
    assert set(facts.isa) == set(CORES[core][1].split())


@pytest.mark.parametrize("daemon", ["dropbear", "openssh"])
def test_a_board_has_a_busybox_no_python_and_a_user_without_rights(tmp_path: Path, daemon: str) -> None:
    with ssh_board(daemon, tmp_path) as board:
        assert on(board, "uname -m").stdout == "aarch64\n"
        assert on(board, "id -u; pwd").stdout == "1000\n/home/pi\n"
        assert on(board, "readlink /bin/sh").stdout == "busybox\n"
        assert on(board, "find / -xdev -name 'python*'").stdout == ""
        assert on(board, "touch /etc/x").returncode == 1
        free = on(board, "df -Pk . | tail -1").stdout.split()
        assert free[-1] == "/" and int(free[3]) > 0
        assert (on(board, "/tmp", program="sftp").returncode == 0) == (daemon == "openssh")


def test_a_board_goes_without_a_trace(tmp_path: Path) -> None:
    """With what it runs and what it mounted, and without a word in this machine's own mounts while it is there."""
    before = Path("/proc/self/mountinfo").read_text()
    with ssh_board("dropbear", tmp_path) as board:
        on(board, "sleep 1234 >/dev/null 2>&1 &")
        assert board.running("sleep 1234")
        assert Path("/proc/self/mountinfo").read_text() == before
        assert "0x41" not in Path("/proc/cpuinfo").read_text()
    assert not (tmp_path / "root").exists()
    assert b"sleep\x001234" not in command_lines()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", board.port), timeout=5)


def command_lines() -> bytes:
    """Those of this machine's processes, as far as they last."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.append(path.read_bytes())
    return b"".join(found)


KILLED = """
import sys, time
from pathlib import Path
from tests.board import ssh_board
with ssh_board("dropbear", Path(sys.argv[1])) as board:
    print(board.port, flush=True)
    time.sleep(60)
"""


def test_a_board_goes_with_a_test_run_that_was_killed(tmp_path: Path) -> None:
    require_ssh_board()
    with subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        port = int(run.stdout.readline())
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        run.kill()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return
        time.sleep(0.05)
    pytest.fail("the board is still there")
