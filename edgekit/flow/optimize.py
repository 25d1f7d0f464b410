"""Optimize a model for a target: read, plan, build, judge, measure, choose, keep. `optimize` reads like that."""

import contextlib
import shlex
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from edgekit import sandbox
from edgekit.core.accuracy import Accuracy
from edgekit.core.cost import fastest_cluster
from edgekit.core.device_url import LOCAL
from edgekit.core.facts import DeviceFacts, FactSheet
from edgekit.core.plan import Facts, Plan, make_plan
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Choice, Origin, Outcome
from edgekit.core.run import RUN_SCHEMA, Noise, Run
from edgekit.core.targets import HOST, host_matches
from edgekit.core.types import Requirements, Target
from edgekit.devices.emulated import EmulatedDevice
from edgekit.devices.local import LocalDevice
from edgekit.flow.build import build_all, refusals
from edgekit.flow.clock import Job, measure_all
from edgekit.flow.decide import Trial, decide
from edgekit.flow.devices import Reach, opened
from edgekit.flow.gate import engines_for, gate_all
from edgekit.flow.judge import Judge, judge_all
from edgekit.flow.materials import Options, gather
from edgekit.flow.prove import Ground, emulated_ground
from edgekit.flow.targets import find_target
from edgekit.flow.workshop import SELECTION, Made, Materials, Progress, Workshop, builder_versions, copy_artifact
from edgekit.measure import device_facts, fact_sheet
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
    complete. When nothing meets the requirements the run is kept all the same, with `choice.chosen` None. Raises EdgekitError for
    what the user gave, never for a candidate that fails. `command` is how the user named model and data, if not by this call's
    own arguments: the next steps begin with it.
    """
    model = Path(model)
    out = Path(out) if out else default_run_folder(model.stem, target, device)
    cwd = Path.cwd()
    source = find_data(str(data), cwd) if data is not None else None
    check_result_folder(out)
    store = Cache(cache or default_cache())
    with store.scratch() as scratch, contextlib.ExitStack() as stack:
        ground = _given_ground(stack, device, reach, store, cwd, progress)
        measuring = ground.device if ground and not ground.emulated else None
        shop = Workshop(
            store,
            scratch,
            LocalDevice(scratch),
            progress,
            device=measuring,
            offline=options.offline,
            fresh=options.fresh,
        )
        sheet = fact_sheet(ground.device) if ground else None
        wanted = _wanted(target, ground, shop.facts, cwd)
        if sheet is not None:
            wanted = _with_engines_of(sheet, wanted)
        origin = _origin(wanted, ground, shop.facts)
        info, materials = gather(shop, model, source, options)
        info = replace(info, refusals=refusals(wanted.engines, materials.model, progress))
        threads = options.threads or _threads(wanted, origin, shop.facts)
        plan = make_plan(info, wanted, requirements, _planning_facts(shop.host_facts, materials, threads))
        made, outcomes = build_all(shop, plan, materials, info)
        if measuring is not None and sheet is not None:
            outcomes = gate_all(shop, sheet, info, made, outcomes)
        judge = Judge(shop, materials, made[REFERENCE], cwd)
        outcomes = judge_all(judge, shop, made, outcomes, SELECTION)
        job = Job(info, materials, wanted, origin, requirements)
        outcomes, noise = measure_all(shop, job, made, outcomes)
        missing = ""
        if ground is None:
            ground, missing = stack.enter_context(emulated_ground(wanted, origin, shop))
        trial = Trial(shop, judge, job, made, ground)
        choice, evaluation, proof = decide(trial, outcomes, noise)
        steps = _next_steps(choice, job, command or _command(model, data, options))
        run = _record(shop, job, model.name, threads, plan, outcomes, noise, choice, evaluation, steps)
        missing = proof if isinstance(proof, str) else missing
        run = replace(
            run, proof=None if isinstance(proof, str) else proof, notices=(*run.notices, *filter(None, [missing]))
        )
        return _keep(run, made, out)


def _given_ground(
    stack: contextlib.ExitStack, device: str, reach: Reach, store: Cache, cwd: Path, progress: Progress
) -> Ground | None:
    """The device that was asked for, open as long as `stack`; None for this machine."""
    if device == LOCAL:
        return None
    found = stack.enter_context(opened(device, reach, store.root, cwd, progress))
    return Ground(found, device_facts(found))


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
        notices=(*job.info.notices, *job.materials.data.notices),
        next_steps=next_steps,
    )


def _wanted(name: str, ground: Ground | None, facts: DeviceFacts, cwd: Path) -> Target:
    """The target by its name; `host` is the device that was given: the board an emulator stands for, or a machine by its facts."""
    if name != HOST or ground is None:
        return find_target(name, facts, cwd)
    if isinstance(ground.device, EmulatedDevice):
        return ground.device.target
    summary = f"{ground.device.name}: {ground.facts.cpu_model or ground.facts.arch}"
    return replace(find_target(HOST, ground.facts, cwd), name=ground.device.name, summary=summary)


def _with_engines_of(sheet: FactSheet, target: Target) -> Target:
    """The target with the newest engines that the device's own C library admits, among those the target allows."""
    there = engines_for(sheet, target.name)
    return replace(target, engines={engine: there[engine] for engine in target.engines if engine in there})


def _origin(target: Target, ground: Ground | None, facts: DeviceFacts) -> Origin:
    """TARGET when what is measured is the target: the device given for it, or this machine, by its own facts."""
    if ground is not None and ground.emulated:
        return Origin.PREDICTED
    if ground is not None and target.name == ground.device.name:
        return Origin.TARGET
    return Origin.PREDICTED if host_matches(target, facts) else Origin.TARGET


def _threads(target: Target, origin: Origin, facts: DeviceFacts) -> int:
    return facts.usable_threads if origin is Origin.TARGET else fastest_cluster(target).cores


def _planning_facts(facts: DeviceFacts, materials: Materials, threads: int) -> Facts:
    calibration = materials.data.splits.get("calibration")
    return Facts(
        materials.model_sha256, facts.isa, calibration.sha256 if calibration else "", builder_versions(), threads
    )


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
        steps.append(f"measure instead of predicting: {command} --target {job.target.name} --device ssh://USER@BOARD")
    if job.materials.data.synthetic:
        steps.append(f"add int8 with your own samples: {command} --target {job.target.name} --data FOLDER")
    return tuple(steps)


def _keep(run: Run, made: Mapping[str, Made], out: Path) -> Run:
    with filling_result(out) as draft:
        if run.choice.chosen is not None:
            chosen = made[run.choice.chosen]
            run = replace(run, artifact_files=copy_artifact(chosen.folder, chosen.artifact, draft))
        write_atomic(draft / RUN_FILE, sandbox.encode(run))
    return run
