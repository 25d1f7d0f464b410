"""What a bundle says of where it comes from and what was measured: documents made of a run's record, and of nothing else.

- plain JSON, keys in the order of their bytes, the same bytes for the same record;
- no path of the machine that made it, no name of a user or of a device's address: they say nothing of the product, and it travels;
- what was predicted is called predicted, with the rule; what an emulated device proved is called emulated.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from edgekit.core.dataset import DataSetInfo
from edgekit.core.results import Measurement, Outcome, Proof
from edgekit.core.run import Run
from edgekit.core.types import Artifact, ModelInfo, Target, TensorSpec, content_digest

PROVENANCE_FILE: Final = "provenance.json"
FIGURES_FILE: Final = "figures.json"
CONTRACT_FILE: Final = "contract.json"
FORMAT: Final = 1


@dataclass(frozen=True)
class Tools:
    """What made and what fills the bundle: the edgekit that built the artifact and the one that packed it, the packages of either,
    ekrun's digest, and the engine's files by name and SHA-256."""

    built_by: str
    packed_by: str
    versions: Mapping[str, str]
    ekrun_sha256: str
    engine_files: Mapping[str, str]


def document(record: Any) -> bytes:
    """A record of builtins and dataclasses as JSON for people and programs."""
    return (json.dumps(record, default=asdict, sort_keys=True, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def provenance(
    model_name: str, info: ModelInfo, artifact: Artifact, data: DataSetInfo, target: Target, tools: Tools
) -> bytes:
    """Model, data, recipe and target by digest, and the versions of all that made the artifact.

    The target's digest is of every figure and source of it, so two boards of one name are told apart.
    """
    spec = artifact.spec
    return document(
        {
            "format": FORMAT,
            "model": {"name": model_name, "sha256": info.sha256},
            "artifact": {"sha256": artifact.digest, "files": artifact.files},
            "data": None
            if data.synthetic
            else {"name": data.name, "sha256": data.sha256, "splits": data.splits, "metric": data.metric},
            "recipe": {"sha256": content_digest(spec.recipe), **asdict(spec.recipe)},
            "build": {
                "sha256": spec.digest,
                "edgekit": tools.built_by,
                "versions": spec.builder_versions,
                "numeric": spec.numeric,
            },
            "target": {"name": target.name, "sha256": content_digest(target)},
            "engine": {
                "name": spec.recipe.engine,
                "version": spec.engine_version,
                "arch": target.arch,
                "files": tools.engine_files,
            },
            "bundle": {"edgekit": tools.packed_by, "ekrun_sha256": tools.ekrun_sha256, "versions": tools.versions},
        }
    )


def contract(data: DataSetInfo, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> bytes:
    """How stored samples become the model's tensors; `declared` is false where nobody said so."""
    return document(
        {
            "format": FORMAT,
            "declared": bool(data.contract) and not data.synthetic,
            "inputs": [{**asdict(spec), "contract": data.contract.get(spec.name)} for spec in inputs],
            "outputs": outputs,
            "state": data.state,
        }
    )


def figures(run: Run | None, target: Target) -> bytes:
    """What is known of the artifact's speed, memory and accuracy, and of the machines that told it; all null without a run."""
    known: dict[str, Any] = {"format": FORMAT, "target": target.name, "measured": None, "predicted": None}
    if run is None or run.choice.chosen is None:
        return document({**known, "accuracy": None, "evaluation": None, "proof": None})
    outcome = run.outcome(run.choice.chosen)
    return document(
        {
            **known,
            "measured": _measured(outcome.measurement, run),
            "predicted": outcome.prediction,
            "accuracy": outcome.accuracy,
            "evaluation": run.evaluation,
            "proof": _proof(run.proof),
            "candidate": outcome.name,
            "artifact_bytes": _artifact_bytes(outcome),
            "requirements": run.requirements,
            "unproven": run.choice.unproven,
        }
    )


def _measured(found: Measurement | None, run: Run) -> dict[str, Any] | None:
    """Without the raw samples, which are in the run, and with the machine's facts in place of its address."""
    if found is None:
        return None
    told = asdict(found)
    del told["latencies_ns"]
    return {**told, "device": run.device, "is_target": found.origin == "target"}


def _proof(proof: Proof | None) -> dict[str, Any] | None:
    if proof is None:
        return None
    told = asdict(proof)
    del told["device"]
    return told


def _artifact_bytes(outcome: Outcome) -> int | None:
    return outcome.artifact.size_bytes if outcome.artifact is not None else None
