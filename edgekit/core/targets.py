"""Targets as data: a TOML text becomes a Target, or one line that says what is wrong with it.

- a target is one file and no code; every figure in it has a source, and a source without a figure is an error;
- a figure's source is the entry of `[sources]` for its own key ("ram_mib", "clusters.0.max_mhz"), else that of the table it
  stands in ("clusters.0", "clusters", "engines", "numeric");
- the text is untrusted: bounded, every value checked for type and range, unknown keys refused;
- a target whose clusters are of the cpu "generic" names a class of machines and no speed: no machine is it.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from edgekit.core.facts import DeviceFacts
from edgekit.core.tomltable import TomlTable, did_you_mean, read_toml
from edgekit.core.types import Cluster, NumericRules, Target
from edgekit.errors import InputRejected

SCHEMA = 1
HOST = "host"
GENERIC = "generic"
IDENTITY = ("schema", "name", "summary", "arch")
HELP_PAGE = "docs/targets.md"

_MIB = 1 << 20
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_INT8_TYPES = ("uint8", "int8")

# aarch64: the kernel's HWCAP names (Documentation/arch/arm64/elf_hwcaps.rst); x86_64: the features engines choose kernels by.
_AARCH64 = (
    "fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp "
    "sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp sve2 flagm2 frint svei8mm svebf16 i8mm "
    "bf16 dgh rng bti"
)
_X86_64 = (
    "sse4_2 avx avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16"
)
ISA_FEATURES: Mapping[str, frozenset[str]] = {
    "aarch64": frozenset(_AARCH64.split()),
    "x86_64": frozenset(_X86_64.split()),
}
FP16_ARITHMETIC = frozenset({"asimdhp"})

# engine -> architecture -> (lowest glibc, newest pinned release for it), newest first: wheel tags on PyPI, November 2026.
# onnxruntime below 1.19.2 has no libonnxruntime.so on aarch64; openvino on aarch64 below 2025.2.0 is not driven.
ENGINE_FLOORS: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "onnxruntime": {
        "aarch64": (("2.28", "1.32.0"), ("2.27", "1.28.0")),
        "x86_64": (("2.28", "1.32.0"), ("2.27", "1.28.0")),
    },
    "openvino": {
        "aarch64": (("2.35", "2026.4.1"), ("2.31", "2025.2.0")),
        "x86_64": (("2.28", "2026.4.1"), ("2.17", "2025.2.0")),
    },
}


def version_key(version: str) -> tuple[int, ...]:
    """A dotted version as numbers, so that 2.4 comes before 2.28."""
    return tuple(int(part) for part in version.split("."))


def newest_engine(engine: str, arch: str, glibc: str) -> str | None:
    """The newest release of `engine` that `arch` with `glibc` can load, or None when there is none."""
    have = version_key(glibc)
    floors = ENGINE_FLOORS.get(engine, {}).get(arch, ())
    return next((version for floor, version in floors if version_key(floor) <= have), None)


def newest_engines(arch: str, glibc: str) -> dict[str, str]:
    """The newest release of each engine that `arch` with `glibc` can load, of those that have one."""
    return {engine: newest for engine in ENGINE_FLOORS if (newest := newest_engine(engine, arch, glibc))}


def is_name(text: str) -> bool:
    """Whether `text` is a target's or a data set's name: lower case letters, digits and dashes, no path."""
    return _NAME.fullmatch(text) is not None


def is_generic(target: Target) -> bool:
    """Whether the target names a class of machines."""
    return any(cluster.cpu == GENERIC for cluster in target.clusters)


def source_of(target: Target, key: str) -> str:
    """Where a figure comes from, by its key path; the nearest entry counts. An empty string when there is none."""
    return next((target.sources[path] for path in _self_and_tables(key) if path in target.sources), "")


def parse_target(text: str, where: str, expected_name: str | None = None) -> Target:
    """A target file's text as a Target. `expected_name` is the file's stem, which the name inside must equal.

    Raises InputRejected for text that is not TOML, and for a key that is missing, unknown, of the wrong type, out of range or
    without a source.
    """
    top = read_toml(text, where, HELP_PAGE)
    if (schema := top.integer("schema", 1, 1 << 16)) != SCHEMA:
        raise _rejected(where, f"schema {schema} is not known", f"this edgekit reads schema {SCHEMA}")
    name, summary = top.text("name"), top.text("summary")
    _check_name(name, expected_name, where)
    arch = top.choice("arch", tuple(ISA_FEATURES))
    glibc = top.version("glibc")
    target = Target(
        name=name,
        summary=summary,
        arch=arch,
        isa=_isa(top, arch),
        clusters=tuple(_cluster(table) for table in top.tables("clusters")),
        ram_bytes=top.integer("ram_mib", 1, 1 << 24) * _MIB,
        storage_bytes=top.integer("storage_mib", 1, 1 << 30) * _MIB,
        glibc=glibc,
        bandwidth_bytes_per_s=top.number("bandwidth_gb_s", 0.01, 10_000) * 1e9,
        engines=_engines(top.table("engines"), arch, glibc),
        numeric=_numeric(top.table("numeric")),
        emulation_cpu=top.text("emulation_cpu"),
        sources=_sources(top.table("sources")),
        compatible=top.texts("compatible") if "compatible" in top else (),
    )
    top.refuse_unknown({"compatible"})
    _check_fp16(target, where)
    _check_sources(_figures(top), target.sources, where)
    return target


def _rejected(where: str, what: str, next_step: str = "") -> InputRejected:
    return InputRejected(what, where=where, next_step=next_step)


def _check_name(name: str, expected: str | None, where: str) -> None:
    if not is_name(name):
        raise _rejected(where, f"name {name!r} is not a target's name", "use lower case letters, digits and dashes")
    if name == HOST:
        raise _rejected(where, f"the name {HOST!r} is taken by the machine edgekit runs on", "choose another name")
    if expected is not None and name != expected:
        raise _rejected(where, f"name {name!r} is not the file's name", f"call it {expected!r} or rename the file")


def _isa(top: TomlTable, arch: str) -> tuple[str, ...]:
    features = top.texts("isa")
    for feature in features:
        if feature not in ISA_FEATURES[arch]:
            raise top.wrong("isa", f"{feature!r} is no {arch} feature{did_you_mean(feature, ISA_FEATURES[arch])}")
    return features


def _cluster(table: TomlTable) -> Cluster:
    cluster = Cluster(
        cpu=table.text("cpu"),
        cores=table.integer("cores", 1, 1024),
        max_mhz=table.integer("max_mhz", 1, 20_000),
        fp32_macs_per_cycle=table.number("fp32_macs_per_cycle", 0.01, 100_000),
        fp16_macs_per_cycle=table.number("fp16_macs_per_cycle", 0, 100_000),
        int8_macs_per_cycle=table.number("int8_macs_per_cycle", 0.01, 100_000),
    )
    table.refuse_unknown()
    return cluster


def _engines(table: TomlTable, arch: str, glibc: str) -> dict[str, str]:
    engines = {engine: table.version(engine) for engine in ENGINE_FLOORS if engine in table}
    table.refuse_unknown(ENGINE_FLOORS)
    for engine, version in engines.items():
        newest = newest_engine(engine, arch, glibc)
        if newest is None:
            raise table.wrong(engine, f"no release of it runs on {arch} with glibc {glibc}: leave it out")
        if version_key(version) > version_key(newest):
            raise table.wrong(engine, f"{version} needs a newer glibc than {glibc}: the newest there is {newest}")
    return engines


def _numeric(table: TomlTable) -> NumericRules:
    rules = NumericRules(
        activation_type=table.choice("activation_type", _INT8_TYPES),
        weight_type=table.choice("weight_type", _INT8_TYPES),
        per_channel=table.flag("per_channel"),
        reduce_range=table.flag("reduce_range"),
    )
    table.refuse_unknown()
    return rules


def _sources(table: TomlTable) -> dict[str, str]:
    return {key: table.text(key) for key in table}


def _figures(top: TomlTable) -> set[str]:
    """Key paths of all that needs a source: everything but what only names the target."""
    return {path for path in top.values_read() if path not in IDENTITY and not path.startswith("sources.")}


def _check_fp16(target: Target, where: str) -> None:
    """A peak for fp16 needs instructions for it."""
    for index, cluster in enumerate(target.clusters):
        if cluster.fp16_macs_per_cycle and not FP16_ARITHMETIC & set(target.isa):
            what = f"clusters.{index}.fp16_macs_per_cycle: the isa has no fp16 arithmetic"
            raise _rejected(where, what, "set it to 0")


def _check_sources(figures: set[str], sources: Mapping[str, str], where: str) -> None:
    for figure in sorted(figures):
        if not any(path in sources for path in _self_and_tables(figure)):
            raise _rejected(where, f"{figure} has no source", f'add "{figure}" to [sources]')
    places = {path for figure in figures for path in _self_and_tables(figure)}
    for key in sorted(set(sources) - places):
        raise _rejected(where, f"sources.{key}: there is no such figure{did_you_mean(key, places)}")


def _self_and_tables(key: str) -> Iterator[str]:
    """ "clusters.0.cpu" -> itself, "clusters.0", "clusters"."""
    while key:
        yield key
        key = key.rpartition(".")[0]


# ---------------------------------------------------------------------------------------------------------- this machine

# A machine's clock may be this far from the target's: silicon is binned, and cpufreq rounds.
CLOCK_TOLERANCE = 0.1

# What a machine does not tell is assumed low: these feed predictions only, and on the host everything is measured.
ASSUMED_MHZ = 1000
ASSUMED_BANDWIDTH_BYTES_PER_S = 10e9


def host_matches(target: Target, facts: DeviceFacts, who: str = "this machine") -> list[str]:
    """Why the machine of `facts`, called `who`, is not the target, one reason each; empty when figures taken here are the target's.

    A class of machines (`is_generic`) has no speed, so no machine is it. The target `host` is any machine.
    """
    if target.name == HOST:
        return []
    if facts.arch != target.arch:
        return [f"{who} is {facts.arch}, {target.name} is {target.arch}"]
    missing = [feature for feature in target.isa if feature not in facts.isa]
    reasons = [f"{who} has no {', '.join(missing)}"] if missing else []
    if facts.emulated:
        reasons.append(f"{who} is emulated")
    if is_generic(target):
        return [*reasons, f"{target.name} names a class of machines, not one"]
    return reasons + _other_board(target, facts, who)


def _other_board(target: Target, facts: DeviceFacts, who: str) -> list[str]:
    """Differences in the cores: their kinds, number and clock."""
    reasons = []
    wanted = {cpu_kind(cluster.cpu) for cluster in target.clusters}
    if (kinds := _cpu_kinds(facts)) != wanted:
        here = " and ".join(sorted(kinds)) or "unknown"
        reasons.append(f"{who}'s cpu is {here}, {target.name} has {' and '.join(sorted(wanted))}")
    if facts.usable_threads != target.cores:
        reasons.append(f"{facts.usable_threads} cores are usable here, {target.name} has {target.cores}")
    fastest = max(cluster.max_mhz for cluster in target.clusters)
    if facts.max_mhz is None:
        reasons.append(f"{who} does not tell its clock")
    elif abs(facts.max_mhz - fastest) > CLOCK_TOLERANCE * fastest:
        reasons.append(f"{who} runs at {facts.max_mhz} MHz, {target.name} at {fastest}")
    return reasons


def cpu_kind(model: str) -> str:
    """A cpu's name in one spelling: "ARM Cortex-A76" and "cortex-a76" are one, "Intel(R) N100" is "intel-n100"."""
    plain = re.sub(r"\((r|tm)\)", " ", model.lower())
    return "-".join(re.findall(r"[a-z0-9.]+", plain)).removeprefix("arm-")


