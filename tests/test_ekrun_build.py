"""How ekrun is built: reproducibly, for old C libraries, only when something changed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit.runner
from edgekit.errors import InternalError
from edgekit.runner import ekrun_path
from edgekit.runner.build import SOURCES, build_all
from tests.ekrun_tools import built


def test_a_build_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    # Another folder is another key of the compiler's own cache: it does compile again.
    shutil.copytree(SOURCES.parent, tmp_path / "runner", ignore=shutil.ignore_patterns("bin", "__pycache__"))
    subprocess.run([sys.executable, str(tmp_path / "runner/build.py")], check=True, capture_output=True)
    first, second = list(built().values()), sorted((tmp_path / "runner/bin").glob("ekrun-*"), reverse=True)
    assert [path.name for path in first] == ["ekrun-x86_64", "ekrun-aarch64"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_mode & 0o777 == 0o755
        assert str(Path(__file__).parents[1]).encode() not in one.read_bytes(), "no path of this machine"


def test_an_unchanged_build_is_kept(tmp_path: Path) -> None:
    (binary, _) = build_all(tmp_path)
    binary.write_text("kept")
    assert build_all(tmp_path)[0].read_text() == "kept"
    (tmp_path / ".ekrun-x86_64.stamp").write_text("other inputs")
    assert build_all(tmp_path)[0].read_bytes()[:4] == b"\x7fELF"


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_binaries_need_no_glibc_above_the_floor(arch: str, machine: int) -> None:
    binary = built()[arch].read_bytes()
    assert int.from_bytes(binary[18:20], "little") == machine
    minors = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", binary)]
    assert minors and max(minors) <= 17


def test_ekrun_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert ekrun_path("x86_64") == built()["x86_64"]
    monkeypatch.setattr(edgekit.runner, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(InternalError, match=r"python -m edgekit\.runner\.build"):
        ekrun_path("x86_64")


def test_protocol_number_is_the_sources() -> None:
    assert f"#define EKRUN_PROTOCOL {edgekit.runner.PROTOCOL}\n" in (SOURCES / "fail.h").read_text()
