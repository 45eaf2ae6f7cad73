"""Stage 1: train the CIF acoustic model of `tiny-en`.

    python recipes/tiny_en/acoustic.py --steps 16000

Reads what `prepare.py` wrote. Kill it at any moment and start it again: it goes on where it stopped.
The result, an average of the last checkpoints, is `runs/tiny_en/acoustic/speech.pt`.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import sentencepiece
import torch
from lhotse import CutSet
from torch import Tensor

from llmasr.config import EncoderConfig, SpeechConfig
from llmasr.data.augment import AugmentConfig, augment
from llmasr.data.batches import Batch, Pool, collate, endless
from llmasr.models.speech import SpeechInterface, build_speech
from llmasr.training.losses import AcousticLosses, ctc, quantity_loss, token_loss, weighted
from llmasr.training.run import Run, adamw, schedule, update


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    runs: Path = Path("runs/tiny_en")
    steps: int = 16_000
    rate: float = 1.2e-3
    warmup: int = 600
    batch_seconds: float = 60.0
    weight_decay: float = 0.02
    synthetic_draws: int = 5_000
    seed: int = 0
    log_every: int = 100
    save_every: int = 500


SPEECH = SpeechConfig(
    encoder=EncoderConfig(width=256, num_blocks=6, num_heads=4, expansion=2),
    vocab_size=512, cformer_blocks=2, cformer_expansion=2, phone_block=4,
)  # fmt: skip


def pools(features: Path, synthetic_draws: int) -> list[Pool]:
    """Say what a round is made of: about as much synthetic speech as real, and some noise."""
    draws = {
        "en_sentences_l2": 4_000, "en_commands": 650, "en_digits": 400, "en_hotwords": 60,
        "en_ljspeech": 8, "en_an4_mini": 5, "noise": 250, "synthetic": synthetic_draws,
    }  # fmt: skip
    return [
        Pool(CutSet.from_file(features / name / "cuts.jsonl.gz").to_eager(), number)
        for name, number in draws.items()
    ]


def phone_speller(path: Path) -> tuple[Callable[[str], list[int]], int]:
    """Return a function from text to phone ids, and the number of phones with the blank."""
    spellings: dict[str, list[str]] = json.loads(path.read_text())
    counts = Counter(phone for phones in spellings.values() for phone in phones)
    inventory = {phone: index for index, phone in enumerate(sorted(counts))}
    return (
        lambda text: [inventory[phone] for phone in spellings[text]] if text else [],
        len(inventory) + 1,
    )


def losses(model: SpeechInterface, batch: Batch, features: Tensor) -> AcousticLosses:
    """Run the model with CIF scaled to the targets and return its losses."""
    heard = model.listen(features, batch.lengths, batch.token_lengths)
    # A row whose weights are all zero fires nothing; then the batch may be narrower than its targets.
    width = heard.token_logits.shape[1]
    return weighted(
        token_loss(heard.token_logits, batch.tokens[:, :width], batch.token_lengths),
        quantity_loss(heard.cif.quantity, batch.token_lengths),
        ctc(model.ctc_head(heard.hidden), heard.lengths, batch.tokens, batch.token_lengths),
        ctc(*model.phone_logits(heard), batch.phones, batch.phone_lengths),
        batch.token_lengths.sum(),
    )


def main(recipe: Recipe) -> None:
    """Train, or go on training, and write the averaged weights."""
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = sentencepiece.SentencePieceProcessor(str(recipe.runs / "tokenizer.model"))
    spell, num_phones = phone_speller(recipe.runs / "phones.json")
    config = SpeechConfig(**{**vars(SPEECH), "num_phones": num_phones})
    model = build_speech(config).to(device).train()
    optimizer = adamw(model, recipe.weight_decay)
    run = Run(recipe.runs / "acoustic")
    start = run.resume(model, optimizer)
    mixture = pools(recipe.runs / "features", recipe.synthetic_draws)
    noise_cuts = [cut for cut in mixture[-2].cuts if cut.num_frames > 50]
    noise = torch.cat([torch.from_numpy(cut.load_features()).float() for cut in noise_cuts])
    for step, cuts in endless(mixture, recipe.batch_seconds, recipe.seed, start):
        if step >= recipe.steps:
            break
        batch = collate(cuts, tokenizer.encode, spell)
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        features = augment(batch.features, batch.lengths, noise, AugmentConfig(), rng)
        parts = losses(model, batch.to(device), features.to(device))
        parts.total.backward()
        rate = recipe.rate * schedule(step, recipe.warmup, recipe.steps)
        norm = update(model, optimizer, rate, max_norm=2.0)
        values = {name: value.item() for name, value in parts._asdict().items()}
        run.log(step, {**values, "norm": norm, "rate": rate}, recipe.log_every)
        if (step + 1) % recipe.save_every == 0:
            run.save(model, optimizer, step + 1)
    torch.save({"model": run.average(), "num_phones": num_phones}, run.folder / "speech.pt")


def from_command_line() -> Recipe:
    """Read the fields of :class:`Recipe` as flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(Recipe):
        flag = f"--{field.name.replace('_', '-')}"
        parser.add_argument(flag, type=field.type, default=field.default)
    return Recipe(**vars(parser.parse_args()))


if __name__ == "__main__":
    main(from_command_line())
