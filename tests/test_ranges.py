"""Ranges from histograms against references that see the whole data, and against what is known of distributions."""

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

from edgekit.errors import InputRejected, UsageError
from edgekit.quantize import ranges
from edgekit.quantize.histogram import EMPTY, SIDE, add
from edgekit.quantize.ranges import (
    ENTROPY_BINS,
    MAX_SQNR_DB,
    METHODS,
    RATIOS,
    Range,
    grid,
    percentile,
    scale_and_zero_point,
    sqnr_db,
)

U8, S8 = grid("uint8"), grid("int8", symmetric=True)
GRIDS = [U8, S8, grid("int8"), grid("uint8", symmetric=True), grid("uint8", reduce_range=True)]
RNG = np.random.default_rng(11)


def heavy(n):
    """Student's t, three degrees of freedom: a bulk and rare large values."""
    return RNG.standard_t(3, n)


DATA = {
    "normal": RNG.standard_normal(20_000) * 3,
    "shifted": RNG.standard_normal(20_000) + 1,
    "relu": np.maximum(RNG.standard_normal(20_000), 0),
    "sigmoid": 1 / (1 + np.exp(-RNG.standard_normal(20_000) * 4)),
    "negative": -RNG.exponential(size=20_000) * 1e-3,
    "heavy": heavy(20_000),
    "silu": (lambda x: x / (1 + np.exp(-x)))(RNG.standard_normal(20_000) * 3),
    "outlier": np.append(RNG.standard_normal(20_000), 300.0),
}
everything = pytest.mark.parametrize("name", DATA)
every_grid = pytest.mark.parametrize("codes", GRIDS, ids=str)


def of(values):
    return add(EMPTY, np.asarray(values, np.float64))


