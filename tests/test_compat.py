"""The gate before the board: floors read from real libraries, refusals with their fixes, and what is unknown refuses nothing."""

import dataclasses
import importlib.util
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.core.compat import ENGINE_ISA, MODEL_LIMITS, Needs, admit, refusals, unknowns
from edgekit.core.facts import Disk, FactSheet
from edgekit.core.targets import ENGINE_FLOORS, ISA_FEATURES, version_key
from edgekit.engines.closure import pins
from edgekit.engines.floors import floors
from edgekit.errors import TargetIncompatible, VerificationFailed
from edgekit.runner import ekrun_path
from edgekit.runner.build import ARCHITECTURES, build_all

MIB = 1 << 20

BOARD = FactSheet(
    arch="aarch64",
    isa=("fp", "asimd", "crc32"),
    usable_threads=4,
    ram_total_bytes=1024 * MIB,
    ram_available_bytes=700 * MIB,
    disk=Disk("/home/pi/.edgekit", 4096 * MIB, 16384 * MIB, noexec=False),
    libc="glibc",
    glibc="2.36",
    libstdcxx="3.4.30",
    userland_bits=64,
)
NEEDS = Needs(
    arch="aarch64",
    engine="onnxruntime",
    engine_version="1.32.0",
    isa=("asimd",),
    glibc="2.28",
    glibcxx="3.4.23",
    ram_bytes=100 * MIB,
    disk_bytes=40 * MIB,
    opset=17,
    ir_version=8,
)


def board(**changes: object) -> FactSheet:
    return dataclasses.replace(BOARD, **changes)  # type: ignore[arg-type]


