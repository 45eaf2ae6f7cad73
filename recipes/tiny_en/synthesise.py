"""Speak the recipe's sentences with free synthesisers, several voices, rates and pitches.

    python recipes/tiny_en/synthesise.py --text runs/tiny_en/text --out runs/tiny_en/synthetic

Needs the Debian packages espeak-ng and flite (`apt-get install espeak-ng flite`). Each sentence has
a voice drawn from its own text, so the result does not depend on order or on interruptions: clips
that are already there are kept, and a killed run goes on where it stopped. Writes 16 kHz FLAC files
and `manifest.jsonl` in the form of the other data sets.
"""

import argparse
import hashlib
import io
import json
import random
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

SAMPLE_RATE = 16_000
ESPEAK_ACCENTS = (
    "en-us",
    "en-us",
    "en-gb",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbcwmd",
    "en-029",
    "en-us-nyc",
)
ESPEAK_TIMBRES = (  # noqa: SIM905, fifty lines of one name each are no easier to read
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 Alex Alicia Andrea Andy Annie Gene Henrique "
    "Jacky Lee Marco Mario Michael Mike adam anika antonio aunty belinda benjamin boris "
    "caleb david ed edward grandma grandpa gustave iven john linda max michel miguel "
    "norbert pablo paul pedro quincy rob robert sandro shelby steph travis victor zac "
    "klatt klatt2 klatt3 klatt4 "
).split()
FLITE_VOICES = ("slt", "rms", "awb", "kal16")


@dataclass(frozen=True)
class Utterance:
    """One sentence, who says it and how; ``stretch`` > 1 is slower, ``pitch`` in Hz or percent."""

    text: str
    engine: str
    voice: str
    stretch: float
    pitch: int

    @property
    def id(self) -> str:
        """Name the clip after what is said and how."""
        key = json.dumps([self.text, self.engine, self.voice, self.stretch, self.pitch])
        return f"syn-{hashlib.sha1(key.encode()).hexdigest()[:16]}"


def draw(text: str, take: int, flite_share: float) -> Utterance:
    """Choose a voice for ``text``; the same text and take always give the same voice."""
    rng = random.Random(f"{take}:{text}")
    stretch = round(rng.uniform(0.9, 1.5), 2)
    if rng.random() < flite_share:
        voice = rng.choice(FLITE_VOICES)
        low, high = (150, 260) if voice == "slt" else (85, 180)
        return Utterance(text, "flite", voice, stretch, rng.randrange(low, high))
    voice = f"{rng.choice(ESPEAK_ACCENTS)}+{rng.choice(ESPEAK_TIMBRES)}"
    return Utterance(text, "espeak-ng", voice, stretch, rng.randrange(20, 85))


def speak(utterance: Utterance) -> np.ndarray:
    """Return the clip, [samples] float32 at 16 kHz, peak at most 0.9."""
    if utterance.engine == "flite":
        command = [
            "flite",
            "-voice",
            utterance.voice,
            "-t",
            utterance.text,
            "-o",
            "/dev/stdout",
            "--setf",
            f"duration_stretch={utterance.stretch}",
            "--setf",
            f"int_f0_target_mean={utterance.pitch}",
        ]
    else:
        rate = round(175 / utterance.stretch)
        command = [
            "espeak-ng",
            "-v",
            utterance.voice,
            "-s",
            str(rate),
            "-p",
            str(utterance.pitch),
            "--stdout",
            utterance.text,
        ]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    # A WAV header written to a pipe has no valid length; read the samples behind it.
    rate = int.from_bytes(raw[24:28], "little")
    start = raw.index(b"data", 12) + 8
    usable = (len(raw) - start) // 2 * 2
    samples = np.frombuffer(raw[start : start + usable], "<i2").astype(np.float32) / 32768
    if rate != SAMPLE_RATE:
        samples = soxr.resample(samples, rate, SAMPLE_RATE)
    return samples * min(1.0, 0.9 / max(np.abs(samples).max(initial=0.0), 1e-6))


def produce(utterance: Utterance, out: Path) -> dict[str, object]:
    """Write one clip unless it is there, and return its manifest entry."""
    relative = Path("audio", utterance.id[4:6], f"{utterance.id}.flac")
    path = out / relative
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        encoded = io.BytesIO()
        soundfile.write(encoded, speak(utterance), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        partial = path.with_suffix(".part")
        partial.write_bytes(encoded.getvalue())
        partial.replace(path)
    return {
        "id": utterance.id,
        "audio": str(relative),
        "text": utterance.text,
        "lang": "en",
        "speaker": f"{utterance.engine}-{utterance.voice}",
        "split": "train",
        "duration": soundfile.info(path).duration,
        "sample_rate": SAMPLE_RATE,
    }


def plan(text: Path, flite_share: float) -> list[Utterance]:
    """List what to say: each sentence once, real transcripts twice more, lines once."""
    sentences = (text / "sentences.txt").read_text(encoding="utf-8").splitlines()
    transcripts = list(
        dict.fromkeys((text / "transcripts.txt").read_text(encoding="utf-8").splitlines())
    )
    lines = (text / "lines.txt").read_text(encoding="utf-8").splitlines()[:6000]
    words = [line for line in transcripts if " " not in line]
    takes = [(line, 0) for line in sentences]
    takes += [(line, take) for take in (1, 2) for line in transcripts]
    takes += [(line, take) for take in range(3, 13) for line in words]
    takes += [(line, 0) for line in lines]
    random.Random(0).shuffle(takes)
    return [draw(line, take, flite_share) for line, take in takes]


def main(text: Path, out: Path, flite_share: float, jobs: int) -> None:
    """Speak everything in the plan and write the manifest."""
    for program in ("flite", "espeak-ng"):
        if shutil.which(program) is None:
            raise SystemExit(f"{program} is missing: apt-get install espeak-ng flite")
    utterances = plan(text, flite_share)
    with ThreadPoolExecutor(jobs) as pool:
        work = pool.map(lambda item: produce(item, out), utterances)
        entries = list(tqdm(work, total=len(utterances), unit="clip", mininterval=10))
    manifest = out / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    hours = sum(float(str(entry["duration"])) for entry in entries) / 3600
    print(f"{manifest}: {len(entries)} clips, {hours:.2f} hours")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", type=Path, default=Path("runs/tiny_en/text"))
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_en/synthetic"))
    parser.add_argument("--flite-share", type=float, default=0.5)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    main(arguments.text, arguments.out, arguments.flite_share, arguments.jobs)
