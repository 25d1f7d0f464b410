"""`edgekit explain`: what a run teaches, why it chose what it chose, and which layers cost the accuracy."""

from pathlib import Path

import click

from edgekit.cli.common import json_option, print_json


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--layers", is_flag=True, help="Which layers cost the accuracy of int8, the costliest first.")
@json_option
def explain(run: str, layers: bool, as_json: bool) -> None:
    """Why RUN, a folder of `edgekit optimize`, chose what it chose."""
    from edgekit.flow.subject import read_run
    from edgekit.store import RUN_FILE

    source = Path(run)
    folder = source.parent if source.name == RUN_FILE else source
    found = read_run(folder)
    if as_json:
        print_json({"searches": found.searches} if layers else {"choice": found.choice, "findings": found.findings})
        return
    from rich.console import Console

    from edgekit.report.explain import print_explanation
    from edgekit.report.layers import print_layers

    if layers:
        print_layers(Console(), found)
    else:
        print_explanation(Console(), found, str(folder))
