"""What stages 2 and 3 share: the loop over batches of tasks, for whatever of a model is trained."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmasr.data.task_manifests import TaskItem, TaskMix, read_task_manifests
from llmasr.models.checkpoint import Bundle
from llmasr.training.loop import fit
from llmasr.training.run import join_processes
from llmasr.training.task_batches import Collator, senses_of, task_batches
from llmasr.training.tasks import TaskBatch, task_losses


def read(manifests: str, split: str) -> list[TaskItem]:
    """Read the manifests of a flag, with commas between them."""
    return read_task_manifests([Path(name) for name in manifests.split(",") if name], split)


def train_tasks(
    bundle: Bundle,
    recipe: Any,
    counts: Mapping[str, int],
    weights: Mapping[str, float],
    instructions: Mapping[str, Sequence[str]],
    *,
    acoustic: float = 0.0,
) -> bool:
    """Train what is trainable, or go on; return whether this process saves the model."""
    rank, processes = join_processes()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = bundle.model.to(device).train()
    mix = TaskMix(read(recipe.manifests, recipe.split), counts, recipe.seed)
    collate = Collator(bundle, instructions, senses_of(model.config))

    def batches(start: int) -> Iterator[TaskBatch]:
        return task_batches(mix, collate, start, rank, processes)

    def objective(batch: TaskBatch) -> dict[str, Tensor]:
        return task_losses(model, batch.to(device), weights, acoustic=acoustic)

    folder = recipe.out / "run"
    return fit(model, recipe, folder, batches, objective, rank=rank, warmup=recipe.warmup)
