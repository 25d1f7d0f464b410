"""Whose signature counts: a trust file of lines `ed25519 PUBLIC-KEY NAME` and `revoked PUBLIC-KEY NAME`.

- any line that is neither, empty, nor a comment refuses the whole file: a damaged line could be the revoked one;
- a revoked key is refused wherever else it is listed;
- the file is read at every use, and rewritten whole, under a lock, with its comments as they were.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgekit.errors import InputRejected, UsageError, VerificationFailed
from edgekit.resources import read_regular
from edgekit.store import alone_with, disk_errors, write_atomic

FILE: Final = "trust"
MAX_BYTES: Final = 64 << 10
HEADER: Final = b"# Whose bundles are trusted; written by `edgekit keys`.\n"

_LINE = re.compile(rb"(ed25519|revoked) ([0-9a-f]{64}) ([A-Za-z0-9][A-Za-z0-9._-]{0,63})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PUBLIC = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Signer:
    """Who signed: the name a trust file gives to a public key, and the key, 64 hexadecimal digits."""

    name: str
    public: str


@dataclass(frozen=True)
class Trust:
    """What a trust file says: names by public key."""

    trusted: Mapping[str, str] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)

    def signer(self, public: str) -> Signer:
        """Whose key this is. Raises VerificationFailed when it is not trusted."""
        check_not_revoked(self, public)
        check_trusted(self, public)
        return Signer(self.trusted.get(public, ""), public)


def check_not_revoked(trust: Trust, public: str) -> None:
    """Raise VerificationFailed for a key that was revoked."""
    if public in trust.revoked:
        raise VerificationFailed(
            f"is signed with the key {trust.revoked[public]} ({public[:16]}...), which was revoked",
            next_step="get a bundle signed with another key",
        )


def check_trusted(trust: Trust, public: str) -> None:
    """Raise VerificationFailed for a key that is not listed."""
    if public not in trust.trusted:
        raise VerificationFailed(
            f"is signed with a key that is not trusted here: {public}",
            next_step="if it is your supplier's, trust it with `edgekit keys trust`",
        )


def is_key_name(text: str) -> bool:
    """Whether a key may be called `text`."""
    return _NAME.fullmatch(text) is not None


def is_public_key(text: str) -> bool:
    """Whether `text` is a public key as it is written: 64 lower-case hexadecimal digits."""
    return _PUBLIC.fullmatch(text) is not None


def parse_trust(data: bytes, where: str) -> Trust:
    """What a trust file's bytes say. Raises InputRejected, with the line, for anything else."""
    if len(data) > MAX_BYTES:
        raise InputRejected(f"larger than {MAX_BYTES >> 10} KiB", where=where)
    found: dict[bytes, dict[str, str]] = {b"ed25519": {}, b"revoked": {}}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line or line.startswith(b"#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputRejected(
                "is not `ed25519 PUBLIC-KEY NAME` or `revoked PUBLIC-KEY NAME`, so the whole file is refused",
                where=f"{where}, line {number}",
                next_step="mend the line or remove it",
            )
        kind, public, name = match.groups()
        found[kind].setdefault(public.decode(), name.decode())
    return Trust(found[b"ed25519"], found[b"revoked"])


def public_line(signer: Signer) -> bytes:
    """The line that makes a key trusted."""
    return f"ed25519 {signer.public} {signer.name}\n".encode()


class TrustFile:
    """The trust file at `path`, which need not exist: then nobody is trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Trust:
        """Raises InputRejected when the file is damaged or cannot be read."""
        return parse_trust(self._bytes(), str(self.path))

    def trust(self, signer: Signer) -> None:
        """List a key as trusted. Raises UsageError when it is revoked, or when another key has its name."""
        with disk_errors(self.path), alone_with(self.path, "changing whom to trust"):
            known = self.read()
            if signer.public in known.revoked:
                raise UsageError(
                    f"the key {known.revoked[signer.public]} was revoked",
                    where=str(self.path),
                    next_step="make a new one with `edgekit keys new`",
                )
            owner = next((key for key, name in known.trusted.items() if name == signer.name), signer.public)
            if owner != signer.public:
                raise UsageError(
                    f"{signer.name} is the name of another key, {owner[:16]}...",
                    where=str(self.path),
                    next_step="choose another name",
                )
            if signer.public not in known.trusted:
                self._append(public_line(signer))

    def revoke(self, signer: Signer) -> None:
        """List a key as revoked, whether or not it was trusted."""
        with disk_errors(self.path), alone_with(self.path, "changing whom to trust"):
            if signer.public not in self.read().revoked:
                self._append(f"revoked {signer.public} {signer.name}\n".encode())

    def _append(self, line: bytes) -> None:
        before = self._bytes() or HEADER
        data = before + (b"" if before.endswith(b"\n") else b"\n") + line
        if len(data) > MAX_BYTES:
            raise UsageError(
                f"would be larger than {MAX_BYTES >> 10} KiB", where=str(self.path), next_step="tidy it up"
            )
        with disk_errors(self.path):
            write_atomic(self.path.resolve(), data)  # resolved: a link to the file stays a link

    def _bytes(self) -> bytes:
        return read_regular(self.path, MAX_BYTES) if os.path.lexists(self.path.resolve()) else b""
