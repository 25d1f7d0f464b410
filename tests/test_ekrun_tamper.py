"""THE tamper corpus through `ekrun unpack`: refused as the Python reader does, with nothing left behind."""

import os
import random
import shutil
from pathlib import Path

import pytest
import zstandard

from tests.bundle_desk import REFUSED, Desk
from tests.bundles import draft, other_bundle, real_bundles, stub_bundle
from tests.conftest import thorough
from tests.tamper import TAMPERED, TEXT, Case, tampered, thinned

pytestmark = pytest.mark.long


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def check_refused(desk: Desk, case: Case) -> None:
    answer = desk.unpack(case.data)
    what = (case.kind, case.name, answer.stderr)
    assert (answer.code, answer.json["error"]["code"]) == (REFUSED, "verification_failed"), what
    assert answer.stderr.startswith(f"ekrun: {desk.bundle}: ") and answer.stderr.count("\n") == 1, what
    assert answer.stderr.isascii() and "safety check" not in answer.stderr, what
    assert desk.left() == [], what
    assert not desk.python(case.data), what


def test_tampered_bundles_are_refused_by_both_readers(desk: Desk) -> None:
    for case in thinned(tampered(stub_bundle(), other_bundle(), 80), 80):
        check_refused(desk, case)


@thorough
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", TAMPERED)
def test_every_tampered_bundle_is_refused_by_both_readers(desk: Desk, kind: str) -> None:
    for case in tampered(stub_bundle(), other_bundle(), None, [kind]):
        check_refused(desk, case)


@thorough
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", TAMPERED)
def test_everything_spoiled_is_refused_in_a_real_bundle_too(desk: Desk, kind: str) -> None:
    """Some samples of each class; EDGEKIT_TAMPER_SAMPLE asks for more."""
    real, other = real_bundles()
    most = int(os.environ.get("EDGEKIT_TAMPER_SAMPLE", "3"))
    for case in thinned(tampered(real, other, most, [kind]), most):
        answer = desk.unpack(case.data)
        assert (answer.code, desk.left()) == (REFUSED, []), (case.kind, case.name, answer.stderr)
    assert desk.unpack(real).code == 0


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=[thorough, pytest.mark.timeout(900)])])
def test_spoiled_frames_under_a_good_signature(desk: Desk, count: int) -> None:
    """Whatever a frame holds, the process ends by a refusal and not by a crash; both readers agree."""
    noise = random.Random(count)
    text = TEXT + noise.randbytes(3000) + b"".join(noise.choices([b"layer", b"weight", b"\0\0\x80\x3f"], k=30_000))
    good = zstandard.ZstdCompressor(19, write_checksum=False).compress(text)
    for number in range(count):
        frame = bytearray(good)
        for _ in range(noise.randrange(1, 4)):
            frame[noise.randrange(9, noise.choice([60, len(frame)]))] = noise.randrange(256)
        data = draft(stub_bundle()).add("zz", text, bytes(frame)).build()
        answer = desk.unpack(data)
        assert (answer.code == 0, answer.code in (0, REFUSED)) == (desk.python(data), True), (number, answer.stderr)
        shutil.rmtree(desk.out, ignore_errors=True)
        assert desk.left() == []
