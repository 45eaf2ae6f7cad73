"""Voices, clips and noise for the scenes.

The voices of a split are heard in no other one. Those of the test are also none of the voices that
`recipes/tiny_en` speaks with, so that a model that starts from tiny-en has never heard them.

Every clip is scaled to the same power, so that a signal-to-noise ratio in dB is a ratio of mean
powers over the clip. Letters: S samples at 16 kHz.
"""

import hashlib
import io
import os
import random
import sys
from pathlib import Path

import numpy as np
import soundfile

# The synthesisers and the noise without speech are those of the other recipe.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tiny_en"))

from noises import hum
from synthesise import ESPEAK_ACCENTS, ESPEAK_TIMBRES, SAMPLE_RATE, Utterance, speak

POWER_DB = -26.0
MARGIN = SAMPLE_RATE // 10  # samples kept before and after the speech
LOWEST_HZ = 100.0  # below it noise would take power without being in the way
NOISE_SECONDS = 6
BABBLERS = 5
NOISES = ("coloured", "babble", "coloured", "babble", "hum")
FLITE_VOICES = {"train": ("slt", "kal16", "awb"), "dev": ("rms",), "test": ()}
TIMBRES = {
    "train": tuple(ESPEAK_TIMBRES),
    "dev": ("iven2", "Tweaky", "RicishayMax2", "edward2", "Diogo", "Gene2"),
    # Settings little like those of any other: these share at most a quarter of their lines with
    # one of training, but for Nguyen, which shares half.
    "test": (
        "Denis", "Storm", "marcelo", "steph2", "klatt5", "klatt6", "AnxiousAndy", "announcer",
        "UniRobot", "Nguyen",
    ),
}  # fmt: skip
ACCENTS = {
    "train": ESPEAK_ACCENTS,
    "dev": ESPEAK_ACCENTS,
    "test": (*ESPEAK_ACCENTS, "en-gb-x-gbclan"),
}
FLITE_SHARE = 0.4


def draw_voice(rng: random.Random, voices: str, text: str) -> Utterance:
    """Draw who says ``text`` and how: a voice of 'train', 'dev' or 'test', a rate and a pitch."""
    stretch = round(rng.uniform(0.85, 1.4), 2)
    if FLITE_VOICES[voices] and rng.random() < FLITE_SHARE:
        voice = rng.choice(FLITE_VOICES[voices])
        low, high = (150, 260) if voice == "slt" else (85, 180)
        return Utterance(text, "flite", voice, stretch, rng.randrange(low, high))
    voice = f"{rng.choice(ACCENTS[voices])}+{rng.choice(TIMBRES[voices])}"
    return Utterance(text, "espeak-ng", voice, stretch, rng.randrange(20, 85))


def clip(utterance: Utterance) -> np.ndarray:
    """Return the speech, [S] float64, without most of the silence around it, at the usual power.

    Raises:
        ValueError: the synthesiser gave nothing.
    """
    samples = speak(utterance).astype(np.float64)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max(initial=0.0))
    if not len(loud):
        raise ValueError(f"{utterance} gives no sound; a sentence with words is needed")
    return at_power(samples[max(loud[0] - MARGIN, 0) : loud[-1] + MARGIN])


def at_power(samples: np.ndarray) -> np.ndarray:
    """Scale [S] so that its mean power is ``POWER_DB`` relative to full scale."""
    return samples * 10 ** (POWER_DB / 20) / np.sqrt(np.mean(samples**2))


def noise(kind: str, voices: str, sentences: list[str], seed: str) -> np.ndarray:
    """Return six seconds of noise, [S] float64, at the usual power; the same for the same seed.

    Args:
        kind: one of ``NOISES``.
        voices: whose babble: 'train', 'dev' or 'test'.
        sentences: what they babble.
        seed: any string.
    """
    size = NOISE_SECONDS * SAMPLE_RATE
    if kind == "babble":
        samples = _babble(random.Random(seed), voices, sentences, size)
    else:
        number = int.from_bytes(hashlib.sha1(seed.encode()).digest()[:8], "little")
        maker = {"coloured": _coloured, "hum": hum}[kind]
        samples = maker(np.random.default_rng(number), size)
    return at_power(samples)


def _coloured(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise whose power falls as 1 / f ** slope above 100 Hz, with a random slope from 0 to 1.5."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    shape = np.maximum(frequency, LOWEST_HZ) ** -rng.uniform(0, 0.75)
    return np.fft.irfft(spectrum * shape * (frequency > LOWEST_HZ), size)


def _babble(rng: random.Random, voices: str, sentences: list[str], size: int) -> np.ndarray:
    total = np.zeros(size)
    for _ in range(BABBLERS):
        said: list[np.ndarray] = []
        while sum(map(len, said)) < size + SAMPLE_RATE:
            said.append(clip(draw_voice(rng, voices, rng.choice(sentences))))
        start = rng.randrange(SAMPLE_RATE)  # nobody begins a sentence at the start of the clip
        total += np.concatenate(said)[start : start + size] * 10 ** (rng.uniform(-4, 0) / 20)
    return total


def mix(speech: np.ndarray, noise: np.ndarray, snr_db: float, start: int) -> np.ndarray:
    """Return [S] speech with noise: ``snr_db`` is the ratio of mean powers over the clip.

    Args:
        speech: [S].
        noise: of any length; repeated from sample ``start`` on.
        snr_db: the ratio in dB.
        start: any sample of the noise.
    """
    piece = np.take(noise, np.arange(start, start + len(speech)), mode="wrap")
    ratio = np.mean(speech**2) / max(np.mean(piece**2), 1e-20)
    return speech + piece * np.sqrt(ratio) * 10 ** (-snr_db / 20)


def write_flac(samples: np.ndarray, path: Path) -> None:
    """Write [S] in -1..1 as 16 kHz FLAC, so that a killed run leaves no half file.

    Raises:
        ValueError: a sample is beyond full scale.
    """
    if np.abs(samples).max() > 1:
        raise ValueError(f"{path}: samples reach {np.abs(samples).max():.2f}; at most 1 is allowed")
    encoded = io.BytesIO()
    soundfile.write(encoded, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(encoded.getvalue())
    partial.replace(path)
