"""The results as the page has them: one table, and the conclusions below it."""

import re
from collections.abc import Sequence
from importlib import metadata

from benchmarks.accuracy.records import MAX_DROP, Entry, Result
from benchmarks.accuracy.verdicts import Verdict
from benchmarks.page import machine, table

VERSIONS = ("onnxruntime", "openvino", "nncf")
HEADINGS = [
    *("model", "tool", "value (n)", "drop (95%)", "holds", "p50 ms", "vs ORT fp32 (A/A up to)"),
    *("size MiB", "build s", "peak MiB", "remark"),
]


def report(results: Sequence[Result], verdicts: Sequence[Verdict], failed: Sequence[str], date: str) -> str:
    """The section's text."""
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in VERSIONS)
    threads = "/".join(sorted({str(result.threads) for result in results}))
    rows = [row(result, entry) for result in results for entry in result.entries]
    said = [*verdicts, *(Verdict(words, missed=True) for words in failed)]
    missed = sum(verdict.missed for verdict in said)
    bars = f"Missed: {missed} of the bars below." if missed else "All bars are met."
    lines = "\n".join(f"- {'Missed: ' if verdict.missed else ''}{verdict.words}" for verdict in said)
    holds = f"A drop holds up to {MAX_DROP:g} when its interval ends at {2 * MAX_DROP:g} or below."
    head = f"{machine()}; {versions}, {threads} threads, {date}. {holds}"
    return f"{head}\n\n{table(HEADINGS, rows)}\n{bars}\n\n{lines}"


def row(result: Result, entry: Entry) -> list[str]:
    """A line of the table; what is not known is empty."""
    a, build = entry.accuracy, entry.build
    timed = bool(entry.turns_ns)
    return [
        result.model,
        entry.tool,
        f"{a.metric} {a.value:.4f} ({a.n})" if a else "",
        f"{a.drop:+.4f} ({a.ci_low:+.4f} to {a.ci_high:+.4f})" if a else "",
        ("yes" if entry.holds else "no") if a else "",
        f"{entry.p50_ms:.3g}" if timed else "",
        f"{entry.ratio_to(result.baseline):.3f} ({result.aa_spread:.3f})" if timed else "",
        f"{entry.size_bytes / 2**20:.2f}" if entry.size_bytes else "",
        f"{build.seconds:.0f}" if build else "",
        f"{build.peak_bytes / 2**20:.0f}" if build else "",
        cell(entry.reason or entry.remark),
    ]


def cell(text: str) -> str:
    """Text that stays within its cell: a library's messages hold anything, the run's folders on this machine included."""
    line = re.sub(r"(?<![\w./])/(?:[^\s/:]+/)+", "", " ".join(text.replace("|", "/").split()))
    return line if len(line) <= 160 else f"{line[:157]}..."
