"""A new bundle that proves to be bad, or whose trial is cut short: it is taken back, at once or by the next install."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.bundle_desk import IO, REFUSED, tree
from tests.bundles import OTHER_KEY, SIGNER, Draft, draft
from tests.ekrun_tools import Answer, built
from tests.install_desk import (
    BAD,
    ID1,
    ONE,
    PASS,
    SAYS,
    TWO,
    Device,
    bundle,
    from_call,
    id_of,
    installed,
    refused,
    traced,
)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


# ------------------------------------------------------------------------------------- a new bundle that proves to be bad


def check_taken_back(device: Device, answer: Answer, case: str, before: object) -> None:
    assert answer.code == REFUSED, answer.stderr
    assert SAYS[case] in answer.json["error"]["message"]
    assert tree(device.root) == before
    device.check_settled(ID1)


@pytest.mark.parametrize("case", BAD)
def test_a_self_test_that_goes_wrong_switches_nothing(device: Device, case: str) -> None:
    installed(device, ONE)
    before = tree(device.root)
    answer = device.install(bundle("2", 2, BAD[case]), "--check-seconds", 1)
    check_taken_back(device, answer, case, before)
    assert "its self-test failed" in answer.json["error"]["message"]


@pytest.mark.parametrize("case", BAD)
def test_a_health_check_that_goes_wrong_is_switched_back(device: Device, case: str) -> None:
    installed(device, ONE)
    before = tree(device.root)
    answer = device.install(bundle("2", 2, from_call(2, BAD[case], device.folder)), "--check-seconds", 1)
    check_taken_back(device, answer, case, before)
    assert answer.json["error"]["message"].startswith("switched back: ")
    assert "its health check failed" in answer.json["error"]["message"]


def test_the_first_one_that_goes_wrong_leaves_nothing(device: Device) -> None:
    answer = device.install(bundle("1", 1, from_call(2, BAD["fails"], device.folder)))
    refused(answer, REFUSED, "switched back: ")
    assert (device.current, device.state, device.slots()) == (None, ["1", "0", "-"], set())
    installed(device, ONE)
    device.check_settled(ID1)


def test_a_counter_counts_only_once_it_is_confirmed(device: Device) -> None:
    installed(device, ONE)
    assert device.install(bundle("9", 9, BAD["fails"])).code == REFUSED
    assert device.install(bundle("9", 9, from_call(2, BAD["fails"], device.folder))).code == REFUSED
    assert device.state[1] == "1"
    assert device.install(TWO).code == 0


def test_where_the_checks_look(device: Device) -> None:
    log = device.folder / "log"
    data = bundle("1", 1, f'echo "$0 $*" >> {log}; [ -z "$(cat)" ] && {PASS}')
    assert device.install(data, stdin="not for it").code == 0
    app = device.app.resolve()
    places = (app / "slots" / id_of(data), app / "current")
    assert log.read_text().splitlines() == [f"{place}/bin/ekrun check {place} --budget" for place in places]


def without(data: bytes, path: str) -> Draft:
    made = draft(data)
    made.files = [(file, stored) for file, stored in made.files if file["path"] != path]
    return made


def with_program(program: bytes) -> Draft:
    return without(TWO, "bin/ekrun").add("bin/ekrun", program, mode=0o755)


PROGRAMS: dict[str, tuple[Draft, str]] = {
    "none": (without(TWO, "bin/ekrun"), "it cannot be started: No such file or directory"),
    "no program": (with_program(b"text\n"), "it cannot be started: Exec format error"),
    "not to be executed": (
        without(TWO, "bin/ekrun").add("bin/ekrun", b"#!/bin/sh"),
        "it cannot be started: Permission",
    ),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_programs_that_are_none(device: Device, case: str) -> None:
    made, words = PROGRAMS[case]
    refused(device.install(made.build()), REFUSED, words)


def test_no_process_is_left(device: Device) -> None:
    pid = device.folder / "pid"
    body = f"sleep 600 & echo $! > {pid}; {{}}"
    for bad, code in (("sleep 600", REFUSED), (PASS, 0)):
        answer = device.install(bundle("1", 1, body.format(bad)), "--check-seconds", 1)
        assert answer.code == code, answer.stderr
        wait_for_end(int(pid.read_text()))


def wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] == "Z":
                return
        except (ProcessLookupError, FileNotFoundError):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} is still there")


def test_without_golden_samples(device: Device) -> None:
    """Its own ekrun has nothing to check with, and that is only said to be so where it is so."""
    record = {"format": 1, "engine": "onnxruntime", "library": "lib/x", "model": "model/x", "threads": 1}
    record |= {"precision": "f32", "options": {}, "state": {}, "golden": None}
    none = without(with_program(b"#!/bin/sh\nexit 5\n").build(), "deployment.json")
    unchecked = none.add("deployment.json", json.dumps(record).encode()).build()
    refused(device.install(unchecked), REFUSED, "exit code 5")
    assert device.install(unchecked, "--allow-unchecked").code == 0
    assert device.install(bundle("3", 3, BAD["fails"]), "--allow-unchecked").code == REFUSED


# ------------------------------------------------------------------------------------------------------ signals and death


def begun(device: Device, data: bytes, *more: object, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """An install whose health check does not end by itself, once that has begun."""
    device.file.write_bytes(data)
    argv = [str(built()["x86_64"]), "install", str(device.file), "--root", str(device.root), *map(str, more)]
    process = subprocess.Popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while device.current != id_of(data) or not (device.folder / "hanging").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    return process


def hanging(device: Device) -> bytes:
    return bundle("2", 2, from_call(2, f"echo $$ > {device.folder}/hanging; exec sleep 600", device.folder))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_trial_takes_it_back(device: Device, number: signal.Signals) -> None:
    installed(device, ONE)
    before = tree(device.root)
    with begun(device, hanging(device)) as process:
        process.send_signal(number)
        assert process.wait(20) == -number
    assert tree(device.root) == before
    wait_for_end(int((device.folder / "hanging").read_text()))


@pytest.mark.parametrize("how", ["killed", "untethered"])
def test_the_next_one_recovers(device: Device, how: str) -> None:
    installed(device, ONE)
    data = hanging(device)
    with begun(device, data, "--tether", stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.kill() if how == "killed" else process.stdin.close()
        assert process.wait(20) == (-signal.SIGKILL if how == "killed" else 10)
    wait_for_end(int((device.folder / "hanging").read_text()))
    assert device.state == ["1", "1", id_of(data), ID1]
    (status,) = device.status().json["applications"]
    assert (status["trial"], status["current"], status["confirmed"]) == (id_of(data), id_of(data), ID1)
    assert {slot["id"]: slot["state"] for slot in status["slots"]} == {ID1: "confirmed", id_of(data): "trial"}
    device.install(TWO, "--dry-run")
    assert device.current == id_of(data), "a rehearsal recovers nothing"
    answer = device.install(ONE)
    assert (answer.code, answer.json["changed"], answer.json["recovered"]) == (0, False, True)
    device.check_settled(ID1)


# ------------------------------------------------------------------------------------------------ verified once more

CHANGES: dict[str, tuple[str, str]] = {
    "a file of its own": ("echo x >> $2/model/model.onnx", "model/model.onnx: "),
    "a library more": ("echo x > $2/lib/libevil.so", "lib/libevil.so: not a part of the bundle"),
    "its manifest": ("echo x >> $2/manifest.json", "manifest.json"),
    "the keys": ("cp {folder}/new {root}/trust", "which is revoked"),
    "the keys are gone": ("rm {root}/trust", "does not list"),
    "the keys cannot be read": ("ln -sf trust {root}/trust", "cannot be read"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_a_check_changes_is_seen(device: Device, case: str) -> None:
    installed(device, ONE)
    change, words = CHANGES[case]
    (device.folder / "new").write_text(f"ed25519 {OTHER_KEY.public} new\nrevoked {SIGNER.public} old\n")
    change = change.format(folder=device.folder, root=device.root)
    answer = device.install(bundle("2", 2, from_call(2, f"{change} && {PASS}", device.folder)))
    assert answer.code == (IO if "read" in case else REFUSED)
    assert answer.json["error"]["message"].startswith("switched back: ")
    assert words in answer.json["error"]["message"]
    device.check_settled(ID1)


# --------------------------------------------------------------------------------------------- a signal, and nothing to check


def unchecked(version: str, counter: int) -> bytes:
    record = {"format": 1, "engine": "onnxruntime", "library": "lib/x", "model": "model/x", "threads": 1}
    record |= {"precision": "f32", "options": {}, "state": {}, "golden": None}
    made = without(bundle(version, counter), "deployment.json")
    return made.add("deployment.json", json.dumps(record).encode()).build()


def test_a_signal_takes_back_what_goes_unchecked(device: Device) -> None:
    """At every call from the switch to the confirm."""
    installed(device, ONE)
    data = unchecked("2", 2)
    log = device.folder / "log"
    names = ("openat", "read", "fstat", "newfstatat", "renameat")
    trace = ["strace", "-qq", "-o", str(log), "-e", f"trace={','.join(f'?{name}' for name in names)}"]
    first = device.copy("first")
    assert first.install(data, "--allow-unchecked", program=[*trace, str(built()["x86_64"])]).code == 0
    lines = [line for line in log.read_text().splitlines() if "(" in line]
    switch = next(index for index, line in enumerate(lines) if '"current"' in line and line.startswith("renameat"))
    confirm = max(index for index, line in enumerate(lines) if '"state"' in line and line.startswith("renameat"))
    made = [line.partition("(")[0] for line in lines]
    assert confirm - switch > 20
    before = tree(device.root)
    for index in (*range(switch, confirm - 2, 7), confirm - 2):
        name, when = made[index], made[: index + 1].count(made[index])
        answer = device.install(data, "--allow-unchecked", program=traced(name, when, "signal=SIGTERM"))
        assert answer.code == -signal.SIGTERM, (lines[index], answer)
        assert tree(device.root) == before, lines[index]
