"""Keys and whom to trust: made once, kept private, listed, revoked; and `edgekit keys`, `sign` and `verify`."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from edgekit.bundle import keys as module
from edgekit.bundle.keys import CONTEXT, admitting, check_signature, load_key, new_key, split_line
from edgekit.bundle.trust import Signer, Trust, TrustFile, parse_trust
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.errors import InputRejected, UsageError, VerificationFailed
from tests.bundles import KEY, OTHER_KEY, REVOKED_KEY, SIGNER, TRUST, make_bundle, pieces, stub_bundle, stub_files
from tests.conftest import ROOT, Ended

PUBLIC = KEY.public
LINE = f"ed25519 {PUBLIC} test\n".encode()

# The commands are registered by edgekit.cli.main; adding them once more is harmless.
COMMAND = """
from edgekit.cli.bundle import COMMANDS
from edgekit.cli.main import cli, main
for command in COMMANDS:
    cli.add_command(command)
main()
"""


class Machine:
    """A machine with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "config" / "edgekit"

    def __call__(self, *arguments: object, umask: int = -1) -> Ended:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "XDG_CONFIG_HOME": str(self.folder / "config"), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            umask=umask,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: object) -> Any:
        done = self(*arguments, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ----------------------------------------------------------------------------------------------------------------- keys


def test_a_key_is_private_and_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    old = os.umask(0)
    try:
        made = new_key(folder, "mine")
    finally:
        os.umask(old)
    assert (mode(folder), mode(folder / "mine.pem")) == (0o700, 0o600)
    before = (folder / "mine.pem").read_bytes()
    with pytest.raises(UsageError, match="never overwritten"):
        new_key(folder, "mine")
    assert (folder / "mine.pem").read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"mine.pem", "mine.pub"}
    assert load_key(folder / "mine.pem").public == made.public
    assert (folder / "mine.pub").read_text() == f"ed25519 {made.public} mine\n"


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".hidden", "a b", "a\n", "x" * 65, "é"])
def test_a_name_that_could_be_a_path_or_an_option_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no name for a key"):
        new_key(tmp_path / "keys", name)
    assert not (tmp_path / "keys").exists()


@pytest.mark.parametrize("bits", [0o644, 0o640, 0o604, 0o622])
def test_a_private_key_that_others_may_read_is_refused(tmp_path: Path, bits: int) -> None:
    new_key(tmp_path, "mine")
    (tmp_path / "mine.pem").chmod(bits)
    with pytest.raises(InputRejected, match="chmod 600"):
        load_key(tmp_path / "mine.pem")


