"""The first two sentences: which requirement binds, and what was chosen or is nearest. Pure.

- A requirement binds where something better would be chosen without it.
- Where nothing fits: what no candidate meets whatever else is given up, else what no candidate meets together with the rest.
"""

from collections.abc import Iterator

from edgekit.core.explain import costs
from edgekit.core.explain.evidence import Evidence, Item, Part, Phrase, Sentence, listed, phrase, pointer, say
from edgekit.core.explain.needs import Need, met, reading
from edgekit.core.explain.relax import Relaxation
from edgekit.core.explain.story import Story
from edgekit.core.needs import Kind
from edgekit.core.recipes import REFERENCE


def sentences(story: Story, relaxed: tuple[Relaxation, ...]) -> Iterator[Sentence]:
    """The two lines that a reader in a hurry reads."""
    if story.chosen is None:
        yield _what_cannot_be_met(story)
        yield _nearest(story, relaxed)
    else:
        yield _what_decided(story, story.chosen)
        yield _choice(story, story.chosen)


def _what_decided(story: Story, chosen: str) -> Sentence:
    binding = costs.binding(story, chosen)
    if not binding:
        template = "Binding requirement: none. No requirement rules out anything better than {}; {} decided{}"
        return say(Part.BINDS, template, chosen, story.wish, _of_feasible(story))
    (need, other), *rest = binding
    also = phrase(" (and {})", listed([story.name_of(n) for n, _ in rest])) if rest else phrase("")
    template = "Binding requirement: {}{}. Without it {} would be chosen: {}{}"
    open_one = _not_shown(story, other) if need.kind is Kind.DROP else phrase("")
    return say(Part.BINDS, template, story.name_of(need), also, other, story.beside(other, chosen), open_one)


def _not_shown(story: Story, name: str) -> Phrase:
    """That it is the samples that are too few, where the drop itself is within the limit."""
    accuracy, n = story.readings.judged(name), story.readings.accuracy(name, "n")
    within = accuracy is not None and accuracy.drop <= story.run.requirements.max_drop
    if accuracy is None or n is None or not within or accuracy.collapsed or accuracy.nonfinite:
        return phrase("")
    return phrase(". Its drop is within the limit, but {} samples are too few to show that it stays there", n.told)


def _of_feasible(story: Story) -> Phrase:
    count = len(story.run.choice.feasible)
    if count < 2:
        return phrase("")
    return phrase(
        " among the {} candidates that meet all", Evidence(str(count), count, (pointer("choice", "feasible"),))
    )


def _choice(story: Story, chosen: str) -> Sentence:
    given = " (the model as given)" if chosen == REFERENCE else ""
    unproven = story.run.choice.unproven
    rests = phrase(". Predicted, not measured: {}", listed(list(unproven))) if unproven else phrase("")
    return say(Part.BINDS, "Chosen: {}{}, with {}{}", chosen, given, listed(story.asked(chosen)), rests)


def _what_cannot_be_met(story: Story) -> Sentence:
    able = story.anew.able
    if not able:
        return say(
            Part.BINDS,
            "Binding requirement: none. Every candidate failed, so that none could be chosen whatever is asked",
        )
    never = [need for need in story.anew.needs if not any(met(story.readings, name, need) for name in able)]
    if never:
        best = listed([_best(story, need, able) for need in never])
        template = "Binding requirement: {}. No candidate meets it whatever else is given up: {}"
        if len(never) > 1:
            template = "Binding requirements: {}. No candidate meets any of them whatever else is given up: {}"
        return say(Part.BINDS, template, listed([story.name_of(need) for need in never]), best)
    alone = [need for need, other in story.anew.without_each if other is not None]
    if len(alone) == 1:
        rest = [name for name in able if not set(story.anew.lacking(name)) - set(alone)]
        template = "Binding requirement: {}. No candidate that meets the rest meets it: {}"
        return say(Part.BINDS, template, story.name_of(alone[0]), _best(story, alone[0], tuple(rest)))
    together = alone or list(story.anew.lacking(story.subject))
    template = "Binding requirements: {}. Each is met by some candidate, no candidate meets them together"
    return say(Part.BINDS, template, listed([story.name_of(need) for need in together]))


def _best(story: Story, need: Need, names: tuple[str, ...]) -> Phrase:
    """ "the least p99 latency is 3.73 ms, of ov-int8"."""
    known = [(own.value, name, own) for name in names if (own := reading(story.readings, name, need)) is not None]
    if not known:
        return phrase("the {} is not known of any", story.label(need))
    _, name, own = (max if need.at_least else min)(known, key=lambda item: (item[0], item[1]))
    return phrase("the {} {} is {}, of {}", "most" if need.at_least else "least", story.label(need), own.told, name)


def _nearest(story: Story, relaxed: tuple[Relaxation, ...]) -> Sentence:
    nearest = story.run.choice.nearest
    least = phrase("")
    if relaxed:
        first = relaxed[0]
        least = phrase(". The smallest step that helps is {}, which admits {}", costs.options(first), first.candidate)
    if nearest is None:
        return say(
            Part.BINDS, "Nothing fits, and nothing is near: no candidate that ran is shown to answer right{}", least
        )
    lacks: list[Item] = [story.against(nearest, need) for need in story.anew.lacking(nearest)]
    return say(Part.BINDS, "Nothing fits. Nearest is {}, with {}{}", nearest, listed(lacks), least)
