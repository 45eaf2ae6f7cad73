"""What a source of sound is, and how messages about it are worded. Knows no decoder.

Dimension letters: S samples at the rate of the source, C channels.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

SAMPLE_RATE = 16_000
RATE_RANGE = (1_000, 768_000)
ACCEPTED = (
    "accepted is what libsndfile reads (wav, flac, ogg, opus, mp3, aiff, au, ...) and, with"
    ' `pip install "llmasr[media]"`, the audio track of m4a, aac, mp4, webm, mkv, mpg, ...'
)


class AudioError(ValueError):
    """Says which source cannot be turned into samples, why, and what is accepted."""


class ChannelWarning(UserWarning):
    """Says that channels differ so much that some were left out of the mix."""


class TruncatedAudioWarning(UserWarning):
    """Says that a file is cut short or damaged and that only a part of it was read."""


class ScaleWarning(UserWarning):
    """Says that floating point samples were on the int16 scale and have been divided by 32768."""


class Sound(NamedTuple):
    """A source whose samples have not been read yet."""

    name: str
    rate: int
    channels: int
    blocks: Iterator[np.ndarray]  # float32 [S, C] each, about a second long


class Unreadable(Exception):
    """One decoder's reason for giving up; another one may still succeed."""


def checked_rate(rate: Any, owner: str) -> int:
    """Return a rate in Hz if it is a whole number in RATE_RANGE."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.integer | np.floating):
        raise TypeError(f"sample_rate is {rate!r}; allowed: a whole number of Hz")
    low, high = RATE_RANGE
    if not low <= rate <= high or rate != int(rate):
        raise AudioError(
            f"{owner} has sample_rate {rate!r}; allowed: whole Hz from {low} to {high}"
        )
    return int(rate)


def block_length(rate: int, channels: int) -> int:
    """Choose a second of samples, or less where that would take more than 16 MB."""
    return max(1, min(rate, 2**22 // channels))


def to_float(samples: np.ndarray) -> np.ndarray:
    """Scale integers from the range of their dtype to [-1, 1); cast floats to float32."""
    if samples.dtype.kind == "f":
        # What float32 cannot hold becomes infinite and is reported as such.
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    half = 2.0 ** (8 * samples.dtype.itemsize - 1)
    offset = half if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - offset) / half).astype(np.float32)


def cut_short(name: str, reason: str) -> TruncatedAudioWarning:
    """Word the warning about a source of which a part is missing."""
    return TruncatedAudioWarning(f"{name} is cut short or damaged: {reason}; the rest is used")
