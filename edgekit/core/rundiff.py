"""What changed between two runs, and which differences are real. Pure.

- Inputs are compared as recorded; a difference there is a fact.
- Figures are compared as `core.deltas` may: a difference that the stored intervals do not show is not called one.
- Candidates are compared by their ratio to the reference, which both runs raced.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from edgekit.core.compare import MIN_DIFFERENCE
from edgekit.core.delta import Delta, Shown, ratio_delta
from edgekit.core.deltas import deltas, incomparable
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Outcome
from edgekit.core.run import Run

DIFF_SCHEMA = 1
SHORT = 12  # digits of a digest that a person reads


@dataclass(frozen=True)
class Change:
    """An input or a decision that is not the same in both runs."""

    what: str
    before: str
    after: str


@dataclass(frozen=True)
class CandidateDelta:
    """A candidate of both runs: its ratio to the reference, and whether its bytes are the same."""

    name: str
    same_bytes: bool
    ratio: Delta


@dataclass(frozen=True)
class RunDiff:
    """`after` against `before`. `only_before` and `only_after` name candidates that the other run does not have."""

    schema: int
    before: str
    after: str
    changes: tuple[Change, ...]
    figures: tuple[Delta, ...]
    candidates: tuple[CandidateDelta, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]


def diff(before: Run, after: Run, names: tuple[str, str]) -> RunDiff:
    """Everything that differs, and every figure with what may be said of it; `names` are the runs' folders."""
    mine, theirs = ({o.name: o for o in run.outcomes} for run in (before, after))
    both = [name for name in mine if name in theirs]
    why = incomparable(before, after)
    return RunDiff(
        DIFF_SCHEMA,
        *names,
        changes=changes(before, after),
        figures=deltas(before, after),
        candidates=tuple(_candidate(before, after, mine[name], theirs[name], why) for name in both),
        only_before=tuple(name for name in mine if name not in theirs),
        only_after=tuple(name for name in theirs if name not in mine),
    )


def changes(before: Run, after: Run) -> tuple[Change, ...]:
    """Inputs and decisions that differ, in the order in which they follow from each other."""
    one, other = _facts(before), _facts(after)
    keys = [*one, *(key for key in other if key not in one)]
    pairs = ((key, one.get(key, "none"), other.get(key, "none")) for key in keys)
    return tuple(Change(key, x, y) for key, x, y in pairs if x != y)


def _facts(run: Run) -> dict[str, str]:
    """All that a run was given and decided, flat and in words."""
    facts: dict[str, str] = {"edgekit": run.edgekit_version}
    facts |= {f"version of {name}": version for name, version in sorted(run.versions.items())}
    facts |= {
        "model": f"{run.model_name} {run.model_sha256[:SHORT]}",
        "model: parameters": str(run.model.params),
        "model: MACs": str(run.model.macs),
        "model: opset": str(run.model.opset),
        "model: inputs": ", ".join(f"{i.name} {i.dtype} {'x'.join(map(str, i.shape))}" for i in run.model.inputs),
        "data": f"{run.data.name} {run.data.sha256[:SHORT]}",
        "data: metric": run.data.metric,
    }
    facts |= {f"data: {name}": f"{s.samples} samples {s.sha256[:SHORT]}" for name, s in sorted(run.data.splits.items())}
    facts["target"] = f"{run.target.name} ({run.target_origin.value})"
    facts |= {f"engine {name}": version for name, version in sorted(run.target.engines.items())}
    facts |= {f"device: {key}": _words(value) for key, value in asdict(run.device).items()}
    facts["threads"] = str(run.threads)
    facts |= {f"requirement {key}": _words(value) for key, value in asdict(run.requirements).items()}
    facts |= {f"left out: {name}": reason for name, reason in sorted(run.left_out.items())}
    facts["chosen"] = run.choice.chosen or f"none: {run.choice.reason}"
    facts |= _chosen(run)
    return facts


def _chosen(run: Run) -> Mapping[str, str]:
    if run.choice.chosen is None:
        return {}
    outcome = run.outcome(run.choice.chosen)
    facts = {"chosen: run with": _words(asdict(outcome.candidate.run))}
    if outcome.artifact is not None:
        facts["chosen: bytes"] = outcome.artifact.digest[:SHORT]
        facts["chosen: quantized"] = f"{outcome.artifact.quantized_ops} of {outcome.artifact.quantizable_ops} operators"
    return facts


def _words(value: object) -> str:
    """A record's value for a person: no quotes and no braces where they say nothing."""
    if isinstance(value, Mapping):
        return (
            ", ".join(f"{key} {_words(item)}" for key, item in value.items() if item not in ({}, (), "", None))
            or "none"
        )
    if isinstance(value, (tuple, list)):
        return " ".join(_words(item) for item in value) or "none"
    return "none" if value in (None, "") else str(value)


def _candidate(before: Run, after: Run, one: Outcome, other: Outcome, why: str) -> CandidateDelta:
    bytes_known = one.artifact is not None and other.artifact is not None
    same = bytes_known and one.artifact.digest == other.artifact.digest  # type: ignore[union-attr]  # known not to be None
    return CandidateDelta(one.name, same, _ratio(before, after, one, other, why))


def _ratio(before: Run, after: Run, one: Outcome, other: Outcome, why: str) -> Delta:
    a, b = one.measurement, other.measurement
    name = f"ratio to {REFERENCE}"
    if a is None or b is None:
        return _untold(name, a.ratio if a else None, b.ratio if b else None, "not measured in both")
    if why or before.noise is None or after.noise is None:
        return _untold(name, a.ratio, b.ratio, why or "the noise of a race is not known")
    if a.ratio_interval is None or b.ratio_interval is None:
        return _untold(name, a.ratio, b.ratio, "the reference itself")
    halves = [max(m.ratio / m.ratio_interval[0], m.ratio_interval[1] / m.ratio) for m in (a, b) if m.ratio_interval]
    noises = [max(run.noise.spread, 1 + MIN_DIFFERENCE) for run in (before, after) if run.noise]
    reach = math.hypot(*map(math.log, (*halves, *noises)))
    return ratio_delta(name, "", a.ratio, b.ratio, math.log(b.ratio / a.ratio), reach, f"each over {REFERENCE}")


def _untold(name: str, before: float | None, after: float | None, why: str) -> Delta:
    return Delta(name, "", before, after, None, None, None, True, Shown.UNKNOWN, why)
