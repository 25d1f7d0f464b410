"""What a run teaches of its model on its target: verdicts with evidence, one sentence each. Pure.

- A difference in time is claimed where `core.relative` says it is shown, a drop where its interval lies beyond max-drop. Of a
  measured candidate without an interval nothing is said.
- "Gains nothing" is claimed where the interval leaves no room for a gain; else the sentence says that none was shown.
- Every number is the run's own. What decides most comes first, and there are at most MOST.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice

from edgekit.core.accuracy import COLLAPSED_DROP, Accuracy, feasible, is_equivalent, samples_to_settle
from edgekit.core.case import Case, case_of, was_quantized
from edgekit.core.recipes import MIXED, RECIPES, REFERENCE
from edgekit.core.relative import TimeRatio
from edgekit.core.results import Choice, Origin, Outcome, VerdictCode
from edgekit.core.search import Search, Try
from edgekit.core.types import Prefer, Requirements

MOST = 5
NAMED = 3  # of a list in a sentence

# A gain below a twentieth is nobody's reason to quantize: an interval that ends there leaves no room for one.
NO_GAIN_FROM = 0.95

_ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


class FindingCode(StrEnum):
    """What a finding is about; the order here is that of the findings."""

    ALREADY_QUANTIZED = "already quantized"
    MIXED = "mixed precision"
    PAYS = "a narrower precision pays"
    FULL_PRECISION = "full precision is right"
    ENGINE = "the engine's speed-up"
    COLLAPSES = "collapses"
    LOSES = "loses accuracy"
    UNDECIDED = "too few samples"
    NO_GAIN = "no gain in time"
    SLOWER = "slower than fp32"
    NOT_TRIED = "not tried"
    PARTIAL = "partly quantized"


# What stands before the findings of a run that searched settings.
OF_THE_RACE = "Times here are of the race before the search over settings, of one request after another"


@dataclass(frozen=True)
class RunFinding:
    """One thing learnt. `text` is a sentence without a full stop; `evidence` names the candidates whose figures it rests on."""

    code: FindingCode
    text: str
    evidence: tuple[str, ...]


def findings(
    outcomes: Sequence[Outcome],
    choice: Choice,
    searches: Sequence[Search],
    requirements: Requirements,
    origin: Origin,
    aa_spread: float,
    left_out: Mapping[str, str],
) -> tuple[RunFinding, ...]:
    """What the run shows, the most decisive first.

    `aa_spread` >= 1 is the race's A/A spread, of predictions the factor below which they are a tie; `left_out`
    holds the recipes that were not built, with the reason.
    """
    case = case_of(outcomes, choice, requirements, origin, aa_spread, left_out)
    rules = (
        _already_quantized(left_out),
        _mixed(case, searches),
        _pays(case, searches),
        _full_precision(case),
        _engine(case),
        _collapses(case),
        _loses(case),
        _undecided(case),
        _no_gain(case),
        _slower(case),
        _not_tried(case, left_out),
        _partial(case),
    )
    return tuple(islice(chain.from_iterable(rules), MOST))


def best_try(search: Search) -> Try | None:
    """The try that a search's candidate came of: of those that held the one that kept fewest units; None when none held."""
    held = [t for t in search.tries if t.held]
    return min(held, key=lambda t: len(t.kept)) if search.best is not None and held else None


# ----------------------------------------------------------------------------------------------------------------- rules


def _already_quantized(left_out: Mapping[str, str]) -> Iterator[RunFinding]:
    names = tuple(name for name, reason in left_out.items() if was_quantized(reason))
    if names:
        text = f"{left_out[names[0]]}: it is compared as it is, and {_listed(names)} were left out"
        yield RunFinding(FindingCode.ALREADY_QUANTIZED, text, ())


def _mixed(case: Case, searches: Sequence[Search]) -> Iterator[RunFinding]:
    full = case.full()
    for search in searches:
        best = search.best
        if best is None or best not in case.outcomes or not case.holds(best):
            continue
        ratio, accuracy = case.ratio(best, full), case.outcomes[best].accuracy
        if ratio is None or accuracy is None:
            continue
        keeps = f"{best} {_keeps(search, case.outcomes[best])}"
        if ratio.is_faster:
            text = f"mixed precision carries it: {keeps} and is {ratio.as_speed}, {_cost(accuracy)}"
        else:
            text = f"mixed precision keeps the answers and shows no gain in time: {keeps}; {ratio.as_time}"
        yield RunFinding(FindingCode.MIXED, text, (best, full))


