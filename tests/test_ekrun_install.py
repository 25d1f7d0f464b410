"""`ekrun install` and `trust`: the ordinary flow, and what is refused before anything changes."""

import dataclasses
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle.keys import unsigned
from edgekit.runner.build import SOURCES
from tests.board import board_argv, require_board
from tests.bundle_desk import BAD_INPUT, IO, REFUSED, USAGE, tree
from tests.bundles import (
    HEAD,
    OTHER_KEY,
    REVOKED_KEY,
    SIGNER,
    TRUST,
    draft,
    other_bundle,
    stub_bundle,
)
from tests.conftest import thorough
from tests.ekrun_tools import built, ekrun, zig_part
from tests.install_desk import (
    APPLICATION,
    BAD,
    BUSY,
    ID1,
    ID2,
    ID3,
    INCOMPATIBLE,
    ONE,
    THREE,
    TWO,
    Device,
    bundle,
    from_call,
    head_of,
    id_of,
    installed,
    parts_of,
    put_parts,
    refused,
)
from tests.tamper import TAMPERED, tampered
from tests.test_ekrun_sanitized import compile_sanitized


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


# ---------------------------------------------------------------------------------------------------- the ordinary flow


def test_one_after_the_other(device: Device) -> None:
    answer = device.install(ONE)
    assert answer.code == 0, answer.stderr
    size = sum(file["size"] for file, _ in draft(ONE).files)
    assert answer.json == {
        **{"protocol": 1, "verb": "install", "application": APPLICATION, "version": "1", "counter": 1, "id": ID1},
        **{"changed": True, "previous": None, "removed": [], "device_counter": 1, "recovered": False},
        **{"copied_bytes": 0, "unpacked_bytes": size},
    }
    device.check_settled(ID1)
    answer = device.install(TWO)
    assert (answer.json["previous"], answer.json["device_counter"]) == (ID1, 2)
    device.check_settled(ID2, ID1)
    answer = device.install(THREE)
    assert (answer.json["previous"], answer.json["removed"]) == (ID2, [ID1])
    device.check_settled(ID3, ID2)
    assert device.state == ["1", "3", "-", ID3, ID2]


def test_what_is_confirmed_already_stays(device: Device) -> None:
    installed(device, ONE, TWO)
    before = tree(device.root)
    answer = device.install(TWO)
    assert (answer.code, answer.json["changed"], answer.json["unpacked_bytes"]) == (0, False, 0)
    assert tree(device.root) == before


def test_keep(device: Device) -> None:
    installed(device, ONE, TWO, THREE, keep=3)
    device.check_settled(ID3, ID2, ID1)
    assert device.install(bundle("4", 4), "--keep", 1).json["removed"]
    device.check_settled(id_of(bundle("4", 4)))
    refused(device.rollback(), BAD_INPUT, "no earlier slot")


def test_a_slot_that_was_kept_is_used_again(device: Device) -> None:
    same = bundle("2", 1)
    installed(device, ONE, same)
    inode = (device.app / "slots" / ID1).stat().st_ino
    answer = device.install(ONE)
    assert (answer.code, answer.json["changed"], answer.json["unpacked_bytes"]) == (0, True, 0)
    device.check_settled(ID1, id_of(same))
    assert (device.app / "slots" / ID1).stat().st_ino == inode


def test_the_folder_is_made_where_its_parent_is(tmp_path: Path) -> None:
    device = Device(tmp_path, trusting=False)
    device.file.write_bytes(ONE)
    (tmp_path / "given").write_bytes(TRUST)
    options = ["--trust", tmp_path / "given"]
    assert ekrun("install", device.file, "--root", tmp_path / "no/root", *options).code == USAGE
    umask = ekrun(
        "install", device.file, "--root", tmp_path / "root/", *options, before=lambda: os.umask(0o77) and None
    )
    assert umask.code == 0, umask.stderr
    device.check_settled(ID1)
    assert {path.stat().st_mode & 0o777 for path in (device.root, device.app, device.app / "slots")} == {0o755}
    assert (device.root / "trust").stat().st_mode & 0o777 == 0o644


