"""`llmasr score`: what it prints, what it writes, and its exit codes."""

import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from llmasr.cli import main
from llmasr.scoring import NORMALIZERS, read_utterances, score
from llmasr.scoring.utterances import TimedWord, Utterance
from llmasr.scoring.writing import format_alignment, write_ctm, write_trn

REFERENCES = {f"u{i}": f"word{i} and a longer sentence number {i}" for i in range(10)}
ROOT = Path(__file__).resolve().parents[1]
FIXTURE = ROOT / "tests/score_fixture"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Write `ref` and `hyp`, run the command there, return code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(references, hypotheses, *options):
        write("ref", references)
        write("hyp", hypotheses)
        code = main(["score", "ref", "hyp", *options])
        return code, *capsys.readouterr()

    return run


def write(name, texts):
    """Write Kaldi text; a list may hold an id twice."""
    pairs = texts.items() if isinstance(texts, dict) else texts
    Path(name).write_text("".join(f"{i} {text}\n" for i, text in pairs), encoding="utf-8")


def test_a_perfect_system_is_fine_and_prints_one_line(run):
    code, out, err = run(REFERENCES, REFERENCES)
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert out.startswith("WER 0.00 % [95 % CI 0.00-0.00] norm=raw@")
    assert " n=10 utt / 70 ref words, S/D/I 0/0/0, " in out
    assert out.endswith("missing 0, empty 0, duplicate 0, extra 0\n")


def test_dropping_half_of_the_hypotheses_costs_half_and_exits_with_2(run):
    half = dict(list(REFERENCES.items())[::2])
    code, out, err = run(REFERENCES, half)
    assert code == 2
    assert float(out.split()[1]) >= 50
    assert err.splitlines() == [f"missing: u{i}" for i in (1, 3, 5, 7, 9)]


def test_an_emptied_hypothesis_is_named_and_counts(run):
    code, out, err = run(REFERENCES, {**REFERENCES, "u3": ""})
    assert (code, err) == (0, "empty: u3\n")
    assert "WER 10.00 %" in out
    assert "empty 1" in out


def test_a_duplicated_and_a_foreign_id_are_named_and_count(run):
    heard = [*REFERENCES.items(), ("u4", REFERENCES["u4"]), ("stranger", "hello")]
    code, out, err = run(REFERENCES, heard)
    assert (code, err) == (2, "duplicate: u4\nextra: stranger\n")
    assert "S/D/I 0/0/8" in out


def test_a_reference_that_normalises_to_nothing_is_reported_apart(run):
    code, out, err = run(
        {**REFERENCES, "x": "..."}, {**REFERENCES, "x": "boo"}, "--norm", "llmasr-en"
    )
    assert (code, err) == (0, "empty reference: x\n")
    assert "WER 0.00 %" in out
    assert out.endswith(", empty references 1 with 1 words heard there\n")


def test_partial_is_said_beside_the_rate_and_excuses_missing_ids_only(run):
    half = dict(list(REFERENCES.items())[::2])
    code, out, err = run(REFERENCES, half, "--allow-partial")
    assert code == 0
    assert out.startswith("WER 0.00 % PARTIAL 5/10 [")
    assert "missing: u1" in err
    assert run(REFERENCES, {**half, "stranger": "x"}, "--allow-partial")[0] == 2


def test_very_many_ids_are_not_all_printed(run):
    many = {f"u{i:04}": "x" for i in range(500)}
    code, _, err = run(many, {"u0000": "x"})
    assert code == 2
    assert err.splitlines()[-1] == "missing: 399 more; --json lists all"
    assert len(json.loads(run(many, {"u0000": "x"}, "--json")[1])["missing"]) == 499


def test_every_normaliser_prints_one_line(run):
    code, out, _ = run(REFERENCES, REFERENCES, "--norm", "all")
    lines = out.splitlines()
    assert code == 0
    labels = [line.split(" norm=")[1].split()[0] for line in lines]
    assert labels == [NORMALIZERS[name].label for name in NORMALIZERS]


def test_a_normaliser_that_lacks_its_library_does_not_take_the_others_along(run, monkeypatch):
    monkeypatch.setattr("llmasr.scoring.errors.find_normalizer", broken_for("whisper-en"))
    code, out, err = run(REFERENCES, REFERENCES, "--norm", "all")
    assert code == 1
    assert len(out.splitlines()) == len(NORMALIZERS) - 1
    assert "norm=whisper-en: install it" in err


def broken_for(broken):
    def find(name):
        if name == broken:
            raise ImportError("install it")
        return NORMALIZERS[name]

    return find


