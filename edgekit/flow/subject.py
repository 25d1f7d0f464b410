"""What is profiled or compared: the chosen artifact of a run, or a model as one recipe makes it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from edgekit.core.plan import Facts, make_plan
from edgekit.core.recipes import RECIPES, REFERENCE
from edgekit.core.targets import host_target
from edgekit.core.types import Artifact, Candidate, ModelInfo, Requirements
from edgekit.errors import InputRejected, UsageError, VerificationFailed
from edgekit.flow.batches import in_batches, of_batch
from edgekit.flow.build import refusals
from edgekit.flow.calibrate import make
from edgekit.flow.materials import Options, gather, gather_data
from edgekit.flow.runs import read_run as read_run
from edgekit.flow.workshop import Made, Materials, Workshop, builder_versions, runnable
from edgekit.store import ARTIFACT_FOLDER, RUN_FILE, sha256_file


@dataclass(frozen=True)
class Subject:
    """An artifact with what it takes to run it, here and elsewhere."""

    name: str
    info: ModelInfo
    candidate: Candidate
    made: Made
    materials: Materials


def find_subject(
    shop: Workshop, source: Path, data: Path | None, engines: Mapping[str, str], recipe: str, options: Options
) -> Subject:
    """The subject at `source`: a run's folder, or an ONNX model, which `recipe` makes with `engines`, the device's.

    Raises InputRejected, UsageError for an unknown recipe or one that needs what is not there, VerificationFailed for an artifact
    that is not what its run recorded.
    """
    if source.is_dir() or source.name == RUN_FILE:
        if recipe != REFERENCE:
            raise UsageError("a recipe is for a model; a run has its own", where=str(source))
        return _from_run(shop, source if source.is_dir() else source.parent, data, options)
    return _from_model(shop, source, data, engines, recipe, options)


def _from_model(
    shop: Workshop, model: Path, data: Path | None, engines: Mapping[str, str], recipe: str, options: Options
) -> Subject:
    if recipe not in RECIPES:
        raise UsageError(f"unknown recipe {recipe!r}", where=str(model), next_step=f"use one of {', '.join(RECIPES)}")
    info, materials = gather(shop, model, data, options)
    target = host_target(shop.facts, engines)
    refused = refusals({RECIPES[recipe].engine}, materials.model, shop.progress) if recipe != REFERENCE else {}
    threads = options.threads or shop.facts.usable_threads
    calibration = materials.calibration_sha256
    facts = Facts(materials.model_sha256, shop.host_facts.isa, calibration, builder_versions(), threads)
    plan = make_plan(replace(info, refusals=refused), target, Requirements(), facts)
    candidate = next((c for c in plan.candidates if c.name == recipe), None)
    if candidate is None:
        raise UsageError(f"{recipe}: {plan.left_out[recipe]}", where=str(model), next_step="choose another --recipe")
    shop.progress(f"building {recipe}")
    return Subject(model.name, info, candidate, make(shop, candidate, info, materials), materials)


def _from_run(shop: Workshop, folder: Path, data: Path | None, options: Options) -> Subject:
    run = read_run(folder)
    if run.choice.chosen is None:
        raise InputRejected("nothing was chosen in this run", where=str(folder), next_step="relax its requirements")
    outcome = run.outcome(run.choice.chosen)
    artifact = outcome.artifact
    assert artifact is not None
    _verify(folder / ARTIFACT_FOLDER, artifact)
    inputs = run.model.inputs
    if data is None and any(not spec.dtype.startswith(("float", "bfloat")) for spec in inputs):
        raise UsageError(
            "its inputs hold more than floats, which random numbers would not suit",
            where=str(folder),
            next_step="give samples with --data",
        )
    place = shop.scratch / "data"
    dataset = gather_data(shop, inputs, 0, data, place, options)
    candidate = outcome.candidate
    if options.threads:
        candidate = replace(candidate, run=replace(candidate.run, threads=options.threads))
    elif candidate.run.threads > shop.facts.usable_threads:
        candidate = replace(candidate, run=replace(candidate.run, threads=shop.facts.usable_threads))
    spec = candidate.build
    library = shop.native(spec.recipe.engine, spec.engine_version, shop.host_facts.arch)
    opened = folder / ARTIFACT_FOLDER / artifact.files[0].path
    names = tuple(spec.name for spec in inputs)
    materials = Materials(opened, opened, artifact.digest, dataset, place, names)
    info = run.model
    if candidate.run.batch > 1:
        materials = in_batches(materials, candidate.run.batch, shop.scratch / "batches")
        info = of_batch(info, candidate.run.batch)
    made = Made(
        folder / ARTIFACT_FOLDER, artifact, runnable(library, folder / ARTIFACT_FOLDER, artifact, candidate.run)
    )
    return Subject(run.model_name, info, candidate, made, materials)


def _verify(folder: Path, artifact: Artifact) -> None:
    """The artifact's files are plain, and have the bytes that were judged. Raises VerificationFailed."""
    for file in artifact.files:
        path = folder / file.path
        plain = PurePath(file.path).name == file.path
        if not plain or path.is_symlink() or not path.is_file() or sha256_file(path) != file.sha256:
            raise VerificationFailed(
                "is not the file that was measured", where=str(path), next_step="run `edgekit optimize` again"
            )
