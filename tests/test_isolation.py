"""Nothing leaves the machine, and no file is written outside the run folder and edgekit's cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SAMPLE

MODEL = SAMPLE / "model.onnx"

# What asks for a socket, and what changes the file system. AF_UNIX and AF_NETLINK never leave the machine.
TRACED = "trace=socket,connect,sendto,sendmsg,openat,open,creat,mkdir,mkdirat,rename,renameat,renameat2,symlink,link"
CHANGES = ("O_WRONLY", "O_RDWR", "O_CREAT")
# Kernel interfaces and terminals are no files of the user's.
HARMLESS = ("/dev/", "/proc/", "/sys/")


def strace(argv: list[str], log: Path, home: Path, cwd: Path) -> list[str]:
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(cwd / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("ORT_DISABLE_TELEMETRY", "CI", "NNCF_CI", "DO_NOT_TRACK"):
        environment.pop(name, None)
    command = ["strace", "-f", "-qq", "-s", "200", "-e", TRACED, "-o", str(log), *argv]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return log.read_text(errors="replace").splitlines()


def sockets(lines: list[str]) -> list[str]:
    return [line for line in lines if "AF_INET" in line or "AF_PACKET" in line]


def written(lines: list[str], allowed: list[Path]) -> list[str]:
    """Every successful change of the file system by absolute path outside `allowed`; `?` paths are relative to an open folder."""
    found = []
    for line in lines:
        call = line.partition(" ")[2].strip()
        name = call.partition("(")[0]
        if " = -1 " in line or (name in ("openat", "open") and not any(flag in line for flag in CHANGES)):
            continue
        if name not in (
            "openat",
            "open",
            "creat",
            "mkdir",
            "mkdirat",
            "rename",
            "renameat",
            "renameat2",
            "symlink",
            "link",
        ):
            continue
        for path in [part for part in call.split('"')[1::2] if part.startswith("/")]:
            if not path.startswith(HARMLESS) and not any(Path(path).is_relative_to(place) for place in allowed):
                found.append(line)
    return found


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    made = {name: tmp_path / name for name in ("home", "work", "cache", "run")}
    made["home"].mkdir()
    (made["work"] / "tmp").mkdir(parents=True)
    return made


def command(places: dict[str, Path], *more: str) -> list[str]:
    argv = [
        sys.executable,
        "-m",
        "edgekit",
        "--cache",
        str(places["cache"]),
        "optimize",
        str(MODEL),
        "--offline",
        "--json",
    ]
    return [*argv, "--data", str(SAMPLE), "--samples", "30", "--max-drop", "1", "-o", str(places["run"]), *more]


def test_optimize_opens_no_socket_and_writes_nowhere_else(places: dict[str, Path], tmp_path: Path) -> None:
    """All engines, NNCF and ekrun included: the whole process tree is traced, with telemetry switches unset outside."""
    unwanted = (
        "ort-fp16",
        "ort-int8-dynamic",
        "ort-int8-weights",
        "ort-int8-conv",
        "ov-bf16",
        "ov-fp16",
        "ov-int8-asym",
        "ov-int8-bf16",
    )
    forbid = [word for name in (*unwanted, "ov-int8-weights", "ort-fp32-opt") for word in ("--forbid", name)]
    lines = strace(
        command(places, "--target", "raspberry-pi-5", *forbid), tmp_path / "log", places["home"], places["work"]
    )
    text = "\n".join(lines)
    assert "libonnxruntime.so" in text, "the trace has seen the engines"
    assert "libopenvino_c.so" in text
    assert "nncf" in text
    assert sockets(lines) == []
    drafts = places["run"].parent / f".{places['run'].name}."
    stray = written(lines, [places["cache"], places["run"], places["work"] / "tmp"])
    assert [line for line in stray if str(drafts) not in line] == []
    assert list(places["home"].rglob("*")) == []
    assert {p.relative_to(places["work"]) for p in places["work"].rglob("*")} == {Path("tmp")}
    assert {p.name for p in tmp_path.iterdir()} == {"home", "work", "cache", "run", "log"}


def test_the_check_sees_a_socket_and_a_stray_file(places: dict[str, Path], tmp_path: Path) -> None:
    """Negative control: the engine with its telemetry on is caught by the same trace."""
    code = (
        "import ctypes, sys, time; import onnxruntime as o\n"
        "o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider']); time.sleep(3)\n"
        "import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()\n"
    )
    lines = strace([sys.executable, "-c", code, str(MODEL)], tmp_path / "log", places["home"], places["work"])
    assert sockets(lines) != []
    assert any("Microsoft" in line for line in written(lines, [places["cache"]]))


def test_optimize_works_without_any_network(places: dict[str, Path], tmp_path: Path) -> None:
    """In an empty network namespace: not even a loopback interface that is up."""
    argv = ["unshare", "-rn", *command(places, "--target", "cpu-arm", "--forbid", "int8", "--forbid", "int8-weights")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
