"""Stage 1: the image interface learns to say what a picture shows, and where.

    python recipes/scenes_masr/gallery.py
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/scenes_masr/eyes.py

From fresh weights, on the pictures of `gallery.py` and of the train split, which are changed at
random. Every query stands for a part of the picture (see `targets.py`) and learns the word of the
thing whose centre lies there, and its place; every patch learns the word of the thing that covers
it, so that the ViT is taught at sixty-four places at once. The linear maps that say so serve this
stage only. All but the adaptor is trained.

Kill it at any moment and start it again: it goes on where it stopped. What it has so far, and in
the end the average of the last checkpoints, is `runs/scenes_masr/eyes/vision.pt`, {"model": state
of `build_vision(VISION)["image"]`}. `log.jsonl` beside it says how it does on dev pictures, and
`results.json`, in the end, on those of the tests.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from gallery import NOTHING, WORDS, Gallery, join, read_gallery, read_split
from sizes import VISION
from targets import IGNORED, cell_targets, patch_targets, vary
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss

from llmasr.media.images import DEVIATION, MEAN
from llmasr.models.vision import ImageInterface, build_vision
from llmasr.training.loop import fit, from_command_line
from llmasr.training.run import join_processes

CHUNK = 100  # pictures at a time where nothing is learnt
THRESHOLDS = [step / 20 for step in range(1, 20)]
TESTS = ("dev", "test", "test_unseen_objects", "test_unseen_drawings")


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag. Each process has its own batch."""

    data: Path = Path("runs/scenes_masr/data")
    runs: Path = Path("runs/scenes_masr")
    steps: int = 3_800
    rate: float = 1e-3
    warmup: int = 200
    batch_size: int = 32
    weight_decay: float = 0.05
    place_weight: float = 1.0
    seed: int = 0
    log_every: int = 50
    save_every: int = 100
    check_every: int = 200


class Eyes(nn.Module):
    """The image interface, but for its adaptor, and linear maps that say what it sees."""

    def __init__(self, image: ImageInterface) -> None:
        super().__init__()
        self.image = image
        self.patch_words = nn.Linear(VISION.vit.width, len(WORDS) + 1)
        self.cell_words = nn.Linear(VISION.qformer.width, len(WORDS) + 1)
        self.cell_places = nn.Linear(VISION.qformer.width, 2)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look at pictures.

        Args:
            pixels: [N, 3, S, S], normalised.

        Returns:
            Logits of words of the patches [N, P, words] and of the queries [N, Q, words], and the
            centres that the queries tell [N, Q, 2].
        """
        trunk, queries = self.image.trunk, self.image.queries
        hidden = trunk.norm(trunk.vit(pixels).last_hidden_state)  # [N, 1 + P, C]
        every = queries.expand(len(pixels), -1, -1)
        seen = trunk.qformer(every, encoder_hidden_states=hidden).last_hidden_state
        return self.patch_words(hidden[:, 1:]), self.cell_words(seen), self.cell_places(seen)


class Batch(NamedTuple):
    """Pictures [N, 3, S, S], words of their patches [N, P] and cells [N, Q], places [N, Q, 2]."""

    pixels: Tensor
    patches: Tensor
    cells: Tensor
    places: Tensor


class Sight(NamedTuple):
    """How well pictures are seen: shares of the things or, for ``counted``, of the pictures.

    ``placed`` says that the right query has the thing as its first guess.
    """

    recall: float
    precision: float
    mean_recall_of_words: float
    placed: float
    counted: float


def normalised(pixels: Tensor) -> Tensor:
    """Bring pixels in 0..1, [N, 3, S, S], to the range that `llmasr.media` gives."""
    return (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]


def draw_batch(pictures: Gallery, size: int, rng: torch.Generator) -> Batch:
    """Draw pictures and change them."""
    drawn = pictures.take(torch.randint(len(pictures.pixels), (size,), generator=rng))
    pixels, boxes = vary(drawn, rng)
    grid = VISION.vit.image_size // VISION.vit.patch_size
    patches = patch_targets(drawn.words, boxes, grid)
    return Batch(normalised(pixels), patches, *cell_targets(drawn.words, boxes))


def losses(eyes: Eyes, batch: Batch, place_weight: float) -> dict[str, Tensor]:
    """Return the loss and its parts."""
    with torch.autocast(batch.pixels.device.type, torch.bfloat16):
        patches, cells, places = eyes(batch.pixels)
    there = (batch.cells != NOTHING) & (batch.cells != IGNORED)
    parts = {
        "patches": cross_entropy(patches.float().flatten(0, 1), batch.patches.flatten()),
        "cells": cross_entropy(cells.float().flatten(0, 1), batch.cells.flatten()),
        "places": l1_loss(places.float()[there], batch.places[there]),
    }
    return {"loss": parts["patches"] + parts["cells"] + place_weight * parts["places"], **parts}


@torch.inference_mode()
def look(eyes: Eyes, pictures: Gallery) -> Tensor:
    """Return the probability of each word, and of nothing, in each cell: [N, Q, words]."""
    device = eyes.cell_words.weight.device
    eyes.eval()
    chunks = [
        eyes(normalised(pixels.float() / 255).to(device))[1].softmax(-1).cpu()
        for pixels in pictures.pixels.split(CHUNK)
    ]
    eyes.train()
    return torch.cat(chunks)


def best_threshold(seen: Tensor, pictures: Gallery) -> float:
    """Return the threshold of the expected number of a thing that serves both rates best."""

    def least(threshold: float) -> float:
        sight = rate_sight(seen, pictures, threshold)
        return min(sight.recall, sight.precision)

    return max(THRESHOLDS, key=least)


def rate_sight(seen: Tensor, pictures: Gallery, threshold: float) -> Sight:
    """Compare what :func:`look` gave with what is there.

    A thing counts as seen if its expected number, summed over cells, passes the threshold. Things
    of no known word count for ``counted`` only.
    """
    number = len(pictures.words)
    shown = torch.zeros(number, len(WORDS) + 1, dtype=torch.bool)
    rows, columns = (pictures.words >= 0).nonzero(as_tuple=True)
    shown[rows, pictures.words[rows, columns]] = True
    shown = shown[:, :NOTHING]
    found = seen.sum(1)[:, :NOTHING] > threshold
    right = (shown & found).sum(0)
    every = shown.sum(0)
    cells, _ = cell_targets(pictures.words, pictures.boxes)
    known = (cells != IGNORED) & (cells != NOTHING)
    expected = (1 - seen[..., NOTHING]).sum(1).round()
    return Sight(
        recall=float(right.sum() / every.sum().clamp(min=1)),
        precision=float(right.sum() / found.sum().clamp(min=1)),
        mean_recall_of_words=float((right / every)[every > 0].mean()),
        placed=float((seen.argmax(-1) == cells)[known].float().mean()),
        counted=float((expected == (pictures.words >= 0).sum(1)).float().mean()),
    )


def save(image: ImageInterface, path: Path) -> None:
    """Write the weights so that a killed run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": image.state_dict()}, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


