"""`edgekit explain`: sentences whose every figure is found in run.json, the binding requirement in the first two."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.core.choose import choose, figures, shortfalls
from edgekit.core.explain.evidence import Evidence, Part, Rule, Sentence, Unit, phrase, pointer, say, written
from edgekit.core.explain.explanation import Explanation, explain
from edgekit.core.explain.needs import admitting, loosened, met, needs
from edgekit.core.explain.readings import Readings
from edgekit.core.explain.relax import LATER, again, relaxations
from edgekit.core.explain.story import story_of
from edgekit.core.needs import Kind
from edgekit.core.recipes import run_config
from edgekit.core.requirements import parse_bytes, parse_latency
from edgekit.core.results import Origin, Outcome, Verdict, VerdictCode
from edgekit.core.run import Noise, Run
from edgekit.core.stats import latency_stats
from edgekit.core.targets import host_target
from edgekit.core.tradeoffs import Exploration, Point, Setting, key
from edgekit.core.types import Arrivals, LatencyBudget, Prefer, Requirements, Sources
from edgekit.flow.decide import decide
from tests.explained import assert_follows, assert_founded, document_of, resolve
from tests.records import MIB, model, outcome, predicted, timed
from tests.test_explain import run as plain_run

COLLAPSED = (Verdict(VerdictCode.COLLAPSED, "the drop is 0.223"),)


def made(
    outcomes: Sequence[Outcome],
    requirements: Requirements | None = None,
    *,
    origin: Origin = Origin.TARGET,
    excluded: Mapping[str, str] | None = None,
    **changes: object,
) -> Run:
    """A run of these outcomes, chosen from as `edgekit optimize` does."""
    asked = requirements or Requirements()
    shown = tuple(o if o.measurement and o.measurement.ratio_interval else timed(o) for o in outcomes)
    tie = 1.03 if origin is Origin.TARGET else 1.1
    choice = choose(shown, asked, origin, tie, excluded)
    noise = Noise(1.0, 1.03) if origin is Origin.TARGET else None
    made = plain_run(outcomes=shown, requirements=asked, choice=choice, target_origin=origin, noise=noise, findings=())
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


def explained(run: Run) -> Explanation:
    """The explanation, each figure of it checked."""
    told = explain(run)
    assert_founded(document_of(run), told)
    return told


def texts(told: Explanation, part: Part) -> list[str]:
    return [sentence.text for sentence in told.sentences if sentence.part is part]


REFERENCE = outcome("ort-fp32", 10.0, size=8 * MIB, memory=90 * MIB)
INT8 = outcome("ort-int8", 4.0, drop=0.03, size=2 * MIB, memory=60 * MIB)
WEIGHTS = outcome("ort-int8-weights", 9.0, drop=0.001, size=3 * MIB, memory=70 * MIB)
BOTH = (REFERENCE, INT8, WEIGHTS)


# ------------------------------------------------------------------------------------------------------- the first two lines


def test_the_binding_requirement_and_the_choice_come_first() -> None:
    told = explained(made(BOTH))
    first, second = texts(told, Part.BINDS)
    assert first == (
        "Binding requirement: top-1 drop of at most 0.01. Without it ort-int8 would be chosen: 0.44x the p50, "
        "0.86x the peak memory and 0.67x the size of ort-int8-weights, at a drop of 0.0300 (up to 0.0340) in top-1."
    )
    assert second == (
        "Chosen: ort-int8-weights, with p50 latency 9 ms (0.90x that of ort-fp32), peak memory 70 MiB, size 3 MiB and top-1 drop "
        "0.0010 (up to 0.0050; 0.01 allowed)."
    )
    assert [sentence.part for sentence in told.sentences[:2]] == [Part.BINDS, Part.BINDS]


def test_where_no_requirement_rules_out_anything_better_none_binds() -> None:
    told = explained(made([REFERENCE, outcome("ort-int8", 4.0, drop=0.001)], Requirements(max_memory_bytes=1 << 30)))
    assert texts(told, Part.BINDS)[0] == (
        "Binding requirement: none. No requirement rules out anything better than ort-int8; preferring latency decided among the "
        "2 candidates that meet all."
    )
    assert "The limit on top-1 drop (0.01) or on peak memory (1 GiB) costs nothing here" in texts(told, Part.COSTS)[0]


def test_what_no_candidate_meets_binds() -> None:
    told = explained(made(BOTH, Requirements(latency=LatencyBudget(3.0))))
    first, second = texts(told, Part.BINDS)
    assert first == (
        "Binding requirement: p99 latency of at most 3 ms. No candidate meets it whatever else is given up: "
        "the least p99 latency is 4 ms, of ort-int8."
    )
    assert second.startswith(
        "Nothing fits. Nearest is ort-int8-weights, with p99 latency 9 ms (3 ms allowed). The smallest step that helps is "
    )


def test_requirements_that_only_conflict_are_named_together() -> None:
    told = explained(made(BOTH, Requirements(latency=LatencyBudget(5.0))))
    assert texts(told, Part.BINDS)[0] == (
        "Binding requirements: top-1 drop of at most 0.01 and p99 latency of at most 5 ms. Each is met by some candidate, no "
        "candidate meets them together."
    )
    first, second = texts(told, Part.RELAX)[:2]
    assert first == (
        "With --latency-budget p99:9ms (the smallest step) ort-int8-weights would be chosen: p50 latency 9 ms (0.90x that of "
        "ort-fp32), peak memory 70 MiB, size 3 MiB and drop 0.0010 (up to 0.0050) in top-1."
    )
    assert second == (
        "With --max-drop 0.03 ort-int8 would be chosen: p50 latency 4 ms (0.40x that of ort-fp32), peak memory 60 MiB, size 2 MiB "
        "and drop 0.0300 (up to 0.0340) in top-1; its answers on unseen data are not known."
    )


def test_where_only_samples_lack_the_first_line_says_so() -> None:
    """Negative control: of a drop that is over the limit it does not."""
    open_one = outcome("ort-int8", 4.0, drop=0.0, ci_high=0.05)
    first = texts(explained(made([REFERENCE, open_one])), Part.BINDS)[0]
    assert first.endswith("Its drop is within the limit, but 500 samples are too few to show that it stays there.")
    assert "samples" not in texts(explained(made(BOTH)), Part.BINDS)[0]


@pytest.mark.parametrize("given", [(INT8, WEIGHTS), (WEIGHTS,), ()])
@pytest.mark.parametrize("asked", [Requirements(), Requirements(latency=LatencyBudget(3.0))])
def test_a_run_without_the_model_as_given_is_explained_all_the_same(
    given: tuple[Outcome, ...], asked: Requirements
) -> None:
    """Of what is compared with it nothing is said."""
    told = explained(made(given, asked))
    assert [sentence.part for sentence in told.sentences[:2]] == [Part.BINDS, Part.BINDS]
    assert "ort-fp32" not in "\n".join(sentence.text for sentence in told.sentences)


def test_what_a_requirement_costs_is_told_once() -> None:
    told = explained(made(BOTH))
    assert not any("The limit on top-1 drop" in text for text in texts(told, Part.COSTS))
    (relaxed,) = texts(told, Part.RELAX)
    assert relaxed.startswith(
        "With --max-drop 0.03 ort-int8 would be chosen: 0.44x the p50 of ort-int8-weights; its answers"
    )


@pytest.mark.parametrize(("saved", "told"), [(8 * MIB // 100, False), (MIB, True)])
def test_a_preference_that_gains_next_to_nothing_is_not_told_of(saved: int, told: bool) -> None:
    other = outcome("ort-fp32-opt", 11.0, size=8 * MIB - saved, memory=90 * MIB)
    costs = texts(explained(made([REFERENCE, other])), Part.COSTS)
    assert any("Preferring size instead" in text for text in costs) is told


def test_one_requirement_that_the_rest_leaves_no_room_for() -> None:
    told = explained(made(BOTH, Requirements(latency=LatencyBudget(5.0), max_size_bytes=2 * MIB)))
    # Only ort-int8 is small and fast enough, and it is wrong too often: giving up the drop alone would do.
    assert texts(told, Part.BINDS)[0] == (
        "Binding requirement: top-1 drop of at most 0.01. No candidate that meets the rest meets it: "
        "the least top-1 drop is 0.0300, of ort-int8."
    )
    assert ["--max-drop 0.03"] in [[limit.option for limit in relaxed.limits] for relaxed in told.relaxations]


def test_where_several_lack_the_nearest_is_told_what_all_of_it_takes() -> None:
    told = explained(made(BOTH[::2], Requirements(latency=LatencyBudget(8.0), max_size_bytes=2 * MIB)))
    assert [limit.option for limit in told.relaxations[0].limits] == ["--latency-budget p99:9ms", "--max-size 3MiB"]
    assert "With --latency-budget p99:9ms and --max-size 3MiB ort-int8-weights would be chosen" in "\n".join(
        texts(told, Part.RELAX)
    )


def test_when_nothing_ran_it_says_so() -> None:
    broken = replace(REFERENCE, verdicts=(Verdict(VerdictCode.DOES_NOT_RUN, "exit 9 (out of memory)"),))
    told = explained(made([broken]))
    assert texts(told, Part.BINDS)[0].startswith("Binding requirement: none. Every candidate failed")
    assert "Ruled out, does not run: ort-fp32 (exit 9 (out of memory))." in texts(told, Part.LOST)


# ----------------------------------------------------------------------------------------------------------- why, and how much


def test_within_the_noise_nothing_is_called_better() -> None:
    told = explained(made([REFERENCE, timed(outcome("ort-int8", 8.0, drop=0.03), (5.0, 12.0))]))
    assert texts(told, Part.BINDS)[0].startswith("Binding requirement: none")
    assert texts(told, Part.RELAX) == [] and "(0.01) costs nothing here" in texts(told, Part.COSTS)[0]


def test_each_loser_is_named_once_with_its_reason() -> None:
    doubtful = outcome("ov-bf16", 5.0, drop=0.008, ci_high=0.05)
    bad = outcome("ort-int8-conv", 3.0, drop=0.2, verdicts=COLLAPSED)
    others = (
        outcome("ov-f32", 20.0),
        outcome("ov-fp16", 4.05),
        outcome("ov-int8", 1.0),
        outcome("ov-int8-weights", 4.0),
    )
    gone = {"ov-int8": "held on selection, not on unseen evaluation data: drop 0.0300"}
    run = made([*BOTH, *others, doubtful, bad], excluded=gone)
    assert run.choice.chosen == "ov-int8-weights"
    collapsed, gone_later, wrong, open_ones, worse, ties, untried = texts(explained(run), Part.LOST)
    assert collapsed == "Ruled out, collapsed: ort-int8-conv (the drop is 0.223; 0.75x the p50 of ov-int8-weights)."
    assert gone_later == f"Chosen first, then given up: ov-int8 ({gone['ov-int8']})."
    assert wrong == "Answers that lose more than the 0.01 of top-1 allowed: ort-int8 (0.0300, up to 0.0340)."
    assert open_ones == (
        "500 samples are too few to tell whether the drop stays within 0.01, which more would settle: "
        "ov-bf16 (0.0080, up to 0.0500)."
    )
    assert worse == "Worse than ov-int8-weights in p50: ort-int8-weights (2.25x), ort-fp32 (2.50x) and ov-f32 (5.00x)."
    assert ties == (
        "As good as ov-int8-weights in p50, within the noise: ov-fp16 (1.01x). "
        "Of equal ones what is nearer to the model as given wins."
    )
    assert untried == "Not tried: ort-fp16 (forbidden by --forbid)."


def test_what_was_not_timed_is_no_tie() -> None:
    told = explained(made([REFERENCE, replace(WEIGHTS, measurement=None)]))
    assert "Answers hold, but times were not measured: ort-int8-weights." in texts(told, Part.LOST)


def test_sizes_have_no_noise() -> None:
    """Negative control: times have."""
    twin = outcome("ort-int8", 10.0, size=8 * MIB)
    ties = {
        prefer: [
            t
            for t in texts(explained(made([REFERENCE, twin], Requirements(prefer=prefer))), Part.LOST)
            if "As good" in t
        ]
        for prefer in (Prefer.SIZE, Prefer.LATENCY)
    }
    assert ties[Prefer.SIZE][0].startswith("As good as ort-fp32 in size: ort-int8 (1.00x).")
    assert ties[Prefer.LATENCY][0].startswith("As good as ort-fp32 in p50, within the noise: ort-int8 (1.00x).")


def test_a_budget_of_the_median_is_told_once() -> None:
    told = explained(made(BOTH, Requirements(latency=LatencyBudget(20.0, "p50"))))
    assert texts(told, Part.BINDS)[1].count("p50 latency") == 1


def test_who_failed_on_unseen_data_is_never_promised() -> None:
    """Negative control: without its reason the same candidate is."""
    fast = outcome("ov-int8", 1.0, size=9 * MIB)
    asked = Requirements(max_size_bytes=8 * MIB)
    reason = {"ov-int8": "not judged: 3 others had failed on the evaluation data already"}
    free, bound = made([REFERENCE, fast], asked), made([REFERENCE, fast], asked, excluded=reason)
    assert [relaxed.candidate for relaxed in explained(free).relaxations] == ["ov-int8"]
    assert explained(bound).relaxations == ()
    assert "Chosen first, then given up" in "\n".join(texts(explained(bound), Part.LOST))


def test_predictions_are_called_so() -> None:
    outcomes = [predicted("ort-fp32", 10.0), predicted("ort-fp32-opt", 9.5)]
    told = explained(made(outcomes, Requirements(latency=LatencyBudget(20.0)), origin=Origin.PREDICTED))
    assert texts(told, Part.BINDS)[1].endswith("Predicted, not measured: latency budget.")
    assert texts(told, Part.WON)[0].endswith("1.05x its p50, nearer than predictions can tell.")


@pytest.mark.parametrize(("prefer", "chosen"), [(Prefer.SIZE, "ort-int8-weights"), (Prefer.MEMORY, "ort-int8-weights")])
def test_what_is_preferred_is_what_is_weighed(prefer: Prefer, chosen: str) -> None:
    told = explained(made(BOTH, Requirements(prefer=prefer)))
    assert f"Chosen: {chosen}" in texts(told, Part.BINDS)[1]
    what = {"size": "0.67x the size", "memory": "0.86x the peak memory"}[prefer.value]
    assert texts(told, Part.BINDS)[0].index(what) < texts(told, Part.BINDS)[0].index("0.44x the p50")


def test_weights_are_told_with_their_product() -> None:
    told = explained(made(BOTH, Requirements(weights={Prefer.LATENCY: 1.0, Prefer.SIZE: 3.0}, prefer=Prefer.SIZE)))
    assert texts(told, Part.WON)[0].startswith(
        "ort-int8-weights has the best weighted product of those that meet everything; next is"
    )
    guessed = [predicted("ort-fp32", 10.0), predicted("ort-int8-weights", 5.0)]
    wish = Requirements(weights={Prefer.LATENCY: 1.0, Prefer.MEMORY: 3.0})
    assert "weighted product" in texts(explained(made(guessed, wish, origin=Origin.PREDICTED)), Part.WON)[0]
    free = explained(made(BOTH[:1], Requirements(weights={Prefer.LATENCY: 1.0, Prefer.SIZE: 3.0}, prefer=Prefer.SIZE)))
    assert texts(free, Part.BINDS)[0].endswith("preferring latency by 1 and size by 3 decided.")


def test_what_comes_at_a_rate_is_a_need_of_its_own() -> None:
    cameras = Requirements(sources=Sources(frame_rate=60.0, count=2))
    told = explained(made(BOTH, cameras))
    assert texts(told, Part.BINDS)[0].startswith(
        "Binding requirements: top-1 drop of at most 0.01 and throughput of at least 120/s."
    )
    assert "With a rate of 111 (the smallest step) ort-int8-weights would be chosen" in texts(told, Part.RELAX)[0]
    served = Requirements(arrivals=Arrivals("server", 105.0))
    assert "throughput 111/s (105/s called for)" in texts(explained(made(BOTH, served)), Part.BINDS)[1]


def test_a_cold_start_that_nobody_predicts_is_not_missed() -> None:
    asked = Requirements(max_cold_start_ms=2.0)
    told = explained(made([predicted("ort-fp32", 10.0)], asked, origin=Origin.PREDICTED))
    assert texts(told, Part.BINDS)[1].endswith(
        "cold start not known (2 ms allowed). Predicted, not measured: cold start."
    )
    told = explained(made(BOTH, asked))
    assert texts(told, Part.BINDS)[0].startswith(
        "Binding requirement: cold start of at most 2 ms. No candidate meets it"
    )
    assert told.relaxations[0].limits[0].option == "--max-cold-start 4ms"


# ------------------------------------------------------------------------------------------------------------- the machine


def test_what_int8_gains_tells_what_fp32_spends() -> None:
    """The target has 8 and 32 multiply-accumulates a cycle: of a time that fell to 0.4 the share was 0.6 / 0.75 = 80%."""
    told = explained(made(BOTH))
    first, second = texts(told, Part.MACHINE)
    assert (
        "Arithmetic and memory take about 80% of it, judging by what ort-int8 gains from 4.00x the multiply-accumulates"
        in first
    )
    assert first.startswith("Estimated: compute and memory bandwidth alike take most of the time of ort-fp32.")
    assert second == "Estimated: of the time of ort-int8-weights about 78% is arithmetic and memory, the rest overhead."


def test_int8_that_gains_little_leaves_overhead() -> None:
    told = explained(made([REFERENCE, outcome("ort-int8", 9.0, drop=0.001)]))
    assert texts(told, Part.MACHINE)[0].startswith(
        "Estimated: overhead takes most of the time of ort-fp32. Arithmetic and memory take about 13%"
    )


def test_without_int8_a_known_clock_gives_the_roofline_and_an_assumed_one_does_not() -> None:
    alone = made([outcome("ort-fp32", 1.0)])
    assert texts(explained(alone), Part.MACHINE)[0].startswith("Estimated: ")
    unknown = replace(alone.target, sources={"clusters.0.max_mhz": "assumption: this machine does not tell its clock"})
    assert texts(explained(replace(alone, target=unknown)), Part.MACHINE)[0].startswith(
        "What binds ort-fp32 is not known"
    )


# ------------------------------------------------------------------------------------------------------------------ settings


def point(candidate: str, setting: Setting, ms: float, rate: float, **changes: object) -> Point:
    latency = latency_stats((round(ms * 1e6),) * 1001)
    made = Point(
        candidate,
        setting,
        latency,
        rate,
        (rate * 0.97, rate * 1.03),
        ms,
        (ms * 0.98, ms * 1.02),
        cold_start_ms=20.0,
        peak_memory_bytes=60 * MIB,
        size_bytes=3 * MIB,
        drop=0.001,
        rounds=12,
        ended="measured",
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # any of its fields


LOW = point("ort-int8-weights", Setting(2), 9.0, 111.0)
ONE = point("ort-int8-weights", Setting(1), 15.0, 66.0)
BATCH = point("ort-int8-weights", Setting(2, batch=4), 28.0, 155.0, peak_memory_bytes=72 * MIB)
ARENA = point("ort-int8-weights", Setting(2, options={"arena/x": "0"}), 9.1, 110.0, peak_memory_bytes=40 * MIB)
HIGH = point("ort-int8-weights", Setting(1, 2, 4, cores="0-1"), 30.0, 170.0, cold_start_ms=None)


def searched(*points: Point) -> Exploration:
    names = tuple(map(key, points))
    return Exploration(points, 64, 12.0, 7, "told apart", names, names[0], names[-1], names[0], names[-1])


def test_settings_are_told_against_each_other() -> None:
    told = explained(made(BOTH, exploration=searched(LOW, ONE, BATCH, ARENA, HIGH)))
    legend, ends, threads, batch, options, spots = texts(told, Part.SETTINGS)
    assert legend == "A setting is named by its threads (t), streams (s), batch (b) and what else it sets."
    assert ends == (
        "Latency and throughput pull apart: ort-int8-weights t1 s2 b4 cores=0-1 (p50 30 ms, 170/s and peak memory 60 MiB) gives "
        "1.53x the throughput and 3.33x the p99 of ort-int8-weights t2 s1 b1 (p50 9 ms, 111/s and peak memory 60 MiB)."
    )
    base = "From ort-int8-weights t2 s1 b1,"
    assert threads == f"{base} threads 1 instead of 2 gives 0.59x the throughput and 1.67x the p99."
    assert batch == f"{base} batch 4 instead of 1 gives 1.40x the throughput, 3.11x the p99 and 1.20x the peak memory."
    assert options == (
        f"{base} arena/x=0 instead of no option gives 0.99x the throughput (not told apart), 1.01x the p99 and "
        "0.67x the peak memory."
    )
    assert spots == (
        "Of 64 settings 5 were measured; 5 are beaten by no other in all of latency, throughput, memory, size and drop; the sweet "
        "spot is ort-int8-weights t2 s1 b1 and the knee of throughput against latency is ort-int8-weights t1 s2 b4 cores=0-1."
    )


def test_one_setting_for_both_ends() -> None:
    told = explained(made(BOTH, exploration=searched(LOW)))
    assert texts(told, Part.SETTINGS)[1] == (
        "Latency and throughput want the same setting: ort-int8-weights t2 s1 b1, with p50 9 ms, 111/s and peak memory 60 MiB."
    )


def test_another_wish_takes_another_setting() -> None:
    """The run gives 111 a second; more is to be had of the same candidate, and is told with the figures of its point."""
    own = run_config("ort-int8-weights", 2)
    weights = replace(WEIGHTS, candidate=replace(WEIGHTS.candidate, run=own))
    found = searched(LOW, ONE, BATCH, HIGH)
    told = explained(made([REFERENCE, INT8, weights], exploration=found))
    assert texts(told, Part.BINDS)[1].startswith("Chosen: ort-int8-weights, with p50 latency 9 ms")
    assert (
        "Preferring throughput instead would choose ort-int8-weights t1 s2 b4 cores=0-1: 1.53x the throughput, "
        "3.33x the p50 and 0.86x the peak memory of ort-int8-weights." in texts(told, Part.COSTS)
    )
    asked = Requirements(latency=LatencyBudget(9.5), prefer=Prefer.THROUGHPUT)
    told = explained(made([REFERENCE, INT8, weights], asked, exploration=found))
    assert (
        "With --latency-budget p99:28ms (the smallest step) ort-int8-weights t2 s1 b4 would be chosen: 1.40x the throughput"
        in ("\n".join(texts(told, Part.RELAX)))
    )


def test_what_failed_on_unseen_data_is_promised_in_no_setting() -> None:
    reason = {"ort-int8-weights": "held on selection, not on unseen evaluation data: drop 0.0300"}
    asked = Requirements(prefer=Prefer.THROUGHPUT)
    told = explained(made([REFERENCE, WEIGHTS], asked, excluded=reason, exploration=searched(LOW, HIGH)))
    assert texts(told, Part.BINDS)[0].startswith("Binding requirement: none") and told.relaxations == ()


def test_the_machine_is_told_from_settings_alike() -> None:
    """Of points with one stream, one sample and no options; a batch would pass for slow arithmetic."""
    plain = point("ort-fp32", Setting(2), 10.0, 100.0)
    fast = point("ort-int8", Setting(2), 4.0, 250.0)
    heavy = point("ort-int8", Setting(2, batch=8), 50.0, 300.0)
    batched = replace(INT8, measurement=replace(INT8.measurement, ratio=5.0, ratio_interval=(4.9, 5.1)))
    told = explained(made([REFERENCE, batched], exploration=searched(plain, fast, heavy)))
    assert "about 80% of it, judging by what ort-int8 t2 s1 b1 gains" in texts(told, Part.MACHINE)[0]


# ------------------------------------------------------------------------------------------------------------------ any run

NAMES = ("ort-fp32-opt", "ort-fp16", "ort-int8", "ort-int8-weights", "ov-f32", "ov-int8", "ov-bf16")


class Drawn:
    """A run whose repr is short: that of a failing example is printed."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __repr__(self) -> str:
        return f"{self.run.requirements}, {self.run.choice}"


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    """A reference with some candidates, against some requirements."""
    outcomes = [REFERENCE]
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        drop = draw(st.sampled_from([-0.001, 0.0, 0.004, 0.009, 0.02, 0.3]))
        made_one = outcome(
            name,
            draw(st.floats(0.05, 30)),
            drop=drop,
            size=draw(st.integers(1000, 9 * MIB)),
            memory=draw(st.integers(MIB, 200 * MIB)),
            runs=draw(st.sampled_from([11, 100, 1001])),
            ci_high=drop + draw(st.sampled_from([0.0, 0.003, 0.03])),
            nonfinite=draw(st.sampled_from([0, 0, 0, 3])),
            verdicts=draw(st.sampled_from([(), (), COLLAPSED])),
        )
        outcomes.append(made_one)
    asked = Requirements(
        max_drop=draw(st.sampled_from([0.0, 0.005, 0.01])),
        latency=draw(st.none() | st.builds(LatencyBudget, st.floats(0.1, 20), st.sampled_from(["p50", "p90", "p99"]))),
        min_throughput_ips=draw(st.none() | st.floats(1, 5000)),
        max_memory_bytes=draw(st.none() | st.integers(MIB, 200 * MIB)),
        max_size_bytes=draw(st.none() | st.integers(1000, 9 * MIB)),
        max_cold_start_ms=draw(st.none() | st.floats(1, 8)),
        prefer=draw(st.sampled_from(list(Prefer))),
        weights=draw(st.just({}) | st.dictionaries(st.sampled_from(list(Prefer)), st.integers(1, 9), min_size=2)),
    )
    return Drawn(made(outcomes, asked))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn())
