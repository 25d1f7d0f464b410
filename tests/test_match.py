"""Which target a machine is, and the target file written for one that is none."""

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.facts import Cluster, Disk, FactSheet, Soc
from edgekit.core.match import ARM_PARTS, device_facts, match_target, target_from_facts
from edgekit.core.targets import host_matches, parse_target, source_of
from edgekit.core.types import Target
from edgekit.errors import DeviceError, InputRejected

TARGETS = Path(__file__).parent.parent / "targets"
SHIPPED = [parse_target(path.read_text(), path.name, path.stem) for path in sorted(TARGETS.glob("*.toml"))]
MIB = 1 << 20


def shipped(name: str) -> Target:
    return next(target for target in SHIPPED if target.name == name)


def sheet(name: str, *, tree: tuple[str, ...] | None = None, **changes: Any) -> FactSheet:
    """A machine that is the shipped target, with kernel features beyond the target's."""
    target = shipped(name)
    parts = {core: part for part, core in ARM_PARTS.items()}
    clusters, first = [], 0
    for cluster in target.clusters:
        cpus = tuple(range(first, first + cluster.cores))
        clusters.append(Cluster(cpus, parts.get(cluster.cpu), cluster.max_mhz * 1000, None, "performance"))
        first += cluster.cores
    made = FactSheet(
        arch=target.arch,
        isa=(*target.isa, *(("evtstrm", "cpuid") if target.arch == "aarch64" else ())),
        usable_threads=target.cores,
        board=target.summary,
        soc=Soc(compatible=tree),
        cpu_model=" + ".join(cluster.cpu for cluster in target.clusters),
        clusters=tuple(clusters),
        ram_total_bytes=target.ram_bytes - 60 * MIB,
        disk=Disk("/home/pi", 10 << 30, 32 << 30, noexec=False),
        glibc=target.glibc,
        governors={"policy0": "performance"},
    )
    return replace(made, **changes)


BOARDS = [target.name for target in SHIPPED if not target.name.startswith("cpu-")]


# ----------------------------------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_its_target_by_its_cores(name: str) -> None:
    found = match_target(sheet(name), SHIPPED)
    assert found is not None and found.target.name == name and found.differences == ()
    assert "same cores" in found.reason


@pytest.mark.parametrize("name", [name for name in BOARDS if shipped(name).compatible])
def test_a_board_is_its_target_by_its_device_tree(name: str) -> None:
    for compatible in shipped(name).compatible:
        slow = sheet(name, tree=("maker,board", compatible), usable_threads=2)
        found = match_target(slow, SHIPPED)
        assert found is not None and found.target.name == name
        assert found.reason == f"its device tree says {compatible}"
        assert found.differences == (f"2 cores are usable here, {name} has {shipped(name).cores}",)


def test_no_two_targets_share_a_device_trees_name() -> None:
    names = [name for target in SHIPPED for name in target.compatible]
    assert len(names) == len(set(names)) and all("," in name for name in names)


@pytest.mark.parametrize(
    "stranger",
    [
        sheet("raspberry-pi-4", emulated=True),
        sheet("raspberry-pi-4", tree=("brcm,bcm2711",), emulated=True),
        sheet("raspberry-pi-4", arch="x86_64"),
        sheet("raspberry-pi-4", tree=("brcm,bcm2711",), isa=("fp",)),
        sheet("raspberry-pi-4", usable_threads=2),
        sheet("raspberry-pi-zero-2w", tree=("raspberrypi,3-model-b", "brcm,bcm2837")),  # its chip, but not the board
        FactSheet(arch="aarch64", isa=("fp", "asimd"), usable_threads=4),
        FactSheet(arch="x86_64", isa=("sse4_2",), usable_threads=2, cpu_model="Intel(R) Xeon(R)"),
    ],
)
def test_another_machine_is_none(stranger: FactSheet) -> None:
    assert match_target(stranger, SHIPPED) is None


def test_a_cut_down_chip_with_the_whole_ones_name_is_none() -> None:
    """RK3582 boards name rockchip,rk3588s too, and have two big cores less."""
    whole = sheet("rk3588", tree=("radxa,e52c", "rockchip,rk3582", "rockchip,rk3588s"))
    assert match_target(whole, SHIPPED) is not None
    big, little = whole.clusters
    cut = replace(whole, clusters=(replace(big, cpus=big.cpus[:2]), little))
    assert match_target(cut, SHIPPED) is None
    other = replace(whole, clusters=(replace(big, part="0xd41"), little))
    assert match_target(other, SHIPPED) is None


def test_a_device_tree_is_enough_where_cores_are_not_told() -> None:
    shy = sheet("raspberry-pi-5", tree=("raspberrypi,5-model-b", "brcm,bcm2712"), clusters=(), cpu_model=None)
    found = match_target(shy, SHIPPED)
    assert found is not None and found.target.name == "raspberry-pi-5" and len(found.differences) == 2


