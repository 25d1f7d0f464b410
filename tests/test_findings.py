"""What a run teaches: each sentence with this run's numbers, and none that an interval does not bear out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core.choose import choose
from edgekit.core.findings import MOST, FindingCode, RunFinding, best_try, findings
from edgekit.core.plan import Facts, make_plan
from edgekit.core.recipes import RECIPES, mixed, run_config
from edgekit.core.results import Origin, Outcome, Verdict, VerdictCode
from edgekit.core.search import Search, Try
from edgekit.core.sensitivity import Attribution, Sensitivity, Unit
from edgekit.core.types import LatencyBudget, Prefer, Requirements
from tests.records import MIB, accuracy, candidate, model, outcome, predicted, target, timed

Intervals = Mapping[str, tuple[float, float]]

COLLAPSED = (Verdict(VerdictCode.COLLAPSED, "the drop is 0.223"),)


def found(
    outcomes: Sequence[Outcome],
    intervals: Intervals | None = None,
    *,
    searches: Sequence[Search] = (),
    requirements: Requirements | None = None,
    origin: Origin = Origin.TARGET,
    spread: float = 1.03,
    excluded: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> dict[FindingCode, RunFinding]:
    """Findings by code; each measured ratio has an interval of 2 % to either side unless told otherwise."""
    asked = requirements or Requirements()
    outcomes = [
        timed(o, (intervals or {}).get(o.name)) if intervals is None or o.name in intervals else o for o in outcomes
    ]
    choice = choose(outcomes, asked, origin, spread, excluded)
    told = findings(
        outcomes,
        choice,
        searches,
        asked,
        origin,
        spread,
        left_out or {},
    )
    return {finding.code: finding for finding in told}


REFERENCE = outcome("ort-fp32", 1.0)


# ------------------------------------------------------------------------------------------------------------------ time


def test_int8_that_saves_size_and_nothing_in_time() -> None:
    small = round(0.29 * 4 * MIB)
    outcomes = [REFERENCE, outcome("ort-int8", 0.98, size=small), outcome("ov-int8", 1.04, size=small)]
    told = found(outcomes, {"ort-int8": (0.955, 1.02), "ov-int8": (1.01, 1.07)})
    assert told[FindingCode.NO_GAIN] == RunFinding(
        FindingCode.NO_GAIN,
        "int8 saves 71% of size and gains nothing in time here: ort-int8 0.98x the p50 of ort-fp32 (95% 0.95 to 1.02), "
        "ov-int8 1.04x the p50 of ort-fp32 (95% 1.01 to 1.07)",
        ("ort-int8", "ov-int8"),
    )


def test_an_interval_with_room_for_a_gain_says_only_that_none_was_shown() -> None:
    told = found([REFERENCE, outcome("ort-int8", 0.98)], {"ort-int8": (0.7, 1.3)})
    assert told[FindingCode.NO_GAIN].text.startswith("int8 shows no gain in time here: ort-int8 0.98x")


def test_fp32_is_the_right_answer() -> None:
    outcomes = [REFERENCE, outcome("ov-f32", 1.1), outcome("ort-int8", 0.99), outcome("ov-int8", 0.5, drop=0.2)]
    told = found(outcomes)
    text = "fp32 is the right answer here: none of 2 others whose answers hold is faster than ort-fp32 beyond the noise (A/A 1.03)"
    assert told[FindingCode.FULL_PRECISION].text == text
    assert told[FindingCode.FULL_PRECISION].evidence == ("ort-fp32", "ort-int8", "ov-f32")


def test_nothing_is_called_right_that_was_compared_with_nothing_narrower() -> None:
    assert FindingCode.FULL_PRECISION not in found([REFERENCE, outcome("ov-f32", 1.1)])


def test_what_is_chosen_for_its_size_is_not_called_right_for_its_time() -> None:
    size = Requirements(prefer=Prefer.SIZE)
    outcomes = [REFERENCE, outcome("ort-int8", 1.0, size=8 * MIB)]
    assert FindingCode.FULL_PRECISION in found(outcomes)
    assert FindingCode.FULL_PRECISION not in found(outcomes, requirements=size)


def test_an_undecided_candidate_that_is_faster_keeps_fp32_from_being_the_answer() -> None:
    doubtful = outcome("ort-int8", 0.5, drop=0.004, n=120, ci_low=-0.012, ci_high=0.024)
    told = found([REFERENCE, doubtful])
    assert FindingCode.FULL_PRECISION not in told
    text = told[FindingCode.UNDECIDED].text
    assert text.startswith("120 samples do not tell whether the answers of ort-int8 hold, at a top-1 drop of 0.0040")
    assert "(95% -0.0120 to 0.0240, n=120); it is 2.00x as fast as ort-fp32 (95% 1.96 to 2.04)" in text
    assert text.endswith("samples would settle it")
    slow = replace(doubtful, measurement=outcome("ort-int8", 1.0).measurement)
    told = found([REFERENCE, slow])
    assert FindingCode.UNDECIDED not in told and FindingCode.FULL_PRECISION in told


def test_a_narrower_precision_that_pays() -> None:
    told = found([REFERENCE, outcome("ort-int8", 0.5, drop=0.002, size=MIB)])
    assert told[FindingCode.PAYS].text == (
        "int8 pays here: ort-int8 is 2.00x as fast as ort-fp32 (95% 1.96 to 2.04), 75% smaller, "
        "at a top-1 drop of 0.0020 (95% -0.0020 to 0.0060, n=500)"
    )
    assert FindingCode.NO_GAIN not in told


def test_a_precision_is_weighed_against_the_fastest_fp32_not_the_first() -> None:
    """Else the engine's speed-up would be called int8's."""
    told = found([REFERENCE, outcome("ov-f32", 0.5), outcome("ov-int8", 0.5)])
    assert "ov-int8 1.00x the p50 of ov-f32" in told[FindingCode.NO_GAIN].text
    assert told[FindingCode.ENGINE].text == (
        "the speed-up of ov-f32 is the engine's, not a precision's: in fp32 it is 2.00x as fast as ort-fp32 (95% 1.96 to 2.04)"
    )
    told = found([REFERENCE, outcome("ov-f32", 0.5), outcome("ov-int8", 0.25)])
    assert "ov-int8 is 2.00x as fast as ov-f32" in told[FindingCode.PAYS].text
    assert FindingCode.ENGINE not in told


def test_a_faster_graph_of_the_same_engine_is_not_called_the_engines() -> None:
    text = found([REFERENCE, outcome("ort-fp32-opt", 0.5)])[FindingCode.ENGINE].text
    assert "is that of how the graph is prepared and run, not a precision's" in text


def test_bf16_slower_than_fp32_of_its_own_engine() -> None:
    told = found([REFERENCE, outcome("ov-f32", 1.2), outcome("ov-bf16", 1.8)])
    assert told[FindingCode.SLOWER].text == (
        "bf16 is slower than fp32 on this CPU: ov-bf16 1.50x the p50 of ov-f32 (95% 1.46 to 1.54)"
    )
    assert FindingCode.SLOWER not in found([REFERENCE, outcome("ov-f32", 1.8), outcome("ov-bf16", 1.8)])


def test_a_precision_is_not_called_slower_for_one_of_its_candidates() -> None:
    outcomes = [REFERENCE, outcome("ort-int8", 1.5), outcome("ov-f32", 1.0), outcome("ov-int8", 0.9)]
    assert FindingCode.SLOWER not in found(outcomes)
    outcomes[-1] = outcome("ov-int8", 1.5)
    assert found(outcomes)[FindingCode.SLOWER].evidence == ("ort-int8", "ov-int8")


@pytest.mark.parametrize("interval", [(0.4, 1.1), None])
def test_without_an_interval_that_says_so_nothing_is_faster(interval: tuple[float, float] | None) -> None:
    told = found([REFERENCE, outcome("ort-int8", 0.5)], {"ort-int8": interval} if interval else {})
    assert not {FindingCode.PAYS, FindingCode.ENGINE, FindingCode.MIXED} & set(told)
    assert "as fast" not in " ".join(f.text for f in told.values())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(set(RECIPES) - {"ort-fp32"})),
            st.floats(0.2, 3),
            st.floats(0, 0.5),
            st.floats(0, 0.5),
            st.sampled_from([0.0, 0.004, 0.2]),
        ),
        max_size=6,
        unique_by=lambda drawn: drawn[0],
    ),
    st.floats(1, 1.3),
)
@settings(max_examples=60, deadline=None)
def test_whatever_is_called_faster_is_so_beyond_its_interval_and_the_noise(
    drawn: list[tuple[str, float, float, float, float]], spread: float
) -> None:
    outcomes = [REFERENCE, *(outcome(name, ratio, drop=drop) for name, ratio, _, _, drop in drawn)]
    bounds = {name: (ratio * (1 - below), ratio * (1 + above)) for name, ratio, below, above, _ in drawn}
    ratios = {"ort-fp32": 1.0, **{name: ratio for name, ratio, *_ in drawn}}
    told = found(outcomes, bounds, spread=spread)
    assert len(told) <= MOST
    for code in {FindingCode.PAYS, FindingCode.ENGINE} & set(told):
        name, base = told[code].evidence
        assert bounds[name][1] < ratios[base]
        assert ratios[name] < bounds.get(base, (1.0, 1.0))[0]
        assert ratios[name] * spread < ratios[base]


# -------------------------------------------------------------------------------------------------------------- accuracy


def test_a_collapse_is_told_with_what_it_would_have_gained() -> None:
    collapsed = outcome("ov-int8", 0.5, drop=0.223, n=400, collapsed=True, verdicts=COLLAPSED)
    told = found([REFERENCE, outcome("ort-int8", 1.0), collapsed])
    assert told[FindingCode.COLLAPSES] == RunFinding(
        FindingCode.COLLAPSES,
        "int8 in OpenVINO collapses on this model: ov-int8's top-1 drops by 0.2230 (95% 0.2190 to 0.2270, n=400); "
        "ov-int8 would be 2.00x as fast as ort-fp32 (95% 1.96 to 2.04)",
        ("ov-int8",),
    )


def test_who_collapses_is_named_when_not_all_of_the_precision_does() -> None:
    collapsed = outcome("ort-int8", 1.0, drop=0.9, verdicts=COLLAPSED)
    told = found([REFERENCE, collapsed, outcome("ort-int8-conv", 1.0)])
    assert told[FindingCode.COLLAPSES].text.startswith("ort-int8 collapses on this model: ")
    told = found([REFERENCE, collapsed])
    assert told[FindingCode.COLLAPSES].text.startswith("int8 collapses on this model: ")


def test_a_collapse_that_costs_speed_comes_first() -> None:
    outcomes = [
        REFERENCE,
        *(outcome(n, p50, drop=0.3, verdicts=COLLAPSED) for n, p50 in (("ort-fp16", 2), ("ov-int8", 0.5))),
    ]
    outcomes = list(map(timed, outcomes))
    choice = choose(outcomes, Requirements(), Origin.TARGET)
    told = findings(outcomes, choice, (), Requirements(), Origin.TARGET, 1.0, {})
    assert [f.evidence for f in told if f.code is FindingCode.COLLAPSES] == [("ov-int8",), ("ort-fp16",)]


def test_a_collapse_that_few_samples_do_not_bear_out_is_left_to_its_verdict() -> None:
    unsure = outcome("ov-int8", 0.5, drop=0.25, n=8, ci_low=-0.1, ci_high=0.6, verdicts=COLLAPSED)
    assert FindingCode.COLLAPSES not in found([REFERENCE, unsure])


def test_a_collapse_that_no_metric_saw_gives_its_reason() -> None:
    frozen = (Verdict(VerdictCode.COLLAPSED, "stuck"),)
    stuck = outcome(
        "ov-int8", collapsed=True, collapse_reason="output 'y' is the same for every sample", verdicts=frozen
    )
    told = found([REFERENCE, stuck])
    assert "ov-int8: output 'y' is the same for every sample (n=500)" in told[FindingCode.COLLAPSES].text


def test_a_fast_candidate_that_surely_loses_too_much() -> None:
    lossy = outcome("ort-int8", 0.5, drop=0.03, metric="wer", direction="lower")
    told = found([REFERENCE, lossy])
    text = told[FindingCode.LOSES].text
    assert text.startswith(
        "int8 loses more than 0.01: ort-int8's wer worsens by 0.0300 (95% 0.0260 to 0.0340, n=500); "
    )
    assert FindingCode.LOSES not in found([REFERENCE, replace(lossy, accuracy=accuracy(0.012))])
    assert FindingCode.LOSES not in found([REFERENCE, outcome("ort-int8", 1.0, drop=0.03)])


def test_what_failed_on_unseen_data_is_not_said_to_hold() -> None:
    outcomes = [REFERENCE, outcome("ort-int8", 0.5)]
    told = found(outcomes, excluded={"ort-int8": "held on selection, not on unseen evaluation data: drop 0.03"})
    assert "no other candidate's answers are shown to hold" in told[FindingCode.FULL_PRECISION].text


def test_what_only_lacks_speed_still_holds() -> None:
    budget = Requirements(latency=LatencyBudget(0.2))
    told = found([REFERENCE, outcome("ort-int8", 1.0)], requirements=budget)
    assert "ort-int8 1.00x" in told[FindingCode.NO_GAIN].text


# ----------------------------------------------------------------------------------------------------------------- mixed

UNITS = [
    Unit(name, op, (name,), share)
    for name, op, share in (("a", "Conv", 0.6), ("b", "Conv", 0.4), ("every Mul", "Mul", 0.0))
]


def attribution() -> Attribution:
    layers = tuple(
        Sensitivity(unit, noise, 0.01) for unit, noise in zip(reversed(UNITS), (0.3, 0.02, 0.001), strict=True)
    )
    return Attribution("ort-int8", "top-1", 64, "mse", 0.31, 0.2, layers, {"minmax": 0.5, "mse": 0.31})


def search(*tries: Try, best: str | None = "ort-int8-mixed") -> Search:
    return Search("ort-int8", attribution(), tries, best, "the fewest layers to keep were found")


def tried(*kept: str, held: bool = True) -> Try:
    return Try(kept, {"ranges": "mse"}, accuracy(0.001), held, "reason")


def mixed_outcome(p50_ms: float) -> Outcome:
    made = mixed(RECIPES["ort-int8"], ["every Mul"], {"ranges": "mse"})
    plain = outcome("ort-int8", p50_ms, drop=0.001)
    build = replace(candidate("ort-int8").build, recipe=made)
    return replace(plain, candidate=replace(plain.candidate, build=build, run=run_config(made.name, 1)))


def test_mixed_precision_that_carries_it() -> None:
    found_it = search(tried("every Mul", "a", "b"), tried("every Mul"), tried(held=False))
    outcomes = [REFERENCE, outcome("ort-int8", 0.4, drop=0.2, verdicts=COLLAPSED), mixed_outcome(0.5)]
    told = found(outcomes, searches=[found_it])
    assert told[FindingCode.MIXED].text == (
        "mixed precision carries it: ort-int8-mixed keeps 1 of 3 layers in fp32 (every Mul) and is 2.00x as fast as ort-fp32 "
        "(95% 1.96 to 2.04), at a top-1 drop of 0.0010 (95% -0.0030 to 0.0050, n=500)"
    )
    assert FindingCode.PAYS not in told
    assert told[FindingCode.COLLAPSES].text.startswith("plain int8 collapses on this model")


def test_mixed_precision_that_gains_nothing_says_so() -> None:
    told = found([REFERENCE, mixed_outcome(1.0)], searches=[search(tried("a"))])
    assert "keeps the answers and shows no gain in time" in told[FindingCode.MIXED].text


def test_the_best_try_is_the_one_that_held_and_kept_fewest() -> None:
    assert best_try(search(tried("a", "b"), tried("a"), tried(held=False))) == tried("a")
    assert best_try(search(tried("a"), best=None)) is None
    told = found([REFERENCE, mixed_outcome(0.5)], searches=[search(tried())])
    assert "quantizes every layer with ranges mse" in told[FindingCode.MIXED].text


# -------------------------------------------------------------------------------------------------------- the rest


def test_what_is_predicted_says_so_and_a_tie_of_the_model_is_no_difference() -> None:
    outcomes = [predicted("ort-fp32", 1.0), predicted("ort-int8", 0.5)]
    told = found(outcomes, origin=Origin.PREDICTED, spread=1.1)
    assert "ort-int8 is 2.00x as fast as ort-fp32 (predicted)" in told[FindingCode.PAYS].text
    told = found([predicted("ort-fp32", 1.0), predicted("ort-int8", 0.95)], origin=Origin.PREDICTED, spread=1.1)
    assert told[FindingCode.FULL_PRECISION].text.endswith("is predicted to be over 1.10x as fast as ort-fp32")
    assert "is predicted to gain nothing in time here: ort-int8 0.95x" in told[FindingCode.NO_GAIN].text


def plan_left_out(**changes: object) -> Mapping[str, str]:
    facts = Facts("0" * 64, (), changes.pop("calibration", ""), {}, 1)  # type: ignore[arg-type]
    return make_plan(model(**changes), target(), Requirements(), facts).left_out


def test_a_model_that_is_quantized_already_is_recognised_in_the_plans_words() -> None:
    left_out = plan_left_out(op_counts={"QLinearConv": 3}, calibration="1" * 64)
    told = found([REFERENCE, outcome("ort-fp16", 1.0)], left_out=left_out)
    assert told[FindingCode.ALREADY_QUANTIZED].text.startswith(
        "the model is already quantized: it is compared as it is, and ort-int8"
    )
    assert told[FindingCode.FULL_PRECISION].text.startswith("the model as it was given is the right answer here")
    assert FindingCode.NOT_TRIED not in told


def test_static_int8_that_was_not_tried_says_why() -> None:
    told = found([REFERENCE, outcome("ort-int8-dynamic", 1.0)], left_out=plan_left_out())
    assert told[FindingCode.NOT_TRIED].text == (
        "static int8 was not tried: needs calibration data: add --data, or a calibration split to the data set"
    )
    assert FindingCode.NOT_TRIED not in found([REFERENCE, outcome("ort-int8", 1.0)], left_out=plan_left_out())


def test_what_quantizing_did_not_reach_is_told() -> None:
    made = outcome("ort-int8", 1.0)
    assert made.artifact is not None
    note = "7 operators inside If or Loop bodies stay fp32: static int8 does not reach them"
    told = found([REFERENCE, replace(made, artifact=replace(made.artifact, notes=(note,)))])
    assert told[FindingCode.PARTIAL].text == f"ort-int8: {note}"


def test_they_are_few_and_in_the_order_of_their_codes() -> None:
    outcomes = [
        REFERENCE,
        outcome("ort-int8", 0.4, drop=0.2, verdicts=COLLAPSED),
        mixed_outcome(0.5),
        outcome("ov-f32", 1.2),
        outcome("ov-int8", 0.45, drop=0.012, ci_low=-0.01, ci_high=0.03),
        outcome("ort-fp16", 3.0),
        outcome("ov-bf16", 3.0, drop=0.1, verdicts=COLLAPSED),
    ]
    asked = Requirements()
    outcomes = list(map(timed, outcomes))
    choice = choose(outcomes, asked, Origin.TARGET, 1.03)
    told = findings(outcomes, choice, [search(tried("a"))], asked, Origin.TARGET, 1.03, {})
    order = list(FindingCode)
    places = [order.index(finding.code) for finding in told]
    assert len(told) == MOST and places == sorted(places)
    assert all("  " not in finding.text and not finding.text.endswith(".") for finding in told)
