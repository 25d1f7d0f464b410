"""What is in a bundle: packed from the shipped sample with real engines, for this machine and for a Raspberry Pi 5."""

import getpass
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from edgekit.bundle import frames
from edgekit.bundle.golden import expect, take
from edgekit.bundle.provenance import figures
from edgekit.bundle.sbom import APPLICATION, LIBRARY, Part, sbom
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.core.accuracy import Agreement, OutputSet
from edgekit.core.deployment import ARGMAX, Deployment
from edgekit.core.results import Proof
from edgekit.core.run import Run
from edgekit.devices.local import LocalDevice
from edgekit.engines import closure
from edgekit.engines.closure import find_pin, native_library, native_notices
from edgekit.engines.runtime import cxx_runtime
from edgekit.errors import InputRejected, TargetIncompatible, UsageError, VerificationFailed
from edgekit.flow.cargo import Wishes, find_cargo
from edgekit.flow.pack import Label, bundle, stage
from edgekit.flow.workshop import Workshop
from edgekit.runner import BUNDLED, ekrun_path, libekrun_path
from edgekit.sandbox import decode, encode
from edgekit.store import Cache, sha256_file
from tests.board import default_cache, emulated, require_board
from tests.conftest import ROOT, SAMPLE, Cli, thorough
from tests.records import measured
from tests.test_closure import FILES, VERSION, wheel, write_pins

pytestmark = pytest.mark.long

MODEL = SAMPLE / "model.onnx"
ORT = "1.32.0"
PI = "raspberry-pi-5"
# The smallest artifact that is not the model itself: int8 weights, no calibration.
SMALL = ("--prefer", "size", *(w for word in ("openvino", "fp16", "int4-weights", "int8") for w in ("--forbid", word)))

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the host's own C++ runtime is an x86_64 one")


@pytest.fixture(scope="module")
def engines(cache: Path) -> Path:
    """The tests' cache with ONNX Runtime for aarch64 in it, from the user's own cache if it is there: it is fetched once."""
    keep_engine(cache)
    return cache


def keep_engine(cache: Path) -> None:
    found = native_library("onnxruntime", ORT, "aarch64", default_cache())
    with Cache(cache).filling("engines", f"onnxruntime-{ORT}-aarch64") as folder:
        for file in found.files:
            shutil.copyfile(file, folder / file.name)


