"""What `ekrun unpack` and `verify` believe: the same as the Python reader. Over THE tamper corpus: test_ekrun_tamper.py."""

import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import zstandard

from edgekit.bundle.container import verify_bundle
from edgekit.bundle.keys import admitting, unsigned
from edgekit.bundle.trust import parse_trust
from edgekit.bundle.unpacked import unpack_bundle, verify_folder
from edgekit.errors import InputRejected, VerificationFailed
from edgekit.runner.build import SOURCES
from tests.board import board_argv, require_board
from tests.bundle_desk import ADMIT, BAD_INPUT, FOLDER_TAMPERED, MEMORY, MIB, REFUSED, USAGE, Desk, tree
from tests.bundles import KEY, OTHER_KEY, TRUST, draft, make_bundle, other_bundle, stub_bundle, stub_files
from tests.conftest import thorough
from tests.ekrun_tools import built, ekrun
from tests.tamper import acceptable, tampered, thinned


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# ------------------------------------------------------------------------------------------------------------- accepted


def test_an_unpacked_bundle_is_what_python_makes_of_it(desk: Desk) -> None:
    answer = desk.unpack(stub_bundle(), before=lambda: os.umask(0o077) and None)
    assert answer.code == 0, answer.stderr
    verified = unpack_bundle(desk.bundle, desk.folder / "python", ADMIT)
    assert tree(desk.out) == tree(desk.folder / "python")
    head = verified.manifest
    told = {
        key: answer.json[key] for key in ("application", "version", "counter", "manifest_sha256", "signer", "files")
    }
    assert list(told.values()) == [
        *(head.application, head.version, head.counter, verified.manifest_sha256),
        *("test", len(head.files)),
    ]
    assert answer.json["requires"] == {**asdict(head.requires), "isa": list(head.requires.isa)}
    assert (answer.json["bytes"], answer.json["bundle_bytes"]) == (head.size, len(stub_bundle()))
    again = desk.verify()
    assert again.code == 0 and {**again.json, "verb": "", "bundle_bytes": 0} == {
        **answer.json,
        "verb": "",
        "bundle_bytes": 0,
    }


def test_every_acceptable_bundle_is_accepted(desk: Desk) -> None:
    for name, data in acceptable(stub_bundle()):
        answer = desk.unpack(data)
        assert answer.code == 0, (name, answer.stderr)
        assert desk.verify().code == 0, name
        verify_folder(desk.out, ADMIT)
        assert desk.left() == ["out"], name
        shutil.rmtree(desk.out)


@pytest.mark.board
def test_on_arm(desk: Desk) -> None:
    require_board()
    program = [*board_argv(), str(built()["aarch64"])]
    for name, data in acceptable(stub_bundle()):
        answer = desk.unpack(data, program=program)
        assert answer.code == 0, (name, answer.stderr)
        assert ekrun("verify", desk.out, "--trust", desk.trust, program=program).code == 0, name
        verify_folder(desk.out, ADMIT)
        shutil.rmtree(desk.out)
    for case in thinned(tampered(stub_bundle(), other_bundle(), 3), 3):
        assert desk.unpack(case.data, program=program).code == REFUSED, (case.kind, case.name)
        assert desk.left() == []


