"""libekrun from C: the answers of `ekrun run DIR`, by any number of threads, and an error for whatever is wrong.

Programs here are compiled by the system's own compiler, with nothing but ekrun.h.
"""

import io
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from edgekit.engines.closure import native_library
from edgekit.runner.build import LIBRARY, SOURCES, build_zig
from tests.board import board_argv, default_cache, emulated, require_board
from tests.ekrun_tools import compile_engine, ekrun, libraries, library, outputs
from tests.libekrun_desk import (
    CFLAGS,
    PROBE,
    Folder,
    compile_with,
    compiler,
    equip,
    mixed,
    probe_args,
    sums,
    with_openvino,
    write,
)

OK, USAGE, NO_LIBRARY, MODEL, INPUT = 0, 2, 3, 4, 5
API = re.findall(r"^\s+(ekrun_\w+);", (LIBRARY / "libekrun.map").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("probe")
    shutil.copy(libraries()["x86_64"], folder / "libekrun.so")
    return compile_with(folder / "probe", PROBE, folder)


def expect_the_same(folder: Folder, out: Path, program: list[str], threads: int = 1) -> None:
    """What the probe gets is what ekrun writes, to the bit; where shapes change, ekrun's file is flat."""
    out.mkdir()
    wanted = outputs(ekrun("run", folder.path, "--out", out / "ekrun"), out / "ekrun")
    argv = [*program, *probe_args(folder, out / "out", threads)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for index, array in enumerate(wanted):
        assert (out / f"out.{index}").read_bytes() == array.tobytes(), index
    assert len(done.stdout.splitlines()) == len(wanted) * folder.record["golden"]["samples"]


@pytest.mark.parametrize("threads", [1, 8])
def test_answers_are_those_of_ekrun_run(tmp_path: Path, probe: Path, threads: int) -> None:
    expect_the_same(mixed(tmp_path / "bundle"), tmp_path / "out", [str(probe)], threads)


@pytest.mark.parametrize("threads", [1, 8])
def test_states_are_each_streams_own(tmp_path: Path, probe: Path, threads: int) -> None:
    expect_the_same(sums(tmp_path / "bundle"), tmp_path / "out", [str(probe)], threads)


@pytest.mark.parametrize("threads", [1, 4])
def test_openvino(tmp_path: Path, probe: Path, threads: int) -> None:
    expect_the_same(with_openvino(mixed(tmp_path / "one")), tmp_path / "out1", [str(probe)], threads)
    expect_the_same(with_openvino(sums(tmp_path / "two")), tmp_path / "out2", [str(probe)], threads)


def test_the_probe_notices_other_bytes(tmp_path: Path, probe: Path) -> None:
    """Negative control: an input that ekrun was not given."""
    folder = mixed(tmp_path / "bundle")
    wanted = ekrun("run", folder.path, "--out", tmp_path / "ekrun")
    values = np.load(folder.path / "golden/0.npy")
    values[2, 0, 1, 1] += 1
    np.save(folder.path / "golden/0.npy", values)
    subprocess.run([probe, *probe_args(folder, tmp_path / "out")], check=True, capture_output=True, timeout=60)
    assert (tmp_path / "out.0").read_bytes() != outputs(wanted, tmp_path / "ekrun")[0].tobytes()


# ----------------------------------------------------------------------------------------------------- how it is built


@pytest.mark.parametrize(("arch", "machine"), [("x86_64", 62), ("aarch64", 183)])
def test_it_exports_its_api_and_can_neither_print_nor_end_a_process(arch: str, machine: int) -> None:
    elf = libraries()[arch].read_bytes()
    assert struct.unpack_from("<H", elf, 18)[0] == machine
    symbols = list(ELFFile(io.BytesIO(elf)).get_section_by_name(".dynsym").iter_symbols())
    asked = {symbol.name for symbol in symbols if symbol["st_shndx"] == "SHN_UNDEF"}
    assert {symbol.name for symbol in symbols} - asked == set(API)
    endings = {"exit", "_exit", "_Exit", "abort", "quick_exit", "raise", "kill", "signal", "sigaction", "__assert_fail"}
    assert not asked & (endings | {"printf", "puts", "putchar", "fprintf", "vfprintf", "stdout", "stderr", "perror"})
    assert {"dlopen", "longjmp"} < asked
    assert max(int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", elf)) <= 17
    assert len(elf) < 128 << 10


def test_the_header_declares_what_the_library_exports_and_is_cxx_too(tmp_path: Path) -> None:
    header = (LIBRARY / "include/ekrun.h").read_text()
    assert set(re.findall(r"\b(ekrun_\w+)\(", header)) == set(API)
    (tmp_path / "a.cc").write_text("#include <ekrun.h>\nint main() { return ekrun_api() != EKRUN_API; }\n")
    include = f"-I{LIBRARY / 'include'}"
    for standard in ("c++98", "c++17"):
        subprocess.run(
            ["g++", f"-std={standard}", "-Wall", "-Wextra", "-Werror", include, "-c", "a.cc"], cwd=tmp_path, check=True
        )


def test_the_example(tmp_path: Path) -> None:
    """By the command that stands in it, in the bundle's folder."""
    folder = mixed(tmp_path / "bundle").path
    line = next(line for line in (folder / "examples/example.c").read_text().splitlines() if " cc " in line)
    subprocess.run(["sh", "-c", line.removeprefix(" *")], cwd=folder, check=True, timeout=60)
    done = subprocess.run(["./example", "."], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    told = done.stdout.splitlines()
    assert re.fullmatch(r"onnxruntime \d+\.\d+\.\d+", told[0])
    assert told[1] == "y: float32 [1,3,4] 0 0 0 0 0 0 0 0 0 0"
    assert told[2:] == ["where: int64 [3,0]", "half: float16 [1,3,5]"]


# ------------------------------------------------------------------------------------------------------- what goes wrong

OPEN = """
#include <ekrun.h>
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        ekrun_model *model = (ekrun_model *)argv;
        int status = ekrun_model_open(argv[i], NULL, &model);
        printf("%d %s %s\\n", status, status ? "" : ekrun_model_engine(model), status ? ekrun_error() : "");
        if (status && model)
            return 1;
        ekrun_model_close(model);
    }
    return 0;
}
"""


@pytest.fixture(scope="module")
def opener(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that opens the folders it is given, one after the other, and says how that ended."""
    folder = tmp_path_factory.mktemp("opener")
    shutil.copy(libraries()["x86_64"], folder / "libekrun.so")
    (folder / "open.c").write_text(OPEN)
    return compile_with(folder / "open", folder / "open.c", folder)


def opened(opener: Path, *folders: Path, **env: str) -> list[tuple[int, str]]:
    argv = [str(opener), *map(str, folders)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **env})
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = done.stdout.splitlines()
    assert all(line.isprintable() for line in lines)
    return [(int(line.split()[0]), line) for line in lines]


BROKEN: dict[str, tuple[Callable[[Folder], object], int, str]] = {
    "no deployment.json": (lambda f: (f.path / "deployment.json").unlink(), INPUT, "not an unpacked bundle"),
    "a record that is none": (lambda f: (f.path / "deployment.json").write_text("{"), INPUT, "deployment.json: "),
    "a record of nothing": (lambda f: (f.path / "deployment.json").write_text(""), INPUT, "deployment.json: "),
    "deep": (lambda f: (f.path / "deployment.json").write_text("[" * 100_000), INPUT, "deployment.json: "),
    "large": (lambda f: os.truncate(f.path / "deployment.json", 2 << 20), INPUT, "at most 1048576 bytes"),
    "a fifo": (
        lambda f: ((f.path / "deployment.json").unlink(), os.mkfifo(f.path / "deployment.json")),
        INPUT,
        "not a regular file",
    ),
    "a link": (
        lambda f: ((f.path / "deployment.json").rename(f.path / "x"), (f.path / "deployment.json").symlink_to("x")),
        INPUT,
        "not a regular file",
    ),
    "another format": (lambda f: write(f, format=2), INPUT, "format"),
    "a path that leads out": (lambda f: write(f, model="../m.onnx"), INPUT, "NotAPath"),
    "no such engine": (lambda f: write(f, engine="tflite"), INPUT, "no engine is called tflite"),
    "no such precision": (lambda f: write(f, precision="f8"), INPUT, "no precision is called f8"),
    "too many threads": (lambda f: write(f, threads=2000), INPUT, "NotANumberOfThreads"),
    "a state of nothing": (lambda f: write(f, state={"y": "absent"}), INPUT, "no state 'absent' from 'y'"),
    "a state of another type": (lambda f: write(f, state={"where": "x"}), INPUT, "is int64, but input 'x' is float32"),
    "no such option": (lambda f: write(f, options={"arena": "maybe"}), USAGE, "arena does not take maybe"),
    "no library": (lambda f: (f.path / "lib/libonnxruntime.so.1").unlink(), NO_LIBRARY, "No such file"),
    "no library at all": (
        lambda f: ((f.path / "lib/libonnxruntime.so.1").unlink(), (f.path / "lib/libonnxruntime.so.1").write_text("x")),
        NO_LIBRARY,
        "libonnxruntime.so.1",
    ),
    "a folder for the library": (
        lambda f: ((f.path / "lib/libonnxruntime.so.1").unlink(), (f.path / "lib/libonnxruntime.so.1").mkdir()),
        NO_LIBRARY,
        "not a regular file",
    ),
    "no model": (lambda f: (f.path / f.record["model"]).unlink(), MODEL, "No such file"),
    "no model at all": (lambda f: (f.path / f.record["model"]).write_bytes(b"\x1b[2Jno"), MODEL, ".onnx: "),
    "an empty model": (lambda f: (f.path / f.record["model"]).write_bytes(b""), MODEL, ".onnx"),
}


# ekrun reads the file as a bundle's, which is refused, and takes engine and precision for options, which it has too.
EKRUN_SAYS = {"large": 8, "a fifo": 8, "a link": 8, "no such engine": USAGE, "no such precision": USAGE}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_opened_is_said_and_the_next_one_opens(tmp_path: Path, opener: Path, case: str) -> None:
    """The numbers are ekrun's own exit codes."""
    spoil, code, words = BROKEN[case]
    good, bad = mixed(tmp_path / "good"), mixed(tmp_path / "bad")
    spoil(bad)
    for folders in ([bad, good], [good, bad, good]):
        told = opened(opener, *(folder.path for folder in folders))
        for folder, (status, line) in zip(folders, told, strict=True):
            assert status == (OK if folder is good else code), line
            assert folder is good or words in line
    assert ekrun("run", bad.path, "--out", tmp_path / "out").code == EKRUN_SAYS.get(case, code)


def test_other_folders(tmp_path: Path, opener: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "absent", tmp_path / "file", tmp_path, Path()):
        ((status, line),) = opened(opener, place)
        assert status == INPUT, line


def test_a_library_that_lacks_its_api_is_said(tmp_path: Path, opener: Path) -> None:
    folder = mixed(tmp_path / "bundle")
    compile_engine(tmp_path, "static void body(void) {}")
    (folder.path / "lib/libonnxruntime.so.1").unlink()
    (tmp_path / "libonnxruntime.so").rename(folder.path / "lib/libonnxruntime.so.1")
    ((status, line),) = opened(opener, folder.path)
    assert status == NO_LIBRARY
    assert "has no OrtGetApiBase" in line


# ---------------------------------------------------------------------------------------------- one engine in a process


def own_copy(folder: Folder) -> Folder:
    """The same bundle with a copy of the engine's library that is its own file."""
    place = folder.path / "lib/libonnxruntime.so.1"
    place.unlink()
    shutil.copyfile(library("onnxruntime"), place)
    return folder


def test_two_bundles_of_one_version_share_the_library_that_is_there(tmp_path: Path, opener: Path) -> None:
    one, other = own_copy(mixed(tmp_path / "one")), own_copy(sums(tmp_path / "two"))
    trace = tmp_path / "trace"
    argv = ["strace", "-f", "-e", "trace=openat,open", "-o", trace, opener, one.path, other.path]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["0", "0"]
    loaded = re.findall(r'"([^"]*libonnxruntime\.so\.1)", [^)]*\) = \d', trace.read_text())
    assert loaded == [str(one.path / "lib/libonnxruntime.so.1")]


def test_another_version_is_refused(tmp_path: Path, opener: Path) -> None:
    one, other = own_copy(mixed(tmp_path / "one")), own_copy(mixed(tmp_path / "two"))
    write(other, engine_version="1.31.0")
    told = opened(opener, one.path, other.path, one.path)
    assert [status for status, _ in told] == [OK, NO_LIBRARY, OK]
    assert "this process has onnxruntime 1.32.0 open, and takes no other, here 1.31.0" in told[1][1]
    assert [status for status, _ in opened(opener, other.path)] == [OK], "alone it is as good"


def test_one_of_the_same_name_and_another_size_is_refused(tmp_path: Path, opener: Path) -> None:
    one, other = own_copy(mixed(tmp_path / "one")), own_copy(mixed(tmp_path / "two"))
    with (other.path / "lib/libonnxruntime.so.1").open("ab") as file:
        file.write(b"\0")
    assert [status for status, _ in opened(opener, one.path, other.path)] == [OK, NO_LIBRARY]


def test_both_engines_in_one_process(tmp_path: Path, opener: Path) -> None:
    one, other = mixed(tmp_path / "one"), with_openvino(mixed(tmp_path / "two"))
    told = opened(opener, one.path, other.path, one.path)
    assert [line.split()[1] for _, line in told] == ["onnxruntime", "openvino", "onnxruntime"]


def test_the_engines_telemetry_is_off(tmp_path: Path, opener: Path) -> None:
    """Whatever the environment says; by a library that looks when it is opened."""
    folder = mixed(tmp_path / "bundle")
    look = (
        'static void body(void) { const char *v = getenv("ORT_DISABLE_TELEMETRY"); if (!v || strcmp(v, "1")) exit(9); }'
    )
    compile_engine(tmp_path, look)
    (folder.path / "lib/libonnxruntime.so.1").unlink()
    (tmp_path / "libonnxruntime.so").rename(folder.path / "lib/libonnxruntime.so.1")
    for said in ("0", "", "1"):
        assert opened(opener, folder.path, ORT_DISABLE_TELEMETRY=said)[0][0] == NO_LIBRARY


# ---------------------------------------------------------------------------------------------------- nothing is left over

CYCLES = """
#include <dirent.h>
#include <ekrun.h>
#include <limits.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t used(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static int descriptors(void) {
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Opens the first folder and runs it well and badly; the others cannot be opened. */
static void cycle(int argc, char **argv) {
    ekrun_model *model;
    ekrun_stream *stream;
    int64_t dims[] = {1, 3, 5}, one = 1, wrong = 2;
    float x[15] = {1};
    ekrun_tensor inputs[] = {{"x", x, sizeof x, dims, 3, EKRUN_FLOAT32}, {"k", &one, sizeof one, &one, 1, EKRUN_INT64}};
    if (ekrun_model_open(argv[1], NULL, &model) || ekrun_stream_open(model, &stream))
        exit(3);
    for (int i = 0; i < 20; i++) {
        inputs[1].dims = &one;
        if (ekrun_stream_run(stream, inputs, 2))
            exit(4);
        inputs[1].dims = &wrong;
        if (ekrun_stream_run(stream, inputs, 2) != EKRUN_INPUT || ekrun_stream_run(stream, inputs, 1) != EKRUN_INPUT)
            exit(5);
    }
    ekrun_model_close(model);
    ekrun_stream_close(stream);
    for (int i = 2; i < argc; i++)
        if (ekrun_model_open(argv[i], NULL, &model) == EKRUN_OK)
            exit(6);
}

int main(int argc, char **argv) {
    int count = atoi(argv[1]) / 4, open = 0;
    long least = LONG_MAX;
    for (int i = -20; i < 0; i++)
        cycle(argc - 1, argv + 1);
    open = descriptors();
    for (int part = 0; part < 4; part++) {
        size_t before = used();
        for (int i = 0; i < count; i++)
            cycle(argc - 1, argv + 1);
        long grown = (long)(used() - before) / count;
        least = grown < least ? grown : least;
    }
    printf("%ld %d\\n", least, descriptors() - open);
    return 0;
}
"""


@pytest.mark.parametrize(("engine", "cycles"), [("onnxruntime", 200), ("openvino", 40)])
def test_opening_and_closing_leaves_nothing(tmp_path: Path, engine: str, cycles: int) -> None:
    """Bytes that each of many cycles of good and bad calls leaves allocated, in the quarter of them where it is least.

    Engines keep some kilobytes in the first ones, OpenVINO more of them when the machine is busy; a leak is in every quarter.
    """
    shutil.copy(libraries()["x86_64"], tmp_path / "libekrun.so")
    (tmp_path / "cycles.c").write_text(CYCLES)
    program = compile_with(tmp_path / "cycles", tmp_path / "cycles.c", tmp_path)
    folders = [mixed(tmp_path / str(number)) for number in range(5)]
    if engine == "openvino":
        folders = [with_openvino(folder) for folder in folders]
    (folders[1].path / folders[1].record["model"]).write_bytes(b"no model")
    write(folders[2], state={"where": "x"})
    write(folders[3], options={"NO_SUCH_PROPERTY": "1"} if engine == "openvino" else {"arena": "maybe"})
    write(folders[4], format=2)
    argv = [str(program), str(cycles), *(str(folder.path) for folder in folders)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    grown, descriptors = map(int, done.stdout.split())
    assert grown < 100, "bytes a cycle"
    assert descriptors == 0


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Probe and opener with all of libekrun in them, under the sanitizers of gcc; leaks are those of our own code."""
    folder = tmp_path_factory.mktemp("sanitized")
    zig = build_zig(folder, "x86_64", "library.zig")
    shared = (
        "args",
        "attempt",
        "engine",
        "engine_ort",
        "engine_openvino",
        "json",
        "layers",
        "memory",
        "proc",
        "tensor",
    )
    parts = [*LIBRARY.glob("*.c"), *(SOURCES / f"{name}.c" for name in shared), zig]
    flags = ["-g", "-O0", "-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{SOURCES}", f"-I{LIBRARY / 'include'}"]
    made = []
    for name, text in (("probe", PROBE.read_text()), ("open", OPEN)):
        (folder / f"{name}.c").write_text(text)
        argv = ["gcc", *CFLAGS, *flags, f"{name}.c", *map(str, parts), "-ldl", "-lm", "-lpthread", "-o", name]
        subprocess.run(argv, cwd=folder, check=True, timeout=240)
        made.append(folder / name)
    return made


def test_everything_under_the_sanitizers(
    tmp_path: Path, sanitized: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, opener = sanitized
    ours = "leak:libonnxruntime\nleak:libopenvino\nleak:libtbb\nleak:libstdc++\nleak:ld-linux"
    (tmp_path / "suppressions").write_text(ours)
    monkeypatch.setenv("LSAN_OPTIONS", f"suppressions={tmp_path / 'suppressions'}:print_suppressions=0")
    expect_the_same(mixed(tmp_path / "one"), tmp_path / "a", [str(probe)], 4)
    expect_the_same(sums(tmp_path / "two"), tmp_path / "b", [str(probe)], 4)
    good = mixed(tmp_path / "good")
    for number, (spoil, code, _) in enumerate(BROKEN.values()):
        folder = mixed(tmp_path / str(number))
        spoil(folder)
        assert [status for status, _ in opened(opener, folder.path, good.path)] == [code, OK]


# ------------------------------------------------------------------------------------------------------------- aarch64


@pytest.mark.board
def test_on_an_emulated_board(tmp_path: Path) -> None:
    """A program for aarch64 with libekrun for it: the answers of `ekrun run DIR` there."""
    require_board()
    folder = equip(mixed(tmp_path / "bundle"), "aarch64")
    (folder.path / "lib/libonnxruntime.so.1").unlink()
    there = native_library("onnxruntime", "1.32.0", "aarch64", default_cache()).library
    (folder.path / "lib/libonnxruntime.so.1").symlink_to(there)
    program = compile_with(tmp_path / "probe", PROBE, folder.path / "lib", "aarch64")
    argv = [*board_argv("cortex-a76"), str(program), *probe_args(folder, tmp_path / "out", 4)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    with closing(emulated("raspberry-pi-5")) as board:
        ran = board.run(["run", str(folder.path), "--out", str(tmp_path / "ekrun")], deadline_s=240)
        assert ran.returncode == 0, ran.stderr
    for index, output in enumerate(json.loads(ran.stdout.splitlines()[-1])["outputs"]):
        assert (tmp_path / f"out.{index}").read_bytes() == np.load(tmp_path / "ekrun" / output["file"]).tobytes()
    assert compiler("aarch64") != compiler("x86_64")
