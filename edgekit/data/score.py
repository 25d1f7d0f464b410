"""Score a candidate's outputs against the reference's, on labels or on the reference itself.

- Both sides are read a block of samples at a time; a sample's outputs may differ in shape from the next one's.
- The drop's interval respects what was drawn at random: samples, or whole sequences where state is carried.
- An interval never shrinks to a point because no answer differed in a small sample.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgekit.core.accuracy import COLLAPSED_COSINE, COLLAPSED_DROP, Accuracy, OutputSet
from edgekit.core.stats import paired_difference_interval
from edgekit.data.arrays import Array, open_npy
from edgekit.data.metrics import MAX_SQNR_DB, Metric, apply_metric, find_metric, noise_and_signal, similarity
from edgekit.data.outputs import Outputs, blocks, check_fit
from edgekit.errors import InputRejected

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 20261122
# An output of the reference varies when it moves by more than this share of its largest value: less is rounding.
VARIES = 1e-3


def score(
    candidate: OutputSet,
    reference: OutputSet,
    metric: str,
    split: str,
    labels: Path | None = None,
    reset: Path | None = None,
    synthetic: bool = False,
) -> Accuracy:
    """The candidate's accuracy by `metric`, a built-in name or `module:function` from the working directory.

    `reset` marks where sequences start; without it every sample stands alone. Raises InputRejected when the files do not fit
    together or the metric fails on them.
    """
    found = find_metric(metric, labels is not None)
    if found.unit == "dB":
        raise InputRejected(
            f"{metric} is reported beside every metric and has no drop", where="--metric", next_step="choose cosine"
        )
    if found.needs_labels and labels is None:
        raise InputRejected(f"metric {metric} needs labels", where="--metric", next_step="add labels or choose cosine")
    own, base = Outputs(candidate), Outputs(reference)
    check_fit(own, base)
    wanted = open_npy(labels) if labels else None
    if wanted is not None and wanted.shape[:1] != (base.count,):
        raise InputRejected(f"has shape {list(wanted.shape)} for {base.count} samples", where=str(labels))
    comparison, answers = _Comparison(), _Answers()
    for rows in blocks(own, base):
        a, b = own.read(rows), base.read(rows)
        comparison.add(a, b)
        block_labels = None if wanted is None else wanted.mapped()[rows].copy()
        answers.add(apply_metric(found, a, b, block_labels), apply_metric(found, b, b, block_labels))
    starts = None if reset is None else open_npy(reset).mapped()
    return _accuracy(found, split, "synthetic" if synthetic else "", answers, comparison, starts)


def _accuracy(
    metric: Metric, split: str, kind: str, answers: "_Answers", comparison: "_Comparison", starts: Array | None
) -> Accuracy:
    own, base = np.concatenate(answers.own), np.concatenate(answers.base)
    value, reference_value = float(own.mean()), float(base.mean())
    drop = float((base - own).mean())
    counted = answers.binary and metric.counts_answers
    low, high = drop_interval(base - own, answers if counted else None, starts)
    independent = counted and answers.count == len(own) and starts is None
    kind = kind or ("task" if metric.needs_labels else "agreement")
    reason = comparison.collapse_reason() or _collapse_by_score(kind, drop, comparison)
    return Accuracy(
        metric=metric.name,
        kind=kind,
        split=split,
        value=value,
        reference_value=reference_value,
        drop=drop,
        n=len(own),
        ci_low=low,
        ci_high=high,
        worst_cosine=min(comparison.lowest.values()),
        max_abs_diff=comparison.max_abs_diff,
        sqnr_db=comparison.sqnr_db(),
        nonfinite=comparison.nonfinite,
        collapsed=bool(reason),
        collapse_reason=reason,
        output_cosine=comparison.output_cosine(),
        worse=answers.worse if independent else None,
        better=answers.better if independent else None,
    )


def _collapse_by_score(kind: str, drop: float, comparison: "_Comparison") -> str:
    """Labels judge a task; without them the outputs' likeness does."""
    if drop > COLLAPSED_DROP:
        return f"the drop is {drop:.3f}"
    name, mean = min(comparison.output_cosine().items(), key=lambda item: item[1])
    if kind != "task" and mean < COLLAPSED_COSINE:
        return f"output '{name}' has cosine {mean:.3f} to the reference's"
    return ""


# ----------------------------------------------------------------------------------------------------------- gathering


class _Answers:
    """Scores by sample, and counts of right and wrong answers as long as every score is 0 or 1."""

    def __init__(self) -> None:
        self.own: list[Array] = []
        self.base: list[Array] = []
        self.binary = True
        self.count = self.worse = self.better = 0

    def add(self, own: Array, base: Array) -> None:
        if own.shape != base.shape:
            # Positions differ when an output's length does (ragged): only the samples' means can be compared.
            self.binary = False
        else:
            self.binary = self.binary and bool(np.isin(own, (0, 1)).all() and np.isin(base, (0, 1)).all())
            self.count += own.size
            self.worse += int((base > own).sum())
            self.better += int((base < own).sum())
        self.own.append(own.mean(axis=1))
        self.base.append(base.mean(axis=1))