def _pem(key: Any, encryption: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


PLAIN = serialization.NoEncryption()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello\n",
        KEY.pem()[:60],
        KEY.pem().replace(b"PRIVATE", b"PUBLIC"),
        _pem(generate_private_key(65537, 2048), PLAIN),
        _pem(Ed25519PrivateKey.generate(), serialization.BestAvailableEncryption(b"secret")),
        b"\0" * (17 << 10),
    ],
    ids=["empty", "text", "cut", "public", "rsa", "encrypted", "large"],
)
def test_what_is_no_such_key_is_refused(tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "key.pem"
    place.write_bytes(data)
    place.chmod(0o600)
    with pytest.raises(InputRejected):
        load_key(place)
    place.write_bytes(KEY.pem())
    assert load_key(place).public == KEY.public


def test_a_signature_is_that_of_the_definition() -> None:
    """RFC 8032, section 7.1, test 2, and this project's own line before the text."""
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert module.SigningKey(key).public == public
    assert key.sign(b"\x72").hex().startswith("92a009a9f0d4cab8720e820b5f642540")
    assert CONTEXT == b"edgekit bundle 1\n"
    found, signature = split_line(KEY.seal(b"text"))
    assert found == PUBLIC
    check_signature(PUBLIC, signature, b"text")
    for wrong in (b"text\n", b"Text", b"", CONTEXT + b"text"):
        with pytest.raises(VerificationFailed):
            check_signature(PUBLIC, signature, wrong)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_openssl_agrees(tmp_path: Path) -> None:
    """The format is enough to verify a bundle without edgekit."""
    text, line, _ = pieces(stub_bundle())
    public, signature = split_line(line)
    spki = bytes.fromhex("302a300506032b6570032100" + public)  # RFC 8410
    (tmp_path / "key.der").write_bytes(spki)
    (tmp_path / "text").write_bytes(b"edgekit bundle 1\n" + text)
    (tmp_path / "sig").write_bytes(signature)
    options = "-verify -pubin -keyform DER -inkey key.der -rawin -in text -sigfile sig"
    argv = ["openssl", "pkeyutl", *options.split()]
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 0
    (tmp_path / "text").write_bytes(text)
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode != 0


# ---------------------------------------------------------------------------------------------------------------- trust


def test_a_trust_file_lists_trusted_and_revoked() -> None:
    found = parse_trust(TRUST, "t")
    assert found == Trust({PUBLIC: "test"}, {REVOKED_KEY.public: "lost"})
    assert found.signer(PUBLIC) == SIGNER
    for data in (b"", b"\n\n", b"# nothing\n", b"#\xff\0\r\n", LINE[:-1], LINE + LINE):
        parse_trust(data, "t")
    assert parse_trust(LINE[:-1], "t").signer(PUBLIC) == SIGNER


@pytest.mark.parametrize(
    "line",
    [
        LINE.replace(b" ", b"  ", 1),
        b" " + LINE,
        LINE[:-1] + b" \n",
        LINE[:-1] + b"\r\n",
        LINE.replace(b" ", b"\t"),
        LINE.replace(b"ed25519", b"ED25519"),
        LINE.replace(b"ed25519", b"rsa"),
        LINE.replace(PUBLIC.encode(), PUBLIC.upper().encode()),
        LINE.replace(PUBLIC.encode(), PUBLIC[:-1].encode()),
        LINE.replace(b" test", b""),
        LINE.replace(b"test", b"a b"),
        LINE.replace(b"test", b"-rf"),
        LINE.replace(b"test", b"x" * 65),
        LINE.replace(b"test", "é".encode()),
        b" # indented\n",
        b" \n",
        b"\0\n",
        b"revoked\n",
        b"\xef\xbb\xbf" + LINE,
    ],
)
@pytest.mark.parametrize("where", ["before", "behind"])
def test_one_damaged_line_refuses_the_whole_file(line: bytes, where: str) -> None:
    good = f"ed25519 {OTHER_KEY.public} other\n".encode()
    data = line + good if where == "before" else good + line
    with pytest.raises(InputRejected, match=r"line [12]: .*whole file"):
        parse_trust(data, "t")


def test_a_revoked_key_is_refused_wherever_it_is_listed() -> None:
    for data in (LINE + LINE.replace(b"ed25519", b"revoked"), LINE.replace(b"ed25519", b"revoked") + LINE):
        with pytest.raises(VerificationFailed, match="revoked"):
            parse_trust(data, "t").signer(PUBLIC)
    with pytest.raises(VerificationFailed, match="not trusted"):
        parse_trust(b"", "t").signer(PUBLIC)


def test_a_trust_file_of_more_than_64_kib_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRejected, match="larger"):
        parse_trust(b"#" * (64 << 10) + b"\n", "t")
    (tmp_path / "trust").write_bytes(b"#" * (65 << 10))
    with pytest.raises(InputRejected, match="larger"):
        TrustFile(tmp_path / "trust").read()


def test_what_a_trust_file_said_is_kept_when_keys_are_added(tmp_path: Path) -> None:
    file = TrustFile(tmp_path / "trust")
    file.path.write_bytes(b"# mine\n\n" + LINE[:-1])
    file.trust(Signer("other", OTHER_KEY.public))
    file.trust(Signer("again", OTHER_KEY.public))
    file.revoke(SIGNER)
    file.revoke(SIGNER)
    assert file.path.read_bytes() == (
        b"# mine\n\n" + LINE + f"ed25519 {OTHER_KEY.public} other\nrevoked {PUBLIC} test\n".encode()
    )
    with pytest.raises(UsageError, match="was revoked"):
        file.trust(SIGNER)
    with pytest.raises(UsageError, match="name of another key"):
        file.trust(Signer("other", REVOKED_KEY.public))


