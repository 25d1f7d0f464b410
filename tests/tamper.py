"""THE tamper corpus: every way to spoil a good bundle, for every reader.

- `tampered(bundle)` gives cases that a reader must refuse with exit code 8; `acceptable(bundle)` gives unusual ones it must take;
- a case is its name, its class (`kind`) and the bytes; classes are the keys of TAMPERED;
- some are the work of one without the key, some of one who has it and signs what no edgekit would;
- on a bundle of a few kilobytes it is exhaustive; `sample` bounds the cases of the large classes for a real one.

The bundle must be signed with KEY; `other` of the same files' names and sizes but other bytes, by the same key.
"""

import gzip
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeVar

import zstandard

from tests.bundles import (
    KEY,
    OTHER_KEY,
    REVOKED_KEY,
    Draft,
    blocks,
    draft,
    join,
    pieces,
    raw_entry,
    raw_header,
    text_of,
    with_checksum,
)

MIB = 1 << 20
T = TypeVar("T")


class Case(NamedTuple):
    """One spoiled bundle."""

    name: str
    kind: str
    data: bytes


@dataclass(frozen=True)
class Good:
    """What cases are made of: a good bundle, another, and how many cases of a large class are wanted (None: all)."""

    data: bytes
    other: bytes
    sample: int | None

    @property
    def parts(self) -> tuple[bytes, bytes, list[bytes]]:
        return pieces(self.data)

    def draft(self) -> Draft:
        return draft(self.data)

    def some(self, positions: Sequence[T]) -> Sequence[T]:
        if self.sample is None or len(positions) <= self.sample:
            return positions
        return [positions[at] for at in sorted(random.Random(1).sample(range(len(positions)), self.sample))]


Named = Iterator[tuple[str, bytes]]


def tampered(bundle: bytes, other: bytes, sample: int | None = None, kinds: Sequence[str] = ()) -> Iterator[Case]:
    """Every case, or those of some classes. `sample` is the most cases of a class that grows with the bundle."""
    good = Good(bundle, other, sample)
    for kind in kinds or TAMPERED:
        for name, data in TAMPERED[kind](good):
            assert data != bundle, f"{kind}: {name} changes nothing"
            yield Case(name, kind, data)


# ------------------------------------------------------------------------------------------------- without the key: bytes


def thinned(cases: Iterator[Case], most: int) -> Iterator[Case]:
    """At most so many of each kind, the same ones every time; no more of them than that are in memory."""
    for _, some in groupby(cases, key=lambda case: case.kind):
        noise, kept = random.Random(7), []
        for number, case in enumerate(some):
            if number < most:
                kept.append(case)
            elif (place := noise.randrange(number + 1)) < most:
                kept[place] = case
        yield from kept


def _flip(data: bytes, at: int, bits: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bits]) + data[at + 1 :]


