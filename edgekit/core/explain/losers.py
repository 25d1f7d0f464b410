"""Why each other candidate was not chosen, and each recipe not tried, those with one kind of reason together. Pure.

Every candidate but the chosen one is named exactly once, and so is every recipe that was left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum

from edgekit.core.accuracy import feasible, samples_to_settle
from edgekit.core.explain.evidence import Evidence, Item, Part, Phrase, Sentence, listed, phrase, pointer, quoted, say
from edgekit.core.explain.needs import Need, reading
from edgekit.core.explain.story import Story
from edgekit.core.needs import Kind
from edgekit.core.results import VerdictCode

FORBIDDEN = "forbidden by --forbid"  # how the plan says so


class Fate(StrEnum):
    """Why a candidate was not chosen; the first that is true of it counts."""

    BLOCKED = "ruled out"
    EXCLUDED = "failed later"
    WRONG = "wrong too often"
    DOUBTFUL = "too few samples"
    SHORT = "misses a requirement"
    UNTIMED = "not measured"
    WORSE = "worse"
    TIE = "a tie"


def sentences(story: Story) -> Iterator[Sentence]:
    """One or more sentences a fate."""
    fates: dict[Fate, list[str]] = {}
    for outcome in story.run.outcomes:
        if outcome.name != story.chosen:
            fates.setdefault(_fate(story, outcome.name), []).append(outcome.name)
    for fate in Fate:
        if fate in fates:
            yield from _TOLD[fate](story, fates[fate])
    yield from _left_out(story)


def _fate(story: Story, name: str) -> Fate:
    outcome = story.readings.outcome(name)
    accuracy = outcome.accuracy
    if outcome.blocked is not None:
        return Fate.BLOCKED
    if name in story.anew.excluded:
        return Fate.EXCLUDED
    if accuracy is None or accuracy.nonfinite or accuracy.collapsed:
        return Fate.WRONG
    limit = story.run.requirements.max_drop
    if not feasible(accuracy, limit).ok:
        return Fate.WRONG if accuracy.drop > limit else Fate.DOUBTFUL
    if story.anew.lacking(name) or story.chosen is None:
        return Fate.SHORT
    if story.readings.figures(name) is None:
        return Fate.UNTIMED
    return Fate.WORSE if _is_worse(story, name) else Fate.TIE


def _is_worse(story: Story, name: str) -> bool:
    """Whether it is worse by what is preferred, beyond the noise."""
    assert story.chosen is not None
    return story.is_better(story.chosen, name)


# ------------------------------------------------------------------------------------------------------------ one a fate


def _blocked(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    """By verdict; of what collapsed also how fast it would be, which is what its accuracy may be worth."""
    by_code: dict[VerdictCode, list[Item]] = {}
    for name in names:
        outcome = story.readings.outcome(name)
        verdict = outcome.blocked
        assert verdict is not None
        why = quoted(verdict.reason, story.readings.at(name, "verdicts", outcome.verdicts.index(verdict), "reason"))
        by_code.setdefault(verdict.code, []).append(phrase("{} ({}{})", name, why, _would_be(story, name)))
    for code, told in by_code.items():
        yield say(Part.LOST, "Ruled out, {}: {}", code.value, listed(told))


def _excluded(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    for name in names:
        why = quoted(story.run.choice.rejected[name], pointer("choice", "rejected", name))
        yield say(Part.LOST, "Chosen first, then given up: {} ({})", name, why)


def _wrong(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    template = "Answers that lose more than the {} of {} allowed: {}"
    yield say(Part.LOST, template, _drop_limit(story), story.metric, listed([_lost(story, name) for name in names]))


def _lost(story: Story, name: str) -> Phrase:
    """ "ov-int8 (0.0315, up to 0.0504; 0.36x the p50 of ov-f32)"."""
    accuracy = story.readings.judged(name)
    if accuracy is None:
        return phrase("{} (its answers were not judged)", name)
    if accuracy.nonfinite:
        path = story.readings.at(name, "accuracy", "nonfinite")
        count = Evidence(str(accuracy.nonfinite), accuracy.nonfinite, (path,))
        return phrase("{} ({} values of its answers are not finite)", name, count)
    drop, high = story.readings.accuracy(name, "drop"), story.readings.accuracy(name, "ci_high")
    assert drop is not None and high is not None
    return phrase("{} ({}, up to {}{})", name, drop.told, high.told, _would_be(story, name))


def _doubtful(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    """The interval may end at twice what is allowed; those judged by as many samples together."""
    groups: dict[tuple[float, bool], list[str]] = {}
    for name in names:
        accuracy = story.readings.judged(name)
        assert accuracy is not None
        settles = samples_to_settle(accuracy, story.run.requirements.max_drop) is not None
        groups.setdefault((accuracy.n, settles), []).append(name)
    for (_, settles), some in groups.items():
        n = story.readings.accuracy(some[0], "n")
        assert n is not None
        template = "{} samples are too few to tell whether the drop stays within {}{}: {}"
        told = listed([_lost(story, name) for name in some])
        yield say(Part.LOST, template, n.told, _drop_limit(story), ", which more would settle" if settles else "", told)


def _short(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    """With the limits once, and then what each has instead; of one limit just the figures."""
    lacking = {name: story.anew.lacking(name) for name in names}
    missed = [need for need in story.anew.needs if any(need in lacks for lacks in lacking.values())]
    told: list[Item] = []
    for name, lacks in lacking.items():
        own = [_own(story, name, need, labelled=len(missed) > 1) for need in lacks]
        told.append(phrase("{} ({})", name, listed(own)) if own else name)
    template = "Answers hold, but {} {} missed: {}"
    limits = listed([story.name_of(need) for need in missed])
    yield say(Part.LOST, template, limits, "is" if len(missed) < 2 else "are", listed(told))


def _own(story: Story, name: str, need: Need, *, labelled: bool) -> Phrase:
    """ "p99 latency 12.3 ms"."""
    own = reading(story.readings, name, need)
    told = own.told if own is not None else "not known"
    return phrase("{} {}", story.label(need), told) if labelled else phrase("{}", told)


def _untimed(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    yield say(Part.LOST, "Answers hold, but times were not measured: {}", listed(list(names)))


def _worse(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    chosen = story.chosen
    assert chosen is not None
    told = _by_preference(story, names, chosen)
    yield say(Part.LOST, "Worse than {} in {}: {}", chosen, story.preference, listed(told))


def _by_preference(story: Story, names: Sequence[str], chosen: str) -> list[Item]:
    """Each with its factor, the best first."""
    ordered = sorted(names, key=lambda name: (story.badness(name), name))
    factors = [(name, story.factor(name, chosen)) for name in ordered]
    return [phrase("{} ({})", name, factor) if factor is not None else name for name, factor in factors]


def _ties(story: Story, names: Sequence[str]) -> Iterator[Sentence]:
    chosen = story.chosen
    assert chosen is not None
    told = _by_preference(story, names, chosen)
    template = "As good as {} in {}{}: {}. Of equal ones what is nearer to the model as given wins"
    yield say(Part.LOST, template, chosen, story.preference, story.within_noise(short=True), listed(told))


_TOLD: Mapping[Fate, Callable[[Story, Sequence[str]], Iterator[Sentence]]] = {
    Fate.BLOCKED: _blocked,
    Fate.EXCLUDED: _excluded,
    Fate.WRONG: _wrong,
    Fate.DOUBTFUL: _doubtful,
    Fate.SHORT: _short,
    Fate.UNTIMED: _untimed,
    Fate.WORSE: _worse,
    Fate.TIE: _ties,
}


# ----------------------------------------------------------------------------------------------------------------- words


def _would_be(story: Story, name: str) -> Phrase:
    """ "; it would be 0.36x the p50 of ov-f32", where that is shown to be faster."""
    ratio = story.case.ratio(name, story.subject)
    if name == story.subject or ratio is None or not ratio.is_faster:
        return phrase("")
    time = story.time(name, story.subject)
    return phrase("; {} of {}", time, story.subject) if time is not None else phrase("")


def _drop_limit(story: Story) -> Phrase:
    need = next(need for need in story.anew.needs if need.kind is Kind.DROP)
    return phrase("{}", need.asked)


def _left_out(story: Story) -> Iterator[Sentence]:
    """The plan's reasons, as the run keeps them; what was forbidden by name in one."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in story.run.left_out.items():
        by_reason.setdefault(FORBIDDEN if reason.startswith(FORBIDDEN) else reason, []).append(name)
    for reason, names in by_reason.items():
        why = FORBIDDEN if reason == FORBIDDEN else quoted(reason, pointer("left_out", names[0]))
        yield say(Part.LOST, "Not tried: {} ({})", listed(list(names)), why)
