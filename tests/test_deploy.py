"""`edgekit deploy`, `rollback` and `status`: on this machine, over SSH, and at the end a real bundle on the emulated board.

The bundles are small; the ekrun each carries is a shell script that passes its self-test, or fails it in some way. What `ekrun
install` itself does is tested in `test_ekrun_install.py`; here it is what a user sees, what is sent, and what is left.
"""

import hashlib
import json
import os
import platform
import random
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.bundle.keys import admitting, unsigned
from edgekit.bundle.parts import HEAD_FILE, opened_bundle
from edgekit.bundle.trust import parse_trust
from edgekit.core.admission import admit_bundle
from edgekit.core.deployment import FORMAT, Deployment, Port
from edgekit.core.facts import FactSheet
from edgekit.core.manifest import Requires
from edgekit.devices.ssh import SshDevice
from edgekit.errors import TargetIncompatible, VerificationFailed
from edgekit.runner.build import build_all
from edgekit.sandbox import encode
from tests.bundles import HEAD, KEY, OTHER_KEY, TRUST, make_bundle, pieces
from tests.conftest import SAMPLE, Cli, Ended
from tests.proxy import Proxy
from tests.sshd import KINDS, Server, serving
from tests.test_ssh import until

pytestmark = pytest.mark.long

HERE = replace(HEAD, requires=Requires(platform.machine(), "2.17", (), ""))
PASSES = "exit 0\n"
SAYS_NO = 'echo \'{"protocol":1,"error":{"code":"verification_failed","message":"output 0 is wrong"}}\'\nexit 8\n'
HANGS = "exec sleep 600\n"
IN_SLOT = 'case "$2" in */current*) exit 0;; esac\n'  # what follows is done before the switch only
AFTER_SWITCH = 'case "$2" in */current*) ;; *) exit 0;; esac\n'


@pytest.fixture(scope="module", autouse=True)
def ekrun_is_built() -> None:
    build_all(static=False)


def bundle(
    script: str = PASSES,
    counter: int = 1,
    *,
    version: str = "1.0",
    seed: int = 0,
    size: int = 300_000,
    deployment: bytes = b"{}\n",
    **head: Any,
) -> bytes:
    """A bundle whose own ekrun is a script. Its library is the same in all, its model differs with `seed`."""
    files = {
        "bin/ekrun": b"#!/bin/sh\n" + script.encode(),
        "deployment.json": deployment,
        "lib/libstub.so.1": random.Random(1).randbytes(size),
        "model/model.onnx": b"weights of %d\n" % seed * 2_000,
    }
    seal = head.pop("seal", KEY.seal)
    return make_bundle(files, replace(HERE, counter=counter, version=version, **head), seal)


def id_of(data: bytes) -> str:
    return hashlib.sha256(pieces(data)[0]).hexdigest()


class Fleet:
    """A user's desk: bundles, whom this machine trusts, and one device with its root."""

    def __init__(
        self, edgekit: Cli, folder: Path, device: str, root: str, seen: Path, words: tuple[object, ...] = ()
    ) -> None:
        self.edgekit, self.folder, self.device, self.root, self.seen, self.words = (
            edgekit,
            folder,
            device,
            root,
            seen,
            words,
        )
        self.home = folder / "home"
        (self.home / "edgekit").mkdir(parents=True)
        (self.home / "edgekit/trust").write_bytes(TRUST)
        self.env = {"XDG_CONFIG_HOME": str(self.home)}

    def write(self, data: bytes, name: str = "b.ekb") -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def run(self, *words: object, **more: Any) -> Ended:
        return self.edgekit(*self.words, *words, "--root", self.root, env=self.env, **more)

    def deploy(self, data: bytes, *more: object, trust: bool = True) -> Ended:
        given = ("--trust", self.home / "edgekit/trust") if trust else ()
        return self.run("deploy", self.write(data), self.device, *given, *more)

    def deployed(self, data: bytes, *more: object) -> dict[str, Any]:
        ended = self.deploy(data, "--json", *more)
        assert ended.code == 0, ended.err
        found: dict[str, Any] = json.loads(ended.out)
        return found

    def status(self) -> list[dict[str, Any]]:
        ended = self.run("status", self.device, "--json")
        assert ended.code == 0, ended.err
        found: list[dict[str, Any]] = json.loads(ended.out)["applications"]
        return found

    @property
    def app(self) -> Path:
        return self.seen / "apps/digits"

    @property
    def current(self) -> str:
        """The ID that the device runs."""
        return (self.app / "current").readlink().name


