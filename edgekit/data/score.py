"""Score a candidate's outputs against the reference's, on labels or on the reference itself.

- Both sides are read a block of samples at a time; a sample's outputs may differ in shape from the next one's.
- The drop's interval respects what was drawn at random: samples, or whole sequences where state is carried.
"""

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.core.accuracy import COLLAPSED_COSINE, COLLAPSED_DROP, Accuracy, MetricOptions, OutputSet
from edgekit.data.arrays import Array, open_npy
from edgekit.data.compare import Comparison
from edgekit.data.interval import PairedAnswers, drop_interval, drop_of
from edgekit.data.metrics import Metric, apply_metric, find_metric
from edgekit.data.outputs import Outputs, blocks, check_fit
from edgekit.data.tally import Tally
from edgekit.errors import InputRejected

DEFAULT_OPTIONS = MetricOptions()


def score(
    candidate: OutputSet,
    reference: OutputSet,
    metric: str,
    split: str,
    labels: Path | None = None,
    reset: Path | None = None,
    synthetic: bool = False,
    options: MetricOptions = DEFAULT_OPTIONS,
) -> Accuracy:
    """The candidate's accuracy by `metric`, a built-in name or `module:function` from the working directory.

    `reset` marks where sequences start; without it every sample stands alone. Raises InputRejected when the files do not fit
    together or the metric fails on them.
    """
    found = _usable(metric, labels is not None)
    own, base = Outputs(candidate), Outputs(reference)
    check_fit(own, base)
    wanted = open_npy(labels) if labels else None
    if wanted is not None and wanted.shape[:1] != (base.count,):
        raise InputRejected(f"has shape {list(wanted.shape)} for {base.count} samples", where=str(labels))
    comparison, sides = Comparison(), _Sides(found, options)
    for rows in blocks(own, base):
        a, b = own.read(rows), base.read(rows)
        comparison.add(a, b)
        sides.add(a, b, None if wanted is None else wanted.mapped()[rows].copy())
    starts = None if reset is None else open_npy(reset).mapped().copy()
    kind = "synthetic" if synthetic else ("task" if found.is_task(labels is not None) else "agreement")
    return _accuracy(found, split, kind, sides, comparison, starts)


def _usable(name: str, labelled: bool) -> Metric:
    found = find_metric(name, labelled)
    if found.unit == "dB":
        raise InputRejected(
            f"{name} is reported beside every metric and has no drop", where="--metric", next_step="choose cosine"
        )
    if found.needs_labels and not labelled:
        raise InputRejected(f"metric {name} needs labels", where="--metric", next_step="add labels or choose cosine")
    return found


class _Sides:
    """Both sides' answers to the metric, and right and wrong ones pair by pair where it counts them."""

    def __init__(self, metric: Metric, options: MetricOptions) -> None:
        self.metric = metric
        self.options = options
        self.own, self.base = Tally(metric), Tally(metric)
        self.pairs = PairedAnswers()

    def add(self, own: dict[str, Array], base: dict[str, Array], labels: Array | None) -> None:
        mine = apply_metric(self.metric, own, base, labels, self.options)
        theirs = apply_metric(self.metric, base, base, labels, self.options)
        self.own.add(mine)
        self.base.add(theirs)
        if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray) and self.metric.counts_answers:
            worse_first = (theirs, mine) if self.metric.lower_is_better else (mine, theirs)
            self.pairs.add(*worse_first)


def _accuracy(
    metric: Metric, split: str, kind: str, sides: _Sides, comparison: Comparison, starts: Array | None
) -> Accuracy:
    own, base = sides.own.gathered(), sides.base.gathered()
    ones = np.ones(len(base.answers))
    value, reference_value = own.value(ones), base.value(ones)
    if not np.isfinite([value, reference_value]).all():
        raise InputRejected(f"has no value: {metric.undefined}", where=f"metric {metric.name}")
    drop = drop_of(metric, own, base, ones)
    pairs = sides.pairs if metric.counts_answers and sides.pairs.binary else None
    interval = drop_interval(metric, own, base, pairs, starts)
    reason = comparison.collapse_reason() or _collapse_by_score(metric, kind, drop, comparison)
    return Accuracy(
        metric=metric.name,
        kind=kind,
        split=split,
        value=value,
        reference_value=reference_value,
        drop=drop,
        n=len(base.answers),
        ci_low=interval.low,
        ci_high=interval.high,
        worst_cosine=min(comparison.lowest.values()),
        max_abs_diff=comparison.max_abs_diff,
        sqnr_db=comparison.sqnr_db(),
        nonfinite=comparison.nonfinite,
        collapsed=bool(reason),
        collapse_reason=reason,
        output_cosine=comparison.output_cosine(),
        direction="lower" if metric.lower_is_better else "higher",
        unit=metric.unit,
        effective_answers=interval.effective,
        **_counts(pairs if interval.effective is not None else None),
    )


def _counts(pairs: PairedAnswers | None) -> dict[str, Any]:
    """The counts an interval was made of; none when it was not."""
    columns = () if pairs is None else pairs.columns()
    return {name: int(column.sum()) for name, column in zip(("worse", "better", "answers"), columns, strict=False)}


def _collapse_by_score(metric: Metric, kind: str, drop: float, comparison: Comparison) -> str:
    """Labels judge a task; without them the outputs' likeness does. A drop in the outputs' own unit has no bar."""
    if drop > COLLAPSED_DROP and metric.unit in ("fraction", "cosine"):
        return f"the drop is {drop:.3f}"
    name, mean = min(comparison.output_cosine().items(), key=lambda item: item[1])
    if kind != "task" and mean < COLLAPSED_COSINE:
        return f"output '{name}' has cosine {mean:.3f} to the reference's"
    return ""
