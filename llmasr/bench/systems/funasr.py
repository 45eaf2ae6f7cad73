"""Models of FunASR (Paraformer, SenseVoice, Fun-ASR-Nano ...), from a local folder.

Marks like `<|zh|>`, which SenseVoice writes around its text, are taken out. No voice activity
detection and no punctuation model is added.

Tested against a stand-in of the documented calls (`AutoModel(model=, device=, disable_update=,
disable_pbar=)`, `generate(input=[samples], batch_size=)` -> one dict with `text` for each sound, in
order), not with real weights.
"""

import re
from collections.abc import Sequence
from typing import Any

from llmasr.bench.card import versions
from llmasr.bench.contract import (
    Setup,
    Sound,
    digest_of_folder,
    local_folder,
    require,
    torch_device,
)

MARK = re.compile(r"<\|[^|]*\|>")


class FunAsr:
    """A folder with a model of FunASR."""

    def __init__(self, argument: str, setup: Setup) -> None:
        self.folder = local_folder("funasr", argument)
        if setup.dtype != "float32":
            raise ValueError(f"dtype is {setup.dtype!r}; allowed for funasr: float32")
        self.name = f"funasr:{self.folder.name}"
        self.setup = setup
        self.model: Any = None

    def describe(self) -> dict[str, Any]:
        """Return versions, weights, device and threads."""
        import torch

        return {
            **versions("funasr", "torch"),
            "weights": digest_of_folder(self.folder),
            "device": torch_device(self.setup.device),
            "dtype": "float32",
            "threads": torch.get_num_threads(),
        }

    def load(self) -> None:
        """Load the model; its threads are those of torch, as for others."""
        import torch

        library = require("funasr", "funasr")
        self.model = library.AutoModel(
            model=str(self.folder),
            device=torch_device(self.setup.device),
            ncpu=torch.get_num_threads(),
            disable_update=True,
            disable_pbar=True,
        )

    def unload(self) -> None:
        """Let the model go."""
        self.model = None

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the texts."""
        samples = [sound.samples for sound in batch]
        found = self.model.generate(input=samples, batch_size=len(batch))
        return [MARK.sub("", entry["text"]).strip() for entry in found]
