"""Make the data set of the scenes: pictures, sentences spoken about them, noise and questions.

    python recipes/scenes_masr/generate.py --out runs/scenes_masr/data

Needs the Debian packages espeak-ng, flite and fonts-noto-color-emoji, and Pillow. Every file is
named after what is in it: files that are there are kept, and a killed run goes on where it stopped.
The same seed and sizes give the same data, however many processes work.

Splits, none of which shares a voice, a picture or a noise clip with `train`:

    train, dev             seen things, seen drawings
    test                   the same things; combinations of two and more things that `train` never
                           shows, in part on kinds of background that it never shows
    test_unseen_objects    in each picture a thing that no training picture shows (its word is
                           heard in training): what the picture cannot help with
    test_unseen_drawings   seen things, drawn by characters that no training picture shows

Writes `manifest.jsonl`, whose fields the README explains, and `noise.jsonl`, the noise clips.
Sentences of `train` are stored clean, to be mixed with the noise of their split while training;
all others are stored clean and at three fixed signal-to-noise ratios.
"""

import argparse
import functools
import hashlib
import json
import os
import random
import shutil
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sentencepiece
import soundfile
from backgrounds import KINDS, TRAIN_KINDS
from questions import Question, draw_question
from scenes import FONT, Scene, draw_scene, settle, visible_box
from sentences import Sentence, Style, describe, draw_sentence
from speech import (
    NOISE_SECONDS,
    NOISES,
    SAMPLE_RATE,
    Utterance,
    clip,
    draw_voice,
    mix,
    noise,
    write_flac,
)
from tqdm import tqdm

TOKENIZER = Path(__file__).resolve().parents[2] / "llmasr/assets/tiny-en/tokenizer.model"
STYLES = {
    "test": Style(tuple(KINDS)),
    "test_unseen_objects": Style(tuple(KINDS), unseen=True),
    "test_unseen_drawings": Style(tuple(KINDS), held_drawings=True),
    "dev": Style(TRAIN_KINDS),
    "train": Style(TRAIN_KINDS),
}
SNRS_DB = (10, 5, 0)
NOISE_CLIPS = {"train": 60, "dev": 20, "test": 30}  # or one a scene, if there are fewer
TRAIN_SPOKEN_QUESTIONS = 3  # one training scene of so many has its question spoken
TRAIN_WITHOUT_PICTURE = 6  # one sentence without picture for so many training scenes


@dataclass(frozen=True)
class Options:
    """Where to, how many scenes of each kind, and the seed."""

    out: Path = Path("runs/scenes_masr/data")
    train: int = 6000
    dev: int = 300
    test: int = 600
    slices: int = 150
    seed: int = 0
    jobs: int = 2

    def sizes(self) -> dict[str, int]:
        """Return the number of scenes of each split, in the order in which they are drawn."""
        slices = {"test_unseen_objects": self.slices, "test_unseen_drawings": self.slices}
        return {"test": self.test, **slices, "dev": self.dev, "train": self.train}


@dataclass(frozen=True)
class Item:
    """One sentence with its scene and who says it; what is asked of the scene and who asks.

    ``task`` is 'masr', or 'asr' for a sentence whose picture is not kept. ``asker`` is None where
    the question is not spoken.
    """

    id: str
    split: str
    task: str
    sentence: Sentence
    speaker: Utterance
    question: Question
    asker: Utterance | None


