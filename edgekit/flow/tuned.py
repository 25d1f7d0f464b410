"""What a search over settings means for the run: its record, and the candidates as they run best.

- Each candidate that was searched takes the setting that is best for what is preferred, with the figures it had there; the setting
  it came with stays among the points.
- The choice among candidates is the same as ever (flow/decide.py); the point of the chosen one is then the choice of its end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.core.elimination import COST, LATENCY, Track, bootstrapped
from edgekit.core.results import Choice, Measurement, Origin, Outcome
from edgekit.core.run import Noise
from edgekit.core.settle import MEASURED, best, front, knee, settled_on, sweet_spot
from edgekit.core.stats import bootstrap_ratio_ci, latency_stats
from edgekit.core.tradeoffs import Exploration, Point, key
from edgekit.core.types import Prefer, Requirements
from edgekit.flow.clock import Job
from edgekit.flow.materials import Options
from edgekit.flow.tune import Trails, search
from edgekit.flow.workshop import Made, Workshop
from edgekit.measure import fact_sheet


@dataclass(frozen=True)
class Tuned:
    """The record of a search, and the outcomes and builds of the run with what came of it.

    `settings` has the point of each candidate that was searched; within `tie` figures are equal.
    """

    exploration: Exploration
    outcomes: tuple[Outcome, ...]
    made: Mapping[str, Made]
    settings: Mapping[str, str]
    tie: float


def explore(
    shop: Workshop,
    job: Job,
    made: Mapping[str, Made],
    outcomes: Sequence[Outcome],
    noise: Noise | None,
    options: Options,
    left_s: Callable[[], float],
) -> Tuned | None:
    """Search the settings where that is wanted and the device measures the target; None where it is not, or has no candidates."""
    wanted = job.requirements.prefer is Prefer.THROUGHPUT if options.explore is None else options.explore
    if not wanted or job.origin is not Origin.TARGET:
        return None
    sheet = fact_sheet(shop.device)
    trails = search(shop, job, made, outcomes, noise, sheet, seed=options.seed, left_s=left_s)
    if trails is None:
        return None
    return tuned(trails, outcomes, made, job.requirements, shop.device.name, options.seed)


def tuned(
    trails: Trails,
    outcomes: Sequence[Outcome],
    made: Mapping[str, Made],
    requirements: Requirements,
    device: str,
    seed: int,
) -> Tuned:
    """The run's outcomes, each searched candidate in its best setting; `device` is who measured."""
    exploration = explored(trails, requirements, seed)
    found, built, settings = [], dict(made), {}
    for outcome in outcomes:
        points = [p for p in exploration.points if p.candidate == outcome.name and _is_known(p, requirements)]
        point = settled_on(points, requirements, trails.tie)
        if point is not None and outcome.measurement is not None:
            settings[outcome.name] = key(point)
            outcome, built[outcome.name] = _in_setting(outcome, point, trails, device)
        found.append(outcome)
    return Tuned(exploration, tuple(found), built, settings, trails.tie)


def _is_known(point: Point, requirements: Requirements) -> bool:
    """Whether the point ran often enough for what a choice asks: else the race of before knows more of its candidate."""
    asked = requirements.latency.percentile if requirements.latency is not None else "p50"
    return point.latency_ms.p50 is not None and getattr(point.latency_ms, asked) is not None


def explored(trails: Trails, requirements: Requirements, seed: int) -> Exploration:
    """The record of a search: all points that were measured, by name, and what they come to."""
    points = tuple(_point(trails, track, seed) for _, track in sorted(trails.tracks.items()))
    return Exploration(
        points=points,
        space=trails.size,
        seconds=trails.seconds,
        seed=seed,
        ended=trails.ended,
        front=front(points),
        sweet_spot=_name(sweet_spot(points, requirements)),
        knee=_name(knee(points)),
        latency_choice=_name(best(points, Prefer.LATENCY, requirements, trails.tie)),
        throughput_choice=_name(best(points, Prefer.THROUGHPUT, requirements, trails.tie)),
    )


def _name(point: Point | None) -> str:
    return key(point) if point is not None else ""


def _point(trails: Trails, track: Track, seed: int) -> Point:
    spot, ran = trails.spots[track.name], trails.last[track.name]
    rates = [1e3 / cost for cost in track.figures[COST].values()]
    is_reference = track is trails.reference
    ratio = bootstrapped(track, trails.reference, LATENCY, seed)
    return Point(
        candidate=spot.candidate,
        setting=spot.setting,
        latency_ms=latency_stats(track.latencies_ns),
        throughput_ips=track.throughput_ips,
        throughput_interval=bootstrap_ratio_ci(rates, [1.0] * len(rates), seed),
        ratio=ratio.value,
        ratio_interval=(1.0, 1.0) if is_reference else (ratio.low, ratio.high),
        cold_start_ms=ran.loaded.load.process_to_first_inference_ms,
        peak_memory_bytes=track.memory_bytes,
        size_bytes=track.size_bytes,
        drop=track.drop,
        rounds=track.rounds,
        ended=f"dropped: {track.beaten}" if track.beaten else MEASURED,
    )


def _in_setting(outcome: Outcome, point: Point, trails: Trails, device: str) -> tuple[Outcome, Made]:
    """The outcome as its candidate runs in a point's setting."""
    name = key(point)
    track, ran = trails.tracks[name], trails.last[name]
    found = trails.space.built(trails.spots[name])
    assert not isinstance(found, str) and outcome.measurement is not None
    candidate, made = found
    measurement = Measurement(
        origin=Origin.TARGET,
        device=device,
        threads=point.setting.threads,
        latency_ms=point.latency_ms,
        latencies_ns=track.latencies_ns,
        ratio=point.ratio,
        throughput_ips=point.throughput_ips,
        load=ran.loaded.load,
        memory=ran.memory,
        settings_asked=ran.loaded.settings_asked,
        settings_in_force=ran.loaded.settings_in_force,
        ratio_interval=None if track is trails.reference else point.ratio_interval,
    )
    return replace(outcome, candidate=candidate, artifact=made.artifact, measurement=measurement), made


def settled(found: Tuned, choice: Choice, requirements: Requirements) -> Exploration:
    """The record once the run has chosen: its ends are of candidates that may be chosen, the preferred one is the choice itself."""
    points = [p for p in found.exploration.points if p.candidate in choice.feasible]
    if choice.chosen is None or not points:
        return found.exploration
    ends = {end: _name(best(points, end, requirements, found.tie)) for end in (Prefer.LATENCY, Prefer.THROUGHPUT)}
    if requirements.prefer in ends and len(requirements.weights) < 2 and choice.chosen in found.settings:
        ends[requirements.prefer] = found.settings[choice.chosen]
    return replace(
        found.exploration,
        sweet_spot=_name(sweet_spot(points, requirements)),
        latency_choice=ends[Prefer.LATENCY],
        throughput_choice=ends[Prefer.THROUGHPUT],
    )
