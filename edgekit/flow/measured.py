"""What `profile` measures, whatever it comes from: who it is, and how it is let onto a device, run and compared there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgekit.core.dataset import DataSetInfo
from edgekit.core.facts import FactSheet
from edgekit.core.results import Proof
from edgekit.flow.gate import pass_gate
from edgekit.flow.judge import Judge
from edgekit.flow.prove import Ground, prove
from edgekit.flow.subject import Subject
from edgekit.flow.workshop import SELECTION, Workshop
from edgekit.runner.client import Feeds, Runnable


@dataclass(frozen=True)
class Identity:
    """Who is measured, as the record says it."""

    model_name: str
    model_sha256: str
    recipe: str
    engine: str
    engine_version: str
    threads: int
    size_bytes: int
    data: DataSetInfo
    notices: tuple[str, ...]


class Measured(Protocol):
    """An artifact with all it takes to measure it on a device: a subject's, or a bundle's own (`flow/bundled.py`)."""

    @property
    def identity(self) -> Identity: ...

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def feeds(self) -> Feeds: ...

    def gate(self, sheet: FactSheet) -> tuple[str, ...]:
        """Let it onto the device, with notices. Raises TargetIncompatible with everything in the way."""

    def runnable(self, sheet: FactSheet) -> Runnable:
        """As it runs on the device, every file on this host."""

    def answers(self, sheet: FactSheet) -> tuple[Proof | None, Sequence[str]]:
        """The device's answers against known ones, None where there are none; and why it was not compared."""


class MeasuredSubject:
    """The chosen artifact of a run, or a model as a recipe makes it."""

    def __init__(self, shop: Workshop, found: Subject, cwd: Path) -> None:
        self._shop = shop
        self._found = found
        self._cwd = cwd
        self.name = found.candidate.name
        self.feeds = found.materials.feeds(SELECTION)

    @property
    def identity(self) -> Identity:
        found = self._found
        spec = found.made.artifact.spec
        return Identity(
            model_name=found.name,
            model_sha256=found.info.sha256,
            recipe=spec.recipe.name,
            engine=spec.recipe.engine,
            engine_version=spec.engine_version,
            threads=found.candidate.run.threads,
            size_bytes=found.made.artifact.size_bytes,
            data=found.materials.data,
            notices=(*found.info.notices, *_counted(found.candidate.run.batch)),
        )

    def gate(self, sheet: FactSheet) -> tuple[str, ...]:
        """As `pass_gate`."""
        return pass_gate(self._shop, sheet, self._found.info, self._found.made)

    def runnable(self, sheet: FactSheet) -> Runnable:
        """With the engine's library for the device's architecture, fetched if need be."""
        return self._shop.on(sheet.arch, self._found.made)

    def answers(self, sheet: FactSheet) -> tuple[Proof | None, Sequence[str]]:
        """Against this host's of the same artifact; on this host itself there is nothing to compare."""
        if self._shop.device is self._shop.host:
            return None, ()
        made, materials = self._found.made, self._found.materials
        judge = Judge(self._shop, materials, made, self._cwd)
        ground = Ground(self._shop.device, self._shop.facts)
        proof = prove(self._shop, judge, materials, self.name, made, ground, self._found.info.macs)
        return (None, (proof,)) if isinstance(proof, str) else (proof, ())


def _counted(batch: int) -> tuple[str, ...]:
    """What an inference is where it is not of one sample."""
    if batch == 1:
        return ()
    return (
        f"an inference takes a batch of {batch} samples: throughput in samples is {batch} times that in inferences",
    )
