"""`edgekit profile` and `edgekit compare`, end to end: on this machine, over SSH, on emulated boards."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit import sandbox
from edgekit.core.profile_run import Profile
from edgekit.core.trust import TrustVerdict
from edgekit.devices.ssh import SshDevice
from edgekit.errors import TargetIncompatible
from edgekit.flow.devices import Reach, opened
from edgekit.flow.probe import probe
from tests.board import ssh_board
from tests.conftest import SAMPLE, Cli, Ended, done
from tests.ekrun_tools import facts_only
from tests.sshd import Server, serving

pytestmark = pytest.mark.long

MODEL = SAMPLE / "model.onnx"
DEFAULTS = SshDevice.__init__.__kwdefaults__ or {}
SHORT = ("--duration", "1s", "--threads", "1")


def record(folder: Path) -> Profile:
    found: Profile = sandbox.decode((folder / "profile.json").read_bytes(), Profile)
    return found


@pytest.fixture(scope="module")
def run(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the sample on this machine, of few candidates."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    few = [word for name in ("openvino", "fp16", "int8-weights", "ort-int8-dynamic") for word in ("--forbid", name)]
    done(edgekit("optimize", MODEL, "--data", SAMPLE, "--samples", "60", "--threads", "1", *few, "-o", folder))
    return folder


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving("openssh", tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ssh_board("dropbear", tmp_path_factory.mktemp("board")) as server:
        yield server


def there(server: Server) -> tuple[str, ...]:
    return ("--device", str(server.url()))


def with_config(edgekit: Cli, server: Server, *words: Any, **more: Any) -> Ended:
    return edgekit("--ssh-config", server.client.config, *words, **more)


# ---------------------------------------------------------------------------------------------------------- this machine


def test_a_model_here(edgekit: Cli, tmp_path: Path) -> None:
    shown = done(edgekit("profile", MODEL, "-o", tmp_path / "p", *SHORT)).out
    found = record(tmp_path / "p")
    assert found.figures is not None and found.cold is not None and found.warm is not None and found.memory is not None
    raw = np.load(tmp_path / "p" / "latencies.npy", allow_pickle=False)
    assert raw.shape == (found.figures.queries, 2)
    stats = found.figures.trust.latency_ms
    steady = raw[found.figures.trust.warm_up_runs :, 1] / 1e6
    assert stats.count == len(steady)
    assert stats.p50 == pytest.approx(float(np.percentile(steady, 50)))
    assert found.memory.peak is not None and found.memory.peak > 10 << 20
    assert found.layers and sum(layer.share for layer in found.layers) == pytest.approx(1.0)
    assert {layer.op for layer in found.layers} >= {"Conv"}
    assert len(found.figures.trace.points) >= 3
    for word in (
        "p50",
        "throughput",
        "first process",
        "next process",
        "peak of inference",
        found.figures.trust.verdict,
    ):
        assert word in shown
    assert "synthetic" in shown


def test_the_chosen_artifact_of_a_run(edgekit: Cli, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "p"
    told = done(edgekit("profile", run, "--data", SAMPLE, "-o", out, *SHORT, "--no-layers", "--json"))
    chosen = json.loads((run / "run.json").read_text())["choice"]["chosen"]
    assert json.loads(told.out)["recipe"] == record(out).recipe == chosen


def test_a_run_has_its_own_recipe_and_shapes(edgekit: Cli, run: Path) -> None:
    assert "recipe is for a model" in done(edgekit("profile", run, "--recipe", "ov-f32", "--json"), 2).error
    assert "shape is for a model" in done(edgekit("profile", run, "--shape", "image:1x1x28x28", "--json"), 2).error


def test_an_artifact_that_was_changed_is_refused(edgekit: Cli, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    subprocess.run(["cp", "-r", run, copy], check=True)
    first = next((copy / "artifact").iterdir())
    first.write_bytes(first.read_bytes()[:-1] + b"!")
    assert "not the file that was measured" in done(edgekit("profile", copy, *SHORT), 8).error
    record_file = copy / "run.json"
    record_file.write_text(record_file.read_text().replace(f'"path":"{first.name}"', '"path":"../run.json"'))
    assert "not the file that was measured" in done(edgekit("profile", copy, *SHORT), 8).error


def test_a_cap_that_does_not_hold_says_so(edgekit: Cli, tmp_path: Path) -> None:
    out = tmp_path / "p"
    shown = done(edgekit("profile", MODEL, "-o", out, *SHORT, "--memory-limit", "8MiB"), 9).out
    limit = record(out).memory_limit
    assert limit is not None and not limit.holds
    assert "does not fit" in shown
    done(edgekit("profile", MODEL, "-o", out, *SHORT, "--no-layers", "--memory-limit", "1GiB"))
    limit = record(out).memory_limit
    assert limit is not None and limit.holds and limit.kind in ("cgroup", "rlimit_data")


def test_a_load_beside_it_is_seen(edgekit: Cli, tmp_path: Path) -> None:
    """Live: as many busy loops as CPUs. The figures are kept, the exit code says what they are worth."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        ended = edgekit("profile", MODEL, "-o", tmp_path / "p", "--duration", "4s", "--no-layers", "--require-trusted")
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert "contended" in done(ended, 7).err
    found = record(tmp_path / "p").figures
    assert found is not None and found.trust.verdict is TrustVerdict.CONTENDED


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--scenario", "server"), 2, "qps"),
        (("--scenario", "fixed-rate", "--fps", "0"), 2, "fps"),
        (("--streams", "2"), 2, "one stream"),
        (("--duration", "5"), 2, "unit"),
        (("--duration", "5s", "--sustain", "5m"), 2, "--sustain"),
        (("--recipe", "ort-int9"), 2, "unknown recipe"),
        (("--recipe", "ort-int8"), 2, "needs calibration data"),
        (("--device", "ssh://nobody@127.0.0.1:1"), 4, "refused"),
        (("--device", "ssh://a b"), 2, "host"),
        (("--device", "ssh://-oProxyCommand=x"), 2, "host"),
        (("--device", "pi"), 2, "unknown device"),
        (("--device", "emulated:nothing"), 2, "nothing"),
    ],
)
def test_wrong_words(edgekit: Cli, tmp_path: Path, words: tuple[str, ...], code: int, says: str) -> None:
    out = tmp_path / "p"
    ended = edgekit("profile", MODEL, "-o", out, *words, "--json", env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert says in done(ended, code).error
    assert not out.exists()


def test_a_folder_that_is_no_profile_is_left_alone(edgekit: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "nothing in it was touched" in done(edgekit("profile", MODEL, "-o", tmp_path, *SHORT, "--json"), 6).error
    assert (tmp_path / "mine.txt").read_text() == "mine"


# ---------------------------------------------------------------------------------------------------------------- compare


def test_compare_tells_a_much_faster_one_and_keeps_its_interval(edgekit: Cli, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, 28, 28])
    result = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1, 1, 28, 28])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["image"], ["out"])], "small", [image], [result])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), small)
    words = ("--threads", "1", "--duration", "1s", "--rounds", "12")
    found = json.loads(done(edgekit("compare", MODEL, small, *words, "--json")).out)["comparison"]
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["rounds"] >= 12
    assert (found["verdict"], found["ratio"] < 0.5) == ("faster", True)
    assert "B is faster" in done(edgekit("compare", MODEL, small, *words)).out


