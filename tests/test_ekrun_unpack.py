"""What `ekrun unpack` leaves: a whole folder or nothing, whatever fails, whoever stops it, and whenever."""

import fcntl
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from edgekit.bundle.unpacked import verify_folder
from tests.bundle_desk import ADMIT, BAD_INPUT, IO, MIB, USAGE, Desk, tree
from tests.bundles import draft, make_bundle, stub_bundle
from tests.conftest import thorough
from tests.ekrun_tools import Answer, built, ekrun


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_place_that_is_taken_stays_as_it_is(desk: Desk) -> None:
    for make in (Path.mkdir, Path.touch, lambda out: out.symlink_to("elsewhere")):
        make(desk.out)
        before = desk.out.lstat()
        assert desk.unpack(stub_bundle()).code == USAGE
        assert desk.out.lstat() == before and desk.left() == ["out"]
        desk.out.rmdir() if stat.S_ISDIR(before.st_mode) else desk.out.unlink()
    for place in ("absent/out", "b.ekb/out", "..", ".", "/", "out/..", ""):
        assert ekrun("unpack", desk.bundle, desk.folder / place, "--trust", desk.trust).code == USAGE, place
    assert desk.left() == []


def test_relative_places(desk: Desk) -> None:
    desk.bundle.write_bytes(stub_bundle())
    for number, place in enumerate(("one", "./two", f"{desk.folder.name}/../three//")):
        folder = desk.folder if number < 2 else desk.folder.parent
        bundle, trust = os.path.relpath(desk.bundle, folder), os.path.relpath(desk.trust, folder)
        argv = [str(built()["x86_64"]), "unpack", bundle, place, "--trust", trust]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)
        verify_folder(folder / place, ADMIT)
    shutil.rmtree(desk.folder.parent / "three")


def test_what_a_killed_process_left_is_taken_over(desk: Desk) -> None:
    left = desk.folder / ".out.staging"
    (left / "lib/deep").mkdir(parents=True)
    (left / "lib/deep/evil.so").touch()
    (left / "link").symlink_to(desk.trust)
    assert desk.unpack(stub_bundle()).code == 0
    assert desk.verify().code == 0
    assert desk.left() == ["out"] and desk.trust.exists()


