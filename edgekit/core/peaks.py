"""The fastest a target could be, for bounds that must never be too low. Pure.

- A figure counts as a peak only where its source says so: an assumption, a definition of a class, or the least that an instruction
  set promises does not, and the best that any core with these features does stands in for it.
- What is not known bounds nothing.
"""

from collections.abc import Collection
from dataclasses import dataclass

from edgekit.core.cost import has_dot_product
from edgekit.core.targets import CLOCK_TOLERANCE, is_generic, source_of
from edgekit.core.types import Cluster, Target

# How sources begin that are chosen (docs/targets.md), or that tell the least a machine does (`targets.host_target`).
NO_PEAK = ("assumption", "definition", "derived from the ISA", "as this machine tells")

FLOATS = ("fp32", "fp16")

# Multiplications that Winograd's algorithm saves at most in the kernels the engines have: F(4x4, 3x3) takes 36 for 144 (Lavin and
# Gray, CVPR 2016, section 4.3). It also stands for taps that lie in the padding, which a direct convolution may skip.
WINOGRAD = 4.0

# int8 without a dot product: a target states what widening to int16 reaches; products kept at 16 bits are twice as many.
UNWIDENED = 2.0

# The fastest clock sold, November 2026: Core i9-14900KS at 6.2 GHz; on Arm none is above 5 GHz.
FASTEST_MHZ = {"x86_64": 6200, "aarch64": 5000}

# Caches that all cores of a kind in one cluster can share, in MiB, at their largest: Arm's technical reference manuals (L2 of A53
# and A72 in the cluster; of the others 0.5 a core, and 4 of L3 in the DynamIQ Shared Unit), Intel's ARK for the N100.
CACHE_MIB = {
    "cortex-a53": 2.0,
    "cortex-a55": 8.0,
    "cortex-a72": 4.0,
    "cortex-a76": 8.0,
    "cortex-a78ae": 16.0,
    "intel-n100": 8.0,
}
SYSTEM_CACHE_MIB = 8.0  # beside the clusters, on a system on a chip: 4 MiB on the largest of those named


@dataclass(frozen=True)
class Peak:
    """Multiply-accumulates a second that no program on the target exceeds, and how that comes about, in words."""

    macs_per_s: float
    text: str


def peak(target: Target, kinds: Collection[str], conv: bool, cores: int | None, measured: bool) -> Peak:
    """Of the fastest `cores` (all if None) in the fastest of `kinds` ("fp32", "fp16", "bf16", "int8"); `conv` for convolutions.

    `measured` means that the figures are taken on a machine that is the target, whose clock may lie a little above it.
    """
    left = target.cores if cores is None else cores
    total, parts = 0.0, []
    ranked = sorted(
        (_core(target, index, kinds, conv, measured) for index in range(len(target.clusters))),
        key=lambda core: -core.macs_per_s,
    )
    for core in ranked:
        used = min(left, core.count)
        if used:
            total += used * core.macs_per_s
            parts.append(f"{used} x {core.text}")
        left -= used
    return Peak(total, " + ".join(parts))


def bandwidth(target: Target) -> float | None:
    """Bytes a second from memory at most; None where that is not known."""
    return target.bandwidth_bytes_per_s if _is_peak(target, "bandwidth_gb_s") else None


def cache_bytes(target: Target) -> float | None:
    """All caches together, at their largest; None where a core's are not known here."""
    sizes = [CACHE_MIB.get(cluster.cpu) for cluster in target.clusters]
    known = [size for size in sizes if size is not None]
    return (sum(known) + SYSTEM_CACHE_MIB) * 2**20 if len(known) == len(sizes) else None


def storage_bytes(target: Target) -> int | None:
    """What there is to store on; None where that is not known."""
    return target.storage_bytes if target.storage_bytes and _is_peak(target, "storage_mib") else None


