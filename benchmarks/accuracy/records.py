"""The tools that are compared, and what is kept of each: `OUT/<model>.json` is one Result.

- A build is made once; a tool is a build and how it is run: OpenVINO runs the same file in f32 and, where the CPU has it, in bf16.
- The baseline is edgekit's reference recipe: the model as it was given, in ONNX Runtime with its default options.
"""

from dataclasses import dataclass
from statistics import median

from edgekit.core.accuracy import Accuracy, feasible
from edgekit.core.recipes import ONNXRUNTIME, OPENVINO, REFERENCE
from edgekit.core.stats import bootstrap_ratio_ci, median_ratio

MAX_DROP = 0.01
EDGEKIT = "edgekit"
CONTROL = "nncf-control"  # the build that is bounded by an accuracy, as edgekit's is


@dataclass(frozen=True)
class Tool:
    """A row of the table: `build` is a key of `builders.BUILDERS`, empty for the model as it was given."""

    name: str
    build: str
    engine: str
    precision: str = "f32"


BASELINE = Tool(REFERENCE, "", ONNXRUNTIME)
TOOLS = (
    Tool("ort-static", "ort-static", ONNXRUNTIME),
    Tool("ort-static-per-channel", "ort-static-per-channel", ONNXRUNTIME),
    Tool("ort-static-advised", "ort-static-advised", ONNXRUNTIME),
    Tool("ort-dynamic", "ort-dynamic", ONNXRUNTIME),
    Tool("openvino-f32", "openvino", OPENVINO),
    Tool("openvino-bf16", "openvino", OPENVINO, "bf16"),
    Tool("nncf-f32", "nncf", OPENVINO),
    Tool("nncf-bf16", "nncf", OPENVINO, "bf16"),
    Tool(f"{CONTROL}-f32", CONTROL, OPENVINO),
    Tool(f"{CONTROL}-bf16", CONTROL, OPENVINO, "bf16"),
)


@dataclass(frozen=True)
class Build:
    """What making an artifact took and left: `reason` says why there is none, else `files[0]` is the one an engine opens.

    `seconds` is wall time; `peak_bytes` as `child.Watched` has it.
    """

    files: tuple[str, ...] = ()
    quantized_ops: int = 0
    quantizable_ops: int = 0
    notes: tuple[str, ...] = ()
    reason: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0


@dataclass(frozen=True)
class Entry:
    """One row. `turns_ns` are medians by turn of the race, those of all entries taken side by side; empty without an artifact.

    `build` is None for the baseline, which nobody builds. `accuracy` is on the evaluation split. `reason` says why figures lack.
    """

    tool: str
    precision: str
    build: Build | None
    size_bytes: int = 0
    accuracy: Accuracy | None = None
    turns_ns: tuple[float, ...] = ()
    remark: str = ""
    reason: str = ""

    @property
    def accurate(self) -> bool:
        """On unseen data its drop is within MAX_DROP and the interval's upper end within twice that, or only rounding differs."""
        return not self.reason and self.accuracy is not None and feasible(self.accuracy, MAX_DROP).ok

    @property
    def holds(self) -> bool:
        """It is accurate, and it ran."""
        return self.accurate and bool(self.turns_ns)

    @property
    def p50_ms(self) -> float:
        """The median of the turns' medians."""
        return median(self.turns_ns) / 1e6

    def ratio_to(self, other: "Entry") -> float:
        """Its latency over another's, paired by turn."""
        turns = min(len(self.turns_ns), len(other.turns_ns))
        return median_ratio(self.turns_ns[:turns], other.turns_ns[:turns])

    def lowest_ratio_to(self, other: "Entry") -> float:
        """The lower end of that ratio's 95 % interval."""
        turns = min(len(self.turns_ns), len(other.turns_ns))
        return bootstrap_ratio_ci(self.turns_ns[:turns], other.turns_ns[:turns], seed=0)[0]


@dataclass(frozen=True)
class Result:
    """One model: the baseline first, then the tools, edgekit last. `aa_spread` >= 1 is the baseline against its own twin."""

    model: str
    threads: int
    aa_spread: float
    entries: tuple[Entry, ...]

    @property
    def baseline(self) -> Entry:
        return self.entries[0]

    def entry(self, tool: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.tool == tool), None)


def own_name(forbid: str = "") -> str:
    """What edgekit's row is called when `forbid` is given to it."""
    return f"{EDGEKIT} --forbid {forbid}" if forbid else EDGEKIT
