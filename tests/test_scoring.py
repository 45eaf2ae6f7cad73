"""Counting: every reference counts, by id, and the printed line says how the number was made."""

import itertools
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.scoring import Utterance, align, read_utterances, score
from llmasr.scoring.intervals import ratio_interval, resampled_sums, sums_by_block

REFERENCES = {"a": "the cat sat", "b": "on the mat", "c": "good night", "d": "yes"}

# reference, hypothesis, (substitutions, deletions, insertions)
PAIRS = [
    ("the cat sat", "the cat sat", (0, 0, 0)),
    ("the cat sat", "", (0, 3, 0)),
    ("the cat sat", "the bat", (1, 1, 0)),
    ("yes", "yes yes yes", (0, 0, 2)),
    ("the  cat\tsat ", " the cat sat", (0, 0, 0)),
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
    kinds = (theirs.substitutions, theirs.deletions, theirs.insertions)
    assert (ours.substitutions, ours.deletions, ours.insertions) == kinds


def slow_alignment(reference, hypothesis):
    """The order of ties that llmasr.scoring.alignment promises, step by step."""
    prefix = common_start(reference, hypothesis)
    reference, hypothesis = reference[prefix:], hypothesis[prefix:]
    suffix = common_start(reference[::-1], hypothesis[::-1])
    m, n = len(reference) - suffix, len(hypothesis) - suffix
    cost = np.add.outer(np.arange(m + 1), np.arange(n + 1))
    for i, j in itertools.product(range(1, m + 1), range(1, n + 1)):
        pair = cost[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1])
        cost[i, j] = min(cost[i - 1, j] + 1, cost[i, j - 1] + 1, pair)
    kinds = ["equal"] * suffix
    while m or n:
        if m and cost[m, n] == cost[m - 1, n] + 1:
            kinds.append("delete")
            m -= 1
        elif m and n and cost[m, n] == cost[m - 1, n - 1] + 1:
            kinds.append("substitute")
            m, n = m - 1, n - 1
        elif n and cost[m, n] == cost[m, n - 1] + 1:
            kinds.append("insert")
            n -= 1
        else:
            kinds.append("equal")
            m, n = m - 1, n - 1
    return ["equal"] * prefix + kinds[::-1]


def common_start(a, b):
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=12).map(tuple), st.text("abc", max_size=12).map(tuple))
def test_of_equally_good_alignments_the_promised_one_is_taken(reference, hypothesis):
    steps = align(reference, hypothesis)
    assert [step.kind for step in steps] == slow_alignment(reference, hypothesis)
    assert tuple(step.reference for step in steps if step.reference is not None) == reference
    assert tuple(step.hypothesis for step in steps if step.hypothesis is not None) == hypothesis


def test_the_counts_are_those_of_the_alignment():
    (detail,) = score({"u": "a b c d e"}, {"u": "b a x d"}).details
    kinds = [step.kind for step in detail.steps()]
    counts = (detail.substitutions, detail.deletions, detail.insertions)
    assert counts == tuple(map(kinds.count, ("substitute", "delete", "insert")))
    assert detail.errors == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我用iPhone 十五", ["我", "用", "iPhone", "十", "五"]),
        ("don't 你好", ["don't", "你", "好"]),
        ("人々 \U00020000x", ["人", "々", "\U00020000", "x"]),
        ("  ", []),
    ],
)
def test_mixed_error_rate_counts_han_characters_and_words(text, expected):
    (detail,) = score({"u": text}, {}, metric="mer").details
    assert list(detail.reference) == expected


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


def test_an_emptied_hypothesis_costs_its_words_and_is_named():
    result = score(REFERENCES, {**REFERENCES, "b": " "})
    assert result.empty_hypotheses == ("b",)
    assert (result.deletions, result.missing, result.complete) == (3, (), True)


def test_a_second_hypothesis_for_an_id_is_all_insertions_and_is_named():
    hypotheses = [Utterance(i, text) for i, text in REFERENCES.items()]
    result = score(REFERENCES, [*hypotheses, Utterance("b", "on the mat"), Utterance("b", "")])
    assert result.duplicates == ("b", "b")
    assert (result.insertions, result.errors, result.sentence_errors) == (3, 3, 0)
    assert not result.complete


def test_the_first_hypothesis_of_an_id_is_the_one_that_answers():
    twice = [Utterance("d", "yes"), Utterance("d", "no")]
    assert score({"d": "yes"}, twice).details[0].hypothesis == ("yes",)
    assert score({"d": "yes"}, twice[::-1]).details[0].hypothesis == ("no",)


