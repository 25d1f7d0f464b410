"""What a report says in words, in tables and in charts, from records."""

import random
from dataclasses import replace

import pytest

from edgekit.core.profile import Layer
from edgekit.core.results import Load, Memory, Origin, Outcome, Verdict, VerdictCode
from edgekit.core.stats import latency_stats
from edgekit.core.tradeoffs import key
from edgekit.core.types import Arrivals, LatencyBudget, Prefer, Requirements
from edgekit.report import overview, tables
from edgekit.report.html import charts
from tests.records import candidate, outcome, predicted
from tests.report_desk import MIB, exploration, profiled, run, search, spread


def cells(table: tables.Table, row: str) -> dict[str, tables.Cell]:
    (found,) = [r for r in table.rows if r.cells[0].words == row]
    return dict(zip([c.heading for c in table.columns], found.cells, strict=True))


# --------------------------------------------------------------------------------------------------------------- overview


def test_the_verdict_tells_gains_and_costs_and_never_hides_a_loss() -> None:
    assert overview.verdict(run()) == (
        "ort-int8 is 2.50x as fast as the model as given (95% 2.45 to 2.55) and 75% smaller, "
        "at a drop of 0.0020 in top-1 (95% -0.0020 to 0.0060, n=500)"
    )
    heavy = run(outcome("ort-fp32", 1.0), outcome("ov-int8", 0.5, memory=60 * MIB, size=9 * MIB))
    assert "2.2x as large" in overview.verdict(heavy) and "with 20% more memory" in overview.verdict(heavy)
    level = run(outcome("ort-fp32", 1.0), outcome("ov-f32", 0.99))
    level = replace(level, choice=replace(level.choice, chosen="ov-f32"))
    assert overview.verdict(level).startswith(
        "ov-f32 is as fast as the model as given within the noise (0.99x its p50, 95%"
    )
    bare = run()
    blind = tuple(replace(o, measurement=replace(o.measurement, ratio_interval=None)) for o in bare.outcomes)
    assert "2.50x as fast as the model as given (no interval is known)" in overview.verdict(
        replace(bare, outcomes=blind)
    )
    busy = run(requirements=Requirements(prefer=Prefer.THROUGHPUT))
    (best,) = (o for o in busy.outcomes if o.name == busy.choice.chosen)
    assert best.measurement is not None
    wide = replace(best, measurement=replace(best.measurement, throughput_ips=8 * best.measurement.throughput_ips))
    busy = replace(busy, outcomes=tuple(wide if o.name == best.name else o for o in busy.outcomes))
    assert overview.verdict(busy).startswith(
        "ort-int8 has 20x the throughput of the model as given and is 2.50x as fast"
    )
    alone = run(outcome("ort-fp32", 1.0))
    assert overview.verdict(alone).startswith("The model as given, ort-fp32, is the right one for board: the only")


