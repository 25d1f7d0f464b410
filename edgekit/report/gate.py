"""A gate on a terminal, and as Markdown for a pull request. What came from a model or a file is escaped."""

import re

from rich.console import Console
from rich.table import Table

from edgekit.core.checks import Gate, Status
from edgekit.errors import EdgekitError, printable
from edgekit.report.runs import figure_cells
from edgekit.report.terminal import clean

_COLOURS = {Status.PASSED: "green", Status.FAILED: "bold red"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
_NO_SPACE = "\u200b"  # a backslash before @ goes before mentions are looked for; this stays between it and the name


def print_gate(console: Console, gate: Gate) -> None:
    """One line a check, and how it ended."""
    against = f", against {clean(gate.baseline)}" if gate.baseline else ""
    what = f"[bold]{clean(gate.chosen or 'nothing chosen')}[/] of {clean(gate.run)}"
    console.print(f"{what}, by {clean(gate.policy)}{against}", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for heading in ("check", "asked", "found", ""):
        table.add_column(heading, no_wrap=heading in ("check", ""))
    for check in gate.checks:
        style = _COLOURS.get(check.status, "yellow")
        table.add_row(check.key, clean(check.asked), clean(check.found), f"[{style}]{check.status.value}[/]")
    console.print(table)
    for check in gate.checks:
        if check.reason:
            console.print(f"[dim]{check.key}:[/] {clean(check.reason)}", highlight=False, soft_wrap=True)
    for notice in gate.notices:
        console.print(f"[dim]note: {clean(notice)}[/]", highlight=False)
    if gate.passed:
        console.print(f"[bold green]passed[/]: {_count(len(gate.checks))}", highlight=False)


def gate_markdown(gate: Gate) -> str:
    """A heading with the end, a table of the checks, their reasons."""
    end = "passed" if gate.passed else "**not passed**"
    chosen = f"`{_code(gate.chosen)}`" if gate.chosen else "nothing chosen"
    against = f", against `{_code(gate.baseline)}`" if gate.baseline else ""
    lines = [
        f"### edgekit gate: {end}",
        "",
        f"{safe(gate.model_name)} for {safe(gate.target)}: {chosen} of `{_code(gate.run)}`, by `{_code(gate.policy)}`{against}",
        "",
        "| check | asked | found | |",
        "|---|---|---|---|",
    ]
    for check in gate.checks:
        status = check.status.value if check.status is Status.PASSED else f"**{check.status.value}**"
        lines.append(f"| {check.key} | {safe(check.asked)} | {safe(check.found)} | {status} |")
    lines += _figures(gate)
    reasons = [f"- {check.key}: {safe(check.reason)}" for check in gate.checks if check.reason]
    notes = [f"- {safe(notice)}" for notice in gate.notices]
    rest = [*reasons, *notes]
    return "\n".join([*lines, *(["", *rest] if rest else []), ""])


def _figures(gate: Gate) -> list[str]:
    """What the checks against a baseline rest on."""
    if not gate.figures:
        return []
    rows = [f"| {' | '.join(map(safe, figure_cells(delta)))} |" for delta in gate.figures]
    return ["", "| figure | baseline | run | change (95%) | |", "|---|--:|--:|--:|---|", *rows]


def markdown_of_error(error: EdgekitError) -> str:
    """The summary of a gate that could not be held at all."""
    return f"### edgekit gate: **not held**\n\n{safe(str(error))}\n"


def safe(text: str) -> str:
    """Untrusted text as Markdown that says the same: no markup, no HTML, no mention, no end of a table's cell."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", plain).replace("@", f"@{_NO_SPACE}")


def _code(text: str) -> str:
    """Untrusted text within backquotes, also in a table."""
    return printable(text).replace("`", "'").replace("|", "\u00a6")


def _count(checks: int) -> str:
    return f"{checks} check{'s' if checks != 1 else ''}"
