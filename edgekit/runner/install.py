"""ekrun's verbs that keep bundles on a device, install, rollback and status: what they are asked and what they answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from edgekit.core.installed import CHECK_SECONDS, KEEP, Application, Switch
from edgekit.errors import UsageError
from edgekit.process import Completed
from edgekit.runner.client import parse

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """How the device's owner wants it done; an empty `root` is the device's own default.

    `trust` is a trust file on the device, for one that has none yet. `keep` counts slots, the one in use included;
    `check_seconds` bounds each self-test. `allow_unchecked` admits a bundle without golden samples.
    """

    root: str = ""
    trust: str = ""
    allow_unsigned: bool = False
    allow_unchecked: bool = False
    keep: int = KEEP
    check_seconds: int = CHECK_SECONDS


@dataclass(frozen=True)
class Lacking:
    """A file that no slot of the device holds intact, by the digest of its stored bytes."""

    sha256: str


@dataclass(frozen=True)
class DryRunReply:
    """`install --dry-run`: what would have to be sent."""

    protocol: Literal[1]
    lacking: tuple[Lacking, ...]


@dataclass(frozen=True)
class SwitchReply(Switch):
    """`install` and `rollback`: the bundle `id` is confirmed; `changed` is False when it was before."""

    protocol: Literal[1]
    verb: Literal["install", "rollback"]


@dataclass(frozen=True)
class StatusReply:
    """`status`: every application below `root`."""

    protocol: Literal[1]
    verb: Literal["status"]
    root: str
    applications: tuple[Application, ...]


def install_arguments(bundle: str, policy: Policy, parts: str = "") -> list[str]:
    """`ekrun install` of a bundle's head, its other files in the folder `parts`; without one a dry run."""
    words = ["install", bundle, *(["--parts", parts] if parts else ["--dry-run"]), *_owners(policy)]
    return [*words, "--keep", str(policy.keep)]


def rollback_arguments(application: str, to: str, policy: Policy, *, allow_downgrade: bool) -> list[str]:
    """`ekrun rollback` to the slot `to`, or where that is empty to the one before."""
    words = ["rollback", application, *_option("--to", to), *_owners(policy)]
    return [*words, "--allow-downgrade"] if allow_downgrade else words


def status_arguments(root: str) -> list[str]:
    """`ekrun status`."""
    return ["status", *_option("--root", root)]


def parse_answer(done: Completed, type_: type[T], where: str) -> T:
    """As `client.parse`; but what ekrun calls wrong usage are words of the user's here: UsageError."""
    return parse(done, type_, where, usage=UsageError)


def _owners(policy: Policy) -> list[str]:
    words = [*_option("--root", policy.root), *_option("--trust", policy.trust)]
    words += ["--allow-unsigned"] if policy.allow_unsigned else []
    words += ["--allow-unchecked"] if policy.allow_unchecked else []
    return [*words, "--check-seconds", str(policy.check_seconds)]


def _option(name: str, value: str) -> Sequence[str]:
    return [name, value] if value else []
