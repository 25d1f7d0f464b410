"""Each metric of the table against a value found by hand, or by a definition written another way."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics import METRICS, apply_metric, metric_options
from edgekit.data.metrics.detection import overlap
from edgekit.data.metrics.sequences import edit_distance
from edgekit.data.tally import Tally
from edgekit.errors import InputRejected

PLAIN = MetricOptions()
Array = np.ndarray[Any, np.dtype[Any]]


def value(
    name: str,
    y: Array,
    labels: Array | None = None,
    options: MetricOptions = PLAIN,
    reference: Array | None = None,
    weights: Array | None = None,
    blocks: int = 1,
) -> float:
    """The metric's value of one output, gathered over `blocks`."""
    metric = METRICS[name]
    tally = Tally(metric)
    for rows in np.array_split(np.arange(len(y)), blocks):
        base = {"y": (y if reference is None else reference)[rows]}
        tally.add(apply_metric(metric, {"y": y[rows]}, base, None if labels is None else labels[rows], options))
    return tally.gathered().value(np.ones(len(y)) if weights is None else weights)


def one_hot(classes: object, count: int) -> Array:
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


# ------------------------------------------------------------------------------------------------------------------- F1


def test_f1_of_thresholded_values() -> None:
    y = np.array([[0.9, 0.5, 0.1, 0.49], [0.7, 0.2, 0.0, 0.8]], np.float32)
    labels = np.array([[1, 0, 1, 0], [1, 1, 0, -1]])
    # yes: 1 1 0 0 / 1 0 0 and one not asked: TP 2, FP 1, FN 2
    assert value("f1", y, labels) == pytest.approx(4 / 7)
    assert value("f1", y, labels, MetricOptions(threshold=0.6)) == pytest.approx(4 / 6)
    assert value("f1", np.zeros((2, 4), np.float32), np.zeros((2, 4))) == 1


def test_macro_f1_is_the_mean_of_the_classes_that_occur() -> None:
    answers, labels = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 2, 0])
    by_hand = [2 * 1 / (2 + 1 + 1), 2 * 1 / (2 + 0 + 1), 2 * 2 / (4 + 1 + 0)]
    assert value("f1", one_hot(answers, 5), labels) == pytest.approx(np.mean(by_hand))
    assert value("f1", one_hot(answers, 5), labels, MetricOptions(classes=(2,))) == pytest.approx(by_hand[2])
    assert value("f1", one_hot(answers, 5), labels, MetricOptions(ignore=0)) == pytest.approx(np.mean([0, 2 / 3, 1]))
    with pytest.raises(InputRejected, match=r"outside 0\.\.4"):
        value("f1", one_hot(answers, 5), labels + 4)


@given(
    hnp.arrays(np.int64, (12, 3), elements=st.integers(0, 3)),
    hnp.arrays(np.int64, (12, 3), elements=st.integers(-1, 3)),
)
def test_macro_f1_by_counting(answers: Array, labels: Array) -> None:
    pairs = [(a, w) for a, w in zip(answers.ravel().tolist(), labels.ravel().tolist(), strict=True) if w >= 0]
    scores = []
    for k in range(4):
        hit = sum(a == k == w for a, w in pairs)
        precision, recall = hit / max(sum(a == k for a, _ in pairs), 1), hit / max(sum(w == k for _, w in pairs), 1)
        if any(k in pair for pair in pairs):
            scores.append(2 * precision * recall / (precision + recall) if hit else 0.0)
    expected = float(np.mean(scores)) if scores else 1.0
    assert value("f1", one_hot(answers, 4), labels, blocks=3) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------------------ AUC


@given(
    hnp.arrays(np.float32, (8, 2), elements=st.integers(-3, 3)),
    hnp.arrays(np.int64, (8, 2), elements=st.integers(-1, 1)),
    hnp.arrays(np.int64, 8, elements=st.integers(0, 3)),
)
def test_auc_is_the_share_of_pairs_in_order(y: Array, labels: Array, times: Array) -> None:
    scores, marks = np.repeat(y, times, axis=0).ravel(), np.repeat(labels, times, axis=0).ravel()
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(scores[marks == 1], scores[marks == 0])]
    expected = float(np.mean(pairs)) if pairs else math.nan
    assert value("auc", y, labels, weights=times.astype(float), blocks=3) == pytest.approx(expected, nan_ok=True)


