"""Recorded boards: the few files of /proc, /sys and /lib by which `ekrun facts --root` knows a machine.

- Texts are as the kernels write them, cut to what is read; a device tree's strings end with a NUL.
- A library is an ELF header of the asked architecture and the strings that tell its version.
"""

import struct
from collections.abc import Callable

from tests.ekrun_tools import Tree

MACHINES = {"x86_64": 62, "aarch64": 183, "arm": 40}
CPU = "sys/devices/system/cpu"


def elf(arch: str, strings: bytes = b"") -> bytes:
    """A 64-bit little-endian shared object's header (32-bit for "arm"), then `strings`."""
    bits = 1 if arch == "arm" else 2
    identity = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9)
    return identity + struct.pack("<HHI", 3, MACHINES[arch], 1) + bytes(40) + strings


def libc(arch: str, banner: str) -> bytes:
    return elf(arch, b"\0/etc/suid-debug\0" + f"GNU C Library ({banner}\n".encode() + b"Copyright (C)\0")


def libstdcxx(arch: str, highest: int) -> bytes:
    versions = b"".join(b"GLIBCXX_3.4.%d\0" % minor for minor in (1, highest, 9))
    return elf(arch, b"\0GLIBCXX_3.4\0" + versions + b"GLIBCXX_DEBUG_MESSAGE_LENGTH\0CXXABI_1.3.99\0")


def cpuinfo(parts: list[str]) -> str:
    return "".join(
        f"processor\t: {i}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
        for i, part in enumerate(parts)
    )


def cpufreq(khz: list[int], governor: str = "ondemand", capacity: list[int] | None = None) -> Tree:
    tree = {f"{CPU}/online": f"0-{len(khz) - 1}\n"}
    for i, value in enumerate(khz):
        tree[f"{CPU}/cpu{i}/cpufreq/cpuinfo_max_freq"] = f"{value}\n"
        tree[f"{CPU}/cpu{i}/cpufreq/scaling_governor"] = f"{governor}\n"
        if capacity:
            tree[f"{CPU}/cpu{i}/cpu_capacity"] = f"{capacity[i]}\n"
    for first in sorted({khz.index(value) for value in khz}):
        tree[f"{CPU}/cpufreq/policy{first}/scaling_governor"] = f"{governor}\n"
    return tree


