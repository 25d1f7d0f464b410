"""Bundles written, read, unpacked and signed; and THE tamper corpus through the Python reader.

Everything spoiled is refused with nothing left behind; each class of spoiling has a negative control: the same bytes are taken
when the check that refuses them is switched off.
"""

import hashlib
import io
import os
import random
import shutil
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from edgekit.bundle import container, frames, keys, trust, unpacked, write
from edgekit.bundle.container import Reader, nowhere, verify_bundle
from edgekit.bundle.frames import compress
from edgekit.bundle.keys import admitting, unsigned
from edgekit.bundle.layout import header
from edgekit.bundle.trust import parse_trust
from edgekit.bundle.unpacked import unpack_bundle, verify_folder
from edgekit.bundle.write import sign_bundle, write_bundle
from edgekit.core import manifest
from edgekit.errors import InputRejected, UsageError, VerificationFailed
from edgekit.store import Cache
from tests.bundles import (
    HEAD,
    KEY,
    OTHER_KEY,
    SIGNER,
    TRUST,
    draft,
    join,
    make_bundle,
    other_bundle,
    pieces,
    raw_header,
    real_bundles,
    stub_bundle,
    stub_files,
)
from tests.conftest import ROOT, thorough
from tests.tamper import TAMPERED, acceptable, tampered

pytestmark = pytest.mark.long

ADMIT = admitting(parse_trust(TRUST, "trust"))
LARGE = {"manifest bit", "signature bit", "header byte"}


def read(data: bytes) -> container.Verified:
    """All of a bundle in memory."""
    reader = Reader(io.BytesIO(data), ADMIT)
    reader.files(nowhere)
    return reader.verified


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every name below a folder with its mode and bytes."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = path.lstat().st_mode
        content = (
            path.read_bytes() if stat.S_ISREG(kind) else os.fsencode(path.readlink()) if stat.S_ISLNK(kind) else b""
        )
        found[str(path.relative_to(folder))] = (kind, content)
    return found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "good.ekb"
    path.write_bytes(stub_bundle())
    return path


# -------------------------------------------------------------------------------------------------------- the good ones


def test_a_bundle_is_read_as_it_was_written(bundle: Path, tmp_path: Path) -> None:
    done = verify_bundle(bundle, ADMIT)
    assert done.signer == SIGNER
    assert (done.manifest.application, done.manifest.counter) == (HEAD.application, HEAD.counter)
    assert {file.encoding for file in done.manifest.files} == {"identity", "zstd"}
    assert done.manifest_sha256 == hashlib.sha256(pieces(stub_bundle())[0]).hexdigest()
    old = os.umask(0o077)
    try:
        unpack_bundle(bundle, tmp_path / "out", ADMIT)
    finally:
        os.umask(old)
    found = snapshot(tmp_path / "out")
    contents = {name: data for name, (mode, data) in found.items() if stat.S_ISREG(mode)}
    text, line, _ = pieces(stub_bundle())
    assert contents == {**stub_files(), "manifest.json": text, "manifest.sig": line}
    modes = {name: stat.S_IMODE(mode) for name, (mode, _) in found.items()}
    assert {name for name, mode in modes.items() if mode == 0o755} == {"bin", "bin/run", "golden", "lib", "model"}
    assert set(modes.values()) == {0o644, 0o755}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    assert verify_folder(tmp_path / "out", ADMIT) == done


def test_other_tools_read_it_too(bundle: Path, tmp_path: Path) -> None:
    """A bundle is a plain tar: what edgekit makes, tar and zstd take apart."""
    subprocess.run(["tar", "xf", bundle, "-C", tmp_path], check=True, timeout=60)
    packed = (tmp_path / "lib/libstub.so.1.zst").read_bytes()
    assert zstandard.ZstdDecompressor().decompress(packed) == stub_files()["lib/libstub.so.1"]
    assert (tmp_path / "model/model.onnx").read_bytes() == stub_files()["model/model.onnx"]


