"""Metrics: plain functions in one table, and the user's own.

- `function(outputs, reference, labels)` gets a block of samples: outputs by name, [n, ...] each; the reference's on the same
  samples; labels [n, ...] or None. It is called once a block, so it may not look beyond a sample.
- It returns scores, [n] or [n, positions]; higher is better, 1 is right. A sample's score is the mean over its positions, the
  metric's value the mean over samples.
- bfloat16 outputs arrive as float32.
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.data.manifest import did_you_mean
from edgekit.errors import InputRejected

Array = NDArray[Any]
Outputs = Mapping[str, Array]
MetricFunction = Callable[[Outputs, Outputs, Array | None], Array]

CTC_BLANK = 0
LABEL_PADDING = -1
CENTS = 50.0
# A score must be finite: outputs that are equal have no noise and get this, about what float64 rounding leaves.
MAX_SQNR_DB = 300.0


@dataclass(frozen=True)
class Metric:
    """A metric by name. `counts_answers`: scores that are all 0 or 1 are right and wrong answers, and are counted as such."""

    name: str
    function: MetricFunction
    needs_labels: bool
    counts_answers: bool
    unit: str
    source: str


# --------------------------------------------------------------------------------------------------- against the labels


def top_1(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Is the highest score at the label? Scores are the last axis of the first float output: [n, C] or [n, positions, C]."""
    return _top_k(outputs, labels, 1)


