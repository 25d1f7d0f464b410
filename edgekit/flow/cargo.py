"""What a bundle is made of: the chosen artifact of a run, or a model as it is, with what shows that it works.

- a run's artifact is taken as it was judged: its files are checked by the digests that the run recorded;
- golden samples of a run come from the very selection split the run was judged on: data that reads differently now is refused;
- what the artifact is held against is the run's own reference, the unmodified model: found in the cache by its digests, or made
  again from the model. Where neither is there nothing is guessed: the user is asked for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from edgekit.core.cost import fastest_cluster
from edgekit.core.dataset import DataSetInfo
from edgekit.core.recipes import ONNXRUNTIME, REFERENCE
from edgekit.core.run import Run
from edgekit.core.types import Artifact, ArtifactFile, ModelInfo, RunConfig, Target, content_digest
from edgekit.engines.closure import NativeLibrary, native_library
from edgekit.errors import InputRejected, TargetIncompatible, UsageError, VerificationFailed
from edgekit.flow.batches import in_batches, of_batch
from edgekit.flow.calibrate import DEFAULT
from edgekit.flow.materials import PREFLIGHT_SECONDS, Options, gather_data, prepare
from edgekit.flow.subject import find_subject, read_run
from edgekit.flow.targets import find_target
from edgekit.flow.workshop import SELECTION, Made, Materials, Workshop, runnable
from edgekit.resources import find_data
from edgekit.store import ARTIFACT_FOLDER, RUN_FILE, sha256_file

NO_SAMPLES = "or carry none with --golden none"
GOLDEN_SAMPLES = 8


@dataclass(frozen=True)
class Wishes:
    """What to pack, beyond the run or model itself.

    `data` are the samples to take golden ones from; `model` is the file a run was made from, where the cache no longer has it;
    `samples` 0 carries none, and `random` ones are nobody's data: drawn from a fixed seed. Engines come from the cache, from
    `wheelhouse`, a folder of wheels, or, unless `offline`, from the index. `libstdcxx` is a folder or root whose C++ runtime is
    carried. `options` are for a plain model.
    """

    data: Path | None = None
    model: Path | None = None
    samples: int = GOLDEN_SAMPLES
    random: bool = False
    wheelhouse: Path | None = None
    libstdcxx: Path | None = None
    offline: bool = False
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Cargo:
    """An artifact with all that is known of it.

    `config` is how it runs on the target; `materials` hold the samples, None when none are carried; `reference` is the unmodified
    model, None when the artifact is it. `source` is the folder the data came from, None for random samples. `run` is None for a
    plain model.
    """

    name: str
    info: ModelInfo
    target: Target
    config: RunConfig
    made: Made
    data: DataSetInfo
    materials: Materials | None
    reference: Made | None = None
    source: Path | None = None
    run: Run | None = None


def find_cargo(shop: Workshop, source: Path, target: str | None, wishes: Wishes, cwd: Path) -> Cargo:
    """What is at `source`, a run's folder or an ONNX model; `target` is for a model, and a run has its own.

    Raises UsageError, InputRejected, VerificationFailed for files that are not those of the run.
    """
    if not source.exists():
        raise InputRejected("there is no such run or model", where=str(source))
    if source.is_dir() or source.name == RUN_FILE:
        return _from_run(shop, source if source.is_dir() else source.parent, target, wishes, cwd)
    if target is None:
        raise UsageError("a model is packed for a target", where=str(source), next_step="name one with --target")
    if wishes.model is not None:
        raise UsageError("--model is the model of a run; this is a model itself", where=str(source))
    return _from_model(shop, source, find_target(target, shop.host_facts, cwd), wishes)


def engine_library(
    shop: Workshop, engine: str, version: str, arch: str, target: Target, wishes: Wishes
) -> NativeLibrary:
    """An engine for `arch`, from the wheelhouse where there is one. Raises what `engines.closure.native_library` raises."""
    root, house = shop.cache.root, wishes.wheelhouse
    native_library(engine, version, arch, root, offline=wishes.offline, wheelhouse=house, target=target.name)
    return shop.native(engine, version, arch)


def _engines(shop: Workshop, engine: str, version: str, target: Target, wishes: Wishes) -> NativeLibrary:
    """The host's engine, of the version that ships, after the target's: what is missing is said before anything is run."""
    engine_library(shop, engine, version, target.arch, target, wishes)
    return engine_library(shop, engine, version, shop.host_facts.arch, target, wishes)


def _from_model(shop: Workshop, model: Path, target: Target, wishes: Wishes) -> Cargo:
    if (version := target.engines.get(ONNXRUNTIME)) is None:
        raise TargetIncompatible(f"{ONNXRUNTIME} does not run on {target.name}, and a model as it is needs it")
    _engines(shop, ONNXRUNTIME, version, target, wishes)
    data = None if wishes.random else wishes.data
    found = find_subject(shop, model, data, target.engines, REFERENCE, wishes.options)
    threads = wishes.options.threads or fastest_cluster(target).cores
    config = RunConfig(threads, found.candidate.run.precision, found.candidate.run.options)
    materials = found.materials if wishes.samples else None
    return Cargo(
        model.stem, found.info, target, config, found.made, found.materials.data, materials, source=_folder(wishes.data)
    )


# ---------------------------------------------------------------------------------------------------------------- a run


def _from_run(shop: Workshop, folder: Path, target: str | None, wishes: Wishes, cwd: Path) -> Cargo:
    run = read_run(folder)
    if run.choice.chosen is None:
        raise InputRejected("nothing was chosen in this run", where=str(folder), next_step="relax its requirements")
    if target not in (None, run.target.name):
        raise UsageError(
            f"the run is for {run.target.name}, not for {target}",
            where=str(folder),
            next_step=f"run `edgekit optimize --target {target}`",
        )
    outcome = run.outcome(run.choice.chosen)
    artifact, config = outcome.artifact, outcome.candidate.run
    assert artifact is not None
    place = folder / ARTIFACT_FOLDER
    _check(place, artifact.files)
    made = _ready(shop, place, artifact, config, run.target, wishes)
    name = Path(run.model_name).stem
    info = of_batch(run.model, config.batch) if config.batch > 1 else run.model
    if not wishes.samples:
        return Cargo(name, info, run.target, config, made, run.data, None, source=_folder(wishes.data), run=run)
    source = None if wishes.random else _data(run, wishes.data, cwd)
    materials = _drawn(shop, run, made, wishes) if wishes.random else _samples(shop, run, made, source)
    reference = _reference(shop, run, made, materials, wishes)
    if config.batch > 1:
        materials = in_batches(materials, config.batch, shop.scratch / "batches")
    data = materials.data if run.data.synthetic else run.data
    kept = _folder(wishes.data if wishes.random else source)
    return Cargo(name, info, run.target, config, made, data, materials, reference, kept, run)


def _folder(data: Path | None) -> Path | None:
    """The data set's folder, which may say whose it is; None where the samples are in a file, or random."""
    return data if data is not None and data.is_dir() else None