@pytest.mark.parametrize("size", [0, 7, 8**11 - 1])
def test_a_header_is_that_of_the_definition(size: int) -> None:
    """Two implementations, one in the tests."""
    for name, mode in (("a", 0o644), ("b" * 100, 0o755)):
        assert header(name, mode, size) == raw_header(name.encode(), mode, size)


def test_unusual_bundles_are_accepted(tmp_path: Path) -> None:
    for number, (name, data) in enumerate(acceptable(stub_bundle())):
        (tmp_path / "bundle").write_bytes(data)
        done = unpack_bundle(tmp_path / "bundle", tmp_path / f"{number}", ADMIT)
        assert verify_folder(tmp_path / f"{number}", ADMIT) == done, name
        shutil.rmtree(tmp_path / f"{number}")


def test_the_signature_is_verified_before_anything_behind_it_is_read() -> None:
    data = stub_bundle()
    text, line, entries = pieces(data)
    first = len(data) - 1024 - sum(map(len, entries))
    for spoiled in (join(text, OTHER_KEY.seal(text), entries), join(text + b" ", line, entries)):
        source = io.BytesIO(spoiled)
        with pytest.raises(VerificationFailed):
            Reader(source, ADMIT)
        assert source.tell() <= first


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    """60 MB of a frame that expands 10,000 to 1, and 8 MB as they are."""
    zeros = tmp_path / "files" / "zeros"
    zeros.parent.mkdir()
    zeros.write_bytes(bytes(60_000_000))
    (tmp_path / "files" / "noise").write_bytes(os.urandom(8_000_000))
    tracemalloc.start()
    try:
        write_bundle(tmp_path / "out.ekb", tmp_path / "files", HEAD, KEY.seal)
        unpack_bundle(tmp_path / "out.ekb", tmp_path / "out", ADMIT)
        verify_folder(tmp_path / "out", ADMIT)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out.ekb").stat().st_size < 9_000_000


# ---------------------------------------------------------------------------------------------------------- the corpus


@pytest.mark.parametrize("kind", TAMPERED)
def test_everything_spoiled_is_refused(kind: str) -> None:
    """Exhaustive, in memory."""
    count = 0
    for case in tampered(stub_bundle(), other_bundle(), kinds=[kind]):
        with pytest.raises(VerificationFailed):
            read(case.data)
            pytest.fail(f"{case.kind}: {case.name} was accepted")
        count += 1
    assert count >= 10


