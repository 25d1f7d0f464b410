"""The C++ runtime, libstdc++ and libgcc_s, for targets that have none: taken from a folder that the user names.

- wheels for glibc expect them on the system, so no wheel brings them. An SDK or the root of the target's own kind of system has
  them, Debian has them as libstdc++6 and libgcc-s1 (cross: libstdc++6-arm64-cross), and a host has its own architecture's;
- what they ask of the target is measured, never assumed: Debian 12's want glibc 2.36;
- a library newer than the engine was built with serves it, an older one does not: the symbol versions it defines decide.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgekit.core.targets import version_key
from edgekit.engines.floors import floors
from edgekit.errors import TargetIncompatible, UsageError

NAMES: Final = ("libstdc++.so.6", "libgcc_s.so.1")
MAX_BYTES: Final = 64 << 20

_VERSION = re.compile(rb"GLIBCXX_(3\.4(?:\.\d{1,3})?)\0")


@dataclass(frozen=True)
class CxxRuntime:
    """The two files, and the highest GLIBCXX version that they define, such as 3.4.30."""

    files: tuple[Path, ...]
    glibcxx: str


def cxx_runtime(folder: Path, arch: str, glibcxx: str | None) -> CxxRuntime:
    """libstdc++ and libgcc_s in `folder`, or where a system whose root it is keeps them.

    Raises UsageError when they are not there, TargetIncompatible when they are of another architecture than `arch` or older than
    `glibcxx` asks, VerificationFailed for files that are no libraries.
    """
    files = tuple(_find(folder, name, arch) for name in NAMES)
    if (found := floors(files).arch) != arch:
        raise TargetIncompatible(f"holds a C++ runtime for {found}, the target is {arch}", where=str(folder))
    provides = _provided(files[0])
    if glibcxx is not None and version_key(provides) < version_key(glibcxx):
        raise TargetIncompatible(
            f"holds libstdc++ {provides}, the engine needs {glibcxx}",
            where=str(folder),
            next_step="name a folder of a newer system or SDK",
        )
    return CxxRuntime(files, provides)


def _find(folder: Path, name: str, arch: str) -> Path:
    for place in _places(folder, arch):
        path = place / name
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            return path
    raise UsageError(
        f"holds no {name}",
        where=str(folder),
        next_step="name the root of the target's system, or the folder of its libraries",
    )


def _places(folder: Path, arch: str) -> Iterator[Path]:
    yield folder
    for base in ("lib", "lib64", "usr/lib", "usr/lib64"):
        yield folder / base / f"{arch}-linux-gnu"
        yield folder / base


def _provided(library: Path) -> str:
    versions = [match.decode() for match in _VERSION.findall(library.read_bytes())]
    return max(versions, key=version_key, default="3.4")
