"""What may be said of two runs' figures: when a difference is one, and when nothing can be told."""

import math
from dataclasses import replace

import pytest

from edgekit.core.compare import CompareVerdict, Comparison
from edgekit.core.delta import COLD_START, LATENCY, MEMORY, SCORE, SIZE, TAIL, THROUGHPUT, Delta, Shown
from edgekit.core.deltas import deltas, incomparable
from edgekit.core.results import Origin, Outcome
from edgekit.core.retaken import Retaken, Turns, combined
from edgekit.core.run import Run
from edgekit.core.standing import reference, standing
from edgekit.core.stats import latency_stats
from edgekit.core.tradeoffs import Exploration, Point, Setting, key
from edgekit.core.types import LayerCost, Requirements
from tests.conftest import thorough
from tests.runs import CHOSEN, MACHINE, evaluated, finished, with_bytes


def by_name(before: Run, after: Run, retaken: Retaken | None = None) -> dict[str, Delta]:
    return {delta.figure: delta for delta in deltas(before, after, retaken)}


# ------------------------------------------------------------------------------------------------------------------ times


def test_a_slowdown_is_shown_over_the_reference_whatever_the_machine_did_between() -> None:
    found = by_name(finished(1), finished(2, bytes_of="b", ratio=0.52, machine=1.3))
    assert found[LATENCY].shown is Shown.WORSE
    assert found[LATENCY].change == pytest.approx(0.3, abs=0.05)
    assert found[THROUGHPUT].shown is Shown.WORSE
    assert found[THROUGHPUT].change == pytest.approx(-0.23, abs=0.05)
    assert "ort-fp32 in its own race" in found[LATENCY].basis


def test_a_slower_machine_alone_is_no_slowdown() -> None:
    """Negative control of the one above: the stored p50 rise by a third all the same."""
    found = by_name(finished(1), finished(2, bytes_of="b", machine=1.3))
    assert found[LATENCY].after / found[LATENCY].before > 1.25
    assert found[LATENCY].shown is Shown.NOT_SHOWN
    assert found[THROUGHPUT].shown is Shown.NOT_SHOWN


def test_a_speedup_is_better() -> None:
    found = by_name(finished(1), finished(2, bytes_of="b", ratio=0.3))
    assert (found[LATENCY].shown, found[THROUGHPUT].shown) == (Shown.BETTER, Shown.BETTER)


SEEDS = range(20)


@pytest.mark.parametrize("noise", [{}, pytest.param({"drift": 0.04, "process": 0.01}, marks=thorough)])
def test_equal_runs_are_called_different_one_time_in_twenty_at_most(noise: dict[str, float]) -> None:
    pairs = [by_name(finished(2 * s, **noise), finished(2 * s + 1, bytes_of="b", **noise)) for s in SEEDS]
    for figure in (LATENCY, THROUGHPUT):
        wrong = sum(found[figure].shown is not Shown.NOT_SHOWN for found in pairs)
        assert wrong <= len(SEEDS) / 20


def test_a_retrained_model_is_held_against_its_own_reference() -> None:
    """Other weights, the same arithmetic: the reference takes the same time."""
    before, after = finished(1), finished(2, bytes_of="b", model_sha256="f" * 64)
    assert incomparable(before, after) == ""


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"device": replace(MACHINE, cpu_model="Cortex-A53")}, "different machines: cpu_model"),
        ({"device": replace(MACHINE, usable_threads=4)}, "usable_threads"),
        ({"noise": None}, "noise"),
    ],
)
def test_times_that_cannot_be_compared_say_why(changes: dict[str, object], says: str) -> None:
    found = by_name(finished(1), finished(2, bytes_of="b", **changes))
    for figure in (LATENCY, TAIL, THROUGHPUT):
        assert found[figure].shown is Shown.UNKNOWN
        assert says in found[figure].basis


