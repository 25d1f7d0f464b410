"""From a model to a device that has nothing: optimized, bundled, signed, deployed over SSH, run there, replaced, and gone back.

The arm board is made of ten packages, without Python and openssl, in a network that ends at its own loopback; the x86 one is this
machine's sshd. Only the shipped sample goes this way in every run: EDGEKIT_TEST_ZOO, a folder of `benchmarks.models`, adds
PP-OCRv6's recognizer.
"""

import json
import os
import platform
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.board import require_ssh_board, ssh_board, template
from tests.conftest import SAMPLE, Cli
from tests.offline import offline
from tests.sshd import Server, serving
from tests.test_emulated_board import on
from tests.test_pack import keep_engine

pytestmark = [
    pytest.mark.board,
    pytest.mark.long,
    pytest.mark.timeout(2400 if os.environ.get("EDGEKIT_TEST_ZOO") else 900),
]

ORT, OPENVINO = "onnxruntime", "openvino"
# One candidate beside the reference, so that a run takes seconds.
ONLY = {
    ORT: (OPENVINO, "fp16", "int4-weights", "int8"),
    OPENVINO: (ORT, "bf16", "fp16", "int4-weights", "int8-weights"),
}
ZOO = os.environ.get("EDGEKIT_TEST_ZOO", "")
REC = pytest.param(
    "rapidocr-rec", marks=pytest.mark.skipif(not ZOO, reason="EDGEKIT_TEST_ZOO names no folder of benchmarks.models")
)
needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86_64 bundle")


@dataclass(frozen=True)
class Maker:
    """Makes bundles as a user does, signed with a key of its own."""

    edgekit: Cli
    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"XDG_CONFIG_HOME": str(self.folder / "home")}

    @property
    def trust(self) -> Path:
        return self.folder / "home/edgekit/trust"

    def __call__(self, *words: object) -> str:
        ended = self.edgekit(*words, env=self.env, timeout=600)
        assert ended.code == 0, ended.err + ended.out
        return ended.out

    def run(self, model: str, target: str, engine: str) -> Path:
        """A model's run for a target, by one engine."""
        out = self.folder / f"{model}-{target}-{engine}"
        if not out.exists():
            folder = SAMPLE if model == "digits" else Path(ZOO) / model
            data = folder if model == "digits" else folder / "data"
            arguments = folder / "args.toml"
            shapes = tomllib.loads(arguments.read_text())["shape"] if arguments.exists() else []
            more = [word for shape in shapes for word in ("--shape", shape)]
            more += ["--prefer", "size", *(word for name in ONLY[engine] for word in ("--forbid", name))]
            self("optimize", folder / "model.onnx", "--target", target, "--data", data, "-o", out, *more)
        return out

    def bundle(self, model: str, target: str, engine: str, counter: int = 1) -> Path:
        """Its bundle."""
        run = self.run(model, target, engine)
        out = self.folder / f"{run.name}-{counter}.ekb"
        data = SAMPLE if model == "digits" else Path(ZOO) / model / "data"
        named = ("--application", "app", "--version", str(counter), "--counter", counter, "--key", "mine")
        self("bundle", run, *named, "--data", data, "-o", out)
        self("verify", out)
        return out


