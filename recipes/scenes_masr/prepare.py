"""Log-mel features of the speech and of the noise, and what the frozen ViT makes of the pictures.

    python recipes/scenes_masr/prepare.py --data runs/scenes_masr/data --runs runs/scenes_masr

Needs what `generate.py` and `eyes.py` wrote. Everything that the training stages read over and over
is made once here; what is there is kept.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from examples import vision_with_eyes
from torch import Tensor
from tqdm import tqdm

from llmasr.audio import load_audio
from llmasr.filterbank import FilterBank
from llmasr.media import load_image


def entries(data: Path, name: str, splits: Sequence[str]) -> list[dict]:
    """Return the lines of a manifest in these splits, those with fixed noise left out."""
    lines = (data / name).read_text(encoding="utf-8").splitlines()
    found = [entry for entry in map(json.loads, lines) if entry["split"] in splits]
    return [entry for entry in found if entry.get("snr") is None]


def store(path: Path, names: Sequence[str], make: Callable[[str], Tensor]) -> None:
    """Write a tensor for every name into one file, as float16, unless it is there."""
    if path.exists():
        return
    with ThreadPoolExecutor(2) as pool:
        made = tqdm(pool.map(make, names), total=len(names), desc=path.stem, mininterval=5)
        values = {name: value.half() for name, value in zip(names, made, strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(values, path)


@torch.inference_mode()
def main(data: Path, runs: Path) -> None:
    """Make everything that the training stages read."""
    torch.set_num_threads(1)
    filterbank = FilterBank()

    def hear(name: str) -> Tensor:
        waveform = torch.from_numpy(load_audio(data / name))[None]
        return filterbank(waveform, torch.tensor([waveform.shape[1]]))[0][0]

    spoken = entries(data, "manifest.jsonl", ("train", "dev"))
    sounds = sorted({entry["audio"] for entry in spoken if entry["audio"]})
    store(runs / "features.pt", sounds, hear)
    noises = [entry["audio"] for entry in entries(data, "noise.jsonl", ("train",))]
    store(runs / "noise.pt", noises, hear)

    image = vision_with_eyes(runs)["image"].eval()
    size = image.trunk.vit.config.image_size

    def see(name: str) -> Tensor:
        return image.trunk.see(load_image(data / name, size=size)[None])[0]

    pictures = sorted({entry["image"] for entry in spoken if entry["image"]})
    store(runs / "patches.pt", pictures, see)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/scenes_masr/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/scenes_masr"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.runs)