def test_what_cannot_be_compared(edgekit: Cli, run: Path, tmp_path: Path) -> None:
    ended = edgekit("compare", MODEL, tmp_path / "none.onnx", "--json")
    assert "none.onnx" in done(ended, 6).error
    ended = edgekit("compare", run, MODEL, "--shape", "image:2x1x28x28", "--json")
    assert "same inputs" in done(ended, 6).error


# ------------------------------------------------------------------------------------------------------------- over SSH


def test_optimize_over_ssh_measures_there(edgekit: Cli, sshd: Server, tmp_path: Path) -> None:
    """A board of this machine's kind: it has latency, and its own answers are scored."""
    out = tmp_path / "run"
    words = ("optimize", MODEL, "--data", SAMPLE, "--samples", "60", "--threads", "1", *there(sshd), "-o", out)
    shown = done(with_config(edgekit, sshd, *words)).out
    found = json.loads((out / "run.json").read_text())
    assert found["target_origin"] == "target"
    assert found["target"]["name"] == str(sshd.url())
    chosen = next(
        o for o in found["outcomes"] if o["candidate"]["build"]["recipe"]["name"] == found["choice"]["chosen"]
    )
    assert chosen["measurement"]["origin"] == "target"
    assert chosen["measurement"]["device"] == str(sshd.url())
    assert found["proof"]["agreement"]["flipped"] == 0
    assert found["proof"]["agreement"]["samples"] == 60
    assert found["proof"]["accuracy"]["kind"] == "task"
    assert "decisions flipped" in shown
    assert left_behind(sshd) == set()