@pytest.fixture
def fleet(edgekit: Cli, tmp_path: Path) -> Fleet:
    """This machine as the device."""
    root = tmp_path / "root"
    return Fleet(edgekit, tmp_path, "local", str(root), root)


def refused(ended: Ended, code: int, *parts: str) -> None:
    """The exit code, and behind the stages one line that holds the parts."""
    assert ended.code == code, ended.err + ended.out
    *stages, last = ended.err.splitlines()
    assert not [line for line in stages if not line.startswith("  ")], ended.err
    error = Ended(ended.code, ended.out, last).error
    for part in parts:
        assert part in error


# ------------------------------------------------------------------------------------------------------------ this machine


def test_a_bundle_is_deployed_and_deployed_again(fleet: Fleet) -> None:
    data = bundle()
    shown = fleet.deploy(data)
    assert shown.code == 0, shown.err
    for part in ("deployed: digits 1.0 on local", id_of(data)[:12], "security counter of the device: 1"):
        assert part in shown.out
    assert fleet.current == id_of(data)
    assert (fleet.app / "current/model/model.onnx").read_bytes() == b"weights of 0\n" * 2_000
    assert (fleet.seen / "trust").read_bytes() == TRUST
    again = fleet.deployed(data)
    assert (again["changed"], again["lacking_bytes"], again["sent_bytes"]) == (False, 0, 0)
    assert "unchanged" in fleet.deploy(data, trust=False).out


def test_what_is_twice_in_a_bundle_is_one(fleet: Fleet) -> None:
    files = {
        "bin/ekrun": b"#!/bin/sh\n",
        "deployment.json": b"{}\n",
        "model/a": b"\0\1" * 700,
        "model/b": b"\0\1" * 700,
    }
    done = fleet.deployed(make_bundle(files, HERE))
    assert done["stored_bytes"] == done["lacking_bytes"]


def test_only_what_the_device_lacks_is_asked_for(fleet: Fleet) -> None:
    first, second = bundle(), bundle(seed=1, version="1.1", counter=2)
    assert fleet.deployed(first)["lacking_bytes"] > 300_000
    done = fleet.deployed(second)
    assert 0 < done["lacking_bytes"] < 2_000
    assert done["stored_bytes"] > 300_000
    assert (done["previous"], done["device_counter"], done["changed"]) == (id_of(first), 2, True)
    assert fleet.current == id_of(second)


FAILING = {
    "says no": (SAYS_NO, "self-test failed", "output 0 is wrong"),
    "crashes": ("kill -SEGV $$\n", "self-test failed", "signal 11"),
    "hangs": (HANGS, "self-test failed", "3 s"),
    "says no after the switch": (AFTER_SWITCH + SAYS_NO, "switched back", "output 0 is wrong"),
    "hangs after the switch": (AFTER_SWITCH + HANGS, "switched back", "3 s"),
}


@pytest.mark.parametrize("how", FAILING)
def test_what_does_not_work_there_leaves_what_was_there(fleet: Fleet, how: str) -> None:
    script, *parts = FAILING[how]
    good = bundle()
    fleet.deployed(good)
    shows = f"`edgekit status local --root {fleet.root}`"
    refused(fleet.deploy(bundle(script, 2), "--check-seconds", "3"), 8, *parts, shows)
    assert fleet.current == id_of(good)
    (found,) = fleet.status()
    assert (found["counter"], found["trial"], [slot["id"] for slot in found["slots"]]) == (1, None, [id_of(good)])


def test_an_older_bundle_is_refused_whoever_signed_it(fleet: Fleet) -> None:
    fleet.deployed(bundle(counter=5))
    refused(fleet.deploy(bundle(counter=4, seed=1)), 8, "4", "5")


def test_a_bundle_is_verified_here_first_and_there(fleet: Fleet) -> None:
    data = bundle()
    refused(fleet.deploy(bundle(seal=OTHER_KEY.seal)), 8, "not trusted here", "edgekit keys trust")
    refused(fleet.deploy(data[:-2000] + b"\1" + data[-1999:]), 8, "b.ekb")
    assert not fleet.seen.exists()
    fleet.deployed(data)
    (fleet.seen / "trust").write_bytes(b"revoked %s test\n" % KEY.public.encode())
    refused(fleet.deploy(bundle(counter=2), trust=False), 8, "revoked")