def top_5(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Is the label among the five highest scores? Of equal scores the lower class is ahead, as argmax has it."""
    return _top_k(outputs, labels, 5)


def _top_k(outputs: Outputs, labels: Array | None, k: int) -> Array:
    scores = _class_scores(outputs)
    n, positions, classes = scores.shape
    wanted = _labels_like(labels, (n, positions)).astype(np.int64)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= classes):
        raise InputRejected(f"labels lie outside 0..{classes - 1}, the classes of the model's output")
    own = np.take_along_axis(scores, wanted[..., None], axis=-1)
    above = (scores > own).sum(axis=-1)
    ahead = ((scores == own) & (np.arange(classes) < wanted[..., None])).sum(axis=-1)  # argmax takes the first of a tie
    right: Array = (above + ahead < k) & ~np.isnan(scores).any(axis=-1)
    return right


def ctc_exact_match(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Does the greedy CTC decoding [n, T, C] equal the label sequence [n, L], padded with -1?

    Best path decoding, Graves et al., "Connectionist Temporal Classification" (2006), section 3.2, with 0 as the blank.
    """
    path = _class_scores(outputs).argmax(axis=-1)
    wanted = _required(labels).reshape(len(path), -1)
    return np.array(
        [_collapse(p) == [int(v) for v in w if v != LABEL_PADDING] for p, w in zip(path, wanted, strict=True)]
    )


def _collapse(path: Array) -> list[int]:
    kept = path[np.append(True, path[1:] != path[:-1])] if len(path) else path
    return [int(v) for v in kept if v != CTC_BLANK]


def binary_accuracy(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Is a probability (the first float output) on the label's side of 0.5? One answer a value; labels are 0 or 1."""
    scores = _first_float(outputs)
    flat = scores.reshape(len(scores), -1)
    wanted = _labels_like(labels, flat.shape)
    if not np.isin(wanted, (0, 1)).all():
        raise InputRejected("labels of binary-accuracy must be 0 or 1")
    right: Array = ((flat >= 0.5) == (wanted == 1)) & ~np.isnan(flat)
    return right


def pitch_50_cents(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """The share of voiced frames whose pitch is within 50 cents; labels are Hz, [n, frames], 0 or NaN where unvoiced.

    Raw pitch accuracy, Salamon et al., "Melody Extraction from Polyphonic Music Signals" (2014). Of several outputs the one whose
    name has "pitch" in it is taken. Raises InputRejected for a sample without a voiced frame: it has no score.
    """
    named = {name: value for name, value in outputs.items() if "pitch" in name.lower()}
    pitch = _first_float(named or outputs)
    pitch = pitch.reshape(len(pitch), -1).astype(np.float64)
    wanted = _labels_like(labels, pitch.shape).astype(np.float64)
    voiced = np.nan_to_num(wanted) > 0
    if not voiced.any(axis=1).all():
        raise InputRejected("a sample has no voiced frame, so its pitch has no score")
    with np.errstate(all="ignore"):
        cents = 1200 * np.abs(np.log2(pitch / wanted))
    right = voiced & (cents <= CENTS)
    share: Array = right.sum(axis=1) / voiced.sum(axis=1)
    return share


# ------------------------------------------------------------------------------------------------ against the reference


def top_1_agreement(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Is the highest score where the reference has it, at each position?"""
    own, other = _class_scores(outputs), _class_scores(reference)
    agree: Array = (own.argmax(axis=-1) == other.argmax(axis=-1)) & ~np.isnan(own).any(axis=-1)
    return agree


def cosine(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Cosine similarity to the reference, of the worst output; of integer and bool outputs the share of equal values."""
    worst: Array = np.min([similarity(outputs[name], reference[name]) for name in reference], axis=0)
    return worst


def similarity(candidate: Array, reference: Array) -> Array:
    """One output's likeness by sample, float64 [n]: 1 is equal.

    Two zero vectors are alike, a zero and another are not (0). Values that are not finite are left out where both sides have the
    same; one that only one side has makes its sample 0.
    """
    a, b = (x.reshape(len(x), -1) for x in (candidate, reference))
    if a.shape != b.shape:
        return np.zeros(len(b))
    if b.dtype.kind != "f":
        return (a == b).mean(axis=1) if b.shape[1] else np.ones(len(b))
    a, b = a.astype(np.float64), b.astype(np.float64)
    odd = ~(np.isfinite(a) & np.isfinite(b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    broken = (odd & ~same).any(axis=1)
    a, b = _scaled(np.where(odd, 0.0, a)), _scaled(np.where(odd, 0.0, b))
    aa, bb, ab = (a * a).sum(axis=1), (b * b).sum(axis=1), (a * b).sum(axis=1)
    both_zero = (aa == 0) & (bb == 0)
    value = np.where(both_zero, 1.0, ab / np.sqrt(np.where((aa == 0) | (bb == 0), 1.0, aa * bb)))
    return np.where(broken, 0.0, np.clip(value, -1.0, 1.0))


def _scaled(rows: Array) -> Array:
    """Each row over its largest magnitude: squares neither overflow nor vanish, and a cosine does not care."""
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    scaled: Array = rows / np.where(peak == 0, 1.0, peak)
    return scaled


def sqnr(outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Signal to quantization noise in dB, 10 log10(sum r^2 / sum (r - c)^2), of the worst float output."""
    floats = [name for name, value in reference.items() if value.dtype.kind == "f"]
    if not floats:
        raise InputRejected("sqnr needs a float output")
    worst: Array = np.min([_sqnr_db(*noise_and_signal(outputs[name], reference[name])) for name in floats], axis=0)
    return worst


def noise_and_signal(candidate: Array, reference: Array) -> tuple[Array, Array]:
    """By sample: sum of squared differences, sum of squares of the reference, over values finite in both."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (candidate, reference))
    finite = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    return ((a - b) ** 2).sum(axis=1), (b * b).sum(axis=1)


def _sqnr_db(noise: Array, signal: Array) -> Array:
    with np.errstate(all="ignore"):
        db = 10 * np.log10(signal / noise)
    return np.where(noise == 0, MAX_SQNR_DB, np.clip(db, -MAX_SQNR_DB, MAX_SQNR_DB))


# ---------------------------------------------------------------------------------------------------------- what is where


def _first_float(outputs: Outputs) -> Array:
    for value in outputs.values():
        if value.dtype.kind == "f":
            return value
    raise InputRejected("this metric needs a float output, the model has none", next_step="choose another --metric")


def _class_scores(outputs: Outputs) -> Array:
    """[n, positions, classes] of the first float output with a class axis."""
    for value in outputs.values():
        if value.dtype.kind == "f" and value.ndim >= 2 and value.shape[-1] > 1:
            return value.reshape(len(value), -1, value.shape[-1])
    raise InputRejected("this metric needs an output with one score a class", next_step="choose another --metric")


def _required(labels: Array | None) -> Array:
    if labels is None:
        raise InputRejected("this metric needs labels", next_step="add labels or choose --metric cosine")
    return labels


def _labels_like(labels: Array | None, shape: tuple[int, ...]) -> Array:
    """Labels as [n, positions]. Raises InputRejected when there isn't one for each position."""
    found = _required(labels)
    if found.size != int(np.prod(shape)):
        raise InputRejected(f"labels have shape {list(found.shape)}, the output has {list(shape)} positions to score")
    return found.reshape(shape)


METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("top-1", top_1, True, True, "fraction", "ImageNet challenge, Russakovsky et al. 2015"),
        Metric("top-5", top_5, True, True, "fraction", "ImageNet challenge, Russakovsky et al. 2015"),
        Metric("ctc-exact-match", ctc_exact_match, True, True, "fraction", "best path decoding, Graves et al. 2006"),
        Metric("binary-accuracy", binary_accuracy, True, True, "fraction", "threshold 0.5"),
        Metric("pitch-50-cents", pitch_50_cents, True, True, "fraction", "raw pitch accuracy, Salamon et al. 2014"),
        Metric("top-1-agreement", top_1_agreement, False, True, "fraction", "argmax equal to the reference's"),
        Metric("cosine", cosine, False, False, "cosine", "cosine similarity of the worst output"),
        Metric("sqnr", sqnr, False, False, "dB", "10 log10 of signal over noise power, worst output"),
    )
}


# --------------------------------------------------------------------------------------------------- the user's own code


def find_metric(spec: str, labelled: bool) -> Metric:
    """A built-in metric by name, or the user's `module:function` from the working directory. Raises InputRejected."""
    if ":" in spec:
        return load_metric(spec, Path.cwd(), labelled)
    if spec not in METRICS:
        raise InputRejected(f"unknown metric '{spec}'", where="--metric", next_step=did_you_mean(spec, METRICS))
    return METRICS[spec]


def load_metric(spec: str, cwd: Path, labelled: bool = True) -> Metric:
    """Import `module:function` with `cwd` first on the path; with labels it is a task metric. Raises InputRejected.

    It runs with the user's rights, inside the sandbox's limits.
    """
    module_name, _, name = spec.partition(":")
    if not re.fullmatch(r"[A-Za-z_][\w.]*", module_name) or not name.isidentifier():
        raise InputRejected(f"'{spec}' is not module:function", where="--metric")
    sys.path.insert(0, str(cwd))
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except (Exception, SystemExit) as error:  # the user's module may raise anything
        raise InputRejected(f"cannot be imported: {_one_line(error)}", where=f"--metric {spec}") from error
    finally:
        sys.path.remove(str(cwd))
    if not callable(function):
        raise InputRejected(f"'{module_name}' has no function '{name}'", where=f"--metric {spec}")
    return Metric(spec, function, labelled, True, "fraction", "the user's own")


def apply_metric(metric: Metric, outputs: Outputs, reference: Outputs, labels: Array | None) -> Array:
    """Scores of a block as float64 [n, positions], checked. Raises InputRejected when the function fails or misbehaves."""
    n = len(next(iter(reference.values())))
    where = f"metric {metric.name}"
    try:
        scores = np.asarray(metric.function(outputs, reference, labels), dtype=np.float64)
    except InputRejected as error:
        raise InputRejected(error.what, where=where, next_step=error.next_step) from error
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise InputRejected(f"failed: {_one_line(error)}", where=where) from error
    if scores.ndim not in (1, 2) or len(scores) != n or scores.size == 0:
        raise InputRejected(f"returned shape {list(scores.shape)} for {n} samples, not [{n}]", where=where)
    if not np.isfinite(scores).all():
        raise InputRejected("returned a score that is not finite", where=where)
    return scores.reshape(n, -1)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
