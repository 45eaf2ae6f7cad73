"""Decode with FFmpeg through PyAV, the extra `media`: containers, video, and odd codecs.

Dimension letters: S samples at the rate of the source, C channels.
"""

import contextlib
import importlib.util
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from llmasr.audio.sound import (
    ACCEPTED,
    AudioError,
    Sound,
    Unreadable,
    block_length,
    checked_rate,
    cut_short,
)
from llmasr.files import File

# FFmpeg's containers whose duration is written down; that of others is guessed from the bit rate.
STATES_DURATION = ("mov", "matroska", "asf", "flac", "caf")


def is_installed() -> bool:
    """Tell whether the extra `media` is here."""
    return importlib.util.find_spec("av") is not None


def open_ffmpeg(file: File, notes: list[Warning], stack: contextlib.ExitStack) -> Sound:
    """Open the first audio track; files stay open until `stack` closes.

    Raises:
        Unreadable: FFmpeg cannot decode it.
        AudioError: it is a film, picture or text without sound.
    """
    import av

    try:
        container: Any = stack.enter_context(
            # A playlist (concat, m3u8) would open other files: allow no protocol but the handle.
            av.open(
                file.open(stack),
                metadata_errors="replace",
                options={"protocol_whitelist": "none"},
            )
        )
    except av.error.FFmpegError as error:
        raise Unreadable(error.strerror) from error
    if not container.streams.audio:
        kinds = sorted({stream.type for stream in container.streams})
        raise AudioError(f"{file.name} has no audio track, only {kinds}; {ACCEPTED}")
    frames = _frames(file.name, container, notes)
    first = next(frames, None)
    if first is None:
        raise Unreadable("its audio track holds no samples")
    rate = checked_rate(first.sample_rate, file.name)
    channels = first.layout.nb_channels
    blocks = _blocks(file.name, rate, channels, itertools.chain([first], frames))
    return Sound(file.name, rate, channels, blocks)


def _frames(name: str, container: Any, notes: list[Warning]) -> Iterator[Any]:
    """Decode the first audio track; go over packets that cannot be decoded, and say so."""
    import av

    audio = container.streams.audio[0]
    count = damaged = 0
    end: float = 0.0
    packets = container.demux()
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            if packet.pts is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            for frame in packet.decode() if packet.stream_index == audio.index else ():
                count += 1
                # Packets need not say how long they are.
                end = max(end, (frame.time or 0.0) + frame.samples / max(frame.sample_rate, 1))
                yield frame
        except av.error.FFmpegError:
            damaged += 1
        except IndexError:
            # PyAV trips at the end of the file over tracks that began after its start.
            break
    problem = f"{damaged} packets cannot be decoded" if damaged else None
    if container.duration and container.format.name.startswith(STATES_DURATION):
        missing = (container.duration + (container.start_time or 0)) / av.time_base - end
        if missing > 0.5:
            problem = f"{missing:.2f} s are missing at the end"
    if problem and count == 0:
        raise Unreadable(problem)
    if problem:
        notes.append(cut_short(name, problem))


def _blocks(name: str, rate: int, channels: int, frames: Iterable[Any]) -> Iterator[np.ndarray]:
    """Join frames of some milliseconds to blocks of about a second."""
    import av

    # Interleaved, because PyAV reads past the planes of a frame with 8 channels or more.
    convert = av.AudioResampler(format="flt").resample
    gathered: list[np.ndarray] = []
    for frame in frames:
        if (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
            raise AudioError(
                f"{name} changes from {rate} Hz, {channels} channels to {frame.sample_rate} Hz,"
                f" {frame.layout.nb_channels} channels inside; convert it to one format first"
            )
        gathered += [part.to_ndarray().reshape(-1, channels) for part in convert(frame)]
        if sum(map(len, gathered)) >= block_length(rate, channels):
            yield np.concatenate(gathered)
            gathered = []
    if gathered:
        yield np.concatenate(gathered)
