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
from edgekit.core.types import Prefer


def requirement_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that state what the result must satisfy."""
    for option in reversed(
        (
            click.option("--max-drop", default=0.01, show_default=True, help="Largest accuracy drop, absolute."),
            click.option("--latency-budget", metavar="[p50:]20ms", help="Latency limit; p99 unless said otherwise."),
            click.option("--min-throughput", type=float, metavar="N", help="Inferences a second, at least."),
            click.option("--max-memory", metavar="128MiB", help="Peak resident memory, at most."),
            click.option("--max-size", metavar="20MiB", help="Size of the artifact, at most."),
            click.option(
                "--prefer",
                type=click.Choice([p.value for p in Prefer]),
                default=Prefer.LATENCY.value,
                show_default=True,
                help="What decides among those that fit.",
            ),
            click.option("--forbid", multiple=True, metavar="WORD", help="A precision, engine or recipe not to use."),
        )
    ):
        function = option(function)
    return function


def _requirements(given: dict[str, Any]) -> Any:
    from edgekit.core import requirements as parse
    from edgekit.core.plan import forbiddable
    from edgekit.core.types import Requirements

    budget, throughput = given.pop("latency_budget"), given.pop("min_throughput")
    memory, size = given.pop("max_memory"), given.pop("max_size")
    return Requirements(
        max_drop=parse.not_negative(given.pop("max_drop"), "--max-drop"),
        latency=parse.parse_latency(budget) if budget else None,
        min_throughput_ips=parse.positive(throughput, "--min-throughput") if throughput is not None else None,
        max_memory_bytes=parse.parse_bytes(memory, "--max-memory") if memory else None,
        max_size_bytes=parse.parse_bytes(size, "--max-size") if size else None,
        prefer=Prefer(given.pop("prefer")),
        forbid=parse.parse_forbid(given.pop("forbid"), forbiddable()),
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
    help="Time for the search for a mixed precision, at most; the best known is kept.",
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

    requirements = _requirements(given)
    given["time_budget_s"] = parse_time_budget(given.pop("time_budget"))
    data, out = given.pop("data"), given.pop("out")
    device, there = given.pop("device"), reach(context, given.pop("sysroot"), given["offline"])
    options = Options(shapes=dict(map(parse_shape, given.pop("shapes"))), threads=given.pop("threads") or 0, **given)
    return _run(context, Path(model), target, data, out, requirements, options, as_json, device=device, reach=there)


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

        from edgekit.report.terminal import print_run

        print_run(Console(), run, str(folder))
    return 0 if run.satisfies_constraints else RequirementsNotMet.exit_code
