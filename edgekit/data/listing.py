"""Samples named one by one, as entries to decode: the files of a folder, or the lines of a JSONL list.

- A folder's files come in natural order (2 before 10), hidden ones left out; its sub-folders are classes.
- A list is read a line at a time, each a JSON object: a value for each input, `label` and `start` where there are such.
- What is wrong with a list itself, or lies outside the data set's folder, is refused whether or not bad samples are skipped.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from edgekit.core.contract import Contract
from edgekit.core.types import TensorSpec
from edgekit.data.decode import Entry
from edgekit.data.labels import label_of
from edgekit.data.manifest import FILE, LabelsEntry, data_file, did_you_mean, inside
from edgekit.errors import InputRejected

MAX_LINE_BYTES = 16 << 20


# --------------------------------------------------------------------------------------------------------------- folders


def folder_files(folder: Path, name: str) -> list[str]:
    """Files of folder `name`, paths in it in natural order: all in itself, or all in its sub-folders. Raises InputRejected.

    It may be the data set's own folder, whose data.toml is no sample.
    """
    top = inside(folder, name)
    where = f"{folder / FILE}: {name}"
    if not top.is_dir():
        raise InputRejected("is not a folder", where=where)
    entries = [path for path in _visible(top) if path != folder / FILE]
    classes = [path for path in entries if path.is_dir()]
    if classes and len(classes) < len(entries):
        beside = next(path.name for path in entries if not path.is_dir())
        what = f"holds files beside sub-folders, such as '{beside}'"
        raise InputRejected(what, where=where, next_step="move them away: sub-folders are classes")
    files = [f"{c.name}/{file.name}" for c in classes for file in _visible(c)] if classes else [e.name for e in entries]
    if not files:
        raise InputRejected("holds no files", where=where)
    return files


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=natural)
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}", where=str(folder)) from error


def natural(path: Path) -> tuple[list[str | int], str]:
    """A key to sort paths by name, runs of digits by their value."""
    parts = re.split(r"([0-9]+)", path.name)  # text and digits take turns, so that like is compared with like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name


def class_of(file: str) -> str:
    """The sub-folder that a file of `folder_files` is in; empty when it is in none."""
    return file.rpartition("/")[0]


def of_folder(
    folder: Path, name: str, files: Sequence[str], spec: TensorSpec, classes: Sequence[str]
) -> Iterator[Entry]:
    """One entry a file, labelled by its sub-folder. Raises InputRejected for one that is not among `classes`."""
    rules = LabelsEntry(classes=tuple(classes))
    for file in files:
        path = inside(folder, f"{name}/{file}")
        label = label_of(class_of(file), rules, str(path)) if class_of(file) else None
        yield Entry(str(path), {spec.name: path}, label)


# ----------------------------------------------------------------------------------------------------------------- lists


def of_list(
    folder: Path,
    name: str,
    specs: Sequence[TensorSpec],
    contracts: Mapping[str, Contract],
    labels: LabelsEntry,
    digests: Mapping[str, str],
) -> Iterator[Entry]:
    """One entry a line of the list. Raises InputRejected for a line that is not what a list holds."""
    path = data_file(folder, name, digests)
    names = [spec.name for spec in specs]
    for reserved in ("label", "start"):
        if reserved in names:
            raise InputRejected(
                f"a list can't feed an input named '{reserved}'", where=str(path), next_step="use files"
            )
    with path.open("rb") as stream:
        for number, line in _lines(stream, str(path)):
            where = f"{path} line {number}"
            values = _object(line, names, where)
            items = {key: _item(folder, values[key], contracts[key], key, where, digests) for key in names}
            label = label_of(values["label"], labels, where) if "label" in values else None
            yield Entry(where, items, label, _start(values.get("start"), where))


def _lines(stream: IO[bytes], where: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InputRejected(f"line {number} is longer than {MAX_LINE_BYTES >> 20} MiB", where=where)
        if line.strip():
            yield number, line


def _object(line: bytes, names: Sequence[str], where: str) -> dict[str, Any]:
    """A line's object with exactly the inputs `names`, and label and start at will."""
    try:
        values = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputRejected(f"is not a JSON object: {error}", where=where) from error
    known = [*names, "label", "start"]
    for key in values:
        if key not in known:
            raise InputRejected(f"unknown key '{key}'", where=where, next_step=did_you_mean(key, known))
    for key in names:
        if key not in values:
            raise InputRejected(f"has no '{key}'", where=where, next_step=f"give each line a value for '{key}'")
    return values


def _item(folder: Path, value: Any, contract: Contract, key: str, where: str, digests: Mapping[str, str]) -> Any:
    """The numbers themselves for jsonl, else the path of a file inside the data set's folder."""
    if contract.reader == "jsonl":
        return value
    if not isinstance(value, str):
        raise InputRejected(
            f"'{key}' must be the path of a file",
            where=where,
            next_step=f'or write reader = "jsonl" under [inputs.{key}] for the numbers themselves',
        )
    return data_file(folder, value, digests) if value in digests else inside(folder, value)


def _start(value: Any, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    raise InputRejected("start must be true or false", where=where)
