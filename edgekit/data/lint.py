"""Look at every sample of a data set as it would be fed, and gather what the rules of `core/lint.py` ask for.

- Nothing is refused that can be told apart as one sample: NaN, what can't be read, what stands twice. All of them are listed.
- A block of samples is in memory at a time; of each sample a digest is kept.
- For the question whether samples are prepared as the model was trained, feeds of a few labelled ones are written: as declared in
  `<out>/0`, otherwise in `<out>/1` and so on, with their labels and sequence starts in `<out>`.
"""

import hashlib
import math
from pathlib import Path

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.core.contract import image_like
from edgekit.core.datacheck import DataFacts, InputFacts, LabelFacts, Samples, SplitFacts
from edgekit.core.types import TensorSpec
from edgekit.data.alternatives import roughness
from edgekit.data.arrays import Array
from edgekit.data.evidence import write_evidence
from edgekit.data.feed import Feed
from edgekit.data.metrics import Labels, Metric, find_metric, metric_options
from edgekit.data.opened import Split, blocks, class_labels, splits_of
from edgekit.data.sources import open_source
from edgekit.errors import InputRejected

NAMED = 5
SMOOTH_SAMPLES = 64
MAX_CLASSES = 10_000

# Metrics whose labels are classes of the output's last axis; -1 pads all but the first two.
CLASS_METRICS = ("top-1", "top-5", "exact-match", "ctc-exact-match", "cer")
YES_NO_METRICS = ("binary-accuracy", "auc")

# How a reader says that samples were left out.
LEFT_OUT = "can't be read and were left out"


def gather(
    source: Path,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    out: Path,
    metric: str | None = None,
) -> DataFacts:
    """What is to be known of the data set `source` for a model of these inputs and outputs; `metric` replaces its own.

    Feeds to try are written under `out`, a folder that is there. Raises InputRejected for what stops the whole data set: a file
    that is no array, a shape that is not the model's.
    """
    scratch = out / ".unpacked"
    scratch.mkdir()
    found = open_source(source, inputs, scratch, skip_bad=True)
    marked = [part.labels is not None for name, part in found.parts.items() if name != "calibration"]
    if any(marked) and not all(marked):
        raise InputRejected("only one of selection and evaluation has labels", where=found.name)
    labelled = all(marked)
    judge = find_metric(metric or found.metric or ("top-1" if labelled else "cosine"), labelled)
    options = metric_options(found.metric_options, "data.toml [metric_options]")
    splits = splits_of(found, inputs)
    seen: dict[bytes, str] = {}
    facts = tuple(_split_facts(split, outputs, judge.name, options, seen) for split in splits)
    tried, samples, untried = write_evidence(splits, facts, inputs, found.state, judge, out)
    return DataFacts(
        name=found.name,
        metric=judge.name,
        labelled=labelled,
        needs_labels=judge.needs_labels,
        answers=_answers(judge, splits, outputs),
        splits=facts,
        options=options,
        state=found.state,
        unreadable=tuple(notice for notice in found.notices if LEFT_OUT in notice),
        tried=tried,
        tried_samples=samples,
        untried=untried,
    )


# ---------------------------------------------------------------------------------------------------------- one split


def _split_facts(
    split: Split, outputs: tuple[TensorSpec, ...], metric: str, options: MetricOptions, seen: dict[bytes, str]
) -> SplitFacts:
    """Facts of a split; `seen` holds the units of the earlier ones and takes this one's."""
    hashes = [hashlib.blake2b(digest_size=16) for _ in split.rows]
    tensors = []
    for feed in split.feeds.values():
        look = _Look(feed, split.rows)
        for place, fed, broken in blocks(feed, split.rows):
            look.add(place, fed, broken)
            for hash_, row in zip(hashes[place : place + len(fed)], fed, strict=True):
                hash_.update(row.tobytes())
        tensors.append(look.facts())
    duplicates, held = _repeated(split, [hash_.digest() for hash_ in hashes], seen)
    labels = _label_facts(split, outputs, metric, options)
    return SplitFacts(split.name, len(split.rows), len(split.units), tuple(tensors), labels, duplicates, held)


def _repeated(split: Split, digests: list[bytes], seen: dict[bytes, str]) -> tuple[Samples, dict[str, Samples]]:
    """Units that stand earlier in this split, and by the name of an earlier split those that it holds."""
    own: set[bytes] = set()
    again: list[int] = []
    held: dict[str, list[int]] = {}
    for unit in split.units:
        key = hashlib.blake2b(b"".join(digests[unit]), digest_size=16).digest()
        if key in seen:
            held.setdefault(seen[key], []).append(unit.start)
        elif key in own:
            again.append(unit.start)
        own.add(key)
    seen.update(dict.fromkeys(own - set(seen), split.name))
    return _samples(again, split.rows), {name: _samples(units, split.rows) for name, units in held.items()}


