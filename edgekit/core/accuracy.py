"""How right an artifact still is, and whether that is right enough. Pure.

- A drop is how much worse the candidate scores than the reference on the same samples, whichever way the metric points: positive is
  worse. It is never reported without its count and interval.
- Feasible means: the drop is at most max-drop, and its 95 % interval ends at or below twice max-drop.
- Outputs that differ from the reference's by rounding alone are the reference's: no interval is asked of them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgekit.core.stats import first_at_least, paired_difference_interval

# fp32 on another instruction set reorders sums: relative errors near 1e-6, or 120 dB. fp16 and bf16 stay below 80 dB.
EQUIVALENT_SQNR_DB = 90.0
EQUIVALENT_COSINE = 1 - 1e-6

# A drop five times the default max-drop is a broken recipe, not bad luck with a few samples.
COLLAPSED_DROP = 0.05
# At 0.9 nearly half of an output's length is error (sin(acos(0.9)) = 0.44): no int8 build worth keeping was seen there.
COLLAPSED_COSINE = 0.9

SETTLE_LIMIT = 10_000_000

# A model that is wrong more often than right on its user's own labels: more often the labels or the preprocessing are.
DOUBTFUL_VALUE = 0.5


@dataclass(frozen=True)
class OutputSet:
    """Outputs as `ekrun run` leaves them: one .npy an output, [samples, *shape], bfloat16 as uint16.

    `shapes` has an entry an output: None, or each sample's shape when they differ; its file is then flat.
    """

    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    files: tuple[Path, ...]
    shapes: tuple[tuple[tuple[int, ...], ...] | None, ...]


@dataclass(frozen=True)
class MetricOptions:
    """What a data set may say of its metric, `[metric_options]` in data.toml; each metric's docstring says what it heeds.

    `threshold` makes a yes or no of a value; `blank` is CTC's blank; `space` the token between two words (None: not declared);
    `classes` are those that count (empty: all that occur); `ignore` is the label of what is not scored, NaN always is one. `output`
    names the only output that the metric is shown (None: all of them, of which it takes what its docstring says).
    """

    threshold: float = 0.5
    blank: int = 0
    space: int | None = None
    classes: tuple[int, ...] = ()
    ignore: int = -1
    output: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """A candidate against the reference on one split.

    `kind` is "task" (scored on labels), "agreement" (scored against the reference's outputs) or "synthetic" (agreement on random
    inputs). `direction` says whether a "higher" or a "lower" value is better, `unit` what values and drop are in ("fraction",
    "cosine", ...). `drop` is by how much `value` is worse than `reference_value`, `ci_low`..`ci_high` its 95 % interval. Of
    right-or-wrong answers `worse` and `better` count those that only the reference or only the candidate got right, `answers`
    all of them (as many as samples when None), `effective_answers` the independent ones the interval rests on; None when the
    metric does not count answers. `output_cosine` is each output's mean cosine, `worst_cosine` the lowest of any sample and
    output. `sqnr_db` is of the worst float output over all samples, None when no float output differs. `nonfinite` counts values
    that are finite in the reference only.
    """

    metric: str
    kind: str
    split: str
    value: float
    reference_value: float
    drop: float
    n: int
    ci_low: float
    ci_high: float
    worst_cosine: float
    max_abs_diff: float
    sqnr_db: float | None
    nonfinite: int
    collapsed: bool
    collapse_reason: str = ""
    output_cosine: Mapping[str, float] = field(default_factory=dict)
    worse: int | None = None
    better: int | None = None
    direction: str = "higher"
    unit: str = "fraction"
    answers: int | None = None
    effective_answers: float | None = None


@dataclass(frozen=True)
class Agreement:
    """The outputs of one artifact on two machines: samples equal bit for bit, decisions taken from them, and those that flipped.

    `nonfinite` counts values that are finite on this host only; `max_abs_diff` is of the finite ones.
    """

    samples: int
    identical: int
    decisions: int
    flipped: int
    nonfinite: int
    max_abs_diff: float


class Feasibility(NamedTuple):
    """Whether an accuracy holds, and why."""

    ok: bool
    reason: str


def is_equivalent(accuracy: Accuracy) -> bool:
    """The outputs are the reference's but for rounding."""
    quiet = accuracy.sqnr_db is None or accuracy.sqnr_db >= EQUIVALENT_SQNR_DB
    return quiet and accuracy.worst_cosine >= EQUIVALENT_COSINE and accuracy.nonfinite == 0


