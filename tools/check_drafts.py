"""Is decoding with drafts the same as plain greedy search, on every clip of every test set?

    python tools/check_drafts.py --model tiny-en --data ../shared/data

Every clip is recognised token by token, with drafts, and with drafts in a batch of eight. Prints
how many clips there are and names those whose tokens differ; the exit code is 2 if there are any.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from llmasr import Recognizer, load_audio
from llmasr.decoding.greedy import Decoding, draft_source, recognise, write

BATCH = 8


def clips(data: Path) -> Iterator[Path]:
    """Yield the audio files of all test splits."""
    for manifest in sorted(data.glob("*/manifest.jsonl")):
        for entry in map(json.loads, manifest.read_text(encoding="utf-8").splitlines()):
            if entry["split"] == "test" and entry["lang"] == "en":
                yield manifest.parent / entry["audio"]


def main(model: str, data: Path) -> int:
    """Compare, and return the exit code."""
    recognizer = Recognizer.from_pretrained(model)
    xllm, how = recognizer.bundle.model, Decoding(draft=draft_source(recognizer.bundle))
    paths = list(clips(data))
    differing: list[Path] = []
    for start in tqdm(range(0, len(paths), BATCH), mininterval=5):
        batch = paths[start : start + BATCH]
        waves = [torch.from_numpy(load_audio(path)).to(recognizer.device) for path in batch]
        lengths = torch.tensor([len(wave) for wave in waves], device=recognizer.device)
        together = recognise(xllm, pad_sequence(waves, batch_first=True), lengths, how)
        for path, wave, row in zip(batch, waves, together, strict=True):
            alone = (wave[None], torch.tensor([len(wave)], device=recognizer.device))
            expected = recognise(xllm, *alone, how, search=write)[0].token_ids
            found = recognise(xllm, *alone, how)[0].token_ids
            if not expected == found == row.token_ids:
                differing.append(path)
    print(f"{len(paths)} clips, {len(differing)} differ")
    for path in differing:
        print(f"differs: {path}")
    return 2 if differing else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-en", help="a bundled name or a folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    sys.exit(main(arguments.model, arguments.data))