def test_a_reference_of_other_arithmetic_engine_or_settings_is_none() -> None:
    before, after = finished(1), finished(2, bytes_of="b")
    deeper = replace(after.model, layers=(*after.model.layers, LayerCost("Conv", 10**6, 100, 100)))
    reference, chosen = after.outcomes
    build = replace(reference.candidate.build, engine_version="1.33.0")
    newer = replace(reference, candidate=replace(reference.candidate, build=build))
    assert reference.measurement is not None
    eager = replace(reference, measurement=replace(reference.measurement, settings_in_force={"spin": "0"}))
    assert "layers" in incomparable(before, replace(after, model=deeper))
    assert "engine" in incomparable(before, replace(after, outcomes=(newer, chosen)))
    assert "settings" in incomparable(before, replace(after, outcomes=(eager, chosen)))
    assert incomparable(before, after) == ""


def test_the_same_bytes_run_alike_are_equal_unless_something_else_differs() -> None:
    before = finished(1)
    found = by_name(before, finished(2))
    assert {found[name].shown for name in (LATENCY, TAIL, THROUGHPUT, MEMORY, COLD_START)} == {Shown.EQUAL}
    newer = by_name(before, finished(2, edgekit_version="1.1"))
    assert newer[LATENCY].shown is Shown.NOT_SHOWN
    assert newer[MEMORY].shown is Shown.UNKNOWN
    other = by_name(before, finished(2, device=replace(MACHINE, governor="powersave")))
    assert other[LATENCY].shown is Shown.NOT_SHOWN


def test_what_was_predicted_or_taken_elsewhere_is_no_figure() -> None:
    for origin in (Origin.PREDICTED, Origin.HOST):
        found = by_name(finished(1), finished(2, target_origin=origin))
        assert {found[name].shown for name in (LATENCY, THROUGHPUT, MEMORY)} == {Shown.UNKNOWN}
        assert "predicted" in found[LATENCY].basis


def test_memory_and_cold_start_of_one_process_have_no_interval() -> None:
    found = by_name(finished(1), finished(2, bytes_of="b"))
    for figure in (MEMORY, COLD_START):
        assert (found[figure].change, found[figure].worsening) == (0.0, None)
        assert found[figure].shown is Shown.UNKNOWN


def test_the_reference_itself_is_compared_over_no_reference() -> None:
    """Both chose what ratios are over: 1 against 1 says nothing, however slow the second is."""
    runs = []
    for seed, text in ((1, "a"), (2, "b")):
        run = finished(seed)
        runs.append(
            replace(run, choice=replace(run.choice, chosen="ort-fp32"), outcomes=(with_bytes(run.outcomes[0], text),))
        )
    found = by_name(*runs)
    for figure in (LATENCY, THROUGHPUT):
        assert (found[figure].shown, found[figure].change) == (Shown.UNKNOWN, None)
        assert "over itself" in found[figure].basis
    assert by_name(runs[0], finished(2))[LATENCY].shown is Shown.BETTER  # against another choice it tells


def test_a_ratio_without_its_interval_tells_nothing() -> None:
    run = finished(2, bytes_of="b")
    reference, chosen = run.outcomes
    assert chosen.measurement is not None
    bare = replace(chosen, measurement=replace(chosen.measurement, ratio_interval=None))
    found = by_name(finished(1), replace(run, outcomes=(reference, bare)))
    assert (found[LATENCY].shown, found[LATENCY].low) == (Shown.UNKNOWN, None)
    assert found[THROUGHPUT].shown is Shown.NOT_SHOWN


def test_nothing_chosen_leaves_nothing_to_compare() -> None:
    none = finished(2, asked=Requirements(max_size_bytes=1))
    assert none.choice.chosen is None
    assert {(d.shown, d.basis) for d in deltas(none, finished(1))} == {
        (Shown.UNKNOWN, "nothing was chosen in the first run")
    }


# ---------------------------------------------------------------------------------------------------------------- settings


def point(candidate: str, setting: Setting, ratio: float, ips: float, spread: float = 0.02) -> Point:
    interval = (ratio * (1 - spread), ratio * (1 + spread))
    rates = (ips * (1 - spread), ips * (1 + spread))
    stats = latency_stats((round(ratio * 5e6),) * 700)
    return Point(candidate, setting, stats, ips, rates, ratio, interval, 5.0, 60 << 20, 1 << 20, 0.0, 15, "measured")


