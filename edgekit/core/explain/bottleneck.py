"""What binds the machine: arithmetic, memory bandwidth, or what neither explains. Estimated, and called so. Pure.

- Where one engine ran both fp32 and int8, Amdahl's law tells the share of fp32's time that int8 shortens: with r times the
  multiply-accumulates a cycle and a quarter of the bytes, t = (1 - f) + f / r, of which t was measured and r is the target's.
  What int8 adds of its own, and what it leaves in fp32, make f too small rather than too large.
  (Amdahl, "Validity of the single processor approach to achieving large scale computing capabilities", AFIPS 1967.)
- Elsewhere the roofline's time at the efficiency of `core.cost` stands for that share. A machine that does not tell its clock has
  no roofline in seconds: then only the proportion of arithmetic to bandwidth is told.
- That proportion is the roofline's, at the peak: a layer's time is the larger of the two, and counts for that one.
- The rest is called overhead: calls of layers, waiting threads, conversions, kernels far from the peak.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from edgekit.core.case import Case
from edgekit.core.cost import EFFICIENCY, fastest_cluster
from edgekit.core.explain.evidence import Evidence, Reading, Rule, Unit, pointer, written
from edgekit.core.explain.points import plain_twins
from edgekit.core.explain.readings import Readings
from edgekit.core.recipes import MIXED, REFERENCE, run_config
from edgekit.core.targets import source_of
from edgekit.core.types import Target

MOSTLY = 0.5
# Neither arithmetic nor bandwidth is called the one that binds unless it is this part of both: a roofline is no finer.
MORE = 0.6
FP32_BYTES = 4


class Bound(StrEnum):
    """What takes most of the time."""

    COMPUTE = "compute"
    BANDWIDTH = "memory bandwidth"
    BOTH = "compute and memory bandwidth alike"
    OVERHEAD = "overhead"


@dataclass(frozen=True)
class Roofline:
    """Least seconds of the model's layers in fp32 on the target's fastest cores: `compute` of those that arithmetic binds,
    `bandwidth` of those that moving their tensors binds."""

    compute: float
    bandwidth: float

    @property
    def whole(self) -> float:
        return self.compute + self.bandwidth


@dataclass(frozen=True)
class Bottleneck:
    """What binds the fp32 candidate `full`; `share` is the part of its time that arithmetic and bandwidth take, None unknown.

    `compute` is arithmetic's part of that. `narrow` is the int8 candidate the share was told by, empty when the roofline told it;
    `left` is the same share in `asked`, the candidate that was asked about, where it is another than `full`.
    """

    bound: Bound | None
    full: str
    compute: Evidence
    share: Evidence | None
    narrow: str = ""
    rate: Evidence | None = None
    asked: str = ""
    left: Evidence | None = None


def roofline(readings: Readings) -> Roofline:
    """By the target's own figures, at efficiency 1."""
    run = readings.run
    cluster = fastest_cluster(run.target)
    rate = cluster.fp32_macs_per_cycle * cluster.max_mhz * 1e6 * min(run.threads, cluster.cores)
    compute = bandwidth = 0.0
    for layer in run.model.layers:
        moved = (layer.weight_elements + layer.activation_elements) * FP32_BYTES
        arithmetic, moving = layer.macs / rate, moved / run.target.bandwidth_bytes_per_s
        if arithmetic >= moving:
            compute += arithmetic
        else:
            bandwidth += moving
    return Roofline(compute, bandwidth)


def bottleneck(readings: Readings, case: Case, name: str) -> Bottleneck | None:
    """What binds the fp32 that `name` is to be compared with, and what is left of it in `name`; None without layers or figures.

    Where settings were searched all are taken in the plain setting: only times of like settings tell anything.
    """
    twins = plain_twins(readings.run)
    if twins:
        times = {own: replace(case.times[twin], name=own) for own, twin in twins.items() if twin in case.times}
        case = replace(case, times=times)
    called = {own: twins.get(own, own) for own in case.outcomes}
    roof, full = roofline(readings), (case.full_of(case.engine(name)) if name in called else "") or REFERENCE
    base = readings.ratio(called[full]) if full in case.times else None
    if not roof.whole or base is None:
        return None
    compute = _of_roofline(roof.compute / roof.whole)
    rates, narrow = _rates(readings), _narrow(case, full)
    gain = rates[0].value / rates[1].value if rates[1].value else 1.0
    own = readings.ratio(called[narrow]) if narrow is not None else None
    if narrow is None or own is None or gain <= 1:
        return _by_roofline(readings, case.times[full].predicted, roof, called[full], compute)
    value = _narrow_share(own.value / base.value, gain)
    paths, over = (*own.paths, *rates[0].paths), (*base.paths, *rates[1].paths)
    share = Evidence(written(value, Unit.SHARE), value, paths, over, Rule.NARROW_SHARE)
    left = _left(readings, called[name], called[full], share) if name in case.times else None
    rate = rates[0].over(rates[1])
    return Bottleneck(_bound(value, roof), called[full], compute, share, called[narrow], rate, called[name], left)


