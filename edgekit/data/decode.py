"""Samples that are named one by one, decoded once: each input's rows go to a file in the scratch folder, then to the feed.

- One entry is in memory at a time, whatever the number of samples; what all of them would take on disk is bounded.
- An entry that can't be read for one input is left out for all of them, with its label; only when asked, counted and named.
- Frames of a recording are samples; the first starts a sequence.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edgekit.core.contract import Contract
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column, StoredArray, by_rows
from edgekit.data.parts import fixed_shape
from edgekit.data.readers import SAMPLE_READERS
from edgekit.errors import InputRejected

MAX_DECODED_BYTES = 6 << 30  # of one input in one split
_BLOCK_BYTES = 16 << 20
_NAMED = 3


@dataclass(frozen=True)
class Entry:
    """One line of a list, or one file of a folder: by input a path or the numbers themselves, a label, a sequence start."""

    where: str
    items: Mapping[str, Any]
    label: Array | None = None
    start: bool | None = None


@dataclass
class Decoded:
    """What became of the entries of one split: columns by input; for each entry that was read, its place, rows and label.

    `framed`: entries are recordings of many rows. `starts` has one mark a row, None where nothing says where sequences begin.
    """

    framed: bool
    columns: dict[str, Column] = field(default_factory=dict)
    places: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    labels: list[Array | None] = field(default_factory=list)
    starts: Array | None = None
    entries: int = 0
    bad: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return sum(self.rows)

    def notices(self, split: str) -> list[str]:
        """What was left out, in one line."""
        if not self.bad:
            return []
        named = ", ".join(self.bad[:_NAMED]) + (", ..." if len(self.bad) > _NAMED else "")
        return [f"{len(self.bad)} of {self.entries} samples of {split} can't be read and were left out: {named}"]


def decode(
    entries: Iterable[Entry],
    contracts: Mapping[str, Contract],
    specs: Sequence[TensorSpec],
    scratch: Path,
    skip_bad: bool,
    where: str,
) -> Decoded:
    """Read every entry for every input of `specs`.

    Raises InputRejected for the first bad one without `skip_bad`, else when none is left.
    """
    result = Decoded(framed=any(c.audio is not None and c.audio.frame for c in contracts.values()))
    pending = False  # a left-out entry started a sequence: the next one does now
    marks: list[tuple[int, bool | None]] = []
    with ExitStack() as stack:
        files = {
            spec.name: _Rows(stack.enter_context((scratch / f"{i}.rows").open("wb")), spec)
            for i, spec in enumerate(specs)
        }
        for place, entry in enumerate(entries):
            result.entries += 1
            try:
                rows = _read(entry, contracts, specs)
            except InputRejected as error:
                if not skip_bad:
                    raise _bad(error, entry) from error
                result.bad.append(str(_bad(error, entry, advise=False)))
                pending = pending or bool(entry.start)
                continue
            for name, block in rows.items():
                files[name].append(block, entry.where)
            count = len(next(iter(rows.values())))
            result.places.append(place)
            result.rows.append(count)
            result.labels.append(entry.label)
            marks.append((count, True if pending else entry.start))
            pending = False
    if not result.rows:
        what = f"holds no sample that can be read; the first: {result.bad[0]}" if result.bad else "holds no samples"
        raise InputRejected(what, where=where)
    result.columns = {name: file.column(where) for name, file in files.items()}
    result.starts = _starts(marks, result.framed)
    return result


def _read(entry: Entry, contracts: Mapping[str, Contract], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Rows of one entry by input, as many for each. Raises InputRejected."""
    rows = {}
    for spec in specs:
        contract = contracts[spec.name]
        rows[spec.name] = SAMPLE_READERS[contract.reader](entry.items[spec.name], contract, spec)
    counts = {name: len(block) for name, block in rows.items()}
    if len(set(counts.values())) > 1:
        text = ", ".join(f"{count} for '{name}'" for name, count in counts.items())
        raise InputRejected(f"gives different numbers of frames: {text}", where=entry.where)
    return rows


def _bad(error: InputRejected, entry: Entry, advise: bool = True) -> InputRejected:
    """The refusal with the entry's place where the reader knew none, and with what else can be done."""
    next_step = (
        f"{error.next_step or 'repair or remove it'}, or leave such samples out with --skip-bad" if advise else ""
    )
    where = error.where if "/" in error.where else ", ".join(filter(None, (entry.where, error.where)))
    return InputRejected(error.what, where=where, next_step=next_step)


def _starts(marks: Sequence[tuple[int, bool | None]], framed: bool) -> Array | None:
    """uint8 [rows]: a recording starts a sequence unless its line says otherwise; other samples only where theirs says so."""
    if not framed and all(start is None for _, start in marks):
        return None
    result = np.zeros(sum(count for count, _ in marks), np.uint8)
    row = 0
    for count, start in marks:
        result[row] = framed if start is None else start
        row += count
    return result


class _Rows:
    """Rows of one input on their way to a file; of the first one's type."""

    def __init__(self, file: IO[bytes], spec: TensorSpec) -> None:
        self.file, self.shape = file, fixed_shape(spec)
        self.dtype: np.dtype[Any] | None = None
        self.count = 0

    def append(self, block: Array, where: str) -> None:
        """Raises InputRejected for another type than the first row's, and when it all grows beyond the bound."""
        if self.dtype is None:
            self.dtype = block.dtype
        if block.dtype != self.dtype:
            raise InputRejected(f"holds {block.dtype}, earlier samples {self.dtype}", where=where)
        row_bytes = max(1, block.itemsize * int(np.prod(self.shape)))
        self.count += len(block)
        if self.count * row_bytes > MAX_DECODED_BYTES:
            raise InputRejected(
                f"the samples up to here take more than {MAX_DECODED_BYTES >> 30} GiB once decoded",
                where=where,
                next_step="name fewer samples",
            )
        step = max(1, _BLOCK_BYTES // row_bytes)
        for start in range(0, len(block), step):
            self.file.write(np.ascontiguousarray(block[start : start + step]).tobytes())

    def column(self, where: str) -> Column:
        assert self.dtype is not None  # there are rows
        path = Path(self.file.name)
        return by_rows(StoredArray(where, path, self.dtype, (self.count, *self.shape), False, 0))