def _cpu_kinds(facts: DeviceFacts) -> set[str]:
    """The kinds of core the machine names; several are joined by a comma or a plus."""
    return {kind for part in re.split(r"[,+]", facts.cpu_model or "") if (kind := cpu_kind(part))}


def host_target(facts: DeviceFacts, engines: Mapping[str, str] | None = None) -> Target:
    """The target `host`: the machine itself, by its own facts, with `engines` or the newest that its glibc admits.

    `storage_bytes` is 0, not known. Rates come from the ISA alone, the least that cores with these features do.
    """
    cluster = _host_cluster(facts)
    told = "as this machine tells"
    glibc = facts.glibc or "0.0"
    return Target(
        name=HOST,
        summary=f"This machine: {facts.cpu_model or facts.arch}",
        arch=facts.arch,
        isa=facts.isa,
        clusters=(cluster,),
        ram_bytes=facts.ram_bytes,
        storage_bytes=0,
        glibc=glibc,
        bandwidth_bytes_per_s=ASSUMED_BANDWIDTH_BYTES_PER_S,
        engines=newest_engines(facts.arch, glibc) if engines is None else dict(engines),
        numeric=numeric_rules(facts.arch, facts.isa),
        emulation_cpu="",
        sources={
            **dict.fromkeys(("isa", "ram_mib", "glibc", "clusters"), told),
            **({} if facts.max_mhz else {"clusters.0.max_mhz": "assumption: this machine does not tell its clock"}),
            **{f"clusters.0.{kind}_macs_per_cycle": _HOST_RATES_SOURCE for kind in ("fp32", "fp16", "int8")},
            "bandwidth_gb_s": "assumption: one channel of a slow memory",
            "engines": "the newest pinned releases for this glibc, or the caller's",
            "numeric": "by the ISA, see docs/targets.md",
        },
    )


