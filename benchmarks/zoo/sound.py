"""Synthesized sound: harmonic tones that follow a pitch curve, envelopes, coloured noise, and 16-bit storage."""

import numpy as np

from benchmarks.zoo.dataset import Array, Input


def tone(rng: np.random.Generator, hz: Array, rate: int) -> Array:
    """One to twelve harmonics with falling random strengths below the Nyquist frequency; `hz` is the pitch at each sample."""
    phase = 2 * np.pi * np.cumsum(hz) / rate
    sound = np.zeros(len(hz))
    for k in range(1, int(rng.integers(2, 14))):
        if k * hz.max() < 0.45 * rate:
            sound += rng.uniform(0.3, 1.0) / k * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
    return peak_one(sound)


def noise(rng: np.random.Generator, samples: int, colour: float) -> Array:
    """Noise of peak 1 whose power falls as 1 / frequency**colour: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    sound = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** (colour / 2), samples)
    return peak_one(sound)


def peak_one(sound: Array) -> Array:
    """`sound` scaled so that its largest magnitude is 1."""
    scaled: Array = sound / np.abs(sound).max()
    return scaled


def pcm(sounds: Array) -> Input:
    """Sounds in -1..1 stored as 16-bit samples, which is how microphones and files deliver them."""
    return Input(np.round(np.clip(sounds, -1, 32767 / 32768) * 32768).astype(np.int16), scale=1 / 32768)
