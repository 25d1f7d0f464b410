"""What a report leads with, in words and from records alone: the verdict, the requirements one by one, chosen against original.

- Whoever reads only this knows what was chosen, what it buys, what it costs, and whether the figures are the target's own.
- Every number is the run's. A prediction is called one; what was not measured is a dash, never a guess.
- It knows no markup: the writers of HTML and Markdown share it and escape it, as names are untrusted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from edgekit.core.accuracy import Accuracy
from edgekit.core.choose import figures
from edgekit.core.needs import Kind, Need, Ruling, figure, needs, ruling
from edgekit.core.recipes import REFERENCE
from edgekit.core.relative import PREDICTED_TIE, TimeRatio
from edgekit.core.results import Figures, Origin, Outcome, VerdictCode
from edgekit.core.run import Run
from edgekit.core.types import Prefer, RunConfig
from edgekit.report.terminal import MISSING, milliseconds, size

# Stands first in every report: no renderer shows it, and by it a report is known again.
MARK = "<!-- edgekit report -->"

# What the writers know a verdict by.
MET, MISSED, UNPROVEN, UNKNOWN = Ruling.MET.value, Ruling.MISSED.value, Ruling.UNPROVEN.value, Ruling.UNKNOWN.value

AS_GIVEN = "the model as given"

# Of a ratio this near to 1 nobody says "1.00x".
_SAME = 0.005
# Factors by which two fresh processes of the same artifact were seen to differ (12 of each, several models): figures of
# one process each are told apart, and called better or worse, beyond them only.
_MEMORY_NOISE, _COLD_NOISE = 1.08, 1.5


@dataclass(frozen=True)
class Check:
    """One stated requirement, what the candidate has of it, and how far from the limit that is."""

    requirement: str
    asked: str
    found: str
    verdict: str
    room: str


@dataclass(frozen=True)
class Change:
    """One figure of the model as given and of the chosen artifact.

    `better` is None where neither is shown to be; `interval` is that of the change, empty where none is known.
    """

    figure: str
    before: str
    after: str
    change: str
    better: bool | None
    interval: str = ""

    @property
    def whole(self) -> str:
        """The change with its interval."""
        return f"{self.change} ({self.interval})" if self.interval else self.change


def subject(run: Run) -> Outcome | None:
    """Whom the report is about: the chosen candidate, else the nearest to fitting, else nobody."""
    name = run.choice.chosen or run.choice.nearest
    return next((o for o in run.outcomes if o.name == name), None)


def reference(run: Run) -> Outcome | None:
    """The model as given, in full precision."""
    return next((o for o in run.outcomes if o.name == REFERENCE), None)


def evidence(run: Run) -> str:
    """Where the figures of time and memory come from, in a few words."""
    if run.target_origin is Origin.TARGET:
        return f"measured on {run.target.name}"
    return f"predicted for {run.target.name}, not measured"


def verdict(run: Run) -> str:
    """The outcome in a sentence or two, without a full stop."""
    best = subject(run)
    if run.choice.chosen is None:
        lacks = f". Nearest is {best.name}, which lacks: {'; '.join(run.choice.lacks)}" if best is not None else ""
        return f"Nothing meets the requirements on {run.target.name}{lacks}"
    if best is None:
        return f"{run.choice.chosen}: {run.choice.reason}"
    if _reference_figures(run) is None:
        why = "did not work here, so that nothing can be set beside it"
        return f"{best.name} is chosen: {run.choice.reason}. {AS_GIVEN.capitalize()} {why}"
    said = [gain for gain in _gains(run, best) if gain]
    drop = f", at {accuracy_cost(best.accuracy)}" if best.accuracy is not None and best.name != REFERENCE else ""
    if best.name == REFERENCE:
        return f"The model as given, {best.name}, is the right one for {run.target.name}: {run.choice.reason}"
    return f"{best.name} {_lead(run, best)}is {_listed(said) or 'no faster than the model as given'}{drop}"


def caveats(run: Run) -> tuple[str, ...]:
    """What has to be known beside the verdict, in sentences: what was not measured, not tried on data, or did not work."""
    out = [o for o in run.outcomes if o.blocked is not None and o.blocked.code is not VerdictCode.COLLAPSED]
    said = (
        "" if run.target_origin is Origin.TARGET else f"Time and memory are {evidence(run)}.",
        f"Rests on a prediction: {', '.join(run.choice.unproven)}." if run.choice.unproven else "",
        "No data were given: answers were compared on random inputs, which tells little of those on real ones."
        if run.data.synthetic
        else "",
        f"{len(out)} of {len(run.outcomes)} candidates do not work; the reason stands beside each." if out else "",
    )
    return tuple(filter(None, said))


def _lead(run: Run, best: Outcome) -> str:
    """Where throughput is what counts, that comes first."""
    own, base = figures(best, run.target_origin), _reference_figures(run)
    if run.requirements.prefer is not Prefer.THROUGHPUT or own is None or base is None or base.throughput_ips <= 0:
        return ""
    ratio = own.throughput_ips / base.throughput_ips
    return f"has {times(ratio)} the throughput of {AS_GIVEN} and " if _differs(ratio, _noise(run)) else ""


def _gains(run: Run, best: Outcome) -> Iterator[str]:
    """What the chosen one has over the model as given: time, size, memory."""
    own, base = figures(best, run.target_origin), _reference_figures(run)
    if own is None or base is None:
        return
    yield _time(run, best, own.ratio / base.ratio)
    yield _share(own.size_bytes / base.size_bytes, "smaller", "larger")
    if own.peak_memory_bytes and base.peak_memory_bytes:
        memory = own.peak_memory_bytes / base.peak_memory_bytes
        yield _share(memory, "less memory", "more memory", "with ") if _differs(memory, _MEMORY_NOISE) else ""


def _time(run: Run, best: Outcome, value: float) -> str:
    """How its p50 is beside that of the model as given, claimed only where it is shown."""
    ratio = _time_ratio(run, best, value)
    if ratio is None:
        return f"{1 / value:.2f}x as fast as {AS_GIVEN} (no interval is known)"
    if ratio.is_faster:
        return ratio.as_speed
    if ratio.is_slower:
        return f"slower: {ratio.as_time.removeprefix(f'{best.name} ')}"
    interval = "predicted" if ratio.predicted else f"95% {ratio.low:.2f} to {ratio.high:.2f}"
    return f"as fast as {AS_GIVEN} within the noise ({value:.2f}x its p50, {interval})"


def _time_ratio(run: Run, best: Outcome, value: float) -> TimeRatio | None:
    """Its p50 over that of the model as given; None where the run kept no interval."""
    predicted = run.target_origin is not Origin.TARGET
    measured = best.measurement.ratio_interval if best.measurement is not None else None
    interval = (value, value) if predicted else measured
    return TimeRatio(best.name, AS_GIVEN, value, *interval, _noise(run), predicted) if interval is not None else None


def _noise(run: Run) -> float:
    """The factor by which times may differ that are the same."""
    if run.target_origin is not Origin.TARGET:
        return PREDICTED_TIE
    return run.noise.spread if run.noise is not None else 1.0


def _share(ratio: float, less: str, more: str, before: str = "") -> str:
    """How much less or more, as people say it: a share below twice, a multiple above."""
    if abs(ratio - 1) < _SAME:
        return ""
    if ratio < 1:
        return f"{before}{1 - ratio:.0%} {less}"
    return f"{before}{ratio - 1:.0%} {more}" if ratio < 2 else f"{before}{ratio:.1f}x as {_as(more)}"


def _as(more: str) -> str:
    return "large" if more == "larger" else "much memory"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def accuracy_cost(a: Accuracy) -> str:
    """`a drop of 0.0012 in top-1 (95% 0.0001 to 0.0023, n=500)`."""
    return f"a drop of {a.drop:.4f} in {a.metric} (95% {a.ci_low:.4f} to {a.ci_high:.4f}, {_samples(a)})"


def _samples(a: Accuracy) -> str:
    return f"n={a.n}{', on random inputs' if a.kind == 'synthetic' else ''}"


def _reference_figures(run: Run) -> Figures | None:
    base = reference(run)
    return figures(base, run.target_origin) if base is not None else None


# ---------------------------------------------------------------------------------------------------------- requirements


def checks(run: Run) -> tuple[Check, ...]:
    """The stated requirements against the chosen candidate, or the nearest one; met and missed as the choice has it."""
    best = subject(run)
    if best is None:
        return ()
    numbers = figures(best, run.target_origin)
    return tuple(
        _drop_check(need, run.data.metric, best.accuracy) if need.kind is Kind.DROP else _figure_check(need, numbers)
        for need in needs(run.requirements)
    )


def _drop_check(need: Need, metric: str, a: Accuracy | None) -> Check:
    asked, verdict = f"at most {need.limit:g} on {metric}", ruling(need, None, a).value
    if a is None:
        return Check("accuracy drop", asked, MISSING, verdict, "")
    found = f"{a.drop:.4f} (95% {a.ci_low:.4f} to {a.ci_high:.4f}, {_samples(a)})"
    open_one = verdict == MISSED and need.admits(a.drop) and not a.collapsed and not a.nonfinite
    return Check(
        "accuracy drop", asked, found, verdict, "too few samples" if open_one else _room(need, max(a.drop, 0.0))
    )


def _figure_check(need: Need, numbers: Figures | None) -> Check:
    asked = f"at {'least' if need.at_least else 'most'} {_written(need, need.limit)}"
    value = figure(need, numbers) if numbers is not None else None
    found = _written(need, value) if value is not None else MISSING
    verdict = ruling(need, numbers).value
    return Check(need.label, asked, found, verdict, _room(need, value) if value is not None else "")


def _written(need: Need, value: float) -> str:
    if need.kind is Kind.THROUGHPUT:
        return f"{value:.4g}/s"
    return _bytes(value) if need.kind in (Kind.MEMORY, Kind.SIZE) else _ms(value)


def _room(need: Need, value: float) -> str:
    """How far a figure is from its limit."""
    if need.limit <= 0:
        return ""
    share = value / need.limit
    wrong = "too little" if need.at_least else "too much"
    if share >= 10 and not need.at_least:
        return f"{share:.0f}x the limit"
    return f"{abs(1 - share):.0%} {'to spare' if need.admits(value) else wrong}"


def _at(outcome: Outcome, percentile: str) -> float | None:
    return getattr(outcome.measurement.latency_ms, percentile, None) if outcome.measurement is not None else None


def wishes(run: Run) -> str:
    """What else was asked for, beside the requirements that a figure is held against."""
    r = run.requirements
    weights = ", ".join(f"{name} {weight:g}" for name, weight in r.weights.items())
    arrivals = r.arrivals
    rate = f" at {arrivals.rate_ips:g}/s" if arrivals is not None and arrivals.rate_ips is not None else ""
    said = (
        f"preferred: {weights or r.prefer.value}",
        f"arrivals: {arrivals.scenario}{rate}" if arrivals is not None else "",
        f"at most {r.max_cores} core{'' if r.max_cores == 1 else 's'}" if r.max_cores is not None else "",
        f"CPUs {r.cpus}" if r.cpus else "",
        f"power mode {r.power_mode}" if r.power_mode else "",
        f"batchable: {'yes' if r.batchable else 'no'}" if r.batchable is not None else "",
        f"forbidden: {', '.join(r.forbid)}" if r.forbid else "",
    )
    return "; ".join(filter(None, said))


def setting(config: RunConfig) -> str:
    """How a candidate is run, in a few words."""
    words = [f"{config.threads} thread{'' if config.threads == 1 else 's'}"]
    words += [f"{config.streams} streams"] if config.streams > 1 else []
    words += [f"batch {config.batch}"] if config.batch > 1 else []
    return ", ".join([*words, f"CPUs {config.cores}"] if config.cores else words)


def cold_start(run: Run, outcome: Outcome) -> float | None:
    """Milliseconds from the process's start to its first answer; None where the target was not measured."""
    m = outcome.measurement
    return m.load.process_to_first_inference_ms if m is not None and run.target_origin is Origin.TARGET else None


