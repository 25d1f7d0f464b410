"""The interval of a drop: it holds the drop, narrows with samples, covers the truth, and is never a point for want of samples."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.accuracy import Accuracy, MetricOptions, feasible, samples_to_settle
from edgekit.core.clusters import clustered_interval, effective_answers, fewest_samples, t_975
from edgekit.core.stats import paired_difference_interval
from edgekit.data import interval
from edgekit.data.interval import Interval, PairedAnswers, drop_interval, units
from edgekit.data.metrics import METRICS, Metric, apply_metric
from edgekit.data.tally import Tally
from tests.conftest import thorough
from tests.records import accuracy

PLAIN = MetricOptions()
Array = np.ndarray


def of_scores(own: Array, base: Array, starts: Array | None = None, metric: Metric = METRICS["cosine"]) -> Interval:
    """Of scores [n] or [n, positions], counted as answers where the metric does."""
    own, base = (side.reshape(len(side), -1) for side in (own, base))
    tallies, pairs = (Tally(metric), Tally(metric)), PairedAnswers()
    for tally, side in zip(tallies, (own, base), strict=True):
        tally.add(side)
    pairs.add(own, base)
    counted = pairs if metric.counts_answers and pairs.binary else None
    return drop_interval(metric, tallies[0].gathered(), tallies[1].gathered(), counted, starts)


def of_outputs(name: str, own: Array, base: Array, labels: Array | None, starts: Array | None = None) -> Interval:
    metric, sides = METRICS[name], []
    for side in (own, base):
        tally = Tally(metric)
        tally.add(apply_metric(metric, {"y": side}, {"y": base}, labels, PLAIN))
        sides.append(tally.gathered())
    return drop_interval(metric, sides[0], sides[1], None, starts)


def answered(worse: int, samples: int, positions: int, starts: Array | None = None) -> Interval:
    own = np.ones((samples, positions))
    own.flat[:worse] = 0
    return of_scores(own, np.ones((samples, positions)), starts, METRICS["binary-accuracy"])


def sequences(count: int, length: int) -> Array:
    return np.tile(np.eye(1, length, dtype=np.uint8)[0], count)


# -------------------------------------------------------------------------------------------------------- continuous scores


def test_sequences_are_resampled_whole() -> None:
    drops = np.repeat([0.0, 0.1] * 5, 20)  # ten sequences of 20 samples that stand or fall together
    alone, whole = of_scores(1 - drops, np.ones(200)), of_scores(1 - drops, np.ones(200), sequences(10, 20))
    assert whole.high - whole.low > 3 * (alone.high - alone.low)
    assert of_scores(1 - drops, np.ones(200), sequences(1, 200)) == Interval(-1.0, 1.0)


def test_sequences_of_different_length_weigh_by_their_samples() -> None:
    starts = np.zeros(100, np.uint8)
    starts[[0, 90]] = 1
    found = of_scores(np.array([0.0] * 90 + [1.0] * 10), np.ones(100), starts)
    assert (found.low, found.high) == (0.0, 1.0)
    assert units(4, np.array([0, 0, 1, 0])).tolist() == [0, 0, 1, 1]


def test_the_bootstrap_covers_the_truth() -> None:
    rng = np.random.default_rng(11)
    drawn = [of_scores(-rng.beta(1, 9, 60), np.zeros(60)) for _ in range(60)]
    assert 0.85 <= np.mean([found.low <= 0.1 <= found.high for found in drawn]) <= 1


@given(hnp.arrays(np.float64, st.integers(2, 40), elements=st.floats(-1, 1)))
@settings(max_examples=20, deadline=None)
def test_the_bootstrap_stays_within_the_data_holds_the_drop_and_is_repeatable(drops: Array) -> None:
    found = of_scores(-drops, np.zeros(len(drops)))
    assert drops.min() - 1e-9 <= found.low <= drops.mean() + 1e-9
    assert drops.mean() - 1e-9 <= found.high <= drops.max() + 1e-9
    assert of_scores(-drops, np.zeros(len(drops))) == found


def test_resamples_grow_few_where_a_value_is_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    true_percentile = np.percentile
    monkeypatch.setattr(np, "percentile", lambda x, q: asked.append(len(x)) or true_percentile(x, q))
    of_scores(np.arange(50.0), np.zeros(50))
    monkeypatch.setattr(interval, "WORK", 0)
    of_scores(np.arange(50.0), np.zeros(50))
    assert asked == [interval.RESAMPLES, interval.LEAST_RESAMPLES]


def test_a_metric_in_the_outputs_own_unit_is_not_bounded_by_one() -> None:
    one = of_scores(np.full(5, 30.0), np.zeros(5), sequences(1, 5), METRICS["max-abs"])
    assert one.low < -1e6
    assert one.high > 1e6
    many = of_scores(np.arange(40.0), np.zeros(40), None, METRICS["max-abs"])
    assert 0 < many.low < 19.5 < many.high < 39  # lower is better: a larger value is a drop


# ------------------------------------------------------------------------------------------------------- counted answers


def test_one_answer_a_sample_is_tangos_interval() -> None:
    found = answered(5, 300, 1)
    assert (found.low, found.high) == paired_difference_interval(5, 0, 300)
    assert found.effective == 300


def test_many_answers_of_few_samples_are_not_many_samples() -> None:
    """As if independent, three samples of 1,000 answers would be 0.0013; nothing differed, and nothing is known of a fourth."""
    assert answered(0, 3, 1000).high > 0.1
    assert answered(0, 30, 1000).high > 0.01
    assert answered(0, 400, 62).high < 0.002
    assert (answered(0, 1, 50).low, answered(0, 1, 50).high) == (-1, 1)


def test_one_flip_widens_without_a_cliff() -> None:
    none, one = answered(0, 40, 50), answered(1, 40, 50)
    assert one.low <= 1 / 2000 < one.high
    assert 1 <= one.high / none.high < 1.5


def test_answers_that_fall_together_count_as_fewer() -> None:
    own, base = np.ones((100, 20)), np.ones((100, 20))
    own[:10] = 0  # 200 answers of ten samples
    together = of_scores(own, base, None, METRICS["binary-accuracy"])
    spread = of_scores(np.ones((100, 20)) - (np.arange(2000).reshape(100, 20) % 10 == 0), base, None, METRICS["top-1"])
    assert together.high - together.low > 2 * (spread.high - spread.low)
    assert together.effective == pytest.approx(100, rel=0.1)  # all of a sample or nothing: an answer each


def test_frames_that_are_not_asked_are_no_answers() -> None:
    own = np.array([[1, np.nan, np.nan], [0, 1, np.nan]] * 20)
    found = of_scores(own, np.where(np.isnan(own), np.nan, 1.0), None, METRICS["frame-accuracy"])
    assert found.low < 1 / 3 < found.high
    assert found.effective is not None and found.effective < 60


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=12))
def test_a_clustered_interval_holds_the_drop_and_turns_over(counts: list[tuple[int, int, int]]) -> None:
    worse, better, sizes = ([w for w, _, _ in counts], [b for _, b, _ in counts], [w + b + e for w, b, e in counts])
    found, mirrored = clustered_interval(worse, better, sizes), clustered_interval(better, worse, sizes)
    if found is None or mirrored is None:
        assert sum(m > 0 for m in sizes) < 2
        return
    drop = (sum(worse) - sum(better)) / sum(sizes)
    assert -1 <= found.low <= drop + 1e-9
    assert drop - 1e-9 <= found.high <= 1
    assert found.effective <= sum(sizes) + 1e-9
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_students_quantile() -> None:
    table = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}
    for freedom, expected in table.items():
        assert t_975(freedom) == pytest.approx(expected, rel=2e-3)
    with pytest.raises(ValueError):
        t_975(0)


def test_the_fewest_samples_are_what_an_interval_around_nothing_needs() -> None:
    assert fewest_samples(0.01) == 189
    for n, held in ((188, False), (189, True)):
        found = answered(0, n, 1)
        assert (found.high <= 0.02) is held
    many = fewest_samples(0.01, answers=50)
    assert many is not None
    assert answered(0, many, 50).high <= 0.02 < answered(0, many - 1, 50).high
    assert fewest_samples(0.0) is None


# ------------------------------------------------------------------------------------------------- sums and whole sets

RNG = np.random.default_rng(3)
CASES: dict[str, tuple[Callable[[int], Array], Callable[[int], Array | None]]] = {
    "f1": (lambda n: RNG.random((n, 6)).astype(np.float32), lambda n: RNG.integers(0, 2, (n, 6))),
    "iou": (lambda n: RNG.random((n, 6)).astype(np.float32), lambda _: None),
    "cer": (lambda n: RNG.integers(0, 4, (n, 8)), lambda n: RNG.integers(0, 4, (n, 8))),
    "auc": (lambda n: RNG.random((n, 6)).astype(np.float32), lambda n: RNG.integers(0, 2, (n, 6))),
    "map-50": (
        lambda n: np.array([[[0, 0, 10, 10, s, 0]] for s in RNG.random(n) + 0.1], np.float32),
        lambda n: np.array([[[x, 0, x + 10, 10, 0]] for x in RNG.integers(0, 6, n)]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_outputs_have_no_drop_and_an_interval_that_few_samples_widen(name: str) -> None:
    outputs, labels = CASES[name]
    widths = []
    for n in (20, 200):
        y = outputs(n)
        found = of_outputs(name, y.copy(), y, labels(n))
        assert found.low == pytest.approx(-found.high)
        widths.append(found.high)
    assert 0 < widths[1] < widths[0] / 5


@pytest.mark.parametrize("name", CASES)
def test_an_interval_holds_the_drop_and_narrows_with_samples(name: str) -> None:
    outputs, labels = CASES[name]
    base, wanted = outputs(40), labels(40)
    own = base.copy()
    own[:8] = outputs(8)
    widths = []
    for times in (1, 4, 16):
        many = [None if a is None else np.concatenate([a] * times) for a in (own, base, wanted)]
        found = of_outputs(name, *many)
        widths.append(found.high - found.low)
        assert found.low <= found.high
    assert widths[0] > 1.5 * widths[1] > 2 * widths[2]


def test_a_class_that_most_resamples_lack_leaves_everything_open() -> None:
    y, labels = np.array([[0.9], [0.1], [0.2]], np.float32), np.array([[1], [0], [0]])
    found = of_outputs("auc", y, y.copy(), labels)
    assert found.low <= -0.5
    assert found.high >= 0.5


def test_sequences_carry_their_errors_together() -> None:
    base = np.tile(np.arange(1, 9), (60, 1))
    own = base.copy()
    own[:15, :4] = 0
    alone, whole = (of_outputs("cer", own, base, base, s) for s in (None, sequences(12, 5)))
    assert whole.high - whole.low > 1.3 * (alone.high - alone.low)


# --------------------------------------------------------------------------------------------------- coverage, thoroughly


def coverage(draw: Callable[[np.random.Generator], tuple[Interval, float]], rounds: int) -> float:
    rng = np.random.default_rng(20261122)
    hits = [found.low <= truth <= found.high for found, truth in (draw(rng) for _ in range(rounds))]
    return float(np.mean(hits))


@thorough
@pytest.mark.parametrize(
    ("clusters", "size", "rate", "correlation"),
    [(20, 30, 0.02, 0.1), (20, 30, 0.1, 0.3), (60, 60, 0.01, 0.1), (60, 10, 0.05, 0.3), (200, 40, 0.005, 0.05)],
)
def test_the_clustered_interval_covers_the_truth(clusters: int, size: int, rate: float, correlation: float) -> None:
    """Flips of beta-binomial clusters: each has a rate of its own, as correlated as said."""
    spread = 1 / correlation - 1

    def draw(rng: np.random.Generator) -> tuple[Interval, float]:
        worse = rng.binomial(size, rng.beta(rate * spread, (1 - rate) * spread, clusters))
        found = clustered_interval(worse.tolist(), [0] * clusters, [size] * clusters)
        assert found is not None
        return Interval(found.low, found.high), rate

    assert coverage(draw, 2000) >= 0.93

    def as_if_independent(rng: np.random.Generator) -> tuple[Interval, float]:
        worse = rng.binomial(size, rng.beta(rate * spread, (1 - rate) * spread, clusters))
        return Interval(*paired_difference_interval(int(worse.sum()), 0, clusters * size)), rate

    assert coverage(as_if_independent, 500) < 0.9  # the control


@thorough
@pytest.mark.parametrize("name", ["f1", "cer"])
def test_the_bootstrap_of_sums_covers_the_truth(name: str) -> None:
    """Own answers are the reference's but for flips at a known rate, against labels that are the reference's own."""
    metric, rate, n, length = METRICS[name], 0.05, 150, 12

    def one(rng: np.random.Generator, samples: int) -> tuple[Array, Array]:
        base = rng.integers(0, 2, (samples, length))
        return np.where(rng.random(base.shape) < rate, 1 - base, base), base

    def drop_of(own: Array, base: Array) -> Interval:
        kind = np.float32 if name == "f1" else np.int64
        return of_outputs(metric.name, own.astype(kind), base.astype(kind), base)

    rng = np.random.default_rng(0)
    own, base = one(rng, 20_000)
    truth = 1 - 2 * (own & base).sum() / (own.sum() + base.sum()) if name == "f1" else None
    if truth is None:
        found = drop_of(own[:20_000], base[:20_000])
        truth = (found.low + found.high) / 2
    assert coverage(lambda r: (drop_of(*one(r, n)), float(truth)), 60) >= 0.88


# --------------------------------------------------------------------------------------------------------- feasibility


def test_samples_to_settle_of_clustered_answers_keeps_their_worth() -> None:
    interval_ = answered(0, 30, 100)
    a = accuracy(
        0.0, n=30, ci_low=interval_.low, ci_high=interval_.high, worse=0, better=0, answers=3000,
        effective_answers=interval_.effective, worst_cosine=0.9,
    )  # fmt: skip
    assert not feasible(a, 0.005).ok
    needed = samples_to_settle(a, 0.005)
    assert needed is not None
    assert answered(0, needed, 100).high <= 0.01
    assert answered(0, needed // 2, 100).high > 0.01


def test_a_drop_is_worse_whichever_way_the_metric_points() -> None:
    def found(**changes: object) -> Accuracy:
        return accuracy(0.03, metric="cer", direction="lower", value=0.05, reference_value=0.02, **changes)

    assert not feasible(found(), 0.01).ok
    assert "drop 0.0300 is over 0.01" in feasible(found(), 0.01).reason
    better = accuracy(-0.03, metric="cer", direction="lower", value=0.02, reference_value=0.05, worst_cosine=0.9)
    assert feasible(better, 0.01).ok


def test_what_clusters_are_worth() -> None:
    assert effective_answers([1.0] * 1000) == pytest.approx(1000, rel=0.01)
    assert effective_answers([1000.0] * 1000) == pytest.approx(10_000, rel=0.02)
    assert effective_answers([10.0] * 100, observed_effect=10.0) == pytest.approx(100, rel=0.03)
    assert math.isclose(effective_answers([5.0, 5.0]), 10 / 1.4 * (1.959964 / 12.7062) ** 2, rel_tol=1e-4)
