"""`ekrun facts`: against what the kernel says here, on recorded boards (`--root`), and on the emulated one."""

import json
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit.runner.client import FactsReply, parse_line
from tests.board import QEMU, board_argv, require_board
from tests.ekrun_tools import Tree, built, ekrun, facts_only, plant
from tests.recorded_boards import BOARDS, elf, libc, raspberry_pi_4

pytestmark = pytest.mark.long


def facts(*args: object, program: list[str] | None = None) -> dict[str, Any]:
    answer = ekrun("facts", *args, program=program or ())
    assert answer.code == 0, answer.stderr
    assert (answer.json["protocol"], answer.json["facts_version"]) == (1, 2)
    return answer.json


def test_facts_of_this_machine() -> None:
    found = facts()
    assert (found["arch"], found["emulated"], found["kernel"]) == ("x86_64", False, platform.release())
    assert found["glibc"] == platform.libc_ver()[1]
    assert found["cpus_affinity"] == len(os.sched_getaffinity(0))
    assert found["cpus_online"] == os.cpu_count()
    assert 1 <= found["usable_threads"] <= found["cpus_affinity"]
    assert found["ram_total_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert len(found["conditions"]["load_average"]) == 3


def test_isa_agrees_with_the_kernel() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split(":")[1].split())
    model = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    names = "sse4_2 avx fma f16c avx2 avx_vnni avx512f avx512dq avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 amx_tile"
    found = facts()
    assert set(found["isa"]) & set(names.split()) == flags & set(names.split())
    assert "sse4_2" in found["isa"]
    assert found["cpu_model"] == model


def test_this_process_and_its_folder(tmp_path: Path) -> None:
    found = facts()
    stat = os.statvfs(".")
    assert found["disk"]["path"] == str(Path.cwd())
    assert found["disk"]["total_bytes"] == stat.f_blocks * stat.f_frsize
    assert found["disk"]["noexec"] == bool(stat.f_flag & os.ST_NOEXEC)
    assert found["page_bytes"] == os.sysconf("SC_PAGE_SIZE")
    words = np.frombuffer(Path("/proc/self/auxv").read_bytes(), np.uint64).reshape(-1, 2).tolist()
    vector = dict(words)
    assert (int(found["hwcap"], 16), int(found["hwcap2"], 16)) == (vector[16], vector.get(26, 0))
    assert facts("--folder", tmp_path)["disk"]["path"] == str(tmp_path)
    assert facts("--folder", tmp_path / "absent")["disk"] is None


@pytest.mark.parametrize("option", ["noexec", "exec"])
def test_a_folder_that_forbids_execution_says_so(tmp_path: Path, option: str) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may mount a file system, in a namespace of its own")
    mount = f'mount -t tmpfs -o {option},size=1m none "$0" && exec "$@" --folder "$0"'
    program = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), str(built()["x86_64"])]
    disk = facts(program=program)["disk"]
    assert disk == {"path": str(tmp_path), "free_bytes": 1 << 20, "total_bytes": 1 << 20, "noexec": option == "noexec"}


def test_the_libraries_here_are_those_that_programs_use() -> None:
    found = facts()
    assert (found["libc"], found["userland_bits"]) == ("glibc", 64)
    libraries = [*Path("/usr").glob("lib*/libstdc++.so.6"), *Path("/usr").glob("lib/x86_64-*/libstdc++.so.6")]
    versions = [int(minor) for path in libraries for minor in re.findall(rb"GLIBCXX_3\.4\.(\d+)", path.read_bytes())]
    assert found["libstdcxx"] == (f"3.4.{max(versions)}" if versions else None)


def test_the_static_build_says_the_same() -> None:
    static, dynamic = facts(program=[str(facts_only()["x86_64"])]), facts()
    changing = {"ram_available_bytes", "swap_free_bytes", "conditions", "disk"}
    assert {k: v for k, v in static.items() if k not in changing} == {
        k: v for k, v in dynamic.items() if k not in changing
    }