def test_of_any_run_every_figure_is_founded_and_every_candidate_told_of(drawn: Drawn) -> None:
    run = drawn.run
    told = explained(run)
    assert [sentence.part for sentence in told.sentences[:2]] == [Part.BINDS, Part.BINDS]
    assert Part.BINDS not in {sentence.part for sentence in told.sentences[2:]}
    lost = " ".join(texts(told, Part.LOST))
    assert all(one.name == run.choice.chosen or one.name in lost for one in run.outcomes)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn())
def test_needs_are_met_exactly_where_the_choice_says_so_and_the_least_limit_admits(drawn: Drawn) -> None:
    run = drawn.run
    readings, asked = Readings(run), needs(run.requirements)
    for one in run.outcomes:
        numbers = figures(one, run.target_origin)
        assert numbers is not None
        missed = [need for need in asked if need.kind is not Kind.DROP and not met(readings, one.name, need)]
        assert len(missed) == len(shortfalls(numbers, run.requirements))
        for need in asked:
            limit = admitting(readings, one.name, need)
            if limit is not None:
                tighter = limit.value * (1.02 if need.at_least else 0.98)
                assert met(readings, one.name, replace(need, limit=limit.value))
                assert not limit.value or not met(readings, one.name, replace(need, limit=tighter))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn())
