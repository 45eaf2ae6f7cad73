"""The command line with pictures and videos: `llmasr answer`, and `llmasr transcribe --image`."""

import io
import json
import sys

import numpy as np
import pytest
from stubs import wav
from tiny_sight import build, noise, picture, video

from llmasr import api
from llmasr.cli import main
from llmasr.models.checkpoint import save_pretrained
from llmasr.transcript import Transcript

Image = pytest.importorskip("PIL.Image", reason="the media extra is not installed")
pytest.importorskip("av", reason="the media extra is not installed")


BOUND = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a random model that hears and sees."""
    folder = tmp_path_factory.mktemp("models") / "sight"
    save_pretrained(build(), folder)
    return str(folder)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a folder with clips, pictures and videos, and work in it."""
    for seed, name in enumerate("abc"):
        (tmp_path / f"{name}.wav").write_bytes(wav(*noise(0.6 + 0.3 * seed, seed)))
    (tmp_path / "silence.wav").write_bytes(wav(np.zeros(16_000, np.float32)))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(picture(0)).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "b.JPG").write_bytes(b"no picture at all")
    (tmp_path / "pictures" / "c.txt").write_text("not a picture")
    (tmp_path / "film.mkv").write_bytes(video(has_sound=True))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def typed(monkeypatch):
    """Let a test type lines, or send them through a pipe."""

    def type_in(text: str, *, is_terminal: bool = False) -> None:
        stream = io.StringIO(text)
        monkeypatch.setattr(stream, "isatty", lambda: is_terminal)
        monkeypatch.setattr(sys, "stdin", stream)

    return type_in


def run(model: str, command: str, *arguments: object) -> int:
    return main([command, *map(str, arguments), "--model", model, "--device", "cpu"])


def ask(model: str, *arguments: object) -> int:
    return run(model, "answer", *arguments, "--max-new-tokens", BOUND)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# Transcripts


def test_a_picture_for_all_files_is_in_each_status(model, folder, capsys):
    run(model, "transcribe", "a.wav", "b.wav", "--image", "pictures/a.png")
    statuses = lines(capsys.readouterr().err)
    assert [status["context"] for status in statuses] == [["image"], ["image"]]


def test_the_transcript_as_json_names_the_context(model, folder, capsys):
    arguments = ["a.wav", "--image", "pictures/a.png", "--video", "film.mkv", "--format", "json"]
    run(model, "transcribe", *arguments)
    printed = capsys.readouterr()
    transcript = Transcript.from_dict(json.loads(printed.out))
    assert transcript.context == ("image", "video")
    assert lines(printed.err)[0]["context"] == ["image", "video"]


def test_pictures_of_a_folder_go_with_their_stems(model, folder, capsys):
    assert run(model, "transcribe", "a.wav", "b.wav", "c.wav", "--image-dir", "pictures") == 2
    found = {status["file"]: status for status in lines(capsys.readouterr().err)}
    assert found["a.wav"]["context"] == ["image"]
    assert found["b.wav"]["status"] == "failed"
    assert "b.JPG' is no picture" in found["b.wav"]["error"]
    assert found["c.wav"]["status"] != "failed"
    assert found["c.wav"]["context"] == []


def test_a_film_is_its_own_video(model, folder, capsys):
    run(model, "transcribe", "film.mkv", "a.wav", "--video-dir", ".")
    assert [status["context"] for status in lines(capsys.readouterr().err)] == [["video"], []]
    run(model, "transcribe", "film.mkv", "--video", "film.mkv")
    assert lines(capsys.readouterr().err)[0]["context"] == ["video"]


