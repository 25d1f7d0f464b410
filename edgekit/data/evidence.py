"""Feeds of a few labelled samples, prepared as declared and otherwise: what shows whether a model was trained on such samples."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from edgekit.core.contract import image_like
from edgekit.core.datacheck import SplitFacts
from edgekit.core.types import TensorSpec
from edgekit.data.alternatives import Alternative, alternatives
from edgekit.data.arrays import Array
from edgekit.data.feed import Feed, storage_dtype, write_npy
from edgekit.data.metrics import Metric
from edgekit.data.opened import Split, blocks
from edgekit.data.parts import fixed_shape

EVIDENCE_SAMPLES = 64
EVIDENCE_BYTES = 128 << 20


def write_evidence(
    splits: list[Split],
    facts: tuple[SplitFacts, ...],
    inputs: tuple[TensorSpec, ...],
    state: Mapping[str, str],
    metric: Metric,
    out: Path,
) -> tuple[tuple[str, ...], int, str]:
    """Write `out`/<k>/<i>.npy, k 0 as declared; the other preparations' names, how many samples, or why there are none."""
    split = next((s for s in splits if s.name == "selection"), None)
    if split is None or split.part.labels is None or not metric.is_task(labelled=True):
        return (), 0, "the preparation was not put to the test: that takes labels and a metric of them"
    subject = _subject(split)
    if subject is None:
        return (), 0, "the preparation was not put to the test: no input takes floats"
    seen = [t for s in facts for t in s.inputs if t.name == split.feeds[subject].spec.name]
    ways = alternatives(split.feeds[subject].spec, min(t.low for t in seen), max(t.high for t in seen))
    chosen = _chosen(split)
    places = [out / str(k) for k in range(len(ways) + 1)]
    for place, way in zip(places, (None, *ways), strict=True):
        place.mkdir()
        for i, feed in split.feeds.items():
            _write(place / f"{i}.npy", feed, split.rows[chosen], way if i == subject else None)
    for i, spec in enumerate(inputs):
        if spec.name in state.values():
            zeros = np.zeros((len(chosen), *fixed_shape(spec)), storage_dtype(spec))
            for place in places:
                np.save(place / f"{i}.npy", zeros)
    np.save(out / "labels.npy", split.part.labels.take(split.rows[chosen]))
    if split.starts is not None:
        np.save(out / "reset.npy", np.append(np.uint8(1), split.starts[chosen][1:]))
    nothing = "" if ways else "the preparation was not put to the test: nothing else suggests itself for these values"
    return tuple(way.name for way in ways), len(chosen), nothing


def _subject(split: Split) -> int | None:
    """The input to be prepared otherwise: the first image in floats, else the largest of floats."""
    floats = [i for i, f in split.feeds.items() if "float" in f.spec.dtype and f.spec.dtype != "bfloat16"]
    pictures = [i for i in floats if image_like(split.feeds[i].spec.shape) is not None]
    return next(iter(pictures or sorted(floats, key=lambda i: -math.prod(split.feeds[i].column.shape))), None)


def _chosen(split: Split) -> Array:
    """Places of the samples to try: evenly over the split; of sequences the first ones."""
    row = sum(math.prod(feed.column.shape) * 4 for feed in split.feeds.values())
    count = min(len(split.rows), max(8, min(EVIDENCE_SAMPLES, EVIDENCE_BYTES // max(1, row))))
    if split.starts is not None:
        return np.arange(count)
    return np.unique(np.linspace(0, len(split.rows) - 1, count).astype(np.int64))


def _write(path: Path, feed: Feed, rows: Array, way: Alternative | None) -> None:
    dtype = storage_dtype(feed.spec)

    def prepared() -> Iterator[Array]:
        for _, fed, _ in blocks(feed, rows):
            yield fed if way is None else way.apply(fed.astype(np.float32)).astype(dtype)

    write_npy(path, dtype, (len(rows), *fixed_shape(feed.spec)), prepared())
