"""The processes of a bundle's own check: what they leave behind, what they are given, how their end is told."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.bundle_desk import REFUSED, tree
from tests.ekrun_tools import built
from tests.install_desk import ID1, ONE, PASS, TWO, Device, bundle, from_call, installed, refused
from tests.test_ekrun_install_trial import begun, hanging, wait_for_end


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def injected(what: str, *more: str) -> list[str]:
    return ["strace", "-qq", *more, "-o", "/dev/null", "-e", f"inject={what}", str(built()["x86_64"])]


# ------------------------------------------------------------------------------------------------------ what is left behind

ESCAPES: dict[str, str] = {
    "another session": "setsid sleep 600 & echo $! > {pid}; sleep 0.2",
    "a grandchild": "setsid sh -c 'setsid sleep 600 & echo $! > {pid}; sleep 0.2' & wait",
    "a grandchild whose parent is there": "setsid sh -c 'setsid sleep 600 & echo $! > {pid}; sleep 600' & sleep 0.4",
}


@pytest.mark.parametrize("end", ["passes", "hangs"])
@pytest.mark.parametrize("case", ESCAPES)
def test_what_leaves_the_group_is_killed(device: Device, case: str, end: str) -> None:
    pid = device.folder / "pid"
    body = f"{ESCAPES[case].format(pid=pid)}; {PASS if end == 'passes' else 'sleep 600'}"
    answer = device.install(bundle("1", 1, body), "--check-seconds", 2)
    assert answer.code == (0 if end == "passes" else REFUSED), answer.stderr
    wait_for_end(int(pid.read_text()))


def test_what_leaves_the_group_is_killed_when_the_link_is_gone(device: Device) -> None:
    installed(device, ONE)
    pid = device.folder / "pid"
    body = f"setsid sleep 600 & echo $! > {pid}; echo > {device.folder}/hanging; exec sleep 600"
    data = bundle("2", 2, from_call(2, body, device.folder))
    with begun(device, data, "--tether", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 10
    wait_for_end(int(pid.read_text()))
    assert device.state[2] != "-", "it ended where it stood"


def test_without_proc_at_least_the_group_is_killed(device: Device) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    pid = device.folder / "pid"
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"', str(built()["x86_64"])]
    answer = device.install(bundle("1", 1, f"sleep 600 & echo $! > {pid}; {PASS}"), program=hidden)
    assert answer.code == 0, answer.stderr
    wait_for_end(int(pid.read_text()))


def test_children_of_another_are_left_alone(device: Device) -> None:
    """Who starts a process and then becomes ekrun."""
    before = f'sleep 60 >/dev/null 2>&1 & echo $! > {device.folder}/pid; exec "$0" "$@"'
    answer = device.install(ONE, program=["sh", "-c", before, str(built()["x86_64"])])
    assert answer.code == 0
    pid = int((device.folder / "pid").read_text())
    os.kill(pid, 0)
    os.kill(pid, signal.SIGKILL)


# ------------------------------------------------------------------------------------------------------- what it is given


@pytest.mark.parametrize("old", [False, True], ids=["close_range", "one by one"])
def test_no_descriptor_is_inherited(device: Device, old: bool) -> None:
    log, secret = device.folder / "log", device.folder / "secret"
    secret.touch()
    ekrun = injected("close_range:error=ENOSYS", "-f") if old else [str(built()["x86_64"])]
    given = ["sh", "-c", f'exec 7< {secret} 8< {secret}; exec "$0" "$@"', *ekrun]
    answer = device.install(bundle("1", 1, f"ls -l /proc/$$/fd >> {log}; {PASS}"), program=given)
    assert answer.code == 0, answer.stderr
    assert log.read_text().count(" 1 -> ") == 2 and "secret" not in log.read_text()


# ------------------------------------------------------------------------------------------------------ how its end is told


def test_a_caller_that_ignores_its_children(device: Device) -> None:
    ignore = {"before": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None}
    assert device.install(ONE, **ignore).code == 0  # type: ignore[arg-type]
    answer = device.install(bundle("2", 2, from_call(2, "exit 3", device.folder)), **ignore)  # type: ignore[arg-type]
    refused(answer, REFUSED, "its health check failed: exit code 3")
    device.check_settled(ID1)


def test_an_end_that_cannot_be_told(device: Device) -> None:
    """Then its number may be another's: nobody is killed by it."""
    log = device.folder / "log"
    trace = ["-e", "trace=kill,waitid", "-e", "inject=waitid:error=ECHILD"]
    answer = device.install(ONE, program=["strace", "-qq", "-o", str(log), *trace, str(built()["x86_64"])])
    refused(answer, REFUSED, "how it has ended cannot be told")
    assert "waitid(" in log.read_text() and "kill(-" not in log.read_text()


def test_a_child_that_does_not_die(device: Device) -> None:
    begin = time.monotonic()
    answer = device.install(ONE, "--check-seconds", 1, program=["timeout", "60", *injected("wait4:retval=0")])
    refused(answer, REFUSED, "it is killed, and does not die")
    assert time.monotonic() - begin < 50


SAYS: dict[str, tuple[str, str]] = {
    "the last line": ("echo first >&2; echo it broke >&2; echo >&2; exit 3", "exit code 3: it broke"),
    "printable": (r"printf 'a\033[31mb\001\n' >&2; exit 3", "exit code 3: a[31mb"),
    "a signal": ("echo it broke >&2; kill -SEGV $$", "Segmentation fault: it broke"),
    "stdout first": ("""echo no >&2; echo '{"error":{"message":"yes"}}'; exit 8""", "exit code 8: yes"),
    "without an end": ("while :; do echo 0123456789012345678901234567890123456789 >&2; done", "not ended after 1 s"),
}


@pytest.mark.parametrize("case", SAYS)
def test_what_it_says_on_stderr(device: Device, case: str) -> None:
    body, words = SAYS[case]
    answer = device.install(bundle("1", 1, body), "--check-seconds", 1)
    refused(answer, REFUSED, "its self-test failed: ")
    assert answer.json["error"]["message"].endswith(words)


def test_a_long_line_is_cut(device: Device) -> None:
    body = "for i in 1 2 3 4 5 6 7 8 9; do printf '%0999d' $i >&2; done; printf end >&2; exit 3"
    message = device.install(bundle("1", 1, body)).json["error"]["message"]
    assert message.partition("exit code 3: ")[2].strip("0123456789") == "" and len(message) < 500


# ------------------------------------------------------------------------------------------------ the first of a container


def test_the_first_process_ends_by_a_signal_too(device: Device) -> None:
    """The kernel keeps the default action of a signal from it."""
    if os.geteuid() != 0:
        pytest.skip("process namespaces need root")
    installed(device, ONE)
    before = tree(device.root)
    device.file.write_bytes(hanging(device))
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", str(built()["x86_64"])]
    argv += ["install", str(device.file), "--root", str(device.root)]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not (device.folder / "hanging").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        (inner,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(inner), signal.SIGTERM)
        try:
            assert process.wait(20) == 128 + signal.SIGTERM
        finally:
            process.kill()
    assert tree(device.root) == before
    assert device.install(TWO).code == 0
