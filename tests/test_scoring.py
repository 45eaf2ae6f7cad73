import math
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.scoring import NORMALIZERS, read_texts, score

REFERENCES = {"a": "the cat sat", "b": "on the mat", "c": "good night", "d": "yes"}

# reference, hypothesis, (substitutions, deletions, insertions)
PAIRS = [
    ("the cat sat", "the cat sat", (0, 0, 0)),
    ("the cat sat", "", (0, 3, 0)),
    ("the cat sat", "the bat", (1, 1, 0)),
    ("yes", "yes yes yes", (0, 0, 2)),
    ("the  cat\tsat ", " the cat sat", (0, 0, 0)),
]

ENGLISH = [
    ("Don\u2019t STOP, now!", "don't stop now"),
    ("\u2018Tis the dogs\u2019 well-known O`Clock", "tis the dogs well known o'clock"),
    ("caf\u00e9 cafe\u0301", "caf\u00e9 caf\u00e9"),
    ("\u0130stanbul", "i\u0307stanbul"),
    ("... \u2014 _ '", ""),
    ("\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u4f60\u597d \u4e16\u754c"),
]

words = st.lists(st.sampled_from(["a", "b", "c", "dd", "\u4f60"]), max_size=8).map(" ".join)
spoken = words.filter(bool)


@pytest.mark.parametrize(("reference", "hypothesis", "expected"), PAIRS)
def test_words_are_counted_by_kind_of_error(reference, hypothesis, expected):
    result = score({"u": reference}, {"u": hypothesis})
    assert (result.substitutions, result.deletions, result.insertions) == expected


def test_characters_are_counted_without_spaces():
    result = score({"u": "你 好 世界"}, {"u": "你好世间"}, metric="cer")
    assert (result.errors, result.units) == (1, 4)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(spoken, words), min_size=1, max_size=6))
def test_totals_equal_those_of_jiwer(pairs):
    references = {str(i): reference for i, (reference, _) in enumerate(pairs)}
    hypotheses = {str(i): hypothesis for i, (_, hypothesis) in enumerate(pairs)}
    ours = score(references, hypotheses)
    theirs = jiwer.process_words(list(references.values()), list(hypotheses.values()))
    assert ours.errors == theirs.substitutions + theirs.deletions + theirs.insertions
    assert ours.units == theirs.hits + theirs.substitutions + theirs.deletions
    assert ours.rate == pytest.approx(theirs.wer)


def test_the_rate_is_over_the_corpus_and_not_a_mean_of_rates():
    result = score({"long": "a b c d e f g h i", "short": "x"}, {"long": "a b c d e f g h i"})
    assert result.rate == pytest.approx(1 / 10)


def test_dropping_half_of_the_hypotheses_costs_half_of_the_words():
    references = {str(i): "one two three" for i in range(10)}
    result = score(references, {i: references[i] for i in list(references)[::2]})
    assert result.rate >= 0.5
    assert result.missing == ("1", "3", "5", "7", "9")
    assert not result.complete


def test_an_unknown_id_counts_as_insertions_and_is_named():
    result = score(REFERENCES, {**REFERENCES, "stranger": "hello there"})
    assert result.extra == ("stranger",)
    assert (result.insertions, result.errors) == (2, 2)
    assert not result.complete


def test_words_on_an_empty_reference_are_counted_apart():
    result = score(
        {"a": "yes", "b": "...", "c": ""}, {"a": "yes", "b": "oh no"}, normalizer="llmasr-en"
    )
    assert (result.rate, result.insertions, result.insertions_on_empty) == (0.0, 0, 2)
    assert result.empty == ("b", "c")
    assert result.sentence_errors == 1


def test_a_set_without_any_reference_word_has_no_rate():
    result = score({"a": "", "b": ""}, {"a": "boo"})
    assert math.isnan(result.rate)
    assert str(result).startswith("WER undefined norm=raw n=2 utt / 0 words")


def test_sentence_error_rate_counts_imperfect_references():
    result = score(REFERENCES, {**REFERENCES, "a": "the cat", "b": "off the mat"})
    assert result.sentence_error_rate == 0.5


def test_the_printed_line_says_how_the_number_was_made():
    result = score(
        {"a": "The cat", "b": "sat down"}, {"a": "the hat", "b": "sat"}, normalizer="llmasr-en"
    )
    assert str(result) == (
        "WER 50.00 % [95 % CI 50.0-50.0] norm=llmasr-en-1 n=2 utt / 4 words, S/D/I 1/1/0, missing 0"
    )


