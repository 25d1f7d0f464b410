"""Bad input at the real command line: one clear line, the documented exit code, no traceback, nothing the user had is lost."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import EdgekitError, InputRejected, RequirementsNotMet, ResourceLimit, UsageError
from tests.conftest import SAMPLE, Cli, thorough
from tests.hostile import CASES, huge_constant, linear, openvino_crasher

MODEL = SAMPLE / "model.onnx"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_bad_models(edgekit: Cli, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    assert case.error is not None
    given = tmp_path / "given"
    given.mkdir()
    model = case.write(given)
    before = snapshot(given)
    found = edgekit("optimize", model, "-o", tmp_path / "run", "--preflight-seconds", 4, "--json")
    assert found.code == case.error.exit_code, found.err
    assert case.says in found.error
    assert found.out == ""
    assert not (tmp_path / "run").exists()
    assert snapshot(given) == before


@thorough
def test_two_to_the_31_elements(edgekit: Cli, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(huge_constant(1 << 31).SerializeToString())
    found = edgekit("optimize", path, "-o", tmp_path / "run", "--json")
    assert found.code == ResourceLimit.exit_code
    assert "memory" in found.error


def test_a_model_that_kills_an_engine_when_run_can_be_inspected(edgekit: Cli, tmp_path: Path) -> None:
    """OpenVINO dies when it runs this; candidates that kill their engine are in test_failing_candidates."""
    path = tmp_path / "m.onnx"
    path.write_bytes(openvino_crasher().SerializeToString())
    found = edgekit("inspect", path, "--json")
    assert found.code == 0
    assert json.loads(found.out)["op_counts"] == {"GatherND": 1}


# ---------------------------------------------------------------------------------------------------------------- data


def images(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 28, 28), dtype=np.float32)


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def pickled(folder: Path) -> Path:
    return npz(folder, image=np.array([{"a": 1}] * 40, dtype=object))


def bomb(folder: Path) -> Path:
    """4 MB that would expand to 4 GiB: one compressed block, many times."""
    path, head, blocks, size = folder / "data.npz", io.BytesIO(), 4096, 1 << 20
    header = {"descr": "<f4", "fortran_order": False, "shape": (1369568, 1, 28, 28)}
    np.lib.format.write_array_header_1_0(head, header)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = deflate.compress(head.getvalue()) + deflate.flush(
        zlib.Z_FULL_FLUSH
    )  # what follows refers to nothing before it
    block = deflate.compress(bytes(size)) + deflate.flush(zlib.Z_FULL_FLUSH)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image.npy", start + block * blocks + deflate.flush())
        entry = archive.getinfo("image.npy")  # written to the archive's directory when it is closed
        entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, len(head.getvalue()) + blocks * size
    with zipfile.ZipFile(path) as archive, archive.open("image.npy") as member:
        assert member.read(len(head.getvalue()) + size)[-4:] == bytes(4)
    return path


def truncated(folder: Path) -> Path:
    path = npz(folder, image=images())
    path.write_bytes(path.read_bytes()[:-2000])
    return path


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "data.npz")
    return folder / "data.npz"


def declared(folder: Path, text: str) -> Path:
    (folder / "data.toml").write_text(text)
    return folder


def with_nan(folder: Path) -> Path:
    array = images()
    array[7, 0, 3, 3] = np.nan
    return npz(folder, image=array)


BAD_DATA: dict[str, tuple[Callable[[Path], Path], type[EdgekitError], str]] = {
    "missing": (lambda d: d / "absent.npz", UsageError, "absent"),
    "wrong name": (lambda d: npz(d, imagge=images()), InputRejected, "image"),
    "no overlap": (lambda d: npz(d, audio=np.zeros((40, 16000), np.float32)), InputRejected, "image"),
    "wrong shape": (lambda d: npz(d, image=np.zeros((40, 3, 32, 32), np.float32)), InputRejected, "32"),
    "wrong dtype": (lambda d: npz(d, image=(images() * 255).astype(np.uint8)), InputRejected, "uint8"),
    "pickled": (pickled, InputRejected, "object"),
    "npz bomb": (bomb, InputRejected, "unpack"),
    "truncated": (truncated, InputRejected, "data.npz"),
    "fifo": (pipe, InputRejected, "regular"),
    "labels of another length": (lambda d: npz(d, image=images(), labels=np.zeros(39, np.int64)), InputRejected, "39"),
    "NaN": (with_nan, InputRejected, "NaN"),
    "too few": (lambda d: npz(d, image=images(2)), InputRejected, "2"),
    "empty folder": (lambda d: d, InputRejected, ""),
    "broken data.toml": (lambda d: declared(d, "schema = "), InputRejected, "data.toml"),
    "unknown key": (lambda d: declared(d, "schema = 1\nname = 'x'\nmetrik = 'top-1'\n"), InputRejected, "metric"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data(edgekit: Cli, tmp_path: Path, name: str) -> None:
    make, error, says = BAD_DATA[name]
    given = tmp_path / "given"
    given.mkdir()
    data = make(given)
    found = edgekit("optimize", MODEL, "--data", data, "-o", tmp_path / "run", "--json", timeout=60)
    assert found.code == error.exit_code, found.err
    assert says in found.error
    assert not (tmp_path / "run").exists()


def test_fewer_samples_than_asked(edgekit: Cli, tmp_path: Path) -> None:
    found = edgekit(
        "optimize", MODEL, "--data", npz(tmp_path, image=images()), "--samples", 9999, "-o", tmp_path / "run", "--json"
    )
    assert found.code == InputRejected.exit_code
    assert "9999" in found.error


METRICS = """
def boom(outputs, reference, labels): raise RuntimeError("no\\nscore")
def short(outputs, reference, labels): return [1.0]
def nan(outputs, reference, labels): return [float("nan")] * len(labels)
"""


@pytest.mark.parametrize(
    ("metric", "code"),
    [("top_1", 2), ("mine:boom", 6), ("mine:short", 6), ("mine:nan", 6), ("mine:absent", None), ("nowhere:f", None)],
)
def test_bad_metrics(edgekit: Cli, tmp_path: Path, metric: str, code: int | None) -> None:
    (tmp_path / "mine.py").write_text(METRICS)
    found = edgekit(
        "optimize", MODEL, "--data", SAMPLE, "--samples", 20, "--metric", metric, "-o", "run", "--json", cwd=tmp_path
    )
    assert found.code in ((2, 6) if code is None else (code, 6)), found.err
    assert metric.split(":")[-1].split("_")[0] in found.error
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "raspbery-pi-5"], "raspberry-pi-5"),
        (["--max-memory", "128"], "128MiB"),
        (["--max-memory", "lots"], "--max-memory"),
        (["--latency-budget", "20"], "ms"),
        (["--latency-budget", "p42:20ms"], "p99"),
        (["--min-throughput", "-1"], "--min-throughput"),
        (["--max-drop", "-0.1"], "--max-drop"),
        (["--max-drop", "nan"], "--max-drop"),
        (["--forbid", "bf61"], "bf16"),
        (["--shape", "image"], "image"),
        (["--shape", "imag:1x1x28x28"], "image"),
        (["--shape", "image:1x3x28x28"], "image"),
        (["--threads", "0"], "--threads"),
        (["--nonsense"], "nonsense"),
    ],
)
def test_wrong_flags(edgekit: Cli, tmp_path: Path, arguments: list[str], says: str) -> None:
    found = edgekit("optimize", MODEL, "-o", tmp_path / "run", "--json", *arguments)
    assert found.code == UsageError.exit_code, found.err
    assert says in found.error
    assert not (tmp_path / "run").exists()


def test_a_cache_whose_path_ekrun_could_not_take_apart(edgekit: Cli, tmp_path: Path) -> None:
    found = edgekit("--cache", tmp_path / "a=b", "optimize", MODEL, "-o", tmp_path / "run", "--json")
    assert found.code == UsageError.exit_code
    assert "--cache" in found.error


def test_an_output_folder_that_is_not_a_run_is_left_alone(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1").write_text("years of work")
    found = edgekit("optimize", MODEL, "-o", tmp_path / "thesis", "--json")
    assert found.code == InputRejected.exit_code
    assert "not an edgekit run" in found.error
    assert snapshot(tmp_path) == {"thesis/chapter1": b"years of work"}


def on_a_small_disk(tmp_path: Path, *arguments: object, size: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a real tmpfs of `size` at tmp_path/disk, in a mount namespace of its own; lists it afterwards."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=$1 none "$2" || exit 99; shift; D="$1"; shift; "$@"; c=$?; find "$D" -type f >&2; exit $c'
    argv = [
        "unshare",
        "-rm",
        "sh",
        "-c",
        script,
        "sh",
        size,
        str(disk),
        sys.executable,
        "-m",
        "edgekit",
        *map(str, arguments),
    ]
    return subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)


def test_a_full_disk_under_the_run_folder(tmp_path: Path, cache: Path, edgekit: Cli) -> None:
    small = ["--target", "cpu-arm", "--forbid", "int8", "--forbid", "int8-weights", "--forbid", "fp16"]
    warm = edgekit("optimize", MODEL, *small, "-o", tmp_path / "warm", "--json")
    assert warm.code == 0, warm.err
    arguments = [
        "--cache",
        cache,
        "optimize",
        MODEL,
        "--data",
        SAMPLE,
        *small,
        "-o",
        tmp_path / "disk" / "run",
        "--json",
    ]
    done = on_a_small_disk(tmp_path, *arguments, size="64k")
    assert done.returncode == ResourceLimit.exit_code, done.stderr
    assert done.stderr.splitlines()[0].startswith("edgekit: ")
    assert "the disk is full" in done.stderr
    assert len(done.stderr.splitlines()) == 1, "nothing half-written is left on the disk"


def test_a_full_disk_under_the_cache(tmp_path: Path) -> None:
    done = on_a_small_disk(
        tmp_path, "--cache", tmp_path / "disk" / "c", "optimize", MODEL, "-o", tmp_path / "run", "--json", size="300k"
    )
    assert done.returncode == ResourceLimit.exit_code, done.stderr
    assert "the disk is full" in done.stderr.splitlines()[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_half_way(tmp_path: Path, number: int) -> None:
    """A fresh cache, so that there is much to interrupt: exit 130, no run, no draft, no temporary folder, no child."""
    argv = [
        sys.executable,
        "-m",
        "edgekit",
        "--cache",
        str(tmp_path / "c"),
        "optimize",
        str(MODEL),
        "--data",
        str(SAMPLE),
    ]
    process = subprocess.Popen(
        [*argv, "-o", str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "building ort-int8" in line:
            break
    time.sleep(0.3)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert "Traceback" not in out + err
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"c"}
    assert list((tmp_path / "c" / "tmp").iterdir()) == []
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in listing


def test_nothing_fits_is_exit_3_and_shows_the_nearest(edgekit: Cli, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(linear().SerializeToString())
    found = edgekit("optimize", path, "--max-size", "50B", "--target", "cpu-arm", "-o", tmp_path / "run")
    assert found.code == RequirementsNotMet.exit_code
    assert "nearest" in found.out
    assert "is over" in found.out
    assert (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "artifact").exists()


@pytest.mark.parametrize("arguments", [["targets"], ["engines"]])
def test_a_bare_command_shows_its_help(edgekit: Cli, arguments: list[str]) -> None:
    found = edgekit(*arguments)
    assert found.code == UsageError.exit_code
    assert "Commands:" in found.err
    assert "\\n" not in found.err


def test_a_run_folder_with_files_of_the_users_is_left_alone(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    found = edgekit("optimize", MODEL, "-o", tmp_path / "run", "--json")
    assert found.code == InputRejected.exit_code
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_the_working_folder_itself_is_no_run_folder(edgekit: Cli, tmp_path: Path) -> None:
    found = edgekit("optimize", MODEL, "-o", ".", "--json", cwd=tmp_path)
    assert found.code == InputRejected.exit_code
    assert "-o" in found.error


def test_edgekit_alone_shows_its_help() -> None:
    done = subprocess.run([sys.executable, "-m", "edgekit"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == UsageError.exit_code
    assert "Commands:" in done.stderr
