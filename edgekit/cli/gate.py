"""`edgekit gate`: a run held against a policy, for CI."""

import time
from pathlib import Path
from typing import Any

import click

from edgekit.cli.common import cache_root, json_option, print_json, progress_line, reach


@click.command()
@click.argument("run", type=click.Path())
@click.option("--policy", required=True, type=click.Path(), help="What is asked, policy.toml; see docs/policy.md.")
@click.option("--against", metavar="RUN", type=click.Path(), help="The run that this one may not be worse than.")
@click.option("--measure", is_flag=True, help="Race both anew, interleaved, instead of comparing what they hold.")
@click.option("--device", metavar="DEVICE", help="Where to race.  [default: where RUN was measured]")
@click.option("-d", "--data", type=click.Path(), help="Samples to race on; random inputs without.")
@click.option("--duration", default="5s", show_default=True, help="Inference of each in a race, at least.")
@click.option("--rounds", type=click.IntRange(min=8), default=40, show_default=True, help="Rounds of a race, at least.")
@click.option(
    "--races", type=click.IntRange(1, 20), default=5, show_default=True, help="Races, while one is undecided."
)
@click.option("--junit", type=click.Path(dir_okay=False), help="Write JUnit XML here.")
@click.option("--md", type=click.Path(dir_okay=False), help="Write a Markdown summary here.")
@click.option("--offline", is_flag=True, help="Fetch no engine library.")
@json_option
@click.pass_context
def gate(context: click.Context, /, run: str, junit: str | None, as_json: bool, **given: Any) -> None:
    """Hold RUN against a policy: exit 0 when all of it holds, 3 when something fails or was not measured, 7 when the
    figures cannot decide."""
    from edgekit.core.checks import raise_unless_passed
    from edgekit.errors import EdgekitError
    from edgekit.flow.policy import gate as hold
    from edgekit.report.gate import gate_markdown, markdown_of_error
    from edgekit.report.junit import junit as as_junit
    from edgekit.report.junit import junit_of_error
    from edgekit.store import write_atomic

    markdown = given.pop("md")
    try:
        with progress_line(quiet=as_json) as progress:
            found = hold(run, given["policy"], given["against"], _retake(context, given), progress)
    except EdgekitError as error:
        if junit:
            write_atomic(Path(junit), junit_of_error(error, run, time.time()))
        if markdown:  # what an earlier gate left there must not stand for this one
            write_atomic(Path(markdown), markdown_of_error(error).encode())
        raise
    if junit:
        write_atomic(Path(junit), as_junit(found, time.time()))
    if markdown:
        write_atomic(Path(markdown), gate_markdown(found).encode())
    if as_json:
        print_json(found)
    else:
        from rich.console import Console

        from edgekit.report.gate import print_gate

        print_gate(Console(), found)
    raise_unless_passed(found)


def _retake(context: click.Context, given: dict[str, Any]) -> Any:
    """How both are measured anew, or None."""
    if not given["measure"]:
        return None
    from edgekit.core.requirements import parse_duration
    from edgekit.flow.compare import Length
    from edgekit.flow.materials import Options
    from edgekit.flow.policy import Retake

    return Retake(
        device=given["device"],
        data=given["data"],
        length=Length(parse_duration(given["duration"], "--duration"), given["rounds"]),
        races=given["races"],
        reach=reach(context, offline=given["offline"]),
        options=Options(offline=given["offline"]),
        cache=cache_root(context),
    )
