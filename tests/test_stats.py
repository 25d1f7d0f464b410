"""Percentiles, latency summaries, interleaved ratios, paired intervals and the rule of feasibility."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.accuracy import Accuracy, feasible, is_equivalent, samples_to_settle
from edgekit.core.stats import (
    bootstrap_ratio_ci,
    first_at_least,
    latency_stats,
    median_ratio,
    paired_difference_interval,
    percentile,
    runs_needed,
)

finite = st.floats(-1e9, 1e9)


@given(st.lists(finite, min_size=1, max_size=60), st.floats(0, 100))
def test_percentile_is_numpys_default(samples: list[float], q: float) -> None:
    scale = max(1.0, max(abs(s) for s in samples))
    assert percentile(samples, q) == pytest.approx(float(np.percentile(samples, q)), abs=1e-9 * scale)


@given(st.lists(finite, min_size=1, max_size=60), st.floats(0, 100), st.floats(0, 100))
def test_percentile_is_monotone_bounded_and_blind_to_order(samples: list[float], p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert min(samples) <= percentile(samples, low) <= percentile(samples, high) <= max(samples)
    assert percentile(samples[::-1], p) == percentile(samples, p)


@pytest.mark.parametrize(("samples", "q"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_percentile_refuses_the_impossible(samples: list[float], q: float) -> None:
    with pytest.raises(ValueError):
        percentile(samples, q)


def test_runs_needed_are_the_published_minima_of_mlperf() -> None:
    assert (runs_needed(90), runs_needed(99)) == (64, 662)


@given(st.floats(50, 99.9))
def test_runs_needed_is_the_smallest_that_proves_it(q: float) -> None:
    p, n = q / 100, runs_needed(q)

    def at_most_one_beyond(n: int) -> float:
        return p**n + n * p ** (n - 1) * (1 - p)

    assert at_most_one_beyond(n) <= 0.01 < at_most_one_beyond(n - 1)


@given(st.integers(1, 500), st.integers(1, 10_000))
def test_first_at_least_finds_the_edge(start: int, edge: int) -> None:
    assert first_at_least(start, lambda n: n >= edge) == max(start, edge)
    assert first_at_least(start, lambda n: False, limit=1000) == 1000


def test_latency_stats_are_in_ms_and_claim_no_percentile_without_enough_runs() -> None:
    few = latency_stats([2_000_000] * 661)
    enough = latency_stats([2_000_000] * 662)
    assert few.p99 is None
    assert enough.p99 == 2.0
    assert enough.p999 is None
    assert (enough.count, enough.mean, enough.stdev, enough.min, enough.max) == (662, 2.0, 0.0, 2.0, 2.0)
    assert latency_stats([5]).p50 is None
    with pytest.raises(ValueError):
        latency_stats([])


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=200))
def test_latency_stats_are_ordered(ns: list[int]) -> None:
    s = latency_stats(ns)
    claimed = [v for v in (s.min, s.p50, s.p75, s.p90, s.p95, s.p99, s.p999, s.max) if v is not None]
    assert claimed == sorted(claimed)
    assert s.min <= s.mean <= s.max


# ---------------------------------------------------------------------------------------------------- interleaved rounds


def test_drift_that_hits_both_sides_of_a_round_cancels() -> None:
    slow = [1.0, 2.0, 4.0, 8.0]
    assert median_ratio([2 * v for v in slow], slow) == 2.0
    assert median_ratio(slow[::-1], slow) != 1.0  # the same numbers, not paired, do not cancel
    with pytest.raises(ValueError):
        median_ratio([1.0], [1.0, 2.0])


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30), st.floats(0.1, 10))
@settings(max_examples=20)
def test_bootstrap_of_a_constant_ratio_is_that_ratio(rounds: list[float], ratio: float) -> None:
    low, high = bootstrap_ratio_ci([ratio * r for r in rounds], rounds, seed=1)
    assert low == pytest.approx(ratio)
    assert high == pytest.approx(ratio)


def test_bootstrap_covers_a_noisy_ratio_and_is_repeatable() -> None:
    rng = random.Random(7)
    b = [1 + rng.random() for _ in range(40)]
    a = [1.5 * v * (1 + rng.gauss(0, 0.05)) for v in b]
    low, high = bootstrap_ratio_ci(a, b, seed=3)
    assert low < median_ratio(a, b) < high
    assert 1.4 < low < 1.5 < high < 1.6
    assert bootstrap_ratio_ci(a, b, seed=3) == (low, high)


# -------------------------------------------------------------------------------------------------------- paired answers


def brute_force_statistic(b: int, c: int, n: int, delta: float) -> float:
    """Tango's statistic with the constrained likelihood maximized on a grid instead of in closed form."""
    p21 = np.linspace(max(0.0, -delta), (1 - delta) / 2, 400_001)[1:-1]
    likelihood = b * np.log(p21 + delta) + c * np.log(p21) + (n - b - c) * np.log1p(-2 * p21 - delta)
    best = p21[np.argmax(likelihood)]
    return float((b - c - n * delta) / math.sqrt(n * (2 * best + delta - delta**2)))


