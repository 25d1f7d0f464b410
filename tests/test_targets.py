"""Targets as data: the shipped files, the loader's refusals, the engine table, and the machine edgekit runs on."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgekit.engines
from edgekit.core.cost import has_dot_product
from edgekit.core.facts import DeviceFacts
from edgekit.core.targets import (
    ENGINE_FLOORS,
    HOST,
    host_matches,
    host_target,
    is_generic,
    newest_engine,
    numeric_rules,
    parse_target,
    source_of,
    version_key,
)
from edgekit.core.tomltable import MAX_TEXT_CHARS, suggest
from edgekit.core.types import Target
from edgekit.errors import InputRejected

FILES = {path.stem: path for path in sorted((Path(__file__).parent.parent / "targets").glob("*.toml"))}
SHIPPED = (
    *("cpu-arm", "cpu-x86", "imx8mp", "intel-n100", "jetson-orin-nano-cpu"),
    *("raspberry-pi-4", "raspberry-pi-5", "raspberry-pi-zero-2w", "rk3588"),
)
# What `qemu-aarch64 -cpu help` and `qemu-x86_64 -cpu help` of qemu 7.2 list, as far as targets may use it.
QEMU_CPUS = {
    "aarch64": {"cortex-a35", "cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1"},
    "x86_64": {"Haswell", "Broadwell", "Nehalem", "SandyBridge"},
}


def text_of(name: str) -> str:
    return FILES[name].read_text(encoding="utf-8")


def target(name: str) -> Target:
    return parse_target(text_of(name), f"targets/{name}.toml", name)


def figures(table: dict[str, Any], path: str = "") -> list[str]:
    """Key paths of all values of a parsed TOML file, found without the loader under test."""
    found = []
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            found += figures(value, here)
        elif key == "clusters":
            found += [leaf for index, item in enumerate(value) for leaf in figures(item, f"{here}.{index}")]
        else:
            found.append(here)
    return found


# -------------------------------------------------------------------------------------------------------- shipped files


def test_the_named_targets_are_shipped() -> None:
    assert tuple(FILES) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_every_figure_of_a_shipped_target_has_a_source(name: str) -> None:
    raw = tomllib.loads(text_of(name))
    leaves = set(figures({key: value for key, value in raw.items() if key != "sources"}))
    loaded = target(name)
    assert len(leaves) > 20
    for leaf in leaves - {"schema", "name", "summary", "arch"}:
        assert len(source_of(loaded, leaf)) > 10, leaf


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_offers_the_newest_engines_its_glibc_admits(name: str) -> None:
    loaded = target(name)
    newest = {engine: newest_engine(engine, loaded.arch, loaded.glibc) for engine in ENGINE_FLOORS}
    assert dict(loaded.engines) == {engine: version for engine, version in newest.items() if version}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_target_is_consistent(name: str) -> None:
    loaded = target(name)
    assert loaded.emulation_cpu in QEMU_CPUS[loaded.arch]
    assert loaded.numeric == numeric_rules(loaded.arch, loaded.isa)
    assert 2**28 < loaded.ram_bytes < 2**36
    assert 1e9 < loaded.bandwidth_bytes_per_s < 1e11
    for cluster in loaded.clusters:
        if loaded.arch == "aarch64" and not has_dot_product(loaded):
            assert cluster.int8_macs_per_cycle <= cluster.fp32_macs_per_cycle
        else:
            assert cluster.int8_macs_per_cycle > cluster.fp32_macs_per_cycle


@pytest.mark.parametrize("name", SHIPPED)
def test_derived_bandwidths_are_the_product_they_show(name: str) -> None:
    loaded = target(name)
    shown = re.search(r"(\d+) MT/s x (\d+) B", source_of(loaded, "bandwidth_gb_s"))
    assert shown is not None
    product = int(shown[1]) * 1e6 * int(shown[2])
    assert loaded.bandwidth_bytes_per_s == pytest.approx(product, rel=0.005)


def test_dot_product_is_where_it_is() -> None:
    assert {name for name in SHIPPED if has_dot_product(target(name))} == {
        *("intel-n100", "jetson-orin-nano-cpu", "raspberry-pi-5", "rk3588")
    }
    assert {name for name in SHIPPED if is_generic(target(name))} == {"cpu-arm", "cpu-x86"}
    assert target("rk3588").cores == 8
    assert target("raspberry-pi-zero-2w").ram_bytes == 512 << 20


# ------------------------------------------------------------------------------------------------------------- refusals

BASE = text_of("raspberry-pi-5")

REFUSED = {
    "not TOML": ("schema = 1", "schema = = 1", "not TOML"),
    "control characters": ("schema = 1", "schema = 1\x1b[31m", "not TOML"),
    "digits without end": ("ram_mib = 1024", f"ram_mib = {'9' * 5000}", "not TOML"),
    "nested without end": ("schema = 1", f"schema = {'[' * 20000}", "not TOML"),
    "huge": ("schema = 1", "schema = 1\n" + "#" * (MAX_TEXT_CHARS + 1), "larger than"),
    "another schema": ("schema = 1", "schema = 2", "schema 2 is not known"),
    "no schema": ("schema = 1\n", "", "schema: is missing"),
    "missing scalar": ("ram_mib = 1024\n", "", "ram_mib: is missing"),
    "missing in a cluster": ("max_mhz = 2400\n", "", "clusters.0.max_mhz: is missing"),
    "missing table": ("[numeric]", "[numerics]", "numeric: is missing"),
    "unknown key": ("glibc =", 'gpu = "no"\nglibc =', "gpu: unknown key"),
    "misspelt key in a cluster": ("cores = 4", "cores = 4\nmax_mzh = 2", "did you mean 'max_mhz'"),
    "unknown engine": ("openvino =", 'openvinno = "1.0"\nopenvino =', "did you mean 'openvino'"),
    "text for a number": ("cores = 4", 'cores = "4"', "clusters.0.cores: must be a whole number"),
    "a bool for a number": ("cores = 4", "cores = true", "clusters.0.cores: must be a whole number"),
    "a float for cores": ("cores = 4", "cores = 4.0", "clusters.0.cores: must be a whole number"),
    "no cores": ("cores = 4", "cores = 0", "from 1 to 1024"),
    "negative RAM": ("ram_mib = 1024", "ram_mib = -1", "ram_mib: must be a whole number"),
    "nan bandwidth": ("bandwidth_gb_s = 17.1", "bandwidth_gb_s = nan", "bandwidth_gb_s: must be a number"),
    "infinite rate": ("fp32_macs_per_cycle = 8", "fp32_macs_per_cycle = inf", "must be a number"),
    "rate over any float": ("fp32_macs_per_cycle = 8", f"fp32_macs_per_cycle = {'9' * 400}", "must be a number"),
    "a number for text": ('glibc = "2.36"', "glibc = 2.36", "glibc: must be text"),
    "not a version": ('glibc = "2.36"', 'glibc = "newest"', "glibc: must be a version"),
    "a flag as text": ("per_channel = true", 'per_channel = "true"', "numeric.per_channel: must be true or false"),
    "an unknown type": ('weight_type = "int8"', 'weight_type = "int4"', "must be one of uint8, int8"),
    "another architecture": ('arch = "aarch64"', 'arch = "armv7l"', "must be one of aarch64, x86_64"),
    "a misspelt feature": ('"asimddp"', '"asimddpp"', "did you mean 'asimddp'"),
    "features of another architecture": ('"asimddp"', '"avx2"', "'avx2' is no aarch64 feature"),
    "features as text": ('isa = ["fp", ', 'isa = "fp"\nmore = [', "isa: must be a list"),
    "clusters as one table": ("[[clusters]]", "[clusters]", "must be one or more [[clusters]]"),
    "engines as a list": ("[engines]", "[[engines]]", "engines: must be a table"),
    "fp16 without the instructions": ('"asimdhp", ', "", "the isa has no fp16 arithmetic"),
    "an engine too new": ('glibc = "2.36"', 'glibc = "2.31"', "2026.4.1 needs a newer glibc than 2.31"),
    "an engine that cannot run": ('glibc = "2.36"', 'glibc = "2.17"', "no release of it runs on aarch64"),
    "a figure without a source": ("[sources]\nisa = ", "[sources]\nglibc_ = ", "isa has no source"),
    "a source of nothing": ("[sources]", '[sources]\nram = "a data sheet"', "did you mean 'ram_mib'"),
    "an empty source": ("[sources]\nisa = ", '[sources]\nisa = "  " #', "sources.isa: must be text"),
    "an unquoted key with dots": ('"clusters.0.cpu" =', "clusters.0.cpu =", "sources.clusters: must be text"),
    "a name with a path": ('name = "raspberry-pi-5"', 'name = "../raspberry-pi-5"', "is not a target's name"),
    "a name that is not the file's": ('name = "raspberry-pi-5"', 'name = "raspberry-pi-6"', "is not the file's name"),
    "the name of the host": ('name = "raspberry-pi-5"', 'name = "host"', "is taken"),
    "a name with terminal codes": ('name = "raspberry-pi-5"', 'name = "a\\u001b[2Jb"', "is not a target's name"),
}


def test_the_base_of_the_refusals_is_accepted() -> None:
    assert parse_target(BASE, "x.toml", "raspberry-pi-5").name == "raspberry-pi-5"
    assert parse_target(BASE, "x.toml").name == "raspberry-pi-5"


@pytest.mark.parametrize("case", REFUSED)
def test_bad_targets_get_one_clear_line(case: str) -> None:
    old, new, said = REFUSED[case]
    assert old in BASE
    with pytest.raises(InputRejected) as caught:
        parse_target(BASE.replace(old, new, 1), "boards/x.toml", "raspberry-pi-5")
    line = str(caught.value)
    assert said in line
    assert line.startswith("boards/x.toml: ")
    assert line.isprintable()
    assert len(line) < 400
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("leaf", [leaf for leaf in figures(tomllib.loads(BASE)) if not leaf.startswith("sources")])
def test_no_value_can_be_left_out(leaf: str) -> None:
    key = leaf.rpartition(".")[2]
    without = re.sub(rf"^{key} = .*\n", "", BASE, count=1, flags=re.MULTILINE)
    assert without != BASE
    if leaf.startswith("engines."):
        assert key not in parse_target(without, "x.toml").engines
        return
    with pytest.raises(InputRejected, match=re.escape(leaf)):
        parse_target(without, "x.toml")


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
)


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "{}" if value is None else repr(value)


@given(st.sampled_from(BASE.split("[sources]")[0].splitlines()), values)
def test_any_value_is_accepted_or_refused_in_one_line(line: str, value: object) -> None:
    if " = " not in line:
        return
    changed = BASE.replace(line, f"{line.partition(' = ')[0]} = {as_toml(value)}", 1)
    said = ""
    try:
        assert isinstance(parse_target(changed, "x.toml"), Target)
    except InputRejected as error:
        said = str(error)
    assert said == "" or said.isprintable()


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(InputRejected):
        parse_target(text, "x.toml")


def test_sources_of_the_nearest_key_count() -> None:
    loaded = target("rk3588")
    assert "PJDOC-466751330-7215" in source_of(loaded, "clusters.0.int8_macs_per_cycle")
    assert "AArch64SchedA55" in source_of(loaded, "clusters.1.int8_macs_per_cycle")
    assert "rk3588-opp" in source_of(loaded, "clusters.1.max_mhz")
    assert source_of(loaded, "nothing.at.all") == ""


# ----------------------------------------------------------------------------------------------------- names and engines


def test_a_wrong_name_gets_the_likeliest_one() -> None:
    known = [*SHIPPED, HOST]
    assert suggest("rasberry-pi5", known) == "raspberry-pi-5"
    assert suggest("CPU-ARM", known) == "cpu-arm"
    assert suggest("hst", known) == "host"
    assert suggest("zzzzzz", known) == ""


@pytest.mark.parametrize(
    ("engine", "arch", "glibc", "version"),
    [
        ("onnxruntime", "aarch64", "2.36", "1.32.0"),
        ("onnxruntime", "aarch64", "2.28", "1.32.0"),
        ("onnxruntime", "aarch64", "2.27", "1.28.0"),
        ("onnxruntime", "aarch64", "2.26", None),
        ("openvino", "aarch64", "2.35", "2026.4.1"),
        ("openvino", "aarch64", "2.34", "2025.2.0"),
        ("openvino", "aarch64", "2.28", None),
        ("openvino", "x86_64", "2.28", "2026.4.1"),
        ("openvino", "x86_64", "2.4", None),  # 2.4 is older than 2.17
        ("onnxruntime", "riscv64", "2.39", None),
        ("tflite", "aarch64", "2.39", None),
    ],
)
def test_newest_engine_by_glibc(engine: str, arch: str, glibc: str, version: str | None) -> None:
    assert newest_engine(engine, arch, glibc) == version


def test_the_engine_table_is_newest_first() -> None:
    for floors in (table for archs in ENGINE_FLOORS.values() for table in archs.values()):
        for place in (0, 1):
            keys = [version_key(row[place]) for row in floors]
            assert keys == sorted(keys, reverse=True)


def test_every_engine_in_the_table_is_pinned() -> None:
    pins = Path(edgekit.engines.__file__).parent / "pins.toml"
    pinned = {(p["engine"], p["arch"], p["version"]) for p in tomllib.loads(pins.read_text(encoding="utf-8"))["engine"]}
    offered = {
        (engine, arch, version)
        for engine, archs in ENGINE_FLOORS.items()
        for arch, floors in archs.items()
        for _, version in floors
    }
    assert offered == pinned


# ---------------------------------------------------------------------------------------------------------- this machine

PI_5 = DeviceFacts(
    arch="aarch64",
    isa=(*target("raspberry-pi-5").isa, "evtstrm", "cpuid"),
    cpu_model="Cortex-A76",
    usable_threads=4,
    ram_bytes=8 << 30,
    kernel="6.6.31+rpt-rpi-2712",
    glibc="2.36",
    max_mhz=2400,
)
N100 = DeviceFacts(
    arch="x86_64",
    isa=target("intel-n100").isa,
    cpu_model="Intel(R) N100",
    usable_threads=4,
    ram_bytes=8 << 30,
    kernel="6.1",
    glibc="2.36",
    max_mhz=3400,
)


def test_a_machine_is_the_board_whose_facts_it_shows() -> None:
    assert host_matches(target("raspberry-pi-5"), PI_5) == []
    assert host_matches(target("raspberry-pi-5"), replace(PI_5, cpu_model="ARM Cortex-A76")) == []
    assert host_matches(target("intel-n100"), N100) == []
    rk3588 = replace(PI_5, cpu_model="Cortex-A76+Cortex-A55", usable_threads=8, max_mhz=2256)
    assert host_matches(target("rk3588"), rk3588) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arch": "x86_64"}, "this machine is x86_64"),
        ({"isa": ("fp", "asimd")}, "has no aes"),
        ({"cpu_model": "Cortex-A72"}, "cpu is cortex-a72"),
        ({"cpu_model": "Cortex-A76+Cortex-A55"}, "cortex-a55 and cortex-a76"),
        ({"cpu_model": None}, "cpu is unknown"),
        ({"usable_threads": 2}, "2 cores are usable"),
        ({"max_mhz": 1800}, "runs at 1800 MHz"),
        ({"max_mhz": None}, "does not tell its clock"),
        ({"emulated": True}, "emulated"),
    ],
)
def test_any_difference_keeps_figures_the_hosts(change: dict[str, Any], said: str) -> None:
    reasons = host_matches(target("raspberry-pi-5"), replace(PI_5, **change))
    assert len(reasons) == 1
    assert said in reasons[0]


def test_no_two_shipped_boards_are_taken_for_each_other() -> None:
    for name in SHIPPED:
        loaded = target(name)
        facts = DeviceFacts(
            arch=loaded.arch,
            isa=loaded.isa,
            cpu_model="+".join(cluster.cpu for cluster in loaded.clusters),
            usable_threads=loaded.cores,
            ram_bytes=loaded.ram_bytes,
            kernel=None,
            glibc=loaded.glibc,
            max_mhz=max(cluster.max_mhz for cluster in loaded.clusters),
        )
        same = {other for other in SHIPPED if not host_matches(target(other), facts)}
        assert same == (set() if is_generic(loaded) else {name})


def test_a_class_of_machines_is_no_machine() -> None:
    assert host_matches(target("cpu-x86"), N100) == ["cpu-x86 names a class of machines, not one"]
    assert "cpu-arm names a class of machines, not one" in host_matches(target("cpu-arm"), PI_5)


def test_the_host_is_a_target() -> None:
    loaded = host_target(N100, {"onnxruntime": "1.32.0"})
    assert (loaded.name, loaded.cores, loaded.glibc) == (HOST, 4, "2.36")
    assert dict(loaded.engines) == {"onnxruntime": "1.32.0"}
    assert host_matches(loaded, replace(N100, max_mhz=None)) == []
    assert dict(host_target(N100).engines) == {"onnxruntime": "1.32.0", "openvino": "2026.4.1"}
    assert dict(host_target(replace(N100, glibc="2.27")).engines) == {"onnxruntime": "1.28.0", "openvino": "2025.2.0"}
    for leaf in ("isa", "ram_mib", "glibc", "clusters.0.cores", "clusters.0.int8_macs_per_cycle", "bandwidth_gb_s"):
        assert source_of(loaded, leaf)


def test_the_hosts_rates_and_rules_follow_its_isa() -> None:
    def rates(isa: tuple[str, ...], arch: str = "x86_64") -> tuple[float, float, float, bool]:
        made = host_target(replace(N100, arch=arch, isa=isa), {})
        cluster = made.clusters[0]
        narrow = made.numeric.reduce_range
        return cluster.fp32_macs_per_cycle, cluster.fp16_macs_per_cycle, cluster.int8_macs_per_cycle, narrow

    assert rates(("sse4_2",)) == (4, 0, 8, True)
    assert rates(("avx2", "fma")) == (16, 0, 32, True)
    assert rates(("avx2", "fma", "avx512f", "avx512_vnni")) == (16, 0, 64, False)
    assert rates(("fp", "asimd"), "aarch64") == (4, 0, 4, False)
    assert rates(("fp", "asimd", "asimdhp", "asimddp"), "aarch64") == (4, 8, 16, False)


def test_a_host_that_tells_little_is_assumed_slow() -> None:
    shy = replace(N100, cpu_model=None, glibc=None, max_mhz=None)
    loaded = host_target(shy, {})
    assert loaded.clusters[0].max_mhz == 1000
    assert source_of(loaded, "clusters.0.max_mhz").startswith("assumption")
    assert newest_engine("onnxruntime", loaded.arch, loaded.glibc) is None