def test_the_corpus_is_as_large_as_it_says() -> None:
    bits = 8 * len(pieces(stub_bundle())[0])
    assert sum(1 for _ in tampered(stub_bundle(), other_bundle(), kinds=["manifest bit"])) == bits
    assert sum(1 for _ in tampered(stub_bundle(), other_bundle(), kinds=["signature bit"])) == 8 * 202
    cut = [case for case in tampered(stub_bundle(), other_bundle(), kinds=["truncated"]) if case.name.endswith("bytes")]
    assert len(cut) == len(stub_bundle()) // 512
    names = [(case.kind, case.name) for case in tampered(stub_bundle(), other_bundle(), sample=20)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", TAMPERED)
def test_what_is_refused_leaves_nothing(tmp_path: Path, kind: str) -> None:
    """Unpacked on a real disk, between a snapshot before and one after."""
    place = tmp_path / "deep" / "er"
    place.mkdir(parents=True)
    (tmp_path / "etc").symlink_to("/etc")
    (place / "neighbour").write_text("mine")
    before = snapshot(tmp_path)
    spoiled = tmp_path.parent / f"{tmp_path.name}.ekb"
    for case in tampered(stub_bundle(), other_bundle(), sample=40 if kind in LARGE else None, kinds=[kind]):
        if kind in LARGE and "checksum right" in case.name:
            continue  # in memory they were all read
        spoiled.write_bytes(case.data)
        with pytest.raises(VerificationFailed) as refused:
            unpack_bundle(spoiled, place / "out", ADMIT)
        assert snapshot(tmp_path) == before, case.name
        message = str(refused.value)
        assert message.isprintable() and str(spoiled) in message and "; " in message
    spoiled.write_bytes(stub_bundle())
    unpack_bundle(spoiled, place / "out", ADMIT)  # the control: the place itself is fine
    assert snapshot(tmp_path) != before


@thorough
@pytest.mark.parametrize("kind", TAMPERED)
def test_everything_spoiled_is_refused_in_a_real_bundle_too(kind: str) -> None:
    """200 samples of each class that grows with the bundle."""
    real, other = real_bundles()
    assert read(real).manifest.size > 30_000_000
    for case in tampered(real, other, sample=200, kinds=[kind]):
        with pytest.raises(VerificationFailed):
            read(case.data)
            pytest.fail(f"{case.kind}: {case.name} was accepted")


# Which check refuses it: a case of each class, and what to switch off for the same bytes to be taken.
Off = Sequence[tuple[object, str, object]]


def silent(*_: object) -> None:
    """A check that refuses nothing."""


SIGNATURE: Off = [(keys, "check_signature", silent)]
HEADER: Off = [(container, "check_header", silent)]
DIGEST: Off = [(container, "check_digest", silent)]
END: Off = [(container, "check_end", silent)]
RECORD: Off = [(manifest, "check_manifest", silent)]
PATH: Off = [(manifest, "is_path", lambda _: True)]
COLLISION: Off = [(manifest, "check_paths", silent)]
CONTROLS: list[tuple[str, str, Off]] = [
    ("manifest bit", f"byte {len(pieces(stub_bundle())[0]) - 3}, bit 0", SIGNATURE),  # the version's last letter
    ("signature bit", "byte 80, bit 0", SIGNATURE),
    ("flipped byte", "", DIGEST),
    ("header byte", "header at 3584, byte 110", HEADER),
    ("header byte", "padding, byte", [(container, "check_padding", silent)]),
    ("truncated", "1023 bytes less", END),
    ("appended", "a zero", END),
    ("appended", "an entry", END),
    ("added", "zzz at 6", END),
    ("removed", "one block of the end", END),
    ("renamed", "entry 0 to b'/etc/passwd'", HEADER),
    ("duplicated", "entry 5 at the end", END),
    ("kind of entry", "hard link in place of entry 0, its bytes behind", HEADER),
    ("kind of entry", "symbolic link in place of entry 3", HEADER),
    ("kind of entry", "character device in place of entry 3", HEADER),
    ("mode", "4755 on entry 0", HEADER),
    ("mixed", "entry 1 of the other", DIGEST),
    ("mixed", "entry 5 of the other", DIGEST),
    ("mixed", "signature of the other", SIGNATURE),
    ("key", "another key", [(trust, "check_trusted", silent)]),
    ("key", "a revoked key", [(trust, "check_trusted", silent), (trust, "check_not_revoked", silent)]),
    ("key", "nobody", [(keys, "check_unsigned", silent)]),
    ("key", "the manifest and a newline", SIGNATURE),
    ("frame", "unused bit", [(frames, "check_descriptor", silent)]),
    ("frame", "window of 16 MiB", [(frames, "check_window", silent), (frames, "MAX_WINDOW", 1 << 27)]),
    ("frame", "window of 64 MiB in one segment", [(frames, "check_window", silent), (frames, "MAX_WINDOW", 1 << 27)]),
    ("digest", "stored_sha256 of file 0", DIGEST),
    ("digest", "sha256 of file 4", DIGEST),
    ("manifest text", "a space behind a colon", [(manifest, "check_canonical", silent)]),
    ("manifest text", "keys backwards", [(manifest, "check_canonical", silent)]),
    ("manifest text", "a key twice", [(manifest, "check_canonical", silent)]),
    ("manifest text", "an escape in a path", [(manifest, "check_canonical", silent)]),
    ("manifest record", "application ..", RECORD),
    ("manifest record", "counter 2^53", RECORD),
    ("manifest record", "1,001 files", RECORD),
    ("manifest record", "files backwards", COLLISION),
    ("manifest record", "file: mode 4755", RECORD),
    ("path", "path '/etc/passwd'", PATH),
    ("path", "path '../up'", PATH),
    ("path", "path 'a/../../up'", PATH),
    ("path", "path 'manifest.json'", COLLISION),
    ("path", "paths zz/a and zz/A", COLLISION),
    ("path", "paths zz and zz.zst", COLLISION),
    ("path", "paths zz and zz/a", COLLISION),
]


@pytest.mark.parametrize(("kind", "name", "off"), CONTROLS, ids=[f"{kind}: {name}" for kind, name, _ in CONTROLS])
def test_with_its_check_switched_off_it_would_be_taken(
    monkeypatch: pytest.MonkeyPatch, kind: str, name: str, off: Off
) -> None:
    """Negative control: the check, and nothing else, is what refuses."""
    cases = [case for case in tampered(stub_bundle(), other_bundle(), kinds=[kind]) if case.name.startswith(name)]
    for where, check, instead in off:
        monkeypatch.setattr(where, check, instead)
    taken = []
    for case in cases:
        try:
            read(case.data)
            taken.append(case.name)
        except VerificationFailed:
            continue
    assert taken


@pytest.mark.parametrize("kind", ["removed", "renamed", "swapped", "added", "duplicated"])
def test_what_a_new_manifest_and_signature_cover_is_taken(kind: str) -> None:
    """Negative control: it is the manifest that such bundles do not fit, not their entries that are wrong."""
    new = draft(stub_bundle())
    if kind == "removed":
        del new.files[2]
    elif kind == "renamed":
        new.files[0][0]["path"] = "bin/walk"
    elif kind == "swapped":
        one, two = new.files[1][0]["path"], new.files[2][0]["path"]
        new.files[1], new.files[2] = new.files[2], new.files[1]
        new.files[1][0]["path"], new.files[2][0]["path"] = one, two
    else:
        new.add("zzz", new.files[-1][1])
    assert read(new.build()).signer == SIGNER


@pytest.mark.parametrize(
    "name", ["second frame", "skippable frame behind", "skippable frame first", "second frame, empty"]
)
def test_a_plain_decoder_takes_more_than_one_frame(name: str) -> None:
    """Negative control: the digests are right for one who expands everything that is there."""
    (case,) = (case for case in tampered(stub_bundle(), other_bundle(), kinds=["frame"]) if case.name == name)
    file, stored = draft(case.data).files[-1]
    whole = zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True).read()
    assert hashlib.sha256(whole).hexdigest() == file["sha256"]
    assert hashlib.sha256(stored).hexdigest() == file["stored_sha256"]