def _ms(value: float) -> str:
    return f"{milliseconds(value)} ms"


def _bytes(value: float) -> str:
    return size(round(value))


# ------------------------------------------------------------------------------------------------------ original, chosen


def changes(run: Run) -> tuple[Change, ...]:
    """The figures of the model as given beside those of the chosen candidate, or the nearest; empty without both."""
    best, base = subject(run), reference(run)
    if best is None or base is None:
        return ()
    a, b = figures(base, run.target_origin), figures(best, run.target_origin)
    found = []
    if b is not None:
        found += [
            _p50(run, best, a, b),
            *_tail_latency(base, best, run),
            _more("throughput", a.throughput_ips if a else None, b.throughput_ips, _noise(run)),
            _less("peak memory", a.peak_memory_bytes if a else None, b.peak_memory_bytes, _bytes, _MEMORY_NOISE),
            _less("size", a.size_bytes if a else None, b.size_bytes, _bytes),
        ]
    if run.target_origin is Origin.TARGET:
        found.append(_less("cold start", cold_start(run, base), cold_start(run, best), _ms, _COLD_NOISE))
    if best.accuracy is not None:
        found.append(_score(best.accuracy))
    return tuple(change for change in found if (change.before, change.after) != (MISSING, MISSING))


def _score(a: Accuracy) -> Change:
    better = True if a.ci_high < 0 else False if a.ci_low > 0 else None
    interval = f"95% {a.ci_low:+.4f} to {a.ci_high:+.4f}"
    return Change(a.metric, f"{a.reference_value:.4f}", f"{a.value:.4f}", f"drop {a.drop:+.4f}", better, interval)


