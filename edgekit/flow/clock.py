"""Measure what was built: memory and cold start in clean processes, latency in one interleaved race.

Its heat has every candidate; its final the fastest whose answers hold, and the baseline, with enough runs for their percentiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.core.accuracy import feasible
from edgekit.core.choose import figures
from edgekit.core.cost import predict
from edgekit.core.needs import Kind, limits
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Measurement, Origin, Outcome, Verdict, VerdictCode
from edgekit.core.run import Noise
from edgekit.core.stats import latency_stats, runs_needed
from edgekit.core.types import ModelInfo, Requirements, Target
from edgekit.errors import DeviceError, DiskFull, EdgekitError
from edgekit.flow.workshop import SELECTION, Made, Materials, Workshop
from edgekit.measure import CleanBench, clean_bench
from edgekit.race import Budget, RaceResult, race

HEAT = Budget(samples=50, seconds=1.0, rounds=5, turn_ms=50.0)
FINAL = Budget(samples=0, seconds=5.0, rounds=15, turn_ms=100.0)
# A percentile that was asked for gets the time it takes, within reason.
REQUIRED_SECONDS = 120.0
FINALISTS = 3

# Feeds of a measurement: a few samples, cycled, so that no run sees a warm cache of one input alone.
BENCH_SAMPLES = 8


@dataclass(frozen=True)
class Job:
    """What is settled once the candidates are built. `origin` is TARGET when the device measured on is the target."""

    info: ModelInfo
    materials: Materials
    target: Target
    origin: Origin
    requirements: Requirements


def measure_all(
    shop: Workshop, job: Job, made: Mapping[str, Made], outcomes: Sequence[Outcome]
) -> tuple[tuple[Outcome, ...], Noise | None]:
    """Figures for every candidate that runs, and the noise they carry.

    Of a target that this machine is not, latency is predicted; a host of the target's architecture is raced all the same, and its
    figures say `host`.
    """
    entrants = {o.name: made[o.name] for o in outcomes if o.name in made and o.runs}
    benches: dict[str, CleanBench] = {}
    failed: dict[str, str] = {}
    for name, entrant in entrants.items():
        try:
            benches[name] = _bench(shop, job, name, entrant)
        except (DiskFull, DeviceError):  # of the device, not of the candidate
            raise
        except EdgekitError as error:
            if name == REFERENCE:
                raise
            failed[name] = str(error)
    entrants = {name: entrant for name, entrant in entrants.items() if name in benches}
    result = _race(shop, job, entrants, outcomes, benches) if shop.facts.arch == job.target.arch else None
    failed |= result.dropped if result else {}
    measured = []
    for outcome in outcomes:
        if outcome.name in failed:
            verdict = Verdict(VerdictCode.DOES_NOT_RUN, failed[outcome.name])
            outcome = replace(outcome, verdicts=(*outcome.verdicts, verdict))
        elif outcome.name in benches:
            outcome = _with_figures(shop, job, outcome, benches[outcome.name], result)
        measured.append(outcome)
    return tuple(measured), Noise(result.aa_ratio, result.aa_spread) if result else None


def measure_again(
    shop: Workshop,
    job: Job,
    made: Mapping[str, Made],
    outcomes: Sequence[Outcome],
    more: Sequence[Outcome],
    noise: Noise | None,
) -> tuple[tuple[Outcome, ...], Noise | None]:
    """The outcomes with `more`, which a search found, raced against the best of before; the others keep their figures.

    Every race has the reference in it: figures of two races compare by their ratio to it.
    """
    if not more:
        return tuple(outcomes), noise
    rivals = [o for o in outcomes if o.runs and _holds(o, job.requirements)]
    known = {o.name: numbers for o in rivals if (numbers := figures(o, job.origin)) is not None and o.name != REFERENCE}
    best = sorted(known, key=lambda name: known[name].ratio)[:FINALISTS]
    reference = next(o for o in outcomes if o.name == REFERENCE)
    chosen = [reference, *(o for o in outcomes if o.name in best)]
    measured, noise = measure_all(shop, job, made, [*map(_unmeasured, chosen), *more])
    fresh = {o.name: o for o in measured}
    return (*(fresh.pop(o.name, o) for o in outcomes), *fresh.values()), noise


def _holds(outcome: Outcome, requirements: Requirements) -> bool:
    return outcome.accuracy is not None and feasible(outcome.accuracy, requirements.max_drop).ok


def _unmeasured(outcome: Outcome) -> Outcome:
    """The outcome as before its race: the verdict on its speed goes with its figures."""
    verdicts = tuple(v for v in outcome.verdicts if v.code is not VerdictCode.SLOWER)
    return replace(outcome, measurement=None, prediction=None, verdicts=verdicts)


def _bench(shop: Workshop, job: Job, name: str, entrant: Made) -> CleanBench:
    shop.progress(f"memory and first inference of {name}")
    key = {"made": entrant.key, "feeds": _feeds_key(job), "machine": shop.device_key}
    feeds = job.materials.feeds(SELECTION)

    def bench(_: object) -> CleanBench:
        there = shop.on(shop.facts.arch, entrant)
        return clean_bench(shop.device, there, feeds, where=name, samples=BENCH_SAMPLES)

    return shop.remembered("benches", key, CleanBench, bench)[1]


def _race(
    shop: Workshop,
    job: Job,
    entrants: Mapping[str, Made],
    outcomes: Sequence[Outcome],
    benches: Mapping[str, CleanBench],
) -> RaceResult:
    """The final is run only where its figures count, on the target itself, and by those that may still be chosen."""
    final = _final(job.requirements) if job.origin is Origin.TARGET else HEAT
    fit = [o.name for o in outcomes if o.name in benches and _may_be_chosen(o, benches[o.name], job.requirements)]

    def finalists(ratios: Mapping[str, float]) -> list[str]:
        return sorted((name for name in fit if name in ratios), key=lambda name: ratios[name])[:FINALISTS]

    key = {
        "made": {name: entrant.key for name, entrant in entrants.items()},
        "feeds": _feeds_key(job),
        "machine": shop.device_key,
        "budgets": [HEAT, final],
        "fit": fit,
    }
    runnables = {name: shop.on(shop.facts.arch, entrant) for name, entrant in entrants.items()}
    feeds = job.materials.feeds(SELECTION)
    _, result = shop.remembered(
        "races",
        key,
        RaceResult,
        lambda _: race(shop.device, runnables, feeds, BENCH_SAMPLES, REFERENCE, HEAT, final, finalists, shop.progress),
        intact=lambda _, race_result: not race_result.dropped,  # what failed once is tried again
    )
    return result


def _may_be_chosen(outcome: Outcome, bench: CleanBench, requirements: Requirements) -> bool:
    """Whether all that is known before the race holds: the answers, the size, the memory, the cold start."""
    if not _holds(outcome, requirements):
        return False
    assert outcome.artifact is not None
    known = {
        Kind.SIZE: outcome.artifact.size_bytes,
        Kind.MEMORY: bench.memory.peak,
        Kind.COLD_START: bench.load.process_to_first_inference_ms,
    }
    return all(need.admits(known[need.kind]) for need in limits(requirements) if need.kind in known)


def _final(requirements: Requirements) -> Budget:
    """Enough runs for the percentile that was asked for, else for p99 if the time suffices."""
    if requirements.latency is None:
        return replace(FINAL, samples=runs_needed(99.0))
    percentile = float(requirements.latency.percentile.removeprefix("p"))
    return replace(FINAL, samples=runs_needed(percentile), seconds=REQUIRED_SECONDS)


def _feeds_key(job: Job) -> str:
    return job.materials.data.splits[SELECTION].sha256


def _with_figures(shop: Workshop, job: Job, outcome: Outcome, bench: CleanBench, result: RaceResult | None) -> Outcome:
    assert outcome.artifact is not None
    if job.origin is not Origin.TARGET:
        prediction = predict(job.info, job.target, outcome.candidate, outcome.artifact, bench.memory.peak)
        outcome = replace(outcome, prediction=prediction)
    if result is None:
        return outcome
    origin = Origin.TARGET if job.origin is Origin.TARGET else Origin.HOST
    measurement = _measurement(outcome, bench, result, origin, shop.device.name)
    slower = _slower(outcome.name, result) if origin is Origin.TARGET else ()
    return replace(outcome, measurement=measurement, verdicts=(*outcome.verdicts, *slower))


def _measurement(outcome: Outcome, bench: CleanBench, result: RaceResult, origin: Origin, device: str) -> Measurement:
    latencies = result.latencies_ns(outcome.name)
    stats = latency_stats(latencies)
    return Measurement(
        origin=origin,
        device=device,
        threads=outcome.candidate.run.threads,
        latency_ms=stats,
        latencies_ns=latencies,
        ratio=result.ratios[outcome.name],
        throughput_ips=1e3 / stats.mean,
        load=bench.load,
        memory=bench.memory,
        settings_asked=bench.settings_asked,
        settings_in_force=bench.settings_in_force,
        ratio_interval=result.intervals.get(outcome.name),
    )


def _slower(name: str, result: RaceResult) -> tuple[Verdict, ...]:
    """Slower is what lies beyond both the noise of the race and the interval of its own ratio."""
    ratio = result.ratios[name]
    low, high = result.intervals.get(name, (1.0, 1.0))
    if name == REFERENCE or ratio <= result.aa_spread or low <= 1.0:
        return ()
    return (Verdict(VerdictCode.SLOWER, f"{ratio:.2f}x the p50 of {REFERENCE} (95% {low:.2f} to {high:.2f})"),)
