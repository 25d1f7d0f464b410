"""`edgekit keys`, `edgekit sign` and `edgekit verify`: who signed a bundle, and whether it is whole."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.common import json_option, print_json

if TYPE_CHECKING:
    from edgekit.bundle.container import Verified
    from edgekit.flow.bundles import Key


def config_home() -> Path:
    """The folder of the user's own configuration."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edgekit"


def trust_file(chosen: str | None) -> Path:
    """The trust file as asked for, else this machine's own. Raises InputRejected when the one asked for is not there."""
    from edgekit.errors import InputRejected
    from edgekit.flow.bundles import TRUST_FILE

    if chosen is None:
        return config_home() / TRUST_FILE
    if not os.path.lexists(chosen):
        raise InputRejected("there is no such trust file", where=chosen)
    return Path(chosen)


trust_option = click.option(
    "--trust",
    "trust",
    type=click.Path(),
    metavar="FILE",
    help="Whose signatures count, lines of `edgekit keys`.  [default: this machine's own, ~/.config/edgekit/trust]",
)

unsigned_option = click.option("--allow-unsigned", is_flag=True, help="Accept a bundle that says it is unsigned.")


@click.group()
def keys() -> None:
    """Keys to sign bundles with, and whose signatures this machine trusts.

    KEY is a name of `edgekit keys list`, 64 hexadecimal digits, or the path of a file with a public line. Private keys are
    in ~/.config/edgekit/keys, never leave it and are never overwritten; a device trusts what its own trust file lists.
    """


@keys.command("new")
@click.argument("name")
@json_option
def new(name: str, as_json: bool) -> None:
    """Make the key NAME, and trust it on this machine; the line for a device's trust file is printed."""
    from edgekit.flow.bundles import make_key

    _print_key(make_key(name, config_home()), as_json)


@keys.command("list")
@json_option
def list_keys(as_json: bool) -> None:
    """The keys of this machine, and whose signatures it trusts or no longer trusts."""
    from edgekit.flow.bundles import list_keys as look

    found = look(config_home())
    if as_json:
        print_json(found)
        return
    for key in found:
        click.echo(f"{key.public}  {key.status:<11}  {key.name}{'  (private key here)' if key.private else ''}")
    if not found:
        click.echo("no keys yet: make one with `edgekit keys new NAME`")


@keys.command("trust")
@click.argument("key")
@click.argument("name", required=False)
@json_option
def trust_key(key: str, name: str | None, as_json: bool) -> None:
    """Trust what KEY signs, and call it NAME."""
    from edgekit.flow.bundles import trust_key as add

    _print_key(add(key, name, config_home()), as_json)


@keys.command("revoke")
@click.argument("key")
@click.argument("name", required=False)
@json_option
def revoke_key(key: str, name: str | None, as_json: bool) -> None:
    """Refuse whatever KEY signed, from now on; the line for a device's trust file is printed."""
    from edgekit.flow.bundles import revoke_key as revoke

    _print_key(revoke(key, name, config_home()), as_json)


@click.command()
@click.argument("bundle", type=click.Path())
@click.option("--key", required=True, help="A key of `edgekit keys list` whose private half is here, or a PEM file.")
@click.option("-o", "--out", type=click.Path(), help="The signed bundle.  [default: BUNDLE, replaced in one step]")
@click.option("--force", is_flag=True, help="Replace the file of -o.")
@json_option
def sign(bundle: str, key: str, out: str | None, force: bool, as_json: bool) -> None:
    """Sign BUNDLE, after reading all of it; an earlier signature is replaced."""
    from edgekit.flow.bundles import sign as seal

    done = seal(Path(bundle), key, config_home(), Path(out) if out else None, force=force)
    _print_verified(done, "signed", as_json)


@click.command()
@click.argument("bundle", type=click.Path())
@trust_option
@unsigned_option
@json_option
def verify(bundle: str, trust: str | None, allow_unsigned: bool, as_json: bool) -> None:
    """Read all of BUNDLE, a file or the folder it was unpacked to: signature, every digest, and nothing besides."""
    from edgekit.flow.bundles import verify as check

    _print_verified(check(Path(bundle), trust_file(trust), allow_unsigned=allow_unsigned), "verified", as_json)


COMMANDS: tuple[click.Command, ...] = (keys, sign, verify)


def _print_key(key: "Key", as_json: bool) -> None:
    if as_json:
        print_json(key)
        return
    kind = "revoked" if key.status == "revoked" else "ed25519"
    click.echo(f"{kind} {key.public} {key.name}")


def _print_verified(found: "Verified", word: str, as_json: bool) -> None:
    manifest, signer = found.manifest, found.signer
    if as_json:
        print_json(
            {
                "application": manifest.application,
                "version": manifest.version,
                "counter": manifest.counter,
                "requires": manifest.requires,
                "files": len(manifest.files),
                "size": manifest.size,
                "stored_size": manifest.stored_size,
                "manifest_sha256": found.manifest_sha256,
                "signer": signer,
            }
        )
        return
    by = f"by {signer.name or signer.public}" if signer else "unsigned"
    click.echo(
        f"{word}: {manifest.application} {manifest.version}, counter {manifest.counter}, {by}, "
        f"{len(manifest.files)} files, {manifest.size / 1e6:.1f} MB ({manifest.stored_size / 1e6:.1f} MB stored)"
    )
