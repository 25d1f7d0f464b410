"""What would be chosen under other requirements: the stored outcomes put to `core.choose` again. Pure.

- Nothing is measured or predicted anew, and ties are those of the run. Where settings were searched each candidate is taken in the
  one that is best for the requirements.
- Who failed on unseen data or on the device stays out under every requirement; who would win may still fail there.
- Loosening goes one need at a time, to the tightest limit that admits something better, or anything where nothing fits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from edgekit.core.choose import choose
from edgekit.core.explain.needs import Limit, Need, admitting, loosened, met, needs
from edgekit.core.explain.points import resettled
from edgekit.core.explain.readings import Readings
from edgekit.core.needs import Kind
from edgekit.core.relative import tie_of
from edgekit.core.results import Choice, Origin
from edgekit.core.run import Run
from edgekit.core.tradeoffs import key
from edgekit.core.types import Prefer, Requirements

# How the reasons begin of those that were chosen once and failed on unseen data or on the device (flow.decide).
LATER = ("held on selection, not on ", "proven wrong: ", "does not run on the evaluation data: ", "not judged: ")


@dataclass(frozen=True)
class Relaxation:
    """Requirements loosened to `limits`, and the candidate that would then be chosen by the figures at hand."""

    kinds: tuple[Kind, ...]
    limits: tuple[Limit, ...]
    candidate: str


@dataclass(frozen=True)
class Again:
    """A run whose choice can be made again. `excluded` are those that stay out, with the reason."""

    run: Run
    readings: Readings
    needs: tuple[Need, ...]
    tie: float
    excluded: Mapping[str, str] = field(default_factory=dict)

    def choose(self, requirements: Requirements) -> Choice:
        """Each candidate in the setting that is best for the requirements; in another than the run's it goes by its point's key."""
        outcomes = resettled(self.run, requirements, self.tie)
        return choose(outcomes, requirements, self.run.target_origin, self.tie, self._out)

    @cached_property
    def _out(self) -> Mapping[str, str]:
        """Who stays out, in whatever setting."""
        found = self.run.exploration
        points = found.points if found is not None else ()
        return {**self.excluded, **{key(p): self.excluded[p.candidate] for p in points if p.candidate in self.excluded}}

    def winner(self, requirements: Requirements) -> str | None:
        """Who would be chosen; the run's own choice where other requirements change nothing."""
        found, chosen = self.choose(requirements).chosen, self.run.choice.chosen
        return chosen if chosen is not None and found == self._unchanged else found

    @cached_property
    def _unchanged(self) -> str | None:
        """Who would be chosen by the requirements as they are: the run's choice, but for what has become of the rules since."""
        return self.choose(self.run.requirements).chosen

    def preferring(self, prefer: Prefer) -> str | None:
        """Who would be chosen by another preference."""
        return self.winner(replace(self.run.requirements, prefer=prefer, weights={}))

    @cached_property
    def without_each(self) -> tuple[tuple[Need, str | None], ...]:
        """Each need, and who would be chosen were it not stated; None where nobody."""
        return tuple((need, self.winner(loosened(self.run.requirements, need, None))) for need in self.needs)

    @cached_property
    def able(self) -> tuple[str, ...]:
        """Who could be chosen under some requirements, in every setting that was measured."""
        free = self.run.requirements
        for need in self.needs:
            free = loosened(free, need, None)
        found = choose(self.run.outcomes, free, self.run.target_origin, self.tie, self.excluded).feasible
        points = [name for name in self.readings.points if self.readings.outcome(name).name in found]
        return (*found, *(name for name in points if self.readings.figures(name) is not None))

    @cached_property
    def lone(self) -> Mapping[Need, Sequence[str]]:
        """Those of the able that lack one need alone, by it."""
        found: dict[Need, list[str]] = {}
        for name in self.able:
            lacks = self.lacking(name)
            if len(lacks) == 1:
                found.setdefault(lacks[0], []).append(name)
        return found

    def lacking(self, name: str) -> tuple[Need, ...]:
        """The needs that the candidate does not meet."""
        return tuple(need for need in self.needs if not met(self.readings, name, need))


def again(run: Run) -> Again:
    """The run, ready to be chosen from again."""
    tie = tie_of(run.noise.spread if run.noise and run.target_origin is Origin.TARGET else None)
    before = choose(run.outcomes, run.requirements, run.target_origin, tie)
    excluded = {
        name: reason
        for name, reason in run.choice.rejected.items()
        if reason.startswith(LATER) or (name in before.feasible and name not in run.choice.feasible)
    }
    return Again(run, Readings(run), needs(run.requirements), tie, excluded)


def relaxations(anew: Again, is_better: Callable[[str, str], bool]) -> tuple[Relaxation, ...]:
    """For each need the tightest loosening of it alone that gets something better chosen; the smallest step first.

    `is_better` says whether the first candidate is shown to be better than the second. When nothing fits and the nearest candidate
    lacks several needs, also all of these together.
    """
    chosen = anew.run.choice.chosen
    found: list[Relaxation] = []
    for need in anew.needs:
        for limit in _limits(anew, need, is_better):
            candidate = anew.winner(loosened(anew.run.requirements, need, limit.value))
            if candidate is not None and (chosen is None or is_better(candidate, chosen)):
                found.append(Relaxation((need.kind,), (limit,), candidate))
                break
    together = _together(anew, anew.run.choice.nearest) if chosen is None else None
    if together is not None and len(together.kinds) > 1:
        found.append(together)
    return tuple(sorted(found, key=lambda relaxation: _step(anew, relaxation)))


def _step(anew: Again, relaxation: Relaxation) -> float:
    """How far it goes from what was asked, each limit relative to its own; infinite from a limit of nothing."""
    asked = {need.kind: need for need in anew.needs}
    pairs = zip(relaxation.kinds, relaxation.limits, strict=True)
    return sum(asked[kind].excess(limit.value) - 1 for kind, limit in pairs)


def _limits(anew: Again, need: Need, is_better: Callable[[str, str], bool]) -> Sequence[Limit]:
    """Limits that admit another candidate, which lacks nothing else and is better than the chosen one; the tightest first."""
    chosen = anew.run.choice.chosen
    wanted = [name for name in anew.lone.get(need, ()) if chosen is None or is_better(name, chosen)]
    found = [limit for name in wanted if (limit := admitting(anew.readings, name, need)) is not None]
    return list({limit.value: limit for limit in sorted(found, key=_value, reverse=need.at_least)}.values())


def _value(limit: Limit) -> float:
    return limit.value


def _together(anew: Again, nearest: str | None) -> Relaxation | None:
    """All that the nearest candidate lacks, loosened."""
    if nearest is None:
        return None
    requirements, limits, lacking = anew.run.requirements, [], anew.lacking(nearest)
    for need in lacking:
        limit = admitting(anew.readings, nearest, need)
        if limit is None:
            return None
        limits.append(limit)
        requirements = loosened(requirements, need, limit.value)
    candidate = anew.choose(requirements).chosen
    if candidate is None:
        return None
    return Relaxation(tuple(need.kind for need in lacking), tuple(limits), candidate)