PROGRAMS = {
    "ekrun": ("x86_64", lambda: [str(built()["x86_64"])]),
    "ekrun-facts": ("x86_64", lambda: [str(facts_only()["x86_64"])]),
    "ekrun-facts, arm64": ("aarch64", lambda: [QEMU, str(facts_only()["aarch64"])]),
}


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    "program", ["ekrun", "ekrun-facts", pytest.param("ekrun-facts, arm64", marks=pytest.mark.board)]
)
def test_recorded_boards(tmp_path: Path, program: str, board: str) -> None:
    arch, argv = PROGRAMS[program]
    if arch == "aarch64":
        require_board()
    tree, expected = BOARDS[board]
    found = facts("--root", plant(tmp_path, tree(arch)), program=argv())
    assert {name: found[name] for name in expected} == expected
    assert found["arch"] == arch


def test_a_library_of_another_architecture_is_passed_over(tmp_path: Path) -> None:
    tree = {
        "lib64/libc.so.6": libc("aarch64", "x) stable release version 2.17."),
        "lib/libc.so.6": libc("x86_64", "x) development release version 2.38.9000."),
        "lib64/libstdc++.so.6": elf("x86_64", b"GLIBCXX_3.4.x\0GLIBCXX_3.4.12345\0")[:-1],
    }
    found = facts("--root", plant(tmp_path, tree))
    assert (found["glibc"], found["libstdcxx"]) == ("2.38", "3.4.1234")


def test_the_sheet_holds_all_of_it(tmp_path: Path) -> None:
    root = plant(tmp_path, raspberry_pi_4("x86_64"))
    answer = ekrun("facts", "--root", root, "--folder", tmp_path)
    reply = parse_line(json.dumps(answer.json).encode(), FactsReply, "board")
    sheet = json.loads(msgspec.json.encode(reply.sheet()))
    told = answer.json
    elsewhere = {"protocol", "verb", "facts_version", "cpu_parts", "cores_by_max_khz", "conditions"}
    assert set(told) - elsewhere == set(sheet) - {"schema"}
    assert {name: told[name] for name in set(told) - elsewhere} == {k: v for k, v in sheet.items() if k != "schema"}
    assert reply.sheet().clusters[0].cpus == (0, 1, 2, 3)
    assert reply.facts().max_mhz == 1800


def test_affinity_is_this_process_own() -> None:
    argv = ["taskset", "-c", str(min(os.sched_getaffinity(0))), str(built()["x86_64"])]
    found = facts(program=argv)
    assert found["cpus_affinity"] == found["usable_threads"] == 1


def test_absent_is_null(tmp_path: Path) -> None:
    found = facts("--root", tmp_path)
    for name in (
        "cores_by_max_khz",
        "governors",
        "cgroup_cpu_quota",
        "ram_total_bytes",
        "ram_available_bytes",
        "swap_total_bytes",
        "clusters",
        "board",
        "libc",
        "glibc",
        "libstdcxx",
        "userland_bits",
        "thermal",
        "cgroup_memory_limit_bytes",
        "cpuset",
    ):
        assert found[name] is None, name
    assert found["conditions"] == {"load_average": None, "frequencies": None, "thermal": None}
    assert found["usable_threads"] >= 1


def board_tree() -> Tree:
    cpu = "sys/devices/system/cpu"
    khz = {f"{cpu}/cpu{i}/cpufreq/cpuinfo_max_freq": "1800000\n" if i < 4 else "2400000\n" for i in range(6)}
    policies = {
        f"{cpu}/cpufreq/policy{i}/{name}": f"{value}\n"
        for i in (0, 4)
        for name, value in (
            ("scaling_governor", "schedutil"),
            ("scaling_cur_freq", 600000),
            ("scaling_max_freq", 1800000),
        )
    }
    return {
        f"{cpu}/online": "0-3,5\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "48500\n",
        "sys/class/thermal/thermal_zone10/type": "outside\n",
        "sys/class/thermal/thermal_zone10/temp": "-7000\n",
        "sys/class/thermal/thermal_zone2/type": "broken\n",
        "proc/meminfo": "MemTotal:  3884360 kB\nMemFree: 1 kB\nMemAvailable:    3512345 kB\nSwapTotal: 102396 kB\nSwapFree: 0 kB\n",
        "proc/loadavg": "0.52 1.25 0.07 1/123 4567\n",
        **khz,
        **policies,
    }


