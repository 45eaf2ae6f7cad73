"""Splice, loss, greedy decoding and checkpoints of the whole model."""

import copy
import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmasr.api import ASSETS
from llmasr.decoding.greedy import max_new_tokens, recognise
from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.language.base import count_places
from llmasr.models.splice import splice
from llmasr.models.xllm import XLLM, speech_rows
from llmasr.prompts import lay_out
from llmasr.training.drafts import draft_loss

TINY = ASSETS / "tiny-test"


@pytest.fixture(scope="module")
def bundle():
    return load_pretrained(TINY)


@pytest.fixture(scope="module")
def sound():
    waveforms = 0.1 * torch.randn(3, 24_000, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([24_000, 15_000, 9_000])
    return torch.where(torch.arange(24_000) < lengths[:, None], waveforms, 0.0), lengths


def test_splice_pads_on_the_left_and_changes_nothing_else():
    a, b, c = torch.ones(1, 4), 2 * torch.ones(2, 4), 3 * torch.ones(1, 4)
    embeddings, mask = splice([[a, b, c], [c]])
    assert embeddings[0, :, 0].tolist() == [1, 2, 2, 3]
    assert embeddings[1, :, 0].tolist() == [0, 0, 0, 3]
    assert mask.tolist() == [[True] * 4, [False, False, False, True]]
    assert count_places(mask).tolist() == [[0, 1, 2, 3], [0, 0, 0, 0]]


def test_a_prompt_holds_words_boundaries_and_speech_in_order(bundle):
    model = bundle.model
    speech = torch.randn(2, 3, 32)
    pieces = torch.cat(model.prompt_pieces(speech_rows(speech, torch.tensor([3, 2])))[1])
    table = model.language_model.get_input_embeddings().weight
    before, after, _ = model.prompt
    assert torch.equal(pieces[: len(before)], table[before])
    assert torch.equal(pieces[len(before)], model.boundaries["speech"][0])
    assert torch.equal(pieces[len(before) + 1 : len(before) + 3], speech[1, :2])
    assert torch.equal(pieces[len(before) + 3], model.boundaries["speech"][1])
    assert torch.equal(pieces[-len(after) :], table[after])


def test_the_loss_equals_that_of_each_row_alone(bundle):
    speech = torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(2))
    lengths, answers = torch.tensor([4, 2]), [[7, 8, 9, 2], [11, 2]]
    both = bundle.model.loss(speech, lengths, answers)
    alone = [
        bundle.model.loss(speech[i : i + 1], lengths[i : i + 1], answers[i : i + 1]) for i in (0, 1)
    ]
    expected = (alone[0] * 4 + alone[1] * 2) / 6
    torch.testing.assert_close(both, expected, atol=1e-5, rtol=0)


def test_a_row_that_reads_a_draft_answers_to_that(bundle):
    model = bundle.model
    rows, answers = [{}, {}], [[5, 6, 2], [7, 2]]
    plain = model.losses(rows, answers)
    torch.testing.assert_close(model.losses(rows, answers, drafts=[[5, 6], [7]]), plain)
    other = model.losses(rows, answers, drafts=[[5, 9], [7]])
    assert other[0] != plain[0]
    torch.testing.assert_close(other[1], plain[1])


def test_drafts_are_learned_from_speech_in_which_nothing_was_heard_too(bundle, sound):
    speech = bundle.model.speech
    nothing = torch.zeros(3, dtype=torch.int64)
    heard = speech.listen(*speech.features(*sound), nothing)
    assert heard.token_logits.shape[1] == 0
    answers = [[2], [7, 2], [2]]
    loss = draft_loss(bundle.model, heard, answers)
    assert loss.isfinite()


def test_padded_speech_is_never_read(bundle):
    speech, lengths = torch.randn(1, 5, 32), torch.tensor([3])
    changed = speech.clone()
    changed[0, 3:] = 1e4
    answers = [[9, 2]]
    assert bundle.model.loss(speech, lengths, answers) == bundle.model.loss(
        changed, lengths, answers
    )


