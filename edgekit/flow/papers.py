"""The papers of a bundle: how it is used, where it comes from, whose it is. Each is made of the cargo and the files beside it."""

import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edgekit.bundle import notices, sbom
from edgekit.bundle.provenance import Tools, provenance
from edgekit.core import deployment
from edgekit.core.deployment import Deployment, Golden
from edgekit.data.manifest import FILE as DATA_FILE
from edgekit.data.manifest import read_manifest
from edgekit.engines.closure import NativeLibrary, native_notices
from edgekit.engines.runtime import CxxRuntime
from edgekit.errors import InternalError
from edgekit.flow.cargo import Cargo, Wishes
from edgekit.flow.workshop import Workshop
from edgekit.runner import BUNDLED, ekrun_path
from edgekit.store import safe_name, sha256_file

PROGRAM = "bin/ekrun"
LIBRARY = "lib/libekrun.so"
PACKERS = ("cyclonedx-python-lib", "numpy", "zstandard")


def deployed(cargo: Cargo, library: NativeLibrary, golden: Golden | None) -> Deployment:
    """How the bundle is opened, run and checked."""
    config = cargo.config
    asked = cargo.run.requirements.latency if cargo.run is not None else None
    return Deployment(
        format=deployment.FORMAT,
        engine=library.engine,
        engine_version=library.version,
        library=f"lib/{library.library.name}",
        model=f"model/{cargo.made.artifact.files[0].path}",
        threads=config.threads,
        streams=config.streams,
        cores=config.cores,
        precision=config.precision,
        options=config.options,
        inputs=tuple(map(deployment.port, cargo.info.inputs)),
        outputs=tuple(map(deployment.port, cargo.info.outputs)),
        state=cargo.data.state,
        golden=golden,
        latency_budget=deployment.budget(asked),
    )


def provenance_of(cargo: Cargo, library: NativeLibrary) -> bytes:
    """Where what is in the bundle comes from."""
    run, own = cargo.run, metadata.version("edgekit")
    tools = Tools(
        built_by=run.edgekit_version if run is not None else own,
        packed_by=own,
        versions={**{name: metadata.version(name) for name in PACKERS}, "python": platform.python_version()},
        ekrun_sha256=sha256_file(ekrun_path(library.arch)),
        engine_files={path.name: sha256_file(path) for path in library.files},
    )
    name = run.model_name if run is not None else f"{cargo.name}.onnx"
    data = run.data if run is not None else cargo.data
    return provenance(name, cargo.info, cargo.made.artifact, data, cargo.target, tools)


# ----------------------------------------------------------------------------------------------------- licences, parts


@dataclass(frozen=True)
class Licences:
    """Texts by path, and the names of the licences of data and model, empty where nobody said."""

    texts: Sequence[tuple[str, bytes]]
    data: str
    model: str


def licences_of(
    cargo: Cargo, library: NativeLibrary, runtime: CxxRuntime | None, shop: Workshop, wishes: Wishes
) -> Licences:
    """Every licence that travels. Raises as `engines.closure.native_notices` does."""
    own = metadata.distribution("edgekit").read_text("licenses/LICENSE")
    if own is None:
        raise InternalError("this installation has no text of its licence", next_step="install edgekit again")
    where = (library.engine, library.version, library.arch, shop.cache.root)
    found = native_notices(*where, offline=wishes.offline, wheelhouse=wishes.wheelhouse, target=cargo.target.name)
    texts = [*notices.own_texts(own.encode(), runtime is not None), *notices.engine_texts(library.engine, found)]
    data, model = _said_licences(cargo)
    if cargo.source is not None:
        kinds = [kind for kind, said in (("data", data), ("model", model)) if said]
        beside = sorted(path for path in cargo.source.iterdir() if notices.is_licence(path))
        texts += [
            (f"{notices.FOLDER}/{kind}/{safe_name(path.name)}", path.read_bytes()) for kind in kinds for path in beside
        ]
    return Licences(texts, data, model)


def _said_licences(cargo: Cargo) -> tuple[str, str]:
    """The licence of the data, where samples of it are carried, and of the model, where it is the one packaged with the data."""
    if cargo.source is None or not (cargo.source / DATA_FILE).is_file():
        return "", ""
    said = read_manifest(cargo.source)
    same = said.sample is not None and said.sample.sha256 == cargo.info.sha256
    carried = cargo.materials is not None and not cargo.materials.data.synthetic
    return said.license if carried else "", said.license if same else ""


def parts_of(
    cargo: Cargo, library: NativeLibrary, runtime: CxxRuntime | None, licences: Licences, folder: Path
) -> list[sbom.Part]:
    """Every part of the bundle that has a maker."""
    carried = runtime.files if runtime else ()
    edgekit = metadata.version("edgekit")
    parts = [
        sbom.Part(
            sbom.APPLICATION, "ekrun", edgekit, notices.EKRUN_SPDX, _listed(folder, [PROGRAM, LIBRARY, *BUNDLED])
        ),
        sbom.Part(
            sbom.LIBRARY,
            library.engine,
            library.version,
            notices.SPDX.get(library.engine, ""),
            _listed(folder, [f"lib/{path.name}" for path in library.files]),
            library.engine,
        ),
        sbom.Part(
            sbom.MODEL,
            cargo.name,
            cargo.info.sha256[:12],
            licences.model,
            _listed(folder, [f"model/{file.path}" for file in cargo.made.artifact.files]),
        ),
    ]
    if runtime is not None:
        files = _listed(folder, [f"lib/{path.name}" for path in carried])
        parts.append(sbom.Part(sbom.LIBRARY, "libstdc++", runtime.glibcxx, notices.RUNTIME_SPDX, files))
    if cargo.materials is not None:
        golden = sorted(f"golden/{path.name}" for path in (folder / "golden").iterdir())
        data = cargo.materials.data
        parts.append(sbom.Part(sbom.DATA, data.name, data.sha256[:12], licences.data, _listed(folder, golden)))
    return parts


def _listed(folder: Path, paths: Iterable[str]) -> list[tuple[str, str]]:
    return [(path, sha256_file(folder / path)) for path in paths]
