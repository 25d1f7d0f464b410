"""Records of whole runs, with figures of a simulated race: what the gate and `runs diff` are tested on."""

import math
import random
from dataclasses import replace
from pathlib import Path
from statistics import median

from edgekit import sandbox
from edgekit.core.accuracy import Accuracy
from edgekit.core.choose import choose
from edgekit.core.dataset import DataSetInfo, SplitInfo
from edgekit.core.facts import DeviceFacts
from edgekit.core.results import Measurement, Origin, Outcome
from edgekit.core.run import RUN_SCHEMA, Noise, Run
from edgekit.core.stats import bootstrap_ratio_ci, latency_stats, median_ratio
from edgekit.core.types import Requirements
from tests.records import MIB, accuracy, measured, model, outcome, target

CHOSEN = "ort-int8"
REFERENCE_NS = 5e6
ROUNDS, RUNS = 21, 40
MACHINE = DeviceFacts("aarch64", ("asimd",), "Cortex-A76", 1, 1 << 30, "6.1", "2.36", governor="performance")
SPLITS = {"selection": SplitInfo(500, "1" * 64), "evaluation": SplitInfo(2000, "2" * 64)}
DATA = DataSetInfo("data", "0" * 64, "top-1", True, SPLITS, ("x",))


def evaluated(value: float = 0.99, drop: float = 0.0, **changes: object) -> Accuracy:
    """The chosen candidate on 2000 unseen samples."""
    made = accuracy(drop, n=2000, split="evaluation", value=value, reference_value=value + drop, worse=4, better=4)
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def raced(
    seed: int = 0, *, ratio: float = 0.4, machine: float = 1.0, drift: float = 0.01, process: float = 0.003
) -> tuple[tuple[Outcome, Outcome], Noise]:
    """The reference and one that takes `ratio` of its time, with A/A noise; `machine` is how slow the machine is that day.

    Speeds are an AR(1) over turns of size `drift`, and `process` a level of each process; each run has noise of its own, upwards.
    """
    rng = random.Random(seed)
    level = {side: rng.gauss(0, process) for side in ("reference", "twin", CHOSEN)}
    factor = {"reference": 1.0, "twin": 1.0, CHOSEN: ratio}
    turns: dict[str, list[list[int]]] = {side: [] for side in level}
    speed = rng.gauss(0, drift)
    for _ in range(ROUNDS):
        for side, found in turns.items():
            speed = 0.7 * speed + rng.gauss(0, drift * math.sqrt(0.51))
            base = REFERENCE_NS * machine * factor[side] * math.exp(level[side] + speed)
            found.append([round(base * math.exp(abs(rng.gauss(0, 0.04)))) for _ in range(RUNS)])
    medians = {side: [float(median(turn)) for turn in found] for side, found in turns.items()}
    intervals = {s: bootstrap_ratio_ci(medians[s], medians["reference"], 0) for s in (CHOSEN, "twin")}
    low, high = intervals["twin"]
    made = []
    for recipe, side in (("ort-fp32", "reference"), (CHOSEN, CHOSEN)):
        figures = figures_of(turns[side], median_ratio(medians[side], medians["reference"]), intervals.get(side))
        size = (4 if recipe == "ort-fp32" else 1) * MIB
        made.append(replace(outcome(recipe, size=size), measurement=figures))
    return (made[0], made[1]), Noise(median_ratio(medians["twin"], medians["reference"]), max(high, 1 / low, 1.0))


def figures_of(turns: list[list[int]], ratio: float, interval: tuple[float, float] | None) -> Measurement:
    latencies = tuple(ns for turn in turns for ns in turn)
    stats = latency_stats(latencies)
    return replace(
        measured(1.0),
        latency_ms=stats,
        latencies_ns=latencies,
        ratio=ratio,
        throughput_ips=1e3 / stats.mean,
        settings_in_force={"intra_op_num_threads": "1"},
        ratio_interval=interval,
    )


def finished(seed: int = 0, *, bytes_of: str = "", asked: Requirements | None = None, **changes: object) -> Run:
    """A run that chose int8. `bytes_of` makes the chosen artifact other bytes; `changes` are of the race or of the record."""
    racing = {name: changes.pop(name) for name in ("ratio", "machine", "drift", "process") if name in changes}
    outcomes, noise = raced(seed, **racing)  # type: ignore[arg-type]  # as `raced` takes them
    if bytes_of:
        outcomes = (outcomes[0], with_bytes(outcomes[1], bytes_of))
    requirements = asked or Requirements()
    choice = choose(outcomes, requirements, Origin.TARGET, noise.spread)
    made = Run(
        schema=RUN_SCHEMA,
        edgekit_version="1.0",
        versions={"onnxruntime": "1.32.0"},
        model_name="model.onnx",
        model_sha256="0" * 64,
        model=model(),
        target=target(),
        target_origin=Origin.TARGET,
        device=MACHINE,
        threads=1,
        requirements=requirements,
        data=DATA,
        outcomes=outcomes,
        left_out={},
        noise=noise,
        choice=choice,
        satisfies_constraints=choice.chosen is not None,
        evaluation=evaluated(),
        artifact_files=("artifact/model.onnx",),
        notices=(),
        next_steps=(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def with_bytes(made: Outcome, text: str) -> Outcome:
    """The outcome of an artifact of other bytes."""
    assert made.artifact is not None
    files = tuple(replace(file, sha256=text.encode().hex().ljust(64, "0")) for file in made.artifact.files)
    return replace(made, artifact=replace(made.artifact, files=files))


def written(folder: Path, record: Run) -> Path:
    """The run's folder on disk, without its artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_bytes(sandbox.encode(record))
    return folder
