"""The four forms a data set may have, opened as columns of samples by input name; nothing is copied or guessed.

- data.toml with its arrays; an .npz; a folder of .npy; a folder of ONNX `test_data_set_*`.
- A column has one row a sample. Where the model's first axis is a batch of 1, rows may leave it out.
- Names must be the model's own. A name that is not is refused with the nearest one, even when there is only one candidate.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column, StoredArray, by_rows, open_npy, open_npz, read_pb, require_regular
from edgekit.data.manifest import FILE, Manifest, SplitEntry, data_file, did_you_mean, read_manifest
from edgekit.errors import InputRejected

LABELS = "labels"
WHOLE = ""  # the only part of a source that declares no splits


@dataclass(frozen=True)
class Transform:
    """stored * scale + offset in float32, declared by the data set for one input."""

    scale: float
    offset: float

    @property
    def is_identity(self) -> bool:
        return self.scale == 1 and self.offset == 0


@dataclass(frozen=True)
class Part:
    """Samples that belong together: a declared split, or a whole set. `starts` marks where sequences begin."""

    columns: Mapping[str, Column]
    labels: Column | None = None
    starts: Column | None = None

    @property
    def count(self) -> int:
        return next(iter(self.columns.values())).count


@dataclass(frozen=True)
class Source:
    """A data set as found, its shapes checked against the model's inputs."""

    name: str
    parts: Mapping[str, Part]
    metric: str = ""
    state: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def open_source(path: Path, inputs: Sequence[TensorSpec], scratch: Path) -> Source:
    """Open a data set of any form. Raises InputRejected."""
    if path.is_dir():
        if (path / FILE).exists():
            return _open_declared(path, inputs)
        if any(path.glob("test_data_set_*")):
            return _open_onnx_test_data(path, inputs)
        if any(path.glob("*.npy")):
            return _open_npy_folder(path, inputs)
        raise InputRejected(f"holds no {FILE}, no .npy files and no test_data_set_*", where=str(path))
    if not path.exists():
        raise InputRejected("does not exist", where=str(path))
    if path.suffix != ".npz":
        require_regular(path)
        raise InputRejected(
            "is neither a folder nor an .npz", where=str(path), next_step=f"give an .npz or a folder with {FILE}"
        )
    arrays = open_npz(path, scratch)
    labels = None if any(s.name == LABELS for s in inputs) else arrays.pop(LABELS, None)
    return Source(path.stem, {WHOLE: _part(arrays, labels, None, inputs, str(path))})


# ----------------------------------------------------------------------------------------------------- samples by shape


def _part(
    arrays: Mapping[str, StoredArray],
    labels: StoredArray | None,
    starts: StoredArray | None,
    inputs: Sequence[TensorSpec],
    where: str,
) -> Part:
    """Columns for exactly the `inputs`, all of one length."""
    check_names(list(arrays), [s.name for s in inputs], where)
    columns = {spec.name: samples_of(arrays[spec.name], spec) for spec in inputs}
    part = Part(columns, by_rows(labels) if labels else None, by_rows(starts) if starts else None)
    _check_counts(part, where)
    return part


def check_names(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """The arrays' names must be the inputs' names. Raises InputRejected with the nearest one."""
    if found and not set(found) & set(wanted):
        fix = f"rename it to '{wanted[0]}'" if len(found) == len(wanted) == 1 else "name the arrays after the inputs"
        raise InputRejected(
            f"holds {_quoted(found)}, but the model's inputs are {_quoted(wanted)}", where=where, next_step=fix
        )
    for name in found:
        if name not in wanted:
            raise InputRejected(
                f"'{name}' is not an input to be fed", where=where, next_step=did_you_mean(name, wanted)
            )
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputRejected(
            f"has no array for {_quoted(missing)}", where=where, next_step="add it under the input's name"
        )


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:20]) + (" ..." if len(names) > 20 else "")


