"""Normalisers: what each does, which error rate each gives, and an identity that never varies."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.scoring import read_texts, score
from llmasr.scoring.normalise import NORMALIZERS, Normalizer, find_normalizer, script
from llmasr.scoring.normalise.compounds import respell
from llmasr.scoring.normalise.llmasr_chinese import llmasr_zh
from llmasr.scoring.normalise.normalizer import content_hash
from llmasr.scoring.normalise.whisper import spelling_table, whisper_en

ROOT = Path(__file__).resolve().parents[1]
FIXTURE = Path(__file__).parent / "score_fixture"
LABEL = re.compile(r"(raw|[\w-]+-[\d.]+)@[0-9a-f]{8}")

# Errors of each pair of the fixture, in its order: year, count, case, punctuation, script,
# fillers, erhua, width. Its references have 88 characters in 8 words.
#   year: 二零二四 / 2024.  count: 两个 / 2个, one; 一百二十三 / 123, three wrong and two missing.
#   case: P; APP.  punctuation: two signs.  script: 這麵館.  fillers: 呃啊.  erhua: 儿.
#   width: ＷｉＦｉ and Ｇ.
CHARACTERS, WORDS = 88, 8
ERRORS = {
    ("wer", "raw"): ([1, 1, 1, 1, 1, 1, 1, 1], WORDS),
    ("cer", "raw"): ([4, 6, 4, 2, 3, 2, 1, 5], CHARACTERS),
    ("cer", "llmasr-en"): ([4, 6, 0, 0, 3, 2, 1, 5], CHARACTERS),
    ("cer", "zh-basic"): ([4, 6, 0, 0, 3, 2, 1, 0], CHARACTERS),
    ("cer", "whisper-basic"): ([4, 6, 0, 0, 3, 2, 1, 0], CHARACTERS),
    ("wer", "whisper-basic-letters"): ([4, 6, 0, 0, 3, 2, 1, 0], CHARACTERS),
    # Fillers and erhua are heard, so they count.
    ("cer", "llmasr-zh"): ([0, 0, 0, 0, 0, 2, 1, 0], CHARACTERS),
    # What is left is 两个 against "2个", read 二个.
    ("cer", "zh-speechio"): ([0, 1, 0, 0, 0, 0, 0, 0], CHARACTERS),
}

WHISPER_SURPRISES = [
    ("O'Neil", "0 neil"),
    ("five o'clock", "50 clock"),
    ("o'clock", "0 clock"),
    ("a hundred and one", "a 101"),
    ("U.S.A.", "u s a"),
    ("the dog's tail", "the dog is tail"),
    ("so (he said) [laughs] <noise> yes", "so yes"),
    ("archaeology", "archeology</span>"),
    ("uh colour okay, won't it?", "color okay will not it"),
    ("because", "because"),
    ("'cause", "cause"),
]

OPEN_ASR = [
    ("the U.S.A. on B B C for 5 G", "the usa on bbc for 5g"),
    ("I a big b i d", "i a big bid"),
    ("the dog's tail, it's wagging", "the dog s tail it is wagging"),
    ("Uhhh, mmm okay OK kay ah-ha aha", "okay okay okay"),
    ("half past ten at 10:30", "10 30 at 10 30"),
    ("a quarter to one o'clock", "12 45"),
    ("twenty minutes before zero", "23 40"),
    ("ten o'clock and 10:00", "10 and 10"),
    ("oh no, oh oh", "oh no oh oh"),
    ("four oh one, oh seven nine", "401079"),
    ("Wi-Fi e-mail all right et cetera a.m.", "wifi email alright etc am"),
    ("Stephen and Kathryn", "steven and catherine"),
    ("archaeology colour", "archeology color"),
    ("$5 and 50% of $ or %", "$5 and 50% of or"),
    ("won't (at all) stop.", "will not stop"),
]

CHINESE = [
    # raw, zh-basic, llmasr-zh, zh-speechio
    ("２０２４年３月５日", "2024年3月5日", "二零二四年三月五日", "二零二四年三月五日"),
    ("电话13812345678。", "电话13812345678", "电话一三八一二三四五六七八",
     "电话一三八一二三四五六七八"),
    ("2000块，200个", "2000块 200个", "二千块 二百个", "两千块 两百个"),
    ("22000人；5000", "22000人 5000", "二万二千人 五千", "两万两千人 五零零零"),
    ("1,234,567元", "1 234 567元", "一百二十三万四千五百六十七元",
     "一百二十三万四千五百六十七元"),
    ("涨了3.5％", "涨了3.5%", "涨了百分之三点五", "涨了百分之三点五"),
    ("25℃", "25 c", "二十五摄氏度", "二十五 c"),
    ("3/4", "3 4", "三 四", "四分之三"),
    ("007号", "007号", "零零七号", "七号"),
    ("12345678901234567个", "12345678901234567个", "一二三四五六七八九零一二三四五六七个",
     "一二三四五六七八九零一二三四五六七个"),
    ("兒子在這兒喫麵", "兒子在這兒喫麵", "儿子在这儿吃面", "儿子在这吃面"),
    ("乾隆年间天气干燥", "乾隆年间天气干燥", "乾隆年间天气干燥", "乾隆年间天气干燥"),
    ("啊！Don’t 说“OK”", "啊 don't 说 ok", "啊 don't 说 ok", "don't 说 ok"),
    ("……", "", "", ""),
    ("", "", "", ""),
]  # fmt: skip

# Reference, hypothesis, errors left: as kaldialign 0.12 counts with `merge_compounds=True`.
COMPOUNDS = [
    ("a white paper b", "a whitepaper b", 0),
    ("a whitepaper b", "a white paper b", 0),
    ("a whitepaper b", "a white pape b", 2),
    ("x y z", "xyz", 0),
    ("xy z", "x yz", 2),
    ("white paper", "white", 1),
    ("a b c d e f", "abc def", 0),
    ("a b x", "ab y", 1),
    ("white paper paper", "whitepaper paper", 0),
    ("yes", "", 1),
]

chinese_text = st.text(
    "0123456789.,%％。，！'二两百千万年个月儿女啊呃兒這麵乾燥abＡＢé\u0301 ", max_size=12
)


def apply(name, text):
    return find_normalizer(name).apply(text)


def words_apart(reference, hypothesis):
    texts = {"u": " ".join(reference)}, {"u": " ".join(hypothesis)}
    return score(*texts).errors


@pytest.mark.parametrize(("metric", "name"), ERRORS, ids=" ".join)
def test_the_error_of_each_pair_is_what_a_hand_counts(metric, name):
    errors, units = ERRORS[metric, name]
    references = read_texts(FIXTURE / "zh_ref.txt")
    hypotheses = read_texts(FIXTURE / "zh_hyp.txt")
    found = [
        score({i: references[i]}, {i: hypotheses[i]}, metric=metric, normalizer=name).errors
        for i in references
    ]
    total = score(references, hypotheses, metric=metric, normalizer=name)
    assert found == errors
    assert (total.errors, total.units) == (sum(errors), units)


def test_the_same_pairs_score_from_one_to_a_hundred_per_cent():
    # The order of published scorers: SpeechIO, numbers read by cn2an, Whisper's basic, raw CER, raw
    # WER. Whisper's basic CER and its WER over letters are one here, for our CER counts no spaces.
    order = ["zh-speechio", "llmasr-zh", "whisper-basic", "llmasr-en", "raw"]
    references = read_texts(FIXTURE / "zh_ref.txt")
    hypotheses = read_texts(FIXTURE / "zh_hyp.txt")
    rates = [score(references, hypotheses, metric="cer", normalizer=name).rate for name in order]
    assert rates == sorted(set(rates))
    assert rates[0] == pytest.approx(1 / 88)
    assert rates[-1] < score(references, hypotheses, normalizer="raw").rate == 1


@pytest.mark.parametrize(("text", "expected"), WHISPER_SURPRISES)
def test_whisper_en_does_what_whisper_does_surprises_included(text, expected):
    assert apply("whisper-en", text).strip() == expected


def test_the_table_of_spellings_is_that_of_whisper():
    table = spelling_table()
    assert len(table) == 1739
    assert "flyer / flier" in table


def test_whisper_basic_keeps_diacritics_and_splits_letters_when_asked():
    assert apply("whisper-basic", "Café (x) 你好！") == "café 你好 "
    assert apply("whisper-basic-letters", "Café 你好") == "c a f é 你 好"


@pytest.mark.parametrize(("text", "expected"), OPEN_ASR)
def test_open_asr_adds_the_rules_of_the_leaderboard(text, expected):
    assert apply("open-asr", text).strip() == expected


@pytest.mark.parametrize(("reference", "hypothesis", "errors"), COMPOUNDS)
def test_a_compound_is_no_error_in_either_direction(reference, hypothesis, errors):
    rule = find_normalizer("open-asr-compounds")
    respelled = rule.respell(reference.split(), hypothesis.split())
    assert words_apart(reference.split(), respelled) == errors


@settings(max_examples=200, deadline=None)
@given(*[st.lists(st.sampled_from(["a", "b", "ab", "ba", "aab"]), max_size=7)] * 2)
def test_respelling_moves_spaces_only_and_never_adds_errors(reference, hypothesis):
    reference = reference or ["a"]
    respelled = respell(reference, hypothesis)
    assert "".join(respelled) == "".join(hypothesis)
    assert words_apart(reference, respelled) <= words_apart(reference, hypothesis)


def test_a_session_of_an_hour_is_respelled_in_seconds():
    words = [f"w{i % 700}" for i in range(3000)]
    split = [*words[:10], "".join(words[10:12]), *words[12:]]
    assert respell(words, split) == tuple(words)


@pytest.mark.parametrize(("text", "basic", "ours", "speechio"), CHINESE)
def test_chinese_text_is_normalised(text, basic, ours, speechio):
    names = ["zh-basic", "llmasr-zh", "zh-speechio"]
    assert [apply(name, text) for name in names] == [basic, ours, speechio]


@pytest.mark.parametrize(
    ("digits", "said"),
    [
        ("2024年", "二零二四年"),
        ("105个", "一百零五个"),
        ("10点", "十点"),
        ("2个", "两个"),
        ("20000元", "两万元"),
        ("6.02", "六点零二"),
        ("100%", "百分之一百"),
    ],
)
def test_llmasr_zh_makes_digits_and_what_was_said_one(digits, said):
    assert apply("llmasr-zh", digits) == apply("llmasr-zh", said)


@pytest.mark.parametrize("name", ["llmasr-en", "zh-basic", "llmasr-zh", "zh-speechio"])
@settings(max_examples=150, deadline=None)
@given(text=chinese_text | st.text(max_size=12))
def test_a_normal_text_is_left_as_it_is(name, text):
    once = apply(name, text)
    assert apply(name, once) == once


def test_every_label_is_an_id_and_a_hash_and_none_occurs_twice():
    labels = [NORMALIZERS[name].label for name in NORMALIZERS]
    assert all(LABEL.fullmatch(label) for label in labels)
    assert len({label.split("@")[1] for label in labels}) == len(labels)


def test_names_can_be_listed_and_asked_for():
    assert list(NORMALIZERS)[:2] == ["raw", "llmasr-en"]
    assert len(NORMALIZERS) == len(list(NORMALIZERS))
    assert "llmasr-zh" in NORMALIZERS
    assert "none" not in NORMALIZERS
    assert isinstance(NORMALIZERS["raw"], Normalizer)
    assert NORMALIZERS["raw"].apply(" As  it IS. ") == " As  it IS. "


def run(code, seed="0"):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_labels_and_texts_are_the_same_in_every_process():
    code = (
        "from llmasr.scoring.normalise import NORMALIZERS as n;"
        "t = 'Uh, Dr. Kathryn paid $5 for 2 colour tyres at half past ten. 他有200个兒子，啊！';"
        "print(*[(r.label, r.apply(t)) for r in n.values()])"
    )
    here = " ".join(
        str((rule.label, rule.apply("Uh, Dr. Kathryn paid $5 for 2 colour tyres at half past ten."
                                    " 他有200个兒子，啊！")))
        for rule in NORMALIZERS.values()
    )  # fmt: skip
    assert run(code, "1") == run(code, "2") == here


def test_libraries_are_imported_when_a_normaliser_is_first_looked_up_and_torch_never():
    code = (
        "import sys; from llmasr.scoring.normalise import NORMALIZERS as n;"
        "libraries = {'torch', 'transformers', 'opencc', 'cn2an', 'whisper_normalizer'};"
        "'whisper-en' in n, list(n); print(*(libraries & set(sys.modules)), end=':');"
        "[r.apply('12 o') for r in n.values()];"
        "print(*sorted(libraries & set(sys.modules)))"
    )
    assert run(code) == ":cn2an opencc transformers whisper_normalizer"


def test_the_hash_tells_rules_apart_and_their_bounds():
    assert content_hash("ab", "c") != content_hash("a", "bc") != content_hash("abc")
    assert content_hash(run) == content_hash(run) != content_hash(apply)


@pytest.mark.parametrize(
    ("module", "make", "package"),
    [
        ("opencc", llmasr_zh, "opencc"),
        ("whisper_normalizer", whisper_en, "whisper-normalizer"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    monkeypatch, module, make, package
):
    monkeypatch.setitem(sys.modules, module, None)
    script.to_simplified.cache_clear()
    message = rf'needs {package}: pip install "llmasr\[score\]"'
    with pytest.raises(ImportError, match=message):
        make()


OWN = """
TABLE = {"colour": "color"}
def rule(text):
    return " ".join(TABLE.get(word, word) for word in text.split())
