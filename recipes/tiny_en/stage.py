"""What the stages share: data, and the loop of stages 2 and 3."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from torch import Tensor, nn

from llmasr.data.augment import AugmentConfig, augment
from llmasr.data.batches import Batch, Pool, collate, endless
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.speech import SpeechFrames, SpeechInterface
from llmasr.models.xllm import XLLM
from llmasr.modules.attention import SelfAttention
from llmasr.training.loop import fit
from llmasr.training.run import join_processes

# From the model, a batch and the ids of its answers to the loss.
Objective = Callable[[XLLM, Batch, list[list[int]]], Tensor]

CHANNEL_DROPOUT, CFORMER_DROPOUT = 0.1, 0.2
# Strong: with less of it, training clips came to 31 % WER where unseen speakers stayed at 55 %.
AUGMENT = AugmentConfig(
    noise_probability=0.25, snr_db=(6.0, 30.0), stretch=0.1, warp=0.15, time_masks=4,
    frequency_masks=2, max_frequency_mask=16,
)  # fmt: skip


def pools(features: Path, synthetic_draws: int) -> list[Pool]:
    """Say what a round is made of: about as much synthetic speech as real, and some noise."""
    draws = {
        "en_sentences_l2": 4_000, "en_commands": 1_300, "en_digits": 2_400, "en_hotwords": 120,
        "en_ljspeech": 8, "en_an4_mini": 5, "noise": 250, "synthetic": synthetic_draws,
    }  # fmt: skip
    return [
        Pool(CutSet.from_file(features / name / "cuts.jsonl.gz").to_eager(), number)
        for name, number in draws.items()
    ]


def noise_bank(features: Path) -> Tensor:
    """Return the features of all noise clips in a row, [F, M]."""
    cuts = CutSet.from_file(features / "noise/cuts.jsonl.gz")
    return torch.cat(
        [torch.from_numpy(c.load_features()).float() for c in cuts if c.num_frames > 50]
    )


def phone_speller(path: Path) -> tuple[Callable[[str], list[int]], int]:
    """Return a function from text to phone ids, and the number of phones with the blank."""
    spellings: dict[str, list[str]] = json.loads(path.read_text())
    counts = Counter(phone for phones in spellings.values() for phone in phones)
    inventory = {phone: index for index, phone in enumerate(sorted(counts))}
    return (
        lambda text: [inventory[phone] for phone in spellings[text]] if text else [],
        len(inventory) + 1,
    )


def encode(speech: SpeechInterface, batch: Batch) -> SpeechFrames:
    """Encode a batch in bfloat16 where that is faster; CIF, which comes next, wants float32."""
    device = batch.features.device.type
    is_faster = device == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    with torch.autocast(device, torch.bfloat16, enabled=is_faster):
        return speech.encode(batch.features, batch.lengths).float()


class ChannelDropout(nn.Module):
    """Dropout that leaves a channel out for a whole utterance.

    A mask of one number a channel costs next to nothing; one of a number a value takes a sixth of
    the time of a step on a CPU.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [B, T, D] to the same."""
        if not self.training:
            return hidden
        kept = torch.rand(len(hidden), 1, hidden.shape[2], device=hidden.device)
        return hidden * ((kept >= self.probability).to(hidden.dtype) / (1 - self.probability))


def regularise(speech: SpeechInterface) -> None:
    """Replace the dropout of the encoder by that of channels, and let the C-Former have more.

    Of all parts the C-Former learns the sentences of the training speakers by heart soonest.
    """
    for module in list(speech.encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout):
                setattr(module, name, ChannelDropout(CHANNEL_DROPOUT))
        if isinstance(module, SelfAttention):
            module.dropout = 0.0
    for module in speech.cformer.modules():
        if isinstance(module, nn.Dropout):
            module.p = CFORMER_DROPOUT


def train_answers(
    model: XLLM, tokenizer: Tokenizer, recipe: Any, folder: Path, objective: Objective
) -> bool:
    """Train whatever of ``model`` is trainable to answer speech with its transcript.

    The answer to noise is empty. Returns whether this process is the one that saves the averaged
    model, which it then holds.
    """
    rank, processes = join_processes()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    mixture = pools(recipe.runs / "features", recipe.synthetic_draws)
    noise = noise_bank(recipe.runs / "features")

    def batches(start: int) -> Iterator[Batch]:
        drawn = endless(mixture, recipe.batch_seconds, recipe.seed, start * processes + rank)
        for step, cuts in enumerate(islice(drawn, 0, None, processes), start):
            batch = collate(cuts, tokenizer.encode, lambda text: [])
            rng = torch.Generator().manual_seed(recipe.seed + 1000 * step + rank)
            features, lengths = augment(batch.features, batch.lengths, noise, AUGMENT, rng)
            yield replace(batch, features=features, lengths=lengths).to(device)

    def losses(batch: Batch) -> dict[str, Tensor]:
        answers = [
            [*row[:length].tolist(), tokenizer.eos_id]
            for row, length in zip(batch.tokens, batch.token_lengths, strict=True)
        ]
        return {"loss": objective(model, batch, answers)}

    return fit(model, recipe, folder, batches, losses, rank=rank)