def _check_counts(part: Part, where: str) -> None:
    first = next(iter(part.columns))
    for column in part.columns.values():
        if column.count != part.count:
            raise InputRejected(f"has {column.count} samples, but '{first}' has {part.count}", where=column.where)
    if part.count == 0:
        raise InputRejected("holds no samples", where=where)
    for extra in (part.labels, part.starts):
        if extra is not None and extra.count != part.count:
            raise InputRejected(f"has {extra.count} rows for {part.count} samples", where=extra.where)


def samples_of(stored: StoredArray, spec: TensorSpec) -> Column:
    """`stored` as samples of `spec`: [N, *shape], [N, *shape[1:]] when shape[0] is 1, or one sample of exactly `shape`."""
    shape = fixed_shape(spec)
    if stored.shape == shape:
        one = StoredArray(stored.where, stored.path, stored.dtype, (1, *shape), stored.fortran_order, stored.offset)
        return by_rows(one)
    if stored.shape and stored.shape[1:] == shape:
        return by_rows(stored)
    if stored.shape and shape[:1] == (1,) and stored.shape[1:] == shape[1:]:
        return Column(
            stored.where, stored.dtype, stored.shape[0], shape, lambda i: stored.mapped()[i].reshape(len(i), *shape)
        )
    raise _wrong_shape(stored.where, stored.shape, spec)


def _wrong_shape(where: str, got: tuple[int, ...], spec: TensorSpec) -> InputRejected:
    what = f"has shape {list(got)}, but input '{spec.name}' takes samples of {list(spec.shape)}"
    return InputRejected(what, where=where, next_step=f"store [samples, {', '.join(map(str, spec.shape))}]")


def fixed_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape when every axis is fixed. Raises InputRejected otherwise."""
    if not all(isinstance(n, int) for n in spec.shape):
        raise InputRejected(f"input '{spec.name}' has an axis that is not fixed", next_step="fix it with --shape")
    return tuple(int(n) for n in spec.shape)


# ---------------------------------------------------------------------------------------------------------- data.toml


def _open_declared(folder: Path, inputs: Sequence[TensorSpec]) -> Source:
    manifest = read_manifest(folder)
    where = str(folder / FILE)
    names = [s.name for s in inputs]
    for name in (*manifest.inputs, *manifest.state.values()):
        if name not in names:
            raise InputRejected(f"the model has no input '{name}'", where=where, next_step=did_you_mean(name, names))
    fed = [s for s in inputs if s.name not in manifest.state.values()]
    if not fed:
        raise InputRejected("declares every input as state; one must be fed", where=where)
    _check_entries(manifest, fed, where)
    return Source(
        manifest.name,
        {name: _declared_part(folder, name, entry, fed) for name, entry in manifest.splits.items()},
        manifest.metric,
        manifest.state,
        {name: Transform(entry.scale, entry.offset) for name, entry in manifest.inputs.items()},
    )


def _check_entries(manifest: Manifest, fed: Sequence[TensorSpec], where: str) -> None:
    for spec in fed:
        entry = manifest.inputs.get(spec.name)
        if entry is None:
            continue
        if entry.layout and len(entry.layout) != len(spec.shape):
            raise InputRejected(
                f"layout {entry.layout} names {len(entry.layout)} axes, '{spec.name}' has {len(spec.shape)}",
                where=where,
            )
        if entry.dtype and ("float" in entry.dtype) != ("float" in spec.dtype):
            raise InputRejected(
                f"declares '{spec.name}' as {entry.dtype}, but the model takes {spec.dtype}", where=where
            )


def _declared_part(folder: Path, name: str, entry: SplitEntry, fed: Sequence[TensorSpec]) -> Part:
    where = f"{folder / FILE} [splits.{name}]"
    check_names(list(entry.files), [s.name for s in fed], where)

    def opened(file: str) -> StoredArray:
        return open_npy(data_file(folder, file, entry.sha256))

    arrays = {key: opened(file) for key, file in entry.files.items()}
    labels = opened(entry.labels) if entry.labels else None
    starts = opened(entry.sequences) if entry.sequences else None
    part = _part(arrays, labels, starts, fed, where)
    if part.count != entry.samples:
        raise InputRejected(f"declares {entry.samples} samples, but its arrays hold {part.count}", where=where)
    return part


# ----------------------------------------------------------------------------------------------------- folders of .npy


def sanitized(name: str) -> str:
    """An input's name as a file name: what may not stand in one is `_`."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _open_npy_folder(folder: Path, inputs: Sequence[TensorSpec]) -> Source:
    files = {p.name.removesuffix(".npy"): p for p in sorted(folder.glob("*.npy"))}
    labels_file = None if any(s.name == LABELS for s in inputs) else files.pop(LABELS, None)
    labels = open_npy(labels_file) if labels_file else None
    by_input = {_input_called(stem, inputs): path for stem, path in files.items()}
    if len(by_input) != len(files):
        raise InputRejected("two files stand for one input", where=str(folder))
    if len(inputs) == 1 and len(files) > 1 and inputs[0].name not in by_input:
        part = _one_file_a_sample([open_npy(p) for p in files.values()], labels, inputs[0], str(folder))
    else:
        part = _part({name: open_npy(p) for name, p in by_input.items()}, labels, None, inputs, str(folder))
    return Source(folder.resolve().name, {WHOLE: part})


