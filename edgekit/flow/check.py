"""Check a data set against the model it is for: look at every sample, try other preparations on labelled ones, apply the rules."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit import sandbox
from edgekit.core.accuracy import Accuracy, OutputSet
from edgekit.core.datacheck import ERROR, DataCheck, DataFacts, Finding, Trial
from edgekit.core.lint import findings, forgiving
from edgekit.core.recipes import REFERENCE
from edgekit.core.types import Requirements
from edgekit.devices.local import LocalDevice
from edgekit.errors import InputRejected
from edgekit.flow.gate import engines_for
from edgekit.flow.judge import SCORING, answers, on_one_thread
from edgekit.flow.materials import PREFLIGHT_SECONDS, READING, Options
from edgekit.flow.subject import Subject, find_subject
from edgekit.flow.workshop import Progress, Workshop
from edgekit.measure import fact_sheet
from edgekit.resources import find_data
from edgekit.runner.client import Feeds
from edgekit.store import Cache, default_cache

NO_SHAPES: Mapping[str, Sequence[int]] = {}


def check_data(
    data: str | Path,
    model: str | Path,
    *,
    max_drop: float = Requirements().max_drop,
    metric: str | None = None,
    skip_bad: bool = False,
    shapes: Mapping[str, Sequence[int]] = NO_SHAPES,
    preflight_seconds: int = PREFLIGHT_SECONDS,
    offline: bool = False,
    cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> DataCheck:
    """What may be wrong with a data set, for `model` and a drop of at most `max_drop`. A data set that can't be used is a finding.

    Labelled samples of selection are run through the reference, the model in fp32, as declared and prepared otherwise; evaluation
    is never run. With `skip_bad` samples that can't be read are warnings: they will be left out. Raises InputRejected and
    UsageError for the model and for names that are none.
    """
    model, cwd = Path(model), Path.cwd()
    source = find_data(str(data), cwd)
    store = Cache(cache or default_cache())
    with store.scratch() as scratch:
        shop = Workshop(store, scratch, LocalDevice(scratch), progress, offline=offline)
        options = Options(shapes=shapes, preflight_seconds=preflight_seconds, offline=offline)
        engines = engines_for(fact_sheet(shop.host), shop.host.name)
        subject = find_subject(shop, model, None, engines, REFERENCE, options)
        evidence = scratch / "evidence"
        evidence.mkdir()
        progress("looking at every sample")
        try:
            facts = _gather(source, subject, evidence, metric, cwd)
        except InputRejected as error:
            finding = Finding(ERROR, "unusable", error.where or str(source), error.what, error.next_step)
            return DataCheck(str(data), model.name, metric or "", {}, (finding,))
        trials, failed = _try_all(shop, subject, facts, evidence, cwd)
        found = (*failed, *findings(facts, trials, max_drop))
        return DataCheck(
            data=facts.name,
            model=model.name,
            metric=facts.metric,
            checked={split.name: split.samples for split in facts.splits},
            findings=forgiving(found) if skip_bad else found,
            trials=trials,
            notices=(facts.untried,) if facts.untried else (),
        )


def _gather(source: Path, subject: Subject, out: Path, metric: str | None, cwd: Path) -> DataFacts:
    return sandbox.call(
        "edgekit.data.lint:gather",
        returns=DataFacts,
        limits=READING,
        task=str(source),
        cwd=cwd,
        source=source.absolute(),
        inputs=subject.info.inputs,
        outputs=subject.info.outputs,
        out=out,
        metric=metric,
    )


def _try_all(
    shop: Workshop, subject: Subject, facts: DataFacts, folder: Path, cwd: Path
) -> tuple[tuple[Trial, ...], tuple[Finding, ...]]:
    """The reference's score with each other preparation against the declared one's, or why the metric can't be had."""
    if not facts.tried_samples or any(split.labels and split.labels.outside.total for split in facts.splits):
        return (), ()
    shop.progress(f"running {facts.tried_samples} labelled samples as declared")
    declared = _run(shop, subject, facts, folder, 0)
    trials: list[Trial] = []
    try:
        _score(declared, declared, facts, folder, cwd)
        for k, name in enumerate(facts.tried, start=1):
            shop.progress(f"running them with {name}")
            a = _score(_run(shop, subject, facts, folder, k), declared, facts, folder, cwd)
            trials.append(Trial(name, a.value, a.reference_value, -a.drop, -a.ci_high, -a.ci_low, a.n))
    except InputRejected as error:  # of the metric or the labels
        return tuple(trials), (Finding(ERROR, "metric", error.where or facts.name, error.what, error.next_step),)
    return tuple(trials), ()


def _run(shop: Workshop, subject: Subject, facts: DataFacts, folder: Path, k: int) -> OutputSet:
    names = subject.materials.input_names
    reset = folder / "reset.npy"
    feeds = Feeds(
        {name: folder / str(k) / f"{i}.npy" for i, name in enumerate(names)},
        facts.state,
        reset if reset.exists() else None,
    )
    return answers(shop.host, on_one_thread(subject.made.runnable), feeds, folder / f"{k}.outputs", REFERENCE)


def _score(own: OutputSet, declared: OutputSet, facts: DataFacts, folder: Path, cwd: Path) -> Accuracy:
    reset = folder / "reset.npy"
    return sandbox.call(
        "edgekit.data.score:score",
        returns=Accuracy,
        limits=SCORING,
        task="scoring a preparation",
        candidate=own,
        reference=declared,
        labels=folder / "labels.npy",
        reset=reset if reset.exists() else None,
        metric=facts.metric,
        split="selection",
        synthetic=False,
        options=facts.options,
        cwd=cwd,
    )
