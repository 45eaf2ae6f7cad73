"""The command line: exit codes, outputs, statuses, and bad files among good ones."""

import io
import json
import subprocess
import sys
from typing import get_args, get_type_hints

import numpy as np
import pytest
from stubs import StubBundle, StubRecognise, sound, wav

from llmasr import __version__, api, doctor
from llmasr.api import Recognizer
from llmasr.cli import main
from llmasr.cli import transcribe as command
from llmasr.formats import FORMATS
from llmasr.transcript import Transcript


@pytest.fixture
def stub(monkeypatch):
    recognise = StubRecognise()
    monkeypatch.setattr(api, "recognise", recognise)
    monkeypatch.setattr(command, "_load", lambda model, *how: Recognizer(StubBundle(), name=model))
    return recognise


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Make a folder with three good files and a corrupt one, and work in it."""
    for name, levels in {"a": [0.25], "b": [0.5, 0.5], "d": [0.75]}.items():
        (tmp_path / f"{name}.wav").write_bytes(wav(*sound(*levels)))
    (tmp_path / "c.wav").write_bytes(b"no sound at all")
    (tmp_path / "notes.txt").write_text("not audio")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def transcribe(*arguments: object) -> int:
    return main(["transcribe", *map(str, arguments)])


def statuses(text: str) -> list[tuple[str, str]]:
    return [(line["file"], line["status"]) for line in map(json.loads, text.splitlines())]


def test_one_file_prints_its_text_and_a_status(stub, folder, capsys):
    assert transcribe("b.wav") == 0
    printed = capsys.readouterr()
    assert printed.out == "mid mid\n"
    status = json.loads(printed.err)
    assert (status["file"], status["status"], status["error"]) == ("b.wav", "ok", None)
    assert (status["duration"], status["model"], status["flags"]) == (2.0, "tiny-en", [])
    assert status["rtf"] > 0


def test_many_files_print_a_line_each(stub, folder, capsys):
    assert transcribe("b.wav", "a.wav", "--quiet") == 0
    printed = capsys.readouterr()
    assert printed.out == "b.wav\tmid mid\na.wav\tlow\n"
    assert printed.err == ""


def test_a_bad_file_does_not_stop_the_others(stub, folder, capsys):
    assert transcribe("a.wav", "c.wav", "missing.wav", "d.wav") == 2
    printed = capsys.readouterr()
    assert printed.out == "a.wav\tlow\nd.wav\thigh\n"
    assert statuses(printed.err) == [
        ("a.wav", "ok"),
        ("c.wav", "failed"),
        ("missing.wav", "failed"),
        ("d.wav", "ok"),
    ]


def test_quiet_still_tells_problems(stub, folder, capsys):
    assert transcribe("a.wav", "c.wav", "-q") == 2
    assert statuses(capsys.readouterr().err) == [("c.wav", "failed")]


def test_a_single_bad_file_prints_nothing_but_its_status(stub, folder, capsys):
    assert transcribe("c.wav") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "cannot decode" in json.loads(printed.err)["error"]


def test_silence_is_fine_and_empty(stub, folder, capsys):
    (folder / "s.wav").write_bytes(wav(*sound(0.0)))
    assert transcribe("s.wav") == 0
    printed = capsys.readouterr()
    assert printed.out == "\n"
    assert statuses(printed.err) == [("s.wav", "empty")]


def test_an_empty_file_is_truncated(stub, folder, capsys):
    (folder / "e.wav").write_bytes(b"")
    assert transcribe("e.wav", "--quiet") == 2
    warning, status = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ")
    assert "0 bytes" in warning
    assert json.loads(status)["status"] == "truncated"


def test_text_cut_at_the_token_bound_is_truncated(stub, folder, capsys):
    stub.finish_reason = "length"
    assert transcribe("a.wav") == 2
    status = json.loads(capsys.readouterr().err)
    assert (status["status"], status["flags"]) == ("truncated", ["length"])


def test_a_silent_channel_is_a_plain_warning(stub, folder, capsys):
    left = np.tile(np.array([0.5, -0.5], np.float32), 8000)
    (folder / "s.wav").write_bytes(wav(np.stack([left, np.zeros_like(left)], axis=1), 16_000))
    assert transcribe("s.wav") == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("warning: ")
    assert transcribe("s.wav", "--channel", "right") == 0
    assert transcribe("s.wav", "--channel", "0") == 0
    assert [json.loads(line)["flags"] for line in capsys.readouterr().err.splitlines()] == [
        ["silence"],
        [],
    ]


def test_standard_input_is_a_file(stub, monkeypatch, tmp_path, capsys):
    content = io.TextIOWrapper(io.BytesIO(wav(*sound(0.5))))
    monkeypatch.setattr(sys, "stdin", content)
    assert transcribe("-", "--output-dir", tmp_path) == 0
    assert (tmp_path / "stdin.txt").read_text() == "mid\n"


def test_a_folder_is_all_audio_in_it(stub, folder, capsys):
    assert transcribe(folder) == 2
    names = [name.removeprefix(f"{folder}/") for name, _ in statuses(capsys.readouterr().err)]
    assert names == ["a.wav", "b.wav", "c.wav", "d.wav"]


def test_json_of_many_files_is_one_object_a_line(stub, folder, capsys):
    assert transcribe("a.wav", "b.wav", "--format", "json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.pop("file") for line in lines] == ["a.wav", "b.wav"]
    assert [Transcript.from_dict(line).text for line in lines] == ["low", "mid mid"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_folder_gets_one_file_each_and_the_statuses(stub, folder, capsys, format):
    files = ["a.wav", "c.wav", "d.wav"]
    assert transcribe(*files, "--format", format, "--output-dir", "x/y") == 2
    output = folder / "x" / "y"
    assert sorted(path.name for path in output.iterdir()) == [
        f"a.{format}",
        f"d.{format}",
        "status.jsonl",
    ]
    assert "low" in (output / f"a.{format}").read_text()
    expected = [("a.wav", "ok"), ("c.wav", "failed"), ("d.wav", "ok")]
    assert statuses((output / "status.jsonl").read_text()) == expected
    printed = capsys.readouterr()
    assert printed.out == ""
    assert statuses(printed.err) == [("c.wav", "failed")]


def test_output_files_are_readable_by_others(stub, folder):
    transcribe("a.wav", "--output-dir", "out")
    (folder / "plain").touch()
    assert (folder / "out" / "a.txt").stat().st_mode == (folder / "plain").stat().st_mode


def test_resuming_skips_what_is_done_and_repeats_what_failed(stub, folder, capsys):
    transcribe("a.wav", "b.wav", "c.wav", "--output-dir", "out")
    (folder / "out" / "b.txt").unlink()
    with (folder / "out" / "status.jsonl").open("a") as file:
        file.write('{"file": "d.w')  # killed while writing
    stub.batches.clear()
    assert transcribe("a.wav", "b.wav", "c.wav", "d.wav", "--output-dir", "out", "--resume") == 2
    assert sum(map(len, stub.batches)) == 2
    assert sorted(statuses((folder / "out" / "status.jsonl").read_text())) == [
        ("a.wav", "ok"),
        ("b.wav", "ok"),
        ("c.wav", "failed"),
        ("d.wav", "ok"),
    ]


def test_resuming_with_another_model_does_everything(stub, folder):
    transcribe("a.wav", "--output-dir", "out")
    stub.batches.clear()
    assert transcribe("a.wav", "--output-dir", "out", "--resume", "--model", "other") == 0
    assert len(stub.batches) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe"], "Missing argument"),
        (["transcribe", "a.wav", "--format", "doc"], "'doc'"),
        (["transcribe", "a.wav", "--channel", "middle"], "'middle'"),
        (["transcribe", "a.wav", "--batch-seconds", "0"], "batch_seconds is 0"),
        (["transcribe", "a.wav", "--language", "zh"], "'zh'"),
        (["transcribe", "a.wav", "b.wav", "--format", "srt"], "--output-dir"),
        (["transcribe", "a.wav", "--resume"], "--output-dir"),
        (["transcribe", "-", "-"], "only once"),
        (["transcribe", "a.wav", "sub/a.flac", "--output-dir", "o"], "a.wav and sub/a.flac"),
        (["transcribe", "a.wav", "a.wav", "--output-dir", "o"], "a.wav and a.wav"),
        (["transcribe", "a.wav", "--output-dir", "notes.txt"], "notes.txt"),
        (["transcribe", "empty"], "folder empty"),
        (["transscribe", "a.wav"], "transscribe"),
        (["transcribe", "a.wav", "--hotword", "x"], "--hotword"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_usage_error_is_named_and_gives_1(stub, folder, capsys, arguments, message):
    (folder / "empty").mkdir()
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert not (folder / "o").exists()


def test_an_unknown_model_is_a_usage_error_that_lists_the_known_ones(folder, capsys):
    assert transcribe("a.wav", "--model", "huge-en") == 1
    assert "tiny-test" in capsys.readouterr().err


def test_an_interruption_prints_no_traceback(stub, folder, capsys, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "recognise", interrupt)
    assert transcribe("a.wav") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_the_formats_offered_are_those_there_are():
    hint = get_type_hints(command._transcribe)["format"]
    assert set(get_args(hint)) == set(FORMATS)


def test_the_test_model_transcribes_from_end_to_end(folder, capsys):
    arguments = ["b.wav", "--model", "tiny-test", "--device", "cpu", "--format", "json"]
    assert transcribe(*arguments) in (0, 2)
    printed = capsys.readouterr()
    transcript = Transcript.from_dict(json.loads(printed.out))
    assert (transcript.model, transcript.duration) == ("tiny-test", 2.0)
    assert statuses(printed.err) == [("b.wav", transcript.status)]


def test_help_and_version_load_nothing_heavy():
    code = "import sys; from llmasr.cli import main; main(sys.argv[1:]); print(*sys.modules)"
    for option in ("--help", "--version"):
        output = subprocess.check_output([sys.executable, "-c", code, option], text=True)
        loaded = set(output.splitlines()[-1].split())
        assert not loaded & {"torch", "numpy", "transformers", "rich", "tqdm", "llmasr.api"}


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert "transcribe" in capsys.readouterr().out


def test_score_prints_the_rate(tmp_path, capsys):
    (tmp_path / "ref").write_text("1 a b\n2 c d\n")
    (tmp_path / "hyp").write_text("1 a b\n2 c x\n")
    assert main(["score", str(tmp_path / "ref"), str(tmp_path / "hyp")]) == 0
    assert capsys.readouterr().out.startswith("WER 25.00 %")


def test_score_tells_ids_without_a_partner(tmp_path, capsys):
    (tmp_path / "ref").write_text("1 a b\n2 c d\n")
    (tmp_path / "hyp").write_text("1 a b\n3 c d\n")
    assert main(["score", str(tmp_path / "ref"), str(tmp_path / "hyp")]) == 2
    assert capsys.readouterr().err == "missing: 2\nextra: 3\n"


@pytest.mark.parametrize("option", [["--norm", "magic"], ["--metric", "ter"]])
def test_score_names_an_unknown_option(tmp_path, capsys, option):
    (tmp_path / "ref").write_text("1 a b\n")
    assert main(["score", str(tmp_path / "ref"), str(tmp_path / "ref"), *option]) == 1
    assert option[1] in capsys.readouterr().err


def test_score_names_a_missing_file(tmp_path, capsys):
    assert main(["score", str(tmp_path / "ref"), str(tmp_path / "hyp")]) == 1
    assert "ref" in capsys.readouterr().err


def test_doctor_finds_this_installation_usable(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for subject in ("torch", "devices", "CIF back-end", "tiny-test"):
        assert subject in printed
    assert "BROKEN" not in printed


def test_doctor_tells_how_to_repair_a_pair_that_does_not_fit(monkeypatch, capsys):
    original = doctor.importlib.import_module

    def broken(name):
        if name == "torchaudio":
            raise OSError("undefined symbol: torch_library_impl\nmore")
        return original(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert main(["doctor"]) == 2
    lines = capsys.readouterr().out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("BROKEN"))
    assert "torchaudio" in lines[at]
    assert "undefined symbol" in lines[at]
    assert "pip install" in lines[at + 1]
    assert "torchaudio" in lines[at + 1]


def test_doctor_calls_an_extra_missing_and_not_broken(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "LIBRARIES", [("no-such-library", "no_such_library", "media")])
    assert main(["doctor"]) == 0
    assert 'pip install "llmasr[media]"' in capsys.readouterr().out


def test_doctor_calls_a_library_that_everything_needs_broken(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "LIBRARIES", [("no-such-library", "no_such_library", None)])
    assert main(["doctor"]) == 2
    assert "BROKEN" in capsys.readouterr().out
