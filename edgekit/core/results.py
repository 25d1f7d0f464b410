"""The records of what was found out: measurements, predictions, verdicts, outcomes and the choice."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgekit.core.accuracy import Accuracy, Agreement
from edgekit.core.stats import LatencyStats
from edgekit.core.types import Artifact, Candidate


class Origin(StrEnum):
    """Where a figure comes from; only TARGET figures are the target's own."""

    TARGET = "target"
    HOST = "host"
    PREDICTED = "predicted"


@dataclass(frozen=True)
class Memory:
    """Resident set of a clean process, by phase; None where the kernel refused to tell."""

    baseline_rss: int | None
    after_load_rss: int | None
    peak_load_rss: int | None
    peak_inference_rss: int | None

    @property
    def peak(self) -> int | None:
        known = [m for m in (self.peak_load_rss, self.peak_inference_rss) if m is not None]
        return max(known) if known else None


@dataclass(frozen=True)
class Load:
    """Cold costs of a clean process, in milliseconds; None where the engine does not separate the phase."""

    library_load_ms: float | None
    model_read_ms: float | None
    session_create_ms: float | None
    first_inference_ms: float | None
    process_to_first_inference_ms: float | None


@dataclass(frozen=True)
class Measurement:
    """One candidate on one device. `ratio` is its p50 over the baseline's, paired by round of the same race.

    `ratio_interval` is its 95 % interval, None of the baseline itself.
    """

    origin: Origin
    device: str
    threads: int
    latency_ms: LatencyStats
    latencies_ns: tuple[int, ...]
    ratio: float
    throughput_ips: float
    load: Load
    memory: Memory
    settings_asked: Mapping[str, str] = field(default_factory=dict)
    settings_in_force: Mapping[str, str] = field(default_factory=dict)
    ratio_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Prediction:
    """What the cost model expects on a target that was not measured, and by which rule."""

    p50_ms: float
    ratio: float
    throughput_ips: float
    peak_memory_bytes: int | None
    rule: str


# The split of a proof that holds a bundle's answers against those it expects itself.
GOLDEN = "golden"


@dataclass(frozen=True)
class Proof:
    """The chosen artifact run on a device: how its answers agree with this host's on the same samples of `split`.

    `accuracy` is scored from the device's own answers, None where they were too few or there are no labels to score. On an
    emulated device it proves operator support, ISA fitness and answers, nothing of time or memory.
    """

    device: str
    emulated: bool
    split: str
    agreement: Agreement
    accuracy: Accuracy | None


class VerdictCode(StrEnum):
    """What became of a candidate beyond its figures. The codes in `BLOCKING` rule it out."""

    DOES_NOT_BUILD = "does not build"
    DOES_NOT_LOAD = "does not load"
    DOES_NOT_RUN = "does not run"
    NOTHING_QUANTIZED = "nothing was quantized"
    COLLAPSED = "collapsed"
    LARGER = "larger than the original"
    SLOWER = "slower than fp32"


BLOCKING = frozenset(
    {
        VerdictCode.DOES_NOT_BUILD,
        VerdictCode.DOES_NOT_LOAD,
        VerdictCode.DOES_NOT_RUN,
        VerdictCode.NOTHING_QUANTIZED,
        VerdictCode.COLLAPSED,
    }
)


@dataclass(frozen=True)
class Verdict:
    """A judgement with its reason."""

    code: VerdictCode
    reason: str


@dataclass(frozen=True)
class Outcome:
    """All that is known of one candidate. `accuracy` is on the selection split: the choice never sees evaluation."""

    candidate: Candidate
    artifact: Artifact | None = None
    accuracy: Accuracy | None = None
    measurement: Measurement | None = None
    prediction: Prediction | None = None
    verdicts: tuple[Verdict, ...] = ()

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def blocked(self) -> Verdict | None:
        return next((v for v in self.verdicts if v.code in BLOCKING), None)

    @property
    def runs(self) -> bool:
        """Whether it can be measured. One that collapsed can: its speed is what keeping its accuracy may be worth."""
        return self.blocked is None or self.blocked.code is VerdictCode.COLLAPSED


@dataclass(frozen=True)
class Figures:
    """The numbers a choice is made on; `origin` says whether the target was measured or predicted.

    `ratio` is the p50 over the reference's. Candidates are compared by it: it was paired within rounds, so it holds when the
    machine's speed drifts. `cold_start_ms` is from the process's start to its first answer, and never predicted, nor is the
    distribution `latency_ms`.
    """

    origin: Origin
    p50_ms: float
    ratio: float
    throughput_ips: float
    peak_memory_bytes: int | None
    size_bytes: int
    cold_start_ms: float | None = None
    latency_ms: LatencyStats | None = None

    def at(self, percentile: str) -> float | None:
        """The latency in ms at "p50" to "p99", None where too few runs support it; a predicted p50 stands for each of them."""
        if self.latency_ms is None:
            return self.p50_ms
        value: float | None = getattr(self.latency_ms, percentile)
        return value


@dataclass(frozen=True)
class Choice:
    """What was chosen and why each other candidate was not.

    `feasible` names all that meet the requirements. When none does `chosen` is None, `nearest` is the candidate that lacks least
    and `lacks` says what. `unproven` lists requirements that rest on a prediction, or on one request after
    another where they come otherwise.
    """

    chosen: str | None
    reason: str
    feasible: tuple[str, ...]
    front: tuple[str, ...]
    rejected: Mapping[str, str]
    nearest: str | None = None
    lacks: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
