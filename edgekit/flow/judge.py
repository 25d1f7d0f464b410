"""How right each artifact still is: run by ekrun with the engine that ships, scored against the reference on one split."""

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit import sandbox
from edgekit.core.accuracy import Accuracy, OutputSet
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Outcome, Verdict, VerdictCode
from edgekit.devices.base import Device
from edgekit.errors import DiskFull, EdgekitError, InputRejected
from edgekit.flow.workshop import Made, Materials, Workshop, in_parallel
from edgekit.measure import run_outputs
from edgekit.runner.client import Feeds, Runnable, RunReply

SCORING = sandbox.Limits(rss_bytes=6 << 30, cpu_s=900, wall_s=900.0)
RUN_DEADLINE_S = 1800.0


class Judge:
    """Scores artifacts against the reference, whose outputs it keeps in the scratch folder, one set a split.

    Everything runs on one thread here: answers do not depend on the number, and several candidates are judged at a time.
    """

    def __init__(self, shop: Workshop, materials: Materials, reference: Made, cwd: Path) -> None:
        self._shop = shop
        self._materials = materials
        self._reference = reference
        self._cwd = cwd
        self._references: dict[str, OutputSet] = {}
        self._lock = threading.Lock()

    def accuracy(self, made: Made, split: str, where: str) -> Accuracy:
        """The accuracy of an artifact on `split`. Raises what running it or scoring it raises."""
        data = self._materials.data
        if ":" in data.metric:  # the user's own code may change between two runs
            return self._score(made, split, where)
        key = {
            **self.key(made),
            "split": [split, data.splits[split].sha256],
            "metric": [data.metric, data.metric_options],
            "state": data.state,
            "machine": self._shop.host_key,
        }
        _, accuracy = self._shop.remembered("accuracy", key, Accuracy, lambda _: self._score(made, split, where))
        return accuracy

    def key(self, made: Made) -> dict[str, Any]:
        """What the answers and their score depend on, apart from the samples: the artifact and the reference."""
        return {"made": _alone(made), "reference": _alone(self._reference)}

    def _score(self, made: Made, split: str, where: str) -> Accuracy:
        reference = self._reference_outputs(split)
        if where == REFERENCE:
            return self.score(reference, split, where)
        with self.outputs(made, split, where) as outputs:
            return self.score(outputs, split, where)

    def _reference_outputs(self, split: str) -> OutputSet:
        with self._lock:
            if split not in self._references:
                out = self._shop.scratch / "references" / split
                self._references[split] = self._run(self._reference, split, REFERENCE, out)
            return self._references[split]

    @contextlib.contextmanager
    def outputs(self, made: Made, split: str, where: str, samples: int = 0) -> Iterator[OutputSet]:
        """The artifact's answers on the first `samples` of a split (0: all), found on this host; they go with the context."""
        with tempfile.TemporaryDirectory(dir=self._shop.scratch) as folder:
            yield self._run(made, split, where, Path(folder), samples)

    def score(self, outputs: OutputSet, split: str, where: str) -> Accuracy:
        """Answers on a whole split against the reference's. Raises InputRejected when they do not fit or the metric fails."""
        folder = self._materials.data_folder / split
        return sandbox.call(
            "edgekit.data.score:score",
            returns=Accuracy,
            limits=SCORING,
            task=f"scoring {where}",
            candidate=outputs,
            reference=self._reference_outputs(split),
            labels=_existing(folder / "labels.npy"),
            reset=_existing(folder / "reset.npy"),
            metric=self._materials.data.metric,
            options=self._materials.data.metric_options,
            split=split,
            synthetic=self._materials.data.synthetic,
            cwd=self._cwd,
        )

    def _run(self, made: Made, split: str, where: str, out: Path, samples: int = 0) -> OutputSet:
        runnable = on_one_thread(made.runnable)
        return answers(self._shop.host, runnable, self._materials.feeds(split), out, where, samples)


def answers(device: Device, runnable: Runnable, feeds: Feeds, out: Path, where: str, samples: int = 0) -> OutputSet:
    """Run an artifact over the first `samples` of its feeds (0: all) on a device, its outputs left in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    reply = run_outputs(device, runnable, feeds, out, where=where, deadline_s=RUN_DEADLINE_S, samples=samples)
    return _output_set(reply, out)


def on_one_thread(runnable: Runnable) -> Runnable:
    """The same artifact run on one thread, wherever the system puts it."""
    return replace(runnable, run=replace(runnable.run, threads=1, streams=1, cores=""))


def _alone(made: Made) -> dict[str, Any]:
    """The key of an artifact's answers: they do not depend on the threads."""
    return replace(made, runnable=on_one_thread(made.runnable)).key


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _output_set(reply: RunReply, folder: Path) -> OutputSet:
    return OutputSet(
        tuple(o.name for o in reply.outputs),
        tuple(o.dtype for o in reply.outputs),
        tuple(folder / f"{o.index}.npy" for o in reply.outputs),
        tuple(None if isinstance(o.shapes, str) else o.shapes for o in reply.outputs),
    )


def judge_all(
    judge: Judge, shop: Workshop, made: Mapping[str, Made], outcomes: Sequence[Outcome], split: str
) -> tuple[Outcome, ...]:
    """Accuracy on `split` for every candidate that may still be chosen.

    The reference is judged first: when it, the data or the metric fails, the run ends. After that a failure is the candidate's.
    """
    judge.accuracy(made[REFERENCE], split, REFERENCE)

    def checked(outcome: Outcome) -> Outcome:
        if outcome.name not in made or outcome.blocked is not None:
            return outcome
        shop.progress(f"checking the answers of {outcome.name}")
        return judged(judge, made[outcome.name], outcome, split)

    return tuple(in_parallel(checked, outcomes, shop.host_facts.usable_threads))


def judged(judge: Judge, made: Made, outcome: Outcome, split: str) -> Outcome:
    """The outcome with its accuracy on `split`, or with the verdict that it does not load or run."""
    try:
        accuracy = judge.accuracy(made, split, outcome.name)
    except DiskFull:
        raise
    except EdgekitError as error:
        if outcome.name == REFERENCE:
            raise
        code = VerdictCode.DOES_NOT_LOAD if isinstance(error, InputRejected) else VerdictCode.DOES_NOT_RUN
        return replace(outcome, verdicts=(*outcome.verdicts, Verdict(code, error.what)))
    verdicts = outcome.verdicts
    if accuracy.collapsed:
        verdicts = (*verdicts, Verdict(VerdictCode.COLLAPSED, accuracy.collapse_reason))
    return replace(outcome, accuracy=accuracy, verdicts=verdicts)
