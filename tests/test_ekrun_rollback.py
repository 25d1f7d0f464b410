"""`ekrun rollback` and `status`, and what is damaged on the disk."""

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.bundle_desk import BAD_INPUT, FOLDER_TAMPERED, REFUSED, tree
from tests.bundles import (
    HEAD,
    draft,
)
from tests.ekrun_tools import built, ekrun
from tests.install_desk import (
    APPLICATION,
    BAD,
    ID1,
    ID2,
    ID3,
    ONE,
    THREE,
    TWO,
    Device,
    bundle,
    from_call,
    id_of,
    installed,
    refused,
)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


# ------------------------------------------------------------------------------------------------------ damage on the disk


@pytest.mark.parametrize("case", FOLDER_TAMPERED)
@pytest.mark.parametrize("which", ["current", "kept"])
def test_a_damaged_slot_is_replaced(device: Device, case: str, which: str) -> None:
    data = (
        draft(ONE).add("golden/empty", b"").add("bin/run", b"#!/bin/sh\n", mode=0o755).add("lib/libstub.so.1", b"x" * 9)
    )
    data.files = [item for item in data.files if item[0]["path"] != "model/model.onnx"]
    one, other = data.add("model/model.onnx", bytes(20_001)).build(), bundle("2", 1)
    installed(device, *((other, one) if which == "current" else (one, other)))
    before, slot = tree(device.app / "slots" / id_of(one)), device.app / "slots" / id_of(one)
    FOLDER_TAMPERED[case](slot)
    for aside in {path.name for path in slot.parent.iterdir()} - {id_of(one), id_of(other)}:
        (slot.parent / aside).rename(device.folder / aside)  # what the case has put there is in nobody's way
    damaged = tree(slot)
    assert damaged != before
    answer = device.install(one)
    more = case.endswith(" more") and case != "a byte more"  # it is removed, and the slot is whole
    assert (answer.code, answer.json["changed"]) == (0, not more or which == "kept"), (case, answer.stderr)
    assert (answer.json["unpacked_bytes"] == 0) == more and tree(slot) == before
    device.check_settled(id_of(one), id_of(other))


DAMAGED = [
    *("", "\n", "1 1 - ", "1 1 -", "2 1 -\n", "1 x -\n", "1 -1 -\n", "1 01 -\n", "1 1\n", "1  1 -\n", "1 1 - \n"),
    *("1 1 - x\n", f"1 1 - {ID1} {ID1}\n", f"1 1 {ID1} {ID1}\n", f"1 1 - {ID1.upper()}\n", f"1 1 - {ID1}\n\n"),
    *(f"1 {2**53} -\n", f"1 {10**30} -\n", "1 1 -" + f" {'0' * 64}" * 65 + "\n", "x" * 10000, "1 1 -\r\n", "\0" * 50),
]


@pytest.mark.parametrize("line", [*DAMAGED, None], ids=repr)
def test_a_damaged_state_is_an_error_and_not_zero(device: Device, line: str | None) -> None:
    installed(device, ONE, TWO)
    place = device.app / "state"
    right = place.read_bytes()
    place.unlink() if line is None else place.write_text(line)
    before = tree(device.root)
    for answer in (device.install(THREE), device.install(THREE, "--dry-run"), device.rollback()):
        assert answer.code == BAD_INPUT, answer.stderr
        assert "state: " in answer.json["error"]["message"]
    assert tree(device.root) == before
    (status,) = device.status().json["applications"]
    assert "state: " in status["damaged"] and status["current"] == ID2 and status["confirmed"] is None
    assert {slot["state"] for slot in status["slots"]} == {"unknown"}
    place.write_bytes(right)
    assert device.install(THREE).code == 0


def test_a_current_that_was_bent_is_put_right(device: Device) -> None:
    installed(device, ONE, TWO)
    (device.app / "current").unlink()
    (device.app / "current").symlink_to("slots/elsewhere")
    assert device.status().json["applications"][0]["current"] is None
    answer = device.install(TWO)
    assert (answer.code, answer.json["recovered"]) == (0, True)
    device.check_settled(ID2, ID1)


# --------------------------------------------------------------------------------------------------------------- rollback


