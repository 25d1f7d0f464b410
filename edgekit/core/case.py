"""One run's candidates beside each other: whose answers hold, how fast each is against each, and the fp32 to beat. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.accuracy import feasible
from edgekit.core.choose import figures, shortfalls
from edgekit.core.recipes import REFERENCE
from edgekit.core.relative import RelativeTime, TimeRatio, time_ratio
from edgekit.core.results import Choice, Origin, Outcome
from edgekit.core.types import Requirements

_ALREADY_QUANTIZED = "already quantized"  # how the plan says so


@dataclass(frozen=True)
class Case:
    """What the rules look at."""

    outcomes: Mapping[str, Outcome]
    choice: Choice
    requirements: Requirements
    origin: Origin
    times: Mapping[str, RelativeTime]
    spread: float
    quantized_before: bool

    def ratio(self, name: str, base: str) -> TimeRatio | None:
        """`name` over `base`; None where one of them was not timed."""
        a, b = self.times.get(name), self.times.get(base)
        return time_ratio(a, b, self.spread) if a is not None and b is not None else None

    def ratios(self, names: Sequence[str], base: str) -> list[TimeRatio]:
        """Of those that were timed, the fastest first."""
        found = (self.ratio(name, base) for name in names)
        return sorted((r for r in found if r is not None), key=lambda r: (r.value, r.name))

    def holds(self, name: str) -> bool:
        """The answers hold, whatever else the candidate lacks; what failed on evaluation or on the device does not."""
        outcome = self.outcomes[name]
        if outcome.blocked is not None or outcome.accuracy is None:
            return False
        if not feasible(outcome.accuracy, self.requirements.max_drop).ok:
            return False
        numbers = figures(outcome, self.origin)
        falls_short = numbers is not None and bool(shortfalls(numbers, self.requirements))
        return name in self.choice.feasible or falls_short

    def named(self, precision: str) -> list[str]:
        return [name for name in self.outcomes if self.precision(name) == precision]

    def precision(self, name: str) -> str:
        return self.outcomes[name].candidate.build.recipe.precision

    def engine(self, name: str) -> str:
        return self.outcomes[name].candidate.build.recipe.engine

    def full(self) -> str:
        """The fp32 to beat: the fastest whose answers hold, but the reference unless that is shown to be faster."""
        ratios = self.ratios([name for name in self.named("fp32") if self.holds(name)], REFERENCE)
        return next((ratio.name for ratio in ratios if ratio.is_faster), REFERENCE)

    def full_of(self, engine: str) -> str:
        """The fastest fp32 of one engine; empty when it has none."""
        names = [name for name in self.named("fp32") if self.engine(name) == engine and self.holds(name)]
        return next((ratio.name for ratio in self.ratios(names, REFERENCE)), "")


def case_of(
    outcomes: Sequence[Outcome],
    choice: Choice,
    requirements: Requirements,
    origin: Origin,
    spread: float,
    left_out: Mapping[str, str],
) -> Case:
    """The case of these outcomes; `spread` >= 1 is the race's A/A spread, of predictions the factor below which they are a tie."""
    times = {time.name: time for time in _times(outcomes, origin)}
    before = any(was_quantized(reason) for reason in left_out.values())
    return Case({o.name: o for o in outcomes}, choice, requirements, origin, times, spread, before)


def was_quantized(reason: str) -> bool:
    """Whether a recipe was left out because the model was quantized when it came."""
    return _ALREADY_QUANTIZED in reason


def _times(outcomes: Sequence[Outcome], origin: Origin) -> Iterator[RelativeTime]:
    """Every candidate of which something can be claimed."""
    for outcome in outcomes:
        numbers = figures(outcome, origin)
        if numbers is None:
            continue
        predicted = numbers.origin is Origin.PREDICTED
        if predicted or outcome.name == REFERENCE:
            yield RelativeTime(outcome.name, numbers.ratio, numbers.ratio, numbers.ratio, predicted)
        elif outcome.measurement is not None and (interval := outcome.measurement.ratio_interval) is not None:
            yield RelativeTime(outcome.name, numbers.ratio, *interval, predicted)
