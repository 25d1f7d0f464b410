"""Where a search for a mixed precision begins is a pure function of what was measured and asked."""

from dataclasses import replace

import pytest

from edgekit.core.accuracy import can_hold
from edgekit.core.results import Origin, Outcome, Verdict, VerdictCode
from edgekit.core.types import LatencyBudget, Prefer, Requirements
from edgekit.core.worth import LEAST_GAIN, starts
from tests.records import MIB, accuracy, outcome

ANY = Requirements()
COLLAPSED = (Verdict(VerdictCode.COLLAPSED, "the drop is 0.3"),)
REFERENCE = outcome("ort-fp32", 1.0)


def lost(name: str, p50_ms: float, drop: float = 0.3, **changes: object) -> Outcome:
    """An int8 candidate whose answers do not hold."""
    verdicts = COLLAPSED if drop > 0.05 else ()
    return outcome(name, p50_ms, drop=drop, ci_low=drop - 0.02, ci_high=drop + 0.02, verdicts=verdicts, **changes)


def begun(outcomes: list[Outcome], requirements: Requirements = ANY) -> dict[str, str]:
    return {start.parent.name: start.why_not for start in starts(outcomes, requirements, Origin.TARGET)}


def test_the_fastest_of_each_family_begins_and_the_fastest_family_first() -> None:
    found = begun([REFERENCE, lost("ort-int8", 0.6), lost("ov-int8", 0.5), lost("ov-int8-asym", 0.4)])
    assert list(found.items()) == [("ov-int8-asym", ""), ("ort-int8", "")]


def test_none_begins_where_everything_quantized_holds() -> None:
    found = begun([REFERENCE, outcome("ort-int8", 0.6)])
    assert found["ort-int8"].startswith("not needed")


def test_none_begins_where_it_would_not_be_chosen_even_if_it_held() -> None:
    found = begun([REFERENCE, lost("ort-int8", 0.6), outcome("ov-f32", 0.5)])
    assert found["ort-int8"].startswith("not worth it")


@pytest.mark.parametrize(
    "asked",
    [
        Requirements(max_size_bytes=MIB),
        Requirements(max_memory_bytes=MIB),
        Requirements(latency=LatencyBudget(0.5, "p99")),
    ],
)
def test_none_begins_where_the_recipe_misses_what_keeping_layers_will_not_mend(asked: Requirements) -> None:
    assert begun([REFERENCE, lost("ort-int8", 0.6)], asked)["ort-int8"].startswith("not worth it")


def test_a_budget_that_it_meets_is_no_reason_against() -> None:
    asked = Requirements(latency=LatencyBudget(0.7, "p99"), max_size_bytes=5 * MIB)
    assert begun([REFERENCE, lost("ort-int8", 0.6)], asked) == {"ort-int8": ""}


def test_layers_are_not_kept_in_a_precision_that_fails_by_itself() -> None:
    bf16 = replace(lost("ov-bf16", 0.8, drop=0.03), verdicts=())
    outcomes = [REFERENCE, lost("ov-int8-bf16", 0.4), bf16]
    assert "ov-bf16 does not hold" in begun(outcomes)["ov-int8-bf16"]
    assert begun([*outcomes, lost("ov-int8", 0.5)]) == {"ov-int8": ""}
    assert begun([REFERENCE, lost("ov-int8-bf16", 0.4), outcome("ov-bf16", 0.8)]) == {"ov-int8-bf16": ""}


def test_a_forbidden_one_leaves_its_family_another() -> None:
    asked = Requirements(forbid=("ov-int8-mixed",))
    assert begun([REFERENCE, lost("ov-int8", 0.4), lost("ov-int8-asym", 0.5)], asked) == {"ov-int8-asym": ""}
    assert begun([REFERENCE, lost("ov-int8", 0.4)], asked)["ov-int8"].startswith("forbidden")


def test_none_begins_where_the_samples_could_show_nothing() -> None:
    """Of 100 answers none flipped leaves room for a drop of 0.037; of 400 for one of 0.0095."""
    few = lost("ort-int8", 0.5, n=100, worse=30, better=0)
    assert begun([REFERENCE, few])["ort-int8"].startswith("not searched: too few samples")
    assert begun([REFERENCE, lost("ort-int8", 0.5, n=400, worse=120, better=0)]) == {"ort-int8": ""}
    assert not can_hold(accuracy(0.3, n=100, worse=30, better=0), 0.01)
    assert can_hold(accuracy(0.3, n=100, worse=None, better=None), 0.01)  # scores that are no counts may vary little


def test_how_much_may_be_kept_follows_from_what_is_to_be_beaten() -> None:
    """int8 0.4, its engine's floating point 0.8: half of the work kept makes 0.6."""
    outcomes = [REFERENCE, lost("ov-int8", 0.4), outcome("ov-f32", 0.8)]
    beaten = outcome("ort-fp32-opt", 0.6 * LEAST_GAIN)
    assert starts([*outcomes, beaten], ANY, Origin.TARGET)[0].most_share == pytest.approx(0.5)
    assert starts(outcomes, ANY, Origin.TARGET)[0].most_share == pytest.approx((0.8 / LEAST_GAIN - 0.4) / 0.4)
    by_size = Requirements(prefer=Prefer.SIZE)
    assert starts([*outcomes, beaten], by_size, Origin.TARGET)[0].most_share == 1.0
    assert starts([lost("ort-int8", 1.2), REFERENCE], ANY, Origin.TARGET)[0].most_share == 1.0  # nothing to go by
