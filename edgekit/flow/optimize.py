"""Optimize a model for a target: read, plan, build, judge, measure, choose, keep. `optimize` reads like that."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from edgekit import sandbox
from edgekit.core.accuracy import Accuracy, feasible, is_equivalent
from edgekit.core.choose import choose
from edgekit.core.cost import fastest_cluster
from edgekit.core.facts import DeviceFacts
from edgekit.core.plan import Facts, Plan, make_plan
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Choice, Origin, Outcome
from edgekit.core.run import RUN_SCHEMA, Noise, Run
from edgekit.core.targets import host_matches
from edgekit.core.types import Requirements, Target
from edgekit.devices.local import LocalDevice
from edgekit.errors import DiskFull, EdgekitError
from edgekit.flow.build import build_all, refusals
from edgekit.flow.clock import Job, measure_all
from edgekit.flow.judge import Judge, judge_all
from edgekit.flow.materials import Options, gather
from edgekit.flow.targets import find_target
from edgekit.flow.workshop import SELECTION, Made, Materials, Progress, Workshop, builder_versions, copy_artifact
from edgekit.resources import find_data
from edgekit.store import (
    RUN_FILE,
    Cache,
    check_run_folder,
    default_cache,
    filling_run,
    safe_name,
    write_atomic,
)

# No A/A noise excuses more than this when two candidates are called equal; a roofline can't tell finer than its own tie.
MAX_TIE = 1.03
PREDICTED_TIE = 1.1

# Candidates judged on the evaluation split before only full precision is left.
MAX_LOOKS = 3


DEFAULT_REQUIREMENTS = Requirements()
DEFAULT_OPTIONS = Options()


def default_run_folder(model: str, target: str) -> Path:
    """Where a run is left when nothing else is asked: `edgekit-runs/<model>-<target>` in the working folder."""
    return Path("edgekit-runs") / f"{safe_name(model)}-{safe_name(target)}"


def optimize(
    model: str | Path,
    target: str = "host",
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    requirements: Requirements = DEFAULT_REQUIREMENTS,
    options: Options = DEFAULT_OPTIONS,
    cache: Path | None = None,
    command: str = "",
    progress: Progress = lambda _: None,
) -> Run:
    """Build and measure every candidate worth it, choose one, and leave the run in the folder `out`.

    `data` is a folder, a file, or the name of a data set in `calibration_data/`. Nothing is written to `out` before the run is
    complete. When nothing meets the requirements the run is kept all the same, with `choice.chosen` None. Raises EdgekitError for
    what the user gave, never for a candidate that fails. `command` is how the user named model and data, if not by this call's
    own arguments: the next steps begin with it.
    """
    model = Path(model)
    out = Path(out) if out else default_run_folder(model.stem, target)
    cwd = Path.cwd()
    source = find_data(str(data), cwd) if data is not None else None
    check_run_folder(out)
    store = Cache(cache or default_cache())
    with store.scratch() as scratch:
        shop = Workshop(store, scratch, LocalDevice(), progress, offline=options.offline, fresh=options.fresh)
        wanted = find_target(target, shop.facts, cwd)
        origin = _origin(wanted, shop.facts)
        info, materials = gather(shop, model, source, options)
        info = replace(info, refusals=refusals(wanted.engines, materials.model, progress))
        threads = options.threads or _threads(wanted, origin, shop.facts)
        plan = make_plan(info, wanted, requirements, _planning_facts(shop.facts, materials, threads))
        made, outcomes = build_all(shop, plan, materials, info)
        judge = Judge(shop, materials, made[REFERENCE], cwd)
        outcomes = judge_all(judge, shop, made, outcomes, SELECTION)
        job = Job(info, materials, wanted, origin, requirements)
        outcomes, noise = measure_all(shop, job, made, outcomes)
        choice, evaluation = _choose(judge, job, made, outcomes, noise)
        steps = _next_steps(choice, job, command or _command(model, data, options))
        run = _record(shop, job, model.name, threads, plan, outcomes, noise, choice, evaluation, steps)
        return _keep(run, made, out)


def _record(
    shop: Workshop,
    job: Job,
    model_name: str,
    threads: int,
    plan: Plan,
    outcomes: tuple[Outcome, ...],
    noise: Noise | None,
    choice: Choice,
    evaluation: Accuracy | None,
    next_steps: tuple[str, ...],
) -> Run:
    """The run as it is kept, but for the artifact's files."""
    return Run(
        schema=RUN_SCHEMA,
        edgekit_version=metadata.version("edgekit"),
        versions={**builder_versions(), "ekrun_sha256": shop.device.ekrun_sha256},
        model_name=model_name,
        model_sha256=job.info.sha256,
        model=job.info,
        target=job.target,
        target_origin=job.origin,
        device=shop.facts,
        threads=threads,
        requirements=job.requirements,
        data=job.materials.data,
        outcomes=outcomes,
        left_out=plan.left_out,
        noise=noise,
        choice=choice,
        satisfies_constraints=choice.chosen is not None,
        evaluation=evaluation,
        artifact_files=(),
        notices=(*job.info.notices, *job.materials.data.notices),
        next_steps=next_steps,
    )


