"""A device's own facts, as `ekrun facts` reports them."""

from dataclasses import dataclass


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
class EngineLibrary:
    """One pinned engine library closure; `folder` is empty when it is not on this machine."""

    engine: str
    version: str
    arch: str
    size_bytes: int
    folder: str
