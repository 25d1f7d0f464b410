"""The four forms a data set may have, opened as columns of samples by input name; nothing is guessed.

- data.toml with what it names (`declared.py`); an .npz; a folder of .npy; a folder of ONNX `test_data_set_*`.
- A folder of images or recordings alone is refused: how they were prepared for training is not to be seen from them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column, StoredArray, by_rows, open_npy, open_npz, read_pb, require_regular
from edgekit.data.declared import open_declared
from edgekit.data.manifest import FILE
from edgekit.data.parts import WHOLE, Part, Source, check_counts, fixed_shape, part_of, wrong_shape
from edgekit.data.suggest import refuse_media
from edgekit.errors import InputRejected

LABELS = "labels"


def open_source(path: Path, inputs: Sequence[TensorSpec], scratch: Path, skip_bad: bool = False) -> Source:
    """Open a data set of any form; what must be decoded is, into `scratch`. Raises InputRejected.

    With `skip_bad`, images, recordings and other single samples that can't be read are left out and noticed.
    """
    if path.is_dir():
        if (path / FILE).exists():
            return open_declared(path, inputs, scratch, skip_bad)
        if any(path.glob("test_data_set_*")):
            return _open_onnx_test_data(path, inputs)
        if any(path.glob("*.npy")):
            return _open_npy_folder(path, inputs)
        refuse_media(path, inputs)
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
    return Source(path.stem, {WHOLE: part_of(arrays, labels, None, inputs, str(path))})


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
        part = part_of({name: open_npy(p) for name, p in by_input.items()}, labels, None, inputs, str(folder))
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
            raise wrong_shape(stored.where, stored.shape, spec)
        _same_dtype(stored.where, stored.dtype, files[0].dtype)

    def take(indices: Array) -> Array:
        return np.stack([files[i].mapped().reshape(shape) for i in indices])

    part = Part(
        {spec.name: Column(where, files[0].dtype, len(files), shape, take)}, by_rows(labels) if labels else None
    )
    check_counts(part, where)
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
            raise wrong_shape(str(path), array.shape, spec)
        _same_dtype(str(path), array.dtype, first.dtype)
    where = str(paths[0].parent.parent / f"test_data_set_*/{paths[0].name}")
    return Column(where, first.dtype, len(paths), shape, lambda i: np.stack([read_pb(paths[j]) for j in i]))
