"""`edgekit report`: a run as one HTML file that needs nothing else, or as Markdown for a pull request."""

from pathlib import Path

import click

from edgekit.cli.common import json_option, print_json

STDOUT = "-"


@click.command()
@click.argument("run", metavar="RUN", type=click.Path())
@click.option(
    "--html", "kind", flag_value="html", default="html", help="One file with charts, for a browser.  [default]"
)
@click.option("--md", "kind", flag_value="md", help="Markdown, for a pull request.")
@click.option(
    "-o", "--out", type=click.Path(), help="The file; - is the screen.  [default: RUN.html beside RUN; --md: -]"
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="PROFILE",
    type=click.Path(),
    help="A folder of `edgekit profile RUN`: time, heat and layers. May be given again.",
)
@click.option("--force", is_flag=True, help="Replace a file that is no report.")
@json_option
def report(run: str, kind: str, out: str | None, profiles: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Show RUN, a folder of `edgekit optimize`: what was chosen and why, trade-offs, layers, where it comes from.

    The HTML file loads nothing and sends nothing. The same run gives the same bytes.
    """
    from edgekit.flow.report import beside, gather, write
    from edgekit.report import html, markdown
    from edgekit.report.overview import MARK

    dossier = gather(Path(run), [Path(place) for place in profiles])
    text = html.render(dossier) if kind == "html" else markdown.render(dossier)
    place = out or (STDOUT if kind == "md" else str(beside(Path(run))))
    if place == STDOUT:
        click.echo(text, nl=False)
        return
    write(Path(place), text, MARK, force=force)
    size = len(text.encode())
    if as_json:
        print_json({"file": place, "kind": kind, "size_bytes": size})
    else:
        click.echo(f"report: {place} ({size / 1024:.0f} KiB)")
