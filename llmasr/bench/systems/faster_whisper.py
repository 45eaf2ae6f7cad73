"""Whisper through faster-whisper (CTranslate2), from a local folder.

It takes one sound a call, so a batch is a loop, as long as it has no batches over several files.
Search is its default, 5 beams.

Tested against a stand-in of the documented calls (`WhisperModel(folder, device=, compute_type=,
local_files_only=)`, `transcribe(samples, beam_size=)` -> segments with `text`, and an info), not
with real weights.
"""

from collections.abc import Sequence
from typing import Any

from llmasr.bench.card import versions
from llmasr.bench.contract import Setup, Sound, digest_of_folder, local_folder, require

BEAMS = 5


class FasterWhisper:
    """A folder with a converted Whisper."""

    def __init__(self, argument: str, setup: Setup) -> None:
        self.folder = local_folder("faster-whisper", argument)
        self.name = f"faster-whisper:{self.folder.name}"
        self.setup = setup
        self.model: Any = None

    def describe(self) -> dict[str, Any]:
        """Return versions, weights, device and dtype."""
        return {
            **versions("faster-whisper", "ctranslate2"),
            "weights": digest_of_folder(self.folder),
            "device": self._device(),
            "dtype": self.setup.dtype,
            "search": f"{BEAMS} beams",
        }

    def load(self) -> None:
        """Load the model."""
        library = require("faster_whisper", "faster-whisper")
        device, _, index = self._device().partition(":")
        self.model = library.WhisperModel(
            str(self.folder),
            device=device,
            device_index=int(index or 0),
            compute_type=self.setup.dtype,
            local_files_only=True,
        )

    def unload(self) -> None:
        """Let the model go."""
        self.model = None

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the texts; segments are computed while they are read."""
        return [
            "".join(
                segment.text for segment in self.model.transcribe(sound.samples, beam_size=BEAMS)[0]
            ).strip()
            for sound in batch
        ]

    def _device(self) -> str:
        if self.setup.device != "auto":
            return self.setup.device
        engine = require("ctranslate2", "faster-whisper")
        return "cuda" if engine.get_cuda_device_count() else "cpu"
