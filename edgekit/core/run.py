"""The record of one optimize run: what `run.json` holds. Schema 2, described in docs/run-json.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.core.accuracy import Accuracy
from edgekit.core.dataset import DataSetInfo
from edgekit.core.facts import DeviceFacts
from edgekit.core.findings import OF_THE_RACE, RunFinding
from edgekit.core.results import Choice, Origin, Outcome, Proof
from edgekit.core.search import Search
from edgekit.core.tradeoffs import Exploration
from edgekit.core.types import ModelInfo, Requirements, Target

# 2 added `exploration`, and what of a run's settings is not threads: a record of 1 is one without.
RUN_SCHEMA = 2


@dataclass(frozen=True)
class Noise:
    """The race's A/A figures: the baseline against its own twin. `spread` is the larger end of the 95% interval, >= 1."""

    ratio: float
    spread: float


@dataclass(frozen=True)
class Run:
    """Inputs by digest, the candidates with all that is known of each, and the choice with its reasons.

    `target_origin` says where the figures the choice rests on come from. `evaluation` is the chosen candidate's accuracy on the
    evaluation split, None without data. `artifact_files` are relative to the run folder; the first one is opened. `proof` is the
    chosen artifact's run on a device, None where there was none. `searches` are those for a mixed precision, one a family that was
    worth it or was looked at; `findings` say what the run teaches, the most decisive first. `exploration` is the search over
    settings, None where there was none; then the outcomes it touched have the figures of their best setting.
    """

    schema: int
    edgekit_version: str
    versions: Mapping[str, str]
    model_name: str
    model_sha256: str
    model: ModelInfo
    target: Target
    target_origin: Origin
    device: DeviceFacts
    threads: int
    requirements: Requirements
    data: DataSetInfo
    outcomes: tuple[Outcome, ...]
    left_out: Mapping[str, str]
    noise: Noise | None
    choice: Choice
    satisfies_constraints: bool
    evaluation: Accuracy | None
    artifact_files: tuple[str, ...]
    notices: tuple[str, ...]
    next_steps: tuple[str, ...]
    proof: Proof | None = None
    searches: tuple[Search, ...] = ()
    findings: tuple[RunFinding, ...] = ()
    exploration: Exploration | None = None

    def outcome(self, name: str) -> Outcome:
        """The outcome of the candidate called `name`. Raises KeyError."""
        for outcome in self.outcomes:
            if outcome.name == name:
                return outcome
        raise KeyError(name)

    @property
    def lessons(self) -> tuple[str, ...]:
        """The findings' sentences, after what they are of where that is not the figures of the outcomes."""
        said = tuple(finding.text for finding in self.findings)
        return (OF_THE_RACE, *said) if said and self.exploration is not None else said
