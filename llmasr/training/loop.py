"""The loop of a training recipe: a loss of batches, made small by AdamW, resumable at any step."""

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Protocol, TypeVar

from torch import Tensor, nn

from llmasr.training.run import Run, Trained, adamw, progress, schedule, update

Recipe = TypeVar("Recipe")
Batch = TypeVar("Batch")


class Settings(Protocol):
    """What the loop reads of a recipe."""

    steps: int
    rate: float
    weight_decay: float
    log_every: int
    save_every: int


def fit(
    model: nn.Module,
    recipe: Settings,
    folder: Path,
    batches: Callable[[int], Iterable[Batch]],
    objective: Callable[[Batch], Mapping[str, Tensor]],
    *,
    rank: int = 0,
    warmup: int = 200,
    max_norm: float = 1.0,
) -> bool:
    """Train what is trainable of a model, or go on training it.

    Args:
        model: on its device, in training mode; what it trains is marked by `requires_grad`.
        recipe: how long, how fast and how often to write.
        folder: of the run: state, checkpoints to average, log.
        batches: from the step to begin with to the batches of the steps from there on.
        objective: from a batch to scalars; "loss" is made small, all are logged.
        rank: of this process; the first one writes. See :func:`llmasr.training.run.join_processes`.
        warmup: steps until the rate is reached.
        max_norm: gradients are clipped to it.

    Returns:
        Whether this process saves the model, which then holds the averaged weights.
    """
    trained = Trained(model)
    optimizer = adamw(trained, recipe.weight_decay)
    run = Run(folder)
    start = run.resume(trained, optimizer)
    for step, batch in zip(progress(start, recipe.steps), batches(start), strict=False):
        parts = objective(batch)
        parts["loss"].backward()
        rate = recipe.rate * schedule(step, warmup, recipe.steps)
        norm = update(trained, optimizer, rate, max_norm)
        if rank:
            continue
        values = {name: value.item() for name, value in parts.items()}
        run.log(step, {**values, "norm": norm, "rate": rate}, recipe.log_every)
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            run.save(trained, optimizer, step + 1)
    if rank == 0:
        trained.load_state_dict(run.average())
    return rank == 0


def from_command_line(kind: type[Recipe], description: str | None) -> Recipe:
    """Read the fields of the dataclass ``kind`` as flags, and log to the terminal."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(kind):  # type: ignore[arg-type]
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=field.type, default=field.default)
    return kind(**vars(parser.parse_args()))
