"""The place a run works in: the cache, the device, a scratch folder, and every step that is worth remembering.

A remembered step is a folder named by the digest of all it depends on, with the step's record in `record.json`.
"""

import contextlib
import functools
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from edgekit import sandbox
from edgekit.core.dataset import DataSetInfo
from edgekit.core.types import Artifact, ArtifactFile, Built, Candidate, RunConfig, content_digest
from edgekit.devices.base import Device
from edgekit.devices.local import LocalDevice
from edgekit.engines.closure import NativeLibrary, native_library
from edgekit.errors import UsageError
from edgekit.measure import device_facts
from edgekit.process import killing_all
from edgekit.runner.client import Feeds, Runnable
from edgekit.store import ARTIFACT_FOLDER, Cache, disk_errors, sha256_file, write_atomic

T = TypeVar("T")
U = TypeVar("U")

BUILDERS = ("onnx", "onnxruntime", "openvino", "nncf", "numpy")

RECORD = "record.json"

# The split that candidates are compared on; without data it holds synthetic inputs.
SELECTION = "selection"

# Kinds of steps whose outcome depends on the moment: `fresh` repeats them.
MEASURED = frozenset({"benches", "races", "proofs"})

# How long what an interrupted step knew is kept for the next try.
UNFINISHED_KEPT_S = 14 * 86400

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Materials:
    """What the candidates are built from and measured with, in the scratch folder of this run.

    `original` is the model as given, `model` the same with fixed shapes; `model_sha256` covers both.
    """

    original: Path
    model: Path
    model_sha256: str
    data: DataSetInfo
    data_folder: Path
    input_names: tuple[str, ...]

    @property
    def calibration_sha256(self) -> str:
        """Of all that calibration reads of the data, what is carried from sample to sample included; empty without it."""
        calibration = self.data.splits.get("calibration")
        return content_digest([calibration.sha256, self.data.state]) if calibration else ""

    def feeds(self, split: str) -> Feeds:
        """The stacked inputs of a split, as ekrun takes them; those of state are what a sequence starts with."""
        folder = self.data_folder / split
        inputs = {name: folder / f"{i}.npy" for i, name in enumerate(self.input_names)}
        reset = folder / "reset.npy"
        return Feeds(inputs, self.data.state, reset if reset.exists() else None)


@dataclass(frozen=True)
class Made:
    """A candidate that was built: where it lies and how it is run here."""

    folder: Path
    artifact: Artifact
    runnable: Runnable

    @property
    def key(self) -> dict[str, Any]:
        """What its behaviour on this machine depends on."""
        return {
            "artifact": self.artifact.digest,
            "engine": [self.runnable.engine, self.artifact.spec.engine_version],
            "run": self.runnable.run,
        }