def test_an_unknown_id_that_occurs_twice_is_extra_and_duplicate():
    strangers = [Utterance("x", "one"), Utterance("x", "two three")]
    result = score({"a": "yes"}, [Utterance("a", "yes"), *strangers])
    assert (result.extra, result.duplicates, result.insertions) == (("x",), ("x",), 3)


def test_a_reference_id_that_occurs_twice_is_an_error():
    with pytest.raises(ValueError, match="references holds the id 'a' twice"):
        score([Utterance("a", "yes"), Utterance("a", "no")], {})


def test_details_are_references_by_id_then_duplicates_then_extras():
    hypotheses = [Utterance(i, "word") for i in ("z", "b", "a", "b", "y")]
    result = score({"b": "word", "a": "word", "c": "word"}, hypotheses)
    assert [(each.id, each.status) for each in result.details] == [
        ("a", "scored"), ("b", "scored"), ("c", "missing"),
        ("b", "duplicate"), ("y", "extra"), ("z", "extra"),
    ]  # fmt: skip


def test_partial_leaves_out_what_is_missing_and_says_so_beside_the_rate():
    result = score(REFERENCES, {"a": "the cat sat", "b": "on a mat"}, allow_partial=True)
    assert result.rate == pytest.approx(1 / 6)
    assert (result.units, result.utterances, result.references) == (6, 2, 4)
    assert str(result).startswith("WER 16.67 % PARTIAL 2/4 [95 % CI ")
    assert (result.missing, result.complete) == (("c", "d"), True)


def test_partial_excuses_neither_empty_nor_foreign_hypotheses():
    result = score({"a": "one two"}, {"a": "", "b": "three"}, allow_partial=True)
    assert (result.deletions, result.insertions, result.complete) == (2, 1, False)
    assert "PARTIAL" not in str(result)


def test_partial_without_any_hypothesis_has_no_rate():
    result = score(REFERENCES, {}, allow_partial=True)
    assert math.isnan(result.rate)
    assert str(result).startswith("WER undefined PARTIAL 0/4 [no CI below 2 utt]")


def test_what_the_references_declare_out_of_bounds_is_no_part_of_the_score():
    references = [Utterance("a", "yes"), Utterance("b", "", is_ignored=True)]
    result = score(references, {"a": "yes", "b": "chatter"})
    assert (result.references, result.errors, result.complete) == (1, 0, True)


def test_words_on_an_empty_reference_are_counted_apart():
    result = score(
        {"a": "yes", "b": "...", "c": ""}, {"a": "yes", "b": "oh no"}, normalizer="llmasr-en"
    )
    assert (result.rate, result.insertions, result.insertions_on_empty) == (0.0, 0, 2)
    assert result.empty_references == ("b", "c")
    assert result.missing == ("c",)
    assert result.sentence_errors == 1


def test_a_set_without_any_reference_word_has_no_rate():
    result = score({"a": "", "b": ""}, {"a": "boo"})
    assert math.isnan(result.rate)
    assert str(result).startswith("WER undefined [no CI below 2 utt] norm=raw@")
    assert str(result).endswith(", empty references 2 with 1 words heard there")


def test_sentence_error_rate_counts_imperfect_references():
    result = score(REFERENCES, {**REFERENCES, "a": "the cat", "b": "off the mat"})
    assert result.sentence_error_rate == 0.5


def test_the_printed_line_says_how_the_number_was_made():
    result = score(
        {"a": "The cat", "b": "sat down"}, {"a": "the hat", "b": "sat"}, normalizer="llmasr-en"
    )
    assert re.sub("@[0-9a-f]{8} ", "@sha8 ", str(result)) == (
        "WER 50.00 % [95 % CI 50.00-50.00] norm=llmasr-en-1@sha8 n=2 utt / 4 ref words,"
        " S/D/I 1/1/0, SER 100.00 %, missing 0, empty 0, duplicate 0, extra 0"
    )


def test_a_comparison_stands_beside_the_interval():
    line = score(REFERENCES, REFERENCES).line(paired="paired p=0.03 vs base")
    assert line.startswith("WER 0.00 % [95 % CI 0.00-0.00, paired p=0.03 vs base] norm=raw@")


def test_the_line_tells_how_many_groups_the_interval_draws():
    references = [
        Utterance(i, text, group="s1" if i in "ab" else "s2") for i, text in REFERENCES.items()
    ]
    assert " over 2 groups] norm" in str(score(references, REFERENCES))


def test_the_dictionary_has_every_count_in_types_of_json():
    result = score({**REFERENCES, "e": ""}, {"a": "the cat", "b": "", "x": "word"})
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["rate"] == result.rate
    assert (found["missing"], found["extra"]) == (["c", "d", "e"], ["x"])
    assert (found["empty_hypotheses"], found["empty_references"]) == (["b"], ["e"])


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


