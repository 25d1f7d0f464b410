"""`edgekit data`: data sets before anything is built from them."""

import click

from edgekit.cli.common import (
    cache_root,
    json_option,
    preflight_option,
    print_json,
    progress_line,
    skip_bad_option,
)


@click.group()
def data() -> None:
    """Data sets: what calibrates, selects and evaluates."""


@data.command("check")
@click.argument("folder", metavar="DATA", type=click.Path())
@click.option("-m", "--model", required=True, type=click.Path(), help="The model that the data are for.")
@click.option(
    "--max-drop", default=0.01, show_default=True, help="The accuracy drop that the data must be able to show."
)
@click.option("--metric", metavar="NAME|module:function", help="Metric, instead of the data set's own.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Fix the shape of an input.")
@skip_bad_option
@preflight_option
@click.option("--offline", is_flag=True, help="Fetch no engine library.")
@json_option
@click.pass_context
def check(
    context: click.Context,
    folder: str,
    model: str,
    max_drop: float,
    metric: str | None,
    shapes: tuple[str, ...],
    skip_bad: bool,
    preflight_seconds: int,
    offline: bool,
    as_json: bool,
) -> int:
    """Look at every sample of DATA for MODEL: layout, range, doubles, leaks between splits, labels, numbers.

    Labelled samples are run through the model as declared and prepared otherwise, and it is said when another way scores much
    better. Ends with 6 when there are errors, with 0 when there are warnings alone. Samples that can't be read are an error, unless
    --skip-bad says that they may be left out.
    """
    from edgekit.core.requirements import not_negative
    from edgekit.core.shapes import parse_shape
    from edgekit.errors import InputRejected
    from edgekit.flow.check import check_data

    with progress_line(quiet=as_json) as progress:
        found = check_data(
            folder,
            model,
            max_drop=not_negative(max_drop, "--max-drop"),
            metric=metric,
            skip_bad=skip_bad,
            shapes=dict(map(parse_shape, shapes)),
            preflight_seconds=preflight_seconds,
            offline=offline,
            cache=cache_root(context),
            progress=progress,
        )
    if as_json:
        print_json(found)
    else:
        from rich.console import Console

        from edgekit.report.data import print_check

        print_check(Console(), found)
    return InputRejected.exit_code if found.errors else 0
