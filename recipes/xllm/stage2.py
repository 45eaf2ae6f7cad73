"""Stage 2: teach one interface to speak to the frozen language model.

    python recipes/xllm/stage2.py --modality speech --init runs/xllm/stage1/model \
        --language-model path/to/chatglm3-6b --manifests speech/train.jsonl \
        --out runs/xllm/stage2_speech
    python recipes/xllm/stage2.py --modality image --init runs/xllm/stage2_speech/model \
        --blip2 path/to/blip2-opt-6.7b --manifests coco.jsonl,flickr.jsonl \
        --out runs/xllm/stage2_image
    python recipes/xllm/stage2.py --modality video --init runs/xllm/stage2_image/model \
        --manifests activitynet.jsonl --out runs/xllm/stage2_video

Each starts from the folder before it, in this order. Speech reads the task `transcribe`, images
`describe_image`, videos `describe_video`. What is trained is in `llmasr.training.stages`. Prompts
are those of use. Resumable; the result is the folder `OUT/model`, a whole model.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from assembly import in_front_of, load, with_pictures, with_videos
from mixed_tasks import train_tasks

from llmasr.models.checkpoint import Bundle, save_pretrained
from llmasr.models.precision import find_dtype
from llmasr.training.loop import from_command_line
from llmasr.training.stages import train_stage
from llmasr.training.task_batches import usual_instructions


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    modality: str = "speech"
    init: Path = Path("runs/xllm/stage1/model")
    manifests: str = ""  # with commas between them
    split: str = "train"
    out: Path = Path("runs/xllm/stage2_speech")
    language_model: Path = Path("language_model")  # for speech
    acoustic: float = 1.0  # for speech: weight of the losses of its own heads
    vision: str = "xllm"  # for images without BLIP-2: sizes
    blip2: str = ""  # for images: a folder of transformers
    frames: str = "uniform"  # for videos
    dtype: str = "float32"
    steps: int = 20_000
    rate: float = 1e-4
    warmup: int = 200
    batch_size: int = 32
    weight_decay: float = 0.05
    seed: int = 2
    log_every: int = 50
    save_every: int = 1_000


TASKS = {"speech": "transcribe", "image": "describe_image", "video": "describe_video"}


def assemble(recipe: Recipe) -> Bundle:
    """Return the model that the stage begins with."""
    dtype = find_dtype(recipe.dtype)
    if recipe.modality == "speech":
        return in_front_of(recipe.language_model, recipe.init, dtype)
    if recipe.modality == "image":
        return with_pictures(load(recipe.init, dtype), recipe.vision, recipe.blip2)
    return with_videos(load(recipe.init, dtype), recipe.frames)


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    if recipe.modality not in TASKS:
        raise ValueError(f"modality is {recipe.modality!r}; allowed: {', '.join(TASKS)}")
    torch.manual_seed(recipe.seed)
    bundle = assemble(recipe)
    train_stage(bundle.model, f"align-{recipe.modality}")
    task = TASKS[recipe.modality]
    if train_tasks(
        bundle, recipe, {task: recipe.batch_size}, {task: 1.0},
        usual_instructions(bundle.model.config),
        acoustic=recipe.acoustic if recipe.modality == "speech" else 0.0,
    ):  # fmt: skip
        save_pretrained(bundle, recipe.out / "model", dtype=find_dtype(recipe.dtype))


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
