"""How far word times are off: matched by alignment, nothing hidden."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr.cli import main
from llmasr.scoring.alignment import count_errors
from llmasr.scoring.intervals import ratio_interval
from llmasr.scoring.times import FARTHEST, match_words, score_times
from llmasr.scoring.utterances import TimedWord, Utterance


def spoken(
    identifier: str, *words: tuple[str, float, float], group: str | None = None
) -> Utterance:
    timed = tuple(TimedWord(*word) for word in words)
    return Utterance(identifier, " ".join(word.text for word in timed), group, words=timed)


def shifted(utterance: Utterance, start: float, end: float) -> Utterance:
    words = [(word.text, word.start + start, word.end + end) for word in utterance.words]
    return spoken(utterance.id, *words)


REFERENCE = spoken("a", ("one", 1.0, 1.5), ("two", 1.5, 2.0), ("three", 2.5, 3.0))


def test_shifts_are_in_milliseconds_and_late_is_positive():
    score = score_times([REFERENCE], [shifted(REFERENCE, -0.05, 0.1)])
    assert (score.starts.mean, score.starts.bias) == (50.0, -50.0)
    assert (score.ends.mean, score.ends.bias) == (100.0, 100.0)
    assert (score.both.mean, score.both.bias, score.both.median) == (75.0, 25.0, 75.0)


def test_a_shift_of_exactly_the_tolerance_is_within_it():
    score = score_times([REFERENCE], [shifted(REFERENCE, 0.05, 0.1)], tolerances=(49, 50, 100))
    assert score.starts.within == (0.0, 1.0, 1.0)
    assert score.both.within == (0.0, 0.5, 1.0)
    assert score.found_within == (0.0, 0.0, 1.0)


def test_perfect_times_are_a_shift_of_zero():
    score = score_times([REFERENCE], [REFERENCE])
    assert score.both.mean == score.both.p99 == 0
    assert score.found_within == (1.0, 1.0, 1.0)
    assert score.complete


def test_percentiles_are_those_of_all_boundaries():
    sizes = np.arange(1, 11) / 100
    words = [(f"w{i}", 1.0 * i, i + 0.5) for i in range(10)]
    late = [(f"w{i}", i + size, i + 0.5 + size) for i, size in enumerate(sizes)]
    score = score_times([spoken("a", *words)], [spoken("a", *late)])
    expected = np.percentile(1000 * np.repeat(sizes, 2), [50, 90, 95, 99])
    both = score.both
    assert (both.median, both.p90, both.p95, both.p99) == pytest.approx(tuple(expected))


def test_wrong_words_are_not_compared_but_stand_in_the_share_found():
    heard = spoken("a", ("one", 1.0, 1.5), ("tow", 9.0, 9.5), ("three", 2.5, 3.0))
    score = score_times([REFERENCE], [heard])
    assert (score.matched, score.reference_words, score.hypothesis_words) == (2, 3, 3)
    assert score.both.mean == 0
    assert score.found_within == pytest.approx((2 / 3,) * 3)


def test_a_missing_hypothesis_leaves_its_words_unfound_and_is_named():
    other = spoken("b", ("yes", 0.0, 1.0))
    score = score_times([REFERENCE, other], [REFERENCE, spoken("c", ("no", 0.0, 1.0)), REFERENCE])
    assert (score.missing, score.extra, score.duplicates) == (("b",), ("c",), ("a",))
    assert score.found_within == (0.75, 0.75, 0.75)
    assert not score.complete


def test_of_repeated_words_the_one_that_was_heard_is_compared():
    said = spoken("a", ("no", 0.0, 0.2), ("no", 1.0, 1.2), ("no", 2.0, 2.2))
    for place in range(3):
        word = said.words[place]
        score = score_times([said], [spoken("a", (word.text, word.start + 0.01, word.end))])
        assert score.both.mean == pytest.approx(5.0)


def test_no_words_in_common_is_no_number():
    score = score_times([REFERENCE], [spoken("a", ("x", 0.0, 1.0))])
    assert (score.starts, score.ends, score.both, score.interval) == (None, None, None, None)
    assert score.found_within == (0.0, 0.0, 0.0)
    assert str(score).startswith("word shift undefined norm=raw@")


def test_references_without_any_word_have_no_share():
    score = score_times([Utterance("a", "")], [Utterance("a", "")])
    assert math.isnan(score.found_within[0])


def test_words_are_normalised_and_what_is_nothing_is_no_word():
    heard = spoken("a", ("One,", 1.0, 1.5), ("...", 1.5, 1.6), ("TWO", 1.5, 2.0))
    score = score_times([REFERENCE], [heard], normalizer="llmasr-en")
    assert (score.matched, score.hypothesis_words) == (2, 2)
    assert score.normalizer.startswith("llmasr-en-1@")


def test_what_is_out_of_bounds_is_skipped_on_both_sides():
    ignored = Utterance("b", "", start=0.0, end=1.0, is_ignored=True)
    score = score_times([REFERENCE, ignored], [REFERENCE, spoken("b", ("hm", 0.0, 1.0))])
    assert score.complete
    assert len(score.details) == 1


def noisy_set(size: int, group: bool) -> tuple[list[Utterance], list[Utterance]]:
    """Utterances of two words, of ten speakers with delays of their own."""
    generator = np.random.default_rng(3)
    references, hypotheses = [], []
    for i in range(size):
        speaker = f"s{i % 10}" if group else None
        reference = spoken(f"u{i}", ("a", 1.0, 1.2), ("b", 2.0, 2.2), group=speaker)
        delay = 0.01 * (i % 10) + 0.001 * generator.random()
        references.append(reference)
        hypotheses.append(shifted(reference, delay, delay))
    return references, hypotheses


def test_the_interval_is_a_bootstrap_over_utterances_around_the_mean():
    references, hypotheses = noisy_set(100, group=False)
    score = score_times(references, hypotheses)
    sums = np.array([np.abs([*each.starts, *each.ends]).sum() for each in score.details])
    assert score.interval == ratio_interval(sums, np.full(100, 4))
    assert score.interval[0] < score.both.mean < score.interval[1]


def test_speakers_that_differ_widen_the_interval():
    alone = score_times(*noisy_set(100, group=False)).interval
    grouped = score_times(*noisy_set(100, group=True)).interval
    assert grouped[1] - grouped[0] > 1.5 * (alone[1] - alone[0])


def test_the_order_of_utterances_changes_nothing():
    references, hypotheses = noisy_set(30, group=True)
    assert score_times(references[::-1], hypotheses[::-1]) == score_times(references, hypotheses)


def test_the_printed_table_says_how_it_was_made():
    score = score_times([REFERENCE], [shifted(REFERENCE, 0.02, 0.04)])
    line, header, starts, ends, both, found = str(score).split("\n")
    assert line.endswith(
        " n=1 utt, matched 3 of 3 reference words, 3 recognised, missing 0, extra 0, duplicate 0"
    )
    assert header.split()[:3] == ["ms", "mean", "median"]
    assert starts.split()[:7] == ["starts", *["20.0"] * 5, "+20.0"]
    assert ends.split()[1] == "40.0"
    assert both.split()[1] == "30.0"
    assert found.index("100.0 %") == starts.index("100.0 %")


vocabulary = st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.integers(0, 5))
sequence = st.lists(vocabulary, max_size=5).map(
    lambda items: [
        TimedWord(w, s / 10, (s + d) / 10) for w, s, d in sorted(items, key=lambda i: i[1])
    ]
)


def alignments(n: int, m: int):
    """Yield every way to pair some of n places with some of m, in order."""
    for size in range(min(n, m) + 1):
        for rows in itertools.combinations(range(n), size):
            for columns in itertools.combinations(range(m), size):
                yield list(zip(rows, columns, strict=True))


def quality(pairs, said, heard):
    """Errors, fewest equal words last, and the sum of shifts: what `match_words` minimises."""
    equal = [(said[i], heard[j]) for i, j in pairs if said[i].text == heard[j].text]
    errors = len(said) + len(heard) - len(pairs) - len(equal)
    shifts = [
        min(round(1000 * abs(a.start - b.start)) + round(1000 * abs(a.end - b.end)), FARTHEST)
        for a, b in equal
    ]
    return errors, -len(equal), sum(shifts)


@settings(max_examples=150, deadline=None)
@given(sequence, sequence)
def test_words_are_matched_as_the_best_of_all_alignments_does(said, heard):
    pairs = match_words(said, heard)
    assert all(said[i].text == heard[j].text for i, j in pairs)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(pairs))
    errors, matches, shift = min(
        quality(each, said, heard) for each in alignments(len(said), len(heard))
    )
    assert errors == sum(count_errors([w.text for w in said], [w.text for w in heard]))
    # Equal texts are matched in order without a search: no other alignment is free of errors.
    assert (len(pairs), quality(pairs, said, heard)[2]) == (-matches, shift)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"references": []}, "references is empty; at least one is needed"),
        ({"references": [REFERENCE, REFERENCE]}, "reference id 'a' occurs twice"),
        ({"references": [Utterance("a", "x")]}, "reference 'a' has a text but no word times"),
        ({"hypotheses": [Utterance("a", "x")]}, "hypothesis 'a' has a text but no word times"),
        (
            {"tolerances": (50, math.nan)},
            r"tolerances is \(50, nan\); expected finite values above",
        ),
        ({"normalizer": "none"}, "normalizer is 'none'; allowed: raw"),
    ],
    ids=["empty", "twice", "reference", "hypothesis", "tolerance", "normalizer"],
)
def test_a_wrong_argument_is_named_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        score_times(**{"references": [REFERENCE], "hypotheses": [REFERENCE], **arguments})


def test_the_command_prints_the_table_and_names_what_is_missing(tmp_path, capsys):
    (tmp_path / "ref.ctm").write_text("a 1 1.0 0.5 one\nb 1 0.0 0.5 two\n")
    (tmp_path / "hyp.ctm").write_text("a 1 1.1 0.5 one\n")
    assert main(["score-times", str(tmp_path / "ref.ctm"), str(tmp_path / "hyp.ctm")]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("word shift 100.0 ms norm=raw@")
    assert "matched 1 of 2 reference words" in printed.out
    assert printed.err == "missing: b\n"


def test_the_command_is_content_with_a_complete_pair(tmp_path, capsys):
    (tmp_path / "ref.ctm").write_text("a 1 1.0 0.5 One\n")
    files = [str(tmp_path / "ref.ctm")] * 2
    assert main(["score-times", *files, "--norm", "llmasr-en"]) == 0
    assert "norm=llmasr-en-1@" in capsys.readouterr().out


def test_the_command_reports_a_bad_file_without_traceback(tmp_path, capsys):
    (tmp_path / "ref.ctm").write_text("a 1 nan 0.5 one\n")
    assert main(["score-times", *[str(tmp_path / "ref.ctm")] * 2]) == 1
    assert "ref.ctm, line 1: start is nan" in capsys.readouterr().err
