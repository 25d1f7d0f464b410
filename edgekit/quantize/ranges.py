"""From a histogram to the range an 8-bit type is given: minimum and maximum, percentile, entropy, mean squared error. Pure.

- Zero is always inside a range: padding and ReLU need it exact, and ONNX's zero point is an integer.
- A symmetric range is [-t, t]. An asymmetric one never reaches beyond the data (but to zero).
- Exact zeros are left out where errors are weighed: every range represents them exactly, and behind a ReLU they are half of all.
- Among equally good ranges the widest is taken.
- A tensor that is zero throughout, or has no values, gets (0, 0).
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import InputRejected, UsageError
from edgekit.quantize.histogram import SIDE, Histogram

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PERCENT = 99.99

# Bins a side for the entropy: TensorRT's 2,048 are 16 for each of its 128 levels, and so are these for 256. Far finer ones hold
# one value or none, and every range looks lossless.
ENTROPY_BINS = 4096

# What an empty level counts for where clipped values fall into it, in values: ONNX Runtime's `smooth_distribution`.
ENTROPY_FLOOR = 1e-4

# Clipping ratios that are tried for the least squared error: 16 an octave (steps of 4%; the error is flat near its minimum).
RATIOS = tuple(2.0 ** (-i / 16) for i in range(7 * 16 + 1))
_MAX_ROUNDS = 8

MAX_SQNR_DB = 200.0


@dataclass(frozen=True)
class Grid:
    """The codes `lowest`..`highest` of a quantized type; `symmetric` types have their zero point in the middle."""

    lowest: int
    highest: int
    symmetric: bool


@dataclass(frozen=True)
class Range:
    """What is represented; values outside are clipped. low <= 0 <= high."""

    low: float
    high: float


# The same codes as ONNX Runtime gives these types (onnxruntime/quantization/quant_utils.py, get_qmin_qmax_for_qType).
_CODES = {
    ("uint8", False): (0, 255),
    ("uint8", True): (0, 255),
    ("int8", False): (-128, 127),
    ("int8", True): (-127, 127),
}
_REDUCED_CODES = {"uint8": (0, 127), "int8": (-64, 64)}
_LEAST_SCALE = float(np.finfo(np.float32).tiny)


def grid(dtype: str, *, symmetric: bool = False, reduce_range: bool = False) -> Grid:
    """The codes of "uint8" or "int8", 7 bits of them with `reduce_range`. Raises UsageError for another type."""
    if dtype not in _REDUCED_CODES:
        raise UsageError(f"'{dtype}' is not a type for activations", next_step="use uint8 or int8")
    return Grid(*(_REDUCED_CODES[dtype] if reduce_range else _CODES[dtype, symmetric]), symmetric)


def scale_and_zero_point(found: Range, codes: Grid) -> tuple[float, int]:
    """value = scale * (code - zero point), as ONNX Runtime computes it (quant_utils.py, compute_scale_zp).

    A range too narrow for a float32 scale, (0, 0) for one, gets (1, 0).
    """
    scale = (found.high - found.low) / (codes.highest - codes.lowest)
    if scale < _LEAST_SCALE:
        return 1.0, 0
    middle = (codes.lowest + codes.highest) / 2
    return scale, int(np.rint(middle if codes.symmetric else codes.lowest - found.low / scale))


# ------------------------------------------------------------------------------------------------------------- methods


def minmax(state: Histogram, codes: Grid) -> Range:
    """The exact minimum and maximum."""
    return _within(state, codes, np.inf, np.inf)


def percentile(state: Histogram, codes: Grid, percent: float = PERCENT) -> Range:
    """The narrowest range of whole bins that clips at most 100 - `percent` of the values, half of them at either end.

    For symmetric types the values are their magnitudes. Raises UsageError unless 50 < percent <= 100.
    """
    if not 50 < percent <= 100:
        raise UsageError(f"{percent} is not a percentile for a range", next_step="choose one above 50, at most 100")
    share = (100 - Fraction(str(percent))) / 100
    width = state.width
    if codes.symmetric:
        folded = _folded(state.counts)
        return _within(state, codes, *([_reach(folded, int(state.count * share)) * width] * 2))
    cut = int(state.count * share / 2)
    below, above = _reach(state.counts[::-1], cut) - SIDE, _reach(state.counts, cut) - SIDE
    return _within(state, codes, max(below, 0) * width, max(above, 0) * width)


def entropy(state: Histogram, codes: Grid) -> Range:
    """The range whose quantized distribution differs least from the data's: minimum of the Kullback-Leibler divergence.

    After S. Migacz, "8-bit Inference with TensorRT", GTC 2017 (also ONNX Runtime's `get_entropy_threshold`): for each threshold t
    on the magnitude, P is the histogram within [-t, t] and the data's range, with everything outside added to its end bins; Q is
    the histogram without what is outside, spread evenly over the non-empty bins of each level. Thresholds are multiples of the
    width of ENTROPY_BINS bins a side and leave at least one bin a level. Where Q is zero and P is not, Q is ENTROPY_FLOOR. Here
    exact zeros are left out, and levels take bins evenly (theirs leave the remainder to the last one).
    """
    counts = _without_zeros(state).reshape(-1, SIDE // ENTROPY_BINS).sum(axis=1)
    width = state.width * (SIDE // ENTROPY_BINS)
    two_sided = state.low < 0 < state.high and not codes.symmetric
    if not two_sided:
        counts = _folded(counts)
    steps = codes.highest - codes.lowest
    levels = (steps // 2 if codes.symmetric else steps) + 1
    reach = _bins_reached(state.peak, width)
    center = len(counts) // 2 if two_sided else 0
    first = center - _bins_reached(-state.low, width) if two_sided else 0
    last = center + (_bins_reached(state.high, width) if two_sided else reach)
    tried = np.arange(1, reach + 1)
    tried = tried[np.minimum(center + tried, last) - np.maximum(center - tried, first) >= levels]
    if counts.sum() == 0 or tried.size == 0:
        return minmax(state, codes)
    divergences = np.concatenate(
        [
            _divergences(counts, np.maximum(center - some, first), np.minimum(center + some, last), levels)
            for some in np.array_split(tried, -(-tried.size // 128))
        ]
    )
    threshold = float(tried[np.flatnonzero(divergences <= divergences.min() + 1e-12)[-1]]) * width
    return _within(state, codes, threshold, threshold)


def mse(state: Histogram, codes: Grid) -> Range:
    """The range of least expected squared quantization error among clipping ratios RATIOS of the exact minimum and maximum.

    Values count as spread evenly over their bin. Both ends are first clipped alike, then one after the other until neither
    moves. The criterion is that of Banner et al., "Post training 4-bit quantization" (NeurIPS 2019), section 3, taken over the
    histogram instead of an assumed distribution, and with the codes' own scale and zero point.
    """
    whole = minmax(state, codes)
    spread = _Spread(state)
    if spread.empty:
        return whole

    @functools.cache
    def error(ratios: tuple[float, float]) -> float:
        return spread.error(Range(whole.low * ratios[0], whole.high * ratios[1]), codes)

    low, high = min(((ratio, ratio) for ratio in RATIOS), key=error)
    if not codes.symmetric and whole.low < 0 < whole.high:
        for _ in range(_MAX_ROUNDS):
            before = low, high
            low, high = min([before, *((low, ratio) for ratio in RATIOS)], key=error)
            low, high = min([(low, high), *((ratio, high) for ratio in RATIOS)], key=error)
            if (low, high) == before:
                break
    return Range(whole.low * low, whole.high * high)


Method = Callable[[Histogram, Grid], Range]
METHODS: Mapping[str, Method] = {"minmax": minmax, "percentile": percentile, "entropy": entropy, "mse": mse}


def find_ranges(histograms: Mapping[str, Histogram], method: str, codes: Grid) -> dict[str, Range]:
    """The range of every tensor. Raises InputRejected naming tensors that held values that are not finite, UsageError."""
    if method not in METHODS:
        raise UsageError(f"'{method}' is not a range method", next_step=f"choose one of {', '.join(METHODS)}")
    bad = [f"'{name}' ({state.nonfinite})" for name, state in histograms.items() if state.nonfinite]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise InputRejected(
            f"calibration saw values that are not finite in {', '.join(bad[:3])}{more}",
            next_step="look for inputs the model overflows on: edgekit data check",
        )
    return {name: METHODS[method](state, codes) for name, state in histograms.items()}


def sqnr_db(state: Histogram, found: Range, codes: Grid) -> float:
    """The expected signal-to-quantization-noise ratio of a tensor, in dB, values taken as spread evenly over their bin.

    At most MAX_SQNR_DB, which is also that of a tensor of zeros: nothing is lost there.
    """
    spread = _Spread(state)
    noise = spread.error(found, codes)
    return MAX_SQNR_DB if noise <= 0 else min(MAX_SQNR_DB, 10 * math.log10(max(spread.power(), 1e-300) / noise))


# --------------------------------------------------------------------------------------------------------------- parts


def _within(state: Histogram, codes: Grid, below: float, above: float) -> Range:
    """[-below, above] within the data's own range, symmetric where the codes are."""
    if state.count == 0:
        return Range(0.0, 0.0)
    if codes.symmetric:
        end = min(max(below, above), state.peak)
        return Range(-end, end)
    return Range(min(max(-below, state.low), 0.0), max(min(above, state.high), 0.0))


def _folded(counts: Ints) -> Ints:
    """Counts of magnitudes: bins of the two sides mirror each other."""
    half = len(counts) // 2
    folded: Ints = counts[half:] + counts[:half][::-1]
    return folded


def _without_zeros(state: Histogram) -> Ints:
    """The counts of values other than zero."""
    counts = state.counts.copy()
    counts[SIDE] -= state.zeros
    return counts


def _reach(counts: Ints, cut: int) -> int:
    """The number of bins from the first on that hold all values but the last `cut`."""
    running = np.cumsum(counts)
    return int(np.searchsorted(running, running[-1] - cut)) + 1


def _bins_reached(end: float, width: float) -> int:
    """How many bins on one side hold a magnitude `end`."""
    return int(end / width) + 1


def _xlogx(values: Any) -> Floats:
    """x log x, 0 at 0."""
    floats = np.asarray(values, np.float64)
    result: Floats = floats * np.log(np.where(floats > 0, floats, 1.0))
    return result


def _divergences(counts: Ints, lower: Ints, upper: Ints, levels: int) -> Floats:
    """KL(P || Q) for each window [lower, upper) of bins; infinite for an empty one.

    Of KL = sum P log P - sum P log Q the first sum differs from the histogram's own running sum in the end bins only, and Q is
    constant over the non-empty bins of a level: with running sums a window costs as much as it has levels, not bins.
    """
    values = np.concatenate([[0], np.cumsum(counts)])
    filled = np.concatenate([[0], np.cumsum(counts > 0)])
    plogp = np.concatenate([[0.0], np.cumsum(_xlogx(counts))])
    left, right = values[lower], values[-1] - values[upper]
    first, last = counts[lower], counts[upper - 1]

    total, inside = float(values[-1]), values[upper] - values[lower]
    p_log_p = plogp[upper] - plogp[lower] - _xlogx(first) - _xlogx(last) + _xlogx(first + left) + _xlogx(last + right)

    bounds = lower[:, None] + (np.arange(levels + 1) * (upper - lower)[:, None]) // levels
    q_mass, q_bins = np.diff(values[bounds]), np.diff(filled[bounds])
    p_mass = q_mass.copy()
    for level, outside, end in ((0, left, first), (-1, right, last)):
        p_mass[:, level] += outside
        q_bins[:, level] += (outside > 0) & (end == 0)
    log_q = np.log(np.where(q_mass > 0, q_mass / np.maximum(q_bins, 1), ENTROPY_FLOOR))
    p_log_q = (p_mass * log_q).sum(axis=1)
    divergence = (p_log_p - p_log_q) / total - np.log(total) + np.log(np.maximum(inside, 1))
    result: Floats = np.where(inside == 0, np.inf, divergence)
    return result


class _Spread:
    """A histogram's values other than zero, spread evenly over their bins; in units of the width, or cubes could overflow."""

    def __init__(self, state: Histogram) -> None:
        counts = _without_zeros(state)
        filled = np.flatnonzero(counts)
        ends, places = np.unique(np.concatenate([filled, filled + 1]) - SIDE, return_inverse=True)
        self._points: Floats = ends.astype(np.float64)
        self._starts, self._stops = np.split(places, 2)
        self._weights = counts[filled].astype(np.float64)
        self._width = state.width
        self.empty = filled.size == 0

    def error(self, found: Range, codes: Grid) -> float:
        """The summed squared error of quantizing the values."""
        return self._summed(
            _squared_error(self._points, Range(found.low / self._width, found.high / self._width), codes)
        )

    def power(self) -> float:
        """The summed squares of the values."""
        return self._summed(self._points * self._points * self._points / 3)

    def _summed(self, integral: Floats) -> float:
        return float(self._weights @ (integral[self._stops] - integral[self._starts]))


def _squared_error(points: Floats, clipped: Range, codes: Grid) -> Floats:
    """The integral of the squared quantization error from 0 to each point.

    Within the represented range the error over one step of size s is s**3 / 12, and f**3 * s**3 / 3 over the fraction f beyond a
    code; outside it is the distance to the last code, squared.
    """
    scale, zero = scale_and_zero_point(clipped, codes)
    inside = np.clip(points, (codes.lowest - zero) * scale, (codes.highest - zero) * scale)
    code = np.rint(inside / scale)
    rest, beyond = inside - code * scale, points - inside
    # Multiplied out: numpy's ** 3 takes 30 times as long.
    result: Floats = scale**3 / 12 * code + (rest * rest * rest + beyond * beyond * beyond) / 3
    return result
