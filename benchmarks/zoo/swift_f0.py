"""swift-f0's pitch detector on synthesized tones with vibrato and glides, in noise."""

from pathlib import Path

import numpy as np

from benchmarks.zoo import fetch, sound
from benchmarks.zoo.dataset import Array, Case, Input, write

WHEEL = "swift-f0==0.3.0"
MODEL_SHA256 = "6385e8c2ebc3872e82c9ff5946228de44cd3be77a750ea53698b7dbfe94b0a22"
RATE, HOP = 16000, 256  # the model's metadata; frame k is centred on sample k * HOP
LOWEST_HZ, HIGHEST_HZ = 46.875, 2093.75  # the whole band the model scores, its wheel's default
SIZES = (100, 200, 400)


def make(out: Path, cache: Path) -> None:
    """Labels: the pitch in Hz at each of the 62 frames of a second."""
    rng = np.random.default_rng(5)
    count = sum(SIZES)
    curves = [pitch_curve(rng, RATE) for _ in range(count)]
    sounds = [_sound(rng, hz) for hz in curves]
    write(
        Case(
            name="swift-f0",
            summary="pitch of synthesized harmonic tones, 80 to 1,000 Hz, one second each",
            license="MIT (model), CC0-1.0 (synthesized sound)",
            source=f"PyPI {WHEEL}; sound synthesized",
            metric="pitch-50-cents",
            model=fetch.wheel_file(WHEEL, "swift_f0/model.onnx", MODEL_SHA256, cache),
            inputs={
                "audio": sound.pcm(np.stack(sounds)),
                "fmin": Input(np.full(count, LOWEST_HZ, np.float32)),
                "fmax": Input(np.full(count, HIGHEST_HZ, np.float32)),
            },
            sizes=SIZES,
            labels=np.stack([hz[: RATE // HOP * HOP : HOP] for hz in curves]).astype(np.float32),
            shapes=[f"audio:1x{RATE}"],
        ),
        out,
    )


def pitch_curve(rng: np.random.Generator, samples: int) -> Array:
    """Hz at each sample: a base of 80 to 1,000 Hz, a glide of up to 3 semitones, a vibrato of up to 0.4 semitones at 4 to 7 Hz."""
    seconds = np.arange(samples) / RATE
    base = 80 * 12.5 ** rng.random()
    glide = rng.uniform(-3, 3) * seconds
    vibrato = rng.uniform(0, 0.4) * np.sin(2 * np.pi * rng.uniform(4, 7) * seconds)
    hz: Array = base * 2 ** ((glide + vibrato) / 12)
    return hz


def _sound(rng: np.random.Generator, hz: Array) -> Array:
    """A tone of peak 0.1 to 0.8 in noise 20 to 50 dB below it."""
    level = rng.uniform(0.1, 0.8)
    hiss = sound.noise(rng, len(hz), rng.choice([0.0, 1.0, 2.0]))
    return level * (sound.tone(rng, hz, RATE) + 10 ** rng.uniform(-2.5, -1.0) * hiss)
