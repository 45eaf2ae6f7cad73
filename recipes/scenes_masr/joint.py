"""Stage 3: hear and see together, all tasks at once.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/scenes_masr/joint.py

Starts from `see.py`. The mix is that of X-LLM: recognition, recognition with a picture,
descriptions, spoken questions about a picture, and questions in words. The real and synthetic
speech of `recipes/tiny_en` goes on as a task of its own, so that the model forgets nothing. X-LLM
tunes the adaptors only; this model is small enough to tune all of it but the ViT. Resumable; the
result is the folder `runs/scenes_masr/joined`.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from examples import Examples, batches
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "tiny_en"))
from stage import noise_bank, pools

from llmasr.data.augment import AugmentConfig, augment
from llmasr.data.batches import collate, endless
from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.xllm import XLLM
from llmasr.prompts import TRANSCRIBE, lay_out
from llmasr.training.loop import fit, from_command_line
from llmasr.training.run import join_processes
from llmasr.training.tasks import Speech, TaskBatch, task_losses

# By task: weight of its loss, and examples in a batch.
WEIGHTS = {"speech": 1.0, "asr": 0.5, "masr": 1.5, "describe": 0.3, "question": 0.3, "vsd": 0.3}
ACOUSTIC = 0.5
COUNTS = {"asr": 2, "masr": 14, "describe": 6, "question": 6, "vsd": 3}


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    data: Path = Path("runs/scenes_masr/data")
    runs: Path = Path("runs/scenes_masr")
    speech: Path = Path("runs/tiny_en/features")
    steps: int = 900
    rate: float = 2e-4
    speech_seconds: float = 20.0
    synthetic_draws: int = 4_000
    weight_decay: float = 0.02
    seed: int = 2
    log_every: int = 50
    save_every: int = 100


def speech_batches(
    recipe: Recipe, tokenizer: Tokenizer, start: int, rank: int, processes: int
) -> Iterator[TaskBatch]:
    """Yield batches of plain recognition, of the data of `recipes/tiny_en`."""
    noise = noise_bank(recipe.speech)
    mixture = pools(recipe.speech, recipe.synthetic_draws)
    drawn = endless(mixture, recipe.speech_seconds, recipe.seed, start * processes + rank)
    prompt = lay_out(tokenizer, TRANSCRIBE["en"])
    for step, cuts in enumerate(islice(drawn, 0, None, processes), start):
        batch = collate(cuts, tokenizer.encode, lambda text: [])
        rng = torch.Generator().manual_seed(recipe.seed + 1000 * step + rank)
        features, lengths = augment(batch.features, batch.lengths, noise, AugmentConfig(), rng)
        answers = [
            [*row[:length].tolist(), tokenizer.eos_id]
            for row, length in zip(batch.tokens, batch.token_lengths, strict=True)
        ]
        rows = list(range(len(cuts)))
        speech = Speech(rows, features, lengths, batch.tokens, batch.token_lengths)
        yield TaskBatch(["speech"] * len(cuts), [prompt] * len(cuts), answers, speech)


def losses(model: XLLM, drawn: tuple[TaskBatch, TaskBatch]) -> dict[str, Tensor]:
    """Return the losses of all tasks."""
    scenes, speech = (task_losses(model, batch, WEIGHTS, acoustic=ACOUSTIC) for batch in drawn)
    noisy = scenes.pop("acoustic")
    return {**scenes, **speech, "loss": scenes["loss"] + speech["loss"], "acoustic_scenes": noisy}


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    rank, processes = join_processes()
    torch.manual_seed(recipe.seed)
    bundle = load_pretrained(recipe.runs / "seeing")
    model, tokenizer = bundle.model, bundle.tokenizer
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.requires_grad_(True)
    model.image.trunk.vit.requires_grad_(False)
    model.to(device).train()
    examples = Examples(recipe.data, recipe.runs, "train", tokenizer)

    def drawn(start: int) -> Iterator[tuple[TaskBatch, TaskBatch]]:
        scenes = batches(examples, COUNTS, f"{recipe.seed}:{rank}", start)
        return zip(scenes, speech_batches(recipe, tokenizer, start, rank, processes), strict=False)

    def objective(pair: tuple[TaskBatch, TaskBatch]) -> dict[str, Tensor]:
        return losses(model, (pair[0].to(device), pair[1].to(device)))

    if fit(model, recipe, recipe.runs / "joint", drawn, objective, rank=rank):
        save_pretrained(bundle, recipe.runs / "joined")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
