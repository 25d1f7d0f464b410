"""Ask a device what it runs, and have it go back.

- the device's own ekrun decides and does it all; what it answers is untrusted;
- an interrupt here tells it so, and leaves it time to take back what it was trying; one that comes too late for that changes
  nothing, and what the device answered is what is said.
"""

import contextlib
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeVar

from edgekit.core.device_url import EMULATED
from edgekit.core.installed import SHORT_ID, Application, DeviceStatus, Slot, Switch, Switched
from edgekit.core.manifest import MAX_BUNDLE_BYTES
from edgekit.devices.base import Device
from edgekit.errors import Busy, EdgekitError, UsageError, VerificationFailed
from edgekit.flow.devices import Reach, find_url, opened
from edgekit.flow.workshop import Progress, ticking
from edgekit.process import Interrupted
from edgekit.runner.client import answered
from edgekit.runner.install import (
    Policy,
    StatusReply,
    SwitchReply,
    parse_answer,
    rollback_arguments,
    status_arguments,
)
from edgekit.store import Cache, default_cache

T = TypeVar("T")

DEFAULT_REACH = Reach()
DEFAULT_POLICY = Policy()

STATUS_SECONDS: Final = 120.0
SLOWEST_DISK_BYTES_S: Final = 2e6  # the device reads, hashes and writes at least so fast
# Over a bundle's files in an install: slots looked through, unpacked, verified, tested, verified again, and one to spare.
PASSES: Final = 6
GRACE_S: Final = 20  # for taking a trial back after an interrupt
FEWEST_DIGITS: Final = 4  # of an ID
UNCONFIRMED: Final = "switched, not confirmed:"  # ekrun's words where even taking back failed


@dataclass(frozen=True)
class Destination:
    """A device by what the user calls it, and how it is reached."""

    device: str
    reach: Reach = DEFAULT_REACH
    cache: Path | None = None
    progress: Progress = lambda _: None

    @property
    def store(self) -> Cache:
        return Cache(self.cache or default_cache())

    def command(self, verb: str, root: str, *words: str) -> str:
        """A command of edgekit that asks the same device, for people."""
        config = ["--ssh-config", str(self.reach.ssh_config)] if self.reach.ssh_config else []
        there = ["--root", root] if root else []
        return f"`{shlex.join(['edgekit', *config, verb, self.device, *words, *there])}`"


def status(place: Destination, root: str = "") -> DeviceStatus:
    """What the device keeps and runs. Raises DeviceError, and UsageError for a device or folder that keeps nothing."""
    with connected(place, root) as device:
        return _status(device, root)


def rollback(
    place: Destination,
    application: str = "",
    to: str = "",
    policy: Policy = DEFAULT_POLICY,
    *,
    allow_downgrade: bool = False,
) -> Switched:
    """Have the device go back to the bundle before, or to the one whose ID begins with `to`.

    `application` may be left out where there is one only. Raises VerificationFailed when the bundle there is damaged, fails, or is
    below the device's counter (unless `allow_downgrade`), Busy, UsageError for one that is not there, and as `status`.
    """
    with connected(place, policy.root) as device:
        chosen = _application(_status(device, policy.root), application)
        slot = _slot(chosen, to).id if to else ""
        most = max((known.bytes or MAX_BUNDLE_BYTES for known in chosen.slots), default=MAX_BUNDLE_BYTES)
        words = rollback_arguments(chosen.application, slot, policy, allow_downgrade=allow_downgrade)
        with ticking(place.progress, "going back: verifying, self-test, switch, health check"):
            reply = switching(device, words, seconds(most, policy), place.command("status", policy.root))
        return Switched(**switch_of(reply), device=device.name)


def switch_of(reply: SwitchReply) -> dict[str, Any]:
    """What an answer shares with the record of it."""
    return {f.name: getattr(reply, f.name) for f in fields(Switch)}


# ------------------------------------------------------------------------------------------------------------- asking it


