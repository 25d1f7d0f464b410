"""How far the figures of one run's chosen artifact are from another's, and whether that is a difference. Pure.

- Nothing is said of a figure that was predicted, or not measured: `unknown`, with the reason.
- Times of two runs were taken at different moments. They are compared over the reference, which each run raced beside its own
  choice: the same artifact, or one of the same arithmetic, run alike on the same machine. Without such a reference stored times
  can't be compared; a race of both can.
- What carries noise is different where the interval, widened by the twins' noise of both races, says so.
- Memory and cold start of a run are of one process each: no interval, so they are compared but never called different unless
  they were taken anew, or the same bytes ran alike.
- Bytes and answers are exact: sizes are compared as they are, answers with the interval of their sampling.
"""

import math
from dataclasses import replace

from edgekit.core.accuracy import Accuracy
from edgekit.core.compare import MIN_DIFFERENCE
from edgekit.core.delta import (
    COLD_START,
    LATENCY,
    MEMORY,
    SCORE,
    SIZE,
    TAIL,
    THROUGHPUT,
    Delta,
    Shown,
    judged,
    ratio_delta,
    unknown,
)
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Outcome
from edgekit.core.retaken import Retaken, retaken_deltas
from edgekit.core.run import Run
from edgekit.core.standing import Reference, Standing, chosen_outcome, reference, standing
from edgekit.core.stats import Z_95


def deltas(before: Run, after: Run, retaken: Retaken | None = None) -> tuple[Delta, ...]:
    """Every figure of the chosen artifacts, `after` against `before`; `retaken` replaces what the runs hold of times and memory."""
    one, other = chosen_outcome(before), chosen_outcome(after)
    if one is None or other is None:
        why = f"nothing was chosen in the {'first' if one is None else 'second'} run"
        names = {LATENCY: "ms", TAIL: "ms", THROUGHPUT: "/s", MEMORY: "bytes", COLD_START: "ms", SIZE: "bytes"}
        return tuple(unknown(name, unit, None, None, why) for name, unit in {**names, SCORE: after.data.metric}.items())
    found = [*_times(before, after, one, other, retaken), _size(one, other)]
    return (*found, _score(before, after, one, other))


# ------------------------------------------------------------------------------------------------------------------ times


def _times(before: Run, after: Run, one: Outcome, other: Outcome, retaken: Retaken | None) -> list[Delta]:
    if retaken is not None:
        return [_one_at_a_time(one, other, delta) for delta in retaken_deltas(retaken)]
    a, b = standing(before), standing(after)
    pairs = [(name, unit, x, y) for (name, unit, x), (_, _, y) in zip(_values(a), _values(b), strict=True)]
    if a is None or b is None:
        return [unknown(name, unit, x, y, "predicted, not measured on the target") for name, unit, x, y in pairs]
    if _same_thing(before, after, one, other):
        return [_identical(name, unit, x, y) for name, unit, x, y in pairs]
    why = incomparable(before, after)
    found = {name: unknown(name, unit, x, y, why) for name, unit, x, y in pairs}
    if not why:
        found |= {d.figure: d for d in _over_reference(before, after, a, b)}
        found[TAIL] = replace(found[TAIL], basis="a tail of two runs has no interval")
    if not _machines_differ(before, after):
        found |= {name: _single(found[name]) for name in (MEMORY, COLD_START)}
    return list(found.values())


def _one_at_a_time(one: Outcome, other: Outcome, delta: Delta) -> Delta:
    """A race runs one request after another: of several streams it tells no throughput."""
    if delta.figure != THROUGHPUT or one.candidate.run.streams == other.candidate.run.streams == 1:
        return delta
    why = "raced one request at a time, which is not how its streams run"
    return unknown(THROUGHPUT, delta.unit, delta.before, delta.after, why)


def _values(s: Standing | None) -> list[tuple[str, str, float | None]]:
    return [
        (LATENCY, "ms", s.latency_ms.p50 if s else None),
        (TAIL, "ms", s.latency_ms.p99 if s else None),
        (THROUGHPUT, "/s", s.throughput_ips if s else None),
        (MEMORY, "bytes", float(s.memory_bytes) if s and s.memory_bytes is not None else None),
        (COLD_START, "ms", s.cold_start_ms if s else None),
    ]


