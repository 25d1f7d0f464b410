"""`edgekit device`: the boards on the desk, by name."""

from pathlib import Path

import click

from edgekit.cli.common import cache_root, device_names, json_option, print_json, progress_line, reach, sysroot_option


@click.group()
def device() -> None:
    """The machines to measure on: this one, boards over SSH, emulated boards.

    A DEVICE is local, ssh://[USER@]HOST[:PORT][/FOLDER] (hosts of ~/.ssh/config work), emulated[:TARGET], or a name given with
    `edgekit device add`. On a board everything lives in FOLDER, ~/.edgekit unless said otherwise; it needs a shell, no root, no
    Python and no package.
    """


@device.command("add")
@click.argument("name")
@click.argument("url")
def add(name: str, url: str) -> None:
    """Call the device URL NAME from now on."""
    from edgekit.devices.names import DeviceNames

    DeviceNames(device_names()).add(name, url)


@device.command("list")
@json_option
def list_devices(as_json: bool) -> None:
    """The devices that have a name."""
    from edgekit.devices.names import DeviceNames

    found = {name: str(url) for name, url in DeviceNames(device_names()).list().items()}
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from edgekit.report.profile import print_devices

    print_devices(Console(), found)


@device.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Forget the device NAME; what it holds is left (see `edgekit device clean`)."""
    from edgekit.devices.names import DeviceNames

    DeviceNames(device_names()).remove(name)


@device.command("clean")
@click.argument("device")
@sysroot_option
@click.pass_context
def clean(context: click.Context, device: str, sysroot: str | None) -> None:
    """Take away everything edgekit put on DEVICE, and end what it still runs there."""
    from edgekit.flow.devices import opened

    with progress_line(quiet=False) as progress:
        with opened(device, reach(context, sysroot), cache_root(context), Path.cwd(), progress) as found:
            found.clean()


@device.command("probe")
@click.argument("device", default="local")
@click.option("--write", is_flag=True, help="Write ./targets/NAME.toml from what the device tells.")
@click.option("--name", help="The new target's name.  [default: from the board's own]")
@sysroot_option
@json_option
@click.pass_context
def probe(
    context: click.Context, device: str, write: bool, name: str | None, sysroot: str | None, as_json: bool
) -> None:
    """What DEVICE is: board, cores, ISA, memory, kernel, C library, limits, heat; and which target it matches."""
    from edgekit.errors import UsageError
    from edgekit.flow.probe import probe as look

    if name is not None and not write:
        raise UsageError("names the target that --write makes", where="--name", next_step="add --write")
    with progress_line(quiet=as_json) as progress:
        found = look(device, reach(context, sysroot), cache_root(context), Path.cwd(), progress, write, name)
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from edgekit.report.profile import print_probe

    print_probe(Console(), found)
