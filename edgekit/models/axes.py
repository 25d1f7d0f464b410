"""Fix the shapes of a model's inputs.

- an initializer listed among the inputs (IR < 4) is a weight, not an input;
- one symbolic name is one number, whichever inputs it appears in;
- a first axis that is not fixed is taken for the batch and set to 1, unless it is a rank-1 input's length; anything else
  the user must say, and the error prints the flag to copy.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

from edgekit.core.shapes import format_shape, shape_flag
from edgekit.errors import InputRejected, UsageError
from edgekit.models.graph import dtype_name

_LENGTH_LIKE = re.compile(r"seq|len|sample|time|frame|token|point|audio|wave", re.IGNORECASE)
_AUDIO_LIKE = re.compile(r"audio|wav|sample|speech|signal|pcm", re.IGNORECASE)
_TEXT_LIKE = re.compile(r"ids?\b|token|mask|text|byte", re.IGNORECASE)

_NAMELESS = frozenset(("?", "*", "-1", "None"))  # what exporters write for "no name": equal ones need not agree

_ELEMENT_TYPES = frozenset(TensorProto.DataType.values()) - {TensorProto.UNDEFINED}

Declared = list[int | str]  # "" is an unknown axis without a name


def real_inputs(graph: GraphProto) -> list[ValueInfoProto]:
    """The inputs a caller feeds."""
    stored = {tensor.name for tensor in graph.initializer} | {sparse.values.name for sparse in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in stored]


def declared(value: ValueInfoProto) -> Declared | None:
    """The declared shape; None when even the rank is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        int(d.dim_value) if d.HasField("dim_value") and d.dim_value >= 0 else _symbol(d.dim_param)
        for d in tensor.shape.dim
    ]


def _symbol(name: str) -> str:
    return "" if name in _NAMELESS else name


def fix_inputs(model: ModelProto, shapes: Mapping[str, Sequence[int]], where: str) -> list[str]:
    """Give every input of the model a fixed shape, in place; returns the notices.

    Raises UsageError when an axis stays unknown or `shapes` contradicts the model, InputRejected for an input that is no tensor.
    """
    inputs = {value.name: value for value in real_inputs(model.graph)}
    for value in inputs.values():
        if value.type.tensor_type.elem_type not in _ELEMENT_TYPES:
            raise InputRejected(
                f"input '{value.name}' is not a tensor", where=where, next_step="export it with tensor inputs"
            )
    forms = {name: declared(value) for name, value in inputs.items()}
    symbols = _bind(forms, shapes, where)
    fixed: dict[str, Declared | None] = {}
    for name, form in forms.items():
        fixed[name] = list(shapes[name]) if name in shapes else _substitute(form, symbols)
    notices = list(_batch_axes(fixed, symbols))
    fixed = {name: _substitute(form, symbols) for name, form in fixed.items()}
    if any(form is None or not all(isinstance(dim, int) for dim in form) for form in fixed.values()):
        raise _unfixed(inputs, fixed, where)
    for name, form in fixed.items():
        _write(inputs[name], form or [])
    _forget_symbols(model, symbols)
    return notices


def _bind(forms: Mapping[str, Declared | None], shapes: Mapping[str, Sequence[int]], where: str) -> dict[str, int]:
    """The number of each symbol that the given shapes imply. Raises UsageError."""
    symbols: dict[str, int] = {}
    for name, dims in shapes.items():
        if name not in forms:
            raise _unknown_input(name, list(forms), where)
        form = forms[name]
        if form is None:
            continue
        if len(form) != len(dims):
            raise _contradiction(name, form, dims, f"has {len(form)} axes, not {len(dims)}", where)
        for axis, (declared_dim, dim) in enumerate(zip(form, dims, strict=True)):
            if isinstance(declared_dim, int) and declared_dim != dim:
                raise _contradiction(name, form, dims, f"has {declared_dim} on axis {axis}, not {dim}", where)
            if isinstance(declared_dim, str) and declared_dim and symbols.setdefault(declared_dim, dim) != dim:
                what = f"axis '{declared_dim}' is {symbols[declared_dim]} in one input and {dim} in '{name}'"
                raise UsageError(what, where=where, next_step="give the same number for it in every --shape")
    return symbols