def test_a_relaxation_as_typed_gets_what_it_promises(drawn: Drawn) -> None:
    """The options are read by edgekit's own parsers and chosen by anew."""
    anew = again(drawn.run)
    for relaxed in relaxations(anew, story_of(drawn.run).is_better):
        asked = drawn.run.requirements
        for limit in relaxed.limits:
            option, _, value = limit.option.partition(" ")
            asked = _typed(asked, option, value)
        assert anew.choose(asked).chosen == relaxed.candidate


def _typed(asked: Requirements, option: str, value: str) -> Requirements:
    match option:
        case "--max-drop":
            return replace(asked, max_drop=float(value))
        case "--latency-budget":
            return replace(asked, latency=parse_latency(value))
        case "--min-throughput":
            return replace(asked, min_throughput_ips=float(value))
        case "--max-memory":
            return replace(asked, max_memory_bytes=parse_bytes(value, option))
        case "--max-size":
            return replace(asked, max_size_bytes=parse_bytes(value, option))
        case "--max-cold-start":
            return replace(asked, max_cold_start_ms=parse_latency(value).limit_ms)
    raise AssertionError(option)


def test_without_a_need_nothing_is_asked() -> None:
    asked = Requirements(0.01, LatencyBudget(5.0), 10.0, 1, 1, max_cold_start_ms=1.0)
    for need in needs(asked):
        asked = loosened(asked, need, None)
    assert math.isinf(asked.max_drop) and replace(asked, max_drop=0.01) == Requirements()