def test_a_users_own_target_is_found_by_its_name_in_the_device_tree() -> None:
    facts = sheet("raspberry-pi-4", tree=("acme,gateway-7", "brcm,bcm2711"))
    own = replace(shipped("raspberry-pi-4"), name="gateway", compatible=("acme,gateway-7",))
    found = match_target(facts, [own, *SHIPPED])
    assert found is not None and found.target.name == "gateway"
    assert match_target(facts, []) is None


def test_the_sheet_gives_the_facts_that_targets_are_compared_by() -> None:
    facts = device_facts(sheet("rk3588", governors={"policy0": "schedutil", "policy4": "performance"}))
    assert (facts.max_mhz, facts.usable_threads, facts.governor) == (2400, 8, "performance+schedutil")
    bare = device_facts(FactSheet(arch="aarch64", isa=(), usable_threads=0))
    assert (bare.max_mhz, bare.usable_threads, bare.ram_bytes, bare.governor) == (None, 1, 0, None)


# ------------------------------------------------------------------------------------------------------------- a new target


@pytest.mark.parametrize("name", BOARDS)
def test_a_written_target_is_read_back_as_the_machine(name: str) -> None:
    facts = sheet(name, tree=("acme,board-1", "acme,soc"))
    text = target_from_facts(facts, "my-board", "2026-11-22")
    made = parse_target(text, "my-board.toml", "my-board")
    like = shipped(name)
    assert [(c.cpu, c.cores, c.max_mhz) for c in made.clusters] == [(c.cpu, c.cores, c.max_mhz) for c in like.clusters]
    assert (made.isa, made.glibc, made.numeric) == (like.isa, like.glibc, like.numeric)
    assert made.ram_bytes == facts.ram_total_bytes and made.storage_bytes == 32 << 30
    assert made.compatible == ("acme,board-1",)
    assert host_matches(made, device_facts(facts)) == []
    found = match_target(facts, [*SHIPPED, made])
    assert found is not None and found.target == made


def test_every_figure_says_whether_it_was_measured() -> None:
    made = parse_target(target_from_facts(sheet("rk3588"), "x", "2026-11-22"), "x.toml")
    for key in ("isa", "ram_mib", "storage_mib", "glibc", "clusters.0.cpu", "clusters.1.cores", "clusters.1.max_mhz"):
        assert source_of(made, key).startswith("measured by edgekit device probe on 2026-11-22")
    for key in ("bandwidth_gb_s", "emulation_cpu"):
        assert source_of(made, key).startswith("assumption: ")
    assert source_of(made, "clusters.1.int8_macs_per_cycle").startswith("derived from the ISA")


def test_what_is_not_told_is_an_assumption() -> None:
    facts = sheet("raspberry-pi-4", disk=None, clusters=(Cluster((0, 1, 2, 3), "0xd08"),))
    made = parse_target(target_from_facts(facts, "x", "2026-11-22"), "x.toml")
    assert made.clusters[0].max_mhz == 1000 and source_of(made, "clusters.0.max_mhz").startswith("assumption")
    assert source_of(made, "storage_mib").startswith("assumption")
    assert made.emulation_cpu == "cortex-a72" and made.compatible == ()


def test_a_machine_without_clusters_is_one() -> None:
    facts = sheet("intel-n100", clusters=())
    made = parse_target(target_from_facts(facts, "x", "2026-11-22"), "x.toml")
    assert [(c.cpu, c.cores, c.max_mhz) for c in made.clusters] == [("intel-n100", 4, 1000)]


def test_an_old_glibc_leaves_the_engines_out() -> None:
    made = parse_target(target_from_facts(sheet("raspberry-pi-4", glibc="2.24"), "x", "2026-11-22"), "x.toml")
    assert made.engines == {}


@pytest.mark.parametrize("changes", [{"glibc": None}, {"ram_total_bytes": None}, {"emulated": True}])
def test_no_target_is_made_up(changes: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match="no target can be written"):
        target_from_facts(sheet("raspberry-pi-4", **changes), "x", "2026-11-22")


@pytest.mark.parametrize("name", ["", "host", "../x", "My Board", "x\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputRejected):
        target_from_facts(sheet("raspberry-pi-4"), name, "2026-11-22")


@given(st.text(min_size=1), st.text(min_size=1))
def test_any_text_of_a_board_is_written_safely(board: str, compatible: str) -> None:
    """Names come from the board: whatever they hold, the file is read back with them and nothing else."""
    facts = sheet("raspberry-pi-4", board=board, tree=(compatible,))
    made = tomllib.loads(target_from_facts(facts, "x", "2026-11-22"))
    assert made["name"] == "x" and made["compatible"] == [compatible]
    assert set(made) == set(tomllib.loads(target_from_facts(sheet("raspberry-pi-4", tree=("a,b",)), "x", "d")))