def test_a_row_reads_the_same_alone_and_in_a_batch(bundle, sound):
    waveforms, lengths = sound
    together = recognise(bundle.model, waveforms, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = recognise(bundle.model, waveforms[row : row + 1, :length], lengths[row : row + 1])[
            0
        ]
        assert alone.token_ids == together[row].token_ids
        assert alone.draft_ids == together[row].draft_ids
        assert alone.log_probs == pytest.approx(together[row].log_probs, abs=1e-5)
        assert alone.draft_times == pytest.approx(together[row].draft_times, abs=1e-3)


def test_greedy_tokens_equal_those_of_transformers_generate(bundle, sound):
    waveforms, lengths = sound
    model = bundle.model
    with torch.inference_mode():
        speech, counts = model.speech(*model.speech.features(waveforms[:1], lengths[:1]))
        embeddings, mask = splice(model.prompt_pieces(speech_rows(speech, counts)))
        expected = model.language_model.generate(
            inputs_embeds=embeddings, attention_mask=mask.long(), do_sample=False,
            max_new_tokens=max_new_tokens(int(counts[0])),
        )  # fmt: skip
    assert recognise(model, waveforms, lengths)[0].token_ids == [
        token for token in expected[0].tolist() if token != bundle.tokenizer.eos_id
    ]


def test_log_probs_equal_a_full_forward_pass(bundle, sound):
    waveforms, lengths = sound
    model = bundle.model
    hypothesis = recognise(model, waveforms[:1], lengths[:1])[0]
    with torch.inference_mode():
        speech, counts = model.speech(*model.speech.features(waveforms[:1], lengths[:1]))
        pieces = model.prompt_pieces(speech_rows(speech, counts))
        pieces[0].append(model.embed(hypothesis.token_ids))
        embeddings, mask = splice(pieces)
        logits = model.language_model(inputs_embeds=embeddings, attention_mask=mask.long()).logits
    log_probs = logits[0, -len(hypothesis.token_ids) - 1 : -1].log_softmax(-1)
    expected = log_probs.gather(1, torch.tensor(hypothesis.token_ids)[:, None])[:, 0]
    assert hypothesis.log_probs == pytest.approx(expected.tolist(), abs=1e-4)


def test_the_bound_is_reached_and_said(bundle, sound):
    hypothesis = recognise(bundle.model, *sound)[0]
    assert hypothesis.finish_reason == "length"
    assert len(hypothesis.token_ids) == math.floor(1.5 * len(hypothesis.draft_ids)) + 8


def test_the_language_model_is_not_asked_where_nothing_fires(bundle, sound, monkeypatch):
    model = copy.deepcopy(bundle.model)
    torch.nn.init.constant_(model.speech.predictor.weight.bias, -1e4)

    def refuse(*args, **kwargs):
        raise AssertionError("the language model was asked")

    monkeypatch.setattr(model.language_model, "forward", refuse)
    for hypothesis in recognise(model, *sound):
        assert hypothesis.finish_reason == "silence"
        assert hypothesis.token_ids == hypothesis.draft_ids == []


def test_a_saved_model_gives_the_same_answers(bundle, sound, tmp_path):
    save_pretrained(bundle, tmp_path, dtype=torch.float32)
    again = load_pretrained(tmp_path)
    assert again.model.config == bundle.model.config
    expected, actual = (recognise(each.model, *sound) for each in (bundle, again))
    assert [h.token_ids for h in actual] == [h.token_ids for h in expected]
    assert [h.log_probs for h in actual] == [h.log_probs for h in expected]


def copied(tmp_path):
    return shutil.copytree(TINY, tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.model"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = copied(tmp_path)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop("boundaries.speech"), "missing weights: boundaries.speech"),
        (lambda w: w.update(more=torch.ones(1)), "unexpected weights: more"),
        (lambda w: w.update({"boundaries.speech": torch.ones(3, 32)}), "asks for"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_named(tmp_path, edit, message):
    folder = copied(tmp_path)
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


def test_damaged_weights_are_an_error_that_names_the_file(tmp_path):
    folder = copied(tmp_path)
    (folder / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        load_pretrained(folder)


def test_an_unknown_configuration_key_is_an_error(tmp_path):
    folder = copied(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["speech"]["wings"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="unknown wings"):
        load_pretrained(folder)


def test_widths_of_adaptor_and_language_model_must_agree(bundle):
    model = bundle.model
    config = type(model.config)(
        speech=type(model.config.speech)(**{**vars(model.config.speech), "adaptor_width": 64})
    )
    with pytest.raises(ValueError, match="adaptor_width is 64; the language model needs 32"):
        XLLM({"speech": model.speech}, model.language_model, model.prompt, config)


def test_the_prompt_is_the_one_of_training(bundle):
    instruction = bundle.model.config.prompt.instruction
    assert instruction
    assert bundle.model.prompt == lay_out(bundle.tokenizer, instruction)
