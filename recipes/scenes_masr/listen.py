"""What the acoustic part, frozen from here on, hears in the training sentences, for `tune.py`.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/scenes_masr/listen.py

Every sentence of the scenes is heard in several noises, and the speech of `recipes/tiny_en` once,
at its own speed. Each process writes its share to `runs/scenes_masr/heard/<rank>.pt`.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from examples import Example, Examples
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from llmasr.models.checkpoint import load_pretrained
from llmasr.training.loop import from_command_line
from llmasr.training.run import join_processes

sys.path.append(str(Path(__file__).resolve().parents[1] / "tiny_en"))
from stage import pools

SPOKEN = ("masr", "asr", "vsd")
REAL = 8_000  # clips of recipes/tiny_en


@dataclass(frozen=True)
class Recipe:
    """Settings; every field is a flag."""

    data: Path = Path("runs/scenes_masr/data")
    runs: Path = Path("runs/scenes_masr")
    speech: Path = Path("runs/tiny_en/features")
    noises: int = 2
    batch: int = 32
    seed: int = 3


@torch.inference_mode()
def main(recipe: Recipe) -> None:
    """Listen to this process's share."""
    rank, processes = join_processes()
    bundle = load_pretrained(recipe.runs / "joined")
    speech = bundle.model.speech.eval()
    examples = Examples(recipe.data, recipe.runs, "train", bundle.tokenizer)

    def tokens_of(features: list[Tensor]) -> list[Tensor]:
        lengths = torch.tensor([len(each) for each in features])
        heard = speech.listen(pad_sequence(features, batch_first=True), lengths)
        rows = zip(heard.tokens, heard.cif.token_lengths.tolist(), strict=True)
        return [row[:length].half().clone() for row, length in rows]

    scenes: dict[str, list[Tensor]] = {}
    spoken = [e for task in SPOKEN for e in examples.by_task[task]][rank::processes]
    for group in tqdm(list(grouped(spoken, recipe.batch)), desc="scenes", mininterval=5):
        for number in range(recipe.noises):
            rng = random.Random(f"{recipe.seed}:{group[0].audio}:{number}")
            drawn = examples.hear(group, list(range(len(group))), rng)
            features = [row[:n] for row, n in zip(drawn.features, drawn.lengths, strict=True)]
            for example, tokens in zip(group, tokens_of(features), strict=True):
                scenes.setdefault(example.audio or "", []).append(tokens)

    clips = [cut for pool in pools(recipe.speech, REAL // 2) for cut in pool.cuts]
    clips = [cut for cut in clips if "-sp" not in cut.id]
    random.Random(recipe.seed).shuffle(clips)
    share = sorted(clips[:REAL][rank::processes], key=lambda cut: cut.duration)
    plain: list[tuple[Tensor, str]] = []
    for start in tqdm(range(0, len(share), recipe.batch), desc="speech", mininterval=5):
        cuts = share[start : start + recipe.batch]
        features = [torch.from_numpy(cut.load_features()).float() for cut in cuts]
        texts = [cut.supervisions[0].text or "" for cut in cuts]
        plain += zip(tokens_of(features), texts, strict=True)

    folder = recipe.runs / "heard"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"scenes": scenes, "speech": plain}, folder / f"{rank}.pt")


def grouped(examples: list[Example], size: int) -> Iterator[list[Example]]:
    """Yield groups of so many examples."""
    for start in range(0, len(examples), size):
        yield examples[start : start + size]


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