def test_auc_of_two_class_scores_and_of_what_is_no_number() -> None:
    two = np.array([[0, 3], [5, 4], [1, 1]], np.float32)  # differences 3, -1, 0
    assert value("auc", two, np.array([1, 0, 1])) == 1
    assert value("auc", two, np.array([0, 1, 0])) == 0
    nan = np.array([[0.1], [np.nan], [0.9]], np.float32)
    assert value("auc", nan, np.array([0, 0, 1])) == 0.5
    assert value("auc", nan, np.array([0, 1, 1])) == 0.5
    with pytest.raises(InputRejected, match="must be 0 or 1"):
        value("auc", nan, np.array([0, 2, 1]))


# ------------------------------------------------------------------------------------------------------------ sequences


def slow_distance(a: list[int], b: list[int]) -> int:
    if not a or not b:
        return len(a) + len(b)
    swap = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(swap, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


@given(st.lists(st.integers(0, 2), max_size=5), st.lists(st.integers(0, 2), max_size=5))
def test_edit_distance_by_its_definition(a: list[int], b: list[int]) -> None:
    assert edit_distance(a, b) == slow_distance(a, b)


def test_cer_counts_errors_over_what_is_written_in_the_whole_set() -> None:
    read = one_hot([[1, 1, 0, 1, 2, 0], [3, 3, 3, 0, 0, 0]], 4)  # 1 1 2 and 3
    labels = np.array([[1, 2, 2, -1], [3, 1, 1, 1]])
    assert value("cer", read, labels) == pytest.approx((1 + 3) / (3 + 4))
    assert value("cer", read, labels, MetricOptions(blank=3)) == pytest.approx((3 + 4) / 7)  # 1 0 1 2 0 and 0
    tokens = np.array([[1, 2, 2, -1], [3, 1, -1, -1]])
    assert value("cer", tokens, labels) == pytest.approx(2 / 7)


def test_wer_counts_words_between_spaces() -> None:
    labels = np.array([[1, 2, 9, 3, 9, 9, 1, -1], [4, 9, 5, -1, -1, -1, -1, -1]])  # "12 3 1" and "4 5"
    read = np.array([[1, 2, 9, 3, 3, 9, 1, -1], [9, 4, 5, 9, -1, -1, -1, -1]])  # "12 33 1" and "45"
    assert value("wer", read, labels, MetricOptions(space=9)) == pytest.approx((1 + 2) / 5)
    with pytest.raises(InputRejected, match="needs the symbol between two words"):
        value("wer", read, labels)


def test_ctc_exact_match_heeds_the_blank() -> None:
    path = one_hot([[5, 3, 3, 5, 3]], 6)
    assert value("ctc-exact-match", path, np.array([[3, 3, -1]]), MetricOptions(blank=5)) == 1
    assert value("ctc-exact-match", path, np.array([[3, 3, -1]])) == 0


def test_exact_match_asks_every_labelled_position() -> None:
    answers, labels = np.array([[1, 2, 3], [1, 2, 0], [1, 0, 3]]), np.array([[1, 2, 3], [1, 2, -1], [1, 2, 3]])
    assert value("exact-match", answers, labels) == pytest.approx(2 / 3)
    assert value("exact-match", one_hot(answers, 4), labels) == pytest.approx(2 / 3)
    assert value("exact-match", np.full((1, 3, 4), np.nan, np.float32), labels[:1]) == 0


# --------------------------------------------------------------------------------------------------------------- frames


def test_frame_accuracy_counts_labelled_frames_alike() -> None:
    labels = np.array([[0, 1, -1, -1], [1, 1, 1, 0]])
    assert value("frame-accuracy", one_hot([[0, 0, 0, 0], [1, 1, 1, 1]], 2), labels) == pytest.approx(4 / 6)
    likely = np.array([[0.5, 0.5, 0.1, 0.2], [0.9, 0.4, 0.5, np.nan]], np.float32)
    assert value("frame-accuracy", likely, labels) == pytest.approx(3 / 6)
    assert value("frame-accuracy", likely, labels, MetricOptions(threshold=0.95)) == pytest.approx(1 / 6)


def test_pitch_counts_voiced_frames_alike() -> None:
    wanted = np.array([[440.0, 440, 0, np.nan], [220, 220, 220, 220], [0, 0, 0, 0]])
    pitch = np.array([[440, 440, 5, 5], [220, 230, 220, 0], [1, 1, 1, 1]], np.float32)
    assert value("pitch-50-cents", pitch, wanted) == pytest.approx(4 / 6)
    assert math.isnan(value("pitch-50-cents", pitch[2:], wanted[2:]))


# ---------------------------------------------------------------------------------------------------------------- masks


def test_iou_of_thresholded_masks() -> None:
    y = np.array([[[0.9, 0.6, 0.1, 0.5]], [[0.0, 0.7, 0.2, 0.3]]], np.float32)
    labels = np.array([[1, 0, 1, 1], [0, 1, 0, 255]])
    assert value("iou", y, labels, MetricOptions(ignore=255)) == pytest.approx((2 + 1) / (4 + 1))
    assert value("iou", np.zeros((1, 4), np.float32), np.zeros((1, 4))) == 1
    with pytest.raises(InputRejected, match="must be 0 or 1"):
        value("iou", y, labels)
    with pytest.raises(InputRejected, match="fits no output"):
        value("iou", y, labels[:, :3])


@given(
    hnp.arrays(np.int64, (4, 2, 3), elements=st.integers(0, 3)),
    hnp.arrays(np.int64, (4, 2, 3), elements=st.integers(-1, 3)),
)
def test_mean_iou_by_sets_of_pixels(answers: Array, labels: Array) -> None:
    scores = []
    for k in range(4):
        own = {p for p in np.ndindex(answers.shape) if answers[p] == k and labels[p] != -1}
        wanted = {p for p in np.ndindex(answers.shape) if labels[p] == k}
        if own | wanted:
            scores.append(len(own & wanted) / len(own | wanted))
    expected = float(np.mean(scores)) if scores else 1.0
    last, first = one_hot(answers, 4), np.moveaxis(one_hot(answers, 4), -1, 1)
    for y in (answers, last, first[:, None]):  # class numbers, classes last, a batch axis and classes first
        assert value("iou", y, labels, blocks=2) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------------------ detection


def box(x: float, k: float, score: float | None = None) -> list[float]:
    """A box of 10 by 10 at x, labelled, or found with a score."""
    return [x, 0, x + 10, 10, k] if score is None else [x, 0, x + 10, 10, score, k]


def test_map_50_of_a_hand_made_set() -> None:
    labels = np.array([[box(0, 0), box(100, 0)], [box(0, 0), [math.nan] * 5]])
    found = np.array(
        [
            [box(1, 0, 0.9), box(2, 0, 0.8), box(50, 0, 0.7)],  # right; the same box again; nowhere
            [box(3, 0, 0.6), [0] * 6, [-1] * 6],  # right
        ],
        np.float32,
    )
    # precision 1/1, 1/2, 1/3, 2/4 at recall 1/3, 1/3, 1/3, 2/3; the best at recall 2/3 or above is 1/2
    assert value("map-50", found, labels) == pytest.approx(1 / 3 * 1 + 1 / 3 * 0.5)
    assert value("map-50", found[:, None], labels, blocks=2) == pytest.approx(0.5)
    other = labels.copy()
    other[0, 1, 4] = 1  # a class nobody found
    assert value("map-50", found, other) == pytest.approx((1 / 2 + 1 / 2 * 1 / 2 + 0) / 2)
    assert value("map-50", found, other, MetricOptions(classes=(1,))) == 0
    assert math.isnan(value("map-50", found, np.full((2, 1, 5), -1.0)))


def slow_map(found: Array, labels: Array) -> float:
    """VOC's own words: sort all detections, match greedily, envelope, sum where recall steps. No two scores are equal."""
    precisions = []
    for k in sorted({b[4] for s in labels for b in s if b[4] >= 0}):
        total = sum(b[4] == k for s in labels for b in s)
        ranked = sorted(((d[4], i, tuple(d[:4])) for i, s in enumerate(found) for d in s if d[5] == k), reverse=True)
        used, right = set(), []
        for _, i, d in ranked:
            ious = [(slow_iou(d, b), -j) for j, b in enumerate(labels[i]) if b[4] == k]
            best = max(ious, default=(0.0, 0))
            right.append(best[0] >= 0.5 and (i, best[1]) not in used)
            if right[-1]:
                used.add((i, best[1]))
        curve = [(sum(right[: t + 1]) / total, sum(right[: t + 1]) / (t + 1)) for t in range(len(right))]
        steps = [(r, max(p for q, p in curve if q >= r)) for r, _ in curve]
        area, last = 0.0, 0.0
        for r, p in steps:
            area += (r - last) * p
            last = r
        precisions.append(area)
    return float(np.mean(precisions)) if precisions else math.nan


def slow_iou(a: tuple[float, ...], b: Array) -> float:
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


@given(st.integers(0, 10_000))
@settings(max_examples=60)
def test_map_50_by_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.array([[box(20 * j, int(rng.integers(-1, 3))) for j in range(3)] for _ in range(5)])
    scores = rng.permutation(20).reshape(5, 4) + 1
    found = np.array(
        [[box(20 * rng.integers(0, 3) + rng.integers(0, 6), rng.integers(0, 3), s) for s in row] for row in scores],
        dtype=float,
    )
    expected = slow_map(found, labels)
    assert value("map-50", found, labels, blocks=2) == pytest.approx(expected, nan_ok=True)
    order = rng.permutation(5)
    assert value("map-50", found[order], labels[order]) == pytest.approx(expected, nan_ok=True)


def test_equal_scores_are_one_point_of_the_curve() -> None:
    labels = np.array([[box(0, 0)], [box(0, 0)]])
    found = np.array([[box(0, 0, 0.5)], [box(50, 0, 0.5)]])
    assert value("map-50", found, labels) == value("map-50", found[::-1], labels) == pytest.approx(0.25)


def test_overlap_of_boxes() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 0, 0], [5, 5, 4, 4]], float)
    assert overlap(a, a).diagonal().tolist() == [1, 0, 0]
    assert overlap(a[:1], np.array([[1, 1, 3, 3.0]])).item() == pytest.approx(1 / 7)