# --------------------------------------------------------------------------------------------------- the check itself fails


def test_a_figure_without_evidence_is_seen() -> None:
    """Negative control: a figure that nothing backs, one that is wrong, one whose path leads nowhere."""
    run = made(BOTH)
    told = explain(run)
    first = told.sentences[0]
    unbacked = replace(first, text=first.text.replace("Without it", "Without it 3 times"))
    with pytest.raises(AssertionError, match="without evidence"):
        assert_founded(document_of(run), replace(told, sentences=(unbacked,)))
    off = replace(first.evidence[0], value=0.02)
    with pytest.raises(AssertionError):
        assert_founded(
            document_of(run), replace(told, sentences=(replace(first, evidence=(off, *first.evidence[1:])),))
        )
    misread = Evidence("9.1 ms", 9.0, (pointer("outcomes", 2, "measurement", "latency_ms", "p50"),))
    with pytest.raises(AssertionError, match=r"9\.1 ms is not"):
        assert_follows(document_of(run), misread)
    nowhere = Evidence("1", 1, (pointer("outcomes", 99),))
    with pytest.raises(IndexError):
        assert_follows(document_of(run), nowhere)
    missing = Sentence(Part.WON, "it has 4 legs.", ())
    with pytest.raises(AssertionError):
        assert_founded(document_of(run), replace(told, sentences=(missing,)))


