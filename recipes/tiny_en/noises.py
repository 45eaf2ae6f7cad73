"""Make clips without speech, so that the model learns to fire nothing on them.

    python recipes/tiny_en/noises.py --data ../shared/data --out runs/tiny_en/noise

Silence, coloured noise, hum, clicks, tones and pieces of the dish-washing recording. The forty
short recordings in `noise` are the test set for silence: nothing is learnt from them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

SAMPLE_RATE = 16_000
KINDS = ("silence", "coloured", "hum", "clicks", "tone", "recording")
RECORDING = "dish"


def coloured(rng: np.random.Generator, size: int) -> np.ndarray:
    """Noise whose power falls as 1 / f ** slope, with a random slope from 0 to 2.5."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.maximum(np.arange(len(spectrum)), 1.0)
    return np.fft.irfft(spectrum * frequency ** -rng.uniform(0, 1.25), size)


def hum(rng: np.random.Generator, size: int) -> np.ndarray:
    """Mains hum with falling harmonics over faint noise."""
    time = np.arange(size) / SAMPLE_RATE
    base = rng.choice([50.0, 60.0, rng.uniform(80, 400)])
    harmonics = [np.sin(2 * np.pi * base * k * time + rng.uniform(0, 6)) / k for k in range(1, 12)]
    return np.sum(harmonics, 0) + 0.05 * rng.standard_normal(size)


def clicks(rng: np.random.Generator, size: int) -> np.ndarray:
    """Short bursts, as of keys or cutlery, over faint noise."""
    signal = 0.01 * coloured(rng, size)
    for start in rng.integers(0, max(size - 800, 1), rng.integers(1, 12)):
        burst = rng.standard_normal(800) * np.exp(-np.arange(800) / rng.uniform(20, 200))
        signal[start : start + 800] += burst[: size - start]
    return signal


def tone(rng: np.random.Generator, size: int) -> np.ndarray:
    """A beep or a sweep."""
    time = np.arange(size) / SAMPLE_RATE
    start, end = rng.uniform(100, 4000, 2) if rng.random() < 0.5 else [rng.uniform(100, 4000)] * 2
    phase = 2 * np.pi * (start * time + (end - start) * time**2 / (2 * time[-1] + 1e-9))
    return np.sin(phase) + 0.01 * rng.standard_normal(size)


def clip(rng: np.random.Generator, kind: str, recording: np.ndarray) -> np.ndarray:
    """Return [samples] float64 of 0.3 to 5 s with a random envelope and level."""
    size = int(rng.uniform(0.3, 5.0) * SAMPLE_RATE)
    if kind == "silence":
        return rng.choice([0.0, 1e-4]) * rng.standard_normal(size)
    if kind == "recording":
        start = rng.integers(0, len(recording) - size)
        signal = recording[start : start + size].astype(np.float64)
    else:
        signal = {"coloured": coloured, "hum": hum, "clicks": clicks, "tone": tone}[kind](rng, size)
    if rng.random() < 0.5:
        knots = rng.uniform(0.05, 1.0, rng.integers(2, 8))
        signal = signal * np.interp(np.linspace(0, 1, size), np.linspace(0, 1, len(knots)), knots)
    return signal / max(np.abs(signal).max(), 1e-9) * 10 ** rng.uniform(-3, -0.1)


def main(data: Path, out: Path, number: int) -> None:
    """Write ``number`` clips and their manifest."""
    rng = np.random.default_rng(0)
    entries = [json.loads(line) for line in (data / "noise/manifest.jsonl").open(encoding="utf-8")]
    source = next(entry for entry in entries if RECORDING in entry["id"])
    recording, _ = soundfile.read(data / "noise" / source["audio"], dtype="float32")
    (out / "audio").mkdir(parents=True, exist_ok=True)
    lines = []
    for index in tqdm(range(number), unit="clip"):
        samples = clip(rng, KINDS[index % len(KINDS)], recording)
        name = f"noise-{index:04d}"
        soundfile.write(out / "audio" / f"{name}.flac", samples, SAMPLE_RATE)
        lines.append(json.dumps({
            "id": name, "audio": f"audio/{name}.flac", "text": "", "lang": "", "speaker": "",
            "duration": len(samples) / SAMPLE_RATE, "sample_rate": SAMPLE_RATE, "split": "train",
        }))  # fmt: skip
    (out / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_en/noise"))
    parser.add_argument("--number", type=int, default=1200)
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.number)
