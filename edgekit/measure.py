"""Measure one artifact on a device with ekrun: its outputs, a clean start, a scenario, its layers. The race is in `race.py`.

- Nothing but the engine's call is inside the clock, and the clock is ekrun's; memory is taken in processes that do nothing else.
- Every file is brought to the device first; what it answers is untrusted.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.core.facts import DeviceFacts, FactSheet
from edgekit.core.profile import Layer, Scenario
from edgekit.core.results import Load, Memory
from edgekit.devices.base import Device
from edgekit.errors import DeviceError
from edgekit.runner.client import (
    BenchReply,
    FactsReply,
    Feeds,
    LoadReply,
    Runnable,
    RunReply,
    engine_arguments,
    parse,
)
from edgekit.runner.layers import openvino_layers, ort_layers
from edgekit.runner.scenarios import LayersReply, ScenarioReply, layers_arguments, raw_samples, scenario_arguments

# No model for a device needs more; a run that outgrows it is ended.
MAX_RSS_BYTES = 6 << 30

# What loading and the last queries of a scenario may take beyond its duration.
SCENARIO_SLACK_S = 300.0


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
        if len({output.index for output in reply.outputs}) != len(reply.outputs) or (
            samples and reply.samples != samples
        ):
            raise DeviceError("ekrun answered with outputs that are not those asked for", where=where)
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
    real(reply, where)
    return CleanBench(
        load_phases(reply),
        memory_phases(reply.memory),
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
        return memory_phases(self.reply.memory)

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
    typical_ms: float = 0.0,
    memory_limit: int = 0,
) -> ScenarioRun:
    """Run one scenario in a fresh process; an inference takes about `typical_ms`.

    Raises as `runner.client.parse` does, and DeviceError for samples that do not fit.
    """
    there, fed = placed(device, runnable, feeds)
    pace_s = max(typical_ms / 1e3, *(1 / rate for rate in (scenario.qps, scenario.fps) if rate), 0.0)
    deadline_s = 2 * scenario.duration_s + 3 * scenario.min_runs * pace_s + SCENARIO_SLACK_S
    with device.scratch() as folder, tempfile.TemporaryDirectory() as here:
        file, copy = f"{folder}/latencies.npy", Path(here) / "latencies.npy"
        arguments = scenario_arguments(there, fed, scenario, warmup=warmup, latencies=file, sample_ms=sample_ms)
        done = device.run([*arguments, *_cap(memory_limit)], deadline_s=deadline_s, max_rss_bytes=MAX_RSS_BYTES)
        reply = parse(done, ScenarioReply, where)
        real(reply, where)
        device.get(file, copy)
        raw = copy.read_bytes()
    samples = raw_samples(raw, where)
    if len(samples.latency_ns) != reply.count or not reply.count or min(samples.latency_ns) <= 0:
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


def real(reply: LoadReply, where: str) -> None:
    """Nothing measured by an emulated ekrun is ever a figure, whoever asked for it. Raises DeviceError."""
    if reply.emulated:
        raise DeviceError("it is emulated: it has no latency and no memory", where=where)


def _cap(memory_limit: int) -> list[str]:
    return ["--memory-limit", str(memory_limit)] if memory_limit else []


def load_phases(reply: LoadReply) -> Load:
    """The cold costs that a process told."""
    return Load(
        reply.library_load_ms,
        reply.model_read_ms,
        reply.session_create_ms,
        reply.first_inference_ms,
        reply.process_to_first_inference_ms,
    )


def memory_phases(memory: Mapping[str, int | None]) -> Memory:
    """The resident sets that a process told."""
    keys = ("baseline_rss", "after_load_rss", "peak_load_rss", "peak_inference_rss")
    return Memory(**{key: memory.get(key) for key in keys})
