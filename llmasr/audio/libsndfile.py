"""Decode with libsndfile, and notice what it passes over: missing ends and guessed lengths.

Dimension letters: S samples at the rate of the source, C channels.
"""

import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from llmasr.audio.ffmpeg import is_installed
from llmasr.audio.sound import Sound, Unreadable, block_length, checked_rate, cut_short
from llmasr.files import File

MALFORMED = 3
# What libsndfile answers when its MP3 decoder, asked last, finds nothing it knows.
NO_MP3 = 7
# How libsndfile's log of a header tells that bytes which the header announces are not there. It
# drops the announced length of Sphere (NIST), W64, AVR, PVF and MAT5: they may be cut unnoticed.
LENGTH_IN_LOG = re.compile(r"(?:data|SSND|BODY|Data Size)\s*: (\d+) \(should be (\d+)\)")
CUT_SHORT_IN_LOG = re.compile(
    r"lacks an end-of-stream bit|junk after the last page"
    r"|seems to be (a )?truncated|count \d+ does not match",
    re.I,
)


def open_libsndfile(file: File, notes: list[Warning], stack: contextlib.ExitStack) -> Sound:
    """Open a file until `stack` closes.

    Raises:
        Unreadable: libsndfile cannot decode it, or FFmpeg is here and will do it better.
    """
    import soundfile

    handle = file.open(stack)
    try:
        sound = stack.enter_context(soundfile.SoundFile(handle))
    except soundfile.LibsndfileError as error:
        if error.code == MALFORMED:
            notes.append(cut_short(file.name, "libsndfile calls it malformed"))
        is_unknown = error.code == NO_MP3
        raise Unreadable("unknown format" if is_unknown else error.error_string) from error
    if sound.format in ("WAV", "WAVEX") and sound.frames == 0:
        repaired = _with_open_length(handle)
        if repaired is not None:
            return open_libsndfile(File(file.name, repaired), notes, stack)
    stated = _stated_frames(sound, handle)
    if stated is None and is_installed():
        # libsndfile stops where it guesses the end, FFmpeg where the file ends.
        raise Unreadable("its length is not written in it")
    rate = checked_rate(sound.samplerate, file.name)
    blocks = _blocks(file.name, sound, stated, handle, notes)
    # Decoding starts now, so that FFmpeg can still take over from a decoder that yields nothing.
    first = list(itertools.islice(blocks, 1))
    return Sound(file.name, rate, sound.channels, itertools.chain(first, blocks))


def _blocks(
    name: str, sound: Any, stated: int | None, handle: BinaryIO, notes: list[Warning]
) -> Iterator[np.ndarray]:
    import soundfile

    # Where the end is unknown it is met as an error, which costs the block in which it lies.
    length = block_length(sound.samplerate, sound.channels) if stated is not None else 64
    problem = _missing_in_log(sound.extra_info)
    count = 0
    read = length
    while read == length:
        block = np.empty((length, sound.channels), np.float32)
        try:
            read = len(sound.read(out=block))
        except soundfile.LibsndfileError as error:
            read = min(max(sound.tell() - count, 0), length - 1)
            problem = f"libsndfile fails after {(count + read) / sound.samplerate:.2f} s: {error}"
        count += read
        if read:
            yield block[:read]
    if stated is None:
        # A few kilobytes of tags may follow the audio.
        problem = "its length is not written in it" if len(handle.read(2**13)) == 2**13 else None
    elif stated - count > 0.1 * sound.samplerate:
        # A tenth of a second is more than encoders pad.
        problem = problem or f"{stated - count} of {stated} samples are missing"
    if problem and count == 0:
        raise Unreadable(problem)
    if problem:
        notes.append(cut_short(name, problem))


def _stated_frames(sound: Any, handle: BinaryIO) -> int | None:
    """Tell how many samples a file says it has; None where libsndfile only guesses."""
    if sound.format == "MP3":
        position = handle.tell()
        handle.seek(0)
        head = handle.read(2**20)
        handle.seek(position)
        return sound.frames if re.search(rb"Xing|Info|VBRI", head) else None
    return sound.frames if sound.frames < 2**62 else None


def _with_open_length(handle: BinaryIO) -> bytes | None:
    """Mark a WAV that was piped out with data length 0 as one whose data last until the end."""
    handle.seek(0)
    content = handle.read()
    at = content.find(b"data", 12, 4096) + 4
    is_finished = int.from_bytes(content[4:8], "little") == len(content) - 8
    if is_finished or at < 16 or content[at : at + 4] != bytes(4):
        return None
    return content[:at] + b"\xff" * 4 + content[at + 4 :]


def _missing_in_log(log: str) -> str | None:
    if CUT_SHORT_IN_LOG.search(log):
        return "its end is missing"
    for match in LENGTH_IN_LOG.finditer(log):
        stated, found = int(match[1]), int(match[2])
        # Programs that write to a pipe state 2 or 4 GB, give or take a header.
        is_open = min(abs(stated - 2**31), abs(stated - 2**32)) <= 2**16
        if found < stated and not is_open:
            return f"{stated - found} of {stated} bytes are missing"
    return None