def test_a_bomb_stops_where_its_size_is_reached() -> None:
    """64 MiB in 2 KiB, signed as 4 KiB: what comes out is counted, whatever the decoder thinks of it."""
    with pytest.raises(VerificationFailed, match="more than its size"):
        frames.check_left(-1)
    for case in tampered(stub_bundle(), other_bundle(), kinds=["frame"]):
        if case.name.startswith("expands to 64 MiB"):
            tracemalloc.start()
            with pytest.raises(VerificationFailed):
                read(case.data)
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
            tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------ writing, signing


BUILD = """
import sys
from pathlib import Path
from tests.bundles import HEAD, KEY, stub_files
from edgekit.bundle.write import write_bundle
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
files = stub_files()
for path in (sorted(files) if len(sys.argv[1]) % 2 else sorted(files, reverse=True)):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(files[path])
    (folder / path).chmod(0o700 if path.startswith("bin/") else 0o600)
write_bundle(out, folder, HEAD, KEY.seal)
"""


def test_frames_of_large_files_are_kept_and_give_the_same_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.bundle.write._LARGE", 1000)
    folder, cache = tmp_path / "files", Cache(tmp_path / "cache")
    folder.mkdir()
    (folder / "large").write_bytes(b"abcdefgh" * 1000)
    (folder / "small").write_bytes(b"abcdefgh" * 100)

    def built(name: str, cache: Cache | None) -> bytes:
        write_bundle(tmp_path / name, folder, HEAD, cache=cache)
        return (tmp_path / name).read_bytes()

    plain = built("plain", None)
    assert built("first", cache) == plain
    (frame,) = (one for one in (cache.root / "frames").rglob("*") if one.is_file())
    with monkeypatch.context() as patch:
        patch.setattr("edgekit.bundle.write.compress", refusing_large(compress))
        assert built("second", cache) == plain  # nothing large was compressed again
        (frame.parent / frame.name).write_bytes(b"damaged")
        with pytest.raises(AssertionError, match="compressed again"):
            built("third", cache)
    assert built("fourth", cache) == plain
    assert frame.read_bytes() != b"damaged"


