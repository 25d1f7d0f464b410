"""Functions in limited children: typed results, typed errors, limits, crashes, and no way to call anything else."""

import time
from pathlib import Path

import pytest

from edgekit import sandbox
from edgekit.errors import InputRejected, InternalError, ResourceLimit
from edgekit.sandbox import Limits, call

QUICK = Limits(rss_bytes=300 << 20, address_space_bytes=4 << 30, cpu_s=3, wall_s=15.0, file_bytes=1 << 20)


@pytest.fixture(autouse=True)
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `edgekit.probe_for_tests` module that exists only on this test's path, beside the real package."""
    package = tmp_path / "overlay" / "edgekit_probe.py"
    package.parent.mkdir()
    package.write_text(PROBE)
    hook = tmp_path / "overlay" / "sitecustomize.py"
    hook.write_text("import edgekit_probe, sys; sys.modules['edgekit.probe'] = edgekit_probe\n")
    root = Path(sandbox.__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{package.parent}:{root}")


PROBE = """
import ctypes, os, sys, time
from dataclasses import dataclass
from pathlib import Path
from edgekit.errors import InputRejected

@dataclass(frozen=True)
class Pair:
    path: Path
    numbers: tuple[int, ...]

def double(pair: Pair, factor: int) -> Pair:
    print("a library chatters on stdout")
    return Pair(pair.path / "x", tuple(n * factor for n in pair.numbers))

def reject() -> None:
    raise InputRejected("it is bad", where="here", next_step="do better")

def surprise() -> None:
    raise KeyError("what\\nis this")

def crash() -> None:
    ctypes.string_at(0)

def spin() -> None:
    while True: pass

def sleep() -> None:
    time.sleep(100)

def grow() -> None:
    x = bytearray(1 << 30)
    for i in range(0, len(x), 4096): x[i] = 1
    time.sleep(5)

def huge() -> None:
    bytearray(1 << 40)

def fill(path: Path) -> None:
    path.write_bytes(b"x" * (4 << 20))

def environment() -> list[str]:
    return [os.environ.get("ORT_DISABLE_TELEMETRY", ""), str(sys.modules.get("openvino_telemetry", "absent"))]

def leave() -> None:
    os._exit(0)
"""


def probe_call(name: str, returns: object = None, **arguments: object) -> object:
    return call(f"edgekit.probe:{name}", returns=returns or dict, limits=QUICK, task=name, **arguments)


def test_arguments_and_results_keep_their_types_whatever_is_printed(tmp_path: Path) -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Pair:
        path: Path
        numbers: tuple[int, ...]

    assert probe_call("double", Pair, pair=Pair(tmp_path, (1, 2)), factor=3) == Pair(tmp_path / "x", (3, 6))


def test_an_error_of_ours_arrives_as_itself() -> None:
    with pytest.raises(InputRejected) as caught:
        probe_call("reject")
    assert str(caught.value) == "here: it is bad; do better"


def test_any_other_exception_is_one_line_and_exit_code_9() -> None:
    with pytest.raises(ResourceLimit) as caught:
        probe_call("surprise")
    assert "KeyError" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_crash_kills_the_child_not_us() -> None:
    with pytest.raises(ResourceLimit, match="died by SIGSEGV"):
        probe_call("crash")


def test_an_endless_loop_ends_at_the_cpu_limit() -> None:
    started = time.monotonic()
    with pytest.raises(ResourceLimit, match=r"SIGKILL|SIGXCPU"):
        probe_call("spin")
    assert time.monotonic() - started < 14


def test_sleeping_for_ever_ends_at_the_wall_deadline() -> None:
    with pytest.raises(ResourceLimit, match="did not finish"):
        call("edgekit.probe:sleep", returns=dict, limits=Limits(wall_s=2.0), task="sleep")


def test_resident_memory_is_capped_and_named() -> None:
    with pytest.raises(ResourceLimit, match="needs more than 300 MiB"):
        probe_call("grow")


def test_an_absurd_allocation_is_out_of_memory() -> None:
    with pytest.raises(ResourceLimit, match="ran out of memory"):
        probe_call("huge")


def test_files_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(ResourceLimit):
        probe_call("fill", path=tmp_path / "big")
    assert (tmp_path / "big").stat().st_size <= 1 << 20


def test_telemetry_is_off_inside() -> None:
    assert probe_call("environment", list[str]) == ["1", "None"]


def test_a_child_that_leaves_without_an_answer_is_an_error() -> None:
    with pytest.raises(ResourceLimit):
        probe_call("leave")


def test_only_edgekits_functions_run() -> None:
    with pytest.raises(InternalError, match="only edgekit's own"):
        sandbox.call("os:getpid", returns=int)
