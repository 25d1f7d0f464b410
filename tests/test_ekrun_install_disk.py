"""`ekrun install` and `rollback` on a disk that is full, too small, or has something mounted, and slots that were lost."""

import os
import shutil
from pathlib import Path

import pytest

from tests.bundle_desk import IO, REFUSED, tree
from tests.bundles import draft
from tests.ekrun_tools import built
from tests.install_desk import (
    ID1,
    ID2,
    ID3,
    ONE,
    THREE,
    TWO,
    Device,
    bundle,
    from_call,
    head_of,
    id_of,
    installed,
    mounted,
    parts_of,
    put_parts,
    refused,
    within,
)

MIB = 1 << 20


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def large(version: str, counter: int = 1, mib: int = 2) -> bytes:
    return draft(bundle(version, counter)).add("zz", bytes(mib * MIB)).build()


# -------------------------------------------------------------------------------------------------- full during the trial

FULL: dict[str, tuple[str, str, str]] = {
    "bytes": ("size=4m", "dd if=/dev/zero of=$2/fill bs=4096 2>/dev/null", "echo x > $2/fill2 2>/dev/null"),
    "inodes": (
        "size=4m,nr_inodes=80",
        "i=0; while true > $2/fill$i; do i=$((i+1)); done 2>/dev/null",
        "true > $2/more 2>/dev/null",
    ),
}


def fills(device: Device, number: int, how: str) -> str:
    """Passes until the check `number`, which fills its slot, makes sure that the disk is full, and fails."""
    _, fill, more = FULL[how]
    return from_call(number, f"{fill}; if {more}; then exit 9; fi; exit 8", device.folder)


@pytest.mark.parametrize("how", FULL)
def test_a_trial_that_fills_the_disk_is_taken_back(tmp_path: Path, how: str) -> None:
    with mounted(tmp_path, FULL[how][0]) as (device, seen):
        assert device.install(ONE).code == 0
        before = tree(seen.root)
        answer = device.install(bundle("2", 2, fills(device, 2, how)))
        refused(answer, REFUSED, "switched back: ")
        assert "exit code 8" in answer.stderr
        assert tree(seen.root) == before
        assert device.install(TWO).code == 0
        seen.check_settled(ID2, ID1)


@pytest.mark.parametrize("how", FULL)
def test_a_rollback_that_fills_the_disk_is_taken_back(tmp_path: Path, how: str) -> None:
    """The slot stays, for it is kept: what makes room is only what the trial has left there."""
    with mounted(tmp_path, FULL[how][0]) as (device, seen):
        assert device.install(bundle("1", 1, fills(device, 4, how))).code == 0
        assert device.install(bundle("2", 1)).code == 0
        before = tree(seen.root)
        answer = device.rollback()
        refused(answer, REFUSED, "switched back: ")
        assert "exit code 8" in answer.stderr
        assert tree(seen.root) == before


@pytest.mark.parametrize("how", FULL)
@pytest.mark.parametrize("act", ["install", "rollback"])
def test_a_cut_on_a_full_disk_is_recovered_from(tmp_path: Path, how: str, act: str) -> None:
    """Killed by its own check, when the disk is full."""
    with mounted(tmp_path, FULL[how][0]) as (device, seen):
        _, fill, _ = FULL[how]
        killing = from_call(2 if act == "install" else 4, f"{fill}; kill -KILL $PPID; sleep 60", device.folder)
        if act == "rollback":
            assert device.install(bundle("1", 1, killing)).code == 0
            second = bundle("2", 1)
            assert device.install(second).code == 0
            assert device.rollback().code == -9
        else:
            second = ONE
            assert device.install(ONE).code == 0
            assert device.install(bundle("2", 2, killing)).code == -9
        assert seen.current != id_of(second)
        answer = device.install(second)
        assert (answer.code, answer.json["changed"], answer.json["recovered"]) == (0, False, True), answer.stderr
        assert (seen.current, seen.state[2], seen.state[3]) == (id_of(second), "-", id_of(second))
        assert seen.entries() == {"current", "lock", "slots", "state"}