def noisy_set(size: int) -> tuple[dict[str, str], dict[str, str]]:
    """References of 3 to 9 words, and hypotheses that lack about a fifth of the words."""
    generator = np.random.default_rng(7)
    references = {
        f"u{i}": " ".join(f"w{j}" for j in range(generator.integers(3, 10))) for i in range(size)
    }
    hypotheses = {
        i: " ".join(word for word in text.split() if generator.random() > 0.2)
        for i, text in references.items()
    }
    return references, hypotheses


def test_the_interval_holds_the_rate_and_is_as_wide_as_theory_says():
    references, hypotheses = noisy_set(400)
    result = score(references, hypotheses)
    low, high = result.interval
    deviation = math.sqrt(result.rate * (1 - result.rate) / result.units)
    assert low < result.rate < high
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.2)


def test_the_interval_does_not_depend_on_the_order_of_utterances():
    references, hypotheses = noisy_set(50)
    backwards = dict(reversed(references.items()))
    assert score(backwards, hypotheses) == score(references, hypotheses)


def test_resampling_speakers_widens_the_interval_when_speakers_differ():
    references, _ = noisy_set(100)
    groups = {i: str(k % 5) for k, i in enumerate(references)}
    hypotheses = {i: text for i, text in references.items() if groups[i] != "0"}
    alone = score(references, hypotheses).interval
    grouped = score(references, hypotheses, groups=groups).interval
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_one_utterance_or_one_speaker_has_no_interval():
    assert score({"a": "yes"}, {"a": "no"}).interval is None
    assert score(REFERENCES, {}, groups=dict.fromkeys(REFERENCES, "only")).interval is None


def test_the_printed_line_is_the_same_for_every_hash_seed():
    code = (
        "from llmasr.scoring import score;"
        "r = {str(i): f'a{i} b{i % 7} c' for i in range(40)};"
        "h = {i: t.replace('b3', 'x').replace('a1', '') for i, t in r.items() if i != '9'};"
        "print(score(r, {**h, 'extra': 'word'}))"
    )
    lines = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(lines) == 1


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_llmasr_en_keeps_words_and_drops_the_rest(text, expected):
    normalise = NORMALIZERS["llmasr-en"].apply
    assert normalise(text) == expected
    assert normalise(expected) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"references": {}, "hypotheses": {}}, "references is empty"),
        ({"metric": "per"}, "metric is 'per'; allowed: wer, cer"),
        ({"normalizer": "none"}, "normalizer is 'none'; allowed: raw, llmasr-en"),
        ({"hypotheses": {"a": None}}, r"hypotheses\['a'\] is None"),
        ({"groups": {"a": "s1"}}, "groups lacks 3 reference ids, first 'b'"),
    ],
    ids=["empty", "metric", "normalizer", "text", "groups"],
)
def test_a_wrong_argument_is_named_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(**{"references": REFERENCES, "hypotheses": REFERENCES, **arguments})


def test_texts_are_read_from_json_lines(tmp_path):
    file = tmp_path / "manifest.jsonl"
    file.write_bytes(
        '\ufeff{"id": "a", "text": "one\u2028two", "split": "dev"}\r\n\r\n'.encode()
        + b'{"id": "b", "text": ""}'
    )
    assert read_texts(file) == {"a": "one\u2028two", "b": ""}


def test_texts_are_read_from_kaldi_text(tmp_path):
    file = tmp_path / "text"
    file.write_text("a one  two \nempty\n\n  b 你好\n", encoding="utf-8")
    assert read_texts(file) == {"a": "one  two", "empty": "", "b": "你好"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text", "a one\na two\n", "line 2: id 'a' occurs twice"),
        ("ref.jsonl", '{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "line 2: id 'a'"),
        ("ref.jsonl", '{"id": "a"}', "line 1: field 'text' is None"),
        ("ref.jsonl", '{"id": 7, "text": "x"}', "line 1: field 'id' is 7"),
        ("ref.jsonl", "a one two", "line 1: Expecting value"),
        ("ref.jsonl", "[1]", "line 1: field 'id' is None"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_texts(file)


def test_manifests_of_real_speech_score_zero_against_themselves(data):
    references = read_texts(data / "en_sentences_l2" / "manifest.jsonl")
    result = score(references, references, normalizer="llmasr-en")
    assert (result.rate, result.utterances, result.empty) == (0.0, 4800, ())