@pytest.mark.parametrize(("b", "c", "n"), [(14, 12, 50), (9, 2, 56), (1, 3, 40), (30, 1, 100)])
def test_interval_ends_where_the_score_test_rejects(b: int, c: int, n: int) -> None:
    low, high = paired_difference_interval(b, c, n)
    assert brute_force_statistic(b, c, n, high) == pytest.approx(-1.96, abs=0.01)
    assert brute_force_statistic(b, c, n, low) == pytest.approx(1.96, abs=0.01)


@pytest.mark.parametrize("n", [1, 10, 189, 5000])
def test_interval_of_no_difference_is_never_a_point(n: int) -> None:
    low, high = paired_difference_interval(0, 0, n)
    assert high == pytest.approx(3.8415 / (n + 3.8415), rel=1e-4)
    assert low == -high


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 400))
def test_interval_holds_the_estimate_and_mirrors(b: int, c: int, same: int) -> None:
    n = b + c + same
    if n == 0:
        return
    low, high = paired_difference_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert paired_difference_interval(c, b, n) == (-high, -low)


def test_interval_covers_the_truth_about_95_percent_of_the_time() -> None:
    rng = np.random.default_rng(5)
    cells = rng.multinomial(200, (0.03, 0.01, 0.96), 600)
    hits = [low <= 0.02 <= high for low, high in (paired_difference_interval(b, c, 200) for b, c, _ in cells)]
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 10), (6, 5, 10), (0, 0, 0)])
def test_interval_refuses_impossible_counts(b: int, c: int, n: int) -> None:
    with pytest.raises(ValueError):
        paired_difference_interval(b, c, n)


# ----------------------------------------------------------------------------------------------------------- feasibility


def accuracy(worse: int, better: int, n: int, **changes: object) -> Accuracy:
    low, high = paired_difference_interval(worse, better, n)
    drop = (worse - better) / n
    plain = Accuracy(
        metric="top-1",
        kind="task",
        split="selection",
        value=0.9 - drop,
        reference_value=0.9,
        drop=drop,
        n=n,
        ci_low=low,
        ci_high=high,
        worst_cosine=0.99,
        max_abs_diff=0.1,
        sqnr_db=30.0,
        nonfinite=0,
        collapsed=False,
        worse=worse,
        better=better,
    )
    return replace(plain, **changes)


def test_a_small_drop_on_many_samples_is_feasible() -> None:
    assert feasible(accuracy(3, 1, 2000), 0.01).ok


def test_no_flip_on_few_samples_proves_nothing_and_says_how_many_would() -> None:
    verdict = feasible(accuracy(0, 0, 50), 0.01)
    assert not verdict.ok
    assert "n=50" in verdict.reason
    assert "about 189 samples would settle it" in verdict.reason
    assert feasible(accuracy(0, 0, 189), 0.01).ok
    assert not feasible(accuracy(0, 0, 188), 0.01).ok


def test_a_drop_over_the_bar_is_rejected_and_settled_by_more_samples_only_when_unsure() -> None:
    unsure = accuracy(2, 0, 100)
    verdict = feasible(unsure, 0.01)
    assert not verdict.ok
    assert "would settle it" in verdict.reason
    sure = feasible(accuracy(200, 0, 2000), 0.01)
    assert not sure.ok
    assert "settle" not in sure.reason


def test_collapsed_and_nonfinite_are_never_feasible() -> None:
    assert not feasible(accuracy(0, 0, 5000, collapsed=True, collapse_reason="it is constant"), 1.0).ok
    assert not feasible(accuracy(0, 0, 5000, nonfinite=3), 1.0).ok


def test_rounding_alone_needs_no_interval_but_one_broken_sample_does() -> None:
    same = accuracy(0, 0, 5, sqnr_db=120.0, worst_cosine=1.0)
    assert is_equivalent(same)
    assert feasible(same, 0.01).ok
    assert is_equivalent(replace(same, sqnr_db=None))
    for broken in ({"worst_cosine": 0.5}, {"sqnr_db": 60.0}, {"nonfinite": 1}):
        changed = replace(same, **broken)
        assert not is_equivalent(changed)
        assert not feasible(changed, 0.01).ok


@given(st.integers(0, 8), st.integers(0, 8), st.integers(20, 400))
@settings(max_examples=40)
def test_the_samples_that_would_settle_it_do(worse: int, better: int, n: int) -> None:
    a = accuracy(worse, better, n)
    needed = samples_to_settle(a, 0.01)
    if needed is None or needed == n:
        return
    assert needed > n
    low, high = paired_difference_interval(worse * needed / n, better * needed / n, needed)
    assert low > 0.01 if a.drop > 0.01 else high <= 0.02


def test_scores_that_are_not_counted_shrink_with_the_square_root() -> None:
    a = replace(accuracy(0, 0, 100), ci_low=-0.04, ci_high=0.04, worse=None, better=None)
    assert samples_to_settle(a, 0.01) == 400
    on_the_bar = replace(a, drop=0.02 + 1e-9, ci_low=-0.02, ci_high=0.06)
    assert samples_to_settle(on_the_bar, 0.02) is None
    assert "settle" not in feasible(on_the_bar, 0.02).reason