def test_the_interval_of_speakers_is_that_of_their_sums():
    references = [Utterance(str(i), "a b c", group=f"s{i % 3}") for i in range(12)]
    hypotheses = {str(i): "a b x" if i % 3 else "" for i in range(12)}
    sums = [(12, 12), (4, 12), (4, 12)]
    assert score(references, hypotheses).interval == ratio_interval(*np.array(sums).T)


def test_an_utterance_without_group_stands_alone():
    references = [
        Utterance("a", "x y", group="b"),
        Utterance("b", "x y"),
        Utterance("c", "x y", group="b"),
    ]
    result = score(references, {"a": "x", "b": "x", "c": "x"})
    assert result.groups == 2


def test_the_rate_is_never_the_mean_of_the_bootstrap():
    references = {"long": " ".join("abcdefghij"), "short": "k"}
    result = score(references, {"long": references["long"]})
    sums = resampled_sums(np.array([(0, 10), (1, 1)]))
    mean = (sums[:, 0] / sums[:, 1]).mean()
    assert result.rate == 1 / 11
    assert mean > 0.2


def naive_sums(rows, replications):
    generator = np.random.default_rng(0)
    drawn = generator.integers(len(rows), size=(replications, len(rows)))
    return rows[drawn].sum(1)


@pytest.mark.parametrize("values", [4, 10**9], ids=["few distinct", "all distinct"])
def test_resampled_sums_have_the_distribution_of_drawing_row_by_row(values):
    rows = np.random.default_rng(3).integers(0, values, size=(600, 3))
    rows[:, 1] = rows[:, 0] % 2
    ours, naive = resampled_sums(rows, replications=4000), naive_sums(rows, 4000)
    deviation = naive.std(0)
    assert ours.shape == (4000, 3)
    np.testing.assert_allclose(ours.mean(0), naive.mean(0), atol=0.1 * deviation.max(), rtol=0.01)
    np.testing.assert_allclose(ours.std(0), deviation, rtol=0.1)
    np.testing.assert_allclose(np.corrcoef(ours.T), np.corrcoef(naive.T), atol=0.1)


def test_blocks_are_summed_in_order_of_first_occurrence():
    rows = np.array([(1, 2), (3, 4), (5, 6)])
    assert sums_by_block(rows, ["z", "a", "z"]).tolist() == [[6, 8], [3, 4]]


def test_duplicates_are_drawn_with_their_reference_and_extras_always():
    references = {"a": "x y", "b": "x y"}
    heard = [
        Utterance("a", "x y"),
        Utterance("b", "x y"),
        Utterance("a", "z z"),
        Utterance("c", "q"),
    ]
    assert score(references, heard).interval == (1 / 4, 5 / 4)


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


def test_everything_printed_is_the_same_for_every_hash_seed():
    code = (
        "from llmasr.scoring import Utterance, compare, score\n"
        "from llmasr.scoring.writing import format_alignment\n"
        "r = [Utterance(str(i), f'a{i} b{i % 7} c d a{i}', group=f's{i % 5}') for i in range(40)]\n"
        "h = [Utterance(u.id, u.text.replace('b3', 'x y').replace('a1', '')) for u in r[1:]]\n"
        "one, two = score(r, [*h, h[0], Utterance('extra', 'word')]), score(r, r[:30])\n"
        "print(one.line(), compare(one, two), one.to_dict(), one)\n"
        "print(*map(format_alignment, one.details))\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(printed) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"references": {}, "hypotheses": {}}, "references is empty"),
        ({"metric": "per"}, "metric is 'per'; allowed: wer, cer, mer"),
        ({"normalizer": "none"}, "normalizer is 'none'; allowed: raw, llmasr-en"),
        ({"hypotheses": {"a": None}}, r"hypotheses\['a'\] is None"),
        ({"groups": {"a": "s1"}}, "groups lacks 3 reference ids, first 'b'"),
        ({"references": ["a", "b"]}, r"references\[0\] is 'a'; expected an Utterance"),
    ],
    ids=["empty", "metric", "normalizer", "text", "groups", "type"],
)
def test_a_wrong_argument_is_named_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        score(**{"references": REFERENCES, "hypotheses": REFERENCES, **arguments})


def test_manifests_of_real_speech_score_zero_against_themselves(data):
    references = read_utterances(data / "en_sentences_l2" / "manifest.jsonl")
    result = score(references, references, normalizer="llmasr-en")
    assert (result.rate, result.utterances, result.empty_references) == (0.0, 4800, ())