def explored(run: Run, ratio: float, ips: float, streams: int = 1) -> Run:
    """The run after a search over settings: the choice in its best one, and the reference, too, which was searched as well."""
    points = (
        replace(point("ort-fp32", Setting(1), 1.0, 200.0), ratio_interval=(1.0, 1.0)),
        point("ort-fp32", Setting(2), 0.6, 333.0),
        point(CHOSEN, Setting(1), 0.4, 500.0),
        point(CHOSEN, Setting(2, streams), ratio, ips),
    )
    outcomes = tuple(in_setting(o, p) for o, p in zip(run.outcomes, (points[1], points[3]), strict=True))
    name = key(points[3])
    return replace(
        run, outcomes=outcomes, exploration=Exploration(points, 4, 1.0, 0, "all", (), name, name, name, name)
    )


def in_setting(outcome: Outcome, found: Point) -> Outcome:
    config = replace(outcome.candidate.run, threads=found.setting.threads, streams=found.setting.streams)
    assert outcome.measurement is not None
    figures = replace(
        outcome.measurement,
        latency_ms=found.latency_ms,
        throughput_ips=found.throughput_ips,
        ratio=found.ratio,
        ratio_interval=found.ratio_interval,
        settings_in_force={"intra_op_num_threads": str(found.setting.threads)},
    )
    return replace(outcome, candidate=replace(outcome.candidate, run=config), measurement=figures)


def test_where_settings_were_searched_ratios_are_over_the_reference_s_own_point() -> None:
    run = explored(finished(1), 0.2, 900.0, streams=2)
    own, base = standing(run), reference(run)
    assert own is not None and base is not None
    assert (own.ratio, own.rate) == (0.2, 900 / 200)
    assert own.rate_reach == pytest.approx(math.hypot(math.log(1 / 0.98), math.log(1 / 0.98)))
    assert (base.p50_ms, base.threads) == (5.0, 1)
    found = by_name(finished(2, bytes_of="b"), run)
    assert found[LATENCY].change == pytest.approx(-0.5, abs=0.05)
    assert (found[LATENCY].shown, found[THROUGHPUT].shown) == (Shown.BETTER, Shown.BETTER)


def test_the_same_bytes_in_another_setting_are_not_equal() -> None:
    found = by_name(finished(1), explored(finished(2), 0.2, 900.0))
    assert found[LATENCY].shown is Shown.BETTER
    assert by_name(explored(finished(1), 0.2, 900.0), explored(finished(2), 0.2, 900.0))[LATENCY].shown is Shown.EQUAL
    one, two = explored(finished(1), 0.2, 900.0), explored(finished(2), 0.2, 900.0, streams=2)
    assert by_name(one, two)[LATENCY].shown is not Shown.EQUAL


def test_a_race_tells_no_throughput_of_several_streams() -> None:
    run = explored(finished(1), 0.2, 900.0, streams=2)
    found = by_name(run, run, raced_anew(1.0))
    assert (found[THROUGHPUT].shown, found[LATENCY].shown) == (Shown.UNKNOWN, Shown.NOT_SHOWN)
    assert by_name(finished(1), finished(1), raced_anew(1.0))[THROUGHPUT].shown is Shown.NOT_SHOWN


# -------------------------------------------------------------------------------------------------------------------- anew


def comparison(ratio: float, shown: float = 1.04) -> Comparison:
    return Comparison(
        CompareVerdict.NOT_SHOWN, ratio, ratio / 1.02, ratio * 1.02, 1.03, shown, 2.0, 2.0 * ratio, 40, ""
    )


def raced_anew(ratio: float) -> Retaken:
    turns = Turns(tuple(100.0 + i for i in range(11)), tuple(ratio * (100.0 + i) for i in range(11)))
    return Retaken("local", comparison(ratio), comparison(ratio), turns, turns)


