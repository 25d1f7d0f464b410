"""Does a contract yield the tensor that the model takes? If not, the line of data.toml to change. Pure.

- Both shapes are said. What to write is tried on the contract itself before it is advised: following the advice leads to a fit.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

from edgekit.core.contract import (
    IMAGE_LAYOUTS,
    SOUND_LAYOUTS,
    Contract,
    axes_of,
    fits,
    image_like,
    output_shape,
    sound_like,
)
from edgekit.core.types import Shape, TensorSpec
from edgekit.errors import InputRejected


def check_contract(contract: Contract, spec: TensorSpec, where: str) -> None:
    """Raises InputRejected when the contract does not yield the tensor: its type, axes, shape or number of channels differ."""
    _check_type(contract, spec, where)
    _check_layout(contract, spec, where)
    yields = output_shape(contract)
    if not fits(yields, spec.shape):
        raise InputRejected(
            f"'{spec.name}' becomes {shape_text(yields or ())}, but the model takes {shape_text(spec.shape)}",
            where=where,
            next_step=_advice(contract, spec),
        )
    _check_channels(contract, spec, where)


def shape_text(shape: Shape) -> str:
    """[1, 3, H, W]"""
    return f"[{', '.join(map(str, shape))}]"


def _check_type(contract: Contract, spec: TensorSpec, where: str) -> None:
    """Arrays are cast within a kind when they are fed, so theirs may differ within it."""
    same_kind = ("float" in contract.dtype) == ("float" in spec.dtype)
    if contract.dtype != spec.dtype and not (contract.reader == "array" and same_kind):
        raise InputRejected(
            f"declares '{spec.name}' as {contract.dtype}, but the model takes {spec.dtype}",
            where=where,
            next_step=f'write dtype = "{spec.dtype}" or leave it out',
        )


def _check_layout(contract: Contract, spec: TensorSpec, where: str) -> None:
    layout = contract.layout
    axes = axes_of(contract)
    if axes is None:
        if layout and len(layout) != len(spec.shape):
            raise InputRejected(
                f"layout {layout} names {len(layout)} axes, '{spec.name}' has {len(spec.shape)}", where=where
            )
        return
    known = IMAGE_LAYOUTS if contract.image else SOUND_LAYOUTS
    needed = set(axes) - {"N"} - ({"C"} if axes["C"] == 1 else set())
    if not needed <= set(layout) <= set(axes) or len(set(layout)) != len(layout):
        usual = ", ".join(name for name in known if needed <= set(name))
        raise InputRejected(f'layout = "{layout}" does not fit its reader', where=where, next_step=f"known: {usual}")


def _check_channels(contract: Contract, spec: TensorSpec, where: str) -> None:
    for key, values in (("mean", contract.mean), ("std", contract.std)):
        if len(values) <= 1:
            continue
        if "C" not in contract.layout:
            raise InputRejected(
                f"{key} has {len(values)} values, but layout names no channel axis C",
                where=where,
                next_step='write layout, such as "NCHW"',
            )
        channels = spec.shape[contract.layout.index("C")]
        if len(values) != channels:
            raise InputRejected(f"{key} has {len(values)} values for {channels} channels", where=where)


# --------------------------------------------------------------------------------------------------------------- advice

# A line to write, and what the contract would be with it.
_Fix = tuple[str, Callable[[Contract], Contract]]


def _advice(contract: Contract, spec: TensorSpec) -> str:
    """The fewest lines of data.toml that make the contract yield the tensor, or what else to do."""
    if not all(isinstance(n, int) for n in spec.shape):
        return "fix the model's shape with --shape" + _as_shape_flag(output_shape(contract) or (), spec)
    fixes = _image_fixes(contract, spec) if contract.image else _sound_fixes(contract, spec)
    for count in range(1, len(fixes) + 1):
        for chosen in combinations(fixes, count):
            changed = contract
            for _, change in chosen:
                changed = change(changed)
            if fits(output_shape(changed), spec.shape) and _has_room_for_channels(changed):
                return "; ".join(line for line, _ in chosen)
    one = (1, *spec.shape[1:])
    if image_like(one) if contract.image else sound_like(one):
        return "a sample is a batch of 1: fix it with --shape" + _as_shape_flag(one, spec)
    return f'the model takes no {contract.reader} here: use reader = "array"'


def _has_room_for_channels(contract: Contract) -> bool:
    axes = axes_of(contract)
    return axes is None or axes["C"] == 1 or "C" in contract.layout


def _as_shape_flag(shape: Shape, spec: TensorSpec) -> str:
    known = shape and all(isinstance(n, int) for n in shape)
    return f" {spec.name}:{'x'.join(map(str, shape))}" if known else ""


def _relaid(contract: Contract, layout: str) -> _Fix:
    had, has = "N" in contract.layout, "N" in layout
    why = (
        f"looks like {layout}" if had == has else "the batch axis is missing" if has else "the model has no batch axis"
    )
    return f'{why}: write layout = "{layout}"', lambda c: replace(c, layout=layout)


def _image_fixes(contract: Contract, spec: TensorSpec) -> list[_Fix]:
    like, rules = image_like(spec.shape), contract.image
    if like is None or rules is None:
        return []
    place = (like.height, like.width)
    if rules.crop or rules.resize == "shorter":
        placed = f"crop to {like.width}x{like.height} (width x height): write crop = [{like.height}, {like.width}]"
    else:
        placed = f"resize to {like.width}x{like.height} (width x height): write size = [{like.height}, {like.width}]"
    return [
        _relaid(contract, like.layout),
        # A crop decides the shape whatever the resize, so it stands for either line here.
        (placed, lambda c: replace(c, image=replace(c.image or rules, crop=place))),
        (f'write color = "{like.color}"', lambda c: replace(c, image=replace(c.image or rules, color=like.color))),
    ]


def _sound_fixes(contract: Contract, spec: TensorSpec) -> list[_Fix]:
    like, rules = sound_like(spec.shape), contract.audio
    if like is None or rules is None:
        return []
    key = "frame" if rules.frame else "length"
    changed = replace(rules, frame=like.length) if rules.frame else replace(rules, length=like.length)
    return [
        _relaid(contract, like.layout),
        (
            f"write {key} = {like.length}",
            lambda c: replace(c, audio=replace(changed, channels=(c.audio or rules).channels)),
        ),
        (
            f"write channels = {like.channels}",
            lambda c: replace(c, audio=replace(c.audio or rules, channels=like.channels)),
        ),
    ]
