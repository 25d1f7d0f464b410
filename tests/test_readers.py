"""Readers of data.toml: images, recordings, raw numbers and lists, decoded once, and every refusal with its one line."""

import hashlib
import json
import os
import re
import struct
import subprocess
import wave
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image
from scipy.io import wavfile
from scipy.signal import resample_poly

from edgekit import sandbox
from edgekit.core.contract import AudioRules, ImageRules
from edgekit.core.dataset import DataSetInfo
from edgekit.core.types import TensorSpec
from edgekit.data import decode, images, read
from edgekit.data.audio import read_sound
from edgekit.data.feed import to_bfloat16
from edgekit.data.images import read_image
from edgekit.data.labels import stacked
from edgekit.data.listing import folder_files
from edgekit.data.manifest import InputEntry, LabelsEntry, Manifest, SplitEntry, folder_digest
from edgekit.data.read import prepare_data
from edgekit.errors import InputRejected
from edgekit.store import sha256_file
from tests.conftest import ROOT

SPLITS = ("calibration", "selection", "evaluation")
RNG = np.random.default_rng(7)
RGB = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
GRAY = RGB[..., 1]
PICTURE = TensorSpec("image", "float32", (1, 3, 6, 8))
STRAIGHT = '[inputs.image]\nreader = "image"\nscale = 1.0\n'


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    """An image file of the suffix's format; parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def pixels(seed: int, shape: tuple[int, ...] = (6, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def toml(folder: Path, head: str, split: str | Callable[[str], str] = 'folder = "{}"') -> Path:
    """data.toml with `head`, and each split's text, in which {} is the split's name."""
    text = [f'schema = 1\nname = "tiny"\n{head}\n']
    text += [f"[splits.{name}]\n" + (split(name) if callable(split) else split.format(name)) for name in SPLITS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.toml").write_text("\n".join(text))
    return folder


def pictures(folder: Path, head: str = STRAIGHT, count: int = 3, split: str = 'folder = "{}"') -> Path:
    """A data set of `count` images a split, 1.png, 2.png, ...; all different."""
    for k, name in enumerate(SPLITS):
        for i in range(count):
            save(folder / name / f"{i + 1}.png", pixels(100 * k + i))
    return toml(folder, head, split)


def prepare(
    source: Path, tmp_path: Path, *inputs: TensorSpec, skip_bad: bool = False, samples: int | None = None
) -> tuple[DataSetInfo, Path]:
    out = tmp_path / f"feed{len(list(tmp_path.glob('feed*')))}"
    return prepare_data(source, list(inputs) or [PICTURE], out, samples, skip_bad), out


def refusal(source: Path, tmp_path: Path, *inputs: TensorSpec, skip_bad: bool = False) -> str:
    """The one line with which a data set is refused."""
    with pytest.raises(InputRejected) as caught:
        prepare(source, tmp_path, *inputs, skip_bad=skip_bad)
    assert str(caught.value).isprintable()
    return str(caught.value)


def refused(read: Callable[[], Any]) -> str:
    with pytest.raises(InputRejected) as caught:
        read()
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- images: formats and modes


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "a.tga", "a.webp", "a.no_suffix"])
def test_lossless_formats_give_their_pixels(tmp_path: Path, name: str) -> None:
    options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
    path = save(tmp_path / name, RGB, format="PNG" if name == "a.no_suffix" else None, **options)
    np.testing.assert_array_equal(read_image(path, ImageRules()), RGB)


def test_a_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", RGB)
    np.testing.assert_array_equal(read_image(path, ImageRules()), np.asarray(Image.open(path)))


def in_mode(mode: str) -> tuple[Image.Image, np.ndarray]:
    """An image in `mode` and the RGB it stands for."""
    image = Image.fromarray(RGB)
    if mode == "1":
        bits = GRAY > 127
        return Image.fromarray(bits), np.repeat(bits[..., None] * np.uint8(255), 3, axis=2)
    if mode == "L":
        return Image.fromarray(GRAY), np.repeat(GRAY[..., None], 3, axis=2)
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(RGB[..., 0])]), np.repeat(
            GRAY[..., None], 3, 2
        )
    if mode == "P":
        palette = image.quantize(16)
        table = np.array(palette.getpalette()).reshape(-1, 3).astype(np.uint8)
        return palette, table[np.asarray(palette)]
    if mode == "RGBA":  # transparency is dropped, the colours under it stay
        return Image.fromarray(np.concatenate([RGB, np.zeros_like(RGB[..., :1])], axis=2)), RGB
    if mode == "I;16":
        deep = RNG.integers(0, 65536, (6, 8)).astype(np.uint16)
        return Image.fromarray(deep), np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=2)
    inks = np.concatenate([RGB, GRAY[..., None]], axis=2)
    merged = Image.merge("CMYK", [Image.fromarray(np.ascontiguousarray(inks[..., c])) for c in range(4)])
    return merged, np.asarray(merged.convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("1", "png"), ("1", "tif"), ("L", "png"), ("LA", "png"), ("P", "png"), ("P", "gif"), ("P", "bmp"),
        ("RGBA", "png"), ("RGBA", "tif"), ("I;16", "png"), ("I;16", "tif"), ("CMYK", "tif"),
    ],
)  # fmt: skip
def test_every_mode_becomes_8_bit_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    image, expected = in_mode(mode)
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}", ImageRules()), expected)


def test_inks_are_read_as_inks(tmp_path: Path) -> None:
    """CMYK in JPEG is stored inverted by convention: no ink must be white."""
    Image.new("CMYK", (8, 8), (0, 0, 0, 0)).save(tmp_path / "white.jpg", quality=100)
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "black.jpg", quality=100)
    assert read_image(tmp_path / "white.jpg", ImageRules()).min() > 250
    assert read_image(tmp_path / "black.jpg", ImageRules()).max() < 5


def test_sixteen_bits_of_either_byte_order(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (6, 8)).astype(np.uint16)
    big = Image.frombytes("I;16B", (8, 6), deep.astype(">u2").tobytes())
    big.save(tmp_path / "a.tif")
    got = read_image(tmp_path / "a.tif", ImageRules(color="gray"))
    np.testing.assert_array_equal(got[..., 0], deep >> 8)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_numbers_of_32_bits_have_no_known_range(tmp_path: Path, dtype: str) -> None:
    path = save(tmp_path / "a.tif", RNG.random((4, 4)).astype(dtype))
    assert "holds numbers of 32 bits, whose range is not known" in refused(lambda: read_image(path, ImageRules()))


def test_colour_orders(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    np.testing.assert_array_equal(read_image(path, ImageRules(color="BGR")), RGB[..., ::-1])
    red, green, blue = (RGB[..., c].astype(int) for c in range(3))
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # ITU-R BT.601
    np.testing.assert_array_equal(read_image(path, ImageRules(color="gray"))[..., 0], luma)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_orientation_is_applied(
    tmp_path: Path, orientation: int, upright: Callable[[np.ndarray], np.ndarray], suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(tmp_path / f"a.{suffix}", RGB, exif=exif, **options)
    np.testing.assert_array_equal(read_image(path, ImageRules()), upright(RGB))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), v, np.uint8)) for v in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.unique(read_image(tmp_path / "a.gif", ImageRules())).tolist() == [10]


# --------------------------------------------------------------------------------------------------------- images: placed


def test_a_letterbox_of_an_even_border(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)  # 6 x 8, twice as large: 12 x 16 in 16 x 16
    rules = ImageRules(resize="letterbox", size=(16, 16), filter="nearest", pad=(1, 2, 3))
    got = read_image(path, rules)
    np.testing.assert_array_equal(got[2:14], RGB.repeat(2, axis=0).repeat(2, axis=1))
    assert {tuple(p) for p in np.concatenate([got[:2], got[14:]]).reshape(-1, 3).tolist()} == {(1, 2, 3)}
    backwards = read_image(path, ImageRules("BGR", "letterbox", (16, 16), "nearest", pad=(1, 2, 3)))
    assert backwards[0, 0].tolist() == [1, 2, 3]  # the border is given in the contract's own order
    np.testing.assert_array_equal(backwards[2:14], got[2:14, :, ::-1])


def test_a_letterbox_of_an_odd_border_or_at_the_corner(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", GRAY)
    rules = ImageRules("gray", "letterbox", (9, 8), "nearest", pad=(77,))
    got = read_image(path, rules)[..., 0]
    np.testing.assert_array_equal(got, np.concatenate([np.full((1, 8), 77), GRAY, np.full((2, 8), 77)]))
    at_corner = read_image(path, ImageRules("gray", "letterbox", (9, 8), "nearest", (77,), "top-left"))[..., 0]
    np.testing.assert_array_equal(at_corner, np.concatenate([GRAY, np.full((3, 8), 77)]))


def test_the_shorter_side_then_a_centre_crop(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    got = read_image(path, ImageRules(resize="shorter", size=(12,), filter="nearest", crop=(10, 12)))
    np.testing.assert_array_equal(got, RGB.repeat(2, axis=0).repeat(2, axis=1)[1:11, 2:14])
    np.testing.assert_array_equal(
        read_image(path, ImageRules(crop=(3, 5))), RGB[2:5, 2:7]
    )  # 1.5 rounds to 2, both ways


@pytest.mark.parametrize("name", list(images._RESAMPLING))
def test_filters_are_pillows(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "a.png", RGB)
    expected = Image.fromarray(RGB).resize((5, 4), getattr(Image.Resampling, name.upper()))
    got = read_image(path, ImageRules(resize="stretch", size=(4, 5), filter=name))
    np.testing.assert_array_equal(got, np.asarray(expected))


def test_the_box_filter_is_the_mean_of_what_it_covers(tmp_path: Path) -> None:
    """A reference that is not Pillow's own."""
    path = save(tmp_path / "a.png", RGB)
    got = read_image(path, ImageRules(resize="stretch", size=(3, 4), filter="box")).astype(float)
    mean = RGB.astype(float).reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
    assert np.abs(got - mean).max() <= 1


