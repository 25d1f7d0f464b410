"""A run held against a policy, check by check. Pure.

- What was not measured is never taken for good: a check of it does not pass, and says what is missing.
- A limit is held by the figure itself, as the choice holds it. Nothing is taken off for noise: leave room in the limit.
- A regression is judged by its interval. It passes when even the worse end is within what is allowed; it fails when the change is
  over that and some change for the worse is shown; between the two it is undecided, which does not pass either.
- A loss of score counts as a drop does: the loss within what is allowed, and the worse end within twice that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgekit.core.accuracy import feasible
from edgekit.core.delta import COLD_START, LATENCY, MEMORY, SCORE, SIZE, THROUGHPUT, Delta
from edgekit.core.needs import within
from edgekit.core.policy import Policy
from edgekit.core.run import Run
from edgekit.core.standing import chosen_outcome, standing
from edgekit.core.stats import runs_needed
from edgekit.errors import RequirementsNotMet, Untrustworthy, UsageError

GATE_SCHEMA = 1


class Status(StrEnum):
    """How a check ended; only one of these lets a run through."""

    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Check:
    """One line of a policy held against a run. `asked` and `found` are for people, `value` is what was found, in the key's unit."""

    key: str
    status: Status
    asked: str
    found: str
    reason: str = ""
    value: float | None = None


@dataclass(frozen=True)
class Gate:
    """What `edgekit gate --json` prints.

    `baseline` is None without one, and `figures` (against it) are then empty; `retaken` tells that both were measured anew.
    """

    schema: int
    run: str
    baseline: str | None
    policy: str
    model_name: str
    target: str
    chosen: str | None
    retaken: bool
    passed: bool
    checks: tuple[Check, ...]
    figures: tuple[Delta, ...] = ()
    notices: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------------- judging


def judge(policy: Policy, run: Run, deltas: Sequence[Delta] | None) -> tuple[Check, ...]:
    """Every check of the policy; `deltas` are those against the baseline, None without one.

    Raises UsageError when the policy bounds regressions and there is nothing to be worse than.
    """
    if policy.regressions and deltas is None:
        raise UsageError(
            f"the policy bounds a change ({', '.join(policy.regressions)}), and there is no baseline",
            where="--policy",
            next_step="name the run to compare with: --against BASELINE_RUN",
        )
    if run.choice.chosen is None:
        return (Check("choice", Status.FAILED, "a candidate that meets the run's requirements", "none", _lacks(run)),)
    checks = [_metric_check(policy.metric, run)] if policy.metric is not None else []
    checks += [_limit_check(key, limit, policy, run) for key, limit in policy.limits.items()]
    by_figure = {delta.figure: delta for delta in deltas or ()}
    for key, allowed in policy.regressions.items():
        checks.append(_regression_check(key, allowed, by_figure.get(_FIGURES[key])))
    return tuple(checks)


def _lacks(run: Run) -> str:
    lacking = f": nearest {run.choice.nearest} ({'; '.join(run.choice.lacks)})" if run.choice.nearest else ""
    return f"{run.choice.reason}{lacking}"


def _metric_check(metric: str, run: Run) -> Check:
    found = run.evaluation.metric if run.evaluation is not None else ""
    if found == metric:
        return Check("data.metric", Status.PASSED, metric, found)
    reason = f"the run was judged by {found}" if found else "the run has no evaluation: it was given no data"
    return Check("data.metric", Status.NOT_MEASURED, metric, found or "none", reason)


Reading = tuple[float | None, str]  # what was found; or why it was not


def _limit_check(key: str, limit: float, policy: Policy, run: Run) -> Check:
    rule = _LIMITS[key]
    value, why = rule.read(policy, run)
    bound = "at least" if rule.is_floor else "at most"
    percentile = f"{policy.percentile} " if key == "latency.budget" else ""
    asked = f"{percentile}{bound} {rule.write(limit)}"
    if value is None:
        return Check(key, Status.NOT_MEASURED, asked, "none", why)
    holds = within(value, limit, at_least=rule.is_floor)
    reason = "" if holds else f"{'below' if rule.is_floor else 'over'} by {_share(value, limit)}"
    if key == "data.max_drop" and run.evaluation is not None:
        holds, reason = feasible(run.evaluation, limit)
    return Check(key, Status.PASSED if holds else Status.FAILED, asked, rule.write(value), reason, value)


def _share(value: float, limit: float) -> str:
    return f"{abs(value - limit) / limit:.1%}" if limit > 0 else f"{abs(value - limit):.4g}"


def _unmeasured(run: Run) -> str:
    return f"the figures of {run.target.name} are predicted, not measured: optimize on the target, with --device"


def _latency(policy: Policy, run: Run) -> Reading:
    found = standing(run)
    if found is None:
        return None, _unmeasured(run)
    value: float | None = getattr(found.latency_ms, policy.percentile)
    return value, _too_few(found.latency_ms.count, policy.percentile) if value is None else ""


def _too_few(count: int, percentile: str) -> str:
    """Why a percentile is not known."""
    return f"{count} runs, {percentile} takes {runs_needed(float(percentile.removeprefix('p')))}"


