"""Statistics of latencies and of paired answers. Pure standard library; the same numbers give the same result.

- A percentile is claimed only when there are enough samples for it (`runs_needed`); else it is None, never a guess.
- Ratios are taken within a round, where both sides met the same machine, and summarized by their median.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

Z_95 = 1.959963984540054  # the standard normal's 97.5 % point: two-sided 95 % intervals

# MLPerf Inference rules, "Early Stopping": a percentile is valid when, with 99 % confidence, more than one of the runs lies
# beyond it. This gives the rules' published minima, 64 queries for p90 and 662 for p99.
PERCENTILE_CONFIDENCE = 0.99

BOOTSTRAP_RESAMPLES = 1000


def percentile(samples: Sequence[float], q: float) -> float:
    """The `q`-th percentile (0..100) of unordered samples, linear between order statistics.

    Definition 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996): numpy's default. Raises ValueError when
    there are no samples or `q` is out of range.
    """
    if not samples or not 0 <= q <= 100:
        raise ValueError(f"percentile {q} of {len(samples)} samples")
    return _percentile_of_sorted(sorted(samples), q)


def _percentile_of_sorted(ordered: Sequence[float], q: float) -> float:
    position = (len(ordered) - 1) * q / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    part = position - below
    low, high = ordered[below], ordered[above]
    return min(max(low + (high - low) * part, low), high)


def runs_needed(q: float) -> int:
    """The fewest runs that support the `q`-th percentile, 0 < q < 100: 11 for p50, 64 for p90, 662 for p99.

    The smallest n for which P(at most one of n runs beyond the percentile) <= 1 - PERCENTILE_CONFIDENCE. Low percentiles need as
    many runs as their mirror image. Raises ValueError when `q` is out of range.
    """
    if not 0 < q < 100:
        raise ValueError(f"percentile {q}")
    p = max(q, 100 - q) / 100

    def unproven(n: int) -> bool:
        return p**n + n * p ** (n - 1) * (1 - p) > 1 - PERCENTILE_CONFIDENCE

    return first_at_least(2, lambda n: not unproven(n))


def first_at_least(start: int, holds: Callable[[int], bool], limit: int = 1 << 40) -> int:
    """The smallest n >= `start` for which a monotone condition holds, by doubling and bisection; `limit` when none below it."""
    low, high = start - 1, start
    while not holds(high):
        low, high = high, high * 2
        if high >= limit:
            return limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class LatencyStats:
    """Latencies in milliseconds. A percentile is None when `count` does not support it (`runs_needed`); stdev of one run is 0."""

    count: int
    mean: float
    stdev: float
    min: float
    p50: float | None
    p75: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    max: float


def latency_stats(ns: Sequence[int]) -> LatencyStats:
    """Summarize raw latencies in nanoseconds. Raises ValueError when there are none."""
    if not ns:
        raise ValueError("no latencies")
    ms = sorted(value / 1e6 for value in ns)

    def supported(q: float) -> float | None:
        return _percentile_of_sorted(ms, q) if len(ms) >= runs_needed(q) else None

    return LatencyStats(
        count=len(ms),
        mean=min(max(fmean(ms), ms[0]), ms[-1]),
        stdev=stdev(ms) if len(ms) > 1 else 0.0,
        min=ms[0],
        p50=supported(50),
        p75=supported(75),
        p90=supported(90),
        p95=supported(95),
        p99=supported(99),
        p999=supported(99.9),
        max=ms[-1],
    )


# ---------------------------------------------------------------------------------------------------- interleaved rounds


def round_ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """a/b round by round; each number is a round's median latency. Raises ValueError when the rounds do not pair up."""
    if not a or len(a) != len(b):
        raise ValueError(f"{len(a)} rounds against {len(b)}")
    return [x / y for x, y in zip(a, b, strict=True)]


def median_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """The median of the per-round ratios a/b: drift that hits both sides of a round cancels."""
    return median(round_ratios(a, b))


def bootstrap_ratio_ci(a_rounds: Sequence[float], b_rounds: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95 % interval of `median_ratio`: percentile bootstrap over whole rounds (Efron and Tibshirani 1993, chapter 13)."""
    ratios = round_ratios(a_rounds, b_rounds)
    rng = random.Random(seed)
    medians = sorted(median(rng.choices(ratios, k=len(ratios))) for _ in range(BOOTSTRAP_RESAMPLES))
    return _percentile_of_sorted(medians, 2.5), _percentile_of_sorted(medians, 97.5)


# -------------------------------------------------------------------------------------------------------- paired answers


def paired_difference_interval(worse: float, better: float, n: float, z: float = Z_95) -> tuple[float, float]:
    """The score interval of (worse - better) / n, two proportions of the same `n` pairs.

    `worse` counts pairs that only the reference got right, `better` pairs that only the candidate got right. Tango, "Equivalence
    test and confidence interval for the difference in proportions for the paired-sample design", Statistics in Medicine 17
    (1998); recommended for small samples by Fagerland, Lydersen and Laake (2014). Unlike a bootstrap or Wald interval it does
    not shrink to a point when no pair differs: then it is +-z^2 / (n + z^2), the rule of three's two-sided kin.
    Raises ValueError when the counts are not possible.
    """
    if n <= 0 or worse < 0 or better < 0 or worse + better > n * (1 + 1e-12):
        raise ValueError(f"{worse} worse and {better} better of {n}")
    return -_upper_end(better, worse, n, z), _upper_end(worse, better, n, z)


def _upper_end(b: float, c: float, n: float, z: float) -> float:
    """The largest difference that the score test does not reject, by bisection: the statistic falls as `delta` grows."""
    low, high = (b - c) / n, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _score_statistic(b, c, n, middle) >= -z else (low, middle)
    return high


def _score_statistic(b: float, c: float, n: float, delta: float) -> float:
    """Tango's equation (21): the difference less `delta`, over its standard deviation when `delta` is the truth."""
    half = (2 * n - b + c) * delta - b - c
    p21 = (math.sqrt(max(half * half + 8 * n * c * delta * (1 - delta), 0.0)) - half) / (4 * n)
    variance = n * (2 * p21 + delta * (1 - delta))
    gap = b - c - n * delta
    if variance <= 0:
        return 0.0 if gap == 0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)
