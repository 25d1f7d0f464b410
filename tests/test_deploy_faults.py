"""`edgekit deploy` where the device answers nonsense, ends in the middle, or cannot be left tidy, and where the user goes away.

The device is this machine; where it has to lie, its ekrun is a shell script that answers in its place.
"""

import contextlib
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgekit.devices.local import LocalDevice
from edgekit.errors import DeviceError
from edgekit.flow.deploy import deploy
from edgekit.flow.installed import Destination
from edgekit.runner import ekrun_path
from edgekit.runner.install import Policy
from tests.conftest import Cli, Ended
from tests.test_deploy import AFTER_SWITCH, HANGS, Fleet, bundle, ekrun_is_built, id_of, refused
from tests.test_ssh import until

__all__ = ["ekrun_is_built"]  # a fixture of this module, too


@pytest.fixture
def fleet(edgekit: Cli, tmp_path: Path) -> Fleet:
    """This machine as the device."""
    root = tmp_path / "root"
    return Fleet(edgekit, tmp_path, "local", str(root), root)


# ------------------------------------------------------------------------------------------------- a device that misbehaves

RUN_WITH = """
import sys
from pathlib import Path
import edgekit.devices.local as local
program = Path(sys.argv.pop(1))
local.ekrun_path = lambda _: program
from edgekit.cli import main
main.main()
"""


def misbehaving(fleet: Fleet, dry: str, real: str = "exit 9", facts: str = "") -> list[str]:
    """The words of edgekit on a device whose ekrun does `dry` for a dry run, or a status, and `real` for an install."""
    program = fleet.folder / "ekrun"
    own = ekrun_path(LocalDevice().arch)
    tells = facts or f'exec {shlex.quote(str(own))} "$@"'
    program.write_text(f'#!/bin/sh\ncase "$*" in\nfacts*) {tells};;\n*--dry-run*|status*) {dry};;\nesac\n{real}\n')
    program.chmod(0o755)
    return [sys.executable, "-c", RUN_WITH, str(program), "--cache", str(fleet.folder / "cache")]


def run_on(fleet: Fleet, words: list[str], *more: str) -> Ended:
    argv = [*words, *more, "--root", fleet.root]
    done = subprocess.run(
        argv, env={**os.environ, **fleet.env}, capture_output=True, text=True, timeout=120, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def says(answer: Mapping[str, Any], code: int = 0) -> str:
    return f"echo {shlex.quote(json.dumps({'protocol': 1, **answer}))}; exit {code}"


def error(code: str, message: str, exit_code: int) -> str:
    return says({"error": {"code": code, "message": message}}, exit_code)


LACKS_NOTHING = says({"lacking": []})


def switched(name: str) -> dict[str, Any]:
    told = {
        "verb": "install",
        "application": "digits",
        "version": "1.0",
        "counter": 1,
        "id": name,
        "changed": True,
    }
    return {**told, "previous": None, "removed": [], "device_counter": 1, "recovered": False}


NESTED = "[" * 100_000 + "]" * 100_000
UNFINISHED = "its next install puts right"
ENDINGS = {
    "an unknown file": (says({"lacking": [{"sha256": "f" * 64}]}), "", 4, ["no file of the bundle"], [UNFINISHED]),
    "a control code": (says({"lacking": [{"sha256": "\x1b[31m"}]}), "", 4, ["no file of the bundle"], ["\x1b"]),
    "nested": ("cat nested; exit 0", "", 4, ["out of protocol"], []),
    "usage, exit 0": (error("usage", "no such option", 0), "", 2, ["no such option"], []),
    "another bundle": (LACKS_NOTHING, says(switched("0" * 64)), 4, ["another bundle"], []),
    "no room, at first": (error("io", "the disk has 1 MiB free", 7), "", 9, ["the disk has"], [UNFINISHED]),
    "no room": (LACKS_NOTHING, error("io", "the disk has 1 MiB free", 7), 9, ["the disk has"], [UNFINISHED]),
    "killed": (LACKS_NOTHING, "kill -KILL $$", 9, ["SIGKILL", UNFINISHED, "status local --root"], []),
    "not taken back": (
        *(LACKS_NOTHING, error("io", "switched, not confirmed: a disk", 7)),
        *(9, ["switched, not confirmed", UNFINISHED], []),
    ),
    "taken back": (
        *(LACKS_NOTHING, error("verification_failed", "switched back: no", 8)),
        *(8, ["switched back", "status local --root"], [UNFINISHED]),
    ),
}


@pytest.mark.parametrize("how", ENDINGS)
def test_how_a_device_may_end(fleet: Fleet, how: str) -> None:
    dry, real, code, parts, absent = ENDINGS[how]
    data = bundle() if how != "another bundle" else bundle(seed=1)
    (fleet.folder / "nested").write_text(f'{{"protocol":1,"lacking":[],"x":{NESTED}}}\n')
    words = misbehaving(fleet, dry.replace("nested", shlex.quote(str(fleet.folder / "nested"))), real)
    ended = run_on(fleet, words, "deploy", str(fleet.write(data)), "local")
    refused(ended, code, *parts)
    for part in absent:
        assert part not in ended.err


def test_versions_that_are_none(fleet: Fleet) -> None:
    facts = json.loads(
        subprocess.run([ekrun_path(LocalDevice().arch), "facts"], capture_output=True, check=True).stdout
    )
    for wrong in ({"glibc": "abc"}, {"libstdcxx": "2.٣"}):
        words = misbehaving(fleet, LACKS_NOTHING, facts=says({**facts, **wrong}))
        refused(run_on(fleet, words, "deploy", str(fleet.write(bundle())), "local"), 4, "out of protocol")


@pytest.mark.parametrize("answers", [True, False])
def test_an_interrupt_that_comes_too_late(fleet: Fleet, answers: bool) -> None:
    """ekrun confirms all the same, and says so: then it is deployed. Or it says nothing more: then nobody knows."""
    data, began = bundle(), fleet.folder / "began"
    last = says(switched(id_of(data))) if answers else "exit 9"
    words = misbehaving(fleet, LACKS_NOTHING, f"trap '' TERM; touch {shlex.quote(str(began))}; sleep 2; {last}")
    argv = [*words, "deploy", str(fleet.write(data)), "local", "--root", fleet.root]
    env, pipe = {**os.environ, **fleet.env}, subprocess.PIPE
    with subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe, text=True) as child:
        until(began.exists, "it never came so far", 60)
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.5)
        child.send_signal(signal.SIGINT)  # the second one cuts nothing off
        out, err = child.communicate(timeout=60)
    if answers:
        assert (child.returncode, "deployed: digits 1.0" in out) == (0, True), err
    else:
        assert child.returncode == 130
        assert f"edgekit status local --root {fleet.root}` shows what the device runs" in err


