"""Paths, bytes and file objects: what may be opened, and which decoder opens it."""

import contextlib
import os
import stat
from typing import Any

from llmasr.audio.ffmpeg import is_installed, open_ffmpeg
from llmasr.audio.libsndfile import open_libsndfile
from llmasr.audio.sound import (
    ACCEPTED,
    SAMPLE_RATE,
    AudioError,
    Sound,
    TruncatedAudioWarning,
    Unreadable,
)
from llmasr.files import File, read_object


def find(source: Any) -> File:
    """Locate encoded audio. Pipes and file objects are read to their end here."""
    if isinstance(source, bytes | bytearray | memoryview):
        content = bytes(source)
        return File(f"audio of {len(content)} bytes", content)
    if isinstance(source, str | os.PathLike):
        path = os.fsdecode(source)
        try:
            return _find_path(path)
        except AudioError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise AudioError(f"cannot open {path!r}: {reason}; {ACCEPTED}") from error
    if not hasattr(source, "read"):
        raise TypeError(
            f"source is a {type(source).__name__}; allowed: a path, bytes, a binary file object,"
            " a numpy array or torch tensor with sample_rate, or a pair (array, rate)"
        )
    return read_object(source, AudioError)


def _find_path(path: str) -> File:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise AudioError(f"{path!r} is a directory; pass the files in it; {ACCEPTED}")
    if not stat.S_ISREG(mode) and not stat.S_ISFIFO(mode):
        raise AudioError(f"{path!r} is a device or socket, not a file or pipe; {ACCEPTED}")
    with open(path, "rb") as file:
        if stat.S_ISFIFO(mode) or not file.read(1):
            return File(repr(path), file.read())
    return File(repr(path), path)


def open_file(file: File, notes: list[Warning], stack: contextlib.ExitStack) -> Sound:
    """Open encoded audio with libsndfile, else with FFmpeg, until `stack` closes.

    What is missing from it is added to `notes`, in part only when the blocks have been read.
    """
    if not file.content:
        notes.append(TruncatedAudioWarning(f"{file.name} is empty: it has 0 bytes"))
        return Sound(file.name, SAMPLE_RATE, 1, iter(()))
    try:
        return open_libsndfile(file, notes, stack)
    except Unreadable as error:
        reason = str(error)
    if not is_installed():
        raise AudioError(f"cannot decode {file.name}: libsndfile says {reason!r}; {ACCEPTED}")
    try:
        return open_ffmpeg(file, notes, stack)
    except Unreadable as error:
        raise AudioError(
            f"cannot decode {file.name}: libsndfile says {reason!r}, FFmpeg says {str(error)!r};"
            f" {ACCEPTED}"
        ) from None
