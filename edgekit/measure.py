"""Measure artifacts with ekrun: outputs over a split, memory in clean processes, latency raced interleaved.

- Nothing but the engine's call is inside the clock, and the clock is ekrun's.
- Candidates are raced in rounds, each in a live process of its own, in rotating order, so that drift of the machine hits all alike.
- The baseline runs twice: the ratio of the twins is the race's own noise (A/A), and no difference below it is called one.
- After the heat only the finalists go on: the rest have shown what they can do, and the machine's time goes to the percentiles.
- A process that dies in a race loses its place; the race goes on.
"""

import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from edgekit.core.facts import DeviceFacts, FactSheet
from edgekit.core.profile import Layer, Scenario
from edgekit.core.results import Load, Memory
from edgekit.core.stats import bootstrap_ratio_ci, median_ratio, runs_needed
from edgekit.devices.base import Device
from edgekit.errors import DeviceError, EdgekitError
from edgekit.process import Conversation
from edgekit.runner.client import (
    BenchReply,
    FactsReply,
    Feeds,
    RanReply,
    ReadyReply,
    Runnable,
    RunReply,
    engine_arguments,
    parse,
    parse_line,
)
from edgekit.runner.layers import openvino_layers, ort_layers
from edgekit.runner.scenarios import LayersReply, ScenarioReply, layers_arguments, raw_samples, scenario_arguments

TWIN = "#twin"

WARMUP = 5

# No model for a device needs more; a run that outgrows it is ended.
MAX_RSS_BYTES = 6 << 30
WARM_UP_MS = 20.0

# What loading and the last queries of a scenario may take beyond its duration.
SCENARIO_SLACK_S = 300.0


@dataclass(frozen=True)
class Budget:
    """A stage of a race ends when each has `samples` latencies, or spent `seconds`; never before `rounds` rounds and a median.

    A turn lasts about `turn_ms`: long enough to outweigh the wake-up after a pause, short enough to interleave finely.
    """

    samples: int
    seconds: float
    rounds: int
    turn_ms: float


@dataclass(frozen=True)
class RaceResult:
    """Latencies by candidate and round; `ratios` are medians of per-round ratios to the baseline.

    `aa_ratio` is the twin's, `aa_spread` >= 1 the larger end of its 95% interval; `dropped` has who failed, and why.
    """

    rounds: Mapping[str, tuple[tuple[int, ...], ...]]
    ratios: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    aa_ratio: float
    aa_spread: float
    dropped: Mapping[str, str] = field(default_factory=dict)

    def latencies_ns(self, name: str) -> tuple[int, ...]:
        return tuple(ns for turn in self.rounds[name] for ns in turn)


@dataclass(frozen=True)
class CleanBench:
    """Load phases, memory phases and settings of one fresh process."""

    load: Load
    memory: Memory
    settings_asked: Mapping[str, str]
    settings_in_force: Mapping[str, str]


def device_facts(device: Device) -> DeviceFacts:
    """What the device says of itself. Raises DeviceError when it answers out of protocol."""
    return parse(device.run(["facts"], deadline_s=30.0), FactsReply, device.name).facts()


def placed(device: Device, runnable: Runnable, feeds: Feeds) -> tuple[Runnable, Feeds]:
    """The same with every file brought to the device, under its paths. Raises what `Device.put` raises."""
    library = Path(device.put({p.name: p for p in (runnable.library, *runnable.library_files)}))
    model = Path(device.put({p.name: p for p in (runnable.model, *runnable.model_files)}))
    given = {**feeds.inputs, **({} if feeds.reset is None else {"": feeds.reset})}  # no input is called ""
    names = {key: path.name for key, path in given.items()}
    if len(set(names.values())) < len(names):
        names = {key: f"{i}.npy" for i, key in enumerate(given)}
    folder = Path(device.put({names[key]: path for key, path in given.items()})) if given else Path()
    there = replace(runnable, library=library / runnable.library.name, model=model / runnable.model.name)
    inputs = {key: folder / names[key] for key in feeds.inputs}
    return there, Feeds(inputs, feeds.state, folder / names[""] if feeds.reset else None)


