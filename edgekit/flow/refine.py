"""The search for a mixed precision: of an int8 recipe that would win but is not right enough, what must stay in floating point.

- A family is searched only when its fully quantized recipe, as measured, would be chosen if its answers held.
- One attribution ranks the layers; they return to floating point in that order, and how many must is found by bisection. Each try
  is a build like any other, by the engine that ships, judged on the selection split. Evaluation is never looked at here.
- Anytime: the best that held is kept when the time budget ends. Every step is remembered: a search that was interrupted goes on.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgekit.core.accuracy import feasible
from edgekit.core.facts import FactSheet
from edgekit.core.recipes import ONNXRUNTIME, mixed
from edgekit.core.results import Outcome
from edgekit.core.search import Search, Tried, Try, next_try, resolution, tries_left
from edgekit.core.sensitivity import Attribution, Sensitivity, give_back_order
from edgekit.core.types import Candidate, Recipe
from edgekit.core.worth import Start, starts
from edgekit.errors import DeviceError, DiskFull, EdgekitError
from edgekit.flow.build import build_one
from edgekit.flow.calibrate import DEFAULT, attributed, duration
from edgekit.flow.clock import Job
from edgekit.flow.gate import gate_all
from edgekit.flow.judge import Judge, judged
from edgekit.flow.workshop import SELECTION, Made, Workshop

# NNCF's other ways to quantize everything. Correcting biases helps most models and harms some; its default ranges are means over
# samples, which clip.
NNCF_WAYS: tuple[Mapping[str, str], ...] = ({"bias_correction": "off"}, {"activation_range": "minmax"})


@dataclass
class Found:
    """What the searches came to: candidates that are new, and the record of each search."""

    made: dict[str, Made] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    searches: list[Search] = field(default_factory=list)


class Refinery:
    """Searches within `budget_s` seconds, all together. `sheet` is the device's, None where nothing is gated."""

    def __init__(self, shop: Workshop, judge: Judge, job: Job, sheet: FactSheet | None, budget_s: float) -> None:
        self._shop = shop
        self._judge = judge
        self._job = job
        self._sheet = sheet
        self._budget_s = budget_s
        self._deadline = time.monotonic() + budget_s

    def refine(self, outcomes: Sequence[Outcome]) -> Found:
        """Search in every family that may win by it, the best parent first."""
        found = Found()
        for start in starts(outcomes, self._job.requirements, self._job.origin):
            if start.why_not:
                found.searches.append(Search(start.parent.name, None, (), None, start.why_not))
                continue
            search, made, outcome = self._search(start)
            found.searches.append(search)
            if made is not None and outcome is not None:
                found.made[outcome.name] = made
                found.outcomes.append(outcome)
        return found

    def _search(self, start: Start) -> tuple[Search, Made | None, Outcome | None]:
        parent = start.parent
        if self.left() <= 0:
            return Search(parent.name, None, (), None, self.out_of_time("it began")), None, None
        numeric = parent.candidate.build.numeric
        try:
            attribution = attributed(
                self._shop,
                self._job.info,
                self._job.materials,
                numeric,
                parent.name,
                self.left,
            )
        except DiskFull:
            raise
        except EdgekitError as error:
            why = self.out_of_time("the layers were ranked") if self.left() <= 0 else f"not searched: {error}"
            return Search(parent.name, None, (), None, why), None, None
        return _Climb(self, start, attribution).to_the_best()

    def attempt(
        self, parent: Outcome, kept: Sequence[Sensitivity], settings: Mapping[str, str]
    ) -> tuple[Made | None, Outcome]:
        """Build and judge the parent with the units `kept` in floating point."""
        nodes = [node for one in kept for node in one.unit.nodes]
        recipe = mixed(parent.candidate.build.recipe, nodes, settings)
        candidate = Candidate(replace(parent.candidate.build, recipe=recipe), parent.candidate.run)
        limits = replace(DEFAULT, wall_s=max(1.0, min(DEFAULT.wall_s, self.left())))
        made, outcome = build_one(self._shop, candidate, self._job.materials, self._job.info, limits)
        if made is None:
            return None, outcome
        if self._sheet is not None:
            (outcome,) = gate_all(self._shop, self._sheet, self._job.info, {candidate.name: made}, [outcome])
        if outcome.blocked is None:
            outcome = judged(self._judge, made, outcome, SELECTION)
        return made, outcome

    def reason(self, outcome: Outcome) -> str:
        """Why a try does not hold, or an empty string."""
        if outcome.blocked is not None:
            return f"{outcome.blocked.code.value}: {outcome.blocked.reason}"
        assert outcome.accuracy is not None
        held = feasible(outcome.accuracy, self.max_drop)
        return "" if held.ok else held.reason

    @property
    def max_drop(self) -> float:
        return self._job.requirements.max_drop

    def say(self, text: str) -> None:
        self._shop.progress(text)

    def left(self) -> float:
        return self._deadline - time.monotonic()

    def out_of_time(self, before: str) -> str:
        return f"the time budget of {duration(self._budget_s)} ended before {before}"


