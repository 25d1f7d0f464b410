"""data.toml, schema 1: parsed strictly, every key known, every path inside its own folder. All keys are in docs/data-toml.md."""

import difflib
import hashlib
import math
import os
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from edgekit.core.dataset import SPLITS
from edgekit.data.arrays import require_regular
from edgekit.errors import InputRejected
from edgekit.store import sha256_file

FILE = "data.toml"
MAX_BYTES = 1 << 20
ALL = "all"  # the split of a set that is to be divided


class InputEntry(msgspec.Struct, frozen=True):
    """How one input is read and preprocessed, as written; `contracts.py` checks it and makes a Contract of it."""

    reader: str = ""
    dtype: str = ""
    layout: str = ""
    scale: float | UnsetType = UNSET
    offset: float | UnsetType = UNSET
    mean: float | list[float] | UnsetType = UNSET
    std: float | list[float] | UnsetType = UNSET
    color: str | UnsetType = UNSET
    resize: str | UnsetType = UNSET
    size: int | list[int] | UnsetType = UNSET
    resample: str | UnsetType = msgspec.field(default=UNSET, name="filter")
    pad: int | list[int] | UnsetType = UNSET
    align: str | UnsetType = UNSET
    crop: list[int] | UnsetType = UNSET
    rate: int | UnsetType = UNSET
    channels: int | UnsetType = UNSET
    length: int | UnsetType = UNSET
    frame: int | UnsetType = UNSET
    hop: int | UnsetType = UNSET
    lead: int | UnsetType = UNSET
    stored_dtype: str | UnsetType = UNSET
    stored_shape: list[int] | UnsetType = UNSET
    value: bool | float | UnsetType = UNSET


class SplitEntry(msgspec.Struct, frozen=True):
    """One split. Its samples are in `files` by input name, in a `folder`, or named line by line in `listing` (key `list`).

    Optional: labels and sequence starts in files of their own, digests by the name that data.toml gives.
    """

    samples: int | UnsetType = UNSET
    files: dict[str, str] = {}
    folder: str = ""
    listing: str = msgspec.field(default="", name="list")
    labels: str = ""
    sequences: str = ""
    sha256: dict[str, str] = {}


class LabelsEntry(msgspec.Struct, frozen=True):
    """What labels mean: names of classes in the order of their numbers, or the characters of CTC classes 1, 2, ..."""

    classes: tuple[str, ...] = ()
    alphabet: str = ""


class SampleEntry(msgspec.Struct, frozen=True):
    """A model packaged with the data."""

    model: str
    sha256: str = ""


