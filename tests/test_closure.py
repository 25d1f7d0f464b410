"""An engine's libraries: fetched by the real pip from a folder of wheels made here, checked against pins made here."""

import ctypes
import hashlib
import importlib.metadata
import platform
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from edgekit.engines import ENGINES, closure
from edgekit.engines.closure import native_library, pins
from edgekit.errors import InternalError, ResourceLimit, TargetIncompatible, UsageError, VerificationFailed

VERSION = "9.9.9"
FILES = {
    f"onnxruntime/capi/libonnxruntime.so.{VERSION}": b"\x7fELF first" * 999,
    "onnxruntime/capi/libshared.so": b"\x7fELF two",
}
MACHINE = platform.machine()


def wheel(folder, files, arch="aarch64"):
    """A minimal wheel of onnxruntime 9.9.9 for `arch` with `files` and one more that nobody asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"onnxruntime-{VERSION}-cp311-cp311-manylinux_2_27_{arch}.manylinux_2_28_{arch}.whl"
    info = f"onnxruntime-{VERSION}.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**files, "onnxruntime/capi/more.so": b"not pinned"}.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: onnxruntime\nVersion: {VERSION}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\n")
        archive.writestr(f"{info}/RECORD", "")
    return folder


def write_pins(path, files=FILES, arch="aarch64", version=VERSION):
    rows = "".join(
        f'{{ path = "{name}", size = {len(data)}, sha256 = "{hashlib.sha256(data).hexdigest()}" }},'
        for name, data in files.items()
    )
    path.write_text(
        f'[[engine]]\nengine = "onnxruntime"\nversion = "{version}"\narch = "{arch}"\n'
        f'library = "libonnxruntime.so.{version}"\nplatforms = ["manylinux_2_27_{arch}"]\nfiles = [{rows}]\n'
    )


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    """The table of pins replaced by one for the wheel above."""
    write_pins(tmp_path / "pins.toml")
    monkeypatch.setattr(closure, "PINS", tmp_path / "pins.toml")
    return tmp_path


def fetch(root, offline=False):
    wheels = None if offline else root / "wheels"
    return native_library("onnxruntime", VERSION, "aarch64", root / "cache", offline, wheels, "raspberry-pi-5")


def entries(root):
    return sorted(p.name for p in (root / "cache").rglob("*") if p.is_file())


# ------------------------------------------------------------------------------------------------------------- fetching


def test_fetched_once_then_offline_from_the_cache(pinned):
    wheel(pinned / "wheels", FILES)
    found = fetch(pinned)
    assert found.folder == pinned / "cache" / "engines" / f"onnxruntime-{VERSION}-aarch64"
    assert found.library.name == f"libonnxruntime.so.{VERSION}" and found.library in found.files
    assert {file.name: file.read_bytes() for file in found.files} == {Path(n).name: d for n, d in FILES.items()}
    assert entries(pinned) == sorted(Path(name).name for name in FILES), "only pinned files, no temporary ones"
    (next((pinned / "wheels").iterdir())).unlink()
    assert fetch(pinned, offline=True) == found


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "onnxruntime/capi/libshared.so": b"\x7fELF TWO"},  # same size, other bytes
        {**FILES, "onnxruntime/capi/libshared.so": b"\x00" * (1 << 22)},  # would inflate
        {
            f"onnxruntime/capi/libonnxruntime.so.{VERSION}": FILES[f"onnxruntime/capi/libonnxruntime.so.{VERSION}"]
        },  # missing
    ],
)
def test_what_is_not_as_pinned_never_reaches_the_cache(files, pinned):
    wheel(pinned / "wheels", files)
    with pytest.raises(VerificationFailed, match="pinned"):
        fetch(pinned)
    assert entries(pinned) == []


def test_a_wheel_that_is_no_zip(pinned):
    next(wheel(pinned / "wheels", FILES).iterdir()).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises((VerificationFailed, ResourceLimit)) as caught:
        fetch(pinned)
    assert len(str(caught.value).splitlines()) == 1


def test_a_damaged_cache_entry_is_fetched_again_and_never_used_offline(pinned):
    wheel(pinned / "wheels", FILES)
    library = fetch(pinned).library
    good = library.read_bytes()
    library.write_bytes(good[:-1] + b"!")
    with pytest.raises(UsageError, match="edgekit engines fetch raspberry-pi-5"):
        fetch(pinned, offline=True)
    assert fetch(pinned).library.read_bytes() == good
    assert entries(pinned) == sorted(Path(name).name for name in FILES)


def test_a_failed_fetch_is_one_line_with_pips_reason(pinned):
    (pinned / "wheels").mkdir()
    with pytest.raises(ResourceLimit, match="No matching distribution") as caught:
        fetch(pinned)
    assert len(str(caught.value).splitlines()) == 1 and caught.value.next_step
    assert entries(pinned) == []


def test_a_wheelhouse_serves_offline(pinned):
    house = wheel(pinned / "wheels", FILES)
    assert native_library("onnxruntime", VERSION, "aarch64", pinned / "cache", offline=True, wheelhouse=house).files


def test_offline_without_anything_names_the_command(pinned):
    with pytest.raises(UsageError, match="edgekit engines fetch raspberry-pi-5"):
        fetch(pinned, offline=True)


# ------------------------------------------------------------------------------------------------- the installed package


@pytest.mark.parametrize(("engine", "symbol"), [("onnxruntime", "OrtGetApiBase"), ("openvino", "ov_core_create")])
def test_the_installed_package_is_used_in_place(engine, symbol, tmp_path):
    version = importlib.metadata.version(engine).split("-")[0]
    found = native_library(engine, version, MACHINE, tmp_path / "cache", offline=True)
    assert not (tmp_path / "cache").exists()
    assert engine in found.folder.parts
    assert hasattr(ctypes.CDLL(str(found.library)), symbol)


def test_an_installed_package_of_other_bytes_is_not_used(tmp_path, monkeypatch):
    version = importlib.metadata.version("onnxruntime")
    write_pins(tmp_path / "pins.toml", {f"onnxruntime/capi/libonnxruntime.so.{version}": b"other"}, MACHINE, version)
    monkeypatch.setattr(closure, "PINS", tmp_path / "pins.toml")
    with pytest.raises(UsageError, match="--offline"):
        native_library("onnxruntime", version, MACHINE, tmp_path / "cache", offline=True)


def test_no_other_architecture_is_served_from_the_installed_package(tmp_path):
    version = importlib.metadata.version("onnxruntime")
    other = "aarch64" if MACHINE == "x86_64" else "x86_64"
    with pytest.raises(UsageError):
        native_library("onnxruntime", version, other, tmp_path / "cache", offline=True)


# ------------------------------------------------------------------------------------------------------------- the table


def test_an_unknown_version_lists_what_there_is(tmp_path):
    with pytest.raises(TargetIncompatible, match="no pinned build") as caught:
        native_library("onnxruntime", "0.0.1", "aarch64", tmp_path)
    assert "onnxruntime-1.32.0-aarch64" in caught.value.next_step


def test_the_pins_are_whole():
    table = pins()
    for pin in table.values():
        names = [file.name for file in pin.files]
        assert pin.engine in ENGINES and pin.library in names and len(names) == len(set(names))
        assert all(len(file.sha256) == 64 and file.size_bytes > 0 for file in pin.files)
        assert all(tag.endswith(pin.arch) for tag in pin.platforms)
        assert f"{pin.engine}-{pin.version}-{'x86_64' if pin.arch == 'aarch64' else 'aarch64'}" in table


def test_every_engine_a_target_names_is_pinned():
    targets = sorted((Path(__file__).parents[1] / "targets").glob("*.toml"))
    assert targets
    for path in targets:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        for engine, version in data["engines"].items():
            assert f"{engine}-{version}-{data['arch']}" in pins(), path.name


def test_a_damaged_table_is_an_internal_error(tmp_path, monkeypatch):
    monkeypatch.setattr(closure, "PINS", tmp_path / "none.toml")
    with pytest.raises(InternalError):
        pins()


def test_the_closure_imports_no_engine_and_no_numpy():
    code = "import sys, edgekit.engines.closure; print(*sys.modules)"
    root = Path(__file__).parents[1]
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    ).stdout.split()
    assert not {"numpy", "onnx", "onnxruntime", "openvino", "nncf"} & set(loaded)
