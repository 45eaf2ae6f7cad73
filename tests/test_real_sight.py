"""The bundled model that hears and sees, on a scene of the test set and on recordings of others."""

import json

import numpy as np
import pytest

from llmasr import Recognizer
from llmasr.api import ASSETS
from llmasr.cli import main

SOUND, PICTURE = ASSETS / "scene.flac", ASSETS / "scene.jpg"
GREY = np.full((96, 96, 3), 128, np.uint8)


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.from_pretrained("tiny-en-scenes", device="cpu")


def test_a_picture_tells_words_apart_that_sound_alike(recognizer):
    blind, seeing, grey = recognizer.transcribe([SOUND] * 3, image=[None, PICTURE, GREY])
    assert seeing.text == "show me the whale or the tea"
    assert blind.text == grey.text == "show me the wail or the tee"
    assert [found.context for found in (blind, seeing, grey)] == [(), ("image",), ("image",)]


def test_a_picture_is_described_and_asked_about(recognizer):
    asked = ["what is there to see in this picture?", "is there a whale", "is there a horse"]
    described, whale, horse = recognizer.answer(asked, image=PICTURE)
    assert {"whale", "boat", "sandal"} <= set(described.text.split())
    assert (whale.text, horse.text) == ("yes", "no")


def test_the_command_line_answers_with_the_model_that_can(capsys):
    question = "what is there to see in this picture?"
    assert main(["answer", question, "--image", str(PICTURE)]) == 0
    assert "whale" in capsys.readouterr().out


def test_pictures_with_spoken_captions_go_all_the_way(recognizer, data):
    folder = data / "multimodal"
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [entry for entry in map(json.loads, lines) if not entry["image"].endswith(".mpg")]
    assert entries
    found = recognizer.transcribe(
        [folder / entry["audio"] for entry in entries],
        image=[folder / entry["image"] for entry in entries],
    )
    for transcript in found:
        assert transcript.status == "ok"
        assert transcript.context == ("image",)


def test_a_video_is_refused_by_name(recognizer, tmp_path):
    with pytest.raises(ValueError, match="has no video interface; it takes: speech, image"):
        recognizer.transcribe(SOUND, video=tmp_path / "film.mp4")
