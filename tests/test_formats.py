"""Files made from transcripts are what other programs expect."""

import json
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmasr.formats import FORMATS, LINE_CHARACTERS, LINES, MAX_CUE_MS, cues
from llmasr.transcript import Segment, Transcript, Word


def transcript_of(words: list[Word], duration: float | None = None) -> Transcript:
    end = duration if duration is not None else words[-1].end if words else 0.0
    text = " ".join(word.text for word in words)
    return Transcript(text, segments=(Segment(0.0, end, text, tuple(words)),), duration=end)


@st.composite
def spoken(draw):
    """Words in order of time, with pauses, of any length in characters and seconds."""
    words, clock = [], 0.0
    letters = st.text(st.sampled_from("ab'-.<&>語"), min_size=1, max_size=100)
    for text in draw(st.lists(letters, max_size=30)):
        start = clock + draw(st.floats(0, 3))
        clock = start + draw(st.floats(0, 9))
        words.append(Word(text, start, clock, 1.0))
    return transcript_of(words)


@given(spoken())
def test_cues_are_readable_in_order_and_lose_no_letter(transcript):
    laid_out = cues(transcript)
    for cue in laid_out:
        assert cue.start < cue.end <= cue.start + MAX_CUE_MS
        assert 1 <= len(cue.lines) <= LINES
        assert all(len(line) <= LINE_CHARACTERS for line in cue.lines)
    assert all(one.end <= two.start for one, two in pairwise(laid_out))
    shown = "".join(line for cue in laid_out for line in cue.lines)
    assert shown.replace(" ", "") == transcript.text.replace(" ", "")


def test_srt_has_numbers_commas_and_empty_lines():
    transcript = transcript_of([Word("Hello", 0.5, 1.25, 1.0), Word("there", 3661.5, 3662.75, 1.0)])
    assert FORMATS["srt"](transcript) == (
        "1\n00:00:00,500 --> 00:00:01,500\nHello\n\n2\n01:01:01,500 --> 01:01:02,750\nthere\n\n"
    )


def test_vtt_has_a_header_points_and_escapes():
    transcript = transcript_of([Word("a<b&c-->", 0.0, 2.0, 1.0)])
    cue = "00:00:00.000 --> 00:00:02.000\na&lt;b&amp;c--&gt;\n"
    assert FORMATS["vtt"](transcript) == "WEBVTT\n\n" + cue


def test_a_pause_ends_a_cue():
    words = [Word("one", 0, 1, 1.0), Word("two", 1.2, 2, 1.0), Word("three", 4, 5, 1.0)]
    assert [cue.lines for cue in cues(transcript_of(words))] == [("one two",), ("three",)]


def test_a_sentence_ends_a_cue():
    assert len(cues(transcript_of([Word("Yes.", 0, 1, 1.0), Word("No", 1, 2, 1.0)]))) == 2


def test_a_short_cue_stays_until_it_can_be_read():
    assert cues(transcript_of([Word("Hi", 1.0, 1.1, 1.0)], duration=9.0))[0].end == 2000


def test_a_segment_without_words_still_has_cues():
    transcript = Transcript("one two", segments=(Segment(0.0, 2.0, "one two"),), duration=2.0)
    assert [cue.lines for cue in cues(transcript)] == [("one two",)]


@pytest.mark.parametrize("name", FORMATS)
def test_an_empty_transcript_is_a_valid_file(name):
    content = FORMATS[name](Transcript("", status="empty"))
    assert {"txt": "\n", "srt": "", "vtt": "WEBVTT\n"}.get(name, content) == content


def test_json_is_the_dictionary_and_readable():
    transcript = transcript_of([Word("héllo", 0.0, 1.0, 0.5)])
    assert json.loads(FORMATS["json"](transcript)) == transcript.to_dict()
    assert "héllo" in FORMATS["json"](transcript)


def test_methods_write_the_same_files():
    transcript = transcript_of([Word("one", 0.0, 1.0, 0.5)])
    assert transcript.to_txt() == "one\n"
    assert transcript.to_srt() == FORMATS["srt"](transcript)
    assert transcript.to_vtt() == FORMATS["vtt"](transcript)
    assert re.match(r"1\n00:00:00,000 --> ", transcript.to_srt())
