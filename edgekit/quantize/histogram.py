"""A tensor's values as a histogram that grows with the data, whatever their order. Pure numpy.

- Bins have one width, a power of two, and zero is an edge: scaling by a power of two is exact, so a value's bin is a fact and not
  a matter of rounding. Bins mirror each other: bin j holds j*width <= x < (j+1)*width, bin -1-j holds -(j+1)*width < x <= -j*width
  (x < 0).
- The width only doubles, when a value does not fit; two neighbours then become one. The width follows from the largest magnitude
  alone, so the state depends on the multiset of values and on nothing else: order, batches and merging change no bit of it.
  Sums of values are not kept: they would depend on the order.
- Minimum and maximum are exact beside it. Values that are not finite are counted and stand nowhere else.
- SIDE bins a side put the largest magnitude into bin SIDE/2 or beyond: 4,096 to 8,192 bins over the larger side, 16 or more a step
  of an 8-bit range, and still one a step when outliers make the range 16 times wider than it should be. It costs 128 KiB a tensor.
- Chunks stay in the second-level cache: about 4 ns a value (`np.histogram`: 12).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

SIDE_BITS = 13
SIDE = 1 << SIDE_BITS
BINS = 2 * SIDE
COUNTS_BYTES = BINS * 8

# Finer bins than this would need scales that float32 does not have. Tensors whose largest value is below 1e-34 get fewer bins.
MIN_EXPONENT = -126

_CHUNK = 1 << 16
_FEW = 1 << 12

Array = NDArray[Any]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Histogram:
    """What is kept of a tensor's values. `counts` is int64 [BINS], bin j at SIDE + j, 2**`exponent` wide; never written to.

    `low` and `high` are the exact minimum and maximum (infinite the wrong way round while `count` is 0), `count` the number of
    finite values, `zeros` how many of them are exactly zero, `nonfinite` how many others were NaN or infinite.
    """

    counts: Counts
    exponent: int = MIN_EXPONENT
    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    zeros: int = 0
    nonfinite: int = 0

    @property
    def width(self) -> float:
        """The width of a bin."""
        return float(2.0**self.exponent)

    @property
    def peak(self) -> float:
        """The largest magnitude; 0 without values."""
        return max(-self.low, self.high, 0.0)


EMPTY = Histogram(np.zeros(BINS, np.int64))
EMPTY.counts.flags.writeable = False


def add(state: Histogram, values: Array) -> Histogram:
    """`state` with all elements of `values`, an array of any shape of floats, integers or booleans.

    Integers beyond 2**53 count as the nearest float64. Raises TypeError for other types.
    """
    if values.dtype.kind not in "fiub":
        raise TypeError(f"{values.dtype} has no histogram")
    flat = values.reshape(-1)
    counts, exponent, low, high = state.counts.copy(), state.exponent, state.low, state.high
    count, zeros, nonfinite = state.count, state.zeros, state.nonfinite
    for start in range(0, flat.size, _CHUNK):
        chunk = _as_float(flat[start : start + _CHUNK])
        ends = _ends(chunk)
        if not np.isfinite(ends).all():
            finite = chunk[np.isfinite(chunk)]
            nonfinite += chunk.size - finite.size
            if finite.size == 0:
                continue
            chunk, ends = finite, _ends(finite)
        low, high = min(low, ends[0]), max(high, ends[1])
        needed = exponent_for(max(-low, high))
        counts, exponent = _widened(counts, needed - exponent), needed
        _count(counts, chunk, exponent)
        count += chunk.size
        zeros += int(np.count_nonzero(chunk == 0))
    # Adding 0.0 makes -0.0 a 0.0: which of the two is found depends on the order.
    return Histogram(counts, exponent, low + 0.0, high + 0.0, count, zeros, nonfinite)


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of the values of both, to the bit: what collecting in parts and putting them together rests on.

    A promise of the state (`tests/test_histogram.py` holds it to that); collecting itself adds to one state after the other.
    """
    exponent = max(a.exponent, b.exponent)
    counts = _widened(a.counts, exponent - a.exponent) + _widened(b.counts, exponent - b.exponent)
    low, high = min(a.low, b.low), max(a.high, b.high)
    return Histogram(counts, exponent, low, high, a.count + b.count, a.zeros + b.zeros, a.nonfinite + b.nonfinite)