def whole(values, codes):
    """The data's own range with zero inside, symmetric where the codes are."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    return (-max(-low, high), max(-low, high)) if codes.symmetric else (low, high)


# -------------------------------------------------------------------------------------- references on the whole data


def percentile_of(values, codes, percent=99.99):
    """By sorting: at most the share beyond the percentile is clipped."""
    if codes.symmetric:
        ordered = np.sort(np.abs(values))
        end = ordered[len(values) - 1 - round_down(len(values) * (100 - percent) / 100)]
        return -end, end
    ordered = np.sort(values)
    cut = round_down(len(values) * (100 - percent) / 200)
    return min(ordered[cut], 0.0), max(ordered[len(values) - 1 - cut], 0.0)


def round_down(number):
    return math.floor(number + 1e-9)


def entropy_of(values, codes):
    """TensorRT's search as its slides tell it, threshold by threshold, on one histogram of all the data."""
    values = values[values != 0]
    low, high = whole(values, codes)
    levels = codes.highest - codes.lowest + 1
    if codes.symmetric or low == 0 or high == 0:
        values = np.abs(values)
        levels = (codes.highest - codes.lowest) // 2 + 1 if codes.symmetric else levels
    width = of(values).width * (SIDE // ENTROPY_BINS)
    below = int(-values.min() / width) + 1 if values.min() < 0 else 0
    above = int(values.max() / width) + 1
    counts = np.histogram(values, np.arange(-below, above + 1) * width)[0].astype(float)
    best = (math.inf, 0)
    for i in range(1, max(below, above) + 1):
        first, last = max(below - i, 0), min(below + i, below + above)
        if last - first >= levels:
            inside, clipped = counts[first:last], counts[first:last].copy()
            clipped[0] += counts[:first].sum()
            clipped[-1] += counts[last:].sum()
            best = min(best, (divergence(clipped, inside, levels), -i))
    threshold = -best[1] * width
    return max(low, -threshold), min(high, threshold)


def divergence(p, inside, levels):
    """KL(P || Q), Q spread over the non-empty bins of each level; rounded, so that equals are equal."""
    starts = np.arange(levels) * len(p) // levels
    sizes = np.diff([*starts, len(p)])
    spread = np.add.reduceat(inside, starts) / np.maximum(np.add.reduceat(p > 0, starts, dtype=int), 1)
    q = np.where(p > 0, np.maximum(np.repeat(spread, sizes), 1e-4), 0)
    if inside.sum() == 0:
        return math.inf
    p, q = p[p > 0] / p.sum(), q[p > 0] / inside.sum()
    return round(float((p * np.log(p / q)).sum()), 11)


def quantized_error(values, low, high, codes):
    """The mean squared error of quantizing the data itself."""
    scale, zero = scale_and_zero_point(Range(low, high), codes)
    code = np.clip(np.rint(values / scale) + zero, codes.lowest, codes.highest)
    return float(((values - (code - zero) * scale) ** 2).mean())


# ------------------------------------------------------------------------------------------ equal to the references


@everything
@every_grid
def test_minmax_is_exact(name, codes):
    found = METHODS["minmax"](of(DATA[name]), codes)
    assert (found.low, found.high) == whole(DATA[name], codes)


@everything
@every_grid
@pytest.mark.parametrize("percent", [99.99, 99.9, 95.0, 100])
def test_percentiles_are_within_a_bin(name, codes, percent):
    histogram = of(DATA[name])
    found = percentile(histogram, codes, percent)
    low, high = percentile_of(DATA[name], codes, percent)
    assert -histogram.width < found.low - low <= 0 <= high - found.low
    assert 0 <= found.high - high < histogram.width


@everything
@pytest.mark.parametrize("codes", [U8, S8], ids=str)
def test_entropy_is_within_a_bin(name, codes):
    histogram = of(DATA[name])
    found = METHODS["entropy"](histogram, codes)
    low, high = entropy_of(DATA[name], codes)
    assert abs(found.low - low) < histogram.width
    assert abs(found.high - high) < histogram.width


@everything
@every_grid
def test_mse_is_the_least_error_on_the_data(name, codes):
    values = DATA[name]
    low, high = whole(values, codes)
    found = METHODS["mse"](of(values), codes)
    error = quantized_error(values, found.low, found.high, codes)
    two_sided = low < 0 < high and not codes.symmetric
    tried = [(a, b) for a in RATIOS[::8] for b in RATIOS[::8]] if two_sided else [(ratio, ratio) for ratio in RATIOS]
    best = min((quantized_error(values, low * a, high * b, codes), -a, -b) for a, b in tried)
    assert error <= best[0] * 1.005
    if not two_sided:
        chosen = Range(low * -best[1], high * -best[2])
        tied = quantized_error(values, chosen.low, chosen.high, codes) >= error * 0.995
        assert tied or abs(found.high - chosen.high) < of(values).width


@everything
@every_grid
@pytest.mark.parametrize("method", METHODS)
def test_the_expected_sqnr_is_the_datas(name, codes, method):
    values = DATA[name]
    found = METHODS[method](of(values), codes)
    noise = quantized_error(values, found.low, found.high, codes)
    expected = 10 * math.log10((values**2).mean() / noise)
    assert sqnr_db(of(values), found, codes) == pytest.approx(expected, abs=0.1)


def test_nothing_is_lost_of_zeros():
    assert sqnr_db(of(np.zeros(9)), Range(0, 0), U8) == sqnr_db(EMPTY, Range(0, 0), U8) == MAX_SQNR_DB
    assert sqnr_db(of(np.full(9, 3.0)), Range(0, 0), U8) < 10


def test_a_wrong_expected_error_is_seen(monkeypatch):
    """The control: an integral that forgets what is clipped would always clip."""
    values = DATA["normal"]
    right = METHODS["mse"](of(values), U8)

    def careless(points, clipped, codes):
        scale, zero = scale_and_zero_point(clipped, codes)
        inside = np.clip(points, (codes.lowest - zero) * scale, (codes.highest - zero) * scale)
        return scale**2 * inside / 12

    monkeypatch.setattr(ranges, "_squared_error", careless)
    wrong = METHODS["mse"](of(values), U8)
    assert quantized_error(values, wrong.low, wrong.high, U8) > 2 * quantized_error(values, right.low, right.high, U8)


# ------------------------------------------------------------------------------------------------ known distributions


@pytest.mark.parametrize(("draw", "clip"), [("standard_normal", 3.92), ("laplace", 9.89)])
def test_mse_finds_the_known_clipping_of_eight_bits(draw, clip):
    """ACIQ's alpha for 8 bits (Banner et al., 2019): 3.92 sigma of a normal, 9.89 b of a Laplace distribution."""
    values = getattr(np.random.default_rng(1), draw)(size=1_000_000)
    found = METHODS["mse"](of(values), S8)
    assert found.high == pytest.approx(clip, rel=0.06)


def test_entropy_keeps_a_uniform_range_and_drops_an_outlier():
    flat = np.random.default_rng(2).uniform(0, 1, 200_000)
    assert METHODS["entropy"](of(flat), U8).high == flat.max()
    found = METHODS["entropy"](of(np.append(flat, 20.0)), U8)
    assert 1 <= found.high < 4
    assert METHODS["minmax"](of(np.append(flat, 20.0)), U8).high == 20


def test_zeros_behind_a_relu_do_not_decide():
    positive = np.abs(np.random.default_rng(3).standard_normal(50_000))
    padded = np.append(positive, np.zeros(500_000))
    for method in ("entropy", "mse", "minmax"):
        assert METHODS[method](of(padded), U8) == METHODS[method](of(positive), U8)


# -------------------------------------------------------------------------------------------------------- odd data


@pytest.mark.parametrize("method", METHODS)
@every_grid
@pytest.mark.parametrize("value", [3.7, -2.0, 1e-30, 1e-45, -6e37, 5e-324, 1e300])
def test_constant_data(method, codes, value):
    found = METHODS[method](of(np.full(1000, value)), codes)
    low, high = whole(np.array([value]), codes)
    assert low <= found.low <= 0 <= found.high <= high
    if abs(value) > 1e-30:
        step = (high - low) / (codes.highest - codes.lowest)
        assert max(-found.low, found.high) >= abs(value) - step


@pytest.mark.parametrize("method", METHODS)
@every_grid
def test_nothing_but_zero_and_nothing_at_all(method, codes):
    assert METHODS[method](of(np.zeros(100)), codes) == Range(0, 0)
    assert METHODS[method](EMPTY, codes) == Range(0, 0)
    assert scale_and_zero_point(Range(0, 0), codes) == (1, 0)


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=30)
@given(
    values=arrays.arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)),
    codes=st.sampled_from(GRIDS),
)
def test_zero_is_inside_and_the_data_bounds_the_range(method, values, codes):
    found = METHODS[method](of(values), codes)
    low, high = whole(values, codes)
    assert low <= found.low <= 0 <= found.high <= high
    assert not codes.symmetric or found.low == -found.high


