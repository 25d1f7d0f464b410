"""Commands that make something: optimize and demo."""

from collections.abc import Callable
from pathlib import Path
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
    sysroot_option,
)


def requirement_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that state what the result must satisfy."""
    for option in reversed(
        (
            click.option(
                "--requirements",
                "file",
                type=click.Path(dir_okay=False),
                metavar="FILE",
                help="A requirements.toml; every flag wins over what it says.",
            ),
            click.option("--latency-budget", metavar="[p50:]20ms", help="Latency limit; p99 unless said otherwise."),
            click.option("--latency-percentile", metavar="p50", help="Of the latency budget: p50, p90, p95 or p99."),
            click.option("--scenario", metavar="fixed-rate", help="How requests come; see `edgekit profile --help`."),
            click.option("--arrival-rate", metavar="N", help="Requests a second of fixed-rate and server."),
            click.option("--min-throughput", type=float, metavar="N", help="Inferences a second, at least."),
            click.option("--max-drop", type=float, help="Largest accuracy drop, absolute.  [default: 0.01]"),
            click.option("--frame-rate", metavar="30", help="Frames a second that one source delivers."),
            click.option("--sample-rate", metavar="16kHz", help="Samples a second of one source; with --hop."),
            click.option("--hop", type=int, metavar="N", help="Samples from one inference to the next."),
            click.option("--sources", type=int, metavar="N", help="How many sources there are.  [default: 1]"),
            click.option("--batchable/--not-batchable", default=None, help="Whether samples may wait for each other."),
            click.option("--max-memory", metavar="128MiB", help="Peak resident memory, at most."),
            click.option("--max-size", metavar="20MiB", help="Size of the artifact, at most."),
            click.option("--max-cold-start", metavar="500ms", help="From the process's start to its first answer."),
            click.option("--cores", metavar="N|0-3", help="Cores that may be used: how many, or which."),
            click.option("--power-mode", metavar="GOVERNOR", help="The cpufreq governor it will run under."),
            click.option(
                "--prefer",
                metavar="WORD",
                help="What decides among those that fit: latency, throughput, memory or size, or weights such as"
                " latency=2,memory=1.  [default: latency]",
            ),
            click.option("--forbid", multiple=True, metavar="WORD", help="A precision, engine or recipe not to use."),
        )
    ):
        function = option(function)
    return function


def _settled(given: dict[str, Any]) -> Any:
    """What the requirement options and the file come to; takes them out of `given`."""
    from edgekit.core.wishes import KEYS, read_flags, settle
    from edgekit.flow.wishes import read_requirements

    file = given.pop("file")
    flags = {key: given.pop(entry.flag.removeprefix("--").replace("-", "_")) for key, entry in KEYS.items()}
    return settle(
        read_requirements(Path(file)) if file else {}, read_flags({**flags, "forbid": flags["forbid"] or None})
    )


@click.command()
@click.argument("model", type=click.Path())
@click.option(
    "-t",
    "--target",
    default="host",
    help="A hardware target; see `edgekit targets list`.  [default: host, or the device]",
)
@click.option(
    "-d",
    "--data",
    type=click.Path(),
    help="A folder with a data.toml, .npz, folder of .npy, or test_data_set_*; or a data set's name.",
)
@click.option("-o", "--out", type=click.Path(), help="The run folder.  [default: edgekit-runs/MODEL-TARGET]")
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="Fix the shape of an input.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Use at most N samples of each split.")
@click.option("--metric", metavar="NAME|module:function", help="Metric, instead of the data set's own.")
@skip_bad_option
@click.option("--threads", type=click.IntRange(min=1, max=1024), help="Threads.  [default: all the target lets us use]")
@click.option(
    "--time-budget",
    default="10m",
    show_default=True,
    metavar="30m",
    help="Time for the searches for a mixed precision and over settings, at most; the best known is kept.",
)
@click.option(
    "--explore/--no-explore",
    default=None,
    help="Search threads, streams, batches and options, too.  [default: with --prefer throughput]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The order settings are tried in."
)
@device_option
@sysroot_option
@preflight_option
@click.option("--offline", is_flag=True, help="Fetch no engine library.")
@click.option("--fresh", is_flag=True, help="Measure again what was measured before.")
@requirement_options
@json_option
@click.pass_context
def optimize(context: click.Context, /, model: str, target: str, as_json: bool, **given: Any) -> int:
    """Quantize and convert MODEL for a target, prove it on data, measure it, and choose.

    Without --data nothing is calibrated: fp32, fp16, dynamic and weight-only candidates are compared on synthetic inputs.
    """
    from edgekit.core.requirements import parse_time_budget
    from edgekit.core.shapes import parse_shape
    from edgekit.flow.materials import Options

    settled = _settled(given)
    given["metric"] = settled.metric
    given["time_budget_s"] = parse_time_budget(given.pop("time_budget"))
    data, out = given.pop("data"), given.pop("out")
    device, there = given.pop("device"), reach(context, given.pop("sysroot"), given["offline"])
    options = Options(shapes=dict(map(parse_shape, given.pop("shapes"))), threads=given.pop("threads") or 0, **given)
    return _run(
        context, Path(model), target, data, out, settled.requirements, options, as_json, device=device, reach=there
    )


@click.command()
@click.option(
    "-t", "--target", default="cpu-arm", show_default=True, help="A hardware target; see `edgekit targets list`."
)
@click.option("-o", "--out", type=click.Path(), help="The run folder.  [default: edgekit-runs/MODEL-TARGET]")
@device_option
@json_option
@click.pass_context
def demo(context: click.Context, target: str, out: str | None, device: str, as_json: bool) -> int:
    """The whole flow on the shipped sample: a digit classifier with its data."""
    from edgekit.core.types import Requirements
    from edgekit.flow.materials import Options
    from edgekit.flow.sample import sample_model

    model, data = sample_model(Path.cwd())
    where = {"device": device, "reach": reach(context)}
    return _run(context, model, target, str(data), out, Requirements(), Options(), as_json, demo=True, **where)


def _run(
    context: click.Context,
    model: Path,
    target: str,
    data: str | None,
    out: str | None,
    requirements: Any,
    options: Any,
    as_json: bool,
    demo: bool = False,
    **where: Any,
) -> int:
    """One call of the API, one report; 3 when nothing meets the requirements."""
    from edgekit.errors import RequirementsNotMet
    from edgekit.flow.optimize import default_run_folder, optimize

    folder = Path(out) if out else default_run_folder("digits" if demo else model.stem, target, where["device"])
    with progress_line(quiet=as_json) as progress:
        run = optimize(
            model,
            target,
            data,
            folder,
            requirements=requirements,
            options=options,
            cache=cache_root(context),
            command="edgekit demo" if demo else "",
            progress=progress,
            **where,
        )
    if as_json:
        print_json(run)
    else:
        from rich.console import Console

        from edgekit.report.settings import settings_lines
        from edgekit.report.terminal import print_run

        print_run(Console(), run, str(folder), settings_lines(run))
    return 0 if run.satisfies_constraints else RequirementsNotMet.exit_code
