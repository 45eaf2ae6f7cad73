"""Tokenizer, phone spellings and features of the tiny English recipe.

    python recipes/tiny_en/prepare.py --data ../shared/data --runs runs/tiny_en

Needs what `texts.py`, `synthesise.py` and `noises.py` wrote, and the Debian package espeak-ng for
the phones. Everything that is already there is kept, so a killed run goes on where it stopped.
"""

import argparse
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sentencepiece
import torch
from texts import REAL_SETS
from tqdm import tqdm

from llmasr.data.manifests import read_manifest, store_features

VOCAB_SIZE = 512
SPEEDS = (0.9, 1.0, 1.1)


def train_tokenizer(text: Path, out: Path) -> None:
    """Train the SentencePiece vocabulary that the acoustic model and the LLM share."""
    if out.exists():
        return
    lines = []
    for name in ("sentences.txt", "transcripts.txt", "transcripts.txt"):
        lines += (text / name).read_text(encoding="utf-8").splitlines()
    out.parent.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(out.with_suffix("")),
        vocab_size=VOCAB_SIZE, model_type="bpe", character_coverage=1.0,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, control_symbols=["<speech>", "</speech>"],
        normalization_rule_name="nmt_nfkc_cf",
    )  # fmt: skip


def spell_phones(texts: list[str], out: Path) -> None:
    """Write a JSON mapping from text to phones, spoken by espeak-ng."""
    known = json.loads(out.read_text()) if out.exists() else {}
    wanted = [text for text in dict.fromkeys(texts) if text and text not in known]
    with ThreadPoolExecutor(2) as pool:
        work = pool.map(phones, wanted)
        for text, spelling in zip(
            wanted, tqdm(work, total=len(wanted), desc="phones", mininterval=10), strict=True
        ):
            known[text] = spelling
    out.write_text(json.dumps(known, indent=0))


def phones(text: str) -> list[str]:
    """Return espeak-ng's phones of ``text`` without stress marks and variants."""
    command = ["espeak-ng", "-q", "-x", "--sep=_", "-v", "en-us", text]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = []
    for phone in line.replace("\n", " ").replace(" ", "_").split("_"):
        phone = phone.strip("',%=|;!*-").rstrip("0123456789#")
        if phone:
            found.append(phone)
    return found


def main(data: Path, runs: Path) -> None:
    """Make everything that the training stages read."""
    torch.set_num_threads(1)
    train_tokenizer(runs / "text", runs / "tokenizer.model")
    for name in REAL_SETS:
        cuts = read_manifest(data / name / "manifest.jsonl", "train")
        store_features(cuts, runs / "features" / name, SPEEDS)
        if name in ("en_sentences_l2", "en_commands", "en_digits"):
            cuts = read_manifest(data / name / "manifest.jsonl", "dev")
            store_features(cuts, runs / "features" / f"{name}-dev")
    noise = read_manifest(runs / "noise/manifest.jsonl", "train")
    store_features(noise, runs / "features/noise")
    cuts = read_manifest(runs / "synthetic/manifest.jsonl", "train")
    store_features(cuts, runs / "features/synthetic")
    spoken = [cut.supervisions[0].text for cut in cuts]
    transcripts = (runs / "text/transcripts.txt").read_text(encoding="utf-8").splitlines()
    spell_phones(spoken + transcripts, runs / "phones.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny_en"))
    arguments = parser.parse_args()
    main(arguments.data, arguments.runs)
