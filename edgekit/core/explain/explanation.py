"""A run in plain sentences, each figure with its place in run.json. Pure.

- The first two are of the binding requirement: what decided and what came of it, or what cannot be met and what is nearest.
- What another requirement would give is chosen anew from the stored outcomes (`core.explain.relax`), never guessed.
- What rests on a prediction, an estimate or a difference within the noise says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from edgekit.core.explain import binding, costs, losers, machine, settings
from edgekit.core.explain.evidence import Part, Sentence, phrase, pointer, quoted, say
from edgekit.core.explain.relax import Relaxation, relaxations
from edgekit.core.explain.story import Story, story_of
from edgekit.core.findings import OF_THE_RACE
from edgekit.core.run import Run


@dataclass(frozen=True)
class Explanation:
    """The sentences in the order in which they are told, and the relaxations that they tell of, the smallest step first."""

    sentences: tuple[Sentence, ...]
    relaxations: tuple[Relaxation, ...]


def explain(run: Run) -> Explanation:
    """Why the run chose what it chose, or why nothing fits, and what another wish would give."""
    story = story_of(run)
    relaxed = relaxations(story.anew, story.is_better)
    told = (
        binding.sentences(story, relaxed),
        machine.sentences(story),
        _won(story),
        costs.sentences(story),
        settings.sentences(story),
        costs.relaxing(story, relaxed),
        losers.sentences(story),
        _learnt(run),
    )
    return Explanation(tuple(chain.from_iterable(told)), relaxed)


def _won(story: Story) -> Iterator[Sentence]:
    chosen = story.chosen
    if chosen is None:
        return
    others = [name for name in story.run.choice.feasible if name != chosen]
    if not others:
        yield say(Part.WON, "{} is the only candidate that meets everything", chosen)
        return
    best = min(others, key=lambda name: (story.badness(name), name))
    factor, what = story.factor(best, chosen), story.preference
    if factor is None:
        yield say(Part.WON, "{} was chosen by {}", chosen, what)
    elif story.badness(best) < story.badness(chosen):
        template = "{} has {} the {} of {}{}; of such ties the one nearer to the model as given wins"
        yield say(Part.WON, template, best, factor, what, chosen, story.within_noise())
    else:
        shown = story.is_better(chosen, best)
        within = phrase("") if shown else story.within_noise()
        template = "{} has the best {} of those that meet everything; next is {} with {} its {}{}"
        yield say(Part.WON, template, chosen, what, best, factor, what, within)


def _learnt(run: Run) -> Iterator[Sentence]:
    """The findings, as the run keeps them; those of a run that searched settings are of the race before it."""
    if run.findings and run.exploration is not None:
        yield say(Part.LEARNT, OF_THE_RACE)
    for i, finding in enumerate(run.findings):
        yield say(Part.LEARNT, "{}", quoted(finding.text, pointer("findings", i, "text")))
