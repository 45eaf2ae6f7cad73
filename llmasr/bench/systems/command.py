"""A program of the user's, whose standard output is the text.

`{audio}` in the command line is replaced by the path of a wav file (16 kHz, 16 bits), one call an
utterance; all that the program prints is the text. `{list}` is replaced by a file of such paths,
one a line, one call a batch; the program prints one line for each, in order. What it costs to start
the program and to load its model is timed with the rest, for it cannot be told apart, and its
memory is not that of this process.
"""

import shlex
import subprocess
import tempfile
import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmasr.bench.contract import SAMPLE_RATE, Setup, Sound

ONE, MANY = "{audio}", "{list}"
INT16_SCALE = 32_767


class Command:
    """A command line; no shell reads it, so pipes need `sh -c`."""

    is_here = False

    def __init__(self, argument: str, setup: Setup) -> None:
        del setup
        self.words = shlex.split(argument)
        if (ONE in argument) == (MANY in argument):
            raise ValueError(f"command is {argument!r}; it must have either {ONE} or {MANY}")
        self.name = f"command:{argument}"

    def describe(self) -> dict[str, Any]:
        """Return the command."""
        return {"command": self.words}

    def load(self) -> None:
        """Do nothing: the program loads itself at each call."""

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return what the program prints; a program that fails fails the batch."""
        with tempfile.TemporaryDirectory(prefix="llmasr-bench-") as folder:
            paths = [_write(Path(folder), index, sound) for index, sound in enumerate(batch)]
            if ONE in " ".join(self.words):
                return [" ".join(self._run(ONE, path).split()) for path in paths]
            listed = Path(folder) / "list.txt"
            listed.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
            return [line.strip() for line in self._run(MANY, listed).splitlines()]

    def _run(self, place: str, path: Path) -> str:
        words = [word.replace(place, str(path)) for word in self.words]
        done = subprocess.run(words, capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"exit code {done.returncode}: {said[-1] if said else words[0]}")
        return done.stdout.decode("utf-8")


def _write(folder: Path, index: int, sound: Sound) -> Path:
    path = folder / f"{index:06d}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(sound.samples, -1, 1) * INT16_SCALE).astype("<i2").tobytes())
    return path