def refusing_large(compress: Callable[[Path, Path], str]) -> Callable[[Path, Path], str]:
    def compressed(source: Path, place: Path) -> str:
        assert source.name != "large", "compressed again"
        return compress(source, place)

    return compressed


BUILDS = 20 if os.environ.get("EDGEKIT_REQUIRE_BOARD") == "1" else 5


def test_twenty_builds_are_one_bundle(tmp_path: Path) -> None:
    """Other folders, order of making, umask, time zone, locale, hash seed, time; five where minutes count."""
    zones, locales = ("UTC", "Asia/Kolkata", "America/St_Johns"), ("C", "C.UTF-8", "tr_TR.UTF-8", "POSIX")
    found = set()
    for number in range(BUILDS):
        folder = tmp_path / ("x" * (number + 1))
        out = tmp_path / f"{number}.ekb"
        environment = {
            **os.environ,
            "TZ": zones[number % 3],
            "LC_ALL": locales[number % 4],
            "PYTHONHASHSEED": str(number),
            "SOURCE_DATE_EPOCH": str(number * 10**6),
        }
        subprocess.run(
            [sys.executable, "-c", BUILD, folder, out],
            cwd=ROOT,
            env=environment,
            umask=(0o022, 0o077, 0o002, 0)[number % 4],
            check=True,
            timeout=60,
        )
        found.add(hashlib.sha256(out.read_bytes()).hexdigest())
        assert stat.S_IMODE(out.stat().st_mode) == 0o644
    assert found == {hashlib.sha256(stub_bundle()).hexdigest()}


def test_another_head_or_file_is_another_bundle() -> None:
    """Negative control of the above."""
    assert make_bundle(stub_files()) == stub_bundle()
    assert make_bundle({**stub_files(), "deployment.json": b'{"format":2}\n'}) != stub_bundle()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_bytes(b"a")
    out = tmp_path / "out.ekb"
    out.write_text("mine")
    with pytest.raises(UsageError, match=r"exists already.*--force"):
        write_bundle(out, files, HEAD)
    assert out.read_text() == "mine"
    write_bundle(out, files, HEAD, force=True)
    assert out.read_bytes()[:13] == b"manifest.json"
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="not a file"):
        write_bundle(tmp_path / "folder", files, HEAD, force=True)
    with pytest.raises(UsageError, match="exists already"):
        unpack_bundle(out, tmp_path / "folder", ADMIT)
    with pytest.raises(UsageError, match="no such folder"):
        unpack_bundle(out, tmp_path / "none" / "new", ADMIT)
    assert {path.name for path in tmp_path.iterdir()} == {"files", "folder", "out.ekb"}


