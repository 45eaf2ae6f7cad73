"""Word times are monotone, inside the audio and those of the fires where text and draft agree."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasr.decoding.greedy import Hypothesis
from llmasr.decoding.timestamps import align, token_intervals, words_from
from llmasr.transcript import Word

PIECES = ["\u2581the", "\u2581cat", "s", "\u2581", "\u2581sat", "."]


class StubTokenizer:
    def pieces(self, ids):
        return [PIECES[index] for index in ids]

    def decode(self, ids):
        return "".join(self.pieces(ids)).replace("\u2581", " ").strip()


def heard(token_ids, draft_ids, fire_times):
    log_probs = [0.0] * len(token_ids)
    return Hypothesis(token_ids, log_probs, draft_ids, fire_times, "stop")


IDS = st.lists(st.integers(0, len(PIECES) - 1), max_size=20)


@st.composite
def hypotheses(draw):
    draft = draw(IDS)
    times = draw(st.lists(st.floats(-1, 25), min_size=len(draft), max_size=len(draft)))
    tokens = draw(IDS)
    log_probs = draw(st.lists(st.floats(-50, 1e-6), min_size=len(tokens), max_size=len(tokens)))
    return Hypothesis(tokens, log_probs, draft, times, "stop")


@given(hypotheses(), st.floats(0, 20))
def test_words_are_monotone_inside_the_audio_and_complete(hypothesis, duration):
    words = words_from(hypothesis, StubTokenizer(), duration)
    edges = [0.0] + [edge for word in words for edge in (word.start, word.end)] + [duration]
    assert edges == sorted(edges)
    assert all(0.0 <= word.confidence <= 1.0 for word in words)
    # Only a word mark that is repeated, or follows nothing, has no word of its own.
    text = StubTokenizer().decode(hypothesis.token_ids)
    assert "".join(word.text for word in words) == text.replace(" ", "")


@given(IDS, IDS)
def test_alignment_costs_the_edit_distance(tokens, draft):
    counterparts = align(tokens, draft)
    pairs = [(row, column) for row, column in enumerate(counterparts) if column is not None]
    assert all(one[1] < two[1] for one, two in pairwise(pairs))
    wrong = sum(tokens[row] != draft[column] for row, column in pairs)
    assert wrong + len(tokens) + len(draft) - 2 * len(pairs) == edit_distance(tokens, draft)


def edit_distance(one, two):
    if not one or not two:
        return len(one) + len(two)
    row = list(range(len(two) + 1))
    for i, left in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(two, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def test_text_equal_to_the_draft_has_the_times_of_the_fires():
    words = words_from(heard([0, 1, 2], [0, 1, 2], [0.5, 1.0, 1.25]), StubTokenizer(), 2.0)
    assert words == [Word("the", 0.0, 0.5, 1.0), Word("cats", 0.5, 1.25, 1.0)]


def test_a_token_after_a_silence_is_short():
    words = words_from(heard([0, 1], [0, 1], [5.0, 9.0]), StubTokenizer(), 10.0)
    assert [(word.start, word.end) for word in words] == [(4.0, 5.0), (8.0, 9.0)]


def test_a_replaced_token_takes_the_fire_of_what_it_replaces():
    assert align([0, 4, 2], [0, 1, 2]) == [0, 1, 2]


def test_a_token_dropped_by_the_language_model_leaves_its_time_free():
    words = words_from(heard([0, 4], [0, 1, 4], [0.5, 1.0, 1.5]), StubTokenizer(), 2.0)
    assert [(word.start, word.end) for word in words] == [(0.0, 0.5), (1.0, 1.5)]


def test_an_inserted_token_shares_the_time_to_the_next_fire():
    words = words_from(heard([0, 4, 1], [0, 1], [0.5, 1.5]), StubTokenizer(), 2.0)
    assert [(word.text, word.start, word.end) for word in words] == [
        ("the", 0.0, 0.5),
        ("sat", 0.5, 1.0),
        ("cat", 1.0, 1.5),
    ]


def test_an_inserted_token_at_the_end_takes_time_after_the_last_fire():
    assert token_intervals([0, None], [0.5], 5.0)[-1] == (0.5, 1.5)


def test_an_inserted_token_without_time_left_shares_the_last_one():
    assert token_intervals([0, None], [1.0], 1.0) == [(0.0, 0.5), (0.5, 1.0)]


def test_confidence_is_the_geometric_mean_of_the_tokens():
    log_probs = [math.log(0.9), math.log(0.4)]
    words = words_from(Hypothesis([1, 2], log_probs, [], [], "stop"), StubTokenizer(), 1.0)
    assert words[0].confidence == pytest.approx(0.6)


def test_no_tokens_give_no_words():
    assert words_from(heard([], [1], [0.5]), StubTokenizer(), 1.0) == []