# ------------------------------------------------------------------------------------------------------ who goes away

ON_A_TERMINAL = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


def on_a_terminal(argv: list[str], env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """A command as the leader of a terminal's session, and the terminal's other end."""
    ours, its = pty.openpty()
    started = [sys.executable, "-c", ON_A_TERMINAL, *argv]
    child = subprocess.Popen(started, stdin=its, stdout=its, stderr=its, env=env, start_new_session=True)
    os.close(its)
    os.set_blocking(ours, False)
    return child, ours


def read_all(fd: int) -> None:
    with contextlib.suppress(BlockingIOError, OSError):
        while os.read(fd, 65536):
            pass


def test_a_terminal_that_is_closed_on_trial(fleet: Fleet) -> None:
    good, hanging = bundle(), bundle(AFTER_SWITCH + HANGS, 2)
    fleet.deployed(good)
    words = ["deploy", str(fleet.write(hanging)), "local", "--root", fleet.root]
    argv = [sys.executable, "-m", "edgekit", "--cache", str(fleet.folder / "cache"), *words]
    child, terminal = on_a_terminal(argv, {**os.environ, **fleet.env})
    try:
        until(lambda: (read_all(terminal), fleet.current == id_of(hanging))[1], "never switched", 60)
    finally:
        os.close(terminal)
    assert child.wait(timeout=60) == 130
    assert fleet.current == id_of(good)
    assert fleet.status()[0]["trial"] is None


def test_nohup_is_heard(fleet: Fleet) -> None:
    """Who wants it to go on without a terminal has it go on."""
    fleet.deployed(bundle())
    slow = bundle(AFTER_SWITCH + "exec sleep 3\n", 2, seed=1)
    words = ["deploy", str(fleet.write(slow)), "local", "--root", fleet.root, "--json"]
    argv = ["nohup", sys.executable, "-m", "edgekit", "--cache", str(fleet.folder / "cache"), *words]
    env, pipe = {**os.environ, **fleet.env}, subprocess.PIPE
    with subprocess.Popen(argv, env=env, stdout=pipe, stderr=pipe, text=True) as child:
        until(lambda: fleet.current == id_of(slow), "never switched", 60)
        child.send_signal(signal.SIGHUP)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert fleet.current == id_of(slow) and fleet.status()[0]["trial"] is None


# ------------------------------------------------------------------------------------------------------ not left tidy


@pytest.mark.parametrize("kind", [DeviceError("the link was cut"), KeyboardInterrupt()])
def test_a_clean_up_that_fails_undoes_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, kind: BaseException
) -> None:
    """What was confirmed is told as confirmed; what failed before is told, not the clean-up."""
    whole = LocalDevice.lent

    @contextlib.contextmanager
    def lent(device: LocalDevice, files: Mapping[str, Path]) -> Iterator[str]:
        with whole(device, files) as folder:
            try:
                yield folder
            finally:
                if len(files) > 2:  # not that of the dry run
                    raise kind

    trust = fleet.home / "edgekit/trust"
    policy = Policy(root=fleet.root, trust=str(trust))
    place = Destination("local", cache=fleet.folder / "cache")
    data = bundle()
    with monkeypatch.context() as patched:
        patched.setattr(LocalDevice, "lent", lent)
        done = deploy(fleet.write(data), place, trust, policy)
    assert done.id == fleet.current == id_of(data)
    (notice,) = done.notices
    assert "could not be taken away" in notice and ("cut" in notice or "interrupted" in notice)