def test_two_who_add_at_once_both_get_in(tmp_path: Path) -> None:
    signers = [Signer(f"k{n}", f"{n:064x}") for n in range(40)]
    threads = [threading.Thread(target=TrustFile(tmp_path / "trust").trust, args=(signer,)) for signer in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(TrustFile(tmp_path / "trust").read().trusted) == {signer.public for signer in signers}


def test_unsigned_is_not_the_same_as_signed_by_somebody() -> None:
    """`allow_unsigned` admits what says so, and no unknown key."""
    admit = admitting(parse_trust(TRUST, "t"), allow_unsigned=True)
    assert admit(b"text", b"unsigned\n") is None
    assert admit(b"text", KEY.seal(b"text")) == SIGNER
    for line in (OTHER_KEY.seal(b"text"), KEY.seal(b"other"), b"", b"unsigned", b"none\n"):
        with pytest.raises(VerificationFailed):
            admit(b"text", line)


# -------------------------------------------------------------------------------------------------------- command line


def test_from_a_new_key_to_a_verified_bundle(machine: Machine) -> None:
    bundle = machine.folder / "a.ekb"
    bundle.write_bytes(make_bundle(stub_files(), seal=lambda _: b"unsigned\n"))
    refused = machine("verify", bundle)
    assert refused.code == 8 and "is not signed" in refused.error and "edgekit sign" in refused.error
    made = machine("keys", "new", "factory", umask=0)
    assert made.code == 0 and made.out.startswith("ed25519 ") and made.out.endswith(" factory\n")
    private = machine.home / "keys" / "factory.pem"
    assert (mode(private.parent), mode(private)) == (0o700, 0o600)
    assert made.out in (machine.home / "trust").read_text()
    signed = machine("sign", bundle, "--key", "factory")
    assert signed.code == 0 and "by factory" in signed.out
    seen = machine("verify", bundle)
    assert seen.code == 0 and "verified: digits 1.0.0+stub, counter 7, by factory, 6 files" in seen.out
    found = machine.json("verify", bundle)
    assert found["signer"] == {"name": "factory", "public": made.out.split()[1]}
    assert (found["files"], found["counter"], found["requires"]["glibc"]) == (6, 7, "2.28")

    unpack_bundle(bundle, machine.folder / "out", admitting(TrustFile(machine.home / "trust").read()))
    assert machine.json("verify", machine.folder / "out") == found
    (machine.folder / "out" / "bin" / "run").write_bytes(b"#!/bin/sh\nevil\n")
    broken = machine("verify", machine.folder / "out")
    assert broken.code == 8 and "out: bin/run: has 15 bytes" in broken.error

    assert machine("keys", "revoke", "factory").out == f"revoked {made.out.split()[1]} factory\n"
    late = machine("verify", bundle)
    assert late.code == 8 and "revoked" in late.error
    again = machine("keys", "trust", "factory")
    assert again.code == 2 and "was revoked" in again.error
    assert [key["status"] for key in machine.json("keys", "list")] == ["revoked"]


def test_a_key_from_elsewhere_is_trusted_by_line_or_digits(machine: Machine, tmp_path: Path) -> None:
    bundle = tmp_path / "a.ekb"
    bundle.write_bytes(stub_bundle())
    refused = machine("verify", bundle)
    assert refused.code == 8 and PUBLIC in refused.error and "keys trust" in refused.error
    nameless = machine("keys", "trust", PUBLIC)
    assert nameless.code == 2 and "no name yet" in nameless.error
    assert machine("keys", "trust", PUBLIC, "supplier").out == f"ed25519 {PUBLIC} supplier\n"
    assert machine("verify", bundle).code == 0
    (tmp_path / "other.pub").write_text(f"ed25519 {OTHER_KEY.public} other\n")
    assert machine("keys", "trust", tmp_path / "other.pub").code == 0
    assert machine.json("keys", "list") == [
        {"name": "other", "public": OTHER_KEY.public, "status": "trusted", "private": None},
        {"name": "supplier", "public": PUBLIC, "status": "trusted", "private": None},
    ]
    assert machine.json("keys", "revoke", PUBLIC)["status"] == "revoked"
    listed = machine("keys", "list").out
    assert f"{PUBLIC}  revoked      supplier\n" in listed and f"{OTHER_KEY.public}  trusted      other\n" in listed


def test_another_trust_file_and_unsigned(machine: Machine, tmp_path: Path) -> None:
    bundle, trust = tmp_path / "a.ekb", tmp_path / "device.trust"
    bundle.write_bytes(stub_bundle())
    trust.write_bytes(TRUST)
    assert machine("verify", bundle, "--trust", trust).code == 0
    assert machine("verify", bundle, "--allow-unsigned").code == 8  # an unknown key is not "unsigned"
    bundle.write_bytes(make_bundle(stub_files(), seal=lambda _: b"unsigned\n"))
    assert machine("verify", bundle, "--trust", trust).code == 8
    taken = machine("verify", bundle, "--allow-unsigned")
    assert taken.code == 0 and "unsigned" in taken.out
    missing = machine("verify", bundle, "--trust", tmp_path / "none")
    assert missing.code == 6 and "no such trust file" in missing.error
    trust.write_bytes(TRUST + b"revoked\n")
    damaged = machine("verify", bundle, "--trust", trust)
    assert damaged.code == 6 and "device.trust, line 5" in damaged.error


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["keys", "new", "a b"], 2, "no name for a key"),
        (["keys", "trust", "nobody"], 2, "is no key"),
        (["keys", "trust", "./none.pub"], 6, "cannot be read"),
        (["keys", "revoke", "nobody"], 2, "is no key"),
        (["keys", "trust", "0" * 64, "a/b"], 2, "no name for a key"),
        (["verify", "none.ekb"], 6, "cannot be read"),
        (["verify", "a.ekb", "--key", "x"], 2, "No such option"),
        (["sign", "a.ekb"], 2, "--key"),
        (["sign", "a.ekb", "--key", "nobody"], 2, "there is no key 'nobody'"),
        (["sign", "a.ekb", "--key", "./none.pem"], 6, "cannot be read"),
        (["sign", "none.ekb", "--key", "mine"], 6, "cannot be read"),
        (["sign", "a.ekb", "--key", "mine", "-o", "b.ekb"], 2, "exists already"),
        (["sign", "c.ekb", "--key", "mine"], 8, "c.ekb"),
    ],
)
def test_what_is_wrong_is_one_line(machine: Machine, arguments: list[str], code: int, says: str) -> None:
    machine("keys", "new", "mine")
    for name in ("a.ekb", "b.ekb"):
        (machine.folder / name).write_bytes(stub_bundle())
    (machine.folder / "c.ekb").write_bytes(stub_bundle()[:-1])
    before = {path.name: path.read_bytes() for path in machine.folder.iterdir() if path.is_file()}
    done = machine(*arguments)
    assert done.code == code, done.err
    assert says in done.error
    assert {path.name: path.read_bytes() for path in machine.folder.iterdir() if path.is_file()} == before


