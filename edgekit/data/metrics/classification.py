"""Metrics of classes and of yes or no. A class axis is the last of the first float output that has one."""

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics.record import (
    Array,
    Evaluator,
    Outputs,
    Rows,
    class_scores,
    count_by_class,
    counted_class,
    decided,
    first_float,
    highest,
    labels_like,
    not_asked,
    required,
    yes_or_no,
)
from edgekit.errors import InputRejected


def top_1(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is the highest score at the label? Scores are the last axis of the first float output: [n, C] or [n, positions, C].

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge" (2015), section 4.1: one less the flat error.
    """
    return _top_k(outputs, labels, 1)


def top_5(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is the label among the five highest scores? Of equal scores the lower class is ahead, as argmax has it. Source as top-1."""
    return _top_k(outputs, labels, 5)


def _top_k(outputs: Outputs, labels: Array | None, k: int) -> Array:
    scores = class_scores(outputs)
    n, positions, classes = scores.shape
    given = labels_like(labels, (n, positions))
    if given.size and not (np.isfinite(given).all() and given.min() >= 0 and given.max() < classes):
        raise InputRejected(f"labels lie outside 0..{classes - 1}, the classes of the model's output")
    wanted = given.astype(np.int64)
    own = np.take_along_axis(scores, wanted[..., None], axis=-1)
    above = (scores > own).sum(axis=-1)
    ahead = ((scores == own) & (np.arange(classes) < wanted[..., None])).sum(axis=-1)  # argmax takes the first of a tie
    right: Array = (above + ahead < k) & ~np.isnan(scores).any(axis=-1)
    return right


def top_1_agreement(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is the highest score where the reference has it, at each position? A position with a NaN in the outputs disagrees."""
    own, other = class_scores(outputs), class_scores(reference)
    agree: Array = (own.argmax(axis=-1) == other.argmax(axis=-1)) & ~np.isnan(own).any(axis=-1)
    return agree


def exact_match(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is the class right at every position of the sample that has a label? One answer a sample; `ignore` marks the others.

    The classes are the highest of the class scores, else the first integer output; labels [n, positions] are integers. Rajpurkar
    et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016), section 6.1, on tokens instead of words.
    """
    answers = decided(outputs)
    wanted = labels_like(labels, answers.shape)
    right: Array = ((answers == wanted) | not_asked(wanted, options)).all(axis=1)
    return right


def binary_accuracy(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is a value of the first float output on its label's side of `threshold`? At the threshold is above it; labels are 0 or 1.

    (TP + TN) / all, Fawcett, "An introduction to ROC analysis" (2006), figure 1.
    """
    scores = first_float(outputs)
    flat = scores.reshape(len(scores), -1)
    wanted = labels_like(labels, flat.shape)
    right: Array = ((flat >= options.threshold) == yes_or_no(wanted, np.zeros(wanted.shape, bool))) & ~np.isnan(flat)
    return right


def frame_accuracy(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Is the frame's class right? Labels [n, frames]; frames whose label is `ignore` or NaN are not scored.

    With one value a frame in the first float output it is compared with `threshold` and labels are 0 or 1; else a frame's class is
    the highest of its class scores. Segment-based accuracy, Mesaros, Heittola and Virtanen, "Metrics for Polyphonic Sound Event
    Detection" (2016), section 4.
    """
    wanted = required(labels)
    values = first_float(outputs)
    if values.size == wanted.size:
        values = values.reshape(len(values), -1)
        wanted = wanted.reshape(values.shape)
        skipped = not_asked(wanted, options)
        right: Array = ((values >= options.threshold) == yes_or_no(wanted, skipped)) & ~np.isnan(values)
    else:
        frames = highest(class_scores(outputs))
        wanted = labels_like(wanted, frames.shape)
        skipped = not_asked(wanted, options)
        right = frames == wanted
    return np.where(skipped, np.nan, right)


# -------------------------------------------------------------------------------------------------------------------- F1


def f1_counts(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """The harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN); van Rijsbergen, "Information Retrieval" (1979).

    - Labels of 0 and 1, one a value of the first float output: a value at or above `threshold` is a yes; all values count in one
      sum (micro average).
    - Labels of one class a position, fewer than there are values: the mean over classes of each one's F1 with the highest score as
      the answer (macro average; "averaged F1" of Opitz and Burst, "Macro F1 and Macro F1", 2019). Classes that are neither asked
      nor answered are left out, and those not in `classes`.
    - No labels: agreement with what the reference's values are at the same threshold, micro average.
    Where nothing is asked and nothing found F1 is 1. Labels equal to `ignore` or NaN do not count.
    Columns: values, then TP, FP, FN of each class.
    """
    values = first_float(outputs)
    if labels is None or labels.size == values.size:
        return _f1_of_values(values, first_float(reference) if labels is None else None, labels, options)
    answers = highest(class_scores(outputs))
    classes = class_scores(outputs).shape[-1]
    given = labels_like(labels, answers.shape)
    skipped = not_asked(given, options)
    wanted = np.where(skipped, 0, given).astype(np.int64)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= classes):
        raise InputRejected(f"labels lie outside 0..{classes - 1}, the classes of the model's output")
    n, hit = len(answers), (answers == wanted) & ~skipped
    found = np.stack(
        [
            count_by_class(wanted, hit, classes),
            count_by_class(answers, ~hit & ~skipped & (answers >= 0), classes),
            count_by_class(wanted, ~hit & ~skipped, classes),
        ],
        axis=-1,
    )
    found = found * counted_class(classes, options)[:, None]
    return np.concatenate([(~skipped).sum(axis=1)[:, None], found.reshape(n, -1)], axis=1)


def _f1_of_values(values: Array, other: Array | None, labels: Array | None, options: MetricOptions) -> Array:
    yes = (values >= options.threshold).reshape(len(values), -1)
    if other is not None:
        skipped = np.zeros(yes.shape, dtype=bool)
        if other.size != values.size:  # another length: nothing lines up, every yes of either side is wrong
            wrong = (other >= options.threshold).reshape(len(other), -1).sum(axis=1)
            return np.stack([np.full(len(yes), yes.shape[1]), np.zeros(len(yes)), yes.sum(axis=1), wrong], axis=1)
        wanted = (other >= options.threshold).reshape(yes.shape)
    else:
        given = labels_like(labels, yes.shape)
        skipped = not_asked(given, options)
        wanted = yes_or_no(given, skipped)
    yes = yes & ~skipped
    columns = ((~skipped), yes & wanted, yes & ~wanted, ~yes & wanted)
    return np.stack([column.sum(axis=1) for column in columns], axis=1)


def f1_value(sums: Array) -> float:
    """Mean F1 of the classes that occur, from column sums."""
    hit, false, missed = sums[1:].reshape(-1, 3).T
    whole = 2 * hit + false + missed
    occurs = whole > 0
    return float((2 * hit[occurs] / whole[occurs]).mean()) if occurs.any() else 1.0


# ------------------------------------------------------------------------------------------------------------------- AUC


def auc_rows(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Rows:
    """The area under the ROC curve: how likely a yes scores higher than a no, equal scores counting half, over all values.

    Hanley and McNeil, "The Meaning and Use of the Area under a Receiver Operating Characteristic (ROC) Curve" (1982). One label of
    0 or 1 for each value of the first float output, or for each position of two class scores, whose difference is then the score;
    labels equal to `ignore` or NaN do not count. A NaN is on the wrong side of every other score.
    """
    wanted = required(labels)
    scores = first_float(outputs)
    if scores.size == 2 * wanted.size and scores.shape[-1] == 2:
        with np.errstate(invalid="ignore"):
            scores = scores[..., 1].astype(np.float64) - scores[..., 0]
    scores = scores.reshape(len(scores), -1).astype(np.float64)
    wanted = labels_like(wanted, scores.shape)
    skipped = not_asked(wanted, options)
    yes = yes_or_no(wanted, skipped)
    scores = np.where(np.isnan(scores), np.where(yes, -np.inf, np.inf), scores)
    rows = [np.stack([s[~skip], y[~skip]], axis=1) for s, y, skip in zip(scores, yes, skipped, strict=True)]
    return Rows(rows, (~skipped).sum(axis=1))


def auc_value(rows: Array, sample: Array) -> Evaluator:
    """NaN where only one class has weight."""
    order = np.argsort(rows[:, 0], kind="stable")
    scores, yes, sample = rows[order, 0], rows[order, 1] == 1, sample[order]
    first = np.flatnonzero(np.append(True, scores[1:] != scores[:-1])) if len(scores) else np.zeros(0, np.int64)

    def value(weights: Array) -> float:
        weight = weights[sample]
        if not len(weight):
            return float("nan")
        yeses = np.add.reduceat(np.where(yes, weight, 0.0), first)
        noes = np.add.reduceat(np.where(yes, 0.0, weight), first)
        pairs = yeses.sum() * noes.sum()
        below = np.cumsum(noes) - noes
        return float((yeses * (below + noes / 2)).sum() / pairs) if pairs else float("nan")

    return value
