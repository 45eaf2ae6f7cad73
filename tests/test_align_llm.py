"""The recipe that teaches somebody's language model to read speech, as a user runs it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmasr import Recognizer
from llmasr.api import ASSETS
from llmasr.models.checkpoint import load_pretrained

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests/golden"


@pytest.fixture
def data(tmp_path):
    """Two clips in a manifest."""
    lines = []
    for name, text in (("a", "the words of the clip"), ("b", "a clip")):
        shutil.copy(ASSETS / "example.flac", tmp_path / f"{name}.flac")
        entry = {"id": name, "audio": f"{name}.flac", "text": text, "lang": "en", "speaker": "s"}
        entry |= {"duration": 2.0, "sample_rate": 16_000, "split": "train"}
        lines.append(json.dumps(entry) + "\n")
    (tmp_path / "manifest.jsonl").write_text("".join(lines))
    return tmp_path


def align(data: Path, language_model: Path, *more: str) -> None:
    command = [
        sys.executable, str(ROOT / "recipes/align_llm/align.py"),
        "--language-model", str(language_model), "--speech", "tiny-test", "--data", str(data),
        "--out", str(data / "out"), "--log-every", "1", "--save-every", "1", *more,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("kind", ["chatglm1", "chatglm3"])
def test_the_recipe_runs_resumes_and_gives_a_model_that_transcribes(data, tmp_path, kind):
    language_model = tmp_path / kind
    shutil.copytree(GOLDEN / kind, language_model)
    for file in (GOLDEN / "tokenizers" / kind).glob("*.model"):
        shutil.copy(file, language_model)
    align(data, language_model, "--steps", "1")
    align(data, language_model, "--steps", "2", "--lora-rank", "0")
    log = (data / "out/run/log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [1, 2]
    transcript = Recognizer.from_pretrained(data / "out/model").transcribe(data / "a.flac")
    assert transcript.status in ("ok", "empty", "truncated")

    heard = load_pretrained(ASSETS / "tiny-test").model.state_dict()
    aligned = load_pretrained(data / "out/model").model.state_dict()
    encoder = [name for name in heard if ".encoder." in name]
    assert encoder
    assert all(aligned[name].equal(heard[name]) for name in encoder)