@pytest.fixture(scope="module")
def run(edgekit: Cli, engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for the Raspberry Pi 5 whose artifact is quantized; predicted, so it takes seconds."""
    out = tmp_path_factory.mktemp("pack") / "run"
    ended = edgekit("optimize", MODEL, "--target", PI, "--data", SAMPLE, "-o", out, *SMALL)
    assert ended.code == 0, ended.err
    return out


def record(folder: Path) -> Run:
    found: Run = decode((folder / "run.json").read_bytes(), Run)
    return found


def staged(cache: Path, tmp: Path, source: Path, target: str | None = None, **wishes):
    """The folder that `edgekit bundle` would pack, what it requires, and the cargo."""
    scratch = tmp / "scratch"
    scratch.mkdir(parents=True)
    shop = Workshop(Cache(cache), scratch, LocalDevice(scratch), lambda _: None)
    wanted = Wishes(**wishes)
    cargo = find_cargo(shop, source, target, wanted, Path.cwd())
    requires = stage(shop, cargo, Label("digits", "1", 1), wanted, tmp / "bundle")
    return tmp / "bundle", requires, cargo


def by_anyone(_text: bytes, _line: bytes) -> None:
    """Whoever signed, this test is about what is inside."""


def paths(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def deployed(folder: Path) -> Deployment:
    found: Deployment = decode((folder / "deployment.json").read_bytes(), Deployment)
    return found


def ekrun(folder: Path, out: Path) -> np.ndarray:
    """The answers of an unpacked bundle for this machine, by its own ekrun, engine and golden inputs."""
    d = deployed(folder)
    argv = [str(folder / "bin/ekrun"), "run", "--engine", d.engine, "--lib", str(folder / d.library)]
    argv += ["--model", str(folder / d.model), "--threads", "2", "--precision", d.precision, "--out", str(out)]
    argv += [word for key, value in d.options.items() for word in ("--option", f"{key}={value}")]
    argv += [word for name, file in d.golden.inputs.items() for word in ("--input", f"{name}={folder / file}")]
    out.mkdir()
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    return np.load(out / "0.npy")


# --------------------------------------------------------------------------------------------------------- whole bundles


@pytest.fixture(scope="module")
def home(edgekit: Cli, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose user has the key `mine`."""
    there = {"XDG_CONFIG_HOME": str(tmp_path_factory.mktemp("home"))}
    assert edgekit("keys", "new", "mine", env=there).code == 0
    return there


@pytest.fixture(scope="module")
def pi(edgekit: Cli, run: Path, home: dict[str, str]) -> Path:
    """The run's bundle, by the real command line."""
    out = run.parent / "digits.ekb"
    named = ("--application", "digits", "--version", "1.0", "--key", "mine", "--data", SAMPLE)
    ended = edgekit("bundle", run, *named, "--offline", "-o", out, env=home)
    assert ended.code == 0, ended.err
    assert "signed with mine" in ended.out
    return out


def test_the_bundle_of_a_run_for_the_raspberry_pi_5(pi: Path, run: Path, tmp_path: Path) -> None:
    """It holds what it takes, nothing else of the wheel, and fits the bars: 30 MB unpacked, 10.5 MB as shipped."""
    found = unpack_bundle(pi, tmp_path / "here", by_anyone)
    manifest = found.manifest
    assert manifest.size <= 30e6
    assert pi.stat().st_size <= 10.5e6
    engine = {f"lib/{file.name}" for file in find_pin("onnxruntime", ORT, "aarch64").files}
    chosen = {f"model/{Path(name).name}" for name in record(run).artifact_files}
    golden = {"golden/0.npy", "golden/expected-0.npy"}
    papers = {"deployment.json", "contract.json", "figures.json", "provenance.json", "sbom.cdx.json"}
    licences = {path for path in (file.path for file in manifest.files) if path.startswith("licences/")}
    own = {"bin/ekrun", "lib/libekrun.so", *BUNDLED}
    assert {file.path for file in manifest.files} == engine | chosen | golden | papers | licences | own
    assert {"licences/onnxruntime/LICENSE", "licences/onnxruntime/ThirdPartyNotices.txt"} < licences
    assert {"licences/edgekit/LICENSE", "licences/edgekit/zig.txt", "licences/data/LICENSE"} < licences
    assert {file.path for file in manifest.files if file.mode == 0o755} == {"bin/ekrun"}
    assert manifest.requires.arch == "aarch64"
    assert manifest.requires.glibc == "2.28"
    assert manifest.requires.libstdcxx == "3.4.23"
    assert "asimddp" in manifest.requires.isa
    assert (tmp_path / "here/bin/ekrun").read_bytes() == ekrun_path("aarch64").read_bytes()
    assert (tmp_path / "here/lib/libekrun.so").read_bytes() == libekrun_path("aarch64").read_bytes()
    bom = json.loads((tmp_path / "here/sbom.cdx.json").read_text())
    (runner,) = (part for part in bom["components"] if part["name"] == "ekrun")
    assert {file["name"] for file in runner["components"]} == own
    d = deployed(tmp_path / "here")
    named = {d.library, d.model, *d.golden.inputs.values(), *(output.file for output in d.golden.outputs)}
    assert named < paths(tmp_path / "here")
    assert d.threads == 4


@pytest.mark.board
def test_the_bundle_proves_itself_on_an_emulated_raspberry_pi_5(pi: Path, tmp_path: Path) -> None:
    """With nothing but its own files; and it sees an answer that is not the expected one."""
    require_board()
    here = tmp_path / "here"
    unpack_bundle(pi, here, by_anyone)
    with closing(emulated(PI)) as board:
        done = board.run(["check", str(here)], deadline_s=120)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout.splitlines()[-1])
        assert told["passed"] is True
        assert told["emulated"] is True
        assert told["samples"] == 8
        (output,) = deployed(here).golden.outputs
        wanted = np.load(here / output.file)
        wanted[3, 0, 4] += 2 * output.tolerance
        np.save(here / output.file, wanted)
        assert board.run(["check", str(here)], deadline_s=120).returncode == 8


