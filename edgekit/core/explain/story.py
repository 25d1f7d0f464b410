"""What an explanation is told from: the run, its readings, its candidates beside each other, and the choice made again. Pure.

A difference in time is claimed where `core.relative` says that it is shown; else the sentence says that it is not.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from edgekit.core.case import Case, case_of
from edgekit.core.choose import cost, noise
from edgekit.core.explain.evidence import Evidence, Item, Phrase, Reading, Rule, Unit, listed, phrase, pointer, written
from edgekit.core.explain.needs import Need, reading
from edgekit.core.explain.readings import Readings
from edgekit.core.explain.relax import Again, again
from edgekit.core.needs import Kind
from edgekit.core.recipes import REFERENCE
from edgekit.core.relative import PREDICTED_TIE, RelativeTime
from edgekit.core.results import Origin
from edgekit.core.run import Run
from edgekit.core.tradeoffs import key
from edgekit.core.types import Prefer

# Factors nearer to 1 than this are not told apart in words.
ALIKE = 0.02

# What several preferences with weights are weighed by (core.choose).
WEIGHTED = "weighted product"

# What each preference minimizes, or, of throughput, maximizes.
PREFERRED: dict[Prefer, str] = {
    Prefer.LATENCY: "p50",
    Prefer.THROUGHPUT: "throughput",
    Prefer.MEMORY: "peak memory",
    Prefer.SIZE: "size",
}


@dataclass(frozen=True)
class Story:
    """A run as it is explained. `subject` is the chosen candidate, else the nearest to fitting, else the reference."""

    run: Run
    readings: Readings
    case: Case
    anew: Again

    @property
    def chosen(self) -> str | None:
        return self.run.choice.chosen

    @property
    def subject(self) -> str:
        return self.run.choice.chosen or self.run.choice.nearest or REFERENCE

    @property
    def preference(self) -> str:
        """What the preference looks at, in words."""
        requirements = self.run.requirements
        return WEIGHTED if requirements.weights else PREFERRED[requirements.prefer]

    @property
    def wish(self) -> Phrase:
        """ "preferring latency", or each word with its weight."""
        weights = self.run.requirements.weights
        if not weights:
            return phrase("preferring {}", self.run.requirements.prefer.value)
        told = [phrase("{} by {}", word.value, self._weight(word, weight)) for word, weight in weights.items()]
        return phrase("preferring {}", listed(list(told)))

    @staticmethod
    def _weight(word: Prefer, weight: float) -> Evidence:
        return Evidence(f"{weight:g}", weight, (pointer("requirements", "weights", word.value),))

    @property
    def metric(self) -> str:
        return self.run.data.metric

    # ------------------------------------------------------------------------------------------------------- one candidate

    def figures(self, name: str) -> list[Item]:
        """ "p50 latency 1.2 ms (0.5x that of ort-fp32)", "peak memory 31 MiB", "size 230 KiB", "drop 0.0012 (up to 0.0040)"."""
        drop = self.drop(name)
        return [
            *self._p50(name),
            *self._own("peak memory", self.readings.memory(name)),
            *self._own("size", self.readings.size(name)),
            *([phrase("drop {} in {}", drop, self.metric)] if drop is not None else []),
        ]

    def asked(self, name: str) -> list[Item]:
        """The figures, with each that was asked for beside its limit."""
        asked = {need.label: self.against(name, need) for need in self.anew.needs}
        told = {"peak memory": self.readings.memory(name), "size": self.readings.size(name)}
        plain = (part for label, own in told.items() if label not in asked for part in self._own(label, own))
        p50 = self._p50(name) if f"p50 {Kind.LATENCY.word}" not in asked else ()
        return [*p50, *plain, *asked.values()]

    def _p50(self, name: str) -> Iterator[Phrase]:
        p50 = self.readings.latency(name)
        time = self._time(name, REFERENCE) if name != REFERENCE and REFERENCE in self.case.outcomes else None
        if p50 is not None and time is not None:
            yield phrase("p50 latency {} ({} that of {}{})", p50.told, time[0], REFERENCE, time[1])
        else:
            yield from self._own("p50 latency", p50)

    @staticmethod
    def _own(label: str, own: Reading | None) -> Iterator[Phrase]:
        if own is not None:
            yield phrase("{} {}", label, own.told)

    def drop(self, name: str) -> Phrase | None:
        """ "0.0012 (up to 0.0040)": with the upper end of its interval."""
        drop, high = self.readings.accuracy(name, "drop"), self.readings.accuracy(name, "ci_high")
        return phrase("{} (up to {})", drop.told, high.told) if drop is not None and high is not None else None

    def against(self, name: str, need: Need) -> Phrase:
        """ "p99 latency 12.3 ms (20 ms allowed)"."""
        own, word = reading(self.readings, name, need), "called for" if need.at_least else "allowed"
        if own is None:
            return phrase("{} not known ({} {})", self.label(need), need.asked, word)
        if need.kind is Kind.DROP and (high := self.readings.accuracy(name, "ci_high")) is not None:
            return phrase("{} {} (up to {}; {} {})", self.label(need), own.told, high.told, need.asked, word)
        return phrase("{} {} ({} {})", self.label(need), own.told, need.asked, word)

    def name_of(self, need: Need) -> Phrase:
        """ "p99 latency of at most 20 ms"."""
        return phrase("{} of at {} {}", self.label(need), "least" if need.at_least else "most", need.asked)

    def label(self, need: Need) -> str:
        return f"{self.metric} drop" if need.kind is Kind.DROP else need.label

    # ------------------------------------------------------------------------------------------------------ two candidates

    def _time(self, name: str, base: str) -> tuple[Evidence, str] | None:
        """The factor between two p50, and a remark where no difference is shown; None where one was not timed."""
        own, other, ratio = self.readings.ratio(name), self.readings.ratio(base), self.case.ratio(name, base)
        if own is None or other is None or not other.value:
            return None
        shown = ratio is not None and (ratio.is_faster or ratio.is_slower)
        remark = "" if shown else ", of no known interval" if ratio is None else ", not told apart"
        return own.over(other), remark

    def time(self, name: str, base: str) -> Phrase | None:
        """ "0.36x the p50", with a remark where the difference is not shown; None where one was not timed."""
        found = self._time(name, base)
        if found is None:
            return None
        return phrase("{} the p50{}", found[0], f" ({found[1][2:]})" if found[1] else "")

    def beside(self, name: str, base: str, first: str = "") -> Phrase:
        """How `name` differs from `base`: what is named `first`, or else preferred, comes first.

        "0.36x the p50 and 1.4x the size of ort-fp32, at a drop of 0.0012 (up to 0.0040) in top-1".
        """
        time, first = self.time(name, base), first or self.preference
        told: dict[str, list[Item]] = {
            "p50": [time] if time is not None else [],
            "peak memory": factors("peak memory", self.readings.memory, name, base),
            "size": factors("size", self.readings.size, name, base),
        }
        if "throughput" in (first, self.preference):
            told["throughput"] = factors("throughput", self.readings.throughput, name, base)
        every = [*told.pop(first, []), *chain.from_iterable(told.values())]
        whole = phrase("{} of {}", listed(every), base) if every else phrase("the figures of {}", base)
        drop, other = self.drop(name), self.drop(base)
        if drop is None or (other is not None and drop.text == other.text):
            return whole
        return phrase("{}, at a drop of {} in {}", whole, drop, self.metric)

    # ------------------------------------------------------------------------------------------------------- the preference

    def badness(self, name: str) -> float:
        """The choice's own cost: lower is better by the preference."""
        numbers = self.readings.figures(name)
        return math.inf if numbers is None else cost(numbers, self.run.requirements)

    def factor(self, name: str, base: str) -> Evidence | None:
        """What is preferred of `name` over that of `base`; None where it is not known."""
        if self.run.requirements.weights:
            return self._weighted(name, base)
        read = self._reader(self.run.requirements.prefer)
        own, other = read(name), read(base)
        return own.over(other) if own is not None and other is not None and other.value else None

    def _weighted(self, name: str, base: str) -> Evidence | None:
        value = math.exp(self.badness(name) - self.badness(base))
        if not math.isfinite(value):
            return None
        own, other = (
            self.readings.at_point(n) if self.readings.point(n) else self.readings.at(n) for n in (name, base)
        )
        paths = (own, pointer("requirements", "weights"))
        return Evidence(written(value, Unit.FACTOR), value, paths, (other,), Rule.WEIGHTED)

    def is_ahead(self, name: str, base: str, prefer: Prefer) -> bool:
        """Whether `name` has more of what another preference asks for than a word is worth."""
        read = self._reader(prefer)
        own, other = read(name), read(base)
        if own is None or other is None or not other.value or not own.value:
            return own is not None and other is None
        gain = own.value / other.value if prefer is Prefer.THROUGHPUT else other.value / own.value
        return gain - 1 >= ALIKE

    def _reader(self, prefer: Prefer) -> Callable[[str], Reading | None]:
        readings = self.readings
        return {
            Prefer.LATENCY: readings.ratio,
            Prefer.THROUGHPUT: readings.throughput,
            Prefer.MEMORY: readings.memory,
            Prefer.SIZE: readings.size,
        }[prefer]

    def is_better(self, name: str | None, base: str) -> bool:
        """Whether `name` is better by the preference, of times beyond the noise."""
        if name is None or name == base:
            return False
        if self.preference == PREFERRED[Prefer.LATENCY]:
            ratio = self.case.ratio(name, base)
            return ratio is not None and ratio.is_faster
        return self.badness(base) - self.badness(name) > noise(self.run.requirements, self.case.spread)

    def within_noise(self, *, short: bool = False) -> Phrase:
        """ ", within the noise (the same thing raced twice differs by up to 1.05x)", or of predictions that they are too near.

        Nothing where the preference is of what has no noise.
        """
        if not noise(self.run.requirements, self.case.spread):
            return phrase("")
        if self.run.noise is None or self.run.target_origin is not Origin.TARGET:
            return phrase(", nearer than predictions can tell")
        if short:
            return phrase(", within the noise")
        spread = self.run.noise.spread
        told = Evidence(written(spread, Unit.FACTOR), spread, (pointer("noise", "spread"),))
        return phrase(", within the noise (the same thing raced twice differs by up to {})", told)


def factors(label: str, read: Callable[[str], Reading | None], name: str, base: str) -> list[Item]:
    """ "1.4x the size"; nothing where both are alike, or one is not known."""
    own, other = read(name), read(base)
    if own is None or other is None or not other.value or abs(own.value / other.value - 1) < ALIKE:
        return []
    return [phrase("{} the {}", own.over(other), label)]


def story_of(run: Run) -> Story:
    """The run, ready to be explained."""
    origin = run.target_origin
    spread = run.noise.spread if run.noise and origin is Origin.TARGET else PREDICTED_TIE
    case = case_of(run.outcomes, run.choice, run.requirements, origin, spread, run.left_out)
    points = run.exploration.points if run.exploration is not None else ()
    times = {key(p): RelativeTime(key(p), p.ratio, *p.ratio_interval, False) for p in points}
    return Story(run, Readings(run), replace(case, times={**case.times, **times}), again(run))