def test_profile_over_ssh(edgekit: Cli, sshd: Server, tmp_path: Path) -> None:
    out = tmp_path / "p"
    words = ("profile", MODEL, "--data", SAMPLE, "--samples", "40", *there(sshd), "-o", out, *SHORT)
    done(with_config(edgekit, sshd, *words))
    found = record(out)
    assert found.figures is not None and found.figures.trust.latency_ms.p50 is not None
    assert found.memory is not None and found.memory.peak is not None
    assert found.layers
    assert found.answers is not None and found.answers.agreement.identical == found.answers.agreement.samples
    assert left_behind(sshd) == set()
    done(with_config(edgekit, sshd, "device", "clean", str(sshd.url())))
    assert not sshd.edgekit.exists() or not list(sshd.edgekit.rglob("*"))


def test_probe_over_ssh_and_of_a_board_that_cannot_start_ekrun(
    edgekit: Cli, sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("device", "probe", str(sshd.url()), "--write", "--name", "my-box", "--json")
    found = json.loads(done(with_config(edgekit, sshd, *words, cwd=tmp_path)).out)
    assert found["facts"]["arch"] == platform.machine() and found["facts"]["disk"]["free_bytes"] > 0
    assert found["written"] == "targets/my-box.toml"
    assert (
        json.loads(done(edgekit("targets", "show", "my-box", "--json", cwd=tmp_path)).out)["arch"] == platform.machine()
    )
    assert "is left as it is" in done(with_config(edgekit, sshd, *words, cwd=tmp_path), 2).error
    facts_only()
    # As on a system without glibc: the program's loader is not there.
    script = tmp_path / "ekrun"
    script.write_text("#!/no/such/loader\n")
    monkeypatch.setattr(SshDevice.__init__, "__kwdefaults__", {**DEFAULTS, "program": lambda _: script})
    reach = Reach(ssh_config=sshd.client.config)
    with pytest.raises(TargetIncompatible), opened(str(sshd.url()), reach, tmp_path, tmp_path, print):
        pass
    sheet = probe(str(sshd.url()), reach, tmp_path, tmp_path, print, False, None).facts
    assert (sheet.arch, sheet.glibc) == (found["facts"]["arch"], found["facts"]["glibc"])


def left_behind(server: Server) -> set[str]:
    """What a finished command leaves on the board besides its store of files: scratch, partial uploads, processes."""
    found = {
        str(p)
        for part in ("jobs", "parts")
        if (server.edgekit / part).exists()
        for p in (server.edgekit / part).iterdir()
    }
    return found | {server.processes()[pid] for pid in server.running("ekrun")}


def test_a_target_that_the_device_is_not(edgekit: Cli, sshd: Server, tmp_path: Path) -> None:
    """Another architecture is refused; another machine of the same one measures, and its figures are not the target's."""
    words = (
        "optimize",
        MODEL,
        "--samples",
        "8",
        "--threads",
        "1",
        *there(sshd),
        "--forbid",
        "openvino",
        "-o",
        tmp_path / "run",
    )
    ended = with_config(edgekit, sshd, *words, "--target", "raspberry-pi-4", "--json")
    assert "is aarch64" in done(ended, 5).error
    shown = done(with_config(edgekit, sshd, *words, "--target", "cpu-x86")).out
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found["target_origin"] == "predicted"
    assert {o["measurement"]["origin"] for o in found["outcomes"] if o["measurement"]} == {"host"}
    assert f"{sshd.url()} is not cpu-x86" in " ".join(shown.split())
    assert "ssh://USER@BOARD" not in shown


# ----------------------------------------------------------------------------------------------------- the aarch64 boards


def test_an_emulated_board_has_answers_and_no_figures(edgekit: Cli, board: Server, tmp_path: Path) -> None:
    out = tmp_path / "p"
    words = ("profile", MODEL, "--data", SAMPLE, "--samples", "12", *there(board), "-o", out)
    shown = done(with_config(edgekit, board, *words)).out
    found = record(out)
    assert found.facts.emulated and found.facts.arch == "aarch64"
    assert (found.figures, found.cold, found.warm, found.memory, found.layers) == (None, None, None, None, ())
    assert not (out / "latencies.npy").exists()
    assert found.answers is not None and found.answers.emulated
    assert found.answers.agreement.flipped == 0
    assert "emulated" in shown and "p50" not in shown
    ended = with_config(edgekit, board, "compare", MODEL, MODEL, *there(board), "--json")
    assert "no latency" in done(ended, 5).error
    ended = with_config(edgekit, board, *words, "--memory-limit", "64MiB", "--json")
    assert "--memory-limit" in done(ended, 2).error


def test_int8_on_the_board_is_this_hosts_bit_for_bit(edgekit: Cli, board: Server, tmp_path: Path) -> None:
    words = (
        "optimize",
        MODEL,
        "--data",
        SAMPLE,
        "--samples",
        "40",
        "--threads",
        "1",
        "--prefer",
        "size",
        "-t",
        "cpu-arm",
    )
    only_int8 = [
        w for word in ("ort-fp32-opt", "ort-fp16", "ort-int8-dynamic", "ort-int8-weights") for w in ("--forbid", word)
    ]
    out = tmp_path / "run"
    shown = done(with_config(edgekit, board, *words, *only_int8, "--max-drop", "0.2", *there(board), "-o", out)).out
    found = json.loads((out / "run.json").read_text())
    assert found["choice"]["chosen"] in ("ort-int8", "ort-int8-conv")
    assert found["proof"]["emulated"]
    assert found["target_origin"] == "predicted"
    assert all(o["measurement"] is None or o["measurement"]["origin"] == "host" for o in found["outcomes"])
    if found["choice"]["chosen"] == "ort-int8":  # fully QDQ
        assert found["proof"]["agreement"]["identical"] == found["proof"]["agreement"]["samples"]
    assert found["proof"]["agreement"]["flipped"] == 0
    assert "emulated" in shown


def test_without_a_device_the_choice_for_an_arm_target_is_proven_under_qemu(
    edgekit: Cli, board: Server, tmp_path: Path
) -> None:
    done(edgekit("engines", "fetch", "raspberry-pi-4", "--json"))
    out = tmp_path / "run"
    words = (
        "optimize",
        MODEL,
        "--data",
        SAMPLE,
        "--samples",
        "20",
        "-t",
        "raspberry-pi-4",
        "--forbid",
        "openvino",
        "-o",
        out,
    )
    shown = done(edgekit(*words)).out
    proof = json.loads((out / "run.json").read_text())["proof"]
    assert proof["emulated"] and proof["device"] == "emulated:raspberry-pi-4"
    assert proof["agreement"]["flipped"] == 0
    assert "on emulated:raspberry-pi-4: " in shown