@pytest.mark.parametrize("make", ["symlink", "folder link", "fifo", "bad name", "empty"])
def test_what_cannot_be_in_a_bundle_is_not_packed(tmp_path: Path, make: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    if make != "empty":
        (files / "a").write_bytes(b"a")
    if make == "symlink":
        (files / "link").symlink_to("a")
    elif make == "folder link":
        (files / "link").symlink_to("/etc")
    elif make == "fifo":
        os.mkfifo(files / "fifo")
    elif make == "bad name":
        (files / "a b").write_bytes(b"")
    with pytest.raises(InputRejected, match=str(files)):
        write_bundle(tmp_path / "out.ekb", files, HEAD)
    assert {path.name for path in tmp_path.iterdir()} == {"files"}


@pytest.mark.parametrize("after", [b"behind", b"before!", b"be", b""])
def test_a_file_that_changes_while_it_is_packed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bytes
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a").write_bytes(b"before")

    def meddling(source: Path, place: Path) -> tuple[int, str]:
        done = frames.compress(source, place)
        source.write_bytes(after)
        return done

    monkeypatch.setattr(write, "compress", meddling)
    with pytest.raises(VerificationFailed):
        write_bundle(tmp_path / "out.ekb", files, HEAD)
    assert {path.name for path in tmp_path.iterdir()} == {"files"}


def test_signing_changes_the_second_entry_only(tmp_path: Path) -> None:
    bundle = tmp_path / "a.ekb"
    plain = make_bundle(stub_files(), seal=unsigned)
    bundle.write_bytes(plain)
    with pytest.raises(VerificationFailed, match="is not signed"):
        verify_bundle(bundle, ADMIT)
    assert verify_bundle(bundle, admitting(parse_trust(b"", "none"), allow_unsigned=True)).signer is None
    sign_bundle(bundle, KEY.seal)
    assert bundle.read_bytes() == stub_bundle()
    sign_bundle(bundle, OTHER_KEY.seal, tmp_path / "b.ekb")
    other = (tmp_path / "b.ekb").read_bytes()
    changed = {at // 512 for at, (x, y) in enumerate(zip(other, stub_bundle(), strict=True)) if x != y}
    assert changed == {(512 + 1636 + 511) // 512 + 1}  # the block of the line; its header is that of any signature
    with pytest.raises(VerificationFailed, match="not trusted"):
        verify_bundle(tmp_path / "b.ekb", ADMIT)
    with pytest.raises(UsageError, match="exists already"):
        sign_bundle(bundle, KEY.seal, tmp_path / "b.ekb")
    assert {path.name for path in tmp_path.iterdir()} == {"a.ekb", "b.ekb"}


def test_a_file_that_grows_while_it_is_compressed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"a" * 1000)
    sizes = os.stat_result((0o100644, *(0,) * 5, 999, *(0,) * 3))
    monkeypatch.setattr(Path, "stat", lambda *_, **__: sizes)
    with pytest.raises(VerificationFailed, match="changed while it was packed"):
        frames.compress(tmp_path / "a", tmp_path / "b")


def test_a_link_to_a_bundle_stays_one(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link.ekb").symlink_to(bundle.name)
    sign_bundle(tmp_path / "link.ekb", OTHER_KEY.seal)
    assert (tmp_path / "link.ekb").is_symlink()
    assert bundle.read_bytes() != stub_bundle()


@pytest.mark.parametrize("at", [-1, 40_000, 3_600])
def test_a_damaged_bundle_is_not_signed(tmp_path: Path, at: int) -> None:
    data = bytearray(stub_bundle())
    data[at] ^= 1
    bundle = tmp_path / "a.ekb"
    bundle.write_bytes(data)
    with pytest.raises(VerificationFailed, match=r"a\.ekb"):
        sign_bundle(bundle, OTHER_KEY.seal)
    assert bundle.read_bytes() == data
    assert {path.name for path in tmp_path.iterdir()} == {"a.ekb"}


@pytest.mark.parametrize("make", ["missing", "folder", "fifo", "empty"])
def test_what_is_no_file_is_one_error(tmp_path: Path, make: str) -> None:
    place = tmp_path / "a.ekb"
    if make == "folder":
        place.mkdir()
    elif make == "fifo":
        os.mkfifo(place)
    elif make == "empty":
        place.write_bytes(b"")
    with pytest.raises((InputRejected, VerificationFailed)):
        verify_bundle(place, ADMIT)


# --------------------------------------------------------------------------------------------------- interrupted, no room


UNPACK = "unpack_bundle(Path('good.ekb'), Path('out'), ADMIT)"
WRITE = "write_bundle(Path('out'), Path('files'), HEAD, KEY.seal)"
SIGN = "sign_bundle(Path('good.ekb'), OTHER_KEY.seal, Path('out'))"
IMPORTS = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.bundles import HEAD, KEY, OTHER_KEY, TRUST
from edgekit.bundle.keys import admitting
from edgekit.bundle.trust import parse_trust
from edgekit.bundle.unpacked import unpack_bundle
from edgekit.bundle.write import sign_bundle, write_bundle
from edgekit.errors import DiskFull
ADMIT = admitting(parse_trust(TRUST, "trust"))
os.chdir(sys.argv[1])
"""
# A signal at the n-th step that Python tells of: opening, making, renaming, removing. Until one run gets to its end.
INTERRUPT = """
left, running = 0, False
def hook(event, _):
    global left
    if running and event in ("open", "os.mkdir", "os.chmod", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir"):
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGINT)
sys.addaudithook(hook)
for steps in range(1, 500):
    left, running = steps, True
    try:
        {action}
        running = False
        if left > 0:
            break
    except KeyboardInterrupt:
        running = False
    names = sorted(os.listdir())
    whole = "out" in names
    assert [name for name in names if name != "out"] == ["files", "good.ekb"], (steps, names)
    if whole:
        os.rename("out", "../whole-%d" % steps)
print(steps)
"""


def prepared(tmp_path: Path, good: bytes) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "good.ekb").write_bytes(good)
    unpack_bundle(folder / "good.ekb", folder / "files", ADMIT)
    for name in ("manifest.json", "manifest.sig"):
        (folder / "files" / name).unlink()
    return folder


@pytest.mark.parametrize("action", [UNPACK, WRITE, SIGN], ids=["unpack", "write", "sign"])
def test_an_interrupt_at_any_step_leaves_nothing_or_the_whole(tmp_path: Path, action: str) -> None:
    small = {path: data[:600] for path, data in stub_files().items()}
    folder = prepared(tmp_path, make_bundle(small))
    code = IMPORTS.format(root=str(ROOT)) + INTERRUPT.format(action=action)
    done = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 5 < int(done.stdout) < 400
    for whole in [*tmp_path.glob("whole-*"), folder / "out"]:
        if whole.is_dir():
            verify_folder(whole, ADMIT)
        else:
            verify_bundle(whole, admitting(parse_trust(TRUST + b"ed25519 %s other\n" % OTHER_KEY.public.encode(), "t")))


FULL = """
try:
    {action}
    assert "out" in os.listdir()
    os.rename("out", "files/out")
    print("done")
except DiskFull as error:
    print(error)
assert sorted(os.listdir()) == ["files", "good.ekb"], os.listdir()
"""


@pytest.mark.parametrize("action", [UNPACK, WRITE, SIGN], ids=["unpack", "write", "sign"])
def test_a_full_disk_at_every_size_leaves_nothing(tmp_path: Path, action: str) -> None:
    """On real file systems with hardly any room up to enough, in mount namespaces of their own."""
    folder = prepared(tmp_path, stub_bundle())
    code = IMPORTS.format(root=str(ROOT)) + FULL.format(action=action)
    script = 'mount -t tmpfs -o size=$4k none "$1" && cp -r "$5"/. "$1" && exec "$2" -c "$3" "$1"'
    (tmp_path / "disk").mkdir()
    used = sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())
    words = []
    for spare in (8, 16, 24, 36, 48, 1000):
        words_of_it = (tmp_path / "disk", sys.executable, code, used + spare, folder)
        argv = ["unshare", "-rm", "sh", "-c", script, "sh", *map(str, words_of_it)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (spare, done.stderr)
        words.append(done.stdout.strip())
    assert words[-1] == "done"
    assert all("the disk is full" in word for word in words[:4]), words


# --------------------------------------------------------------------------------------------------------- where it lies


def _edit(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _replace_by_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    shutil.move(path.with_name("real"), path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


SPOILED: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "a byte": (lambda at: _edit(at / "model/model.onnx", stub_files()["model/model.onnx"][:-1] + b"!"), "check_digest"),
    "a byte more": (lambda at: _edit(at / "model/model.onnx", stub_files()["model/model.onnx"] + b"!"), None),
    "empty": (lambda at: _edit(at / "model/model.onnx", b""), None),
    "missing": (lambda at: (at / "bin/run").unlink(), None),
    "a folder missing": (lambda at: shutil.rmtree(at / "lib"), None),
    "another file": (lambda at: _edit(at / "lib/evil.so", b""), "check_known"),
    "another hidden file": (lambda at: _edit(at / ".evil", b""), "check_known"),
    "another folder": (lambda at: (at / "lib/more").mkdir(), "check_known"),
    "another link": (lambda at: (at / "lib/link").symlink_to("libstub.so.1"), "check_known"),
    "another fifo": (lambda at: os.mkfifo(at / "fifo"), "check_known"),
    "a link in place of a file": (lambda at: _replace_by_link(at / "model/model.onnx"), None),
    "a link in place of a folder": (lambda at: _replace_by_link(at / "model"), "check_known"),
    "a folder in place of a file": (lambda at: ((at / "bin/run").unlink(), (at / "bin/run").mkdir()), None),
    "a fifo in place of a file": (lambda at: _fifo(at / "deployment.json"), None),
    "a fifo in place of the manifest": (lambda at: _fifo(at / "manifest.json"), None),
    "setuid": (lambda at: (at / "bin/run").chmod(0o4755), "check_kind"),
    "executable": (lambda at: (at / "model/model.onnx").chmod(0o755), "check_kind"),
    "writable": (lambda at: (at / "model/model.onnx").chmod(0o666), "check_kind"),
    "manifest": (lambda at: _edit(at / "manifest.json", (at / "manifest.json").read_bytes() + b" "), None),
    "manifest of 2 MiB": (lambda at: _edit(at / "manifest.json", bytes(2 << 20)), None),
    "no manifest": (lambda at: (at / "manifest.json").unlink(), None),
    "signature": (lambda at: _edit(at / "manifest.sig", OTHER_KEY.seal((at / "manifest.json").read_bytes())), None),
    "unsigned": (lambda at: _edit(at / "manifest.sig", b"unsigned\n"), None),
    "renamed": (lambda at: (at / "bin/run").rename(at / "bin/walk"), None),
}


def test_whatever_a_key_holder_signs_is_taken_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other error comes out: bytes changed at random, with every check off that would notice them at once."""
    for where, check in ((keys, "check_signature"), (container, "check_digest"), (container, "check_header")):
        monkeypatch.setattr(where, check, silent)
    noise, taken = random.Random(7), 0
    for _ in range(3000):
        data = bytearray(stub_bundle())
        for _ in range(noise.randrange(1, 4)):
            at = noise.choice((noise.randrange(len(data)), noise.randrange(4096), noise.randrange(4096, 24_000)))
            data[at] = noise.choice((0, 255, 34, 48, 125, noise.randrange(256)))
        try:
            read(bytes(data))
            taken += 1
        except VerificationFailed:
            continue
    assert 100 < taken < 2900


@pytest.mark.parametrize("name", SPOILED)
def test_what_changed_where_it_lies_is_noticed(
    bundle: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "slots" / "out"
    place.parent.mkdir()
    unpack_bundle(bundle, place, ADMIT)
    verify_folder(place, ADMIT)
    spoil, check = SPOILED[name]
    spoil(place)
    with pytest.raises(VerificationFailed):
        verify_folder(place, ADMIT)
    if check is not None:  # negative control
        monkeypatch.setattr(unpacked, check, silent)
        verify_folder(place, ADMIT)


def test_what_does_not_matter_where_it_lies(bundle: Path, tmp_path: Path) -> None:
    """A second hard link, folders' modes, times, and a link to the whole."""
    place = tmp_path / "out"
    unpack_bundle(bundle, place, ADMIT)
    os.link(place / "model/model.onnx", tmp_path / "second")
    (place / "lib").chmod(0o700)
    os.utime(place / "bin/run", (1, 1))
    (tmp_path / "current").symlink_to("out")
    assert verify_folder(tmp_path / "current", ADMIT).signer == SIGNER
    with pytest.raises(InputRejected, match="not a folder"):
        verify_folder(tmp_path / "none", ADMIT)
