"""Build every planned candidate; one that fails stops no other."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from edgekit import sandbox
from edgekit.core.plan import Plan
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Outcome, Verdict, VerdictCode
from edgekit.core.types import Artifact, Candidate, ModelInfo
from edgekit.errors import DiskFull, EdgekitError, ResourceLimit
from edgekit.flow.calibrate import DEFAULT, make
from edgekit.flow.workshop import Made, Materials, Progress, Workshop, in_parallel

# An artifact may exceed the original by its own bookkeeping before it is called larger.
SIZE_SLACK = 1.02

# Builds at a time, at most: each may hold the model several times over.
MAX_BUILDS = 4


def refusals(engines: Iterable[str], model: Path, progress: Progress) -> dict[str, tuple[str, ...]]:
    """Why each engine will not take the model, if it will not; one that dies while it looks has refused as well."""
    found: dict[str, tuple[str, ...]] = {}
    for engine in engines:
        progress(f"asking {engine}")
        try:
            found[engine] = sandbox.call(
                "edgekit.engines.build:refusals",
                returns=tuple[str, ...],
                limits=sandbox.Limits(wall_s=180.0, cpu_s=180),
                task=f"loading the model in {engine}",
                engine=engine,
                model=model,
            )
        except ResourceLimit as error:
            found[engine] = (str(error),)
    return {engine: reasons for engine, reasons in found.items() if reasons}


def build_all(
    shop: Workshop, plan: Plan, materials: Materials, info: ModelInfo
) -> tuple[Mapping[str, Made], tuple[Outcome, ...]]:
    """What was made, by name, and the outcome of every candidate. Raises what building the reference raises."""

    def build(candidate: Candidate) -> tuple[Made | None, Outcome]:
        shop.progress(f"building {candidate.name}")
        return build_one(shop, candidate, materials, info)

    built = in_parallel(build, plan.candidates, min(MAX_BUILDS, shop.host_facts.usable_threads))
    return {o.name: made for made, o in built if made is not None}, tuple(o for _, o in built)


def build_one(
    shop: Workshop,
    candidate: Candidate,
    materials: Materials,
    info: ModelInfo,
    limits: sandbox.Limits = DEFAULT,
) -> tuple[Made | None, Outcome]:
    """What was made, and the outcome with the verdicts of its build. Raises what building the reference raises, and DiskFull."""
    try:
        made = make(shop, candidate, info, materials, limits)
    except DiskFull:
        raise
    except EdgekitError as error:
        if candidate.name == REFERENCE:
            raise
        return None, Outcome(candidate, verdicts=(Verdict(VerdictCode.DOES_NOT_BUILD, str(error)),))
    return made, Outcome(candidate, made.artifact, verdicts=_verdicts(candidate, made.artifact, info))


def _verdicts(candidate: Candidate, artifact: Artifact, info: ModelInfo) -> tuple[Verdict, ...]:
    precision = candidate.build.recipe.precision
    found: list[Verdict] = []
    if precision.startswith(("int8", "int4")) and not artifact.quantized_ops:
        why = (
            "; ".join(artifact.notes)
            or f"none of {artifact.quantizable_ops} quantizable operators took {precision[:4]}"
        )
        found.append(Verdict(VerdictCode.NOTHING_QUANTIZED, why))
    if precision != "fp32" and artifact.size_bytes > SIZE_SLACK * info.file_bytes:
        found.append(Verdict(VerdictCode.LARGER, f"{artifact.size_bytes} bytes against {info.file_bytes}"))
    return tuple(found)