@pytest.fixture(scope="module")
def make(edgekit: Cli, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    require_ssh_board()
    keep_engine(cache)
    maker = Maker(edgekit, tmp_path_factory.mktemp("made"))
    maker("keys", "new", "mine")
    return maker


def there(server: Server, command: str, code: int = 0) -> str:
    """What a command says on the board, by the system's own ssh."""
    done = on(server, command, timeout_s=600)  # a large model on an emulated core
    assert done.returncode == code, done.stderr + done.stdout
    return done.stdout


def ship(make: Maker, server: Server, first: Path, second: Path, *place: object) -> None:
    """Deploy one bundle, run it, deploy the next, go back, and have the device notice a changed weight; `place` is its --root."""
    url = server.url()
    ssh = ("--ssh-config", server.client.config)
    one = json.loads(make(*ssh, "deploy", first, url, "--trust", make.trust, *place, "--json"))
    assert one["changed"] and one["previous"] is None and one["device_counter"] == 1
    assert one["sent_bytes"] == one["lacking_bytes"] <= one["stored_bytes"], "a file that is there twice goes once"
    assert one["lacking_bytes"] > 0.99 * one["stored_bytes"]
    root = json.loads(make(*ssh, "status", url, *place, "--json"))["root"]
    current = f"{root}/apps/app/current"
    told = json.loads(there(server, f"{current}/bin/ekrun check {current}/").splitlines()[-1])
    assert told["passed"] is True
    ran = there(server, f'd=$(mktemp -d) && {current}/bin/ekrun run {current}/ --out "$d" && ls "$d" && rm -r "$d"')
    assert "0.npy" in ran

    two = json.loads(make(*ssh, "deploy", second, url, *place, "--json"))
    assert (two["changed"], two["previous"], two["device_counter"]) == (True, one["id"], 2)
    assert two["lacking_bytes"] < one["lacking_bytes"] / 100, "the engine, the runner and the model are there already"
    (application,) = json.loads(make(*ssh, "status", url, *place, "--json"))["applications"]
    assert application["current"] == application["confirmed"] == two["id"]
    assert make.edgekit(*ssh, "deploy", first, url, *place, env=make.env).code == 8, "its counter is older"
    assert make.edgekit(*ssh, "rollback", url, *place, env=make.env).code == 8, "so is what it would go back to"
    back = json.loads(make(*ssh, "rollback", url, "--allow-downgrade", *place, "--json"))
    assert (back["id"], back["device_counter"]) == (one["id"], 2)

    slot, trust = f"{root}/apps/app/slots/{two['id']}", f"{root}/trust"
    there(server, f"{current}/bin/ekrun verify {slot} --trust {trust}")
    weight = f'f=$(ls -d {slot}/model/* | tail -n 1) && n=$(($(wc -c < "$f") / 2))'
    there(server, f'{weight} && printf X | dd of="$f" bs=1 seek=$n conv=notrunc')
    there(server, f"{current}/bin/ekrun verify {slot} --trust {trust}", code=8)
    assert make.edgekit(*ssh, "rollback", url, *place, env=make.env).code == 8, "it is not gone back to"
    again = json.loads(make(*ssh, "deploy", second, url, *place, "--json"))
    assert (again["changed"], again["id"]) == (True, two["id"]), "but mended by what is signed"
    there(server, f"{current}/bin/ekrun verify {slot} --trust {trust}")
    assert not server.running("ekrun")


@pytest.mark.parametrize("model", ["digits", REC])
def test_to_an_arm_board_that_has_nothing_and_reaches_nobody(make: Maker, tmp_path: Path, model: str) -> None:
    """ONNX Runtime for a Raspberry Pi 5, on an emulated one."""
    first, second = (make.bundle(model, "raspberry-pi-5", ORT, counter) for counter in (1, 2))
    template("dropbear")  # its packages are fetched, the first time: that takes a network

    def body() -> None:
        with ssh_board("dropbear", tmp_path, core="cortex-a76") as board:
            assert there(board, "which python3 openssl || echo none") == "none\n"
            assert len(there(board, "cat /proc/net/dev").splitlines()) == 3, "two lines of headings, and loopback"
            ship(make, board, first, second)

    offline(body)


@needs_x86
@pytest.mark.parametrize("engine", [ORT, OPENVINO])
@pytest.mark.parametrize("model", ["digits", REC])
def test_to_a_machine_of_this_kind(make: Maker, tmp_path: Path, model: str, engine: str) -> None:
    first, second = (make.bundle(model, "cpu-x86", engine, counter) for counter in (1, 2))
    with serving("openssh", tmp_path) as server:
        ship(make, server, first, second, "--root", tmp_path / "device")