def test_figures_taken_anew_replace_the_stored_ones() -> None:
    found = by_name(finished(1), finished(1), raced_anew(1.2))
    assert {found[name].shown for name in (LATENCY, THROUGHPUT, MEMORY, COLD_START)} == {Shown.WORSE}
    assert found[LATENCY].change == pytest.approx(0.2)
    assert found[THROUGHPUT].change == pytest.approx(1 / 1.2 - 1)
    assert (found[LATENCY].low, found[LATENCY].high) == (pytest.approx(1.2 / 1.04 - 1), pytest.approx(1.2 * 1.04 - 1))
    assert found[MEMORY].worsening == pytest.approx((0.2, 0.2, 0.2))


def test_races_average_out() -> None:
    one = comparison(1.06)
    assert combined([one]) == one
    both = combined([one, comparison(0.98)])
    assert both.ratio == pytest.approx(math.sqrt(1.06 * 0.98))
    assert both.shown == pytest.approx(1.04 ** (1 / math.sqrt(2)))
    assert both.rounds == 80


# ------------------------------------------------------------------------------------------------------- bytes and answers


def test_a_size_is_exact() -> None:
    before, after = finished(1), finished(1)
    reference, chosen = after.outcomes
    assert chosen.artifact is not None
    files = tuple(replace(file, size_bytes=file.size_bytes + 1) for file in chosen.artifact.files)
    larger = replace(after, outcomes=(reference, replace(chosen, artifact=replace(chosen.artifact, files=files))))
    assert by_name(before, after)[SIZE].shown is Shown.EQUAL
    assert by_name(before, larger)[SIZE].shown is Shown.WORSE
    assert by_name(larger, before)[SIZE].shown is Shown.BETTER


def test_scores_of_the_same_samples_have_the_interval_of_both_drops() -> None:
    worse = finished(1, bytes_of="b", evaluation=evaluated(0.98, 0.01))
    found = by_name(finished(1), worse)[SCORE]
    assert (found.unit, found.shown) == ("top-1", Shown.WORSE)
    assert found.change == pytest.approx(-0.01)
    assert found.worsening == pytest.approx((0.01, 0.01 - 0.004 * math.sqrt(2), 0.01 + 0.004 * math.sqrt(2)))
    same = by_name(finished(1), finished(1, bytes_of="b"))[SCORE]
    assert same.shown is Shown.NOT_SHOWN
    assert by_name(finished(1), finished(1))[SCORE].shown is Shown.EQUAL


def test_a_metric_that_falls_to_be_better() -> None:
    """An error rate: its rise is for the worse."""
    before = finished(1, evaluation=evaluated(0.02, direction="lower"))
    after = finished(1, bytes_of="b", evaluation=evaluated(0.05, direction="lower"))
    assert by_name(before, after)[SCORE].shown is Shown.WORSE
    assert by_name(after, before)[SCORE].shown is Shown.BETTER


def test_scores_over_two_references_are_shares_or_unknown() -> None:
    retrained = {"model_sha256": "f" * 64, "bytes_of": "b"}
    found = by_name(finished(1), finished(1, evaluation=evaluated(0.9), **retrained))[SCORE]
    assert found.shown is Shown.WORSE
    wide = 1.96 * math.sqrt(0.9 * 0.1 / 2000 + 0.99 * 0.01 / 2000)
    assert found.worsening == pytest.approx((0.09, 0.09 - wide, 0.09 + wide), rel=1e-3)
    cosine = evaluated(unit="cosine", worse=None, better=None)
    found = by_name(finished(1, evaluation=cosine), finished(1, evaluation=cosine, **retrained))[SCORE]
    assert (found.shown, "another reference" in found.basis) == (Shown.UNKNOWN, True)


def test_scores_of_other_samples_or_metrics_are_not_compared() -> None:
    before = finished(1)
    splits = {**before.data.splits, "evaluation": replace(before.data.splits["evaluation"], sha256="9" * 64)}
    other = finished(1, data=replace(before.data, splits=splits))
    assert by_name(before, other)[SCORE].basis == "evaluated on other samples"
    iou = finished(1, evaluation=evaluated(metric="iou"))
    assert by_name(before, iou)[SCORE].basis == "scored by top-1 and by iou"
    none = finished(1, evaluation=None)
    assert by_name(before, none)[SCORE].basis == "the second run has no evaluation"
    assert by_name(none, none)[SCORE].basis == "the first run has no evaluation"
