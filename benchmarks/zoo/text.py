"""Rendered text: lines and pages in varied fonts, sizes and colours, with slight blur and noise."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from benchmarks.zoo.dataset import Array
from edgekit.errors import InputRejected

FONT_ROOT = Path("/usr/share/fonts/truetype")
FONTS = (
    "dejavu/DejaVuSans.ttf",
    "dejavu/DejaVuSans-Bold.ttf",
    "dejavu/DejaVuSansMono.ttf",
    "dejavu/DejaVuSerif.ttf",
    "dejavu/DejaVuSerif-Bold.ttf",
    "liberation/LiberationMono-Regular.ttf",
    "liberation/LiberationSans-Bold.ttf",
    "liberation/LiberationSans-Italic.ttf",
    "liberation/LiberationSans-Regular.ttf",
    "liberation/LiberationSansNarrow-Regular.ttf",
    "liberation/LiberationSerif-Bold.ttf",
    "liberation/LiberationSerif-Italic.ttf",
    "liberation/LiberationSerif-Regular.ttf",
)
VOCABULARY = """
account address amount answer average balance battery before between bottle bridge camera carbon center change
circuit client coffee copper corner credit danger degree deliver design device digital distance document double
driver electric energy engine entrance evening example express factory fragile freight garden general ground
harbour heavy height hospital hydrogen import inspect invoice island journal junction kitchen ladder language
library liquid machine manual market master measure message mineral minute mobile module monday motor mountain
natural network number office orange order outlet oxygen package paper parcel passage payment pocket police power
pressure printer product quality quantity quarter radio railway receipt record region report river safety sample
school second sensor serial service signal silver simple square station storage street sunday supply switch
system table target temple ticket timber total traffic travel update valley vehicle voltage volume warning water
weather weekend weight window winter yellow zone
"""


def phrase(rng: np.random.Generator, words: int) -> str:
    """`words` words, some capitalized, and numbers, prices, dates and part codes."""
    return " ".join(_token(rng) for _ in range(words))


def line(rng: np.random.Generator, text: str) -> Image.Image:
    """`text` cropped as a detector would: a few pixels of background around it."""
    font = _font(str(rng.choice(FONTS)), int(rng.integers(14, 49)))
    paper, ink = _colours(rng)
    left, top, right, bottom = font.getbbox(text)
    margin = rng.integers(2, 8, size=4)
    size = (int(right - left + margin[0] + margin[1]), int(bottom - top + margin[2] + margin[3]))
    image = Image.new("RGB", size, paper)
    ImageDraw.Draw(image).text((margin[0] - left, margin[2] - top), text, fill=ink, font=font)
    return _wear(rng, image)


def page(rng: np.random.Generator, side: int) -> Image.Image:
    """A square page with text from top to bottom in one to four sizes of type."""
    paper, ink = _colours(rng)
    image = Image.new("RGB", (side, side), paper)
    draw, y = ImageDraw.Draw(image), int(rng.integers(5, 60))
    sizes = rng.integers(12, 44, size=int(rng.integers(1, 5)))
    while y < side - 50:
        size = int(rng.choice(sizes))
        text = phrase(rng, int(rng.integers(1, 8)))
        draw.text((int(rng.integers(5, side // 3)), y), text, fill=ink, font=_font(str(rng.choice(FONTS)), size))
        y += int(size * rng.uniform(1.2, 2.5))
    return _wear(rng, image)


def fitted(image: Image.Image, height: int, width: int) -> Array:
    """PP-OCR's resize: to `height`, keeping the ratio but at most `width` wide; uint8 [3, height, width] in BGR.

    What lies right of it is mid-grey: PP-OCR pads with 0 after normalizing to -1..1, which uint8 can say to 1/255 only.
    """
    used = min(width, -(-height * image.width // image.height))
    canvas = np.full((3, height, width), 128, np.uint8)
    canvas[:, :, :used] = bgr(image.resize((used, height), Image.Resampling.BILINEAR))
    return canvas


def bgr(image: Image.Image) -> Array:
    """uint8 [3, height, width], blue first."""
    return np.asarray(image)[:, :, ::-1].transpose(2, 0, 1)


def _token(rng: np.random.Generator) -> str:
    word = str(rng.choice(VOCABULARY.split()))
    number = int(rng.integers(1, 9999))
    forms = (word, word, word, word.capitalize(), word.capitalize(), word.upper())
    numbers = (
        f"{number}",
        f"{number / 100:.2f}",
        f"{word[:2].upper()}-{number}",
        f"{number % 28 + 1:02}/{number % 12 + 1:02}",
    )
    return str(rng.choice(numbers if rng.random() < 0.25 else forms))


def _colours(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Paper and ink, dark on light in three of four."""
    light, dark = (tuple(int(c) for c in rng.integers(low, low + 75, size=3)) for low in (180, 0))
    return (light, dark) if rng.random() < 0.75 else (dark, light)


def _wear(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    blurred = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.2))))
    noise = rng.normal(0, rng.uniform(0, 8), size=(image.height, image.width, 1))
    return Image.fromarray(np.clip(np.asarray(blurred) + noise, 0, 255).astype(np.uint8))


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    path = FONT_ROOT / name
    if not path.exists():
        raise InputRejected(
            "no such font", where=str(path), next_step="apt-get install fonts-dejavu-core fonts-liberation"
        )
    return ImageFont.truetype(str(path), size)
