"""Long audio is cut at quiet places into spans that fit in memory.

Only digital silence, which no microphone gives, is left out; the spans between are an exact
partition: nothing is dropped and nothing is heard twice. Nobody decides about speech here: a quiet
span costs little, because it has no CIF fires.
S samples.
"""

from typing import NamedTuple

import numpy as np

from llmasr.audio import SAMPLE_RATE

MAX_SECONDS = 20.0
# Longer than most closures of stop consonants, shorter than a pause.
SMOOTHING_SAMPLES = SAMPLE_RATE // 10
# At most two steps of 16 bits, for so long: padding, a muted line or a gate, not a pause.
SILENT_LEVEL = 2 / 32_768
BLOCK_SAMPLES = SAMPLE_RATE // 100
SILENT_BLOCKS, MARGIN_BLOCKS = 40, 5
# No sliver is left for the last span.
MIN_LAST_SAMPLES = SAMPLE_RATE


class Span(NamedTuple):
    """A stretch of a waveform, in samples; `end` is the first sample after it."""

    start: int
    end: int


def sounding_spans(waveform: np.ndarray) -> list[Span]:
    """Return the stretches of a waveform [S] between digital silences of 0.4 s or more.

    Each keeps up to 50 ms of the silence around it. The features of digital silence lie so far
    below those of any recording that a model hears the speech beside it wrongly.
    """
    num_blocks = -(-len(waveform) // BLOCK_SAMPLES)
    edges = np.arange(num_blocks) * BLOCK_SAMPLES
    peaks = np.maximum.reduceat(np.abs(waveform), edges) if num_blocks else np.zeros(0)
    loud = np.flatnonzero(peaks > SILENT_LEVEL)
    if not len(loud):
        return []
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > SILENT_BLOCKS) + 1)
    return [
        Span(
            int(max(group[0] - MARGIN_BLOCKS, 0)) * BLOCK_SAMPLES,
            min(int(group[-1] + 1 + MARGIN_BLOCKS) * BLOCK_SAMPLES, len(waveform)),
        )
        for group in groups
    ]


def speech_spans(waveform: np.ndarray, *, max_seconds: float = MAX_SECONDS) -> list[Span]:
    """Cut a waveform [S] into spans of at most `max_seconds`.

    Each cut is at the quietest place of the second half of the longest span possible.
    """
    longest = int(max_seconds * SAMPLE_RATE)
    if longest < 2:
        raise ValueError(f"max_seconds is {max_seconds}; at least {2 / SAMPLE_RATE} is needed")
    spans, start = [], 0
    while len(waveform) - start > longest:
        first = start + longest // 2
        last = min(start + longest, max(len(waveform) - MIN_LAST_SAMPLES, first + 1))
        cut = _quietest(waveform, first, last)
        spans.append(Span(start, cut))
        start = cut
    if start < len(waveform):
        spans.append(Span(start, len(waveform)))
    return spans


def _quietest(waveform: np.ndarray, first: int, last: int) -> int:
    """Return the middle of the first window with the least energy inside [first, last)."""
    window = min(SMOOTHING_SAMPLES, last - first)
    energy = np.square(waveform[first:last], dtype=np.float64)
    total = np.concatenate([[0.0], np.cumsum(energy)])
    smoothed = total[window:] - total[:-window]  # [last - first - window + 1]
    return first + int(np.argmin(smoothed)) + (window + 1) // 2
