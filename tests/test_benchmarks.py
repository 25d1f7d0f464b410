"""What the benchmarks conclude from figures: each bar is met by good ones and missed by bad ones."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import compare, tools, turns, upload
from benchmarks.runner import Row, misses
from benchmarks.turns import Figures
from edgekit.core.compare import CompareVerdict
from edgekit.errors import ResourceLimit

REPORT = """\
[ INFO ]   NUM_STREAMS: 1
[ INFO ]   INFERENCE_NUM_THREADS: 2
[ INFO ] Count:            3020 iterations
[ INFO ] Duration:         1000.00 ms
[ INFO ] Latency:
[ INFO ]    Median:        450.99 us
[ INFO ] Throughput:   3018.28 FPS
"""
IN_FORCE = {"NUM_STREAMS": "1", "INFERENCE_NUM_THREADS": "2"}
MATCH = tools.Match("a tool", 1, (tools.P50,), lambda _: Figures(1, 1), lambda _: Figures(1, 1))


def judged(quantity, slower, noise=0.001, twin=1.0, rounds=15):
    """edgekit takes `slower` times the tool's time, every other round a little more or less."""
    own = [slower * (1 + noise * (-1) ** i) for i in range(rounds)]
    found = {"own": own, "other": [1.0] * rounds, "twin": [twin * time for time in own]}
    return tools.judge(
        "m", MATCH, quantity, {key: [Figures(t, 1 / t) for t in times] for key, times in found.items()}
    ).verdict


@pytest.mark.parametrize("quantity", [tools.P50, tools.THROUGHPUT])
def test_a_bar_is_missed_by_what_is_slower_beyond_the_noise(quantity):
    assert judged(quantity, 1.0) == tools.MET
    assert judged(quantity, 1.1) == tools.MISSED
    assert judged(quantity, 1.1, noise=0.2) == tools.UNSHOWN
    assert judged(quantity, 1.1, twin=1.2) == tools.UNSHOWN
    assert judged(quantity, 0.8) == tools.BETTER
    assert judged(quantity, 1.1, rounds=7) == tools.FEW


def test_each_quantity_has_its_own_bar():
    assert judged(tools.P50, 1.04) == tools.MISSED
    assert judged(tools.THROUGHPUT, 1.04) == tools.MET


def test_what_needs_a_word_is_named():
    row = tools.Row("m", MATCH, tools.P50, 1.1, 1.0, (1.1, 1.1, 1.1), (1.0, 1.0), tools.MISSED)
    assert tools.summary([row]) == "0 of 1 bars are met. Missed beyond the noise: m p50 ms against a tool, threads 1."


def test_the_report_of_benchmark_app_is_read():
    assert turns.read_benchmark_app(REPORT, IN_FORCE) == Figures(0.45099, 3020)
    assert turns.read_benchmark_app(REPORT.replace("450.99 us", "1.25 ms"), IN_FORCE).p50_ms == 1.25


@pytest.mark.parametrize(
    "text",
    [
        "",
        REPORT.replace("Median", "Middle"),
        REPORT.replace("NUM_STREAMS: 1", "NUM_STREAMS: 2"),
        REPORT + "[ INFO ] Fill input 'image' with random values \n",
    ],
)
def test_another_report_of_benchmark_app_is_refused(text):
    with pytest.raises(ResourceLimit):
        turns.read_benchmark_app(text, IN_FORCE)


@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        (["float32"], ["-ip", "f32"]),
        (["int64", "int64"], ["-ip", "i64"]),
        (["float16", "bool"], ["-iop", "0:f16,1:bool"]),
    ],
)
def test_inputs_keep_their_types_in_benchmark_app(dtypes, words, tmp_path):
    arrays = {str(index): np.zeros(2, dtype) for index, dtype in enumerate(dtypes)}
    assert turns.input_types(turns.save(arrays, tmp_path / "inputs")) == words


@pytest.mark.parametrize(
    ("model", "p50_ms", "ratio", "first_ms", "peak_mib", "missed"),
    [
        ("digits", 0.3, 1.2, (40, 167), (32, 57), []),
        ("digits", 0.3, 1.0, (90, 167), (40, 57), ["first answer", "peak RSS"]),
        ("magika", 4.5, 1.02, (66, 180), (44, 68), []),
        ("magika", 4.5, 1.06, (90, 180), (50, 68), ["p50", "first answer", "peak RSS"]),
    ],
)
def test_the_runners_bars(model, p50_ms, ratio, first_ms, peak_mib, missed):
    found = misses(Row(model, 1, p50_ms, ratio, (ratio, ratio), (0.98, 1.03), first_ms, peak_mib))
    assert [words.partition(" of ")[0] for words in found] == missed


@pytest.mark.parametrize(("called", "found", "met"), [(5, 45, True), (6, 45, False), (5, 44, False)])
def test_the_bars_of_comparisons(called: int, found: int, met: bool) -> None:
    no, slower = CompareVerdict.NOT_SHOWN, CompareVerdict.SLOWER
    faster = CompareVerdict.FASTER
    one = (1.0,) * 50
    equal = compare.Tally("equal", {no: 50 - called, slower: called, faster: 0}, one, one)
    changed = compare.Tally("changed", {no: 50 - found, slower: found, faster: 0}, one, one)
    assert compare.met(equal, changed) == met


GOOD = upload.Tally("openssh", 200, 200, 700, 700 << 16, 900, 0, 1.0)
BAD = ({"exact": 199}, {"beyond_bytes": (700 << 16) + 1}, {"doubles": 1}, {"cuts": 0}, {"writers": 0})


def test_the_bars_of_uploads() -> None:
    assert GOOD.met
    assert not any(replace(GOOD, **flaw).met for flaw in BAD)
