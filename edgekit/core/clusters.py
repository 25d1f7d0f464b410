"""The interval of paired right-or-wrong answers that come in clusters: several a sample, or samples in a sequence. Pure.

- Answers of one cluster stand and fall together, so they count as fewer: n / (design effect).
- The design effect is found from the answers, and never taken below what ASSUMED_CORRELATION makes of the clusters' sizes: where
  nothing differs there is nothing to find it from, and a few differing answers say little about it.
- Few clusters say little about their own spread: Student's t in place of the normal's quantile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgekit.core.stats import Z_95, first_at_least, paired_difference_interval

# Correlation assumed between two answers of one cluster, at least. At 0.1 a cluster never counts for more than ten answers.
ASSUMED_CORRELATION = 0.1

SAMPLES_LIMIT = 10_000_000


@dataclass(frozen=True)
class ClusteredInterval:
    """The 95 % interval of the drop; `effective` is the number of independent answers it rests on."""

    low: float
    high: float
    effective: float


def clustered_interval(
    worse: Sequence[float], better: Sequence[float], sizes: Sequence[float]
) -> ClusteredInterval | None:
    """The interval of (worse - better) / answers; `worse`, `better` and `sizes` count answers by cluster.

    Tango's score interval (`stats`) at the effective sample size: Rao and Scott, "A Simple Method for the Analysis of Clustered
    Binary Data", Biometrics 48 (1992), with the degrees of freedom of Korn and Graubard, "Confidence Intervals for Proportions
    with Small Expected Number of Positive Counts Estimated from Survey Data", Survey Methodology 24 (1998). Clusters of one
    answer are independent answers. None for a single cluster of several answers: it tells nothing of the others.
    """
    counted = [(w, b, m) for w, b, m in zip(worse, better, sizes, strict=True) if m > 0]
    lost, won, total = (math.fsum(column) for column in zip(*counted, strict=True)) if counted else (0.0, 0.0, 0.0)
    if not total or (len(counted) == 1 and total > 1):
        return None
    effective = total
    if any(m > 1 for _, _, m in counted):
        observed = _observed_effect([w - b for w, b, _ in counted], [m for _, _, m in counted], (lost + won) / total)
        effective = effective_answers([m for _, _, m in counted], observed)
    share = effective / total
    return ClusteredInterval(*paired_difference_interval(lost * share, won * share, effective), effective)


def effective_answers(sizes: Sequence[float], observed_effect: float = 0.0) -> float:
    """How many independent answers clusters of these `sizes` (two or more, all above 0) are worth.

    The assumed design effect is 1 + (m - 1) rho with m = sum(m^2) / sum(m), Kish, "Survey Sampling" (1965), section 5.4; the
    larger of it and the observed one counts.
    """
    total = math.fsum(sizes)
    return _worth(total, math.fsum(m * m for m in sizes) / total, len(sizes), observed_effect)


def _worth(answers: float, mean_size: float, clusters: int, observed_effect: float = 0.0) -> float:
    effect = max(1 + (mean_size - 1) * ASSUMED_CORRELATION, observed_effect)
    return answers / effect * (Z_95 / t_975(clusters - 1)) ** 2


def _observed_effect(net: Sequence[float], sizes: Sequence[float], differing: float) -> float:
    """The variance of the drop, clusters drawn whole, over what it would be of answers drawn alone; 0 when nothing differs."""
    units, total = len(sizes), math.fsum(sizes)
    drop = math.fsum(net) / total
    alone = (differing - drop * drop) / total
    whole = units / (units - 1) * math.fsum((d - drop * m) ** 2 for d, m in zip(net, sizes, strict=True)) / total**2
    return whole / alone if alone > 0 else 0.0


def t_975(freedom: int) -> float:
    """Student's 97.5 % point: exact for 1 and 2 degrees of freedom, else within 0.2 % (Abramowitz and Stegun, 26.7.5)."""
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom")
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = Z_95
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**k for k, term in enumerate(terms, start=1))


def fewest_samples(max_drop: float, answers: int = 1) -> int | None:
    """How many samples of `answers` each it takes to show a drop of nothing within `max_drop`, if no answer ever differs.

    The smallest number whose interval then ends at or below 2 x `max_drop`, as `accuracy.feasible` asks; None below no number.
    """

    def enough(n: int) -> bool:
        effective = n if answers == 1 else _worth(n * answers, answers, n)
        return paired_difference_interval(0, 0, effective)[1] <= 2 * max_drop

    found = first_at_least(2, enough, SAMPLES_LIMIT) if max_drop > 0 else SAMPLES_LIMIT
    return found if found < SAMPLES_LIMIT else None
