"""What a device keeps of bundles, and what became of a deployment or a rollback. What a device does not tell is None."""

from dataclasses import dataclass
from typing import Final, Literal

KEEP: Final = 2
CHECK_SECONDS: Final = 120

SHORT_ID: Final = 12  # enough of a bundle's ID for people

State = Literal["confirmed", "previous", "kept", "trial", "unknown"]


@dataclass(frozen=True)
class Slot:
    """A bundle on a device; `id` is the SHA-256 of its manifest, `trusted` whether the device would accept it today."""

    id: str
    state: State
    trusted: bool
    version: str | None = None
    counter: int | None = None
    signer: str | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Application:
    """One application of a device: its security counter, what `current` leads to, and its slots.

    `trial` was switched to and never confirmed. `damaged` says what is wrong with the device's own record; then little is known.
    """

    application: str
    counter: int | None = None
    trial: str | None = None
    current: str | None = None
    confirmed: str | None = None
    slots: tuple[Slot, ...] = ()
    damaged: str | None = None


@dataclass(frozen=True)
class DeviceStatus:
    """Every application that the device keeps below its folder `root`."""

    device: str
    root: str
    applications: tuple[Application, ...]


@dataclass(frozen=True)
class Switch:
    """As a device tells it: it now runs the bundle `id`, or did before when not `changed`.

    `previous` is what a rollback goes to, `removed` the slots that went, `device_counter` the device's security counter.
    `recovered`: an earlier install that had been cut off was taken back first.
    """

    application: str
    version: str
    counter: int
    id: str
    changed: bool
    previous: str | None
    removed: tuple[str, ...]
    device_counter: int
    recovered: bool


@dataclass(frozen=True)
class Switched(Switch):
    """What became of a deployment or a rollback on `device`."""

    device: str


@dataclass(frozen=True)
class Deployed(Switched):
    """A deployment. Of `stored_bytes`, all files as they are stored and each once, no slot of the device had
    `lacking_bytes`.

    `sent_bytes` had to go over the link: less where an earlier upload was cut, none on this machine itself. Not `tested`: the
    bundle carries no golden samples, and was admitted without.
    """

    stored_bytes: int
    lacking_bytes: int
    sent_bytes: int
    tested: bool
    notices: tuple[str, ...]
