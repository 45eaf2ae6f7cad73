"""Teach a language model of yours to read speech: stage 2 with any checkpoint.

    python recipes/align_llm/align.py --language-model path/to/chatglm3-6b \
        --data ../shared/data/en_sentences_l2 --out runs/align_llm

The language model is any that `llmasr.importers.language.load_language_model` takes: ChatGLM of
every generation as published, or any causal language model of transformers, with its tokenizer in
the folder. What hears comes from a model that can hear already. Encoder and language model are
frozen; trained are CIF, C-Former, S-Adaptor and the two boundary vectors, as in X-LLM, and with
`--lora-rank 8` adapters on the language model too. Resumable; the result is the folder
`OUT/model`, for `llmasr transcribe --model`. A GPU is used if there is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from llmasr.api import Recognizer
from llmasr.data.batches import Batch, Pool, collate, endless
from llmasr.data.manifests import read_manifest, store_features
from llmasr.importers.attach import attach_language_model
from llmasr.models.checkpoint import Bundle, save_pretrained
from llmasr.models.language.lora import add_lora
from llmasr.models.precision import find_dtype
from llmasr.training.alignment import alignment_losses
from llmasr.training.loop import fit, from_command_line
from llmasr.training.run import join_processes


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    language_model: Path = Path("language_model")
    speech: str = "tiny-en"
    data: Path = Path("../shared/data/en_sentences_l2")
    out: Path = Path("runs/align_llm")
    dtype: str = "float32"
    steps: int = 2_000
    rate: float = 6e-4
    batch_seconds: float = 60.0
    weight_decay: float = 0.02
    lora_rank: int = 0
    seed: int = 0
    log_every: int = 50
    save_every: int = 200


def freeze(bundle: Bundle, lora_rank: int) -> None:
    """Leave to be trained what stage 2 trains."""
    model = bundle.model
    model.requires_grad_(False)
    speech = model.speech
    for part in (speech.predictor, speech.cformer, speech.token_head, speech.adaptor):
        part.requires_grad_(True)
    model.boundaries.requires_grad_(True)
    if lora_rank:
        add_lora(model, lora_rank)


def losses(bundle: Bundle, drawn: tuple[Batch, list[str]]) -> dict[str, Tensor]:
    """Return the losses of a batch and its transcripts."""
    batch, texts = drawn
    tokenizer = bundle.tokenizer
    answers = [[*tokenizer.encode(text), tokenizer.eos_id] for text in texts]
    return alignment_losses(bundle.model, batch, answers)


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    rank, processes = join_processes()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    speech = Recognizer.from_pretrained(recipe.speech, device="cpu").bundle
    dtype = find_dtype(recipe.dtype)
    bundle = attach_language_model(speech, recipe.language_model, dtype=dtype)
    assert bundle.speech_tokenizer is not None, "attached models have two vocabularies"
    spoken = bundle.speech_tokenizer.encode
    freeze(bundle, recipe.lora_rank)
    cuts = read_manifest(recipe.data / "manifest.jsonl", "train")
    pool = Pool(store_features(cuts, recipe.out / "features"), len(cuts))

    def batches(start: int) -> Iterator[tuple[Batch, list[str]]]:
        first = start * processes + rank
        drawn = endless([pool], recipe.batch_seconds, recipe.seed, first)
        for group in islice(drawn, 0, None, processes):
            texts = [cut.supervisions[0].text or "" for cut in group]
            yield collate(group, spoken, lambda text: []).to(device), texts

    bundle.model.to(device).train()
    objective = partial(losses, bundle)
    if fit(bundle.model, recipe, recipe.out / "run", batches, objective, rank=rank):
        save_pretrained(bundle, recipe.out / "model", dtype=dtype)


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
