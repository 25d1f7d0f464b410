"""A candidate that kills its engine gets its verdict; the others are judged, measured and raced as if it were not there."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.core.accuracy import Accuracy
from edgekit.core.recipes import REFERENCE
from edgekit.core.results import Load, Memory, Origin, Outcome, VerdictCode
from edgekit.core.types import Artifact, ArtifactFile, Candidate, ModelInfo, Requirements
from edgekit.devices.local import LocalDevice
from edgekit.errors import ResourceLimit
from edgekit.flow.clock import BENCH_SAMPLES, Job, _may_be_chosen, measure_all
from edgekit.flow.judge import Judge, judge_all
from edgekit.flow.materials import Options, gather
from edgekit.flow.targets import target_by_name
from edgekit.flow.workshop import SELECTION, Made, Materials, Workshop
from edgekit.measure import CleanBench
from edgekit.race import Budget, race
from edgekit.store import Cache, sha256_file
from tests.hostile import integer_overflow, unary
from tests.records import MIB, candidate, outcome

CRASHER = "ort-fp16"
GOOD = "ort-fp32-opt"
SHORT = Budget(samples=5, seconds=0.1, rounds=3, turn_ms=1.0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Workshop, Materials, dict[str, Made], ModelInfo]]:
    """y = Relu(x) as the reference and one candidate, and a model that dies of SIGFPE in ONNX Runtime as another."""
    model = tmp_path / "model.onnx"
    model.write_bytes(unary("Relu", shape=[1]).SerializeToString())
    crasher = tmp_path / "crasher.onnx"
    crasher.write_bytes(integer_overflow().SerializeToString())
    cache = Cache(tmp_path / "cache")
    with cache.scratch() as scratch:
        shop = Workshop(cache, scratch, LocalDevice(), lambda _: None)
        info, materials = gather(shop, model, None, Options())
        made = {name: _made(shop, candidate(name), model) for name in (REFERENCE, GOOD)}
        yield shop, materials, {**made, CRASHER: _made(shop, candidate(CRASHER), crasher)}, info


def _made(shop: Workshop, wanted: Candidate, path: Path) -> Made:
    from edgekit.runner.client import Runnable

    file = ArtifactFile(path.name, sha256_file(path), path.stat().st_size)
    library = shop.native(wanted.build.recipe.engine, wanted.build.engine_version, shop.facts.arch).library
    runnable = Runnable(wanted.build.recipe.engine, library, path, wanted.run)
    return Made(path.parent, Artifact(wanted.build, (file,)), runnable)


def _outcomes(made: dict[str, Made]) -> list[Outcome]:
    return [Outcome(candidate(name), made[name].artifact) for name in made]


def test_in_judging(place: tuple[Workshop, Materials, dict[str, Made], ModelInfo], tmp_path: Path) -> None:
    shop, materials, made, _ = place
    judge = Judge(shop, materials, made[REFERENCE], tmp_path)
    found = {o.name: o for o in judge_all(judge, shop, made, _outcomes(made), SELECTION)}
    assert [v.code for v in found[CRASHER].verdicts] == [VerdictCode.DOES_NOT_RUN]
    assert "SIGFPE" in found[CRASHER].verdicts[0].reason
    assert isinstance(found[GOOD].accuracy, Accuracy)
    assert found[GOOD].accuracy.drop == 0
    assert found[REFERENCE].verdicts == ()


def test_in_measuring(place: tuple[Workshop, Materials, dict[str, Made], ModelInfo], tmp_path: Path) -> None:
    shop, materials, made, info = place
    job = Job(info, materials, target_by_name("cpu-arm", Path.cwd()), Origin.PREDICTED, Requirements())
    outcomes, _ = measure_all(shop, job, made, _outcomes(made))
    found = {o.name: o for o in outcomes}
    assert [v.code for v in found[CRASHER].verdicts] == [VerdictCode.DOES_NOT_RUN]
    assert found[CRASHER].prediction is None
    assert found[GOOD].prediction is not None


def test_in_a_race(place: tuple[Workshop, Materials, dict[str, Made], ModelInfo]) -> None:
    shop, materials, made, _ = place
    runnables = {name: m.runnable for name, m in made.items()}
    feeds = materials.feeds(SELECTION)
    result = race(shop.device, runnables, feeds, BENCH_SAMPLES, REFERENCE, SHORT, SHORT, list)
    assert set(result.dropped) == {CRASHER}
    assert set(result.ratios) == {REFERENCE, GOOD}
    assert len({len(turns) for turns in result.rounds.values()}) == 1


def test_a_reference_that_dies_ends_the_race(place: tuple[Workshop, Materials, dict[str, Made], ModelInfo]) -> None:
    shop, materials, made, _ = place
    runnables = {GOOD: made[GOOD].runnable, REFERENCE: replace(made[CRASHER].runnable)}
    with pytest.raises(ResourceLimit, match="the race of ort-fp32"):
        race(shop.device, runnables, materials.feeds(SELECTION), BENCH_SAMPLES, REFERENCE, SHORT, SHORT, list)


def test_only_who_may_still_be_chosen_goes_to_the_final() -> None:
    limits = Requirements(max_size_bytes=5 * MIB, max_memory_bytes=100 * MIB)
    bench = CleanBench(Load(1.0, None, 1.0, 1.0, 1.0), Memory(MIB, 50 * MIB, 50 * MIB, 50 * MIB), {}, {})
    assert _may_be_chosen(outcome("ov-int8"), bench, limits)
    assert not _may_be_chosen(outcome("ov-int8", size=6 * MIB), bench, limits)
    assert not _may_be_chosen(outcome("ov-int8", drop=0.5), bench, limits)
    fat = replace(bench, memory=Memory(MIB, MIB, MIB, 101 * MIB))
    assert not _may_be_chosen(outcome("ov-int8"), fat, limits)
    assert not _may_be_chosen(outcome("ov-int8"), replace(bench, memory=Memory(None, None, None, None)), limits)