# ------------------------------------------------------------------------------------------------------------- likeness


def test_max_abs_is_each_samples_largest_difference() -> None:
    reference = np.array([[1.0, 2, 3], [0, 0, 0], [1, np.inf, 0]])
    y = reference + np.array([[0.5, 0, -2], [0, 0, 0.25], [0, 0, 0]])
    assert value("max-abs", y, reference=reference) == pytest.approx((2 + 0.25 + 0) / 3)


# ------------------------------------------------------------------------------------------------------- what all keep to

MADE: dict[str, tuple[Array, Array | None]] = {}
_RNG = np.random.default_rng(4)
for _name in ("top-1", "top-5"):
    MADE[_name] = (_RNG.normal(size=(24, 7)).astype(np.float32), _RNG.integers(0, 7, 24))
for _name in ("f1", "iou", "auc", "binary-accuracy", "frame-accuracy"):
    MADE[_name] = (_RNG.random((24, 9)).astype(np.float32), _RNG.integers(0, 2, (24, 9)))
for _name in ("cer", "wer", "ctc-exact-match"):
    MADE[_name] = (_RNG.normal(size=(24, 9, 4)).astype(np.float32), _RNG.integers(1, 4, (24, 5)))
MADE["exact-match"] = (_RNG.normal(size=(24, 2, 2)).astype(np.float32), _RNG.integers(0, 2, (24, 2)))
MADE["pitch-50-cents"] = (440 + 20 * _RNG.normal(size=(24, 5)).astype(np.float32), np.full((24, 5), 440.0))
MADE["map-50"] = (
    np.array([[box(0, i % 2, 1 + i % 5), box(30, 0, 2)] for i in range(24)], np.float32),
    np.array([[box(3 * (i % 4), 0), box(31, i % 2)] for i in range(24)]),
)
for _name in ("cosine", "sqnr", "max-abs", "top-1-agreement"):
    MADE[_name] = (_RNG.normal(size=(24, 7)).astype(np.float32), None)