def _origin(target: Target, facts: DeviceFacts) -> Origin:
    """TARGET when this machine is the target, by its own facts."""
    return Origin.PREDICTED if host_matches(target, facts) else Origin.TARGET


def _threads(target: Target, origin: Origin, facts: DeviceFacts) -> int:
    return facts.usable_threads if origin is Origin.TARGET else fastest_cluster(target).cores


def _planning_facts(facts: DeviceFacts, materials: Materials, threads: int) -> Facts:
    calibration = materials.data.splits.get("calibration")
    return Facts(
        materials.model_sha256, facts.isa, calibration.sha256 if calibration else "", builder_versions(), threads
    )


def _choose(
    judge: Judge, job: Job, made: Mapping[str, Made], outcomes: Sequence[Outcome], noise: Noise | None
) -> tuple[Choice, Accuracy | None]:
    """Choose on selection, then judge the choice once on evaluation; one that does not hold gives way to the next.

    Every further look at the same split asks for more: the whole interval within max-drop. After MAX_LOOKS only full precision is
    left. docs/adr/0002-looks-at-evaluation.md says why.
    """
    tie = min(noise.spread, MAX_TIE) if noise and job.origin is Origin.TARGET else PREDICTED_TIE
    excluded: dict[str, str] = {}
    for look in itertools.count(1):
        choice = choose(outcomes, job.requirements, job.origin, tie, excluded)
        if choice.chosen is None or "evaluation" not in job.materials.data.splits:
            return choice, None
        try:
            evaluation = judge.accuracy(made[choice.chosen], "evaluation", choice.chosen)
        except DiskFull:
            raise
        except EdgekitError as error:
            if choice.chosen == REFERENCE:
                raise
            excluded[choice.chosen] = f"does not run on the evaluation data: {error}"
            continue
        reason = _fault(evaluation, job.requirements.max_drop, strict=look > 1)
        if not reason or choice.chosen == REFERENCE:
            return choice, evaluation
        excluded[choice.chosen] = f"held on selection, not on unseen evaluation data: {reason}"
        if look >= MAX_LOOKS:
            excluded |= _all_but_full_precision(outcomes, excluded)
    raise AssertionError("unreachable")


def _fault(evaluation: Accuracy, max_drop: float, *, strict: bool) -> str:
    """Why a drop does not hold on evaluation, or an empty string; `strict` asks for the whole interval."""
    holds, reason = feasible(evaluation, max_drop)
    if not holds:
        return reason
    if strict and evaluation.ci_high > max_drop and not is_equivalent(evaluation):
        return f"drop {evaluation.drop:.4f}, up to {evaluation.ci_high:.4f}, is not safely within {max_drop:g} (n={evaluation.n})"
    return ""


def _all_but_full_precision(outcomes: Sequence[Outcome], excluded: Mapping[str, str]) -> dict[str, str]:
    reason = f"not judged: {MAX_LOOKS} others had failed on the evaluation data already"
    narrow = [o.name for o in outcomes if o.candidate.build.recipe.precision != "fp32"]
    return {name: reason for name in narrow if name not in excluded}


def _command(model: Path, data: str | Path | None, options: Options) -> str:
    """The command line that names the same model, shapes and data, without a target."""
    words = ["edgekit", "optimize", str(model)]
    for name, dims in options.shapes.items():
        words += ["--shape", f"{name}[{','.join(map(str, dims))}]"]
    return shlex.join([*words, *(["--data", str(data)] if data is not None else [])])


def _next_steps(choice: Choice, job: Job, command: str) -> tuple[str, ...]:
    steps = []
    if choice.chosen is None:
        steps.append("relax what the nearest candidate lacks, or give more samples where the interval is too wide")
    if job.origin is not Origin.TARGET:
        steps.append(f"measure instead of predicting: on the device itself, {command} --target host")
    if job.materials.data.synthetic:
        steps.append(f"add int8 with your own samples: {command} --target {job.target.name} --data FOLDER")
    return tuple(steps)


def _keep(run: Run, made: Mapping[str, Made], out: Path) -> Run:
    with filling_run(out) as draft:
        if run.choice.chosen is not None:
            chosen = made[run.choice.chosen]
            run = replace(run, artifact_files=copy_artifact(chosen.folder, chosen.artifact, draft))
        write_atomic(draft / RUN_FILE, sandbox.encode(run))
    return run