def fact_sheet(device: Device, folder: str = "") -> FactSheet:
    """Everything the device says of itself, and of the file system that `folder` of it lies on."""
    arguments = ["facts", *(["--folder", folder] if folder else [])]
    return parse(device.run(arguments, deadline_s=30.0), FactsReply, device.name).sheet()


def run_outputs(
    device: Device, runnable: Runnable, feeds: Feeds, out: Path, *, where: str, deadline_s: float, samples: int = 0
) -> RunReply:
    """Run the first `samples` once (0: all) and leave `<k>.npy` for output k in `out`. Raises as `runner.client.parse` does."""
    arguments = [
        "run",
        *engine_arguments(*placed(device, runnable, feeds)),
        *(["--samples", str(samples)] if samples else []),
    ]
    with device.scratch() as folder:
        done = device.run([*arguments, "--out", folder], deadline_s=deadline_s, max_rss_bytes=MAX_RSS_BYTES)
        reply = parse(done, RunReply, where)
        for output in reply.outputs:
            device.get(f"{folder}/{output.index}.npy", out / f"{output.index}.npy")
    return reply


def clean_bench(
    device: Device, runnable: Runnable, feeds: Feeds, *, where: str, samples: int, runs: int = 10, memory_limit: int = 0
) -> CleanBench:
    """Cold start, first inference and memory of one process that does nothing else, under a cap unless that is 0."""
    arguments = ["bench", *engine_arguments(*placed(device, runnable, feeds)), "--samples", str(samples)]
    arguments += ["--warmup", "1", "--runs", str(runs), *_cap(memory_limit)]
    reply = parse(device.run(arguments, deadline_s=300.0, max_rss_bytes=MAX_RSS_BYTES), BenchReply, where)
    return CleanBench(
        Load(
            reply.library_load_ms,
            reply.model_read_ms,
            reply.session_create_ms,
            reply.first_inference_ms,
            reply.process_to_first_inference_ms,
        ),
        _phases(reply.memory),
        reply.settings_asked.flat(),
        reply.settings_in_force.flat(),
    )


@dataclass(frozen=True)
class ScenarioRun:
    """What came of one scenario: ekrun's answer, and every query's start and latency, as `raw` has them in the file."""

    reply: ScenarioReply
    starts_ns: Sequence[int]
    latencies_ns: Sequence[int]
    raw: bytes

    @property
    def memory(self) -> Memory:
        return _phases(self.reply.memory)

    @property
    def memory_limit_kind(self) -> str | None:
        return self.reply.memory_limit.kind if self.reply.memory_limit else None


def run_scenario(
    device: Device,
    runnable: Runnable,
    feeds: Feeds,
    scenario: Scenario,
    *,
    where: str,
    warmup: int,
    sample_ms: int,
    memory_limit: int = 0,
) -> ScenarioRun:
    """Run one scenario in a fresh process. Raises as `runner.client.parse` does, and DeviceError for samples that do not fit."""
    there, fed = placed(device, runnable, feeds)
    deadline_s = 2 * scenario.duration_s + SCENARIO_SLACK_S
    with device.scratch() as folder, tempfile.TemporaryDirectory() as here:
        file, copy = f"{folder}/latencies.npy", Path(here) / "latencies.npy"
        arguments = scenario_arguments(there, fed, scenario, warmup=warmup, latencies=file, sample_ms=sample_ms)
        done = device.run([*arguments, *_cap(memory_limit)], deadline_s=deadline_s, max_rss_bytes=MAX_RSS_BYTES)
        reply = parse(done, ScenarioReply, where)
        device.get(file, copy)
        raw = copy.read_bytes()
    samples = raw_samples(raw, where)
    if len(samples.latency_ns) != reply.count or not reply.count:
        raise DeviceError(f"ekrun sent {len(samples.latency_ns)} latencies of {reply.count} queries", where=where)
    return ScenarioRun(reply, samples.start_ns, samples.latency_ns, raw)


