"""Metrics of masks: which values, pixels mostly, belong to what."""

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics.record import Array, Outputs, count_by_class, counted_class, first_float, not_asked, yes_or_no
from edgekit.errors import InputRejected

# More class indices than this are something else.
MAX_CLASSES = 10_000


def iou_counts(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Intersection over union, TP / (TP + FP + FN), summed over the whole set; the mean over classes where there are several.

    Jaccard, "The Distribution of the Flora in the Alpine Zone" (1912); summed over a set and averaged over classes as in Everingham
    et al., "The PASCAL Visual Object Classes Challenge: A Retrospective" (2015), section 4.1.
    - Labels of 0 and 1, one a value of a float output: a value at or above `threshold` is in the mask.
    - Labels of one class a position, and an output with a class axis (first or last of a sample), or of integers: the class with
      the highest score, or the integer. Classes that occur on neither side are left out, and those not in `classes`.
    - No labels: agreement with the mask of the reference's first float output at the same threshold.
    Two empty masks have 1. Positions labelled `ignore` or NaN do not count.
    Columns: positions, then intersection and union of each class.
    """
    if labels is None:
        own, other = (first_float(side) for side in (outputs, reference))
        n = len(other)
        mask, wanted = ((side >= options.threshold).reshape(n, -1) for side in (own, other))
        if mask.shape != wanted.shape:  # another size: nothing lines up
            union = mask.sum(axis=1) + wanted.sum(axis=1)
            return np.stack([np.full(n, wanted.shape[1]), np.zeros(n), union], axis=1)
        return _of_masks(mask, wanted, np.zeros(mask.shape, dtype=bool))
    wanted = labels.reshape(len(labels), -1)
    skipped = not_asked(wanted, options)
    for value in outputs.values():
        if value.dtype.kind == "f" and value.size == labels.size:
            return _of_masks((value >= options.threshold).reshape(wanted.shape), yes_or_no(wanted, skipped), skipped)
        if value.dtype.kind in "iu" and value.size == labels.size:
            return _of_classes(value.reshape(wanted.shape).astype(np.int64), wanted, skipped, None, options)
        axis = _class_axis(value, labels)
        if axis is not None:
            scores = np.moveaxis(value.reshape(len(value), *_longer(value)), axis + 1, -1)
            answers = np.where(np.isnan(scores).any(axis=-1), -1, scores.argmax(axis=-1)).reshape(wanted.shape)
            return _of_classes(answers, wanted, skipped, scores.shape[-1], options)
    shapes = ", ".join(str(list(value.shape)) for value in outputs.values())
    raise InputRejected(f"labels have shape {list(labels.shape)}, which fits no output: {shapes}")


def iou_value(sums: Array) -> float:
    """Mean of the classes that occur, from column sums."""
    both, either = sums[1:].reshape(-1, 2).T
    occurs = either > 0
    return float((both[occurs] / either[occurs]).mean()) if occurs.any() else 1.0


def _longer(value: Array) -> tuple[int, ...]:
    """A sample's axes longer than one: models and labels differ in the others."""
    return tuple(n for n in value.shape[1:] if n != 1)


def _class_axis(value: Array, labels: Array) -> int | None:
    """The axis of `_longer(value)` that is not in the labels, the first one when both ends fit."""
    shape, wanted = _longer(value), _longer(labels)
    if value.dtype.kind != "f" or len(shape) != len(wanted) + 1:
        return None
    if shape[1:] == wanted:
        return 0
    return len(shape) - 1 if shape[:-1] == wanted else None


def _of_masks(own: Array, wanted: Array, skipped: Array) -> Array:
    columns = (~skipped, own & wanted & ~skipped, (own | wanted) & ~skipped)
    return np.stack([column.sum(axis=1) for column in columns], axis=1)


def _of_classes(answers: Array, given: Array, skipped: Array, classes: int | None, options: MetricOptions) -> Array:
    """[n, 1 + 2 classes]; an answer below 0 is no class."""
    wanted = np.where(skipped, 0, given).astype(np.int64)
    highest = int(max(wanted.max(initial=0), answers.max(initial=0)))
    if wanted.min(initial=0) < 0 or (classes is not None and wanted.max(initial=0) >= classes):
        raise InputRejected(f"labels lie outside 0..{(classes or highest + 1) - 1}, the classes of the model's output")
    classes = classes or highest + 1
    if classes > MAX_CLASSES:
        raise InputRejected(f"{classes} classes are more than {MAX_CLASSES}: these are no class indices")
    n = len(wanted)
    asked, hit = ~skipped, (answers == wanted) & ~skipped
    both = count_by_class(wanted, hit, classes)
    either = count_by_class(wanted, asked, classes) + count_by_class(answers, asked & (answers >= 0), classes) - both
    pairs = np.stack([both, either], axis=-1) * counted_class(classes, options)[:, None]
    return np.concatenate([asked.sum(axis=1)[:, None], pairs.reshape(n, -1)], axis=1)
