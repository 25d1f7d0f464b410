"""What parses untrusted bytes in ekrun, under the address and undefined-behaviour sanitizers of gcc."""

import json
import os
import re
import resource
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgekit.runner.build import SOURCES
from tests.ekrun_tools import (
    built,
    compile_engine,
    conv_feed,
    conv_model,
    ekrun,
    engine_args,
    feed_args,
    outputs,
    plant,
    zig_part,
)
from tests.recorded_boards import elf

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# -O0: at -O1 gcc 12 leaves out a check that the negative control below needs.
FLAGS = ["-std=c11", "-g", "-O0", "-Wall", "-Wextra", "-Werror", *SANITIZERS]
FUZZ = Path(__file__).parent / "runner/npy_fuzz.c"


def compile_sanitized(out: Path, *sources: Path) -> Path:
    argv = ["gcc", *FLAGS, f"-I{SOURCES}", *map(str, sources), "-ldl", "-lm", "-o", str(out)]
    subprocess.run(argv, check=True)
    return out


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of ekrun, for this machine."""
    return compile_sanitized(tmp_path_factory.mktemp("sanitized") / "ekrun", *SOURCES.glob("*.c"), zig_part())


def compile_fuzz(folder: Path, parser: Path) -> Path:
    parts = (SOURCES / name for name in ("tensor.c", "attempt.c", "fail.c", "json.c"))
    return compile_sanitized(folder / "fuzz", FUZZ, parser, *parts)


def test_npy_parser_under_the_sanitizers(tmp_path: Path) -> None:
    fuzz = compile_fuzz(tmp_path, SOURCES / "npy.c")
    done = subprocess.run([str(fuzz)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    corpus, mutations, accepted, wrong = map(int, re.findall(r"\d+", done.stdout))
    assert (corpus >= 25, mutations, wrong) == (True, 20000, 0)
    assert 0 < accepted < 2000, "mutants are refused, but some are harmless"


@pytest.mark.parametrize(
    "check", ["npy->offset > size || ", "c->at < c->end && used < size", "(size_t)(c->end - c->at) < length || "]
)
def test_a_missing_bounds_check_is_noticed(tmp_path: Path, check: str) -> None:
    source = (SOURCES / "npy.c").read_text()
    assert check in source
    broken = tmp_path / "npy.c"
    broken.write_text(source.replace(check, "" if check.endswith("|| ") else "used < size"))
    done = subprocess.run([str(compile_fuzz(tmp_path, broken))], capture_output=True, timeout=120)
    assert done.returncode != 0


@pytest.mark.parametrize("checked", [True, False], ids=["checked", "negative control"])
def test_what_the_parser_does_not_set_is_not_read(tmp_path: Path, checked: bool) -> None:
    # The fuzz program paints the stack with a good dtype. The sanitizers' own frames would hide it: built as shipped.
    check, parser = "if (!*descr)", tmp_path / "npy.c"
    source = (SOURCES / "npy.c").read_text()
    assert check in source
    parser.write_text(source if checked else source.replace(check, "if (0)"))
    parts = [str(parser), *(str(SOURCES / name) for name in ("tensor.c", "attempt.c", "fail.c", "json.c"))]
    fuzz = str(tmp_path / "fuzz")
    subprocess.run(["gcc", "-std=c11", "-Os", f"-I{SOURCES}", str(FUZZ), *parts, "-lm", "-o", fuzz], check=True)
    done = subprocess.run([fuzz], capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == checked
    assert ("judged wrongly: {'descr': ''," in done.stderr) != checked


def test_a_whole_run_under_the_sanitizers(tmp_path: Path, sanitized: Path) -> None:
    model, feeds = conv_model(tmp_path / "m.onnx"), conv_feed()
    args = [*engine_args("onnxruntime", model, threads=2), *feed_args(tmp_path, feeds)]
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # the library's own statics
    out = tmp_path / "out"
    (checked,) = outputs(ekrun("run", *args, "--out", out, program=[str(sanitized)], env=env), out)
    (plain,) = outputs(ekrun("run", *args, "--out", out), out)
    np.testing.assert_array_equal(checked, plain)
    assert ekrun("bench", *args, "--runs", 5, program=[str(sanitized)], env=env).json["runs"] == 5


def test_hostile_kernel_files_under_the_sanitizers(tmp_path: Path, sanitized: Path) -> None:
    digits, deep = "9" * 5000, "/a" * 3000
    hostile = {
        "proc/self/cgroup": f"0::{deep}\n:::\n1:cpu\n2:cpu,:/../..\n" + "x" * 9000,
        "proc/self/status": "Name:\tqemu-\xff" + "y" * 5000,
        "proc/meminfo": f"MemTotal: {digits} kB\nMemAvailable: -5 kB\nSwapTotal:",
        "proc/loadavg": "nan inf -1e999999\n",
        "sys/devices/system/cpu/online": f"3-1,{digits}\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": digits,
        "sys/devices/system/cpu/cpu99999999999/cpufreq/cpuinfo_max_freq": "1",
        "sys/devices/system/cpu/cpufreq/policy7/scaling_governor": '\x1b[31m"\\\xff' * 100,
        "sys/class/thermal/thermal_zone3/temp": digits,
        "sys/fs/cgroup/cpu.max": "1 0\n",
        "sys/fs/cgroup/memory.max": f"{digits}\n",
        "sys/fs/cgroup/cpuset.cpus.effective": "0-4095,0-4095\n",
        "proc/cpuinfo": f"processor: {digits}\nCPU part: -1\nCPU part : {digits}\nprocessor\nCPU part:\n"
        + "CPU part: 0xd03\n" * 9000,
        "proc/device-tree/model": "x" * 5000,
        "proc/device-tree/compatible": "\0\0" + "y\0" * 4000,
        "sys/devices/soc0/soc_id": "\x1b[2J" * 300,
        "sys/class/thermal/thermal_zone3/trip_point_0_type": "critical" * 50,
        "sys/class/thermal/thermal_zone3/trip_point_0_temp": digits,
        "sys/devices/platform/soc/soc:firmware/get_throttled": digits,
        "sys/class/hwmon/hwmon3/name": "rpi_volt",
        "sys/class/hwmon/hwmon3/in0_lcrit_alarm": "-9223372036854775808",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "9223372036854775807",
        "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "9223372036854775807",
        "sys/devices/system/cpu/cpu0/cpu_capacity": digits,
        "lib/libc.so.6": elf("x86_64", b"GNU C Library" + b"z" * 300 + b" version 9.9"),
        "usr/lib/libc.so.6": elf("x86_64")[:30],
        "lib64/libc.so.6": elf("x86_64", b"GNU C Library version 99999999."),
        "lib64/libstdc++.so.6": elf("x86_64", b"GLIBCXX_3.4.GLIBCXX_3.4.77GLIBCXX_3.4."),
        "bin/sh": b"\x7fELF",
        "proc/1/exe": b"\x7fELF\xff",
    }
    answer = ekrun("facts", "--root", plant(tmp_path, hostile), program=[str(sanitized)])
    assert answer.code == 0, answer.stderr
    found = answer.json
    assert found["cpus_online"] is None
    assert found["ram_total_bytes"] is None
    assert found["cgroup_cpu_quota"] is None
    assert found["conditions"]["load_average"] == [None, None, None]
    for name in ("cgroup_memory_limit_bytes", "cpuset", "glibc", "userland_bits"):
        assert found[name] is None, name
    assert found["libstdcxx"] == "3.4.77"
    assert found["throttled"] == {"raspberry_pi": None, "under_voltage": None, "core_throttle_count": None}
    assert set(found["soc"]["compatible"]) == {"y"}
    assert "\x1b" in found["conditions"]["frequencies"][0]["governor"]


def test_the_report_of_an_illegal_instruction_under_the_sanitizers(tmp_path: Path, sanitized: Path) -> None:
    trap = 'static void body(void) { __asm__ volatile("ud2"); }'
    folder = tmp_path / ("very" * 60) / ("long" * 60) / ("name" * 60)
    folder.mkdir(parents=True)
    answer = ekrun("run", *compile_engine(folder, trap), program=[str(sanitized)])
    assert (answer.code, answer.json["error"]["code"]) == (9, "illegal_instruction"), answer.stderr


ONLINE = {
    "-2000000000-0,-2000000000-0": None,
    "-9223372036854775808-5": None,
    "9223372036854775807": None,
    "0-4096": None,
    "0-": None,
    " 1": None,
    "x": None,
    ",": None,
    "0-4095": 4096,
}


@pytest.mark.parametrize("online", ONLINE)
def test_numbers_that_overflow_are_unknown(tmp_path: Path, sanitized: Path, online: str) -> None:
    meminfo = "MemTotal: 9223372036854775807 kB\nSwapTotal: 9007199254740991 kB\nSwapFree: 9007199254740992 kB\n"
    tree = {"proc/meminfo": meminfo, "sys/devices/system/cpu/online": f"{online}\n"}
    for program in (sanitized, built()["x86_64"]):  # as shipped, an overflow would be a SIGILL
        answer = ekrun("facts", "--root", plant(tmp_path, tree), program=[str(program)])
        assert answer.code == 0, answer.stderr
        found = answer.json
        assert found["cpus_online"] == ONLINE[online]
        assert found["ram_total_bytes"] is found["swap_free_bytes"] is None
        assert found["swap_total_bytes"] == 9007199254740991 * 1024


MANY = """
#include "json.h"
int main(void) {
    struct json j;
    answers_open();
    json_open(&j);
    json_begin(&j, NULL, '[');
    for (int64_t i = 0; i < 1000000; i++)
        json_int(&j, NULL, i);
    json_end(&j, ']');
    json_print(&j);
}
"""


def test_an_answer_that_memory_does_not_hold_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "many.c").write_text(MANY)
    parts = [str(SOURCES / name) for name in ("attempt.c", "fail.c", "json.c")]
    many = tmp_path / "many"
    # without the sanitizers: they take more address space than the limit leaves
    subprocess.run(["gcc", "-std=c11", f"-I{SOURCES}", str(tmp_path / "many.c"), *parts, "-o", str(many)], check=True)
    limited = ekrun(program=[str(many)], before=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 20,) * 2))
    assert (limited.code, limited.json["error"]["code"]) == (11, "out_of_memory")
    whole = subprocess.run([str(many)], capture_output=True, check=True)
    assert json.loads(whole.stdout) == list(range(1_000_000))
