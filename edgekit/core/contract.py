"""The preprocessing contract: what becomes of a stored sample before the model sees it. Pure records and their geometry.

The order of operations is the same for every reader; what a contract does not ask for is left out:

1. decode. An image: its first frame, turned as EXIF says, as 8-bit `color`. A sound: its integers over full scale, -1..1. Anything
   else: the numbers as they are stored.
2. An image: `resize`, then a centre `crop`. A sound: `channels`, then `rate`, then `length`, or `lead`, `frame` and `hop`.
3. `layout`: the axes in the model's order.
4. float32 arithmetic: ((stored * scale + offset) - mean) / std.
5. `dtype`, the model's; integers are rounded to the nearest, ties to even.
"""

from dataclasses import dataclass

from edgekit.core.types import Shape

READERS = ("array", "image", "audio", "bin", "jsonl", "value")
COLORS = {"RGB": 3, "BGR": 3, "gray": 1}
RESIZES = ("none", "stretch", "shorter", "letterbox")
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
ALIGNS = ("center", "top-left")

# Where several fit a shape the first is meant.
IMAGE_LAYOUTS = ("NCHW", "NHWC", "CHW", "HWC", "NHW", "HW")
SOUND_LAYOUTS = ("NT", "T", "NCT", "NTC", "CT", "TC")


@dataclass(frozen=True)
class ImageRules:
    """How pixels are placed. Sizes are (height, width); `size` of "shorter" is one number, the shorter side.

    `pad` is what a letterbox is filled with: 0..255, one value or one for each channel in the order of `color`.
    """

    color: str = "RGB"
    resize: str = "none"
    size: tuple[int, ...] = ()
    filter: str = "bilinear"
    pad: tuple[int, ...] = (0,)
    align: str = "center"
    crop: tuple[int, ...] = ()


@dataclass(frozen=True)
class AudioRules:
    """How a recording is cut. `rate` is in Hz; the others but `channels` count samples at that rate.

    Either `length`, one sample a recording, cut or filled with zeros at its end; or `frame` and `hop`: a recording is a sequence of
    frames, `lead` zeros before it, the last frame filled with zeros.
    """

    rate: int
    channels: int = 1
    length: int = 0
    frame: int = 0
    hop: int = 0
    lead: int = 0


@dataclass(frozen=True)
class RawRules:
    """What lies in a file of plain numbers: samples of `shape`, little-endian, one after another."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Contract:
    """One input's contract. `reader` says which of `image`, `audio`, `raw` and `value` is there.

    `mean` and `std` hold nothing, one value, or one for each channel. `value` fills an input that is the same for every sample.
    """

    reader: str
    dtype: str
    layout: str = ""
    scale: float = 1.0
    offset: float = 0.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    image: ImageRules | None = None
    audio: AudioRules | None = None
    raw: RawRules | None = None
    value: float | None = None

    @property
    def has_arithmetic(self) -> bool:
        return self.scale != 1 or self.offset != 0 or bool(self.mean) or bool(self.std)


# ------------------------------------------------------------------------------------------------------------- geometry


def resized_size(height: int, width: int, rules: ImageRules) -> tuple[int, int]:
    """Height and width after `resize`, before padding.

    - shorter: the longer side is floor(size * longer / shorter), as torchvision.transforms.Resize has it.
    - letterbox: both sides times min(H / height, W / width), rounded, as Ultralytics' LetterBox has it; never 0.
    """
    if rules.resize == "none":
        return height, width
    if rules.resize == "shorter":
        short, long = sorted((height, width))
        longer = rules.size[0] * long // short
        return (rules.size[0], longer) if height <= width else (longer, rules.size[0])
    if rules.resize == "letterbox":
        ratio = min(rules.size[0] / height, rules.size[1] / width)
        return max(1, round(height * ratio)), max(1, round(width * ratio))
    return rules.size[0], rules.size[1]


def letterbox_corner(height: int, width: int, rules: ImageRules) -> tuple[int, int]:
    """Top and left of a resized image in its letterbox; of an odd border the smaller half is on the top and the left."""
    if rules.align == "top-left":
        return 0, 0
    return (rules.size[0] - height) // 2, (rules.size[1] - width) // 2


def crop_corner(height: int, width: int, rules: ImageRules) -> tuple[int, int]:
    """Top and left of the centre crop: half of what is left over, ties to even, as torchvision's center_crop has it."""
    return round((height - rules.crop[0]) / 2), round((width - rules.crop[1]) / 2)


def frame_count(samples: int, rules: AudioRules) -> int:
    """Frames of a recording of `samples` samples: as many as it takes to hold every one of them, one at least."""
    beyond = rules.lead + samples - rules.frame
    return 1 + max(0, -(-beyond // rules.hop))


# ---------------------------------------------------------------------------------------------------------------- shape


def output_shape(contract: Contract) -> Shape | None:
    """The tensor's shape. "H" and "W" where each image decides; None where the numbers are taken as they are stored."""
    axes = axes_of(contract)
    return None if axes is None else tuple(axes[letter] for letter in contract.layout)


def axes_of(contract: Contract) -> dict[str, int | str] | None:
    """Sizes by axis letter, of those that `layout` may name; None where the numbers are taken as they are stored."""
    if contract.image is not None:
        rules = contract.image
        decided = rules.crop or (rules.size if rules.resize in ("stretch", "letterbox") else ("H", "W"))
        return {"N": 1, "C": COLORS[rules.color], "H": decided[0], "W": decided[1]}
    if contract.audio is not None:
        sound = contract.audio
        return {"N": 1, "C": sound.channels, "T": sound.frame or sound.length}
    return None


def fits(yields: Shape | None, wanted: Shape) -> bool:
    """Equal, but for what each image decides by itself: a letter fits any fixed axis."""
    if yields is None:
        return True
    return len(yields) == len(wanted) and all(
        isinstance(want, int) and (isinstance(own, str) or own == want)
        for own, want in zip(yields, wanted, strict=True)
    )


@dataclass(frozen=True)
class ImageLike:
    """A tensor's shape read as that of one image."""

    layout: str
    color: str
    height: int
    width: int


def image_like(shape: Shape) -> ImageLike | None:
    """`shape` as one image of 1 or 3 channels; None when it can't be one."""
    for layout in IMAGE_LAYOUTS:
        if len(layout) == len(shape):
            axes = {"N": 1, "C": 1, **dict(zip(layout, shape, strict=True))}
            height, width = axes["H"], axes["W"]
            if axes["N"] == 1 and axes["C"] in (1, 3) and isinstance(height, int) and isinstance(width, int):
                return ImageLike(layout, "gray" if axes["C"] == 1 else "RGB", height, width)
    return None


@dataclass(frozen=True)
class SoundLike:
    """A tensor's shape read as that of a piece of sound."""

    layout: str
    channels: int
    length: int


def sound_like(shape: Shape) -> SoundLike | None:
    """`shape` as sound along its longest axis; None when it can't be."""
    for layout in SOUND_LAYOUTS:
        if len(layout) == len(shape):
            axes = {"N": 1, "C": 1, **dict(zip(layout, shape, strict=True))}
            length, channels = axes["T"], axes["C"]
            if axes["N"] == 1 and isinstance(length, int) and isinstance(channels, int) and channels <= length:
                return SoundLike(layout, channels, length)
    return None