class Workshop:
    """Steps with their memory. `scratch` is private to this run and goes with it; `fresh` measures again what was measured.

    Accuracy is found on `host`, with the engine version that ships; latency and memory on `device`, which is the host unless
    another is given. `facts` are the device's.
    """

    def __init__(
        self,
        cache: Cache,
        scratch: Path,
        host: LocalDevice,
        progress: Progress,
        *,
        device: Device | None = None,
        offline: bool = False,
        fresh: bool = False,
    ) -> None:
        if "=" in str(cache.root.absolute()):  # ekrun takes NAME=FILE, split at the last "="
            raise UsageError(
                "the path of the cache holds '='", where=str(cache.root), next_step="choose another with --cache"
            )
        self.cache = cache
        self.scratch = scratch
        self.host = host
        self.host_facts = device_facts(host)
        self.device: Device = device or host
        self.facts = device_facts(device) if device else self.host_facts
        self.progress = progress
        self.offline = offline
        self.fresh = fresh
        self._libraries: dict[tuple[str, str, str], NativeLibrary] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def remembered(
        self,
        kind: str,
        key: Any,
        type_: type[T],
        make: Callable[[Path], T],
        intact: Callable[[Path, T], bool] = lambda _folder, _record: True,
    ) -> tuple[Path, T]:
        """The folder and record of a step, made at most once for a `key` (any JSON-able value).

        What was remembered is made again when its record can't be read or `intact` denies it. Recipes that share an artifact
        are built at the same time: the second waits for the first.
        """
        digest = self._digest(kind, key)
        with self._lock:
            lock = self._locks.setdefault(digest, threading.Lock())
        with lock:
            return self._remembered(kind, digest, type_, make, intact)

    @staticmethod
    def _digest(kind: str, key: Any) -> str:
        return content_digest({"kind": kind, "key": key, "edgekit": own_sha256()})

    def _remembered(
        self, kind: str, digest: str, type_: type[T], make: Callable[[Path], T], intact: Callable[[Path, T], bool]
    ) -> tuple[Path, T]:
        place = self.cache.get(kind, digest)
        if place is not None:
            record = _read_record(place, type_)
            if record is not None and intact(place, record) and not (self.fresh and kind in MEASURED):
                return place, record
            self.cache.discard(kind, digest)
        with self.cache.filling(kind, digest) as folder:
            made = make(folder)
            with disk_errors(folder):
                write_atomic(folder / RECORD, sandbox.encode(made))
        place = self.cache.root / kind / digest
        kept = _read_record(place, type_)  # another process may have been first: then its record counts, also for us
        return place, made if kept is None else kept

    @property
    def host_key(self) -> dict[str, Any]:
        """What an answer found on this machine depends on, apart from the artifact."""
        return {"facts": self.host_facts, "ekrun": self.host.ekrun_sha256}

    @property
    def device_key(self) -> dict[str, Any]:
        """What a measurement on the device depends on, apart from the artifact."""
        return {"name": self.device.name, "facts": self.facts, "ekrun": self.device.ekrun_sha256}

    def native(self, engine: str, version: str, arch: str) -> NativeLibrary:
        """The engine's library for an architecture. Fetched if need be, verified once a run."""
        with self._lock:
            if (engine, version, arch) not in self._libraries:
                self.progress(f"engine {engine} {version} for {arch}")
                found = native_library(engine, version, arch, self.cache.root, offline=self.offline)
                self._libraries[engine, version, arch] = found
            return self._libraries[engine, version, arch]

    def unfinished(self, kind: str, key: Any) -> Path:
        """A file for what a long step knows so far, for the one that goes on; the step removes it at its end."""
        folder = self.cache.root / "unfinished" / kind
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for left in folder.iterdir():  # by another version, or of a run that nobody took up again
                with contextlib.suppress(FileNotFoundError):  # another process may finish its own meanwhile
                    if time.time() - left.stat().st_mtime > UNFINISHED_KEPT_S:
                        left.unlink()
        return folder / self._digest(kind, key)

    def build(
        self,
        candidate: Candidate,
        materials: Materials,
        limits: sandbox.Limits,
        flat: Path | None = None,
        histograms: Path | None = None,
    ) -> tuple[Path, Artifact]:
        """The artifact's folder and record. Raises what the build raises."""
        spec = candidate.build

        def make(folder: Path) -> Artifact:
            built = sandbox.call(
                "edgekit.engines.build:build_artifact",
                returns=Built,
                limits=limits,
                task=f"building {candidate.name}",
                spec=spec,
                original=materials.original,
                model=materials.model,
                calibration=materials.data_folder / "calibration" if spec.recipe.needs_calibration else None,
                out=folder,
                flat=flat,
                histograms=histograms,
                state=dict(materials.data.state),
            )
            files = tuple(_artifact_file(folder, name) for name in built.files)
            return Artifact(spec, files, built.notes, built.quantized_ops, built.quantizable_ops)

        folder, artifact = self.remembered("artifacts", spec.digest, Artifact, make, intact=_is_intact)
        return folder, replace(artifact, spec=spec)

    def make(
        self,
        candidate: Candidate,
        materials: Materials,
        limits: sandbox.Limits,
        flat: Path | None = None,
        histograms: Path | None = None,
    ) -> Made:
        """Build the candidate and pair it with the library that runs it on this machine; `calibrate.make` gives what it reads."""
        folder, artifact = self.build(candidate, materials, limits, flat, histograms)
        library = self.native(candidate.build.recipe.engine, candidate.build.engine_version, self.host_facts.arch)
        return Made(folder, artifact, runnable(library, folder, artifact, candidate.run))

    def on(self, arch: str, made: Made) -> Runnable:
        """The same artifact with the library of the same version that runs it on `arch`."""
        library = self.native(made.runnable.engine, made.artifact.spec.engine_version, arch)
        return runnable(library, made.folder, made.artifact, made.runnable.run)


def runnable(library: NativeLibrary, folder: Path, artifact: Artifact, run: RunConfig) -> Runnable:
    """An artifact in `folder` with the library that runs it."""
    first, *others = (folder / file.path for file in artifact.files)
    return Runnable(library.engine, library.library, first, run, library.files, tuple(others))


def _read_record(place: Path, type_: type[T]) -> T | None:
    try:
        record: T = sandbox.decode((place / RECORD).read_bytes(), type_)
    except (OSError, msgspec.DecodeError):
        return None
    return record


def _artifact_file(folder: Path, name: str) -> ArtifactFile:
    path = folder / name
    return ArtifactFile(name, sha256_file(path), path.stat().st_size)


def _is_intact(folder: Path, artifact: Artifact) -> bool:
    """Whether a remembered artifact still has the bytes it was made with."""
    places = [(folder / file.path, file.sha256) for file in artifact.files]
    return all(path.is_file() and sha256_file(path) == sha256 for path, sha256 in places)


def copy_artifact(folder: Path, artifact: Artifact, to: Path) -> tuple[str, ...]:
    """Copy the files of an artifact to `to`/artifact; returns their paths relative to `to`, the first one is opened."""
    names = []
    with disk_errors(to):
        for file in artifact.files:
            place = to / ARTIFACT_FOLDER / file.path
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / file.path, place)
            names.append(f"{ARTIFACT_FOLDER}/{file.path}")
    return tuple(names)


def in_parallel(work: Callable[[U], T], items: Sequence[U], workers: int) -> list[T]:
    """`work` of each item, in order, `workers` at a time; an interrupt kills what is running and leaves nothing behind."""
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            with killing_all():
                pool.shutdown(wait=True)
            raise


@contextlib.contextmanager
def ticking(progress: Progress, text: str, state: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Say `text` and how far it is, once a second, while the block waits: `state` in words, or the seconds since."""
    over, began = threading.Event(), time.monotonic()

    def tick() -> None:
        while not over.wait(1.0):
            progress(f"{text}: {state() or f'{time.monotonic() - began:.0f} s'}")

    progress(text)
    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@functools.cache
def own_sha256() -> str:
    """Of edgekit's own Python sources: what another version of them made is not taken for what this one makes."""
    root = Path(__file__).parent.parent
    digests = {str(path.relative_to(root)): sha256_file(path) for path in sorted(root.rglob("*.py"))}
    return content_digest(digests)


def builder_versions() -> Mapping[str, str]:
    """Versions of the packages a build's bytes depend on."""
    return {name: metadata.version(name) for name in BUILDERS}
