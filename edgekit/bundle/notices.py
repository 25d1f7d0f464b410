"""Licences that travel with a bundle: of every part in it, below `licences/`, a folder a maker.

- edgekit's own, with that of Zig, whose standard library is in ekrun;
- of the engine, the licence and the third-party notices of its wheel;
- of data and model, what the data set's folder says; edgekit knows of no other;
- of the C++ runtime where it is carried: GPL with the exception that lets any program use it. Who passes the two libraries on
  also passes on where their source is: `gcc-runtime.txt` says so, the place is the maker's to name.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = "licences"
MAX_LICENCE_BYTES: Final = 1 << 20

SPDX: Final[Mapping[str, str]] = {"onnxruntime": "MIT", "openvino": "Apache-2.0"}
EKRUN_SPDX: Final = "Apache-2.0 AND MIT"
RUNTIME_SPDX: Final = "GPL-3.0-or-later WITH GCC-exception-3.1"

_TEXTS = Path(__file__).with_name("texts")
_NAMES = ("licence", "license", "copying", "notice", "copyright")


def own_texts(edgekit: bytes, carries_runtime: bool) -> Iterator[tuple[str, bytes]]:
    """Paths and texts of what edgekit brings with it; `edgekit` is the text of its own licence."""
    yield f"{FOLDER}/edgekit/LICENSE", edgekit
    yield f"{FOLDER}/edgekit/zig.txt", _text("zig.txt")
    if carries_runtime:
        for name in ("gcc-runtime.txt", "gcc-exception.txt", "gpl-3.txt"):
            yield f"{FOLDER}/libstdcxx/{name}", _text(name)


def engine_texts(engine: str, notices: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Paths and texts of an engine's own."""
    for path in notices:
        yield f"{FOLDER}/{engine}/{path.name}", path.read_bytes()


def is_licence(path: Path) -> bool:
    """Whether a file beside the data is the text of a licence, by its name and size."""
    plain = path.is_file() and not path.is_symlink()
    return plain and path.name.lower().startswith(_NAMES) and path.stat().st_size <= MAX_LICENCE_BYTES


def _text(name: str) -> bytes:
    return (_TEXTS / name).read_bytes()