def _input_called(stem: str, inputs: Sequence[TensorSpec]) -> str:
    """The input that a file name stands for; the name itself when it stands for none."""
    matches = [s.name for s in inputs if stem in (s.name, sanitized(s.name))]
    return stem if stem in matches or len(matches) != 1 else matches[0]


def _one_file_a_sample(files: list[StoredArray], labels: StoredArray | None, spec: TensorSpec, where: str) -> Part:
    """Each file is one sample, in order of the files' names."""
    shape = fixed_shape(spec)
    for stored in files:
        without_batch = shape[:1] == (1,) and stored.shape == shape[1:]
        if stored.shape not in (shape, (1, *shape)) and not without_batch:
            raise _wrong_shape(stored.where, stored.shape, spec)
        _same_dtype(stored.where, stored.dtype, files[0].dtype)

    def take(indices: Array) -> Array:
        return np.stack([files[i].mapped().reshape(shape) for i in indices])

    part = Part(
        {spec.name: Column(where, files[0].dtype, len(files), shape, take)}, by_rows(labels) if labels else None
    )
    _check_counts(part, where)
    return part


def _same_dtype(where: str, got: np.dtype, first: np.dtype) -> None:
    if got != first:
        raise InputRejected(f"holds {got}, other samples {first}", where=where)


# ------------------------------------------------------------------------------------------------------ test_data_set_*


def _natural(path: Path) -> tuple[int, str]:
    digits = re.search(r"(\d+)$", path.stem)
    return (int(digits[1][-18:]) if digits else -1, path.name)


def _open_onnx_test_data(folder: Path, inputs: Sequence[TensorSpec]) -> Source:
    """The ONNX backend tests' layout: `input_<k>.pb` is the model's input k; the expected outputs are not used."""
    sets = sorted((p for p in folder.glob("test_data_set_*") if p.is_dir()), key=_natural)
    if not sets:
        raise InputRejected("its test_data_set_* are not folders", where=str(folder))
    columns = {spec.name: _pb_column([s / f"input_{k}.pb" for s in sets], spec) for k, spec in enumerate(inputs)}
    for place in sets:
        if (place / f"input_{len(inputs)}.pb").exists():
            raise InputRejected(f"has more inputs than the model's {len(inputs)}", where=str(place))
    ignored = any(place.glob("output_*.pb") for place in sets)
    notices = (
        ("the expected outputs in test_data_set_* are not used: the reference is the model itself",) if ignored else ()
    )
    return Source(folder.resolve().name, {WHOLE: Part(columns)}, notices=tuple(notices))


def _pb_column(paths: list[Path], spec: TensorSpec) -> Column:
    shape = fixed_shape(spec)
    first = read_pb(paths[0])
    for path in paths:
        array = read_pb(path)
        if array.shape != shape:
            raise _wrong_shape(str(path), array.shape, spec)
        _same_dtype(str(path), array.dtype, first.dtype)
    where = str(paths[0].parent.parent / f"test_data_set_*/{paths[0].name}")
    return Column(where, first.dtype, len(paths), shape, lambda i: np.stack([read_pb(paths[j]) for j in i]))
