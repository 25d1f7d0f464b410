"""Where a search for a mixed precision begins, and why it does not elsewhere. Pure.

- A search begins from a fully quantized recipe, as measured: of each family from the fastest whose layers may be kept.
- It is worth its time where that recipe would be chosen if only its answers held, and where the samples can show that they do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.accuracy import can_hold, feasible
from edgekit.core.choose import figures, may_win
from edgekit.core.recipes import FAMILIES, MIXED
from edgekit.core.results import Origin, Outcome
from edgekit.core.types import Prefer, Requirements

# The fully quantized recipe must be better than the best that holds by this factor: a mixed one is slower than it.
GAIN = 1.05
# And what is found must be better by this: less is within the noise of most races.
LEAST_GAIN = 1.02


@dataclass(frozen=True)
class Start:
    """Where a family's search begins; `why_not` is empty where it does.

    `most_share` is the largest part of the model's multiply-accumulates that may stay in floating point with a gain left.
    """

    parent: Outcome
    why_not: str
    most_share: float


def starts(outcomes: Sequence[Outcome], requirements: Requirements, origin: Origin) -> tuple[Start, ...]:
    """One for each family that was measured, the fastest first."""
    ratios = {o.name: numbers.ratio for o in outcomes if o.runs and (numbers := figures(o, origin)) is not None}
    known = {o.name: o for o in outcomes if o.name in ratios}
    found: list[Start] = []
    for names in FAMILIES:
        family = sorted((known[name] for name in names if name in known), key=lambda o: ratios[o.name])
        able = [o for o in family if not _cannot(o, outcomes, requirements)]
        if family:
            parent = (able or family)[0]
            share = _most_share(parent, outcomes, ratios, requirements)
            found.append(Start(parent, _why_not(parent, outcomes, requirements, origin), share))
    return tuple(sorted(found, key=lambda start: ratios[start.parent.name]))


def _most_share(
    parent: Outcome, outcomes: Sequence[Outcome], ratios: Mapping[str, float], requirements: Requirements
) -> float:
    """By the time between the parent's and that of the same engine's floating point, in proportion to what is kept in it."""
    timed = [o for o in outcomes if o.name in ratios]
    engine, own = parent.candidate.build.recipe.engine, ratios[parent.name]
    held = [o for o in timed if o.accuracy is not None and feasible(o.accuracy, requirements.max_drop).ok]
    unquantized = [
        ratios[o.name]
        for o in timed
        if o.candidate.build.recipe.engine == engine and o.candidate.build.recipe.precision == "fp32"
    ]
    if requirements.prefer is not Prefer.LATENCY or not held or min(unquantized, default=own) <= own:
        return 1.0
    wanted = min(ratios[o.name] for o in held) / LEAST_GAIN
    return min(1.0, max(0.0, (wanted - own) / (min(unquantized) - own)))


def _why_not(parent: Outcome, outcomes: Sequence[Outcome], requirements: Requirements, origin: Origin) -> str:
    accuracy = parent.accuracy
    if accuracy is None:
        return f"not searched: the accuracy of {parent.name} is not known"
    held = feasible(accuracy, requirements.max_drop)
    if held.ok:
        return f"not needed: {parent.name} holds with everything quantized"
    if reason := _cannot(parent, outcomes, requirements):
        return reason
    if not can_hold(accuracy, requirements.max_drop):
        return f"not searched: too few samples to show a drop of {requirements.max_drop:g}: {held.reason}"
    if not may_win(parent, outcomes, requirements, origin, GAIN):
        return f"not worth it: {parent.name} would not be chosen even if it held"
    return ""


def _cannot(parent: Outcome, outcomes: Sequence[Outcome], requirements: Requirements) -> str:
    """Why keeping layers can't help, or an empty string: it is forbidden, or what they are kept in loses too much by itself."""
    if parent.name + MIXED in requirements.forbid:
        return f"forbidden by --forbid {parent.name + MIXED}"
    hint = parent.candidate.run.precision
    for twin in outcomes:
        alike = twin.candidate.run.precision == hint and twin.candidate.build.recipe.precision == hint
        if alike and twin.accuracy is not None and not feasible(twin.accuracy, requirements.max_drop).ok:
            return f"not searched: layers would be kept in {hint}, and {twin.name} does not hold"
    return ""
