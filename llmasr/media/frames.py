"""Which frames of a video are looked at, chosen from the times at which they appear.

Letters: N frames of the video, F frames looked at.
"""

import numpy as np

from llmasr.config import FrameConfig

SAMPLINGS = ("uniform", "head", "tail")
# Seconds; less than any frame lasts, more than the rounding of a container's ticks.
TOLERANCE = 1e-4
MOST_PER_SECOND = 1000.0


def check(config: FrameConfig) -> None:
    """Refuse a configuration that means nothing.

    Raises:
        ValueError: the message names the field.
    """
    if config.sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {config.sampling!r}; allowed: {', '.join(SAMPLINGS)}")
    if config.num_frames < 1:
        raise ValueError(f"num_frames is {config.num_frames}; allowed: 1 or more")
    for name, most in (("frames_per_second", MOST_PER_SECOND), ("window_seconds", float("inf"))):
        value = getattr(config, name)
        if not 0 <= value <= most:
            raise ValueError(f"{name} is {value}; allowed: 0, which means none, to {most}")


def choose(times: np.ndarray, end: float, config: FrameConfig) -> np.ndarray:
    """Choose frames, in the order of time.

    The video is cut at `window_seconds` and thinned to what is seen at 0, 1/r, 2/r, ... seconds.
    Of what is left, "head" takes the first F, "tail" the last F, and "uniform" what is seen in the
    middle of F equal parts of the time. A frame that lasts long is taken once, so that there may be
    fewer than F.

    Args:
        times: [N] float64, rising seconds from the start of the video; N is 1 or more.
        end: when the last frame disappears.
        config: what to choose; F is its `num_frames`.

    Returns:
        [up to F] int64, rising indices into `times`.
    """
    window = config.window_seconds or end
    left = np.flatnonzero(times < max(window, TOLERANCE))
    end = min(end, window)
    if config.frames_per_second:
        left = left[_is_seen(times[left], end, config.frames_per_second)]
    if config.sampling == "head" or len(left) <= config.num_frames:
        return left[: config.num_frames]
    if config.sampling == "tail":
        return left[-config.num_frames :]
    middles = (np.arange(config.num_frames) + 0.5) * end / config.num_frames
    return left[np.unique(_seen(times[left], middles))]


def _is_seen(times: np.ndarray, end: float, rate: float) -> np.ndarray:
    """Tell which frames are on screen at one of the moments 0, 1/rate, 2/rate, ..."""
    moments = np.ceil((times - TOLERANCE) * rate) / rate  # the first since the frame is there
    is_seen = moments + TOLERANCE < np.append(times[1:], end)
    is_seen[0] = True
    return is_seen


def _seen(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Return the index of the frame that is on screen at each moment."""
    return np.maximum(np.searchsorted(times, moments + TOLERANCE, side="right") - 1, 0)
