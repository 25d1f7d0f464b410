"""Heats of a search over settings: live processes of several points, asked for turns round by round.

- Each point has a process of its own, loaded when its first turn is asked for and ended when it leaves: a heat whose rounds are all
  known already loads nothing.
- Streams draw samples from memory, so that throughput is of the engine's work; where samples carry state they are read in order.
- What a process costs to load and keep is seen on the way: cold start in its first answer, memory in each.
- A process that dies loses its place, with the reason; a failure of the device itself ends the heat.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

from edgekit.core.elimination import Turn
from edgekit.core.results import Load, Memory
from edgekit.devices.base import Device
from edgekit.errors import DeviceError
from edgekit.measure import load_phases, memory_phases, placed, real
from edgekit.process import Conversation
from edgekit.race import LONGEST_NS, WARM_UP_MS, WARMUP
from edgekit.runner.client import Feeds, RanReply, ReadyReply, Runnable, engine_arguments, parse_line

MOST_REQUESTS = 500
# The first requests of a turn wake threads up; where a request takes longer than this, that is nothing.
WAKE_UP_MATTERS_MS = 20.0
DEADLINE_S = 300.0


@dataclass(frozen=True)
class Entry:
    """A point that can be run: `runnable.run` says how, `feeds` hold requests of its batch, `samples` of them are cycled."""

    name: str
    runnable: Runnable
    feeds: Feeds
    samples: int


@dataclass(frozen=True)
class Loaded:
    """What a process said when it was ready."""

    load: Load
    settings_asked: Mapping[str, str]
    settings_in_force: Mapping[str, str]


@dataclass(frozen=True)
class Ran:
    """One turn of a point, and what its process has cost so far."""

    turn: Turn
    loaded: Loaded
    memory: Memory


class Heat:
    """Live points on a device; a context manager that ends them all."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stack = ExitStack()
        self._live: dict[str, _Live] = {}

    def __enter__(self) -> "Heat":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def turn(self, entry: Entry, turn_ms: float) -> Ran:
        """Run the point for about `turn_ms`, loaded if need be. Raises what loading and running raise."""
        if entry.name not in self._live:
            self._live[entry.name] = _Live(self._device, entry, self._stack)
        return self._live[entry.name].turn(turn_ms)

    def leave(self, name: str) -> None:
        """End a point's process; harmless when it has none."""
        if (live := self._live.pop(name, None)) is not None:
            live.process.close()


class _Live:
    """One point's process."""

    def __init__(self, device: Device, entry: Entry, stack: ExitStack) -> None:
        self._name = entry.name
        self._run = entry.runnable.run
        words = engine_arguments(*placed(device, entry.runnable, entry.feeds))
        words += ["--samples", str(entry.samples), "--warmup", str(WARMUP)]
        words += [] if entry.feeds.state else ["--streams", str(self._run.streams)]
        self.process: Conversation = stack.enter_context(device.talk(["bench", "--stdin", *words]))
        ready = parse_line(self.process.answer(DEADLINE_S), ReadyReply, entry.name)
        real(ready, entry.name)
        self._loaded = Loaded(load_phases(ready), ready.settings_asked.flat(), ready.settings_in_force.flat())
        self._typical_ms = WARM_UP_MS
        self.turn(WARM_UP_MS)  # forgotten, but for how long a request takes

    def turn(self, turn_ms: float) -> Ran:
        streams = self._run.streams
        count = streams * max(1, min(MOST_REQUESTS // streams, round(turn_ms / self._typical_ms)))
        extra = streams if self._typical_ms < WAKE_UP_MATTERS_MS else 0
        self.process.tell(f"go {count + extra}")
        reply = parse_line(self.process.answer(DEADLINE_S), RanReply, self._name)
        latencies = reply.latencies_ns
        if len(latencies) != count + extra or not 0 < min(latencies) <= max(latencies) < LONGEST_NS:
            raise DeviceError(f"ekrun answered with no latencies of {count + extra} runs", where=self._name)
        span = sum(latencies) if streams == 1 else reply.span_ns
        if not max(latencies) <= span <= sum(latencies) + LONGEST_NS:
            raise DeviceError("ekrun answered with a span that its latencies do not fit", where=self._name)
        self._typical_ms = max(1e-3, median(latencies) / 1e6)
        memory = _without(memory_phases(reply.memory), reply.resident_bytes)
        turn = Turn(latencies[extra:], span, (count + extra) * self._run.batch, memory.peak)
        return Ran(turn, self._loaded, memory)


def _without(memory: Memory, samples_bytes: int) -> Memory:
    """The memory without that of the samples, which another program would hold elsewhere or not at all."""
    peak = memory.peak_inference_rss
    return memory if peak is None else replace(memory, peak_inference_rss=max(0, peak - max(0, samples_bytes)))
