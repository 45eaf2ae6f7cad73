"""Any sound a user can hand over -> one channel of float32 samples at 16 kHz.

Knows files, arrays and channels; knows nothing of features, models or how much speech is enough.
Samples keep their DC offset: the filterbank subtracts the mean of every frame, which removes a
constant offset exactly and a drifting one better than the mean of the file would.
"""

import contextlib
import os
import warnings
from typing import Any, BinaryIO, Protocol, TypeAlias

import numpy as np

from llmasr.audio.arrays import is_array, open_array
from llmasr.audio.files import find, open_file
from llmasr.audio.mono import to_mono
from llmasr.audio.sound import (
    SAMPLE_RATE,
    AudioError,
    ChannelWarning,
    ScaleWarning,
    TruncatedAudioWarning,
)

__all__ = [
    "SAMPLE_RATE",
    "AudioError",
    "AudioSource",
    "ChannelWarning",
    "ScaleWarning",
    "TruncatedAudioWarning",
    "load_audio",
]


class TensorLike(Protocol):
    """A torch tensor, named by what is needed of it so that torch is not imported."""

    def is_floating_point(self) -> bool: ...

    def float(self) -> Any: ...

    def numpy(self, *, force: bool) -> Any: ...


ArrayLike: TypeAlias = np.ndarray | TensorLike
AudioSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | ArrayLike
    | tuple[ArrayLike, int]
)


def load_audio(
    source: AudioSource, *, sample_rate: int | None = None, channel: str | int = "mix"
) -> np.ndarray:
    """Read a sound as mono float32 at 16 kHz.

    A file is tried with libsndfile first and with FFmpeg (PyAV, extra `media`) second; its content
    decides, not its name, so headerless files (.raw) and two-file ones (.sd2) are refused. A file
    object that can seek is read from its start, any other one from where it stands. While reading,
    memory holds every channel at 16 kHz: 64 kB per second and channel.

    An array is [samples], [channels, samples] or [samples, channels]: the shorter axis is the
    channels. Integers are scaled by the range of their dtype (uint8 128 -> 0.0). Floats belong in
    [-1, 1]; a peak in (8, 65536] is taken for the int16 scale and divided by 32768.

    Args:
        source: path, bytes, binary file object, array, tensor, or a pair `(array, rate)`.
        sample_rate: Hz, 1,000 to 768,000; for arrays and tensors, which do not carry their rate.
        channel: "mix" averages the channels, leaving out those that are silent beside the others
            (40 dB below the loudest) and those that cancel an earlier one (correlation below
            -0.9); "left", "right" or an index from 0 takes one channel as it is.

    Returns:
        Samples, float32 [samples at 16 kHz], about [-1, 1], a fresh array; empty if there are none.

    Raises:
        AudioError: (a ValueError) the source is missing, unreadable, not audio, has no such
            channel, NaN or infinite samples, or a peak on no known scale.
        ValueError: `sample_rate`, `channel` or the shape of an array is not allowed.
        TypeError: the type of `source`, of its samples or of its rate is not accepted.

    Warns:
        ChannelWarning, ScaleWarning, TruncatedAudioWarning: see each of them.
    """
    is_index = isinstance(channel, int) and not isinstance(channel, bool) and channel >= 0
    if not is_index and channel not in ("mix", "left", "right"):
        raise ValueError(f"channel is {channel!r}; allowed: 'mix', 'left', 'right', 0, 1, ...")
    notes: list[Warning] = []
    with contextlib.ExitStack() as stack:
        if isinstance(source, tuple):
            if sample_rate is not None:
                raise ValueError(f"sample_rate is {sample_rate!r}, but the pair has a rate already")
            if len(source) != 2 or not is_array(source[0]):
                kinds = ", ".join(type(part).__name__ for part in source)
                raise TypeError(f"source is a tuple of ({kinds}); allowed: (array, rate)")
            source, sample_rate = source
        if is_array(source):
            sound = open_array(source, sample_rate)
        elif sample_rate is not None:
            raise ValueError(
                f"sample_rate is {sample_rate!r}, but only arrays need one: files carry their own"
            )
        else:
            sound = open_file(find(source), notes, stack)
        waveform = to_mono(sound, channel, notes)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return waveform
