"""What the commands share: places, JSON output and progress."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")

preflight_option = click.option(
    "--preflight-seconds",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="How long checking the model may take; a graph that loops is refused after it.",
)


def cache_root(context: click.Context) -> Path:
    """The cache as asked for, else the user's own."""
    chosen = context.find_root().obj["cache"]
    if chosen:
        return Path(chosen).absolute()
    from edgekit.store import default_cache

    return default_cache()


def print_json(record: Any) -> None:
    """One JSON object on stdout."""
    from edgekit.sandbox import encode

    sys.stdout.write(encode(record).decode() + "\n")


@contextlib.contextmanager
def progress_line(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A live status on stderr when it is a terminal, else one line a stage; nothing when `quiet`."""
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console

    from edgekit.report.terminal import clean

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("starting") as status:
            yield lambda text: status.update(clean(text))
        return
    stages: set[str] = set()

    def once(text: str) -> None:
        if text not in stages and not text.startswith("round "):
            stages.add(text)
            console.print(f"  {clean(text)}", soft_wrap=True)

    yield once
