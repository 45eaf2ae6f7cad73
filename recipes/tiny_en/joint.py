"""Stage 3b: train all parts together, so that each corrects for the others.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/tiny_en/joint.py --batch-seconds 30

Starts from `tune.py`. X-LLM reports that its parts, trained one by one, stay behind a plain
CIF recogniser unless all are trained jointly; this stage does so, with the losses of `tune.py`.
Resumable; the result is the folder `runs/tiny_en/joined`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from stage import regularise, train_answers
from tune import objective

from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.training.loop import from_command_line


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


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    torch.manual_seed(recipe.seed)
    bundle = load_pretrained(recipe.runs / "tuned")
    regularise(bundle.model.speech)
    if train_answers(bundle.model, bundle.tokenizer, recipe, recipe.runs / "joint", objective):
        save_pretrained(bundle, recipe.runs / "joined")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