def exponent_for(peak: float) -> int:
    """The exponent of the width at which `peak` is the largest magnitude: peak < SIDE * 2**exponent."""
    return max(MIN_EXPONENT, int(np.frexp(peak)[1]) - SIDE_BITS) if peak > 0 else MIN_EXPONENT


def _as_float(chunk: Array) -> Array:
    """The values as float32 or float64, exactly."""
    narrow = chunk.dtype.kind == "f" and chunk.dtype.itemsize <= 4
    return chunk.astype(np.float32 if narrow else np.float64, copy=False)


def _ends(chunk: Array) -> tuple[float, float]:
    """Minimum and maximum; not finite when any value is not, which tells sooner than a look at each."""
    return float(chunk.min()), float(chunk.max())


def _count(counts: Counts, chunk: Array, exponent: int) -> None:
    """Add finite values that fit to `counts`, in place; few at a time one by one, or the bins would cost more than the values."""
    places = _places(chunk, exponent)
    if chunk.size < _FEW:
        np.add.at(counts, places, 1)
    else:
        counts += np.bincount(places, minlength=BINS)


def _places(chunk: Array, exponent: int) -> NDArray[np.intp]:
    """Where in `counts` finite values that fit belong.

    Scaling is exact but for magnitudes that become smaller than any float: those are in the first bin of their side anyway.
    """
    with np.errstate(under="ignore"):
        places: NDArray[np.intp] = (chunk * chunk.dtype.type(2.0**-exponent)).astype(np.intp)
    places += SIDE
    places -= chunk < 0
    return places


def _widened(counts: Counts, doublings: int) -> Counts:
    """The same values in bins 2**doublings times as wide."""
    for _ in range(min(doublings, SIDE_BITS)):
        pairs = counts.reshape(SIDE, 2).sum(axis=1)
        counts = np.zeros_like(counts)
        counts[SIDE // 2 : SIDE // 2 + SIDE] = pairs
    return counts


# -------------------------------------------------------------------------------------------------------------- storing


def to_arrays(histograms: Mapping[str, Histogram]) -> dict[str, Array]:
    """What an .npz holds of `histograms` by tensor name: `names` (a JSON list), one array for each figure, `counts.<i>`."""
    states = list(histograms.values())
    return {
        "names": np.frombuffer(msgspec.json.encode(list(histograms)), np.uint8),
        "low": np.array([state.low for state in states], np.float64),
        "high": np.array([state.high for state in states], np.float64),
        **{
            key: np.array([getattr(state, key) for state in states], np.int64)
            for key in ("exponent", "count", "zeros", "nonfinite")
        },
        **{f"counts.{i}": state.counts for i, state in enumerate(states)},
    }


def from_arrays(arrays: Mapping[str, Array]) -> dict[str, Histogram]:
    """The inverse of `to_arrays`, in the same order. `arrays` may be an open .npz, and hold others beside."""
    names = msgspec.json.decode(arrays["names"].tobytes(), type=list[str])
    floats = zip(arrays["low"].tolist(), arrays["high"].tolist(), strict=True)
    keys = ("count", "zeros", "nonfinite")
    whole: Iterable[tuple[int, ...]] = zip(*(arrays[key].tolist() for key in keys), strict=True)
    exponents = arrays["exponent"].tolist()
    return {
        name: Histogram(arrays[f"counts.{i}"], exponents[i], *ends, *numbers)
        for i, (name, ends, numbers) in enumerate(zip(names, floats, whole, strict=True))
    }
