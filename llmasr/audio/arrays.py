"""Arrays and tensors of samples: their shape, their dtype, their rate.

Dimension letters: S samples at the rate of the source, C channels.
"""

from typing import Any

import numpy as np

from llmasr.audio.sound import Sound, block_length, checked_rate, to_float

MAX_CHANNELS = 32


def is_array(source: object) -> bool:
    """Tell arrays and torch tensors from other sources, without importing torch."""
    return isinstance(source, np.ndarray) or hasattr(source, "is_floating_point")


def open_array(source: Any, sample_rate: object) -> Sound:
    """Take samples [S], [C, S] or [S, C] of any float or of up to 32 bits, at a rate in Hz."""
    if sample_rate is None:
        raise ValueError("sample_rate is None; an array needs its rate in Hz, such as 16000")
    name = f"array of shape {list(source.shape)}"
    rate = checked_rate(sample_rate, name)
    if not isinstance(source, np.ndarray):
        # NumPy has no bfloat16.
        source = (source.float() if source.is_floating_point() else source).numpy(force=True)
    if source.dtype.kind not in "fiu" or (source.dtype.kind != "f" and source.dtype.itemsize > 4):
        raise TypeError(
            f"samples are {source.dtype}; allowed: floats in [-1, 1], or integers of 8, 16 or 32"
            " bits that fill their range (no sound format has more, so their scale is unknown)"
        )
    frames = _frames(source)
    step = block_length(rate, frames.shape[1])
    starts = range(0, len(frames), step)
    blocks = (to_float(frames[start : start + step]) for start in starts)
    return Sound(name, rate, frames.shape[1], blocks)


def _frames(samples: np.ndarray) -> np.ndarray:
    """View an array as [S, C]."""
    shape = list(samples.shape)
    if samples.ndim not in (1, 2):
        raise ValueError(f"array has shape {shape}; allowed: [S], [C, S] or [S, C]")
    if samples.size == 0:
        return samples.reshape(0, 1)
    if samples.ndim == 1:
        return samples[:, None]
    if shape[0] == shape[1] > 1 or min(shape) > MAX_CHANNELS:
        raise ValueError(
            f"array has shape {shape}: which axis is the channels? Allowed: two axes of different"
            f" lengths, the shorter one at most {MAX_CHANNELS}; or pass one channel as [S]"
        )
    return samples.T if shape[0] < shape[1] else samples
