"""Figures of two artifacts taken anew, side by side: interleaved races, and fresh processes in turn. Pure.

- A race of its own processes is one sample of what lasts as long as a process; several races average it out.
- Fresh processes in turn hold that in their own scatter: nothing is added to the interval of their ratios.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from edgekit.core.compare import Comparison, block_bootstrap
from edgekit.core.delta import COLD_START, LATENCY, MEMORY, THROUGHPUT, Delta, ratio_delta


@dataclass(frozen=True)
class Turns:
    """One figure of fresh processes, before and after in turn."""

    before: tuple[float, ...]
    after: tuple[float, ...]


@dataclass(frozen=True)
class Retaken:
    """What two artifacts were measured to do side by side: after over before, latency (medians) and time a run (means).

    `memory` and `cold_start` hold the ratios of fresh processes in turn, with the medians of both sides; empty when not taken.
    """

    device: str
    latency: Comparison
    mean_time: Comparison
    cold_start: Turns | None = None
    memory: Turns | None = None


def joined(turns: Sequence[Turns]) -> Turns:
    """All of them, one after another."""
    return Turns(tuple(x for t in turns for x in t.before), tuple(x for t in turns for x in t.after))


def retaken_deltas(r: Retaken) -> list[Delta]:
    """Figures of both, taken side by side."""
    found = []
    for name, unit, c in ((LATENCY, "ms", r.latency), (THROUGHPUT, "/s", r.mean_time)):
        sign = -1 if name == THROUGHPUT else 1
        before, after = (c.a_ms, c.b_ms) if name == LATENCY else (1e3 / c.a_ms, 1e3 / c.b_ms)
        basis = f"raced anew on {r.device}, {c.rounds} interleaved rounds"
        found.append(ratio_delta(name, unit, before, after, sign * math.log(c.ratio), math.log(c.shown), basis))
    for name, unit, turns in ((MEMORY, "bytes", r.memory), (COLD_START, "ms", r.cold_start)):
        if turns is not None:
            found.append(_turns_delta(name, unit, turns, r.device))
    return found


def _turns_delta(name: str, unit: str, turns: Turns, device: str) -> Delta:
    """Fresh processes in turn: the median of their pairs' ratios. Each pair has its own processes, so no noise is added to it."""
    logs = [math.log(y / x) for x, y in zip(turns.before, turns.after, strict=True)]
    middle = median(logs)
    low, high = block_bootstrap(logs, seed=0)
    basis = f"{len(logs)} fresh processes of each in turn on {device}"
    reach = max(middle - low, high - middle)
    return ratio_delta(name, unit, median(turns.before), median(turns.after), middle, reach, basis)


def combined(results: Sequence[Comparison]) -> Comparison:
    """Races of the same two, each of processes of its own, as one: the mean of the logarithms, what may be off in squares."""
    if len(results) == 1:
        return results[0]
    count = len(results)
    middle = fmean(math.log(c.ratio) for c in results)
    reach = math.hypot(*(math.log(c.shown) for c in results)) / count
    return replace(
        results[-1],
        ratio=math.exp(middle),
        low=math.exp(middle - reach),
        high=math.exp(middle + reach),
        noise=math.exp(math.hypot(*(math.log(c.noise) for c in results)) / count),
        shown=math.exp(reach),
        a_ms=median(c.a_ms for c in results),
        b_ms=median(c.b_ms for c in results),
        rounds=sum(c.rounds for c in results),
        reason=f"{count} races of processes of their own",
    )
