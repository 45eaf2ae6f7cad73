"""Stage 3b: train all parts together, so that each corrects for the others.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/tiny_en/joint.py --batch-seconds 30

Starts from `tune.py`. X-LLM reports that its parts, trained one by one, stay behind a plain
CIF recogniser unless all are trained jointly; this stage does so. One encoder pass serves two
readings: CIF fires freely for the answer of the language model, as in use, and scaled to the
targets for the CIF losses. Resumable; the result is the folder `runs/tiny_en/joined`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from stage import drop_channels, encode, train_answers
from torch import Tensor

from llmasr.data.batches import Batch
from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.xllm import XLLM
from llmasr.training.drafts import draft_loss
from llmasr.training.loop import from_command_line
from llmasr.training.losses import acoustic_losses


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    runs: Path = Path("runs/tiny_en")
    steps: int = 1_700
    rate: float = 1.5e-4
    batch_seconds: float = 60.0
    weight_decay: float = 0.02
    synthetic_draws: int = 4_000
    seed: int = 4
    log_every: int = 50
    save_every: int = 100


def objective(model: XLLM, batch: Batch, answers: list[list[int]]) -> Tensor:
    """Return the loss of the answers plus the acoustic losses, each per token."""
    speech = model.speech
    frames = encode(speech, batch)
    scaled = speech.integrate(frames, batch.token_lengths)
    acoustic = acoustic_losses(speech, scaled, batch.tokens, batch.token_lengths)
    return draft_loss(model, speech.integrate(frames), answers) + acoustic.total


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    torch.manual_seed(recipe.seed)
    bundle = load_pretrained(recipe.runs / "tuned")
    drop_channels(bundle.model.speech.encoder)
    if train_answers(bundle.model, bundle.tokenizer, recipe, recipe.runs / "joint", objective):
        save_pretrained(bundle, recipe.runs / "joined")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
