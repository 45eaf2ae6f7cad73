"""Comparing two systems: both tests find a difference where there is one, and none where not."""

import json
import math

import numpy as np
import pytest

from llmasr.scoring import Utterance, compare, score
from llmasr.scoring.compare import matched_pairs, split_segments

WORDS = [f"w{i}" for i in range(500)]


def reference_set(size=300, groups=None):
    """References of 4 to 12 words, no word twice."""
    generator = np.random.default_rng(5)
    return [
        Utterance(
            f"u{i:04}",
            " ".join(generator.choice(WORDS, generator.integers(4, 13), replace=False)),
            group=f"s{i % groups}" if groups else None,
        )
        for i in range(size)
    ]


def recognised(references, error_rate, seed):
    """What a system hears that takes words for others."""
    generator = np.random.default_rng(seed)
    return {
        each.id: " ".join(
            "wrong" if generator.random() < error_rate else word for word in each.text.split()
        )
        for each in references
    }


def scored(references, error_rate, seed, **options):
    return score(references, recognised(references, error_rate, seed), **options)


def test_a_system_against_itself_is_no_different():
    system = scored(reference_set(), 0.1, seed=1)
    found = compare(system, system)
    assert (found.difference, found.interval) == (0.0, (0.0, 0.0))
    assert (found.improvement, found.p_value) == (0.5, 1.0)
    assert (found.matched_pairs.z, found.matched_pairs.p_value) == (0.0, 1.0)


def test_a_much_better_system_is_found_better_by_both_tests():
    references = reference_set()
    found = compare(scored(references, 0.05, seed=1), scored(references, 0.2, seed=2))
    assert found.difference < found.interval[1] < 0
    assert found.improvement == 1.0
    assert found.p_value == pytest.approx(2 / 10_001)
    assert found.matched_pairs.z < -5
    assert found.matched_pairs.p_value < 1e-6


def test_equally_good_systems_seldom_differ():
    references = reference_set(100)
    p_values = []
    for seed in range(40):
        ours = scored(references, 0.1, seed)
        theirs = scored(references, 0.1, seed + 100)
        found = compare(ours, theirs, replications=500)
        p_values.append((found.p_value, found.matched_pairs.p_value))
    # 5 % of 40 are 2; 8 or more have a chance of one in a thousand.
    assert (np.array(p_values) < 0.05).sum(0).max() < 8
    assert (np.array(p_values) > 0.5).sum(0).min() > 8


def test_swapping_the_systems_turns_every_sign():
    references = reference_set()
    one, two = scored(references, 0.10, seed=1), scored(references, 0.12, seed=2)
    there, back = compare(one, two), compare(two, one)
    assert there.difference == -back.difference
    assert there.matched_pairs.z == -back.matched_pairs.z
    assert there.improvement + back.improvement == pytest.approx(1, abs=0.02)
    assert there.p_value == pytest.approx(back.p_value, abs=0.04)


def test_draws_without_difference_count_half():
    references = {"a": "x", "b": "x", "c": "x", "d": "x"}
    found = compare(score(references, references), score(references, {**references, "a": "y"}))
    # A draw of four lacks "a" with a chance of (3/4) ** 4; then the systems are equal.
    assert found.improvement == pytest.approx(1 - 0.75**4 / 2, abs=0.02)


def test_the_seed_decides_the_draws():
    references = reference_set(50)
    one, two = scored(references, 0.10, seed=1), scored(references, 0.12, seed=2)
    assert compare(one, two) == compare(one, two)
    assert compare(one, two, seed=1) != compare(one, two)


def test_drawing_speakers_widens_the_interval_when_they_differ():
    references = reference_set(200, groups=5)
    heard = {each.id: each.text for each in references}
    bad = {i: text if int(i[1:]) % 5 else "" for i, text in heard.items()}
    alone = [Utterance(each.id, each.text) for each in references]
    grouped = compare(score(references, bad), score(references, heard)).interval
    single = compare(score(alone, bad), score(alone, heard)).interval
    assert grouped[1] - grouped[0] > 2 * (single[1] - single[0])


def test_one_utterance_has_no_interval_and_no_p_value():
    found = compare(score({"a": "x y"}, {"a": "x"}), score({"a": "x y"}, {"a": "x y"}))
    assert (found.interval, found.p_value, found.improvement) == (None, None, None)
    assert found.paired == "paired p=undefined vs base"
    assert math.isnan(found.matched_pairs.p_value)
    json.dumps(found.to_dict(), allow_nan=False)


