"""WAV files to sound, by SciPy: full scale is 1, channels mixed, at the contract's rate; float32.

- Integers of b bits are divided by 2^(b-1), those of 8 bits (unsigned) after 128 is taken off; floats are taken as they are.
- Mono is the mean of the channels. Another rate is reached by polyphase filtering with a Kaiser window of beta 5
  (scipy.signal.resample_poly with its defaults), on float32.
- A file shorter than its header says is refused, and so is one whose size or rate is beyond reason.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.core.contract import AudioRules
from edgekit.data.arrays import require_regular
from edgekit.errors import InputRejected

Array = NDArray[Any]

SUFFIXES = frozenset((".wav",))
MAX_BYTES = 256 << 20
MAX_SAMPLES = 1 << 28  # of all channels, after resampling
RATES = range(1_000, 384_001)


def read_sound(path: Path, rules: AudioRules) -> Array:
    """The recording as float32 [T, C] at `rules.rate`, not yet cut. Raises InputRejected."""
    where = str(path)
    if require_regular(path) > MAX_BYTES:
        raise InputRejected(f"is larger than {MAX_BYTES >> 20} MiB", where=where, next_step="cut it into shorter files")
    rate, stored = _decoded(path)
    if rate not in RATES:
        raise InputRejected(f"has a sample rate of {rate} Hz", where=where)
    if stored.size == 0:
        raise InputRejected("holds no sound", where=where)
    sound = _mixed(_full_scale_1(stored), rules.channels, where)
    if not np.isfinite(sound).all():
        raise InputRejected("holds values that are not finite", where=where)
    return _resampled(sound, rate, rules.rate, where)


def _decoded(path: Path) -> tuple[int, Array]:
    """Sample rate and values, [T] or [T, C], 24 bits left-justified in 32 as SciPy gives them."""
    from scipy.io import wavfile  # type: ignore[import-untyped]  # ships no types; heavy, and for recordings only

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks it does not know
            warnings.filterwarnings("error", "Reached EOF|Incomplete chunk", wavfile.WavFileWarning)
            rate, values = wavfile.read(path)
    except wavfile.WavFileWarning as warning:
        raise InputRejected("is truncated: shorter than its header says", where=str(path)) from warning
    except Exception as error:  # a parser fed with rubbish may raise anything; it allocates what a header asks for
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputRejected(f"is not a readable WAV file: {reason}", where=str(path)) from error
    return int(rate), values


def _full_scale_1(stored: Array) -> Array:
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    half = 2.0 ** (8 * stored.dtype.itemsize - 1)
    sound = stored.astype(np.float32)
    if stored.dtype.kind == "u":
        sound -= np.float32(half)
    sound /= np.float32(half)
    return sound


def _mixed(sound: Array, channels: int, where: str) -> Array:
    """[T, channels]: mono is the mean; any other number of channels must be the file's own."""
    sound = sound.reshape(len(sound), -1)
    if channels == 1:
        mono: Array = sound.mean(axis=1, dtype=np.float32, keepdims=True)
        return mono
    if sound.shape[1] != channels:
        raise InputRejected(f"has {sound.shape[1]} channels, not {channels}", where=where)
    return sound


def _resampled(sound: Array, rate: int, wanted: int, where: str) -> Array:
    if rate == wanted:
        return sound
    if sound.size * wanted // rate > MAX_SAMPLES:
        raise InputRejected(f"is too long to be brought to {wanted} Hz", where=where, next_step="cut it")
    from scipy.signal import resample_poly  # type: ignore[import-untyped]  # heavy, and only for other rates

    common = math.gcd(rate, wanted)
    result: Array = resample_poly(sound, wanted // common, rate // common, axis=0).astype(np.float32, copy=False)
    return result
