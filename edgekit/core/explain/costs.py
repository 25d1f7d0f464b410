"""What each requirement costs in the others, and what loosening it would buy, by the candidates that were measured. Pure."""

from collections.abc import Iterator

from edgekit.core.explain.evidence import Item, Part, Phrase, Sentence, listed, phrase, say
from edgekit.core.explain.needs import Need
from edgekit.core.explain.relax import Relaxation
from edgekit.core.explain.story import PREFERRED, Story
from edgekit.core.needs import Kind
from edgekit.core.types import Prefer

# A sooner start is worth a sentence from this factor on.
WORTH = 1.2


def binding(story: Story, chosen: str) -> list[tuple[Need, str]]:
    """The needs without which something better would be chosen, and what; the one that costs most first."""
    found = [(need, other) for need, other in story.anew.without_each if other and story.is_better(other, chosen)]
    return sorted(found, key=lambda pair: story.badness(pair[1]))


def sentences(story: Story) -> Iterator[Sentence]:
    """What each requirement costs beside the one that the first line tells of, and what each other preference would give."""
    chosen = story.chosen
    if chosen is None:
        return
    found = binding(story, chosen)
    for need, other in found[1:]:
        template = "The limit on {} ({}) costs {}: without it {} would be chosen, {}"
        label, beside = story.label(need), story.beside(other, chosen)
        yield say(Part.COSTS, template, label, need.asked, story.preference, other, beside)
    bound = [need for need, _ in found]
    free = [phrase("{} ({})", story.label(need), need.asked) for need in story.anew.needs if need not in bound]
    if free:
        template = "The limit on {} costs nothing here: without it nothing better would be chosen"
        yield say(Part.COSTS, template, listed(free, " or on "))
    yield from _preferences(story, chosen)
    yield from _cold_start(story, chosen)


def _preferences(story: Story, chosen: str) -> Iterator[Sentence]:
    """What is given up in the others by what is preferred: those who would win by another preference, each once."""
    told: dict[str, list[Prefer]] = {}
    for prefer in Prefer:
        if prefer is story.run.requirements.prefer and not story.run.requirements.weights:
            continue
        other = story.anew.preferring(prefer)
        if other is not None and other != chosen and story.is_ahead(other, chosen, prefer):
            told.setdefault(other, []).append(prefer)
    for other, wishes in told.items():
        template = "Preferring {} instead would choose {}: {}"
        words: list[Item] = [prefer.value for prefer in wishes]
        yield say(Part.COSTS, template, listed(words, " or "), other, story.beside(other, chosen, PREFERRED[wishes[0]]))


def _cold_start(story: Story, chosen: str) -> Iterator[Sentence]:
    """What is given up at the start for a faster steady state: who starts soonest of those that meet everything."""
    starts = {name: own for name in story.run.choice.feasible if (own := story.readings.cold_start(name)) is not None}
    soonest = min(starts, key=lambda name: (starts[name].value, name), default=chosen)
    if chosen not in starts or soonest == chosen or starts[chosen].value < WORTH * starts[soonest].value:
        return
    template = "{} gives its first answer after {}; the soonest is {} after {}, with {}"
    own, other = starts[chosen], starts[soonest]
    yield say(Part.COSTS, template, chosen, own.told, soonest, other.told, story.beside(soonest, chosen))


# --------------------------------------------------------------------------------------------------------------- relaxing


def relaxing(story: Story, relaxed: tuple[Relaxation, ...]) -> Iterator[Sentence]:
    """For each requirement the least loosening that admits something better, and what that buys."""
    for i, relaxation in enumerate(relaxed):
        smallest = " (the smallest step)" if i == 0 and len(relaxed) > 1 else ""
        unseen = "; its answers on unseen data are not known" if Kind.DROP in relaxation.kinds else ""
        template = "With {}{} {} would be chosen: {}{}"
        other = relaxation.candidate
        yield say(Part.RELAX, template, options(relaxation), smallest, other, _bought(story, relaxation), unseen)
    helped = {relaxation.kinds[0] for relaxation in relaxed if len(relaxation.kinds) == 1}
    vain: list[Item] = [story.label(need) for need in story.anew.needs if need.kind not in helped]
    if vain and story.chosen is None:
        yield say(Part.RELAX, "Loosening {} alone would not make anything fit", listed(vain, " or "))


def _bought(story: Story, relaxation: Relaxation) -> Phrase:
    """What the candidate is beside the chosen one, in short where that was told as what the requirement costs."""
    other, chosen = relaxation.candidate, story.chosen
    if chosen is None:
        return listed(story.figures(other))
    told = any(need.kind in relaxation.kinds and who == other for need, who in binding(story, chosen))
    factor = story.factor(other, chosen) if told else None
    if factor is None:
        return story.beside(other, chosen)
    return phrase("{} the {} of {}", factor, story.preference, chosen)


def options(relaxation: Relaxation) -> Phrase:
    """ "--max-drop 0.0252 and --max-size 6.1MiB"."""
    limits = relaxation.limits
    return listed([Phrase(limit.option, (limit.evidence,)) for limit in limits])