def _host_cluster(facts: DeviceFacts) -> Cluster:
    fp32, fp16, int8 = macs_per_cycle(facts.arch, facts.isa)
    name = cpu_kind(facts.cpu_model or "") or facts.arch
    return Cluster(name, facts.usable_threads, facts.max_mhz or ASSUMED_MHZ, fp32, fp16, int8)


_HOST_RATES_SOURCE = (
    "derived from the ISA: x86 by Intel's Optimization Reference Manual (248966), two 256-bit FMA ports or one 512-bit; "
    "Arm by the narrowest core with the features, Cortex-A53 or A55"
)
_VNNI = frozenset({"avx_vnni", "avx512_vnni"})


def macs_per_cycle(arch: str, isa: Collection[str]) -> tuple[float, float, float]:
    """The least (fp32, fp16, int8) multiply-accumulates a cycle and core that the features promise."""
    has = set(isa)
    if arch == "aarch64":
        return 4.0, 8.0 if FP16_ARITHMETIC & has else 0.0, 16.0 if "asimddp" in has else 4.0
    fp32 = 16.0 if has & {"fma", "avx512f"} else 4.0
    return fp32, 0.0, 4 * fp32 if _VNNI & has else 2 * fp32


def numeric_rules(arch: str, isa: Collection[str]) -> NumericRules:
    """How int8 is laid out: U8S8, with 7-bit weights on x86 without VNNI (VPMADDUBSW saturates); docs/adr/0005-u8s8-on-arm.md."""
    if arch == "aarch64":
        return NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
    return NumericRules("uint8", "int8", per_channel=True, reduce_range=not _VNNI & set(isa))
