"""One turn of edgekit, of Python onnxruntime or of OpenVINO's benchmark_app: a fresh process on the same model file and samples.

benchmarks.tools says what is equal between them, and compares.
"""

import re
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.runner import talk
from edgekit.core.profile import Scenario
from edgekit.core.shapes import parse_shape
from edgekit.devices.local import LocalDevice
from edgekit.errors import ResourceLimit
from edgekit.flow.gate import engines_for
from edgekit.flow.materials import Options
from edgekit.flow.profile import WARMUP
from edgekit.flow.subject import find_subject
from edgekit.flow.workshop import SELECTION, Workshop
from edgekit.measure import ScenarioRun, fact_sheet, run_scenario
from edgekit.process import Conversation, describe_exit, run
from edgekit.runner.client import Feeds, Runnable
from edgekit.store import Cache, default_cache

SAMPLES = 8  # what benchmarks.python_loop cycles over
SLACK_S = 300.0


@dataclass(frozen=True)
class Figures:
    """What one turn found."""

    p50_ms: float
    per_second: float


Turn = Callable[[int], Figures]  # of about so many seconds


@dataclass(frozen=True)
class Prepared:
    """An artifact with the samples both sides get: the first SAMPLES, and the first one `alone`, which `bare` has unstacked.

    State that would be fed back is an input as any other.
    """

    device: LocalDevice
    runnable: Runnable
    feeds: Feeds
    alone: Feeds
    bare: Mapping[str, Path]

    def on(self, threads: int) -> Runnable:
        return replace(self.runnable, run=replace(self.runnable.run, threads=threads))


# ------------------------------------------------------------------------------------------------------------ preparation


def save(arrays: Mapping[str, NDArray[Any]], folder: Path) -> dict[str, Path]:
    """Each array in a file of its own, in a new folder."""
    folder.mkdir()
    places = {name: folder / f"{index}.npy" for index, name in enumerate(arrays)}
    for name, place in places.items():
        np.save(place, arrays[name])
    return places


@contextmanager
def prepared(name: str, folder: Path, recipe: str) -> Iterator[Prepared]:
    """The model in `folder` as `recipe` makes it. Raises what `find_subject` raises; exits when the tool's engine is another."""
    arguments = folder / "args.toml"
    shapes = tomllib.loads(arguments.read_text())["shape"] if arguments.exists() else []
    data = folder if name == "digits" else folder / "data"
    with tempfile.TemporaryDirectory() as scratch:
        device = LocalDevice(Path(scratch))
        shop = Workshop(Cache(default_cache()), Path(scratch), device, lambda _: None)
        engines = engines_for(fact_sheet(device), device.name)
        options = Options(shapes=dict(map(parse_shape, shapes)))
        found = find_subject(shop, folder / "model.onnx", data, engines, recipe, options)
        engine, version = found.made.runnable.engine, found.candidate.build.engine_version
        if metadata.version(engine) != version:
            sys.exit(f"the tools have {engine} {metadata.version(engine)}, edgekit {version}: install that version")
        feeds = found.materials.feeds(SELECTION).inputs
        samples = {name: np.load(path, mmap_mode="r")[:SAMPLES] for name, path in feeds.items()}
        yield Prepared(
            device,
            found.made.runnable,
            Feeds(save(samples, Path(scratch) / "first")),
            Feeds(save({name: array[:1] for name, array in samples.items()}, Path(scratch) / "alone")),
            save({name: array[0] for name, array in samples.items()}, Path(scratch) / "bare"),
        )


# ------------------------------------------------------------------------------------------------------------------ turns


def scenario_run(subject: Prepared, threads: int, feeds: Feeds, scenario: Scenario) -> ScenarioRun:
    """A fresh ekrun, as `edgekit profile` starts it."""
    runnable = subject.on(threads)
    return run_scenario(
        subject.device, runnable, feeds, scenario, where=runnable.model.name, warmup=WARMUP, sample_ms=0
    )


def single_stream(subject: Prepared, threads: int, feeds: Feeds) -> Turn:
    """ekrun, one inference after the other."""

    def turn(seconds: int) -> Figures:
        scenario = Scenario("single-stream", duration_s=float(seconds))
        return of_latencies(list(scenario_run(subject, threads, feeds, scenario).latencies_ns))

    return turn


