"""Race artifacts against each other on a device: latency, interleaved.

- Candidates are raced in rounds, each in a live process of its own, in rotating order, so that drift of the machine hits all alike.
- The baseline runs twice: the ratio of the twins is the race's own noise (A/A), and no difference below it is called one.
- After the heat only the finalists go on: the rest have shown what they can do, and the machine's time goes to the percentiles.
- A process that dies in a race loses its place; the race goes on.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from statistics import median

from edgekit.core.stats import bootstrap_ratio_ci, median_ratio, runs_needed
from edgekit.devices.base import Device
from edgekit.errors import DeviceError, DiskFull, EdgekitError
from edgekit.measure import placed, real
from edgekit.process import Conversation
from edgekit.runner.client import Feeds, RanReply, ReadyReply, Runnable, engine_arguments, parse_line

TWIN = "#twin"

WARMUP = 5
WARM_UP_MS = 20.0
LONGEST_NS = 10**13  # three hours: an inference of that length is no latency


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
        if len(reply.latencies_ns) != n + 1 or not 0 < min(reply.latencies_ns) <= max(reply.latencies_ns) < LONGEST_NS:
            raise DeviceError(f"ekrun answered with no latencies of {n + 1} runs", where=self.name)
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
                real(parse_line(process.answer(deadline_s=300.0), ReadyReply, name), name)
                racer = _Racer(name, process)
                racer.warm_up()
                racers.append(racer)
            except (DiskFull, DeviceError):  # of the device, not of the candidate
                raise
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
            except (DiskFull, DeviceError):
                raise
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
