"""What a bundle is: the manifest, its rules, its canonical text and the strict inverse of that (docs/bundle-format.md).

- a manifest has exactly one text: what was understood is written again and compared, so no byte of it is left to choose;
- every rule is checked when a text is read and when one is written: no edgekit signs what another would refuse;
- every text of a manifest matches a pattern of harmless characters, so nothing in it needs escaping, in JSON or on a terminal;
- no path of a bundle can name anything outside it, or two things at once, on a file system that ignores case either.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from edgekit.errors import VerificationFailed

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
SIGNATURE_FILE: Final = "manifest.sig"
RESERVED: Final = (MANIFEST_FILE, SIGNATURE_FILE)

IDENTITY: Final = "identity"
ZSTD: Final = "zstd"
ZSTD_SUFFIX: Final = ".zst"
PLAIN_MODE: Final = 0o644
PROGRAM_MODE: Final = 0o755

MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_FILES: Final = 1000
MAX_BUNDLE_BYTES: Final = (1 << 31) - 1  # of all files as they are unpacked
MAX_NUMBER: Final = (1 << 53) - 1  # what every reader of JSON holds exactly
MAX_PATH_BYTES: Final = 96  # with `.zst` behind it fills the name of a tar header
MAX_SEGMENTS: Final = 8
MAX_ISA: Final = 64

_APPLICATION = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_SEGMENT = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*")
_DOTTED = re.compile(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}")
_FEATURE = re.compile(r"[a-z0-9_]{1,32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

_ADVICE = "the bundle was not made by edgekit, or by one that knows another format"


@dataclass(frozen=True)
class BundleFile:
    """One file: as it is unpacked (`size` in bytes, `sha256`), and as it is stored in the container."""

    path: str
    mode: int
    size: int
    sha256: str
    encoding: str
    stored_size: int
    stored_sha256: str

    @property
    def stored_path(self) -> str:
        """The entry's name in the container."""
        return self.path + ZSTD_SUFFIX if self.encoding == ZSTD else self.path


@dataclass(frozen=True)
class Requires:
    """What a device must have: `glibc` such as 2.28, `isa` as in /proc/cpuinfo, `libstdcxx` such as 3.4.22, empty when carried."""

    arch: str
    glibc: str
    isa: tuple[str, ...]
    libstdcxx: str