def number(text):
    return len(text)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder on the path of imports, with a module of the user's in it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_rules.py").write_text(OWN, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("my_rules", None)


def test_a_normaliser_of_the_user_is_found_by_its_import_path(own):
    result = score({"a": "a colour"}, {"a": "a color"}, normalizer="my_rules:rule")
    assert result.errors == 0
    assert re.fullmatch(r"my_rules:rule@[0-9a-f]{8}", find_normalizer("my_rules:rule").label)


def test_a_change_in_the_users_table_changes_the_hash(own):
    before = find_normalizer("my_rules:rule").hash
    sys.modules.pop("my_rules")
    (own / "my_rules.py").write_text(OWN.replace("color", "hue__"), encoding="utf-8")
    assert find_normalizer("my_rules:rule").hash != before


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none", "normalizer is 'none'; allowed: raw, llmasr-en"),
        ("no_such_module:rule", "module 'no_such_module' is not found"),
        ("my_rules.deeper:rule", "module 'my_rules.deeper' is not found"),
        ("my_rules:absent", "module 'my_rules' has no 'absent'"),
        ("my_rules:TABLE", "expected a function, got {"),
        ("builtins:str", "expected a function, got <class 'str'>"),
        ("math:sqrt", "no Python source"),
        (":rule", "expected package.module:function"),
        ("my_rules:", "has no ''"),
        ("rules.py:rule", "module 'rules.py' is not found"),
        ("./my_rules.py:rule", "expected package.module:function"),
    ],
)
def test_a_normaliser_that_cannot_be_used_is_named(own, path, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        find_normalizer(path)


def test_a_normaliser_that_returns_no_text_is_named_when_it_does(own):
    with pytest.raises(ValueError, match=r"'my_rules:number' returned 3 for 'abc'; expected text"):
        find_normalizer("my_rules:number").apply("abc")


def test_an_import_that_fails_inside_the_users_module_is_shown_as_it_is(own):
    (own / "my_broken.py").write_text("import not_installed_here\n", encoding="utf-8")
    with pytest.raises(ModuleNotFoundError, match="not_installed_here"):
        find_normalizer("my_broken:rule")
