"""What `edgekit data check` found, for a terminal."""

from collections.abc import Iterator

from rich.console import Console

from edgekit.core.datacheck import ERROR, DataCheck, Finding, Samples
from edgekit.report.terminal import clean


def print_check(console: Console, check: DataCheck) -> None:
    """The findings, errors first, each with its place, samples and fix; then what was tried, and the count."""
    counts = ", ".join(f"{n} {name}" for name, n in check.checked.items()) or "no samples"
    metric = f", metric {clean(check.metric)}" if check.metric else ""
    console.print(
        f"[bold]{clean(check.data)}[/] for [bold]{clean(check.model)}[/]: {clean(counts)}{metric}",
        highlight=False,
        soft_wrap=True,
    )
    for finding in check.findings:
        for line in _lines(finding):
            console.print(line, highlight=False, soft_wrap=True)
    if check.trials:
        first = check.trials[0]
        console.print(f"tried on {first.n} labelled samples: as declared {first.declared_value:.3f}", highlight=False)
        for trial in check.trials:
            console.print(f"  {trial.value:.3f}  {clean(trial.preparation)}", highlight=False, soft_wrap=True)
    for notice in check.notices:
        console.print(f"[dim]note: {clean(notice)}[/]", highlight=False)
    warnings = len(check.findings) - check.errors
    console.print(f"{_number(check.errors, 'error')}, {_number(warnings, 'warning')}", highlight=False)


def _lines(finding: Finding) -> Iterator[str]:
    mark = "[bold red]error[/]" if finding.severity == ERROR else "[yellow]warning[/]"
    yield f"{mark} {clean(finding.rule)}: {clean(finding.what)}{_named(finding.samples)}"
    yield f"  [dim]in {clean(finding.where)}[/]"
    if finding.fix:
        yield f"  fix: {clean(finding.fix)}"


def _named(samples: Samples) -> str:
    if not samples.total:
        return ""
    more = ", ..." if samples.total > len(samples.first) else ""
    return f" ({_number(samples.total, 'sample')}: {', '.join(map(str, samples.first))}{more})"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