def test_words_under_foreign_ids_count_against_the_system_that_wrote_them():
    references = {"a": "x y", "b": "x y"}
    found = compare(score(references, {**references, "c": "z"}), score(references, references))
    assert found.difference == 1 / 4


def test_partial_scores_are_compared_where_both_have_hypotheses():
    references = {"a": "x", "b": "y", "c": "z"}
    one = score(references, {"a": "x", "b": "wrong"}, allow_partial=True)
    two = score(references, {"b": "y", "c": "z"}, allow_partial=True)
    found = compare(one, two)
    assert (found.utterances, found.difference) == (1, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "cer"}, "metric is 'wer' for system and 'cer' for baseline"),
        ({"normalizer": "llmasr-en"}, "normalizer is 'raw@"),
        ({"allow_partial": True}, "allow_partial is False for system and True"),
        ({"references": {"a": "x"}}, "references is 2 for system and 1 for baseline"),
        ({"references": {"a": "x", "b": "z"}}, "different references: 'b' and 'b', 'y' and 'z'"),
    ],
    ids=["metric", "normalizer", "partial", "count", "text"],
)
def test_scores_that_cannot_be_compared_are_refused(change, message):
    references = {"a": "x", "b": "y"}
    baseline = score(**{"references": references, "hypotheses": references, **change})
    with pytest.raises(ValueError, match=message):
        compare(score(references, references), baseline)


def test_scores_without_a_common_utterance_are_refused():
    references = {"a": "x", "b": "y"}
    one, two = (score(references, {i: "x"}, allow_partial=True) for i in "ab")
    with pytest.raises(ValueError, match="no utterance in common"):
        compare(one, two)


# reference, system, baseline, errors of both in each segment
SEGMENTS = [
    ("a b c d", "a b c d", "a b c d", []),
    ("a b c d", "x b c d", "a b c y", [(1, 0), (0, 1)]),
    ("a b c", "x b c", "a b y", [(1, 1)]),
    ("a b c d", "x b c d", "a b q c y", [(1, 2)]),
    ("a b c d e", "x b c d e", "a b c q d e", [(1, 0), (0, 1)]),
    ("a b c d e f", "a b c d e", "x a b c d e f y", [(0, 1), (1, 1)]),
    ("a b c", "", "a b c", [(3, 0)]),
]


@pytest.mark.parametrize(("reference", "system", "baseline", "expected"), SEGMENTS)
def test_segments_end_where_both_have_two_words_right(reference, system, baseline, expected):
    (ours,) = score({"u": reference}, {"u": system}).details
    (theirs,) = score({"u": reference}, {"u": baseline}).details
    assert list(split_segments(ours, theirs)) == expected


def test_segments_hold_all_errors_of_the_references():
    references = reference_set(100)
    one, two = scored(references, 0.2, seed=1), scored(references, 0.3, seed=2)
    pairs = zip(one.details, two.details, strict=True)
    segments = [segment for ours, theirs in pairs for segment in split_segments(ours, theirs)]
    assert np.sum(segments, axis=0).tolist() == [one.errors, two.errors]


def test_the_statistic_of_matched_pairs_is_that_of_the_formula():
    found = matched_pairs([(1, 0), (2, 0), (0, 1), (1, 1), (3, 1)])
    differences = np.array([1, 2, -1, 0, 2])
    assert found.mean == pytest.approx(0.8)
    assert found.deviation == pytest.approx(differences.std(ddof=1))
    assert found.z == pytest.approx(0.8 / (differences.std(ddof=1) / 5**0.5))
    assert found.p_value == pytest.approx(math.erfc(found.z / 2**0.5))


def test_segments_that_all_differ_alike_tell_nothing_of_their_spread():
    assert math.isnan(matched_pairs([(1, 0), (1, 0)]).p_value)
    assert math.isnan(matched_pairs([(1, 0)]).p_value)
    assert matched_pairs([]).p_value == 1.0


def test_the_comparison_prints_as_one_line():
    references = reference_set(60)
    line = str(compare(scored(references, 0.1, 1), scored(references, 0.2, 2), name="v1"))
    assert "points against v1 [95 % CI -" in line
    assert ", paired bootstrap p=" in line
    assert ", MAPSSWE p=" in line
    assert "\n" not in line
