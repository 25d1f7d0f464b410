"""`edgekit deploy`, `edgekit rollback` and `edgekit status`: what a device runs, and its way there and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.cli.bundle import trust_file, unsigned_option
from edgekit.cli.common import cache_root, json_option, print_json, progress_line, reach
from edgekit.core.installed import CHECK_SECONDS, KEEP, SHORT_ID

if TYPE_CHECKING:
    from edgekit.core.installed import Application, Deployed, DeviceStatus, Slot, Switched

device_argument = click.argument("device")
root_option = click.option(
    "--root",
    default="",
    metavar="DIR",
    help="Where the device keeps bundles.  [default: /var/lib/edgekit for root, else ~/.local/share/edgekit]",
)
check_option = click.option(
    "--check-seconds",
    type=click.IntRange(min=1, max=86400),
    default=CHECK_SECONDS,
    show_default=True,
    help="How long each self-test on the device may take.",
)
unchecked_option = click.option(
    "--allow-unchecked", is_flag=True, help="Admit a bundle without golden samples: nothing proves that it works."
)


@click.command()
@click.argument("bundle", metavar="NAME.ekb", type=click.Path())
@device_argument
@root_option
@click.option(
    "--trust",
    default="",
    metavar="FILE",
    help="Whose bundles the device shall accept from now on, where it has no trust file yet; such as ~/.config/edgekit/trust.",
)
@unsigned_option
@unchecked_option
@click.option(
    "--keep",
    type=click.IntRange(min=1, max=64),
    default=KEEP,
    show_default=True,
    help="Bundles the device keeps of an application, the one in use included.",
)
@check_option
@json_option
@click.pass_context
def deploy(context: click.Context, /, bundle: str, device: str, as_json: bool, **given: Any) -> None:
    """Switch DEVICE to the bundle NAME.ekb, and back by itself if it does not work there.

    The bundle is verified here, by whom this machine trusts. The device says what it lacks of it, verifies it by whom the device
    trusts, tries it with its golden samples beside the one in use, switches to it, tries it once more, and only then keeps it. A
    failure, a crash or a hang leaves the device with what it ran before (exit code 8). DEVICE is local, ssh://USER@HOST or a name;
    see `edgekit device --help`. Without a link, `ekrun install NAME.ekb` on the device does the same from a USB stick.

    Exit codes: 8 refused, or failed there and taken back; 5 the device lacks what it needs; 10 another install is under way there;
    4 the link; 9 no room there.
    """
    from edgekit.flow.deploy import deploy as bring
    from edgekit.runner.install import Policy

    with progress_line(quiet=as_json) as progress:
        place = _place(context, device, progress)
        done = bring(Path(bundle), place, trust_file(None), Policy(**given))
    if as_json:
        print_json(done)
        return
    _say(_deployed(done, place.command("rollback", given["root"], done.application)))


@click.command()
@device_argument
@click.argument("application", default="")
@click.option("--to", default="", metavar="ID", help="The bundle to go back to, by the first digits of its ID.")
@click.option("--allow-downgrade", is_flag=True, help="Go back below the device's security counter, too.")
@root_option
@unsigned_option
@unchecked_option
@check_option
@json_option
@click.pass_context
def rollback(context: click.Context, /, device: str, application: str, as_json: bool, **given: Any) -> None:
    """Switch DEVICE back to the bundle it ran before, after verifying and trying it as a new one.

    APPLICATION may be left out where the device has one only. The device's security counter stays where it is.
    """
    from edgekit.flow.installed import rollback as go_back
    from edgekit.runner.install import Policy

    to, downgrade = given.pop("to"), given.pop("allow_downgrade")
    with progress_line(quiet=as_json) as progress:
        place = _place(context, device, progress)
        done = go_back(place, application, to, Policy(**given), allow_downgrade=downgrade)
    if as_json:
        print_json(done)
        return
    back = place.command("rollback", given["root"], done.application)
    _say(_rolled_back(done, back, unchecked=given["allow_unchecked"]))


@click.command()
@device_argument
@root_option
@json_option
@click.pass_context
def status(context: click.Context, device: str, root: str, as_json: bool) -> None:
    """What DEVICE runs and keeps: every application with its bundles, their IDs, and the security counter."""
    from edgekit.flow.installed import status as look

    with progress_line(quiet=as_json) as progress:
        found = look(_place(context, device, progress), root)
    if as_json:
        print_json(found)
        return
    _say(_status(found))


COMMANDS: tuple[click.Command, ...] = (deploy, rollback, status)


def _place(context: click.Context, device: str, progress: Any) -> Any:
    from edgekit.flow.installed import Destination

    return Destination(device, reach(context), cache_root(context), progress)


# --------------------------------------------------------------------------------------------------------------- in words

_TESTED = "self-tested, switched, tested again, confirmed"
_NOT_TESTED = "not tested"


def _say(lines: list[str]) -> None:
    """Lines that hold what a device answered: escaped."""
    from edgekit.errors import printable

    for line in lines:
        click.echo(printable(line))


def _deployed(done: "Deployed", back: str) -> list[str]:
    what = f"{done.application} {done.version} on {done.device}, ID {done.id[:SHORT_ID]}"
    if not done.changed:
        tested = (
            "and passed its self-test again" if done.tested else f"and was {_NOT_TESTED}, as it has no golden samples"
        )
        head = [f"unchanged: {what}: it ran there already, {tested}"]
    else:
        sent = f"sent {_mb(done.sent_bytes)} of {_mb(done.stored_bytes)}"
        had = done.stored_bytes - done.lacking_bytes
        head = [
            f"deployed: {what}: {_TESTED if done.tested else f'switched, confirmed; {_NOT_TESTED}, as it has no golden samples'}",
            f"  {sent}{f'; {_mb(had)} were on the device' if had else ''}",
            *_previous(done, back),
        ]
    return [*head, *_after(done), *(f"  note: {notice}" for notice in done.notices)]


def _rolled_back(done: "Switched", back: str, *, unchecked: bool) -> list[str]:
    what = f"{done.application} {done.version} on {done.device}, ID {done.id[:SHORT_ID]}"
    if not done.changed:
        return [f"unchanged: {what}: it ran there already", *_after(done)]
    how = f"switched, confirmed; --allow-unchecked: {_NOT_TESTED} if it has no golden samples" if unchecked else _TESTED
    return [f"rolled back: {what}: {how}", *_previous(done, back), *_after(done)]


def _previous(done: "Switched", back: str) -> list[str]:
    if done.previous is None:
        return ["  no bundle to go back to is there"]
    return [f"  {back} goes back to {done.previous[:SHORT_ID]}"]


def _after(done: "Switched") -> list[str]:
    lines = [f"  security counter of the device: {done.device_counter}"]
    if done.counter < done.device_counter:
        lines[0] += f", above this bundle's {done.counter}"
    if done.removed:
        lines.append(f"  removed {', '.join(name[:SHORT_ID] for name in done.removed)}")
    if done.recovered:
        lines.append("  note: an earlier install had been cut off; it was taken back first")
    return lines


def _status(found: "DeviceStatus") -> list[str]:
    lines = [f"{found.device}, {found.root}"]
    if not found.applications:
        return [*lines, "  nothing is installed"]
    for application in found.applications:
        lines += _application(application)
    return lines


def _application(application: "Application") -> list[str]:
    counter = "?" if application.counter is None else application.counter
    lines = [f"{application.application}, security counter {counter}"]
    if application.damaged is not None:
        lines.append(f"  damaged: {application.damaged}")
    if application.trial is not None:
        lines.append(
            "  an install is under way, or was cut off before it was confirmed: then the next one takes it back"
        )
    return [*lines, *(_slot(slot, application.current) for slot in application.slots)]


def _slot(slot: "Slot", current: str | None) -> str:
    mark = "*" if slot.id == current else " "
    unknown = "unsigned" if slot.version is not None else "damaged, or signed by a key that is no longer trusted"
    signer = f"signed by {slot.signer}" if slot.signer else unknown
    size = "" if slot.bytes is None else f"  {_mb(slot.bytes):>9}"
    counter = "?" if slot.counter is None else slot.counter
    version = slot.version or "?"
    return f"  {mark} {slot.id[:SHORT_ID]}  {slot.state:<9}{size}  counter {counter}  {version}  {signer}"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