def _keeps(search: Search, outcome: Outcome) -> str:
    best = best_try(search)
    if best is None or not best.kept:
        settings = ", ".join(f"{key} {value}" for key, value in best.settings.items()) if best is not None else ""
        return f"quantizes every layer{f' with {settings}' if settings else ''}"
    of = f" of {len(search.attribution.layers)}" if search.attribution is not None else ""
    precision = "bf16" if outcome.candidate.run.precision == "bf16" else "fp32"
    return f"keeps {len(best.kept)}{of} layers in {precision} ({_listed(best.kept)})"


def _pays(case: Case, searches: Sequence[Search]) -> Iterator[RunFinding]:
    name = case.choice.chosen
    if name is None or case.precision(name) == "fp32" or name in {s.best for s in searches}:
        return
    ratio, accuracy = case.ratio(name, case.full()), case.outcomes[name].accuracy
    if ratio is None or accuracy is None or not ratio.is_faster:
        return
    smaller = _saving(case, name)
    size = f", {smaller:.0%} smaller" if smaller > 0 else ""
    text = f"{case.precision(name)} pays here: {name} is {ratio.as_speed}{size}, {_cost(accuracy)}"
    yield RunFinding(FindingCode.PAYS, text, (name, ratio.base))


def _full_precision(case: Case) -> Iterator[RunFinding]:
    chosen = case.choice.chosen
    if chosen is None or chosen not in case.times or case.precision(chosen) != "fp32":
        return
    narrower = [name for name in case.outcomes if case.precision(name) != "fp32"]
    if not narrower or case.requirements.prefer not in (Prefer.LATENCY, Prefer.THROUGHPUT):
        return
    others = case.ratios([name for name in case.outcomes if name != chosen and case.holds(name)], chosen)
    open_ones = [name for name, outcome in case.outcomes.items() if _is_open(outcome, case.requirements.max_drop)]
    if any(ratio.is_faster for ratio in (*others, *case.ratios(open_ones, chosen))):
        return
    what = "the model as it was given" if case.quantized_before else "fp32"
    if not others:
        why = "no other candidate's answers are shown to hold"
    elif case.times[chosen].predicted:
        why = f"none of {len(others)} others whose answers hold is predicted to be over {case.spread:.2f}x as fast as {chosen}"
    else:
        why = (
            f"none of {len(others)} others whose answers hold is faster than {chosen} "
            f"beyond the noise (A/A {case.spread:.2f})"
        )
    text = f"{what} is the right answer here: {why}"
    yield RunFinding(FindingCode.FULL_PRECISION, text, (chosen, *(ratio.name for ratio in others)))


def _engine(case: Case) -> Iterator[RunFinding]:
    """Whose the speed-up is, where no narrower precision adds to it."""
    full, chosen = case.full(), case.choice.chosen
    ratio = case.ratio(full, REFERENCE)
    if full == REFERENCE or ratio is None:
        return
    if chosen is not None and chosen != full:
        further = case.ratio(chosen, full)
        if further is None or further.is_faster:
            return
    whose = (
        "the engine's" if case.engine(full) != case.engine(REFERENCE) else "that of how the graph is prepared and run"
    )
    text = f"the speed-up of {full} is {whose}, not a precision's: in fp32 it is {ratio.as_speed}"
    yield RunFinding(FindingCode.ENGINE, text, (full, REFERENCE))


def _collapses(case: Case) -> Iterator[RunFinding]:
    """Each precision that does; first those that would have been faster."""
    told = []
    for precision in _precisions(case):
        collapsed = [name for name in case.named(precision) if _has_collapsed(case.outcomes[name])]
        shown = {name: why for name in collapsed if (why := _collapse(name, case))}
        if shown:
            names, missed = tuple(shown), _would_be(case, tuple(shown))
            verb = "collapses" if _alone(subject := _subject(case, precision, names)) else "collapse"
            text = f"{subject} {verb} on this model: {_joined(tuple(shown.values()))}{missed}"
            told.append((not missed, RunFinding(FindingCode.COLLAPSES, text, names)))
    yield from (finding for _, finding in sorted(told, key=lambda pair: pair[0]))