def test_resuming_repeats_only_what_was_looked_at_otherwise(model, folder):
    arguments = ["silence.wav", "--output-dir", "out"]
    assert run(model, "transcribe", *arguments) == 0
    status = folder / "out" / "status.jsonl"
    (line,) = lines(status.read_text())
    assert line["context"] == []
    arguments += ["--resume", "--image", "pictures/a.png"]
    assert run(model, "transcribe", *arguments) == 0
    (line,) = lines(status.read_text())
    assert line["context"] == ["image"]
    status.write_text(json.dumps(line | {"rtf": 99.0}) + "\n")
    assert run(model, "transcribe", *arguments) == 0
    assert lines(status.read_text())[0]["rtf"] == 99.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nowhere.png"], "cannot open 'nowhere.png'"),
        (["--image", "a.wav"], "'a.wav' is no picture that can be read"),
        (["--video", "pictures/a.png", "--video-dir", "."], "--video and --video-dir are both"),
        (["--image-dir", "nowhere"], "--image-dir is nowhere; allowed: a folder"),
        (["--image-dir", "twins"], "would both go with a"),
    ],
)
def test_a_wrong_picture_is_a_usage_error(model, folder, capsys, arguments, message):
    (folder / "twins").mkdir()
    for name in ("a.png", "a.webp", "other.png", "other.jpg"):
        (folder / "twins" / name).touch()
    assert run(model, "transcribe", "a.wav", *arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_a_picture_for_a_model_that_cannot_look_is_a_usage_error(folder, capsys):
    assert run("tiny-test", "transcribe", "a.wav", "--image", "pictures/a.png") == 1
    assert "this model has no image interface; it takes: speech" in capsys.readouterr().err


# Answers


def test_an_answer_is_a_line_and_one_cut_short_has_a_status(model, folder, capsys):
    assert ask(model, "what is it", "--image", "pictures/a.png") == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1
    status = json.loads(printed.err)
    assert (status["question"], status["status"]) == ("what is it", "truncated")
    assert status["context"] == ["image"]


def test_an_answer_as_json_says_all(model, folder, capsys):
    given = ["--image", "pictures/a.png", "--video", "film.mkv", "--audio", "a.wav"]
    ask(model, "what is it", *given, "--json")
    (reply,) = lines(capsys.readouterr().out)
    assert reply["question"] == "what is it"
    assert reply["context"] == ["image", "video", "speech"]
    assert reply["model"] == model


def test_questions_of_standard_input_have_a_line_each(model, folder, typed, capsys):
    typed("what is it\n\nwho was there\n")
    ask(model, "-", "--image", "pictures/a.png", "--json")
    replies = lines(capsys.readouterr().out)
    assert [reply["question"] for reply in replies] == ["what is it", "who was there"]
    for reply in replies:
        ask(model, reply["question"], "--image", "pictures/a.png")
        assert capsys.readouterr().out.strip() == " ".join(reply["text"].split())


def test_a_question_that_does_not_fit_fails_alone(model, folder, typed, capsys):
    typed("what is it\n" + "and " * 3000)
    assert ask(model, "-", "--json") == 2
    fine, failed = lines(capsys.readouterr().out)
    assert fine["status"] != "failed"
    assert failed["status"] == "failed"
    assert "reads at most 2048" in failed["error"]


def test_history_is_part_of_a_question(model, folder, capsys):
    (folder / "said.json").write_text(json.dumps([["who is it", "a bear"]]))
    answers = []
    for more in ([], ["--history", "said.json"]):
        ask(model, "what is it", *more)
        answers.append(capsys.readouterr().out)
    recognizer = api.Recognizer.from_pretrained(model, device="cpu")
    told = recognizer.answer("what is it", history=[("who is it", "a bear")], max_new_tokens=BOUND)
    assert answers[1].strip() == " ".join(told.text.split())
    assert answers[0] != answers[1]


def test_a_conversation_remembers_what_was_said(model, folder, typed, capsys):
    typed("what is it\n\nwho was there\n", is_terminal=True)
    ask(model, "--image", "pictures/a.png", "--json")
    first, second = (
        json.loads(line.replace("> ", "")) for line in capsys.readouterr().out.splitlines()[:2]
    )
    recognizer = api.Recognizer.from_pretrained(model, device="cpu")
    told = recognizer.answer(
        "who was there",
        image="pictures/a.png",
        history=[(first["question"], first["text"])],
        max_new_tokens=BOUND,
    )
    assert second["text"] == told.text
    assert (
        second["text"]
        != recognizer.answer("who was there", image="pictures/a.png", max_new_tokens=BOUND).text
    )


def test_a_question_that_fails_leaves_the_conversation_as_it_was(model, folder, typed, capsys):
    typed("and " * 3000 + "\nwhat is it\n", is_terminal=True)
    assert ask(model) == 2
    printed = capsys.readouterr()
    assert "reads at most 2048" in printed.err
    recognizer = api.Recognizer.from_pretrained(model, device="cpu")
    text = recognizer.answer("what is it", max_new_tokens=BOUND).text
    assert printed.out.splitlines()[1] == "> " + " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "question is missing; allowed: words, or - for standard input"),
        (["what", "--image", "nowhere.png"], "cannot open 'nowhere.png'"),
        (["what", "--image", "pictures/b.JPG"], "b.JPG' is no picture"),
        (["what", "--video", "a.wav"], "has no video track"),
        (["what", "--audio", "pictures/c.txt"], "c.txt"),
        (["what", "--history", "nowhere.json"], "nowhere.json"),
        (["what", "--history", "pictures/c.txt"], "c.txt is no JSON"),
        (["what", "--history", "text.json"], "text.json is no list"),
        (["what", "--history", "turn.json"], "history has 'who'; allowed: (question, answer)"),
        (["what", "--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["what", "--pictures", "a.png"], "--pictures"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_usage_error_is_named_and_gives_1(model, folder, typed, capsys, arguments, message):
    (folder / "text.json").write_text('"who"')
    (folder / "turn.json").write_text('["who"]')
    typed("")
    assert run(model, "answer", *arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err


def test_without_a_bundled_model_that_sees_one_must_be_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(api, "bundled_models", lambda: ("tiny-en", "tiny-test"))
    assert main(["answer", "what is it", "--image", "pictures/a.png"]) == 1
    printed = capsys.readouterr()
    assert "--model is missing; needed: the folder of a model with an image" in printed.err
    assert "tiny-en, tiny-test" in printed.err


def test_a_damaged_video_is_a_plain_warning(model, folder, capsys):
    content = (folder / "film.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(content[: len(content) * 2 // 3])
    ask(model, "what is it", "--video", "cut.mkv", "--json")
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: ")
    assert json.loads(printed.out)["flags"] == ["video_damaged"]
