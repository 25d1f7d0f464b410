"""A policy's text, its checks, and the gate they make: closed wherever something was not shown."""

from dataclasses import replace

import pytest

from edgekit.core.checks import Check, Gate, Status, is_settled, judge, raise_unless_passed
from edgekit.core.delta import Delta, Shown
from edgekit.core.deltas import deltas
from edgekit.core.policy import CHANGES, SECTIONS, Policy, read_policy
from edgekit.core.results import Memory, Origin
from edgekit.core.run import Run
from edgekit.core.types import Requirements
from edgekit.errors import InputRejected, RequirementsNotMet, Untrustworthy, UsageError
from tests.conftest import ROOT
from tests.runs import evaluated, finished

EVERYTHING = """
schema = 1
[latency]
percentile = "p50"
budget = "20ms"
max_increase = 0.2
[throughput]
min = 50
max_decrease = 0.2
[data]
metric = "top-1"
max_drop = 0.01
min = 0.98
max = 1
max_loss = 0.005
[infrastructure]
memory = "128MiB"
storage = "20MiB"
cold_start = "500ms"
max_memory_increase = 0.1
max_storage_increase = 0.05
max_cold_start_increase = 0.25
"""


def read(body: str) -> Policy:
    return read_policy(f"schema = 1\n{body}", "policy.toml")


def checked(body: str, run: Run, against: Run | None = None) -> dict[str, Check]:
    found = judge(read(body), run, deltas(against, run) if against is not None else None)
    return {check.key: check for check in found}


# ----------------------------------------------------------------------------------------------------------------- reading


def test_every_key_is_read() -> None:
    policy = read_policy(EVERYTHING, "policy.toml")
    assert (policy.percentile, policy.metric) == ("p50", "top-1")
    asked = {f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys}
    assert {*policy.limits, *policy.regressions, "latency.percentile", "data.metric"} == asked
    assert set(policy.regressions) == CHANGES
    assert policy.limits["latency.budget"] == 20
    assert policy.limits["infrastructure.memory"] == 128 << 20


def test_every_key_stands_in_the_documentation() -> None:
    page = (ROOT / "docs" / "policy.md").read_text()
    for section, keys in SECTIONS.items():
        assert f"`[{section}]`" in page
        for key in keys:
            assert f"`{key}`" in page


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "asks for nothing"),
        ("[latency]", "asks for nothing"),
        ("[lattency]\nbudget = '1ms'", "did you mean 'latency'"),
        ("[latency]\nbugdet = '1ms'", "did you mean 'budget'"),
        ("budget = '1ms'", "belongs into [latency]"),
        ("max_memory_increase = 0.1", "belongs into [infrastructure]"),
        ("[latency]\nbudget = '20'", "needs a unit"),
        ("[latency]\nbudget = '20 parsecs'", "needs a unit"),
        ("[latency]\nbudget = 20", "must be text"),
        ("[latency]\nbudget = 'p50:20ms'", "percentile"),
        ("[latency]\nbudget = '0ms'", "positive"),
        ("[latency]\nbudget = '-1ms'", "number with a unit"),
        ("[latency]\npercentile = 'p42'\nbudget = '1ms'", "p99"),
        ("[latency]\npercentile = 'p50'\nmax_increase = 0.1", "there is none"),
        ("[latency]\nmax_increase = 15", "from 0 to 10"),
        ("[latency]\nmax_increase = -0.1", "from 0"),
        ("[latency]\nmax_increase = nan", "from 0"),
        ("[latency]\nmax_increase = true", "number"),
        ("[throughput]\nmin = 'fast'", "number"),
        ("[infrastructure]\nmemory = '128'", "needs a unit"),
        ("[infrastructure]\nmemory = '1e9GiB'", "number with a unit"),
        ("[data]\nmetric = 7", "text"),
        ("latency = 3", "table"),
        ("[latency", "not TOML"),
    ],
)
def test_what_is_wrong_is_refused_with_its_key(body: str, says: str) -> None:
    with pytest.raises(InputRejected) as refused:
        read(body)
    assert says in str(refused.value)
    assert refused.value.where == "policy.toml"


def test_another_schema_is_refused() -> None:
    with pytest.raises(InputRejected, match="schema: 2 is not known"):
        read_policy("schema = 2\n[latency]\nbudget = '1ms'", "policy.toml")
    with pytest.raises(InputRejected, match="schema: is missing"):
        read_policy("[latency]\nbudget = '1ms'", "policy.toml")


# ------------------------------------------------------------------------------------------------------------------ limits


