"""data.toml, schema 1: parsed strictly, every key known, every path inside its own folder."""

import difflib
import math
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from edgekit.core.dataset import SPLITS
from edgekit.data.arrays import require_regular
from edgekit.errors import InputRejected
from edgekit.store import sha256_file

FILE = "data.toml"
MAX_BYTES = 1 << 20


class InputEntry(msgspec.Struct, frozen=True):
    """How a stored array becomes the model's tensor: stored * scale + offset in float32, then the model's dtype."""

    dtype: str = ""
    layout: str = ""
    scale: float = 1.0
    offset: float = 0.0


class SplitEntry(msgspec.Struct, frozen=True):
    """One split: its arrays by input name, optional labels and sequence starts, optional digests by file name."""

    samples: int
    files: dict[str, str]
    labels: str = ""
    sequences: str = ""
    sha256: dict[str, str] = {}


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
    state: dict[str, str] = {}
    inputs: dict[str, InputEntry] = {}
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
    _known(raw.get("splits"), SPLITS, f"{where} [splits]")
    for table, entry in (("splits", SplitEntry), ("inputs", InputEntry)):
        for name, value in _items(raw.get(table)):
            _known(value, entry.__struct_fields__, f"{where} [{table}.{name}]")
    _known(raw.get("sample"), SampleEntry.__struct_fields__, f"{where} [sample]")


def _items(table: Any) -> Iterable[tuple[str, Any]]:
    return table.items() if isinstance(table, dict) else ()


def _known(table: Any, known: Iterable[str], where: str) -> None:
    for key, _ in _items(table):
        if key not in known:
            raise InputRejected(f"unknown key '{key}'", where=where, next_step=did_you_mean(key, known))


def _check_values(manifest: Manifest, where: str) -> None:
    for split in ("selection", "evaluation"):
        if split not in manifest.splits:
            raise InputRejected(f"has no [splits.{split}]", where=where, next_step="declare selection and evaluation")
    for name, entry in manifest.inputs.items():
        if not (math.isfinite(entry.scale) and math.isfinite(entry.offset) and entry.scale != 0):
            raise InputRejected("scale must be finite and not 0, offset finite", where=f"{where} [inputs.{name}]")
    if len(set(manifest.state.values())) != len(manifest.state):
        raise InputRejected("feeds one input from two outputs", where=f"{where} [state]")


def data_file(folder: Path, name: str, digests: dict[str, str]) -> Path:
    """A file named in data.toml: inside its folder, regular, and of the declared digest. Raises InputRejected."""
    where = f"{folder / FILE}: {name}"
    pure = PurePosixPath(name)
    path = folder / name
    if pure.is_absolute() or ".." in pure.parts or not path.resolve().is_relative_to(folder.resolve()):
        raise InputRejected("lies outside the data set's folder", where=where)
    require_regular(path)
    expected = digests.get(name)
    if expected is not None and sha256_file(path) != expected.lower():
        raise InputRejected("does not have the sha256 that data.toml declares", where=where)
    return path