def layers(device: Device, runnable: Runnable, feeds: Feeds, runs: int, *, where: str) -> tuple[Layer, ...]:
    """The time of each layer by the engine's own profiler, the slowest first, in a process of its own."""
    there, fed = placed(device, runnable, feeds)
    with device.scratch() as folder, tempfile.TemporaryDirectory() as here:
        done = device.run(layers_arguments(there, fed, runs, folder), deadline_s=300.0, max_rss_bytes=MAX_RSS_BYTES)
        reply = parse(done, LayersReply, where)
        if reply.layers is not None:
            return openvino_layers(reply.layers, where)
        copy = Path(here) / "profile.json"
        device.get(f"{folder}/profile.json", copy)
        return ort_layers(copy.read_bytes(), where)


def _cap(memory_limit: int) -> list[str]:
    return ["--memory-limit", str(memory_limit)] if memory_limit else []


def _phases(memory: Mapping[str, int | None]) -> Memory:
    keys = ("baseline_rss", "after_load_rss", "peak_load_rss", "peak_inference_rss")
    return Memory(**{key: memory.get(key) for key in keys})


class _Racer:
    """One candidate's live process and what it has run so far."""

    def __init__(self, name: str, process: Conversation) -> None:
        self.name = name
        self.process = process
        self.turns: list[tuple[int, ...]] = []
        self._typical_ns = WARM_UP_MS * 1e6

    def turn(self, turn_ms: float) -> None:
        """Run for about `turn_ms`. The first run of a turn wakes the threads up and is not counted."""
        n = max(1, min(500, round(turn_ms * 1e6 / self._typical_ns)))
        self.process.tell(f"go {n + 1}")
        reply = parse_line(self.process.answer(deadline_s=300.0), RanReply, self.name)
        if len(reply.latencies_ns) != n + 1:
            raise DeviceError(f"ekrun answered {len(reply.latencies_ns)} runs instead of {n + 1}", where=self.name)
        self.turns.append(reply.latencies_ns[1:])
        self._typical_ns = max(1.0, median(reply.latencies_ns[1:]))

    def warm_up(self) -> None:
        """One turn that is forgotten, but for how long a run takes."""
        self.turn(WARM_UP_MS)
        self.turns.clear()

    @property
    def count(self) -> int:
        return sum(len(turn) for turn in self.turns)

    @property
    def spent_s(self) -> float:
        return sum(sum(turn) for turn in self.turns) / 1e9


def race(
    device: Device,
    runnables: Mapping[str, Runnable],
    feeds: Feeds,
    samples: int,
    baseline: str,
    heat: Budget,
    final: Budget,
    finalists: Callable[[Mapping[str, float]], Collection[str]],
    progress: Callable[[str], None] = lambda _: None,
) -> RaceResult:
    """Race the runnables against `baseline`, which runs twice; each cycles over the first `samples` of `feeds`.

    `finalists` is given the heat's ratios and names who goes on, besides the baseline. Where the device holds fewer live processes
    than that takes, there are several heats, each with the baseline and its twin. Raises what the baseline falls out with.
    """
    others = [name for name in runnables if name != baseline]
    places = device.most_talks - 2
    if len(others) <= places:
        return _race(device, runnables, feeds, samples, baseline, heat, final, finalists, progress)
    heats = []
    for start in range(0, len(others), places):
        group = {name: runnables[name] for name in (baseline, *others[start : start + places])}
        heats.append(_race(device, group, feeds, samples, baseline, heat, heat, list, progress))
    ratios = {name: ratio for one in heats for name, ratio in one.ratios.items()}
    kept = [name for name in finalists(ratios) if name != baseline][:places]
    last = _race(
        device, {n: runnables[n] for n in (baseline, *kept)}, feeds, samples, baseline, final, final, list, progress
    )
    return _joined([*heats, last])


def _joined(results: Sequence[RaceResult]) -> RaceResult:
    """What each was seen to do in its last race; the noise is that of the last."""
    return replace(
        results[-1],
        rounds={name: turns for one in results for name, turns in one.rounds.items()},
        ratios={name: ratio for one in results for name, ratio in one.ratios.items()},
        intervals={name: interval for one in results for name, interval in one.intervals.items()},
        dropped={name: reason for one in results for name, reason in one.dropped.items()},
    )