OPTIONS = MetricOptions(space=3)


def test_no_metric_is_left_out() -> None:
    assert set(MADE) == set(METRICS)


@pytest.mark.parametrize("name", MADE)
def test_order_and_blocks_do_not_matter_and_a_weight_is_a_repetition(name: str) -> None:
    y, labels = MADE[name]
    rng = np.random.default_rng(1)
    reference = y if name not in ("cosine", "sqnr", "max-abs", "top-1-agreement") else np.roll(y, 1, axis=1) + y
    whole = value(name, y, labels, OPTIONS, reference)
    assert math.isfinite(whole)
    order, times = rng.permutation(24), rng.integers(0, 3, 24)
    shuffled = value(name, y[order], None if labels is None else labels[order], OPTIONS, reference[order])
    assert shuffled == pytest.approx(whole)
    assert value(name, y, labels, OPTIONS, reference, blocks=5) == pytest.approx(whole)
    again = [np.repeat(a, times, axis=0) for a in (y, reference)]
    repeated = value(name, again[0], None if labels is None else np.repeat(labels, times, axis=0), OPTIONS, again[1])
    assert value(name, y, labels, OPTIONS, reference, weights=times.astype(float)) == pytest.approx(repeated)


# -------------------------------------------------------------------------------------------------------------- options


