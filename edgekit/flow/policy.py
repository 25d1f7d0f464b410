"""A run held against a policy, alone or against a baseline: by the figures both hold, or by figures taken anew, side by side.

- Anew means interleaved: both artifacts and a twin in one race, then fresh processes of both in turn.
- What can't be decided is raced again, in processes of their own, which averages out what lasts as long as a process; the number of
  races is bounded and told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from edgekit.core.checks import GATE_SCHEMA, Gate, Status, is_settled, judge
from edgekit.core.compare import Comparison, compare
from edgekit.core.delta import COLD_START, MEMORY, Delta
from edgekit.core.deltas import deltas
from edgekit.core.policy import HELP_PAGE, Policy, read_policy
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Origin
from edgekit.core.retaken import Retaken, Turns, combined, joined
from edgekit.core.run import Run
from edgekit.core.standing import chosen_outcome
from edgekit.core.tomltable import MAX_TEXT_CHARS
from edgekit.errors import InputRejected, UsageError
from edgekit.flow.compare import BENCH_SAMPLES, DEFAULT_LENGTH, A, B, Length, Pair, facing
from edgekit.flow.compare import DEFAULT_OPTIONS as OPTIONS
from edgekit.flow.compare import DEFAULT_REACH as REACH
from edgekit.flow.devices import Reach
from edgekit.flow.materials import Options
from edgekit.flow.runs import read_run, run_folder
from edgekit.flow.workshop import SELECTION, Progress
from edgekit.measure import clean_bench
from edgekit.race import RaceResult
from edgekit.resources import read_regular

MOST_RACES = 5  # where one race decides to 12 %, five do to 5 %: a tenth can be told on a busy machine, too
STARTS = 11  # fresh processes of each: odd, so that the median is one of them
STARTED = frozenset({"infrastructure.max_memory_increase", "infrastructure.max_cold_start_increase"})
START_RUNS = 3  # inferences of each: the peak is reached with the first ones


@dataclass(frozen=True)
class Retake:
    """How both are measured anew: where, on which samples, how long; None of a `device` is where the run was measured."""

    device: str | None = None
    data: str | Path | None = None
    length: Length = DEFAULT_LENGTH
    races: int = MOST_RACES
    reach: Reach = REACH
    options: Options = OPTIONS
    cache: Path | None = None


def gate(
    run: str | Path,
    policy: str | Path,
    against: str | Path | None = None,
    retake: Retake | None = None,
    progress: Progress = lambda _: None,
) -> Gate:
    """Hold the run in a folder against the policy in a file. `passed` tells the end; nothing is raised for it.

    Raises InputRejected for what is no run or no policy, UsageError where a policy or `retake` needs a baseline and there is none,
    and what a race raises.
    """
    folder = run_folder(Path(run))
    record = read_run(folder)
    rules = _policy(Path(policy))
    baseline = run_folder(Path(against)) if against is not None else None
    old = read_run(baseline) if baseline is not None else None
    figures: tuple[Delta, ...] = ()
    notices: tuple[str, ...] = ()
    if old is None or baseline is None:
        if retake is not None:
            raise UsageError("there is nothing to race it against", where="--measure", next_step="give --against RUN")
    elif retake is None or None in (old.choice.chosen, record.choice.chosen):
        figures = deltas(old, record)
    elif _is_batched(old) or _is_batched(record):
        figures = deltas(old, record)
        notices = ("not raced: a race runs samples one by one, and the setting takes them in batches",)
    else:
        figures, notices = _retaken(rules, (baseline, old), (folder, record), retake, progress)
    checks = judge(rules, record, figures if old is not None else None)
    if old is not None and old.choice.chosen != record.choice.chosen:
        notices = (f"the baseline chose {old.choice.chosen or 'nothing'}", *notices)
    return Gate(
        schema=GATE_SCHEMA,
        run=str(folder),
        baseline=str(baseline) if baseline is not None else None,
        policy=str(policy),
        model_name=record.model_name,
        target=record.target.name,
        chosen=record.choice.chosen,
        retaken=retake is not None,
        passed=all(check.status is Status.PASSED for check in checks),
        checks=checks,
        figures=figures,
        notices=notices,
    )


def _is_batched(run: Run) -> bool:
    chosen = chosen_outcome(run)
    return chosen is not None and chosen.candidate.run.batch > 1


def _policy(path: Path) -> Policy:
    try:
        text = read_regular(path, MAX_TEXT_CHARS).decode()
    except UnicodeDecodeError as error:
        raise InputRejected("is not UTF-8 text", where=str(path), next_step=f"see {HELP_PAGE}") from error
    return read_policy(text, str(path))


def _retaken(
    rules: Policy, before: tuple[Path, Run], after: tuple[Path, Run], retake: Retake, progress: Progress
) -> tuple[tuple[Delta, ...], tuple[str, ...]]:
    """Figures taken anew, and a notice of how often: again while a check is undecided."""
    (baseline, old), (folder, new) = before, after
    device = retake.device or _measured_on(new)
    recipes = (REFERENCE, REFERENCE)
    with_starts = bool(rules.regressions.keys() & STARTED)
    races: list[RaceResult] = []
    starts: list[Mapping[str, Turns]] = []
    with facing(
        baseline, folder, retake.data, device, retake.reach, recipes, retake.options, retake.cache, progress
    ) as pair:
        where = pair.shop.device.name
        while True:
            progress(f"race {len(races) + 1} of at most {retake.races}")
            races.append(pair.race(retake.length))
            if with_starts:
                starts.append(_starts(pair, progress))
            found = deltas(old, new, _joined(where, races, starts))
            if len(races) >= retake.races or is_settled(judge(rules, new, found)):
                times = f"{len(races)} times" if len(races) > 1 else "once"
                return found, (f"measured anew {times} on {where}",)


def _joined(where: str, races: Sequence[RaceResult], starts: Sequence[Mapping[str, Turns]]) -> Retaken:
    names = [name for name in (COLD_START, MEMORY) if starts and all(name in one for one in starts)]
    turns = {name: joined([one[name] for one in starts]) for name in names}
    return Retaken(
        device=where,
        latency=combined(list(map(_compared, races))),
        mean_time=combined(list(map(_mean_compared, races))),
        cold_start=turns.get(COLD_START),
        memory=turns.get(MEMORY),
    )


def _measured_on(run: Run) -> str:
    """The device whose figures the run holds. Raises UsageError when it holds none of its target."""
    assert run.choice.chosen is not None
    found = run.outcome(run.choice.chosen).measurement
    if found is None or run.target_origin is not Origin.TARGET:
        raise UsageError(
            f"the run was not measured on {run.target.name}",
            where="--measure",
            next_step="name the device that is: --device",
        )
    return found.device


def _compared(result: RaceResult) -> Comparison:
    """B against A by the median of each turn."""
    return compare(result.rounds[A], result.rounds[B], result.aa_spread)


def _mean_compared(result: RaceResult) -> Comparison:
    """B against A by the mean of each turn, whose inverse is throughput."""
    a, b = ([(round(fmean(turn)),) for turn in result.rounds[side]] for side in (A, B))
    return compare(a, b, result.aa_spread)


def _starts(pair: Pair, progress: Progress) -> dict[str, Turns]:
    """Cold start and peak memory of fresh processes of both, in turn; a figure that a system does not tell is left out."""
    feeds = pair.subjects[A].materials.feeds(SELECTION)
    taken: dict[str, list[list[float | None]]] = {MEMORY: [[], []], COLD_START: [[], []]}
    for number in range(STARTS):
        progress(f"fresh processes: {number + 1} of {STARTS}")
        for index, side in enumerate((A, B)):
            there = pair.shop.on(pair.sheet.arch, pair.subjects[side].made)
            bench = clean_bench(
                pair.shop.device, there, feeds, where=pair.subjects[side].name, samples=BENCH_SAMPLES, runs=START_RUNS
            )
            taken[MEMORY][index].append(bench.memory.peak)
            taken[COLD_START][index].append(bench.load.process_to_first_inference_ms)
    return {
        name: Turns(*(tuple(float(value) for value in side if value) for side in sides))
        for name, sides in taken.items()
        if all(value for side in sides for value in side)
    }
