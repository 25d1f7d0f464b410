"""Which target a machine is, by its fact sheet, and a target's file for a machine that is none of them.

- a name in the device tree decides, unless the cores contradict it: cut-down chips bear the whole one's name too;
- without a device tree, all of ISA, kinds and number of cores, and clock decide, as for the host;
- a written target holds what was measured, with the date, and marks what nobody measured as an assumption.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekit.core.facts import DeviceFacts, FactSheet
from edgekit.core.targets import (
    ASSUMED_BANDWIDTH_BYTES_PER_S,
    ASSUMED_MHZ,
    ISA_FEATURES,
    SCHEMA,
    cpu_kind,
    host_matches,
    host_target,
    is_generic,
    macs_per_cycle,
    parse_target,
)
from edgekit.core.types import Cluster, Target
from edgekit.errors import DeviceError

_MIB = 1 << 20

# Arm's part numbers for the cores of boards: the technical reference manuals, MIDR_EL1, bits 15 to 4.
ARM_PARTS: Mapping[str, str] = {
    "0xd03": "cortex-a53",
    "0xd04": "cortex-a35",
    "0xd05": "cortex-a55",
    "0xd07": "cortex-a57",
    "0xd08": "cortex-a72",
    "0xd09": "cortex-a73",
    "0xd0a": "cortex-a75",
    "0xd0b": "cortex-a76",
    "0xd0c": "neoverse-n1",
    "0xd0d": "cortex-a77",
    "0xd0e": "cortex-a76ae",
    "0xd41": "cortex-a78",
    "0xd42": "cortex-a78ae",
    "0xd46": "cortex-a510",
    "0xd47": "cortex-a710",
    "0xd48": "cortex-x2",
    "0xd4b": "cortex-a78c",
    "0xd4d": "cortex-a715",
    "0xd80": "cortex-a520",
    "0xd81": "cortex-a720",
}

# Cores of boards that qemu-user 7.2 has by name (-cpu help).
_QEMU = ("cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1")


@dataclass(frozen=True)
class Match:
    """The target a machine is, why, and what is different all the same, one line each."""

    target: Target
    reason: str
    differences: tuple[str, ...] = ()


def match_target(sheet: FactSheet, targets: Iterable[Target]) -> Match | None:
    """The one of `targets` that the machine is, or None. No emulated machine is a board, no class of machines a match."""
    if sheet.emulated:
        return None
    boards = [t for t in targets if t.arch == sheet.arch and not is_generic(t) and not set(t.isa) - set(sheet.isa)]
    by_name = (match for board in boards if (match := _by_device_tree(sheet, board)) is not None)
    by_cores = (match for board in boards if (match := _by_cores(sheet, board)) is not None)
    return next(by_name, None) or next(by_cores, None)


def _by_device_tree(sheet: FactSheet, board: Target) -> Match | None:
    names = [name for name in sheet.soc.compatible or () if name in board.compatible]
    if not names or _contradicts(sheet, board):
        return None
    return Match(board, f"its device tree says {names[0]}", tuple(host_matches(board, device_facts(sheet))))


def _contradicts(sheet: FactSheet, board: Target) -> bool:
    """Whether the cores, as far as they are told, are not the board's: of another kind, or more or fewer."""
    kinds = {core_name(cluster.part) for cluster in sheet.clusters if cluster.part is not None}
    count = sum(len(cluster.cpus) for cluster in sheet.clusters)
    wanted = {cpu_kind(cluster.cpu) for cluster in board.clusters}
    return bool(kinds and kinds != wanted) or bool(count and count != board.cores)


def _by_cores(sheet: FactSheet, board: Target) -> Match | None:
    """Only where there is no device tree: one that names another board is right."""
    if sheet.soc.compatible or host_matches(board, device_facts(sheet)):
        return None
    cores = " and ".join(f"{c.cores}x {c.cpu} at {c.max_mhz} MHz" for c in board.clusters)
    return Match(board, f"it has the same cores, {cores}")


def core_name(part: str) -> str:
    """Arm's name of a part number, or the number."""
    return ARM_PARTS.get(part.lower(), part.lower())


def device_facts(sheet: FactSheet) -> DeviceFacts:
    """The part of a sheet that targets are compared by."""
    clocks = [cluster.max_khz for cluster in sheet.clusters if cluster.max_khz is not None]
    return DeviceFacts(
        arch=sheet.arch,
        isa=sheet.isa,
        cpu_model=sheet.cpu_model,
        usable_threads=max(1, sheet.usable_threads),
        ram_bytes=sheet.ram_total_bytes or 0,
        kernel=sheet.kernel,
        glibc=sheet.glibc,
        max_mhz=max(clocks) // 1000 if clocks else None,
        governor="+".join(sorted(set(sheet.governors.values()))) or None,
        emulated=sheet.emulated,
    )


# ------------------------------------------------------------------------------------------------------------- a new target


