"""`ekrun facts`: against what the kernel says here, on recorded boards (`--root`), and on the emulated one."""

import os
import platform
from pathlib import Path
from typing import Any

import pytest

from tests.arm64_root import board_argv, default_cache, require_board
from tests.ekrun_tools import Tree, built, ekrun, plant


def facts(*args: object, program: list[str] | None = None) -> dict[str, Any]:
    answer = ekrun("facts", *args, program=program or ())
    assert answer.code == 0, answer.stderr
    assert (answer.json["protocol"], answer.json["facts_version"]) == (1, 1)
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
    return facts(*args, program=[*board_argv(default_cache(), core), str(built()["aarch64"])])


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
