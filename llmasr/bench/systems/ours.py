"""Our own models, with their time split by the parts of the network.

A batch is recognised as `Recognizer.transcribe` does it: the same spans, the same search, the whole
batch at once. Stages are found by hooks on the parts, so nothing in the recogniser knows of them:
features, encoder, cif, cformer, adaptor, prefill (the first call of the language model, which with
drafts reads prompt and draft) and decode (its further calls, those of a second attempt among them).
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llmasr.bench.card import commit, versions
from llmasr.bench.clock import StageClock
from llmasr.bench.contract import (
    SAMPLE_RATE,
    Setup,
    Sound,
    digest_of_folder,
    local_folder,
    torch_device,
)

if TYPE_CHECKING:
    from llmasr.api import Recognizer

# No span is longer than this, so that any batch of spans fits into one batch of the recogniser.
SPAN_SECONDS = 30.0
DEFAULT_MODEL = "tiny-en"


class Ours:
    """A bundled model or a folder that `save_pretrained` wrote."""

    def __init__(self, argument: str, setup: Setup) -> None:
        self.model = argument or DEFAULT_MODEL
        self.name = f"ours:{self.model}"
        self.setup = setup
        self.recognizer: Recognizer | None = None
        self.clock = StageClock()
        self._lm_calls = 0

    def describe(self) -> dict[str, Any]:
        """Return versions, weights, device and dtype."""
        import torch

        from llmasr.api import ASSETS, bundled_models

        is_bundled = self.model in bundled_models()
        folder = ASSETS / self.model if is_bundled else local_folder("ours", self.model)
        return {
            **versions("llmasr", "torch", "transformers"),
            "commit": commit(),
            "weights": digest_of_folder(folder),
            "device": torch_device(self.setup.device),
            "dtype": f"{self.setup.dtype} (acoustic part float32)",
            "threads": torch.get_num_threads(),
        }

    def load(self) -> None:
        """Load the model, and put the hooks on its parts."""
        from llmasr.api import Recognizer

        self.recognizer = Recognizer.from_pretrained(
            self.model, device=self.setup.device, dtype=self.setup.dtype
        )
        self.clock = StageClock(on_gpu=self.recognizer.device.type == "cuda")
        model = self.recognizer.bundle.model
        speech = model.speech
        self.clock.watch(speech.filterbank, self._new_utterances)
        for part, stage in (
            (speech.encoder, "encoder"),
            (speech.predictor, "cif"),
            (speech.cformer, "cformer"),
            (speech.adaptor, "adaptor"),
        ):
            self.clock.watch(part, partial(str, stage))
        self.clock.watch(model.language_model, self._lm_stage)

    def unload(self) -> None:
        """Let the model go."""
        self.recognizer = None
        self.clock = StageClock()

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the texts; one that could not be recognised fails the batch."""
        assert self.recognizer is not None, "load comes first"
        self.clock.reset()
        transcripts = self.recognizer.transcribe(
            [(sound.samples, SAMPLE_RATE) for sound in batch],
            batch_seconds=SPAN_SECONDS * len(batch),
        )
        failed = [transcript.error for transcript in transcripts if transcript.status == "failed"]
        if failed:
            raise RuntimeError(failed[0])
        return [transcript.text for transcript in transcripts]

    def stages(self) -> dict[str, float]:
        """Return the seconds that each part took in the last call."""
        return self.clock.seconds()

    def _new_utterances(self) -> str:
        """Features are computed once for each batch, so here another prompt begins."""
        self._lm_calls = 0
        return "features"

    def _lm_stage(self) -> str:
        self._lm_calls += 1
        return "prefill" if self._lm_calls == 1 else "decode"