def test_each_stated_requirement_has_its_line_with_the_room_left() -> None:
    found = {c.requirement: c for c in overview.checks(run())}
    assert set(found) == {"accuracy drop", "p99 latency", "peak memory"}
    assert {c.verdict for c in found.values()} == {overview.MET}
    assert found["peak memory"].room == "22% to spare"
    asked = Requirements(max_drop=0.001, latency=LatencyBudget(0.1), min_throughput_ips=1e6, max_size_bytes=MIB // 2)
    missed = {c.requirement: c for c in overview.checks(run(requirements=asked))}
    assert set(missed) == {"accuracy drop", "p99 latency", "throughput", "size"}
    assert {c.verdict for c in missed.values()} == {overview.MISSED}
    assert missed["size"].room == "100% too much"


def test_what_was_not_measured_not_tried_on_data_or_does_not_work_is_said_beside_the_verdict() -> None:
    assert overview.caveats(run()) == (), "a collapse is the recipe's, and the table's"
    made = run(outcome("ov-int8", 0.4))
    dead = Outcome(candidate("ort-fp32"), verdicts=(Verdict(VerdictCode.DOES_NOT_RUN, "illegal instruction"),))
    broken = replace(made, outcomes=(dead, *made.outcomes), data=replace(made.data, synthetic=True))
    assert [caveat.partition(":")[0] for caveat in overview.caveats(broken)] == [
        "No data were given",
        "1 of 2 candidates do not work; the reason stands beside each.",
    ]
    assert "no faster" not in overview.verdict(broken) and "did not work here" in overview.verdict(broken)
    alone = {c.figure: c for c in overview.changes(broken)}
    assert (alone["p50 latency"].before, alone["p50 latency"].change) == ("-", "") and alone["size"].after == "4.0 MiB"
    guessed = overview.caveats(replace(made, target_origin=Origin.PREDICTED))
    assert guessed == ("Time and memory are predicted for board, not measured.",)
    asked = Requirements(max_memory_bytes=1 << 20)
    assert {c.room for c in overview.checks(run(requirements=asked)) if c.requirement == "peak memory"} == {
        "50x the limit"
    }


def test_the_chosen_setting_is_the_one_that_is_run_and_not_the_sweet_spot() -> None:
    made = run()
    assert made.exploration is not None and tables.chosen_setting(made) == "", "no point is as it is run"
    (best,) = (o for o in made.outcomes if o.name == "ort-int8")
    point = made.exploration.points[3]
    s = point.setting
    config = replace(
        best.candidate.run, threads=s.threads, batch=s.batch, cores=s.cores, options={"a": "1", **s.options}
    )
    tuned = replace(best, candidate=replace(best.candidate, run=config))
    made = replace(made, outcomes=tuple(tuned if o is best else o for o in made.outcomes))
    own = key(point)
    assert tables.chosen_setting(made) == own != made.exploration.sweet_spot
    assert [r.marked for r in tables.settings(made.exploration, own).rows].count(True) == 1
    assert [r.cells[1].words for r in tables.picked(made).rows if r.marked] == [own]
    drawn = {chart.name: chart.data for chart in charts.explored(made.exploration, own, 0.01)}
    groups = {spot[2]: spot[3] for spot in drawn["rate"]["spots"]}
    assert groups[f"{own} (chosen)"] == "chosen" and list(groups.values()).count("chosen") == 1
    assert groups[f"{made.exploration.sweet_spot} (sweet spot, highest throughput)"] == "picked"


def test_what_else_was_asked_and_how_a_candidate_runs_is_said() -> None:
    asked = Requirements(
        prefer=Prefer.THROUGHPUT, forbid=("bf16",), max_cores=2, cpus="0-1", power_mode="performance", batchable=False
    )
    assert overview.wishes(run(requirements=asked)) == (
        "preferred: throughput; at most 2 cores; CPUs 0-1; power mode performance; batchable: no; forbidden: bf16"
    )
    weighted = replace(asked, weights={Prefer.LATENCY: 2.0, Prefer.MEMORY: 1.0}, arrivals=Arrivals("server", 50.0))
    assert overview.wishes(run(requirements=weighted)).startswith(
        "preferred: latency 2, memory 1; arrivals: server at 50/s;"
    )
    made = run()
    tuned = tuple(
        replace(o, candidate=replace(o.candidate, run=replace(o.candidate.run, streams=2, batch=8, cores="0-1")))
        for o in made.outcomes
    )
    below = {r.cells[0].below for r in tables.candidates(replace(made, outcomes=tuned)).rows}
    assert below == {"1 thread, 2 streams, batch 8, CPUs 0-1"}
    assert {r.cells[0].below for r in tables.candidates(made).rows} == {""}


def test_too_few_runs_are_not_known_and_a_prediction_is_unproven() -> None:
    few = run(outcome("ort-fp32", 1.0, runs=20))
    short = overview.checks(run(few.outcomes[0], requirements=Requirements(latency=LatencyBudget(5.0, "p999"))))
    assert [c.verdict for c in short] == [overview.MET, overview.UNKNOWN]
    given = (predicted("ort-fp32", 1.0),)
    made = run(outcomes=given, choice=run(outcome("ort-fp32")).choice, target_origin=Origin.PREDICTED)
    assert overview.UNPROVEN in {c.verdict for c in overview.checks(made)}


def test_changes_say_which_way_is_better() -> None:
    found = {c.figure: c for c in overview.changes(run())}
    assert found["p50 latency"].better and found["p50 latency"].whole == "0.40x (95% 0.39 to 0.41)"
    assert found["throughput"].better and found["size"].better and found["size"].change == "0.25x"
    assert found["peak memory"].better is None, "the same"
    assert found["top-1"].better is None, "its interval holds no drop, too"
    level = run(outcome("ort-fp32", 1.0), outcome("ort-int8", 0.99, drop=0.008))
    level = replace(level, choice=replace(level.choice, chosen="ort-int8"))
    worse = {c.figure: c for c in overview.changes(level)}
    assert worse["top-1"].better is False and worse["top-1"].whole == "drop +0.0080 (95% +0.0040 to +0.0120)"
    assert worse["p50 latency"].better is None and worse["throughput"].better is None, "within the noise of the race"
    assert overview.changes(run(outcome("ort-int8"))) == (), "no model as given to set it beside"


# ----------------------------------------------------------------------------------------------------------------- tables


def test_candidates_come_fastest_first_and_those_that_do_not_work_last() -> None:
    table = tables.candidates(run())
    assert [r.cells[0].words for r in table.rows] == ["ort-int8", "ort-fp32", "ort-fp16", "ort-int8-dynamic"]
    assert [r.status for r in table.rows] == ["chosen", "feasible", "rejected", "collapsed"]
    assert [r.marked for r in table.rows] == [True, False, False, False]
    chosen = cells(table, "ort-int8")
    assert (chosen["ratio"].words, chosen["ratio"].below) == ("0.40", "0.39 to 0.41")
    assert (chosen["drop"].words, chosen["drop"].below) == ("+0.0020", "-0.0020 to +0.0060")
    assert chosen["size"].value == MIB and chosen["status"].below == "front"
    assert "over 64 MiB" in cells(table, "ort-fp16")["why"].words


def test_a_prediction_has_no_column_of_what_only_a_measurement_has() -> None:
    given = (predicted("ort-fp32", 1.0, memory=None),)
    made = run(outcomes=given, choice=run(outcome("ort-fp32")).choice, target_origin=Origin.PREDICTED)
    row = cells(tables.candidates(made), "ort-fp32")
    assert "p50 ms (predicted)" in row and not {"p99 ms", "cold ms"} & set(row)
    assert row["memory (predicted)"] == tables.UNKNOWN


def test_settings_put_the_picks_first_and_count_what_is_left_out() -> None:
    table = tables.settings(exploration(5))
    assert [r.status for r in table.rows[:2]] == ["picked", "picked"]
    assert {r.cells[0].below for r in table.rows[:2]} == {"sweet spot, highest throughput", "lowest latency, knee"}
    assert table.note == ""
    long = tables.settings(exploration(tables.MOST_POINTS + 3))
    assert len(long.rows) == tables.MOST_POINTS and long.note == "3 more points are in run.json"


def test_layers_have_their_precision_their_noise_and_a_profiles_time() -> None:
    found = search()
    assert found.attribution is not None
    table = tables.sensitivity(found, found.attribution, "ort-int8-mixed", profiled())
    first = cells(table, "/block/conv0/Conv")
    assert first["in ort-int8-mixed"].words == "floating point"
    assert first["share of time"].value == pytest.approx(0.05), "the engine's name for it has a suffix"
    assert cells(table, "/block/conv1/Conv")["in ort-int8-mixed"].words == "quantized"
    assert first["SQNR dB"].words == "10.0"
    path = "/a/conv/Conv"
    theirs = Layer(f"{path}/WithoutBiases", "Convolution", "brgconv_avx512_I8", 4.0, 0.5)
    given = Layer(f"{path}_output_0_nchwc", "Conv", "CPUExecutionProvider", 10.0, 0.5)
    row = cells(tables.timed_layers((theirs,), (given,)), theirs.name)
    assert (row["precision"].words, row["us"].words, row["us as given"].words) == ("int8", "4.0", "10.0")
    assert "us as given" not in cells(tables.timed_layers((theirs,)), theirs.name)
    bare = tables.sensitivity(found, found.attribution, None, None)
    assert "share of time" not in {c.heading for c in bare.columns}


def test_memory_and_operators() -> None:
    rows = tables.memory(run()).rows
    assert len(rows) == 8 and rows[-1].cells[3].value == 1.0
    blind = outcome("ort-fp32")
    assert blind.measurement is not None
    none = Memory(None, None, None, None)
    object.__setattr__(blind.measurement, "memory", none)
    assert tables.memory(run(blind)).rows == ()
    first = tables.operators(run()).rows[0]
    assert [c.words for c in first.cells[:4]] == ["Conv", "1", "10 M", "91%"]


# ----------------------------------------------------------------------------------------------------------------- charts


def test_a_front_is_what_no_other_beats_in_two_figures() -> None:
    points = [(1.0, 5.0), (2.0, 3.0), (3.0, 4.0), (4.0, 1.0), (1.0, 6.0)]
    assert charts.front_line(points, True, True) == [[1.0, 5.0], [2.0, 3.0], [4.0, 1.0]]
    assert charts.front_line(points, True, False) == [[1.0, 6.0]]
    assert charts.front_line([(1.0, 1.0), (2.0, 2.0)], True, False) == [[1.0, 1.0], [2.0, 2.0]]
    assert charts.front_line([(1.0, 1.0), (2.0, 2.0)], False, True) == [[1.0, 1.0], [2.0, 2.0]]
    rng = random.Random(1)
    cloud = [(rng.random(), rng.random()) for _ in range(200)]
    line = charts.front_line(cloud, True, True)
    beaten = [p for p in cloud if any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in cloud)]
    assert sorted(map(tuple, line)) == sorted(set(cloud) - set(beaten))


