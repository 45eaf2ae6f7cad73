"""From audio inputs to batches of spans: read, cut, and pack by length.

Everything is lazy and in order, so that ten thousand inputs need the memory of a few batches.
This file knows no network.
B pieces, S samples.
"""

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmasr.audio import (
    SAMPLE_RATE,
    AudioError,
    AudioSource,
    ChannelWarning,
    ScaleWarning,
    TruncatedAudioWarning,
    load_audio,
)
from llmasr.decoding.segment import Span, sounding_spans, speech_spans

# One window of the filterbank; shorter audio holds no word.
MIN_SAMPLES = 400
FLAGS: dict[type[Warning], str] = {
    ChannelWarning: "channels_differ",
    ScaleWarning: "rescaled",
    TruncatedAudioWarning: "audio_truncated",
}


class Recording(NamedTuple):
    """An input that was read, or what went wrong."""

    waveform: np.ndarray  # [S], empty after an error
    flags: tuple[str, ...]
    seconds: float  # of work
    error: str | None
    seen: Mapping[str, Tensor] = MappingProxyType({})  # by modality, vectors [n, H]


class Piece(NamedTuple):
    """A span of one recording."""

    recording: int  # its index
    span: Span
    waveform: np.ndarray  # [S]
    seen: Mapping[str, Tensor] = MappingProxyType({})  # of the recording


def read(audio: AudioSource, *, channel: str | int, sample_rate: int | None) -> Recording:
    """Read one input; warnings about it become flags, and are still given."""
    started = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waveform = load_audio(audio, sample_rate=sample_rate, channel=channel)
    for warning in caught:
        warnings.warn(warning.message, stacklevel=2)
    flags = tuple(
        flag
        for kind, flag in FLAGS.items()
        if any(issubclass(warning.category, kind) for warning in caught)
    )
    return Recording(waveform, flags, time.perf_counter() - started, None)


def read_or_fail(audio: AudioSource, *, channel: str | int, sample_rate: int | None) -> Recording:
    """Read one input of many, where an error is a result."""
    try:
        return read(audio, channel=channel, sample_rate=sample_rate)
    except (AudioError, OSError) as error:
        return Recording(np.zeros(0, np.float32), (), 0.0, str(error))


def windows(recordings: Iterable[Recording], seconds: float) -> Iterator[list[Recording]]:
    """Group consecutive recordings until they hold so many seconds."""
    window: list[Recording] = []
    samples = 0
    for recording in recordings:
        window.append(recording)
        samples += len(recording.waveform)
        if samples >= seconds * SAMPLE_RATE:
            yield window
            window, samples = [], 0
    if window:
        yield window


def cut(recordings: Sequence[Recording]) -> list[Piece]:
    """Cut recordings into spans; one that is silent or too short for a frame has none."""
    return [
        Piece(index, span, recording.waveform[span.start : span.end], recording.seen)
        for index, recording in enumerate(recordings)
        if len(recording.waveform) >= MIN_SAMPLES
        for part in sounding_spans(recording.waveform)
        for span in _shifted(speech_spans(recording.waveform[part.start : part.end]), part.start)
    ]


def _shifted(spans: Iterable[Span], samples: int) -> list[Span]:
    return [Span(span.start + samples, span.end + samples) for span in spans]


def pad(pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    """Put waveforms into one tensor [B, S], zero on the right, with lengths [B] int64."""
    lengths = torch.tensor([len(piece.waveform) for piece in pieces])
    padded = torch.zeros(len(pieces), int(lengths.max()))
    for row, piece in zip(padded, pieces, strict=True):
        row[: len(piece.waveform)] = torch.from_numpy(piece.waveform)
    return padded, lengths


def batches(pieces: Iterable[Piece], seconds: float) -> Iterator[list[Piece]]:
    """Put pieces of similar length together, as many as fit, padded, into so many seconds."""
    batch: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: len(piece.waveform), reverse=True):
        longest = len(batch[0].waveform) if batch else 0
        if batch and longest * (len(batch) + 1) > seconds * SAMPLE_RATE:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch
