"""Stage 2: teach the image interface to speak to the frozen language model.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/scenes_masr/see.py

Starts from the bundled model, which can hear, and from the eyes of stage 1. Trained, as in X-LLM:
layer norm, Q-Former, queries and I-Adaptor, and the two boundary vectors; ViT and language model
are frozen. The tasks are descriptions and questions. Resumable; the result is the folder
`runs/scenes_masr/seeing`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from examples import TASKS, Examples, batches
from sizes import VISION
from torch import Tensor

from llmasr.api import Recognizer
from llmasr.models.checkpoint import Bundle, save_pretrained
from llmasr.models.seeing import with_vision
from llmasr.training.loop import fit, from_command_line
from llmasr.training.run import join_processes
from llmasr.training.stages import train_stage
from llmasr.training.tasks import TaskBatch, task_losses

WEIGHTS = {"describe": 1.0, "question": 0.5}


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    data: Path = Path("runs/scenes_masr/data")
    runs: Path = Path("runs/scenes_masr")
    init: str = "tiny-en"
    steps: int = 800
    rate: float = 1e-3
    batch_size: int = 48
    weight_decay: float = 0.02
    seed: int = 1
    log_every: int = 50
    save_every: int = 100


def assemble(recipe: Recipe) -> Bundle:
    """Give a model that can hear the eyes of stage 1."""
    hearing = Recognizer.from_pretrained(recipe.init, device="cpu").bundle
    config = hearing.model.config
    hearing.model.config = replace(config, prompt=replace(config.prompt, tasks=TASKS))
    seeing = with_vision(hearing, VISION)
    learnt = torch.load(recipe.runs / "eyes/vision.pt", map_location="cpu", weights_only=True)
    seeing.model.image.load_state_dict(learnt["model"])
    return seeing


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    rank, _ = join_processes()
    torch.manual_seed(recipe.seed)
    bundle = assemble(recipe)
    model = bundle.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train_stage(model, "align-image")
    model.to(device).train()
    examples = Examples(recipe.data, recipe.runs, "train", bundle.tokenizer)
    counts = dict.fromkeys(WEIGHTS, recipe.batch_size // 2)

    def drawn(start: int) -> Iterator[TaskBatch]:
        return batches(examples, counts, f"{recipe.seed}:{rank}", start)

    def objective(batch: TaskBatch) -> dict[str, Tensor]:
        return task_losses(model, batch.to(device), WEIGHTS)

    if fit(model, recipe, recipe.runs / "see", drawn, objective, rank=rank):
        save_pretrained(bundle, recipe.runs / "seeing")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
