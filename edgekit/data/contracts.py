"""An entry of data.toml's [inputs] as a Contract: what its reader needs is there, what another reader takes is refused.

- Nothing is taken from the model but its type: a data set says by itself how it is prepared.
- An image for a float input needs its arithmetic written down: 0..255 and 0..1 look alike in every shape check.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from msgspec import UNSET, UnsetType

from edgekit.core.contract import (
    ALIGNS,
    COLORS,
    FILTERS,
    READERS,
    RESIZES,
    AudioRules,
    Contract,
    ImageRules,
    RawRules,
)
from edgekit.core.contract_check import check_contract
from edgekit.core.types import TensorSpec
from edgekit.data.feed import STORAGE
from edgekit.data.manifest import InputEntry, did_you_mean
from edgekit.data.parts import fixed_shape
from edgekit.errors import InputRejected

T = TypeVar("T")

MAX_SIDE = 16384
MAX_SOUND = 1 << 28  # samples
MAX_CHANNELS = 64
RATES = (1_000, 384_000)  # Hz

_ARITHMETIC = ("layout", "scale", "offset", "mean", "std")
_OWN_KEYS: dict[str, tuple[str, ...]] = {
    "array": _ARITHMETIC,
    "image": (*_ARITHMETIC, "color", "resize", "size", "filter", "pad", "align", "crop"),
    "audio": (*_ARITHMETIC, "rate", "channels", "length", "frame", "hop", "lead"),
    "bin": (*_ARITHMETIC, "stored_dtype", "stored_shape"),
    "jsonl": _ARITHMETIC,
    "value": ("value",),
}


def contract_of(entry: InputEntry, spec: TensorSpec, where: str) -> Contract:
    """The checked contract of one input; its dtype is the model's. Raises InputRejected when it does not yield the tensor."""
    reader = entry.reader or ("array" if entry.value is UNSET else "value")
    _one_of(reader, READERS, "reader", where)
    _only_own_keys(entry, reader, where)
    contract = Contract(
        reader=reader,
        dtype=entry.dtype or spec.dtype,
        layout=entry.layout,
        scale=_or(entry.scale, 1.0),
        offset=_or(entry.offset, 0.0),
        mean=_numbers(entry.mean),
        std=_numbers(entry.std),
    )
    _check_arithmetic(contract, entry, spec, where)
    if reader == "image":
        contract = replace(contract, layout=entry.layout or "NCHW", image=_image_rules(entry, where))
    elif reader == "audio":
        sound = _audio_rules(entry, where)
        contract = replace(contract, layout=entry.layout or ("NT" if sound.channels == 1 else "NCT"), audio=sound)
    elif reader == "bin":
        contract = replace(contract, raw=_raw_rules(entry, spec, where))
    elif reader == "value":
        contract = replace(contract, value=_value(entry, where))
    check_contract(contract, spec, where)
    return replace(contract, dtype=spec.dtype)


def _only_own_keys(entry: InputEntry, reader: str, where: str) -> None:
    known = {"reader", "dtype", *_OWN_KEYS[reader]}
    for field, key in zip(InputEntry.__struct_fields__, InputEntry.__struct_encode_fields__, strict=True):
        if key not in known and getattr(entry, field) not in (UNSET, ""):
            owner = next(name for name, keys in _OWN_KEYS.items() if key in keys)
            raise InputRejected(
                f"'{key}' says nothing to reader = \"{reader}\"", where=where, next_step=f'is it reader = "{owner}"?'
            )


def _check_arithmetic(contract: Contract, entry: InputEntry, spec: TensorSpec, where: str) -> None:
    if not all(map(math.isfinite, contract.mean)):
        raise InputRejected("mean must be finite", where=where)
    if not all(math.isfinite(value) and value != 0 for value in contract.std):
        raise InputRejected("std must be finite and not 0", where=where)
    given = (entry.scale, entry.offset, entry.mean, entry.std)
    if contract.reader == "image" and "float" in spec.dtype and all(value is UNSET for value in given):
        raise InputRejected(
            f"does not say what '{spec.name}' makes of pixels 0..255",
            where=where,
            next_step=f"write scale = {1 / 255} for 0..1, or scale = 1.0 for 0..255",
        )


# -------------------------------------------------------------------------------------------------------------- readers