def test_inspect_says_what_a_bundle_is(pi: Path, run: Path, edgekit: Cli, tmp_path: Path) -> None:
    ended = edgekit("inspect", pi)
    assert ended.code == 0, ended.err
    for words in ("digits 1.0", "glibc 2.28", "8 samples", "predicted", "not measured", "lib/libonnxruntime.so"):
        assert words in ended.out
    assert "measured   p50" not in ended.out, "nobody measured on a Raspberry Pi"
    told = json.loads(edgekit("inspect", pi, "--json").out)
    assert told["deployment"]["engine"] == "onnxruntime"
    assert told["figures"]["predicted"]["rule"]
    broken = bytearray(pi.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / "broken.ekb").write_bytes(broken)
    assert edgekit("inspect", tmp_path / "broken.ekb").code == 8


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "--key NAME or --unsigned"),
        (("--key", "a", "--unsigned"), "--key NAME or --unsigned"),
        (("--key", "nobodys"), "no key 'nobodys'"),
        (("--unsigned", "--application", "Digits"), "lower case"),
        (("--unsigned", "--version", "a b"), "a version has"),
        (("--unsigned", "--golden", "0"), "neither 1 to 1000, random nor none"),
        (("--unsigned", "--target", "imx8mp"), "the run is for raspberry-pi-5"),
    ],
)
def test_what_is_asked_wrongly_is_said_at_once(
    edgekit: Cli, run: Path, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    ended = edgekit("bundle", run, "-o", tmp_path / "x.ekb", *arguments, env=home)
    assert ended.code == 2
    assert reason in ended.error
    assert not (tmp_path / "x.ekb").exists()


def test_who_signed_is_said_and_decides_at_verify(pi: Path, home: dict[str, str], edgekit: Cli, tmp_path: Path) -> None:
    stranger = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert edgekit("verify", pi, env=home).code == 0
    assert edgekit("verify", pi, env=stranger).code == 8
    assert "signature  trusted: mine" in edgekit("inspect", pi, env=home).out
    assert "signature  not trusted" in edgekit("inspect", pi, env=stranger).out
    wiser = {"XDG_CONFIG_HOME": str(shutil.copytree(home["XDG_CONFIG_HOME"], tmp_path / "copy"))}
    assert edgekit("keys", "revoke", "mine", env=wiser).code == 0
    assert "signature  revoked: mine" in edgekit("inspect", pi, env=wiser).out


def test_a_bundle_may_be_left_unsigned_and_is_replaced_when_asked(
    run: Path, engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "LEVEL", 1)  # as right, and quick
    out = tmp_path / "x.ekb"
    asked = {"wishes": Wishes(samples=0, offline=True), "cache": engines}
    made = bundle(run, out, label=Label(counter=7), **asked)
    assert made.signer is None
    assert (made.manifest.application, made.manifest.counter) == ("model", 7)
    assert made.manifest.version == record(run).outcome(record(run).choice.chosen).artifact.digest[:12]
    before = out.read_bytes()
    done: list[str] = []
    with pytest.raises(UsageError, match="exists already"):
        bundle(run, out, progress=done.append, **asked)
    assert out.read_bytes() == before
    assert done == [], "said before anything is made"
    bundle(run, out, label=Label(counter=7), force=True, **asked)
    assert out.read_bytes() == before


# ----------------------------------------------------------------------------------------------------------- the same bytes


STAGE = """
import hashlib, os, sys
from pathlib import Path
os.umask(int(sys.argv[4], 8))
from tests.test_pack import paths, staged
folder, requires, _ = staged(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), data=Path(sys.argv[5]))
for path in sorted(paths(folder)):
    print(path, oct((folder / path).stat().st_mode & 0o100), hashlib.sha256((folder / path).read_bytes()).hexdigest())
print(requires)
"""


def test_the_same_run_gives_the_same_bytes(run: Path, engines: Path, tmp_path: Path) -> None:
    """Whatever the folders, umask, time zone, locale and hash seed."""

    def told(name: str, umask: str, source: Path, data: Path, **env: str) -> str:
        argv = [sys.executable, "-c", STAGE, str(engines), str(tmp_path / name), str(source), umask, str(data)]
        done = subprocess.run(
            argv, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    other, data = tmp_path / "elsewhere" / "r", tmp_path / "d" / "other name"
    shutil.copytree(run, other)
    shutil.copytree(SAMPLE, data)
    first = told("a", "022", run, SAMPLE, TZ="UTC", LC_ALL="C", PYTHONHASHSEED="1")
    second = told("b/c", "077", other, data, TZ="Asia/Kathmandu", LC_ALL="C.UTF-8", PYTHONHASHSEED="2")
    assert first == second
    text = (other / "run.json").read_text()
    (other / "run.json").write_text(text.replace('"edgekit_version":"', '"edgekit_version":"9', 1))
    assert told("e", "022", other, SAMPLE) != first, "another edgekit made it"


def test_a_bom_is_the_same_for_the_same_parts_and_another_for_others() -> None:
    parts = [
        Part(APPLICATION, "ekrun", "1", "Apache-2.0 AND MIT", [("bin/ekrun", "a" * 64)]),
        Part(LIBRARY, "onnxruntime", "2", "MIT", [("lib/x.so", "b" * 64)], "onnxruntime"),
        Part(LIBRARY, "odd", "3", "see the box it came in", [("lib/y.so", "d" * 64)]),
    ]
    first = sbom("digits", "1", parts)
    assert first == sbom("digits", "1", parts)
    told = json.loads(first)
    assert told["bomFormat"] == "CycloneDX"
    assert told["metadata"]["timestamp"] == "1970-01-01T00:00:00+00:00"
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", told["serialNumber"])
    assert {c.get("purl") for c in told["components"]} == {None, "pkg:pypi/onnxruntime@2"}
    other = json.loads(sbom("digits", "1", [replace(parts[0], files=[("bin/ekrun", "c" * 64)]), *parts[1:]]))
    assert other["serialNumber"] != told["serialNumber"]


def test_a_bom_is_one_by_the_schema(laid_out: Path) -> None:
    """CycloneDX's own, strictly: no unknown keys, known licence identifiers, well-formed references."""
    schema = JsonStrictValidator(SchemaVersion.V1_6)
    text = (laid_out / "sbom.cdx.json").read_text()
    assert schema.validate_str(text) is None
    told = json.loads(text)
    for spoiled in (
        told | {"serialNumber": "1"},
        told | {"maker": "edgekit"},
        told | {"components": [{**told["components"][0], "type": "thing"}]},
    ):
        assert schema.validate_str(json.dumps(spoiled)) is not None


# ----------------------------------------------------------------------------------------------------------- what they say


@pytest.fixture(scope="module")
def laid_out(run: Path, engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the run's bundle; the reference is made again from the model."""
    return staged(engines, tmp_path_factory.mktemp("laid"), run, data=SAMPLE, model=MODEL)[0]


def test_documents_name_no_path_user_or_machine(laid_out: Path, run: Path) -> None:
    """Every file of the maker's is searched for the places of this very run; the documents also for who ran it, and where."""
    here = {str(run.parent), str(ROOT), str(Path.home()), str(default_cache())}
    for path in paths(laid_out):
        if not path.startswith(("bin/", "lib/", "licences/")):
            data = (laid_out / path).read_bytes()
            assert not [place for place in here if place.encode() in data], path
    texts = [(laid_out / path).read_text() for path in paths(laid_out) if path.endswith(".json")]
    assert len(texts) == 5
    assert not [who for who in (getpass.getuser(), socket.gethostname()) if any(f'"{who}"' in text for text in texts)]
    assert str(ROOT) in str(SAMPLE), "the data did come from such a place"


def test_figures_say_what_was_predicted_measured_and_proven_and_not_by_whose_machine(run: Path, laid_out: Path) -> None:
    told = json.loads((laid_out / "figures.json").read_text())
    known = record(run)
    assert told["measured"] is None
    assert told["predicted"]["p50_ms"] == known.outcome(known.choice.chosen).prediction.p50_ms
    assert told["evaluation"]["n"] == 2000
    board = "ssh://alice@10.0.0.7"
    found = replace(measured(1.5), device=board)
    chosen = replace(known.outcome(known.choice.chosen), measurement=found)
    outcomes = tuple(chosen if o.name == chosen.name else o for o in known.outcomes)
    proof = Proof(board, False, "evaluation", Agreement(8, 8, 8, 0, 0, 0.0), None)
    text = figures(replace(known, outcomes=outcomes, proof=proof), known.target).decode()
    assert json.loads(text)["measured"]["latency_ms"]["p50"] == 1.5
    assert json.loads(text)["measured"]["is_target"] is True
    assert json.loads(text)["proof"]["emulated"] is False
    assert board in encode(proof).decode()
    assert "alice" not in text


def test_the_bom_and_the_provenance_cover_the_files(laid_out: Path, run: Path) -> None:
    known = record(run)
    listed = {
        file["name"]: file["hashes"][0]["content"]
        for part in json.loads((laid_out / "sbom.cdx.json").read_text())["components"]
        for file in part["components"]
    }
    told_of = ("bin", "lib", "model", "golden", "include", "python", "examples")
    made = {path for path in paths(laid_out) if path.split("/")[0] in told_of}
    assert listed == {path: sha256_file(laid_out / path) for path in made}
    told = json.loads((laid_out / "provenance.json").read_text())
    assert told["model"] == {"name": "model.onnx", "sha256": known.model_sha256}
    assert told["data"]["sha256"] == known.data.sha256
    assert told["artifact"]["files"][0]["sha256"] == sha256_file(laid_out / deployed(laid_out).model)
    assert told["target"]["name"] == PI
    assert told["bundle"]["ekrun_sha256"] == sha256_file(ekrun_path("aarch64"))
    engine = {p.name: sha256_file(p) for p in (laid_out / "lib").iterdir() if p.name != "libekrun.so"}
    assert told["engine"]["files"] == engine


def test_the_contract_is_the_datas(laid_out: Path) -> None:
    told = json.loads((laid_out / "contract.json").read_text())
    assert told["declared"] is True
    assert told["inputs"][0]["contract"]["scale"] == pytest.approx(1 / 255)
    assert told["inputs"][0]["shape"] == [1, 1, 28, 28]


# ----------------------------------------------------------------------------------------------------------------- golden


def test_golden_answers_are_the_artifacts_and_the_tolerance_knows_the_reference(
    laid_out: Path, run: Path, engines: Path, tmp_path: Path
) -> None:
    """Run again by Python's ONNX Runtime, both the artifact and the model; the cache and --model give the same bytes."""
    import onnxruntime as ort

    d = deployed(laid_out)
    (output,) = d.golden.outputs
    images = np.load(laid_out / d.golden.inputs["image"])
    assert images.shape == (8, 1, 1, 28, 28)
    selection = np.load(SAMPLE / "selection.image.npy").astype(np.float32) * np.float32(1 / 255)
    assert np.allclose(images.reshape(8, 28, 28), selection.reshape(-1, 28, 28)[np.arange(8) * 500 // 8])
    expected = np.load(laid_out / output.file)

    def answers(path: Path) -> np.ndarray:
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return np.stack([session.run(None, {"image": image})[0] for image in images])

    assert np.allclose(answers(laid_out / d.model), expected, atol=1e-4)
    off = float(np.abs(answers(MODEL).astype(np.float64) - expected).max())
    assert off > 1e-3 * (expected.max() - expected.min()), "int8 weights differ by more than the range asks"
    assert output.tolerance == pytest.approx(2 * off, rel=1e-3)
    assert output.decisions == ARGMAX
    assert sum(output.decided) >= 6
    cached = staged(engines, tmp_path, run, data=SAMPLE)[0]
    assert (cached / "deployment.json").read_bytes() == (laid_out / "deployment.json").read_bytes()


def outputs(folder: Path, *arrays: np.ndarray, dtype: str = "float32") -> OutputSet:
    folder.mkdir(parents=True)
    for k, array in enumerate(arrays):
        np.save(folder / f"{k}.npy", array)
    names = tuple(f"y{k}" for k in range(len(arrays)))
    files = tuple(folder / f"{k}.npy" for k in range(len(arrays)))
    return OutputSet(names, (dtype,) * len(arrays), files, (None,) * len(arrays))


def expected(
    tmp_path: Path, own: np.ndarray, other: np.ndarray | None = None, decides: bool = True, dtype: str = "float32"
):
    (tmp_path / "out").mkdir(parents=True)
    reference = outputs(tmp_path / "other", other, dtype=dtype) if other is not None else None
    (found,) = expect(outputs(tmp_path / "own", own, dtype=dtype), reference, decides, None, tmp_path / "out")
    assert np.array_equal(np.load(tmp_path / "out/expected-0.npy"), own)
    return found


def test_tolerance_is_a_share_of_the_range(tmp_path: Path) -> None:
    own = np.array([[[0.0, 4.0, 10.0]], [[-10.0, 0.0, 0.01]]], np.float32)
    found = expected(tmp_path, own)
    assert found.tolerance == pytest.approx(1e-3 * 20)
    assert found.decided == (True, False), "0.01 is no margin above twice 0.02"


def test_tolerance_is_twice_the_artifacts_own_difference_where_that_is_more(tmp_path: Path) -> None:
    own = np.array([[[0.0, 1.0, 10.0]], [[0.0, 8.0, 10.0]]], np.float32)
    other = own.copy()
    other[0, 0, 0] = 0.75
    found = expected(tmp_path, own, other)
    assert found.tolerance == pytest.approx(1.5)
    assert found.decided == (True, False), "a margin of 2 is not above twice 1.5"


def test_an_output_that_hardly_varies_may_round(tmp_path: Path) -> None:
    found = expected(tmp_path, np.full((8, 3), 100.0, np.float32), decides=False)
    assert found.tolerance == pytest.approx(1e-3)
    assert found.decided == ()


def test_integers_are_held_exactly_where_the_artifact_is(tmp_path: Path) -> None:
    own = np.array([[3], [7], [7]], np.int64)
    assert expected(tmp_path / "a", own, own.copy(), dtype="int64").tolerance < 1
    assert expected(tmp_path / "b", own, own + 1, dtype="int64").tolerance == 2


def test_bfloat16_is_read_as_what_it_is(tmp_path: Path) -> None:
    bits = (np.array([[0.0, 1.0, 256.0]], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    assert expected(tmp_path, bits, dtype="bfloat16").tolerance == pytest.approx(0.256)


@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_answers_that_are_not_finite_are_refused(tmp_path: Path, odd: float) -> None:
    with pytest.raises(InputRejected, match="not finite"):
        expected(tmp_path, np.array([[0.0, odd]], np.float32))


def test_decisions_are_of_the_scored_output_only(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    own = outputs(tmp_path / "own", np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32))
    first, second = expect(own, None, True, "y1", tmp_path / "out")
    assert (first.decisions, second.decisions) == ("none", ARGMAX)
    assert len(second.decided) == 4


def test_with_state_the_first_samples_are_taken_in_sequence_with_their_starts(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(20, dtype=np.float32).reshape(20, 1))
    reset = np.zeros(20, np.uint8)
    reset[[0, 3]] = 1
    np.save(tmp_path / "r.npy", reset)
    apart = take({"x": tmp_path / "x.npy"}, None, False, 5, tmp_path / "apart")
    assert np.load(apart.inputs["x"]).ravel().tolist() == [0, 4, 8, 12, 16]
    assert apart.reset is None
    along = take({"x": tmp_path / "x.npy"}, tmp_path / "r.npy", True, 5, tmp_path / "along")
    assert np.load(along.inputs["x"]).ravel().tolist() == [0, 1, 2, 3, 4]
    assert np.load(along.reset).tolist() == [1, 0, 0, 1, 0]
    assert take({"x": tmp_path / "x.npy"}, None, False, 99, tmp_path / "all").samples == 20


def test_no_sample_travels_that_nobody_wants_to_travel(run: Path, engines: Path, tmp_path: Path) -> None:
    folder, _, _ = staged(engines, tmp_path, run, samples=0)
    assert deployed(folder).golden is None
    assert not [path for path in paths(folder) if path.startswith(("golden/", "licences/data/"))]


def test_random_golden_samples_are_nobodys_data_and_prove_as_much(run: Path, engines: Path, tmp_path: Path) -> None:
    folder, _, _ = staged(engines, tmp_path, run, random=True, samples=5)
    d = deployed(folder)
    assert d.golden.samples == 5
    inputs = np.load(folder / d.golden.inputs["image"])
    assert inputs.min() < 0, "no pixel is"
    assert not [path for path in paths(folder) if path.startswith("licences/data/")]
    parts = json.loads((folder / "sbom.cdx.json").read_text())["components"]
    assert "synthetic" in {part["name"] for part in parts}
    assert json.loads((folder / "contract.json").read_text())["declared"] is True
    model, _, _ = staged(engines, tmp_path / "model", MODEL, "host", random=True, data=SAMPLE)
    (output,) = deployed(model).golden.outputs
    assert np.abs(ekrun(model, tmp_path / "answers") - np.load(model / output.file)).max() <= output.tolerance


# ---------------------------------------------------------------------------------------------------------------- refusals


def test_an_artifact_that_is_not_what_was_judged_is_refused(edgekit: Cli, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    victim = tmp_path / "run" / record(run).artifact_files[0]
    data = bytearray(victim.read_bytes())
    data[-100] ^= 1
    victim.write_bytes(data)
    ended = edgekit("bundle", tmp_path / "run", "--unsigned", "-o", tmp_path / "x.ekb")
    assert ended.code == 8
    assert "not the file that was measured" in ended.error


def test_samples_and_models_that_are_not_the_runs_are_refused(run: Path, engines: Path, tmp_path: Path) -> None:
    few = np.zeros((40, 1, 28, 28), np.float32) + np.arange(40).reshape(-1, 1, 1, 1)
    np.savez(tmp_path / "few.npz", image=few)
    with pytest.raises(InputRejected, match="is not the run's data"):
        staged(engines, tmp_path / "few", run, data=tmp_path / "few.npz")
    shutil.copytree(SAMPLE, tmp_path / "other")
    images = np.load(tmp_path / "other/selection.image.npy")
    images[7] ^= 1
    np.save(tmp_path / "other/selection.image.npy", images)
    text = (tmp_path / "other/data.toml").read_text()
    (tmp_path / "other/data.toml").write_text(re.sub(r"(?m)^sha256 = \{.*$", "", text))
    with pytest.raises(InputRejected, match="the samples that the run was judged on"):
        staged(engines, tmp_path / "a", run, data=tmp_path / "other")
    changed = onnx.load(MODEL)
    changed.graph.initializer[0].raw_data = bytes(len(changed.graph.initializer[0].raw_data))
    onnx.save(changed, tmp_path / "changed.onnx")
    with pytest.raises(InputRejected, match="not the model that the run was made from"):
        staged(engines, tmp_path / "b", run, data=SAMPLE, model=tmp_path / "changed.onnx")
    keep_engine(tmp_path / "empty")
    with pytest.raises(UsageError, match="no longer in the cache") as caught:
        staged(tmp_path / "empty", tmp_path / "c", run, data=SAMPLE)
    assert "--model" in caught.value.next_step
    shutil.copytree(run, tmp_path / "run")
    text = (tmp_path / "run/run.json").read_text()
    (tmp_path / "run/run.json").write_text(text.replace('"name":"digits"', '"name":"gone"'))
    with pytest.raises(UsageError, match="gone, is not here"):
        staged(engines, tmp_path / "d", tmp_path / "run")


def test_what_is_not_there_is_said(edgekit: Cli, tmp_path: Path) -> None:
    ended = edgekit("bundle", tmp_path / "run", "--unsigned", "-o", tmp_path / "x.ekb")
    assert ended.code == 6
    assert "no such run or model" in ended.err


def test_a_model_for_another_machine_needs_its_engine(edgekit: Cli, tmp_path: Path) -> None:
    arguments = ("--unsigned", "--offline", "--golden", "none", "-o", tmp_path / "x.ekb")
    ended = edgekit("--cache", tmp_path / "cache", "bundle", MODEL, "--target", PI, *arguments)
    assert ended.code == 2
    assert "--offline forbids" in ended.err
    assert f"edgekit engines fetch {PI}" in ended.err
    assert "reading" not in ended.err, "said before any work"
    ended = edgekit("bundle", MODEL, *arguments)
    assert ended.code == 2
    assert "--target" in ended.error


# ------------------------------------------------------------------------------------------------------ engines and runtime


def test_the_bundle_of_a_model_for_this_machine_runs_from_its_own_folder(cache: Path, tmp_path: Path) -> None:
    folder, requires, cargo = staged(cache, tmp_path, MODEL, "host", data=SAMPLE)
    assert requires.arch == platform.machine()
    assert cargo.reference is None
    (output,) = deployed(folder).golden.outputs
    wanted = np.load(folder / output.file)
    found = ekrun(folder, tmp_path / "answers")
    assert np.abs(found - wanted).max() <= output.tolerance
    onnx.checker.check_model(onnx.load(folder / "model/model.onnx"))
    spoilt = onnx.load(folder / "model/model.onnx")
    weights = np.frombuffer(spoilt.graph.initializer[0].raw_data, np.float32).copy()
    weights[0] += 1
    spoilt.graph.initializer[0].raw_data = weights.tobytes()
    onnx.save(spoilt, folder / "model/model.onnx")
    assert np.abs(ekrun(folder, tmp_path / "wrong") - wanted).max() > output.tolerance, "one weight is noticed"


@thorough
def test_the_bundle_of_openvino_holds_its_closure_and_runs(edgekit: Cli, cache: Path, tmp_path: Path) -> None:
    words = ("onnxruntime", "int8", "int8-weights", "int4-weights", "bf16")
    forbidden = [w for word in words for w in ("--forbid", word)]
    out = tmp_path / "run"
    ended = edgekit("optimize", MODEL, "--data", SAMPLE, "-o", out, "--prefer", "size", *forbidden)
    assert ended.code == 0, ended.err
    folder, _, _ = staged(cache, tmp_path, out, data=SAMPLE)
    d = deployed(folder)
    if d.engine != "openvino":
        pytest.skip(f"{d.engine} was chosen")
    assert {re.sub(r"\d+$", "", p.name.partition(".so")[0]) for p in (folder / "lib").iterdir()} == {
        "libekrun",
        "libopenvino",
        "libopenvino_c",
        "libopenvino_intel_cpu_plugin",
        "libopenvino_ir_frontend",
        "libtbb",
    }
    (output,) = d.golden.outputs
    assert np.abs(ekrun(folder, tmp_path / "answers") - np.load(folder / output.file)).max() <= output.tolerance


def test_licences_come_with_the_wheel_and_are_held_to_their_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"onnxruntime/LICENSE": b"do as you like\n", "onnxruntime/ThirdPartyNotices.txt": b"they, too\n"}
    write_pins(tmp_path / "pins.toml")
    write_pins(tmp_path / "notices.toml", texts)
    rows = (tmp_path / "notices.toml").read_text().splitlines()[-1]
    with (tmp_path / "pins.toml").open("a") as pins:
        pins.write(rows.replace("files =", "notices =") + "\n")
    monkeypatch.setattr(closure, "PINS", tmp_path / "pins.toml")
    where = ("onnxruntime", VERSION, "aarch64", tmp_path / "cache")
    with pytest.raises(UsageError, match="--offline forbids"):
        native_notices(*where, offline=True)
    house = wheel(tmp_path / "wheels", {**FILES, **texts})
    found = native_notices(*where, wheelhouse=house)
    assert {path.name: path.read_bytes() for path in found} == {Path(n).name: data for n, data in texts.items()}
    assert native_library(*where, offline=True).files, "the libraries came with them"
    found[0].write_bytes(b"something else")
    shutil.rmtree(house)
    wheel(tmp_path / "wheels", {**FILES, **texts, "onnxruntime/LICENSE": b"do as YOU like\n"})
    with pytest.raises(VerificationFailed, match="LICENSE is not the file that was pinned"):
        native_notices(*where, wheelhouse=house)


@needs_x86
def test_a_cxx_runtime_is_carried_where_its_own_floors_allow(cache: Path, tmp_path: Path) -> None:
    own = Path("/usr/lib/x86_64-linux-gnu")
    if not (own / "libstdc++.so.6").exists():
        pytest.skip("this host has no libstdc++ where Debian keeps it")
    folder, requires, _ = staged(cache, tmp_path / "a", MODEL, "host", samples=0, libstdcxx=Path("/"))
    assert requires.libstdcxx == ""
    assert {"lib/libstdc++.so.6", "lib/libgcc_s.so.1", "licences/libstdcxx/gpl-3.txt"} < paths(folder)
    assert "libstdc++" in (folder / "sbom.cdx.json").read_text()
    floor = requires.glibc
    with pytest.raises(TargetIncompatible, match="holds libstdc"):
        cxx_runtime(own, "x86_64", "3.4.99")
    with pytest.raises(TargetIncompatible, match="for x86_64, the target is aarch64"):
        cxx_runtime(own, "aarch64", None)
    with pytest.raises(UsageError, match=r"holds no libstdc"):
        cxx_runtime(tmp_path, "x86_64", None)
    if floor != "2.28":
        with pytest.raises(TargetIncompatible, match=r"C\+\+ runtime needs glibc"):
            staged(cache, tmp_path / "b", MODEL, "cpu-x86", samples=0, libstdcxx=own)


def test_a_target_with_too_old_a_c_library_is_refused(cache: Path, tmp_path: Path, engines: Path) -> None:
    text = (ROOT / "targets" / f"{PI}.toml").read_text()
    assert 'openvino = "2026.4.1"' in text
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    shop = Workshop(Cache(engines), scratch, LocalDevice(scratch), lambda _: None)
    cargo = find_cargo(shop, MODEL, PI, Wishes(samples=0), Path.cwd())
    older = replace(cargo, target=replace(cargo.target, glibc="2.27"))
    with pytest.raises(TargetIncompatible, match=r"onnxruntime 1\.32\.0 needs glibc 2\.28, raspberry-pi-5 has 2\.27"):
        stage(shop, older, Label("digits", "1", 1), Wishes(samples=0), tmp_path / "bundle")
