"""The splits of an opened data set, and their samples as tensors, read without refusing what is not finite."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgekit.core.dataset import SPLITS
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column
from edgekit.data.feed import BLOCK_BYTES, Feed, check_dtype, convert
from edgekit.data.parts import WHOLE, Part, Source
from edgekit.data.read import shares_of
from edgekit.errors import InputRejected


@dataclass(frozen=True)
class Split:
    """One split: its part, which rows of it, where sequences start, and each input's feed by the model's index."""

    name: str
    part: Part
    rows: Array
    starts: Array | None
    feeds: Mapping[int, Feed]

    @property
    def units(self) -> list[slice]:
        """What is drawn as one."""
        begins = np.arange(len(self.rows)) if self.starts is None else np.flatnonzero(self.starts)
        return [slice(int(a), int(b)) for a, b in zip(begins, [*begins[1:], len(self.rows)], strict=True)]


def splits_of(found: Source, inputs: tuple[TensorSpec, ...]) -> list[Split]:
    """The declared splits, or the whole divided as `prepare_data` does. Raises InputRejected for a type that can't be fed."""
    if WHOLE in found.parts:
        part = found.parts[WHOLE]
        parts = [(name, part, rows) for name, rows in shares_of(part, bool(found.state)).items()]
    else:
        parts = [
            (name, found.parts[name], np.arange(found.parts[name].count)) for name in SPLITS if name in found.parts
        ]
    return [
        Split(name, part, rows, _starts(found, part, rows), _feeds(found, part, inputs)) for name, part, rows in parts
    ]


def _feeds(found: Source, part: Part, inputs: tuple[TensorSpec, ...]) -> dict[int, Feed]:
    feeds = {
        i: Feed(part.columns[spec.name], spec, found.contracts.get(spec.name))
        for i, spec in enumerate(inputs)
        if spec.name in part.columns
    }
    for feed in feeds.values():
        check_dtype(feed)
    return feeds


def _starts(found: Source, part: Part, rows: Array) -> Array | None:
    if part.starts is None:
        return np.eye(1, len(rows), dtype=np.uint8)[0] if found.state else None
    starts = part.starts.take(rows)
    if starts.ndim != 1 or not np.isin(starts, (0, 1)).all() or starts[0] != 1:
        raise InputRejected("must hold one 0 or 1 a sample and begin with 1", where=part.starts.where)
    return starts.astype(np.uint8)


def class_labels(labels: Column | None) -> Array | None:
    """Labels that are one integer a sample; None for any other kind."""
    if labels is None or labels.dtype.kind not in "biu" or math.prod(labels.shape) != 1:
        return None
    return labels.take(np.arange(labels.count)).reshape(-1)


def blocks(feed: Feed, rows: Array) -> Iterator[tuple[int, Array, Array]]:
    """The place of a block's first sample, its tensors with 0 for what is not finite, and which samples that was in."""
    row_bytes = max(1, math.prod(feed.column.shape) * max(8, feed.column.dtype.itemsize))
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, len(rows), step):
        chosen = rows[start : start + step]
        stored = feed.column.take(chosen)
        finite = np.isfinite(stored)
        broken = np.logical_not(finite.reshape(len(stored), -1).all(axis=1))
        yield start, convert(np.where(finite, stored, stored.dtype.type(0)), feed, chosen), broken