def doubt(reference: Accuracy) -> str:
    """Why the data may not suit the model, from what the model as given scores on its labels; an empty string without a reason."""
    a = reference
    if a.kind != "task" or a.unit != "fraction" or a.direction != "higher" or a.reference_value >= DOUBTFUL_VALUE:
        return ""
    scored = f"the model as given scores {a.metric} {a.reference_value:.4f} on this data (n={a.n})"
    return f"{scored}: are the labels in its order, and the inputs prepared as in training? edgekit data check tries"


def feasible(accuracy: Accuracy, max_drop: float) -> Feasibility:
    """Does the drop hold within `max_drop` (absolute, the metric's unit)? A rejection says how many samples would settle it."""
    a = accuracy
    if a.collapsed:
        return Feasibility(False, f"output collapsed: {a.collapse_reason}")
    if a.nonfinite:
        return Feasibility(False, f"{a.nonfinite} output values are not finite")
    if a.drop > max_drop:
        hint = _settling(a, max_drop) if a.ci_low <= max_drop else ""
        return Feasibility(False, f"{a.metric} drop {a.drop:.4f} is over {max_drop:g} (n={a.n}{hint})")
    if is_equivalent(a):
        return Feasibility(True, "equal to the reference but for rounding")
    if a.ci_high > 2 * max_drop:
        could = f"{a.metric} drop {a.drop:.4f} may be up to {a.ci_high:.4f}, over {2 * max_drop:g}"
        return Feasibility(False, f"{could} (95 % interval, n={a.n}{_settling(a, max_drop)})")
    return Feasibility(True, f"{a.metric} drop {a.drop:.4f}, at most {a.ci_high:.4f} (n={a.n})")


def can_hold(accuracy: Accuracy, max_drop: float) -> bool:
    """Whether any candidate but an equivalent one could be shown to hold on these samples: one that flips no answer, at best."""
    a = accuracy
    if a.worse is None or a.better is None:
        return max_drop > 0
    effective = a.effective_answers or a.answers or a.n
    return paired_difference_interval(0, 0, effective)[1] <= 2 * max_drop


def _settling(accuracy: Accuracy, max_drop: float) -> str:
    needed = samples_to_settle(accuracy, max_drop)
    return f"; about {needed} samples would settle it" if needed is not None else ""


def samples_to_settle(accuracy: Accuracy, max_drop: float) -> int | None:
    """How many samples would bring the interval to one side of the bar if the drop stays what it is.

    Counted answers are scaled and their interval is recomputed; of other scores the interval shrinks with the square root of the
    count. None when no number below SETTLE_LIMIT would do (the drop lies on the bar).
    """
    a = accuracy

    def settled(n: int) -> bool:
        low, high = _interval_at(a, n)
        return low > max_drop if a.drop > max_drop else high <= 2 * max_drop

    needed = first_at_least(max(a.n, 1), settled, SETTLE_LIMIT)
    return needed if needed < SETTLE_LIMIT else None


def _interval_at(a: Accuracy, n: int) -> tuple[float, float]:
    if a.worse is not None and a.better is not None and a.n:
        answers = a.answers or a.n
        effective = (a.effective_answers or answers) * n / a.n
        share = effective / answers
        return paired_difference_interval(a.worse * share, a.better * share, effective)
    shrink = math.sqrt(a.n / n)
    return a.drop - (a.drop - a.ci_low) * shrink, a.drop + (a.ci_high - a.drop) * shrink