@contextlib.contextmanager
def connected(place: Destination, root: str) -> Iterator[Device]:
    """The device, where bundles may be kept below `root`. Raises UsageError where nothing can be, and as `opened`."""
    if find_url(place.device, place.reach).kind == EMULATED:
        raise UsageError(
            "an emulated device keeps nothing, so nothing is installed there",
            where=place.device,
            next_step="use a board over SSH, or local",
        )
    if root and not root.startswith("/"):
        raise UsageError("is no absolute path", where=f"--root {root}", next_step="write it from / on")
    with opened(place.device, place.reach, place.store.root, Path.cwd(), place.progress) as device:
        yield device


def asked(device: Device, words: Sequence[str], type_: type[T], seconds: float) -> T:
    """An answer of the device's ekrun that changes nothing there. Raises as `parse_answer`."""
    return parse_answer(device.run(words, deadline_s=seconds), type_, device.name)


def switching(device: Device, words: Sequence[str], seconds: float, shows: str) -> SwitchReply:
    """The device's answer that it has switched. `shows` is the command that shows what it runs. Raises as `parse_answer`."""
    try:
        done = device.run(words, deadline_s=seconds, grace_s=GRACE_S)
    except Interrupted as late:
        if late.done is None or not answered(late.done):
            raise KeyboardInterrupt(f"{shows} shows what the device runs") from late
        done = late.done
    with advising(shows, unfinished=not answered(done)):
        return parse_answer(done, SwitchReply, device.name)


@contextlib.contextmanager
def advising(shows: str, *, unfinished: bool = False) -> Iterator[None]:
    """Errors of the device's within it say what helps; `unfinished`: it may have ended in the middle of a switch."""
    try:
        yield
    except EdgekitError as error:
        unfinished = unfinished or error.what.startswith(UNCONFIRMED)
        error.next_step = error.next_step or _what_helps(error, shows, unfinished)
        raise


def seconds(content_bytes: int, policy: Policy) -> float:
    """How long the device may take: its disk, the self-test, the health check, and one more where it has to go back."""
    content_bytes = min(max(content_bytes, 0), MAX_BUNDLE_BYTES)
    return 120.0 + PASSES * content_bytes / SLOWEST_DISK_BYTES_S + 3 * (policy.check_seconds + 10.0)


def _what_helps(error: EdgekitError, shows: str, unfinished: bool) -> str:
    if unfinished:
        return f"{shows} shows what it runs; its next install puts right what is unfinished"
    if isinstance(error, Busy):
        return "wait for the other install to end, and run the command again"
    if isinstance(error, VerificationFailed):
        return f"{shows} shows what it runs"
    if isinstance(error, UsageError) and "has no trust file" in error.what:
        return "name whom it shall trust from now on, such as --trust ~/.config/edgekit/trust"
    return ""


# ---------------------------------------------------------------------------------------------------------- what is there


def _status(device: Device, root: str) -> DeviceStatus:
    reply = asked(device, status_arguments(root), StatusReply, STATUS_SECONDS)
    return DeviceStatus(device.name, reply.root, reply.applications)


def _application(found: DeviceStatus, name: str) -> Application:
    """The application called `name`, or the only one. Raises UsageError with those that are there."""
    known = {application.application: application for application in found.applications}
    if name in known:
        return known[name]
    if not known:
        raise UsageError(f"nothing is installed in {found.root}", where=found.device, next_step="name another --root")
    names = ", ".join(sorted(known))
    if name:
        raise UsageError(f"there is no application {name[:80]!r}", where=found.device, next_step=f"it has {names}")
    if len(known) > 1:
        raise UsageError("more than one application is installed", where=found.device, next_step=f"name one of {names}")
    return next(iter(known.values()))


def _slot(application: Application, begins: str) -> Slot:
    """The one slot whose ID begins so. Raises UsageError."""
    found = [slot for slot in application.slots if slot.id.startswith(begins)]
    if len(begins) >= FEWEST_DIGITS and len(found) == 1:
        return found[0]
    known = ", ".join(f"{slot.id[:SHORT_ID]} ({slot.version or '?'})" for slot in application.slots)
    what = "more than one bundle" if len(found) > 1 else "no bundle"
    raise UsageError(
        f"{what} of {application.application} has an ID that begins with {begins[:64]!r}",
        where="--to",
        next_step=f"it keeps {known or 'none'}; give {FEWEST_DIGITS} digits of one at least",
    )
