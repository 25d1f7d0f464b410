"""Why a run chose what it chose, sentence by sentence: the two of the binding requirement first, the rest under headings."""

from itertools import groupby

from rich.console import Console

from edgekit.core.explain.evidence import Part
from edgekit.core.explain.explanation import Explanation
from edgekit.core.run import Run
from edgekit.report.terminal import clean, run_heading, search_lines, verdict_lines


def print_explanation(console: Console, run: Run, folder: str, told: Explanation) -> None:
    """The sentences, and under the two first ones what else the run's own screen says of its choice."""

    def line(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    for part, sentences in groupby(told.sentences, key=lambda sentence: sentence.part):
        if part is Part.BINDS:
            for sentence in sentences:
                line(f"[bold]{clean(sentence.text)}[/]")
            for text in (run_heading(run), *verdict_lines(run, folder)):
                line(text)
            continue
        line(f"\n[bold]{part.value}[/]")
        for sentence in sentences:
            line(f"- {clean(sentence.text)}")
    for text in search_lines(run):
        line(text)