def test_one_at_a_time(desk: Desk) -> None:
    staging = desk.folder / ".out.staging"
    staging.mkdir()
    handle = os.open(staging, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    answer = desk.unpack(stub_bundle())
    os.close(handle)
    assert answer.code == IO and "another process" in answer.stderr
    assert desk.left() == [".out.staging"]


def test_a_link_for_the_staging_folder_leads_nowhere(desk: Desk) -> None:
    (desk.folder / "aside").mkdir()
    (desk.folder / ".out.staging").symlink_to("aside")
    assert desk.unpack(stub_bundle()).code == IO
    assert not list((desk.folder / "aside").iterdir()) and desk.left() == [".out.staging", "aside"]


def test_it_works_without_proc(desk: Desk) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts need root")
    desk.bundle.write_bytes(stub_bundle())
    script = 'mount -t tmpfs none /proc && exec "$@"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(built()["x86_64"])]
    if subprocess.run([*argv[:4], "mount -t tmpfs none /proc"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    assert desk.unpack(stub_bundle(), program=argv).code == 0
    assert ekrun("verify", desk.out, "--trust", desk.trust, program=argv).code == 0


# --------------------------------------------------------------------------------- errors, signals and death at any call

CALLS = ("openat", "mkdirat", "write", "fsync", "fchmod", "renameat", "renameat2", "flock", "read", "close", "unlinkat")


def small_bundle() -> bytes:
    return make_bundle({"bin/run": b"program", "lib/large": b"text " * 100_000})


def calls(desk: Desk) -> list[tuple[str, int]]:
    """Every system call of CALLS that unpacking makes once it has opened the bundle: name, and the how manieth of its name."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    log = desk.folder / "log"
    traced = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)}", str(built()["x86_64"])]
    answer = desk.unpack(small_bundle(), program=traced)
    assert answer.code == 0, answer.stderr
    shutil.rmtree(desk.out)
    lines = log.read_text().splitlines()
    log.unlink()
    names = [match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line))]
    begin = next(index for index, line in enumerate(lines) if "b.ekb" in line)
    return [(name, names[: index + 1].count(name)) for index, name in enumerate(names) if index >= begin]


def at_call(desk: Desk, name: str, number: int, what: str) -> Answer:
    inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={name}:{what}:when={number}"]
    return desk.unpack(small_bundle(), program=[*inject, str(built()["x86_64"])])


def sweep(desk: Desk, thin: bool) -> list[tuple[str, int]]:
    found = calls(desk)
    assert len(found) > 30
    return found[::5] if thin else found


thinly = pytest.mark.parametrize("thin", [True, pytest.param(False, marks=thorough)], ids=["thin", "all"])


def check_whole_or_absent(desk: Desk, where: object) -> bool:
    """True where the folder is there."""
    if not desk.out.exists():
        return False
    verify_folder(desk.out, ADMIT)
    shutil.rmtree(desk.out)
    return True


@thinly
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
def test_a_disk_that_fails_at_any_call(desk: Desk, error: str, thin: bool) -> None:
    failed = 0
    for name, number in sweep(desk, thin):
        answer = at_call(desk, name, number, f"error={error}")
        there = check_whole_or_absent(desk, (name, number))
        assert desk.left() == [], (name, number, answer.stderr)
        assert there or answer.code in (IO, USAGE, BAD_INPUT), (name, number, answer)
        failed += not there
    assert failed > 3


@thinly
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_at_any_call_leaves_nothing(desk: Desk, number: signal.Signals, thin: bool) -> None:
    died = 0
    for name, when in sweep(desk, thin):
        answer = at_call(desk, name, when, f"signal={number.name}")
        there = check_whole_or_absent(desk, (name, when))
        assert desk.left() == [], (name, when)
        assert there == (answer.code == 0), (name, when, answer)
        assert there or answer.code == -number, (name, when, answer)
        died += not there
    assert died > 3


@thinly
def test_death_at_any_call_leaves_a_whole_folder_or_none(desk: Desk, thin: bool) -> None:
    for name, when in sweep(desk, thin):
        at_call(desk, name, when, "signal=SIGKILL")
        check_whole_or_absent(desk, (name, when))
        assert set(desk.left()) <= {".out.staging"}
        assert desk.unpack(small_bundle()).code == 0, "the next one needs no help"
        assert desk.left() == ["out"]
        shutil.rmtree(desk.out)


def test_a_file_size_limit_is_a_full_disk(desk: Desk) -> None:
    answer = desk.unpack(stub_bundle(), before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)))
    assert (answer.code, answer.json["error"]["code"]) == (IO, "io")
    assert "lib/libstub.so.1: File too large" in answer.stderr and desk.left() == []


def test_files_and_folders_are_synced_before_the_name_is_given(desk: Desk) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    log = desk.folder / "log"
    traced = ["strace", "-y", "-qq", "-o", str(log), "-e", "trace=fsync,renameat,renameat2", str(built()["x86_64"])]
    assert desk.unpack(stub_bundle(), program=traced).code == 0
    lines = log.read_text().splitlines()
    renamed = next(index for index, line in enumerate(lines) if "rename" in line)
    synced = {match[1] for line in lines[:renamed] if (match := re.match(r"fsync\(\d+<(.*)>\)", line))}
    expected = {str(desk.folder / ".out.staging" / path) for path in tree(desk.out)}
    assert synced == {path.removesuffix("/.") for path in expected}
    assert [f"<{desk.folder}>" in line for line in lines[renamed + 1 :]] == [True]


def test_a_link_that_is_gone_ends_it(desk: Desk) -> None:
    """With --tether the end of stdin ends the process, and what it had begun."""
    desk.bundle.write_bytes(draft(stub_bundle()).add("zz", bytes(64 * MIB)).build())
    argv = [str(built()["x86_64"]), "unpack", desk.bundle, desk.out, "--trust", desk.trust, "--tether"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 20
        while not (desk.folder / ".out.staging").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        assert process.stdin is not None
        process.stdin.close()
        code = process.wait(20)
    assert code in (0, 10)
    assert desk.left() == (["out"] if code == 0 else [])
