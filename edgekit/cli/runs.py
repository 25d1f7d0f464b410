"""`edgekit runs`: the folders that `optimize` left, listed, shown, compared."""

from pathlib import Path

import click

from edgekit.cli.common import json_option, print_json


@click.group()
def runs() -> None:
    """The folders of `edgekit optimize`: list them, show one, tell what changed between two."""


@runs.command("list")
@click.argument("folders", nargs=-1, type=click.Path())
@json_option
def list_(folders: tuple[str, ...], as_json: bool) -> None:
    """The runs in FOLDERS and directly below them, the newest first.  [default: edgekit-runs]"""
    from edgekit.flow.runs import RUNS_FOLDER, list_runs, summary

    # Before the first `optimize` there is nothing to list, which is no error; a folder that was named must be there.
    usual = (RUNS_FOLDER,) if Path(RUNS_FOLDER).is_dir() else ()
    found = list_runs([Path(folder) for folder in folders or usual])
    if as_json:
        print_json({"runs": [summary(listed) for listed in found]})
        return
    from rich.console import Console

    from edgekit.report.runs import print_runs

    print_runs(Console(), ((r.folder, r.written_s, r.run, r.error) for r in found))


@runs.command()
@click.argument("run", type=click.Path())
@json_option
def show(run: str, as_json: bool) -> None:
    """RUN as `optimize` printed it; with --json its whole record."""
    from edgekit.flow.runs import read_run, run_folder

    folder = run_folder(Path(run))
    found = read_run(folder)
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from edgekit.report.terminal import print_run

    print_run(Console(), found, str(folder))


@runs.command()
@click.argument("before", type=click.Path())
@click.argument("after", type=click.Path())
@json_option
def diff(before: str, after: str, as_json: bool) -> None:
    """What changed from run BEFORE to run AFTER, and which differences are real."""
    from edgekit.flow.runs import diff_runs

    found = diff_runs(Path(before), Path(after))
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from edgekit.report.runs import print_diff

    print_diff(Console(), found)
