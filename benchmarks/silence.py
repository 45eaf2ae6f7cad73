"""How much does quiet before and after an utterance cost?

    python benchmarks/silence.py --data ../shared/data

Puts one second of faint white noise before each dev clip and 0.7 s after it, at several levels
below the speech, and scores the transcripts. Writes `benchmarks/results/silence.csv`.
"""

import argparse
import csv
import json
import subprocess
from pathlib import Path

import numpy as np

from llmasr import Recognizer, load_audio, score
from llmasr.audio import SAMPLE_RATE

RESULTS = Path(__file__).parent / "results/silence.csv"
LEVELS_DB = (None, -30, -45, -60)


def padded(waveform: np.ndarray, level_db: float | None, rng: np.random.Generator) -> np.ndarray:
    """Return [samples] with noise around it, ``level_db`` relative to the whole clip's level."""
    if level_db is None:
        return waveform
    level = np.sqrt(np.mean(np.square(waveform))) * 10 ** (level_db / 20)
    before, after = (
        (level * rng.standard_normal(int(seconds * SAMPLE_RATE))).astype(np.float32)
        for seconds in (1.0, 0.7)
    )
    return np.concatenate([before, waveform, after])


def main(model: str, data: Path) -> None:
    """Score every set at every level."""
    recognizer = Recognizer.from_pretrained(model)
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    rows = [["set", "noise_db", "wer_percent", "clips", "model", "commit"]]
    for name in ("en_commands", "en_sentences_l2"):
        lines = (data / name / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [entry for entry in map(json.loads, lines) if entry["split"] == "dev"]
        waveforms = [load_audio(data / name / entry["audio"]) for entry in entries]
        texts = {entry["id"]: entry["text"] for entry in entries}
        for level in LEVELS_DB:
            rng = np.random.default_rng(0)
            sounds = [(padded(waveform, level, rng), SAMPLE_RATE) for waveform in waveforms]
            found = [transcript.text for transcript in recognizer.transcribe(sounds)]
            result = score(texts, dict(zip(texts, found, strict=True)), normalizer="llmasr-en")
            label = "none" if level is None else str(level)
            rows.append([name, label, f"{100 * result.rate:.1f}", str(len(texts)), model, commit])
            print(*rows[-1], sep=", ")
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-en")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    main(arguments.model, arguments.data)