def plan(options: Options) -> list[Item]:
    """Draw everything; a train or dev scene never has the things of a scene drawn before."""
    items: list[Item] = []
    taken: set[frozenset[str]] = set()
    for split, size in options.sizes().items():
        drawn = [_item(options.seed, split, index, taken) for index in range(size)]
        taken |= {combination for item in drawn if (combination := _combination(item.sentence))}
        items += drawn
    for index in range(options.train // TRAIN_WITHOUT_PICTURE):
        items.append(_item(options.seed, "train", options.train + index, set(), "asr"))
    return items


def _item(
    seed: int, split: str, index: int, taken: set[frozenset[str]], task: str = "masr"
) -> Item:
    rng = random.Random(f"{seed}:{split}:{index}")
    sentence = draw_sentence(rng, STYLES[split])
    while _combination(sentence) in taken:
        sentence = draw_sentence(rng, STYLES[split])
    voices = _voices(split)
    question = draw_question(rng, sentence.scene)
    spoken = task == "masr" and (split != "train" or index % TRAIN_SPOKEN_QUESTIONS == 0)
    return Item(
        id=f"{split}-{index:05d}", split=split, task=task, sentence=sentence,
        speaker=draw_voice(rng, voices, sentence.text), question=question,
        asker=draw_voice(rng, voices, question.text) if spoken else None,
    )  # fmt: skip


def _combination(sentence: Sentence) -> frozenset[str]:
    """Return the words of a scene of two or more different things; else nothing, always allowed."""
    words = frozenset(sentence.scene.words())
    return words if len(words) > 1 else frozenset()


def _voices(split: str) -> str:
    return split if split in ("train", "dev") else "test"


def check_words(texts: list[str]) -> None:
    """Check that the vocabulary of the bundled model can spell every text.

    Raises:
        ValueError: it cannot.
    """
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(TOKENIZER))
    for text in texts:
        if tokenizer.unk_id() in tokenizer.encode(text) or tokenizer.decode(
            tokenizer.encode(text)
        ) != text:  # fmt: skip
            raise ValueError(f"{text!r} cannot be spelt with {TOKENIZER}; lower case a-z is needed")


def make_noise(job: tuple[str, int], options: Options, sentences: list[str]) -> dict[str, object]:
    """Write one noise clip, given as (voices, number), unless it is there; return its entry."""
    voices, number = job
    kind = NOISES[number % len(NOISES)]
    seed = f"{options.seed}:{voices}:{number}"
    said = hashlib.sha1(json.dumps([seed, kind, sentences]).encode()).hexdigest()[:10]
    relative = Path("noise", voices, f"{number:03d}-{kind}-{said}.flac")
    if not (options.out / relative).exists():
        write_flac(noise(kind, voices, sentences, seed), options.out / relative)
    return {"id": f"{voices}-{number:03d}", "audio": str(relative), "kind": kind, "split": voices,
            "text": "", "lang": "", "speaker": "", "duration": NOISE_SECONDS,
            "sample_rate": SAMPLE_RATE}  # fmt: skip


def produce(item: Item, options: Options, noises: list[dict]) -> list[dict[str, object]]:
    """Write the picture and the clips of an item unless they are there; return its entries."""
    common = {"lang": "en", "split": item.split, "image": None, "objects": []}
    if item.task == "masr":
        common |= _picture(item.sentence.scene, item.split, options.out)
    entries = []
    for sound in _sounds(item.speaker, item.split, options, noises):
        entries.append(
            {"id": _name(item, item.task, sound["snr"]), "task": item.task, **sound, **common,
             "text": item.sentence.text, "prompt": None, "answer": None,
             "about_picture": item.sentence.about_picture and item.task == "masr",
             "focus": item.sentence.focus, "spoken": item.sentence.spoken}
        )  # fmt: skip
    if item.task == "asr":
        return entries
    asked = {"about_picture": True, "focus": None, "spoken": []}
    silent = {"audio": None, "speaker": None, "duration": None, "sample_rate": None, "snr": None,
              "noise": None, "text": ""}  # fmt: skip
    entries.append({"id": _name(item, "describe"), "task": "describe", **silent, **common,
                    "prompt": None, "answer": describe(item.sentence.scene), **asked})  # fmt: skip
    question = {"answer": item.question.answer, **asked}
    entries.append({"id": _name(item, "question"), "task": "question", **silent, **common,
                    "prompt": item.question.text, **question})  # fmt: skip
    if item.asker is not None:
        sound = _clean(item.asker, item.split, options.out)
        entries.append({"id": _name(item, "vsd"), "task": "vsd", **sound, **common,
                        "text": item.question.text, "prompt": None, **question})  # fmt: skip
    return entries


def _name(item: Item, task: str, snr: object = None) -> str:
    return f"{item.id}-{task}" if snr is None else f"{item.id}-{task}-{snr}db"


def _picture(scene: Scene, split: str, out: Path) -> dict[str, object]:
    name = hashlib.sha1(repr(scene).encode()).hexdigest()[:16]
    relative = Path("images", split, f"{name}.jpg")
    if not (out / relative).exists():
        (out / relative).parent.mkdir(parents=True, exist_ok=True)
        partial = (out / relative).with_suffix(f".{os.getpid()}.part")
        draw_scene(settle(scene)).save(partial, "JPEG", quality=70 + scene.seed % 23)
        partial.replace(out / relative)
    things = [{"word": thing.word, "drawing": thing.drawing, "box": visible_box(thing)}
              for thing in scene.things]  # fmt: skip
    return {"image": str(relative), "objects": things}


