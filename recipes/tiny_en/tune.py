"""Stage 3: tune all that comes after the encoder together, the language model too.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/tiny_en/tune.py

Starts from stage 2. All of the language model is trained, not a LoRA: with 3 million parameters the
whole of it is smaller than the adapters that a LoRA would add to a 6-billion model, and it only has
one task. With `--lora-rank 8` adapters are trained instead, and merged before the model is saved.
The encoder stays as it is until `joint.py`. With `--init llmasr/assets/tiny-en` a finished
model goes on, with the acoustic model of `acoustic.py`, and stage 2 is not needed. Half of the
answers are read from drafts with errors in them, as draft and verify will read them. Resumable; the
result is the folder `runs/tiny_en/tuned`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from align import assemble
from stage import encode, regularise, train_answers
from torch import Tensor

from llmasr.data.batches import Batch
from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.language.lora import add_lora, merge_and_unload
from llmasr.models.xllm import XLLM
from llmasr.training.drafts import draft_loss
from llmasr.training.loop import from_command_line
from llmasr.training.losses import acoustic_losses, hear_transcript


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    runs: Path = Path("runs/tiny_en")
    init: str = ""
    steps: int = 1_400
    rate: float = 6e-4
    batch_seconds: float = 60.0
    weight_decay: float = 0.05
    synthetic_draws: int = 6_000
    lora_rank: int = 0
    seed: int = 3
    log_every: int = 50
    save_every: int = 200


def objective(model: XLLM, batch: Batch, answers: list[list[int]]) -> Tensor:
    """Return the loss of answers and drafts plus the acoustic losses, each per token.

    One encoder pass serves two readings: CIF fires freely for the language model, as in use, and as
    often as the transcript has tokens for the acoustic losses.
    """
    speech, tokens = model.speech, (batch.tokens, batch.token_lengths)
    frames = encode(speech, batch)
    acoustic = acoustic_losses(speech, hear_transcript(speech, frames, *tokens), *tokens)
    return draft_loss(model, speech.integrate(frames), answers) + acoustic.total


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    torch.manual_seed(recipe.seed)
    if recipe.init:
        bundle = assemble(recipe.runs, recipe.init)
    else:
        bundle = load_pretrained(recipe.runs / "aligned")
    bundle.model.requires_grad_(False)
    speech = bundle.model.speech
    for part in (speech.predictor, speech.cformer, speech.token_head, speech.adaptor):
        part.requires_grad_(True)
    bundle.model.boundaries.requires_grad_(True)
    regularise(speech)
    if recipe.lora_rank:
        add_lora(bundle.model, recipe.lora_rank)
    else:
        bundle.model.language_model.requires_grad_(True)
    if train_answers(bundle.model, bundle.tokenizer, recipe, recipe.runs / "tune", objective):
        if recipe.lora_rank:
            merge_and_unload(bundle.model)
        save_pretrained(bundle, recipe.runs / "tuned")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