# -------------------------------------------------------------------------------------------------------- images: refused


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header promises any size."""
    chunk = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
        for body in (chunk, b"IDAT" + data, b"IEND")
    )


@pytest.mark.parametrize(("width", "height"), [(9_000, 8_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    assert "would decode to more than 64 Mi pixels" in refused(lambda: read_image(tmp_path / "a.png", ImageRules()))


def test_a_bomb_by_resizing_is_refused_too(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((1, 5000), np.uint8))
    line = refused(lambda: read_image(path, ImageRules(resize="shorter", size=(256,))))
    assert "is 5000x1 and would be resized to 1280000x256" in line


def test_the_bound_on_pixels_is_the_only_thing_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: one pixel more or less decides."""
    path = save(tmp_path / "a.png", RGB)
    monkeypatch.setattr(images, "MAX_PIXELS", 48)
    assert read_image(path, ImageRules()).shape == (6, 8, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 47)
    refused(lambda: read_image(path, ImageRules()))


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif"])
def test_truncated_images_are_refused(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", pixels(1, (64, 64, 3)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"a.{suffix}: is not a readable image" in refused(lambda: read_image(path, ImageRules()))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in ("a.png", "a.eps"):
        (tmp_path / name).write_bytes(content)
        assert "is not a readable image" in refused(lambda name=name: read_image(tmp_path / name, ImageRules()))


def test_postscript_never_starts_ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = tmp_path / "a.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    assert "is not a readable image" in refused(lambda: read_image(path, ImageRules()))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(OSError), Image.open(path) as image:  # the control: Pillow left to itself starts it
        image.load()
    assert (tmp_path / "ran").exists()


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "is not a regular file" in refused(lambda: read_image(tmp_path / "a.png", ImageRules()))
    assert "is not a regular file" in refused(lambda: read_sound(tmp_path / "a.png", AudioRules(16000, length=1)))


def test_an_image_smaller_than_its_crop_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB)
    line = refused(lambda: read_image(path, ImageRules(crop=(7, 4))))
    assert "is 8x6 after resizing, smaller than the crop of 4x7" in line


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "webp", "bmp"])
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, suffix: str, flips: list[tuple[float, int]]) -> None:
    path = save(tmp_path / f"a.{suffix}", RGB)
    content = bytearray(path.read_bytes())
    for place, value in flips:
        content[int(place * (len(content) - 1))] = value
    path.write_bytes(content)
    try:
        got = read_image(path, ImageRules())
    except InputRejected:
        return
    assert got.dtype == np.uint8 and got.ndim == 3


# --------------------------------------------------------------------------------------------------------- images: in sets


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d", count=11)
    (source / "selection" / ".hidden").write_text("not a sample")
    info, out = prepare(source, tmp_path)
    assert [split.samples for split in info.splits.values()] == [11, 11, 11]
    expected = np.stack([pixels(100 + i).transpose(2, 0, 1)[None] for i in range(11)]).astype(np.float32)
    np.testing.assert_array_equal(np.load(out / "selection" / "0.npy"), expected)
    assert not list(out.glob("**/*.rows"))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_split_is_preprocessed_by_the_same_rule(tmp_path: Path, layout: str) -> None:
    mean, std, scale = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255
    head = (
        f'[inputs.image]\nreader = "image"\ncolor = "BGR"\nresize = "stretch"\nsize = [4, 5]\nlayout = "{layout}"\n'
        f"scale = {scale}\nmean = {list(mean)}\nstd = {list(std)}\n"
    )
    shape = (1, 3, 4, 5) if layout == "NCHW" else (1, 4, 5, 3)
    _, out = prepare(pictures(tmp_path / "d", head), tmp_path, TensorSpec("image", "float32", shape))
    for k, split in enumerate(SPLITS):
        for i, row in enumerate(np.load(out / split / "0.npy")):
            resized = Image.fromarray(pixels(100 * k + i)).resize((5, 4), Image.Resampling.BILINEAR)
            values = np.asarray(resized)[..., ::-1].astype(np.float32) * np.float32(scale)
            values = (values - np.array(mean, np.float32)) / np.array(std, np.float32)
            np.testing.assert_array_equal(row[0], values.transpose(2, 0, 1) if layout == "NCHW" else values)