def test_unsigned_bundles_are_for_who_says_so(fleet: Fleet) -> None:
    data = bundle(seal=unsigned)
    refused(fleet.deploy(data), 8, "not signed")
    assert fleet.deploy(data, "--allow-unsigned", trust=False).code == 0
    assert fleet.status()[0]["slots"][0]["trusted"] is False


def test_a_device_that_trusts_nobody_yet(fleet: Fleet) -> None:
    refused(fleet.deploy(bundle(), trust=False), 2, "--trust", "has no trust file", "~/.config/edgekit/trust")
    assert not fleet.seen.exists()
    damaged = fleet.folder / "damaged"
    damaged.write_text("nonsense\n")
    refused(fleet.run("deploy", fleet.write(bundle()), "local", "--trust", damaged), 6, "damaged, line 1")
    refused(
        fleet.run("deploy", fleet.write(bundle()), "local", "--trust", fleet.folder / "none"), 6, "no such trust file"
    )
    assert not fleet.seen.exists()
    fleet.deployed(bundle())
    other = fleet.folder / "other"
    other.write_bytes(TRUST + b"# another\n")
    refused(fleet.run("deploy", fleet.write(bundle()), "local", "--trust", other), 2, "trust file of its own")


def test_everything_that_the_device_lacks_is_said_at_once(fleet: Fleet) -> None:
    wanting = Requires(platform.machine(), "99.1", ("avx9000", "sse99"), "9.9.9")
    refused(fleet.deploy(bundle(requires=wanting)), 5, "avx9000, sse99", "glibc 99.1", "GLIBCXX_9.9.9")
    other = "aarch64" if platform.machine() == "x86_64" else "x86_64"
    refused(fleet.deploy(bundle(requires=replace(wanting, arch=other))), 5, f"for {other}, the device is")
    assert not fleet.seen.exists()


def test_another_install_is_waited_for_by_nobody(fleet: Fleet) -> None:
    fleet.deployed(bundle())
    slow = fleet.write(bundle(IN_SLOT + "exec sleep 8\n", 2, seed=1), "slow.ekb")
    with_slow = threading.Thread(target=lambda: results.append(fleet.run("deploy", slow, "local", "--json")))
    results: list[Ended] = []
    with_slow.start()
    until(lambda: len(list((fleet.app / "slots").iterdir())) == 2, "no second slot")
    refused(fleet.deploy(bundle(counter=3, seed=2)), 10, "another install", "run the command again")
    with_slow.join()
    assert results[0].code == 0, results[0].err
    assert fleet.current == json.loads(results[0].out)["id"]


def interrupted(fleet: Fleet, data: bytes, ready: Callable[[], object], number: int = signal.SIGINT) -> tuple[int, str]:
    """`edgekit deploy`, interrupted as soon as it is `ready`: exit code and stderr."""
    words = [*map(str, fleet.words), "deploy", str(fleet.write(data)), fleet.device, "--root", fleet.root, "--json"]
    argv = [sys.executable, "-m", "edgekit", "--cache", str(fleet.folder / "cache"), *words]
    env, pipe, null = {**os.environ, **fleet.env}, subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(argv, env=env, stdin=null, stdout=null, stderr=pipe, text=True) as child:
        until(ready, "it never came so far", 60)
        child.send_signal(number)
        _, err = child.communicate(timeout=60)
    return child.returncode, err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_on_trial_is_taken_back(fleet: Fleet, number: int) -> None:
    good, hanging = bundle(), bundle(AFTER_SWITCH + HANGS, 2)
    fleet.deployed(good)
    code, err = interrupted(fleet, hanging, lambda: fleet.current == id_of(hanging), number)
    assert (code, f"status local --root {fleet.root}` shows what the device runs" in err) == (130, True), err
    assert fleet.current == id_of(good)
    assert fleet.status()[0]["trial"] is None
    assert fleet.deployed(bundle(counter=2, seed=3))["recovered"] is False


