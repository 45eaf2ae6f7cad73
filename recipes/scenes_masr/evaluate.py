"""Does a picture help to recognise, and does a wrong one hurt? Writes the tables of `RESULTS.md`.

    python recipes/scenes_masr/evaluate.py --model runs/scenes_masr/joined --report RESULTS.md

Every sentence of a split is recognised four times: with its picture, with another one, with one
that is all grey, and with none. Rates are compared with those without a picture, sentence by
sentence (paired bootstrap over speakers). Then the model describes the pictures and answers
questions in words and in speech. Everything goes through the public `Recognizer`; all hypotheses
are kept in `--out`.
"""

import argparse
import json
import platform
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from examples import DESCRIBE, SPOKEN
from words import THINGS

from llmasr import Recognizer, score
from llmasr.scoring import Score, compare
from llmasr.scoring.captions import cider, exact_match, false_insertions

SPLITS = ("test", "test_unseen_drawings", "test_unseen_objects")
SNRS = (None, 10, 5, 0)
SIGHTS = ("none", "right", "wrong", "blank")
GREY = np.full((96, 96, 3), 128, np.uint8)
NORMALIZER = "raw"
MARK = "<!-- written by evaluate.py -->"
Entries = list[dict[str, Any]]


def read_entries(data: Path, split: str) -> Entries:
    """Read the lines of a split."""
    lines = (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry for entry in map(json.loads, lines) if entry["split"] == split]


def wrong_pictures(entries: Entries) -> Entries:
    """Give every sentence a scene that shows nothing it says, and nothing that sounds the same."""
    rng = random.Random(0)
    sounding = {thing.alike.text: thing.word.text for thing in THINGS.values() if thing.alike}
    found = []
    for entry in entries:
        said = {*entry["spoken"], *(sounding.get(word) for word in entry["spoken"])}
        others = rng.sample(entries, len(entries))
        found.append(next(o for o in others if not said & {t["word"] for t in o["objects"]}))
    return found