def _samples(places: list[int], rows: Array) -> Samples:
    """Samples at `places` of a split, by their numbers in the file: of a set that was divided a split holds some `rows` only."""
    return Samples(tuple(int(rows[place]) for place in places[:NAMED]), len(places))


class _Look:
    """What an input's tensors are like, gathered over blocks."""

    def __init__(self, feed: Feed, rows: Array) -> None:
        self.feed, self.rows = feed, rows
        self.low, self.high = math.inf, -math.inf
        self.count = 0
        self.sum = self.squares = 0.0
        self.whole = True
        self.broken: list[int] = []
        self.constant: list[int] = []
        self.like = image_like(feed.spec.shape) if "float" in feed.spec.dtype else None
        self.rough: list[tuple[float, float]] = []

    def add(self, place: int, fed: Array, broken: Array) -> None:
        """A block whose first sample is the split's `place`-th."""
        values = fed if self.feed.spec.dtype != "bfloat16" else (fed.astype(np.uint32) << 16).view(np.float32)
        rows = values.reshape(len(values), -1)
        self.broken += (place + np.flatnonzero(broken)).tolist()
        if rows.shape[1] > 1:
            self.constant += (place + np.flatnonzero((rows == rows[:, :1]).all(axis=1) & ~broken)).tolist()
        good = rows[~broken].astype(np.float64)
        if not good.size:
            return
        self.low, self.high = min(self.low, float(good.min())), max(self.high, float(good.max()))
        self.count += good.size
        self.sum += float(good.sum())
        self.squares += float((good * good).sum())
        self.whole = self.whole and bool((good == np.rint(good)).all())
        if self.like is not None and self.like.color != "gray" and place < SMOOTH_SAMPLES:
            self.rough.append(roughness(values[~broken].astype(np.float32), self.like))

    def facts(self) -> InputFacts:
        """All blocks together."""
        contract = self.feed.contract
        mean = self.sum / max(1, self.count)
        return InputFacts(
            name=self.feed.spec.name,
            where=self.feed.column.where,
            dtype=self.feed.spec.dtype,
            low=self.low if self.count else 0.0,
            high=self.high if self.count else 0.0,
            spread=math.sqrt(max(0.0, self.squares / max(1, self.count) - mean * mean)),
            whole=self.whole,
            scaled=contract is not None and contract.has_arithmetic,
            nonfinite=_samples(self.broken, self.rows),
            constant=_samples(self.constant if contract is None or contract.value is None else [], self.rows),
            layout=self.like.layout if self.like is not None else "",
            roughness=(max(r[0] for r in self.rough), max(r[1] for r in self.rough)) if self.rough else None,
        )


# -------------------------------------------------------------------------------------------------------------- labels


def _label_facts(
    split: Split, outputs: tuple[TensorSpec, ...], metric: str, options: MetricOptions
) -> LabelFacts | None:
    column = split.part.labels
    if column is None:
        return None
    labels = column.take(split.rows)
    allowed = _allowed(metric, outputs)
    outside: list[int] = []
    if allowed is not None:
        numbers = labels.reshape(len(labels), -1).astype(np.float64)
        bad = ~((numbers >= 0) & (numbers < allowed) & (numbers == np.rint(numbers)))
        if metric not in ("top-1", "top-5", "binary-accuracy"):
            bad &= ~(np.isnan(numbers) | (numbers == options.ignore))
        outside = np.flatnonzero(bad.any(axis=1)).tolist()
    one = class_labels(column)
    values, counts = np.unique(labels, return_counts=True) if one is not None else (np.zeros(0), np.zeros(0))
    few = one is not None and len(values) <= MAX_CLASSES
    classes = tuple((int(v), int(n)) for v, n in zip(values, counts, strict=True)) if few else None
    return LabelFacts(column.where, classes, _samples(outside, split.rows), allowed)


def _allowed(metric: str, outputs: tuple[TensorSpec, ...]) -> int | None:
    """How many classes labels may name, None where it can't be told."""
    if metric in YES_NO_METRICS:
        return 2
    if metric in CLASS_METRICS:
        for spec in outputs:
            last = spec.shape[-1] if len(spec.shape) > 1 else 1
            if "float" in spec.dtype and isinstance(last, int) and last > 1:
                return last
    return None


def _answers(metric: Metric, splits: list[Split], outputs: tuple[TensorSpec, ...]) -> int:
    """How many decisions a sample has by the metric; 0 when its value is no share of decisions, or it is the user's own."""
    if metric.unit != "fraction" or ":" in metric.name:
        return 0
    if metric.name in ("exact-match", "ctc-exact-match"):
        return 1
    labels = next((split.part.labels for split in splits if split.part.labels is not None), None)
    if labels is not None and metric.labels is not Labels.UNUSED:
        return max(1, math.prod(labels.shape))
    for spec in outputs:
        if "float" in spec.dtype and all(isinstance(n, int) for n in spec.shape):
            shape = spec.shape[:-1] if metric.labels is Labels.UNUSED else spec.shape
            return max(1, math.prod(int(n) for n in shape))
    return 1