@dataclass(frozen=True)
class Manifest:
    """A bundle's head and its files, sorted by path. `counter` is the security counter; `version` is a label for people."""

    application: str
    version: str
    counter: int
    requires: Requires
    files: tuple[BundleFile, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files as they are unpacked."""
        return sum(file.size for file in self.files)

    @property
    def stored_size(self) -> int:
        """Bytes of all files as they are stored."""
        return sum(file.stored_size for file in self.files)


def is_application(text: str) -> bool:
    """Whether an application may be called `text`."""
    return _APPLICATION.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether `text` may be a bundle's version."""
    return _LABEL.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Whether a file of a bundle may have this path; whether it gets along with the others is `check_manifest`'s to say."""
    segments = text.split("/")
    return (
        len(text) <= MAX_PATH_BYTES
        and len(segments) <= MAX_SEGMENTS
        and all(_SEGMENT.fullmatch(segment) for segment in segments)
    )


def canonical_text(manifest: Manifest) -> bytes:
    """The one text of a manifest. Raises VerificationFailed when it breaks a rule."""
    check_manifest(manifest)
    text = _text(manifest)
    if len(text) > MAX_MANIFEST_BYTES:
        raise _wrong(f"is larger than {MAX_MANIFEST_BYTES} bytes")
    return text


def parse_manifest(data: bytes) -> Manifest:
    """The manifest whose canonical text `data` is. Raises VerificationFailed for any other bytes."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise _wrong(f"is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        raw = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no ASCII, a number of thousands of digits
        raise _wrong("is not JSON of ASCII characters") from error
    manifest = _manifest(raw)
    check_manifest(manifest)
    check_canonical(manifest, data)
    return manifest


def check_canonical(manifest: Manifest, data: bytes) -> None:
    """Raise VerificationFailed unless `data` is the text of `manifest`."""
    if _text(manifest) != data:
        raise _wrong("is not in canonical form")


def check_manifest(manifest: Manifest) -> None:
    """Raise VerificationFailed for the first rule that a manifest breaks."""
    if not is_application(manifest.application):
        raise _wrong(f"application {_short(manifest.application)} is not such a name")
    if not is_version(manifest.version):
        raise _wrong(f"version {_short(manifest.version)} is not such a label")
    _check_number("counter", manifest.counter)
    _check_requires(manifest.requires)
    if not 1 <= len(manifest.files) <= MAX_FILES:
        raise _wrong(f"names {len(manifest.files)} files: 1 to {MAX_FILES} are allowed")
    for file in manifest.files:
        _check_file(file)
    if manifest.size > MAX_BUNDLE_BYTES:
        raise _wrong(f"its files have {manifest.size} bytes, more than {MAX_BUNDLE_BYTES}")
    check_paths([file.path for file in manifest.files])


def check_paths(paths: Sequence[str]) -> None:
    """Raise VerificationFailed unless well-formed paths are sorted and get along.

    No two are one, and none is a folder of another, also when case is ignored and with `.zst` behind; the container's own two
    entries count among them.
    """
    for before, after in pairwise(paths):
        if before >= after:
            raise _wrong(f"{after} does not come after {before}: files are sorted by path, each once")
    taken: set[str] = set()
    for path in (*RESERVED, *paths):
        names = {path.lower(), path.lower() + ZSTD_SUFFIX}
        if names & taken:
            raise _wrong(f"{path} cannot stand beside a file of the same name")
        taken |= names
    for path in paths:
        segments = path.lower().split("/")
        if any("/".join(segments[:depth]) in taken for depth in range(1, len(segments))):
            raise _wrong(f"{path} lies below a file")


def _check_requires(requires: Requires) -> None:
    if requires.arch not in ("x86_64", "aarch64"):
        raise _wrong(f"arch {_short(requires.arch)} is neither x86_64 nor aarch64")
    if not _DOTTED.fullmatch(requires.glibc):
        raise _wrong(f"glibc {_short(requires.glibc)} is not a version")
    if requires.libstdcxx and not _DOTTED.fullmatch(requires.libstdcxx):
        raise _wrong(f"libstdcxx {_short(requires.libstdcxx)} is not a version")
    if len(requires.isa) > MAX_ISA or not all(map(_FEATURE.fullmatch, requires.isa)):
        raise _wrong("isa is not a list of names of /proc/cpuinfo")
    if any(before >= after for before, after in pairwise(requires.isa)):
        raise _wrong("isa is not sorted, each name once")


def _check_file(file: BundleFile) -> None:
    if not is_path(file.path):
        raise _wrong(f"{_short(file.path)} is no path for a file of a bundle")
    if file.mode not in (PLAIN_MODE, PROGRAM_MODE):
        raise _wrong(f"{file.path}: mode {_short(file.mode)} is neither 420 nor 493")
    for key in ("size", "stored_size"):
        _check_number(f"{file.path}: {key}", getattr(file, key))
    if file.size > MAX_BUNDLE_BYTES or file.stored_size > file.size:
        raise _wrong(f"{file.path}: size {file.size}, stored {file.stored_size}, is not possible")
    if not (_DIGEST.fullmatch(file.sha256) and _DIGEST.fullmatch(file.stored_sha256)):
        raise _wrong(f"{file.path}: a digest is not 64 lower-case hexadecimal digits")
    if file.encoding not in (IDENTITY, ZSTD):
        raise _wrong(f"{file.path}: encoding {_short(file.encoding)} is not known")
    if file.encoding == IDENTITY and (file.stored_size, file.stored_sha256) != (file.size, file.sha256):
        raise _wrong(f"{file.path}: is stored as it is, but with another size or digest")


def _check_number(what: str, number: int) -> None:
    if not 0 <= number <= MAX_NUMBER:
        raise _wrong(f"{what} is not from 0 to {MAX_NUMBER}")


# ------------------------------------------------------------------------------------------------------- text to record


def _manifest(raw: Any) -> Manifest:
    top = _object(raw, "application counter files format requires version")
    if _number(top, "format") != FORMAT:
        raise _wrong(f"format {_short(top['format'])} is not known, this edgekit reads {FORMAT}", "update edgekit")
    return Manifest(
        application=_string(top, "application"),
        version=_string(top, "version"),
        counter=_number(top, "counter"),
        requires=_requires(top["requires"]),
        files=tuple(_file(item) for item in _list(top, "files")),
    )


def _requires(raw: Any) -> Requires:
    table = _object(raw, "arch glibc isa libstdcxx")
    isa = _list(table, "isa")
    if not all(isinstance(name, str) for name in isa):
        raise _wrong("isa is not a list of text")
    return Requires(_string(table, "arch"), _string(table, "glibc"), tuple(isa), _string(table, "libstdcxx"))


def _file(raw: Any) -> BundleFile:
    table = _object(raw, "encoding mode path sha256 size stored_sha256 stored_size")
    return BundleFile(
        path=_string(table, "path"),
        mode=_number(table, "mode"),
        size=_number(table, "size"),
        sha256=_string(table, "sha256"),
        encoding=_string(table, "encoding"),
        stored_size=_number(table, "stored_size"),
        stored_sha256=_string(table, "stored_sha256"),
    )


def _object(raw: Any, keys: str) -> dict[str, Any]:
    expected = set(keys.split())
    if not isinstance(raw, dict) or raw.keys() != expected:
        raise _wrong(f"has an object whose keys are not {keys.replace(' ', ', ')}")
    return raw


def _string(table: dict[str, Any], key: str) -> str:
    if not isinstance(value := table[key], str):
        raise _wrong(f"{key} is not text")
    return value


def _number(table: dict[str, Any], key: str) -> int:
    if type(value := table[key]) is not int:  # a bool is an int to isinstance
        raise _wrong(f"{key} is not a whole number")
    return value


def _list(table: dict[str, Any], key: str) -> list[Any]:
    if not isinstance(value := table[key], list):
        raise _wrong(f"{key} is not a list")
    return value


# ------------------------------------------------------------------------------------------------------- record to text


def _text(manifest: Manifest) -> bytes:
    record = {"format": FORMAT, **asdict(manifest)}
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


def _short(value: object) -> str:
    return repr(value)[:100]


def _wrong(what: str, next_step: str = _ADVICE) -> VerificationFailed:
    return VerificationFailed(what, where=MANIFEST_FILE, next_step=next_step)