class Manifest(msgspec.Struct, frozen=True):
    """The whole file."""

    schema: int
    name: str
    splits: dict[str, SplitEntry]
    summary: str = ""
    license: str = ""
    source: str = ""
    source_sha256: str = ""
    metric: str = ""
    metric_options: dict[str, Any] = {}
    state: dict[str, str] = {}
    inputs: dict[str, InputEntry] = {}
    labels: LabelsEntry = LabelsEntry()
    sample: SampleEntry | None = None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A next step for a name that is not known."""
    names = list(known)
    near = difflib.get_close_matches(word, names, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"


def read_manifest(folder: Path) -> Manifest:
    """Read and check `folder`/data.toml. Raises InputRejected."""
    path = folder / FILE
    if require_regular(path) > MAX_BYTES:
        raise InputRejected(f"is larger than {MAX_BYTES >> 20} MiB", where=str(path))
    try:
        raw = tomllib.loads(path.read_bytes().decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputRejected(f"is not valid TOML: {error}", where=str(path)) from error
    if raw.get("schema") != 1:
        raise InputRejected(f"schema is {raw.get('schema')!r}, not 1", where=str(path), next_step="write schema = 1")
    _check_keys(raw, str(path))
    try:
        manifest = msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise InputRejected(str(error), where=str(path)) from error
    _check_values(manifest, str(path))
    return manifest


def _check_keys(raw: dict[str, Any], where: str) -> None:
    _known(raw, Manifest.__struct_fields__, where)
    _known(raw.get("splits"), (*SPLITS, ALL), f"{where} [splits]")
    for table, entry in (("splits", SplitEntry), ("inputs", InputEntry)):
        for name, value in _items(raw.get(table)):
            _known(value, entry.__struct_encode_fields__, f"{where} [{table}.{name}]")
    for table, kind in (("labels", LabelsEntry), ("sample", SampleEntry)):
        _known(raw.get(table), kind.__struct_fields__, f"{where} [{table}]")


def _items(table: Any) -> Iterable[tuple[str, Any]]:
    return table.items() if isinstance(table, dict) else ()


def _known(table: Any, known: Iterable[str], where: str) -> None:
    for key, _ in _items(table):
        if key not in known:
            raise InputRejected(f"unknown key '{key}'", where=where, next_step=did_you_mean(key, known))


def _check_values(manifest: Manifest, where: str) -> None:
    _check_split_names(manifest.splits, where)
    for name, split_entry in manifest.splits.items():
        _check_split(split_entry, f"{where} [splits.{name}]")
    for name, entry in manifest.inputs.items():
        if not (_finite(entry.scale) and _finite(entry.offset) and entry.scale != 0):
            raise InputRejected("scale must be finite and not 0, offset finite", where=f"{where} [inputs.{name}]")
    if len(set(manifest.state.values())) != len(manifest.state):
        raise InputRejected("feeds one input from two outputs", where=f"{where} [state]")
    _check_labels(manifest.labels, f"{where} [labels]")


def _check_split_names(names: Iterable[str], where: str) -> None:
    """Selection and evaluation at least, or all alone."""
    if ALL in names:
        if set(names) != {ALL}:
            fix = "keep all, which is divided, or the others"
            raise InputRejected(f"has [splits.{ALL}] beside others", where=where, next_step=fix)
        return
    for split in ("selection", "evaluation"):
        if split not in names:
            fix = f"declare selection and evaluation, or {ALL}, which is divided"
            raise InputRejected(f"has no [splits.{split}]", where=where, next_step=fix)


def _finite(value: float | UnsetType) -> bool:
    return value is UNSET or math.isfinite(value)


def _check_split(entry: SplitEntry, where: str) -> None:
    forms = [key for key, value in (("files", entry.files), ("folder", entry.folder), ("list", entry.listing)) if value]
    if len(forms) != 1:
        what = f"names its samples by {' and '.join(forms)}" if forms else "names no samples"
        raise InputRejected(what, where=where, next_step="write one of files, folder and list")
    if entry.files and entry.samples is UNSET:
        raise InputRejected(
            "does not say how many samples its files hold", where=where, next_step="write samples = ..."
        )
    for key, value in (("labels", entry.labels), ("sequences", entry.sequences)):
        if entry.listing and value:
            line_key = {"labels": "label", "sequences": "start"}[key]
            raise InputRejected(
                f"has {key} beside a list", where=where, next_step=f"write '{line_key}' into the lines of the list"
            )


def _check_labels(labels: LabelsEntry, where: str) -> None:
    if labels.classes and labels.alphabet:
        raise InputRejected("has both classes and an alphabet", where=where, next_step="keep one of them")
    for key, values in (("classes", labels.classes), ("alphabet", tuple(labels.alphabet))):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise InputRejected(f"{key} has '{twice[0]}' twice", where=where)


# ---------------------------------------------------------------------------------------------------------------- paths


def inside(folder: Path, name: str) -> Path:
    """The path of a name given in data.toml or a list. Raises InputRejected when it is outside the data set's folder."""
    pure = PurePosixPath(name)
    path = folder / name
    try:
        outside = pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that is too long or holds a zero byte
        outside = True
    if outside:
        raise InputRejected("lies outside the data set's folder", where=f"{folder / FILE}: {name}")
    return path


def data_file(folder: Path, name: str, digests: Mapping[str, str]) -> Path:
    """A file named in data.toml: inside its folder, regular, and of the declared digest. Raises InputRejected."""
    path = inside(folder, name)
    require_regular(path)
    expected = digests.get(name)
    if expected is not None and sha256_file(path) != expected.lower():
        raise _other_digest(folder, name)
    return path


def check_folder_digest(folder: Path, name: str, files: Sequence[str], digests: Mapping[str, str]) -> None:
    """The declared digest of folder `name`, if any, against that of `files`, paths in it. Raises InputRejected."""
    expected = digests.get(name)
    if expected is not None and folder_digest(folder, name, files) != expected.lower():
        raise _other_digest(folder, name)


def folder_digest(folder: Path, name: str, files: Sequence[str]) -> str:
    """SHA-256 of what `sha256sum` prints for the files, sorted by path: a line `<sha256>  <path in the folder>` for each."""
    digest = hashlib.sha256()
    for file in sorted(files, key=os.fsencode):
        digest.update(os.fsencode(f"{sha256_file(data_file(folder, f'{name}/{file}', {}))}  {file}\n"))
    return digest.hexdigest()


def _other_digest(folder: Path, name: str) -> InputRejected:
    return InputRejected("does not have the sha256 that data.toml declares", where=f"{folder / FILE}: {name}")
