"""`requirements.toml` and its flags: what is read, what wins, what is refused and how it is told."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cli.make import optimize
from edgekit.core.conflicts import conflicts, remarks, require_consistent, target_conflicts
from edgekit.core.types import Arrivals, LatencyBudget, Prefer, Requirements, Sources
from edgekit.core.wishes import KEYS, Settled, read_file, read_flags, settle
from edgekit.errors import InputRejected, UsageError
from edgekit.sandbox import decode, encode
from tests.conftest import ROOT, SAMPLE, Cli
from tests.records import MIB, target

WHOLE = """
schema = 1
prefer = { latency = 2, memory = 1 }
forbid = ["bf16"]

[latency]
budget = "20ms"
percentile = "p95"
scenario = "fixed-rate"
rate = 30

[throughput]
min = 25

[data]
metric = "top-1"
max_drop = 0.02
frame_rate = "30fps"
sources = 2
batchable = false

[infrastructure]
memory = "128MiB"
storage = "20MB"
cores = "0-1,4"
power_mode = "powersave"
cold_start = "0.5s"
"""


def settled(text: str = "schema = 1", **flags: Any) -> Settled:
    """What a file and flags come to; a flag is named by its key, with a double underscore for the dot."""
    return settle(
        read_file(text, "my.toml"), read_flags({key.replace("__", "."): value for key, value in flags.items()})
    )


def asked(text: str = "schema = 1", **flags: Any) -> Requirements:
    return settled(text, **flags).requirements


def test_a_whole_file_is_read() -> None:
    found = settled(WHOLE)
    assert found.metric == "top-1"
    assert found.requirements == Requirements(
        max_drop=0.02,
        latency=LatencyBudget(20.0, "p95"),
        min_throughput_ips=25.0,
        max_memory_bytes=128 * MIB,
        max_size_bytes=20_000_000,
        prefer=Prefer.LATENCY,
        forbid=("bf16",),
        arrivals=Arrivals("fixed-rate", 30.0),
        sources=Sources(frame_rate=30.0, count=2),
        batchable=False,
        max_cold_start_ms=500.0,
        max_cores=3,
        cpus="0-1,4",
        power_mode="powersave",
        weights={Prefer.LATENCY: 2.0, Prefer.MEMORY: 1.0},
    )


def test_requirements_are_kept_in_a_run_and_read_back() -> None:
    asked_for = settled(WHOLE).requirements
    assert decode(encode(asked_for), Requirements) == asked_for
    of_before = b'{"max_drop":0.01,"latency":null,"min_throughput_ips":null,"max_memory_bytes":null,"prefer":"size"}'
    assert decode(of_before, Requirements) == Requirements(prefer=Prefer.SIZE)


def test_nothing_stated_is_what_it_always_was() -> None:
    assert settled() == Settled(Requirements(), None)


def test_flags_win_key_by_key() -> None:
    found = asked(WHOLE, latency__budget="5ms", infrastructure__cores="2", prefer="size", data__max_drop=0.5)
    assert found.latency == LatencyBudget(5.0, "p95")  # the file says otherwise than p99, and the flag does not
    assert (found.max_cores, found.cpus, found.prefer, found.weights, found.max_drop) == (2, "", Prefer.SIZE, {}, 0.5)
    assert found.max_memory_bytes == 128 * MIB


def test_a_flags_own_percentile_wins_over_the_files() -> None:
    assert asked(WHOLE, latency__budget="p50:5ms").latency == LatencyBudget(5.0, "p50")


def test_a_sound_calls_for_its_rate_over_its_hop() -> None:
    found = asked('schema = 1\n[data]\nsample_rate = "16kHz"\nhop = 512\nsources = 4')
    assert found.rate_ips == pytest.approx(125.0)
    assert found.needed_ips == found.rate_ips
    assert asked(throughput__min=200.0).needed_ips == 200.0
    assert asked().needed_ips is None


@pytest.mark.parametrize(
    ("text", "first", "weights"),
    [
        ("memory", Prefer.MEMORY, {}),
        ("memory=1", Prefer.MEMORY, {}),
        ("latency=1,throughput=3", Prefer.THROUGHPUT, {Prefer.THROUGHPUT: 3.0, Prefer.LATENCY: 1.0}),
        ("latency=0, size=0.5", Prefer.SIZE, {}),
    ],
)
def test_preferences(text: str, first: Prefer, weights: dict[Prefer, float]) -> None:
    for found in (asked(prefer=text), asked(f'schema = 1\nprefer = "{text}"')):
        assert (found.prefer, dict(found.weights)) == (first, weights)


# ------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("schema = 1\n[latncy]\nbudget = '1ms'", "latncy: unknown key, did you mean 'latency'?"),
        ("schema = 1\n[latency]\nbuget = '1ms'", "latency.buget: unknown key, did you mean 'budget'?"),
        ("schema = 1\n[latency]\nmemory = '1MiB'", "did you mean 'infrastructure.memory'?"),
        ("schema = 1\n[latency]\nzzz = 1", "latency.zzz: unknown key"),
        ("schema = 1\nlatency = '20ms'", "latency: must be a table"),
        ("[latency]\nbudget = '1ms'", "schema: is missing"),
        ("schema = 7", "schema 7 is not known"),
        ("schema = 1\n[latency]\nbudget = 20", "latency.budget: must be text"),
        ("schema = 1\n[latency]\nbudget = '20MiB'", "latency.budget: '20MiB' needs a unit: us, ms or s"),
        ("schema = 1\n[latency]\nbudget = '0ms'", "latency.budget: 0.0 is not a positive number"),
        ("schema = 1\n[latency]\nbudget = '1ms'\npercentile = 'p98'", "did you mean p9"),
        ("schema = 1\n[latency]\nscenario = 'fixed rate'\nrate = 3", "did you mean fixed-rate?"),
        ("schema = 1\n[throughput]\nmin = '50'", "throughput.min: must be a number"),
        ("schema = 1\n[throughput]\nmin = nan", "throughput.min"),
        (f"schema = 1\n[throughput]\nmin = 1{'0' * 400}", "throughput.min: is no number of this world"),
        ("schema = 1\n[data]\nframe_rate = '30ms'", "data.frame_rate: '30ms' is no rate"),
        ("schema = 1\n[data]\nmax_drop = -0.1", "data.max_drop"),
        ("schema = 1\n[data]\nbatchable = 'yes'", "data.batchable: must be true or false"),
        ("schema = 1\n[data]\nsources = 0", "data.sources: must be a whole number"),
        ("schema = 1\n[data]\nhop = 1.5", "data.hop: must be a whole number"),
        ("schema = 1\n[infrastructure]\nmemory = '128ms'", "infrastructure.memory: '128ms' needs a unit: B, kB"),
        ("schema = 1\n[infrastructure]\nmemory = '9999999999GiB'", "infrastructure.memory"),
        ("schema = 1\n[infrastructure]\nmemory = '0.1B'", "infrastructure.memory"),
        ("schema = 1\n[infrastructure]\ncores = '3-1'", "infrastructure.cores: '3-1' is no rising list of cpus"),
        ("schema = 1\n[infrastructure]\ncores = '0-2,1'", "no rising list"),
        ("schema = 1\n[infrastructure]\ncores = true", "infrastructure.cores: must be a whole number"),
        ("schema = 1\n[infrastructure]\npower_mode = 'powersafe'", "did you mean powersave?"),
        ("schema = 1\nprefer = 'lattency'", "prefer: unknown preference 'lattency'; did you mean latency?"),
        ("schema = 1\nprefer = { latency = 0 }", "prefer: nothing weighs more than 0"),
        ("schema = 1\nprefer = { latency = -1 }", "prefer"),
        ("schema = 1\nprefer = { latency = 'much' }", "prefer.latency: must be a number"),
        ("schema = 1\nforbid = 'bf16'", "forbid: must be a list of text"),
        ("schema = 1\nforbid = ['bf61']", "forbid: nothing is called 'bf61'; did you mean bf16?"),
        ("schema = 1\n[latency", "not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_names_the_file_and_the_key(text: str, says: str) -> None:
    with pytest.raises(InputRejected) as refused:
        settled(text)
    assert str(refused.value).startswith("my.toml: ")
    assert says in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"latency__budget": "20"}, "--latency-budget: '20' needs a unit"),
        ({"prefer": "latency=2,latency=1"}, "--prefer: 'latency=2,latency=1' is no list of weights"),
        ({"prefer": "latency="}, "--prefer"),
        ({"infrastructure__cores": "0"}, "--cores: must be a whole number from 1"),
        ({"infrastructure__cores": "all"}, "--cores: 'all' is no rising list of cpus"),
        ({"infrastructure__cold_start": "5MiB"}, "--max-cold-start"),
        ({"data__sample_rate": "fast"}, "--sample-rate"),
    ],
)
def test_what_is_wrong_in_a_flag_names_the_flag(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        asked(**flags)
    assert says in str(refused.value)


CONTRADICTIONS = [
    ("[latency]\npercentile = 'p50'", "a percentile of the latency is stated, and no budget"),
    ("[latency]\nbudget = 'p50:9ms'\npercentile = 'p99'", "the budget is of p50, and the percentile p99"),
    ("[latency]\nrate = 30", "it is not said how"),
    ("[latency]\nscenario = 'server'", "requests come at a rate in the server scenario, and none is given"),
    ("[latency]\nscenario = 'single-stream'\nrate = 30", "do not come at a rate in the single-stream scenario"),
    ("[latency]\nscenario = 'offline'\nbudget = '9ms'", "no request has a latency"),
    ("[data]\nframe_rate = 30\nsample_rate = 16000\nhop = 160", "frames or samples, not both"),
    ("[data]\nsample_rate = 16000", "only one of the two is given"),
    ("[data]\nhop = 160", "only one of the two is given"),
    ("[data]\nsources = 2", "not said what the sources deliver"),
    ("[throughput]\nmin = 50\n[data]\nframe_rate = 30", "50/s are asked for, and the data deliver 1 x 30/s = 30/s"),
    ("[throughput]\nmin = 126\n[data]\nsample_rate = 16000\nhop = 128", "1 x 16000 Hz / 128 = 125/s"),
    (
        "[latency]\nscenario = 'fixed-rate'\nrate = 61\n[data]\nframe_rate = 30\nsources = 2",
        "come at 61/s, and the data deliver 2 x 30/s = 60/s",
    ),
]


@pytest.mark.parametrize(("text", "says"), CONTRADICTIONS)
def test_a_contradiction_in_a_file_is_refused(text: str, says: str) -> None:
    with pytest.raises(InputRejected) as refused:
        settled("schema = 1\n" + text)
    assert says in str(refused.value)
    assert "my.toml: " in str(refused.value)
    assert refused.value.next_step


def test_a_contradiction_between_a_flag_and_the_file_names_both() -> None:
    with pytest.raises(UsageError) as refused:
        asked("schema = 1\n[data]\nframe_rate = 30", throughput__min=50.0)
    assert refused.value.where == "--min-throughput and my.toml: data.frame_rate"


@pytest.mark.parametrize(
    "text",
    [
        "[throughput]\nmin = 60\n[data]\nframe_rate = 30\nsources = 2",
        "[latency]\nscenario = 'fixed-rate'\nrate = 15\n[data]\nframe_rate = 30",  # every second frame
        "[latency]\nbudget = '50ms'\n[data]\nframe_rate = 30",  # what is looser than the frame rate can be met
        "[latency]\nbudget = 'p50:9ms'\npercentile = 'p50'",
    ],
)
def test_what_can_be_met_together_is_no_contradiction(text: str) -> None:
    assert list(conflicts(asked("schema = 1\n" + text))) == []


def test_no_more_cores_than_the_target_has() -> None:
    board = target()
    assert not list(target_conflicts(Requirements(max_cores=4), board, 4))
    with pytest.raises(UsageError, match="5 cores may be used, and board has 4"):
        require_consistent(Requirements(max_cores=5), board)
    with pytest.raises(UsageError, match="3 threads are asked for, and 2 cores may be used"):
        require_consistent(Requirements(max_cores=2), board, threads=3)


def test_what_binds_nothing_or_is_not_shown_is_remarked_on() -> None:
    loose = asked(latency__budget="50ms", data__frame_rate="30", infrastructure__power_mode="powersave")
    first, second = remarks(loose, target(), "performance")
    assert "every 33.3 ms" in first and "50 ms binds nothing" in first
    assert "powersave is not shown to be met: what measured has performance" in second
    assert not list(remarks(asked(latency__budget="30ms", data__frame_rate="30"), target(), None))
    assert not list(remarks(loose, target(), "powersave"))[1:]


# ------------------------------------------------------------------------------------------------ one table for all of it


def test_every_key_has_its_flag_and_its_place_in_the_documents() -> None:
    flags = {name for parameter in optimize.params for name in parameter.opts}
    page = (ROOT / "docs" / "requirements.md").read_text()
    for key, entry in KEYS.items():
        assert entry.flag in flags, key
        assert f"`{entry.flag}`" in page, key
        assert re.search(rf"^\| `{re.escape(key)}` ", page, re.M), key


def test_the_example_is_read() -> None:
    found = settle(read_file((ROOT / "examples" / "requirements.toml").read_text(), "example"), {})
    assert found.requirements.latency is not None
    for block in re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "requirements.md").read_text(), re.S):
        read_file(block, "docs")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["20ms", "1-2", "16kHz"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), VALUES, max_size=4))
def test_no_value_ends_in_anything_but_a_clear_refusal(values: dict[str, Any]) -> None:
    try:
        found = settle({}, read_flags(values)).requirements
    except (UsageError, InputRejected):
        pass
    else:
        assert decode(encode(found), Requirements) == found


def test_from_the_command_line(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text("schema = 1\n[data]\nframe_rate = 30\n")
    base = (
        "optimize",
        SAMPLE / "model.onnx",
        "--target",
        "cpu-arm",
        "-o",
        "run",
        "--requirements",
        "requirements.toml",
    )
    found = edgekit(*base, "--min-throughput", "50", cwd=tmp_path)
    assert (found.code, found.error.count("requirements.toml: data.frame_rate")) == (2, 1)
    (tmp_path / "requirements.toml").write_text("schema = 1\n[data]\nframerate = 30\n")
    found = edgekit(*base, cwd=tmp_path)
    assert found.code == InputRejected.exit_code
    assert "did you mean 'frame_rate'?" in found.error
    (tmp_path / "requirements.toml").write_bytes(b"\xff")
    assert edgekit(*base, cwd=tmp_path).code == InputRejected.exit_code
    (tmp_path / "requirements.toml").unlink()
    assert "requirements.toml" in edgekit(*base, cwd=tmp_path).error
    assert not (tmp_path / "run").exists()
