"""Draft and verify writes what greedy search writes, whatever the draft, in fewer calls."""

import dataclasses
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GlmConfig, MistralConfig

from llmasr import Recognizer, load_audio, verify_batch
from llmasr.api import ASSETS
from llmasr.decoding import consistency, greedy
from llmasr.decoding.drafts import Draft, retokenised
from llmasr.decoding.greedy import Decoding, recognise
from llmasr.decoding.hypothesis import Request, check_room
from llmasr.decoding.verify import Acceptance, can_take_back, draft_and_verify
from llmasr.models.checkpoint import load_pretrained
from llmasr.models.language.base import as_language_model
from llmasr.models.language.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM

VOCABULARY, WIDTH, BOUND = 40, 32, 14
STOP = 39
# A multiple of every size of batch below.
ROWS = 24


def glm():
    config = GlmConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=64,
        pad_token_id=0, bos_token_id=1, eos_token_id=STOP, initializer_range=0.2,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def chatglm1():
    config = ChatGLM1Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_layers=2, num_attention_heads=4,
        inner_hidden_size=48, max_sequence_length=64, bos_token_id=38, eos_token_id=STOP,
        pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    return ChatGLM1ForCausalLM(config)


@pytest.fixture(scope="module", params=[glm, chatglm1], ids=["glm", "chatglm1"])
def reader(request):
    torch.manual_seed(0)
    return as_language_model(request.param().eval().requires_grad_(False))


