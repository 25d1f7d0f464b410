"""`edgekit bundle`, and what `edgekit inspect` says of one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.bundle import config_home, trust_file
from edgekit.cli.common import cache_root, json_option, print_json, progress_line

if TYPE_CHECKING:
    from edgekit.flow.contents import Contents

SUFFIX = ".ekb"
MOST_SAMPLES = 1000
RANDOM_SAMPLES = 8


def _count(_context: click.Context, _option: click.Parameter, value: str) -> tuple[int, bool]:
    """A number of samples, 0 for none, and whether they are random."""
    if value in ("none", "random"):
        return (0, False) if value == "none" else (RANDOM_SAMPLES, True)
    if not value.isascii() or not value.isdecimal() or not 1 <= int(value[:9]) <= MOST_SAMPLES:
        raise click.BadParameter(f"{value!r} is neither 1 to {MOST_SAMPLES}, random nor none")
    return int(value), False


@click.command()
@click.argument("source", metavar="RUN|MODEL", type=click.Path())
@click.option("-t", "--target", help="For a model: the hardware target; see `edgekit targets list`. A run has its own.")
@click.option("-o", "--out", required=True, type=click.Path(), metavar="NAME.ekb", help="The bundle.")
@click.option("--key", metavar="NAME", help="Sign with a key of `edgekit keys list`, or a PEM file.")
@click.option("--unsigned", is_flag=True, help="Leave it unsigned: devices refuse it until `edgekit sign`.")
@click.option("--application", default="", metavar="ID", help="What is deployed.  [default: the model's name]")
@click.option("--version", default="", metavar="V", help="A label for people.  [default: of the artifact's digest]")
@click.option(
    "--counter",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="The security counter: a device refuses a bundle with a lower one than it has confirmed.",
)
@click.option(
    "--golden",
    callback=_count,
    default="8",
    show_default=True,
    metavar="N|random|none",
    help="Samples of the data that travel in the bundle, inputs and expected answers, for the device to prove itself with. "
    "Whoever has the bundle can read them.",
)
@click.option(
    "-d", "--data", type=click.Path(), help="The samples to take golden ones from.  [default: the run's, by name]"
)
@click.option("--model", type=click.Path(), help="The model a run was made from, where the cache no longer has it.")
@click.option("--shape", "shapes", multiple=True, metavar="NAME:1x3x224x224", help="For a model: fix an input's shape.")
@click.option(
    "--libstdcxx",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Carry libstdc++ and libgcc_s, for a target without them, from the root or library folder of a system or SDK for it.",
)
@click.option(
    "--wheelhouse",
    type=click.Path(file_okay=False),
    help="A folder of wheels to take the engine from, instead of the index.",
)
@click.option("--offline", is_flag=True, help="Fetch nothing over the network.")
@click.option("--force", is_flag=True, help="Replace NAME.ekb.")
@json_option
@click.pass_context
def bundle(context: click.Context, /, source: str, out: str, as_json: bool, **given: Any) -> None:
    """Pack the chosen artifact of RUN, or MODEL as it is, with all it takes on the device: runner, engine, data contract, golden
    samples, figures, licences.

    The golden samples are inputs of your data. They travel with the bundle, readable to whoever has it. With --golden random the
    device proves itself on random inputs instead; with --golden none it can't.
    """
    from edgekit.bundle.keys import unsigned
    from edgekit.errors import UsageError
    from edgekit.flow.bundles import signing_key
    from edgekit.flow.pack import Label
    from edgekit.flow.pack import bundle as pack

    key, is_unsigned = given["key"], given["unsigned"]
    if bool(key) == is_unsigned:
        raise UsageError("a bundle is signed with a key, or left unsigned", next_step="give --key NAME or --unsigned")
    seal = unsigned if is_unsigned else signing_key(key, config_home()).seal
    with progress_line(quiet=as_json) as progress:
        made = pack(
            source,
            out,
            given["target"],
            label=Label(given["application"], given["version"], given["counter"]),
            wishes=_wishes(given),
            seal=seal,
            force=given["force"],
            cache=cache_root(context),
            progress=progress,
        )
    if as_json:
        print_json(made)
        return
    manifest = made.manifest
    click.echo(
        f"packed: {out}, {manifest.application} {manifest.version}, counter {manifest.counter}, "
        f"{'unsigned' if is_unsigned else f'signed with {key}'}, {len(manifest.files)} files, "
        f"{manifest.size / 1e6:.1f} MB ({Path(out).stat().st_size / 1e6:.1f} MB as shipped)"
    )


def _wishes(given: dict[str, Any]) -> Any:
    from edgekit.core.shapes import parse_shape
    from edgekit.flow.cargo import Wishes
    from edgekit.flow.materials import Options

    def path(name: str) -> Path | None:
        return Path(given[name]) if given[name] else None

    return Wishes(
        data=_data(given["data"]),
        model=path("model"),
        samples=given["golden"][0],
        random=given["golden"][1],
        wheelhouse=path("wheelhouse"),
        libstdcxx=path("libstdcxx"),
        offline=given["offline"],
        options=Options(shapes=dict(map(parse_shape, given["shapes"])), offline=given["offline"]),
    )


def _data(given: str | None) -> Path | None:
    from edgekit.resources import find_data

    return find_data(given, Path.cwd()) if given else None


# -------------------------------------------------------------------------------------------------------------- inspect


def is_bundle(path: str) -> bool:
    """Whether `edgekit inspect` or `profile` was given a bundle, by its name."""
    return path.endswith(SUFFIX)


def inspect_bundle(path: str, as_json: bool) -> None:
    """Print what a bundle is, after reading all of it."""
    from edgekit.flow.contents import contents

    found = contents(Path(path), trust_file(None))
    if as_json:
        print_json(found)
        return
    from edgekit.errors import printable

    for line in (*_head(found), *_deployed(found), *_figures(found), *_files(found)):
        click.echo(printable(line))


def _head(found: "Contents") -> list[str]:
    manifest, requires = found.manifest, found.manifest.requires
    by = f" {found.signer.name or ''} {found.signer.public}".replace("  ", " ") if found.signer else ""
    libstdcxx = f"libstdc++ {requires.libstdcxx}" if requires.libstdcxx else "no libstdc++"
    return [
        f"{manifest.application} {manifest.version}, counter {manifest.counter}",
        f"  signature  {found.signature}{':' if by else ''}{by}",
        f"  requires   {requires.arch}, glibc {requires.glibc}, {libstdcxx}, isa {' '.join(requires.isa) or 'any'}",
    ]


def _deployed(found: "Contents") -> list[str]:
    d = found.deployment
    if d is None:
        return ["  no deployment.json that this edgekit reads"]
    ports = [f"{p.name} {p.dtype}{list(p.shape)}" for p in (*d.inputs, *d.outputs)]
    golden = "none" if d.golden is None else f"{d.golden.samples} samples"
    for output in d.golden.outputs if d.golden else ():
        counted = f", {sum(output.decided)} of {len(output.decided)} decisions" if output.decided else ""
        golden += f"; output {output.index} within {output.tolerance:.4g}{counted}"
    budget = f"p{d.latency_budget.percentile:g} {d.latency_budget.ms:g} ms" if d.latency_budget else "none"
    return [
        f"  engine     {d.engine} {d.engine_version}, {d.precision}, {d.threads} threads",
        f"  model      {d.model}: {', '.join(ports[: len(d.inputs)])} -> {', '.join(ports[len(d.inputs) :])}",
        f"  golden     {golden}",
        f"  budget     {budget}",
    ]


def _figures(found: "Contents") -> list[str]:
    told = found.figures or {}
    measured, predicted = _dig(told, "measured", "latency_ms", "p50"), _dig(told, "predicted", "p50_ms")
    where = "the target" if _dig(told, "measured", "is_target") is True else "another machine than the target"
    accuracy = "evaluation" if _dig(told, "evaluation") else "accuracy"
    lines = []
    if isinstance(measured, float):
        lines.append(f"  measured   p50 {measured:.3f} ms on {where}: {_dig(told, 'measured', 'device', 'cpu_model')}")
    if isinstance(predicted, float):
        lines.append(f"  predicted  p50 {predicted:.3f} ms, not measured")
    value, drop = _dig(told, accuracy, "value"), _dig(told, accuracy, "drop")
    if isinstance(value, float) and isinstance(drop, float):
        metric, n = _dig(told, accuracy, "metric"), _dig(told, accuracy, "n")
        lines.append(f"  accuracy   {metric} {value:.4f}, drop {drop:.4f} (n={n}, {accuracy})")
    return lines or ["  figures    nothing was measured or predicted"]


def _dig(table: Any, *keys: str) -> Any:
    """The value at a path of keys, None where there is none: what a bundle says may be anything."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _files(found: "Contents") -> list[str]:
    manifest = found.manifest
    rows = [f"  {file.size:>10}  {file.stored_size:>10}  {file.path}" for file in manifest.files]
    total = f"{manifest.size / 1e6:.1f} MB, {manifest.stored_size / 1e6:.1f} MB stored"
    return [f"  files      {len(rows)}, {total}", *rows]
