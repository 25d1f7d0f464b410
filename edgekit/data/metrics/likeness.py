"""How like the reference's the outputs are, as numbers, whatever they mean."""

from dataclasses import dataclass, fields

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics.record import Array, Outputs
from edgekit.errors import InputRejected

# A score must be finite: outputs that are equal have no noise and get this, about what float64 rounding leaves.
MAX_SQNR_DB = 300.0

# Values compared at a time: a few float64 arrays of this length stay in a core's cache.
PIECE = 1 << 14


def cosine(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
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
    return likeness(candidate, reference).cosine


@dataclass(frozen=True)
class Likeness:
    """Two float outputs of the same shape compared, each value by sample, float64 [n].

    `noise` is the sum of squared differences and `signal` that of the reference's squares, over values finite in both;
    `largest_gap` the largest finite difference; `lost` counts values that are finite in the reference only.
    """

    cosine: Array
    noise: Array
    signal: Array
    largest_gap: Array
    lost: Array


def likeness(candidate: Array, reference: Array) -> Likeness:
    """All of it in one pass, a piece at a time that stays in a core's cache: outputs may be megabytes a sample."""
    a, b = (x.reshape(len(x), -1) for x in (candidate, reference))
    rows = max(1, PIECE // max(1, b.shape[1]))
    parts = [_likeness(a[i : i + rows], b[i : i + rows]) for i in range(0, len(b), rows)] or [_likeness(a, b)]
    columns = ([getattr(part, field.name) for part in parts] for field in fields(Likeness))
    return Likeness(*map(np.concatenate, columns))


def _likeness(a: Array, b: Array) -> Likeness:
    """A few samples, whose values are taken PIECE at a time."""
    sums = np.zeros((5, len(b)))  # a*a, b*b, a*b, (a-b)^2, values finite in the reference only
    gap, broken = np.zeros(len(b)), np.zeros(len(b), bool)
    wide = b.dtype == np.float64  # squares of narrower floats neither overflow nor vanish in float64
    scales = (_peak(a), _peak(b)) if wide else (1.0, 1.0)
    signal = np.zeros(len(b))
    for i in range(0, b.shape[1], PIECE):
        x, y = (side[:, i : i + PIECE].astype(np.float64) for side in (a, b))
        finite = np.isfinite(x) & np.isfinite(y)
        if not finite.all():
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            broken |= (~finite & ~same).any(axis=1)
            sums[4] += (np.isfinite(y) & ~np.isfinite(x)).sum(axis=1)
            x, y = np.where(finite, x, 0.0), np.where(finite, y, 0.0)
        away = x - y
        gap = np.maximum(gap, np.max(np.abs(away), axis=1, where=np.isfinite(away), initial=0.0))
        sums[3] += np.einsum("ij,ij->i", away, away)
        signal += np.einsum("ij,ij->i", y, y)
        if wide:
            x, y = x / scales[0], y / scales[1]
        sums[:3] += [np.einsum("ij,ij->i", p, q) for p, q in ((x, x), (y, y), (x, y))]
    aa, bb, ab, noise, lost = sums
    both_zero = (aa == 0) & (bb == 0)
    value = np.where(both_zero, 1.0, ab / np.sqrt(np.where((aa == 0) | (bb == 0), 1.0, aa * bb)))
    return Likeness(np.where(broken, 0.0, np.clip(value, -1.0, 1.0)), noise, signal, gap, lost)


def _peak(rows: Array) -> Array:
    """Each row's largest finite magnitude, 1 where all is zero: a cosine does not care for a scale."""
    peak = np.max(np.abs(rows), axis=1, keepdims=True, where=np.isfinite(rows), initial=0.0)
    return np.where(peak == 0, 1.0, peak)


def sqnr(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Signal to quantization noise in dB, 10 log10(sum r^2 / sum (r - c)^2), of the worst float output.

    Jayant and Noll, "Digital Coding of Waveforms" (1984), chapter 4.
    """
    floats = [name for name, value in reference.items() if value.dtype.kind == "f"]
    if not floats:
        raise InputRejected("sqnr needs a float output")
    worst: Array = np.min([_sqnr_db(*noise_and_signal(outputs[name], reference[name])) for name in floats], axis=0)
    return worst


def noise_and_signal(candidate: Array, reference: Array) -> tuple[Array, Array]:
    """By sample: sum of squared differences, sum of squares of the reference, over values finite in both."""
    found = likeness(candidate, reference)
    return found.noise, found.signal


def _sqnr_db(noise: Array, signal: Array) -> Array:
    with np.errstate(all="ignore"):
        db = 10 * np.log10(signal / noise)
    return np.where(noise == 0, MAX_SQNR_DB, np.clip(db, -MAX_SQNR_DB, MAX_SQNR_DB))


def max_abs(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """The largest absolute difference of a sample's values from the reference's, of the worst output; lower is better.

    The Chebyshev distance. The metric's value is the mean over samples: the maximum over a set has no bootstrap interval (Bickel
    and Freedman, "Some Asymptotic Theory for the Bootstrap", 1981, section 6), and stands beside every metric as `max_abs_diff`.
    Values that are not finite on both sides are left out and counted apart; an output of another shape differs by its largest.
    """
    worst: Array = np.max([_largest_gap(outputs[name], reference[name]) for name in reference], axis=0)
    return worst


def _largest_gap(candidate: Array, reference: Array) -> Array:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (candidate, reference))
    with np.errstate(invalid="ignore"):
        gap = np.abs(a - b) if a.shape == b.shape else np.abs(b)
    largest: Array = np.max(gap, axis=1, where=np.isfinite(gap), initial=0.0)
    return largest
