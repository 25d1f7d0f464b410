"""Shapes as written on a command line: `image:1x3x224x224` or `image[1,3,224,224]`.

- a tensor name may itself hold ':' or '[': the last one counts;
- a scalar is `name[]`.
"""

import re
import shlex
from collections.abc import Sequence

from edgekit.errors import UsageError

_BRACKETS = re.compile(r"(?P<name>.+)\[(?P<dims>[\d,\s]*)\]", re.DOTALL)
_COLON = re.compile(r"(?P<name>.+):(?P<dims>\d+(?:x\d+)*)", re.DOTALL)


def parse_shape(text: str) -> tuple[str, list[int]]:
    """The tensor name and dimensions of one `--shape` value. Raises UsageError."""
    found = _BRACKETS.fullmatch(text) or _COLON.fullmatch(text)
    if found is None:
        raise _malformed(text)
    parts = re.split(r"[x,]", found["dims"]) if found["dims"].strip() else []
    try:
        dims = [int(part) for part in parts]
    except ValueError as error:
        raise _malformed(text) from error
    if any(dim < 1 for dim in dims):
        raise UsageError("every dimension must be at least 1", where=f"--shape {text}")
    return found["name"], dims


def _malformed(text: str) -> UsageError:
    return UsageError(
        "is not a shape",
        where=f"--shape {text}",
        next_step="write NAME:1x3x224x224 or NAME[1,3,224,224] with the input's name and its whole shape",
    )


def format_shape(dims: Sequence[int | str]) -> str:
    """`1x3x224x224`; a scalar is "scalar"."""
    return "x".join(str(dim) for dim in dims) or "scalar"


def shape_flag(name: str, dims: Sequence[int]) -> str:
    """The `--shape` option that fixes input `name`, quoted for a shell."""
    value = f"{name}:{format_shape(dims)}" if dims else f"{name}[]"
    return f"--shape {shlex.quote(value)}"
