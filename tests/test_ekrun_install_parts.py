"""`ekrun install` of a head whose files lie in slots and beside it, and the rehearsal that says which are lacking."""

import os
from pathlib import Path

import pytest

from tests.bundle_desk import BAD_INPUT, REFUSED, tree
from tests.bundles import KEY, OTHER_KEY, TRUST
from tests.ekrun_tools import Answer
from tests.install_desk import (
    ID1,
    ID2,
    ONE,
    THREE,
    TWO,
    Device,
    bundle,
    head_of,
    installed,
    parts_of,
    put_parts,
    refused,
)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def lacking(answer: Answer) -> set[str]:
    """The stored files that a rehearsal asks for, by SHA-256."""
    return {part["sha256"] for part in answer.json["lacking"]}


def test_a_rehearsal_changes_nothing_and_says_what_is_lacking(tmp_path: Path) -> None:
    device = Device(tmp_path, trusting=False)
    given = tmp_path / "given"
    given.write_bytes(TRUST)
    answer = device.install(head_of(ONE), "--dry-run", "--trust", given)
    assert answer.code == 0, answer.stderr
    assert not device.root.exists()
    assert {part["sha256"]: part["size"] for part in answer.json["lacking"]} == {
        name: len(stored) for name, stored in parts_of(ONE).items()
    }
    assert (answer.json["installed"], answer.json["changed"], answer.json["id"]) == (False, False, ID1)
    folder = put_parts(device, ONE, lacking(answer))
    answer = device.install(head_of(ONE), "--parts", folder, "--trust", given)
    assert (answer.code, answer.json["copied_bytes"]) == (0, 0), answer.stderr
    device.check_settled(ID1)
    before = tree(device.root)
    answer = device.install(head_of(ONE), "--dry-run")
    assert (answer.json["lacking"], answer.json["installed"]) == ([], True)
    answer = device.install(head_of(TWO), "--dry-run")
    assert tree(device.root) == before
    model = next(stored for stored in parts_of(TWO) if stored not in parts_of(ONE))
    assert lacking(answer) == {model}
    assert answer.json["device_counter"] == 1


def test_what_a_slot_holds_need_not_be_sent(device: Device) -> None:
    installed(device, ONE)
    missing = lacking(device.install(head_of(TWO), "--dry-run"))
    folder = put_parts(device, TWO, missing)
    answer = device.install(head_of(TWO), "--parts", folder)
    assert answer.code == 0, answer.stderr
    assert (answer.json["unpacked_bytes"], answer.json["copied_bytes"] > 90_000) == (5000, True)
    device.check_settled(ID2, ID1)


def test_a_damaged_slot_is_no_source(device: Device) -> None:
    installed(device, ONE)
    shared = device.app / "slots" / ID1 / "lib/shared"
    for spoil in (lambda: os.truncate(shared, 5000), lambda: shared.write_bytes(b"x" * 96_000), shared.unlink):
        spoil()
        missing = lacking(device.install(head_of(TWO), "--dry-run"))
        assert len(missing) == 2
    empty = put_parts(device, TWO, [])
    refused(device.install(head_of(TWO), "--parts", empty), REFUSED, "lib/shared: No such file")
    folder = put_parts(device, TWO, missing)
    shared.write_bytes(b"x" * 100)
    assert device.install(head_of(TWO), "--parts", folder).code == 0
    device.check_settled(ID2, ID1)


def test_a_slot_whose_key_was_revoked_is_no_source(device: Device) -> None:
    installed(device, ONE)
    (device.root / "trust").write_text(f"ed25519 {OTHER_KEY.public} new\nrevoked {KEY.public} old\n")
    new = bundle("2", 2, seal=OTHER_KEY.seal)
    assert lacking(device.install(head_of(new), "--dry-run")) == parts_of(new).keys()


def test_parts_that_are_wrong(device: Device) -> None:
    folder = put_parts(device, ONE, [])
    refused(device.install(head_of(ONE), "--parts", folder), BAD_INPUT, "no slot holds it, and --parts has no")
    refused(device.install(head_of(ONE), "--parts", folder / "absent"), BAD_INPUT, "--parts")
    for name, stored in parts_of(ONE).items():
        for wrong in (stored[:-1], stored + b"\0", bytes([stored[0] ^ 1]) + stored[1:], b""):
            for other, right in parts_of(ONE).items():
                (folder / other).write_bytes(right)
            (folder / name).write_bytes(wrong)
            answer = device.install(head_of(ONE), "--parts", folder)
            assert answer.code == REFUSED and str(folder / name) in answer.stderr, answer.stderr
        (folder / name).unlink()
        (folder / name).symlink_to(device.file)
        assert device.install(head_of(ONE), "--parts", folder).code == REFUSED
        (folder / name).unlink()
    assert device.slots() == set() and device.entries() == {"lock", "slots", "state"}


def test_a_whole_bundle_reads_itself(device: Device) -> None:
    installed(device, ONE)
    answer = device.install(TWO, "--parts", put_parts(device, TWO, []))
    assert (answer.code, answer.json["copied_bytes"]) == (0, 0)
    refused(device.install(head_of(THREE)), REFUSED, "ends too early")
