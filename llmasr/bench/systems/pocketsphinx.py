"""PocketSphinx with the English model that comes with it.

It adapts to what it hears, so without a fresh start for each utterance a text would depend on those
before it; the features are therefore set up anew each time, which takes well below a millisecond.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmasr.bench.card import versions
from llmasr.bench.contract import Setup, Sound, require

INT16_SCALE = 32_767


class PocketSphinx:
    """The default decoder; it runs on one thread of the processor."""

    def __init__(self, argument: str, setup: Setup) -> None:
        del setup
        if argument:
            raise ValueError(f"pocketsphinx:{argument} has an argument; it takes none")
        self.name = "pocketsphinx"
        self.decoder: Any = None

    def describe(self) -> dict[str, Any]:
        """Return its version."""
        return {**versions("pocketsphinx"), "device": "cpu", "threads": 1, "model": "en-us"}

    def load(self) -> None:
        """Load the model."""
        library = require("pocketsphinx", "pocketsphinx")
        self.decoder = library.Decoder(loglevel="FATAL")

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the texts; there are no batches inside."""
        return [self._hear(sound.samples) for sound in batch]

    def _hear(self, samples: np.ndarray) -> str:
        if not len(samples):
            return ""
        self.decoder.reinit_feat()
        self.decoder.start_utt()
        try:
            pcm = (np.clip(samples, -1, 1) * INT16_SCALE).astype(np.int16).tobytes()
            self.decoder.process_raw(pcm, full_utt=True)
        finally:
            self.decoder.end_utt()
        hypothesis = self.decoder.hyp()
        return hypothesis.hypstr if hypothesis is not None else ""
