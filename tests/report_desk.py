"""Records that a report is made of: a run with searches and settings, a profile with heat, and names that try to break out."""

import random
from dataclasses import replace
from pathlib import Path
from struct import pack

from edgekit import sandbox
from edgekit.core.choose import choose
from edgekit.core.dataset import DataSetInfo, SplitInfo
from edgekit.core.dossier import Dossier, Profiled
from edgekit.core.facts import DeviceFacts, FactSheet
from edgekit.core.findings import findings
from edgekit.core.profile import CpuJiffies, Layer, Scenario, Trace, TracePoint
from edgekit.core.profile_run import PROFILE_SCHEMA, Profile, ScenarioFigures
from edgekit.core.results import Origin, Outcome, Verdict, VerdictCode
from edgekit.core.run import RUN_SCHEMA, Noise, Run
from edgekit.core.search import Search, Try
from edgekit.core.sensitivity import Attribution, Sensitivity, TensorNoise, Unit
from edgekit.core.stats import latency_stats
from edgekit.core.tradeoffs import Exploration, Point, Setting, key
from edgekit.core.trust import judge
from edgekit.core.types import LatencyBudget, Requirements
from edgekit.store import LATENCY_FILE, PROFILE_FILE, RUN_FILE
from tests.records import accuracy, measured, model, outcome, target, timed

MIB = 1 << 20
MODEL = "0" * 64

# What would run, style, link, mention, end a cell or end the page if it were let.
HOSTILE = (
    "</script><script>window.broken=1</script>",
    "<img src=x onerror=window.broken=2>",
    '" onmouseover="window.broken=3',
    "' style='position:fixed",
    "<!-- <script> --!> ]]>",
    "javascript:window.broken=4",
    "\x1b[31m\u202ereversed\x00\u2028line",
    "${style} $script {0} %s",
    "`code` **bold** [a](http://evil.example) | cell @team #1 www.evil.example https://evil.example",
)


def spread(p50_ms: float, runs: int = 1001, seed: int = 0) -> tuple[int, ...]:
    """Latencies that scatter as real ones do: a body and a tail."""
    rng = random.Random(seed)
    return tuple(round(p50_ms * 1e6 * (1 + rng.expovariate(12))) for _ in range(runs))


def scattered(made: Outcome, seed: int) -> Outcome:
    """The outcome with latencies that scatter."""
    assert made.measurement is not None
    ns = spread(made.measurement.ratio, seed=seed)
    return replace(made, measurement=replace(made.measurement, latencies_ns=ns, latency_ms=latency_stats(ns)))


def search(layers: int = 20, name: str = "/block/conv") -> Search:
    """A search that ranked its layers and kept the first in floating point."""
    ranked = tuple(
        Sensitivity(
            Unit(f"{name}{i}/Conv", "Conv", (f"{name}{i}/Conv",), 1 / layers),
            0.1 * 0.9**i,
            0.01 / (i + 1),
            activations=(TensorNoise(f"t{i}", -1, 1, 30.0 - i % 20),),
        )
        for i in range(layers)
    )
    found = Attribution("ort-int8", "top-1", 64, "mse", 0.2, 0.02, ranked)
    kept = Try((ranked[0].unit.name,), {"ranges": "mse"}, accuracy(0.001), True, "drop 0.0010")
    return Search("ort-int8", found, (kept,), "ort-int8-mixed", "the fewest layers were found")


