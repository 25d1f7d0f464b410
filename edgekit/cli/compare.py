"""`edgekit compare`: which of two artifacts is faster on a device, and is that more than noise?"""

from typing import Any

import click

from edgekit.cli.common import (
    cache_root,
    device_option,
    json_option,
    preflight_option,
    print_json,
    progress_line,
    reach,
    skip_bad_option,
)


@click.command()
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@device_option
@click.option("-d", "--data", type=click.Path(), help="Samples to run; random inputs without.")
@click.option("--recipe-a", default="ort-fp32", show_default=True, help="How A is built, if it is a model.")
@click.option("--recipe-b", default="ort-fp32", show_default=True, help="How B is built, if it is a model.")
@click.option("--duration", default="5s", show_default=True, help="Inference a side, at least.")
@click.option("--rounds", type=click.IntRange(min=8), default=40, show_default=True, help="Rounds, at least.")
@click.option(
    "--threads", type=click.IntRange(min=1, max=1024), help="Threads of both.  [default: as each was measured]"
)
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Fix the shape of an input.")
@skip_bad_option
@preflight_option
@click.option("--offline", is_flag=True, help="Fetch no engine library.")
@json_option
@click.pass_context
def compare(context: click.Context, /, a: str, b: str, device: str, as_json: bool, **given: Any) -> None:
    """Race B against A, each a MODEL or a RUN, interleaved on one device: faster, slower, or no difference shown."""
    from edgekit.core.requirements import parse_duration
    from edgekit.core.shapes import parse_shape
    from edgekit.flow.compare import Length
    from edgekit.flow.compare import compare as race
    from edgekit.flow.materials import Options

    length = Length(parse_duration(given.pop("duration"), "--duration"), given.pop("rounds"))
    data, recipes = given.pop("data"), (given.pop("recipe_a"), given.pop("recipe_b"))
    options = Options(shapes=dict(map(parse_shape, given.pop("shapes"))), threads=given.pop("threads") or 0, **given)
    with progress_line(quiet=as_json) as progress:
        found = race(
            a,
            b,
            data,
            device=device,
            reach=reach(context, offline=options.offline),
            recipes=recipes,
            length=length,
            options=options,
            cache=cache_root(context),
            progress=progress,
        )
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from edgekit.report.profile import print_comparison

    print_comparison(Console(), found)
