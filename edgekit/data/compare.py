"""How a candidate's outputs differ from the reference's as numbers, gathered over blocks, and when that is a collapse."""

from collections.abc import Mapping

import numpy as np

from edgekit.data.arrays import Array
from edgekit.data.metrics.likeness import MAX_SQNR_DB, likeness, similarity

# An output of the reference varies when it moves by more than this share of its largest value: less is rounding.
VARIES = 1e-3


class Comparison:
    """Likeness, noise and largest difference of each output; `add` takes a block of both sides by name."""

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
                alike = self._add_float(name, a, b) if b.dtype.kind == "f" else self._add_other(a, b)
                self.similarities.setdefault(name, []).append(alike)
                self.lowest[name] = min(self.lowest.get(name, 1.0), float(alike.min()))

    def _add_other(self, a: Array, b: Array) -> Array:
        if a.shape == b.shape and a.size:
            gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
            self.max_abs_diff = max(self.max_abs_diff, float(gap.max()))
        return similarity(a, b)

    def _add_float(self, name: str, a: Array, b: Array) -> Array:
        if a.shape != b.shape:  # nothing lines up: all noise
            power = float((np.nan_to_num(b.astype(np.float64)) ** 2).sum())
            self._add_power(name, power, power)
            return similarity(a, b)
        found = likeness(a, b)
        self._add_power(name, float(found.noise.sum()), float(found.signal.sum()))
        self.nonfinite += int(found.lost.sum())
        self.max_abs_diff = max(self.max_abs_diff, float(found.largest_gap.max(initial=0.0)))
        self.spans.setdefault(name, _Span(a[0], b[0])).add(a, b)
        return found.cosine

    def _add_power(self, name: str, noise: float, signal: float) -> None:
        self.noise[name] = self.noise.get(name, 0.0) + noise
        self.signal[name] = self.signal.get(name, 0.0) + signal

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
        first = _at_least_32(self.base_first)
        for sample in base:  # one at a time: what a whole block makes on the way would leave the cache
            row = _at_least_32(sample)
            move = np.abs(row - first)
            self.base_move = max(self.base_move, float(np.max(move, where=np.isfinite(move), initial=0.0)))
            peak = np.abs(row)
            self.base_peak = max(self.base_peak, float(np.max(peak, where=np.isfinite(peak), initial=0.0)))

    @property
    def is_frozen(self) -> bool:
        return not self.own_moves and self.base_move > VARIES * self.base_peak


def _at_least_32(array: Array) -> Array:
    """Half precision widened: its differences overflow."""
    wide: Array = array.astype(np.promote_types(array.dtype, np.float32), copy=False)
    return wide
