"""Loops, bursts and gaps are named; what was really said is left alone."""

import pytest
import torch

from llmasr.api import ASSETS, Recognizer
from llmasr.decoding.greedy import recognise, write
from llmasr.decoding.guards import flags, looping
from llmasr.decoding.hypothesis import Answer, Request
from llmasr.decoding.search import Candidate
from llmasr.models.checkpoint import load_pretrained


class Stuck:
    """A language model that has one word."""

    stop_ids = frozenset([2])
    max_length = None

    def embed(self, ids):
        return torch.zeros(*ids.shape, 4)

    def read(self, vectors, mask, prompt_lengths, cache=None, keep=0):
        logits = torch.zeros(len(vectors), keep, 9)
        logits[..., 5] = 1.0
        return logits, cache


@pytest.fixture
def bundle():
    return load_pretrained(ASSETS / "tiny-test")


@pytest.fixture
def sound():
    waveforms = 0.1 * torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    return waveforms, torch.tensor([16_000, 12_000])


def stuck(reader, embeddings, mask, requests, acceptance=None):
    """Answer with a loop, as a search that was stopped does."""
    return [Answer(r.bound, r.heard, [5] * 9, [-0.1] * 9, "repetition", 9) for r in requests]


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


def test_a_loop_stops_the_search_early():
    prompt, mask = torch.zeros(1, 3, 4), torch.ones(1, 3, dtype=torch.bool)
    (stopped,) = write(Stuck(), prompt, mask, [Request([], 40, heard=2)])
    assert (stopped.finish_reason, stopped.ids) == ("repetition", [5] * 4)
    (heard,) = write(Stuck(), prompt, mask, [Request([], 4, heard=4)])
    assert (heard.finish_reason, heard.ids) == ("length", [5] * 4)
    (unguarded,) = write(Stuck(), prompt, mask, [Request([], 40)])
    assert len(unguarded.ids) == 40


def test_a_second_attempt_replaces_a_loop_and_is_flagged(bundle, sound, monkeypatch):
    better = Candidate((7, 8), (-0.1, -0.2, -0.3), is_complete=True)
    monkeypatch.setattr("llmasr.decoding.greedy.beam_search", lambda *_: [better])
    for hypothesis in recognise(bundle.model, *sound, search=stuck):
        assert hypothesis.token_ids == [7, 8]
        assert hypothesis.log_probs == [-0.1, -0.2]
        assert hypothesis.finish_reason == "stop"
        assert hypothesis.flags[0] == "repetition"
        assert hypothesis.llm_forwards > 9


def test_a_second_loop_leaves_the_first_answer_as_it_is(bundle, sound, monkeypatch):
    again = Candidate((6,) * 200, (-0.1,) * 200, is_complete=False)
    monkeypatch.setattr("llmasr.decoding.greedy.beam_search", lambda *_: [again])
    for hypothesis in recognise(bundle.model, *sound, search=stuck):
        assert hypothesis.token_ids == [5] * 9
        assert hypothesis.finish_reason == "repetition"
        assert "repetition" in hypothesis.flags


def test_a_transcript_tells_of_a_loop(sound, monkeypatch):
    monkeypatch.setattr("llmasr.decoding.greedy.draft_and_verify", stuck)
    monkeypatch.setattr(
        "llmasr.decoding.greedy.beam_search", lambda *_: [Candidate((6,) * 99, (-0.1,) * 99, False)]
    )
    recognizer = Recognizer.from_pretrained("tiny-test", device="cpu")
    transcript = recognizer.transcribe((sound[0][0].numpy(), 16_000))
    assert transcript.status == "truncated"
    assert transcript.finish_reason == "repetition"
    assert "repetition" in transcript.flags


def test_another_instruction_changes_the_prompt_and_is_flagged(sound):
    recognizer = Recognizer.from_pretrained("tiny-test", device="cpu")
    audio = (sound[0][0].numpy(), 16_000)
    plain = recognizer.transcribe(audio)
    trained = recognizer.bundle.model.config.prompt.instruction
    assert "prompt_changed" not in plain.flags
    assert recognizer.transcribe(audio, instruction=trained).text == plain.text
    changed = recognizer.transcribe(audio, instruction="sing it")
    assert "prompt_changed" in changed.flags