def incomparable(before: Run, after: Run) -> str:
    """Why the stored times of two runs can't be compared, or an empty string."""
    if different := _machines_differ(before, after):
        return f"measured on different machines: {different}"
    one, other = reference(before), reference(after)
    if one is None or other is None:
        return f"{REFERENCE}, which each run is held against, was not measured in both"
    if before.noise is None or after.noise is None:
        return "the noise of a race is not known"
    for what, x, y in _reference_facts(before, after, one, other):
        if x != y and None not in (x, y):
            return f"the reference is not the same in both: {what} differ"
    return ""


def _machines_differ(before: Run, after: Run) -> str:
    """The first fact in which the machines differ that times depend on, or an empty string."""
    for fact in ("arch", "cpu_model", "isa", "usable_threads"):
        x, y = (getattr(run.device, fact) for run in (before, after))
        if x != y:
            return f"{fact} {_short(x)} and {_short(y)}"
    return ""


def _short(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reference_facts(before: Run, after: Run, one: Reference, other: Reference) -> list[tuple[str, object, object]]:
    """What the reference's time depends on: its arithmetic layer by layer (not the weights' values), its engine and settings."""
    return [
        ("its layers", before.model.layers, after.model.layers),
        ("its inputs", before.model.inputs, after.model.inputs),
        ("engine versions", one.engine_version, other.engine_version),
        ("threads", one.threads, other.threads),
        ("settings in force", one.settings, other.settings),
    ]


def _same_thing(before: Run, after: Run, one: Outcome, other: Outcome) -> bool:
    """The same bytes, run alike by the same engine and edgekit on a machine that says the same of itself."""
    assert one.artifact is not None and other.artifact is not None
    settings = (one.measurement, other.measurement)
    return (
        one.artifact.digest == other.artifact.digest
        and one.candidate.run == other.candidate.run
        and one.candidate.build.engine_version == other.candidate.build.engine_version
        and before.edgekit_version == after.edgekit_version
        and before.device == after.device
        and len({str(sorted(m.settings_in_force.items())) for m in settings if m is not None}) == 1
    )


def _identical(name: str, unit: str, x: float | None, y: float | None) -> Delta:
    """What cannot differ but by noise: a race of the two would run one thing against itself."""
    basis = "the same bytes, run alike by the same engine on the same machine: what differs is the moment"
    if x is None or y is None:
        return unknown(name, unit, x, y, "not measured in both")
    return Delta(name, unit, x, y, 0.0, 0.0, 0.0, name != THROUGHPUT, Shown.EQUAL, basis)


def _over_reference(before: Run, after: Run, a: Standing, b: Standing) -> list[Delta]:
    """Latency and throughput, each run's over its own reference, whose speed in the same race stands for the machine's.

    The parts add up in squares on logarithms: both intervals, and the noise of both races, each of which holds what lasts as long
    as a process (`core.compare`).
    """
    noises = [math.log(max(run.noise.spread, 1 + MIN_DIFFERENCE)) for run in (before, after) if run.noise]
    p50s = [r.p50_ms for run in (before, after) if (r := reference(run)) is not None]
    told = " and ".join(f"{p50:.3g} ms" for p50 in p50s if p50 is not None)
    basis = f"each over {REFERENCE} in its own race, whose p50 was {told}"
    reach = math.hypot(a.ratio_reach, b.ratio_reach, *noises)
    rate_reach = math.hypot(a.rate_reach, b.rate_reach, *noises)
    p50 = (a.latency_ms.p50, b.latency_ms.p50)
    ips = (a.throughput_ips, b.throughput_ips)
    if a.is_reference and b.is_reference:
        why = f"both chose {REFERENCE} itself: over itself nothing is faster or slower"
        return [unknown(LATENCY, "ms", *p50, why), unknown(THROUGHPUT, "/s", *ips, why)]
    return [
        _told(LATENCY, "ms", p50, math.log(b.ratio / a.ratio), reach, basis),
        _told(THROUGHPUT, "/s", ips, math.log(b.rate / a.rate), rate_reach, basis),
    ]


def _told(
    name: str, unit: str, values: tuple[float | None, float | None], middle: float, reach: float, basis: str
) -> Delta:
    """A factor with its interval; without one, nothing is told."""
    if math.isinf(reach):
        return unknown(name, unit, *values, "no interval of it is stored")
    return ratio_delta(name, unit, *values, middle, reach, basis)


def _single(delta: Delta) -> Delta:
    """A figure of one process in each run: its change is told, and no more."""
    if not delta.before or delta.after is None:
        return replace(delta, basis="not measured in both")
    return replace(delta, change=delta.after / delta.before - 1, basis="one process in each run: no interval")


# ----------------------------------------------------------------------------------------------------- bytes and answers


def _size(one: Outcome, other: Outcome) -> Delta:
    assert one.artifact is not None and other.artifact is not None
    before, after = float(one.artifact.size_bytes), float(other.artifact.size_bytes)
    change = after / before - 1 if before else 0.0
    made = Delta(SIZE, "bytes", before, after, change, change, change, True, Shown.UNKNOWN, "bytes of the artifacts")
    return replace(made, shown=judged(made))


def _score(before: Run, after: Run, one: Outcome, other: Outcome) -> Delta:
    """What the chosen artifacts score on the evaluation split; which way is worse is the metric's."""
    a, b = before.evaluation, after.evaluation
    if a is None or b is None:
        known = a or b
        values = (a.value if a else None, b.value if b else None)
        why = f"the {'first' if a is None else 'second'} run has no evaluation"
        return unknown(SCORE, known.metric if known else after.data.metric, *values, why)
    made = replace(unknown(SCORE, b.metric, a.value, b.value, ""), rising_is_worse=b.direction == "lower")
    if why := _other_samples(before, after, a, b):
        return replace(made, basis=why)
    made = replace(made, change=b.value - a.value)
    reach = _score_reach(before, after, a, b)
    if _same_answers(one, other) and made.change == 0:
        reach = 0.0
    if reach is None:
        return replace(made, basis="held against another reference, and the interval of such a score is not known")
    low, high = b.value - a.value - reach, b.value - a.value + reach
    made = replace(made, low=low, high=high, basis=f"the same {b.n} evaluation samples")
    return replace(made, shown=judged(made))


def _same_answers(one: Outcome, other: Outcome) -> bool:
    """The same bytes by the same engine: what they answer was counted twice."""
    assert one.artifact is not None and other.artifact is not None
    versions = [o.candidate.build.engine_version for o in (one, other)]
    return one.artifact.digest == other.artifact.digest and versions[0] == versions[1]


def _other_samples(before: Run, after: Run, a: Accuracy, b: Accuracy) -> str:
    """Why two scores are not of one thing, or an empty string."""
    if a.metric != b.metric or before.data.metric_options != after.data.metric_options:
        return f"scored by {a.metric} and by {b.metric}" if a.metric != b.metric else "the metric's options differ"
    one, other = (run.data.splits.get("evaluation") for run in (before, after))
    if one is None or other is None or one.sha256 != other.sha256:
        return "evaluated on other samples"
    return ""


def _score_reach(before: Run, after: Run, a: Accuracy, b: Accuracy) -> float | None:
    """Half the interval of the difference of two scores, or None where nothing stored tells it.

    Over one reference: the intervals of both drops in squares. Over two, of shares of right answers: the normal interval of two
    independent shares. Both take what was scored on the same samples as independent: too wide rather than too narrow.
    """
    if before.model_sha256 == after.model_sha256:
        return math.hypot(*(max(x.drop - x.ci_low, x.ci_high - x.drop) for x in (a, b)))
    shares = a.unit == b.unit == "fraction" and a.worse is not None and b.worse is not None
    if not shares or not (0 <= a.value <= 1 and 0 <= b.value <= 1):
        return None
    counts = [x.effective_answers or x.answers or x.n for x in (a, b)]
    return Z_95 * math.sqrt(sum(x.value * (1 - x.value) / n for x, n in zip((a, b), counts, strict=True)))
