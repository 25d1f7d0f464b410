"""A data set once it is opened: columns of samples by input name, in parts, with names, shapes and lengths checked.

- A column has one row a sample. Where the model's first axis is a batch of 1, stored rows may leave it out.
- Names must be the model's own. A name that is not is refused with the nearest one, even when there is only one candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekit.core.contract import Contract, image_like
from edgekit.core.types import TensorSpec
from edgekit.data.arrays import Array, Column, StoredArray, by_rows
from edgekit.data.manifest import did_you_mean
from edgekit.errors import InputRejected

WHOLE = ""  # the only part of a source that declares no splits


@dataclass(frozen=True)
class Part:
    """Samples that belong together: a declared split, or a whole set. `starts` marks where sequences begin."""

    columns: Mapping[str, Column]
    labels: Column | None = None
    starts: Column | None = None

    @property
    def count(self) -> int:
        return next(iter(self.columns.values())).count


@dataclass(frozen=True)
class Source:
    """A data set as found, its shapes checked against the model's inputs. `contracts` are those of data.toml, by input."""

    name: str
    parts: Mapping[str, Part]
    metric: str = ""
    state: Mapping[str, str] = field(default_factory=dict)
    contracts: Mapping[str, Contract] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
    metric_options: Mapping[str, object] = field(default_factory=dict)


def part_of(
    arrays: Mapping[str, StoredArray],
    labels: StoredArray | None,
    starts: StoredArray | None,
    inputs: Sequence[TensorSpec],
    where: str,
) -> Part:
    """Columns for exactly the `inputs`, all of one length."""
    check_names(list(arrays), [s.name for s in inputs], where)
    columns = {spec.name: samples_of(arrays[spec.name], spec) for spec in inputs}
    part = Part(columns, by_rows(labels) if labels else None, by_rows(starts) if starts else None)
    check_counts(part, where)
    return part


def check_names(found: Sequence[str], wanted: Sequence[str], where: str) -> None:
    """The arrays' names must be the inputs' names. Raises InputRejected with the nearest one."""
    if found and not set(found) & set(wanted):
        fix = f"rename it to '{wanted[0]}'" if len(found) == len(wanted) == 1 else "name the arrays after the inputs"
        raise InputRejected(
            f"holds {quoted(found)}, but the model's inputs are {quoted(wanted)}", where=where, next_step=fix
        )
    for name in found:
        if name not in wanted:
            raise InputRejected(
                f"'{name}' is not an input to be fed", where=where, next_step=did_you_mean(name, wanted)
            )
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputRejected(
            f"has no array for {quoted(missing)}", where=where, next_step="add it under the input's name"
        )


def quoted(names: Sequence[str]) -> str:
    """The first names, for an error's line."""
    return ", ".join(f"'{name}'" for name in names[:20]) + (" ..." if len(names) > 20 else "")


def check_counts(part: Part, where: str) -> None:
    """As many rows in every column, the labels and the starts; one at least. Raises InputRejected."""
    first = next(iter(part.columns))
    for column in part.columns.values():
        if column.count != part.count:
            raise InputRejected(f"has {column.count} samples, but '{first}' has {part.count}", where=column.where)
    if part.count == 0:
        raise InputRejected("holds no samples", where=where)
    for extra in (part.labels, part.starts):
        if extra is not None and extra.count != part.count:
            raise InputRejected(f"has {extra.count} rows for {part.count} samples", where=extra.where)


# ----------------------------------------------------------------------------------------------------- samples by shape


def samples_of(stored: StoredArray, spec: TensorSpec) -> Column:
    """`stored` as samples of `spec`: [N, *shape], [N, *shape[1:]] when shape[0] is 1, or one sample of exactly `shape`."""
    shape = fixed_shape(spec)
    if stored.shape == shape:
        one = StoredArray(stored.where, stored.path, stored.dtype, (1, *shape), stored.fortran_order, stored.offset)
        return by_rows(one)
    if stored.shape and stored.shape[1:] == shape:
        return by_rows(stored)
    if stored.shape and shape[:1] == (1,) and stored.shape[1:] == shape[1:]:
        return Column(
            stored.where, stored.dtype, stored.shape[0], shape, lambda i: stored.mapped()[i].reshape(len(i), *shape)
        )
    raise wrong_shape(stored.where, stored.shape, spec)


def wrong_shape(where: str, got: tuple[int, ...], spec: TensorSpec) -> InputRejected:
    """The refusal of an array whose samples are not the input's; it says so when only the channels are elsewhere."""
    what = f"has shape {list(got)}, but input '{spec.name}' takes samples of {list(spec.shape)}"
    fix = f"store [samples, {', '.join(map(str, spec.shape))}]"
    like, own = image_like(spec.shape), image_like(got) or image_like(got[1:])
    if like and own and (like.height, like.width, like.color) == (own.height, own.width, own.color):
        found, taken = own.layout.removeprefix("N"), like.layout.removeprefix("N")
        fix = f"it looks like {found}, the model takes {like.layout}: {fix}" if found != taken else fix
    return InputRejected(what, where=where, next_step=fix)


def fixed_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape when every axis is fixed. Raises InputRejected otherwise."""
    if not all(isinstance(n, int) for n in spec.shape):
        raise InputRejected(f"input '{spec.name}' has an axis that is not fixed", next_step="fix it with --shape")
    return tuple(int(n) for n in spec.shape)


def in_memory(array: Array, where: str) -> Column:
    """A small array, such as labels, as a column along its first axis."""
    return Column(where, array.dtype, len(array), array.shape[1:], lambda i: array[i])


def constant(value: float, spec: TensorSpec, count: int, where: str) -> Column:
    """The same value throughout, for every sample; a whole number for inputs that take no fractions."""
    shape = fixed_shape(spec)
    dtype = np.dtype(np.float64 if "float" in spec.dtype else np.bool_ if spec.dtype == "bool" else np.int64)
    if dtype.kind != "f" and (value != int(value) or (dtype.kind == "b" and value not in (0, 1))):
        raise InputRejected(f"{value:g} is no value of input '{spec.name}', which takes {spec.dtype}", where=where)
    return Column(where, dtype, count, shape, lambda i: np.full((len(i), *shape), value, dtype))
