"""silero-vad on telephone prompts between pauses, and on noise alone; the recurrent state is carried through each clip."""

import io
import itertools
import wave
from pathlib import Path

import numpy as np

from benchmarks.zoo import fetch, sound
from benchmarks.zoo.dataset import Array, Case, Input, write

WHEEL = "silero-vad==6.2.3"
MODEL = "silero_vad/data/silero_vad.onnx"
MODEL_SHA256 = "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"
SPEECH = "asterisk-core-sounds-en-wav"
SPEECH_SHA256 = "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d"
RATE = 16000
CHUNK, CONTEXT = 512, 64  # 32 ms, preceded by the last 4 ms of the chunk before, as the wheel's own wrapper feeds it
SIZES = (300, 6000, 8000)
SPEECH_DB = -40  # a frame is speech down to this level below the clip's loudest
LONGEST_GAP = 3  # frames: a shorter dip, such as the closure of a plosive, is speech still


def make(out: Path, cache: Path) -> None:
    """Labels: 1 where the clean recording has speech, for each frame of 32 ms; no recording is in two splits."""
    rng = np.random.default_rng(7)
    recordings = _recordings(cache)
    rng.shuffle(recordings)
    parts = [_split(rng, recordings, size) for size in SIZES]
    frames, labels, starts = (np.concatenate(column) for column in zip(*parts, strict=True))
    write(
        Case(
            name="silero-vad",
            summary="voice activity in frames of 32 ms: telephone prompts between pauses, and noise alone",
            license="MIT (model), CC-BY-SA-3.0 (speech by Allison Smith for Digium)",
            source=f"PyPI {WHEEL}; Debian {SPEECH}",
            metric="binary-accuracy",
            model=fetch.wheel_file(WHEEL, MODEL, MODEL_SHA256, cache),
            inputs={"input": sound.pcm(frames), "sr": Input(np.full(sum(SIZES), RATE, np.int64), dtype="int64")},
            sizes=SIZES,
            labels=labels,
            starts=starts,
            state={"stateN": "state"},
            shapes=[f"input:1x{CONTEXT + CHUNK}", "state:2x1x128"],
        ),
        out,
    )


def framed(clip: Array) -> Array:
    """Whole frames of CONTEXT + CHUNK samples, one chunk apart; the first has silence as its context."""
    padded = np.concatenate([np.zeros(CONTEXT), clip])
    return np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + CHUNK)[::CHUNK]


def speech_frames(clean: Array) -> Array:
    """1 for each whole chunk within SPEECH_DB of the loudest, dips of up to LONGEST_GAP chunks closed; uint8."""
    chunks = clean[: len(clean) // CHUNK * CHUNK].reshape(-1, CHUNK)
    power = np.square(chunks).mean(axis=1)
    speech: Array = (power > power.max() * 10 ** (SPEECH_DB / 10)).astype(np.uint8)
    loud = np.flatnonzero(speech)
    for before, after in itertools.pairwise(loud):
        if after - before <= LONGEST_GAP + 1:
            speech[before:after] = 1
    return speech


def doubled_rate(sound_8k: Array) -> Array:
    """Band-limited interpolation to twice the sampling rate, by zero-padding the spectrum; an odd last sample is dropped."""
    even = sound_8k[: len(sound_8k) // 2 * 2]
    doubled: Array = np.fft.irfft(2 * np.fft.rfft(even), 2 * len(even))
    return doubled


def _split(rng: np.random.Generator, recordings: list[Array], size: int) -> tuple[Array, Array, Array]:
    """Frames, labels and starts of `size` frames; takes its recordings off the list."""
    clips: list[tuple[Array, Array]] = []
    while sum(len(labels) for _, labels in clips) < size:
        clips.append(_noise_clip(rng) if len(clips) % 4 == 3 else _speech_clip(rng, recordings.pop()))
    frames, labels = (np.concatenate(column)[:size] for column in zip(*clips, strict=True))
    starts = np.concatenate([np.arange(len(labels)) == 0 for _, labels in clips])[:size]
    return frames, labels, starts.astype(np.uint8)


def _speech_clip(rng: np.random.Generator, recording: Array) -> tuple[Array, Array]:
    """A recording of peak 0.2 to 0.8 between pauses of 0.5 to 1.5 s, in noise 36 to 60 dB below."""
    before, after = (np.zeros(int(rng.uniform(0.5, 1.5) * RATE)) for _ in range(2))
    clean = np.concatenate([before, sound.peak_one(recording), after])
    hiss = 10 ** rng.uniform(-3.0, -1.8) * sound.noise(rng, len(clean), rng.choice([0.0, 1.0]))
    return framed(rng.uniform(0.2, 0.8) * (clean + hiss)), speech_frames(clean)


def _noise_clip(rng: np.random.Generator) -> tuple[Array, Array]:
    """One to three seconds of white to brown noise of peak 0.003 to 0.1."""
    hiss = 10 ** rng.uniform(-2.5, -1) * sound.noise(rng, int(rng.uniform(1, 3) * RATE), rng.uniform(0, 2))
    frames = framed(hiss)
    return frames, np.zeros(len(frames), np.uint8)


def _recordings(cache: Path) -> list[Array]:
    """The package's prompts of one to six seconds at 16 kHz (they are recorded at 8 kHz), in -1..1."""
    files = fetch.deb_files(SPEECH, SPEECH_SHA256, ".wav", cache)
    sounds = [doubled_rate(_read(content)) for name, content in files.items() if "/silence/" not in name]
    return [x for x in sounds if RATE <= len(x) <= 6 * RATE]


def _read(wav: bytes) -> Array:
    with wave.open(io.BytesIO(wav)) as stream:
        return np.frombuffer(stream.readframes(stream.getnframes()), "<i2") / 32768
