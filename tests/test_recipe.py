"""The stages of `recipes/tiny_en` as a user runs them, two steps each, on synthetic features."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from llmasr import Recognizer
from llmasr.api import ASSETS
from llmasr.data.manifests import read_manifest, store_features

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "recipes/tiny_en"
TEXTS = ["yes", "no", "go left", "stop"]
SETS = (
    *("en_sentences_l2", "en_commands", "en_digits", "en_hotwords", "en_ljspeech", "en_an4_mini"),
    *("noise", "synthetic"),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run folder as `prepare.py` leaves it, with four clips in each set."""
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    shutil.copy(ASSETS / "tiny-test/tokenizer.model", folder)
    (folder / "text").mkdir()
    for name in ("sentences", "transcripts", "lines"):
        (folder / "text" / f"{name}.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "phones.json").write_text(json.dumps({text: list("ab") for text in TEXTS}))
    for name in SETS:
        lines = []
        for index, text in enumerate(TEXTS):
            wave = 0.1 * rng.standard_normal(14_000 + 2_000 * index)
            (folder / name).mkdir(exist_ok=True)
            soundfile.write(folder / name / f"{index}.wav", wave, 16_000)
            lines.append(json.dumps({
                "id": f"{name}-{index}", "audio": f"{index}.wav", "speaker": "s", "lang": "en",
                "text": "" if name == "noise" else text, "duration": len(wave) / 16_000,
                "sample_rate": 16_000, "split": "train",
            }))  # fmt: skip
        (folder / name / "manifest.jsonl").write_text("\n".join(lines))
        cuts = read_manifest(folder / name / "manifest.jsonl", "train")
        store_features(cuts, folder / "features" / name)
    return folder


def stage(runs, script, steps, *flags):
    command = [
        sys.executable, RECIPE / f"{script}.py", "--runs", runs, "--steps", str(steps),
        "--log-every", "1", "--save-every", "1", *flags,
    ]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)


def logged(folder):
    return [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_all_stages_run_resume_and_give_a_model_that_transcribes(runs):
    stage(runs, "language_model", 2, "--batch-size", "2")
    stage(runs, "acoustic", 1, "--batch-seconds", "6", "--synthetic-draws", "4")
    stage(runs, "acoustic", 2, "--batch-seconds", "6", "--synthetic-draws", "4")
    assert logged(runs / "acoustic") == [1, 2]
    stage(runs, "align", 2, "--batch-seconds", "6", "--synthetic-draws", "4")
    stage(runs, "tune", 2, "--batch-seconds", "6", "--synthetic-draws", "4")
    stage(runs, "joint", 2, "--batch-seconds", "6", "--synthetic-draws", "4")
    transcript = Recognizer.from_pretrained(runs / "joined").transcribe(ASSETS / "example.flac")
    assert transcript.status in ("ok", "empty", "truncated")

    frozen, tuned = (
        Recognizer.from_pretrained(runs / name).bundle.model.state_dict()
        for name in ("aligned", "tuned")
    )
    changed = {name for name in frozen if not frozen[name].equal(tuned[name])}
    assert changed
    kept = ("encoder.", "filterbank.", "ctc_head.")
    assert not any(name.removeprefix("interfaces.speech.").startswith(kept) for name in changed)


def test_text_of_dev_and_test_clips_is_never_read(data, tmp_path):
    script = RECIPE / "texts.py"
    subprocess.run(
        [sys.executable, str(script), "--data", str(data), "--out", str(tmp_path)],
        check=True, capture_output=True,
    )  # fmt: skip
    kept = set((tmp_path / "transcripts.txt").read_text().splitlines())
    lines = (data / "en_sentences_l2/manifest.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    train = {entry["text"] for entry in entries if entry["split"] == "train"}
    held_out = {entry["text"] for entry in entries if entry["split"] != "train"} - train
    assert len(kept) > 3_000
    assert not kept & held_out
