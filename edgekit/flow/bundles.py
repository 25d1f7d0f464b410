"""What a user does with bundles and keys: verify, unpack, sign; make, list, trust and revoke keys.

- `home` is the folder of the user's own configuration: private keys lie in `keys/`, whom this machine trusts in `trust`;
- a key made here is trusted here; devices get a trust file of their own.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from edgekit.bundle import keys, trust
from edgekit.bundle.container import Verified, verify_bundle
from edgekit.bundle.keys import SigningKey, admitting, load_key
from edgekit.bundle.trust import Signer, Trust, TrustFile, is_key_name, is_public_key, parse_trust
from edgekit.bundle.unpacked import unpack_bundle, verify_folder
from edgekit.bundle.write import sign_bundle
from edgekit.core.tomltable import did_you_mean
from edgekit.errors import InputRejected, UsageError
from edgekit.resources import read_regular

TRUST_FILE: Final = trust.FILE

Status = Literal["trusted", "revoked", "not trusted"]


@dataclass(frozen=True)
class Key:
    """A key this machine knows. `private` is the file of its private half, when that is here."""

    name: str
    public: str
    status: Status
    private: Path | None = None


def verify(path: Path, trust_file: Path, *, allow_unsigned: bool = False) -> Verified:
    """Read all of a bundle, or of the folder it was unpacked to.

    Raises VerificationFailed, and InputRejected for a bundle or a trust file that cannot be read.
    """
    admit = admitting(TrustFile(trust_file).read(), allow_unsigned)
    return verify_folder(path, admit) if path.is_dir() else verify_bundle(path, admit)


def unpack(bundle: Path, destination: Path, trust_file: Path, *, allow_unsigned: bool = False) -> Verified:
    """Verify a bundle and make the new folder `destination` of it. Raises as `verify` does, UsageError, and ResourceLimit."""
    return unpack_bundle(bundle, destination, admitting(TrustFile(trust_file).read(), allow_unsigned))


def sign(bundle: Path, key: str, home: Path, out: Path | None = None, *, force: bool = False) -> Verified:
    """Sign a bundle in its place, or as `out`. Raises VerificationFailed when it is damaged, UsageError and InputRejected.

    `key` is the name of a key of this machine, or the path of a private key.
    """
    signer = signing_key(key, home)
    done = sign_bundle(bundle, signer.seal, out, force=force)
    known = _by_public(home).get(signer.public)
    return replace(done, signer=Signer(known.name if known else "", signer.public))


def signing_key(key: str, home: Path) -> SigningKey:
    """The private key of this name or at this path.

    Raises UsageError when there is none or it was revoked here, and as `load_key` does.
    """
    own = keys.own_keys(home / keys.FOLDER)
    if key in own:
        found = load_key(own[key])
    elif "/" in key or key.endswith(keys.PRIVATE_SUFFIX):
        found = load_key(Path(key))
    else:
        raise UsageError(
            f"there is no key {key[:80]!r} here{did_you_mean(key, own)}",
            next_step="see `edgekit keys list`, or make one with `edgekit keys new`",
        )
    if found.public in TrustFile(home / TRUST_FILE).read().revoked:
        raise UsageError(f"the key {key[:80]} was revoked", next_step="make a new one with `edgekit keys new`")
    return found


def make_key(name: str, home: Path) -> Key:
    """Make a key, and trust it here. Raises UsageError when the name is taken."""
    if name in _by_name(home):
        raise UsageError(f"{name} is the name of a key already", next_step="choose another, see `edgekit keys list`")
    made = keys.new_key(home / keys.FOLDER, name)
    return _trust(Signer(name, made.public), home)


def list_keys(home: Path) -> tuple[Key, ...]:
    """Every key that is here or in the trust file, by name. Raises InputRejected for a damaged file."""
    known = TrustFile(home / TRUST_FILE).read()
    own = {load_key(path).public: path for path in keys.own_keys(home / keys.FOLDER).values()}
    found = {public: path.stem for public, path in own.items()} | {**known.trusted, **known.revoked}
    listed = [Key(name, public, _status(public, known), own.get(public)) for public, name in found.items()]
    return tuple(sorted(listed, key=lambda key: (key.name, key.public)))


def trust_key(key: str, name: str | None, home: Path) -> Key:
    """Trust what a key signs; `key` is 64 hexadecimal digits, a file of one public line, or a name that `list_keys` knows.

    Raises UsageError, and InputRejected for a damaged file.
    """
    return _trust(_find(key, name, home), home)


def revoke_key(key: str, name: str | None, home: Path) -> Key:
    """Trust a key no more, whoever lists it; `key` and errors as in `trust_key`."""
    signer = _find(key, name, home)
    TrustFile(home / TRUST_FILE).revoke(signer)
    return _by_public(home)[signer.public]


def _trust(signer: Signer, home: Path) -> Key:
    TrustFile(home / TRUST_FILE).trust(signer)
    return _by_public(home)[signer.public]


def _find(key: str, name: str | None, home: Path) -> Signer:
    """The key that a user's words mean, by the name they give it, else the one it has."""
    known = _by_name(home)
    if is_public_key(key):
        has = _by_public(home).get(key)
        return _named(key, name or (has.name if has else ""))
    if key in known:
        return _named(known[key].public, name or key)
    if "/" in key or key.endswith(keys.PUBLIC_SUFFIX):
        found = parse_trust(read_regular(Path(key), keys.MAX_KEY_BYTES), key)
        if len(found.trusted) != 1 or found.revoked:
            raise InputRejected("is not one line `ed25519 PUBLIC-KEY NAME`", where=key)
        ((public, written),) = found.trusted.items()
        return _named(public, name or written)
    raise UsageError(
        f"{key[:80]!r} is no key{did_you_mean(key, known)}",
        next_step="give 64 hexadecimal digits, the path of a public line, or a name of `edgekit keys list`",
    )


def _named(public: str, name: str) -> Signer:
    if not is_key_name(name):
        what = f"{name[:80]!r} is no name for a key" if name else "the key has no name yet"
        raise UsageError(what, next_step="write one behind the key: letters, digits, dash, underscore and dot")
    return Signer(name, public)


def _by_name(home: Path) -> dict[str, Key]:
    return {key.name: key for key in list_keys(home)}


def _by_public(home: Path) -> dict[str, Key]:
    return {key.public: key for key in list_keys(home)}


def _status(public: str, known: Trust) -> Status:
    if public in known.revoked:
        return "revoked"
    return "trusted" if public in known.trusted else "not trusted"