def test_chinese_pairs_score_differently_under_each_normaliser_and_say_so(capsys):
    sides = [str(FIXTURE / f"zh_{side}.txt") for side in ("ref", "hyp")]
    code = main(["score", *sides, "--metric", "cer", "--norm", "all"])
    lines = capsys.readouterr().out.splitlines()
    rates = {line.split("norm=")[1].split("@")[0]: float(line.split()[1]) for line in lines}
    assert code == 0
    assert min(rates.values()) < 5 < 30 < rates["raw"]


def test_a_normaliser_of_the_user_is_imported(run, monkeypatch, tmp_path):
    (tmp_path / "mine.py").write_text("def upper(text):\n    return text.upper()\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, out, _ = run({"a": "Yes Sir"}, {"a": "yes sir"}, "--norm", "mine:upper")
    assert code == 0
    assert out.startswith("WER 0.00 %")
    assert " norm=mine:upper@" in out


def test_a_baseline_puts_its_p_value_beside_the_interval(run):
    write("base", {i: text.replace("longer", "shorter") for i, text in REFERENCES.items()})
    code, out, _ = run(REFERENCES, REFERENCES, "--baseline", "base")
    first, second = out.splitlines()
    assert code == 0
    assert first.startswith("WER 0.00 % [95 % CI 0.00-0.00, paired p=0.0002 vs base] norm=")
    assert second.startswith("-14.29 points against base [95 % CI -14.29 to -14.29]")


def test_what_is_odd_about_the_baseline_is_named_too(run):
    write("base", {**dict(list(REFERENCES.items())[1:]), "z": "x"})
    code, _, err = run(REFERENCES, REFERENCES, "--baseline", "base")
    assert (code, err) == (2, "baseline missing: u0\nbaseline extra: z\n")


def test_json_is_one_object_with_the_comparison(run):
    write("base", REFERENCES)
    _, out, _ = run(REFERENCES, {**REFERENCES, "u1": "a"}, "--baseline", "base", "--json")
    found = json.loads(out)
    assert found["rate"] == pytest.approx(6 / 70)
    assert found["comparison"]["difference"] == pytest.approx(6 / 70)
    assert found["baseline"]["rate"] == 0


def test_alignments_are_printed_of_wrong_utterances_without_colour_in_a_pipe(run):
    _, out, _ = run(
        {"a": "the cat sat", "b": "yes"}, {"a": "the hat sat down", "b": "yes"}, "--align"
    )
    assert out.splitlines()[2:] == [
        "a: scored, 3 units, S/D/I 1/0/1",
        "REF:  the cat sat ****",
        "HYP:  the hat sat down",
        "Eval:     S       I",
    ]


def test_tables_and_hotwords_are_printed(run):
    Path("hot").write_text("word3\nlonger sentence\n\n")
    heard = {**REFERENCES, "u3": REFERENCES["u3"].replace("word3", "ward")}
    code, out, _ = run(REFERENCES, heard, "--breakdown", "--hotwords", "hot")
    assert code == 0
    assert "most substituted" in out
    assert "word3 -> ward" in out
    assert "longer sentence    10  100.00 %" in out
    totals = [line.split()[1:6] for line in out.splitlines() if line.startswith("total")]
    assert totals
    assert {tuple(total) for total in totals} == {("70", "1", "0", "0", "1.43")}


def test_a_report_is_written(run, tmp_path):
    code, _, _ = run(REFERENCES, {**REFERENCES, "u1": "<script>"}, "--report", "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert code == 0
    assert "&lt;script&gt;" in page


def test_files_for_sclite_are_written_and_read_back_with_the_same_score(run, tmp_path):
    heard = {**REFERENCES, "u1": "WORD1; and {a} sentence"}
    code, out, _ = run(REFERENCES, heard, "--sclite", "folder/sub", "--norm", "llmasr-en")
    assert code == 0
    folder = tmp_path / "folder/sub"
    assert not (folder / "hyp.ctm").exists()
    assert (folder / "hyp.trn").read_text().splitlines()[1] == "word1 and a sentence (speaker-u1)"
    again = score(
        *(
            {u.id: u.text for u in read_utterances(folder / f"{side}.trn")}
            for side in ("ref", "hyp")
        )
    )
    assert f"S/D/I {again.substitutions}/{again.deletions}/{again.insertions}," in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--norm", "magic"], "magic"),
        (["--metric", "ter"], "ter"),
        (["--ref-format", "docx"], "docx"),
        (["--norm", "all", "--align"], "need one --norm"),
        (["--json", "--align"], "--align and --breakdown print text"),
        (["--hotwords", "ref"], "--hotwords needs --breakdown or --report"),
        (["--baseline", "nowhere"], "nowhere"),
    ],
    ids=["norm", "metric", "format", "all", "json", "hotwords", "baseline"],
)
def test_a_wrong_option_is_named_with_exit_code_1(run, options, message):
    code, out, err = run(REFERENCES, REFERENCES, *options)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


