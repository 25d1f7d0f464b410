"""Ed25519 keys: made, kept, used to sign a manifest, and asked whether a signature holds (RFC 8032).

- a private key is PEM, PKCS #8, in a file that only its owner may read, in a folder that only its owner may enter;
- a key is never overwritten: it is complete under its name or absent;
- what is signed is the line `edgekit bundle 1` and the manifest's text, so a signature fits nothing else.
"""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edgekit.bundle.container import UNSIGNED, Admit, sync_folder
from edgekit.bundle.trust import Signer, Trust, is_key_name, public_line
from edgekit.errors import InputRejected, UsageError, VerificationFailed
from edgekit.resources import read_regular
from edgekit.store import disk_errors, write_atomic

CONTEXT: Final = b"edgekit bundle 1\n"
FOLDER: Final = "keys"
PRIVATE_SUFFIX: Final = ".pem"
PUBLIC_SUFFIX: Final = ".pub"
MAX_KEY_BYTES: Final = 16 << 10

_LINE = re.compile(rb"ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})\n")

Seal = Callable[[bytes], bytes]  # a manifest's text -> the line of manifest.sig


class SigningKey:
    """A private key; `public` is its public half, 64 hexadecimal digits."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = key.public_key().public_bytes_raw().hex()

    def seal(self, text: bytes) -> bytes:
        """The line of manifest.sig for a manifest's text."""
        return f"ed25519 {self.public} {self._key.sign(CONTEXT + text).hex()}\n".encode()

    def pem(self) -> bytes:
        """PKCS #8, not encrypted."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def unsigned(_text: bytes) -> bytes:
    """The Seal of a bundle that nobody signs."""
    return UNSIGNED


def admitting(trust: Trust, allow_unsigned: bool = False) -> Admit:
    """Who may have signed. `allow_unsigned` admits what says that it is unsigned, not what an unknown key signed."""

    def admit(text: bytes, line: bytes) -> Signer | None:
        if line == UNSIGNED:
            check_unsigned(allow_unsigned)
            return None
        public, signature = split_line(line)
        signer = trust.signer(public)
        check_signature(public, signature, text)
        return signer

    return admit


def split_line(line: bytes) -> tuple[str, bytes]:
    """Public key and signature of the line of manifest.sig. Raises VerificationFailed for any other line."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise VerificationFailed("is not a line that edgekit writes", where="manifest.sig")
    return match[1].decode(), bytes.fromhex(match[2].decode())


def check_signature(public: str, signature: bytes, text: bytes) -> None:
    """Raise VerificationFailed unless the key signed this text."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, CONTEXT + text)
    except InvalidSignature as error:
        raise VerificationFailed("the signature does not hold") from error


def check_unsigned(allowed: bool) -> None:
    """Raise VerificationFailed for an unsigned bundle, unless that is allowed."""
    if not allowed:
        raise VerificationFailed(
            "is not signed", next_step="sign it with `edgekit sign`, or accept it with --allow-unsigned"
        )


# -------------------------------------------------------------------------------------------------------- keys in files


def new_key(folder: Path, name: str) -> SigningKey:
    """Make the key `name` in a folder of keys. Raises UsageError when there is one, or for a name that is none."""
    if not is_key_name(name):
        raise UsageError(
            f"{name[:80]!r} is no name for a key", next_step="use letters, digits, dash, underscore and dot"
        )
    place = folder / f"{name}{PRIVATE_SUFFIX}"
    key = SigningKey(Ed25519PrivateKey.generate())
    with disk_errors(place):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        _keep(place, key.pem())
    write_atomic(folder / f"{name}{PUBLIC_SUFFIX}", public_line(Signer(name, key.public)))
    return key


def load_key(path: Path) -> SigningKey:
    """The private key in a PEM file. Raises InputRejected for another kind of file, and for one that others may read."""
    data = read_regular(path, MAX_KEY_BYTES)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputRejected("others may read this private key", where=str(path), next_step=f"run: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return SigningKey(key)


def own_keys(folder: Path) -> dict[str, Path]:
    """The private keys in a folder of keys, by name, sorted."""
    found = sorted(folder.glob(f"*{PRIVATE_SUFFIX}")) if folder.is_dir() else []
    return {path.stem: path for path in found}


def _keep(place: Path, data: bytes) -> None:
    """Write a private file under a name that is free, complete or absent. Raises UsageError when it is taken."""
    handle, draft = tempfile.mkstemp(prefix=".new.", dir=place.parent)  # mode 0600
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.link(draft, place)  # unlike a rename, never over another
        sync_folder(place.parent)
    except FileExistsError as error:
        raise UsageError("is a key already, and keys are never overwritten", where=str(place)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(draft).unlink()


def _no_key(path: Path) -> InputRejected:
    return InputRejected(
        "is no unencrypted Ed25519 private key in PEM", where=str(path), next_step="make one with `edgekit keys new`"
    )
