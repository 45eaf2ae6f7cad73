"""Collect the text that the tiny English recipe learns from and speaks.

    python recipes/tiny_en/texts.py --data ../shared/data --out runs/tiny_en/text

Writes three files, one sentence a line, lower case, letters and apostrophes only:

    transcripts.txt   transcripts of the real training clips, with repetitions
    sentences.txt     distinct sentences of Tatoeba (CC BY 2.0 FR) and of the transcripts
    lines.txt         distinct lines of tinyshakespeare (public domain)

No dev or test transcript is read.
"""

import argparse
import json
import re
from pathlib import Path

REAL_SETS = (
    "en_sentences_l2",
    "en_commands",
    "en_digits",
    "en_hotwords",
    "en_ljspeech",
    "en_an4_mini",
)


def normalise(text: str) -> str:
    """Lower-case ``text`` and keep letters, apostrophes and single spaces; '' if it has digits."""
    text = text.lower().replace("\u2019", "'")
    if re.search(r"[0-9]", text):
        return ""
    text = re.sub(r"[^a-z' ]", " ", text)
    text = re.sub(r"(?<![a-z])'|'(?![a-z])", " ", text)
    return " ".join(text.split())


def transcripts(data: Path) -> list[str]:
    """Return the text of every training clip under ``data``, in manifest order."""
    found = []
    for name in REAL_SETS:
        for line in (data / name / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["split"] == "train":
                found.append(normalise(entry["text"]))
    return [text for text in found if text]


def tatoeba(data: Path) -> list[str]:
    """Return the English side of the Tatoeba pairs."""
    lines = (data / "text/tatoeba_en_zh.tsv").read_text(encoding="utf-8").splitlines()
    return [normalise(line.split("\t")[0]) for line in lines]


def shakespeare(data: Path) -> list[str]:
    """Return the lines of tinyshakespeare that are not the name of a speaker."""
    lines = (data / "text/tinyshakespeare.txt").read_text(encoding="utf-8").splitlines()
    return [normalise(line) for line in lines if not line.endswith(":")]


def main(data: Path, out: Path) -> None:
    """Write the three text files to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    real = transcripts(data)
    files = {
        "transcripts.txt": real,
        "sentences.txt": [text for text in dict.fromkeys(tatoeba(data) + real) if text],
        "lines.txt": [text for text in dict.fromkeys(shakespeare(data)) if text],
    }
    for name, lines in files.items():
        (out / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{out / name}: {len(lines)} lines, {sum(map(len, map(str.split, lines)))} words")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/tiny_en/text"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.out)
