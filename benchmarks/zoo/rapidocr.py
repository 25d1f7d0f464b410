"""PP-OCR as rapidocr ships it: text-line orientation, recognition and detection, on rendered text."""

from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from benchmarks.zoo import fetch, text
from benchmarks.zoo.dataset import Array, Case, Input, write

WHEEL = "rapidocr==3.10.0"
CLS_MODEL = ("ch_ppocr_mobile_v2.0_cls_mobile", "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c")
REC_MODEL = ("PP-OCRv6_rec_small", "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884")
DET_MODEL = ("PP-OCRv6_det_small", "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f")
SOURCE = f"PyPI {WHEEL}; text rendered with fonts-dejavu-core and fonts-liberation"
LICENSE = "Apache-2.0 (model), CC0-1.0 (rendered text)"
CLS_HEIGHT, CLS_WIDTH = 48, 192
REC_HEIGHT, REC_WIDTH = 48, 320
DET_SIDE, DET_THRESHOLD = 640, 0.3  # a pixel at or above it is text: the wheel's config.yaml, Det.thresh
LONGEST_LABEL = REC_WIDTH // 8  # the recognizer answers one step for 8 pixels


def make_cls(out: Path, cache: Path) -> None:
    """Labels: 0 upright, 1 turned by 180 degrees."""
    rng = np.random.default_rng(1)
    sizes = (100, 600, 1000)
    labels = rng.integers(0, 2, size=sum(sizes))
    images = [text.line(rng, text.phrase(rng, int(rng.integers(1, 4)))) for _ in labels]
    turned = [image.rotate(180) if label else image for image, label in zip(images, labels, strict=True)]
    write(
        Case(
            name="rapidocr-cls",
            summary="PP-OCR mobile v2.0 text-line orientation (0 or 180 degrees) on rendered lines",
            license=LICENSE,
            source=SOURCE,
            metric="top-1",
            model=_model(CLS_MODEL, cache),
            inputs={"x": _pixels([text.fitted(image, CLS_HEIGHT, CLS_WIDTH) for image in turned])},
            sizes=sizes,
            labels=labels.astype(np.int64),
            shapes=[f"x:1x3x{CLS_HEIGHT}x{CLS_WIDTH}"],
        ),
        out,
    )


def make_rec(out: Path, cache: Path) -> None:
    """Labels: CTC class indices, spaces included, padded with -1."""
    rng = np.random.default_rng(2)
    sizes = (100, 400, 800)
    model = _model(REC_MODEL, cache)
    lines = [_short_line(rng) for _ in range(sum(sizes))]
    classes = charset(model)
    write(
        Case(
            name="rapidocr-rec",
            summary="PP-OCRv6 small text recognition on rendered lines",
            license=LICENSE,
            source=SOURCE,
            metric="ctc-exact-match",
            model=model,
            inputs={"x": _pixels([text.fitted(image, REC_HEIGHT, REC_WIDTH) for _, image in lines])},
            sizes=sizes,
            labels=np.stack([ctc_label(written, classes, LONGEST_LABEL) for written, _ in lines]),
            shapes=[f"x:1x3x{REC_HEIGHT}x{REC_WIDTH}"],
        ),
        out,
    )


def make_det(out: Path, cache: Path) -> None:
    """No labels: agreement of the text masks, at the threshold that rapidocr takes."""
    rng = np.random.default_rng(3)
    sizes = (32, 60, 60)
    write(
        Case(
            name="rapidocr-det",
            summary="PP-OCRv6 small text detection on rendered pages, scored on agreement with its own masks at 0.3",
            license=LICENSE,
            source=SOURCE,
            metric="iou",
            metric_options={"threshold": DET_THRESHOLD},
            model=_model(DET_MODEL, cache),
            inputs={"x": _pixels([text.bgr(text.page(rng, DET_SIDE)) for _ in range(sum(sizes))])},
            sizes=sizes,
            shapes=[f"x:1x3x{DET_SIDE}x{DET_SIDE}"],
        ),
        out,
    )


def charset(model: bytes) -> dict[str, int]:
    """Character to class index: 0 is CTC's blank, then the model's own list, then the space."""
    properties = {p.key: p.value for p in onnx.load_from_string(model).metadata_props}
    characters = [*properties["character"].splitlines(), " "]
    return {character: i for i, character in enumerate(characters, start=1)}


def ctc_label(written: str, classes: dict[str, int], length: int) -> Array:
    """Class indices of `written`, int64 [length], padded with -1. Raises KeyError for an unknown character."""
    indices = [classes[character] for character in written]
    return np.array(indices + [-1] * (length - len(indices)), np.int64)


def _short_line(rng: np.random.Generator) -> tuple[str, Image.Image]:
    """A line that fits the recognizer's width without being squeezed."""
    while True:
        written = text.phrase(rng, int(rng.integers(1, 4)))
        image = text.line(rng, written)
        if image.width * REC_HEIGHT <= image.height * REC_WIDTH:
            return written, image


def _pixels(images: list[Array]) -> Input:
    """uint8 images that the model gets as x / 127.5 - 1, PP-OCR's normalization."""
    return Input(np.stack(images), scale=1 / 127.5, offset=-1.0)


def _model(name_and_sha256: tuple[str, str], cache: Path) -> bytes:
    name, sha256 = name_and_sha256
    return fetch.wheel_file(WHEEL, f"rapidocr/models/{name}.onnx", sha256, cache)
