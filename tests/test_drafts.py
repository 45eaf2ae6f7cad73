"""What a language model learns to say to a draft with errors, and what is made of what it says."""

import random

import pytest
from rapidfuzz.distance import Levenshtein

from llmasr.decoding.drafts import Draft
from llmasr.training.drafts import next_ids

END = 99


@pytest.mark.parametrize(
    ("draft", "expected"),
    [
        ([1, 2, 3], [1, 2, 3, END]),
        ([1, 8, 3], [1, 2, 3, END]),
        ([1, 2, 8, 3], [1, 2, 3, 3, END]),
        ([1, 3], [1, 2, END]),
        ([2, 3], [1, 3, END]),
        ([1, 2], [1, 2, 3]),
        ([1, 2, 3, 8], [1, 2, 3, END, END]),
        ([], [1]),
    ],
    ids=["right", "wrong", "too many", "too few", "late", "cut", "too long", "empty"],
)
def test_at_every_place_of_a_draft_the_answer_goes_on(draft, expected):
    assert next_ids(draft, [1, 2, 3, END]) == expected


def test_the_answer_to_silence_ends_at_every_place():
    assert next_ids([4, 5], [END]) == [END, END, END]


def test_every_place_lies_on_a_way_with_the_fewest_edits():
    draw, distance = random.Random(0), Levenshtein.distance
    for _ in range(500):
        draft, said = ([draw.randrange(4) for _ in range(draw.randrange(8))] for _ in range(2))
        answer = [*said, END]
        for place, token in enumerate(next_ids(draft, answer)):
            assert any(
                distance(draft[:place], said[:end]) + distance(draft[place:], said[end:])
                == distance(draft, said)
                for end in range(len(answer))
                if answer[end] == token
            )


@pytest.mark.parametrize(
    "guess",
    [[1, 8, 3, 4, 5], [1, 8, 3, 9, 5], [1, 8, 2, 3, 9, 5], [1, 8, 2, 3, 9, 4, 5], [1, 3, 9, 5]],
    ids=["one wrong", "two wrong", "too many and wrong", "two too many", "too few and wrong"],
)
def test_what_is_said_to_a_draft_mends_it(guess):
    answer = [1, 2, 3, 4, 5]
    said = next_ids(guess, [*answer, END])[:-1]
    error = next(place for place, token in enumerate(guess) if token != said[place])
    draft = Draft(guess)
    assert draft.rest([]) == guess
    draft.mend(said, error)
    assert draft.rest(answer[: error + 1])[-2:] == [4, 5]


def test_only_what_was_said_and_is_to_be_trusted_mends():
    draft = Draft([1, 8, 3, 9, 5, 7])
    assert draft.rest([1]) == [8, 3, 9, 5, 7]
    draft.mend([2, None, 4], 0)  # to the first three of the rest; not sure about the second
    assert draft.rest([1, 2]) == [3, 4, 5, 7]


def test_words_that_are_said_twice_stay():
    draft = Draft([8, 7, 7, 7])
    assert draft.rest([]) == [8, 7, 7, 7]
    draft.mend([6, 7, 7, 7], 0)
    assert draft.rest([6]) == [7, 7, 7]