class _Comparison:
    """How the outputs differ from the reference's, gathered over blocks."""

    def __init__(self) -> None:
        self.similarities: dict[str, list[Array]] = {}
        self.lowest: dict[str, float] = {}
        self.noise: dict[str, float] = {}
        self.signal: dict[str, float] = {}
        self.max_abs_diff = 0.0
        self.nonfinite = 0
        self.spans: dict[str, _Span] = {}

    def add(self, own: Mapping[str, Array], base: Mapping[str, Array]) -> None:
        with np.errstate(all="ignore"):
            for name, b in base.items():
                a = own[name]
                alike = similarity(a, b)
                self.similarities.setdefault(name, []).append(alike)
                self.lowest[name] = min(self.lowest.get(name, 1.0), float(alike.min()))
                if b.dtype.kind == "f":
                    self._add_float(name, a, b)
                elif a.shape == b.shape and a.size:
                    self._add_difference(a, b)

    def _add_float(self, name: str, a: Array, b: Array) -> None:
        if a.shape != b.shape:  # nothing lines up: all noise
            power = float((np.nan_to_num(b.astype(np.float64)) ** 2).sum())
            self._add_power(name, power, power)
            return
        noise, signal = noise_and_signal(a, b)
        self._add_power(name, float(noise.sum()), float(signal.sum()))
        self.nonfinite += int((~np.isfinite(a) & np.isfinite(b)).sum())
        self._add_difference(a, b)
        self.spans.setdefault(name, _Span(a[0], b[0])).add(a, b)

    def _add_power(self, name: str, noise: float, signal: float) -> None:
        self.noise[name] = self.noise.get(name, 0.0) + noise
        self.signal[name] = self.signal.get(name, 0.0) + signal

    def _add_difference(self, a: Array, b: Array) -> None:
        gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
        largest = float(np.max(gap, where=np.isfinite(gap), initial=0.0))
        self.max_abs_diff = max(self.max_abs_diff, largest)

    def sqnr_db(self) -> float | None:
        """Of the worst float output over all samples; None when none differs."""
        noisy = [name for name, noise in self.noise.items() if noise != 0]
        if not noisy:
            return None
        with np.errstate(all="ignore"):
            values = [10 * np.log10(np.float64(self.signal[name]) / np.float64(self.noise[name])) for name in noisy]
        return float(np.clip(np.nan_to_num(min(values), nan=-MAX_SQNR_DB), -MAX_SQNR_DB, MAX_SQNR_DB))

    def output_cosine(self) -> dict[str, float]:
        return {name: float(np.concatenate(blocks).mean()) for name, blocks in self.similarities.items()}

    def collapse_reason(self) -> str:
        if self.nonfinite:
            return f"{self.nonfinite} values are not finite where the reference's are"
        frozen = [name for name, span in self.spans.items() if span.is_frozen]
        return f"output '{frozen[0]}' is the same for every sample, the reference's is not" if frozen else ""


class _Span:
    """Does an output move from sample to sample?"""

    def __init__(self, own_first: Array, base_first: Array) -> None:
        self.own_first, self.base_first = own_first, base_first
        self.own_moves = False
        self.base_move = self.base_peak = 0.0

    def add(self, own: Array, base: Array) -> None:
        if own.shape[1:] != self.own_first.shape or base.shape[1:] != self.base_first.shape:
            self.own_moves = True
            return
        self.own_moves = self.own_moves or bool((own != self.own_first).any())
        move = np.abs(base.astype(np.float64) - self.base_first)
        self.base_move = max(self.base_move, float(np.max(move, where=np.isfinite(move), initial=0.0)))
        peak = np.abs(base.astype(np.float64))
        self.base_peak = max(self.base_peak, float(np.max(peak, where=np.isfinite(peak), initial=0.0)))

    @property
    def is_frozen(self) -> bool:
        return not self.own_moves and self.base_move > VARIES * self.base_peak


# ------------------------------------------------------------------------------------------------------------ interval


def drop_interval(differences: Array, answers: _Answers | None, starts: Array | None) -> tuple[float, float]:
    """The 95 % interval of the mean paired difference (reference less candidate), float64 [n].

    - One right-or-wrong answer a sample, samples alone: the score interval for paired proportions (`stats`, Tango 1998).
    - Right-or-wrong answers, several a sample or in sequences: a bootstrap over samples or sequences; when no answer differs it
      would be a point, so the score interval of as many equal answers is taken: what one differing answer would widen it to.
    - Any other score: the percentile bootstrap over samples or sequences (Efron and Tibshirani 1993, chapter 13; cluster
      bootstrap: Davison and Hinkley 1997, section 3.8), 2,000 resamples, fixed seed. One unit tells nothing: (-1, 1).
    """
    if answers is not None:
        if answers.count == len(differences) and starts is None:
            return paired_difference_interval(answers.worse, answers.better, answers.count)
        if answers.worse == answers.better == 0:
            return paired_difference_interval(0, 0, answers.count)
    if starts is None:
        sums, sizes = differences, np.ones(len(differences))
    else:
        begins = np.flatnonzero(starts)
        sums, sizes = np.add.reduceat(differences, begins), np.diff([*begins, len(differences)]).astype(np.float64)
    return _bootstrap(sums, sizes) if len(sums) > 1 else (-1.0, 1.0)


def _bootstrap(sums: Array, sizes: Array) -> tuple[float, float]:
    """Percentiles of sum(sums) / sum(sizes) over resampled units, in bounded memory."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    units = len(sums)
    batch = max(1, (4 << 20) // units)
    means = []
    for start in range(0, BOOTSTRAP_RESAMPLES, batch):
        drawn = rng.integers(0, units, (min(batch, BOOTSTRAP_RESAMPLES - start), units))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return float(low), float(high)