def test_an_integer_model_takes_pixels_as_they_are_and_others_rounded(tmp_path: Path) -> None:
    head = '[inputs.image]\nreader = "image"\n'
    _, out = prepare(pictures(tmp_path / "d", head), tmp_path, TensorSpec("image", "uint8", (1, 3, 6, 8)))
    np.testing.assert_array_equal(np.load(out / "calibration" / "0.npy")[0, 0], pixels(0).transpose(2, 0, 1))
    source = pictures(tmp_path / "e", f"{head}scale = 0.5\noffset = -64.0\n")
    _, out = prepare(source, tmp_path, TensorSpec("image", "int8", (1, 3, 6, 8)))
    expected = np.rint(pixels(0).astype(np.float32) * np.float32(0.5) - np.float32(64)).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.load(out / "calibration" / "0.npy")[0, 0], expected)


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for k, split in enumerate(SPLITS):
        for c, name in enumerate(["zebra", "ant", "cat"]):
            save(tmp_path / "d" / split / name / "1.png", pixels(10 * k + c))
    source = toml(tmp_path / "d", f'{STRAIGHT}[labels]\nclasses = ["zebra", "ant", "bee", "cat"]\n')
    info, out = prepare(source, tmp_path)
    assert info.labelled and info.metric == "top-1"
    np.testing.assert_array_equal(np.load(out / "evaluation" / "labels.npy"), [1, 3, 0])  # ant, cat, zebra
    info, out = prepare(toml(source, STRAIGHT), tmp_path)
    np.testing.assert_array_equal(np.load(out / "evaluation" / "labels.npy"), [0, 1, 2])
    assert any("sub-folders in sorted order: 0 ant, 1 cat, 2 zebra" in notice for notice in info.notices)
    (source / "selection" / "ant" / "1.png").unlink()
    (source / "selection" / "ant").rmdir()  # a split without a class must not shift the numbers of the others
    _, out = prepare(source, tmp_path)
    np.testing.assert_array_equal(np.load(out / "selection" / "labels.npy"), [1, 2])
    toml(source, f'{STRAIGHT}[labels]\nclasses = ["ant", "cats", "zebra"]\n')
    assert "'cat' is not one of the 3 classes; did you mean 'cats'?" in refusal(source, tmp_path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda d: save(d / "selection" / "cat" / "1.png", RGB), "holds files beside sub-folders"),
        (lambda d: (d / "selection").rename(d / "other"), "selection: is not a folder"),
        (lambda d: toml(d, STRAIGHT, 'folder = "../d/{}"'), "lies outside the data set's folder"),
        (lambda d: toml(d, STRAIGHT, 'folder = "/etc"'), "lies outside the data set's folder"),
        (lambda d: [p.unlink() for p in (d / "selection").iterdir()], "selection: holds no files"),
        (lambda d: toml(d, STRAIGHT, 'folder = "{}"\nsamples = 4'), "declares 4 samples, but there are 3"),
        (lambda d: toml(d, STRAIGHT, 'folder = "{}"\nlist = "x"'), "names its samples by folder and list"),
        (lambda d: toml(d, STRAIGHT, "samples = 3"), "names no samples; write one of files, folder and list"),
        (lambda d: toml(d, STRAIGHT, 'files = {{ image = "x.npy" }}'), "does not say how many samples its files hold"),
        (
            lambda d: toml(d, STRAIGHT, 'samples = 3\nfiles = {{ image = "x.npy" }}'),
            'reader = "image" reads samples one by one; name them by folder or list instead of files',
        ),
        (lambda d: toml(d, '[inputs.image]\nreader = "jsonl"'), "reads the lines of a list, not a folder"),
        (lambda d: toml(d, STRAIGHT.replace("scale", "scal")), "unknown key 'scal'; did you mean 'scale'?"),
        (lambda d: toml(d, STRAIGHT.replace('"image"', '"imag"')), "unknown reader 'imag'; did you mean 'image'?"),
        (lambda d: toml(d, STRAIGHT + 'color = "rgb"'), "unknown color 'rgb'"),
        (lambda d: toml(d, STRAIGHT + 'resize = "strech"'), "did you mean 'stretch'?"),
        (lambda d: toml(d, STRAIGHT + 'resize = "stretch"\nsize = 6'), 'size has 1 numbers, resize = "stretch" takes 2'),
        (lambda d: toml(d, STRAIGHT + 'resize = "shorter"\nsize = [6, 8]'), "write size = the shorter side"),
        (lambda d: toml(d, STRAIGHT + "size = [6, 8]"), "leave size out, or write resize"),
        (lambda d: toml(d, STRAIGHT + 'resize = "stretch"\nsize = [0, 8]'), "size must hold whole numbers from 1"),
        (lambda d: toml(d, STRAIGHT + "crop = [6]"), "crop must be [height, width]"),
        (lambda d: toml(d, STRAIGHT + "pad = 3"), 'pad and align go with resize = "letterbox"'),
        (lambda d: toml(d, STRAIGHT + 'resize = "letterbox"\nsize = [6, 8]\npad = 256'), "pad must be one value from 0"),
        (lambda d: toml(d, STRAIGHT + 'filter = "area"'), "unknown filter 'area'"),
        (lambda d: toml(d, STRAIGHT + "rate = 16000"), "'rate' says nothing to reader = \"image\"; is it reader = \"audio\"?"),
        (lambda d: toml(d, STRAIGHT + "mean = [nan]"), "mean must be finite"),
        (lambda d: toml(d, STRAIGHT + "std = [0.5, 0.0, 0.5]"), "std must be finite and not 0"),
        (lambda d: toml(d, STRAIGHT + "mean = [0.5, 0.5]"), "mean has 2 values for 3 channels"),
        (lambda d: toml(d, STRAIGHT + "mean = 'x'"), "Expected `float | array`, got `str`"),
        (lambda d: toml(d, '[inputs.image]\nreader = "image"'), "does not say what 'image' makes of pixels 0..255"),
        (lambda d: toml(d, STRAIGHT + 'layout = "NHWC"'), "becomes [1, H, W, 3], but the model takes [1, 3, 6, 8]"),
        (lambda d: toml(d, STRAIGHT + 'dtype = "float16"'), "declares 'image' as float16, but the model takes float32"),
        (lambda d: toml(d, STRAIGHT + "[labels]\nclass = ['a']"), "unknown key 'class'; did you mean 'classes'?"),
        (lambda d: toml(d, STRAIGHT + "[labels]\nclasses = ['a', 'a']"), "classes has 'a' twice"),
        (lambda d: toml(d, STRAIGHT + "[labels]\nclasses = ['a']\nalphabet = 'b'"), "both classes and an alphabet"),
        (lambda d: toml(d, STRAIGHT + "[metric_options]\nthreshhold = 0.3"), "did you mean 'threshold'?"),
    ],
)  # fmt: skip
def test_a_wrong_set_of_images_is_refused_with_the_fix(
    tmp_path: Path, change: Callable[[Path], Any], expected: str
) -> None:
    source = pictures(tmp_path / "d")
    change(source)
    assert expected in refusal(source, tmp_path)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    save(source / "selection" / "2.png", pixels(5, (7, 8, 3)))
    line = refusal(source, tmp_path)
    assert "selection/2.png: becomes [1, 3, 7, 8], but input 'image' takes [1, 3, 6, 8]" in line
    assert "write resize and size, or crop, in data.toml, or leave such samples out with --skip-bad" in line


