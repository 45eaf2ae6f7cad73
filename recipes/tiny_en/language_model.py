"""Stage 0: train the small GLM of `tiny-en` from text.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/tiny_en/language_model.py --batch-size 32

A part of every batch is plain text. The rest is the task it will have later, in words alone: a
damaged sentence stands where the speech will stand, and the whole sentence is the answer. So the
frozen model of stage 2 already knows how to read a prompt, and the S-Adaptor only has to learn how
vectors that mean words look. Resumable; the result is `runs/tiny_en/language_model/`.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GlmConfig, GlmForCausalLM

from llmasr.models.language.tokenizer import Tokenizer
from llmasr.prompts import TRANSCRIBE, lay_out
from llmasr.training.loop import fit, from_command_line
from llmasr.training.run import join_processes


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    runs: Path = Path("runs/tiny_en")
    steps: int = 1_000
    rate: float = 1.5e-3
    warmup: int = 200
    batch_size: int = 64
    weight_decay: float = 0.1
    damage: float = 0.2
    seed: int = 0
    log_every: int = 50
    save_every: int = 250


# Share of the examples that are text alone.
PLAIN_SHARE = 0.3

GLM = GlmConfig(
    vocab_size=512, hidden_size=256, intermediate_size=640, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, head_dim=64, max_position_embeddings=2048,
    pad_token_id=0, bos_token_id=1, eos_token_id=2, attention_dropout=0.1, rms_norm_eps=1e-5,
)  # fmt: skip


def damaged(ids: list[int], share: float, vocab: int, rng: random.Random) -> list[int]:
    """Replace, drop or double a random share (0 to ``share``) of the tokens."""
    rate = rng.uniform(0, share)
    result: list[int] = []
    for token in ids:
        draw = rng.random()
        if draw > rate:
            result.append(token)
        elif draw > rate * 0.4:
            result.append(rng.randrange(6, vocab))
        elif draw > rate * 0.2:
            result += [token, rng.randrange(6, vocab)]
    return result


def example(text: str, tokenizer: Tokenizer, damage: float, rng: random.Random) -> list[list[int]]:
    """Return the prompt and the answer of one training example."""
    ids = tokenizer.encode(text)
    if rng.random() < PLAIN_SHARE:
        return [[tokenizer.bos_id], [*ids, tokenizer.eos_id]]
    before, after, _ = lay_out(tokenizer, TRANSCRIBE["en"])
    heard = damaged(ids, damage, len(tokenizer), rng)
    opening, closing = tokenizer.id_of("<speech>"), tokenizer.id_of("</speech>")
    return [[*before, opening, *heard, closing, *after], [*ids, tokenizer.eos_id]]


def loss(model: GlmForCausalLM, rows: list[list[list[int]]], pad_id: int) -> Tensor:
    """Return the mean cross entropy of the answers; rows are padded on the right."""
    longest = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), longest), pad_id)
    labels = torch.full_like(ids, -100)
    for index, (prompt, answer) in enumerate(rows):
        size = len(prompt) + len(answer)
        ids[index, :size] = torch.tensor(prompt + answer)
        labels[index, len(prompt) : size] = torch.tensor(answer)
    logits = model(input_ids=ids.to(model.device)).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten().to(model.device))


def texts(folder: Path) -> tuple[list[str], list[float]]:
    """Return the sentences and how often each is drawn, relative to the others."""
    sentences = (folder / "sentences.txt").read_text(encoding="utf-8").splitlines()
    transcripts = (folder / "transcripts.txt").read_text(encoding="utf-8").splitlines()
    lines = (folder / "lines.txt").read_text(encoding="utf-8").splitlines()
    return (
        sentences + transcripts + lines,
        [1.0] * len(sentences) + [2.0] * len(transcripts) + [0.3] * len(lines),
    )


def main(recipe: Recipe) -> None:
    """Train, or go on training, and write the averaged model."""
    rank, _ = join_processes()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer(recipe.runs / "tokenizer.model")
    model = GlmForCausalLM(GLM).to(device).train()
    population, weights = texts(recipe.runs / "text")

    def batches(start: int) -> Iterator[list[list[list[int]]]]:
        for step in count(start):
            rng = random.Random(f"{recipe.seed}:{step}:{rank}")
            drawn = rng.choices(population, weights, k=recipe.batch_size)
            yield [example(text, tokenizer, recipe.damage, rng) for text in drawn]

    def losses(rows: list[list[list[int]]]) -> dict[str, Tensor]:
        return {"loss": loss(model, rows, tokenizer.pad_id)}

    folder = recipe.runs / "language_model"
    if fit(model, recipe, folder, batches, losses, rank=rank, warmup=recipe.warmup):
        model.save_pretrained(folder / "model")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