def test_a_run_that_holds_passes_every_check() -> None:
    before = finished(1)
    found = judge(read_policy(EVERYTHING, "p"), finished(2), deltas(before, finished(2)))
    assert {check.status for check in found} == {Status.PASSED}
    asked = {f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys}
    assert {check.key for check in found} == asked - {"latency.percentile"}


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("[latency]\nbudget = '1ms'", "2."),
        ("[throughput]\nmin = 5000", "/s"),
        ("[data]\nmin = 0.995", "0.99"),
        ("[data]\nmax = 0.5", "0.99"),
        ("[infrastructure]\nmemory = '49MiB'", "50 MiB"),
        ("[infrastructure]\nstorage = '1000kB'", "1 MiB"),
        ("[infrastructure]\ncold_start = '3ms'", "4 ms"),
    ],
)
def test_each_limit_can_fail(body: str, found: str) -> None:
    """Negative controls: the check above passes none of these by default."""
    (check,) = checked(body, finished(1)).values()
    assert check.status is Status.FAILED
    assert found in check.found
    assert "by" in check.reason


def test_a_drop_must_hold_with_its_interval() -> None:
    body = "[data]\nmax_drop = 0.01"
    assert checked(body, finished(1))["data.max_drop"].status is Status.PASSED
    wide = evaluated(drop=0.005, ci_low=-0.01, ci_high=0.03)
    check = checked(body, finished(1, evaluation=wide))["data.max_drop"]
    assert check.status is Status.FAILED
    assert "may be up to 0.03" in check.reason


@pytest.mark.parametrize(
    ("body", "changes", "why"),
    [
        ("[latency]\nbudget = '1s'", {"target_origin": Origin.PREDICTED}, "predicted, not measured"),
        ("[latency]\nbudget = '1s'", {"target_origin": Origin.HOST}, "predicted, not measured"),
        ("[throughput]\nmin = 1", {"target_origin": Origin.PREDICTED}, "predicted, not measured"),
        ("[infrastructure]\nmemory = '1GiB'", {"target_origin": Origin.PREDICTED}, "predicted, not measured"),
        ("[data]\nmax_drop = 1", {"evaluation": None}, "no evaluation"),
        ("[data]\nmin = 0", {"evaluation": None}, "no evaluation"),
        ("[data]\nmetric = 'top-1'", {"evaluation": None}, "no evaluation"),
        ("[data]\nmetric = 'iou'", {}, "judged by top-1"),
    ],
)
def test_what_was_not_measured_does_not_pass(body: str, changes: dict[str, object], why: str) -> None:
    (check,) = checked(body, finished(1, **changes)).values()
    assert check.status is Status.NOT_MEASURED
    assert why in check.reason


def test_a_percentile_of_too_few_runs_was_not_measured() -> None:
    run = finished(1)
    chosen = run.outcomes[1]
    assert chosen.measurement is not None
    few = replace(chosen.measurement.latency_ms, count=100, p99=None)
    thin = replace(
        run, outcomes=(run.outcomes[0], replace(chosen, measurement=replace(chosen.measurement, latency_ms=few)))
    )
    check = checked("[latency]\nbudget = '1s'", thin)["latency.budget"]
    assert (check.status, check.reason) == (Status.NOT_MEASURED, "100 runs, p99 takes 662")
    mute = replace(chosen.measurement, memory=Memory(None, None, None, None))
    mute_run = replace(run, outcomes=(run.outcomes[0], replace(chosen, measurement=mute)))
    check = checked("[infrastructure]\nmemory = '1GiB'", mute_run)["infrastructure.memory"]
    assert (check.status, check.reason) == (Status.NOT_MEASURED, "the system did not tell")


def test_a_run_that_chose_nothing_fails_whatever_is_asked() -> None:
    none = finished(1, asked=Requirements(max_size_bytes=1))
    (check,) = checked("[infrastructure]\nstorage = '1GiB'", none).values()
    assert (check.key, check.status) == ("choice", Status.FAILED)
    assert "nearest ort-int8" in check.reason


# ------------------------------------------------------------------------------------------------------------- regressions


def test_a_bound_on_a_change_needs_a_baseline() -> None:
    with pytest.raises(UsageError, match="--against"):
        checked("[latency]\nmax_increase = 0.1", finished(1))


def delta(change: float, low: float, high: float) -> Delta:
    return Delta("p50 latency", "ms", 1.0, 1.0 + change, change, low, high, True, Shown.UNKNOWN, "a race")


@pytest.mark.parametrize(
    ("change", "reach", "status"),
    [
        (0.0, 0.05, Status.PASSED),
        (0.04, 0.05, Status.PASSED),
        (-0.3, 0.2, Status.PASSED),
        (0.04, 0.07, Status.UNDECIDED),  # the worse end is over a tenth
        (0.0, 0.2, Status.UNDECIDED),
        (0.15, 0.2, Status.UNDECIDED),  # over a tenth, and it may be no change at all
        (0.15, 0.06, Status.FAILED),
        (0.11, 0.05, Status.FAILED),
        (0.5, 0.05, Status.FAILED),
    ],
)
def test_a_regression_is_judged_by_its_interval(change: float, reach: float, status: Status) -> None:
    run = finished(1)
    found = judge(read("[latency]\nmax_increase = 0.1"), run, [delta(change, change - reach, change + reach)])
    assert [check.status for check in found] == [status]