def test_there_and_back(device: Device) -> None:
    same = [bundle(version, 1) for version in "123"]
    first, second, third = map(id_of, same)
    installed(device, *same, keep=3)
    answer = device.rollback()
    assert answer.code == 0, answer.stderr
    assert answer.json == {
        **{"protocol": 1, "verb": "rollback", "application": APPLICATION, "version": "2", "counter": 1, "id": second},
        **{"changed": True, "previous": third, "removed": [], "device_counter": 1, "recovered": False},
    }
    device.check_settled(second, third, first)
    assert device.rollback().json["id"] == third
    assert device.rollback("--to", first).code == 0
    device.check_settled(first, third, second)
    assert device.rollback("--to", first).json["changed"] is False
    for nowhere in ("0" * 64, "..", "", first[:-1]):
        refused(device.rollback("--to", nowhere), BAD_INPUT, "no slot of")


def test_below_the_counter_only_when_asked_for(device: Device) -> None:
    installed(device, ONE, TWO)
    before = tree(device.root)
    refused(device.rollback(), REFUSED, "--allow-downgrade")
    assert tree(device.root) == before
    assert device.rollback("--allow-downgrade").json["device_counter"] == 2
    assert device.state == ["1", "2", "-", ID1, ID2]
    refused(device.install(ONE), REFUSED, "security counter")
    assert device.install(TWO).code == 0


def test_a_slot_that_is_damaged_or_bad_is_not_gone_back_to(device: Device) -> None:
    bad = bundle("1", 1, from_call(3, BAD["fails"], device.folder))
    installed(device, bad, bundle("2", 1))
    before = tree(device.root)
    refused(device.rollback(), REFUSED, "its self-test failed: exit code 8: it is wrong")
    assert tree(device.root) == before, "the slot stays: it was confirmed once"
    (device.folder / next(path.name for path in device.folder.glob("calls-*"))).write_text("x\nx\n")
    (device.app / "slots" / id_of(bad) / "model/model.onnx").write_bytes(b"2" * 5000)
    refused(device.rollback(), REFUSED, "model/model.onnx: not the bytes that were signed")
    shutil.rmtree(device.app / "slots" / id_of(bad))
    refused(device.rollback(), BAD_INPUT, "No such file or directory")


def test_a_rollback_whose_health_check_fails_is_taken_back(device: Device) -> None:
    bad = bundle("1", 1, from_call(4, BAD["crashes"], device.folder))
    installed(device, bad, bundle("2", 1))
    before = tree(device.root)
    refused(device.rollback(), REFUSED, "switched back: ")
    assert tree(device.root) == before


def leave_bytecode(slot: Path) -> None:
    (slot / "python/__pycache__").mkdir(parents=True)
    (slot / "python/__pycache__/ekrun.cpython-311.pyc").write_bytes(b"code")
    (slot / "lib/libevil.so").write_bytes(b"evil")
    (slot / "lib/link").symlink_to("/")
    (slot / "bin/deep/er").mkdir(parents=True)


@pytest.mark.parametrize("act", ["rollback", "install"])
def test_what_lies_in_a_slot_besides_is_removed_before_it_is_used(device: Device, act: str) -> None:
    first = bundle("1", 2)
    installed(device, first, TWO)
    slot = device.app / "slots" / id_of(first)
    before = tree(slot)
    leave_bytecode(slot)
    verified = ekrun("verify", slot, "--trust", device.root / "trust")
    refused(verified, REFUSED, "not a part of the bundle")
    dirty = tree(slot)
    assert device.install(first, "--dry-run").json["lacking"] == []
    assert tree(slot) == dirty, "a rehearsal removes nothing"
    leave_bytecode(device.app / "slots" / ID2)
    assert device.install(TWO, "--dry-run").json["installed"] is True
    assert (device.install(TWO).json["changed"], device.install(TWO).code) == (False, 0)
    answer = device.rollback() if act == "rollback" else device.install(first)
    assert (answer.code, answer.json["changed"], answer.json.get("unpacked_bytes", 0)) == (0, True, 0), answer.stderr
    assert tree(slot) == before
    device.check_settled(id_of(first), ID2)


def test_a_message_about_a_slot_names_it(device: Device) -> None:
    installed(device, bundle("1", 2), TWO)
    slot = device.app / "slots" / id_of(bundle("1", 2))
    for path in ("lib/shared", "manifest.json"):
        (slot / path).unlink()
        refused(device.rollback(), REFUSED, f"{slot}: {path}: No such file")