def test_frames_of_every_kind(desk: Desk) -> None:
    """What libzstd writes at any level, of any size and content, its own decoder is not the only one to read."""
    noise, words = random.Random(11), [b"weight", b"\0\0\0\x3f", b"layer.", b"conv"]
    bundle = draft(stub_bundle())
    for number in range(60):
        size = noise.choice([300, 5_000, 70_000, 131_072, 131_073, 400_000])
        random_part = noise.randbytes(noise.randrange(size // 3))
        data = random_part + b"".join(noise.choices(words, k=size))[: size - len(random_part)]
        level = noise.choice([-5, 1, 3, 6, 9, 12, 19, 22])
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, source_size=size, window_log=noise.randrange(10, 24)
        )
        bundle.add(f"zz/{number}", data, zstandard.ZstdCompressor(compression_params=parameters).compress(data))
    answer = desk.unpack(bundle.build())
    assert answer.code == 0, answer.stderr
    verify_folder(desk.out, ADMIT)


def test_memory_is_bounded(desk: Desk) -> None:
    half = random.Random(2).randbytes(6 * MIB)
    data = half + half[: 5 * MIB] + bytes(20 * MIB)  # refers back as far as the window reaches
    bundle = make_bundle({"lib/large": data})

    def limit(size: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    tight = desk.unpack(bundle, before=limit(8 * MIB))
    assert (tight.code, tight.json["error"]["code"]) == (MEMORY, "out_of_memory"), "negative control"
    assert desk.left() == []
    assert desk.unpack(bundle, before=limit(17 * MIB)).code == 0
    assert (desk.out / "lib/large").read_bytes() == data


# -------------------------------------------------------------------------------------------------------------- refused


def compiled(folder: Path, *flags: str, change: tuple[str, str, str] | None = None) -> list[str]:
    """ekrun by gcc with these flags; `change` is a Zig source and a text in it, which must be there, and what takes its place."""
    shutil.copytree(SOURCES.parent, folder / "runner", ignore=shutil.ignore_patterns("bin", "__pycache__"))
    sources = folder / "runner/src"
    if change is not None:
        name, old, new = change
        assert old in (sources / name).read_text()
        (sources / name).write_text((sources / name).read_text().replace(old, new))
    script = "import build, pathlib; print(build.build_zig(pathlib.Path.cwd(), 'x86_64'))"
    env = {**os.environ, "PYTHONPATH": str(folder / "runner")}
    made = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=env, check=True, capture_output=True, text=True
    )
    parts = [*map(str, sources.glob("*.c")), made.stdout.strip(), "-ldl", "-lm", "-lpthread"]
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, *parts, "-o", folder / "ekrun"], check=True
    )
    shutil.rmtree(folder / "runner")
    return [str(folder / "ekrun")]


