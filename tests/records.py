"""Records for tests of pure decisions: a model, targets, and outcomes with the figures that matter."""

from dataclasses import replace

from edgekit.core.accuracy import Accuracy
from edgekit.core.recipes import RECIPES, run_config
from edgekit.core.results import Load, Measurement, Memory, Origin, Outcome, Prediction, Verdict
from edgekit.core.stats import latency_stats
from edgekit.core.types import (
    Artifact,
    ArtifactFile,
    BuildSpec,
    Candidate,
    Cluster,
    LayerCost,
    ModelInfo,
    NumericRules,
    Target,
    TensorSpec,
)

NUMERIC = NumericRules("uint8", "int8", per_channel=True, reduce_range=False)
VERSIONS = {"onnxruntime": "1.32.0", "openvino": "2026.4.1"}
MIB = 1 << 20


def model(**changes: object) -> ModelInfo:
    layers = (
        LayerCost("Conv", macs=10_000_000, weight_elements=10_000, activation_elements=100_000),
        LayerCost("Relu", macs=0, weight_elements=0, activation_elements=200_000),
        LayerCost("MatMul", macs=1_000_000, weight_elements=1_000_000, activation_elements=2_000),
    )
    info = ModelInfo(
        sha256="0" * 64,
        file_bytes=4 * MIB,
        ir_version=8,
        opset=17,
        producer="test",
        inputs=(TensorSpec("x", "float32", (1, 3, 32, 32)),),
        outputs=(TensorSpec("y", "float32", (1, 10)),),
        op_counts={"Conv": 1, "Relu": 1, "MatMul": 1},
        params=1_010_000,
        macs=11_000_000,
        weight_bytes=4_040_000,
        peak_activation_bytes=800_000,
        layers=layers,
        refusals={},
    )
    return replace(info, **changes)  # type: ignore[arg-type]  # any of its fields


def target(*isa: str, **changes: object) -> Target:
    made = Target(
        name="board",
        summary="a board",
        arch="aarch64",
        isa=("asimd", *isa),
        clusters=(Cluster("cortex-a76", 4, 2000, 8, 16, 32),),
        ram_bytes=1024 * MIB,
        storage_bytes=8192 * MIB,
        glibc="2.36",
        bandwidth_bytes_per_s=10e9,
        engines=VERSIONS,
        numeric=NUMERIC,
        emulation_cpu="cortex-a76",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def candidate(recipe: str, threads: int = 1) -> Candidate:
    r = RECIPES[recipe]
    return Candidate(BuildSpec("0" * 64, r, VERSIONS[r.engine], {}, NUMERIC), run_config(recipe, threads))


def accuracy(drop: float = 0.0, n: int = 500, **changes: object) -> Accuracy:
    wide = 0.004
    made = Accuracy(
        metric="top-1",
        kind="task",
        split="selection",
        value=0.99 - drop,
        reference_value=0.99,
        drop=drop,
        n=n,
        ci_low=drop - wide,
        ci_high=drop + wide,
        worst_cosine=0.99,
        max_abs_diff=0.1,
        sqnr_db=30.0,
        nonfinite=0,
        collapsed=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def artifact(recipe: str, size: int = 4 * MIB, quantized: int = 0) -> Artifact:
    files = (ArtifactFile("model.onnx", recipe.encode().hex().ljust(64, "0"), size),)
    return Artifact(candidate(recipe).build, files, quantized_ops=quantized, quantizable_ops=2)


def measured(p50_ms: float, memory: int = 50 * MIB, runs: int = 1001) -> Measurement:
    """A measurement of equal runs; 1,001 of them support p99, 11 no more than p50."""
    latencies = (round(p50_ms * 1e6),) * runs
    return Measurement(
        origin=Origin.TARGET,
        device="local",
        threads=1,
        latency_ms=latency_stats(latencies),
        latencies_ns=latencies,
        ratio=p50_ms,
        throughput_ips=1000 / p50_ms,
        load=Load(1.0, None, 2.0, 3.0, 4.0),
        memory=Memory(MIB, memory, memory, memory),
    )


def outcome(
    recipe: str,
    p50_ms: float = 1.0,
    *,
    drop: float = 0.0,
    size: int = 4 * MIB,
    memory: int = 50 * MIB,
    runs: int = 1001,
    verdicts: tuple[Verdict, ...] = (),
    **accuracy_changes: object,
) -> Outcome:
    """A measured candidate."""
    return Outcome(
        candidate(recipe),
        artifact(recipe, size),
        accuracy(drop, **accuracy_changes),  # type: ignore[arg-type]  # any of its fields
        measured(p50_ms, memory, runs),
        verdicts=verdicts,
    )


def predicted(recipe: str, p50_ms: float, memory: int | None = 50 * MIB) -> Outcome:
    """A candidate of a target that is not at hand."""
    prediction = Prediction(p50_ms, p50_ms, 1000 / p50_ms, memory, "rule")
    return Outcome(candidate(recipe), artifact(recipe), accuracy(), prediction=prediction)


def timed(made: Outcome, interval: tuple[float, float] | None = None) -> Outcome:
    """The outcome with the interval of its ratio, 2 % to either side unless told otherwise."""
    if made.measurement is None:
        return made
    ratio = made.measurement.ratio
    return replace(made, measurement=replace(made.measurement, ratio_interval=interval or (ratio * 0.98, ratio * 1.02)))