def test_who_is_not_root_has_a_folder_at_home() -> None:
    if os.geteuid() != 0:
        pytest.skip("another user is needed")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        device = Device(home)
        device.file.write_bytes(ONE)
        shutil.copy(built()["x86_64"], home / "ekrun")
        os.chown(home, 65534, 65534)
        argv = ["setpriv", "--reuid=65534", "--clear-groups", str(home / "ekrun")]
        trust = ("--trust", device.root / "trust")
        answer = ekrun("install", device.file, *trust, program=argv, env={**os.environ, "HOME": folder})
        assert answer.code == 0, answer.stderr
        assert (home / ".local/share/edgekit/apps" / APPLICATION / "current/bin/ekrun").exists()
        assert ekrun("install", device.file, *trust, program=argv, env={"HOME": "here"}).code == USAGE


def test_foreign_files_are_left_alone(device: Device) -> None:
    installed(device, ONE)
    places = ["notes", "apps/digits/notes", "apps/digits/slots/notes", "apps/digits/slots/" + "f" * 64, "apps/.x/y"]
    for place in places:
        (device.root / place).parent.mkdir(exist_ok=True)
        (device.root / place).write_text("mine")
    folders = [device.app / "slots" / name for name in ("mine", "F" * 64, "0" * 63, "0" * 65)]
    for folder in folders:
        folder.mkdir()
    nobodys = device.app / "slots" / ("0" * 64) / "deep"
    nobodys.mkdir(parents=True)
    (nobodys / "file").touch()
    answer = device.install(TWO)
    assert (answer.code, answer.json["recovered"]) == (0, True)
    assert all((device.root / place).read_text() == "mine" for place in places)
    assert all(folder.is_dir() for folder in folders)
    assert not nobodys.parent.exists(), "a slot that no line lists is nobody's"


