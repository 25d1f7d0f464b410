"""A manifest has one text, and a text that is not it is refused."""

import json
import posixpath
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.core import manifest as module
from edgekit.core.manifest import (
    MAX_NUMBER,
    BundleFile,
    Manifest,
    Requires,
    canonical_text,
    check_paths,
    is_application,
    is_path,
    is_version,
    parse_manifest,
)
from edgekit.errors import VerificationFailed
from tests.bundles import HEAD, pieces, stub_bundle

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SEGMENTS = st.from_regex(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,9}", fullmatch=True)
PATHS = st.lists(SEGMENTS, min_size=1, max_size=8).map("/".join)
VERSIONS = st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){1,3}", fullmatch=True)


@st.composite
def files(draw: st.DrawFn, path: str) -> BundleFile:
    size, digest = draw(st.integers(0, 1 << 20)), draw(DIGESTS)
    stored = draw(st.none() | st.tuples(st.integers(0, size), DIGESTS))
    mode = draw(st.sampled_from([0o644, 0o755]))
    if stored is None:
        return BundleFile(path, mode, size, digest, "identity", size, digest)
    return BundleFile(path, mode, size, digest, "zstd", *stored)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    # A letter and a number in front: no two paths collide, which has tests of its own.
    paths = sorted(f"f{n}-{path}" for n, path in enumerate(draw(st.lists(PATHS, min_size=1, max_size=5))))
    return Manifest(
        application=draw(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)),
        version=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True)),
        counter=draw(st.integers(0, MAX_NUMBER)),
        requires=Requires(
            draw(st.sampled_from(["x86_64", "aarch64"])),
            draw(VERSIONS),
            tuple(sorted(draw(st.sets(st.from_regex(r"[a-z0-9_]{1,8}", fullmatch=True), max_size=5)))),
            draw(st.just("") | VERSIONS),
        ),
        files=tuple(draw(files(path)) for path in paths if is_path(path)),
    )


@settings(deadline=None)
@given(manifests().filter(lambda manifest: manifest.files))
def test_text_and_record_are_inverse(manifest: Manifest) -> None:
    text = canonical_text(manifest)
    assert parse_manifest(text) == manifest
    assert json.loads(text)["files"][0]["path"] == manifest.files[0].path
    assert all(0x20 <= byte <= 0x7E for byte in text) and b"\\" not in text and b" " not in text


def test_what_is_accepted_is_the_canonical_text_of_what_was_understood() -> None:
    """Every bit of a text flipped, without a signature to notice: refused, or another manifest whose text this is."""
    text, _, _ = pieces(stub_bundle())
    accepted = 0
    for bit in range(8 * len(text)):
        at = bit // 8
        flipped = text[:at] + bytes([text[at] ^ 1 << bit % 8]) + text[at + 1 :]
        try:
            found = parse_manifest(flipped)
        except VerificationFailed:
            continue
        assert canonical_text(found) == flipped
        accepted += 1
    assert accepted > 1000  # digits of digests: only the signature knows


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text + b"\n",
        lambda text: text.replace(b":", b": ", 1),
        lambda text: text[:1] + b'"version":"0",' + text[1:],
    ],
)
def test_without_the_comparison_other_texts_pass(monkeypatch: pytest.MonkeyPatch, spoil) -> None:
    """Negative control: JSON alone takes white space and duplicate keys."""
    spoiled = spoil(pieces(stub_bundle())[0])
    with pytest.raises(VerificationFailed, match="canonical"):
        parse_manifest(spoiled)
    monkeypatch.setattr(module, "check_canonical", lambda *_: None)
    assert parse_manifest(spoiled).application == HEAD.application


@settings(deadline=None)
@given(st.text(st.characters(codec="ascii"), max_size=100) | PATHS)
def test_a_path_that_passes_stays_inside(path: str) -> None:
    if is_path(path):
        assert posixpath.normpath(path) == path
        assert not path.startswith(("/", ".", "~")) and ".." not in path.split("/")
        assert path.isprintable() and path.isascii()


def test_paths_that_get_along_are_any_mix_of_names_that_differ() -> None:
    check_paths(["A/x", "a/y", "b", "b-c", "b.d", "b0/c"])
    for one, two in [("a", "a/b"), ("A/b", "a"), ("a", "a.zst"), ("A", "a"), ("b", "a"), ("a", "a"), ("a", "a.zst/b")]:
        with pytest.raises(VerificationFailed):
            check_paths([one, two])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"application": "Digits"}, "application 'Digits'"),
        ({"version": "1 0"}, "version '1 0'"),
        ({"counter": MAX_NUMBER + 1}, "counter"),
        ({"counter": -1}, "counter"),
        ({"files": ()}, "0 files"),
        ({"requires": Requires("riscv64", "2.28", (), "")}, "arch 'riscv64'"),
        ({"requires": Requires("x86_64", "2.28", ("fma", "avx2"), "")}, "sorted"),
    ],
)
def test_what_breaks_a_rule_is_not_written_either(change: dict, says: str) -> None:
    good = parse_manifest(pieces(stub_bundle())[0])
    with pytest.raises(VerificationFailed, match=says):
        canonical_text(replace(good, **change))


def test_what_people_type_is_checked_before_work_begins() -> None:
    assert is_application("rapidocr-rec") and not is_application("Rapid OCR")
    assert is_version("2026.11+rc1") and not is_version("")


def test_a_huge_or_deep_text_is_refused_quickly() -> None:
    for text in (
        b"[" * (1 << 20),
        b"7" * (1 << 20),
        b'{"a":' * 200_000,
        random.Random(1).randbytes(1 << 20),
        b" " * (2 << 20),
    ):
        with pytest.raises(VerificationFailed):
            parse_manifest(text)