def _image_rules(entry: InputEntry, where: str) -> ImageRules:
    color = _one_of(_or(entry.color, "RGB"), COLORS, "color", where)
    resize = _one_of(_or(entry.resize, "none"), RESIZES, "resize", where)
    size = _sizes(entry.size, "size", where)
    wanted = {"none": 0, "shorter": 1, "stretch": 2, "letterbox": 2}[resize]
    if len(size) != wanted:
        fix = ("leave size out, or write resize", "write size = the shorter side", "write size = [height, width]")
        raise InputRejected(
            f'size has {len(size)} numbers, resize = "{resize}" takes {wanted}', where=where, next_step=fix[wanted]
        )
    crop = _sizes(entry.crop, "crop", where)
    if len(crop) not in (0, 2):
        raise InputRejected("crop must be [height, width]", where=where)
    pad = (0,) if isinstance(entry.pad, UnsetType) else _integers(entry.pad)
    if len(pad) not in (1, COLORS[color]) or not all(0 <= value <= 255 for value in pad):
        raise InputRejected("pad must be one value from 0 to 255, or one for each channel", where=where)
    if resize != "letterbox" and (entry.pad is not UNSET or entry.align is not UNSET):
        raise InputRejected('pad and align go with resize = "letterbox"', where=where)
    return ImageRules(
        color=color,
        resize=resize,
        size=size,
        filter=_one_of(_or(entry.resample, "bilinear"), FILTERS, "filter", where),
        pad=pad,
        align=_one_of(_or(entry.align, "center"), ALIGNS, "align", where),
        crop=crop,
    )


def _audio_rules(entry: InputEntry, where: str) -> AudioRules:
    if entry.rate is UNSET:
        raise InputRejected("has no rate", where=where, next_step="write rate = 16000, the model's own")
    if (entry.length is UNSET) == (entry.frame is UNSET):
        raise InputRejected(
            "needs either length or frame",
            where=where,
            next_step="length: one sample a recording; frame and hop: a sequence",
        )
    if entry.frame is UNSET and (entry.hop is not UNSET or entry.lead is not UNSET):
        raise InputRejected("hop and lead go with frame", where=where)
    frame = _or(entry.frame, 0)
    rules = AudioRules(
        rate=entry.rate,
        channels=_or(entry.channels, 1),
        length=_or(entry.length, 0),
        frame=frame,
        hop=_or(entry.hop, frame),
        lead=_or(entry.lead, 0),
    )
    for key, value, low, high in (
        ("rate", rules.rate, *RATES),
        ("channels", rules.channels, 1, MAX_CHANNELS),
        ("frame", frame, 1, MAX_SOUND) if frame or entry.frame is not UNSET else ("length", rules.length, 1, MAX_SOUND),
        ("hop", rules.hop, 0 if entry.hop is UNSET else 1, MAX_SOUND),
        ("lead", rules.lead, 0, MAX_SOUND),
    ):
        if not low <= value <= high:
            raise InputRejected(f"{key} must be from {low} to {high}, not {value}", where=where)
    return rules


def _raw_rules(entry: InputEntry, spec: TensorSpec, where: str) -> RawRules:
    dtype = _one_of(_or(entry.stored_dtype, spec.dtype), STORAGE, "stored_dtype", where)
    shape = fixed_shape(spec) if entry.stored_shape is UNSET else tuple(entry.stored_shape)
    if not all(side >= 1 for side in shape):
        raise InputRejected("stored_shape must hold whole numbers of 1 or more", where=where)
    return RawRules(dtype, shape)


def _value(entry: InputEntry, where: str) -> float:
    if entry.value is UNSET or not math.isfinite(entry.value):
        raise InputRejected("value must be a finite number", where=where)
    return float(entry.value)


# -------------------------------------------------------------------------------------------------------------- helpers


def _or(value: T | UnsetType, default: T) -> T:
    return default if isinstance(value, UnsetType) else value


def _one_of(value: str, known: Iterable[str], key: str, where: str) -> str:
    if value not in known:
        raise InputRejected(f"unknown {key} '{value}'", where=where, next_step=did_you_mean(value, known))
    return value


def _numbers(given: float | list[float] | UnsetType) -> tuple[float, ...]:
    if isinstance(given, UnsetType):
        return ()
    return tuple(given) if isinstance(given, list) else (given,)


def _integers(given: int | list[int]) -> tuple[int, ...]:
    return tuple(given) if isinstance(given, list) else (given,)


def _sizes(given: int | list[int] | UnsetType, key: str, where: str) -> tuple[int, ...]:
    sizes = () if isinstance(given, UnsetType) else _integers(given)
    if not all(1 <= side <= MAX_SIDE for side in sizes):
        raise InputRejected(f"{key} must hold whole numbers from 1 to {MAX_SIDE}", where=where)
    return sizes
