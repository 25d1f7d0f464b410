"""Why a run chose what it chose, in short: the choice, what the run teaches, and why each other candidate was not taken."""

from collections.abc import Iterator

from rich.console import Console

from edgekit.core.run import Run
from edgekit.report.terminal import clean, finding_lines, run_heading, search_lines, verdict_lines


def print_explanation(console: Console, run: Run, folder: str) -> None:
    """The choice with its reasons; the figures are in the run's own table."""
    console.print(run_heading(run), highlight=False, soft_wrap=True)
    for line in (*verdict_lines(run, folder), *finding_lines(run), *search_lines(run), *_others(run)):
        console.print(line, highlight=False, soft_wrap=True)


def _others(run: Run) -> Iterator[str]:
    """Why each other candidate was not taken, and what was left out, those with one reason together."""
    said: dict[str, list[str]] = {}
    for name, reason in run.choice.rejected.items():
        said.setdefault(f"not chosen: {reason}", []).append(name)
    for name, reason in run.left_out.items():
        said.setdefault(f"left out: {reason}", []).append(name)
    for reason, names in said.items():
        yield f"[dim]{clean(', '.join(names))}:[/] {clean(reason)}"
