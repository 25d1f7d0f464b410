"""Commands that look and change nothing of the user's: inspect, targets, engines."""

from pathlib import Path

import click

from edgekit.cli.common import cache_root, json_option, preflight_option, print_json, progress_line
from edgekit.cli.pack import inspect_bundle, is_bundle


@click.command()
@click.argument("model", metavar="MODEL|BUNDLE", type=click.Path())
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Fix the shape of an input.")
@preflight_option
@json_option
@click.pass_context
def inspect(context: click.Context, model: str, shapes: tuple[str, ...], preflight_seconds: int, as_json: bool) -> None:
    """What a model is: inputs, operators, parameters, MACs, memory, and which engines refuse it.

    Of a bundle, NAME.ekb: who signed it, what it requires and deploys, its figures and files.
    """
    if is_bundle(model):
        inspect_bundle(model, as_json)
        return
    from edgekit.core.shapes import parse_shape
    from edgekit.flow.inspect import inspect as look

    with progress_line(quiet=as_json) as progress:
        info = look(
            model,
            shapes=dict(map(parse_shape, shapes)),
            preflight_seconds=preflight_seconds,
            cache=cache_root(context),
            progress=progress,
        )
    if as_json:
        print_json(info)
        return
    from rich.console import Console

    from edgekit.report.terminal import print_model

    print_model(Console(), info, Path(model).name)


@click.group()
def targets() -> None:
    """The hardware targets edgekit knows; each is one TOML file."""


@targets.command("list")
@json_option
def list_targets(as_json: bool) -> None:
    """Every target, `host` included: ./targets/*.toml first, then the ones edgekit ships."""
    from edgekit.flow.targets import all_targets

    found = all_targets(Path.cwd())
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from edgekit.report.terminal import print_targets

    print_targets(Console(), found)


@targets.command("show")
@click.argument("name")
@json_option
def show_target(name: str, as_json: bool) -> None:
    """Every figure of a target with its source."""
    from edgekit.flow.targets import target_by_name

    _print_target(target_by_name(name, Path.cwd()), as_json)


@targets.command("detect")
@json_option
def detect_target(as_json: bool) -> None:
    """This machine as a target: what `--target host` means here."""
    from edgekit.flow.targets import target_by_name

    _print_target(target_by_name("host", Path.cwd()), as_json)


def _print_target(target: object, as_json: bool) -> None:
    from edgekit.core.types import Target

    assert isinstance(target, Target)
    if as_json:
        print_json(target)
        return
    from rich.console import Console

    from edgekit.report.terminal import print_target

    print_target(Console(), target)


@click.group()
def engines() -> None:
    """The inference engines' native libraries: which are here, and fetching them ahead."""


@engines.command("list")
@json_option
@click.pass_context
def list_engines(context: click.Context, as_json: bool) -> None:
    """Every pinned engine version and whether its library is on this machine."""
    from edgekit.flow.engines import engine_table

    rows = engine_table(cache_root(context))
    if as_json:
        print_json(rows)
        return
    from rich.console import Console

    from edgekit.report.terminal import print_engines

    print_engines(Console(), rows)


@engines.command("fetch")
@click.argument("target")
@click.option("--offline", is_flag=True, help="Only check that everything is here already.")
@json_option
@click.pass_context
def fetch_engines(context: click.Context, target: str, offline: bool, as_json: bool) -> None:
    """Fetch the libraries TARGET needs, and this host's of the same versions, so that later runs need no network."""
    from edgekit.flow.engines import fetch

    with progress_line(quiet=as_json) as progress:
        rows = fetch(target, cache_root(context), Path.cwd(), offline, progress)
    if as_json:
        print_json(rows)
        return
    from rich.console import Console

    from edgekit.report.terminal import print_engines

    print_engines(Console(), rows)
