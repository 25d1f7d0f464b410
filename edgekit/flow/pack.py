"""Pack a bundle: what was judged, with all it takes to run and to prove itself, in one file. `bundle` reads like that.

- nothing is packed that a device does not open, read or show: of an engine's wheel the pinned libraries and its notices;
- every file is determined by the run or model, the data, the engine's pins and the versions of edgekit and its packers;
- what a device must have is measured: the symbol versions that ekrun and the libraries name; the ISA is the target's, because
  candidates were laid out for it.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.bundle import sbom
from edgekit.bundle.container import Verified
from edgekit.bundle.keys import Seal, unsigned
from edgekit.bundle.provenance import (
    CONTRACT_FILE,
    FIGURES_FILE,
    PROVENANCE_FILE,
    contract,
    document,
    figures,
)
from edgekit.bundle.write import check_free, write_bundle
from edgekit.core.deployment import DEPLOYMENT_FILE
from edgekit.core.manifest import (
    MAX_NUMBER,
    PLAIN_MODE,
    PROGRAM_MODE,
    Manifest,
    Requires,
    is_application,
    is_path,
    is_version,
)
from edgekit.core.targets import ISA_FEATURES, version_key
from edgekit.core.types import Target
from edgekit.devices.local import LocalDevice
from edgekit.engines.closure import NativeLibrary
from edgekit.engines.floors import Floors, floors
from edgekit.engines.runtime import CxxRuntime, cxx_runtime
from edgekit.errors import InputRejected, TargetIncompatible, UsageError
from edgekit.flow.cargo import Cargo, Wishes, default_application, engine_library, find_cargo
from edgekit.flow.golden import make_golden
from edgekit.flow.papers import LIBRARY, PROGRAM, deployed, licences_of, parts_of, provenance_of
from edgekit.flow.workshop import Progress, Workshop
from edgekit.runner import BUNDLED, ekrun_path, libekrun_path
from edgekit.store import Cache, default_cache, disk_errors

DEFAULT_WISHES = Wishes()


@dataclass(frozen=True)
class Label:
    """How a bundle is called. Empty: the application after the model, the version after the artifact's digest."""

    application: str = ""
    version: str = ""
    counter: int = 1


DEFAULT_LABEL = Label()


def bundle(
    source: str | Path,
    out: str | Path,
    target: str | None = None,
    *,
    label: Label = DEFAULT_LABEL,
    wishes: Wishes = DEFAULT_WISHES,
    seal: Seal = unsigned,
    force: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> Verified:
    """Pack the chosen artifact of the run in the folder `source`, or the ONNX model there for `target`, into the file `out`.

    `seal` signs. Raises UsageError for a label or file that is not acceptable, and what reading, fetching, running and writing
    raise.
    """
    _check(label)
    check_free(Path(out), force)
    store = Cache(cache or default_cache())
    with store.scratch() as scratch:
        shop = Workshop(store, scratch, LocalDevice(scratch), progress, offline=wishes.offline)
        cargo = find_cargo(shop, Path(source), target, wishes, Path.cwd())
        named = replace(
            label,
            application=label.application or default_application(cargo),
            version=label.version or cargo.made.artifact.digest[:12],
        )
        folder = scratch / "bundle"
        requires = stage(shop, cargo, named, wishes, folder)
        progress(f"writing {Path(out).name}")
        head = Manifest(named.application, named.version, named.counter, requires)
        return write_bundle(Path(out), folder, head, seal, force=force, cache=store)


def _check(label: Label) -> None:
    """Raise UsageError for a label that no manifest takes; empty ones are filled in later."""
    if label.application and not is_application(label.application):
        raise UsageError(
            "an application is called by lower case letters, digits, dot, dash and underscore, at most 64",
            where=f"--application {label.application[:80]}",
        )
    if label.version and not is_version(label.version):
        raise UsageError(
            "a version has letters, digits, dot, dash, plus and underscore, at most 64",
            where=f"--version {label.version[:80]}",
        )
    if not 0 <= label.counter <= MAX_NUMBER:
        raise UsageError("is no security counter", where=f"--counter {label.counter}")


# -------------------------------------------------------------------------------------------------------------- staging


def stage(shop: Workshop, cargo: Cargo, label: Label, wishes: Wishes, folder: Path) -> Requires:
    """Lay the bundle's files out in the new `folder`, and say what they take to run."""
    target, spec = cargo.target, cargo.made.artifact.spec
    library = engine_library(shop, spec.recipe.engine, spec.engine_version, target.arch, target, wishes)
    floor = floors([*_own(target.arch), *library.files])
    runtime = cxx_runtime(wishes.libstdcxx, target.arch, floor.glibcxx) if wishes.libstdcxx else None
    requires = _requires(target, library, floor, runtime)
    _put(folder, PROGRAM, ekrun_path(target.arch), PROGRAM_MODE)
    for name, source in {LIBRARY: libekrun_path(target.arch), **BUNDLED}.items():
        _put(folder, name, source)
    for path in (*library.files, *(runtime.files if runtime else ())):
        _put(folder, f"lib/{path.name}", path)
    for file in cargo.made.artifact.files:
        _put(folder, f"model/{file.path}", cargo.made.folder / file.path)
    golden = make_golden(shop, cargo, wishes.samples, folder)
    _write(folder, DEPLOYMENT_FILE, document(deployed(cargo, library, golden)))
    _write(folder, CONTRACT_FILE, contract(cargo.data, cargo.info.inputs, cargo.info.outputs))
    _write(folder, FIGURES_FILE, figures(cargo.run, target))
    _write(folder, PROVENANCE_FILE, provenance_of(cargo, library))
    licences = licences_of(cargo, library, runtime, shop, wishes)
    for name, text in licences.texts:
        _write(folder, name, text)
    parts = parts_of(cargo, library, runtime, licences, folder)
    _write(folder, sbom.FILE, sbom.sbom(label.application, label.version, parts))
    return requires


def _own(arch: str) -> tuple[Path, Path]:
    """What edgekit itself brings that the dynamic linker loads."""
    return ekrun_path(arch), libekrun_path(arch)


def _put(folder: Path, path: str, source: Path, mode: int = PLAIN_MODE) -> None:
    """Copy a file to its path in the bundle. Raises InputRejected for a name that no bundle takes."""
    if not is_path(path):
        raise InputRejected(f"{path[:120]!r} is no path for a file of a bundle", where=source.name)
    place = folder / path
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
        place.chmod(mode)


def _write(folder: Path, path: str, data: bytes) -> None:
    place = folder / path
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        place.chmod(PLAIN_MODE)


def _requires(target: Target, library: NativeLibrary, floor: Floors, runtime: CxxRuntime | None) -> Requires:
    """What the files ask of a device; `floor` is without the C++ runtime. Raises TargetIncompatible when the target has less."""
    whole = floors([*_own(target.arch), *library.files, *runtime.files]) if runtime is not None else floor
    glibc = whole.glibc or "2.17"  # what ekrun is linked for
    if version_key(glibc) > version_key(target.glibc):
        is_runtime = whole.glibc != floor.glibc
        raise TargetIncompatible(
            f"{'the C++ runtime' if is_runtime else f'{library.engine} {library.version}'} needs glibc {glibc}, "
            f"{target.name} has {target.glibc}",
            next_step=f"choose {'one of an older system' if is_runtime else 'another engine version in the target'}",
        )
    isa = tuple(sorted(set(target.isa) & ISA_FEATURES[target.arch]))
    return Requires(target.arch, glibc, isa, whole.glibcxx or "")