def transcribe(
    recognizer: Recognizer, data: Path, entries: Entries, sight: str
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return texts by id, and the words of what was shown."""
    others = wrong_pictures(entries)
    shown = {"none": None, "right": entries, "wrong": others, "blank": None}[sight]
    images: Any = {"none": None, "blank": GREY}.get(sight)
    if shown is not None:
        images = [str(data / entry["image"]) for entry in shown]
    found = recognizer.transcribe([str(data / entry["audio"]) for entry in entries], image=images)
    texts = {entry["id"]: transcript.text for entry, transcript in zip(entries, found, strict=True)}
    # What a wrong picture suggests is asked of every condition but the right one.
    suggested = entries if sight == "right" else others
    words = {
        entry["id"]: sorted({thing["word"] for thing in scene["objects"]})
        for entry, scene in zip(entries, suggested, strict=True)
    }
    return texts, words


def recognition_rows(
    recognizer: Recognizer, data: Path, split: str, snr: int | None, out: Path
) -> list[str]:
    """Return four lines of the table."""
    entries = [e for e in read_entries(data, split) if e["task"] == "masr" and e["snr"] == snr]
    references = {entry["id"]: entry["text"] for entry in entries}
    groups = {entry["id"]: entry["speaker"] for entry in entries}
    scores: dict[str, Score] = {}
    rows = []
    for sight in SIGHTS:
        texts, words = transcribe(recognizer, data, entries, sight)
        write(out / f"{split}-{snr}-{sight}.jsonl", texts, references)
        scores[sight] = score(references, texts, normalizer=NORMALIZER, groups=groups)
        inserted = false_insertions(references, texts, words, normalizer=NORMALIZER)
        rows.append(recognition_row(split, snr, sight, scores, inserted.per_utterance))
        print(rows[-1], flush=True)
    return rows


def recognition_row(
    split: str, snr: int | None, sight: str, scores: Mapping[str, Score], inserted: float
) -> str:
    """Return a line of the table."""
    found, base = scores[sight], scores["none"]
    low, high = found.interval or (float("nan"), float("nan"))
    cells = [
        f"`{split}`", "clean" if snr is None else f"{snr} dB", sight,
        f"{100 * found.rate:.2f}", f"{100 * low:.1f} - {100 * high:.1f}",
    ]  # fmt: skip
    if sight == "none":
        cells += ["-", "-", "-"]
    else:
        paired = compare(found, base, name="none")
        ends = paired.interval or (float("nan"), float("nan"))
        relative = 100 * paired.difference / base.rate
        cells += [
            f"{100 * paired.difference:+.2f}",
            f"{100 * ends[0]:+.2f} to {100 * ends[1]:+.2f}",
            f"{relative:+.1f} %",
        ]
    cells += [f"{100 * inserted:.1f}", f"{found.utterances} / {found.units}"]
    return f"| {' | '.join(cells)} |"


def answer_rows(recognizer: Recognizer, data: Path, split: str, out: Path) -> list[str]:
    """Return the lines about descriptions and questions."""
    entries = [e for e in read_entries(data, split) if e["snr"] is None]
    rows = []
    for task, ask in (("describe", DESCRIBE), ("question", None), ("vsd", SPOKEN)):
        asked = [entry for entry in entries if entry["task"] == task]
        references = {entry["id"]: entry["answer"] for entry in asked}
        replies = recognizer.answer(
            [ask or entry["prompt"] for entry in asked],
            image=[str(data / entry["image"]) for entry in asked],
            audio=[str(data / entry["audio"]) for entry in asked] if task == "vsd" else None,
            max_new_tokens=40,
        )
        assert isinstance(replies, list), "a list of questions has a list of replies"
        texts = {entry["id"]: reply.text for entry, reply in zip(asked, replies, strict=True)}
        write(out / f"{split}-{task}.jsonl", texts, references)
        exact = exact_match(references, texts, normalizer=NORMALIZER)
        low, high = exact.interval or (float("nan"), float("nan"))
        captions = "-"
        if task == "describe":
            captions = f"{cider(references, texts, normalizer=NORMALIZER).mean:.2f}"
        rows.append(
            f"| `{split}` | {task} | {100 * exact.mean:.1f} | {100 * low:.1f} - {100 * high:.1f} "
            f"| {captions} | {most_frequent(references):.1f} | {len(asked)} |"
        )
        print(rows[-1], flush=True)
    return rows


def most_frequent(references: Mapping[str, str]) -> float:
    """Return how often in a hundred the most frequent answer is right."""
    answers = list(references.values())
    return 100 * max(map(answers.count, set(answers))) / len(answers)


def write(path: Path, texts: Mapping[str, str], references: Mapping[str, str]) -> None:
    """Keep the hypotheses beside their references."""
    lines = [{"id": i, "text": text, "reference": references[i]} for i, text in texts.items()]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def run_card(command: str, model: str) -> list[str]:
    """Say how the numbers were made."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    return [
        f"- command: `{command}`",
        f"- model `{model}`, normaliser `{NORMALIZER}`, commit `{commit}`, torch "
        f"{torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads",
    ]


def main(arguments: argparse.Namespace) -> None:
    """Evaluate and, if asked, write the report."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    recognizer = Recognizer.from_pretrained(arguments.model)
    lines = [
        "| split | noise | picture | WER % | 95 % interval | against none, points | paired 95 % "
        "interval | relative | image words falsely inserted, per 100 sentences | utt / words |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    snrs: Sequence[int | None] = (5,) if arguments.quick else SNRS
    for split in SPLITS[:1] if arguments.quick else SPLITS:
        for snr in snrs:
            lines += recognition_rows(recognizer, arguments.data, split, snr, arguments.out)
    lines += [
        "",
        "| split | task | exact match % | 95 % interval | CIDEr-D | commonest answer % | items |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for split in SPLITS[:1] if arguments.quick else SPLITS:
        lines += answer_rows(recognizer, arguments.data, split, arguments.out)
    command = f"python recipes/scenes_masr/evaluate.py --model {arguments.model}"
    text = "\n".join([*lines, "", *run_card(command, arguments.model)]) + "\n"
    if arguments.report:
        report = arguments.report
        head = report.read_text(encoding="utf-8").split(MARK)[0] if report.exists() else ""
        report.write_text(f"{head}{MARK}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-en-scenes", help="a bundled name or a folder")
    parser.add_argument("--data", type=Path, default=Path("runs/scenes_masr/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/scenes_masr/hypotheses"))
    parser.add_argument("--report", type=Path, help="Markdown file whose tables are replaced")
    parser.add_argument("--quick", action="store_true", help="only `test` at 5 dB")
    main(parser.parse_args())