def test_a_way_back_that_was_lost_is_made_again(device: Device) -> None:
    installed(device, ONE)
    remove = f"rm {device.app}/.current.back {device.app}/.state.spare || exit 3; exit 8"
    refused(device.install(bundle("2", 2, from_call(2, remove, device.folder))), REFUSED, "exit code 8")
    device.check_settled(ID1)
    other = f"ln -sfn slots/{ID3} {device.app}/.current.back || exit 3; exit 8"
    refused(device.install(bundle("2", 2, from_call(2, other, device.folder))), REFUSED, "exit code 8")
    device.check_settled(ID1)


@pytest.mark.parametrize("how", FULL)
def test_a_spare_that_was_lost_on_a_full_disk(tmp_path: Path, how: str) -> None:
    """The slot is removed before the state is written, so that there is room for it."""
    with mounted(tmp_path, FULL[how][0]) as (device, seen):
        assert device.install(ONE).code == 0
        before = tree(seen.root)
        _, fill, more = FULL[how]
        body = f"rm {device.app}/.state.spare; {fill}; if {more}; then exit 9; fi; exit 8"
        answer = device.install(bundle("2", 2, from_call(2, body, device.folder)))
        refused(answer, REFUSED, "switched back: ")
        assert "exit code 8" in answer.stderr and tree(seen.root) == before


# ------------------------------------------------------------------------------------------------------------------- room


