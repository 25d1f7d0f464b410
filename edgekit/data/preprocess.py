"""What a contract does to numbers: axes in the model's order, frames, and the arithmetic. Decoded or stored, every split alike.

Steps 2 (of recordings), 3 and 4 of `core/contract.py`; blocks have their samples along the first axis.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.contract import AudioRules, Contract, frame_count

Array = NDArray[Any]


def framed(sound: Array, rules: AudioRules) -> Array:
    """A recording [T, C] as [k, frame, C], or as [1, length, C]; what it lacks at its ends is zeros. A view where it can be one."""
    if not rules.frame:
        return _filled(sound[: rules.length], 0, rules.length)[np.newaxis]
    frames = frame_count(len(sound), rules)
    whole = _filled(sound, rules.lead, (frames - 1) * rules.hop + rules.frame)
    windows = np.lib.stride_tricks.sliding_window_view(whole, rules.frame, axis=0)[:: rules.hop][:frames]
    return windows.transpose(0, 2, 1)


def _filled(sound: Array, before: int, length: int) -> Array:
    """`sound` with `before` zeros ahead, cut or filled to `length`."""
    kept = sound[: max(0, length - before)]
    result: Array = np.zeros((length, *sound.shape[1:]), sound.dtype)
    result[before : before + len(kept)] = kept
    return result


def laid_out(block: Array, axes: str, layout: str) -> Array:
    """[n, *axes] as [n, *layout]: N is a new axis of 1; C, the last of `axes`, is dropped where `layout` has none."""
    letters = layout.replace("N", "")
    if "C" not in letters:
        block = block[..., 0]
    moved = block.transpose(0, *(1 + axes.index(letter) for letter in letters))
    return np.expand_dims(moved, 1 + layout.index("N")) if "N" in layout else moved


def arithmetic(stored: Array, contract: Contract) -> Array:
    """((stored * scale + offset) - mean) / std of a block [n, *shape], each step in float32; `stored` itself when there is none."""
    if not contract.has_arithmetic:
        return stored
    values: Array = stored.astype(np.float32)
    if contract.scale != 1 or contract.offset != 0:
        values = values * np.float32(contract.scale) + np.float32(contract.offset)
    if contract.mean:
        values = values - _by_channel(contract.mean, contract.layout, values.ndim)
    if contract.std:
        values = values / _by_channel(contract.std, contract.layout, values.ndim)
    return values


def _by_channel(given: tuple[float, ...], layout: str, rank: int) -> Array:
    """One value, or one for each channel along the block's channel axis, float32."""
    shape = [1] * rank
    if len(given) > 1:
        shape[1 + layout.index("C")] = len(given)
    return np.array(given, np.float32).reshape(shape)