def check(eyes: Eyes, dev: Gallery, folder: Path, step: int) -> None:
    """Save what there is, and log how well it sees dev pictures."""
    save(eyes.image, folder / "vision.pt")
    seen = look(eyes, dev)
    threshold = best_threshold(seen, dev)
    sight = rate_sight(seen, dev, threshold)
    entry = {f"dev_{name}": round(value, 4) for name, value in sight._asdict().items()}
    line = json.dumps({"step": step, "threshold": threshold, **entry})
    print(line, flush=True)
    with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def report(eyes: Eyes, data: Path, path: Path) -> None:
    """Write how well pictures of the dev split and the tests are seen, by the threshold of dev."""
    splits = {split: read_split(data, split) for split in TESTS}
    seen = {split: look(eyes, pictures) for split, pictures in splits.items()}
    threshold = best_threshold(seen["dev"], splits["dev"])
    results: dict[str, object] = {"threshold": threshold}
    for split, pictures in splits.items():
        sight = rate_sight(seen[split], pictures, threshold)
        results[split] = {name: round(value, 4) for name, value in sight._asdict().items()}
        print(split, results[split])
    path.write_text(json.dumps(results, indent=1) + "\n")


def main(recipe: Recipe) -> None:
    """Train, or go on training, and write the averaged weights."""
    rank, processes = join_processes()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    image = build_vision(VISION)["image"]
    assert isinstance(image, ImageInterface)
    eyes = Eyes(image).requires_grad_(True).to(device).train()
    folder = recipe.runs / "eyes"
    pictures = join([read_gallery(recipe.runs / "gallery"), read_split(recipe.data, "train")])
    dev = read_split(recipe.data, "dev")

    def batches(start: int) -> Iterator[Batch]:
        for step in range(start, recipe.steps):
            if rank == 0 and step > start and step % recipe.check_every == 0:
                check(eyes, dev, folder, step)
            rng = torch.Generator().manual_seed((recipe.seed * 2**32 + step) * processes + rank)
            batch = draw_batch(pictures, recipe.batch_size, rng)
            yield Batch(*(part.to(device) for part in batch))

    def objective(batch: Batch) -> dict[str, Tensor]:
        return losses(eyes, batch, recipe.place_weight)

    if fit(eyes, recipe, folder, batches, objective, rank=rank, warmup=recipe.warmup):
        check(eyes, dev, folder, recipe.steps)
        report(eyes, recipe.data, folder / "results.json")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