@thorough
def test_under_the_sanitizers(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    flags = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    program, env = compiled(tmp_path_factory.mktemp("asan"), *flags), {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    for name, data in acceptable(stub_bundle()):
        answer = desk.unpack(data, program=program, env=env)
        assert answer.code == 0, (name, answer.stderr)
        assert ekrun("verify", desk.out, "--trust", desk.trust, program=program, env=env).code == 0, name
        shutil.rmtree(desk.out)
    for case in thinned(tampered(stub_bundle(), other_bundle(), 10), 10):
        assert desk.unpack(case.data, program=program, env=env).code == REFUSED, (case.kind, case.name)
    for spoil in FOLDER_TAMPERED.values():
        desk.unpack(stub_bundle())
        spoil(desk.out)
        assert ekrun("verify", desk.out, "--trust", desk.trust, program=program, env=env).code == REFUSED
        shutil.rmtree(desk.out)
        for name in set(desk.left()):
            shutil.rmtree(desk.folder / name) if (desk.folder / name).is_dir() else (desk.folder / name).unlink()


@thorough
def test_a_safety_check_that_fails_is_a_refusal(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
    broken = ("bundle.zig", "self.left -= wanted.len;", "self.left -= wanted.len + 1;")
    program = compiled(tmp_path_factory.mktemp("broken"), change=broken)
    answer = desk.unpack(stub_bundle(), program=program)
    assert answer.code == REFUSED and "bin/run: malformed: it breaks a safety check (integer overflow)" in answer.stderr
    assert desk.left() == []
    assert desk.unpack(stub_bundle()).code == 0, "negative control"


TRUST_FILES = {
    "empty": (b"", REFUSED),
    "another key": (b"ed25519 %s other\n" % OTHER_KEY.public.encode(), REFUSED),
    "revoked before": (b"revoked %s lost\n" % KEY.public.encode() + TRUST, REFUSED),
    "revoked behind": (TRUST + b"revoked %s lost\n" % KEY.public.encode(), REFUSED),
    "no newline at the end": (b"#\n\ned25519 %s a.b-c_9" % KEY.public.encode(), 0),
    "a word too many": (TRUST + b"ed25519 %s a b\n" % KEY.public.encode(), BAD_INPUT),
    "a space behind": (TRUST + b"ed25519 %s a \n" % KEY.public.encode(), BAD_INPUT),
    "no name": (TRUST + b"ed25519 %s\n" % KEY.public.encode(), BAD_INPUT),
    "upper case": (TRUST + b"revoked %s a\n" % KEY.public.upper().encode(), BAD_INPUT),
    "63 digits": (TRUST + b"revoked %s a\n" % KEY.public[1:].encode(), BAD_INPUT),
    "another word": (TRUST + b"trusted %s a\n" % KEY.public.encode(), BAD_INPUT),
    "carriage return": (TRUST.replace(b"\n", b"\r\n"), BAD_INPUT),
    "a blank": (TRUST + b" \n", BAD_INPUT),
    "a zero byte": (TRUST + b"\0", BAD_INPUT),
    "64 KiB": (TRUST + b"#" * (65536 - len(TRUST)), 0),
    "a byte more": (TRUST + b"#" * (65537 - len(TRUST)), BAD_INPUT),
}


@pytest.mark.parametrize("case", TRUST_FILES)
def test_trust_files(desk: Desk, case: str) -> None:
    data, code = TRUST_FILES[case]
    desk.trust.write_bytes(data)
    answer = desk.unpack(stub_bundle())
    assert answer.code == code, answer.stderr
    assert desk.left() == (["out"] if code == 0 else [])
    assert code == python_code(desk.bundle, data)


def python_code(bundle: Path, trust: bytes) -> int:
    """How ekrun would end if it were the Python reader."""
    try:
        verify_bundle(bundle, admitting(parse_trust(trust, "trust")))
    except VerificationFailed:
        return REFUSED
    except InputRejected:
        return BAD_INPUT
    return 0


def test_unsigned_bundles_are_for_who_asks_for_them(desk: Desk) -> None:
    bundle = make_bundle(stub_files(), seal=unsigned)
    assert desk.unpack(bundle).code == REFUSED
    answer = desk.unpack(bundle, "--allow-unsigned")
    assert (answer.code, answer.json["signer"]) == (0, None)
    assert desk.verify().code == REFUSED
    assert desk.verify("--allow-unsigned").code == 0
    shutil.rmtree(desk.out)
    desk.trust.write_bytes(b"")
    assert desk.unpack(stub_bundle(), "--allow-unsigned").code == REFUSED, "signed by nobody known is not unsigned"
    assert desk.left() == []


def test_what_is_no_bundle_is_not_waited_for(desk: Desk) -> None:
    os.mkfifo(desk.folder / "pipe")
    for place in (desk.folder / "pipe", desk.folder, desk.folder / "absent"):
        assert ekrun("unpack", place, desk.out, "--trust", desk.trust).code == BAD_INPUT
        assert desk.unpack(stub_bundle(), "--trust", place).code == BAD_INPUT
    assert ekrun("unpack", desk.bundle, desk.out).code == USAGE
    assert ekrun("unpack", desk.bundle, "--trust", desk.trust).code == USAGE
    assert ekrun("unpack", "--trust", desk.trust).code == USAGE
    assert ekrun("verify", "--trust", desk.trust).code == USAGE
    assert ekrun("verify", desk.folder / "absent", "--trust", desk.trust).code == BAD_INPUT
    assert desk.left() == ["pipe"]


# ------------------------------------------------------------------------------------------------------ unpacked bundles


@pytest.mark.parametrize("case", FOLDER_TAMPERED)
def test_a_changed_folder_is_refused_by_both_readers(desk: Desk, case: str) -> None:
    desk.unpack(stub_bundle())
    assert desk.verify().code == 0, "negative control"
    FOLDER_TAMPERED[case](desk.out)
    assert desk.verify().code == REFUSED
    with pytest.raises(VerificationFailed):
        verify_folder(desk.out, ADMIT)


def test_hard_links_are_files(desk: Desk) -> None:
    desk.unpack(stub_bundle())
    os.link(desk.out / "model/model.onnx", desk.folder / "kept")
    assert desk.verify().code == 0