def test_reasons_of_a_later_failure_begin_as_the_flow_writes_them() -> None:
    """What stays out is known by these words: the flow's own source holds each."""
    source = Path(decide.__code__.co_filename).read_text()
    assert all(f'f"{words}' in source for words in LATER)


def test_bytes_are_written_in_the_unit_that_fits() -> None:
    assert [written(value, Unit.BYTES) for value in (0, 135, 1024, 3 * MIB)] == ["0 B", "135 B", "1 KiB", "3 MiB"]


def test_pointers_escape_what_they_must() -> None:
    assert pointer("a/b", "c~d", 0) == "/a~1b/c~0d/0"
    assert resolve({"a/b": {"c~d": [7]}}, "/a~1b/c~0d/0") == 7


def test_names_are_no_templates() -> None:
    hostile = "{0} {x} 100%"
    assert phrase("{} is {}", hostile, Evidence("1", 1, ("/x",))).text == f"{hostile} is 1"
    assert say(Part.WON, "{}", hostile).text == f"{hostile}."


def test_rules_of_evidence_are_those_the_checker_knows() -> None:
    assert {rule.name for rule in Rule} == {
        "SUM",
        "WEIGHTED",
        "LIMIT",
        "LEAST_DROP",
        "CALLED_FOR",
        "ROOFLINE",
        "NARROW_SHARE",
        "NARROW_LEFT",
    }


def test_a_host_that_tells_no_clock_is_one_of_those() -> None:
    """The source of an assumed clock is what `host_target` writes."""
    told = explained(
        made([outcome("ort-fp32", 1.0)], target=host_target(plain_run().device, {"onnxruntime": "1.32.0"}))
    )
    assert texts(told, Part.MACHINE)[0].startswith("What binds ort-fp32 is not known")


def test_a_model_without_layers_has_nothing_to_say_of_the_machine() -> None:
    assert texts(explained(made(BOTH, model=model(layers=()))), Part.MACHINE) == []
