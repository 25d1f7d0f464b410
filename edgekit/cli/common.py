"""What the commands share: places, JSON output and progress."""

import contextlib
import os
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


device_option = click.option(
    "--device",
    default="local",
    show_default=True,
    metavar="DEVICE",
    help="Where to measure: local, ssh://user@host, emulated[:target] or a name; see `edgekit device --help`.",
)

skip_bad_option = click.option(
    "--skip-bad", is_flag=True, help="Leave out samples that can't be read; they are named and counted."
)

sysroot_option = click.option(
    "--sysroot", type=click.Path(file_okay=False), help="An arm64 root for emulated boards, instead of fetching one."
)


def device_names() -> Path:
    """The file of the user's own names for devices."""
    from edgekit.devices.names import FILE

    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit" / FILE


def reach(context: click.Context, sysroot: str | None = None, offline: bool = False) -> Any:
    """How devices are reached, by the common options."""
    from edgekit.flow.devices import Reach

    config = context.find_root().obj["ssh_config"]
    return Reach(
        device_names(),
        Path(config).absolute() if config else None,
        Path(sysroot).absolute() if sysroot else None,
        offline,
    )


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
        stage = text.partition(":")[0]  # what follows counts up
        if stage not in stages and not text.startswith("round "):
            stages.add(stage)
            console.print(f"  {clean(text)}", soft_wrap=True)

    yield once
