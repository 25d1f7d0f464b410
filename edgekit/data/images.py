"""Image files to pixels, by Pillow: decoded, turned upright, in the contract's colours, resized and cropped; 8 bits a channel.

- Formats whose parsers Pillow itself carries or links; none that starts another program (EPS would start Ghostscript).
- An image is judged by its header before it is decoded: a small file may unpack to any size.
- Colours are the file's own numbers; embedded colour profiles are not applied. Transparency is dropped, not blended.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from edgekit.core.contract import ImageRules, crop_corner, letterbox_corner, resized_size
from edgekit.data.arrays import require_regular
from edgekit.errors import InputRejected

Array = NDArray[Any]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP")
SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tga", ".tif", ".tiff", ".webp")
)
MAX_PIXELS = 64 << 20  # 192 MiB of RGB; cameras end at about 50 million

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def read_image(path: Path, rules: ImageRules) -> Array:
    """The image as uint8 [H, W, C], channels in the order of `color`. Raises InputRejected when it can't be read or placed."""
    require_regular(path)
    where = str(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities of a file that can be read all the same
            image = _decoded(path, "L" if rules.color == "gray" else "RGB")
    except (InputRejected, MemoryError):
        raise
    except Exception as error:  # a decoder fed with rubbish may raise anything
        raise InputRejected(f"is not a readable image: {_one_line(error)}", where=where) from error
    pixels = placed(image, rules, where)
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    return pixels[..., ::-1] if rules.color == "BGR" else pixels


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


# --------------------------------------------------------------------------------------------------------------- decode


def _decoded(path: Path, mode: str) -> Image.Image:
    """The first frame, upright, in `mode`."""
    Image.init()
    try:
        opened = Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    with opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise _too_large(path)
        opened.load()
        return _converted(ImageOps.exif_transpose(opened), mode, path)


def _too_large(path: Path) -> InputRejected:
    return InputRejected(f"would decode to more than {MAX_PIXELS >> 20} Mi pixels", where=str(path))


def _converted(image: Image.Image, mode: str, path: Path) -> Image.Image:
    """In 8-bit `mode`; of 16 bits the upper 8, as Pillow itself does for 16-bit colour."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise InputRejected(
            "holds numbers of 32 bits, whose range is not known", where=str(path), next_step="store 8 or 16 bits"
        )
    return image if image.mode == mode else image.convert(mode)


# ---------------------------------------------------------------------------------------------------------------- place


def placed(image: Image.Image, rules: ImageRules, where: str) -> Array:
    """Resized, padded and cropped. Raises InputRejected for an image smaller than its crop, or one stretched beyond reason."""
    height, width = resized_size(image.height, image.width, rules)
    if height * width > MAX_PIXELS:
        raise InputRejected(f"is {image.width}x{image.height} and would be resized to {width}x{height}", where=where)
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), _RESAMPLING[rules.filter])
    pixels = np.asarray(image)
    if rules.resize == "letterbox":
        pixels = _letterboxed(pixels, rules)
    return _cropped(pixels, rules, where) if rules.crop else pixels


def _letterboxed(pixels: Array, rules: ImageRules) -> Array:
    height, width = pixels.shape[:2]
    top, left = letterbox_corner(height, width, rules)
    border = rules.pad[::-1] if rules.color == "BGR" else rules.pad  # pixels are still RGB here
    box = np.empty((*rules.size, *pixels.shape[2:]), np.uint8)
    box[:] = np.array(border if pixels.ndim == 3 else border[0], np.uint8)
    box[top : top + height, left : left + width] = pixels
    return box


def _cropped(pixels: Array, rules: ImageRules, where: str) -> Array:
    height, width = pixels.shape[:2]
    if height < rules.crop[0] or width < rules.crop[1]:
        raise InputRejected(
            f"is {width}x{height} after resizing, smaller than the crop of {rules.crop[1]}x{rules.crop[0]}",
            where=where,
            next_step='write resize = "shorter" or "stretch"',
        )
    top, left = crop_corner(height, width, rules)
    return pixels[top : top + rules.crop[0], left : left + rules.crop[1]]