def test_options_are_read_strictly() -> None:
    assert metric_options({}, "data.toml") == PLAIN
    read = metric_options({"threshold": 0.3, "classes": [1, 2], "space": 7}, "data.toml")
    assert read == MetricOptions(threshold=0.3, classes=(1, 2), space=7)
    for table, says in (
        ({"treshold": 0.3}, "did you mean 'threshold'"),
        ({"threshold": "high"}, "threshold"),
        ({"threshold": math.nan}, "must be finite"),
        ({"blank": 0.5}, "blank"),
    ):
        with pytest.raises(InputRejected, match=says):
            metric_options(table, "data.toml")


def two_outputs(mask: Array) -> dict[str, Array]:
    return {"onsets": np.full((2, 4), 0.9, np.float32), "notes": mask.astype(np.float32)}


def test_a_declared_output_is_the_only_one_that_is_scored() -> None:
    here = two_outputs(np.array([[0.4, 0.1, 0.2, 0.4], [0.4, 0.4, 0.0, 0.1]]))
    there = two_outputs(np.array([[0.4, 0.4, 0.2, 0.1], [0.4, 0.4, 0.0, 0.1]]))
    chosen = MetricOptions(threshold=0.3, output="notes")
    assert apply_metric(METRICS["f1"], here, there, None, PLAIN).sum(axis=0).tolist() == [8, 8, 0, 0]
    assert apply_metric(METRICS["f1"], here, there, None, chosen).sum(axis=0).tolist() == [8, 3, 1, 1]
    first = MetricOptions(output="onsets")
    assert apply_metric(METRICS["cosine"], here, there, None, first).tolist() == [[1], [1]]
    assert apply_metric(METRICS["cosine"], here, there, None, PLAIN).ravel().tolist() == pytest.approx([0.28 / 0.37, 1])


def test_a_declared_output_must_be_there() -> None:
    mask = two_outputs(np.zeros((2, 4)))
    with pytest.raises(InputRejected, match=r"no output 'note'.*did you mean 'notes'"):
        apply_metric(METRICS["f1"], mask, mask, None, MetricOptions(output="note"))
    with pytest.raises(InputRejected, match="output"):
        metric_options({"output": 1}, "data.toml")
