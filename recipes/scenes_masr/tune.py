"""Stage 3b: many more sentences with and without pictures, once the ears are done.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/scenes_masr/tune.py

Starts from `joint.py` and from what it heard in every training sentence (`listen.py`). Listening is
most of the work of `joint.py`, and what a language model has to learn from pictures, it learns
slowly: to write 'pear' where one is shown and 'pair' where none is. Trained: the language model,
S-Adaptor, I-Adaptor, queries, Q-Former and boundaries; encoder, CIF, C-Former and ViT are frozen.
Resumable; the result is the folder `runs/scenes_masr/tuned`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from examples import Example, Examples
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.xllm import XLLM
from llmasr.prompts import TRANSCRIBE
from llmasr.training.loop import fit, from_command_line
from llmasr.training.run import join_processes
from llmasr.training.tasks import Speech, TaskBatch, task_losses

# By task: weight of its loss, and examples in a batch.
WEIGHTS = {"speech": 1.0, "asr": 0.3, "masr": 2.0, "describe": 0.3, "question": 0.3, "vsd": 0.3}
COUNTS = {"asr": 3, "masr": 40, "describe": 6, "question": 6, "vsd": 5}
PLAIN = 16  # clips of recipes/tiny_en in a batch


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    data: Path = Path("runs/scenes_masr/data")
    runs: Path = Path("runs/scenes_masr")
    steps: int = 900
    rate: float = 4e-4
    weight_decay: float = 0.02
    seed: int = 4
    log_every: int = 25
    save_every: int = 50


class Heard:
    """What `listen.py` heard."""

    def __init__(self, folder: Path) -> None:
        self.scenes: dict[str, list[Tensor]] = {}
        self.plain: list[tuple[Tensor, str]] = []
        for path in sorted(folder.glob("*.pt")):
            part = torch.load(path, weights_only=True)
            self.scenes |= part["scenes"]
            self.plain += part["speech"]

    def listen(self, drawn: list[Example], rows: list[int], rng: random.Random) -> Speech:
        """Return one hearing of each row."""
        said = [rng.choice(self.scenes[drawn[row].audio or ""]) for row in rows]
        return as_speech(rows, said)


def as_speech(rows: list[int], said: list[Tensor]) -> Speech:
    """Put tokens [n, D] of these rows together."""
    lengths = torch.tensor([len(tokens) for tokens in said])
    return Speech(rows, pad_sequence(said, batch_first=True).float(), lengths, is_heard=True)


def batch_of(examples: Examples, heard: Heard, rng: random.Random) -> TaskBatch:
    """Return one batch of all tasks."""
    scenes = examples.collate(examples.draw(COUNTS, rng), rng, heard.listen)
    clips = rng.sample(heard.plain, PLAIN)
    texts = [Example("speech", None, None, TRANSCRIBE["en"], text, text) for _, text in clips]
    plain = examples.collate(texts, rng)
    assert scenes.speech is not None, "some tasks are spoken"
    first = len(scenes.tasks)
    rows = [*scenes.speech.rows, *range(first, first + PLAIN)]
    known = zip(scenes.speech.features, scenes.speech.lengths, strict=True)
    said = [*(row[:length] for row, length in known), *(tokens.float() for tokens, _ in clips)]
    return replace(
        scenes,
        tasks=scenes.tasks + plain.tasks,
        prompts=scenes.prompts + plain.prompts,
        answers=scenes.answers + plain.answers,
        speech=as_speech(rows, said),
    )


def freeze(model: XLLM) -> None:
    """Leave to be trained what the stage trains."""
    model.requires_grad_(True)
    model.speech.requires_grad_(False)
    model.speech.adaptor.requires_grad_(True)
    model.image.trunk.vit.requires_grad_(False)


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    rank, _ = join_processes()
    torch.manual_seed(recipe.seed)
    bundle = load_pretrained(recipe.runs / "joined")
    model = bundle.model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    freeze(model)
    model.to(device).train()
    examples = Examples(recipe.data, recipe.runs, "train", bundle.tokenizer)
    heard = Heard(recipe.runs / "heard")

    def batches(start: int) -> Iterator[TaskBatch]:
        step = start
        while True:
            yield batch_of(examples, heard, random.Random(f"{recipe.seed}:{rank}:{step}"))
            step += 1

    def objective(batch: TaskBatch) -> dict[str, Tensor]:
        return task_losses(model, batch.to(device), WEIGHTS)

    if fit(model, recipe, recipe.runs / "tune", batches, objective, rank=rank, warmup=50):
        save_pretrained(bundle, recipe.runs / "tuned")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
