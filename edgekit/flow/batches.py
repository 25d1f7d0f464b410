"""A candidate for batches: the same recipe, built from the model with its batch axis fixed to B, and checked against batch 1.

- Only a model whose every input has an open first axis of one sample has such an axis, and only samples without state can share a
  request.
- Static int8 takes the ranges of batch 1, so that what is quantized is the same.
- A batch counts when its answers are those of its samples alone, within the tolerances that golden samples are held to.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit import sandbox
from edgekit.core.recipes import REFERENCE
from edgekit.core.types import Candidate, ModelInfo, TensorSpec, content_digest
from edgekit.errors import DiskFull, EdgekitError
from edgekit.flow.calibrate import make
from edgekit.flow.clock import Job
from edgekit.flow.judge import SCORING, answers, on_one_thread
from edgekit.flow.materials import PREFLIGHT_SECONDS, READING, prepare
from edgekit.flow.workshop import SELECTION, Made, Materials, Workshop

# Samples that a batch's answers are checked on: whole batches of them.
CHECKED = 16


@dataclass(frozen=True)
class Batched:
    """The model for requests of `batch` samples, and samples in such requests."""

    batch: int
    info: ModelInfo
    materials: Materials
    requests: int


def in_batches(materials: Materials, batch: int, place: Path) -> Materials:
    """The same samples, `batch` of them to a request, in the new folder `place`; evaluation, looked at once, is not among them."""
    for split in ("calibration", SELECTION):
        if (materials.data_folder / split).is_dir():
            sandbox.call(
                "edgekit.data.stack:stack",
                returns=int,
                limits=READING,
                task=f"batches of {batch}",
                folder=materials.data_folder / split,
                out=place / split,
                inputs=len(materials.input_names),
                batch=batch,
            )
    return replace(materials, data_folder=place)


def of_batch(info: ModelInfo, batch: int) -> ModelInfo:
    """The model's facts with the batch in the first axis of inputs and outputs."""

    def wide(spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=(batch, *spec.shape[1:]))

    return replace(info, inputs=tuple(map(wide, info.inputs)), outputs=tuple(map(wide, info.outputs)))


class Batches:
    """Models and candidates for batches, each made when it is asked for, and why one can't be."""

    def __init__(self, shop: Workshop, job: Job, made: Mapping[str, Made]) -> None:
        self._shop = shop
        self._job = job
        self._made = made
        self._models: dict[int, Batched | str] = {}
        self._candidates: dict[tuple[str, int], tuple[Candidate, Made] | str] = {}

    def why_none(self) -> str:
        """Why no batch can be made at all, or an empty string."""
        data = self._job.materials.data
        if self._job.requirements.batchable is False:
            return "the requirements say that samples do not wait for each other"
        if data.state:
            return "samples carry state from one to the next"
        if any(not spec.shape or spec.shape[0] != 1 for spec in self._job.info.inputs):
            return "not every input has a batch axis"
        return ""

    def model(self, batch: int) -> Batched | str:
        """The model for requests of `batch` samples, or why there is none."""
        if batch not in self._models:
            try:
                self._models[batch] = self.why_none() or self._model(batch)
            except DiskFull:
                raise
            except EdgekitError as error:
                self._models[batch] = str(error)
        return self._models[batch]

    def _model(self, batch: int) -> Batched:
        shop, job = self._shop, self._job
        shop.progress(f"the model for batches of {batch}")
        shapes = {spec.name: [batch, *(int(dim) for dim in spec.shape[1:])] for spec in job.info.inputs}
        place = Path(tempfile.mkdtemp(dir=shop.scratch)) / f"batch-{batch}"
        prepared = prepare(job.materials.original, place, shapes, PREFLIGHT_SECONDS)
        materials = replace(
            in_batches(job.materials, batch, place / "data"),
            original=place / "original.onnx",
            model=place / "model.onnx",
            model_sha256=content_digest([prepared.info.sha256, prepared.model_sha256]),
        )
        return Batched(batch, prepared.info, materials, job.materials.data.splits[SELECTION].samples // batch)

    def candidate(self, candidate: Candidate, batch: int) -> tuple[Candidate, Made] | str:
        """The candidate for requests of `batch` samples as it is built, or why it does not count."""
        at = (candidate.name, batch)
        if at not in self._candidates:
            model = self.model(batch)
            try:
                self._candidates[at] = model if isinstance(model, str) else self._candidate(candidate, model)
            except DiskFull:
                raise
            except EdgekitError as error:
                self._candidates[at] = str(error)
        return self._candidates[at]

    def _candidate(self, candidate: Candidate, model: Batched) -> tuple[Candidate, Made] | str:
        shop, job = self._shop, self._job
        shop.progress(f"building {candidate.name} for batches of {model.batch}")
        build = replace(candidate.build, model_sha256=model.materials.model_sha256)
        if build.calibration_sha256:
            build = replace(build, calibration_sha256=content_digest([build.calibration_sha256, model.batch]))
        wide = Candidate(build, replace(candidate.run, batch=model.batch))
        made = make(shop, wide, model.info, model.materials, ranges=(job.info, job.materials))
        key = {
            "one": self._made[candidate.name].key,
            "many": made.key,
            "feeds": self._feeds_key(),
            "machine": shop.host_key,
        }
        why = shop.remembered("batches", key, str, lambda _: self._differs(candidate.name, made, model))[1]
        return why or (wide, made)

    def _feeds_key(self) -> str:
        return self._job.materials.data.splits[SELECTION].sha256

    def _differs(self, name: str, made: Made, model: Batched) -> str:
        """How its answers differ from those of batch 1, or an empty string."""
        shop, one = self._shop, self._made[name]
        requests = max(1, min(model.requests, CHECKED // model.batch))
        samples = requests * model.batch
        shop.progress(f"checking the answers of {name} in batches of {model.batch}")
        with tempfile.TemporaryDirectory(dir=shop.scratch) as scratch:
            place, feeds = Path(scratch), self._job.materials.feeds(SELECTION)
            own = answers(shop.host, on_one_thread(one.runnable), feeds, place / "one", name, samples)
            reference = None
            if name != REFERENCE:
                runnable = on_one_thread(self._made[REFERENCE].runnable)
                reference = answers(shop.host, runnable, feeds, place / "reference", REFERENCE, samples)
            wide = model.materials.feeds(SELECTION)
            many = answers(shop.host, on_one_thread(made.runnable), wide, place / "many", name, requests)
            return sandbox.call(
                "edgekit.bundle.golden:stacked_as_one",
                returns=str,
                limits=SCORING,
                task=f"comparing the answers of {name} in batches of {model.batch}",
                one=own,
                stacked=many,
                reference=reference,
            )
