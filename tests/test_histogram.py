"""Streaming histograms: the state depends on the multiset of values alone, bins are exact, nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekit.quantize import histogram
from edgekit.quantize.histogram import BINS, EMPTY, MIN_EXPONENT, SIDE, Histogram, add, merge

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int32, np.int64, np.bool_]

# From the smallest denormal to the largest float, exact powers of two and their neighbours, both zeros.
NASTY = [0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-45, -1e-45, 2.0**-126, 1e-300, -1e300, 3.4e38, 1.7e308]
NASTY += [x for k in (-40, -13, 0, 5, 13, 100) for x in (2.0**k, -(2.0**k), np.nextafter(2.0**k, 0))]


def state(h: Histogram) -> tuple:
    """Every bit of it; the sign of a zero too."""
    ends = np.array([h.low, h.high], np.float64).tobytes()
    return h.counts.tobytes(), h.exponent, ends, h.count, h.zeros, h.nonfinite


def of(values, dtype=None) -> Histogram:
    with np.errstate(over="ignore"):
        return add(EMPTY, np.asarray(values, dtype))


def bins(values: np.ndarray, exponent: int) -> np.ndarray:
    """The definition, in exact integer arithmetic, one value at a time."""
    counts = np.zeros(BINS, np.int64)
    for value in values.tolist():
        numerator, denominator = abs(float(value)).as_integer_ratio()
        if exponent >= 0:
            denominator <<= exponent
        else:
            numerator <<= -exponent
        j = numerator // denominator
        counts[SIDE - 1 - j if value < 0 else SIDE + j] += 1
    return counts


def floats(dtype=np.float64, nonfinite=False):
    width = 8 * np.dtype(dtype).itemsize
    fits = [float(x) for x in NASTY if abs(x) <= float(np.finfo(dtype).max)]
    rounded = [float(np.asarray(x, dtype)) for x in fits]
    values = st.floats(width=width, allow_nan=nonfinite, allow_infinity=nonfinite) | st.sampled_from(rounded)
    return arrays.arrays(dtype, st.integers(0, 60), elements=values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@settings(deadline=None)
@given(data=st.data())
def test_order_batches_and_merging_change_no_bit(dtype, data):
    values = data.draw(floats(dtype, nonfinite=True))
    whole = state(of(values))
    assert state(of(values[data.draw(st.permutations(range(len(values))))])) == whole
    cut = data.draw(st.integers(0, len(values)))
    batched = add(add(EMPTY, values[:cut]), values[cut:])
    assert state(batched) == whole
    assert state(merge(of(values[:cut]), of(values[cut:]))) == whole
    assert state(merge(of(values[cut:]), of(values[:cut]))) == whole


@settings(deadline=None)
@given(values=floats())
def test_every_value_is_in_the_bin_it_belongs_to(values):
    found = of(values)
    assert np.array_equal(found.counts, bins(values, found.exponent))
    assert (found.count, found.zeros) == (len(values), int((values == 0).sum()))
    if len(values):
        assert (found.low, found.high) == (values.min(), values.max())
        peak = np.abs(values).max()
        assert found.exponent == MIN_EXPONENT or SIDE / 2 <= peak / found.width < SIDE


def test_a_histogram_with_a_rounding_defect_is_seen(monkeypatch):
    """The control: bins by rounded division, as most histograms have them, fail the two tests above."""

    def rounded(chunk, exponent):
        return np.rint(chunk / 2.0**exponent).astype(np.intp) + SIDE - (chunk < 0)

    values = np.array([0.3, 1.49, -2.51, 900.0])
    parts = [values[:2], values[2:]]
    assert np.array_equal(of(values).counts, bins(values, of(values).exponent))
    assert state(merge(*map(of, parts))) == state(of(values))
    monkeypatch.setattr(histogram, "_places", rounded)
    assert not np.array_equal(of(values).counts, bins(values, of(values).exponent))
    assert state(merge(*map(of, parts))) != state(of(values))


def test_doubling_keeps_every_count_on_its_side():
    values = np.linspace(-1, 1, 1001)[np.arange(1001) != 500]
    fine = of(values)
    for power in range(20):
        wide = add(fine, np.array([2.0**power]))
        assert wide.counts.sum() == 1001
        assert wide.counts[:SIDE].sum() == 500
        assert np.array_equal(wide.counts, bins(np.append(values, 2.0**power), wide.exponent))
    assert state(add(fine, np.array([0.999]))) != state(fine)
    assert add(fine, np.array([0.999])).exponent == fine.exponent


def test_values_too_small_for_their_scale_keep_their_side():
    tiny = np.array([-1e-45, 1e-45, -2e-38, 0.0, -0.0], np.float32)
    for mixed in (np.append(tiny, np.float32(3e38)), np.append(np.float32(3e38), tiny)):
        found = of(mixed)
        assert (found.counts[SIDE - 1], found.counts[SIDE], found.zeros) == (2, 3, 2)
        assert found.counts[SIDE:].sum() == 4
    found = add(of([1e300, -1e300]), tiny)
    assert (found.counts[SIDE - 1], found.counts[SIDE], found.low) == (2, 3, -1e300)


@pytest.mark.parametrize("dtype", DTYPES)
def test_types_count_as_the_numbers_they_are(dtype):
    rng = np.random.default_rng(5)
    values = (rng.integers(-100, 100, 500) / 1).astype(dtype)
    assert state(of(values)) == state(of(values.astype(np.float64)))
    assert state(of(values.astype(values.dtype.newbyteorder(">")))) == state(of(values))


def test_shape_layout_and_chunks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(6)
    values = rng.standard_normal((7, 11, 13)) * 10.0 ** rng.integers(-9, 9, (7, 11, 13))
    whole = state(of(values))
    assert state(of(values.ravel())) == whole
    assert state(of(np.asfortranarray(values))) == whole
    assert state(of(values[::-1, ::-1].transpose(2, 0, 1))) == whole
    for chunk, few in ((1, 9), (7, 9), (1000, 9), (1000, 2000)):
        monkeypatch.setattr(histogram, "_CHUNK", chunk)
        monkeypatch.setattr(histogram, "_FEW", few)
        assert state(of(values)) == whole


def test_what_is_not_finite_is_counted_and_stands_nowhere_else():
    values = np.array([1.0, np.nan, -2.0, np.inf, -np.inf, np.nan, 0.0])
    found = of(values)
    assert found.nonfinite == 4
    assert state(found)[:5] == state(of([1.0, -2.0, 0.0]))[:5]
    assert of([np.nan, np.inf]).count == 0
    assert of([np.nan]).exponent == EMPTY.exponent


def test_nothing_added_is_nothing():
    assert state(of([])) == state(EMPTY)
    assert state(add(of([1.0, 2.0]), np.zeros((3, 0)))) == state(of([1.0, 2.0]))
    assert EMPTY.peak == 0
    zero = of(np.zeros(5))
    assert (zero.low, zero.high, zero.peak, zero.zeros, zero.counts[SIDE]) == (0, 0, 0, 5, 5)


def test_a_state_is_never_written_to():
    before = of([1.0, 2.0])
    kept = state(before)
    add(before, np.array([3.0]))
    add(before, np.array([1e9]))
    merge(before, of([1e9]))
    assert state(before) == kept
    with pytest.raises(ValueError):
        EMPTY.counts[0] = 1


@pytest.mark.parametrize("values", [np.array(["a"]), np.array([1j]), np.array([None]), np.array(["2020"], "M8[Y]")])
def test_what_is_no_number_is_refused(values):
    with pytest.raises(TypeError, match="no histogram"):
        add(EMPTY, values)


def test_counts_are_numpys_where_no_value_stands_on_an_edge():
    values = np.random.default_rng(8).standard_normal(1000) * 3
    found = of(values)
    placed, _ = np.histogram(values, np.arange(-SIDE, SIDE + 1) * found.width)
    assert np.array_equal(placed, found.counts)


def test_stored_histograms_come_back(tmp_path):
    found = {"b/ä\n": of([1.0, -3.5]), "a": EMPTY, "c": of([np.nan, 2.0**-300])}
    np.savez(tmp_path / "x.npz", **histogram.to_arrays(found))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        again = histogram.from_arrays(stored)
    assert list(again) == list(found)
    assert [state(h) for h in again.values()] == [state(h) for h in found.values()]
