"""Metrics of boxes found.

- Detections are the first float output with six values along its last axis, after non-maximum suppression:
  [n, boxes, 6] of x1 y1 x2 y2 score class. A row whose score is not above 0, whose class is below 0, or that is not finite pads.
- Labels are [n, m, 5] of x1 y1 x2 y2 class. A row with a NaN or a class below 0 pads.
- Corners are continuous coordinates: a box is (x2 - x1) x (y2 - y1), as in COCO, not one pixel more.
"""

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics.record import Array, Evaluator, Outputs, Rows, required
from edgekit.errors import InputRejected

LEAST_IOU = 0.5

# What a row is: a false positive, a true positive, a labelled box.
FALSE, TRUE, LABELLED = 0, 1, 2


def detection_rows(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Rows:
    """mAP@50: the mean over classes of the average precision at an IoU of 0.5.

    Average precision is the area under the precision-recall curve with all-point interpolation: precision at a recall is the best
    at that recall or above (PASCAL VOC from 2010 on; Everingham et al., "The PASCAL Visual Object Classes Challenge: A
    Retrospective", 2015, section 4.2; COCO's 101 points approach it). Matching is
    VOC's too: by falling score a detection takes the labelled box it overlaps most; it is right if the IoU is at least 0.5 and
    the box was not taken before. Detections of equal score are one point of the curve, so that the order of samples does not
    matter. Classes without a labelled box, and those not in `classes`, are left out. Rows: class, score, kind.
    """
    found, wanted = _detections(outputs), _boxes(labels, len(next(iter(outputs.values()))))
    rows = [_matched(d, b, options.classes) for d, b in zip(found, wanted, strict=True)]
    return Rows(rows, np.array([(r[:, 2] == LABELLED).sum() for r in rows]))


def mean_average_precision(rows: Array, sample: Array) -> Evaluator:
    """NaN where no labelled box has weight."""
    curves = []
    for k in np.unique(rows[rows[:, 2] == LABELLED, 0]):
        of_class, labelled = rows[:, 0] == k, rows[:, 2] == LABELLED
        found = np.flatnonzero(of_class & ~labelled)
        found = found[np.argsort(-rows[found, 1], kind="stable")]
        scores = rows[found, 1]
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.zeros(0, np.int64)
        curves.append((sample[of_class & labelled], sample[found], rows[found, 2] == TRUE, last))

    def value(weights: Array) -> float:
        precisions = [
            average_precision(np.where(right, weights[found], 0.0), weights[found], last, float(total))
            for boxes, found, right, last in curves
            if (total := weights[boxes].sum()) > 0
        ]
        return float(np.mean(precisions)) if precisions else float("nan")

    return value


def average_precision(right: Array, weight: Array, last: Array, boxes: float) -> float:
    """All-point interpolated area from detections by falling score; `last` ends each run of equal scores."""
    hits, found = np.cumsum(right)[last], np.cumsum(weight)[last]
    hits, found = hits[found > 0], found[found > 0]
    best = np.maximum.accumulate((hits / found)[::-1])[::-1]
    return float((np.diff(hits, prepend=0.0) / boxes * best).sum())


def overlap(boxes: Array, others: Array) -> Array:
    """IoU [a, b] of boxes [a, 4] and [b, 4]; 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    both = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(b[:, 2:4] - b[:, :2], 0, None).prod(axis=-1) for b in (boxes, others)]
    either = areas[0][:, None] + areas[1][None, :] - both
    ratio: Array = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    return ratio


def _detections(outputs: Outputs) -> list[Array]:
    for value in outputs.values():
        if value.dtype.kind == "f" and value.ndim >= 2 and value.shape[-1] == 6:
            rows = value.reshape(len(value), -1, 6).astype(np.float64)
            return [r[np.isfinite(r).all(axis=1) & (r[:, 4] > 0) & (r[:, 5] >= 0)] for r in rows]
    raise InputRejected(
        "needs an output [boxes, 6] of x1 y1 x2 y2 score class", next_step="export the model with its NMS"
    )


def _boxes(labels: Array | None, n: int) -> list[Array]:
    wanted = required(labels)
    if wanted.shape[-1] != 5:
        raise InputRejected(f"labels have shape {list(wanted.shape)}, not [samples, boxes, 5] of x1 y1 x2 y2 class")
    rows = wanted.reshape(n, -1, 5).astype(np.float64)
    return [r[~np.isnan(r).any(axis=1) & (r[:, 4] >= 0)] for r in rows]


def _matched(found: Array, boxes: Array, classes: tuple[int, ...]) -> Array:
    """[r, 3] of class, score, kind of one sample."""
    if classes:
        found, boxes = found[np.isin(found[:, 5], classes)], boxes[np.isin(boxes[:, 4], classes)]
    labelled = np.stack([boxes[:, 4], np.zeros(len(boxes)), np.full(len(boxes), LABELLED)], axis=1)
    found = found[np.argsort(-found[:, 4], kind="stable")]
    kinds = np.full(len(found), FALSE)
    ious = np.where(found[:, None, 5] == boxes[None, :, 4], overlap(found, boxes), -1.0)
    taken: set[int] = set()
    for i, row in enumerate(ious if boxes.size else ()):
        best = int(row.argmax())
        if row[best] >= LEAST_IOU and best not in taken:
            taken.add(best)
            kinds[i] = TRUE
    return np.concatenate([labelled, np.stack([found[:, 5], found[:, 4], kinds], axis=1)])
