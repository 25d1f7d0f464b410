"""What quantization rests on, each a remembered step: the flat model, its activations' histograms, what each layer costs.

Long steps say how far they have come, and go on from there when they were interrupted.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edgekit import sandbox
from edgekit.core.calibration import Collected, Flattened
from edgekit.core.recipes import INT8_ARITHMETIC, INT8_PASSED_ON, reads_flat, reads_histograms
from edgekit.core.sensitivity import Attribution
from edgekit.core.types import Candidate, ModelInfo, NumericRules
from edgekit.flow.workshop import SELECTION, Made, Materials, Workshop, builder_versions, ticking

HISTOGRAMS = "histograms.npz"
OPS = INT8_ARITHMETIC + INT8_PASSED_ON

DEFAULT = sandbox.Limits()
# A large model over a thousand samples may take hours; memory does not grow with either.
LONGEST_S = 12 * 3600.0


def make(
    shop: Workshop,
    candidate: Candidate,
    info: ModelInfo,
    materials: Materials,
    limits: sandbox.Limits = DEFAULT,
    ranges: tuple[ModelInfo, Materials] | None = None,
) -> Made:
    """Build a candidate from what its recipe reads. Raises what the build raises.

    `ranges` is the model whose histograms are used, where that is another one of the same tensors.
    """
    recipe = candidate.build.recipe
    if not reads_flat(recipe):
        return shop.make(candidate, materials, limits)
    place, flattened = flat(shop, info, materials)
    notes, histograms = flattened.notes, None
    if reads_histograms(recipe) and flattened.tensors:
        folder, collected = calibrated(shop, *(ranges or (info, materials)))
        histograms = folder / HISTOGRAMS
        notes = (*notes, *_unseen(collected))
    made = shop.make(candidate, materials, limits, place / flattened.file, histograms)
    return replace(made, artifact=replace(made.artifact, notes=(*notes, *made.artifact.notes)))


def _unseen(collected: Collected) -> tuple[str, ...]:
    """What calibration could not observe, in one remark."""
    if not collected.left_out:
        return ()
    name, reason = next(iter(collected.left_out.items()))
    return (f"{len(collected.left_out)} tensors have no range: '{name}' {reason}",)


def flat(shop: Workshop, info: ModelInfo, materials: Materials) -> tuple[Path, Flattened]:
    """The folder of the model made ready to be quantized."""
    return shop.remembered(
        "flat",
        [materials.model_sha256, _versions(), OPS],
        Flattened,
        lambda folder: sandbox.call(
            "edgekit.quantize.flatten:flatten",
            returns=Flattened,
            task="making the model ready to be quantized",
            model=materials.model,
            out=folder,
            ops=OPS,
            activation_bytes=info.peak_activation_bytes,
        ),
    )


def calibrated(
    shop: Workshop, info: ModelInfo, materials: Materials, wall_s: float = LONGEST_S
) -> tuple[Path, Collected]:
    """The folder of the histograms of all activations over the calibration split, collected within `wall_s` seconds."""
    place, flattened = flat(shop, info, materials)
    key = _calibration_key(materials)

    def collect(folder: Path) -> Collected:
        text = f"calibrating, up to {flattened.peak_bytes >> 20} MiB"
        with following(shop, text) as progress:
            return sandbox.call(
                "edgekit.quantize.collect:collect",
                returns=Collected,
                limits=_long(shop, wall_s),
                task="calibrating",
                model=place / flattened.file,
                feeds=materials.data_folder / "calibration",
                tensors=flattened.tensors,
                out=folder / HISTOGRAMS,
                state=dict(materials.data.state),
                threads=shop.host_facts.usable_threads,
                checkpoint=shop.unfinished("calibration", key),
                progress=progress,
            )

    return shop.remembered("calibration", key, Collected, collect)


def attributed(
    shop: Workshop,
    info: ModelInfo,
    materials: Materials,
    numeric: NumericRules,
    parent: str,
    left_s: Callable[[], float],
) -> Attribution:
    """Which layers cost the accuracy of the model when it is quantized for the target's rules, on the selection split.

    `left_s` says how many seconds are left for it.
    """
    place, flattened = flat(shop, info, materials)
    histograms, _ = calibrated(shop, info, materials, left_s())
    data = materials.data
    key = {
        "calibration": _calibration_key(materials),
        "selection": data.splits[SELECTION].sha256,
        "metric": [data.metric, data.metric_options],
        "numeric": numeric,
    }
    subject = {
        "flat": place / flattened.file,
        "histograms": histograms / HISTOGRAMS,
        "feeds": materials.data_folder / SELECTION,
        "state": data.state,
        "metric": data.metric,
        "options": data.metric_options,
        "numeric": numeric,
        "ops": OPS,
        "arithmetic": INT8_ARITHMETIC,
    }

    def attribute(_: Path) -> Attribution:
        with following(shop, f"which layers cost {parent} its accuracy") as progress:
            return sandbox.call(
                "edgekit.quantize.sensitivity:attribute",
                returns=Attribution,
                limits=_long(shop, left_s()),
                task="attribution",
                subject=subject,
                recipe=parent,
                macs=info.macs,
                progress=progress,
                checkpoint=shop.unfinished("attribution", key),
            )

    return replace(shop.remembered("attribution", key, Attribution, attribute)[1], recipe=parent)


def _calibration_key(materials: Materials) -> Any:
    return [materials.model_sha256, materials.calibration_sha256, _versions(), OPS]


def _versions() -> Mapping[str, str]:
    """Of the packages that the flat model and the histograms are made with."""
    return {name: version for name, version in builder_versions().items() if name in ("numpy", "onnx", "onnxruntime")}


def _long(shop: Workshop, wall_s: float) -> sandbox.Limits:
    """Limits in time alone; CPU time counts every thread's."""
    wall_s = max(1.0, min(LONGEST_S, wall_s))
    return sandbox.Limits(wall_s=wall_s, cpu_s=int(wall_s + 1) * shop.host_facts.usable_threads)


@contextlib.contextmanager
def following(shop: Workshop, text: str) -> Iterator[Path]:
    """Say `text` and how far a child process has come: it appends lines of JSON, {"done", "total", "eta_s"}, to the file."""
    with shop.cache.scratch() as scratch:
        file = scratch / "progress.jsonl"
        with ticking(shop.progress, text, lambda: _how_far(file)):
            yield file


def _how_far(file: Path) -> str:
    """The last whole line of a progress file, in words; nothing where there is none yet."""
    try:
        lines = file.read_bytes().splitlines(keepends=True)
        state = msgspec.json.decode(next(line for line in reversed(lines) if line.endswith(b"\n")))
        return f"{state['done']} of {state['total']} runs, about {duration(state['eta_s'])} left"
    except (OSError, StopIteration, msgspec.DecodeError, KeyError):
        return ""


def duration(seconds: float) -> str:
    """A time people read: "40 s", "12 min", "3 h 20 min"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
