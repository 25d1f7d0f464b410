"""`edgekit explain`: why a run chose what it chose, what that costs, what to relax, and which layers cost the accuracy."""

from pathlib import Path

import click

from edgekit.cli.common import json_option, print_json


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option("--layers", is_flag=True, help="Which layers cost the accuracy of int8, the costliest first.")
@json_option
def explain(run: str, layers: bool, as_json: bool) -> None:
    """Why RUN, a folder of `edgekit optimize`, chose what it chose, what each requirement costs, and what to relax.

    The first two lines name the requirement that binds, and what was chosen or is nearest. --json has each sentence with its
    figures and where run.json holds them.
    """
    from edgekit.flow.explain import explained

    found, folder, told = explained(Path(run))
    if as_json:
        whole = {"choice": found.choice, "explanation": told, "findings": found.findings}
        print_json({"searches": found.searches} if layers else whole)
        return
    from rich.console import Console

    from edgekit.report.explain import print_explanation
    from edgekit.report.layers import print_layers

    if layers:
        print_layers(Console(), found)
    else:
        print_explanation(Console(), found, str(folder), told)
