"""Bring a bundle to a device, and have it switch to it.

- the device's own ekrun decides and does it all: whom the device trusts, what it lacks, unpacking, self-tests, switch, way back;
- all that can refuse a bundle is asked before a byte of its files is sent, and only files that the device lacks are sent;
- what was sent goes from the device again, however it ends; only an upload that was cut stays, for the next try.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgekit.bundle.keys import admitting
from edgekit.bundle.parts import HEAD_FILE, Parts, opened_bundle
from edgekit.bundle.trust import TrustFile
from edgekit.core.admission import admit_bundle
from edgekit.core.installed import Deployed
from edgekit.core.manifest import Manifest
from edgekit.devices.base import Device
from edgekit.errors import DeviceError, EdgekitError, InputRejected
from edgekit.flow.contents import parse_deployment
from edgekit.flow.installed import (
    DEFAULT_POLICY,
    Destination,
    advising,
    asked,
    connected,
    seconds,
    switch_of,
    switching,
)
from edgekit.flow.workshop import Progress, ticking
from edgekit.measure import fact_sheet
from edgekit.runner.install import DryRunReply, Policy, SwitchReply, install_arguments
from edgekit.store import disk_errors

TRUST_NAME: Final = "trust"  # of a trust file on its way to the device

_DIGEST: Final = re.compile("[0-9a-f]{64}")


def deploy(bundle: Path, place: Destination, trust_file: Path, policy: Policy = DEFAULT_POLICY) -> Deployed:
    """Verify `bundle` by this machine's `trust_file`, and have the device verify, self-test, switch to and confirm it.

    `policy.trust` is a file of this machine here, for a device that trusts nobody yet. Raises VerificationFailed for a bundle that
    is refused here or there, or fails there, and then the device runs what it ran before; TargetIncompatible, Busy, DeviceError,
    DiskFull, ResourceLimit, and for what was given UsageError and InputRejected.
    """
    place.progress("verifying the bundle")
    admit = admitting(TrustFile(trust_file).read(), policy.allow_unsigned)
    with place.store.scratch() as scratch, opened_bundle(bundle, admit) as parts:
        head = {**parts.head(scratch), **_trust_file(policy, scratch)}
        place = replace(place, progress=_naming(place.progress, parts.verified.manifest))
        with connected(place, policy.root) as device:
            return _Deployment(parts, device, place, policy).run(head, scratch)


class _Deployment:
    """One bundle on its way to one device."""

    def __init__(self, parts: Parts, device: Device, place: Destination, policy: Policy) -> None:
        self._parts = parts
        self._manifest = parts.verified.manifest
        # By digest: what is twice in the bundle is sent once.
        self._sizes = {file.stored_sha256: file.stored_size for file in self._manifest.files}
        self._device = device
        self._progress = place.progress
        self._policy = policy
        self._seconds = seconds(self._manifest.size, policy)
        self._shows = place.command("status", policy.root)
        self._notices: list[str] = []

    def run(self, head: Mapping[str, Path], scratch: Path) -> Deployed:
        """Refusals first, then what is lacking, then the switch."""
        self._notices += admit_bundle(self._manifest.requires, fact_sheet(self._device), self._device.name)
        lacking = self._ask(head)
        files = self._parts.files(lacking, scratch)
        sent = self._device.lacking(files.values()) if files else 0
        reply = self._install({**head, **files}, sent)
        return Deployed(
            **switch_of(reply),
            device=self._device.name,
            stored_bytes=sum(self._sizes.values()),
            lacking_bytes=sum(lacking.values()),
            sent_bytes=sent,
            tested=not (self._policy.allow_unchecked and self._has_no_samples()),
            notices=tuple(self._notices),
        )

    def _has_no_samples(self) -> bool:
        """Whether the bundle says that it has no golden samples, so that there is nothing to test it with."""
        deployment = parse_deployment(self._parts.deployment)
        return deployment is not None and deployment.golden is None

    def _ask(self, head: Mapping[str, Path]) -> dict[str, int]:
        """The stored digests of what the device lacks, with their sizes. Raises what can refuse the bundle there by its head."""
        self._progress("asking the device what it lacks")
        with advising(self._shows), self._device.lent(head) as folder:
            words = install_arguments(f"{folder}/{HEAD_FILE}", self._there(head, folder))
            reply = asked(self._device, words, DryRunReply, self._seconds)
        if unknown := [item.sha256 for item in reply.lacking if item.sha256 not in self._sizes]:
            raise DeviceError(f"asks for {unknown[0][:64]!r}, which is no file of the bundle", where=self._device.name)
        return {item.sha256: self._sizes[item.sha256] for item in reply.lacking}

    def _install(self, files: Mapping[str, Path], sent: int) -> SwitchReply:
        """The device's answer that it runs the bundle."""
        self._progress(f"sending {sent / 1e6:.1f} MB" if sent else "nothing has to be sent")
        reply: SwitchReply | None = None
        try:
            with self._device.lent(files) as folder:
                words = install_arguments(f"{folder}/{HEAD_FILE}", self._there(files, folder), folder)
                with ticking(self._progress, "installing, with a self-test before the switch and one after it"):
                    reply = switching(self._device, words, self._seconds, self._shows)
        except (EdgekitError, KeyboardInterrupt) as error:
            if reply is None:
                raise
            what = error.what if isinstance(error, EdgekitError) else "interrupted"
            self._notices.append(f"what was sent could not be taken away from the device: {what}")
        if reply.id != self._parts.verified.manifest_sha256:
            raise DeviceError("says that it runs another bundle than was sent", where=self._device.name)
        return reply

    def _there(self, files: Mapping[str, Path], folder: str) -> Policy:
        return replace(self._policy, trust=f"{folder}/{TRUST_NAME}" if TRUST_NAME in files else "")


def _naming(progress: Progress, manifest: Manifest) -> Progress:
    """Files are sent under their digests; people know them by their paths."""
    names = {file.stored_sha256: file.path for file in manifest.files}
    return lambda text: progress(_DIGEST.sub(lambda found: names.get(found[0], found[0]), text))


def _trust_file(policy: Policy, folder: Path) -> dict[str, Path]:
    """A copy of the trust file for the device, read here first: a damaged one is not sent."""
    if not policy.trust:
        return {}
    source, place = Path(policy.trust), folder / TRUST_NAME
    if not source.is_file():
        raise InputRejected("there is no such trust file", where=policy.trust)
    TrustFile(source).read()
    with disk_errors(place):
        place.write_bytes(source.read_bytes())
    return {TRUST_NAME: place}