def _clean(utterance: Utterance, split: str, out: Path) -> dict[str, object]:
    relative = Path("audio", split, f"{utterance.id}.flac")
    if not (out / relative).exists():
        write_flac(clip(utterance), out / relative)
    return {"audio": str(relative), "speaker": f"{utterance.engine}-{utterance.voice}",
            "duration": soundfile.info(out / relative).duration, "sample_rate": SAMPLE_RATE,
            "snr": None, "noise": None}  # fmt: skip


def _sounds(
    utterance: Utterance, split: str, options: Options, noises: list[dict]
) -> list[dict[str, object]]:
    """Return the clean clip, and outside of training that at every signal-to-noise ratio."""
    clean = _clean(utterance, split, options.out)
    sounds = [clean]
    for snr in () if split == "train" else SNRS_DB:
        rng = random.Random(f"{options.seed}:{utterance.id}:{snr}")
        behind = rng.choice([entry for entry in noises if entry["split"] == _voices(split)])
        start = rng.randrange(SAMPLE_RATE * 5)
        stem = f"{utterance.id}-{snr}db-{Path(behind['audio']).stem}-{start}"
        relative = Path("audio", split, f"{stem}.flac")
        if not (options.out / relative).exists():
            speech, _ = soundfile.read(options.out / str(clean["audio"]))
            samples = mix(speech, _read(options.out / behind["audio"]), snr, start)
            write_flac(samples, options.out / relative)
        sounds.append(clean | {"audio": str(relative), "snr": snr, "noise": behind["kind"]})
    return sounds


@functools.cache
def _read(path: Path) -> np.ndarray:
    return soundfile.read(path)[0]


def check_programs() -> None:
    """Check that what draws and speaks is installed.

    Raises:
        SystemExit: something is missing; the message says how to install it.
    """
    missing = [name for name in ("espeak-ng", "flite") if shutil.which(name) is None]
    missing += [] if FONT.exists() else ["fonts-noto-color-emoji"]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} missing: apt-get install {' '.join(missing)}")


def main(options: Options) -> None:
    """Make the data set and print what is in it."""
    check_programs()
    items = plan(options)
    texts = [item.sentence.text for item in items] + [item.question.text for item in items]
    check_words(texts + [describe(item.sentence.scene) for item in items])
    scenes = Counter(_voices(item.split) for item in items)
    jobs = [(voices, number) for voices, most in NOISE_CLIPS.items()
            for number in range(min(most, scenes[voices]))]  # fmt: skip
    with ProcessPoolExecutor(options.jobs) as pool:
        # Train sentences alone: babble of the test thus gives away none of its own.
        babble = [item.sentence.text for item in items if item.split == "train"][:500]
        making = functools.partial(make_noise, options=options, sentences=babble)
        noises = list(tqdm(pool.map(making, jobs), total=len(jobs), unit="noise", mininterval=5))
        making = functools.partial(produce, options=options, noises=noises)
        work = pool.map(making, items, chunksize=8)
        made = list(tqdm(work, total=len(items), unit="scene", mininterval=5))
    entries = [entry for found in made for entry in found]
    _write_lines(options.out / "noise.jsonl", noises)
    _write_lines(options.out / "manifest.jsonl", entries)
    _report(entries)


def _write_lines(path: Path, entries: list[dict]) -> None:
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    path.write_text(text, encoding="utf-8")


def _report(entries: list[dict]) -> None:
    counts = Counter((entry["split"], entry["task"], str(entry["snr"])) for entry in entries)
    for (split, task, snr), number in sorted(counts.items()):
        print(f"{split:22} {task:9} {'' if snr == 'None' else snr + ' dB':6} {number:6}")
    hours = sum(entry["duration"] or 0 for entry in entries) / 3600
    print(f"{len(entries)} entries, {hours:.2f} hours of speech")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Options()
    parser.add_argument("--out", type=Path, default=default.out)
    for name in ("train", "dev", "test", "slices", "seed", "jobs"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    main(Options(**vars(parser.parse_args())))
