"""Metrics of sequences of symbols: what was read against what is written.

- A sequence is the greedy CTC decoding of class scores [n, T, C], else the first integer output [n, L] as it stands, padded.
- Labels are symbols [n, L], padded with `ignore` (-1) or NaN.
"""

import numpy as np

from edgekit.core.accuracy import MetricOptions
from edgekit.data.metrics.record import Array, Outputs, class_scores, not_asked, required
from edgekit.errors import InputRejected

Sequence = list[int]


def ctc_exact_match(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Does the greedy CTC decoding [n, T, C] equal the label sequence [n, L], padded with `ignore`?

    Best path decoding, Graves et al., "Connectionist Temporal Classification" (2006), section 3.2: the highest class of each step,
    repeats made one, then `blank` taken out.
    """
    read, written = _ctc(outputs, options), _written(labels, len(next(iter(outputs.values()))), options)
    return np.array([a == b for a, b in zip(read, written, strict=True)], dtype=bool)


def character_errors(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Character error rate: insertions, deletions and substitutions over the characters written, of the whole set; lower is better.

    Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals" (1966); the rate is that of NIST's sclite
    and of Morris, Maier and Green, "From WER and RIL to MER and WIL" (2004), on characters. It may exceed 1.
    Columns: characters written, errors.
    """
    read, written = _read(outputs, options), _written(labels, len(next(iter(outputs.values()))), options)
    return _errors(read, written)


def word_errors(outputs: Outputs, reference: Outputs, labels: Array | None, options: MetricOptions) -> Array:
    """Word error rate, the same over words: what stands between two `space` symbols. Lower is better; source as cer.

    Raises InputRejected when `space` is not declared. Columns: words written, errors.
    """
    if options.space is None:
        raise InputRejected(
            "needs the symbol between two words", next_step="write [metric_options] space = N in data.toml"
        )
    read, written = _read(outputs, options), _written(labels, len(next(iter(outputs.values()))), options)
    number: dict[tuple[int, ...], int] = {}
    split = [[_words(s, options.space, number) for s in side] for side in (read, written)]
    return _errors(*split)


def error_rate(sums: Array) -> float:
    """Errors over symbols written; NaN when nothing is written at all."""
    return float(sums[1] / sums[0]) if sums[0] else float("nan")


def edit_distance(a: Sequence, b: Sequence) -> int:
    """The fewest insertions, deletions and substitutions that make `b` of `a`; Wagner and Fischer's recurrence (1974) by rows."""
    target, steps = np.array(b, np.int64), np.arange(len(b) + 1)
    row = steps
    for i, symbol in enumerate(a, start=1):
        changed = np.minimum(row[:-1] + (target != symbol), row[1:] + 1)
        # an insertion costs one a step: what is cheapest up to here, carried on
        row = np.minimum.accumulate(np.append(i, changed) - steps) + steps
    return int(row[-1])


def _errors(read: list[Sequence], written: list[Sequence]) -> Array:
    pairs = zip(read, written, strict=True)
    return np.array([[len(b), edit_distance(a, b)] for a, b in pairs], np.float64).reshape(-1, 2)


def _read(outputs: Outputs, options: MetricOptions) -> list[Sequence]:
    for value in outputs.values():
        if value.dtype.kind in "iu" and value.ndim >= 2:
            rows = value.reshape(len(value), -1)
            return [[int(v) for v in row if v != options.ignore] for row in rows]
        if value.dtype.kind == "f" and value.ndim >= 2 and value.shape[-1] > 1:
            break
    return _ctc(outputs, options)


def _ctc(outputs: Outputs, options: MetricOptions) -> list[Sequence]:
    return [_collapse(path, options.blank) for path in class_scores(outputs).argmax(axis=-1)]


def _collapse(path: Array, blank: int) -> Sequence:
    kept = path[np.append(True, path[1:] != path[:-1])] if len(path) else path
    return [int(v) for v in kept if v != blank]


def _written(labels: Array | None, n: int, options: MetricOptions) -> list[Sequence]:
    wanted = required(labels).reshape(n, -1)
    asked = ~not_asked(wanted, options)
    return [[int(v) for v in row[keep]] for row, keep in zip(wanted, asked, strict=True)]


def _words(symbols: Sequence, space: int, number: dict[tuple[int, ...], int]) -> Sequence:
    """Words as numbers, equal words as equal numbers."""
    words: list[list[int]] = [[]]
    for symbol in symbols:
        if symbol == space:
            words.append([])
        else:
            words[-1].append(symbol)
    return [number.setdefault(tuple(word), len(number)) for word in words if word]
