import base64
import hashlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from llmasr.scoring import report_alignments
from llmasr.scoring.breakdown import breakdown
from llmasr.scoring.confidence import calibration
from llmasr.scoring.errors import score
from llmasr.scoring.report import write_report
from llmasr.scoring.report_page import element, sortable
from llmasr.scoring.utterances import TimedWord, Utterance

ATTACK = "<script>alert(1)</script>"
VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page: every element closes, and what stands where."""

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.tags, self.texts = source, [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(self.texts)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(tmp_path, result, **options):
    path = tmp_path / "report.html"
    write_report(result, path, **options)
    return Page(path.read_text(encoding="utf-8"))


def scored(pairs, **options):
    """A score of (reference, hypothesis) pairs under ids u0, u1 ...; None for no hypothesis."""
    references = [Utterance(f"u{i}", said) for i, (said, _) in enumerate(pairs)]
    hypotheses = [
        Utterance(f"u{i}", heard) for i, (_, heard) in enumerate(pairs) if heard is not None
    ]
    return score(references, hypotheses, **options)


def test_a_page_holds_the_line_of_the_score_and_its_parts(tmp_path):
    result = scored([("the cat sat", "the hat sat"), ("one", "one two"), ("on the mat", "on mat")])
    page = written(tmp_path, result, title="Test & dev")
    assert str(result) in page.text
    assert "Test & dev" in page.text
    headings = ["score", "plots", "tables", "confusions", "alignments"]
    assert [a["id"] for a in page.all("section")] == ["warnings", *headings]


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    known = {"u0": Utterance("u0", "a", audio="https://example.org/a.wav")}
    page = written(tmp_path, scored([("a", "b")]), metadata=known)
    assert not {"link", "img", "iframe", "object", "audio"} & {tag for tag, _ in page.tags}
    assert not any("src" in attributes for _, attributes in page.tags)
    assert all(a["href"].startswith("#") for a in page.all("a"))
    assert "url(" not in page.source
    assert "@import" not in page.source


def test_only_the_script_of_the_page_may_run(tmp_path):
    page = written(tmp_path, scored([("a", "b")]))
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = page.all("meta")[1]["content"]
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'")


def test_markup_in_texts_ids_paths_groups_and_titles_is_shown_and_not_run(tmp_path):
    hypotheses = [Utterance(ATTACK, f"{ATTACK} \"'>&amp; " + f"{ATTACK} " * 6, words=())]
    references = [
        Utterance(ATTACK, f"a {ATTACK}", group=ATTACK, audio=f'{ATTACK}/" onerror="x.wav'),
        Utterance(f"missing {ATTACK}", "a", group="other"),
    ]
    result = score(references, hypotheses)
    metadata = {each.id: each for each in references}
    tables = breakdown(result, metadata=metadata, hotwords=[ATTACK], names=[ATTACK])
    page = written(tmp_path, result, metadata=metadata, tables=tables, title=ATTACK)
    assert page.source.count("<script") == 1
    assert page.texts.count(ATTACK) > 5
    assert not any(name.startswith("on") for _, found in page.tags for name in found)
    (player,) = page.all("audio")
    assert player["src"].endswith("/%22%20onerror%3D%22x.wav")


def test_wrong_ids_are_named_in_red_before_everything(tmp_path):
    references = [Utterance(i, "yes") for i in ("fine", "gone", "hollow")] + [
        Utterance("noise", "")
    ]
    hypotheses = [Utterance(i, "yes") for i in ("fine", "fine", "foreign", "noise")]
    page = written(tmp_path, score(references, [*hypotheses, Utterance("hollow", "")]))
    main = page.source[page.source.index("<main>") :]
    warnings = main[: main.index('id="score"')]
    alarms = re.findall(
        r'class="(warning[^"]*)".*?<strong>(.*?)</strong>.*?<code>(.*?)</code>', warnings
    )
    assert alarms == [
        ("warning red", "References without hypothesis: 1", "gone"),
        ("warning red", "Hypotheses of unknown id: 1", "foreign"),
        ("warning red", "Repeated hypotheses: 1", "fine"),
        ("warning", "Empty hypotheses: 1", "hollow"),
        ("warning", "References that normalise to nothing: 1", "noise"),
    ]


def test_a_partial_score_says_so(tmp_path):
    page = written(tmp_path, scored([("a", "a"), ("b", None)], allow_partial=True))
    assert "PARTIAL 1/2" in page.text
    assert "left out of the rate" in page.text


def test_a_flawless_score_has_no_warning(tmp_path):
    assert "alert" not in {a.get("role") for _, a in written(tmp_path, scored([("a", "a")])).tags}


def test_the_worst_utterances_come_first_and_the_page_says_how_many_are_shown(tmp_path):
    pairs = [("a b c", "a b c"), ("a b c", "x y c"), ("a b c", "x y z"), ("a b", "x y")]
    page = written(tmp_path, scored(pairs), shown=3)
    ids = re.findall(r"<article><h3><code>(.*?)</code>", page.source)
    assert ids == ["u2", "u3", "u1"]
    assert "3 of 4 utterances shown" in page.text


def test_errors_can_be_told_without_colour(tmp_path):
    page = written(
        tmp_path, scored([("the cat sat down well my dear", "the hat sat well my dear now")])
    )
    card = page.source[page.source.index("<article>") :]
    marks = re.findall(r'title="(\w+)"><b>(\w)</b><(\w+).*?</\w+><(\w+)', card)
    assert marks == [
        ("substitution", "S", "del", "ins"),
        ("deletion", "D", "del", "span"),
        ("insertion", "I", "span", "ins"),
    ]


@pytest.mark.parametrize(
    ("metric", "said", "shown"),
    [
        ("wer", "你 好 wifi on", "你 好 wifi on"),
        ("mer", "打开 wifi on 好", "打开 wifi on 好"),
        ("cer", "打开 wifi", "打开wifi"),
    ],
)
def test_equal_units_are_written_as_their_script_is(tmp_path, metric, said, shown):
    page = written(tmp_path, scored([(said, f"{said} 嗯")], metric=metric))
    assert f'class="steps" dir="auto">{shown}' in page.source


def test_long_stretches_without_error_are_left_out_and_counted(tmp_path):
    words = [f"w{i}" for i in range(100)]
    page = written(tmp_path, scored([(" ".join(words), " ".join([*words, "more"]))]))
    assert "[… 70 equal units …]" in page.text


def test_a_very_long_alignment_is_cut_and_says_so(tmp_path):
    page = written(tmp_path, scored([("a " * 3000, "b " * 3000)]))
    assert "the first 2,000 of 3,000 units are shown" in page.text


def test_a_page_of_many_long_alignments_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(report_alignments, "MAX_ALIGNMENT_CHARACTERS", 10_000)
    page = written(tmp_path, scored([("a " * 60, "b " * 60)] * 50))
    cards = page.source.count("<article>")
    assert 1 <= cards < 5
    assert f"{cards} of 50 utterances shown" in page.text


def test_long_lists_of_ids_are_cut_and_counted(tmp_path):
    page = written(tmp_path, scored([("a", None)] * 1234))
    assert "References without hypothesis: 1,234" in page.text
    assert "and 1,034 more" in page.text


def test_audio_is_linked_from_the_folder_of_the_page(tmp_path):
    clip = tmp_path / "clips" / "a b#1.wav"
    known = {"u0": Utterance("u0", "a", audio=str(clip), start=1.5, end=2.25)}
    (tmp_path / "out").mkdir()
    page = written(tmp_path / "out", scored([("a", "b")]), metadata=known)
    assert page.all("audio")[0]["src"] == "../clips/a%20b%231.wav#t=1.500,2.250"
    assert page.all("audio")[0]["preload"] == "none"


def test_small_audio_files_go_into_the_page_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(report_alignments, "MAX_EMBEDDED_BYTES", 10)
    known = {}
    for i, content in enumerate((b"small", b"much too large")):
        (tmp_path / f"{i}.wav").write_bytes(content)
        known[f"u{i}"] = Utterance(f"u{i}", "a", audio=str(tmp_path / f"{i}.wav"))
    page = written(tmp_path, scored([("a", "b")] * 2), metadata=known, embed_audio=True)
    small = base64.b64encode(b"small").decode()
    sources = [player["src"] for player in page.all("audio")]
    assert sources == [f"data:audio/wav;base64,{small}", "1.wav"]


def test_a_baseline_is_compared_utterance_by_utterance(tmp_path):
    ours = scored([("a b", "a b"), ("c d", "c x"), ("e f", "x y")])
    theirs = scored([("a b", "x b"), ("c d", "c x"), ("e f", "e f")])
    page = written(tmp_path, ours, baseline=theirs)
    assert "Utterances with fewer errors than the baseline: 1; with more: 1." in page.text
    assert "baseline 0 errors" in page.text
    assert f"baseline: {theirs}" in page.text


def test_plots_show_what_tables_and_confidences_hold(tmp_path):
    pairs = [("a", "a"), ("a b c d", "a x c d"), ("a b", "a b")]
    hypotheses = [
        Utterance(f"u{i}", heard, words=tuple(TimedWord(w, 0, 0, 0.75) for w in heard.split()))
        for i, (_, heard) in enumerate(pairs)
    ]
    result = scored(pairs)
    page = written(tmp_path, result, confidence=calibration(result, hypotheses))
    labels = [a["aria-label"] for a in page.all("svg")]
    assert [label.split(":")[0] for label in labels] == [
        "Error rate by reference length",
        "Reliability",
    ]
    assert "3-5: 25.00 %, 1 of 4 units" in page.text
    assert "confidence 0.7-0.8: 7 words, mean confidence 75.00 %, correct 85.71 %" in page.text
    assert "expected calibration error 10.71 %" in page.text


def test_confidences_of_no_word_are_no_reason_to_fail(tmp_path):
    result = scored([("a", "a")])
    page = written(tmp_path, result, confidence=calibration(result, [Utterance("u0", "a")]))
    assert "1 utterances without a list of words" in page.text


@pytest.mark.parametrize(
    "pairs",
    [[("", "")], [("", "boo")], [("a", None)], [("a", "")]],
    ids=["empty", "boo", "gone", "x"],
)
def test_a_score_without_rate_or_without_hypothesis_is_written(tmp_path, pairs):
    assert str(scored(pairs)) in written(tmp_path, scored(pairs)).text


def test_control_characters_are_shown_as_pictures():
    assert element("td", "a\x00b\x1bc") == "<td>a␀b␛c</td>"


def test_columns_carry_values_to_sort_by():
    page = Page(sortable(["name", "count", "rate"], [("a", 1234, 0.5), ("b", 2, float("nan"))]))
    assert [a.get("data-value") for a in page.all("td")] == [None, "1234", "0.5", None, "2", ""]
    assert [a["type"] for a in page.all("button")] == ["button"] * 3


def test_a_negative_number_of_alignments_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shown is -1; expected the number of alignments"):
        write_report(scored([("a", "a")]), tmp_path / "report.html", shown=-1)


def test_the_page_is_the_same_for_every_hash_seed(tmp_path):
    code = (
        "import sys; from llmasr.scoring import score;"
        "from llmasr.scoring.report import write_report;"
        "r = {str(i): f'a{i} b{i % 7} c' for i in range(40)};"
        "h = {i: t.replace('b3', 'x').replace('a1', '') for i, t in r.items() if i != '9'};"
        "write_report(score(r, {**h, 'extra': 'word'}), sys.argv[1])"
    )
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / f"{seed}.html")],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[1],
            check=True,
        )
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()


def test_a_large_test_set_makes_a_small_page(tmp_path):
    references = [
        Utterance(f"utterance-{i}", "a b c d", group=f"s{i % 2000}") for i in range(10_000)
    ]
    hypotheses = [Utterance(each.id, "a x c d e") for each in references]
    write_report(score(references, hypotheses), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 1_000_000
