"""What shared objects ask of the system they are loaded on, read from their ELF symbol versions.

- the dynamic linker refuses a library when a version it names is missing: the highest one named is the floor;
- what a file of the closure provides itself is not asked of the system;
- a wheel's tag promises no less, but may ask for more than the files need.
"""

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from edgekit.core.targets import version_key
from edgekit.errors import VerificationFailed

ARCHITECTURES = {"x64": "x86_64", "AArch64": "aarch64"}

# More than any library has; the counts in a damaged file go into the billions.
MOST_SECTIONS = 4096
MOST_ENTRIES = 65536

# The last part of CXXABI_1.3.N -> that of the GLIBCXX_3.4.N it came with: libstdc++'s manual, "ABI Policy and Guidelines",
# symbol versioning. Both are versions of one library, so one floor holds both.
CXXABI_TO_GLIBCXX = {0: 0, 1: 4, 2: 10, 3: 11, 4: 14, 5: 15, 6: 17, 7: 18, 8: 20, 9: 21, 10: 22, 11: 23, 12: 26, 13: 29}

_VERSION = re.compile(r"(GLIBC|GLIBCXX|CXXABI)_(\d{1,5}(?:\.\d{1,5}){1,3})")


@dataclass(frozen=True)
class Floors:
    """The least system for a set of files; None where they ask for none. `needed` are the libraries they expect there."""

    arch: str
    glibc: str | None
    glibcxx: str | None
    needed: tuple[str, ...]


@dataclass(frozen=True)
class _Object:
    """One file: the libraries it needs, its own name for others, and (library, version) of symbols it names."""

    arch: str
    soname: str
    needed: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]


def floors(files: Sequence[Path]) -> Floors:
    """What `files`, loaded together, need. Raises VerificationFailed for one that is no ELF file, damaged, or of another arch."""
    objects = [_read(path) for path in files]
    archs = {o.arch for o in objects}
    if len(archs) != 1:
        raise VerificationFailed(f"files for {' and '.join(sorted(archs)) or 'no architecture'} do not go together")
    own = {o.soname for o in objects} | {path.name for path in files}
    asked = [version for o in objects for library, version in o.versions if library not in own]
    needed = sorted({name for o in objects for name in o.needed} - own)
    return Floors(archs.pop(), _highest(asked, "GLIBC"), _highest(map(_as_glibcxx, asked), "GLIBCXX"), tuple(needed))


def _highest(versions: Iterable[str], kind: str) -> str | None:
    """The highest "GLIBC_2.28" and the like as "2.28"; names such as GLIBC_PRIVATE say nothing."""
    found = [match[2] for version in versions if (match := _VERSION.fullmatch(version)) and match[1] == kind]
    return max(found, key=version_key, default=None)


def _as_glibcxx(version: str) -> str:
    """CXXABI_1.3.9 as GLIBCXX_3.4.21; anything else as it is. A later one than the table knows counts as the last there."""
    match = _VERSION.fullmatch(version)
    if match is None or match[1] != "CXXABI" or version_key(match[2])[:2] != (1, 3):
        return version
    minor = (*version_key(match[2]), 0)[2]
    return f"GLIBCXX_3.4.{CXXABI_TO_GLIBCXX[min(minor, max(CXXABI_TO_GLIBCXX))]}"


def _read(path: Path) -> _Object:
    try:
        with path.open("rb") as stream:
            return _parse(ELFFile(stream), path.name)
    # The parser's own errors, and what its arithmetic on damaged offsets, counts and names ends in.
    except (
        ELFError,
        ConstructError,
        OSError,
        struct.error,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        OverflowError,
        MemoryError,
        RecursionError,
    ) as error:
        reason = str(error) or type(error).__name__
        raise VerificationFailed(f"is not a readable ELF file: {reason}", where=path.name) from error


def _parse(elf: ELFFile, name: str) -> _Object:
    arch = ARCHITECTURES.get(elf.get_machine_arch(), elf.get_machine_arch().lower())
    soname, needed, versions = name, list[str](), list[tuple[str, str]]()
    dynamic = any(segment["p_type"] == "PT_DYNAMIC" for segment in islice(elf.iter_segments(), MOST_SECTIONS))
    seen = False
    for section in islice(elf.iter_sections(), MOST_SECTIONS):
        if isinstance(section, DynamicSection):
            seen = True
            tags = [vars(tag) for tag in islice(section.iter_tags(), MOST_ENTRIES)]  # names become attributes as read
            needed += [str(tag["needed"]) for tag in tags if "needed" in tag]
            soname = next((str(tag["soname"]) for tag in tags if "soname" in tag), soname)
        elif isinstance(section, GNUVerNeedSection):
            for library, entries in islice(section.iter_versions(), MOST_ENTRIES):
                versions += [(str(library.name), str(entry.name)) for entry in islice(entries, MOST_ENTRIES)]
    if dynamic and not seen:
        raise ELFError("it is loaded dynamically, and its section of that is missing")
    return _Object(arch, soname, tuple(needed), tuple(versions))