def test_a_link_out_of_the_folder_is_refused_even_when_skipping(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    secret = save(tmp_path / "secret.png", RGB)
    (source / "selection" / "9.png").symlink_to(secret)
    assert "selection/9.png: lies outside the data set's folder" in refusal(source, tmp_path, skip_bad=True)
    (source / "selection" / "9.png").unlink()
    (source / "selection" / "9.png").symlink_to(source / "evaluation" / ".." / "selection" / "8.png")
    save(source / "selection" / "8.png", RGB)
    prepare(source, tmp_path)  # one that stays inside is followed
    (source / "selection" / "8.png").unlink()
    (source / "selection" / "8.png").symlink_to("9.png")
    assert "lies outside" in refusal(source, tmp_path)  # a loop


def test_a_folder_may_have_a_digest(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    lines = "".join(f"{sha256_file(source / 'selection' / f'{i}.png')}  {i}.png\n" for i in (1, 2, 3))
    assert (
        lines
        == subprocess.run(
            "sha256sum *", shell=True, cwd=source / "selection", capture_output=True, text=True, check=True
        ).stdout
    )
    right = hashlib.sha256(lines.encode()).hexdigest()
    text = (source / "data.toml").read_text()
    (source / "data.toml").write_text(
        text.replace('folder = "selection"', f'folder = "selection"\nsha256 = {{ selection = "{right}" }}')
    )
    prepare(source, tmp_path)
    save(source / "selection" / "4.png", RGB)
    assert "selection: does not have the sha256 that data.toml declares" in refusal(source, tmp_path)


def test_labels_of_a_folder_may_be_an_array(tmp_path: Path) -> None:
    source = pictures(
        tmp_path / "d", STRAIGHT + "[labels]\nclasses = ['a', 'b', 'c']", split='folder = "{}"\nlabels = "l.npy"'
    )
    np.save(source / "l.npy", np.array([2, 0, 1]))
    info, out = prepare(source, tmp_path)
    assert info.labelled
    np.testing.assert_array_equal(np.load(out / "selection" / "labels.npy"), [2, 0, 1])
    np.save(source / "l.npy", np.array([2, 0]))
    assert "l.npy: has 2 rows for 3 samples" in refusal(source, tmp_path)
    np.save(source / "l.npy", np.array([2, 3, 0]))
    assert "l.npy: label 3 of row 1 is outside 0..2, the declared classes" in refusal(source, tmp_path)


# --------------------------------------------------------------------------------------------------------------- skip bad


def test_an_unreadable_sample_is_named_and_skipped_only_when_asked(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d", count=4, split='folder = "{}"\nlabels = "l.npy"\nsamples = 4')
    np.save(source / "l.npy", np.array([5, 6, 7, 8]))
    broken = source / "selection" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    line = refusal(source, tmp_path)
    assert "selection/2.png: is not a readable image" in line
    assert "repair or remove it, or leave such samples out with --skip-bad" in line
    info, out = prepare(source, tmp_path, skip_bad=True)
    assert info.splits["selection"].samples == 3
    assert any(
        "1 of 4 samples of selection can't be read and were left out: " in n and "2.png" in n for n in info.notices
    )
    np.testing.assert_array_equal(np.load(out / "selection" / "labels.npy"), [5, 7, 8])
    kept = np.stack([pixels(100 + i).transpose(2, 0, 1)[None] for i in (0, 2, 3)])
    np.testing.assert_array_equal(np.load(out / "selection" / "0.npy"), kept)


def test_good_samples_are_the_same_with_or_without_skipping(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    one, two = prepare(source, tmp_path)[0], prepare(source, tmp_path, skip_bad=True)[0]
    assert one == two


def test_many_bad_samples_are_counted_and_the_first_named(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d", count=6)
    for i in range(1, 6):
        (source / "evaluation" / f"{i}.png").write_text("x")
    info, _ = prepare(source, tmp_path, skip_bad=True)
    notice = next(n for n in info.notices if "left out" in n)
    assert "5 of 6 samples of evaluation" in notice
    assert notice.count("is not a readable image") == 3 and notice.endswith(", ...")
    (source / "evaluation" / "6.png").write_text("x")
    assert "holds no sample that can be read; the first: " in refusal(source, tmp_path, skip_bad=True)


def test_a_left_out_start_passes_to_the_next_sample(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d", count=6, split='folder = "{}"\nsequences = "s.npy"')
    np.save(source / "s.npy", np.array([1, 0, 1, 0, 0, 1], np.uint8))
    for i in (3, 5):
        (source / "selection" / f"{i}.png").write_text("x")
    _, out = prepare(source, tmp_path, skip_bad=True)
    np.testing.assert_array_equal(np.load(out / "selection" / "reset.npy"), [1, 0, 1, 1])  # 1, 2, 4, 6


def test_a_bad_sample_of_one_input_is_left_out_of_all(tmp_path: Path) -> None:
    for k, split in enumerate(SPLITS):
        lines = []
        for i in range(4):
            save(tmp_path / "d" / split / f"{i}.png", pixels(100 * k + i))
            lines.append({"image": f"{split}/{i}.png", "n": [i, k], "label": i, "start": i in (0, 2)})
        lines[2]["n"] = [1.5, 2]
        (tmp_path / "d" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    source = toml(tmp_path / "d", f'{STRAIGHT}[inputs.n]\nreader = "jsonl"', 'list = "{}.jsonl"')
    numbers = TensorSpec("n", "int64", (1, 2))
    line = refusal(source, tmp_path, PICTURE, numbers)
    assert "calibration.jsonl line 3: 'n' holds fractions or numbers beyond 64 bits, but the model takes int64" in line
    info, out = prepare(source, tmp_path, PICTURE, numbers, skip_bad=True)
    assert [split.samples for split in info.splits.values()] == [3, 3, 3]
    np.testing.assert_array_equal(np.load(out / "evaluation" / "1.npy")[:, 0], [[0, 2], [1, 2], [3, 2]])
    np.testing.assert_array_equal(np.load(out / "evaluation" / "labels.npy"), [0, 1, 3])
    np.testing.assert_array_equal(np.load(out / "evaluation" / "reset.npy"), [1, 0, 1])


# ------------------------------------------------------------------------------------------------------------- recordings


def tone(count: int, rate: int = 16000, hz: float = 440.0, seed: int = 0) -> np.ndarray:
    """A tone of half scale with a little noise, float64."""
    noise = np.random.default_rng(seed).normal(0, 0.01, count)
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(count) / rate) + noise


def pcm24(path: Path, rate: int, values: np.ndarray) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(3)
        out.setframerate(rate)
        out.writeframes(values.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes())


WHOLE_RULES = AudioRules(16000, length=1)


@pytest.mark.parametrize(
    ("dtype", "low", "high", "expected"),
    [
        ("uint8", 0, 255, lambda v: (v - 128) / 128),
        ("int16", -(2**15), 2**15 - 1, lambda v: v / 2**15),
        ("int32", -(2**31), 2**31 - 1, lambda v: v / 2**31),
        ("float32", -1, 1, lambda v: v),
        ("float64", -1, 1, lambda v: v),
    ],
)
def test_full_scale_is_one(
    tmp_path: Path, dtype: str, low: int, high: int, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    values = np.array([low, high, 0, low // 2, high // 3, 1]).astype(dtype)
    wavfile.write(tmp_path / "a.wav", 16000, values)
    got = read_sound(tmp_path / "a.wav", WHOLE_RULES)
    assert got.dtype == np.float32 and got.shape == (6, 1)
    np.testing.assert_allclose(got[:, 0], expected(values.astype(np.float64)), rtol=1e-6, atol=1e-9)


def test_24_bits(tmp_path: Path) -> None:
    values = np.array([-(2**23), 2**23 - 1, 0, 1, -1, 123456])
    pcm24(tmp_path / "a.wav", 16000, values)
    np.testing.assert_allclose(read_sound(tmp_path / "a.wav", WHOLE_RULES)[:, 0], values / 2**23, rtol=1e-7)


def test_channels_are_mixed_by_their_mean_or_kept(tmp_path: Path) -> None:
    values = RNG.integers(-30000, 30000, (50, 2)).astype(np.int16)
    wavfile.write(tmp_path / "a.wav", 16000, values)
    mono = read_sound(tmp_path / "a.wav", WHOLE_RULES)
    np.testing.assert_allclose(mono[:, 0], values.mean(axis=1) / 2**15, rtol=1e-5, atol=1e-7)
    both = read_sound(tmp_path / "a.wav", AudioRules(16000, channels=2, length=1))
    np.testing.assert_array_equal(both, values.astype(np.float32) / np.float32(2**15))
    line = refused(lambda: read_sound(tmp_path / "a.wav", AudioRules(16000, channels=3, length=1)))
    assert "has 2 channels, not 3" in line


@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_another_rate_is_reached_by_polyphase_filtering(tmp_path: Path, rate: int) -> None:
    values = tone(rate // 4, rate).astype(np.float32)
    wavfile.write(tmp_path / "a.wav", rate, values)
    got = read_sound(tmp_path / "a.wav", WHOLE_RULES)[:, 0]
    common = int(np.gcd(rate, 16000))
    np.testing.assert_array_equal(got, resample_poly(values, 16000 // common, rate // common))
    assert got.dtype == np.float32 and len(got) == 4000
    pure = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 16000)
    assert np.abs(got - pure)[200:-200].max() < 0.06  # the noise of `tone`


def riff(
    rate: int = 16000,
    tag: int = 1,
    channels: int = 1,
    bits: int = 16,
    data: bytes = b"\1\0\2\0",
    size: int | None = None,
) -> bytes:
    """A WAV file by hand, so that its header may lie."""
    align = channels * bits // 8
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, tag, channels, rate, rate * align % 2**32, align, bits)
    body = b"WAVE" + fmt + struct.pack("<4sI", b"data", len(data) if size is None else size) + data
    return struct.pack("<4sI", b"RIFF", len(body) if size is None else size + len(body) - len(data)) + body


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (riff(size=4000), "is truncated: shorter than its header says"),
        (riff(size=2**32 - 60), "is "),  # truncated, or more than there is memory for
        (riff()[:20], "is not a readable WAV file"),
        (riff()[:37], "is not a readable WAV file"),
        (b"", "is not a readable WAV file"),
        (b"OggS" + bytes(100), "is not a readable WAV file"),
        (riff(data=b""), "holds no sound"),
        (riff(rate=0), "has a sample rate of 0 Hz"),
        (riff(rate=10**6), "has a sample rate of 1000000 Hz"),
        (riff(tag=2), "is not a readable WAV file"),
        (riff(channels=0), "is not a readable WAV file"),
        (riff(tag=3, bits=32, data=struct.pack("<2f", 0.5, float("nan"))), "holds values that are not finite"),
    ],
)
def test_broken_recordings_are_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    line = refused(lambda: read_sound(tmp_path / "a.wav", WHOLE_RULES))
    assert "a.wav: " in line and expected in line
    (tmp_path / "a.wav").write_bytes(riff())  # the control: the file by hand is a good one
    np.testing.assert_array_equal(read_sound(tmp_path / "a.wav", WHOLE_RULES)[:, 0], np.array([1, 2]) / 2**15)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_of_a_recording_are_read_or_refused(tmp_path: Path, flips: list[tuple[int, int]]) -> None:
    content = bytearray(riff(data=bytes(range(40))))
    for place, value in flips:
        content[place] = value
    (tmp_path / "a.wav").write_bytes(content)
    try:
        got = read_sound(tmp_path / "a.wav", WHOLE_RULES)
    except InputRejected:
        return
    assert got.dtype == np.float32 and got.shape[1] == 1 and len(got)


STREAM = (
    TensorSpec("input", "float32", (1, 6)),
    TensorSpec("state", "float32", (2, 1)),
    TensorSpec("sr", "int64", ()),
)
FRAMES = """
[state]
stateN = "state"
[inputs.input]
reader = "audio"
rate = 16000
frame = 6
hop = 4
lead = 2
[inputs.sr]
value = 16000
"""


def recordings(
    folder: Path, lengths: Sequence[int] = (9, 8, 3), head: str = FRAMES, split: str = 'folder = "{}"'
) -> Path:
    for k, name in enumerate(SPLITS):
        (folder / name).mkdir(parents=True)
        for i, length in enumerate(lengths):
            wavfile.write(folder / name / f"{i}.wav", 16000, tone(length, seed=10 * k + i).astype(np.float32))
    return toml(folder, head, split)


def test_recordings_in_frames_are_sequences(tmp_path: Path) -> None:
    info, out = prepare(recordings(tmp_path / "d"), tmp_path, *STREAM)
    assert info.state == {"stateN": "state"} and info.fed_inputs == ("input", "sr")
    assert info.splits["evaluation"].samples == 3 + 2 + 1
    np.testing.assert_array_equal(np.load(out / "evaluation" / "reset.npy"), [1, 0, 0, 1, 0, 1])
    frames = np.load(out / "evaluation" / "0.npy")
    first = tone(9, seed=20).astype(np.float32)
    np.testing.assert_array_equal(frames[0, 0], [0, 0, *first[:4]])
    np.testing.assert_array_equal(frames[1, 0], first[2:8])
    np.testing.assert_array_equal(frames[2, 0], [*first[6:9], 0, 0, 0])
    np.testing.assert_array_equal(np.load(out / "evaluation" / "2.npy"), np.full(6, 16000))
    assert not np.load(out / "evaluation" / "1.npy").any()


def test_labels_of_recordings_are_by_frame_or_for_all(tmp_path: Path) -> None:
    source = recordings(tmp_path / "d", split='list = "{}.jsonl"')
    (source / "data.toml").write_text(
        (source / "data.toml").read_text() + "\n[labels]\nclasses = ['noise', 'speech']\n"
    )
    for split in SPLITS:
        lines = [
            {"input": f"{split}/0.wav", "label": [0, 1, 1]},
            {"input": f"{split}/1.wav", "label": "speech"},
            {"input": f"{split}/2.wav", "label": ["noise"], "start": False},
        ]
        (source / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    _, out = prepare(source, tmp_path, *STREAM)
    np.testing.assert_array_equal(np.load(out / "selection" / "labels.npy"), [0, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(np.load(out / "selection" / "reset.npy"), [1, 0, 0, 1, 0, 0])
    (source / "selection.jsonl").write_text(json.dumps({"input": "selection/0.wav", "label": [0, 1]}))
    assert "has 2 labels for a recording of 3 frames" in refusal(source, tmp_path, *STREAM)


def test_an_unreadable_recording_takes_its_frames_along(tmp_path: Path) -> None:
    source = recordings(tmp_path / "d")
    (source / "evaluation" / "1.wav").write_bytes(riff(size=4000))
    assert "evaluation/1.wav: is truncated" in refusal(source, tmp_path, *STREAM)
    info, out = prepare(source, tmp_path, *STREAM, skip_bad=True)
    np.testing.assert_array_equal(np.load(out / "evaluation" / "reset.npy"), [1, 0, 0, 1])
    assert any("1 of 3 samples of evaluation" in notice for notice in info.notices)


def test_recordings_of_a_fixed_length(tmp_path: Path) -> None:
    head = '[inputs.input]\nreader = "audio"\nrate = 16000\nlength = 6\nscale = 32768.0\n'
    _, out = prepare(recordings(tmp_path / "d", head=head), tmp_path, STREAM[0])
    got = np.load(out / "selection" / "0.npy")
    assert got.shape == (3, 1, 6)
    np.testing.assert_array_equal(got[0, 0], tone(9, seed=10).astype(np.float32)[:6] * np.float32(32768))
    np.testing.assert_array_equal(got[2, 0, 3:], 0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rate = 16000\n", "", "has no rate"),
        ("rate = 16000\n", "rate = 10\n", "rate must be from 1000 to 384000, not 10"),
        ("frame = 6", "frame = 6\nlength = 6", "needs either length or frame"),
        ("frame = 6\nhop = 4\nlead = 2", "length = 6\nhop = 4", "hop and lead go with frame"),
        ("frame = 6\nhop = 4\nlead = 2", "", "needs either length or frame"),
        ("hop = 4", "hop = 0", "hop must be from 1 to"),
        ("frame = 6", "frame = 0", "frame must be from 1 to"),
        ("frame = 6", "frame = 5", "becomes [1, 5], but the model takes [1, 6]; write frame = 6"),
        ("value = 16000", "value = 0.5", "0.5 is no value of input 'sr', which takes int64"),
        ("value = 16000", "value = inf", "value must be a finite number"),
        ("value = 16000", 'value = 16000\nlayout = "N"', "'layout' says nothing to reader = \"value\""),
        ("value = 16000", 'reader = "value"', "value must be a finite number"),
        ('folder = "calibration"', 'folder = "calibration"\nsequences = "s.npy"', "is a sequence already"),
    ],
)
def test_a_wrong_set_of_recordings_is_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    source = recordings(tmp_path / "d")
    text = (source / "data.toml").read_text()
    assert old in text
    (source / "data.toml").write_text(text.replace(old, new))
    assert expected in refusal(source, tmp_path, *STREAM)


# ----------------------------------------------------------------------------------------------------- raw numbers and npz


def test_raw_numbers_of_all_samples(tmp_path: Path) -> None:
    source = toml(
        tmp_path / "d",
        '[inputs.image]\nreader = "bin"\nstored_dtype = "uint8"\nstored_shape = [3, 6, 8]\nscale = 0.5\n',
        'samples = 4\nfiles = {{ image = "{}.bin" }}',
    )
    stored = RNG.integers(0, 256, (12, 3, 6, 8)).astype(np.uint8)
    for k, split in enumerate(SPLITS):
        (source / f"{split}.bin").write_bytes(stored[4 * k : 4 * k + 4].tobytes())
    _, out = prepare(source, tmp_path)
    np.testing.assert_array_equal(np.load(out / "selection" / "0.npy")[:, 0], stored[4:8] * np.float32(0.5))
    (source / "selection.bin").write_bytes(stored.tobytes()[:-1])
    line = refusal(source, tmp_path)
    assert "selection.bin: holds 1727 bytes, not a whole number of samples of [3, 6, 8] uint8, 144 bytes each" in line
    toml(source, "", 'samples = 4\nfiles = {{ image = "{}.bin" }}')
    assert 'does not say what numbers it holds; write [inputs.image] reader = "bin"' in refusal(source, tmp_path)
    toml(
        source, '[inputs.image]\nreader = "bin"\nstored_dtype = "uint"\n', 'samples = 4\nfiles = {{ image = "{}.bin" }}'
    )
    assert "unknown stored_dtype 'uint'; did you mean 'uint8'?" in refusal(source, tmp_path)


def test_raw_numbers_are_of_the_models_own_type_unless_said(tmp_path: Path) -> None:
    values = RNG.normal(size=(12, 1, 2)).astype(np.float32)
    for dtype, content in (("float32", values.astype("<f4")), ("bfloat16", to_bfloat16(values))):
        source = toml(tmp_path / dtype, '[inputs.x]\nreader = "bin"\n', 'folder = "{}"')
        for k, split in enumerate(SPLITS):
            (source / split).mkdir()
            for i in range(4):
                (source / split / f"{i}.bin").write_bytes(content[4 * k + i].tobytes())
        _, out = prepare(source, tmp_path, TensorSpec("x", dtype, (1, 2)))
        np.testing.assert_array_equal(np.load(out / "evaluation" / "0.npy"), content[8:])
        (source / "evaluation" / "2.bin").write_bytes(content[:2].tobytes())
        assert "2.bin: holds 2 samples, not one" in refusal(source, tmp_path, TensorSpec("x", dtype, (1, 2)))


def test_raw_bools_are_zeros_and_ones(tmp_path: Path) -> None:
    source = toml(tmp_path / "d", '[inputs.x]\nreader = "bin"\n', 'samples = 2\nfiles = {{ x = "{}.bin" }}')
    for k, split in enumerate(SPLITS):
        (source / f"{split}.bin").write_bytes(bytes([k & 1, k >> 1, 0, 0, 1, 1]))
    spec = TensorSpec("x", "bool", (3,))
    assert np.load(prepare(source, tmp_path, spec)[1] / "selection" / "0.npy").tolist()[0] == [True, False, False]
    (source / "selection.bin").write_bytes(bytes([2, 0, 0, 1, 1, 1]))
    assert "holds bytes above 1 where bools are declared" in refusal(source, tmp_path, spec)


def test_members_of_an_npz(tmp_path: Path) -> None:
    source = toml(tmp_path / "d", "", 'samples = 3\nfiles = {{ image = "all.npz:{}" }}\nlabels = "all.npz:labels"')
    arrays = {split: RNG.random((3, 3, 6, 8), np.float32) for split in SPLITS}
    np.savez(source / "all.npz", labels=np.arange(3), **arrays)
    info, out = prepare(source, tmp_path)
    assert info.labelled
    np.testing.assert_array_equal(np.load(out / "evaluation" / "0.npy")[:, 0], arrays["evaluation"])
    arrays["selektion"] = arrays.pop("selection")
    np.savez(source / "all.npz", labels=np.arange(3), **arrays)
    assert "all.npz: has no array 'selection'; did you mean 'selektion'?" in refusal(source, tmp_path)


def test_a_folder_of_arrays_one_a_sample(tmp_path: Path) -> None:
    source = toml(tmp_path / "d", '[inputs.image]\nreader = "array"\nscale = 2.0')
    for k, split in enumerate(SPLITS):
        (source / split).mkdir()
        for i in range(3):
            np.save(source / split / f"{i}.npy", np.full((3, 6, 8), 10 * k + i, np.int16))
    _, out = prepare(source, tmp_path)
    assert np.load(out / "selection" / "0.npy")[:, 0, 0, 0, 0].tolist() == [20, 22, 24]
    np.save(source / "selection" / "1.npy", np.zeros((3, 8, 6), np.int16))
    assert "selection/1.npy: has shape [3, 8, 6], but input 'image' takes" in refusal(source, tmp_path)
    assert prepare(source, tmp_path, skip_bad=True)[0].splits["selection"].samples == 2


def test_arrays_whose_channels_are_elsewhere_are_told_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=np.zeros((8, 6, 8, 3), np.float32))
    line = refusal(tmp_path / "a.npz", tmp_path)
    assert "has shape [8, 6, 8, 3], but input 'image' takes samples of [1, 3, 6, 8]" in line
    assert "it looks like HWC, the model takes NCHW" in line


# ------------------------------------------------------------------------------------------------------------------ lists

TOKENS = TensorSpec("ids", "int64", (1, 4))


def listed(folder: Path, head: str = "", lines: Sequence[Any] = (), spec: str = "ids") -> Path:
    """Three lists of token ids; `lines` replaces those of selection, text as it is."""
    toml(folder, f'{head}\n[inputs.{spec}]\nreader = "jsonl"\n', 'list = "{}.jsonl"')
    for k, split in enumerate(SPLITS):
        own = [{spec: [10 * k + i, 1, 2, 3], "label": i % 2} for i in range(3)]
        chosen = lines if lines and split == "selection" else own
        (folder / f"{split}.jsonl").write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in chosen))
    return folder


def test_numbers_in_lines(tmp_path: Path) -> None:
    info, out = prepare(listed(tmp_path / "d"), tmp_path, TOKENS)
    assert info.labelled
    np.testing.assert_array_equal(np.load(out / "selection" / "0.npy")[:, 0, 0], [10, 11, 12])
    np.testing.assert_array_equal(np.load(out / "selection" / "labels.npy"), [0, 1, 0])
    assert not (out / "selection" / "reset.npy").exists()


def test_whole_numbers_in_lines_are_floats_where_the_model_takes_floats(tmp_path: Path) -> None:
    lines = [{"ids": [1, 2, 3, 4]}, {"ids": [[1.5, 2, 3, 4]]}]
    source = listed(tmp_path / "d", lines=lines)
    for split in ("calibration", "evaluation"):
        (source / f"{split}.jsonl").write_text(json.dumps({"ids": [len(split), 0, 0, 0.25]}))
    info, out = prepare(source, tmp_path, TensorSpec("ids", "float32", (1, 4)))
    np.testing.assert_array_equal(np.load(out / "selection" / "0.npy")[:, 0, 0], [1, 1.5])
    assert not any("stored as" in notice for notice in info.notices)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"ids": [1, 2, 3, 4]', "is not a JSON object"),
        ("[1, 2]", "is not a JSON object"),
        ('{"ids": [1, 2, 3, NaN]}', "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ({"id": [1, 2, 3, 4]}, "unknown key 'id'; did you mean 'ids'?"),
        ({"label": 0}, "has no 'ids'"),
        ({"ids": [1, 2, 3], "label": 0}, "'ids': has shape [3], but input 'ids' takes samples of [1, 4]"),
        ({"ids": [1, [2], 3, 4], "label": 0}, "'ids' is not an array"),
        ({"ids": [1, 2, 3, None], "label": 0}, "'ids' holds text, null or numbers beyond 64 bits, but"),
        ({"ids": "text", "label": 0}, "'ids' holds text, null"),
        ({"ids": [1, 2, 3, 0.5], "label": 0}, "'ids' holds fractions or numbers beyond 64 bits, but the model takes int64"),
        ({"ids": [True, False, True, True], "label": 0}, "'ids' holds true and false"),
        ({"ids": [1, 2, 3, 2**63], "label": 0}, "'ids' holds fractions or numbers beyond 64 bits"),
        ({"ids": [1, 2, 3, 2**70], "label": 0}, "'ids' "),
        ({"ids": [1, 2, 3, 4]}, "sample 1 has no label, others have"),
        ({"ids": [1, 2, 3, 4], "label": "dog"}, "has the label 'dog', but no classes are named"),
        ({"ids": [1, 2, 3, 4], "label": None}, "its label is neither a number, a name nor a list of one kind"),
        ({"ids": [1, 2, 3, 4], "label": {"a": 1}}, "its label is neither a number, a name nor a list of one kind"),
        ({"ids": [1, 2, 3, 4], "label": [[1, 2], [3]]}, "its label is neither a number, a name nor a list of one kind"),
        ({"ids": [1, 2, 3, 4], "label": [1, 2]}, "some labels have 1 axes, others fewer"),
        ({"ids": [1, 2, 3, 4], "label": 0, "start": "yes"}, "start must be true or false"),
        ({"ids": [1, 2, 3, 4], "label": 0, "start": True}, "must hold one 0 or 1 a sample and begin with 1"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_with_its_number(tmp_path: Path, line: Any, expected: str) -> None:
    good = {"ids": [7, 7, 7, 7], "label": 1}
    text = refusal(listed(tmp_path / "d", lines=[good, line]), tmp_path, TOKENS)
    assert expected in text
    assert "selection.jsonl line 2" in text or "[splits.selection]" in text


def test_a_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.data.listing.MAX_LINE_BYTES", 60)
    listed(tmp_path / "d", lines=[{"ids": [1, 2, 3, 4], "label": 0}])
    prepare(tmp_path / "d", tmp_path, TOKENS)
    listed(tmp_path / "d", lines=[{"ids": [1, 2, 3, 4] * 10, "label": 0}])
    assert "line 1 is longer than" in refusal(tmp_path / "d", tmp_path, TOKENS)


def test_labels_by_name_and_by_text(tmp_path: Path) -> None:
    named = [{"ids": [7, 7, 7, 7], "label": "dog"}, {"ids": [8, 7, 7, 7], "label": "cat"}]
    source = listed(tmp_path / "d", '[labels]\nclasses = ["cat", "dog"]', named)
    assert np.load(prepare(source, tmp_path, TOKENS)[1] / "selection" / "labels.npy").tolist() == [1, 0]
    named[0]["label"] = "dogs"
    listed(source, '[labels]\nclasses = ["cat", "dog"]', named)
    assert "line 1: 'dogs' is not one of the 2 classes; did you mean 'dog'?" in refusal(source, tmp_path, TOKENS)
    named[0]["label"] = 2  # type: ignore[assignment]
    listed(source, '[labels]\nclasses = ["cat", "dog"]', named)
    assert "line 1: label 2 is outside 0..1, the declared classes" in refusal(source, tmp_path, TOKENS)
    texts = [{"ids": [i, 7, 7, 7], "label": text} for i, text in enumerate(["aba", "", "c"])]
    alphabet = '[labels]\nalphabet = "abc"'
    listed(source, alphabet, texts)
    for split in ("calibration", "evaluation"):
        (source / f"{split}.jsonl").write_text(json.dumps({"ids": [len(split), 0, 0, 0], "label": "abc"}))
    got = np.load(prepare(source, tmp_path, TOKENS)[1] / "selection" / "labels.npy")
    np.testing.assert_array_equal(got, [[1, 2, 1], [-1, -1, -1], [3, -1, -1]])
    (source / "selection.jsonl").write_text(json.dumps({"ids": [1, 0, 0, 0], "label": "abd"}))
    assert "has 'd' in its label, which the alphabet lacks" in refusal(source, tmp_path, TOKENS)


def test_boxes_are_filled_with_nan_and_sequences_with_minus_one() -> None:
    boxes = [np.array([[1, 2, 3, 4, 0]]), np.zeros(0, np.int64), np.array([[1, 2, 3, 4, 0], [5, 6, 7, 8, 1]])]
    got = stacked(boxes, "here")
    assert got.shape == (3, 2, 5) and got.dtype == np.float64
    assert np.isnan(got[1]).all() and np.isnan(got[0, 1]).all() and got[2, 1].tolist() == [5, 6, 7, 8, 1]
    assert stacked([np.array([1, 2]), np.array([3])], "here").tolist() == [[1, 2], [3, -1]]
    assert np.isnan(stacked([np.array([1.0, 2.0]), np.array([3.0])], "here")[1, 1])
    assert stacked([np.array(1), np.array(2)], "here").dtype == np.int64


@pytest.mark.parametrize("path", ["../outside.png", "/etc/hostname", "link.png", "a/../../outside.png", "a\0b"])
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_path_in_a_list_never_leaves_the_folder(tmp_path: Path, path: str, skip_bad: bool) -> None:
    save(tmp_path / "outside.png", RGB)
    source = pictures(tmp_path / "d", split='list = "{}.jsonl"')
    (source / "link.png").symlink_to(tmp_path / "outside.png")
    for split in SPLITS:
        (source / f"{split}.jsonl").write_text("\n".join(json.dumps({"image": f"{split}/{i}.png"}) for i in (1, 2, 3)))
    prepare(source, tmp_path)  # the control
    with (source / "selection.jsonl").open("a") as stream:
        stream.write("\n" + json.dumps({"image": path}))
    assert "lies outside the data set's folder" in refusal(source, tmp_path, skip_bad=skip_bad)


def test_a_path_in_a_list_may_have_a_digest(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    for split in SPLITS:
        (source / f"{split}.jsonl").write_text("\n".join(json.dumps({"image": f"{split}/{i}.png"}) for i in (1, 2, 3)))
    digests = {name: sha256_file(source / name) for name in ("selection.jsonl", "selection/2.png")}
    inline = ", ".join(f'"{name}" = "{digest}"' for name, digest in digests.items())
    of_selection = {"selection": f"sha256 = {{ {inline} }}"}
    toml(source, STRAIGHT, lambda split: f'list = "{split}.jsonl"\n{of_selection.get(split, "")}')
    prepare(source, tmp_path)
    save(source / "selection" / "2.png", RGB)
    assert "selection/2.png: does not have the sha256" in refusal(source, tmp_path)


def test_only_a_path_stands_for_a_file(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d", split='list = "{}.jsonl"')
    for split in SPLITS:
        (source / f"{split}.jsonl").write_text(json.dumps({"image": [1, 2]}))
    line = refusal(source, tmp_path)
    assert "'image' must be the path of a file; or write reader = \"jsonl\" under [inputs.image]" in line


def test_an_input_named_as_a_lists_own_keys_needs_files(tmp_path: Path) -> None:
    source = listed(tmp_path / "d", spec="label")
    assert "a list can't feed an input named 'label'; use files" in refusal(
        source, tmp_path, TensorSpec("label", "int64", (1, 4))
    )


# ------------------------------------------------------------------------------------------------------ folders without one


def followed(line: str, folder: Path) -> None:
    """Write the data.toml that a refusal shows."""
    text = line.partition("as in training: ")[2]
    assert text.startswith("schema = 1 | ")
    (folder / "data.toml").write_text(text.replace(" | ", "\n"))


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("image", "float32", (1, 3, 6, 8)),
        TensorSpec("in put:0", "float32", (1, 6, 8, 1)),
        TensorSpec("x", "uint8", (6, 8, 3)),
    ],
)
def test_images_alone_are_refused_with_the_data_toml_to_write(tmp_path: Path, spec: TensorSpec) -> None:
    source = pictures(tmp_path / "d")
    (source / "data.toml").unlink()
    line = refusal(source, tmp_path, spec)
    assert "holds images, but no data.toml" in line
    assert "size = [6, 8]" in line and "put the files" not in line
    followed(line, source)
    info, _ = prepare(source, tmp_path, spec)
    assert info.splits["evaluation"].samples == 3


@pytest.mark.parametrize("name", ["train/a.jpg", "Val/a.jpg", "mine/cat/a.jpg"])
def test_images_in_other_splits_are_told_to_be_named(tmp_path: Path, name: str) -> None:
    save(tmp_path / "d" / name, RGB)
    line = refusal(tmp_path / "d", tmp_path)
    assert "put the files into folders calibration, selection, evaluation and write data.toml" in line


@pytest.mark.parametrize("labelled", [False, True])
def test_one_folder_of_images_is_told_to_be_divided_and_is(tmp_path: Path, labelled: bool) -> None:
    """In itself, or in classes; a data.toml among them is no sample."""
    for i in range(8):
        save(tmp_path / "d" / ("ab"[i % 2] if labelled else "") / f"{i}.png", pixels(i))
    line = refusal(tmp_path / "d", tmp_path)
    assert 'all = { folder = "." }' in line and "put the files" not in line
    followed(line, tmp_path / "d")
    info, out = prepare(tmp_path / "d", tmp_path)
    assert {name: split.samples for name, split in info.splits.items()} == dict(zip(SPLITS, (2, 2, 4), strict=True))
    assert info.labelled is labelled
    assert any("8 samples were divided into 2 calibration, 2 selection, 4 evaluation" in n for n in info.notices)
    assert info == prepare(tmp_path / "d", tmp_path)[0]
    if labelled:
        assert np.load(out / "evaluation" / "labels.npy").tolist().count(0) == 2  # each class in proportion


def test_what_is_to_be_divided_is_one_split_alone(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    text = (source / "data.toml").read_text()
    (source / "data.toml").write_text(text.replace("[splits.calibration]", "[splits.all]"))
    assert "has [splits.all] beside others; keep all, which is divided, or the others" in refusal(source, tmp_path)
    (source / "data.toml").write_text(text.replace("[splits.evaluation]", "[splits.al]"))
    assert "unknown key 'al'; did you mean 'all'?" in refusal(source, tmp_path)


def sequences(out: Path) -> set[bytes]:
    """The frames of each recording, over all splits."""
    found = set()
    for name in SPLITS:
        begins = np.flatnonzero(np.load(out / name / "reset.npy"))
        assert begins[0] == 0
        found |= {rows.tobytes() for rows in np.split(np.load(out / name / "0.npy"), begins[1:])}
    return found


def test_a_division_cuts_no_recording_in_two(tmp_path: Path) -> None:
    source = recordings(tmp_path / "d")
    _, declared = prepare(source, tmp_path, *STREAM)
    for name in SPLITS[1:]:
        for file in (source / name).iterdir():
            file.rename(source / SPLITS[0] / f"{name}{file.name}")
    text = (source / "data.toml").read_text().partition("[splits.")[0]
    (source / "data.toml").write_text(f'{text}[splits.all]\nfolder = "calibration"')
    _, out = prepare(source, tmp_path, *STREAM)
    assert [int(np.load(out / name / "reset.npy").sum()) for name in SPLITS] == [2, 2, 5]
    assert sequences(out) == sequences(declared) and len(sequences(out)) == 9
    for file in [*(source / "calibration").iterdir()][3:]:
        file.unlink()
    assert "holds 3 sequences, too few to divide" in refusal(source, tmp_path, *STREAM)


def test_images_for_a_model_of_another_kind(tmp_path: Path) -> None:
    save(tmp_path / "d" / "a.jpg", RGB)
    line = refusal(tmp_path / "d", tmp_path, TensorSpec("ids", "int64", (1, 128)))
    assert "the model's inputs do not look like images: store arrays instead" in line


def test_recordings_alone_are_refused_with_the_data_toml_to_write(tmp_path: Path) -> None:
    source = recordings(tmp_path / "d")
    (source / "data.toml").unlink()
    line = refusal(source, tmp_path, STREAM[0])
    assert "holds WAV files, but no data.toml" in line
    followed(line, source)
    assert prepare(source, tmp_path, STREAM[0])[0].splits["selection"].samples == 3


# ------------------------------------------------------------------------------------------------------------------ bounds


def test_calibration_on_one_sample_is_noticed(tmp_path: Path) -> None:
    source = pictures(tmp_path / "d")
    for i in (2, 3):
        (source / "calibration" / f"{i}.png").unlink()
    info, _ = prepare(source, tmp_path)
    assert any(notice.startswith("calibrated on 1 sample") for notice in info.notices)
    assert not any("calibrated on" in n for n in prepare(pictures(tmp_path / "e"), tmp_path)[0].notices)


def test_what_samples_take_on_disk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(tmp_path / "d")
    monkeypatch.setattr(decode, "MAX_DECODED_BYTES", 3 * 144)
    prepare(source, tmp_path)
    monkeypatch.setattr(decode, "MAX_DECODED_BYTES", 3 * 144 - 1)
    line = refusal(source, tmp_path, skip_bad=True)
    assert "calibration/3.png: the samples up to here take more than" in line and "name fewer samples" in line


def test_what_is_fed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(tmp_path / "d")
    monkeypatch.setattr(read, "MAX_FEED_BYTES", 2 * 4 * 144)
    assert "calibration takes 0.0 GiB as fed to 'image'" in refusal(source, tmp_path)
    prepare(source, tmp_path, samples=2)


def test_memory_stays_bounded_while_images_are_decoded(tmp_path: Path) -> None:
    source = toml(tmp_path / "d", '[inputs.image]\nreader = "image"\n')
    for k, split in enumerate(SPLITS):
        for i in range(20):
            save(source / split / f"{i}.png", np.full((1024, 1024, 3), 20 * k + i, np.uint8), compress_level=1)
    info = sandbox.call(
        "edgekit.data.read:prepare_data",
        returns=DataSetInfo,
        limits=sandbox.Limits(rss_bytes=180 << 20),  # decoded they take as much
        source=source,
        inputs=[TensorSpec("image", "uint8", (1, 3, 1024, 1024))],
        out=tmp_path / "out",
        samples=None,
        skip_bad=True,
    )
    assert [split.samples for split in info.splits.values()] == [20, 20, 20]


# ---------------------------------------------------------------------------------------------------------- the reference

DOCS = (ROOT / "docs" / "data-toml.md").read_text()
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)


def test_the_reference_has_every_key() -> None:
    for entry in (Manifest, SplitEntry, InputEntry, LabelsEntry):
        for key in entry.__struct_encode_fields__:
            assert re.search(rf"`\[?{key}[\].`]", DOCS), key
    assert len(EXAMPLES) == 3


def example(folder: Path, which: int) -> Path:
    folder.mkdir()
    (folder / "data.toml").write_text(EXAMPLES[which])
    return folder


def test_the_example_of_images(tmp_path: Path) -> None:
    source = example(tmp_path / "d", 0)
    for k, split in enumerate(SPLITS):
        for c, name in enumerate(["cat", "dog"]):
            save(source / split / name / "1.jpg", pixels(10 * k + c, (300, 280, 3)))
    _, out = prepare(source, tmp_path, TensorSpec("input", "float32", (1, 3, 224, 224)))
    assert np.load(out / "evaluation" / "labels.npy").tolist() == [0, 1]
    resized = Image.open(source / "evaluation" / "cat" / "1.jpg").resize((256, 274), Image.Resampling.BILINEAR)
    cropped = np.asarray(resized)[25:249, 16:240].astype(np.float32) * np.float32(1 / 255)
    expected = (cropped - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    np.testing.assert_array_equal(np.load(out / "evaluation" / "0.npy")[0, 0], expected.transpose(2, 0, 1))


def test_the_example_of_recordings(tmp_path: Path) -> None:
    source = example(tmp_path / "d", 1)
    (source / "wav").mkdir()
    for k, split in enumerate(SPLITS):
        wavfile.write(source / "wav" / f"{k}.wav", 8000, tone(1000, 8000, seed=k).astype(np.float32))
        (source / f"{split}.jsonl").write_text(json.dumps({"input": f"wav/{k}.wav", "label": [0, 0, 1, 1]}))
    specs = (
        TensorSpec("input", "float32", (1, 576)),
        TensorSpec("state", "float32", (2, 1, 128)),
        TensorSpec("sr", "int64", ()),
    )
    _, out = prepare(source, tmp_path, *specs)
    frames = np.load(out / "selection" / "0.npy")
    assert frames.shape == (4, 1, 576)  # 2,000 samples at 16 kHz
    np.testing.assert_array_equal(frames[1:, 0, :64], frames[:-1, 0, 512:])
    assert not frames[0, 0, :64].any() and frames[0, 0, 64:].any()
    np.testing.assert_array_equal(np.load(out / "selection" / "labels.npy"), [0, 0, 1, 1])


def test_the_example_of_text(tmp_path: Path) -> None:
    source = example(tmp_path / "d", 2)
    line = re.search(r'`(\{"input_ids".*\})`', DOCS)
    assert line is not None
    for split in SPLITS:
        (source / f"{split}.jsonl").write_text(line[1].replace("101", str(len(split))))
    specs = [TensorSpec(name, "int64", (1, 4)) for name in ("input_ids", "attention_mask")]
    _, out = prepare(source, tmp_path, *specs)
    assert np.load(out / "evaluation" / "1.npy").tolist() == [[[1, 1, 0, 0]]]
    assert np.load(out / "evaluation" / "labels.npy").tolist() == [1]


def test_the_command_for_a_folders_digest(tmp_path: Path) -> None:
    for name in ("b/1.png", "b/10.png", "b/2.png", "B/x y.png", ".hidden/z.png", "a/.hidden", "a/ü.png"):
        save(tmp_path / "d" / name, RGB, format="PNG")
    command = re.search(r"`cd FOLDER && (.*?)` \|", DOCS)
    assert command is not None
    shell = command[1].replace("\\|", "|")
    done = subprocess.run(["/bin/sh", "-c", shell], cwd=tmp_path / "d", capture_output=True, text=True, check=True)
    assert folder_digest(tmp_path, "d", folder_files(tmp_path, "d")) == done.stdout.split()[0]
