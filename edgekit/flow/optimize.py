"""Optimize a model for a target: read, plan, build, judge, measure, choose, keep. `optimize` reads like that."""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from edgekit import sandbox
from edgekit.core.accuracy import Accuracy, doubt
from edgekit.core.conflicts import remarks, require_consistent
from edgekit.core.cost import fastest_cluster
from edgekit.core.device_url import LOCAL
from edgekit.core.facts import DeviceFacts
from edgekit.core.feasibility import require_possible
from edgekit.core.findings import RunFinding, findings
from edgekit.core.plan import Facts, Plan, make_plan
from edgekit.core.recipes import REFERENCE
from edgekit.core.relative import PREDICTED_TIE
from edgekit.core.results import Choice, Origin, Outcome, Proof
from edgekit.core.run import RUN_SCHEMA, Noise, Run
from edgekit.core.search import Search
from edgekit.core.targets import HOST
from edgekit.core.types import Requirements
from edgekit.devices.local import LocalDevice
from edgekit.flow.aim import Aim, take_aim
from edgekit.flow.build import build_all, refusals
from edgekit.flow.clock import Job, measure_again, measure_all
from edgekit.flow.decide import Trial, decide
from edgekit.flow.devices import Reach, find_url, opened
from edgekit.flow.gate import gate_all
from edgekit.flow.judge import Judge, judge_all
from edgekit.flow.materials import Options, gather
from edgekit.flow.prove import Ground, emulated_ground, fault_in
from edgekit.flow.refine import Refinery
from edgekit.flow.tuned import explore, settled
from edgekit.flow.workshop import SELECTION, Made, Materials, Progress, Workshop, builder_versions, copy_artifact
from edgekit.measure import device_facts
from edgekit.resources import find_data
from edgekit.store import (
    RUN_FILE,
    Cache,
    check_result_folder,
    default_cache,
    filling_result,
    safe_name,
    write_atomic,
)

DEFAULT_REQUIREMENTS = Requirements()
DEFAULT_OPTIONS = Options()
DEFAULT_REACH = Reach()
NOT_EXPLORED = "settings were not searched: that takes a device that is the target, and a candidate that holds"


def default_run_folder(model: str, target: str, device: str = LOCAL) -> Path:
    """Where a run is left when nothing else is asked: `edgekit-runs/<model>-<target, or device>` in the working folder."""
    where = target if device == LOCAL or target != HOST else device
    return Path("edgekit-runs") / f"{safe_name(model)}-{safe_name(where)}"


def optimize(
    model: str | Path,
    target: str = "host",
    data: str | Path | None = None,
    out: str | Path | None = None,
    *,
    device: str = LOCAL,
    reach: Reach = DEFAULT_REACH,
    requirements: Requirements = DEFAULT_REQUIREMENTS,
    options: Options = DEFAULT_OPTIONS,
    cache: Path | None = None,
    command: str = "",
    progress: Progress = lambda _: None,
) -> Run:
    """Build and measure every candidate worth it, choose one, and leave the run in the folder `out`.

    `data` is a folder, a file, or the name of a data set in `calibration_data/`. Accuracy is found on this machine; `device`
    measures latency and memory and proves the chosen artifact's answers. With a device the target `host` means that device, by its
    own facts; an emulated device only proves. Nothing is written to `out` before the run is
    complete. When no candidate meets the requirements the run is kept all the same, with `choice.chosen` None; where arithmetic
    shows that none could, RequirementsNotMet is raised before anything is built. Raises EdgekitError for what the user gave, never
    for a candidate that fails. `command` is how the user named model and data, if not by this call's
    own arguments: the next steps begin with it.
    """
    model = Path(model)
    out = Path(out) if out else default_run_folder(model.stem, target, device)
    cwd = Path.cwd()
    source = find_data(str(data), cwd) if data is not None else None
    check_result_folder(out)
    store = Cache(cache or default_cache())
    with store.scratch() as scratch, contextlib.ExitStack() as stack:
        host = LocalDevice(scratch)
        given = _given(stack, device, reach, store, cwd, progress)
        aim = take_aim(target, given, device_facts(host), cwd)
        require_consistent(requirements, aim.target, options.threads)
        shop = Workshop(
            store, scratch, host, progress, device=aim.measuring, offline=options.offline, fresh=options.fresh
        )
        info, materials = gather(shop, model, source, options)
        info = replace(info, refusals=refusals(aim.target.engines, materials.model, progress))
        threads = options.threads or _threads(aim, shop.facts, requirements)
        plan = make_plan(info, aim.target, requirements, _planning_facts(shop.host_facts, materials, threads))
        on_target = shop.facts if aim.origin is Origin.TARGET else None
        require_possible(info, aim.target, requirements, plan.candidates, on_target.ram_bytes if on_target else None)
        made, outcomes = build_all(shop, plan, materials, info)
        sheet = aim.sheet if aim.measuring is not None else None
        if sheet is not None:
            outcomes = gate_all(shop, sheet, info, made, outcomes)
        judge = Judge(shop, materials, made[REFERENCE], cwd)
        outcomes = judge_all(judge, shop, made, outcomes, SELECTION)
        job = Job(info, materials, aim.target, aim.origin, requirements)
        outcomes, noise = measure_all(shop, job, made, outcomes)
        refinery = Refinery(shop, judge, job, sheet, options.time_budget_s)
        found = refinery.refine(outcomes)
        made = {**made, **found.made}
        raced, noise = measure_again(shop, job, made, outcomes, found.outcomes, noise)
        explored = explore(shop, job, made, raced, noise, options, refinery.left)
        outcomes = explored.outcomes if explored else raced
        ground, missing = (given, "") if given else stack.enter_context(emulated_ground(aim.target, aim.origin, shop))
        choice, evaluation, proof = decide(Trial(shop, judge, job, made, ground), outcomes, noise)
        steps = _next_steps(choice, job, command or _command(model, data, options), device)
        run = _record(shop, job, model.name, threads, plan, outcomes, found.searches, noise, choice, evaluation, steps)
        run = replace(run, findings=_learnt(replace(run, outcomes=raced)))
        if explored:
            run = replace(run, exploration=settled(explored, choice, requirements))
        elif options.explore:
            run = replace(run, notices=(*run.notices, NOT_EXPLORED))
        said = (*aim.notices, *remarks(requirements, aim.target, on_target.governor if on_target else None))
        return _keep(_with_proof(run, proof or missing, said), explored.made if explored else made, out)