def exploration(points: int = 12) -> Exploration:
    """A search over settings: batches cost latency and bring throughput."""
    made = tuple(_point(i) for i in range(points))
    front = tuple(key(p) for p in made[: max(1, points // 2)])
    return Exploration(made, 2 * points, 60.0, 7, "all were measured", front, front[-1], front[0], front[0], front[-1])


def _point(i: int) -> Point:
    setting = Setting(1 + i % 2, 1, 1 << (i % 5), "0-1" if i % 3 else "", {"ROUND": str(i)})
    ms, ips = 1.0 + i, 900.0 + 40 * i
    ended = "measured" if i % 4 else "dropped: its p50 is above the best's (95% 1.2 to 1.4)"
    return Point(
        "ort-int8", setting, latency_stats(spread(ms, 200, i)), ips, (ips - 9, ips + 9), ms, (ms * 0.98, ms * 1.02),
        30.0 + i, (40 + i) * MIB, MIB, 0.001, 20, ended,
    )  # fmt: skip


def run(*outcomes: Outcome, **changes: object) -> Run:
    """A run as `optimize` leaves it; `changes` are any of its fields."""
    asked = Requirements(latency=LatencyBudget(5.0), max_memory_bytes=64 * MIB)
    collapsed = (Verdict(VerdictCode.COLLAPSED, "the drop is 0.4"),)
    given = outcomes or (
        outcome("ort-fp32", 1.0),
        outcome("ort-int8", 0.4, drop=0.002, size=MIB),
        outcome("ort-fp16", 1.2, size=2 * MIB, memory=70 * MIB),
        outcome("ort-int8-dynamic", 0.3, drop=0.4, verdicts=collapsed),
    )
    shown = tuple(map(timed, (scattered(o, i) if o.measurement else o for i, o in enumerate(given))))
    choice = choose(shown, asked, Origin.TARGET, 1.03)
    made = Run(
        schema=RUN_SCHEMA,
        edgekit_version="0",
        versions={"onnx": "1.21.0"},
        model_name="model.onnx",
        model_sha256=MODEL,
        model=model(),
        target=target(sources={"ram_mib": "the data sheet"}),
        target_origin=Origin.TARGET,
        device=DeviceFacts("aarch64", (), None, 1, 1 << 30, None, None),
        threads=1,
        requirements=asked,
        data=DataSetInfo("data", "0" * 64, "top-1", True, {"selection": SplitInfo(500, "0" * 64)}, ("x",)),
        outcomes=shown,
        left_out={"ov-f32": "openvino refuses it"},
        noise=Noise(1.0, 1.03),
        choice=choice,
        satisfies_constraints=choice.chosen is not None,
        evaluation=accuracy(split="evaluation"),
        artifact_files=("model.onnx",),
        notices=("a notice",),
        next_steps=("do this",),
        searches=(search(),),
        findings=findings(shown, choice, (), asked, Origin.TARGET, 1.03, {}),
        exploration=exploration(),
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def profiled(queries: int = 1500, **changes: object) -> Profiled:
    """A profile of the chosen artifact, with a clock that falls and heat that rises."""
    ns = spread(0.4, queries)
    starts = tuple(i * 2_000_000 for i in range(queries))
    looks = [
        TracePoint(i * 250.0, (2_400_000 - 40_000 * i,), (45_000 + 900 * i,), CpuJiffies(), i * 10**8, None, None, None, i, i, i, 0)
        for i in range(12)
    ]  # fmt: skip
    trace = Trace(tuple(looks), 250, 100, (0,), ("cpu",), {"0": "schedutil"})
    figures = ScenarioFigures(queries, 2000.0, judge(starts, ns, trace), 0.9, None, None, None, None, None, trace)
    layers = tuple(
        Layer(f"/block/conv{i}/Conv_quant", "Conv", "CPUExecutionProvider", 40.0 - i, 0.05) for i in range(20)
    )
    made = measured(0.4)
    record = Profile(
        schema=PROFILE_SCHEMA, edgekit_version="0", model_name="model.onnx", model_sha256=MODEL, recipe="ort-int8",
        engine="onnxruntime", engine_version="1.32.0", threads=1, size_bytes=MIB, device="pi",
        facts=FactSheet("aarch64", (), 1), data=run().data, scenario=Scenario(min_runs=queries), cold=made.load, warm=made.load,
        memory=made.memory, memory_limit=None, figures=figures, layers=layers, answers=None, settings_asked={},
        settings_in_force={}, latency_file=LATENCY_FILE, notices=("a notice of the profile",),
    )  # fmt: skip
    return Profiled(replace(record, **changes), starts, ns)  # type: ignore[arg-type]  # any of its fields


def dossier(**changes: object) -> Dossier:
    """Everything a report can show."""
    return Dossier(run(**changes), "the-run", (profiled(),))


def hostile(name: str) -> Dossier:
    """A run all whose names, of model, data, layers, tensors and candidates, are `name`."""
    made = run()
    first, *rest = made.outcomes
    assert first.accuracy is not None
    loud = replace(
        first,
        accuracy=replace(first.accuracy, metric=name, output_cosine={name: 0.9}),
        verdicts=(Verdict(VerdictCode.SLOWER, name),),
    )
    info = replace(made.model, inputs=(replace(made.model.inputs[0], name=name),), op_counts={name: 1})
    shouted = replace(
        made,
        model_name=name,
        model=replace(info, layers=tuple(replace(layer, op=name) for layer in info.layers)),
        target=replace(made.target, name=name, summary=name, sources={name: name}),
        data=replace(made.data, name=name, metric=name),
        outcomes=(loud, *rest),
        searches=(search(name=name),),
        left_out={name: name},
        notices=(name,),
        next_steps=(name,),
        versions={name: name},
        choice=replace(made.choice, reason=name, rejected=dict.fromkeys(made.choice.rejected, name)),
        exploration=replace(exploration(), ended=name),
    )
    p = profiled()
    layers = tuple(replace(layer, name=name, op=name, exec_type=name) for layer in p.profile.layers)
    return Dossier(
        shouted,
        name,
        (replace(p, profile=replace(p.profile, device=name, recipe=name, layers=layers, notices=(name,))),),
    )


def written(folder: Path, record: Run) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN_FILE).write_bytes(sandbox.encode(record))
    return folder


def written_profile(folder: Path, made: Profiled) -> Path:
    """A profile's folder, its latencies as ekrun writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PROFILE_FILE).write_bytes(sandbox.encode(made.profile))
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (%d, 2, )}" % len(made.starts_ns)
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    body = b"".join(pack("<qq", *pair) for pair in zip(made.starts_ns, made.latencies_ns, strict=True))
    (folder / LATENCY_FILE).write_bytes(b"\x93NUMPY\x01\x00" + pack("<H", len(header)) + header + body)
    return folder
