"""Choose among measured candidates. Pure: the same outcomes and requirements give the same choice.

- A blocked candidate (did not build, load or run, quantized nothing, collapsed) is never chosen.
- The accuracy must hold on the selection split, as `core.accuracy.feasible` states.
- Latency, throughput and memory are the target's if measured, else predicted; what rests on a prediction is `unproven`.
- What comes at a rate must be kept up with, one request after another: it counts as a throughput.
- Of the feasible the best by `prefer` wins. Within the race's own A/A spread it is a tie, and the higher precision wins it.
- With weights the least weighted product wins: p50^a x throughput^-b x memory^c x size^d, where the weights are a to d over their
  sum. No unit matters to it, and a factor of two costs the same wherever it is lost.
- When nothing fits, the candidate nearest to fitting is named with what it lacks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from edgekit.core.accuracy import feasible
from edgekit.core.needs import Kind, Need, Ruling, figure, limits, ruling
from edgekit.core.results import Choice, Figures, Origin, Outcome
from edgekit.core.types import LatencyBudget, Prefer, Requirements

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
        cold = m.load.process_to_first_inference_ms
        p50, peak = m.latency_ms.p50, m.memory.peak
        return Figures(Origin.TARGET, p50, m.ratio, m.throughput_ips, peak, size, cold, m.latency_ms)
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
    own, budget = figures(outcome, target_origin), requirements.latency
    known = requirements if budget is None else replace(requirements, latency=LatencyBudget(budget.limit_ms, "p50"))
    if own is None or shortfalls(own, known):
        return False
    rivals = [
        numbers
        for other in outcomes
        if (numbers := figures(other, target_origin)) is not None
        and not _ruled_out(other, requirements, {})
        and not shortfalls(numbers, requirements)
    ]
    return all(cost(own, requirements) + math.log(gain) <= cost(rival, requirements) for rival in rivals)


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
        short = shortfalls(numbers, requirements)
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
    winner, numbers = _best(feasible_ones, requirements, aa_spread)
    for outcome, other in feasible_ones:
        if outcome is not winner:
            rejected[outcome.name] = _why_lost(winner.name, numbers, other, requirements, aa_spread)
    reason = _why_won(numbers, requirements, feasible_ones)
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


def shortfalls(numbers: Figures, requirements: Requirements) -> list[Shortfall]:
    """Every stated requirement a candidate of these figures misses, with how far it misses it."""
    missed = (need for need in limits(requirements) if not ruling(need, numbers).admits)
    return [_shortfall(need, figure(need, numbers), requirements) for need in missed]


def _shortfall(need: Need, value: float | None, r: Requirements) -> Shortfall:
    if value is None:
        return Shortfall(f"{need.label} is not known{': too few runs' if need.kind is Kind.LATENCY else ''}", 1.0)
    if need.at_least:
        comes = "" if need.limit == r.min_throughput_ips else ", what comes"
        text = f"{need.label} {value:.1f}/s is below {need.limit:.1f}/s{comes}"
        return Shortfall(text, need.limit / max(value, 1e-9) - 1)
    scale, unit = (2**20, "MiB") if need.kind in (Kind.MEMORY, Kind.SIZE) else (1, "ms")
    text = f"{need.label} {value / scale:.3g} {unit} is over {need.limit / scale:.3g} {unit}"
    return Shortfall(text, value / need.limit - 1)


def _unproven(numbers: Figures, r: Requirements) -> tuple[str, ...]:
    if numbers.origin is Origin.TARGET and r.arrivals is not None and r.latency is not None:
        scenario = r.arrivals.scenario
        return (f"latency budget in the {scenario} scenario",) if scenario != "single-stream" else ()
    open_ones = {need.kind for need in limits(r) if ruling(need, numbers) is Ruling.UNPROVEN}
    stated = (
        ("latency budget", Kind.LATENCY in open_ones),
        ("minimum throughput", Kind.THROUGHPUT in open_ones and r.min_throughput_ips is not None),
        ("keeping up with what comes", Kind.THROUGHPUT in open_ones and r.rate_ips is not None),
        ("maximum memory", Kind.MEMORY in open_ones),
        ("cold start", Kind.COLD_START in open_ones),
    )
    return tuple(name for name, is_open in stated if is_open)


# What is minimized, of each preference. Unknown memory sorts last.
_MINIMIZED: Mapping[Prefer, Callable[[Figures], float]] = {
    Prefer.LATENCY: lambda f: f.ratio,
    Prefer.THROUGHPUT: lambda f: 1 / f.throughput_ips,
    Prefer.MEMORY: lambda f: math.inf if f.peak_memory_bytes is None else max(float(f.peak_memory_bytes), 1.0),
    Prefer.SIZE: lambda f: max(float(f.size_bytes), 1.0),
}


def _shares(r: Requirements) -> Mapping[Prefer, float]:
    """Each preference's part of the whole."""
    weights = r.weights or {r.prefer: 1.0}
    total = math.fsum(weights.values())
    return {prefer: weight / total for prefer, weight in weights.items()}