def test_a_tethered_install(device: Device) -> None:
    device.file.write_bytes(ONE)
    argv = [str(built()["x86_64"]), "install", str(device.file), "--root", str(device.root), "--tether"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["changed"]
    device.check_settled(ID1)


# ------------------------------------------------------------------------------------------------------------------ trust


def test_which_trust_file_governs(tmp_path: Path) -> None:
    device = Device(tmp_path, trusting=False)
    given = tmp_path / "given"
    refused(device.install(ONE), USAGE, "--trust is required")
    given.write_text("ed25519 nonsense\n")
    refused(device.install(ONE, "--trust", given), BAD_INPUT, "line 1")
    assert not (device.root / "trust").exists()
    given.write_bytes(TRUST)
    assert device.install(ONE, "--trust", given).code == 0
    assert (device.root / "trust").read_bytes() == TRUST
    assert device.install(TWO, "--trust", given).code == 0
    given.write_bytes(TRUST + b"\n")
    refused(device.install(THREE, "--trust", given), USAGE, "a trust file of its own")
    assert device.install(THREE).code == 0


def test_a_key_is_revoked_on_the_device(device: Device) -> None:
    installed(device, ONE, TWO)
    new = device.folder / "new"
    new.write_text("revoked\n")
    assert ekrun("trust", new, "--root", device.root).code == BAD_INPUT
    assert (device.root / "trust").read_bytes() == TRUST
    new.write_text(f"ed25519 {OTHER_KEY.public} new\nrevoked {SIGNER.public} old\n")
    answer = ekrun("trust", new, "--root", device.root)
    assert (answer.code, answer.json["verb"], answer.json["root"]) == (0, "trust", str(device.root))
    refused(device.install(THREE), REFUSED, "which is revoked")
    refused(device.rollback(), REFUSED, "which is revoked")
    device.check_settled(ID2, ID1)
    assert device.install(bundle("4", 4, seal=OTHER_KEY.seal)).code == 0
    slots = {slot["id"]: slot for slot in device.status().json["applications"][0]["slots"]}
    assert [slots[ID2][key] for key in ("trusted", "version", "signer", "bytes")] == [False, None, None, None]
    assert ekrun("trust", "--root", device.root).code == USAGE


@pytest.mark.parametrize("error", ["EACCES", "EIO", "ELOOP", "EMFILE"])
def test_a_trust_file_that_cannot_be_looked_at_is_not_taken_for_none(device: Device, error: str) -> None:
    given = device.folder / "given"
    given.write_text(f"ed25519 {OTHER_KEY.public} other\n")
    where = ["-P", "trust", "-P", str(device.root / "trust")]
    what = f"inject=?openat,?faccessat,?faccessat2:error={error}"
    argv = ["strace", "-qq", "-o", "/dev/null", *where, "-e", what, str(built()["x86_64"])]
    for more in ((), ("--dry-run",)):
        data = bundle("1", seal=OTHER_KEY.seal)
        refused(device.install(data, "--trust", given, *more, program=argv), IO, "ROOT/trust: cannot be read")
    unsigned_one = bundle("1", seal=unsigned)
    refused(device.install(unsigned_one, "--allow-unsigned", program=argv), IO, "ROOT/trust: cannot be read")
    assert ekrun("status", "--root", device.root, program=argv).code == IO
    assert (device.root / "trust").read_bytes() == TRUST and not (device.root / "apps").exists()


def test_a_trust_file_that_is_a_link(device: Device) -> None:
    trust = device.root / "trust"
    trust.rename(device.folder / "elsewhere")
    trust.symlink_to(device.folder / "elsewhere")
    assert device.install(ONE).code == 0
    (device.folder / "elsewhere").rename(device.folder / "gone")
    refused(device.install(TWO, "--trust", device.folder / "gone"), IO, "ROOT/trust: cannot be read")
    assert trust.is_symlink()


@pytest.mark.parametrize("first", ["trust", "install"])
def test_two_writers_of_the_trust_file(tmp_path: Path, first: str) -> None:
    """The one that is slow to rename does not lose what it has made to the other."""
    device = Device(tmp_path, trusting=False)
    device.root.mkdir()
    given, other = tmp_path / "given", tmp_path / "other"
    given.write_bytes(TRUST)
    other.write_bytes(TRUST + b"# another\n")
    device.file.write_bytes(ONE)
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=renameat:delay_enter=1500000:when=1"]
    what = ["trust", given] if first == "trust" else ["install", device.file, "--trust", given]
    argv = [*slow, built()["x86_64"], *what, "--root", device.root]
    with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not (device.root / ".trust.new").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        answer = ekrun("trust", other, "--root", device.root)
        process.communicate()
    assert (process.returncode, answer.code) == (0, 0), answer.stderr
    assert (device.root / "trust").read_bytes() == other.read_bytes()
    assert (device.root / ".trust.lock").stat().st_mode & 0o777 == 0o600


def test_two_first_installs_with_keys_of_their_own(tmp_path: Path) -> None:
    device = Device(tmp_path, trusting=False)
    device.root.mkdir()
    given, other = tmp_path / "given", tmp_path / "other"
    given.write_bytes(TRUST)
    other.write_bytes(TRUST + b"# another\n")
    device.file.write_bytes(ONE)
    slow = ["strace", "-qq", "-o", "/dev/null", "-e", "inject=renameat:delay_enter=1500000:when=1"]
    argv = [*slow, built()["x86_64"], "install", device.file, "--trust", given, "--root", device.root]
    with subprocess.Popen(list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not (device.root / ".trust.new").exists() and process.poll() is None:
            time.sleep(0.01)
        refused(ekrun("install", device.file, "--trust", other, "--root", device.root), USAGE, "of its own")
        process.communicate()
    assert process.returncode == 0 and (device.root / "trust").read_bytes() == TRUST


def test_keys_that_are_not_trusted(device: Device) -> None:
    for key, words in ((OTHER_KEY, "does not list"), (REVOKED_KEY, "is revoked")):
        refused(device.install(bundle("1", seal=key.seal)), REFUSED, words)
    assert not (device.root / "apps").exists()


def test_unsigned_bundles(tmp_path: Path) -> None:
    device = Device(tmp_path, trusting=False)
    one, two = (bundle(version, seal=unsigned) for version in "12")
    assert device.install(one, "--allow-unsigned").code == 0
    assert device.install(two, "--allow-unsigned").code == 0
    refused(device.install(ONE, "--allow-unsigned"), REFUSED, "does not list")
    refused(device.rollback(), USAGE, "--trust is required")
    assert device.rollback("--allow-unsigned").code == 0
    (slot, _) = device.status().json["applications"][0]["slots"]
    assert (slot["trusted"], slot["signer"], slot["counter"]) == (False, None, 7)
    (device.root / "trust").write_bytes(TRUST)
    refused(device.install(two), REFUSED, "not signed")


# --------------------------------------------------------------------------------------------------------------- refusals


def test_an_older_counter_is_refused_whoever_signed_it(device: Device) -> None:
    (device.root / "trust").write_bytes(TRUST + f"ed25519 {OTHER_KEY.public} other\n".encode())
    installed(device, ONE, THREE)
    before = tree(device.root)
    for data in (TWO, ONE, bundle("2", 2, seal=OTHER_KEY.seal)):
        refused(device.install(data), REFUSED, "its security counter is")
        refused(device.install(data, "--dry-run"), REFUSED, "this device has confirmed 3")
    assert tree(device.root) == before
    assert device.install(bundle("4", 3)).code == 0, "the same counter is not older"


REQUIRES: dict[str, tuple[dict[str, object], str]] = {
    "arch": ({"arch": "aarch64", "isa": ()}, "it is for aarch64, this is x86_64"),
    "glibc": ({"glibc": "2.99"}, "it needs glibc 2.99, here is 2."),
    "libstdc++": ({"libstdcxx": "3.4.99"}, "it needs libstdc++ 3.4.99, here is 3.4."),
    "isa": ({"isa": ("amx_nonsense", "avx2", "neon")}, "this CPU lacks amx_nonsense, neon"),
}


@pytest.mark.parametrize("case", REQUIRES)
def test_what_this_machine_lacks(device: Device, case: str) -> None:
    changes, words = REQUIRES[case]
    head = dataclasses.replace(HEAD, requires=dataclasses.replace(HEAD.requires, **changes))  # type: ignore[arg-type]
    for more in ((), ("--dry-run",)):
        answer = device.install(bundle("1", head=head), *more)
        refused(answer, INCOMPATIBLE, words)
        assert answer.json["error"]["code"] == "incompatible"
    assert not (device.root / "apps").exists()


def test_all_that_is_lacking_is_said_at_once(device: Device) -> None:
    requires = dataclasses.replace(HEAD.requires, glibc="3.0", libstdcxx="3.4.99.1", isa=("no",))
    answer = device.install(bundle("1", head=dataclasses.replace(HEAD, requires=requires)))
    message = answer.json["error"]["message"]
    assert all(word in message for word in ("glibc 3.0", "libstdc++ 3.4.99.1", "lacks no"))
    fine = dataclasses.replace(HEAD.requires, libstdcxx="", glibc="2.9", isa=())
    assert device.install(bundle("1", head=dataclasses.replace(HEAD, requires=fine))).code == 0


def test_a_disk_without_room(device: Device) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    device.file.write_bytes(draft(ONE).add("zz", bytes(3 << 20)).build())
    mounted = f'mount -t tmpfs -o size=4m none {device.root} && cp {device.folder}/trust {device.root} && exec "$@"'
    (device.folder / "trust").write_bytes(TRUST)
    argv = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(built()["x86_64"])]
    if subprocess.run([*argv[:4], "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    for more in ((), ("--dry-run",)):
        refused(ekrun("install", device.file, "--root", device.root, *more, program=argv), IO, "bytes, the disk has")
    argv[4] = argv[4].replace("4m", "5m")
    assert ekrun("install", device.file, "--root", device.root, program=argv).code == 0


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_one_at_a_time(device: Device, more: tuple[str, ...]) -> None:
    installed(device, ONE, TWO)
    with (device.app / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = tree(device.root)
        answer = device.install(THREE, *more)
        refused(answer, BUSY, "another install or rollback is under way")
        assert answer.json["error"]["code"] == "busy"
        assert device.rollback().code == BUSY
        assert tree(device.root) == before
        assert device.status().code == 0
    assert device.install(THREE).code == 0


def test_the_lock_is_the_owners_alone(device: Device) -> None:
    installed(device, ONE)
    lock = device.app / "lock"
    assert lock.stat().st_mode & 0o777 == 0o600
    lock.chmod(0o644)
    assert device.install(TWO).code == 0
    assert lock.stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_held_for_a_moment(device: Device) -> None:
    """As a rehearsal holds it."""
    installed(device, ONE)
    device.file.write_bytes(TWO)
    argv = [str(built()["x86_64"]), "install", str(device.file), "--root", str(device.root)]
    with (device.app / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            time.sleep(0.3)
            fcntl.flock(lock, fcntl.LOCK_UN)
            process.communicate()
    assert process.returncode == 0
    device.check_settled(ID2, ID1)


def test_a_spoiled_bundle_leaves_what_was_there(device: Device) -> None:
    installed(device, ONE)
    before = tree(device.root)
    for spoiled in (TWO[:-1], TWO + b"\0", TWO[:2000], TWO[:-1100] + b"x" + TWO[-1099:], b"", head_of(TWO)):
        answer = device.install(spoiled)
        assert answer.code == REFUSED, answer.stderr
        assert tree(device.root) == before
    assert device.install(TWO).code == 0


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_tampered_bundle_changes_nothing(device: Device, kind: str) -> None:
    installed(device, ONE)
    before = tree(device.root)
    for case in tampered(stub_bundle(), other_bundle(), 2, [kind]):
        answer = device.install(case.data)
        assert (answer.code, tree(device.root) == before) == (REFUSED, True), (case.kind, case.name, answer.stderr)


def test_command_lines(device: Device) -> None:
    installed(device, ONE)
    for argv in (
        ("install",),
        ("install", device.file, "extra"),
        ("install", device.file, "--keep", 0),
        ("install", device.file, "--keep", 65),
        ("install", device.file, "--root", ""),
        ("install", device.file, "--to", ID1),
        ("rollback", "--root", device.root),
        ("rollback", APPLICATION, "--keep", 2),
        ("status", APPLICATION),
        ("trust",),
    ):
        assert ekrun(*argv).code == USAGE, argv
    assert ekrun("install", device.folder / "absent", "--root", device.root).code == BAD_INPUT
    assert ekrun("install", device.folder, "--root", device.root).code == BAD_INPUT
    for name in ("absent", "../apps/digits", ".", "", "a/b"):
        refused(ekrun("rollback", name, "--root", device.root), BAD_INPUT, "no such application")
    assert ekrun("rollback", APPLICATION, "--root", device.root / "absent").code == BAD_INPUT


# --------------------------------------------------------------------------------------------------- another architecture


@pytest.mark.board
def test_on_arm(device: Device) -> None:
    require_board()
    head = dataclasses.replace(HEAD, requires=dataclasses.replace(HEAD.requires, arch="aarch64", isa=("asimd",)))
    program = [*board_argv(), str(built()["aarch64"])]
    one, two = (bundle(str(number), number, head=head) for number in (1, 2))
    bad = bundle("3", 3, from_call(2, BAD["hangs"], device.folder), head=head)
    refused(device.install(ONE, program=program), INCOMPATIBLE, "it is for x86_64, this is aarch64")
    refused(device.install(one), INCOMPATIBLE, "it is for aarch64, this is x86_64")
    for data in (one, two):
        assert device.install(data, program=program).code == 0
    refused(device.install(bad, "--check-seconds", 2, program=program), REFUSED, "switched back: ")
    device.check_settled(id_of(two), id_of(one))
    assert device.rollback("--allow-downgrade", program=program).code == 0
    device.check_settled(id_of(one), id_of(two))


# ------------------------------------------------------------------------------------------------------------- sanitizers


@thorough
def test_the_whole_flow_under_the_sanitizers(device: Device) -> None:
    """What fails within an attempt, and goes on, is where C is at its most fragile."""
    sanitized = compile_sanitized(device.folder / "ekrun", *SOURCES.glob("*.c"), zig_part())
    how: dict[str, Any] = {"program": [str(sanitized)], "env": {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}}
    steps = [
        device.install(ONE, **how),
        device.install(bundle("2", 2, from_call(2, BAD["fails"], device.folder)), **how),
        device.install(bundle("2", 2, BAD["prints without end"]), **how),
        device.install(head_of(TWO), "--dry-run", **how),
        device.install(head_of(TWO), "--parts", put_parts(device, TWO, parts_of(TWO)), **how),
        ekrun("rollback", APPLICATION, "--root", device.root, "--allow-downgrade", **how),
        ekrun("status", "--root", device.root, **how),
    ]
    assert [step.code for step in steps] == [0, REFUSED, REFUSED, 0, 0, 0, 0], [step.stderr for step in steps]
    (device.app / "current/lib/shared").write_bytes(b"damaged")
    (device.app / "slots" / ID2 / "manifest.json").write_bytes(b"{}")
    assert device.install(TWO, **how).code == 0
    (device.app / "state").write_text("1 2 -")
    assert ekrun("status", "--root", device.root, **how).code == 0
    assert device.install(TWO, **how).code == BAD_INPUT