def _subject(case: Case, precision: str, names: Sequence[str]) -> str:
    """Of whom something is said: the precision, in one engine or in all, when it is true of all of it; else those named."""
    judged = [n for n in case.named(precision) if case.outcomes[n].accuracy is not None and not n.endswith(MIXED)]
    engines = {case.engine(name) for name in names}
    if any(case.engine(name) in engines and name not in names for name in judged):
        return _listed(names)
    everywhere = {case.engine(name) for name in judged} <= engines
    where = "" if everywhere else f" in {_listed([_ENGINES.get(engine, engine) for engine in sorted(engines)])}"
    plain = "plain " if any(name.endswith(MIXED) for name in case.named(precision)) else ""
    return f"{plain}{precision}{where}"


def _alone(subject: str) -> bool:
    return "," not in subject


def _collapse(name: str, case: Case) -> str:
    """What the collapse is; empty where it is a drop that the interval does not bear out."""
    accuracy = case.outcomes[name].accuracy
    assert accuracy is not None
    if accuracy.ci_low > case.requirements.max_drop:
        return _loss(name, accuracy)
    return "" if accuracy.drop > COLLAPSED_DROP else f"{name}: {accuracy.collapse_reason} (n={accuracy.n})"


def _loses(case: Case) -> Iterator[RunFinding]:
    """Faster, and surely wrong more often than is allowed."""
    limit, full = case.requirements.max_drop, case.full()
    for precision in _precisions(case):
        faster = [ratio.name for ratio in case.ratios(case.named(precision), full) if ratio.is_faster]
        judged = [(name, case.outcomes[name].accuracy) for name in faster if case.outcomes[name].blocked is None]
        lost = {name: accuracy for name, accuracy in judged if accuracy is not None and accuracy.ci_low > limit}
        if lost:
            losses = _joined([_loss(name, accuracy) for name, accuracy in lost.items()])
            verb = "loses" if _alone(subject := _subject(case, precision, tuple(lost))) else "lose"
            text = f"{subject} {verb} more than {limit:g}: {losses}{_would_be(case, tuple(lost))}"
            yield RunFinding(FindingCode.LOSES, text, tuple(lost))


def _undecided(case: Case) -> Iterator[RunFinding]:
    """The fastest that more samples might admit."""
    limit, base = case.requirements.max_drop, case.choice.chosen or case.full()
    open_ones = [name for name, outcome in case.outcomes.items() if _is_open(outcome, limit)]
    for ratio in case.ratios(open_ones, base)[:1]:
        accuracy = case.outcomes[ratio.name].accuracy
        if accuracy is None or not ratio.is_faster:
            return
        needed = samples_to_settle(accuracy, limit)
        hint = f"; about {needed} samples would settle it" if needed is not None else ""
        text = (
            f"{accuracy.n} samples do not tell whether the answers of {ratio.name} hold, {_cost(accuracy)}; "
            f"it is {ratio.as_speed}{hint}"
        )
        yield RunFinding(FindingCode.UNDECIDED, text, (ratio.name, base))


def _is_open(outcome: Outcome, limit: float) -> bool:
    a = outcome.accuracy
    return (
        outcome.blocked is None
        and a is not None
        and a.nonfinite == 0
        and a.ci_low <= limit
        and not feasible(a, limit).ok
    )


def _no_gain(case: Case) -> Iterator[RunFinding]:
    ratios = case.ratios([name for name in case.named("int8") if case.holds(name)], case.full())
    if not ratios or any(ratio.is_faster for ratio in ratios) or _slower_ones(case, "int8"):
        return
    none = all(ratio.low >= min(NO_GAIN_FROM, 1 / case.spread) for ratio in ratios)
    verb = "is predicted to gain nothing" if ratios[0].predicted else "gains nothing" if none else "shows no gain"
    saving = _saving(case, ratios[0].name)
    size = f"saves {saving:.0%} of size and {verb} in time here" if saving > 0 else f"{verb} in time here"
    text = f"int8 {size}: {_joined([ratio.as_time for ratio in ratios])}"
    yield RunFinding(FindingCode.NO_GAIN, text, tuple(ratio.name for ratio in ratios))


