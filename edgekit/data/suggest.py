"""The smallest data.toml for a folder of images or recordings, in the refusal of one that has none.

- Only what is certain is filled in: reader, layout and size from the model's input. Scale, mean and std are the training's.
- One folder of files, or of classes, is to be divided; folders that look like splits are to be named as such.
"""

import json
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from edgekit.core.contract import image_like, sound_like
from edgekit.core.dataset import SPLITS
from edgekit.core.types import TensorSpec
from edgekit.data import audio, images
from edgekit.data.manifest import ALL, FILE
from edgekit.errors import InputRejected

_LOOK_AT = 2000  # files and folders
_SPLIT_NAMES = frozenset((*SPLITS, "train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval"))


def refuse_media(folder: Path, inputs: Sequence[TensorSpec]) -> None:
    """Raises InputRejected with the data.toml to write when `folder` holds images or recordings."""
    suffixes = [path.suffix.lower() for path in islice(folder.glob("**/*"), _LOOK_AT)]
    counts = {
        "images": sum(suffix in images.SUFFIXES for suffix in suffixes),
        "WAV files": sum(suffix in audio.SUFFIXES for suffix in suffixes),
    }
    if not any(counts.values()):
        return
    what = max(counts, key=lambda name: counts[name])
    line = _image_line(inputs) if what == "images" else _sound_line(inputs)
    raise InputRejected(
        f"holds {what}, but no {FILE} that says how they become the model's input",
        where=str(folder),
        next_step=_advice(folder, line)
        if line
        else f"the model's inputs do not look like {what}: store arrays instead",
    )


def _advice(folder: Path, line: str) -> str:
    """The file on one line, since an error is one line."""
    divided = not _has_splits(folder)
    ready = divided or all((folder / name).is_dir() for name in SPLITS)
    moved = "" if ready else f"put the files into folders {', '.join(SPLITS)} and "
    text = " | ".join(smallest(folder, line, divided))
    return f"{moved}write {FILE}, a new line for each |, with scale, mean and std as in training: {text}"


def _has_splits(folder: Path) -> bool:
    """Whether sub-folders stand for splits rather than classes: by their names, or because they have folders themselves."""
    inner = [path for path in islice(folder.iterdir(), _LOOK_AT) if path.is_dir() and not path.name.startswith(".")]
    return any(path.name.lower() in _SPLIT_NAMES or any(p.is_dir() for p in path.iterdir()) for path in inner)


def smallest(folder: Path, line: str, divided: bool) -> list[str]:
    """The lines of the smallest data.toml with `line` for the input; `divided`: the folder itself holds all samples."""
    splits = [f'{ALL} = {{ folder = "." }}'] if divided else [f'{name} = {{ folder = "{name}" }}' for name in SPLITS]
    return ["schema = 1", f"name = {_quoted(folder.resolve().name)}", "[inputs]", line, "[splits]", *splits]


def _image_line(inputs: Sequence[TensorSpec]) -> str:
    for spec in inputs:
        like = image_like(spec.shape)
        if like is not None and "int64" not in spec.dtype and min(like.height, like.width) > 1:
            scale = f", scale = {1 / 255}" if "float" in spec.dtype else ""
            return (
                f'{_key(spec.name)} = {{ reader = "image", color = "{like.color}", resize = "stretch", '
                f'size = [{like.height}, {like.width}], layout = "{like.layout}"{scale} }}'
            )
    return ""


def _sound_line(inputs: Sequence[TensorSpec]) -> str:
    for spec in inputs:
        like = sound_like(spec.shape)
        if like is not None and "float" in spec.dtype and like.length > 1:
            channels = "" if like.channels == 1 else f", channels = {like.channels}"
            return (
                f'{_key(spec.name)} = {{ reader = "audio", rate = 16000{channels}, length = {like.length}, '
                f'layout = "{like.layout}" }}'
            )
    return ""


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