def _bits(good: Good, start: int, size: int) -> Named:
    for bit in good.some(range(8 * size)):
        yield f"byte {bit // 8}, bit {bit % 8}", _flip(good.data, start + bit // 8, 1 << bit % 8)


def manifest_bits(good: Good) -> Named:
    """Every bit of the manifest."""
    yield from _bits(good, 512, len(good.parts[0]))


def signature_bits(good: Good) -> Named:
    """Every bit of the signature's line."""
    yield from _bits(good, 512 + len(blocks(good.parts[0])) + 512, len(good.parts[1]))


def flipped_bytes(good: Good) -> Named:
    """One byte in each 4 KiB."""
    noise = random.Random(1)
    for start in good.some(range(0, len(good.data), 4096)):
        at = start + noise.randrange(min(4096, len(good.data) - start))
        yield f"byte {at}", _flip(good.data, at, noise.randrange(1, 256))


def header_bytes(good: Good) -> Named:
    """Every byte of the first four headers, once as it comes out and once with the checksum set right; every byte of padding."""
    starts = _starts(good.data)
    for start, offset in good.some([(start, offset) for start in starts[:-1][:4] for offset in range(512)]):
        spoiled = _flip(good.data, start + offset, 1 << offset % 8)
        yield f"header at {start}, byte {offset}", spoiled
        if not 148 <= offset < 156:
            right = with_checksum(spoiled[start : start + 512])
            yield (
                f"header at {start}, byte {offset}, checksum right",
                good.data[:start] + right + good.data[start + 512 :],
            )
    ends = [(start + 512 + int(good.data[start + 124 : start + 135], 8), after) for start, after in pairwise(starts)]
    for at in good.some([at for end, after in ends[:4] for at in range(end, after)]):
        yield f"padding, byte {at}", _flip(good.data, at, 1 << at % 8)
    for at in range(len(good.data) - 1024, len(good.data), 41):
        yield f"end, byte {at}", _flip(good.data, at, 1 << at % 8)


def _starts(data: bytes) -> list[int]:
    """Where entries begin, and where the end does."""
    found, at = [], 0
    while data[at]:
        found.append(at)
        size = int(data[at + 124 : at + 135], 8)
        at += 512 + size + -size % 512
    return [*found, at]


def truncated(good: Good) -> Named:
    """The first 0, 512, 1024... bytes, and all but the last few."""
    for size in good.some(range(0, len(good.data), 512)):
        yield f"{size} bytes", good.data[:size]
    for missing in (1, 511, 513, 1023, 1025):
        yield f"{missing} bytes less", good.data[:-missing]


def appended(good: Good) -> Named:
    """Something behind the end, or before the beginning."""
    more = raw_entry("more", 0o644, b"more")
    for name, tail in {
        "a zero": b"\0",
        "a newline": b"\n",
        "a block of zeros": bytes(512),
        "zeros up to tar's 10 KiB": bytes(-len(good.data) % 10240 or 10240),
        "a megabyte of zeros": bytes(MIB),
        "an entry": more,
        "an entry and an end": more + bytes(1024),
        "itself": good.data,
        "a zip": b"PK\x05\x06" + bytes(18),
    }.items():
        yield name, good.data + tail
    yield "zeros in front", bytes(512) + good.data
    yield "a byte order mark in front", b"\xef\xbb\xbf" + good.data
    yield "empty", b""
    yield "as gzip", gzip.compress(good.data, 1)
    yield "as zstd", zstandard.ZstdCompressor(1).compress(good.data)


# ----------------------------------------------------------------------------------------------- without the key: entries


def added(good: Good) -> Named:
    """An entry that the manifest does not know, at every place."""
    text, line, entries = good.parts
    for name in ("aaa", "zzz", "lib/evil.so", "manifest.json"):
        more = raw_entry(name, 0o644, b"more")
        for at in good.some(range(len(entries) + 1)):
            yield f"{name} at {at}", join(text, line, [*entries[:at], more, *entries[at:]])
        yield f"{name} before the manifest", more + good.data
        yield (
            f"{name} before the signature",
            raw_entry("manifest.json", 0o644, text) + more + good.data[_starts(good.data)[1] :],
        )


def removed(good: Good) -> Named:
    """Every entry."""
    text, line, entries = good.parts
    for at in good.some(range(len(entries))):
        yield f"entry {at}", join(text, line, entries[:at] + entries[at + 1 :])
    starts = _starts(good.data)
    yield "manifest", good.data[starts[1] :]
    yield "signature", good.data[: starts[1]] + good.data[starts[2] :]
    yield "one block of the end", join(text, line, entries, bytes(512))
    yield "all but manifest and signature", join(text, line, [])


def renamed(good: Good) -> Named:
    """Every entry, to a name beside its own; and to one outside."""
    text, line, entries = good.parts
    for at in good.some(range(len(entries))):
        old = entries[at][:100].rstrip(b"\0")
        for new in (
            old + b"x",
            old[:-1],
            old.swapcase(),
            b"x/" + old,
            b"./" + old,
            b"../" + old,
            b"/" + old,
            b"/etc/passwd",
            b"",
        ):
            block = with_checksum(new[:100].ljust(100, b"\0") + entries[at][100:512])
            yield (
                f"entry {at} to {new!r}",
                join(text, line, [*entries[:at], block + entries[at][512:], *entries[at + 1 :]]),
            )
    pax = raw_header(b"x", 0o644, 26, b"x") + blocks(b"26 path=../../../tmp/evil\n")
    yield "by a pax header", join(text, line, [pax, *entries])
    gnu = raw_header(b"././@LongLink", 0o644, 9, b"L") + blocks(b"/tmp/evil")
    yield "by GNU's long name", join(text, line, [gnu, *entries])


def swapped(good: Good) -> Named:
    """Neighbours, whole; neighbours' bytes under each other's headers; manifest and signature."""
    text, line, entries = good.parts
    for at in good.some(range(len(entries) - 1)):
        one, two = entries[at : at + 2]
        yield f"entries {at} and {at + 1}", join(text, line, [*entries[:at], two, one, *entries[at + 2 :]])
        mixed = [one[:512] + two[512:], two[:512] + one[512:]]
        if one[512:] != two[512:]:
            yield f"bytes of {at} and {at + 1}", join(text, line, [*entries[:at], *mixed, *entries[at + 2 :]])
    a, b, c = _starts(good.data)[:3]
    yield "manifest and signature", good.data[b:c] + good.data[a:b] + good.data[c:]
    yield "the last entry to the front", join(text, line, [entries[-1], *entries[:-1]])
    yield "a file before the manifest", entries[0] + join(text, line, entries[1:])


def duplicated(good: Good) -> Named:
    """Every entry, behind itself and at the end."""
    text, line, entries = good.parts
    for at in good.some(range(len(entries))):
        yield f"entry {at}", join(text, line, [*entries[: at + 1], *entries[at:]])
        yield f"entry {at} at the end", join(text, line, [*entries, entries[at]])
    first, second = raw_entry("manifest.json", 0o644, text), raw_entry("manifest.sig", 0o644, line)
    yield "manifest", first + good.data
    yield "signature", first + second + good.data[len(first) :]
    yield "manifest at the end", join(text, line, [*entries, first])


def kinds_of_entry(good: Good) -> Named:
    """Links, devices and all else that a tar can hold, in place of a file, beside it, and in place of the manifest."""
    text, line, entries = good.parts
    kinds = {
        "hard link": (b"1", b"../../etc/passwd"),
        "symbolic link": (b"2", b"/etc/passwd"),
        "character device": (b"3", b""),
        "block device": (b"4", b""),
        "folder": (b"5", b""),
        "fifo": (b"6", b""),
        "contiguous file": (b"7", b""),
        "file of old tar": (b"\0", b""),
        "sparse file": (b"S", b""),
        "pax header": (b"x", b""),
        "global pax header": (b"g", b""),
        "long name": (b"L", b""),
        "vendor's own": (b"Z", b""),
    }
    for name, (kind, link) in kinds.items():
        for at in good.some(range(len(entries))):
            old = entries[at]
            size, mode = int(old[124:135], 8), int(old[100:107], 8)
            here = old[:100].rstrip(b"\0")
            whole = raw_header(here, mode, size, kind, link) + old[512:]
            yield (
                f"{name} in place of entry {at}, its bytes behind",
                join(text, line, [*entries[:at], whole, *entries[at + 1 :]]),
            )
            alone = raw_header(here, mode, 0, kind, link)
            yield f"{name} in place of entry {at}", join(text, line, [*entries[:at], alone, *entries[at + 1 :]])
            yield f"{name} before entry {at}", join(text, line, [*entries[:at], alone, *entries[at:]])
        manifest = raw_header(b"manifest.json", 0o644, len(text), kind, link)
        yield f"{name} as the manifest", manifest + good.data[512:]


def mode_bits(good: Good) -> Named:
    """Set-user-ID and its like in a header; what the manifest says stays."""
    text, line, entries = good.parts
    for at in good.some(range(len(entries))):
        old = entries[at]
        for mode in (0o4755, 0o2755, 0o6755, 0o1644, 0o777, 0o666, 0o600, 0, 0o100755):
            block = with_checksum(old[:100] + b"%07o\0" % mode + old[108:512])
            yield f"{mode:o} on entry {at}", join(text, line, [*entries[:at], block + old[512:], *entries[at + 1 :]])
    yield "4755 on the manifest", with_checksum(good.data[:100] + b"0004755\0" + good.data[108:512]) + good.data[512:]


def mixed(good: Good) -> Named:
    """Two bundles that are valid each."""
    (text, line, entries), (text2, line2, entries2) = good.parts, pieces(good.other)
    yield "manifest of the other", join(text2, line, entries)
    yield "signature of the other", join(text, line2, entries)
    yield "manifest and signature of the other", join(text2, line2, entries)
    yield "files of the other", join(text, line, entries2)
    for at in good.some(range(len(entries))):
        if entries[at] != entries2[at]:
            yield f"entry {at} of the other", join(text, line, [*entries[:at], entries2[at], *entries[at + 1 :]])
    yield "one behind the other", good.data[:-1024] + good.other


def keys(good: Good) -> Named:
    """Signed by another, by a revoked key, by nobody, or in another way."""
    text, line, entries = good.parts
    public, signature = line.split()[1:]
    foreign = OTHER_KEY.seal(text).split()[2]
    for name, other in {
        "another key": OTHER_KEY.seal(text),
        "a revoked key": REVOKED_KEY.seal(text),
        "nobody": b"unsigned\n",
        "another key's signature under the right key": b"ed25519 %s %s\n" % (public, foreign),
        "the right key's signature under another": b"ed25519 %s %s\n" % (OTHER_KEY.public.encode(), signature),
        "the manifest without the line before it": b"ed25519 %s %s\n" % (public, KEY._key.sign(text).hex().encode()),
        "the manifest and a newline": KEY.seal(text + b"\n"),
        "nothing": KEY.seal(b""),
        "zeros": b"ed25519 %s %s\n" % (public, b"0" * 128),
        "the neutral point": b"ed25519 01%s 01%s%s\n" % (b"0" * 62, b"0" * 62, b"0" * 64),
        "no newline": line[:-1],
        "two newlines": line + b"\n",
        "carriage return": line[:-1] + b"\r\n",
        "another word": b"rsa2048" + line[7:],
        "revoked": b"revoked" + line[7:],
        "upper case": line.upper(),
        "upper-case signature": b"ed25519 %s %s\n" % (public, signature.upper()),
        "two spaces": line.replace(b" ", b"  "),
        "tabs": line.replace(b" ", b"\t"),
        "a space in front": b" " + line,
        "a name behind": line[:-1] + b" test\n",
        "two lines": line + line,
        "unsigned without a newline": b"unsigned",
        "Unsigned": b"Unsigned\n",
        "unsigned twice": b"unsigned\nunsigned\n",
        "unsigned and a signature": b"unsigned\n" + line,
        "a zero byte": line[:-1] + b"\0",
        "empty": b"",
        "none": b"none\n",
    }.items():
        yield name, join(text, other, entries)
    # S + L is the same number modulo the group's order, so an Ed25519 that does not ask for S < L accepts it (RFC 8032, 5.1.7).
    order = 2**252 + 27742317777372353535851937790883648493
    raw = bytes.fromhex(signature.decode())
    scalar = int.from_bytes(raw[32:], "little") + order
    malleable = raw[:32] + scalar.to_bytes(32, "little")
    yield (
        "the same signature plus the group's order",
        join(text, b"ed25519 %s %s\n" % (public, malleable.hex().encode()), entries),
    )


# ------------------------------------------------------------------------------------------------ with the key: the bytes


def raw_block(data: bytes, last: bool = True) -> bytes:
    """A zstd block of bytes as they are."""
    return (len(data) << 3 | last).to_bytes(3, "little") + data


def rle_block(count: int, last: bool = True, byte: bytes = b"\0") -> bytes:
    """A zstd block of one byte many times."""
    return (count << 3 | 2 | last).to_bytes(3, "little") + byte


def frame(size: int | None, content: bytes, *, window: int | None = None, bits: int = 0, head: bytes = b"") -> bytes:
    """A zstd frame by RFC 8878: content size (None: not stated), blocks, window descriptor (None: a single segment).

    `bits` are set in the descriptor, `head` stands where a dictionary's number would.
    """
    single = 0 if window is not None else 0x20
    descriptor = (0 if size is None else 0x80) | single | bits
    window_byte = b"" if window is None else bytes([window])
    stated = b"" if size is None else size.to_bytes(4, "little")
    return b"\x28\xb5\x2f\xfd" + bytes([descriptor]) + window_byte + head + stated + content


MIB_WINDOW = 10 << 3  # 2^(10 + 10) bytes
SKIPPABLE = b"\x50\x2a\x4d\x18" + (8).to_bytes(4, "little") + b"whatever"
TEXT = b"a" * 4000 + b"all work and no play makes jack a dull boy\n" * 40


def body(data: bytes = TEXT) -> bytes:
    """Blocks of what begins as TEXT does: smaller than it, as a frame must be."""
    return rle_block(4000, False, b"a") + raw_block(data[4000:])


def bombs(good: Good) -> Named:
    """Frames that are not what the format allows, with digests that are right for what a careless reader makes of them."""
    pack = zstandard.ZstdCompressor(19, write_checksum=False).compress
    plain = pack(TEXT)
    checked = zstandard.ZstdCompressor(19, write_checksum=True).compress(TEXT)
    unsized = zstandard.ZstdCompressor(19, write_content_size=False).compress(TEXT)
    empty = frame(0, raw_block(b""))
    size = len(TEXT)
    zeros = bytes(64 * MIB)
    swell = b"".join(rle_block(128 << 10, False) for _ in range(512)) + raw_block(b"")
    wide = frame(64 * MIB, swell)
    half = TEXT[:5000]

    def bundle(stored: bytes, data: bytes = TEXT, **over: Any) -> bytes:
        return good.draft().add("zz", data, stored, **over).build()

    yield "expands to 64 MiB, signed as 4 KiB", bundle(frame(4096, swell, window=MIB_WINDOW), zeros, size=4096)
    yield "expands to 64 MiB, a segment of 4 KiB", bundle(frame(4096, swell), zeros, size=4096)
    yield "expands to one byte more", bundle(frame(size, body(TEXT + b"!"), window=MIB_WINDOW), TEXT + b"!", size=size)
    yield "expands to one byte less", bundle(frame(size, body(TEXT[:-1]), window=MIB_WINDOW), TEXT[:-1], size=size)
    yield "expands to nothing", bundle(frame(size, raw_block(b"")), b"", size=size)
    yield "states one byte more", bundle(frame(size + 1, body(), window=MIB_WINDOW))
    yield "states one byte less", bundle(frame(size - 1, body(), window=MIB_WINDOW))
    yield "states and expands to less", bundle(frame(len(half), body(half)), half, size=size)
    yield "second frame", bundle(pack(half) + pack(TEXT[len(half) :]))
    yield "second frame, the first states all", bundle(frame(size, body(half)) + pack(TEXT[len(half) :]))
    yield "second frame, empty", bundle(plain + empty)
    yield "empty frame first", bundle(empty + plain)
    yield "skippable frame behind", bundle(plain + SKIPPABLE)
    yield "skippable frame first", bundle(SKIPPABLE + plain)
    yield "skippable frame alone", bundle(SKIPPABLE, bytes(16))
    yield "bytes behind", bundle(plain + b"more")
    yield "a zero behind", bundle(plain + b"\0")
    yield "window of 64 MiB in one segment", bundle(wide, zeros)
    yield "window of 16 MiB", bundle(frame(size, body(), window=14 << 3))
    yield "window of 9 MiB", bundle(frame(size, body(), window=13 << 3 | 1))
    yield "window of 3.75 TiB", bundle(frame(size, body(), window=0xFF))
    yield "no content size", bundle(unsized)
    yield "no content size, zero of it", bundle(frame(None, body(), window=MIB_WINDOW))
    yield "checksum", bundle(checked)
    yield "checksum, wrong", bundle(checked[:-1] + bytes([checked[-1] ^ 1]))
    yield "checksum, missing", bundle(checked[:-4])
    yield "checksum behind a frame without one", bundle(plain + checked[-4:])
    for bit, name in {1: "1 byte", 2: "2 bytes", 3: "4 bytes"}.items():
        width = (0, 1, 2, 4)[bit]
        yield f"dictionary, {name}", bundle(frame(size, body(), bits=bit, head=b"\1" * width))
        yield f"dictionary, {name}, number 0", bundle(frame(size, body(), bits=bit, head=bytes(width)))
    yield "reserved bit", bundle(frame(size, body(), bits=8))
    yield "unused bit", bundle(frame(size, body(), bits=16))
    yield "reserved block", bundle(frame(size, rle_block(4000, False, b"a") + (7).to_bytes(3, "little") + body()[7:]))
    large = bytes(200 << 10)
    padded = raw_block(large, False) + rle_block(100 << 10, False) * 2 + raw_block(b"")
    yield "block of more than 128 KiB", bundle(frame(2 * len(large), padded), large * 2)
    yield "RLE block of more than 128 KiB", bundle(frame(len(large), rle_block(len(large))), large)
    yield "block larger than its window", bundle(frame(size, body(), window=0))
    yield "no last block", bundle(frame(size, rle_block(4000, False, b"a") + raw_block(TEXT[4000:], False)))
    yield "last block cut", bundle(frame(size, body())[:-1])
    yield "head alone", bundle(frame(size, b""))
    yield "descriptor missing", bundle(b"\x28\xb5\x2f\xfd")
    yield "nothing stored", bundle(b"")
    yield "not zstd", bundle(TEXT[:512])
    yield "a gzip", bundle(gzip.compress(TEXT, 9, mtime=0))
    yield "an old zstd, 0.7", bundle(b"\x27" + plain[1:])
    yield "magicless", bundle(plain[4:])
    yield "an empty file as a frame", bundle(empty, b"")
    yield "stored as larger than it is", bundle(frame(1, raw_block(b"x")), b"x")


def digests(good: Good) -> Named:
    """A signed manifest whose digests or sizes are not those of its files."""
    other = "0" * 64
    for at in good.some(range(len(good.draft().files))):
        for key in ("sha256", "stored_sha256"):
            new = good.draft()
            new.files[at][0][key] = other
            yield f"{key} of file {at}", new.build()
        new = good.draft()
        new.files[at][0]["sha256"] = new.files[at][0]["stored_sha256"] = other
        yield f"both digests of file {at}", new.build()
        for key in ("size", "stored_size"):
            for by in (-1, 1, 512):
                new = good.draft()
                file = new.files[at][0]
                if file[key] + by >= 0:
                    file[key] += by
                    yield f"{key} of file {at} by {by}", new.build()
                    if key == "size" and file["encoding"] == "identity":
                        file["size"] = file["stored_size"] = file[key]
                        yield f"sizes of file {at} by {by}", new.build()


# --------------------------------------------------------------------------------------------- with the key: the manifest


def texts(good: Good) -> Named:
    """Manifests that mean the right thing, or nothing at all, in other bytes than the canonical ones."""
    right = good.draft()
    text = right.text()
    record = right.record()
    backwards = dict(sorted(record.items(), reverse=True))
    application = record["application"].encode()
    counter = b'"counter":%d' % record["counter"]
    first = text_of(record["files"][0])
    plain_path = record["files"][0]["path"].encode()

    def change(old: bytes, new: bytes) -> bytes:
        assert old in text
        return text.replace(old, new, 1)

    for name, spoiled in {
        "a space behind": text + b" ",
        "a newline behind": text + b"\n",
        "a zero behind": text + b"\0",
        "a space in front": b" " + text,
        "a byte order mark": b"\xef\xbb\xbf" + text,
        "UTF-16": text.decode().encode("utf-16"),
        "a space behind a colon": change(b'":', b'": '),
        "a space behind a comma": change(b',"', b', "'),
        "a tab": change(b"{", b"{\t"),
        "a newline within": change(b"}", b"\n}"),
        "indented": json.dumps(record, sort_keys=True, indent=1).encode(),
        "keys backwards": json.dumps(backwards, separators=(",", ":")).encode(),
        "keys of a file backwards": change(
            first, json.dumps(dict(sorted(record["files"][0].items(), reverse=True)), separators=(",", ":")).encode()
        ),
        "a key twice": change(b'{"application"', b'{"application":"%s","application"' % application),
        "a key twice, other first": change(b'{"application"', b'{"application":"other","application"'),
        "a key twice, other last": text[:-1] + b',"version":"other"}',
        "a key of a file twice": change(b'{"encoding"', b'{"encoding":"identity","encoding"'),
        "the list of files twice": change(b'"files"', b'"files":[],"files"'),
        "a unicode escape": change(b'"' + application, b'"\\u%04x' % application[0] + application[1:]),
        "an escape in a key": change(b'"application"', b'"\\u0061pplication"'),
        "an escaped slash": text.replace(b"/", b"\\/", 1),
        "an escape in a path": change(b'"path":"' + plain_path, b'"path":"\\u%04x' % plain_path[0] + plain_path[1:]),
        "a float": change(counter, counter + b".0"),
        "an exponent": change(counter, counter + b"e0"),
        "an exponent that is a number": change(counter, b'"counter":1E1'),
        "a leading zero": change(counter, counter.replace(b":", b":0")),
        "a sign": change(counter, counter.replace(b":", b":+")),
        "minus zero": change(counter, b'"counter":-0'),
        "minus one": change(counter, b'"counter":-1'),
        "hexadecimal": change(counter, b'"counter":0x7'),
        "an underscore": change(counter, b'"counter":1_0'),
        "not a number": change(counter, b'"counter":NaN'),
        "infinity": change(counter, b'"counter":Infinity'),
        "true": change(counter, b'"counter":true'),
        "null": change(counter, b'"counter":null'),
        "a number as text": change(counter, b'"counter":"7"'),
        "a list for a number": change(counter, b'"counter":[7]'),
        "2^53": change(counter, b'"counter":9007199254740992'),
        "2^64": change(counter, b'"counter":18446744073709551616'),
        "2^64 + 7": change(counter, b'"counter":18446744073709551623'),
        "a number of 5,000 digits": change(counter, b'"counter":' + b"7" * 5000),
        "a comma too many": change(b"}]", b"},]"),
        "a comma too few": change(b',"version"', b'"version"'),
        "single quotes": text.replace(b'"', b"'"),
        "a comment": change(b"{", b"{/**/"),
        "half of it": text[: len(text) // 2],
        "twice": text + text,
        "a list around it": b"[" + text + b"]",
        "a text": b'"manifest"',
        "a number": b"7",
        "null alone": b"null",
        "an empty object": b"{}",
        "an empty list": b"[]",
        "one space": b" ",
        "100,000 brackets": b"[" * 100_000,
        "100,000 objects": b'{"a":' * 100_000,
        "raw UTF-8": change(b'"' + application, b'"\xc3\xa9' + application),
        "broken UTF-8": change(b'"' + application, b'"\xff' + application),
        "overlong UTF-8": change(b'"' + application, b'"\xc1\xa1' + application),
        "a zero within": change(b'"' + application, b'"\0' + application),
        "a raw newline within": change(b'"' + application, b'"\n' + application),
        "a lone surrogate": change(b'"' + application, b'"\\ud800' + application),
        "random bytes": random.Random(3).randbytes(2000),
    }.items():
        yield name, right.build(spoiled)
    huge = good.draft()
    huge.top["version"] = "v" * (MIB + 1)
    yield "more than 1 MiB", huge.build()
    yield "empty", right.build(b"")


def records(good: Good) -> Named:
    """Canonical manifests that break a rule, each consistent with its files."""
    for name, change in _TOP.items():
        new = good.draft()
        change(new.top)
        yield name, new.build()
    for name, change in _FILE.items():
        new = good.draft().add("zz/plain", b"as it is")
        change(new.files[-1][0])
        yield f"file: {name}", new.build()
    none = good.draft()
    none.files = []
    yield "no files", none.build()
    many = good.draft()
    for number in range(1001 - len(many.files)):
        many.files.append(Draft({}, []).add(f"many/{number:04}", b"").files[0])
    many.files.sort(key=lambda item: item[0]["path"])
    yield "1,001 files", many.build()
    unsorted = good.draft()
    unsorted.files.reverse()
    yield "files backwards", unsorted.build()
    swapped_two = good.draft()
    swapped_two.files[:2] = reversed(swapped_two.files[:2])
    yield "two files swapped", swapped_two.build()
    twice = good.draft()
    twice.files.insert(0, twice.files[0])
    yield "a file twice", twice.build()
    for name, sizes in {
        "2^31 bytes": [1 << 31],
        "2^31 bytes in two": [1 << 30, 1 << 30],
        "2^32 bytes": [1 << 32],
        "2^53 - 1 bytes": [(1 << 53) - 1],
        "a sum of 2^64": [1 << 62] * 4,
        "a sum of 2^32 and a little": [0xFFFFFFFF, 2],
    }.items():
        large = good.draft()
        for number, size in enumerate(sizes):
            frame_of = frame(size % (1 << 32), rle_block(1000))
            large.add(f"zz/{number}", b"", frame_of, size=size)
        yield f"size: {name}", large.build()


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record.__setitem__(key, value)


def _set_in(table: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record[table].__setitem__(key, value)


def _drop(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.pop(key)


def _drop_in(table: str, key: str) -> Callable[[dict[str, Any]], object]:
    return lambda record: record[table].pop(key)


_TOP: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown key": _set("zzz", 1),
    "unknown key, empty": _set("", ""),
    "unknown key that __proto__ would be": _set("__proto__", {}),
    "key in upper case": lambda record: record.__setitem__("Counter", record.pop("counter")),
    **{f"no {key}": _drop(key) for key in ("application", "counter", "format", "requires", "version")},
    **{f"no {key}": _drop_in("requires", key) for key in ("arch", "glibc", "isa", "libstdcxx")},
    "unknown key in requires": _set_in("requires", "kernel", "5.10"),
    "format 0": _set("format", 0),
    "format 2": _set("format", 2),
    "format as text": _set("format", "1"),
    "format 1.0": _set("format", 1.0),
    "format true": _set("format", True),
    "application empty": _set("application", ""),
    "application in upper case": _set("application", "Digits"),
    "application with a slash": _set("application", "a/b"),
    "application ..": _set("application", ".."),
    "application of 65": _set("application", "a" * 65),
    "application with a newline": _set("application", "a\n"),
    "application with an escape": _set("application", "a\x1b[31m"),
    "application with a space": _set("application", "a b"),
    "application -rf": _set("application", "-rf"),
    "application a number": _set("application", 7),
    "application null": _set("application", None),
    "version empty": _set("version", ""),
    "version of 65": _set("version", "1" * 65),
    "version with a quote": _set("version", '1"'),
    "version with a space": _set("version", "1 2"),
    "version with a newline": _set("version", "1\n"),
    "version not ASCII": _set("version", "1é"),
    "version .5": _set("version", ".5"),
    "version a number": _set("version", 1),
    "counter -1": _set("counter", -1),
    "counter 2^53": _set("counter", 1 << 53),
    "counter false": _set("counter", False),
    "requires a list": _set("requires", []),
    "requires null": _set("requires", None),
    "arch riscv64": _set_in("requires", "arch", "riscv64"),
    "arch empty": _set_in("requires", "arch", ""),
    "arch in upper case": _set_in("requires", "arch", "X86_64"),
    "glibc empty": _set_in("requires", "glibc", ""),
    "glibc 2": _set_in("requires", "glibc", "2"),
    "glibc 2.": _set_in("requires", "glibc", "2."),
    "glibc 2.28-r1": _set_in("requires", "glibc", "2.28-r1"),
    "glibc of five parts": _set_in("requires", "glibc", "2.2.2.2.2"),
    "glibc of six digits": _set_in("requires", "glibc", "2.222222"),
    "glibc with a newline": _set_in("requires", "glibc", "2.28\n"),
    "glibc a float": _set_in("requires", "glibc", 2.28),
    "libstdcxx a word": _set_in("requires", "libstdcxx", "GLIBCXX"),
    "libstdcxx a space": _set_in("requires", "libstdcxx", " "),
    "libstdcxx null": _set_in("requires", "libstdcxx", None),
    "isa a text": _set_in("requires", "isa", "avx2"),
    "isa backwards": _set_in("requires", "isa", ["fma", "avx2"]),
    "isa twice": _set_in("requires", "isa", ["avx2", "avx2"]),
    "isa empty name": _set_in("requires", "isa", [""]),
    "isa in upper case": _set_in("requires", "isa", ["AVX2"]),
    "isa with a dash": _set_in("requires", "isa", ["avx-2"]),
    "isa of 33": _set_in("requires", "isa", ["a" * 33]),
    "isa of 65 names": _set_in("requires", "isa", [f"f{n:03}" for n in range(65)]),
    "isa a number": _set_in("requires", "isa", [2]),
    "isa nested": _set_in("requires", "isa", [["avx2"]]),
}

_FILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown key": _set("link", "/etc/passwd"),
    **{
        f"no {key}": _drop(key)
        for key in ("encoding", "mode", "path", "sha256", "size", "stored_sha256", "stored_size")
    },
    **{
        f"mode {mode:o}": _set("mode", mode)
        for mode in (0o4755, 0o2755, 0o6755, 0o1755, 0o777, 0o600, 0o444, 0, 0o100644)
    },
    "mode as text": _set("mode", "644"),
    "mode -1": _set("mode", -1),
    "mode true": _set("mode", True),
    "encoding empty": _set("encoding", ""),
    "encoding gzip": _set("encoding", "gzip"),
    "encoding ZSTD": _set("encoding", "ZSTD"),
    "encoding null": _set("encoding", None),
    "encoding zstd for bytes as they are": _set("encoding", "zstd"),
    "digest in upper case": lambda file: file.update(
        sha256=file["sha256"].upper(), stored_sha256=file["stored_sha256"].upper()
    ),
    "digest of 63": lambda file: file.update(sha256=file["sha256"][1:], stored_sha256=file["stored_sha256"][1:]),
    "digest of 65": lambda file: file.update(sha256=file["sha256"] + "0", stored_sha256=file["stored_sha256"] + "0"),
    "digest empty": lambda file: file.update(sha256="", stored_sha256=""),
    "digest null": _set("sha256", None),
    "digest a number": _set("sha256", 0),
    "stored digest is another": _set("stored_sha256", "0" * 64),
    "size as text": _set("size", "7"),
    "size -1": _set("size", -1),
    "size a float": _set("size", 7.0),
    "size null": _set("size", None),
    "stored size null": _set("stored_size", None),
}


_LEAD_OUT = "/etc/passwd / //a ../up a/../../up a/.. .. ... . ./a a/. a//b a/ ~ ~/a .hidden a/.hidden a\\b ..\\up C:a"
_TAKEN = (
    "manifest.json manifest.sig Manifest.json MANIFEST.SIG manifest.json.zst manifest.sig.zst "
    "manifest.json/a manifest.sig/a Manifest.Sig/a manifest.json.zst/a"
)
_CHARACTERS = [f"a{sign}b" for sign in "*?$`();|'\"<>=@,#%{}[]&!^\u00e9\u202e\uff41\x1b\x7f\0"]
_BLANKS = ("", " ", " a", "a ", "a b", "a\n", "a\nb", "a\tb", "a\r")
_LONG = ("a" * 97, "/".join("abcdefghi"), "x/" * 47 + "xyz")


def paths(good: Good) -> Named:
    """Paths that lead out, mean two things, or cannot be; signed, and with headers that fit."""
    for path in (*_LEAD_OUT.split(), *_TAKEN.split(), *_CHARACTERS, *_BLANKS, *_LONG):
        yield f"path {path!r}"[:60], good.draft().add(path, b"evil").build()
    for one, two in (
        ("zz/a", "zz/A"),
        ("zz/a", "ZZ/a"),
        ("zz", "zz/a"),
        ("zz", "zz/a/b"),
        ("zz", "ZZ/a"),
        ("zz/a", "zz/a/b/c"),
        ("zz", "zz.zst"),
        ("zz", "ZZ.ZST"),
        ("zz/a", "zz/a.zst"),
        ("zz", "zz.zst/a"),
        ("zz.zst", "zz.zst.zst"),
    ):
        yield f"paths {one} and {two}", good.draft().add(one, b"one").add(two, b"two").build()
    packed = zstandard.ZstdCompressor(write_checksum=False).compress(TEXT)
    yield "one name of two in the container", good.draft().add("zz", TEXT, packed).add("zz.zst", b"two").build()


TAMPERED: dict[str, Callable[[Good], Named]] = {
    "manifest bit": manifest_bits,
    "signature bit": signature_bits,
    "flipped byte": flipped_bytes,
    "header byte": header_bytes,
    "truncated": truncated,
    "appended": appended,
    "added": added,
    "removed": removed,
    "renamed": renamed,
    "swapped": swapped,
    "duplicated": duplicated,
    "kind of entry": kinds_of_entry,
    "mode": mode_bits,
    "mixed": mixed,
    "key": keys,
    "frame": bombs,
    "digest": digests,
    "manifest text": texts,
    "manifest record": records,
    "path": paths,
}


# ------------------------------------------------------------------------------------------------- what must be accepted


def acceptable(bundle: bytes) -> Named:
    """Unusual bundles that keep every rule."""

    def new() -> Draft:
        return draft(bundle)

    def alone(path: str, data: bytes, stored: bytes | None = None, **keys: Any) -> bytes:
        return Draft(new().top, []).add(path, data, stored, **keys).build()

    def top(**keys: Any) -> bytes:
        changed = new()
        changed.top.update(keys)
        return changed.build()

    requires = new().top["requires"]
    yield "itself", bundle
    yield "signed again", new().build()
    yield "counter 0", top(counter=0)
    yield "counter 2^53 - 1", top(counter=(1 << 53) - 1)
    yield "application of 64", top(application="a" * 64)
    yield "application 0", top(application="0")
    yield "version of 64", top(version="V" + "+" * 63)
    yield "no isa, no libstdcxx", top(requires={**requires, "isa": [], "libstdcxx": ""})
    yield "64 names of isa", top(requires={**requires, "isa": [f"f{n:02}" for n in range(64)]})
    yield "aarch64, four parts", top(requires={**requires, "arch": "aarch64", "glibc": "2.17.0.99999"})
    yield "one file", alone("a", b"a")
    yield "one empty file", alone("a", b"")
    yield "one program", alone("a", b"a", mode=0o755)
    yield "a path of 96", alone("x/" * 7 + "y" * 82, b"a")
    yield "a path of 96 as a frame", alone("y" * 96, TEXT, frame(len(TEXT), body()))
    yield "eight segments", alone("/".join("abcdefgh"), b"a")
    yield "signs in names", alone("+-_9/a+-_.9..z/-", b"a")
    yield "folders that differ by case", new().add("zz/a", b"1").add("ZZ/b", b"2").build()
    yield (
        "names that nearly collide",
        new().add("zz.zs", b"1").add("zz-a/b", b"2").add("zz", b"3").add("zz.zst2", b"4").build(),
    )
    yield "sorted by bytes", new().add("zz-a", b"1").add("zz/a", b"2").add("zz.a", b"3").add("zz0", b"4").build()
    many = new()
    for number in range(1000 - len(many.files)):
        many.add(f"many/{number:04}", b"%d" % number)
    yield "1,000 files", many.build()
    yield (
        "sizes at the edge of blocks",
        new().add("zz/0", b"a" * 511).add("zz/1", b"b" * 512).add("zz/2", b"c" * 513).build(),
    )
    zeros = bytes(9 * MIB)
    run = b"".join(rle_block(128 << 10, False) for _ in range(72)) + raw_block(b"")
    yield "9 MiB of zeros, window of 8", new().add("zz", zeros, frame(len(zeros), run, window=13 << 3)).build()
    yield "8 MiB in one segment", new().add("zz", zeros[: 8 * MIB], frame(8 * MIB, run[4 * 8 :])).build()
    for level in (1, 3, 19):
        packed = zstandard.ZstdCompressor(level, write_checksum=False).compress(TEXT)
        yield f"zstd of level {level}", new().add("zz", TEXT, packed).build()
    eight = b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + len(TEXT).to_bytes(8, "little") + body()
    yield "content size of eight bytes", new().add("zz", TEXT, eight).build()
    small = frame(256, rle_block(200, False) + rle_block(56), window=0)
    yield "window of 1 KiB", new().add("zz", bytes(256), small).build()
