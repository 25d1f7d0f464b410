"""Other ways a sample may have been prepared for training: what is tried when a data set is checked against labels.

- Each is what people get wrong most: the range, the order of colours, ImageNet's mean and std, channels first or last.
- They start from the tensors as declared, float32 [n, *shape], and give tensors of the same shape.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgekit.core.contract import ImageLike, image_like
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array

# Of RGB in 0..1, over ImageNet's training images: torchvision's pretrained models, PyTorch documentation, "Models".
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Alternative:
    """`name` says what is done, as a user may write it; `apply` does it to a block."""

    name: str
    apply: Callable[[Array], Array]


def alternatives(spec: TensorSpec, low: float, high: float) -> tuple[Alternative, ...]:
    """What is worth trying of an input whose values lie in `low`..`high` as declared."""
    found = []
    if 1.5 < high <= 255 and low >= 0:
        found.append(Alternative("values divided by 255 (scale = 0.00392156862745098)", lambda x: x / np.float32(255)))
    if low >= 0 and high <= 1:
        found.append(Alternative("values times 255 (scale = 255 times what it is)", lambda x: x * np.float32(255)))
    like = image_like(spec.shape)
    if like is None or like.color == "gray":
        return tuple(found)
    found.append(Alternative("colours reversed (BGR for RGB, or RGB for BGR)", lambda x: np.flip(x, _channels(like))))
    if low >= 0 and high <= 255:
        unit = np.float32(255 if high > 1.5 else 1)
        mean, std = (f"[{', '.join(map(str, side))}]" for side in (IMAGENET_MEAN, IMAGENET_STD))
        found.append(
            Alternative(f"ImageNet's mean = {mean} and std = {std} of 0..1", lambda x: _normalized(x / unit, like))
        )
    other = "last" if _first(like) else "first"
    found.append(Alternative(f"channels taken to have come {other}", lambda x: reread(x, like).reshape(x.shape)))
    return tuple(found)


def reread(block: Array, like: ImageLike) -> Array:
    """The same memory taken to be in the other layout, put into the declared one: [n, C, H, W] or [n, H, W, C]."""
    n = len(block)
    if _first(like):
        return np.moveaxis(block.reshape(n, like.height, like.width, 3), -1, 1)
    return np.moveaxis(block.reshape(n, 3, like.height, like.width), 1, -1)


def roughness(block: Array, like: ImageLike) -> tuple[float, float]:
    """The mean difference of neighbours along rows and columns, as declared and read in the other layout."""

    def of(images: Array) -> float:
        axes = (2, 3) if _first(like) else (1, 2)
        return sum(float(np.abs(np.diff(images, axis=axis)).mean()) for axis in axes)

    shape = (3, like.height, like.width) if _first(like) else (like.height, like.width, 3)
    with np.errstate(invalid="ignore", over="ignore"):
        return of(block.reshape(-1, *shape)), of(reread(block, like))


def _first(like: ImageLike) -> bool:
    return like.layout.index("C") < like.layout.index("H")


def _channels(like: ImageLike) -> int:
    return 1 + like.layout.index("C")


def _normalized(block: Array, like: ImageLike) -> Array:
    shape = [1] * block.ndim
    shape[_channels(like)] = 3
    mean, std = (np.array(side, np.float32).reshape(shape) for side in (IMAGENET_MEAN, IMAGENET_STD))
    normalized: Array = (block - mean) / std
    return normalized
