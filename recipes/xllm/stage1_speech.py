"""Stage 1: a CIF recogniser, whose encoder and C-Former later speak to the language model.

    python recipes/xllm/stage1_speech.py --manifests speech/train.jsonl \
        --tokenizer speech/tokenizer.model --out runs/xllm/stage1

Reads the items of the task `transcribe`. Trained: encoder, CIF, C-Former, token head and CTC head,
by cross entropy, quantity loss and CTC; the adaptor waits for a language model. Resumable; the
result is the folder `OUT/model`, from which stage 2 starts. Pictures and videos have no stage 1:
they begin with BLIP-2.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from assembly import Hearing, save_hearing
from mixed_tasks import read
from presets import SPEECH, chosen
from torch import Tensor

from llmasr.data.augment import AugmentConfig, augment
from llmasr.data.task_manifests import TaskItem, TaskMix
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.speech import SpeechInterface, build_speech
from llmasr.prompts import TRANSCRIBE
from llmasr.training.loop import fit, from_command_line
from llmasr.training.losses import acoustic_losses, hear_transcript
from llmasr.training.run import join_processes
from llmasr.training.task_batches import Senses, read_speech, task_batches
from llmasr.training.tasks import Speech, TaskBatch


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    manifests: str = ""  # with commas between them
    split: str = "train"
    tokenizer: Path = Path("tokenizer.model")
    language: str = "en"
    size: str = "small"
    out: Path = Path("runs/xllm/stage1")
    steps: int = 100_000
    rate: float = 6e-4
    warmup: int = 2_000
    batch_size: int = 32
    weight_decay: float = 0.02
    seed: int = 1
    log_every: int = 100
    save_every: int = 1_000


# Noise needs recordings of noise; see `recipes/tiny_en`.
AUGMENT = AugmentConfig(noise_probability=0.0)


def losses(model: SpeechInterface, speech: Speech) -> dict[str, Tensor]:
    """Run the model with CIF scaled to the transcripts and return its losses."""
    tokens, counts = speech.transcripts, speech.transcript_lengths
    assert tokens is not None, "an item to transcribe has a transcript"
    assert counts is not None, "a transcript has a length"
    frames = model.encode(speech.features, speech.lengths)
    heard = hear_transcript(model, frames, tokens, counts)
    parts = acoustic_losses(model, heard, tokens, counts)
    return {"loss": parts.total, "token": parts.token, "quantity": parts.quantity, "ctc": parts.ctc}


def collate(
    items: Sequence[TaskItem], rng: random.Random, *, senses: Senses, tokenizer: Tokenizer
) -> TaskBatch:
    """Return a batch that has speech and nothing else, changed at random."""
    speech = read_speech(items, senses, tokenizer.encode)
    assert speech is not None, "an item to transcribe is heard"
    generator = torch.Generator().manual_seed(rng.getrandbits(40))
    silence = torch.zeros(1, senses.num_features)
    features, lengths = augment(speech.features, speech.lengths, silence, AUGMENT, generator)
    return TaskBatch([], [], [], replace(speech, features=features, lengths=lengths))


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the folder."""
    rank, processes = join_processes()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen(TRANSCRIBE, recipe.language, "language")  # stage 2 words its prompt in it
    tokenizer = Tokenizer(recipe.tokenizer)
    config = replace(chosen(SPEECH, recipe.size, "size"), vocab_size=len(tokenizer))
    model = build_speech(config).to(device)
    model.adaptor.requires_grad_(False)
    model.train()
    items = read(recipe.manifests, recipe.split)
    mix = TaskMix(items, {"transcribe": recipe.batch_size}, recipe.seed)
    make = partial(collate, senses=Senses(config.encoder.num_bins), tokenizer=tokenizer)

    def batches(start: int) -> Iterator[TaskBatch]:
        return task_batches(mix, make, start, rank, processes)

    def objective(batch: TaskBatch) -> dict[str, Tensor]:
        speech = batch.to(device).speech
        assert speech is not None, "see collate"
        return losses(model, speech)

    if fit(
        model, recipe, recipe.out / "run", batches, objective,
        rank=rank, warmup=recipe.warmup, max_norm=2.0,
    ):  # fmt: skip
        save_hearing(Hearing(model, tokenizer, recipe.language), recipe.out / "model")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
