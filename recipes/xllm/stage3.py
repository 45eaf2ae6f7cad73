"""Stage 3: tune the adaptors of all interfaces together, on all tasks at once.

    python recipes/xllm/stage3.py --init runs/xllm/stage2_video/model --out runs/xllm/stage3 \
        --manifests asr.jsonl,masr.jsonl,vsd.jsonl,images.jsonl,videos.jsonl

The tasks are X-LLM's: recognition, recognition with a picture, spoken questions about a picture,
descriptions of pictures and of videos. A batch has `--count-TASK` items of each, whose loss counts
`--weight-TASK`; losses are logged task by task. A task with the count 0 is left out. Trained: the
three adaptors and the boundary vectors, with `--queries 1` also the queries of the Q-Former. An
instruction is drawn for each item. Resumable; the result is the folder `OUT/model`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from assembly import load
from mixed_tasks import train_tasks

from llmasr.data.task_manifests import TASKS
from llmasr.models.checkpoint import save_pretrained
from llmasr.models.precision import find_dtype
from llmasr.training.loop import from_command_line
from llmasr.training.stages import train_stage
from llmasr.training.task_batches import varied_instructions


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    init: Path = Path("runs/xllm/stage2_video/model")
    manifests: str = ""  # with commas between them
    split: str = "train"
    out: Path = Path("runs/xllm/stage3")
    queries: int = 0
    count_transcribe: int = 3
    count_transcribe_with_image: int = 3
    count_answer_about_image: int = 3
    count_describe_image: int = 5
    count_describe_video: int = 2
    weight_transcribe: float = 1.0
    weight_transcribe_with_image: float = 1.0
    weight_answer_about_image: float = 1.0
    weight_describe_image: float = 1.0
    weight_describe_video: float = 1.0
    dtype: str = "float32"
    steps: int = 1_250
    rate: float = 1e-5
    warmup: int = 50
    weight_decay: float = 0.05
    seed: int = 3
    log_every: int = 50
    save_every: int = 250


def by_task(recipe: Recipe, kind: str) -> dict:
    """Return the fields `KIND_TASK` of a recipe by task."""
    return {task: getattr(recipe, f"{kind}_{task}") for task in TASKS}


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    torch.manual_seed(recipe.seed)
    bundle = load(recipe.init, find_dtype(recipe.dtype))
    train_stage(bundle.model, "joint", queries=bool(recipe.queries))
    instructions = varied_instructions(bundle.model.config)
    counts, weights = by_task(recipe, "count"), by_task(recipe, "weight")
    if train_tasks(bundle, recipe, counts, weights, instructions):
        save_pretrained(bundle, recipe.out / "model", dtype=find_dtype(recipe.dtype))


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