@pytest.mark.parametrize("what", ["staging", "nobody's slot", "a trial"])
def test_what_recovery_frees_counts_as_free(tmp_path: Path, what: str) -> None:
    with mounted(tmp_path, "size=5m") as (device, seen):
        place = seen.app / (".staging" if what == "staging" else f"slots/{ID3}")
        place.mkdir(parents=True)
        (place / "x").write_bytes(bytes(MIB + MIB // 2))
        (seen.app / "state").write_text(f"1 0 {ID3 if what == 'a trial' else '-'}\n")
        data = large("1", mib=3)
        assert device.install(data, "--dry-run").code == 0
        assert place.exists()
        assert device.install(data).code == 0
        seen.check_settled(id_of(data))


def test_a_disk_with_room_for_two(tmp_path: Path) -> None:
    one, two, three, larger = large("1"), large("2"), large("3"), large("4", mib=4)
    with mounted(tmp_path, "size=6400k") as (device, seen):
        assert device.install(one).code == 0
        assert device.install(two).code == 0
        before = tree(seen.root)
        refused(device.install(larger), IO, "bytes, the disk has")
        refused(device.install(larger, "--dry-run"), IO, "bytes, the disk has")
        refused(device.install(three, "--keep", 3), IO, "bytes, the disk has")
        answer = device.install(three, "--dry-run")
        assert (answer.code, answer.json["previous"], answer.json["removed"]) == (0, id_of(one), []), answer.stderr
        assert tree(seen.root) == before, "what would not make room is not removed"
        answer = device.install(three)
        assert (answer.code, answer.json["removed"], answer.json["recovered"]) == (0, [id_of(one)], False)
        seen.check_settled(id_of(three), id_of(two))
        (seen.app / "current/zz").write_bytes(b"x" * (2 * MIB))
        answer = device.install(three, "--keep", 1)
        assert (answer.code, answer.json["removed"]) == (0, [id_of(two)]), answer.stderr
        seen.check_settled(id_of(three))


def test_what_will_be_removed_is_no_source(tmp_path: Path) -> None:
    """A rehearsal asks for what only a slot holds that has to make room."""
    one = draft(large("1")).add("zy", b"only here").build()
    three = draft(large("3")).add("zy", b"only here").build()
    with mounted(tmp_path, "size=6400k") as (device, seen):
        for data in (one, large("2")):
            assert device.install(data).code == 0
        lacking = {part["sha256"] for part in device.install(head_of(three), "--dry-run").json["lacking"]}
        only = next(name for name, stored in parts_of(three).items() if stored == b"only here")
        assert only in lacking
        assert device.install(head_of(three), "--parts", put_parts(device, three, lacking)).code == 0
        seen.check_settled(id_of(three), id_of(large("2")))


def test_what_need_not_be_removed_is_a_source(tmp_path: Path) -> None:
    """Where recovery alone makes room."""
    one = draft(ONE).add("zy", b"only here").build()
    three = draft(large("3", 3, mib=3)).add("zy", b"only here").build()
    with mounted(tmp_path, "size=6m") as (device, seen):
        for data in (one, TWO):
            assert device.install(data).code == 0
        (seen.app / ".staging").mkdir()
        (seen.app / ".staging/x").write_bytes(bytes(3 * MIB))
        lacking = {part["sha256"] for part in device.install(head_of(three), "--dry-run").json["lacking"]}
        only = next(name for name, stored in parts_of(three).items() if stored == b"only here")
        assert only not in lacking
        assert device.install(head_of(three), "--parts", put_parts(device, three, lacking)).code == 0
        seen.check_settled(id_of(three), ID2)


# --------------------------------------------------------------------------------------------------------- lost, exchanged


def test_a_confirmed_slot_that_was_lost_is_installed_again(device: Device) -> None:
    installed(device, ONE, TWO)
    shutil.rmtree(device.app / "slots" / ID2)
    answer = device.install(TWO)
    assert (answer.code, answer.json["changed"]) == (0, True), answer.stderr
    device.check_settled(ID2, ID1)


@pytest.mark.parametrize("error", ["EINVAL", "ENOSYS", "EPERM"])
def test_a_file_system_that_cannot_exchange(device: Device, error: str) -> None:
    installed(device, ONE, TWO)
    (device.app / "current/lib/shared").write_bytes(b"damaged")
    argv = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject=renameat2:error={error}", str(built()["x86_64"])]
    refused(device.install(TWO, program=argv), IO, "install another bundle first, then this one again")
    assert device.current == ID2
    assert device.install(THREE, program=argv).code == 0
    assert device.install(bundle("2", 3), program=argv).code == 0


# ----------------------------------------------------------------------------------------------------------------- mounts


@pytest.mark.parametrize("kind", ["another file system", "the same"])
def test_what_is_mounted_in_a_slot_is_left_alone(tmp_path: Path, kind: str) -> None:
    with mounted(tmp_path, "size=8m") as (device, seen):
        assert [device.install(data).code for data in (ONE, TWO)] == [0, 0]
        place, source = device.app / "slots" / ID1 / "lib", device.root / "precious"
        (seen.root / "precious").mkdir()
        if kind == "the same":
            within(device, "mount", "--bind", source, place)
        else:
            within(device, "mount", "-t", "tmpfs", "none", place)
        mine = seen.app / "slots" / ID1 / "lib/mine"
        mine.write_text("mine")
        answer = device.install(THREE)
        assert (answer.code, answer.json["removed"]) == (0, []), "it is not gone"
        assert mine.read_text() == "mine"
        within(device, "umount", place)
        answer = device.install(THREE)
        assert (answer.json["changed"], answer.json["recovered"]) == (False, True)
        seen.check_settled(ID3, ID2)


def test_what_is_mounted_is_left_alone_by_an_old_kernel(tmp_path: Path) -> None:
    with mounted(tmp_path, "size=8m") as (device, seen):
        assert [device.install(data).code for data in (ONE, TWO)] == [0, 0]
        within(device, "mount", "-t", "tmpfs", "none", device.app / "slots" / ID1 / "lib")
        mine = seen.app / "slots" / ID1 / "lib/mine"
        mine.write_text("mine")
        old = [*device.program[:-1], "strace", "-qq", "-o", "/dev/null", "-e", "inject=openat2:error=ENOSYS"]
        assert device.install(THREE, program=[*old, device.program[-1]]).json["removed"] == []
        assert mine.read_text() == "mine"


def test_what_cannot_be_removed_is_not_said_to_be(device: Device) -> None:
    if os.geteuid() != 0 or shutil.which("chattr") is None:
        pytest.skip("chattr and root are needed")
    installed(device, ONE, TWO)
    kept = device.app / "slots" / ID1 / "kept"
    kept.touch()
    if os.system(f"chattr +i {kept} 2>/dev/null"):
        pytest.skip("no immutable files here")
    try:
        answer = device.install(THREE)
        assert (answer.code, answer.json["removed"]) == (0, [])
    finally:
        os.system(f"chattr -i {kept}")
