"""Beams and samples on a tiny random language model."""

import numpy as np
import pytest
import torch
from transformers import GlmConfig, GlmForCausalLM

from llmasr import Recognizer, Transcript
from llmasr.decoding.search import SearchOptions, inspect, search, seed_of
from llmasr.models.language.base import CausalLanguageModel

BOUND = 8


@pytest.fixture(scope="module")
def reader():
    torch.manual_seed(0)
    config = GlmConfig(
        vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, eos_token_id=[2], pad_token_id=0,
    )  # fmt: skip
    model = GlmForCausalLM(config).eval()
    model.lm_head.weight.data *= 20  # decided enough for answers to differ
    return CausalLanguageModel(model)


@pytest.fixture(scope="module")
def prompts():
    return list(torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(1)))


@pytest.fixture(scope="module")
def sound():
    return 0.1 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32), 16_000


def greedy(reader, prompt):
    """Choose the likeliest token of a full forward pass, again and again."""
    ids = []
    while len(ids) < BOUND and not (ids and ids[-1] in reader.stop_ids):
        answer = torch.tensor(ids, dtype=torch.int64)
        vectors = torch.cat([prompt, reader.embed(answer)])[None]
        logits, _ = reader.read(vectors, torch.ones(vectors.shape[:2]).bool(), torch.tensor([5]))
        ids.append(int(logits[0, -1].argmax()))
    return ids


def log_prob_of(reader, prompt, ids):
    vectors = torch.cat([prompt, reader.embed(torch.tensor(ids))])[None]
    logits = reader.model(inputs_embeds=vectors).logits[0].log_softmax(-1)
    return [logits[len(prompt) - 1 + place, token].item() for place, token in enumerate(ids)]


def test_one_beam_is_greedy(reader, prompts):
    for prompt in prompts:
        (found,) = search(reader, prompt, BOUND, SearchOptions())
        expected = greedy(reader, prompt)
        assert found.is_complete == (expected[-1] in reader.stop_ids)
        assert list(found.token_ids) == expected[: len(expected) - found.is_complete]


def test_more_beams_find_answers_at_least_as_likely_and_in_order(reader, prompts):
    for prompt in prompts:
        (alone,) = search(reader, prompt, BOUND, SearchOptions())
        found = search(reader, prompt, BOUND, SearchOptions(beam_size=6, n_best=4))
        scores = [candidate.score for candidate in found]
        assert scores == sorted(scores, reverse=True)
        assert len({candidate.token_ids for candidate in found}) == len(found)
        assert scores[0] >= alone.score - 1e-6


def test_log_probabilities_are_those_of_a_full_forward_pass(reader, prompts):
    for found in search(reader, prompts[0], BOUND, SearchOptions(beam_size=4, n_best=4)):
        ids = [*found.token_ids, *([2] if found.is_complete else [])]
        expected = log_prob_of(reader, prompts[0], ids)
        assert found.log_probs == pytest.approx(expected, abs=1e-5)


def test_samples_depend_on_the_seed_and_on_nothing_else(reader, prompts):
    options = SearchOptions(temperature=2.0, n_best=3)
    first = search(reader, prompts[0], BOUND, options, seed=7)
    torch.rand(5)
    search(reader, prompts[1], BOUND, options, seed=8)
    assert search(reader, prompts[0], BOUND, options, seed=7) == first
    others = [search(reader, prompts[0], BOUND, options, seed=seed) for seed in range(5)]
    assert any(other != first for other in others)


def test_drawing_leaves_the_random_numbers_of_others_alone(reader, prompts):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    search(reader, prompts[0], BOUND, SearchOptions(temperature=1.0), seed=1)
    assert torch.equal(torch.rand(2), expected)


def test_a_token_comes_with_its_doubt_and_its_rivals(reader, prompts):
    (found,) = search(reader, prompts[0], BOUND, SearchOptions())
    tokens = inspect(reader, prompts[0], found.token_ids, alternatives=3)
    for token, token_id, log_prob in zip(tokens, found.token_ids, found.log_probs, strict=False):
        assert token.token_id == token_id
        assert token.log_prob == pytest.approx(log_prob, abs=1e-5)
        assert 0 <= token.entropy <= torch.tensor(23.0).log() + 1e-5
        assert token.alternatives[0] == (token_id, pytest.approx(log_prob, abs=1e-5))
        assert len(token.alternatives) == 3
    assert inspect(reader, prompts[0], ()) == []


def test_the_seed_is_in_the_samples():
    sound = torch.randn(100)
    assert seed_of(sound) == seed_of(sound.clone())
    assert seed_of(sound) != seed_of(sound.roll(1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"temperature": -1.0}, "temperature is"),
        ({"top_p": 0.0}, "top_p is"),
        ({"n_best": 2}, "n_best is 2; allowed: at most beam_size"),
        ({"temperature": 0.5, "beam_size": 2}, "samples or beams"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        SearchOptions(**wrong)


def test_a_transcript_has_the_other_answers(sound):
    recognizer = Recognizer.from_pretrained("tiny-test", device="cpu")
    options = SearchOptions(beam_size=4, n_best=3)
    transcript = recognizer.transcribe(sound, search=options)
    (segment,) = transcript.segments
    assert 1 <= len(segment.alternatives) <= 2
    scores = [other.score for other in segment.alternatives]
    assert scores == sorted(scores, reverse=True)
    assert Transcript.from_dict(transcript.to_dict()) == transcript
    assert recognizer.transcribe(sound).segments[0].alternatives == ()


def test_a_batch_has_the_samples_of_each_input_alone(sound):
    recognizer = Recognizer.from_pretrained("tiny-test", device="cpu")
    options = SearchOptions(temperature=1.0)
    inputs = [sound, (sound[0][:9_000], 16_000), (sound[0][4_000:], 16_000)]
    alone = [recognizer.transcribe(audio, search=options).text for audio in inputs]
    assert [found.text for found in recognizer.transcribe(inputs, search=options)] == alone
    assert len(set(alone)) == 3


def test_one_beam_gives_the_text_of_greedy_decoding(sound):
    recognizer = Recognizer.from_pretrained("tiny-test", device="cpu")
    found = recognizer.transcribe(sound, search=SearchOptions())
    plain = recognizer.transcribe(sound)
    if "repetition" not in plain.flags:
        assert found.text == plain.text
