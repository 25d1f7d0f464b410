"""What the results of all models come to: which bars are met, and what has to be said. Pure.

- Slower is what lies beyond the race's A/A spread and beyond the interval of the pair's own ratio.
- A model where nothing is faster counts in the geometric mean with what edgekit chose there, and is listed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy.records import CONTROL, EDGEKIT, Entry, Result, own_name

# The geometric means asked for: of edgekit's choices on a machine with bf16, and with bf16 forbidden.
SPEED_UP, SPEED_UP_WITHOUT_BF16 = 1.7, 1.4
BF16 = "bf16"


@dataclass(frozen=True)
class Verdict:
    """A sentence, and whether it tells of a bar that is missed."""

    words: str
    missed: bool = False


def conclude(results: Sequence[Result], forbid: str) -> list[Verdict]:
    """Everything there is to say of the results."""
    found = [beside_the_fastest(result, word) for word in _runs(forbid) for result in results]
    found += [speed_up(results, word) for word in _runs(forbid)]
    return [*found, search_time(results), nothing_faster(results)]


def _runs(forbid: str) -> tuple[str, ...]:
    return ("", forbid) if forbid else ("",)


def beside_the_fastest(result: Result, forbid: str) -> Verdict:
    """Is edgekit's choice as fast as the fastest artifact of any tool that holds? A bar where nothing is forbidden.

    With a precision forbidden, it is put beside the artifacts that do without it, for information.
    """
    own = result.entry(own_name(forbid))
    if own is None or not own.turns_ns:
        return Verdict(f"{result.model}: {own_name(forbid)} has no artifact ({_reason(own)}).", missed=True)
    head = f"{result.model}: {own.tool} chose {own.remark.partition(':')[0]}"
    if not own.holds:
        return Verdict(f"{head}, which does not hold on unseen data.", missed=True)
    others = [e for e in _tools(result) if e.holds and not (forbid and e.precision == forbid)]
    fastest = min(others, key=lambda entry: entry.ratio_to(result.baseline), default=result.baseline)
    ratio = own.ratio_to(fastest)
    slower = ratio > result.aa_spread and own.lowest_ratio_to(fastest) > 1
    words = (
        f"{head}, {ratio:.3f} of the time of {fastest.tool}, the fastest that holds (A/A up to {result.aa_spread:.3f})"
    )
    return Verdict(f"{words}{': slower' if slower else ''}.", missed=slower and not forbid)


def _reason(entry: Entry | None) -> str:
    return "it was not run" if entry is None else entry.reason


def _tools(result: Result) -> list[Entry]:
    return [entry for entry in result.entries if not entry.tool.startswith(EDGEKIT)]


def speed_up(results: Sequence[Result], forbid: str) -> Verdict:
    """The geometric mean of what edgekit's choices gain over ONNX Runtime fp32, where they hold."""
    own = [(result.entry(own_name(forbid)), result.baseline) for result in results]
    gains = [1 / entry.ratio_to(baseline) for entry, baseline in own if entry is not None and entry.holds]
    if not gains:
        return Verdict(f"{own_name(forbid)}: no choice holds.", missed=True)
    mean = math.exp(sum(map(math.log, gains)) / len(gains))
    bar = SPEED_UP_WITHOUT_BF16 if forbid == BF16 else SPEED_UP
    head = f"{own_name(forbid)} is {mean:.2f}x as fast as ONNX Runtime fp32 (geometric mean of {len(gains)} models"
    if forbid == "" and not any(e.precision == BF16 and e.turns_ns for r in results for e in r.entries):
        return Verdict(f"{head}; the bar of {bar}x is for machines with bf16).")
    return Verdict(f"{head}; the bar is {bar}x).", missed=mean < bar)


def search_time(results: Sequence[Result]) -> Verdict:
    """Where edgekit takes at most half of the time of NNCF's accuracy control for a choice that is at least as good."""
    where = [result.model for result in results if _found_sooner(result)]
    rest = [result.model for result in results if result.model not in where]
    words = (
        f"edgekit took at most half of the time of NNCF's accuracy control, for a choice that holds and is no slower, on "
        f"{len(where)} models ({', '.join(where) or 'none'}); not on {', '.join(rest) or 'none'}."
    )
    return Verdict(words)


def _found_sooner(result: Result) -> bool:
    """Where NNCF found nothing, or nothing that holds, edgekit's choice is better whatever its speed."""
    own = result.entry(own_name())
    controls = [entry for entry in result.entries if entry.tool.startswith(CONTROL) and entry.build is not None]
    if own is None or own.build is None or not own.holds or not controls:
        return False
    sooner = own.build.seconds <= min(entry.build.seconds for entry in controls if entry.build) / 2
    return sooner and all(not e.holds or own.ratio_to(e) <= result.aa_spread for e in controls)


def nothing_faster(results: Sequence[Result]) -> Verdict:
    """The models where nothing that holds is faster than ONNX Runtime fp32 beyond the noise."""
    names = [r.model for r in results if not any(_is_faster(entry, r) for entry in r.entries[1:])]
    return Verdict(f"Nothing that holds is faster than ONNX Runtime fp32 on: {', '.join(names) or 'none of them'}.")


def _is_faster(entry: Entry, result: Result) -> bool:
    return (
        entry.holds
        and result.baseline.lowest_ratio_to(entry) > 1
        and 1 / entry.ratio_to(result.baseline) > result.aa_spread
    )
