"""The verdict on B against A: how often it is wrong on equals, and how often it sees a tenth."""

import math
import random
from collections.abc import Sequence
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.compare import FEWEST_ROUNDS, MIN_DIFFERENCE, CompareVerdict, Comparison, block_bootstrap, compare
from tests.conftest import thorough

Rounds = list[list[int]]


def raced(
    seed: int,
    slowdown: float = 1.0,
    *,
    rounds: int = 21,
    runs: int = 10,
    drift: float = 0.03,
    phi: float = 0.7,
    tail: float = 0.08,
    process: float = 0.004,
) -> Comparison:
    """A, B and A's twin, interleaved: the machine's speed an AR(1) of size `drift` over turns, `process` a level of each one.

    `tail` is the size of each run's own noise, always upwards, with a spike now and then.
    """
    rng = random.Random(seed)
    level = {side: rng.gauss(0, process) for side in ("a", "b", "twin")}
    turns: dict[str, Rounds] = {side: [] for side in level}
    speed = rng.gauss(0, drift)
    for number in range(rounds):
        order = list(level)
        for side in order[number % 3 :] + order[: number % 3]:
            speed = phi * speed + rng.gauss(0, drift * math.sqrt(1 - phi * phi))
            base = 5e6 * math.exp(level[side] + speed) * (slowdown if side == "b" else 1.0)
            turns[side].append([round(base * math.exp(abs(rng.gauss(0, tail))) * spike(rng)) for _ in range(runs)])
    return compare(turns["a"], turns["b"], spread_of(turns["twin"], turns["a"]))


def spike(rng: random.Random) -> float:
    return rng.uniform(1.5, 5) if rng.random() < 0.02 else 1.0


def spread_of(twin: Rounds, a: Rounds) -> float:
    """The far end of the interval of the twin's ratio, as a race gives it."""
    low, high = block_bootstrap([math.log(median(t) / median(x)) for t, x in zip(twin, a, strict=True)], seed=0)
    return max(math.exp(high), math.exp(-low))


NOISES: list[Any] = [
    {},
    {"phi": 0.95, "drift": 0.06},
    pytest.param({"drift": 0.06}, marks=thorough),
    pytest.param({"process": 0.01}, marks=thorough),
    pytest.param({"tail": 0.2, "runs": 20}, marks=thorough),
    pytest.param({"rounds": 40, "runs": 3}, marks=thorough),
]


@pytest.mark.parametrize("noise", NOISES)
def test_of_50_equal_pairs_at_most_5_are_called_different(noise: dict[str, Any]) -> None:
    wrong = sum(raced(seed, **noise).verdict is not CompareVerdict.NOT_SHOWN for seed in range(50))
    assert wrong <= 5


@pytest.mark.parametrize("noise", NOISES)
def test_of_50_slowdowns_by_a_tenth_45_are_found(noise: dict[str, Any]) -> None:
    assert sum(raced(seed, 1.1, **noise).verdict is CompareVerdict.SLOWER for seed in range(50)) >= 45
    assert sum(raced(seed, 1 / 1.1, **noise).verdict is CompareVerdict.FASTER for seed in range(50)) >= 45


def test_without_the_twin_processes_that_differ_would_be_called_different() -> None:
    """The negative control of the twin: the same pairs, but for it."""

    def wrong(with_twin: bool) -> int:
        found = 0
        for seed in range(50):
            rng = random.Random(seed)
            level = {side: math.exp(rng.gauss(0, 0.03)) for side in ("a", "b", "twin")}
            turns = {s: [[round(5e6 * f * rng.uniform(1, 1.01))] * 5 for _ in range(21)] for s, f in level.items()}
            spread = spread_of(turns["twin"], turns["a"]) if with_twin else 1.0
            found += compare(turns["a"], turns["b"], spread).verdict is not CompareVerdict.NOT_SHOWN
        return found

    assert wrong(with_twin=True) < wrong(with_twin=False) / 1.5


def test_a_noisy_twin_hides_what_a_quiet_one_shows() -> None:
    a, b = [[100] * 5] * 20, [[110] * 5] * 20
    quiet, noisy = compare(a, b, 1.01), compare(a, b, 1.15)
    assert quiet.verdict is CompareVerdict.SLOWER and quiet.ratio == pytest.approx(1.1)
    assert noisy.verdict is CompareVerdict.NOT_SHOWN and noisy.shown == pytest.approx(1.15)
    assert "+10.0%" in quiet.reason and "15.0% or more" in noisy.reason


def test_a_difference_that_two_processes_of_one_artifact_show_is_none() -> None:
    a, b = [[1000] * 5] * 40, [[1019] * 5] * 40
    assert compare(a, b, 1.0).verdict is CompareVerdict.NOT_SHOWN
    assert compare(a, b, 1.0).noise == 1 + MIN_DIFFERENCE
    assert compare(a, [[1021] * 5] * 40, 1.0).verdict is CompareVerdict.SLOWER


def test_few_rounds_show_nothing() -> None:
    a, b = [[100]] * (FEWEST_ROUNDS - 1), [[200]] * (FEWEST_ROUNDS - 1)
    found = compare(a, b, 1.0)
    assert found.verdict is CompareVerdict.NOT_SHOWN and "too few" in found.reason
    assert compare([*a, [100]], [*b, [200]], 1.0).verdict is CompareVerdict.SLOWER


rounds_of = st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=4), min_size=1, max_size=12)


@given(rounds_of, st.floats(1.0, 2.0), st.randoms(use_true_random=False))
def test_swapping_the_sides_swaps_the_verdict(a: Rounds, spread: float, rng: random.Random) -> None:
    b = [[max(1, round(ns * rng.uniform(0.5, 2))) for ns in turn] for turn in a]
    there, back = compare(a, b, spread), compare(b, a, spread)
    opposite = {CompareVerdict.FASTER: CompareVerdict.SLOWER, CompareVerdict.SLOWER: CompareVerdict.FASTER}
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.low <= there.ratio <= there.high and there.rounds == len(a)
    if abs(math.log(there.ratio)) > 1.01 * math.log(max(there.shown, back.shown)) and len(a) >= FEWEST_ROUNDS:
        assert there.verdict is opposite[back.verdict]
    assert compare(a, a, spread).verdict is CompareVerdict.NOT_SHOWN


def test_the_interval_covers_the_truth_when_neighbours_resemble_each_other() -> None:
    """And an interval of independent rounds does so less often."""

    def covered(resample: Any) -> int:
        hits = 0
        for seed in range(100):
            rng, value, values = random.Random(seed), 0.0, []
            for _ in range(48):
                value = 0.5 * value + rng.gauss(0, 0.02)
                values.append(value)
            low, high = resample(values)
            hits += low <= 0 <= high
        return hits

    def one_by_one(values: Sequence[float]) -> tuple[float, float]:
        rng = random.Random(0)
        medians = sorted(median(rng.choices(values, k=len(values))) for _ in range(1000))
        return medians[25], medians[974]

    blocks = covered(lambda values: block_bootstrap(values, 0))
    assert blocks >= 82 and blocks > covered(one_by_one)


@pytest.mark.parametrize(("a", "b"), [([], []), ([[1]], []), ([[1]], [[1], [2]]), ([[]], [[1]]), ([[1]], [[]])])
def test_rounds_that_do_not_pair_up_are_refused(a: Rounds, b: Rounds) -> None:
    with pytest.raises(ValueError):
        compare(a, b, 1.0)


def test_the_verdict_is_repeatable() -> None:
    assert raced(1, 1.05) == raced(1, 1.05)
