"""Whatever moment an install or a rollback ends at, `current` is a slot that runs, and the next install needs no help.

- the sweeps end ekrun at every call that changes something on the disk, or have that call fail;
- what the calls are is found out by a run that is left alone.
"""

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle_desk import IO, REFUSED, USAGE
from tests.conftest import thorough
from tests.ekrun_tools import Answer, built
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
    installed,
    parts_of,
    put_parts,
    traced,
)

pytestmark = pytest.mark.long

CHANGING = (
    *("openat", "mkdirat", "write", "fsync", "fchmod", "renameat", "renameat2", "unlinkat", "symlinkat", "flock"),
    *("ftruncate", "clone", "fork", "vfork", "kill", "wait4"),
)
Act = Callable[[Device, list[str] | None], Answer]


def install_two(device: Device, program: list[str] | None = None) -> Answer:
    return device.install(TWO, program=program)


def install_parts(device: Device, program: list[str] | None = None) -> Answer:
    parts = put_parts(device, TWO, parts_of(TWO).keys() - parts_of(ONE).keys())
    return device.install(head_of(TWO), "--parts", parts, program=program)


def install_bad(device: Device, program: list[str] | None = None) -> Answer:
    for old in device.folder.glob("calls-*"):
        old.unlink()
    return device.install(bundle("2", 2, from_call(2, "exit 8", device.folder)), program=program)


def roll_back(device: Device, program: list[str] | None = None) -> Answer:
    return device.rollback("--allow-downgrade", program=program)


def damage(device: Device) -> None:
    (device.app / "current/lib/shared").write_bytes(b"damaged")


def calls(act: Act, device: Device, names: tuple[str, ...] = CHANGING) -> list[tuple[str, int]]:
    """The calls of the main thread that change something, once it runs: name, and the how manieth of its name."""
    if shutil.which("strace") is None:
        pytest.skip("strace is missing")
    log = device.folder / "log"
    wanted = ",".join(f"?{name}" for name in names)
    act(device, ["strace", "-qq", "-o", str(log), "-e", f"trace={wanted}", str(built()["x86_64"])])
    lines = log.read_text().splitlines()
    made = [match[1] if (match := re.match(r"(\w+)\(", line)) else "" for line in lines]
    begin = next(index for index, line in enumerate(lines) if str(device.root) in line)
    return [
        (name, made[: index + 1].count(name))
        for index, name in enumerate(made)
        if name and index >= begin and (name != "openat" or "O_CREAT" in lines[index])
    ]


SWEPT: dict[str, tuple[Act, tuple[bytes, ...], set[str | None]]] = {
    "the first install": (install_two, (), {None, ID2}),
    "an install": (install_two, (ONE,), {ID1, ID2}),
    "an install in parts": (install_parts, (ONE,), {ID1, ID2}),
    "a rollback": (roll_back, (ONE, TWO), {ID1, ID2}),
}
thinly = pytest.mark.parametrize("thin", [True, pytest.param(False, marks=[thorough, pytest.mark.timeout(3000)])])


def sweep(tmp_path: Path, case: str, thin: bool) -> tuple[Device, list[tuple[str, int]]]:
    act, before, _ = SWEPT[case]
    first = installed(Device(tmp_path), *before)
    found = calls(act, first.copy("trace"))
    assert len(found) > 25
    return first, found[::-9] if thin else found


@thinly
@pytest.mark.parametrize("case", SWEPT)
def test_death_at_any_call(tmp_path: Path, case: str, thin: bool) -> None:
    act, _, ends = SWEPT[case]
    first, found = sweep(tmp_path, case, thin)
    seen = set()
    for number, (name, when) in enumerate(found):
        device = first.copy(f"death{number}")
        answer = act(device, traced(name, when, "signal=SIGKILL"))
        assert answer.code == -signal.SIGKILL and not answer.json, (name, when, answer)
        assert device.current in ends, (name, when)
        seen.add(device.current)
        if device.current is not None:
            device.check_sound()
        again = device.install(THREE, "--keep", 1)
        assert again.code == 0, (name, when, again.stderr)
        device.check_settled(ID3)
        shutil.rmtree(device.folder / device.root.name)
    assert seen == ends, "the switch was among them"


