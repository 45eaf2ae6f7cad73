"""Some frames of a video from anywhere -> squares of normalised pixels, decoded with PyAV.

The times of all frames are read first, without decoding where the container tells them; then only
the frames that are chosen are decoded, with what they depend on. No more than one full frame is in
memory at a time.

Letters: N frames of the video, F frames looked at, H height, W width, S side of the square.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmasr.audio.ffmpeg import STATES_DURATION
from llmasr.config import FrameConfig
from llmasr.files import File
from llmasr.media.frames import check, choose
from llmasr.media.images import normalise
from llmasr.media.source import MAX_PIXELS, FileSource, MediaError, find, require

ACCEPTED = (
    "accepted is a video that FFmpeg reads (mp4, mov, mkv, webm, avi, mpg, gif, ...) as a path,"
    " bytes or a binary file object"
)
# Seconds that a container may round its duration by.
MISSING = 0.5


class VideoFrames(NamedTuple):
    """What is looked at of a video. Where it has fewer frames than asked for, the rest is zero."""

    frames: Tensor  # [F, 3, S, S] float32, normalised RGB
    mask: Tensor  # [F] bool, True on frames; all True ones come first
    times: Tensor  # [F] float32, seconds from the first frame of the video


class DamagedVideoWarning(UserWarning):
    """Says that a video is cut short or damaged, and that the rest of it was used."""


class Index(NamedTuple):
    """When the frames of a video are shown."""

    pts: np.ndarray  # [N] int64, rising, in ticks of the container
    end: int  # tick at which the last frame disappears
    keys: np.ndarray  # int64, rising: the frames that decoding can start from; may be empty
    tick: float  # seconds
    missing: float  # seconds by which the file is shorter than it says


def load_video(
    source: FileSource, *, size: int = 224, config: FrameConfig | None = None
) -> VideoFrames:
    """Read some frames of a video.

    The first video track is read, whatever its container; frames lie as its rotation says. Times
    are those of the frames themselves, so a varying frame rate is no matter. Damaged parts are gone
    over: the nearest frame after them is taken. Pixels are taken to be square.

    Args:
        source: path, bytes or binary file object.
        size: S, pixels.
        config: which frames; by default 5, spread evenly. `llmasr.config.XLLM_FRAMES` is X-LLM's.

    Returns:
        Frames, mask and times. At least one frame is there.

    Raises:
        MediaError: (a ValueError) the source is missing, a URL, no video, has only sound, no frame
            that can be decoded, or frames that are too large.
        ValueError: `config` means nothing.
        TypeError: the type of `source` is not accepted.
        ImportError: PyAV or Pillow is not installed.

    Warns:
        DamagedVideoWarning: frames are missing.
    """
    config = config or FrameConfig()
    check(config)
    require("av", "reading videos")
    require("PIL", "reading videos")
    file = find(source, "video", ACCEPTED)
    index = _index(file)
    seconds = (index.pts - index.pts[:1]) * index.tick
    chosen = choose(seconds, (index.end - index.pts[0]) * index.tick, config)
    wanted = index.pts[chosen].tolist()
    found = _decode(file, index, wanted, partial(_square, size=size, crop=config.crop))
    if list(found) != wanted or index.missing > MISSING:
        what = (
            f"{index.missing:.2f} s are missing" if index.missing > MISSING else "frames are lost"
        )
        warnings.warn(
            DamagedVideoWarning(f"{file.name} is cut short or damaged: {what}; the rest is used"),
            stacklevel=2,
        )
    frames = torch.zeros(config.num_frames, 3, size, size)
    times = torch.zeros(config.num_frames)
    for place, (pts, pixels) in enumerate(found.items()):
        frames[place] = pixels
        times[place] = float((pts - index.pts[0]) * index.tick)
    return VideoFrames(frames, torch.arange(config.num_frames) < len(found), times)


def _square(image: Any, size: int, crop: bool) -> Tensor:
    """Squeeze a picture into a square, or take the middle of what the shorter side fills."""
    width, height = image.size
    if not crop:
        return normalise(image, size)
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return normalise(image, size, (left, top, left + side, top + side))


@contextlib.contextmanager
def _opened(file: File) -> Iterator[tuple[Any, Any]]:
    """Open a container and its first video track.

    Raises:
        MediaError: FFmpeg cannot, or there is no such track.
    """
    import av

    with contextlib.ExitStack() as stack:
        try:
            container: Any = stack.enter_context(
                # A playlist would open other files: allow no protocol but the handle.
                av.open(
                    file.open(stack),
                    metadata_errors="replace",
                    options={"protocol_whitelist": "none"},
                )
            )
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(
                f"{file.name} is no video that can be read: {error.strerror}; {ACCEPTED}"
            ) from error
        # The cover of a song is a picture, although its track calls itself video.
        covers = av.stream.Disposition.attached_pic
        films = [one for one in container.streams.video if not one.disposition & covers]
        if not films:
            kinds = sorted({stream.type for stream in container.streams})
            raise MediaError(f"{file.name} has no video track, only {kinds}; {ACCEPTED}")
        if films[0].codec_context is None:
            raise MediaError(f"{file.name} has a video track of an unknown codec; {ACCEPTED}")
        if films[0].width * films[0].height > MAX_PIXELS:
            raise MediaError(
                f"{file.name} has frames of {films[0].width} x {films[0].height} pixels; allowed:"
                f" up to {MAX_PIXELS} pixels; scale it down first"
            )
        yield container, films[0]


def _index(file: File) -> Index:
    """Read when frames are shown: from packets, or by decoding where these do not tell.

    Raises:
        MediaError: the file is no video, or has no frame that can be decoded.
    """
    with _opened(file) as (container, stream):
        tick = float(stream.time_base or 1)
        marks, missing = _marks(container, stream)
    if any(pts is None for pts, _, _ in marks):
        with _opened(file) as (container, stream):
            marks = [(at, frame.duration, False) for at, frame in _frames(container, stream)]
    shown = [(at, at + (lasting or 0), is_key) for at, lasting, is_key in marks if at is not None]
    if not shown:
        raise _nothing_in(file)
    pts = np.unique(np.array([at for at, _, _ in shown], np.int64))
    keys = np.unique(np.array([at for at, _, is_key in shown if is_key], np.int64))
    # A last frame that does not say how long it lasts is taken to last as long as the others.
    usual = int(np.median(np.diff(pts))) if len(pts) > 1 else 1
    end = max(int(pts[-1]) + usual, *(end for _, end, _ in shown))
    return Index(pts, end, keys, tick, missing)


def _marks(container: Any, stream: Any) -> tuple[list[tuple[int | None, int | None, bool]], float]:
    """Return tick, duration and keyness of each packet, and how many seconds the file lacks."""
    import av

    marks: list[tuple[int | None, int | None, bool]] = []
    last = 0.0
    for packet in _packets(container):
        if packet.pts is not None:
            last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == stream.index and packet.size and not packet.is_discard:
            marks.append((packet.pts, packet.duration, packet.is_keyframe))
    if not container.duration or not container.format.name.startswith(STATES_DURATION):
        return marks, 0.0
    return marks, (container.duration + (container.start_time or 0)) / av.time_base - last


def _decode(
    file: File, index: Index, wanted: list[int], prepare: Callable[[Any], Tensor]
) -> dict[int, Tensor]:
    """Return the prepared pictures at the wanted ticks, which rise.

    Raises:
        MediaError: there are none.
    """
    with _opened(file) as (container, stream):
        found = dict(_walk(container, stream, index, wanted, prepare))
    if list(found) != wanted and len(index.keys):
        # A seek missed, or frames are lost to damage: go through it all.
        with _opened(file) as (container, stream):
            every = index._replace(keys=index.keys[:0])
            found = dict(_walk(container, stream, every, wanted, prepare))
    if not found:
        raise _nothing_in(file)
    return found


def _walk(
    container: Any,
    stream: Any,
    index: Index,
    wanted: list[int],
    prepare: Callable[[Any], Tensor],
) -> Iterator[tuple[int, Tensor]]:
    """Go from one wanted tick to the next, leaping to key frames; yield what is found there."""
    import av

    start = reached = int(index.pts[0]) - 1
    frames = _frames(container, stream)
    for target in wanted:
        if reached >= target:
            continue
        key = int(index.keys[index.keys <= target].max(initial=start))
        if key > max(reached, start + 1):
            try:
                container.seek(key, stream=stream, backward=True)
            except av.error.FFmpegError:
                # The caller sees that frames are lacking.
                return
            frames = _frames(container, stream)
        for reached, frame in frames:
            if reached >= target:
                yield reached, prepare(_upright(frame))
                break


def _packets(container: Any, *streams: Any) -> Iterator[Any]:
    """Yield the packets of tracks, by default all, up to the end or to damage none can pass."""
    import av

    packets = container.demux(*streams)
    while True:
        try:
            yield next(packets)
        except (StopIteration, av.error.FFmpegError, IndexError):
            # PyAV trips over tracks that begin after the start of the file with an IndexError.
            return


def _frames(container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
    """Decode a track from where its container stands; go over packets that cannot be decoded.

    Frames of a bare stream without a container, which has no times, are numbered.
    """
    import av

    count = 0
    for packet in _packets(container, stream):
        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            continue
        for frame in frames:
            yield count * (frame.duration or 1) if frame.pts is None else frame.pts, frame
            count += 1


def _upright(frame: Any) -> Any:
    """Turn a frame as its display matrix says, in degrees against the clock."""
    from PIL import Image

    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image


def _nothing_in(file: File) -> MediaError:
    return MediaError(f"{file.name} has no frame that can be decoded; {ACCEPTED}")