def _slower(case: Case) -> Iterator[RunFinding]:
    for precision in ("bf16", "fp16", "int8"):
        ratios = _slower_ones(case, precision)
        if ratios:
            where = "target" if ratios[0].predicted else "CPU"
            text = f"{precision} is slower than fp32 on this {where}: {_joined([r.as_time for r in ratios])}"
            yield RunFinding(FindingCode.SLOWER, text, tuple(r.name for r in ratios))


def _slower_ones(case: Case, precision: str) -> list[TimeRatio]:
    """Every timed candidate of the precision over fp32 of its own engine; empty unless all are slower."""
    found = [case.ratio(name, case.full_of(case.engine(name))) for name in case.named(precision) if name in case.times]
    ratios = [ratio for ratio in found if ratio is not None]
    all_slower = len(ratios) == len(found) and all(ratio.is_slower for ratio in ratios)
    return sorted(ratios, key=lambda r: (r.value, r.name)) if all_slower else []


def _not_tried(case: Case, left_out: Mapping[str, str]) -> Iterator[RunFinding]:
    """Why there is no static int8; the reason most of its recipes share."""
    if case.quantized_before or any(o.candidate.build.recipe.needs_calibration for o in case.outcomes.values()):
        return
    reasons = Counter(left_out[r.name] for r in RECIPES.values() if r.needs_calibration and r.name in left_out)
    for reason, _ in reasons.most_common(1):
        yield RunFinding(FindingCode.NOT_TRIED, f"static int8 was not tried: {reason}", ())


def _partial(case: Case) -> Iterator[RunFinding]:
    """What quantizing left alone, by the builder's own remarks."""
    said: dict[str, list[str]] = {}
    for name, outcome in case.outcomes.items():
        if (
            outcome.artifact is not None
            and outcome.blocked is None
            and case.precision(name).startswith(("int8", "int4"))
        ):
            for note in outcome.artifact.notes:
                said.setdefault(note, []).append(name)
    for note, names in said.items():
        yield RunFinding(FindingCode.PARTIAL, f"{_listed(names)}: {note}", tuple(names))


# ----------------------------------------------------------------------------------------------------------------- words


def _precisions(case: Case) -> list[str]:
    """All but fp32, in the order of the candidates."""
    return [p for p in dict.fromkeys(map(case.precision, case.outcomes)) if p != "fp32"]


def _has_collapsed(outcome: Outcome) -> bool:
    return outcome.accuracy is not None and any(v.code is VerdictCode.COLLAPSED for v in outcome.verdicts)


def _saving(case: Case, name: str) -> float:
    """The part of the reference's size that is saved."""
    own, reference = case.outcomes[name].artifact, case.outcomes.get(REFERENCE)
    whole = reference.artifact if reference is not None else None
    return 1 - own.size_bytes / whole.size_bytes if own and whole and whole.size_bytes else 0.0


def _would_be(case: Case, names: Sequence[str]) -> str:
    """What is missed by it: the fastest of `names`, if it is faster at all."""
    fastest = next((ratio for ratio in case.ratios(names, case.full()) if ratio.is_faster), None)
    return f"; {fastest.name} would be {fastest.as_speed}" if fastest is not None else ""


def _loss(name: str, a: Accuracy) -> str:
    verb = "worsens" if a.direction == "lower" else "drops"
    return f"{name}'s {a.metric} {verb} by {a.drop:.4f} ({_accuracy_interval(a)})"


def _cost(a: Accuracy) -> str:
    if is_equivalent(a):
        return "with the reference's outputs but for rounding"
    return f"at a {a.metric} drop of {a.drop:.4f} ({_accuracy_interval(a)})"


def _accuracy_interval(a: Accuracy) -> str:
    random = ", on random inputs" if a.kind == "synthetic" else ""
    return f"95% {a.ci_low:.4f} to {a.ci_high:.4f}, n={a.n}{random}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join((*names[:NAMED], *(["..."] if len(names) > NAMED else [])))


def _joined(parts: Sequence[str]) -> str:
    more = [f"and {len(parts) - NAMED} more"] if len(parts) > NAMED else []
    return ", ".join((*parts[:NAMED], *more))
