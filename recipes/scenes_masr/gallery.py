"""Pictures as arrays, with what they show: drawn for stage 1, or those of the data set.

    python recipes/scenes_masr/gallery.py

Draws pictures without sentences by the rules of `train`: its drawings and kinds of background, and
no combination of things that a dev or test picture shows. A shard that is there is kept.

Letters: N pictures, M most things in a picture, S side in pixels.
"""

import argparse
import functools
import io
import json
import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from backgrounds import TRAIN_KINDS
from PIL import Image
from scenes import MOST_THINGS, SIDE, Scene, arrange, box, draw_scene, settle
from sizes import VISION
from torch import Tensor
from tqdm import tqdm
from words import SEEN

WORDS = tuple(thing.word.text for thing in SEEN)
NOTHING = len(WORDS)
NUMBERS = {0: 0.03, 1: 0.17, 2: 0.2, 3: 0.3, 4: 0.3}  # share of pictures with so many things
TWICE_SHARE = 0.1  # of things that stand there twice
SHARD = 1_000


class Gallery(NamedTuple):
    """Pictures and the things in them.

    Attributes:
        pixels: uint8 [N, 3, S, S].
        words: index of each thing's word in `WORDS`; `NOTHING` where the word is none of them, -1
            where there is no thing; int64 [N, M].
        boxes: centre x, centre y, width and height as shares of the side, float32 [N, M, 4].
    """

    pixels: Tensor
    words: Tensor
    boxes: Tensor

    def take(self, rows: Tensor) -> "Gallery":
        """Return some of the pictures."""
        return Gallery(*(column[rows] for column in self))


def draw_training_scene(rng: random.Random, forbidden: set[frozenset[str]]) -> Scene:
    """Draw a scene of training, with another combination of words than those forbidden."""
    while True:
        number = rng.choices(list(NUMBERS), list(NUMBERS.values()))[0]
        if number == 0:
            return Scene((), TRAIN_KINDS, rng.randrange(2**31))
        things = rng.sample(SEEN, number)
        if rng.random() < TWICE_SHARE:
            things[0] = things[-1]
        drawings = [(thing.word.text, rng.choice(thing.drawings)) for thing in things]
        if frozenset(word for word, _ in drawings) not in forbidden:
            return arrange(rng, drawings, TRAIN_KINDS)


def photograph(scene: Scene) -> Image.Image:
    """Return the picture as the data set stores it: through JPEG."""
    encoded = io.BytesIO()
    draw_scene(scene).save(encoded, "JPEG", quality=70 + scene.seed % 23)
    return Image.open(encoded)


def tabulate(
    pictures: Sequence[Image.Image], things: Sequence[Sequence[tuple[str, tuple[float, ...]]]]
) -> Gallery:
    """Put pictures and their things, given as (word, box in pixels of `SIDE`), into arrays."""
    side = VISION.vit.image_size
    words = torch.full((len(things), MOST_THINGS), -1)
    boxes = torch.zeros(len(things), MOST_THINGS, 4)
    for row, found in enumerate(things):
        for column, (word, (left, top, right, bottom)) in enumerate(found):
            words[row, column] = WORDS.index(word) if word in WORDS else NOTHING
            centre = ((left + right) / 2, (top + bottom) / 2)
            boxes[row, column] = torch.tensor([*centre, right - left, bottom - top]) / SIDE
    small = [image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
             for image in pictures]  # fmt: skip
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in small]))
    return Gallery(pixels.permute(0, 3, 1, 2).contiguous(), words, boxes)


def draw_gallery(size: int, seed: str, forbidden: set[frozenset[str]]) -> Gallery:
    """Draw training pictures; the same for the same seed."""
    rng = random.Random(seed)
    scenes = [settle(draw_training_scene(rng, forbidden)) for _ in range(size)]
    things = [[(thing.word, box(thing)) for thing in scene.things] for scene in scenes]
    return tabulate([photograph(scene) for scene in scenes], things)


def read_split(data: Path, split: str) -> Gallery:
    """Read the pictures of a split of the data set, each once."""
    with (data / "manifest.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    shown = {entry["image"]: entry["objects"] for entry in entries
             if entry["split"] == split and entry["image"]}  # fmt: skip
    pictures = [Image.open(data / name) for name in shown]
    things = [[(thing["word"], thing["box"]) for thing in found] for found in shown.values()]
    return tabulate(pictures, things)


def held_combinations(data: Path) -> set[frozenset[str]]:
    """Return what dev and test pictures show together, if it is more than one thing."""
    with (data / "manifest.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    shown = {frozenset(thing["word"] for thing in entry["objects"])
             for entry in entries if entry["split"] != "train"}  # fmt: skip
    return {words for words in shown if len(words) > 1}


def read_gallery(folder: Path) -> Gallery:
    """Read all shards of a folder that :func:`main` wrote.

    Raises:
        ValueError: there are none.
    """
    paths = sorted(folder.glob("*.pt"))
    if not paths:
        raise ValueError(f"{folder} holds no pictures (*.pt); gallery.py draws them")
    return join([Gallery(*torch.load(path, weights_only=True)) for path in paths])


def join(galleries: list[Gallery]) -> Gallery:
    """Return the pictures of all galleries."""
    return Gallery(*(torch.cat(columns) for columns in zip(*galleries, strict=True)))


def write_shard(number: int, out: Path, forbidden: set[frozenset[str]]) -> None:
    """Draw and write one shard unless it is there."""
    path = out / f"{number:04d}.pt"
    if path.exists():
        return
    partial = path.with_suffix(".part")
    torch.save(tuple(draw_gallery(SHARD, f"gallery:{number}", forbidden)), partial)
    partial.replace(path)


def main(data: Path, out: Path, shards: int, jobs: int) -> None:
    """Draw so many shards of a thousand pictures."""
    out.mkdir(parents=True, exist_ok=True)
    work = functools.partial(write_shard, out=out, forbidden=held_combinations(data))
    with ProcessPoolExecutor(jobs) as pool:
        list(tqdm(pool.map(work, range(shards)), total=shards, unit="shard", mininterval=5))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/scenes_masr/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/scenes_masr/gallery"))
    parser.add_argument("--shards", type=int, default=14)
    parser.add_argument("--jobs", type=int, default=2)
    main(**vars(parser.parse_args()))