@thinly
@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("case", SWEPT)
def test_a_disk_that_fails_at_any_call(tmp_path: Path, case: str, error: str, thin: bool) -> None:
    act, _, ends = SWEPT[case]
    first, found = sweep(tmp_path, case, thin)
    failed = 0
    for number, (name, when) in enumerate(found):
        if name in ("kill", "wait4"):
            continue
        device = first.copy(f"error{number}")
        answer = act(device, traced(name, when, f"error={error}"))
        assert device.current in ends, (name, when)
        assert answer.code in (0, IO, USAGE, REFUSED, 11), (name, when, answer)
        if device.current is not None:
            device.check_sound()
        if answer.code == 0:
            assert device.state[2:4] == ["-", device.current], (name, when, answer)
        elif device.app.exists() and (device.app / "state").exists():
            settled = device.state[2] == "-" or "switched, not confirmed" in answer.stderr
            assert settled or name in ("fsync", "renameat", "openat", "write"), (name, when, answer)
        failed += answer.code != 0
        again = device.install(THREE, "--keep", 1)
        assert again.code == 0, (name, when, again.stderr)
        device.check_settled(ID3)
        shutil.rmtree(device.root)
    assert failed > 2


@thinly
@pytest.mark.parametrize("case", ["an install", "a rollback"])
def test_a_signal_at_any_call_is_all_or_nothing(tmp_path: Path, case: str, thin: bool) -> None:
    act, _, _ = SWEPT[case]
    first, found = sweep(tmp_path, case, thin)
    old = ID1 if case == "an install" else ID2
    codes = set()
    for number, (name, when) in enumerate(found):
        device = first.copy(f"signal{number}")
        answer = act(device, traced(name, when, "signal=SIGTERM"))
        codes.add(answer.code)
        assert answer.code in (0, -signal.SIGTERM), (name, when, answer)
        assert (device.current == old) == (answer.code != 0), (name, when)
        device.check_settled(*((ID2, ID1) if device.current == ID2 else (ID1,) if case == "an install" else (ID1, ID2)))
        shutil.rmtree(device.root)
    assert codes == {0, -signal.SIGTERM}


@thinly
def test_death_while_it_takes_back(tmp_path: Path, thin: bool) -> None:
    first = installed(Device(tmp_path), ONE)
    found = calls(install_bad, first.copy("trace"))
    for number, (name, when) in enumerate(found[::-9] if thin else found):
        device = first.copy(f"back{number}")
        install_bad(device, traced(name, when, "signal=SIGKILL"))
        assert device.install(THREE, "--keep", 1).code == 0, (name, when)
        device.check_settled(ID3)
        shutil.rmtree(device.root)


@thinly
def test_death_while_a_damaged_current_is_replaced(tmp_path: Path, thin: bool) -> None:
    """There is a slot at any moment: the damaged one, or the whole one in its place."""
    first = installed(Device(tmp_path), ONE, TWO)
    damage(first)
    found = calls(install_two, first.copy("trace"))
    assert any(name == "renameat2" for name, _ in found)
    for number, (name, when) in enumerate(found[::-9] if thin else found):
        device = first.copy(f"repair{number}")
        install_two(device, traced(name, when, "signal=SIGKILL"))
        assert (device.app / "current/bin/ekrun").exists() and device.current == ID2, (name, when)
        assert install_two(device).code == 0, (name, when)
        device.check_settled(ID2, ID1)
        shutil.rmtree(device.root)


def test_the_order_of_writes(tmp_path: Path) -> None:
    """Each step is synced before the next one begins: files, folders, the slot's name, the trial, the switch, the confirm."""
    device = installed(Device(tmp_path), ONE)
    log = device.folder / "log"
    names = "trace=openat,mkdirat,write,fsync,renameat,renameat2,symlinkat"
    assert install_two(device, ["strace", "-y", "-qq", "-o", str(log), "-e", names, str(built()["x86_64"])]).code == 0
    steps = []
    app = str(device.app)
    for line in log.read_text().splitlines():
        if match := re.match(r"fsync\(\d+<(.*)>\)", line):
            steps.append(f"sync {match[1].removeprefix(app)}")
        elif match := re.match(r'renameat\(\d+<(.*)>, "(.*)", \d+<(.*)>, "(.*)"\)', line):
            steps.append(f"name {match[3].removeprefix(app)}/{match[4]}")
    found = [step for step in steps if "/.staging/" not in step]
    expected = [
        *("sync /.staging", f"name /slots/{ID2}", "sync /slots", "sync "),
        *("sync ", "sync /.state.spare", "sync "),  # what the way back needs
        *("sync /.state.new", "name /state", "sync "),
        *("name /current", "sync "),
        *("sync /.state.new", "name /state", "sync "),
    ]
    assert found[-len(expected) :] == expected
    written = {
        f"sync /.staging/{path}" for path in ("lib", "bin", "model", "model/model.onnx", "lib/shared", "manifest.json")
    }
    assert written < set(steps[: steps.index("sync /.staging")])