def test_rollback_and_status(fleet: Fleet) -> None:
    first, second, third = (bundle(counter=1, seed=n, version=f"1.{n}") for n in range(3))
    for data in (first, second, third):
        fleet.deployed(data, "--keep", "3")
    (found,) = fleet.status()
    states = {slot["id"]: (slot["state"], slot["version"], slot["signer"], slot["trusted"]) for slot in found["slots"]}
    assert states == {
        id_of(third): ("confirmed", "1.2", "test", True),
        id_of(second): ("previous", "1.1", "test", True),
        id_of(first): ("kept", "1.0", "test", True),
    }
    assert (found["current"], found["confirmed"], found["counter"]) == (id_of(third), id_of(third), 1)
    shown = fleet.run("status", "local").out
    assert f"* {id_of(third)[:12]}  confirmed" in shown and "digits, security counter 1" in shown
    back = fleet.run("rollback", "local")
    assert back.code == 0 and "rolled back: digits 1.1 on local" in back.out
    assert fleet.current == id_of(second)
    there = fleet.run("rollback", "local", "digits", "--to", id_of(first)[:10], "--json")
    assert json.loads(there.out)["id"] == fleet.current == id_of(first)
    refused(fleet.run("rollback", "local", "digits", "--to", "0123"), 2, "no bundle", id_of(first)[:12])
    refused(fleet.run("rollback", "local", "--to", id_of(first)[:2]), 2, "4 digits")
    refused(fleet.run("rollback", "local", "others"), 2, "no application 'others'", "it has digits")
    fleet.deployed(bundle(application="words"))
    refused(fleet.run("rollback", "local"), 2, "name one of digits, words")


NO_SAMPLES = Deployment(
    **{"format": FORMAT, "engine": "onnxruntime", "engine_version": "1.32.0", "library": "lib/libstub.so.1"},
    **{"model": "model/model.onnx", "threads": 1, "precision": "fp32", "options": {}, "state": {}},
    **{"inputs": (Port("x", "float32", (1, 3)),), "outputs": (Port("y", "float32", (1, 2)),)},
)


def test_what_is_not_tested_is_not_said_to_be(fleet: Fleet) -> None:
    """A bundle without golden samples: to it, away from it, and back to it. Its own check would fail."""
    unchecked = bundle("exit 5\n", version="1.1", deployment=encode(NO_SAMPLES))
    refused(fleet.deploy(unchecked), 8, "self-test failed")
    shown = fleet.deploy(unchecked, "--allow-unchecked")
    assert shown.code == 0, shown.err
    assert "not tested, as it has no golden samples" in shown.out and "tested again" not in shown.out
    again = fleet.deploy(unchecked, "--allow-unchecked")
    assert again.code == 0 and "not tested" in again.out and "passed" not in again.out, again.err
    checked = fleet.deployed(bundle(version="1.2", seed=2), "--allow-unchecked")
    assert checked["tested"] is True
    refused(fleet.run("rollback", "local"), 8, "self-test failed")
    assert fleet.current == checked["id"]
    back = fleet.run("rollback", "local", "--allow-unchecked")
    assert back.code == 0, back.err
    assert fleet.current == id_of(unchecked)
    assert "--allow-unchecked: not tested if" in back.out and "tested again" not in back.out


def test_the_way_back_that_is_shown_is_one(fleet: Fleet) -> None:
    first = bundle()
    fleet.deployed(first)
    shown = fleet.deploy(bundle(seed=1, version="1.1"))
    (line,) = [line for line in shown.out.splitlines() if "goes back to" in line]
    words = shlex.split(line.split("`")[1])
    assert words[0] == "edgekit"
    assert fleet.edgekit(*words[1:], env=fleet.env).code == 0
    assert fleet.current == id_of(first)


def test_a_trial_may_be_under_way(fleet: Fleet) -> None:
    first, second = bundle(), bundle(seed=1)
    fleet.deployed(first)
    fleet.deployed(second)
    (fleet.app / "state").write_text(f"1 1 {id_of(second)} {id_of(first)}\n")
    assert "an install is under way, or was cut off" in fleet.run("status", "local").out


def test_a_bundle_of_which_nothing_is_believed_has_no_version(fleet: Fleet) -> None:
    data = bundle()
    fleet.deployed(data)
    (fleet.seen / "trust").write_bytes(b"revoked %s test\n" % KEY.public.encode())
    refused(fleet.run("rollback", "local", "--to", "0123"), 2, f"{id_of(data)[:12]} (?)")


