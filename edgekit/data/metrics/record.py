"""What a metric is: one of three forms, what it needs and which way it points; and what all take from outputs and labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.core.accuracy import MetricOptions
from edgekit.errors import InputRejected

Array = NDArray[Any]
Outputs = Mapping[str, Array]

# Of a block of n samples: the candidate's outputs, the reference's, labels [n, ...] or None, and the data set's options.
BlockFunction = Callable[[Outputs, Outputs, Array | None, MetricOptions], Array]
# Of weights [n], how often each sample counts: the value.
Evaluator = Callable[[Array], float]


class Rows(NamedTuple):
    """What a whole-set metric keeps of a block: `rows[i]` [r, c] are sample i's, `answers` [n] counts its decisions."""

    rows: Sequence[Array]
    answers: Array


@dataclass(frozen=True)
class Scores:
    """Scores of a block, [n] or [n, positions]; NaN where nothing is asked. The value is the mean over all that are."""

    function: BlockFunction


@dataclass(frozen=True)
class Statistics:
    """Sums that a value is made of: [n, 1 + k] of a block, of which column 0 counts each sample's decisions.

    `value` takes the columns' sums over the samples; blocks may differ in k, later columns are then 0.
    """

    function: BlockFunction
    value: Callable[[Array], float]


@dataclass(frozen=True)
class WholeSet:
    """What can only be made of all samples at once: `value` takes all rows and each one's sample, and gives an Evaluator."""

    function: Callable[[Outputs, Outputs, Array | None, MetricOptions], Rows]
    value: Callable[[Array, Array], Evaluator]


class Labels(StrEnum):
    """What a metric makes of labels. OPTIONAL: without them it is agreement with the reference's own decisions."""

    NEEDED = "needed"
    OPTIONAL = "optional"
    UNUSED = "unused"


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    `counts_answers`: scores that are all 0 or 1 are right and wrong answers, and are counted as such. `undefined` says when it has
    no value.
    """

    name: str
    form: Scores | Statistics | WholeSet
    labels: Labels
    unit: str
    source: str
    counts_answers: bool = False
    lower_is_better: bool = False
    undefined: str = "nothing is asked of any sample"

    @property
    def needs_labels(self) -> bool:
        return self.labels is Labels.NEEDED

    def is_task(self, labelled: bool) -> bool:
        """Whether it is scored on labels when there are some."""
        return self.needs_labels or (self.labels is Labels.OPTIONAL and labelled)


# ---------------------------------------------------------------------------------------------------------- what is where


def first_float(outputs: Outputs) -> Array:
    """The first float output. Raises InputRejected when there is none."""
    for value in outputs.values():
        if value.dtype.kind == "f":
            return value
    raise InputRejected("this metric needs a float output, the model has none", next_step="choose another --metric")


def class_scores(outputs: Outputs) -> Array:
    """[n, positions, classes] of the first float output with a class axis, the last. Raises InputRejected when there is none."""
    for value in outputs.values():
        if value.dtype.kind == "f" and value.ndim >= 2 and value.shape[-1] > 1:
            return value.reshape(len(value), -1, value.shape[-1])
    raise InputRejected("this metric needs an output with one score a class", next_step="choose another --metric")


def highest(scores: Array) -> Array:
    """The class of the highest score along the last axis, the first of equal ones; -2, no class, where a score is NaN."""
    return np.where(np.isnan(scores).any(axis=-1), -2, scores.argmax(axis=-1))


def decided(outputs: Outputs) -> Array:
    """The classes a model answers with, int64 [n, positions]: the highest of its class scores, else its first integer output."""
    if not any(v.dtype.kind == "f" and v.ndim >= 2 and v.shape[-1] > 1 for v in outputs.values()):
        for value in outputs.values():
            if value.dtype.kind in "iu":
                return value.reshape(len(value), -1).astype(np.int64)
    return highest(class_scores(outputs))


def required(labels: Array | None) -> Array:
    """The labels. Raises InputRejected when there are none."""
    if labels is None:
        raise InputRejected("this metric needs labels", next_step="add labels or choose --metric cosine")
    return labels


def labels_like(labels: Array | None, shape: tuple[int, ...]) -> Array:
    """Labels as [n, positions]. Raises InputRejected when there isn't one for each position."""
    found = required(labels)
    if found.size != int(np.prod(shape)):
        raise InputRejected(f"labels have shape {list(found.shape)}, the output has {list(shape)} positions to score")
    return found.reshape(shape)


def not_asked(labels: Array, options: MetricOptions) -> Array:
    """Where a label says that nothing is asked: NaN, or the label to be ignored."""
    skipped: Array = labels == options.ignore
    return skipped | np.isnan(labels) if labels.dtype.kind == "f" else skipped


def yes_or_no(labels: Array, skipped: Array) -> Array:
    """Labels as bool, False where skipped. Raises InputRejected when one is neither 0 nor 1."""
    if not (skipped | (labels == 0) | (labels == 1)).all():
        raise InputRejected("labels must be 0 or 1")
    yes: Array = ~skipped & (labels == 1)
    return yes


def counted_class(classes: int, options: MetricOptions) -> Array:
    """bool [classes]: those that count."""
    chosen = np.isin(np.arange(classes), options.classes)
    return chosen if options.classes else np.ones(classes, dtype=bool)


def count_by_class(classes_of: Array, where: Array, classes: int) -> Array:
    """[n, classes]: how often each class stands in a sample, at the positions that `where` marks."""
    sample, position = np.nonzero(where)
    flat = np.bincount(sample * classes + classes_of[sample, position], minlength=len(classes_of) * classes)
    return flat.reshape(len(classes_of), classes)
