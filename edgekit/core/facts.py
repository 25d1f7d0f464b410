"""A device's own facts, as `ekrun facts` reports them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DeviceFacts:
    """What a machine says of itself; None where it does not tell. `usable_threads` = min(affinity, cgroup quota)."""

    arch: str
    isa: tuple[str, ...]
    cpu_model: str | None
    usable_threads: int
    ram_bytes: int
    kernel: str | None
    glibc: str | None
    max_mhz: int | None = None
    governor: str | None = None
    emulated: bool = False


@dataclass(frozen=True)
class Cluster:
    """CPUs of one part and maximum frequency. `part` is ARM's number ("0xd0b"); `capacity` the kernel's, 1024 for the fastest."""

    cpus: tuple[int, ...]
    part: str | None = None
    max_khz: int | None = None
    capacity: int | None = None
    governor: str | None = None


@dataclass(frozen=True)
class Disk:
    """The file system of one folder: what an unprivileged user may still write, and whether programs there are refused."""

    path: str
    free_bytes: int | None
    total_bytes: int | None
    noexec: bool


@dataclass(frozen=True)
class Soc:
    """A system on a chip by its device tree (most specific name first) and by its driver in the kernel."""

    compatible: tuple[str, ...] | None = None
    family: str | None = None
    machine: str | None = None
    soc_id: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class ThermalZone:
    """A temperature, and the lowest ones at which the kernel slows the machine down (passive) or stops it (critical)."""

    zone: int
    type: str | None = None
    millideg: int | None = None
    passive_millideg: int | None = None
    critical_millideg: int | None = None


@dataclass(frozen=True)
class Throttled:
    """What has slowed the machine down.

    `raspberry_pi` is the firmware's flags as hexadecimal: bits 0-3 under-voltage, frequency capped, throttled, soft
    temperature limit, now; bits 16-19 the same since boot (Raspberry Pi documentation, vcgencmd get_throttled).
    """

    raspberry_pi: str | None = None
    under_voltage: bool | None = None
    core_throttle_count: int | None = None


@dataclass(frozen=True)
class FactSheet:
    """Everything a machine says of itself, in the units of the names; None where it does not tell.

    `cpuset` and `cgroup_memory_limit_bytes` are what control groups grant. `glibc` ("2.36") and `libstdcxx` ("3.4.30", the highest
    GLIBCXX symbol version) are of the libraries for `arch`; `libc` names what the system is built on, of 32 bits too.
    """

    arch: str
    isa: tuple[str, ...]
    usable_threads: int
    emulated: bool = False
    board: str | None = None
    soc: Soc = field(default_factory=Soc)
    cpu_model: str | None = None
    cpus_online: int | None = None
    cpus_affinity: int | None = None
    clusters: tuple[Cluster, ...] = ()
    cpuset: tuple[int, ...] | None = None
    cgroup_cpu_quota: float | None = None
    cgroup_memory_limit_bytes: int | None = None
    hwcap: str | None = None
    hwcap2: str | None = None
    ram_total_bytes: int | None = None
    ram_available_bytes: int | None = None
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    page_bytes: int | None = None
    disk: Disk | None = None
    kernel: str | None = None
    libc: str | None = None
    glibc: str | None = None
    libstdcxx: str | None = None
    userland_bits: int | None = None
    governors: Mapping[str, str] = field(default_factory=dict)
    thermal: tuple[ThermalZone, ...] = ()
    throttled: Throttled = field(default_factory=Throttled)
    schema: int = 1


@dataclass(frozen=True)
class EngineLibrary:
    """One pinned engine library closure; `folder` is empty when it is not on this machine."""

    engine: str
    version: str
    arch: str
    size_bytes: int
    folder: str