def target_from_facts(sheet: FactSheet, name: str, date: str) -> str:
    """The text of `targets/<name>.toml` for a machine, which `parse_target` accepts; `date` is when it was probed.

    Raises DeviceError when the machine does not tell what a target cannot do without, InputRejected for a name that is none.
    """
    needed = (("memory", sheet.ram_total_bytes), ("glibc", sheet.glibc))  # a guess would admit what cannot run
    missing = [what for what, told in needed if told is None]
    if missing or sheet.emulated:
        what = "it is emulated" if sheet.emulated else f"it does not tell its {' and '.join(missing)}"
        raise DeviceError(f"no target can be written for this machine: {what}", next_step="see docs/targets.md")
    text = _toml(sheet, host_target(device_facts(sheet)), name, date)
    parse_target(text, f"{name}.toml", name)
    return text


def _toml(sheet: FactSheet, host: Target, name: str, date: str) -> str:
    probed = f"measured by edgekit device probe on {date}"
    storage = sheet.disk.total_bytes if sheet.disk is not None else None
    clusters = _clusters(sheet, host.clusters[0])
    compatible = list((sheet.soc.compatible or ())[:1])
    emulated, emulated_source = _emulation(host.arch, clusters)
    known = [feature for feature in host.isa if feature in ISA_FEATURES[host.arch]]
    rates = f"derived from the ISA, the least it promises: {host.sources['clusters.0.fp32_macs_per_cycle']}"
    top: dict[str, object] = {
        "schema": SCHEMA,
        "name": name,
        "summary": _summary(sheet, clusters),
        "arch": host.arch,
        **({"compatible": compatible} if compatible else {}),
        "isa": known,
        "ram_mib": max(1, host.ram_bytes // _MIB),
        "storage_mib": max(1, (storage or ASSUMED_STORAGE_BYTES) // _MIB),
        "glibc": host.glibc,
        "bandwidth_gb_s": ASSUMED_BANDWIDTH_BYTES_PER_S / 1e9,
        "emulation_cpu": emulated,
    }
    sources = {
        **({"compatible": probed} if compatible else {}),
        "isa": probed,
        "ram_mib": f"{probed}: what the kernel manages, a little less than what is fitted",
        "storage_mib": f"{probed}: the file system of its work folder" if storage else _UNKNOWN_STORAGE,
        "glibc": probed,
        "bandwidth_gb_s": f"assumption: {host.sources['bandwidth_gb_s'].removeprefix('assumption: ')}; nobody measured it",
        "emulation_cpu": emulated_source,
        "clusters": probed,
        **({"engines": "the newest pinned releases for this glibc"} if host.engines else {}),
        "numeric": "derived from the ISA, see docs/targets.md",
    }
    for index in range(len(clusters)):
        sources |= {f"clusters.{index}.{kind}_macs_per_cycle": rates for kind in ("fp32", "fp16", "int8")}
        if _clock_of(sheet, index) is None:
            sources[f"clusters.{index}.max_mhz"] = "assumption: this machine does not tell its clock"
    numeric = vars(host.numeric)
    parts = [_lines(top), *(f"[[clusters]]\n{_lines(vars(c))}" for c in clusters)]
    parts += [f"[engines]\n{_lines(host.engines)}", f"[numeric]\n{_lines(numeric)}", f"[sources]\n{_lines(sources)}"]
    return "\n".join(parts)


ASSUMED_STORAGE_BYTES = 8 << 30
_UNKNOWN_STORAGE = "assumption: 8 GB; this machine does not tell the size of its disk"


def _clock_of(sheet: FactSheet, index: int) -> int | None:
    return sheet.clusters[index].max_khz if index < len(sheet.clusters) else None


def _clusters(sheet: FactSheet, whole: Cluster) -> list[Cluster]:
    """The machine's clusters, or one of all its cores where it does not tell them apart."""
    fp32, fp16, int8 = macs_per_cycle(sheet.arch, sheet.isa)
    told = [
        Cluster(
            cpu=core_name(cluster.part) if cluster.part is not None else whole.cpu,
            cores=len(cluster.cpus),
            max_mhz=max(1, (cluster.max_khz or ASSUMED_MHZ * 1000) // 1000),
            fp32_macs_per_cycle=fp32,
            fp16_macs_per_cycle=fp16,
            int8_macs_per_cycle=int8,
        )
        for cluster in sheet.clusters
        if cluster.cpus
    ]
    return told or [whole]


def _summary(sheet: FactSheet, clusters: list[Cluster]) -> str:
    board = " ".join((sheet.board or sheet.cpu_model or sheet.arch).split())
    return f"{board}, {' and '.join(f'{c.cores}x {c.cpu} at {c.max_mhz} MHz' for c in clusters)}"


def _emulation(arch: str, clusters: list[Cluster]) -> tuple[str, str]:
    """A cpu of qemu's with no more features than the machine, and why that one."""
    least = min(clusters, key=lambda c: c.max_mhz).cpu
    if arch == "aarch64" and all(c.cpu == least for c in clusters) and least in _QEMU:
        return least, "qemu-aarch64 7.2 -cpu help"
    if arch == "aarch64":
        return "cortex-a53", "assumption: the least core of AArch64 boards; qemu-aarch64 7.2 -cpu help"
    return "Haswell", "assumption: the first core with AVX2 and FMA; qemu-x86_64 7.2 -cpu help"


def _lines(values: Mapping[str, object]) -> str:
    """`key = value` lines."""
    return "".join(f"{_value(key) if '.' in key else key} = {_value(value)}\n" for key, value in values.items())


def _value(value: object) -> str:
    """JSON's text, number, flag or list is TOML's, but for the character DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