def _learnt(run: Run) -> tuple[RunFinding, ...]:
    """What the run teaches; a difference that is within the race's noise, or a roofline's, is none."""
    origin = run.target_origin
    spread = run.noise.spread if run.noise and origin is Origin.TARGET else PREDICTED_TIE
    return findings(run.outcomes, run.choice, run.searches, run.requirements, origin, spread, run.left_out)


def _given(
    stack: contextlib.ExitStack, device: str, reach: Reach, store: Cache, cwd: Path, progress: Progress
) -> Ground | None:
    """The device that was asked for, open as long as `stack`; None for this machine."""
    if find_url(device, reach).kind == LOCAL:
        return None
    found = stack.enter_context(opened(device, reach, store.root, cwd, progress))
    return Ground(found, device_facts(found))


def _with_proof(run: Run, proof: Proof | str, notices: tuple[str, ...]) -> Run:
    """The run with its proof, or with why there is none; the reference is kept whatever it answers, and said so."""
    if isinstance(proof, str):
        return replace(run, notices=(*run.notices, *notices, *([proof] if proof else [])))
    flaw = fault_in(proof, run.requirements.max_drop)
    said = (f"its answers do not hold: {flaw}",) if flaw else ()
    return replace(run, proof=proof, notices=(*run.notices, *notices, *said))


def _record(
    shop: Workshop,
    job: Job,
    model_name: str,
    threads: int,
    plan: Plan,
    outcomes: tuple[Outcome, ...],
    searches: Sequence[Search],
    noise: Noise | None,
    choice: Choice,
    evaluation: Accuracy | None,
    next_steps: tuple[str, ...],
) -> Run:
    """The run as it is kept, but for the artifact's files."""
    return Run(
        schema=RUN_SCHEMA,
        edgekit_version=metadata.version("edgekit"),
        versions={**builder_versions(), "ekrun_sha256": shop.host.ekrun_sha256},
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
        notices=(*job.info.notices, *job.materials.data.notices, *_doubts(outcomes)),
        next_steps=next_steps,
        searches=tuple(searches),
    )


def _doubts(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    accuracy = next(o.accuracy for o in outcomes if o.name == REFERENCE)
    text = doubt(accuracy) if accuracy is not None else ""
    return (text,) if text else ()


def _threads(aim: Aim, facts: DeviceFacts, requirements: Requirements) -> int:
    usable = facts.usable_threads if aim.origin is Origin.TARGET else fastest_cluster(aim.target).cores
    return min(usable, requirements.max_cores or usable)


def _planning_facts(facts: DeviceFacts, materials: Materials, threads: int) -> Facts:
    return Facts(materials.model_sha256, facts.isa, materials.calibration_sha256, builder_versions(), threads)


def _command(model: Path, data: str | Path | None, options: Options) -> str:
    """The command line that names the same model, shapes and data, and what is read of it, without a target."""
    words = ["edgekit", "optimize", str(model)]
    for name, dims in options.shapes.items():
        words += ["--shape", f"{name}[{','.join(map(str, dims))}]"]
    if options.skip_bad:
        words.append("--skip-bad")
    given = {"--metric": options.metric, "--samples": options.samples, "--data": data}
    words += [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
    return shlex.join(words)


def _next_steps(choice: Choice, job: Job, command: str, device: str) -> tuple[str, ...]:
    steps = []
    there = f"--target {job.target.name}" if device == LOCAL else f"--device {shlex.quote(device)}"
    if choice.chosen is None:
        steps.append("relax what the nearest candidate lacks, or give more samples where the interval is too wide")
    if job.origin is not Origin.TARGET and device == LOCAL:
        steps.append(f"measure instead of predicting: {command} {there} --device ssh://USER@BOARD")
    if job.materials.data.synthetic:
        steps.append(f"add int8 with your own samples: {command} {there} --data FOLDER")
    return tuple(steps)


def _keep(run: Run, made: Mapping[str, Made], out: Path) -> Run:
    with filling_result(out) as draft:
        if run.choice.chosen is not None:
            chosen = made[run.choice.chosen]
            run = replace(run, artifact_files=copy_artifact(chosen.folder, chosen.artifact, draft))
        write_atomic(draft / RUN_FILE, sandbox.encode(run))
    return run