def test_what_collapsed_or_is_not_known_is_in_no_plot() -> None:
    drawn = {chart.name: chart.data for chart in charts.tradeoffs(run())}
    assert {spot[2]: spot[3] for spot in drawn["accuracy"]["spots"]} == {
        "ort-fp32": "reference",
        "ort-int8": "chosen",
        "ort-fp16": "rejected",
    }
    assert drawn["memory"]["y"]["limit"] == 64 and drawn["accuracy"]["y"]["limit"] is None, "ten times off"
    assert list(charts.tradeoffs(run(outcome("ort-fp32")))) == []


def test_a_wide_range_is_logarithmic() -> None:
    data = {c.name: c.data for c in charts.tradeoffs(run(outcome("ort-fp32", 100.0), outcome("ort-int8", 1.0)))}
    assert data["accuracy"]["x"]["log"] and not data["accuracy"]["y"]["log"]


def test_a_histogram_accounts_for_every_run() -> None:
    values = [ns / 1e6 for ns in (*spread(1.0, 5000), 90_000_000)]
    chart = charts.histogram("h", "t", {"a": values})
    drawn = sum(chart.data["series"][0]["y"]) / 100 * len(values)
    beyond = int(chart.caption.rpartition("not drawn: ")[2].split()[0])
    assert drawn + beyond == pytest.approx(len(values), rel=1e-3) and beyond >= 1
    flat = charts.histogram("h", "t", {"a": [2.0] * 10})
    assert sum(flat.data["series"][0]["y"]) == 100