def in_trial(device: Device, *slots: str, trial: str) -> None:
    """As an install that was killed during its health check leaves it."""
    (device.app / "state").write_text(f"1 {device.state[1]} {trial} {' '.join(slots)}\n")
    (device.app / "current").unlink()
    (device.app / "current").symlink_to(f"slots/{trial}")


def test_a_rollback_right_after_a_trial_that_died(device: Device) -> None:
    """What was to be left is left already: it does not go one slot further."""
    installed(device, ONE, TWO)
    shutil.copytree(device.app / "slots" / ID2, device.app / "slots" / ID3)
    in_trial(device, ID2, ID1, trial=ID3)
    answer = device.rollback()
    assert [answer.json[key] for key in ("id", "changed", "recovered", "previous")] == [ID2, True, True, ID1]
    device.check_settled(ID2, ID1)
    assert device.rollback("--allow-downgrade").json["id"] == ID1
    in_trial(device, ID1, ID2, trial=ID2)
    answer = device.rollback()  # its counter is below the device's, and it is where the device is
    assert [answer.json[key] for key in ("id", "changed", "recovered")] == [ID1, True, True]
    in_trial(device, ID1, ID2, trial=ID3)
    assert device.rollback("--to", ID2).json["id"] == ID2
    in_trial(device, ID2, ID1, trial=ID3)
    refused(device.rollback("--to", ID1), REFUSED, "--allow-downgrade")
    device.check_settled(ID2, ID1)


def test_a_rollback_right_after_a_first_trial_that_died(device: Device) -> None:
    installed(device, ONE)
    in_trial(device, trial=ID1)
    (device.app / "state").write_text(f"1 0 {ID1}\n")
    refused(device.rollback(), BAD_INPUT, "no earlier slot")
    assert device.current is None


# ----------------------------------------------------------------------------------------------------------------- status


def test_status_beside_what_is_no_application(device: Device) -> None:
    installed(device, ONE)
    apps = device.root / "apps"
    (apps / "notes").write_text("mine")
    (apps / "nowhere").symlink_to("absent")
    answer = device.status()
    assert answer.code == 0, answer.stderr
    assert [one["application"] for one in answer.json["applications"]] == [APPLICATION]


def test_status_of_what_cannot_be_opened(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user is needed")
    with tempfile.TemporaryDirectory() as folder:
        device = installed(Device(Path(folder)), ONE)
        (device.root / "apps/closed").mkdir(mode=0o700)
        shutil.copy(built()["x86_64"], folder)
        Path(folder).chmod(0o755)
        argv = ["setpriv", "--reuid=65534", "--clear-groups", f"{folder}/{built()['x86_64'].name}"]
        answer = ekrun("status", "--root", device.root, program=argv)
        assert answer.code == 0, answer.stderr
        closed, digits = answer.json["applications"]
        assert (closed["application"], closed["counter"], closed["slots"]) == ("closed", None, [])
        assert "Permission denied" in closed["damaged"]
        assert digits["confirmed"] == ID1 and "damaged" not in digits


def test_status(device: Device, tmp_path: Path) -> None:
    assert ekrun("status", "--root", tmp_path / "absent").json["applications"] == []
    assert device.status().json["applications"] == []
    other = dataclasses.replace(HEAD, application="another.app")
    installed(device, ONE, TWO, THREE, bundle("x", 9, head=other), keep=3)
    (device.app / "slots" / ("e" * 64)).mkdir()
    before = tree(device.root)
    answer = device.status()
    assert tree(device.root) == before
    assert (answer.json["protocol"], answer.json["verb"], answer.json["root"]) == (1, "status", str(device.root))
    first, second = answer.json["applications"]
    assert (first["application"], second["application"]) == ("another.app", APPLICATION)
    assert {key: second[key] for key in ("counter", "trial", "current", "confirmed")} == {
        **{"counter": 3, "trial": None, "current": ID3, "confirmed": ID3},
    }
    slots = {slot.pop("id"): slot for slot in second["slots"]}
    assert {name: slot["state"] for name, slot in slots.items()} == {
        **{ID3: "confirmed", ID2: "previous", ID1: "kept", "e" * 64: "unknown"},
    }
    size = sum(file["size"] for file, _ in draft(TWO).files)
    assert slots[ID2] == {
        **{"version": "2", "counter": 2, "signer": "test", "bytes": size, "state": "previous", "trusted": True},
    }
    assert slots["e" * 64]["trusted"] is False and slots["e" * 64]["version"] is None
