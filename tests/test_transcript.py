"""Transcripts are plain values that survive JSON."""

import json
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasr.transcript import STATUSES, Segment, Transcript, Word

SECONDS = st.floats(0, 1e5, allow_nan=False)
WORDS = st.builds(Word, st.text(), SECONDS, SECONDS, st.floats(0, 1))
SEGMENTS = st.builds(Segment, SECONDS, SECONDS, st.text(), st.lists(WORDS, max_size=3).map(tuple))
TRANSCRIPTS = st.builds(
    Transcript,
    text=st.text(),
    language=st.none() | st.just("en"),
    status=st.sampled_from(STATUSES),
    finish_reason=st.sampled_from(["stop", "length", "silence", None]),
    flags=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    segments=st.lists(SEGMENTS, max_size=3).map(tuple),
    duration=SECONDS,
    timings=st.dictionaries(st.text(max_size=5), SECONDS, max_size=2),
    model=st.text(max_size=5),
    error=st.none() | st.text(),
)


@given(TRANSCRIPTS)
def test_a_transcript_survives_json(transcript):
    values = json.loads(json.dumps(transcript.to_dict()))
    assert Transcript.from_dict(values) == transcript


def test_the_schema_is_named():
    assert Transcript("a").to_dict()["schema"] == "llmasr.transcript/1"


def test_another_schema_is_refused_by_name():
    with pytest.raises(ValueError, match=r"llmasr\.transcript/9"):
        Transcript.from_dict({**Transcript("a").to_dict(), "schema": "llmasr.transcript/9"})


def test_an_unknown_status_is_refused_with_the_allowed_ones():
    with pytest.raises(ValueError, match=r"'fine'.*truncated"):
        Transcript("a", status="fine")


def test_words_are_those_of_all_segments_in_order():
    one, two = Word("one", 0.0, 0.5, 0.9), Word("two", 1.0, 1.5, 0.8)
    transcript = Transcript(
        "one two", segments=(Segment(0, 1, "one", (one,)), Segment(1, 2, "two", (two,)))
    )
    assert transcript.words == (one, two)


def test_a_transcript_does_not_change():
    with pytest.raises(FrozenInstanceError):
        Transcript("a").text = "b"  # type: ignore[misc]
