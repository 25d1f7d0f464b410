"""The record of one profile: what `profile.json` holds. Schema 1, described in docs/profile-json.md."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgekit.core.dataset import DataSetInfo
from edgekit.core.facts import FactSheet
from edgekit.core.profile import Layer, Scenario, Spread, Trace
from edgekit.core.results import Load, Memory, Proof
from edgekit.core.trust import Trust

PROFILE_SCHEMA = 1


@dataclass(frozen=True)
class MemoryVerdict:
    """Whether a run held a cap: `kind` is what enforced it, None when the run ended before it said; `reason` why it did not."""

    limit_bytes: int
    kind: str | None
    holds: bool
    reason: str = ""


@dataclass(frozen=True)
class ScenarioFigures:
    """What was measured of one scenario. Latencies are judged in `trust`, from its steady part.

    `wait_ns` is from due to begun, `late_ns` how late the system's timer woke ekrun. `cpu_share` is CPU time over wall time:
    2.0 is two cores kept busy.
    """

    queries: int
    inferences_per_s: float
    trust: Trust
    cpu_share: float
    dropped: int | None
    unfinished: int | None
    deadline_misses: int | None
    wait_ns: Spread | None
    late_ns: Spread | None
    trace: Trace


@dataclass(frozen=True)
class Profile:
    """One artifact on one device. On an emulated device everything measured is None: only `answers` count there.

    `cold` is the first process after the files were brought, `warm` the next one. `answers` are the device's against this host's.
    `latency_file` holds every query's start and latency, int64 [queries, 2] in nanoseconds, beside the record.
    """

    schema: int
    edgekit_version: str
    model_name: str
    model_sha256: str
    recipe: str
    engine: str
    engine_version: str
    threads: int
    size_bytes: int
    device: str
    facts: FactSheet
    data: DataSetInfo
    scenario: Scenario
    cold: Load | None
    warm: Load | None
    memory: Memory | None
    memory_limit: MemoryVerdict | None
    figures: ScenarioFigures | None
    layers: tuple[Layer, ...]
    answers: Proof | None
    settings_asked: Mapping[str, str]
    settings_in_force: Mapping[str, str]
    latency_file: str | None
    notices: tuple[str, ...]