def _unknown_input(name: str, known: list[str], where: str) -> UsageError:
    folded = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1)
    hint = f"did you mean '{folded[close[0]]}'?" if close else f"its inputs are: {', '.join(known) or 'none'}"
    return UsageError(f"has no input '{name}'", where=where, next_step=hint)


def _contradiction(name: str, form: Declared, dims: Sequence[int], what: str, where: str) -> UsageError:
    known = _shown(form)
    return UsageError(
        f"input '{name}' {what}", where=where, next_step=f"it is declared {known}, --shape says {format_shape(dims)}"
    )


def _substitute(form: Declared | None, symbols: Mapping[str, int]) -> Declared | None:
    return None if form is None else [symbols.get(dim, dim) if isinstance(dim, str) and dim else dim for dim in form]


def _batch_axes(fixed: dict[str, Declared | None], symbols: dict[str, int]) -> Iterator[str]:
    """Set open first axes to 1, in `fixed` and `symbols`; yields a notice for each."""
    for name, form in fixed.items():
        if not form or isinstance(form[0], int):
            continue
        axis = form[0]
        if len(form) == 1 and _LENGTH_LIKE.search(axis):
            continue
        if axis not in symbols:
            label = f"batch axis '{axis}'" if axis else "its first axis"
            yield f"input '{name}': {label} set to 1; --shape {name}:... changes it"
        form[0] = 1
        if axis:
            symbols[axis] = 1


def _unfixed(inputs: Mapping[str, ValueInfoProto], fixed: Mapping[str, Declared | None], where: str) -> UsageError:
    """Names each input that is not fixed and prints the flags to copy, with example sizes for what is unknown."""
    chosen: dict[str, int] = {}
    said, flags = [], []
    for name, form in fixed.items():
        if form is not None and all(isinstance(dim, int) for dim in form):
            continue
        shown = "unknown rank" if form is None else _shown(declared(inputs[name]) or [])
        said.append(f"'{name}' ({shown})")
        kind = dtype_name(inputs[name].type.tensor_type.elem_type)
        flags.append(shape_flag(name, _example(name, kind, form if form is not None else [1, 3, "", ""], chosen)))
    what = f"the shape of {'input' if len(said) == 1 else 'inputs'} {', '.join(said)} is not fixed"
    return UsageError(what, where=where, next_step=f"say it, for example (put your own sizes): {' '.join(flags)}")


def _shown(form: Declared) -> str:
    """`batch x 3 x ? x ?`."""
    return " x ".join(str(dim) if dim != "" else "?" for dim in form)


def _example(name: str, kind: str, form: Declared, chosen: dict[str, int]) -> list[int]:
    """A plausible size for each unknown axis; a symbol gets the same one everywhere."""
    dims = []
    for axis, dim in enumerate(form):
        if isinstance(dim, str):
            guess = _guess(f"{name} {dim}", kind, form, axis)
            dims.append(chosen.setdefault(dim, guess) if dim else guess)
        else:
            dims.append(dim)
    return dims


def _guess(words: str, kind: str, form: Declared, axis: int) -> int:
    if len(form) == 4 and axis > 0:
        channels_last = form[3] in (1, 3, 4)
        if axis == (3 if channels_last else 1):
            return 3
        return 224
    if len(form) <= 2 and axis == len(form) - 1:
        if kind.startswith(("int", "uint")) or (_TEXT_LIKE.search(words) and not _AUDIO_LIKE.search(words)):
            return 128
        return 16000
    return 100 if len(form) == 3 and axis == 2 else 1


def _write(value: ValueInfoProto, dims: Declared) -> None:
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    shape.SetInParent()
    for dim in dims:
        shape.dim.add(dim_value=int(dim))


def _forget_symbols(model: ModelProto, symbols: Mapping[str, int]) -> None:
    """Make declared output shapes open where they are not numbers, and drop the shapes recorded for intermediate tensors."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
            number = symbols.get(dim.dim_param)
            if dim.dim_param or dim.dim_value <= 0:
                dim.Clear()
            if number:
                dim.dim_value = number