def ram_bytes(target: Target) -> int | None:
    """What memory there is; None where that is not known."""
    return target.ram_bytes if not source_of(target, "ram_mib").startswith(NO_PEAK[:2]) else None


@dataclass(frozen=True)
class _Core:
    """One core of a cluster at its best."""

    count: int
    macs_per_s: float
    text: str


def _core(target: Target, index: int, kinds: Collection[str], conv: bool, measured: bool) -> _Core:
    cluster = target.clusters[index]
    rates = {kind: _rate(target, index, kind) * (WINOGRAD if conv and kind in FLOATS else 1.0) for kind in kinds}
    kind = max(rates, key=lambda name: rates[name])
    mhz = _mhz(target, index, measured)
    how = f"{kind} by Winograd" if conv and kind in FLOATS else kind
    clock = f"{mhz / 1000:.3g} GHz{', the fastest sold,' if mhz == FASTEST_MHZ[target.arch] else ''}"
    text = f"{cluster.cpu} at {clock} x {rates[kind]:g} MACs a cycle ({how})"
    return _Core(cluster.cores, rates[kind] * mhz * 1e6, text)


def _mhz(target: Target, index: int, measured: bool) -> float:
    if is_generic(target) or not _is_peak(target, f"clusters.{index}.max_mhz"):
        return float(FASTEST_MHZ[target.arch])
    return target.clusters[index].max_mhz * (1 + CLOCK_TOLERANCE if measured else 1.0)


def _rate(target: Target, index: int, kind: str) -> float:
    """Multiply-accumulates a cycle: what the target states where that is its peak, else the best the features allow."""
    cluster, best = target.clusters[index], _best_rate(target.arch, target.isa, kind)
    if kind == "bf16" or is_generic(target) or not _is_peak(target, f"clusters.{index}.{kind}_macs_per_cycle"):
        return best
    stated = _stated(cluster, kind)
    return stated * UNWIDENED if kind == "int8" and not has_dot_product(target) else stated


def _stated(cluster: Cluster, kind: str) -> float:
    rates = {
        "fp32": cluster.fp32_macs_per_cycle,
        "fp16": cluster.fp16_macs_per_cycle,
        "int8": cluster.int8_macs_per_cycle,
    }
    return rates[kind]


def _best_rate(arch: str, isa: Collection[str], kind: str) -> float:
    """What the widest core with these features does in a cycle, by how many vector pipes of which width there have been.

    x86: two of 512 bits (Zen 5, Golden Cove) or of 256; VPDPBUSD 64 int8 and VDPBF16PS 32 bf16 MACs each; a tile of AMX 1024 int8,
    512 bf16 (Intel's Optimization Reference Manual, 248966). Arm: four of 128 bits (Neoverse V1, Cortex-X), with SVE two of 512
    (A64FX); SDOT 16, SMMLA 32, BFMMLA 16 MACs for each 128 bits.
    """
    has = set(isa)
    if arch == "aarch64":
        wide = 2.0 if "sve" in has else 1.0
        int8 = 128.0 if "i8mm" in has else 64.0 if "asimddp" in has else 32.0
        bf16 = 64.0 if "bf16" in has else 0.0
        return wide * {"fp32": 16.0, "fp16": 32.0, "bf16": bf16, "int8": int8}[kind]
    fp32 = 32.0 if "avx512f" in has else 16.0
    tiled = 512.0 if "amx_bf16" in has else 0.0
    bf16 = max(2 * fp32, tiled) if has & {"avx512_bf16", "amx_bf16"} else 0.0
    vnni = 128.0 if has & {"avx512f", "avx_vnni", "avx512_vnni"} else 64.0
    int8 = 1024.0 if "amx_int8" in has else vnni
    return {"fp32": fp32, "fp16": max(2 * fp32, tiled), "bf16": bf16, "int8": int8}[kind]


def _is_peak(target: Target, key: str) -> bool:
    source = source_of(target, key)
    return bool(source) and not source.startswith(NO_PEAK)