def _race(
    device: Device,
    runnables: Mapping[str, Runnable],
    feeds: Feeds,
    samples: int,
    baseline: str,
    heat: Budget,
    final: Budget,
    finalists: Callable[[Mapping[str, float]], Collection[str]],
    progress: Callable[[str], None],
) -> RaceResult:
    """One race of all at once."""
    dropped: dict[str, EdgekitError] = {}
    retired: list[_Racer] = []
    entries = {**runnables, baseline + TWIN: runnables[baseline]}
    with ExitStack() as stack:
        racers: list[_Racer] = []
        for name, runnable in entries.items():
            progress(f"loading {name}")
            try:
                arguments = [
                    "bench",
                    "--stdin",
                    *engine_arguments(*placed(device, runnable, feeds)),
                    "--samples",
                    str(samples),
                ]
                process = stack.enter_context(device.talk([*arguments, "--warmup", str(WARMUP)]))
                parse_line(process.answer(deadline_s=300.0), ReadyReply, name)
                racer = _Racer(name, process)
                racer.warm_up()
                racers.append(racer)
            except EdgekitError as error:
                dropped[name] = error
        _run_rounds(racers, heat, dropped, progress)
        keep = {baseline, baseline + TWIN, *finalists(_summarize(racers, baseline, dropped).ratios)}
        for racer in [r for r in racers if r.name not in keep]:
            racers.remove(racer)
            retired.append(racer)
            racer.process.close()
        _run_rounds(racers, final, dropped, progress)
    return _summarize([*racers, *retired], baseline, dropped)


def _run_rounds(
    racers: list[_Racer], budget: Budget, dropped: dict[str, EdgekitError], progress: Callable[[str], None]
) -> None:
    """Rounds in rotating order until the budget is spent; who fails leaves."""
    while racers:
        number = min(len(r.turns) for r in racers)
        short = min(r.count for r in racers)
        out_of_time = max(r.spent_s for r in racers) >= budget.seconds and short >= runs_needed(50.0)
        if number >= budget.rounds and (short >= budget.samples or out_of_time):
            return
        progress(f"round {number + 1}, {short} of {budget.samples} runs each")
        shift = number % len(racers)
        for racer in racers[shift:] + racers[:shift]:
            try:
                racer.turn(budget.turn_ms)
            except EdgekitError as error:
                dropped[racer.name] = error
        racers[:] = [r for r in racers if r.name not in dropped]


def _summarize(racers: list[_Racer], baseline: str, dropped: Mapping[str, EdgekitError]) -> RaceResult:
    for name in (baseline, baseline + TWIN):
        if name in dropped:
            found = dropped[name]
            raise type(found)(found.what, where=f"the race of {baseline}", next_step=found.next_step)
    rounds = {r.name: tuple(r.turns) for r in racers}
    twin = rounds.pop(baseline + TWIN)
    base = [median(turn) for turn in rounds[baseline]]
    medians = {name: [median(turn) for turn in turns] for name, turns in rounds.items()}
    ratios = {name: _paired(values, base) for name, values in medians.items()}
    intervals = {name: _interval(values, base) for name, values in medians.items() if name != baseline}
    twin_medians = [median(turn) for turn in twin]
    low, high = _interval(twin_medians, base)
    aa_spread = max(high, 1 / low, 1.0)
    return RaceResult(rounds, ratios, intervals, _paired(twin_medians, base), aa_spread, _told(dropped))


def _told(dropped: Mapping[str, EdgekitError]) -> dict[str, str]:
    return {name: str(error) for name, error in dropped.items()}


def _paired(values: Sequence[float], base: Sequence[float]) -> float:
    """Median over the rounds both ran of value/base: both sides of each ratio ran within the same fraction of a second."""
    return median_ratio(values, base[: len(values)])


def _interval(values: Sequence[float], base: Sequence[float]) -> tuple[float, float]:
    return bootstrap_ratio_ci(values, base[: len(values)], seed=0)