# -------------------------------------------------------------------------------------------------- codes and errors


@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_codes_scales_and_zero_points_are_onnx_runtimes(dtype, symmetric, reduce_range):
    kind = getattr(onnx.TensorProto, dtype.upper())
    codes = grid(dtype, symmetric=symmetric, reduce_range=reduce_range)
    lowest, highest = get_qmin_qmax_for_qType(kind, reduce_range, symmetric)
    assert (codes.lowest, codes.highest) == (lowest, highest)
    for low, high in [(-1.0, 3.0), (0.0, 6.0), (-0.3, 0.1), (-5.0, 0.0), (0.0, 0.0), (0.0, 1e-40)]:
        end = max(-low, high)
        found = Range(-end, end) if symmetric else Range(low, high)
        zero, scale = compute_scale_zp(np.float32(low), np.float32(high), lowest, highest, symmetric)
        assert scale_and_zero_point(found, codes) == (pytest.approx(float(scale), rel=1e-6), int(zero))


def test_tensors_that_were_not_finite_are_named():
    bad = add(EMPTY, np.array([1.0, np.nan, np.inf]))
    with pytest.raises(InputRejected, match=r"not finite in 'conv' \(2\)"):
        ranges.find_ranges({"fine": of([1.0]), "conv": bad}, "minmax", U8)
    assert ranges.find_ranges({"fine": of([1.0])}, "minmax", U8) == {"fine": Range(0, 1)}


def test_unknown_methods_types_and_percentiles_are_refused():
    for wrong in (
        lambda: ranges.find_ranges({}, "magic", U8),
        lambda: grid("int4"),
        lambda: percentile(EMPTY, U8, 50),
        lambda: percentile(EMPTY, U8, 101),
    ):
        with pytest.raises(UsageError):
            wrong()