def _ready(shop: Workshop, folder: Path, artifact: Artifact, config: RunConfig, target: Target, wishes: Wishes) -> Made:
    """An artifact with this host's library of the version that ships."""
    spec = artifact.spec
    library = _engines(shop, spec.recipe.engine, spec.engine_version, target, wishes)
    return Made(folder, artifact, runnable(library, folder, artifact, config))


def _check(folder: Path, files: Sequence[ArtifactFile]) -> None:
    """The artifact's files are plain ones with the bytes that were judged. Raises VerificationFailed."""
    for file in files:
        path = folder / file.path
        plain = PurePath(file.path).name == file.path and not path.is_symlink() and path.is_file()
        if not plain or sha256_file(path) != file.sha256:
            raise VerificationFailed(
                "is not the file that was measured", where=str(path), next_step="run `edgekit optimize` again"
            )


def _data(run: Run, given: Path | None, cwd: Path) -> Path | None:
    """Where the run's samples are: as given, or the data set of that name; None for random ones."""
    if given is not None or run.data.synthetic:
        return given
    try:
        return find_data(run.data.name, cwd)
    except UsageError as error:
        raise UsageError(
            f"the run's data, {run.data.name}, is not here", next_step=f"name its folder with --data, {NO_SAMPLES}"
        ) from error