def _of_standing(name: str) -> Callable[[Policy, Run], Reading]:
    def reading(_policy: Policy, run: Run) -> Reading:
        found = standing(run)
        if found is None:
            return None, _unmeasured(run)
        value = getattr(found, name)
        return (None, "the system did not tell") if value is None else (float(value), "")

    return reading


def _size(_policy: Policy, run: Run) -> Reading:
    chosen = chosen_outcome(run)
    assert chosen is not None and chosen.artifact is not None
    return float(chosen.artifact.size_bytes), ""


def _of_evaluation(name: str) -> Callable[[Policy, Run], Reading]:
    def reading(_policy: Policy, run: Run) -> Reading:
        if run.evaluation is None:
            return None, "the run has no evaluation: it was given no data"
        return float(getattr(run.evaluation, name)), ""

    return reading


def _ms(value: float) -> str:
    return f"{value:.4g} ms"


def _bytes(value: float) -> str:
    return f"{value / 2**20:.4g} MiB"


def _plain(value: float) -> str:
    return f"{value:.4g}"


@dataclass(frozen=True)
class _Limit:
    """How a limit's figure is read and written."""

    read: Callable[[Policy, Run], Reading]
    write: Callable[[float], str]
    is_floor: bool = False


_LIMITS: Mapping[str, _Limit] = {
    "latency.budget": _Limit(_latency, _ms),
    "throughput.min": _Limit(_of_standing("throughput_ips"), lambda v: f"{v:.4g}/s", is_floor=True),
    "data.max_drop": _Limit(_of_evaluation("drop"), _plain),
    "data.min": _Limit(_of_evaluation("value"), _plain, is_floor=True),
    "data.max": _Limit(_of_evaluation("value"), _plain),
    "infrastructure.memory": _Limit(_of_standing("memory_bytes"), _bytes),
    "infrastructure.storage": _Limit(_size, _bytes),
    "infrastructure.cold_start": _Limit(_of_standing("cold_start_ms"), _ms),
}

# Which figure a bound on a change is of.
_FIGURES: Mapping[str, str] = {
    "latency.max_increase": LATENCY,
    "throughput.max_decrease": THROUGHPUT,
    "data.max_loss": SCORE,
    "infrastructure.max_memory_increase": MEMORY,
    "infrastructure.max_storage_increase": SIZE,
    "infrastructure.max_cold_start_increase": COLD_START,
}


def _regression_check(key: str, allowed: float, delta: Delta | None) -> Check:
    is_score = key == "data.max_loss"
    write = _plain if is_score else _percent
    figure = delta.unit if delta is not None and is_score else _FIGURES[key]
    asked = f"{figure} worse by at most {write(allowed)}"
    if delta is None or delta.before is None or delta.after is None:
        return Check(key, Status.NOT_MEASURED, asked, "none", delta.basis if delta else "not measured in both")
    if delta.change is None or delta.worsening is None:
        found = "not known" if delta.change is None else f"{_signed(write, delta.change)}, no interval"
        return Check(key, Status.UNDECIDED, asked, found, delta.basis, delta.change)
    change, least, most = delta.worsening
    found = _worded(write, change, least, most)
    if change <= allowed and most <= (2 * allowed if is_score else allowed):
        return Check(key, Status.PASSED, asked, found, delta.basis, change)
    if change > allowed and least > 0:
        return Check(key, Status.FAILED, asked, found, delta.basis, change)
    return Check(key, Status.UNDECIDED, asked, found, f"the interval does not decide; {delta.basis}", change)


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _signed(write: Callable[[float], str], value: float) -> str:
    return f"{'+' if value >= 0 else '-'}{write(abs(value))}"


def _worded(write: Callable[[float], str], change: float, least: float, most: float) -> str:
    """ "worse by 3.1% (95% -0.4% to 6.6%)": what is negative is better."""
    said = f"{'worse' if change > 0 else 'better'} by {write(abs(change))}" if change else "no change"
    return said if least == most else f"{said} (95% {_signed(write, least)} to {_signed(write, most)})"


# ----------------------------------------------------------------------------------------------------------------- the end


def is_settled(checks: Sequence[Check]) -> bool:
    """Whether racing longer could change nothing: what is undecided is a score, or a change that a race does not tell."""
    return all(c.status is not Status.UNDECIDED or c.key == "data.max_loss" or c.value is None for c in checks)


def raise_unless_passed(gate: Gate) -> None:
    """Raises RequirementsNotMet when a check failed or was not measured, Untrustworthy when the rest is undecided."""
    if gate.passed:
        return
    by_status = {status: [c.key for c in gate.checks if c.status is status] for status in Status}
    told = "; ".join(
        f"{status.value}: {', '.join(by_status[status])}"
        for status in (Status.FAILED, Status.NOT_MEASURED, Status.UNDECIDED)
        if by_status[status]
    )
    if by_status[Status.FAILED] or by_status[Status.NOT_MEASURED]:
        raise RequirementsNotMet(f"the gate is closed: {told}", where=gate.run)
    raise Untrustworthy(
        f"the gate stays closed: {told}",
        where=gate.run,
        next_step=_advice(by_status[Status.UNDECIDED], gate.retaken),
    )


def _advice(undecided: Sequence[str], retaken: bool) -> str:
    if list(undecided) == ["data.max_loss"]:
        return "evaluate both on more samples"
    return "measure longer: --duration, --rounds, --races" if retaken else "race both anew: --measure"