class _Climb:
    """One family's way to the best mixed precision: first how to quantize at all, then what not to."""

    def __init__(self, refinery: Refinery, start: Start, attribution: Attribution) -> None:
        self._refinery = refinery
        self._start = start
        self._parent = start.parent
        self._recipe = start.parent.candidate.build.recipe
        self._attribution = attribution
        self._order = give_back_order(attribution.layers)
        self._tries: list[Try] = []
        self._best: tuple[int, Made, Outcome] | None = None
        self._longest = 0.0
        self._ended = ""

    def to_the_best(self) -> tuple[Search, Made | None, Outcome | None]:
        """The record of the search, and the best that held."""
        settings = self._settled()
        if self._best is None and not self._ended:
            self._bisect(settings)
        kept = self._best[0] if self._best else None
        ended = self._ended or _ended(kept, len(self._order))
        name = self._best[2].name if self._best else None
        search = Search(self._parent.name, self._attribution, tuple(self._tries), name, ended)
        return (search, self._best[1], self._best[2]) if self._best else (search, None, None)

    def _settled(self) -> Mapping[str, str]:
        """How to quantize: in ONNX Runtime with the ranges of least noise; of NNCF's ways the one that loses least, tried."""
        if self._recipe.engine == ONNXRUNTIME:
            return {"ranges": self._attribution.ranges}
        drops: list[tuple[float, Mapping[str, str]]] = []
        if self._parent.accuracy is not None:
            drops.append((self._parent.accuracy.drop, {}))
        for way, settings in enumerate(NNCF_WAYS):
            text = f"quantizing {self._parent.name} otherwise: {_words(settings)}"
            tried = self._try(0, settings, text, len(NNCF_WAYS) - way)
            if tried is None or tried.held:
                return settings
            if tried.accuracy is not None:
                drops.append((tried.accuracy.drop, settings))
        return min(drops, key=lambda pair: pair[0])[1]

    def _bisect(self, settings: Mapping[str, str]) -> None:
        """Give layers back until the fewest that must stay in floating point are known, or the time is over."""
        drop = self._attribution.full_drop
        looks_fine = drop is not None and drop <= self._refinery.max_drop
        everything_failed = self._recipe.engine != ONNXRUNTIME or _quantizes_so(self._recipe, settings)
        tried = [Tried(0, held=False)] if everything_failed else []
        units = len(self._order)
        while (count := next_try(self._order, tried, looks_fine)) is not None:
            share = sum(s.unit.share for s in self._order[:count])
            if share > self._start.most_share:
                self._ended = (
                    f"{count} of {units} layers, {share:.0%} of the work, would be kept: nothing to gain is left"
                )
                return
            text = f"keeping {count} of {units} layers of {self._parent.name} unquantized"
            found = self._try(count, settings, text, tries_left(units, tried))
            if found is None:
                return
            tried.append(Tried(count, found.held))

    def _try(self, count: int, settings: Mapping[str, str], text: str, left: int) -> Try | None:
        """Keep the first `count` units; None when the time is over. `left` tries at most are to come, this one included."""
        over = self._refinery.out_of_time(f"{text} could be tried")
        if self._refinery.left() <= self._longest:
            self._ended = over
            return None
        self._refinery.say(text + (f": about {duration(self._longest * left)} left" if self._longest else ""))
        began = time.monotonic()
        try:
            made, outcome = self._refinery.attempt(self._parent, self._order[:count], settings)
        except DeviceError as error:  # what was found is kept; whether the device is gone for good, the next race tells
            self._ended = f"the device failed before {text} could be tried: {error}"
            return None
        self._longest = max(self._longest, time.monotonic() - began)
        if made is None and self._refinery.left() <= 0:
            self._ended = over
            return None
        reason = self._refinery.reason(outcome)
        held = made is not None and not reason
        names = tuple(s.unit.name for s in self._order[:count])
        tried = Try(names, settings, outcome.accuracy, held, reason or _held(outcome))
        self._tries.append(tried)
        if held and made is not None and (self._best is None or count < self._best[0]):
            self._best = (count, made, outcome)
        return tried


def _words(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())


def _quantizes_so(parent: Recipe, settings: Mapping[str, str]) -> bool:
    """Whether the parent was quantized by these settings: then its own verdict stands for keeping nothing."""
    return all(parent.steps[-1].params.get(name) == value for name, value in settings.items())


def _held(outcome: Outcome) -> str:
    assert outcome.accuracy is not None
    return f"drop {outcome.accuracy.drop:.4f}, at most {outcome.accuracy.ci_high:.4f}"


def _ended(kept: int | None, layers: int) -> str:
    if kept == 0:
        return "everything quantized holds, quantized otherwise"
    about = resolution(layers)
    within = f", to within {about}" if about > 1 else ""
    if kept is None:
        return f"nothing held with fewer than all {layers} layers in floating point{within}"
    return f"the fewest layers to keep in floating point were found: {kept} of {layers}{within}"
