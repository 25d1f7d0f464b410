"""Labels as they are written, numbers, names of classes or text, to arrays of numbers.

- A class is known by its number or by its name in `[labels] classes`. Text is spelled in `[labels] alphabet`: its k-th character is
  class k, counted from 1, since 0 is the blank of CTC.
- Sequences of different lengths are filled at their ends: whole numbers with -1, anything else with NaN.
- A label outside the class set is refused with its place.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.arrays import Column
from edgekit.data.decode import Decoded
from edgekit.data.manifest import LabelsEntry, did_you_mean
from edgekit.data.parts import in_memory
from edgekit.errors import InputRejected

Array = NDArray[Any]

PADDING = -1
MAX_BYTES = 1 << 30
_BLOCK_ROWS = 1 << 16


def label_of(value: Any, rules: LabelsEntry, where: str) -> Array:
    """One label as int64 or float64, a single value or a nested list. Raises InputRejected."""
    if isinstance(value, str):
        return np.array(_spelled(value, rules, where) if rules.alphabet else _class_number(value, rules, where))
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return np.array([_class_number(item, rules, where) for item in value])
    try:
        array = np.asarray(value if value != [] else np.zeros(0, np.int64))
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.asarray(None)
    if array.dtype.kind not in "bif":
        raise InputRejected("its label is neither a number, a name nor a list of one kind", where=where)
    label = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    check_classes(label, rules, where)
    return label


def _class_number(name: str, rules: LabelsEntry, where: str) -> int:
    if not rules.classes:
        raise InputRejected(
            f"has the label '{name}', but no classes are named",
            where=where,
            next_step='write [labels] classes = ["..."]',
        )
    if name not in rules.classes:
        raise InputRejected(
            f"'{name}' is not one of the {len(rules.classes)} classes",
            where=where,
            next_step=did_you_mean(name, rules.classes[:50]),
        )
    return rules.classes.index(name)


def _spelled(text: str, rules: LabelsEntry, where: str) -> list[int]:
    for character in text:
        if character not in rules.alphabet:
            raise InputRejected(f"has '{character}' in its label, which the alphabet lacks", where=where)
    return [rules.alphabet.index(character) + 1 for character in text]


def check_classes(values: Array, rules: LabelsEntry, where: str, first: int = 0) -> None:
    """Whole numbers must lie in the class set, if one is declared; fillings may stand in rows of several. Raises InputRejected.

    `first` is the number of the first row of `values`, which is [n, ...], or one label.
    """
    low, high = (1, len(rules.alphabet)) if rules.alphabet else (0, len(rules.classes) - 1)
    if high < low or values.dtype.kind not in "iu":
        return
    bad = (values < low) | (values > high)
    if values.ndim > 1 or (values.ndim and rules.alphabet):
        bad &= values != PADDING
    if bad.any():
        place = f" of row {first + int(np.argwhere(bad)[0][0])}" if values.ndim else ""
        raise InputRejected(
            f"label {values[bad].flat[0]}{place} is outside {low}..{high}, the declared classes", where=where
        )


def check_column(column: Column, rules: LabelsEntry) -> Column:
    """A stored column of labels, its class set checked. Raises InputRejected."""
    if rules.classes or rules.alphabet:
        for start in range(0, column.count, _BLOCK_ROWS):
            rows = np.arange(start, min(start + _BLOCK_ROWS, column.count))
            check_classes(column.take(rows), rules, column.where, start)
    return column


def of_entries(decoded: Decoded, where: str) -> Column | None:
    """The labels that came with the entries, one row a sample; None when none has one. Raises InputRejected.

    A recording in frames has one label for each of them, or a single one for all.
    """
    found = [label for label in decoded.labels if label is not None]
    if not found:
        return None
    if len(found) < len(decoded.labels):
        missing = decoded.places[next(i for i, label in enumerate(decoded.labels) if label is None)]
        raise InputRejected(
            f"sample {missing} has no label, others have", where=where, next_step="label all of a split or none"
        )
    if decoded.framed:
        found = [row for label, rows in zip(found, decoded.rows, strict=True) for row in _by_frame(label, rows, where)]
    return in_memory(stacked(found, where), where)


def _by_frame(label: Array, rows: int, where: str) -> Array:
    if label.ndim and len(label) != rows:
        raise InputRejected(f"has {len(label)} labels for a recording of {rows} frames", where=where)
    return label if label.ndim else np.repeat(label[np.newaxis], rows)


def stacked(labels: Sequence[Array], where: str) -> Array:
    """Labels as one array [n, ...]; what is shorter than the longest is filled. Raises InputRejected when they differ in rank."""
    rank = max(label.ndim for label in labels)
    if any(label.ndim != rank and label.size for label in labels):
        raise InputRejected(f"some labels have {rank} axes, others fewer", where=where)
    rows = [label if label.ndim == rank else np.zeros((0,) * rank, np.int64) for label in labels]
    shape = (len(rows), *(max(sides) for sides in zip(*(row.shape for row in rows), strict=True)))
    if 8 * math.prod(shape) > MAX_BYTES:
        raise InputRejected(f"its labels would take more than {MAX_BYTES >> 30} GiB", where=where)
    ragged = any(row.shape != shape[1:] for row in rows)
    whole = all(row.dtype.kind == "i" for row in rows if row.size) and (rank <= 1 or not ragged)
    result = np.full(shape, PADDING if whole else np.nan, np.int64 if whole else np.float64)
    for place, row in enumerate(rows):
        result[place, ...][tuple(slice(side) for side in row.shape)] = row
    return result
