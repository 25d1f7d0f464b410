"""`edgekit profile`: measure a model, a run's artifact or a bundle where it will run."""

from pathlib import Path
from typing import Any, get_args

import click

from edgekit.cli.bundle import trust_file, unsigned_option
from edgekit.cli.common import (
    cache_root,
    device_option,
    json_option,
    preflight_option,
    print_json,
    progress_line,
    reach,
    skip_bad_option,
    sysroot_option,
)
from edgekit.core.profile import Kind

SUSTAIN_AT_LEAST_S = 120.0


@click.command()
@click.argument("subject", metavar="MODEL|RUN|NAME.ekb", type=click.Path())
@device_option
@click.option(
    "-d", "--data", type=click.Path(), help="Samples to run; random inputs without. Answers there are compared."
)
@click.option("-o", "--out", type=click.Path(), help="The profile's folder.  [default: edgekit-runs/profile-...]")
@click.option(
    "--scenario",
    "kind",
    type=click.Choice(get_args(Kind)),
    default="single-stream",
    show_default=True,
    help="How queries come, after MLPerf Inference.",
)
@click.option("--duration", metavar="10s", help="How long the scenario runs.  [default: 10s]")
@click.option("--sustain", metavar="30m", help="Run this long and compare the last minute with the first.")
@click.option("--min-runs", type=click.IntRange(min=1), help="At least so many queries, however long they take.")
@click.option("--streams", type=click.IntRange(min=1, max=64), default=1, show_default=True, help="Queries at a time.")
@click.option("--threads", type=click.IntRange(min=1, max=1024), help="Threads.  [default: all the device lets us use]")
@click.option("--qps", type=float, help="Queries a second of the server scenario, Poisson.")
@click.option("--fps", type=float, help="Frames a second of the fixed-rate scenario.")
@click.option("--samples-per-query", type=click.IntRange(min=1), help="Of the multi-stream scenario.  [default: 8]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the server's arrivals.")
@click.option("--memory-limit", metavar="128MiB", help="Run under this cap, and say whether it holds.")
@click.option("--recipe", default="ort-fp32", show_default=True, help="How a MODEL is built; others have their own.")
@click.option(
    "--layers/--no-layers", default=True, show_default=True, help="The time of each layer, in a pass of its own."
)
@click.option("--require-trusted", is_flag=True, help="Exit 7 unless the measurement is trusted.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Fix the shape of an input.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Use at most N samples of each split.")
@skip_bad_option
@preflight_option
@sysroot_option
@click.option("--offline", is_flag=True, help="Fetch no engine library.")
@unsigned_option
@json_option
@click.pass_context
def profile(context: click.Context, /, subject: str, device: str, as_json: bool, **given: Any) -> int:
    """Measure a MODEL, or the artifact a RUN chose, under a scenario: load, latency, throughput, memory, layers, trust.

    A bundle, NAME.ekb, is measured as it ships: its own engine library, threads and options, on its golden samples unless --data
    gives others; its answers are compared with the ones it expects.
    """
    from edgekit.core.shapes import parse_shape
    from edgekit.errors import Untrustworthy
    from edgekit.flow.materials import Options
    from edgekit.flow.profile import default_profile_folder
    from edgekit.flow.profile import profile as measure

    scenario, wish, require = _scenario(given), _wish(given), given.pop("require_trusted")
    data, out, offline = given.pop("data"), given.pop("out"), given["offline"]
    allow_unsigned = given.pop("allow_unsigned")
    there = reach(context, given.pop("sysroot"), offline)
    options = Options(shapes=dict(map(parse_shape, given.pop("shapes"))), threads=given.pop("threads") or 0, **given)
    folder = Path(out) if out else default_profile_folder(Path(subject), device, scenario)
    with progress_line(quiet=as_json) as progress:
        found = measure(
            subject,
            data,
            folder,
            device=device,
            reach=there,
            scenario=scenario,
            wish=wish,
            options=options,
            trust=trust_file(None),
            allow_unsigned=allow_unsigned,
            cache=cache_root(context),
            progress=progress,
        )
    if as_json:
        print_json(found)
    else:
        from rich.console import Console

        from edgekit.report.profile import print_profile

        print_profile(Console(), found, str(folder))
    figures = found.figures
    if require and _verdict(found) == 0 and (figures is None or figures.trust.verdict != "trusted"):
        reason = (
            f"{figures.trust.verdict}: {figures.trust.reason}"
            if figures
            else "an emulated device has no figures to trust"
        )
        raise Untrustworthy(
            reason, where=device, next_step="mend what disturbs it, or measure without --require-trusted"
        )
    return _verdict(found)


def _verdict(found: Any) -> int:
    from edgekit.errors import ResourceLimit

    return 0 if found.memory_limit is None or found.memory_limit.holds else ResourceLimit.exit_code


def _scenario(given: dict[str, Any]) -> Any:
    from edgekit.core.profile import SAMPLES_PER_QUERY, Scenario
    from edgekit.core.requirements import parse_duration
    from edgekit.errors import UsageError

    duration, sustain = given.pop("duration"), given.pop("sustain")
    if duration and sustain:
        raise UsageError("--duration and --sustain say the same thing", next_step="give one of them")
    if sustain and parse_duration(sustain, "--sustain") < SUSTAIN_AT_LEAST_S:
        raise UsageError("the last minute can't be set against the first in less than 2m", where="--sustain")
    asked = sustain or duration
    flag = "--sustain" if sustain else "--duration"
    runs = given.pop("min_runs") or 0
    seconds = parse_duration(asked, flag) if asked else 0.0 if runs else 10.0
    return Scenario(
        kind=given.pop("kind"),
        duration_s=seconds,
        min_runs=runs,
        streams=given.pop("streams"),
        qps=given.pop("qps"),
        fps=given.pop("fps"),
        samples_per_query=given.pop("samples_per_query") or SAMPLES_PER_QUERY,
        seed=given.pop("seed"),
    )


def _wish(given: dict[str, Any]) -> Any:
    from edgekit.core.requirements import parse_bytes
    from edgekit.flow.profile import Wish

    limit = given.pop("memory_limit")
    return Wish(
        recipe=given.pop("recipe"),
        memory_limit_bytes=parse_bytes(limit, "--memory-limit") if limit else 0,
        layers=given.pop("layers"),
    )
