"""Finds targets and calibration data: by name in three places, or by a path.

- the order is the user's own (`./targets/x.toml`, `./calibration_data/x/`), then what the package carries (a wheel), then the
  repository's (an editable install, a source distribution unpacked): the first that has the name wins;
- a name is lower case letters, digits and dashes, so it can't leave its folder; what ends in `.toml` or holds a slash is a path;
- files are read once, bounded, and only if they are regular: a FIFO must not hang edgekit.
"""

import io
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from edgekit.core.targets import HOST, is_name, parse_target
from edgekit.core.tomltable import MAX_TEXT_CHARS, suggest
from edgekit.core.types import Target
from edgekit.errors import InputRejected, UsageError

TARGETS = "targets"
CALIBRATION_DATA = "calibration_data"
DATA_FILE = "data.toml"

_PACKAGE = Path(__file__).parent


def roots(kind: str, cwd: Path) -> list[Path]:
    """The folders that are searched for `kind` ("targets" or "calibration_data"), in order."""
    checkout = _PACKAGE.parent
    candidates = [cwd / kind, _PACKAGE / "_data" / kind]
    if (checkout / "pyproject.toml").is_file():
        candidates.append(checkout / kind)
    return [folder for folder in candidates if _is_dir(folder)]


def list_targets(cwd: Path) -> dict[str, Path]:
    """Every target's file by its name, sorted. `host` is none of them: it is detected."""
    found: dict[str, Path] = {}
    for root in reversed(roots(TARGETS, cwd)):
        found |= {path.stem: path for path in root.glob("*.toml") if is_name(path.stem) and _is_file(path)}
    found.pop(HOST, None)
    return dict(sorted(found.items()))


def list_data(cwd: Path) -> dict[str, Path]:
    """Every calibration data set's folder by its name, sorted."""
    found: dict[str, Path] = {}
    for root in reversed(roots(CALIBRATION_DATA, cwd)):
        found |= {path.parent.name: path.parent for path in root.glob(f"*/{DATA_FILE}") if is_name(path.parent.name)}
    return dict(sorted(found.items()))


def find_target(name_or_path: str, cwd: Path) -> Path:
    """The file of a target named or pointed at. Raises UsageError, with the likeliest name, when there is none."""
    if name_or_path.endswith(".toml") or os.sep in name_or_path:
        path = cwd / name_or_path
        if not _exists(path):
            raise UsageError("there is no such target file", where=name_or_path)
        return path
    return _named("target", name_or_path, list_targets(cwd), {HOST})


def load_target(name_or_path: str, cwd: Path) -> Target:
    """The target named or pointed at; `host` is the caller's to detect.

    Raises UsageError when there is none, InputRejected when its file is not acceptable.
    """
    path = find_target(name_or_path, cwd)
    try:
        text = read_regular(path, MAX_TEXT_CHARS).decode()
    except UnicodeDecodeError as error:
        raise InputRejected("not UTF-8 text", where=str(path), next_step="a target is a TOML file") from error
    return parse_target(text, str(path), expected_name=path.stem)


def find_data(name_or_path: str, cwd: Path) -> Path:
    """The folder or file of data named or pointed at: a data set's name comes before a path in the current folder.

    Raises UsageError, with the likeliest name, when there is none.
    """
    known = list_data(cwd)
    if name_or_path in known:
        return known[name_or_path]
    if name_or_path and _exists(cwd / name_or_path):
        return cwd / name_or_path
    if os.sep in name_or_path:
        raise UsageError("there is no such data file or folder", where=name_or_path)
    return _named("data set", name_or_path, known)


def read_regular(path: Path, limit: int) -> bytes:
    """A regular file's bytes. Raises InputRejected when it can't be read, is not a regular file or is over `limit` bytes."""
    try:
        with io.FileIO(path, "rb", opener=_open_without_waiting) as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InputRejected("not a regular file", where=str(path))
            data = stream.read(limit + 1) if found.st_size <= limit else None
    except OSError as error:
        raise InputRejected(f"cannot be read: {error.strerror}", where=str(path)) from error
    if data is None or len(data) > limit:
        raise InputRejected(f"larger than {limit} bytes", where=str(path))
    return data


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a FIFO would wait for a writer that never comes."""
    return os.open(path, flags | os.O_NONBLOCK)


def _named(what: str, name: str, known: Mapping[str, Path], also: Collection[str] = ()) -> Path:
    if name in known:
        return known[name]
    names = [*known, *also]
    close = suggest(name, names)
    hint = f"did you mean {close!r}?" if close else f"there are: {', '.join(names) or 'none'}"
    raise UsageError(f"unknown {what} {name!r}", next_step=hint)


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (OSError, ValueError):  # too long a name, a NUL byte
        return False
    return True


def _is_dir(path: Path) -> bool:
    return _exists(path) and path.is_dir()


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()
