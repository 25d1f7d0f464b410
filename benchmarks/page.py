"""RESULTS.md is made of sections that benchmarks rewrite: what stands between a section's two marks is a command's output."""

import platform
from pathlib import Path

PAGE = Path(__file__).with_name("RESULTS.md")


def table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Put `text` between the marks of section `name`. Raises ValueError when the page has no such section."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    old = page.read_text()
    if begin not in old or end not in old:
        raise ValueError(f"no section {name} in {page.name}")
    head, rest = old.split(begin, 1)
    page.write_text(f"{head}{begin}{text.strip()}\n{end}{rest.split(end, 1)[1]}")


def machine() -> str:
    """One line on where the figures were taken."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return (
        f"{models[0] if models else platform.machine()}, {len(models)} cores, Linux, Python {platform.python_version()}"
    )