def test_without_an_interval_nothing_is_decided() -> None:
    found = checked("[infrastructure]\nmax_memory_increase = 0.5", finished(2, bytes_of="b"), finished(1))
    check = found["infrastructure.max_memory_increase"]
    assert (check.status, check.value) == (Status.UNDECIDED, 0.0)
    assert "no interval" in check.reason


def test_a_change_that_was_measured_on_one_side_only_was_not_measured() -> None:
    before = finished(1, evaluation=None)
    check = checked("[data]\nmax_loss = 1", finished(2), before)["data.max_loss"]
    assert (check.status, check.reason) == (Status.NOT_MEASURED, "the first run has no evaluation")
    none = finished(1, asked=Requirements(max_size_bytes=1))
    check = checked("[latency]\nmax_increase = 1", finished(2), none)["latency.max_increase"]
    assert (check.status, check.reason) == (Status.NOT_MEASURED, "nothing was chosen in the first run")


def test_a_loss_of_score_may_be_up_to_twice_what_is_allowed() -> None:
    body = "[data]\nmax_loss = 0.005"
    worse = finished(2, bytes_of="b", evaluation=evaluated(0.987, 0.003))
    assert checked(body, worse, finished(1))["data.max_loss"].status is Status.PASSED
    much = finished(2, bytes_of="b", evaluation=evaluated(0.98, 0.01))
    assert checked(body, much, finished(1))["data.max_loss"].status is Status.FAILED


def test_a_slowdown_closes_the_gate_and_an_equal_rerun_opens_it() -> None:
    """By stored figures, in a quiet race: 19 of 20 each, and what does not pass is at most undecided."""
    body = "[latency]\nmax_increase = 0.15"
    equal = [
        checked(body, finished(2 * s, bytes_of="b"), finished(2 * s + 1))["latency.max_increase"] for s in range(20)
    ]
    slow = [
        checked(body, finished(2 * s, bytes_of="b", ratio=0.4 * 1.25), finished(2 * s + 1))["latency.max_increase"]
        for s in range(20)
    ]
    assert sum(check.status is Status.PASSED for check in equal) >= 19
    assert not any(check.status is Status.FAILED for check in equal)
    assert sum(check.status is Status.FAILED for check in slow) >= 19
    assert not any(check.status is Status.PASSED for check in slow)


# ----------------------------------------------------------------------------------------------------------------- the end


def gate(*statuses: Status, retaken: bool = False) -> Gate:
    checks = tuple(Check(f"c{i}", status, "", "") for i, status in enumerate(statuses))
    passed = all(status is Status.PASSED for status in statuses)
    return Gate(1, "run", None, "p", "m", "t", "ort-int8", retaken, passed, checks)


def test_the_exit_code_says_how_it_ended() -> None:
    raise_unless_passed(gate(Status.PASSED))
    with pytest.raises(Untrustworthy, match="undecided: c1; race both anew: --measure"):
        raise_unless_passed(gate(Status.PASSED, Status.UNDECIDED))
    with pytest.raises(Untrustworthy, match="measure longer"):
        raise_unless_passed(gate(Status.UNDECIDED, retaken=True))
    score = (Check("data.max_loss", Status.UNDECIDED, "", ""),)
    with pytest.raises(Untrustworthy, match="on more samples"):
        raise_unless_passed(replace(gate(Status.UNDECIDED), checks=score))
    with pytest.raises(RequirementsNotMet, match="failed: c1; undecided: c0"):
        raise_unless_passed(gate(Status.UNDECIDED, Status.FAILED))
    with pytest.raises(RequirementsNotMet, match="not measured: c0"):
        raise_unless_passed(gate(Status.NOT_MEASURED))


def test_only_what_a_race_may_decide_is_worth_another_race() -> None:
    def undecided(key: str, value: float | None) -> Check:
        return Check(key, Status.UNDECIDED, "", "", value=value)

    ended = gate(Status.FAILED, Status.PASSED, Status.NOT_MEASURED).checks
    assert is_settled(ended)
    assert not is_settled((*ended, undecided("latency.max_increase", 0.08)))
    assert is_settled((*ended, undecided("data.max_loss", 0.08)))  # more samples would tell, and no race
    assert is_settled((*ended, undecided("throughput.max_decrease", None)))  # of several streams: no race tells it
