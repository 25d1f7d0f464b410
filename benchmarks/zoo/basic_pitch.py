"""basic-pitch's note transcription on synthesized chords and melodies."""

from pathlib import Path

import numpy as np

from benchmarks.zoo import fetch, sound
from benchmarks.zoo.dataset import Array, Case, write

WHEEL = "basic-pitch==0.4.0"
MODEL = "basic_pitch/saved_models/icassp_2022/nmp.onnx"
MODEL_SHA256 = "2c3c1d144bfa61ad236e92e169c13535c880469a12a047d4e73451f2c059a0ec"
RATE, WINDOW = 22050, 43844  # the model's input: two seconds less one hop
# Of the model's three maps (notes, onsets, contours) the notes, and from what value there is one: the wheel's inference.py.
NOTES, NOTE_THRESHOLD = "StatefulPartitionedCall:1", 0.3
SIZES = (60, 60, 120)


def make(out: Path, cache: Path) -> None:
    """No labels: agreement of the notes, which time step has which pitch, at the threshold that the wheel takes."""
    rng = np.random.default_rng(6)
    write(
        Case(
            name="basic-pitch",
            summary="note transcription of synthesized music, two seconds each, scored on agreement with its own notes at 0.3",
            license="Apache-2.0 (model), CC0-1.0 (synthesized sound)",
            source=f"PyPI {WHEEL}; sound synthesized",
            metric="f1",
            metric_options={"output": NOTES, "threshold": NOTE_THRESHOLD},
            model=fetch.wheel_file(WHEEL, MODEL, MODEL_SHA256, cache),
            inputs={
                "serving_default_input_2:0": sound.pcm(np.stack([music(rng) for _ in range(sum(SIZES))])[..., None])
            },
            sizes=SIZES,
        ),
        out,
    )


def music(rng: np.random.Generator) -> Array:
    """Two to twelve notes (MIDI 36 to 84) that begin anywhere in the window, in faint noise; peak 0.2 to 0.9."""
    mix = np.zeros(WINDOW)
    for _ in range(int(rng.integers(2, 13))):
        start = int(rng.integers(0, WINDOW - RATE // 4))
        note = _note(rng, min(WINDOW - start, int(rng.uniform(0.15, 1.5) * RATE)))
        mix[start : start + len(note)] += note
    mix += 10 ** rng.uniform(-3.5, -2) * sound.noise(rng, WINDOW, 1.0)
    return rng.uniform(0.2, 0.9) * sound.peak_one(mix)


def _note(rng: np.random.Generator, samples: int) -> Array:
    """A tone with a sharp attack, an exponential decay and a short release."""
    hz = 440 * 2 ** ((int(rng.integers(36, 85)) - 69) / 12)
    seconds = np.arange(samples) / RATE
    envelope = np.minimum(seconds / rng.uniform(0.003, 0.05), 1) * np.exp(-seconds * rng.uniform(0.5, 5))
    release = np.minimum((samples - np.arange(samples)) / (0.02 * RATE), 1)
    return rng.uniform(0.3, 1) * envelope * release * sound.tone(rng, np.full(samples, hz), RATE)