def offline(subject: Prepared, threads: int, feeds: Feeds, streams: int) -> Turn:
    """ekrun, `streams` at a time."""

    def turn(seconds: int) -> Figures:
        scenario = Scenario("offline", duration_s=float(seconds), streams=streams)
        done = scenario_run(subject, threads, feeds, scenario)
        return Figures(median(done.latencies_ns) / 1e6, done.reply.inferences_per_second)

    return turn


def of_latencies(ns: list[int]) -> Figures:
    """p50, and the throughput of one stream."""
    return Figures(median(ns) / 1e6, 1e9 / fmean(ns))


def python_loop(subject: Prepared, threads: int) -> Turn:
    """The Python loop, for as many inferences as its first ones say will fill the time."""
    argv = [sys.executable, "-m", "benchmarks.python_loop", str(subject.runnable.model), str(threads)]
    argv += [f"{name}={path}" for name, path in subject.feeds.inputs.items()]

    def turn(seconds: int) -> Figures:
        with Conversation(argv) as process:
            process.answer(SLACK_S)
            typical = median(talk(process, 3))
            return of_latencies(talk(process, max(1, round(seconds * 1e9 / typical))))

    return turn


def benchmark_app(subject: Prepared, threads: int, mode: list[str], streams: int) -> Turn:
    """OpenVINO's tool, with the settings ekrun makes."""
    argv = [*benchmark_app_command(), "-m", str(subject.runnable.model), "-d", "CPU", *mode]
    argv += ["-hint", "none", "-nstreams", str(streams), "-nthreads", str(threads), "-infer_precision", "f32"]
    argv += ["-pin", "NO", *input_types(subject.bare), "-i", ",".join(map(str, subject.bare.values()))]
    in_force = {"NUM_STREAMS": str(streams), "INFERENCE_NUM_THREADS": str(threads)}

    def turn(seconds: int) -> Figures:
        done = run([*argv, "-t", str(seconds)], deadline_s=seconds + SLACK_S)
        text = done.stdout.decode(errors="replace")
        if done.returncode or done.timed_out:
            raise ResourceLimit(f"benchmark_app {describe_exit(done)} ({text.strip()[-300:]})", where=argv[0])
        return read_benchmark_app(text, in_force)

    return turn


def benchmark_app_command() -> list[str]:
    """The program beside this Python, or its module's entry point."""
    beside = Path(sys.executable).with_name("benchmark_app")
    entry = "from openvino.tools.benchmark.main import main; main()"
    return [str(beside)] if beside.exists() else [sys.executable, "-c", entry]


def input_types(bare: Mapping[str, Path]) -> list[str]:
    """The option that keeps every input's own element type: f32, i64, bool ..."""
    types = {name: np.load(path).dtype for name, path in bare.items()}
    names = {key: "bool" if t.kind == "b" else f"{t.kind}{8 * t.itemsize}" for key, t in types.items()}
    if len(set(names.values())) == 1:
        return ["-ip", next(iter(names.values()))]
    return ["-iop", ",".join(f"{key}:{value}" for key, value in names.items())]


def read_benchmark_app(text: str, in_force: Mapping[str, str]) -> Figures:
    """What it printed. Raises ResourceLimit for other settings than `in_force`, random inputs, or what is no report."""
    settings = dict(re.findall(r"^\[ INFO \] +([A-Z_]+): (.*?)\s*$", text, re.M))
    others = {key: settings.get(key) for key, value in in_force.items() if settings.get(key) != value}
    if others or "random values" in text:
        raise ResourceLimit(f"benchmark_app ran with {others or 'random inputs'}", where="benchmark_app")
    words = r"Count: +(\d+) iterations.*Duration: +([\d.]+) ms.*Median: +([\d.]+) (us|ms)"
    found = re.search(words, text, re.S)
    if found is None:
        raise ResourceLimit("benchmark_app printed no figures", where="benchmark_app")
    count, duration_ms, middle, unit = found.groups()
    return Figures(float(middle) / (1e3 if unit == "us" else 1), int(count) / float(duration_ms) * 1e3)
