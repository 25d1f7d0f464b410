"""Which mixed precision to try next: the fewest units kept in full precision with which the accuracy holds. Pure.

- Keeping more is taken to be safer: the smallest count that holds is found by bisection on the order of `give_back_order`.
- The first try is everything quantized when attribution already found that fine (with other ranges than the parent's, say), else
  where the predicted noise has fallen far enough. A prediction only saves tries, it decides nothing.
- Anytime: every try that held is a candidate; stopping early costs speed, never accuracy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.core.accuracy import Accuracy
from edgekit.core.sensitivity import Attribution, Sensitivity, noise_left

# The first try leaves this share of the noise that everything quantized made.
FIRST_SHARE = 0.1
# Bisection ends when the counts that held and failed are this close, as a share of all units.
RESOLUTION = 1 / 16


@dataclass(frozen=True)
class Try:
    """One mixed precision that was built and judged on the selection split.

    `kept` names the units left in full precision, `settings` how the rest was quantized (ranges...). `accuracy` is None
    when it did not build or run; `reason` says why it held or did not.
    """

    kept: tuple[str, ...]
    settings: Mapping[str, str]
    accuracy: Accuracy | None
    held: bool
    reason: str


@dataclass(frozen=True)
class Search:
    """The search for a mixed precision that began from the recipe `parent`.

    `attribution` says which layers cost the parent's accuracy, None when it was not looked for. `best` is the name of the candidate
    that came of it, None when none did; `ended` is one sentence: why the search ended, or why it was not begun.
    """

    parent: str
    attribution: Attribution | None
    tries: tuple[Try, ...]
    best: str | None
    ended: str


@dataclass(frozen=True)
class Tried:
    """A try: how many units of the order were kept, and whether the accuracy held."""

    kept: int
    held: bool


def next_try(order: Sequence[Sensitivity], tried: Sequence[Tried], looks_fine: bool = False) -> int | None:
    """How many units to keep next; None when the smallest count that holds is known closely enough, or none does.

    With `looks_fine` the first try is 0: everything quantized. Keeping every unit is not a try: that is full precision, which is a
    candidate already and is taken to hold.
    """
    units = len(order)
    failed, held = _bounds(units, tried)
    if held - failed <= resolution(units):
        return None
    if looks_fine and not tried:
        return 0
    if _guesses(units, tried):
        return min(max(_first(order), failed + 1), held - 1)
    return (held + failed) // 2


def tries_left(units: int, tried: Sequence[Tried]) -> int:
    """The most tries that may still come: what an ETA is made of."""
    failed, held = _bounds(units, tried)
    gap, close = held - failed, resolution(units)
    if gap <= close:
        return 0
    steps = 0
    if _guesses(units, tried):  # a guess may cut off as little as one count, and so may a first try of 0
        steps, gap = 1 + (not tried), units - 1
    while gap > close:
        steps, gap = steps + 1, (gap + 1) // 2
    return steps


def _bounds(units: int, tried: Sequence[Tried]) -> tuple[int, int]:
    """The largest count that failed, -1 for none, and the smallest above it that held; all units hold."""
    failed = max((t.kept for t in tried if not t.held), default=-1)
    return failed, min((t.kept for t in tried if t.held and t.kept > failed), default=units)


def resolution(units: int) -> int:
    """How close the counts that held and failed are when bisection ends."""
    return max(1, round(units * RESOLUTION))


def _guesses(units: int, tried: Sequence[Tried]) -> bool:
    """Whether the prediction is still to be asked: nothing is known but perhaps that 0 fails."""
    return _bounds(units, tried) in ((-1, units), (0, units))


def _first(order: Sequence[Sensitivity]) -> int:
    whole = noise_left(order, 0)
    return next(k for k in range(len(order) + 1) if k == len(order) or noise_left(order, k) <= FIRST_SHARE * whole)