def prompts(count, seed=0):
    """Random prompts of 3 to 8 places, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(count, 8, WIDTH, generator=generator)
    lengths = torch.randint(3, 9, (count, 1), generator=generator)
    mask = torch.arange(8) >= 8 - lengths
    return embeddings * mask[..., None], mask


def rest(draw, count):
    return [draw.randrange(VOCABULARY) for _ in range(count)]


def substituted(answer, draw):
    return [draw.randrange(VOCABULARY) if draw.random() < 0.2 else token for token in answer]


def inserted(answer, draw):
    place = draw.randint(0, len(answer))
    return answer[:place] + rest(draw, draw.randint(1, 2)) + answer[place:]


def deleted(answer, draw):
    place = draw.randint(0, len(answer))
    return answer[:place] + answer[place + draw.randint(1, 2) :]


SPOIL = {
    "perfect": lambda answer, draw: list(answer),
    "substitution": substituted,
    "insertion": inserted,
    "deletion": deleted,
    "empty": lambda answer, draw: [],
    "garbage": lambda answer, draw: rest(draw, draw.randint(1, 20)),
    "longer": lambda answer, draw: answer + rest(draw, 30),
    "stop inside": lambda answer, draw: [*answer[:2], STOP, *answer[2:]],
}


def assert_same(actual, expected):
    assert actual.ids == expected.ids
    assert actual.finish_reason == expected.finish_reason
    assert actual.log_probs == pytest.approx(expected.log_probs, abs=1e-4)
    assert actual.forwards <= expected.forwards
    assert actual.flags == ()


@pytest.fixture(scope="module")
def answers(reader):
    """Batches of prompts, and for each a bound and the answer of greedy search."""
    draw = random.Random(0)
    batches = []
    for batch in range(1000 // ROWS + 1):
        embeddings, mask = prompts(ROWS, batch)
        bounds = [draw.randint(1, BOUND) for _ in range(ROWS)]
        found = greedy.write(reader, embeddings, mask, [Request([], bound) for bound in bounds])
        batches.append((embeddings, mask, bounds, found))
    return batches


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_thousand_drafts_change_no_answer(reader, answers, size):
    draw = random.Random(size)
    reasons = set()
    for embeddings, mask, bounds, expected in answers:
        drafts = [SPOIL[draw.choice(list(SPOIL))](answer.ids, draw) for answer in expected]
        requests = [Request(*request) for request in zip(drafts, bounds, strict=True)]
        for first in range(0, ROWS, size):
            part = slice(first, first + size)
            found = draft_and_verify(reader, embeddings[part], mask[part], requests[part])
            for one, other in zip(found, expected[part], strict=True):
                assert_same(one, other)
                reasons.add(one.finish_reason)
    assert reasons == {"stop", "length"}


def answered(reader, draft, bound=BOUND, **options):
    return draft_and_verify(reader, *prompts(1), [Request(draft, bound)], **options)[0]


def long_answer(reader):
    """The greedy answer to the first prompt; its bound is reached, so it has a known length."""
    return greedy.write(reader, *prompts(1), [Request([], BOUND)])[0]


def test_a_perfect_draft_takes_one_call(reader):
    expected = long_answer(reader)
    found = answered(reader, expected.ids)
    assert found.forwards == 1
    assert expected.forwards == len(expected.ids) + (expected.finish_reason == "stop")
    # The last token at a bound is the language model's own: nothing is read after it.
    assert found.accepted == len(expected.ids) - (expected.finish_reason == "length")


def test_one_error_takes_one_call_more(reader):
    ids = long_answer(reader).ids
    other = (set(range(3, STOP - 3)) - set(ids)).pop()
    assert ids[:4].count(ids[1]) == 1  # else the draft could be aligned in two ways
    assert answered(reader, [ids[0], other, *ids[2:]]).forwards == 2
    assert answered(reader, [ids[0], other, *ids[1:]]).forwards == 2
    # What follows a missing token could be a wrong one in its place, until the next call.
    assert answered(reader, [ids[0], *ids[2:]]).forwards <= 3


def test_without_a_draft_it_is_greedy_search(reader):
    expected, found = long_answer(reader), answered(reader, [])
    assert_same(found, expected)
    assert (found.forwards, found.accepted) == (expected.forwards, 0)


def test_finished_rows_are_not_read_again(reader, monkeypatch):
    sizes = []
    read = type(reader).read

    def watched(self, vectors, *args, **kwargs):
        sizes.append(len(vectors))
        return read(self, vectors, *args, **kwargs)

    embeddings, mask = prompts(3)
    expected = greedy.write(reader, embeddings, mask, [Request([], BOUND)] * 3)
    monkeypatch.setattr(type(reader), "read", watched)
    drafts = [expected[0].ids, [], expected[2].ids]
    found = draft_and_verify(reader, embeddings, mask, [Request(ids, BOUND) for ids in drafts])
    assert sizes == [3] + [1] * (expected[1].forwards - 1)
    assert [answer.forwards for answer in found] == [1, expected[1].forwards, 1]


def test_a_prompt_with_its_answer_must_fit():
    def check(prompt, answer, limit):
        mask = torch.ones(1, prompt, dtype=torch.bool)
        check_room(SimpleNamespace(max_length=limit), mask, [Request([], answer)])

    check(90, 10, 100)
    check(10**6, 10**6, None)
    with pytest.raises(
        ValueError, match=r"91 places and an answer of up to 10 .*reads at most 100"
    ):
        check(91, 10, 100)


@pytest.mark.parametrize("search", [greedy.write, draft_and_verify], ids=["greedy", "drafts"])
def test_an_answer_that_may_not_fit_is_refused_before_the_model_is_asked(
    reader, search, monkeypatch
):
    embeddings, mask = prompts(2)
    length = int(mask[1].sum())
    monkeypatch.setattr(type(reader), "read", None)
    requests = [Request([], 64 - 8), Request([], 64 - length + 1)]
    with pytest.raises(ValueError, match=f"utterance 1: .* {length} places .* reads at most 64"):
        search(reader, embeddings, mask, requests)


@pytest.mark.parametrize(
    ("answer", "remaining"),
    [
        ("", "abcdefg"),
        ("abX", "defg"),
        ("abcd", "efg"),
        ("abd", "efg"),
        ("abcX", "efg"),
        ("abXc", "defg"),
        ("abXYd", "efg"),
        ("XXXXXXXXX", ""),
    ],
)  # fmt: skip
def test_the_rest_of_a_draft_is_realigned(answer, remaining):
    draft, tokens = Draft([ord(letter) for letter in "abcdefg"]), [ord(letter) for letter in answer]
    assert "".join(map(chr, draft.rest(tokens))) == remaining
    stepwise = Draft(draft.ids)
    asked = [stepwise.rest(tokens[:size]) for size in range(len(tokens) + 1)]
    assert asked[-1] == draft.rest(tokens)


def test_the_rest_of_an_empty_draft_is_empty():
    assert Draft([]).rest([]) == Draft([]).rest([1, 2]) == []


def test_a_relaxed_margin_keeps_any_draft_and_says_so(reader):
    ids = list(range(3, 9))
    found = answered(reader, ids, acceptance=Acceptance(margin=1e9))
    assert found.ids[:6] == ids
    assert found.flags == ("relaxed",)
    log_probs = answered(reader, ids, acceptance=Acceptance(top_k=VOCABULARY)).log_probs
    assert log_probs == pytest.approx(found.log_probs)
    assert log_probs != pytest.approx(answered(reader, ids).log_probs)


def test_a_relaxed_search_flags_only_what_differs_from_greedy_search(reader):
    expected = long_answer(reader)
    found = answered(reader, expected.ids, acceptance=Acceptance(top_k=3, margin=0.5))
    assert_same(found, expected)


def test_a_lower_ranked_token_of_the_draft_stands_within_top_k(reader):
    embeddings, mask = prompts(1)
    with torch.inference_mode():
        logits, _ = reader.read(embeddings, mask, mask.sum(1), keep=1)
    ranked = logits[0, -1].topk(9).indices.tolist()
    first, *lower = [rank for rank, token in enumerate(ranked, start=1) if token != STOP]
    assert answered(reader, [ranked[lower[4] - 1]]).ids[0] == ranked[first - 1]
    for rank in lower[:4]:
        draft = [ranked[rank - 1]]
        assert answered(reader, draft, acceptance=Acceptance(top_k=rank)).ids[0] == draft[0]
        strict = answered(reader, draft, acceptance=Acceptance(top_k=rank - 1))
        assert strict.ids[0] == ranked[first - 1]


@pytest.mark.parametrize("wrong", [{"top_k": 0}, {"margin": -1.0}, {"margin": float("nan")}])
def test_a_wrong_acceptance_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Acceptance(**wrong)


def test_models_that_forget_are_not_taken_back(reader):
    assert can_take_back(reader)
    config = MistralConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8,
    )  # fmt: skip
    assert not can_take_back(as_language_model(AutoModelForCausalLM.from_config(config)))


@pytest.fixture(scope="module")
def bundle():
    return load_pretrained(ASSETS / "tiny-test")


@pytest.fixture(scope="module")
def sound():
    waveforms = 0.1 * torch.randn(3, 24_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([24_000, 15_000, 9_000])
    return torch.where(torch.arange(24_000) < lengths[:, None], waveforms, 0.0), lengths


def test_recognition_is_that_of_greedy_search(bundle, sound):
    expected = recognise(bundle.model, *sound, search=greedy.write)
    for one, other in zip(recognise(bundle.model, *sound), expected, strict=True):
        assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
        assert one.log_probs == pytest.approx(other.log_probs, abs=1e-4)
        assert one.llm_forwards <= other.llm_forwards
        assert other.accepted_tokens == 0


def test_a_language_model_with_its_own_tokenizer_gets_the_text(bundle, sound):
    hypothesis = recognise(bundle.model, *sound)[0]
    source = retokenised(bundle.tokenizer, bundle.tokenizer)
    assert bundle.tokenizer.decode(source(hypothesis.draft_ids).ids) == bundle.tokenizer.decode(
        hypothesis.draft_ids
    )
    assert (
        recognise(bundle.model, *sound, Decoding(draft=source))[0].token_ids == hypothesis.token_ids
    )


def test_a_confident_hypothesis_passes_the_gate_and_says_so(bundle, sound, monkeypatch):
    open_gate = recognise(bundle.model, *sound, Decoding(acceptance=Acceptance(gate=1e9)))
    for hypothesis in open_gate:
        assert hypothesis.token_ids == hypothesis.draft_ids
        assert (hypothesis.finish_reason, hypothesis.flags) == ("stop", ("gated",))
        assert hypothesis.llm_forwards == 0
        assert all(log_prob < 0 for log_prob in hypothesis.log_probs)
    never = Decoding(acceptance=Acceptance(gate=0.0))
    closed, plain = recognise(bundle.model, *sound, never), recognise(bundle.model, *sound)
    without_times = [dataclasses.replace(each, timings={}) for each in plain]
    assert [dataclasses.replace(each, timings={}) for each in closed] == without_times


def test_real_speech_is_written_as_by_greedy_search(data):
    recognizer = Recognizer.from_pretrained("tiny-en", device="cpu")
    waves = []
    for name in ("en_hotwords", "en_sentences_l2"):
        lines = (data / name / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [entry for entry in map(json.loads, lines) if entry["split"] == "test"]
        paths = [data / name / entry["audio"] for entry in entries[:: len(entries) // 8][:8]]
        waves += [torch.from_numpy(load_audio(path)) for path in paths]
    lengths = torch.tensor([len(wave) for wave in waves])
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    expected = recognise(recognizer.bundle.model, padded, lengths, search=greedy.write)
    found = recognise(recognizer.bundle.model, padded, lengths)
    assert [each.token_ids for each in found] == [each.token_ids for each in expected]
    calls = [sum(each.llm_forwards for each in some) for some in (expected, found)]
    assert calls[1] < 0.6 * calls[0]


def test_a_batch_is_compared_with_its_files_alone(bundle, sound):
    files = [(row[:length].numpy(), 16_000) for row, length in zip(*sound, strict=True)]
    silence = (np.zeros(16_000, np.float32), 16_000)
    report = verify_batch(Recognizer(bundle), [*files, silence])
    assert (report.files, report.largest_batch) == (4, 3)
    assert report.texts_equal
    assert 0 < report.logit_deviation < 1e-4


def test_a_batch_that_differs_is_told(sound, bundle, monkeypatch):
    def forgetful(model, waveforms, lengths, how):
        found = recognise(model, waveforms, lengths, how)
        return [dataclasses.replace(each, token_ids=each.token_ids[len(found) :]) for each in found]

    monkeypatch.setattr(consistency, "recognise", forgetful)
    files = [(row[:length].numpy(), 16_000) for row, length in zip(*sound, strict=True)]
    report = verify_batch(Recognizer(bundle), files)
    assert report.differing == (0, 1, 2)
    assert not report.texts_equal


def test_a_transcript_tells_calls_and_accepted_tokens(bundle, sound):
    waveform = (sound[0][0].numpy(), 16_000)
    transcript = Recognizer(bundle).transcribe(waveform)
    hypothesis = recognise(bundle.model, sound[0][:1], sound[1][:1])[0]
    assert transcript.llm_forwards == hypothesis.llm_forwards > 0
    share = hypothesis.accepted_tokens / len(hypothesis.token_ids)
    assert transcript.accepted_rate == pytest.approx(share, abs=1e-4)
    silent = Recognizer(bundle).transcribe((np.zeros(16_000, np.float32), 16_000))
    assert (silent.llm_forwards, silent.accepted_rate) == (0, None)
