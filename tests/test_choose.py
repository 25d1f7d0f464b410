"""The choice is a pure function: feasibility, preference, ties, reasons, the nearest miss."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.core.accuracy import doubt
from edgekit.core.choose import choose, may_win, pareto_front
from edgekit.core.recipes import RECIPES
from edgekit.core.results import BLOCKING, Figures, Origin, Outcome, Verdict, VerdictCode
from edgekit.core.types import Arrivals, LatencyBudget, Prefer, Requirements, Sources
from tests.records import MIB, accuracy, outcome, predicted

ANY = Requirements()


def test_lowest_p50_among_the_feasible_wins() -> None:
    found = choose([outcome("ort-fp32", 3.0), outcome("ov-f32", 2.0), outcome("ov-bf16", 1.0)], ANY, Origin.TARGET)
    assert found.chosen == "ov-bf16"
    assert found.rejected == {"ort-fp32": "3.00x the p50 of ov-bf16", "ov-f32": "2.00x the p50 of ov-bf16"}


def test_a_faster_candidate_over_the_drop_is_rejected_with_its_reason() -> None:
    found = choose([outcome("ort-fp32", 3.0), outcome("ov-int8", 1.0, drop=0.02)], ANY, Origin.TARGET)
    assert found.chosen == "ort-fp32"
    assert "drop 0.0200 is over 0.01" in found.rejected["ov-int8"]


def test_a_drop_within_bounds_but_an_interval_too_wide_is_rejected_with_the_samples_that_settle_it() -> None:
    wide = outcome("ov-int8", 1.0, drop=0.009, n=100, ci_high=0.03)
    found = choose([outcome("ort-fp32", 3.0), wide], ANY, Origin.TARGET)
    assert found.chosen == "ort-fp32"
    assert "samples would settle it" in found.rejected["ov-int8"]


@pytest.mark.parametrize("code", sorted(BLOCKING))
def test_a_blocked_candidate_is_never_chosen(code: VerdictCode) -> None:
    broken = outcome("ov-int8", 0.1, verdicts=(Verdict(code, "why"),))
    found = choose([outcome("ort-fp32", 3.0), broken], ANY, Origin.TARGET)
    assert found.chosen == "ort-fp32"
    assert found.rejected["ov-int8"] == f"{code.value}: why"


def test_being_slower_or_larger_is_said_but_rules_nothing_out() -> None:
    remarked = outcome("ov-f32", 1.0, verdicts=(Verdict(VerdictCode.LARGER, "why"),))
    assert choose([outcome("ort-fp32", 3.0), remarked], ANY, Origin.TARGET).chosen == "ov-f32"


def test_within_the_noise_the_higher_precision_wins() -> None:
    pair = [outcome("ort-fp32", 1.02), outcome("ov-int8", 1.0)]
    assert choose(pair, ANY, Origin.TARGET, aa_spread=1.03).chosen == "ort-fp32"
    assert choose(pair, ANY, Origin.TARGET, aa_spread=1.01).chosen == "ov-int8"


def test_among_equal_precision_and_speed_less_memory_wins() -> None:
    pair = [outcome("ort-fp32", 1.0, memory=60 * MIB), outcome("ov-f32", 1.0, memory=50 * MIB)]
    assert choose(pair, ANY, Origin.TARGET).chosen == "ov-f32"


@pytest.mark.parametrize(
    ("prefer", "winner"),
    [
        (Prefer.LATENCY, "ov-bf16"),
        (Prefer.THROUGHPUT, "ov-bf16"),
        (Prefer.MEMORY, "ort-fp32"),
        (Prefer.SIZE, "ort-int8"),
    ],
)
def test_preference_decides_among_the_feasible(prefer: Prefer, winner: str) -> None:
    ones = [
        outcome("ort-fp32", 3.0, memory=20 * MIB),
        outcome("ov-bf16", 1.0, memory=90 * MIB),
        outcome("ort-int8", 2.0, size=MIB, memory=40 * MIB),
    ]
    assert choose(ones, Requirements(prefer=prefer), Origin.TARGET).chosen == winner


@pytest.mark.parametrize(
    ("requirements", "text"),
    [
        (Requirements(latency=LatencyBudget(0.5)), "p99 latency 1 ms is over 0.5 ms"),
        (Requirements(min_throughput_ips=2000), "throughput 1000.0/s is below 2000.0/s"),
        (Requirements(max_memory_bytes=10 * MIB), "peak memory 50 MiB is over 10 MiB"),
        (Requirements(max_size_bytes=MIB), "size 4 MiB is over 1 MiB"),
    ],
)
def test_nothing_fits_shows_the_nearest_and_what_it_lacks(requirements: Requirements, text: str) -> None:
    found = choose(
        [outcome("ort-fp32", 3.0, memory=60 * MIB, size=5 * MIB), outcome("ov-f32", 1.0)], requirements, Origin.TARGET
    )
    assert found.chosen is None
    assert found.nearest == "ov-f32"
    assert found.lacks == (text,)
    assert text in found.rejected["ov-f32"]


def test_a_percentile_without_enough_runs_is_not_met() -> None:
    few = outcome("ort-fp32", 1.0)
    assert few.measurement is not None
    short = replace(few, measurement=replace(few.measurement, latency_ms=replace(few.measurement.latency_ms, p99=None)))
    found = choose([short], Requirements(latency=LatencyBudget(5.0)), Origin.TARGET)
    assert found.chosen is None
    assert "too few runs" in found.lacks[0]


def test_a_requirement_on_a_prediction_is_unproven_when_met_and_unmet_when_missed() -> None:
    ones = [predicted("ort-fp32", 10.0), predicted("ort-int8", 5.0)]
    met = choose(ones, Requirements(latency=LatencyBudget(7.0)), Origin.PREDICTED)
    assert (met.chosen, met.unproven) == ("ort-int8", ("latency budget",))
    missed = choose(ones, Requirements(latency=LatencyBudget(4.0)), Origin.PREDICTED)
    assert missed.chosen is None
    assert missed.nearest == "ort-int8"


def test_size_is_known_without_a_board_and_so_never_unproven() -> None:
    found = choose([predicted("ort-fp32", 1.0)], Requirements(max_size_bytes=8 * MIB), Origin.PREDICTED)
    assert found.chosen == "ort-fp32"
    assert found.unproven == ()


def test_host_measurements_never_decide_for_another_target() -> None:
    """A candidate raced on the host, but with a worse prediction, loses on the target."""
    fast_here = replace(predicted("ort-int8", 9.0), measurement=outcome("ort-int8", 0.1).measurement)
    found = choose([predicted("ort-fp32", 5.0), fast_here], ANY, Origin.PREDICTED)
    assert found.chosen == "ort-fp32"


def test_an_excluded_candidate_gives_way_to_the_next_with_its_reason() -> None:
    ones = [outcome("ort-fp32", 3.0), outcome("ov-f32", 2.0), outcome("ov-bf16", 1.5), outcome("ov-int8", 1.0)]
    found = choose(ones, ANY, Origin.TARGET, excluded={"ov-int8": "did not hold"})
    assert found.chosen == "ov-bf16"
    assert found.rejected["ov-int8"] == "did not hold"
    assert "ov-int8" not in found.feasible


RECIPE_NAMES = sorted(RECIPES)


@st.composite
def outcomes(draw: st.DrawFn) -> list[object]:
    names = draw(st.lists(st.sampled_from(RECIPE_NAMES), min_size=1, unique=True))
    return [
        outcome(
            name,
            draw(st.floats(0.1, 100)),
            drop=draw(st.sampled_from([0.0, 0.005, 0.02])),
            size=draw(st.integers(1, 100)) * MIB,
            memory=draw(st.integers(1, 100)) * MIB,
            runs=11,
            verdicts=draw(st.sampled_from([(), (Verdict(VerdictCode.COLLAPSED, "x"),)])),
        )
        for name in names
    ]


@given(outcomes(), st.sampled_from(list(Prefer)), st.sampled_from([1.0, 1.03]))
def test_every_candidate_is_chosen_or_has_a_reason_and_the_choice_is_feasible(
    ones: list, prefer: Prefer, tie: float
) -> None:  # type: ignore[type-arg]
    requirements = Requirements(prefer=prefer, max_size_bytes=60 * MIB)
    found = choose(ones, requirements, Origin.TARGET, tie)
    assert set(found.rejected) | ({found.chosen} if found.chosen else set()) == {o.name for o in ones}
    assert all(found.rejected.values())
    fit = [o for o in ones if o.blocked is None and o.accuracy.drop <= 0.01 and o.artifact.size_bytes <= 60 * MIB]
    assert (found.chosen is None) == (not fit)
    if found.chosen is not None:
        winner = next(o for o in ones if o.name == found.chosen)
        assert winner in fit
        if prefer is Prefer.LATENCY:
            best = min(o.measurement.latency_ms.p50 for o in fit)
            assert winner.measurement.latency_ms.p50 <= best * tie
    assert choose(list(reversed(ones)), requirements, Origin.TARGET, tie).chosen == found.chosen


@given(outcomes())
def test_nothing_on_the_front_is_dominated_and_all_else_is(ones: list) -> None:  # type: ignore[type-arg]
    pairs = [
        (
            o,
            Figures(
                Origin.TARGET,
                o.measurement.latency_ms.p50,
                o.measurement.ratio,
                o.measurement.throughput_ips,
                o.measurement.memory.peak,
                o.artifact.size_bytes,
            ),
        )
        for o in ones
    ]
    front = pareto_front(pairs)

    def beats(a: tuple, b: tuple) -> bool:  # type: ignore[type-arg]
        (oa, fa), (ob, fb) = a, b
        better = (
            fa.p50_ms <= fb.p50_ms,
            fa.throughput_ips >= fb.throughput_ips,
            fa.peak_memory_bytes <= fb.peak_memory_bytes,
            fa.size_bytes <= fb.size_bytes,
            oa.accuracy.drop <= ob.accuracy.drop,
        )
        return all(better) and (fa, oa.accuracy.drop) != (fb, ob.accuracy.drop)

    assert front
    for pair in pairs:
        assert (pair[0].name in front) == (not any(beats(other, pair) for other in pairs if other is not pair))


# ---------------------------------------------------------------------------------------- what would win if its answers held

COLLAPSED = (Verdict(VerdictCode.COLLAPSED, "the drop is 0.3"),)


@pytest.mark.parametrize(
    ("prefer", "rival", "wins"),
    [
        (Prefer.LATENCY, outcome("ov-f32", 0.6), True),
        (Prefer.LATENCY, outcome("ov-f32", 0.51), False),  # within a twentieth of it
        (Prefer.LATENCY, outcome("ov-f32", 0.4, drop=0.3), True),  # faster, but its answers do not hold either
        (Prefer.LATENCY, outcome("ov-f32", 0.4, memory=99 * MIB), True),  # faster, but over the memory that was stated
        (Prefer.THROUGHPUT, outcome("ov-f32", 0.6), True),
        (Prefer.THROUGHPUT, outcome("ov-f32", 0.51), False),
        (Prefer.SIZE, outcome("ov-f32", 0.1, size=3 * MIB), True),
        (Prefer.SIZE, outcome("ov-f32", 0.6, size=MIB), False),
    ],
)
def test_what_may_win_is_better_than_all_that_hold_by_a_margin(prefer: Prefer, rival: Outcome, wins: bool) -> None:
    plain = outcome("ort-int8", 0.5, drop=0.3, size=MIB, verdicts=COLLAPSED)
    asked = Requirements(prefer=prefer, max_memory_bytes=64 * MIB)
    assert may_win(plain, [outcome("ort-fp32", 1.0), plain, rival], asked, Origin.TARGET, 1.05) is wins


def test_what_was_not_measured_may_win_nothing() -> None:
    plain = replace(outcome("ort-int8", drop=0.3, verdicts=COLLAPSED), measurement=None)
    assert not may_win(plain, [plain], ANY, Origin.TARGET, 1.05)


def test_a_model_that_fails_on_its_own_labels_is_doubted() -> None:
    bad = accuracy(0.0, kind="task", reference_value=0.1, value=0.1)
    assert "order" in doubt(bad)
    assert not doubt(replace(bad, reference_value=0.9))
    assert not doubt(replace(bad, kind="agreement"))
    assert not doubt(replace(bad, direction="lower"))  # an error rate of a tenth is good


# ---------------------------------------------------------------------------------------------------- rates, starts, weights


def test_what_comes_must_be_kept_up_with() -> None:
    pair = [outcome("ort-fp32", 50.0), outcome("ov-f32", 30.0)]
    camera = Requirements(sources=Sources(frame_rate=30), prefer=Prefer.MEMORY)
    found = choose(pair, camera, Origin.TARGET)
    assert found.chosen == "ov-f32"
    assert found.rejected == {"ort-fp32": "throughput 20.0/s is below 30.0/s, what comes"}
    slower = replace(camera, arrivals=Arrivals("fixed-rate", 15.0))  # every second frame
    assert choose(pair, slower, Origin.TARGET).feasible == ("ort-fp32", "ov-f32")


def test_a_cold_start_over_its_budget_is_not_met_and_unknown_is_not_either() -> None:
    one = outcome("ort-fp32")  # 4 ms from the start of the process
    assert choose([one], Requirements(max_cold_start_ms=4.0), Origin.TARGET).chosen == "ort-fp32"
    assert choose([one], Requirements(max_cold_start_ms=3.0), Origin.TARGET).lacks == ("cold start 4 ms is over 3 ms",)
    assert one.measurement is not None
    load = replace(one.measurement.load, process_to_first_inference_ms=None)
    silent = replace(one, measurement=replace(one.measurement, load=load))
    found = choose([silent], Requirements(max_cold_start_ms=3.0), Origin.TARGET)
    assert found.lacks == ("cold start is not known",)


def test_what_is_not_predicted_or_queues_is_unproven() -> None:
    asked = Requirements(max_cold_start_ms=1e-3, sources=Sources(frame_rate=1))
    found = choose([predicted("ort-fp32", 1.0)], asked, Origin.PREDICTED)
    assert found.unproven == ("keeping up with what comes", "cold start")
    server = Requirements(latency=LatencyBudget(5.0), arrivals=Arrivals("server", 2.0))
    assert choose([outcome("ort-fp32")], server, Origin.TARGET).unproven == ("latency budget in the server scenario",)
    single = replace(server, arrivals=Arrivals("single-stream"))
    assert choose([outcome("ort-fp32")], single, Origin.TARGET).unproven == ()


@pytest.mark.parametrize(
    ("latency", "memory", "winner"),
    [(1.0, 1.0, "ov-f32"), (2.0, 1.0, "ov-bf16"), (0.0, 1.0, "ov-f32"), (9.0, 1.0, "ov-bf16")],
)
def test_weights_take_the_least_product(latency: float, memory: float, winner: str) -> None:
    """Twice as fast at three times the memory: worth it where time counts twice."""
    ones = [outcome("ov-f32", 2.0, memory=30 * MIB), outcome("ov-bf16", 1.0, memory=90 * MIB)]
    asked = Requirements(weights={Prefer.LATENCY: latency, Prefer.MEMORY: memory})
    found = choose(ones, asked, Origin.TARGET)
    assert found.chosen == winner
    assert "weighted product" in found.reason
    assert "the weighted product of" in next(iter(found.rejected.values()))


@given(outcomes(), st.sampled_from(list(Prefer)), st.floats(0.1, 10))
def test_one_weight_is_the_word_and_its_size_does_not_matter(ones: list, prefer: Prefer, weight: float) -> None:
    word, weighed = Requirements(prefer=prefer), Requirements(prefer=prefer, weights={prefer: weight})
    assert choose(ones, word, Origin.TARGET, 1.03).chosen == choose(ones, weighed, Origin.TARGET, 1.03).chosen


def test_noise_ties_weighted_candidates_by_the_part_that_is_time() -> None:
    """2 % slower in time that is half of the whole: within the noise of 3 %, as its square root tells."""
    pair = [outcome("ort-fp32", 1.02), outcome("ov-int8", 1.0)]
    asked = Requirements(weights={Prefer.LATENCY: 1.0, Prefer.SIZE: 1.0})
    assert choose(pair, asked, Origin.TARGET, aa_spread=1.03).chosen == "ort-fp32"
    assert choose(pair, asked, Origin.TARGET, aa_spread=1.01).chosen == "ov-int8"
