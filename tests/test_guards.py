"""Loops, bursts and gaps are named; what was really said is left alone."""

import pytest

from llmasr.decoding.guards import flags, looping


@pytest.mark.parametrize(
    ("token_ids", "fires", "expected"),
    [
        ([5, 5, 5, 5], 4, 0),  # "no no no no", spoken
        ([5, 5, 5, 5], 2, 4),
        ([1, 2, 3, 5, 5, 5, 5, 5], 4, 5),
        ([1, 7, 8, 7, 8, 7, 8], 3, 6),
        ([1, 7, 8, 7, 8, 7, 8], 6, 0),
        ([1, 2, 3, 4, 2, 3, 4, 2, 3, 4], 4, 9),
        ([1, 2, 3, 4, 5, 6, 7, 8], 2, 0),  # long, but not a loop
        ([5, 5, 5], 0, 0),  # too little to tell
        ([], 0, 0),
    ],
)
def test_a_loop_repeats_more_than_was_heard(token_ids, fires, expected):
    assert looping(token_ids, fires) == expected


def test_a_loop_of_a_long_phrase_is_found():
    phrase = list(range(12))
    assert looping(phrase * 3, 12) == 36
    assert looping(phrase * 2, 12) == 0


def test_a_burst_of_insertions_is_named():
    assert flags([1, 2, 3, 4, 5, 6], [0, None, None, None, None, None], 4) == ("insertions",)
    assert flags([1, 2, 3, 4, 5, 6], [0, None, None, 1, None, None], 4) == ()


def test_missing_words_are_named():
    assert flags([1, 2], [0, 5], 8) == ("deletions",)
    assert flags([1, 2], [0, 1], 4) == ()
    assert flags([], [], 8) == ("deletions",)


def test_a_loop_is_named_when_the_answer_is_finished():
    assert "repetition" in flags([1, 5, 5, 5, 5, 5], [0, 1, None, None, None, None], 2)
