"""The settings that a candidate may be run with on a machine. Pure.

- threads and streams together use no more than the CPUs that may be used: affinity, cpuset and cgroup quota are respected. Both are
  powers of two, and all CPUs; what lies between was never seen to win by more than the noise of a race.
- ONNX Runtime's streams compute themselves, helped by one pool of `threads` - 1: streams + threads - 1 CPUs. OpenVINO's streams
  divide `threads` among them.
- a batch is in the space where a request of it stays short: batches pay by sharing what a call costs, which long calls do not feel.
- where clusters differ, each is a core set of its own; else the system places threads better than a list of CPUs does.
- runtime options are tried one at a time, and only those that were measured to matter (the tables below say how).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.core.facts import FactSheet
from edgekit.core.recipes import ONNXRUNTIME, OPENVINO
from edgekit.core.tradeoffs import Setting

BATCHES = (2, 4, 8, 16)
# A request of a batch takes no longer than this, by what one sample takes.
LONGEST_REQUEST_MS = 200.0

SPIN = "session.intra_op.allow_spinning"
ARENA = "arena"
PINNING = "ENABLE_CPU_PINNING"

# Pools of two or more threads spin while they wait. Without, a run of many small operators is slower, but what runs beside it is
# not starved: which of both counts depends on the model.
_ORT_POOLED: tuple[Mapping[str, str], ...] = ({SPIN: "0"},)
# Without its arena ONNX Runtime gives memory back after each run: less resident memory, at the price of page faults.
_ORT_ALWAYS: tuple[Mapping[str, str], ...] = ({ARENA: "0"},)
# ekrun leaves threads to the system; pinned ones keep their caches where nothing else runs.
_OPENVINO_POOLED: tuple[Mapping[str, str], ...] = ({PINNING: "YES"},)


@dataclass(frozen=True)
class CoreSet:
    """CPUs to keep to: a kernel list, empty for all that may be used, and how many they are."""

    cpus: str
    count: int


def core_sets(sheet: FactSheet) -> tuple[CoreSet, ...]:
    """All usable CPUs; then, where the machine has clusters that differ, those of each that may be used."""
    found = [CoreSet("", sheet.usable_threads)]
    granted = None if sheet.cpuset is None else set(sheet.cpuset)
    kinds = {(cluster.part, cluster.max_khz, cluster.capacity) for cluster in sheet.clusters}
    limited = sheet.cpus_affinity is not None and sheet.cpus_online is not None
    restricted = limited and sheet.cpus_affinity != sheet.cpus_online and granted is None
    if len(kinds) < 2 or restricted:  # which CPUs an inherited affinity leaves is not told
        return tuple(found)
    for cluster in sheet.clusters:
        cpus = [cpu for cpu in cluster.cpus if granted is None or cpu in granted]
        if cpus and len(cpus) < sheet.usable_threads:
            found.append(CoreSet(cpu_list(cpus), len(cpus)))
    return tuple(found)


def cpu_list(cpus: Iterable[int]) -> str:
    """CPUs as the kernel lists them: `0-3,6`."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def batches(p50_ms: float, samples: int) -> tuple[int, ...]:
    """The batches beside 1 for a model whose inference takes `p50_ms`, with this many samples to make them of."""
    return tuple(b for b in BATCHES if b <= samples and b * p50_ms <= LONGEST_REQUEST_MS)


def plain_settings(
    engine: str, sets: Sequence[CoreSet], sizes: Sequence[int], *, in_order: bool, threads: int = 0
) -> tuple[Setting, ...]:
    """Every setting without options: of one stream and batch 1 where samples must stay `in_order`.

    `threads`, unless 0, is the most that may be asked for.
    """
    found = []
    for cores in sets:
        most = min(cores.count, threads) if threads else cores.count
        for count in _steps(most):
            streams = [s for s in _steps(most) if _fits(engine, count, s, most)] if not in_order else [1]
            found += [Setting(count, s, b, cores.cpus) for s in streams for b in (1, *(() if in_order else sizes))]
    return tuple(found)


def _fits(engine: str, threads: int, streams: int, cores: int) -> bool:
    return streams <= threads if engine == OPENVINO else streams + threads - 1 <= cores


def _steps(most: int) -> list[int]:
    """1, 2, 4 ... and `most`."""
    return sorted({1 << i for i in range(most.bit_length())} | {most})


def with_options(engine: str, setting: Setting) -> tuple[Setting, ...]:
    """The same setting with each runtime option that may matter to it."""
    pooled = setting.threads > 1
    tables = {
        ONNXRUNTIME: (*_ORT_ALWAYS, *(_ORT_POOLED if pooled else ())),
        OPENVINO: _OPENVINO_POOLED if pooled else (),
    }
    return tuple(replace(setting, options=options) for options in tables.get(engine, ()))