def test_a_second_key_of_a_name_is_not_made(machine: Machine) -> None:
    assert machine("keys", "new", "mine").code == 0
    before = (machine.home / "keys" / "mine.pem").read_bytes()
    twice = machine("keys", "new", "mine")
    assert twice.code == 2 and "name of a key already" in twice.error
    assert (machine.home / "keys" / "mine.pem").read_bytes() == before
    assert machine("keys", "list").out.endswith("mine  (private key here)\n")


def test_a_key_may_lie_elsewhere(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "ci.pem").write_bytes(KEY.pem())
    (tmp_path / "ci.pem").chmod(0o600)
    (tmp_path / "a.ekb").write_bytes(make_bundle(stub_files(), seal=OTHER_KEY.seal))
    assert machine("sign", "a.ekb", "--key", "ci.pem", "-o", "b.ekb").code == 0
    assert (tmp_path / "b.ekb").read_bytes() == stub_bundle()
    assert (tmp_path / "a.ekb").read_bytes() != stub_bundle()
    assert machine("sign", "a.ekb", "--key", "./ci.pem", "-o", "b.ekb", "--force").code == 0


def test_a_revoked_key_signs_no_more(machine: Machine) -> None:
    """Whoever trusts this machine's word would refuse what it makes."""
    bundle = machine.folder / "a.ekb"
    bundle.write_bytes(stub_bundle())
    machine("keys", "new", "mine")
    assert machine("sign", "a.ekb", "--key", "mine", "-o", "b.ekb").code == 0
    machine("keys", "revoke", "mine")
    done = machine("sign", "a.ekb", "--key", "mine")
    assert done.code == 2 and "mine was revoked" in done.error
    assert bundle.read_bytes() == stub_bundle()


def test_help_needs_no_cryptography() -> None:
    code = (
        "import sys\nfrom edgekit.cli.bundle import COMMANDS\nfrom edgekit.cli.main import cli, run_cli\n"
        "for command in COMMANDS:\n cli.add_command(command)\n"
        "for name in ('keys', 'sign', 'verify'):\n assert run_cli([name, '--help']) == 0\n"
        "print({'cryptography', 'zstandard', 'numpy', 'msgspec'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout.endswith("set()\n")
