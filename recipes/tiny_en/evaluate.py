"""Score a model folder on every test set and write the table of `RESULTS.md`.

    python recipes/tiny_en/evaluate.py --model tiny-en --data ../shared/data

Three rows a set: greedy CTC of the encoder, the CIF hypothesis of the C-Former, and the language
model through the public `Recognizer`. Every utterance is scored; one that fails counts as all
deletions. `--split dev` chooses settings; report on `test`. Hypotheses go to `--out`.
"""

import argparse
import json
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from tqdm import tqdm

from llmasr import Recognizer, load_audio, score
from llmasr.models.speech import SpeechTokens
from llmasr.scoring import Score

SETS = ("en_sentences_l2", "en_commands", "en_digits", "en_hotwords", "en_commonvoice")
NORMALIZER = "llmasr-en"


@dataclass(frozen=True)
class TestSet:
    """Clips of one split, by id."""

    name: str
    audio: dict[str, Path]
    texts: dict[str, str]
    speakers: dict[str, str]


def read_set(data: Path, name: str, split: str) -> TestSet | None:
    """Return the clips of ``split``, or None if the set has none."""
    lines = (data / name / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if entry["split"] == split]
    if not entries:
        return None
    return TestSet(
        name,
        {entry["id"]: data / name / entry["audio"] for entry in entries},
        {entry["id"]: entry["text"] for entry in entries},
        {entry["id"]: entry["speaker"] for entry in entries},
    )


def collapse(ids: Iterable[int], blank: int) -> list[int]:
    """Merge repeats and drop blanks of a CTC path."""
    path = list(ids)
    return [a for a, b in zip(path, [blank, *path], strict=False) if a not in (b, blank)]


@torch.inference_mode()
def acoustic_texts(recognizer: Recognizer, clips: TestSet) -> tuple[dict[str, str], dict[str, str]]:
    """Return the CTC and the CIF transcripts, one clip at a time."""
    speech, tokenizer = recognizer.bundle.model.speech, recognizer.bundle.tokenizer
    ctc, cif = {}, {}
    for name, path in tqdm(clips.audio.items(), desc=f"{clips.name} acoustic", mininterval=5):
        waveform = torch.from_numpy(load_audio(path)).to(recognizer.device)
        features, frames = speech.features(waveform[None], torch.tensor([len(waveform)]))
        heard: SpeechTokens = speech.listen(features, frames.to(recognizer.device))
        logits, lengths = speech.ctc_logits(heard.frames)
        path_ids = logits[0, : lengths[0]].argmax(-1).tolist()
        ctc[name] = tokenizer.decode(collapse(path_ids, speech.config.vocab_size))
        fires = int(heard.cif.token_lengths[0])
        cif[name] = tokenizer.decode(heard.token_logits[0, :fires].argmax(-1).tolist())
    return ctc, cif


def llm_texts(recognizer: Recognizer, clips: TestSet) -> dict[str, str]:
    """Return the transcripts of the public API for all clips."""
    found = recognizer.transcribe([str(path) for path in clips.audio.values()])
    return dict(zip(clips.audio, (transcript.text for transcript in found), strict=True))


def words(texts: Iterable[str]) -> int:
    """Count words."""
    return sum(len(text.split()) for text in texts)


def row(name: str, system: str, result: Score) -> str:
    """Return a line of the table."""
    interval = "-"
    if result.interval:
        interval = " - ".join(f"{100 * bound:.1f}" for bound in result.interval)
    counts = f"{result.substitutions}/{result.deletions}/{result.insertions}"
    return (
        f"| `{name}` | {system} | {100 * result.rate:.2f} | {interval} | {counts} "
        f"| {result.utterances} / {result.units} | {len(result.missing)} |"
    )


def evaluate(recognizer: Recognizer, data: Path, split: str, out: Path) -> list[str]:
    """Score all sets and return the lines of the report."""
    lines = [
        "| set | system | WER % | 95 % interval by speaker | S/D/I | clips / words | missing |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in SETS:
        clips = read_set(data, name, split)
        if clips is None:
            continue
        ctc, cif = acoustic_texts(recognizer, clips)
        llm = llm_texts(recognizer, clips)
        for system, texts in (("CTC greedy", ctc), ("CIF hypothesis", cif), ("LLM", llm)):
            result = score(clips.texts, texts, normalizer=NORMALIZER, groups=clips.speakers)
            lines.append(row(name, system, result))
            print(lines[-1], flush=True)
            target = out / f"{name}-{split}-{system.split()[0].lower()}.jsonl"
            target.write_text("".join(
                json.dumps({"id": i, "text": text, "reference": clips.texts[i]}) + "\n"
                for i, text in texts.items()
            ))  # fmt: skip
    return [*lines, "", *noise_lines(recognizer, data)]


def noise_lines(recognizer: Recognizer, data: Path) -> list[str]:
    """Count the words that each system hears in the short noise recordings, which hold none."""
    clips = read_set(data, "noise", "noise")
    assert clips is not None
    short = {name: path for name, path in clips.audio.items() if "dish" not in name}
    kept = TestSet("noise", short, {}, {})
    ctc, cif = acoustic_texts(recognizer, kept)
    llm = llm_texts(recognizer, kept)
    counts = ", ".join(
        f"{system} {words(texts.values())}"
        for system, texts in (("CTC", ctc), ("CIF", cif), ("LLM", llm))
    )
    return [f"- words heard in the {len(short)} clips of `noise`: {counts}"]


def run_card(command: str, model: str, split: str) -> list[str]:
    """Say how the numbers were made."""
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() or "unknown"
    processor = platform.processor() or platform.machine()
    return [
        f"- command: `{command}`",
        f"- model `{model}`, split `{split}`, normaliser `{NORMALIZER}`, commit `{commit}`",
        f"- torch {torch.__version__}, transformers {transformers.__version__}, "
        f"Python {platform.python_version()}, {processor}, {torch.get_num_threads()} threads",
    ]


def main(model: str, data: Path, split: str, out: Path, report: Path | None) -> None:
    """Evaluate and, if asked, write the report."""
    out.mkdir(parents=True, exist_ok=True)
    recognizer = Recognizer.from_pretrained(model)
    lines = evaluate(recognizer, data, split, out)
    command = f"python recipes/tiny_en/evaluate.py --model {model} --split {split}"
    text = "\n".join([*lines, *run_card(command, model, split)]) + "\n"
    print(text)
    if report:
        head = report.read_text(encoding="utf-8").split(MARK)[0] if report.exists() else ""
        report.write_text(f"{head}{MARK}\n\n{text}", encoding="utf-8")


MARK = "<!-- written by evaluate.py -->"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny-en", help="a bundled name or a folder")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--split", default="test", choices=["dev", "test"])
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_en/hypotheses"))
    parser.add_argument("--report", type=Path, help="Markdown file whose table is replaced")
    arguments = parser.parse_args()
    main(arguments.model, arguments.data, arguments.split, arguments.out, arguments.report)
