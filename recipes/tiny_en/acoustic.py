"""Stage 1: train the CIF acoustic model of `tiny-en`.

    python recipes/tiny_en/acoustic.py --steps 10000
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/tiny_en/acoustic.py --batch-seconds 30

Reads what `prepare.py` wrote. Starts from fresh weights or, with `--init llmasr/assets/tiny-en
--ctc-first 0`, from a finished model (or a `speech.pt`), then without curriculum, and without
phones if it has no head for them; blocks that it lacks begin as the identity. The encoder runs in
bfloat16 where that is faster than float32. Kill it at any moment and start it again: it goes on
where it stopped. The result, an average of the last checkpoints, is
`runs/tiny_en/acoustic/speech.pt`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import sentencepiece
import torch
from stage import AUGMENT, encode, noise_bank, phone_speller, pools, regularise
from torch import Tensor, nn

from llmasr.config import EncoderConfig, SpeechConfig
from llmasr.data.augment import AugmentConfig, augment
from llmasr.data.batches import Batch, collate, endless
from llmasr.models.checkpoint import load_pretrained
from llmasr.models.speech import SpeechInterface, build_speech
from llmasr.training.loop import fit, from_command_line
from llmasr.training.losses import acoustic_losses, hear_transcript
from llmasr.training.run import join_processes


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    runs: Path = Path("runs/tiny_en")
    init: str = ""
    steps: int = 9_500
    rate: float = 6e-4
    warmup: int = 200
    ctc_first: int = 3_000
    batch_seconds: float = 60.0
    weight_decay: float = 0.02
    synthetic_draws: int = 7_000
    seed: int = 0
    log_every: int = 100
    save_every: int = 500


SPEECH = SpeechConfig(
    encoder=EncoderConfig(width=256, num_blocks=6, num_heads=4, expansion=2),
    vocab_size=512, cformer_blocks=4, cformer_expansion=2, phone_block=4,
    fires_with_ctc=True,
)  # fmt: skip

# Words first, then phrases, then sentences: (until this round, no longer than so many seconds).
CURRICULUM = ((30, 1.3), (34, 2.5))
# Until CTC has found the sounds, noise and masks only hide them.
CLEAN = AugmentConfig(quiet_probability=0.0, noise_probability=0.0, time_masks=0, frequency_masks=0)


def begin_with(model: SpeechInterface, path: Path) -> bool:
    """Take over weights from a model folder or a `speech.pt`; return whether phones are among them.

    Blocks of the C-Former that are not there change nothing at first.
    """
    known = (
        load_pretrained(path).model.speech.state_dict()
        if path.is_dir()
        else torch.load(path, map_location="cpu", weights_only=True)["model"]
    )
    for block in model.cformer.blocks:
        for last in (block.attention.output, block.feed_forward[-2]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
    model.load_state_dict(model.state_dict() | known)
    return "phone_head.weight" in known


def main(recipe: Recipe) -> None:
    """Train, or go on training, and write the averaged weights."""
    rank, processes = join_processes()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = sentencepiece.SentencePieceProcessor(str(recipe.runs / "tokenizer.model"))
    spell, num_phones = phone_speller(recipe.runs / "phones.json")
    config = replace(SPEECH, num_phones=num_phones)
    model = build_speech(config).to(device).train()
    has_phones = begin_with(model, Path(recipe.init)) if recipe.init else True
    regularise(model)
    model.adaptor.requires_grad_(False)  # learns in stage 2
    mixture = pools(recipe.runs / "features", recipe.synthetic_draws)
    noise = noise_bank(recipe.runs / "features")
    curriculum = () if recipe.init else CURRICULUM

    def batches(start: int) -> Iterator[tuple[bool, Batch]]:
        first = start * processes + rank
        drawn = endless(mixture, recipe.batch_seconds, recipe.seed, first, curriculum)
        for step, cuts in enumerate(islice(drawn, 0, None, processes), start):
            batch = collate(cuts, tokenizer.encode, spell)
            rng = torch.Generator().manual_seed(recipe.seed + 1000 * step + rank)
            early = step < recipe.ctc_first
            change = CLEAN if early else AUGMENT
            features, lengths = augment(batch.features, batch.lengths, noise, change, rng)
            yield early, replace(batch, features=features, lengths=lengths).to(device)

    def objective(drawn: tuple[bool, Batch]) -> dict[str, Tensor]:
        early, batch = drawn
        frames = encode(model, batch)
        heard = hear_transcript(model, frames, batch.tokens, batch.token_lengths)
        phones = (batch.phones, batch.phone_lengths) if has_phones else None
        parts = acoustic_losses(
            model, heard, batch.tokens, batch.token_lengths,
            phones=phones, cif_weight=0.1 if early else 1.0,
        )  # fmt: skip
        return {"loss": parts.total, **parts._asdict()}

    folder = recipe.runs / "acoustic"
    if fit(
        model, recipe, folder, batches, objective,
        rank=rank, warmup=recipe.warmup, max_norm=2.0,
    ):  # fmt: skip
        torch.save({"model": model.state_dict(), "num_phones": num_phones}, folder / "speech.pt")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
