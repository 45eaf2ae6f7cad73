"""Hypotheses that exist already, of any system: scored here, but not timed.

The file is what `llmasr score` reads: JSON lines with `id` and `text`, or Kaldi text. An utterance
that is not in it fails, and so is listed and scored as an empty hypothesis.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmasr.bench.contract import Setup, Sound
from llmasr.scoring import read_texts


class HypothesisFile:
    """A file of hypotheses."""

    hears = False

    def __init__(self, argument: str, setup: Setup) -> None:
        del setup
        self.path = Path(argument)
        if not argument or not self.path.is_file():
            raise ValueError(f"file:{argument} names no file; allowed: a file of hypotheses")
        self.name = f"file:{self.path.name}"
        self.texts: dict[str, str] = {}

    def describe(self) -> dict[str, Any]:
        """Return the hash of the file."""
        return {"sha256": hashlib.sha256(self.path.read_bytes()).hexdigest()[:8]}

    def load(self) -> None:
        """Read the file."""
        self.texts = read_texts(self.path)

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the texts by id."""
        absent = [sound.id for sound in batch if sound.id not in self.texts]
        if absent:
            raise ValueError(f"{self.path.name} has no hypothesis for {absent[0]!r}")
        return [self.texts[sound.id] for sound in batch]
