"""Choose among measured candidates. Pure: the same outcomes and requirements give the same choice.

- A blocked candidate (did not build, load or run, quantized nothing, collapsed) is never chosen.
- The accuracy must hold on the selection split, as `core.accuracy.feasible` states.
- Latency, throughput and memory are the target's if measured, else predicted; what rests on a prediction is `unproven`.
- Of the feasible the best by `prefer` wins. Within the race's own A/A spread it is a tie, and the higher precision wins it.
- When nothing fits, the candidate nearest to fitting is named with what it lacks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.core.accuracy import feasible
from edgekit.core.results import Choice, Figures, Origin, Outcome
from edgekit.core.types import Prefer, Requirements

# Ties go to the precision that changes the model least.
_PRECISION_ORDER = ("fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Shortfall:
    """One requirement a candidate misses: `excess` is how far, relative to the limit; 1 when it is not known."""

    text: str
    excess: float


def figures(outcome: Outcome, target_origin: Origin) -> Figures | None:
    """The numbers a choice on this target may use, or None when there are none."""
    if outcome.artifact is None:
        return None
    size = outcome.artifact.size_bytes
    m = outcome.measurement
    if target_origin is Origin.TARGET and m is not None and m.latency_ms.p50 is not None:
        return Figures(Origin.TARGET, m.latency_ms.p50, m.ratio, m.throughput_ips, m.memory.peak, size)
    p = outcome.prediction
    if p is not None:
        return Figures(Origin.PREDICTED, p.p50_ms, p.ratio, p.throughput_ips, p.peak_memory_bytes, size)
    return None


def may_win(
    outcome: Outcome, outcomes: Sequence[Outcome], requirements: Requirements, target_origin: Origin, gain: float
) -> bool:
    """Whether the candidate, if its answers held, would be the only one that fits or `gain` times as good as the best that does.

    A latency budget is asked of its p50: of what was not to be chosen, no more is known.
    """
    own = figures(outcome, target_origin)
    if own is None or shortfalls(outcome, own, replace(requirements, latency=None)):
        return False
    if requirements.latency is not None and own.p50_ms > requirements.latency.limit_ms:
        return False
    rivals = [
        numbers
        for other in outcomes
        if (numbers := figures(other, target_origin)) is not None
        and not _ruled_out(other, requirements, {})
        and not shortfalls(other, numbers, requirements)
    ]
    return all(_is_better(own, rival, requirements.prefer, gain) for rival in rivals)


def _is_better(own: Figures, other: Figures, prefer: Prefer, gain: float) -> bool:
    if prefer is Prefer.THROUGHPUT:
        return own.throughput_ips >= other.throughput_ips * gain
    return _cost(own, prefer) * gain <= _cost(other, prefer)


def choose(
    outcomes: Sequence[Outcome],
    requirements: Requirements,
    target_origin: Origin,
    aa_spread: float = 1.0,
    excluded: Mapping[str, str] | None = None,
) -> Choice:
    """Pick the best feasible candidate.

    `aa_spread` is the race's largest A/A ratio (1.0: no noise); `excluded` names who may not be chosen, with the reason.
    """
    rejected: dict[str, str] = {}
    feasible_ones: list[tuple[Outcome, Figures]] = []
    misses: list[tuple[float, Outcome, tuple[str, ...]]] = []
    for outcome in outcomes:
        reason = _ruled_out(outcome, requirements, excluded or {})
        numbers = figures(outcome, target_origin)
        if reason or numbers is None:
            rejected[outcome.name] = reason or "it was not measured"
            continue
        short = shortfalls(outcome, numbers, requirements)
        if short:
            texts = tuple(s.text for s in short)
            rejected[outcome.name] = "; ".join(texts)
            misses.append((sum(s.excess for s in short), outcome, texts))
        else:
            feasible_ones.append((outcome, numbers))
    front = pareto_front(feasible_ones)
    if not feasible_ones:
        nearest = min(misses, key=lambda m: (m[0], m[1].name), default=None)
        return Choice(
            None,
            "no candidate meets the requirements",
            (),
            front,
            rejected,
            nearest[1].name if nearest else None,
            nearest[2] if nearest else (),
        )
    winner, numbers = _best(feasible_ones, requirements.prefer, aa_spread)
    for outcome, other in feasible_ones:
        if outcome is not winner:
            rejected[outcome.name] = _why_lost(winner, numbers, outcome, other, requirements.prefer, aa_spread)
    reason = _why_won(numbers, requirements.prefer, feasible_ones)
    names = tuple(outcome.name for outcome, _ in feasible_ones)
    return Choice(winner.name, reason, names, front, rejected, unproven=_unproven(numbers, requirements))


def _ruled_out(outcome: Outcome, requirements: Requirements, excluded: Mapping[str, str]) -> str:
    if outcome.blocked is not None:
        return f"{outcome.blocked.code.value}: {outcome.blocked.reason}"
    if outcome.name in excluded:
        return excluded[outcome.name]
    if outcome.accuracy is None:
        return "its accuracy was not measured"
    holds, reason = feasible(outcome.accuracy, requirements.max_drop)
    return "" if holds else reason


def shortfalls(outcome: Outcome, numbers: Figures, requirements: Requirements) -> list[Shortfall]:
    """Every stated requirement the candidate misses, with how far it misses it."""
    r = requirements
    found: list[Shortfall] = []
    if r.latency is not None:
        value = _at_percentile(outcome, numbers, r.latency.percentile)
        label = f"{r.latency.percentile} latency"
        if value is None:
            found.append(Shortfall(f"{label} is not known: too few runs", 1.0))
        elif value > r.latency.limit_ms:
            found.append(_over(label, value, r.latency.limit_ms, "ms"))
    if r.min_throughput_ips is not None and numbers.throughput_ips < r.min_throughput_ips:
        text = f"throughput {numbers.throughput_ips:.1f}/s is below {r.min_throughput_ips:.1f}/s"
        found.append(Shortfall(text, r.min_throughput_ips / max(numbers.throughput_ips, 1e-9) - 1))
    if r.max_memory_bytes is not None:
        if numbers.peak_memory_bytes is None:
            found.append(Shortfall("peak memory is not known", 1.0))
        elif numbers.peak_memory_bytes > r.max_memory_bytes:
            found.append(_over("peak memory", numbers.peak_memory_bytes / 2**20, r.max_memory_bytes / 2**20, "MiB"))
    if r.max_size_bytes is not None and numbers.size_bytes > r.max_size_bytes:
        found.append(_over("size", numbers.size_bytes / 2**20, r.max_size_bytes / 2**20, "MiB"))
    return found


def _over(label: str, value: float, limit: float, unit: str) -> Shortfall:
    return Shortfall(f"{label} {value:.3g} {unit} is over {limit:.3g} {unit}", value / limit - 1)


def _at_percentile(outcome: Outcome, numbers: Figures, percentile: str) -> float | None:
    """A predicted latency has no distribution: its p50 stands for every percentile and the requirement stays unproven."""
    if numbers.origin is Origin.PREDICTED or outcome.measurement is None:
        return numbers.p50_ms
    value: float | None = getattr(outcome.measurement.latency_ms, percentile)
    return value


def _unproven(numbers: Figures, r: Requirements) -> tuple[str, ...]:
    if numbers.origin is Origin.TARGET:
        return ()
    stated = {
        "latency budget": r.latency is not None,
        "minimum throughput": r.min_throughput_ips is not None,
        "maximum memory": r.max_memory_bytes is not None,
    }
    return tuple(name for name, asked in stated.items() if asked)


def _cost(numbers: Figures, prefer: Prefer) -> float:
    """What is minimized. Unknown memory sorts last."""
    if prefer is Prefer.LATENCY:
        return numbers.ratio
    if prefer is Prefer.THROUGHPUT:
        return -numbers.throughput_ips
    if prefer is Prefer.SIZE:
        return float(numbers.size_bytes)
    return float(numbers.peak_memory_bytes) if numbers.peak_memory_bytes is not None else float("inf")


def _is_tie(best: Figures, other: Figures, prefer: Prefer, aa_spread: float) -> bool:
    if prefer is Prefer.LATENCY:
        return other.ratio <= best.ratio * aa_spread
    if prefer is Prefer.THROUGHPUT:
        return other.throughput_ips * aa_spread >= best.throughput_ips
    return _cost(other, prefer) == _cost(best, prefer)


def _caution(outcome: Outcome, numbers: Figures) -> tuple[float, float, float, str]:
    """Order among ties: the precision nearest to the original, then time, then memory, and the name for a settled order."""
    precision = outcome.candidate.build.recipe.precision
    rank = _PRECISION_ORDER.index(precision) if precision in _PRECISION_ORDER else len(_PRECISION_ORDER)
    memory = numbers.peak_memory_bytes if numbers.peak_memory_bytes is not None else float("inf")
    return (rank, numbers.ratio, memory, outcome.name)


def _best(ones: Sequence[tuple[Outcome, Figures]], prefer: Prefer, aa_spread: float) -> tuple[Outcome, Figures]:
    _, best = min(ones, key=lambda pair: _cost(pair[1], prefer))
    ties = [pair for pair in ones if _is_tie(best, pair[1], prefer, aa_spread)]
    return min(ties, key=lambda pair: _caution(*pair))


def _why_won(numbers: Figures, prefer: Prefer, ones: Sequence[tuple[Outcome, Figures]]) -> str:
    what = {
        Prefer.LATENCY: f"p50, {numbers.p50_ms:.3g} ms",
        Prefer.THROUGHPUT: f"throughput, {numbers.throughput_ips:.4g}/s",
        Prefer.SIZE: f"size, {numbers.size_bytes / 2**20:.3g} MiB",
        Prefer.MEMORY: f"memory, {(numbers.peak_memory_bytes or 0) / 2**20:.3g} MiB",
    }[prefer]
    kind = "" if numbers.origin is Origin.TARGET else f" ({numbers.origin.value})"
    if len(ones) == 1:
        return f"the only feasible candidate; {what}{kind}"
    best = min(_cost(other, prefer) for _, other in ones)
    if _cost(numbers, prefer) > best:
        return f"no worse than the best {what}{kind} beyond what can be told apart, and nearer to the original"
    return f"best {what}{kind}, of {len(ones)} feasible candidates"


def _why_lost(
    winner: Outcome, best: Figures, outcome: Outcome, other: Figures, prefer: Prefer, aa_spread: float
) -> str:
    if _is_tie(best, other, prefer, aa_spread) or _cost(other, prefer) < _cost(best, prefer):
        return f"no better than {winner.name} beyond the noise, and changes the model more or needs more memory"
    if prefer is Prefer.LATENCY:
        return f"{other.ratio / best.ratio:.2f}x the p50 of {winner.name}"
    if prefer is Prefer.THROUGHPUT:
        return f"{other.throughput_ips / best.throughput_ips:.2f}x the throughput of {winner.name}"
    if prefer is Prefer.SIZE:
        return f"{other.size_bytes / best.size_bytes:.2f}x the size of {winner.name}"
    if other.peak_memory_bytes is None or not best.peak_memory_bytes:
        return "its memory is not known"
    return f"{other.peak_memory_bytes / best.peak_memory_bytes:.2f}x the memory of {winner.name}"


def pareto_front(ones: Sequence[tuple[Outcome, Figures]]) -> tuple[str, ...]:
    """Names of the candidates no other one beats in time, throughput, memory, size and drop at once."""
    points = [(outcome.name, _point(outcome, numbers)) for outcome, numbers in ones]
    return tuple(name for name, point in points if not any(_dominates(other, point) for _, other in points))


def _point(outcome: Outcome, numbers: Figures) -> tuple[float, ...]:
    memory = numbers.peak_memory_bytes if numbers.peak_memory_bytes is not None else float("inf")
    drop = max(outcome.accuracy.drop, 0.0) if outcome.accuracy is not None else 0.0
    return (numbers.ratio, -numbers.throughput_ips, float(memory), float(numbers.size_bytes), drop)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and a != b