def test_rollback_below_the_counter_needs_a_word(fleet: Fleet) -> None:
    old = bundle(counter=1)
    fleet.deployed(old)
    fleet.deployed(bundle(counter=9, seed=1))
    refused(fleet.run("rollback", "local"), 8, "--allow-downgrade")
    done = fleet.run("rollback", "local", "--allow-downgrade")
    assert done.code == 0, done.err
    assert "security counter of the device: 9, above this bundle's 1" in done.out
    assert fleet.current == id_of(old)


def test_a_device_with_nothing(fleet: Fleet) -> None:
    shown = fleet.run("status", "local")
    assert shown.code == 0 and "nothing is installed" in shown.out
    assert fleet.status() == []
    refused(fleet.run("rollback", "local"), 2, "nothing is installed")
    assert not fleet.seen.exists()


def test_a_damaged_state_is_told(fleet: Fleet) -> None:
    fleet.deployed(bundle())
    (fleet.app / "state").write_text("nonsense\n")
    assert "damaged: " in fleet.run("status", "local").out
    refused(fleet.deploy(bundle(counter=2)), 6, "state", "damaged")


WRONG = [
    (("deploy", "b.ekb", "emulated"), 2, "an emulated device keeps nothing"),
    (("rollback", "emulated:cpu-arm"), 2, "an emulated device keeps nothing"),
    (("status", "no-such-device"), 2, "unknown device"),
    (("deploy", "none.ekb", "local"), 6, "No such file"),
    (("deploy", ".", "local"), 6, "directory"),
]


@pytest.mark.parametrize(("words", "code", "part"), WRONG)
def test_wrong_words(fleet: Fleet, words: tuple[str, ...], code: int, part: str) -> None:
    fleet.write(bundle())
    refused(fleet.run(*words, cwd=fleet.folder), code, part)


def test_a_root_that_depends_on_where_one_stands(fleet: Fleet) -> None:
    fleet.root = "here"
    refused(fleet.run("status", "local"), 2, "absolute")
    fleet.root = str(fleet.folder / "no/such/folder")
    refused(fleet.deploy(bundle()), 2, "its folder is not there")


# ------------------------------------------------------------------------------------------------------------- parts of it


def test_a_bundle_in_parts_is_the_bundle(tmp_path: Path) -> None:
    data = bundle(size=3_000_000)  # more than is read ahead
    path = tmp_path / "b.ekb"
    path.write_bytes(data)
    with opened_bundle(path, admitting(parse_trust(TRUST, ""))) as parts:
        head = parts.head(tmp_path)[HEAD_FILE].read_bytes()
        wanted = {file.stored_sha256 for file in parts.verified.manifest.files}
        found = parts.files(wanted, tmp_path)
        assert data.startswith(head)
        assert set(found) == wanted
        for digest, place in found.items():
            assert hashlib.sha256(place.read_bytes()).hexdigest() == digest
        assert parts.files([], tmp_path) == {}
        with path.open("r+b") as stream:  # in its place: a file that was replaced is not the one that is open
            stream.seek(-1_000_000, os.SEEK_END)
            stream.write(b"changed")
        with pytest.raises(VerificationFailed, match=r"b\.ekb: lib/libstub"):
            parts.files(wanted, tmp_path)


def test_what_a_device_does_not_tell_refuses_nothing() -> None:
    wanting = Requires("aarch64", "2.28", ("asimd",), "3.4.22")
    silent = FactSheet("aarch64", (), 4)
    assert len(admit_bundle(wanting, silent)) == 3
    assert admit_bundle(wanting, replace(silent, isa=("asimd",), glibc="2.28", libstdcxx="3.4.30")) == ()
    with pytest.raises(TargetIncompatible, match=r"asimd.*glibc 2\.28.*GLIBCXX_3\.4\.22"):
        admit_bundle(wanting, replace(silent, isa=("fp",), glibc="2.9", libstdcxx="3.4.9"))


NO_BUNDLES = {
    "empty.ekb": (b"", "an empty file"),
    "archive.ekb": (b"PK\x03\x04" + bytes(600), "a zip archive"),
    "model.ekb": ((SAMPLE / "model.onnx").read_bytes(), "an ONNX model"),
    "page.ekb": (b"<!DOCTYPE html><html>", "a web page"),
    "short.ekb": (b"x", "a file of another kind"),
}


