"""Where a search for a mixed precision begins, and why it does not elsewhere. Pure.

- A search begins from a fully quantized recipe, as measured: of each family from the fastest whose layers may be kept.
- It is worth its time where that recipe would be chosen if only its answers held, and where the samples can show that they do.
"""

from collections.abc import Sequence

from edgekit.core.accuracy import can_hold, feasible
from edgekit.core.choose import figures, may_win
from edgekit.core.recipes import FAMILIES, MIXED
from edgekit.core.results import Origin, Outcome
from edgekit.core.types import Requirements

# The fully quantized recipe must be better than the best that holds by this factor: a mixed one is slower than it.
GAIN = 1.05


def starts(outcomes: Sequence[Outcome], requirements: Requirements, origin: Origin) -> tuple[tuple[Outcome, str], ...]:
    """(the outcome to begin from, why no search begins there or an empty string) of each family; the fastest family first."""
    ratios = {o.name: numbers.ratio for o in outcomes if o.runs and (numbers := figures(o, origin)) is not None}
    known = {o.name: o for o in outcomes if o.name in ratios}
    found: list[tuple[Outcome, str]] = []
    for names in FAMILIES:
        family = sorted((known[name] for name in names if name in known), key=lambda o: ratios[o.name])
        able = [o for o in family if not _cannot(o, outcomes, requirements)]
        if family:
            parent = (able or family)[0]
            found.append((parent, _why_not(parent, outcomes, requirements, origin)))
    return tuple(sorted(found, key=lambda pair: ratios[pair[0].name]))


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