def zone(index: int, kind: str, millideg: int, **trips: int) -> Tree:
    """`trips` is type=temperature."""
    folder = f"sys/class/thermal/thermal_zone{index}"
    tree = {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{millideg}\n"}
    for number, (name, value) in enumerate(trips.items()):
        tree[f"{folder}/trip_point_{number}_type"] = f"{name.rstrip('_')}\n"
        tree[f"{folder}/trip_point_{number}_temp"] = f"{value}\n"
    return tree


def raspberry_pi_4(arch: str) -> Tree:
    """Raspberry Pi OS (Debian 12), throttled once for want of voltage."""
    return {
        "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
        "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
        "proc/cpuinfo": cpuinfo(["0xd08"] * 4) + "Hardware\t: BCM2835\nModel\t\t: Raspberry Pi 4\n",
        "proc/meminfo": "MemTotal:        3884360 kB\nMemAvailable:    3512345 kB\nSwapTotal:  102396 kB\nSwapFree: 102396 kB\n",
        **cpufreq([1800000] * 4, capacity=[1024] * 4),
        **zone(0, "cpu-thermal", 48686, critical=110000),
        "sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n",
        "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
        "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
        f"lib/{arch}-linux-gnu/libc.so.6": libc(arch, "Debian GLIBC 2.36-9+deb12u10) stable release version 2.36."),
        f"usr/lib/{arch}-linux-gnu/libstdc++.so.6": libstdcxx(arch, 30),
        "bin/sh": elf(arch),
    }


RASPBERRY_PI_4 = {
    "board": "Raspberry Pi 4 Model B Rev 1.4",
    "soc": {
        "compatible": ["raspberrypi,4-model-b", "brcm,bcm2711"],
        "family": None,
        "machine": None,
        "soc_id": None,
        "revision": None,
    },
    "clusters": [{"cpus": [0, 1, 2, 3], "part": "0xd08", "max_khz": 1800000, "capacity": 1024, "governor": "ondemand"}],
    "governors": {"policy0": "ondemand"},
    "ram_total_bytes": 3884360 * 1024,
    "thermal": [
        {
            "zone": 0,
            "type": "cpu-thermal",
            "millideg": 48686,
            "passive_millideg": None,
            "critical_millideg": 110000,
        }
    ],
    "throttled": {"raspberry_pi": "0x50005", "under_voltage": True, "core_throttle_count": None},
    "libc": "glibc",
    "glibc": "2.36",
    "libstdcxx": "3.4.30",
    "userland_bits": 64,
}


def imx8_musl(arch: str) -> Tree:
    """NXP i.MX8M Mini with BusyBox and musl: no glibc, no libstdc++."""
    return {
        "proc/device-tree/model": "NXP i.MX8MM EVK board\0",
        "proc/device-tree/compatible": "fsl,imx8mm-evk\0fsl,imx8mm\0",
        "sys/devices/soc0/family": "Freescale i.MX\n",
        "sys/devices/soc0/machine": "NXP i.MX8MM EVK board\n",
        "sys/devices/soc0/soc_id": "i.MX8MM\n",
        "sys/devices/soc0/revision": "1.0\n",
        "proc/cpuinfo": cpuinfo(["0xd03"] * 4),
        **cpufreq([1800000] * 4, "schedutil"),
        **zone(0, "cpu-thermal", 41000, passive=85000, critical=95000),
        "lib/ld-musl-aarch64.so.1": elf(arch),
        "bin/sh": elf(arch),
        "proc/self/cgroup": "2:memory:/\n1:cpuset:/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpuset/cpuset.cpus": "0-3\n",
    }


IMX8_MUSL = {
    "board": "NXP i.MX8MM EVK board",
    "soc": {
        "compatible": ["fsl,imx8mm-evk", "fsl,imx8mm"],
        "family": "Freescale i.MX",
        "machine": "NXP i.MX8MM EVK board",
        "soc_id": "i.MX8MM",
        "revision": "1.0",
    },
    "thermal": [
        {
            "zone": 0,
            "type": "cpu-thermal",
            "millideg": 41000,
            "passive_millideg": 85000,
            "critical_millideg": 95000,
        }
    ],
    "throttled": {"raspberry_pi": None, "under_voltage": None, "core_throttle_count": None},
    "libc": "musl",
    "glibc": None,
    "libstdcxx": None,
    "userland_bits": 64,
    "cgroup_memory_limit_bytes": None,
    "cpuset": [0, 1, 2, 3],
}


def rk3588(arch: str) -> Tree:
    """Rockchip RK3588 (four A55, four A76 in two policies), in a container with limits; a Yocto library folder."""
    return {
        "proc/device-tree/model": "Radxa ROCK 5B\0",
        "proc/device-tree/compatible": "radxa,rock-5b\0rockchip,rk3588\0",
        "proc/cpuinfo": cpuinfo(["0xd05"] * 4 + ["0xd0b"] * 4),
        **cpufreq([1800000] * 4 + [2400000] * 4, "performance", [530] * 4 + [1024] * 4),
        **zone(0, "soc-thermal", 52000, passive=75000, passive_=85000, critical=115000),
        **zone(1, "bigcore0-thermal", 55000, hot=0),
        "proc/self/cgroup": "0::/user.slice/edgekit.scope\n",
        "sys/fs/cgroup/user.slice/edgekit.scope/memory.max": "max\n",
        "sys/fs/cgroup/user.slice/memory.max": "2147483648\n",
        "sys/fs/cgroup/user.slice/cpuset.cpus.effective": "4-5,7\n",
        "sys/bus/platform/devices/soc@fe000000:firmware/get_throttled": "0\n",
        "usr/lib64/libc.so.6": libc(arch, "GNU libc) stable release version 2.31."),
        "usr/lib64/libstdc++.so.6": libstdcxx(arch, 28),
        "bin/sh": "#!/bin/busybox\n",
        "proc/1/exe": elf(arch),
    }


RK3588 = {
    "board": "Radxa ROCK 5B",
    "clusters": [
        {"cpus": [0, 1, 2, 3], "part": "0xd05", "max_khz": 1800000, "capacity": 530, "governor": "performance"},
        {"cpus": [4, 5, 6, 7], "part": "0xd0b", "max_khz": 2400000, "capacity": 1024, "governor": "performance"},
    ],
    "cores_by_max_khz": {"1800000": 4, "2400000": 4},
    "cgroup_memory_limit_bytes": 2147483648,
    "cpuset": [4, 5, 7],
    "thermal": [
        {
            "zone": 0,
            "type": "soc-thermal",
            "millideg": 52000,
            "passive_millideg": 75000,
            "critical_millideg": 115000,
        },
        {
            "zone": 1,
            "type": "bigcore0-thermal",
            "millideg": 55000,
            "passive_millideg": None,
            "critical_millideg": None,
        },
    ],
    "throttled": {"raspberry_pi": "0x0", "under_voltage": None, "core_throttle_count": None},
    "libc": "glibc",
    "glibc": "2.31",
    "libstdcxx": "3.4.28",
    "userland_bits": 64,
}


def debian_x86(arch: str) -> Tree:
    """A small x86 box with hot cores of two kinds and a control group of its own."""
    return {
        "sys/class/dmi/id/product_name": "NUC11ATKC4\n",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Celeron(R) N5105 @ 2.00GHz\nflags\t\t: sse4_2\n",
        **cpufreq([2900000] * 2 + [2000000] * 2, "powersave"),
        **{f"{CPU}/cpu{i}/thermal_throttle/core_throttle_count": f"{i}\n" for i in range(4)},
        **zone(0, "acpitz", 27800, critical=119000),
        "proc/self/cgroup": "4:memory:/a/b\n3:cpuset:/a/b\n",
        "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "536870912\n",
        "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "268435456\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/cpuset/a/b/cpuset.effective_cpus": "0,2\n",
        f"lib/{arch}-linux-gnu/libc.so.6": libc(arch, "Ubuntu GLIBC 2.39-0ubuntu8) stable release version 2.39."),
        f"lib/{arch}-linux-gnu/libstdc++.so.6": libstdcxx(arch, 33),
        "bin/sh": elf(arch),
    }


DEBIAN_X86 = {
    "board": "NUC11ATKC4",
    "soc": {"compatible": None, "family": None, "machine": None, "soc_id": None, "revision": None},
    "clusters": [
        {"cpus": [0, 1], "part": None, "max_khz": 2900000, "capacity": None, "governor": "powersave"},
        {"cpus": [2, 3], "part": None, "max_khz": 2000000, "capacity": None, "governor": "powersave"},
    ],
    "throttled": {"raspberry_pi": None, "under_voltage": None, "core_throttle_count": 6},
    "cgroup_memory_limit_bytes": 268435456,
    "cpuset": [0, 2],
    "libc": "glibc",
    "glibc": "2.39",
    "libstdcxx": "3.4.33",
    "userland_bits": 64,
}


def userland_of_32_bits(arch: str) -> Tree:
    """A 64-bit kernel under a 32-bit Raspberry Pi OS: there are libraries, but none that this architecture could use."""
    assert arch
    return {
        "proc/device-tree/model": "Raspberry Pi 3 Model B Plus Rev 1.3\0",
        "proc/cpuinfo": cpuinfo(["0xd03"] * 4),
        "lib/arm-linux-gnueabihf/libc.so.6": libc("arm", "Debian GLIBC 2.31-13) stable release version 2.31."),
        "lib/libc.so.6": libc("arm", "Debian GLIBC 2.31-13) stable release version 2.31."),
        "usr/lib/libstdc++.so.6": libstdcxx("arm", 28),
        "bin/sh": elf("arm"),
        f"{CPU}/cpu0/topology/core_id": "0\n",
        f"{CPU}/cpu1/topology/core_id": "1\n",
    }


USERLAND_OF_32_BITS = {
    "board": "Raspberry Pi 3 Model B Plus Rev 1.3",
    "clusters": [{"cpus": [0, 1], "part": "0xd03", "max_khz": None, "capacity": None, "governor": None}],
    "libc": "glibc",
    "glibc": None,
    "libstdcxx": None,
    "userland_bits": 32,
    "thermal": None,
    "governors": None,
    "cgroup_memory_limit_bytes": None,
    "cpuset": None,
}

# What the recording holds, and some of what `facts` must say of it.
BOARDS: dict[str, tuple[Callable[[str], Tree], dict[str, object]]] = {
    "raspberry-pi-4": (raspberry_pi_4, RASPBERRY_PI_4),
    "imx8-musl": (imx8_musl, IMX8_MUSL),
    "rk3588": (rk3588, RK3588),
    "debian-x86": (debian_x86, DEBIAN_X86),
    "32-bit userland": (userland_of_32_bits, USERLAND_OF_32_BITS),
}