def cost(numbers: Figures, requirements: Requirements) -> float:
    """The logarithm of what is minimized: of two candidates the smaller is preferred, and the difference is by what factor."""
    return math.fsum(share * math.log(_MINIMIZED[prefer](numbers)) for prefer, share in _shares(requirements).items())


def noise(requirements: Requirements, aa_spread: float) -> float:
    """By how much costs may differ within the noise of the race, which only times have."""
    shares = _shares(requirements)
    return math.log(aa_spread) * (shares.get(Prefer.LATENCY, 0.0) + shares.get(Prefer.THROUGHPUT, 0.0))


def _is_tie(best: Figures, other: Figures, requirements: Requirements, aa_spread: float) -> bool:
    least, own = cost(best, requirements), cost(other, requirements)
    return own <= least or own - least <= noise(requirements, aa_spread)


def _caution(outcome: Outcome, numbers: Figures) -> tuple[float, float, float, str]:
    """Order among ties: the precision nearest to the original, then time, then memory, and the name for a settled order."""
    precision = outcome.candidate.build.recipe.precision
    rank = _PRECISION_ORDER.index(precision) if precision in _PRECISION_ORDER else len(_PRECISION_ORDER)
    memory = numbers.peak_memory_bytes if numbers.peak_memory_bytes is not None else float("inf")
    return (rank, numbers.ratio, memory, outcome.name)


def _best(ones: Sequence[tuple[Outcome, Figures]], r: Requirements, aa_spread: float) -> tuple[Outcome, Figures]:
    _, best = min(ones, key=lambda pair: cost(pair[1], r))
    ties = [pair for pair in ones if _is_tie(best, pair[1], r, aa_spread)]
    return min(ties, key=lambda pair: _caution(*pair))


def _told(numbers: Figures, prefer: Prefer) -> str:
    """A preference and the figure that decided by it."""
    return {
        Prefer.LATENCY: f"p50, {numbers.p50_ms:.3g} ms",
        Prefer.THROUGHPUT: f"throughput, {numbers.throughput_ips:.4g}/s",
        Prefer.SIZE: f"size, {numbers.size_bytes / 2**20:.3g} MiB",
        Prefer.MEMORY: f"memory, {(numbers.peak_memory_bytes or 0) / 2**20:.3g} MiB",
    }[prefer]


def _why_won(numbers: Figures, r: Requirements, ones: Sequence[tuple[Outcome, Figures]]) -> str:
    kind = "" if numbers.origin is Origin.TARGET else f" ({numbers.origin.value})"
    what = _told(numbers, r.prefer)
    if r.weights:
        told = ", ".join(f"{prefer.value} x{weight:g}" for prefer, weight in r.weights.items())
        what = f"weighted product ({told}): " + "; ".join(_told(numbers, prefer) for prefer in r.weights)
    if len(ones) == 1:
        return f"the only feasible candidate; {what}{kind}"
    if cost(numbers, r) > min(cost(other, r) for _, other in ones):
        return f"no worse than the best {what}{kind} beyond what can be told apart, and nearer to the original"
    return f"best {what}{kind}, of {len(ones)} feasible candidates"


def _why_lost(winner: str, best: Figures, other: Figures, r: Requirements, aa_spread: float) -> str:
    if _is_tie(best, other, r, aa_spread):
        return f"no better than {winner} beyond the noise, and changes the model more or needs more memory"
    if math.isinf(cost(other, r)):
        return "its memory is not known"
    if r.weights:
        return f"{math.exp(cost(other, r) - cost(best, r)):.2f}x the weighted product of {winner}"
    if r.prefer is Prefer.LATENCY:
        return f"{other.ratio / best.ratio:.2f}x the p50 of {winner}"
    if r.prefer is Prefer.THROUGHPUT:
        return f"{other.throughput_ips / best.throughput_ips:.2f}x the throughput of {winner}"
    factor = math.exp(cost(other, r) - cost(best, r))
    return f"{factor:.2f}x the {r.prefer.value} of {winner}"


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
