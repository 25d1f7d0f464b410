"""How ekrun is built: reproducibly, for old C libraries, only when something changed."""

import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit.runner
from edgekit.errors import InternalError
from edgekit.runner import ekrun_facts_path, ekrun_path
from edgekit.runner.build import SOURCES, build_all
from tests.ekrun_tools import built, ekrun, facts_only, libraries
from tests.sshd import boards_are_asked_for

pytestmark = pytest.mark.long


def test_a_build_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    # Another folder is another key of the compiler's own cache: it does compile again.
    shutil.copytree(SOURCES.parent, tmp_path / "runner", ignore=shutil.ignore_patterns("bin", "__pycache__"))
    every = boards_are_asked_for()
    build = [sys.executable, str(tmp_path / "runner/build.py"), *([] if every else ["--no-static"])]
    subprocess.run(build, check=True, capture_output=True)
    names = ["ekrun-aarch64", *(["ekrun-facts-aarch64", "ekrun-facts-x86_64"] if every else []), "ekrun-x86_64"]
    names += ["libekrun-aarch64.so", "libekrun-x86_64.so"]
    first = sorted([*built().values(), *libraries().values(), *(facts_only().values() if every else [])])
    made = tmp_path / "runner/bin"
    second = sorted([*made.glob("ekrun-*"), *made.glob("libekrun-*")])
    assert [path.name for path in first] == [path.name for path in second] == names
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert one.stat().st_mode & 0o777 == 0o755
        assert str(Path(__file__).parents[1]).encode() not in one.read_bytes(), "no path of this machine"


def test_an_unchanged_build_is_kept(tmp_path: Path) -> None:
    binary = build_all(tmp_path, static=False)[0]
    binary.write_text("kept")
    assert build_all(tmp_path, static=False)[0].read_text() == "kept"
    (tmp_path / ".ekrun-x86_64.stamp").write_text("other inputs")
    assert build_all(tmp_path, static=False)[0].read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_binaries_need_no_glibc_above_the_floor(arch: str, machine: int) -> None:
    binary = built()[arch].read_bytes()
    assert int.from_bytes(binary[18:20], "little") == machine
    minors = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", binary)]
    assert minors and max(minors) <= 17


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_the_facts_build_needs_no_library_at_all(arch: str, machine: int) -> None:
    binary = facts_only()[arch].read_bytes()
    assert int.from_bytes(binary[18:20], "little") == machine
    assert PT_INTERP not in segments(binary)
    assert PT_INTERP in segments(built()[arch].read_bytes()), "negative control"
    assert len(binary) < 256 << 10
    assert b"OrtGetApiBase" not in binary


PT_INTERP = 3


def segments(elf: bytes) -> list[int]:
    """The types of a 64-bit program's segments."""
    (table,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<I", elf, table + i * size)[0] for i in range(count)]


@pytest.mark.parametrize("verb", ["run", "bench", "layers", "nonsense"])
def test_the_facts_build_has_no_other_verb(verb: str) -> None:
    answer = ekrun(verb, program=[str(facts_only()["x86_64"])])
    assert (answer.code, answer.json["error"]["code"]) == (2, "usage")


def test_ekrun_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ekrun_path("x86_64") == built()["x86_64"]
    monkeypatch.setattr(edgekit.runner, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(InternalError, match=r"python -m edgekit\.runner\.build"):
        ekrun_path("x86_64")
    with pytest.raises(InternalError, match="ekrun-facts has not been built"):
        ekrun_facts_path("x86_64")


def test_ekrun_facts_path() -> None:
    expected = facts_only()["aarch64"]
    assert ekrun_facts_path("aarch64") == expected


def test_protocol_number_is_the_sources() -> None:
    assert f"#define EKRUN_PROTOCOL {edgekit.runner.PROTOCOL}\n" in (SOURCES / "fail.h").read_text()
