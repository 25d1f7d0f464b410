"""From a BuildSpec to an artifact on disk. Runs in the sandbox only.

Rules true of every engine are enforced here, once:
- the model that was given is not touched;
- the artifact loads, and keeps the names and the order of inputs and outputs;
- nothing is left behind but the artifact, and no temporary file is ever outside its folder;
- an engine, a converter or a quantizer may raise anything: it becomes InputRejected with one line, at `_run`;
  on a full disk, ResourceLimit.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from edgekit.core.types import BuildSpec, Built
from edgekit.engines.base import Engine, Ports, Task, one_line, onnx_ports
from edgekit.errors import EdgekitError, InputRejected, InternalError, ResourceLimit, UsageError
from edgekit.store import sha256_file

FULL_DISK_BYTES = 64 << 10


def build_artifact(
    spec: BuildSpec,
    original: Path,
    model: Path,
    calibration: Path | None,
    out: Path,
    flat: Path | None = None,
    histograms: Path | None = None,
    state: Mapping[str, str] | None = None,
) -> Built:
    """Make the artifact of `spec` in the folder `out`, from `original` as given and `model` with fixed shapes.

    `calibration` holds `<i>.npy` for each input i, stacked [N, *shape]; `state` maps an output to the input it is fed back to.
    `flat` and `histograms` are what `quantize` made of model and data, for recipes that read them. Raises InputRejected with a
    one-line reason, `where` is the recipe's name.
    """
    engine = _engine(spec.recipe.engine)
    before = _digests(original, model)
    wanted = onnx_ports(onnx.load(str(model), load_external_data=False))
    out.mkdir(parents=True, exist_ok=True)
    with _scratch(out) as scratch:
        task = Task(
            *(spec.recipe, spec.numeric, original, model, calibration, out, scratch, flat, histograms, state or {})
        )
        built = _run(engine, task)
    if _digests(original, model) != before:
        raise InternalError("the build changed the model it was given", where=spec.recipe.name)
    _verify(engine, out, built, wanted, spec.recipe.name)
    return built


def refusals(engine: str, model: Path) -> tuple[str, ...]:
    """Why `engine` will not take `model`, one line each; empty when it loads. An engine may also die: call it in a sandbox."""
    return _engine(engine).check(model)


def _engine(name: str) -> Engine:
    """The engine's module, imported when asked for: OpenVINO and NNCF take seconds."""
    if name == "onnxruntime":
        from edgekit.engines import onnxruntime

        return onnxruntime
    if name == "openvino":
        from edgekit.engines import openvino

        return openvino
    raise UsageError("no such engine", where=name, next_step="use onnxruntime or openvino")


def _run(engine: Engine, task: Task) -> Built:
    """The boundary: whatever a library raises leaves here typed. Exhausted memory stays what it is."""
    try:
        return engine.build(task)
    except EdgekitError as error:
        error.where = error.where or task.recipe.name
        raise
    except MemoryError:
        raise
    except Exception as error:  # whatever a library raises is this candidate's failure, in one line
        raise _failed(one_line(error), task.recipe.name, task.out) from error


def _failed(reason: str, recipe: str, out: Path) -> EdgekitError:
    """What to raise for a failed build. Libraries report a full disk in their own words, or write half a file and say nothing."""
    if shutil.disk_usage(out).free < FULL_DISK_BYTES:
        return ResourceLimit("the disk is full", where=str(out), next_step="free some space or choose another folder")
    return InputRejected(reason, where=recipe)


def _verify(engine: Engine, out: Path, built: Built, wanted: Ports, recipe: str) -> None:
    """Refuse an artifact that is incomplete, does not load, or answers to other names."""
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and not path.is_symlink()}
    if files != set(built.files):
        raise InternalError(f"the build left {sorted(files)} instead of {sorted(built.files)}", where=recipe)
    if reasons := engine.check(out / built.files[0]):
        raise _failed(f"the artifact does not load: {reasons[0]}", recipe, out)
    found = engine.ports(out / built.files[0], wanted)
    if found != wanted:
        raise InputRejected(
            f"inputs and outputs became {found.inputs} and {found.outputs} instead of {wanted.inputs} and {wanted.outputs}",
            where=recipe,
        )


def _digests(*paths: Path) -> tuple[str, ...]:
    return tuple(sha256_file(path) for path in paths)


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A temporary folder inside `out`; quantizers make theirs in it too, and what they drop in the working folder goes with it."""
    with tempfile.TemporaryDirectory(prefix=".scratch-", dir=out) as name:
        before, place = tempfile.tempdir, Path.cwd()
        tempfile.tempdir = name
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            tempfile.tempdir = before
            os.chdir(place)
