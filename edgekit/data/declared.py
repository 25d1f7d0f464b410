"""A data set with a data.toml: every split's samples, however they are named, as columns of the model's inputs.

- `files` are arrays of all samples; a `folder` or a `list` names samples one by one, and they are decoded once.
- What stands beside them in files of their own, labels and sequence starts, follows when samples are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from msgspec import UNSET

from edgekit.core.contract import Contract
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column, StoredArray, by_rows, open_npy, open_npz
from edgekit.data.contracts import contract_of
from edgekit.data.decode import Decoded, decode
from edgekit.data.labels import check_column, of_entries
from edgekit.data.listing import class_of, folder_files, of_folder, of_list
from edgekit.data.manifest import (
    ALL,
    FILE,
    LabelsEntry,
    Manifest,
    SplitEntry,
    check_folder_digest,
    data_file,
    did_you_mean,
    read_manifest,
)
from edgekit.data.parts import WHOLE, Part, Source, check_counts, check_names, constant, in_memory, quoted, samples_of
from edgekit.data.raw import open_bin, widened, widened_dtype
from edgekit.errors import InputRejected


@dataclass
class _Opening:
    """What opening a split needs to know. `read` are the inputs with data of their own, `constant` those of one value."""

    folder: Path
    read: Sequence[TensorSpec]
    constant: Sequence[TensorSpec]
    contracts: Mapping[str, Contract]
    labels: LabelsEntry
    classes: Sequence[str]  # of sub-folders
    scratch: Path
    skip_bad: bool
    archives: dict[Path, dict[str, StoredArray]] = field(default_factory=dict)


def open_declared(folder: Path, inputs: Sequence[TensorSpec], scratch: Path, skip_bad: bool) -> Source:
    """Open `folder` by its data.toml; decoded samples go to `scratch`. Raises InputRejected."""
    manifest = read_manifest(folder)
    where = str(folder / FILE)
    fed = _fed(manifest, inputs, where)
    contracts = {
        spec.name: contract_of(manifest.inputs[spec.name], spec, f"{where} [inputs.{spec.name}]")
        for spec in fed
        if spec.name in manifest.inputs
    }
    is_constant = {name for name, contract in contracts.items() if contract.value is not None}
    read = [spec for spec in fed if spec.name not in is_constant]
    if not read:
        raise InputRejected("gives every input a value; one must be read", where=where)
    classes, notices = _classes(folder, manifest)
    opening = _Opening(
        folder,
        read,
        [spec for spec in fed if spec.name in is_constant],
        contracts,
        manifest.labels,
        classes,
        scratch,
        skip_bad,
    )
    parts = {
        WHOLE if name == ALL else name: _part(opening, name, entry, notices) for name, entry in manifest.splits.items()
    }
    return Source(
        manifest.name,
        parts,
        manifest.metric,
        manifest.state,
        contracts,
        tuple(notices),
        manifest.metric_options,
    )


def _fed(manifest: Manifest, inputs: Sequence[TensorSpec], where: str) -> list[TensorSpec]:
    """The inputs that are not state."""
    names = [s.name for s in inputs]
    for name in (*manifest.inputs, *manifest.state.values()):
        if name not in names:
            raise InputRejected(f"the model has no input '{name}'", where=where, next_step=did_you_mean(name, names))
    fed = [s for s in inputs if s.name not in manifest.state.values()]
    if not fed:
        raise InputRejected("declares every input as state; one must be fed", where=where)
    return fed


def _part(opening: _Opening, name: str, entry: SplitEntry, notices: list[str]) -> Part:
    where = f"{opening.folder / FILE} [splits.{name}]"
    if entry.files:
        part = _from_files(opening, entry, where)
        found = f"its arrays hold {part.count}"
        entries = part.count
    else:
        scratch = opening.scratch / name
        scratch.mkdir()
        decoded = (
            _decode_folder(opening, entry, scratch, where)
            if entry.folder
            else _decode_list(opening, entry, scratch, where)
        )
        part = _from_decoded(opening, entry, decoded, where)
        notices.extend(decoded.notices(name))
        entries = decoded.entries
        found = f"there are {entries}"
    if entry.samples is not UNSET and entries != entry.samples:
        raise InputRejected(f"declares {entry.samples} samples, but {found}", where=where)
    return part


def _with_constants(opening: _Opening, columns: Mapping[str, Column], count: int) -> dict[str, Column]:
    """All columns; an input of one value has it as often as there are samples."""
    return {**columns, **{spec.name: _constant(opening, spec, count) for spec in opening.constant}}


def _constant(opening: _Opening, spec: TensorSpec, count: int) -> Column:
    value = opening.contracts[spec.name].value
    return constant(0.0 if value is None else value, spec, count, f"{opening.folder / FILE} [inputs.{spec.name}]")


# ---------------------------------------------------------------------------------------------------- arrays of all samples


def _from_files(opening: _Opening, entry: SplitEntry, where: str) -> Part:
    check_names(list(entry.files), [s.name for s in opening.read], where)
    columns = {spec.name: _column(opening, spec, entry) for spec in opening.read}
    labels = by_rows(_array(opening, entry.labels, entry.sha256)) if entry.labels else None
    starts = by_rows(_array(opening, entry.sequences, entry.sha256)) if entry.sequences else None
    count = next(iter(columns.values())).count
    part = Part(_with_constants(opening, columns, count), labels, starts)
    check_counts(part, where)
    if labels is not None:
        check_column(labels, opening.labels)
    return part


def _column(opening: _Opening, spec: TensorSpec, entry: SplitEntry) -> Column:
    """The array named for `spec`: .npy, .npz:member, or plain numbers as its contract describes them."""
    name = entry.files[spec.name]
    contract = opening.contracts.get(spec.name)
    if contract is not None and contract.raw is not None:
        raw = contract.raw
        column = samples_of(open_bin(data_file(opening.folder, name, entry.sha256), raw), spec)
        return replace(column, dtype=widened_dtype(raw), take=lambda i: widened(column.take(i), raw, column.where))
    where = f"{opening.folder / FILE}: {name}"
    if contract is not None and contract.reader != "array":
        raise InputRejected(
            f'reader = "{contract.reader}" reads samples one by one',
            where=where,
            next_step="name them by folder or list instead of files",
        )
    if name.endswith(".bin"):
        raise InputRejected(
            "does not say what numbers it holds", where=where, next_step=f'write [inputs.{spec.name}] reader = "bin"'
        )
    return samples_of(_array(opening, name, entry.sha256), spec)


def _array(opening: _Opening, name: str, digests: Mapping[str, str]) -> StoredArray:
    """A .npy file, or a member of an .npz named as `file.npz:member`."""
    archive, colon, member = name.partition(".npz:")
    if not colon:
        return open_npy(data_file(opening.folder, name, digests))
    path = data_file(opening.folder, f"{archive}.npz", digests)
    if path not in opening.archives:
        unpacked = opening.scratch / f"npz{len(opening.archives)}"
        unpacked.mkdir()
        opening.archives[path] = open_npz(path, unpacked)
    members = opening.archives[path]
    if member not in members:
        raise InputRejected(f"has no array '{member}'", where=str(path), next_step=did_you_mean(member, members))
    return members[member]


# ----------------------------------------------------------------------------------------------------- samples one by one


def _classes(folder: Path, manifest: Manifest) -> tuple[Sequence[str], list[str]]:
    """The classes of sub-folders, as declared, else sorted over all splits so that they mean the same in each; with a notice."""
    if manifest.labels.classes:
        return manifest.labels.classes, []
    found = {
        class_of(file)
        for entry in manifest.splits.values()
        if entry.folder
        for file in folder_files(folder, entry.folder)
    } - {""}
    classes = sorted(found)
    numbered = ", ".join(f"{i} {name}" for i, name in enumerate(classes[:5])) + (", ..." if len(classes) > 5 else "")
    return classes, [f"no classes are declared; sub-folders in sorted order: {numbered}"] if classes else []


def _decode_folder(opening: _Opening, entry: SplitEntry, scratch: Path, where: str) -> Decoded:
    if len(opening.read) != 1:
        names = quoted([spec.name for spec in opening.read])
        raise InputRejected(f"a folder feeds one input, but there are {names}", where=where, next_step="write a list")
    spec = opening.read[0]
    contracts = _all_contracts(opening)
    if contracts[spec.name].reader == "jsonl":
        raise InputRejected('reader = "jsonl" reads the lines of a list, not a folder', where=where)
    files = folder_files(opening.folder, entry.folder)
    if entry.labels and any(map(class_of, files)):
        raise InputRejected("has labels beside sub-folders, which are classes", where=where)
    entries = of_folder(opening.folder, entry.folder, files, spec, opening.classes)
    check_folder_digest(opening.folder, entry.folder, files, entry.sha256)
    return decode(entries, contracts, opening.read, scratch, opening.skip_bad, where)


def _decode_list(opening: _Opening, entry: SplitEntry, scratch: Path, where: str) -> Decoded:
    contracts = _all_contracts(opening)
    lines = of_list(opening.folder, entry.listing, opening.read, contracts, opening.labels, entry.sha256)
    return decode(lines, contracts, opening.read, scratch, opening.skip_bad, where)


def _all_contracts(opening: _Opening) -> dict[str, Contract]:
    """What is not declared is an array as the model takes it."""
    return {s.name: opening.contracts.get(s.name) or Contract("array", s.dtype) for s in opening.read}


def _from_decoded(opening: _Opening, entry: SplitEntry, decoded: Decoded, where: str) -> Part:
    labels = of_entries(decoded, where)
    if entry.labels:
        stored = check_column(by_rows(_array(opening, entry.labels, entry.sha256)), opening.labels)
        labels = _of_kept(stored, decoded)
    starts = decoded.starts
    if entry.sequences:
        if decoded.framed:
            raise InputRejected("has sequences, but a recording in frames is a sequence already", where=where)
        starts = _starts_of_kept(_of_all(by_rows(_array(opening, entry.sequences, entry.sha256)), decoded), decoded)
    part = Part(
        _with_constants(opening, decoded.columns, decoded.count),
        labels,
        None if starts is None else in_memory(starts, entry.sequences or where),
    )
    check_counts(part, where)
    return part


def _of_all(column: Column, decoded: Decoded) -> Column:
    """A column with a row for every entry, those included that can't be read. Raises InputRejected."""
    if column.count != decoded.entries:
        raise InputRejected(f"has {column.count} rows for {decoded.entries} samples", where=column.where)
    return column


def _of_kept(column: Column, decoded: Decoded) -> Column:
    """The rows of the samples that could be read; of recordings in frames there is a row for each frame."""
    if decoded.framed:
        if decoded.bad:
            raise InputRejected(
                "has a row for each frame, but some recordings were left out",
                where=column.where,
                next_step="write the labels into a list",
            )
        return column
    places = np.array(decoded.places)
    return replace(_of_all(column, decoded), count=len(places), take=lambda i: column.take(places[i]))


def _starts_of_kept(column: Column, decoded: Decoded) -> Array:
    """Sequence starts of the samples that could be read: where the first of a sequence can't be, the next one starts it."""
    marks = column.take(np.arange(column.count))
    if marks.ndim != 1:
        raise InputRejected("must hold one 0 or 1 a sample and begin with 1", where=column.where)
    ends = np.array(decoded.places)
    kept: Array = np.maximum.reduceat(marks[: ends[-1] + 1], np.append(0, ends[:-1] + 1))
    return kept