def test_a_recorded_board(tmp_path: Path) -> None:
    found = facts("--root", plant(tmp_path, board_tree()))
    assert found["cpus_online"] == 5
    assert found["cores_by_max_khz"] == {"1800000": 4, "2400000": 2}
    assert found["governors"] == {"policy0": "schedutil", "policy4": "schedutil"}
    assert (found["ram_total_bytes"], found["swap_free_bytes"]) == (3884360 * 1024, 0)
    conditions = found["conditions"]
    assert conditions["load_average"] == [0.52, 1.25, 0.07]
    assert [zone["millideg"] for zone in conditions["thermal"]] == [48500, None, -7000]
    policy = {"policy": 4, "governor": "schedutil", "khz": 600000, "max_khz": 1800000}
    assert conditions["frequencies"][1] == policy


V2 = "0::/system.slice/app.service\n"
V1 = "5:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n"
CGROUPS: dict[str, tuple[Tree, float | None]] = {
    "v2, own": ({"proc/self/cgroup": V2, "sys/fs/cgroup/system.slice/app.service/cpu.max": "150000 100000\n"}, 1.5),
    "v2, an ancestor's": ({"proc/self/cgroup": V2, "sys/fs/cgroup/system.slice/cpu.max": "50000 100000\n"}, 0.5),
    "v2, the tighter": (
        {
            "proc/self/cgroup": V2,
            "sys/fs/cgroup/system.slice/app.service/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/system.slice/cpu.max": "200000 100000\n",
        },
        2.0,
    ),
    "v2, none": ({"proc/self/cgroup": V2, "sys/fs/cgroup/system.slice/cpu.max": "max 100000\n"}, None),
    "v2, in a container": ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "25000 100000\n"}, 0.25),
    "v1": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
        },
        2.5,
    ),
    "v1, none": (
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
        },
        None,
    ),
    "another controller's": (
        {"proc/self/cgroup": "4:cpuset:/a\n", "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "1\n"},
        None,
    ),
}


@pytest.mark.parametrize("case", CGROUPS)
def test_cgroup_quota(tmp_path: Path, case: str) -> None:
    tree, quota = CGROUPS[case]
    found = facts("--root", plant(tmp_path, tree))
    assert found["cgroup_cpu_quota"] == quota
    cpus = len(os.sched_getaffinity(0))
    assert found["usable_threads"] == (cpus if quota is None else max(1, min(cpus, -int(-quota // 1))))


HETEROGENEOUS = "".join(
    f"processor\t: {i}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
    for i, part in enumerate(["0xd03"] * 4 + ["0xd09"] * 2)
)


def on_board(core: str, *args: object) -> dict[str, Any]:
    require_board()
    return facts(*args, program=[*board_argv(core), str(built()["aarch64"])])


@pytest.mark.board
def test_the_emulated_board_says_so() -> None:
    small, large = on_board("cortex-a53"), on_board("cortex-a76")
    assert (small["arch"], small["emulated"]) == ("aarch64", True)
    assert (small["cpu_model"], large["cpu_model"]) == ("Cortex-A53", "Cortex-A76")
    assert {"fp", "asimd", "crc32"} <= set(small["isa"])
    assert {"asimddp", "asimdhp", "atomics"} <= set(large["isa"]) - set(small["isa"])


@pytest.mark.board
def test_core_names_of_a_heterogeneous_board(tmp_path: Path) -> None:
    found = on_board("cortex-a53", "--root", plant(tmp_path, {"proc/cpuinfo": HETEROGENEOUS}))
    assert found["cpu_model"] == "Cortex-A53 + Cortex-A73"
    assert [(part["part"], part["cpus"]) for part in found["cpu_parts"]] == [("0xd03", 4), ("0xd09", 2)]
    unnamed = plant(tmp_path, {"proc/cpuinfo": HETEROGENEOUS.replace("0xd03", "0xfff")})
    assert on_board("cortex-a53", "--root", unnamed)["cpu_model"] == "0x41:0xfff + Cortex-A73"


@pytest.mark.board
def test_a_core_without_cpuinfo_is_named_by_its_register(tmp_path: Path) -> None:
    assert on_board("cortex-a72", "--root", tmp_path)["cpu_model"] == "Cortex-A72"