def test_a_long_series_is_drawn_by_buckets_that_lose_no_peak() -> None:
    values = [1.0] * 10_000
    values[7_777] = 50.0
    middle, largest, xs = charts.bucketed(range(10_000), values)
    assert len(middle) == len(largest) == len(xs) <= charts.MOST_BUCKETS
    assert set(middle) == {1.0} and max(largest) == 50.0
    assert charts.bucketed([1, 2], [3.0, 4.0]) == ([3.0, 4.0], [3.0, 4.0], [1.0, 2.0])


def test_heat_and_clock_are_drawn_where_they_were_told() -> None:
    names = {c.name: c.data for c in charts.profile_charts(profiled(), 0)}
    assert [s["label"] for s in names["profile-0-conditions"]["series"]] == ["hottest zone, °C", "fastest clock, MHz"]
    assert names["profile-0-conditions"]["series"][0]["y"][0] == 45.0
    silent = profiled(latency_file=None, figures=None)
    assert list(charts.profile_charts(silent.__class__(silent.profile), 0)) == []


def test_load_and_latency_records_are_as_the_desk_makes_them() -> None:
    """The desk's scattered latencies support p99, or the tests above would test dashes."""
    assert latency_stats(spread(1.0)).p99 is not None
    assert Load(1, None, 2, 3, 4).process_to_first_inference_ms == 4