def _narrow_share(time: float, gain: float) -> float:
    """Amdahl's f, from a time over fp32's and the gain of what becomes faster."""
    return min(1.0, max(0.0, (1 - time) / (1 - 1 / gain)))


def _bound(share: float, roof: Roofline) -> Bound:
    if share < MOSTLY:
        return Bound.OVERHEAD
    if max(roof.compute, roof.bandwidth) < MORE * roof.whole:
        return Bound.BOTH
    return Bound.COMPUTE if roof.compute >= roof.bandwidth else Bound.BANDWIDTH


def _narrow(case: Case, full: str) -> str | None:
    """The engine's fastest static int8, whether or not its answers hold; None where none tells."""
    if case.times[full].predicted:  # by the cost model, whose own assumption this would only give back
        return None
    engine = case.engine(full)
    static = [name for name in case.named("int8") if case.outcomes[name].candidate.build.recipe.needs_calibration]
    alike = [name for name in static if case.engine(name) == engine and run_config(name, 1).precision == "f32"]
    names = [name for name in alike if not name.endswith(MIXED)]
    ratios = case.ratios(names, full)
    return ratios[0].name if ratios else None


def _rates(readings: Readings) -> tuple[Reading, Reading]:
    """int8's and fp32's multiply-accumulates a cycle, of the fastest cluster."""
    target = readings.run.target
    cluster, i = fastest_cluster(target), target.clusters.index(fastest_cluster(target))
    int8, fp32 = (pointer("target", "clusters", i, f"{kind}_macs_per_cycle") for kind in ("int8", "fp32"))
    return (
        Reading(cluster.int8_macs_per_cycle, Unit.FACTOR, (int8,)),
        Reading(cluster.fp32_macs_per_cycle, Unit.FACTOR, (fp32,)),
    )


def _left(readings: Readings, name: str, full: str, share: Evidence) -> Evidence | None:
    """The share in `name`, when the rest of the time is what it was in `full`."""
    own, base = readings.ratio(name), readings.ratio(full)
    if name == full or own is None or base is None or not isinstance(share.value, float):
        return None
    value = 1 - (1 - share.value) * base.value / own.value
    if value <= 0:  # faster than the share explains: nothing can be told
        return None
    return Evidence(
        written(value, Unit.SHARE), value, (*own.paths, *share.paths), (*base.paths, *share.over), Rule.NARROW_LEFT
    )


def _of_roofline(value: float) -> Evidence:
    target = pointer("target", "bandwidth_bytes_per_s")
    paths = (pointer("model", "layers"), pointer("target", "clusters"), target, pointer("threads"))
    return Evidence(written(value, Unit.SHARE), value, paths, rule=Rule.ROOFLINE)


def _by_roofline(readings: Readings, predicted: bool, roof: Roofline, full: str, compute: Evidence) -> Bottleneck:
    """By the roofline's seconds, where these are of the time's own clock: one that is known, or a prediction's."""
    p50 = readings.latency(full)
    known = predicted or not _clock_is_assumed(readings.run.target)
    if p50 is None or not p50.value or not known:
        return Bottleneck(None, full, compute, None)
    value = min(1.0, roof.whole / EFFICIENCY / (p50.value / 1e3))
    share = Evidence(written(value, Unit.SHARE), value, compute.paths, p50.paths, Rule.ROOFLINE)
    return Bottleneck(_bound(value, roof), full, compute, share)


def _clock_is_assumed(target: Target) -> bool:
    i = target.clusters.index(fastest_cluster(target))
    return source_of(target, f"clusters.{i}.max_mhz").startswith("assumption")