def _p50(run: Run, best: Outcome, a: Figures | None, b: Figures) -> Change:
    """A race's ratio is paired by rounds, so it is not quite that of the two medians."""
    if a is None:
        return _less("p50 latency", None, b.p50_ms, _ms)
    made, value = _less("p50 latency", a.p50_ms, b.p50_ms, _ms), b.ratio / a.ratio
    ratio = _time_ratio(run, best, value)
    if ratio is None or best.name == REFERENCE:
        return replace(made, change=times(value), better=None)
    better = True if ratio.is_faster else False if ratio.is_slower else None
    interval = "" if ratio.predicted else f"95% {ratio.low:.2f} to {ratio.high:.2f}"
    return replace(made, change=times(value), better=better, interval=interval)


def _tail_latency(base: Outcome, best: Outcome, run: Run) -> Iterator[Change]:
    if run.target_origin is Origin.TARGET:
        # Of a tail there is no interval, so it is called neither better nor worse.
        yield replace(_less("p99 latency", _at(base, "p99"), _at(best, "p99"), _ms), better=None)


def _less(figure: str, before: float | None, after: float | None, write: object, noise: float = 1.0) -> Change:
    """A figure of which less is better; within the factor `noise` neither is."""
    assert callable(write)
    a, b = (write(value) if value is not None else MISSING for value in (before, after))
    if before is None or after is None or before <= 0:
        return Change(figure, a, b, "", None)
    return Change(figure, a, b, times(after / before), after < before if _differs(after / before, noise) else None)


def _more(figure: str, before: float | None, after: float, noise: float) -> Change:
    if before is None:
        return Change(figure, MISSING, f"{after:.4g}/s", "", None)
    ratio = after / before if before > 0 else 1.0
    better = ratio > 1 if _differs(ratio, noise) else None
    return Change(figure, f"{before:.4g}/s", f"{after:.4g}/s", times(ratio), better)


def _differs(ratio: float, noise: float) -> bool:
    return ratio <= 0 or max(ratio, 1 / ratio) > max(noise, 1 + _SAME)


def times(ratio: float) -> str:
    """`0.70x`; of large ratios no more digits than matter."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"
