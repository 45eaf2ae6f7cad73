"""Speech models of transformers, from a local folder: encoder-decoders, CTC, transducers, LLMs.

The class is the one the folder's config names. Inputs are made and texts are decoded as the Open
ASR leaderboard does it: Whisper's window of 30 s is padded, longer audio is read to its end with
timestamps; CTC takes the best class of each frame; LLMs whose processor knows how to ask for a
transcript (GLM-ASR, Canary, ...) are asked so. Search is greedy. The language is left to the model.

Tested with small random Whisper, wav2vec2 and Parakeet folders; the path of the LLMs against a
stand-in of their documented processor.
"""

import json
from collections.abc import Sequence
from typing import Any

from llmasr.bench.card import versions
from llmasr.bench.contract import (
    SAMPLE_RATE,
    Setup,
    Sound,
    digest_of_folder,
    local_folder,
    torch_device,
)

MAX_NEW_TOKENS = 256


class Transformers:
    """A folder with a model and its processor, as `save_pretrained` writes them."""

    def __init__(self, argument: str, setup: Setup) -> None:
        self.folder = local_folder("transformers", argument)
        self.name = f"transformers:{self.folder.name}"
        self.setup = setup
        self.model: Any = None
        self.processor: Any = None

    def describe(self) -> dict[str, Any]:
        """Return versions, weights, device and dtype."""
        import torch

        return {
            **versions("torch", "transformers"),
            "weights": digest_of_folder(self.folder),
            "device": torch_device(self.setup.device),
            "dtype": self.setup.dtype,
            "threads": torch.get_num_threads(),
            "search": f"greedy, at most {MAX_NEW_TOKENS} tokens",
        }

    def load(self) -> None:
        """Load model and processor."""
        import torch
        import transformers

        model_class = getattr(transformers, _architecture(self.folder / "config.json"))
        self.processor = transformers.AutoProcessor.from_pretrained(
            self.folder, local_files_only=True
        )
        model = model_class.from_pretrained(
            self.folder, local_files_only=True, dtype=getattr(torch, self.setup.dtype)
        )
        self.model = model.to(torch_device(self.setup.device)).eval()

    def unload(self) -> None:
        """Let the model go."""
        self.model = None

    def transcribe(self, batch: Sequence[Sound]) -> list[str]:
        """Return the texts."""
        import torch

        longest = max(len(sound.samples) for sound in batch)
        window = getattr(getattr(self.processor, "feature_extractor", None), "n_samples", None)
        is_long = window is not None and longest > window
        inputs = self._inputs(batch, is_padded=window is not None and not is_long)
        inputs = inputs.to(self.model.device, self.model.dtype)
        with torch.inference_mode():
            ids = self._ids(inputs, {"return_timestamps": True} if is_long else {})
        texts = self.processor.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _inputs(self, batch: Sequence[Sound], *, is_padded: bool) -> Any:
        """Return the processor's tensors; `is_padded` leaves the length to the processor."""
        samples = [sound.samples for sound in batch]
        if hasattr(self.processor, "apply_transcription_request"):
            return self.processor.apply_transcription_request(audio=samples)
        whole = {"truncation": False, "padding": "longest", "return_attention_mask": True}
        options = {} if is_padded else whole
        return self.processor(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt", **options)

    def _ids(self, inputs: Any, options: dict[str, Any]) -> Any:
        """Return ids of the texts, [B, tokens]; of CTC, of the frames."""
        if "ForCTC" in type(self.model).__name__:
            return self.model(**inputs).logits.argmax(-1)
        if _is_transducer(self.model):
            return self.model.generate(**inputs, return_dict_in_generate=True).sequences
        ids = self.model.generate(
            **inputs, max_new_tokens=MAX_NEW_TOKENS, num_beams=1, do_sample=False, **options
        )
        # A decoder-only model repeats its prompt.
        return ids[:, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else ids


def _is_transducer(model: Any) -> bool:
    return any(kind in type(model).__name__ for kind in ("ForTDT", "ForRNNT"))


def _architecture(config: Any) -> str:
    """Return the name of the class that a config.json names."""
    import transformers

    found = json.loads(config.read_text(encoding="utf-8")).get("architectures") or [None]
    if not isinstance(found[0], str) or not hasattr(transformers, found[0]):
        raise ValueError(f"{config}: architectures is {found!r}; expected a class of transformers")
    return found[0]