def needs(**changes: object) -> Needs:
    return dataclasses.replace(NEEDS, **changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------- refusals


def test_a_fitting_board_is_admitted_without_a_notice() -> None:
    assert refusals(NEEDS, BOARD) == () and admit(NEEDS, BOARD) == ()


@pytest.mark.parametrize(
    ("asked", "facts", "what", "fix"),
    [
        (needs(arch="x86_64"), board(), "for x86_64, the board is aarch64", "for the board's target"),
        (needs(isa=("asimd", "asimddp")), board(), "needs asimddp, which this CPU lacks", "another engine or board"),
        (needs(), board(glibc="2.27"), "needs glibc 2.28, the board has 2.27", "use onnxruntime 1.28.0"),
        (needs(), board(glibc="2.24"), "needs glibc 2.28, the board has 2.24", "update the board's system"),
        (needs(glibc="2.4"), board(glibc="2.28"), "", ""),  # versions are numbers, not text
        (
            needs(),
            board(glibc=None, libstdcxx=None, userland_bits=32),
            "32-bit system on a 64-bit kernel",
            "64-bit image",
        ),
        (needs(), board(glibc=None, libstdcxx=None, libc="musl"), "built on musl", "built on glibc, such as Debian"),
        (needs(), board(userland_bits=32), "", ""),  # 64-bit libraries are there
        (needs(), board(libstdcxx="3.4.22"), "GLIBCXX_3.4.23, the board's ends at 3.4.22", "libstdc++6"),
        (needs(opset=29), board(), "opset 29, onnxruntime 1.32.0 ends at 28", "opset 28 or lower"),
        (needs(engine_version="1.28.0", opset=27), board(), "opset 27, onnxruntime 1.28.0 ends at 26", "opset 26"),
        (needs(ir_version=15), board(), "IR version 15, onnxruntime 1.32.0 ends at 14", "IR version 14 or lower"),
        (needs(opset=28, ir_version=14), board(), "", ""),
        (needs(ram_bytes=700 * MIB + 1), board(), "about 701 MiB of memory, the board has 700 MiB", "--max-memory"),
        (needs(ram_bytes=700 * MIB), board(), "", ""),
        (needs(), board(cgroup_memory_limit_bytes=64 * MIB), "the board has 64 MiB to give", "--max-memory"),
        (
            needs(),
            board(disk=Disk("/x", 39 * MIB, None, noexec=False)),
            "40 MiB are to be sent, /x has 39 MiB",
            "free some",
        ),
        (needs(), board(disk=Disk("/x", None, None, noexec=True)), "/x refuses programs (noexec)", "another folder"),
    ],
)
def test_each_refusal_says_what_and_the_fix(asked: Needs, facts: FactSheet, what: str, fix: str) -> None:
    found = refusals(asked, facts)
    if not what:
        assert found == ()
        return
    (refusal,) = found
    assert what in refusal.what and fix in refusal.fix


def test_all_refusals_come_in_one_line_with_exit_code_5() -> None:
    facts = board(glibc="2.27", libstdcxx="3.4.22", isa=("fp",))
    with pytest.raises(TargetIncompatible) as caught:
        admit(needs(ram_bytes=2048 * MIB), facts, where="pi")
    line = str(caught.value)
    assert caught.value.exit_code == 5 and "\n" not in line and line.startswith("pi: ")
    for word in ("asimd", "glibc 2.28", "GLIBCXX_3.4.23", "2048 MiB", "use onnxruntime 1.28.0", "libstdc++6"):
        assert word in line


def test_what_the_board_does_not_tell_refuses_nothing() -> None:
    silent = FactSheet(arch="aarch64", isa=("fp", "asimd"), usable_threads=1)
    asked = needs(opset=99, engine_version="1.40.0")
    assert refusals(asked, silent) == ()
    notices = admit(asked, silent)
    assert len(notices) == 5
    for word in ("glibc", "libstdc++", "memory", "disk", "opsets onnxruntime 1.40.0"):
        assert sum(word in notice for notice in notices) >= 1
    assert unknowns(Needs("aarch64", "openvino", "2026.4.1"), silent) == ()  # nothing asked, nothing to say


def test_the_tables_cover_the_pinned_engines() -> None:
    for pin in pins().values():
        features = ENGINE_ISA[pin.engine, pin.arch]
        assert set(features) <= ISA_FEATURES[pin.arch]
        assert pin.engine != "onnxruntime" or pin.version in MODEL_LIMITS["onnxruntime"]


def test_the_table_of_opsets_holds_for_the_installed_runtime(tmp_path: Path) -> None:
    """One model at the limit loads, one beyond it does not: opset and IR version apart."""
    import onnxruntime

    limits = MODEL_LIMITS["onnxruntime"][onnxruntime.__version__]
    assert _loads(limits.opset, limits.ir_version, tmp_path)
    assert not _loads(limits.opset + 1, 8, tmp_path)
    assert not _loads(17, limits.ir_version + 1, tmp_path)


def _loads(opset: int, ir_version: int, folder: Path) -> bool:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    path = folder / f"{opset}-{ir_version}.onnx"
    path.write_bytes(model.SerializeToString())
    assert onnx.load(path, load_external_data=False).ir_version == ir_version
    try:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception:  # noqa: BLE001 - onnxruntime raises what pybind makes of C++ exceptions
        return False
    return True


# ------------------------------------------------------------------------------------------------------------------ floors


@pytest.fixture(scope="module", autouse=True)
def _ekrun_is_built() -> None:
    build_all(static=False)


def installed(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def closure(engine: str) -> list[Path]:
    """The pinned files of the newest engine, where its Python package is installed."""
    newest = ENGINE_FLOORS[engine]["x86_64"][0][1]
    pin = pins()[f"{engine}-{newest}-x86_64"]
    return [installed(engine).parent / file.path for file in pin.files]


def test_ekrun_asks_for_an_old_glibc_and_no_libstdcxx() -> None:
    for arch in ARCHITECTURES:
        found = floors([ekrun_path(arch)])
        assert (found.arch, found.glibc, found.glibcxx) == (arch, "2.17", None)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_floors_of_a_closure_are_within_its_wheels_promise(engine: str) -> None:
    found = floors(closure(engine))
    assert found.arch == "x86_64"
    assert found.glibc is not None and found.glibcxx is not None
    assert version_key(found.glibc) <= version_key(ENGINE_FLOORS[engine]["x86_64"][0][0])
    assert "libstdc++.so.6" in found.needed and "libc.so.6" in found.needed
    assert not any("openvino" in name or "tbb" in name for name in found.needed)  # in the closure


def test_the_floors_are_those_that_readelf_shows() -> None:
    if (readelf := shutil.which("readelf")) is None:
        pytest.skip("readelf is not installed")
    library = closure("onnxruntime")[0]
    text = subprocess.run([readelf, "-V", "-W", library], capture_output=True, text=True, check=True).stdout
    need = text[text.index(".gnu.version_r") :]
    names = {word.rstrip(",") for line in need.splitlines() for word in line.split() if word.startswith("GLIBC_")}
    assert floors([library]).glibc == max((n.removeprefix("GLIBC_") for n in names), key=version_key)


def test_what_the_closure_brings_itself_is_not_asked_of_the_board(tmp_path: Path) -> None:
    """With a libstdc++ beside it, the engine asks for none, but that library asks for its own glibc."""
    own = Path("/usr/lib/x86_64-linux-gnu/libstdc++.so.6")
    if not own.exists():
        pytest.skip("no libstdc++ in the usual place")
    beside = tmp_path / "libstdc++.so.6"
    shutil.copy(own, beside)
    library = closure("onnxruntime")[0]
    found = floors([library, beside])
    assert found.glibcxx is None and "libstdc++.so.6" not in found.needed
    assert floors([library]).glibcxx is not None


def test_a_version_of_the_cxx_abi_counts_as_the_libstdcxx_it_came_with() -> None:
    from edgekit.engines.floors import _as_glibcxx

    assert _as_glibcxx("CXXABI_1.3.13") == "GLIBCXX_3.4.29" and _as_glibcxx("CXXABI_1.3") == "GLIBCXX_3.4.0"
    assert _as_glibcxx("CXXABI_1.3.99") == "GLIBCXX_3.4.29" and _as_glibcxx("GLIBC_2.17") == "GLIBC_2.17"
    assert _as_glibcxx("CXXABI_TM_1") == "CXXABI_TM_1" and _as_glibcxx("CXXABI_FLOAT128") == "CXXABI_FLOAT128"


def test_files_of_two_architectures_are_refused() -> None:
    with pytest.raises(VerificationFailed, match="aarch64 and x86_64 do not go together"):
        floors([ekrun_path("aarch64"), ekrun_path("x86_64")])
    with pytest.raises(VerificationFailed):
        floors([])


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 100, b"#!/bin/sh\n", bytes(4096)])
def test_what_is_no_elf_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "libx.so"
    path.write_bytes(content)
    with pytest.raises(VerificationFailed, match=r"libx\.so: is not a readable ELF file"):
        floors([path])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationFailed):
        floors([tmp_path / "absent.so"])


def test_damaged_files_are_read_or_refused_and_never_hang(tmp_path: Path) -> None:
    """Flipped bytes in the headers and tables, and cut ends: an answer or VerificationFailed, in time."""
    whole = ekrun_path("x86_64").read_bytes()
    path = tmp_path / "damaged"
    rng = random.Random(0)
    refused, started = 0, time.monotonic()
    for trial in range(300):
        damaged = bytearray(whole)
        table = rng.choice([0, len(whole) - 2500, 0x200])  # the ELF header, the section headers, the first tables
        for _ in range(rng.randint(1, 8)):
            damaged[max(0, min(len(whole) - 1, table + rng.randrange(2500)))] = rng.choice(
                (0, 0xFF, rng.randrange(256))
            )
        path.write_bytes(bytes(damaged[: rng.randrange(len(whole))]) if trial % 5 == 0 else bytes(damaged))
        try:
            floors([path])
        except VerificationFailed:
            refused += 1
    assert 30 <= refused < 300
    assert time.monotonic() - started < 60


def test_the_gate_imports_no_engine() -> None:
    heavy = "{'onnx', 'onnxruntime', 'openvino', 'numpy'} & set(sys.modules)"
    code = f"import sys, edgekit.core.compat, edgekit.engines.floors; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