def test_the_format_of_either_file_can_be_given(run):
    Path("x.txt").write_text("yes sir (a-1)\nno sir (a-2)\n")
    Path("y.txt").write_text("a-1\tyes sir\na-2\tno\n")
    assert main(["score", "x.txt", "y.txt", "--ref-format", "trn", "--hyp-format", "tsv"]) == 0


def test_words_of_a_ctm_are_scored_in_the_segments_of_an_stm(run, capsys):
    Path("r.stm").write_text("call A s1 0 2 one two\ncall A s2 2 4 three\ncall B s3 0 4 four\n")
    Path("h.ctm").write_text(
        "call A 0.1 0.5 one\ncall A 1 0.5 two\ncall A 2.5 0.5 tree\ncall B 1 1 four\n"
    )
    assert main(["score", "r.stm", "h.ctm"]) == 0
    assert " n=3 utt / 4 ref words, S/D/I 1/0/0," in capsys.readouterr().out


def test_everything_printed_is_the_same_for_every_hash_seed(run, tmp_path):
    write("base", {**REFERENCES, "u5": "wrong", "u6": ""})
    run(
        REFERENCES,
        [*list(REFERENCES.items())[2:], ("u3", "x"), ("s", "y"), ("u0", "word0 and longer")],
    )
    command = ["score", "ref", "hyp", "--baseline", "base", "--breakdown", "--align"]
    command += ["--report", "page.html"]
    printed = set()
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", "from llmasr.cli import main; exit(main())", *command],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
        )
        assert found.returncode == 2, found.stderr
        printed.add((found.stdout, found.stderr, (tmp_path / "page.html").read_bytes()))
    assert len(printed) == 1


def aligned(reference, hypothesis, metric="wer", **options):
    (detail,) = score({"u": reference}, {"u": hypothesis}, metric=metric).details
    return format_alignment(detail, **options).splitlines()


def test_long_alignments_are_wrapped_to_the_width():
    lines = aligned("one two three four five six", "one too three for five six", width=23)
    assert lines[1:4] == ["REF:  one two three", "HYP:  one too three", "Eval:     S"]
    assert max(map(len, lines[1:])) <= 23
    assert sum(line.startswith("REF:") for line in lines) == 2


def test_wide_characters_take_two_columns():
    lines = aligned("你好", "你a好", metric="cer")
    assert lines[1:] == ["REF:  你 * 好", "HYP:  你 a 好", "Eval:    I"]


def test_colour_is_only_added_where_asked():
    assert "\x1b[31mcat\x1b[0m" in "\n".join(aligned("the cat", "the", colour=True))
    assert "\x1b" not in "\n".join(aligned("the cat", "the"))


def test_a_transcript_cannot_steer_the_terminal():
    assert not any(
        unicodedata.category(c) == "Cc" for c in "".join(aligned("a\x1b[2J b", "x\x07 b"))
    )


def test_ids_and_words_are_written_as_sclite_needs_them(tmp_path):
    details = score({"my id": "a {b} @ 5%", "s-1": ""}, {"my id": "c;d %7B", "s-1": ""}).details
    write_trn(tmp_path / "r", details, "reference")
    write_trn(tmp_path / "h", details, "hypothesis")
    assert (tmp_path / "r").read_text() == "a %7Bb%7D %40 5% (speaker-my%20id)\n(s-1)\n"
    assert (tmp_path / "h").read_text() == "c%3Bd %257B (speaker-my%20id)\n(s-1)\n"


def test_trn_has_no_place_for_a_foreign_hypothesis(tmp_path):
    details = score({"a": "x"}, {"a": "x", "b": "y"}).details
    with pytest.raises(ValueError, match="utterance 'b' is extra"):
        write_trn(tmp_path / "h", details, "hypothesis")


def test_ctm_is_sorted_by_recording_channel_and_time(tmp_path):
    late = Utterance("b", "late", recording="r", words=(TimedWord("late", 10.0, 10.5),))
    early = Utterance("a", "early", recording="r", words=(TimedWord("early", 2.0, 2.25, 0.5),))
    write_ctm(tmp_path / "x.ctm", [late, early])
    assert (
        tmp_path / "x.ctm"
    ).read_text() == "r 1 2.000 0.250 early 0.5000\nr 1 10.000 0.500 late\n"


def test_ctm_needs_word_times(tmp_path):
    with pytest.raises(ValueError, match="utterance 'a' has no word times"):
        write_ctm(tmp_path / "x.ctm", [Utterance("a", "hello")])