@pytest.mark.parametrize("name", NO_BUNDLES)
@pytest.mark.parametrize("command", ["verify", "inspect", "profile"])
def test_what_is_no_bundle_at_all_is_called_so(edgekit: Cli, tmp_path: Path, name: str, command: str) -> None:
    data, words = NO_BUNDLES[name]
    (tmp_path / name).write_bytes(data)
    refused(edgekit(command, name, cwd=tmp_path), 8, f"{name}: is no bundle but {words}", "edgekit bundle")


def test_a_folder_that_is_no_unpacked_bundle(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    refused(edgekit("verify", "folder", cwd=tmp_path), 8, "is no bundle but a folder without manifest.json")


def test_a_damaged_bundle_is_still_called_damaged(edgekit: Cli, tmp_path: Path) -> None:
    data = bytearray(bundle())
    for place in (0, 5, 130):
        spoiled = bytearray(data)
        spoiled[place] ^= 1
        (tmp_path / "b.ekb").write_bytes(spoiled)
        refused(edgekit("verify", "b.ekb", cwd=tmp_path), 8, "damaged")
    (tmp_path / "b.ekb").write_bytes(data[:300])
    refused(edgekit("verify", "b.ekb", cwd=tmp_path), 8, "ends early", "damaged")


# ---------------------------------------------------------------------------------------------------------------- over SSH

SMALL = 2 << 20


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    mounts = [("exec", "small", str(SMALL))] if os.getuid() == 0 else []
    with serving(request.param, tmp_path_factory.mktemp("server"), mounts=mounts) as server:
        yield server


@pytest.fixture
def board(edgekit: Cli, server: Server, tmp_path: Path) -> Iterator[Fleet]:
    """A board over SSH with a root of its own; afterwards none of what was sent is there, and nothing runs."""
    name = f"root-{tmp_path.name}"
    words = ("--ssh-config", server.client.config)
    yield Fleet(edgekit, tmp_path, str(server.url()), f"{server.there}/{name}", server.home / name, words)
    until(lambda: not server.running("ekrun") and not server.running("sleep 600"), f"left: {server.processes()}")
    until(lambda: not list(server.edgekit.glob("jobs/*")), "a folder of a connection is left")
    assert len(list(server.edgekit.glob("store/*"))) <= 1, "more than ekrun is left in the store"
    with closing(opened(server)) as device:
        device.clean()


def opened(server: Server, port: int = 0) -> SshDevice:
    return SshDevice(server.url("", port), ssh_config=server.client.config)


def test_a_bundle_over_ssh_and_back(board: Fleet) -> None:
    first, second = bundle(), bundle(seed=1, version="1.1")
    done = board.deployed(first)
    assert done["sent_bytes"] == done["lacking_bytes"] == done["stored_bytes"] > 300_000
    done = board.deployed(second)
    assert done["sent_bytes"] == done["lacking_bytes"] < 2_000
    assert board.current == id_of(second)
    shown = board.deploy(second)
    assert shown.code == 0 and "unchanged" in shown.out
    assert board.run("rollback", board.device).code == 0
    assert board.current == id_of(first)
    refused(board.deploy(bundle(AFTER_SWITCH + SAYS_NO, 2)), 8, "switched back", "output 0 is wrong")
    assert board.current == id_of(first)


def test_a_root_whose_name_is_no_text(board: Fleet) -> None:
    board.root += "-\udcff"  # the byte 0xff
    board.seen = board.seen.parent / f"{board.seen.name}-\udcff"
    data = bundle()
    shown = board.deploy(data)
    assert shown.code == 0, shown.err
    assert board.current == id_of(data)
    assert board.run("status", board.device).code == 0
    assert "--ssh-config" in board.deploy(bundle(seed=1)).out


def test_a_root_that_a_user_has_by_default(board: Fleet, server: Server) -> None:
    path = board.write(bundle())
    words = ("deploy", path, board.device, "--trust", board.home / "edgekit/trust", "--json")
    if os.getuid() == 0:
        pytest.skip("for root it is /var/lib/edgekit, and that is this machine's own")
    assert board.edgekit(*board.words, *words, env=board.env).code == 0
    assert (server.home / ".local/share/edgekit/apps/digits/current").is_symlink()


def test_other_uploads_stay(board: Fleet, server: Server, tmp_path: Path) -> None:
    data = bundle()
    with opened_bundle(board.write(data), admitting(parse_trust(TRUST, ""))) as parts:
        digests = [file.stored_sha256 for file in parts.verified.manifest.files]
        files = parts.files(digests, tmp_path)
    with closing(opened(server)) as device:
        there = device.put({"kept": files[digests[2]]})
        board.deployed(data)
        device.get(f"{there}/kept", tmp_path / "back")
        left = {path.name for path in server.edgekit.glob("store/*")}
        assert digests[2] in left and not left & set(digests) - {digests[2]}
        device.clean()


def test_a_link_that_is_cut_in_the_upload_comes_again(board: Fleet, server: Server) -> None:
    assert board.status() == []  # and ekrun is there
    plans = iter([(200_000, "close")])
    with Proxy(server.port, plan=lambda: next(plans, None)) as proxy:
        board.device = str(server.url("", proxy.port))
        done = board.deployed(bundle())
        assert proxy.cuts == 1
    assert board.current == done["id"]


def test_a_link_that_is_cut_for_good_leaves_the_way_for_the_next(board: Fleet, server: Server) -> None:
    data = bundle(seed=4)
    assert board.status() == []  # and ekrun is there
    plans = iter([(200_000, "close")])
    direct = board.device
    with Proxy(server.port, plan=lambda: next(plans, (0, "close"))) as proxy:
        board.device = str(server.url("", proxy.port))
        refused(board.deploy(data), 4, "run the command again")
    assert not board.app.exists()
    board.device = direct
    done = board.deployed(data)
    assert done["sent_bytes"] < done["lacking_bytes"] == done["stored_bytes"]
    assert board.current == id_of(data)


def test_a_link_that_is_cut_on_trial_is_put_right_by_the_next_install(board: Fleet, server: Server) -> None:
    good, hanging, better = bundle(), bundle(AFTER_SWITCH + HANGS, 2), bundle(counter=2, seed=5)
    board.deployed(good)
    direct = board.device
    with Proxy(server.port) as proxy:

        def cut() -> None:
            until(lambda: board.current == id_of(hanging), "never switched", 60)
            proxy.plan = lambda: (0, "close")
            proxy.cut_all()

        board.device = str(server.url("", proxy.port))
        thread = threading.Thread(target=cut)
        thread.start()
        refused(board.deploy(hanging), 4, "cut", "run the command again")
        thread.join()
    board.device = direct
    until(lambda: not server.running("sleep 600"), "the trial runs on")
    assert board.status()[0]["trial"] == id_of(hanging)
    done = board.deployed(better)
    assert done["recovered"] and done["previous"] == id_of(good)
    assert [slot["id"] for slot in board.status()[0]["slots"]] != [id_of(hanging)]


def test_ctrl_c_over_ssh_is_taken_back(board: Fleet, server: Server) -> None:
    good, hanging = bundle(), bundle(AFTER_SWITCH + HANGS, 2)
    board.deployed(good)
    code, err = interrupted(board, hanging, lambda: board.current == id_of(hanging))
    assert code == 130, err
    assert board.current == id_of(good)
    assert board.status()[0]["trial"] is None


def test_two_at_once_over_ssh(board: Fleet, server: Server) -> None:
    """The second is refused, and takes nothing away from the first that sends the same files."""
    board.deployed(bundle())
    data = bundle(IN_SLOT + "sleep 6\n", 2, seed=6)
    slow = board.write(data, "slow.ekb")
    results: list[Ended] = []
    first = threading.Thread(target=lambda: results.append(board.run("deploy", slow, board.device, "--json")))
    first.start()
    until(lambda: len(list((board.app / "slots").iterdir())) == 2, "no second slot", 60)
    refused(board.deploy(data), 10, "another install")
    first.join()
    assert results[0].code == 0, results[0].err
    assert board.current == id_of(data)


@pytest.mark.skipif(os.getuid() != 0, reason="mounts small disks")
def test_a_full_disk_there(board: Fleet, server: Server) -> None:
    board.root, board.seen = f"{server.there}/small/root", server.home / "small/root"
    big = make_bundle(
        {"bin/ekrun": b"#!/bin/sh\nexit 0\n", "model/model.onnx": bytes(8 << 20), "deployment.json": b"{}\n"}, HERE
    )
    refused(board.deploy(big), 9, "the disk has", "free")
    assert "nothing is installed" in board.run("status", board.device).out