def _samples(shop: Workshop, run: Run, made: Made, source: Path | None) -> Materials:
    """The run's selection split, read again. Raises InputRejected when the samples are not those of the run.

    The largest split has as many samples as `optimize --samples` let each have, so with that limit the same ones are read.
    """
    place = shop.scratch / "data"
    where = str(source) if source is not None else "the random inputs"
    advice = f"give the run's own data with --data, {NO_SAMPLES}"
    was_random = run.data.synthetic and source is not None  # then any samples are better
    most = None if was_random else max(split.samples for split in run.data.splits.values())
    try:
        data = gather_data(shop, run.model.inputs, 0, source, place, Options(samples=most, skip_bad=True))
    except InputRejected as error:
        raise InputRejected(f"is not the run's data: {error.what}", where=where, next_step=advice) from error
    if not was_random and data.splits[SELECTION].sha256 != run.data.splits[SELECTION].sha256:
        raise InputRejected("does not hold the samples that the run was judged on", where=where, next_step=advice)
    return _materials(run, made, data, place)


def _drawn(shop: Workshop, run: Run, made: Made, wishes: Wishes) -> Materials:
    """Random samples: nobody's data."""
    place = shop.scratch / "data"
    batch = run.outcome(run.choice.chosen or REFERENCE).candidate.run.batch
    data = gather_data(shop, run.model.inputs, 0, None, place, Options(samples=wishes.samples * batch))
    return _materials(run, made, data, place)


def _materials(run: Run, made: Made, data: DataSetInfo, place: Path) -> Materials:
    original = made.folder / made.artifact.files[0].path
    names = tuple(spec.name for spec in run.model.inputs)
    return Materials(original, original, made.artifact.digest, data, place, names)


def _reference(shop: Workshop, run: Run, made: Made, materials: Materials, wishes: Wishes) -> Made | None:
    """The run's reference, ready to run here; None when the artifact is the same file."""
    outcome = run.outcome(REFERENCE)
    artifact, model = outcome.artifact, wishes.model
    assert artifact is not None
    if artifact.digest == made.artifact.digest:
        return None
    folder = _in_cache(shop, artifact) if model is None else _made_again(shop, run, artifact, materials, model)
    return _ready(shop, folder, artifact, outcome.candidate.run, run.target, wishes)


def _in_cache(shop: Workshop, artifact: Artifact) -> Path:
    """The folder of an earlier build with the same files. Raises UsageError when there is none."""
    for folder in sorted((shop.cache.root / "artifacts").glob("*")):
        places = [(folder / file.path, file) for file in artifact.files]
        if all(p.is_file() and p.stat().st_size == f.size_bytes and sha256_file(p) == f.sha256 for p, f in places):
            return folder
    raise UsageError(
        "the model that the run was made from is no longer in the cache, and golden answers are held against it",
        next_step=f"name it with --model, {NO_SAMPLES}",
    )


def _made_again(shop: Workshop, run: Run, artifact: Artifact, materials: Materials, model: Path) -> Path:
    """The folder of the reference, built from `model`. Raises InputRejected when that is another model."""
    place = shop.scratch / "model"
    shapes = {spec.name: [int(dim) for dim in spec.shape] for spec in run.model.inputs}
    prepared = prepare(model, place, shapes, PREFLIGHT_SECONDS)
    if prepared.info.sha256 != run.model_sha256:
        raise InputRejected("is not the model that the run was made from", where=str(model))
    key = content_digest([prepared.info.sha256, prepared.model_sha256])
    given = replace(materials, original=place / "original.onnx", model=place / "model.onnx", model_sha256=key)
    candidate = run.outcome(REFERENCE).candidate
    folder, built = shop.build(replace(candidate, build=replace(candidate.build, model_sha256=key)), given, DEFAULT)
    if built.digest != artifact.digest:
        raise VerificationFailed("gives another reference than it gave to the run", where=str(model))
    return folder


def default_application(cargo: Cargo) -> str:
    """An application's name made of the model's: what is no lower case letter, digit, dot, dash or underscore becomes a dash."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in cargo.name.lower())
    return plain.lstrip("._-")[:64] or "model"
