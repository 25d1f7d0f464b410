"""Writes a benchmark case: `model.onnx`, `data/` in data.toml schema 1, and `args.toml` with the command line's flags."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SPLITS = ("calibration", "selection", "evaluation")


@dataclass(frozen=True)
class Input:
    """A stored input, [N, *shape without its batch axis]; the model gets `stored * scale + offset` as `dtype`."""

    stored: Array
    dtype: str = "float32"
    scale: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class Case:
    """A model with its data; all rows are in one array, cut into the three splits by `sizes` in order.

    `metric_options` are those of data.toml that differ from its defaults. `starts` is 1 where a new sequence begins; `state` names,
    for each output, the input that it feeds.
    `shapes` are `--shape` flags for inputs with unknown axes.
    """

    name: str
    summary: str
    license: str
    source: str
    metric: str
    model: bytes
    inputs: Mapping[str, Input]
    sizes: tuple[int, int, int]
    metric_options: Mapping[str, object] = field(default_factory=dict)
    labels: Array | None = None
    starts: Array | None = None
    state: Mapping[str, str] = field(default_factory=dict)
    shapes: Sequence[str] = ()
    max_drop: float = 0.01


def write(case: Case, out: Path) -> None:
    """Write `case` to `out`, replacing what an earlier run left there. Raises ValueError when rows and `sizes` disagree."""
    data = out / "data"
    data.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(case.model)
    for split, rows in zip(SPLITS, cuts(case.sizes), strict=True):
        for suffix, array in _columns(case).items():
            if len(array) != sum(case.sizes):
                raise ValueError(f"{case.name}: {suffix} has {len(array)} rows, the splits need {sum(case.sizes)}")
            np.save(data / f"{split}.{suffix}.npy", np.ascontiguousarray(array[rows]))
    (data / "data.toml").write_text(data_toml(case))
    (out / "args.toml").write_text(toml({"shape": list(case.shapes), "max_drop": case.max_drop}))


def cuts(sizes: Sequence[int]) -> list[slice]:
    """Consecutive slices of these sizes: disjoint, in order, nothing left between."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def data_toml(case: Case) -> str:
    """The text of data.toml."""
    head = {"schema": 1, "name": case.name, "summary": case.summary, "license": case.license, "source": case.source}
    text = toml({**head, "metric": case.metric})
    if case.metric_options:
        text += "\n[metric_options]\n" + toml(case.metric_options)
    if case.state:
        text += "\n[state]\n" + toml(case.state)
    specs = {name: {"dtype": x.dtype, "scale": x.scale, "offset": x.offset} for name, x in case.inputs.items()}
    text += "\n[inputs]\n" + toml(specs)
    for split, samples in zip(SPLITS, case.sizes, strict=True):
        files = {name: f"{split}.{_file_part(name)}.npy" for name in case.inputs}
        extra = {key: f"{split}.{suffix}.npy" for key, suffix, _ in _optional(case)}
        text += f"\n[splits.{split}]\n" + toml({"samples": samples, "files": files, **extra})
    return text


def toml(table: Mapping[str, object]) -> str:
    """A flat TOML table; nested mappings become inline tables."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in table.items())


def _columns(case: Case) -> dict[str, Array]:
    inputs = {_file_part(name): column.stored for name, column in case.inputs.items()}
    return inputs | {suffix: array for _, suffix, array in _optional(case)}


def _optional(case: Case) -> list[tuple[str, str, Array]]:
    """(key in data.toml, file suffix, array) of labels and sequence starts, where there are any."""
    columns = [("labels", "labels", case.labels), ("sequences", "starts", case.starts)]
    return [(key, suffix, array) for key, suffix, array in columns if array is not None]


def _file_part(name: str) -> str:
    """An input's name as part of a file name; `serving_default_input:0` must not carry its colon there."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def _key(key: str) -> str:
    return key if key.replace("-", "_").isidentifier() and key.isascii() else json.dumps(key)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)  # strings without surrogates, numbers and booleans read the same in TOML and JSON
