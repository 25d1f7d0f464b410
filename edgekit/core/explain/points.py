"""The points of a search over settings as candidates of a choice. Pure.

- Under other requirements a candidate would run in another setting: that of its points which `core.settle` takes for them.
- A candidate in a setting that is not the run's goes by its point's key; in the run's own setting it keeps its name.
"""

from dataclasses import replace

from edgekit.core.recipes import run_config
from edgekit.core.results import Load, Measurement, Memory, Origin, Outcome
from edgekit.core.run import Run
from edgekit.core.settle import TIE, settled_on
from edgekit.core.tradeoffs import Point, Setting, key, point_key
from edgekit.core.types import ArtifactFile, Requirements


def resettled(run: Run, requirements: Requirements, tie: float) -> tuple[Outcome, ...]:
    """The run's outcomes, each in the setting that is best for these requirements; `tie` is the choice's."""
    by_candidate: dict[str, list[Point]] = {}
    for point in run.exploration.points if run.exploration is not None else ():
        by_candidate.setdefault(point.candidate, []).append(point)
    best = {name: settled_on(points, requirements, max(TIE, tie)) for name, points in by_candidate.items()}
    return tuple(_in_setting(outcome, best.get(outcome.name)) for outcome in run.outcomes)


def _in_setting(outcome: Outcome, point: Point | None) -> Outcome:
    return outcome if point is None or key(point) == own_key(outcome) else as_outcome(outcome, point)


def own_key(outcome: Outcome) -> str:
    """The key of the setting that the outcome's figures are of."""
    run = outcome.candidate.run
    usual = run_config(outcome.name, run.threads).options
    options = {name: value for name, value in run.options.items() if usual.get(name) != value}
    return point_key(outcome.name, Setting(run.threads, run.streams, run.batch, run.cores, options))


def as_outcome(outcome: Outcome, point: Point) -> Outcome:
    """The candidate in the point's setting, with its figures there, by the point's key."""
    recipe = replace(outcome.candidate.build.recipe, name=key(point))
    build = replace(outcome.candidate.build, recipe=recipe)
    setting, artifact = point.setting, outcome.artifact
    run = replace(outcome.candidate.run, threads=setting.threads, streams=setting.streams, batch=setting.batch)
    if artifact is not None:
        artifact = replace(artifact, files=(ArtifactFile(artifact.files[0].path, "", point.size_bytes),))
    measurement = Measurement(
        origin=Origin.TARGET,
        device="",
        threads=setting.threads,
        latency_ms=point.latency_ms,
        latencies_ns=(),
        ratio=point.ratio,
        throughput_ips=point.throughput_ips,
        load=Load(None, None, None, None, point.cold_start_ms),
        memory=Memory(None, None, None, point.peak_memory_bytes),
        ratio_interval=point.ratio_interval,
    )
    return replace(
        outcome, candidate=replace(outcome.candidate, build=build, run=run), artifact=artifact, measurement=measurement
    )


def plain_twins(run: Run) -> dict[str, str]:
    """Candidate -> its point with the most threads, one stream, one sample and no options, or itself where the run has it so."""
    if run.exploration is None:
        return {}
    plain = [p for p in run.exploration.points if p.setting == Setting(p.setting.threads)]
    most = max((p.setting.threads for p in plain), default=0)
    as_raced = {o.name: o.name for o in run.outcomes if own_key(o) == point_key(o.name, Setting(most))}
    return {**as_raced, **{p.candidate: key(p) for p in plain if p.setting.threads == most}}
