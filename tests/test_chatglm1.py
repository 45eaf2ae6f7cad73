"""ChatGLM-6B of the first generation against numbers of the original, and against itself."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import DynamicCache, StaticCache

from llmasr.models.language.base import as_language_model
from llmasr.models.language.chatglm1 import (
    ChatGLM1Config,
    ChatGLM1ForCausalLM,
    ChatGLM1LanguageModel,
)
from llmasr.models.language.chatglm1_prefix import (
    find_prefix,
    prefix_mask,
    rotary_tables,
    two_positions,
)

GOLDEN = Path(__file__).parent / "golden" / "chatglm1"
TENSORS = load_file(GOLDEN / "cases.safetensors")
CASES = {case["name"]: case for case in json.loads((GOLDEN / "cases.json").read_text())["cases"]}
CONTINUED = [name for name, case in CASES.items() if "greedy" in case["tensors"]]
LAID_OUT = [name for name, case in CASES.items() if "position_ids" in case["tensors"]]
INCREMENTAL = ["incremental", "incremental_batch"]
GREEDY = {"max_new_tokens": 12, "do_sample": False}
CLOSE = {"atol": 2e-5, "rtol": 0}


def load(**options):
    return ChatGLM1ForCausalLM.from_pretrained(GOLDEN, **options).eval()


@pytest.fixture(scope="module")
def model():
    return load()


@pytest.fixture(scope="module")
def reader(model):
    return as_language_model(model)


def case_of(name):
    case = CASES[name]
    return {key: TENSORS[f"{name}.{key}"] for key in case["tensors"]} | {
        "prefix_lengths": torch.tensor(case["context_lengths"]),
        "mask_positions": torch.tensor(case["mask_positions"]),
    }


def inputs_of(case):
    """What forward and generate take: ids, or vectors and the prefix."""
    if "inputs_embeds" in case:
        inputs = {key: case[key] for key in ("inputs_embeds", "prefix_lengths")}
    else:
        inputs = {"input_ids": case["input_ids"]}
    return inputs | {"attention_mask": case["valid"].long()}


def written(output, inputs):
    """The new tokens of what generate returned."""
    return output[:, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else output


def assert_close_where(valid, actual, expected):
    torch.testing.assert_close(actual[valid], expected[valid], **CLOSE)


# The original's numbers


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_logits_are_those_of_the_original(attention):
    model = load(attn_implementation=attention)
    for name in CASES:
        case = case_of(name)
        assert_close_where(case["valid"], model(**inputs_of(case)).logits, case["logits"])


@pytest.mark.parametrize("name", CONTINUED)
def test_greedy_tokens_are_those_of_the_original(model, name):
    case = case_of(name)
    inputs = inputs_of(case)
    assert torch.equal(written(model.generate(**inputs, **GREEDY), inputs), case["greedy"])


@pytest.mark.parametrize("name", LAID_OUT)
def test_positions_and_mask_are_those_of_the_original(model, name):
    case = case_of(name)
    ids, valid = case["input_ids"], case["valid"]
    prefix = find_prefix(ids, valid, model.config)
    assert torch.equal(prefix.lengths, case["prefix_lengths"])
    assert torch.equal(prefix.mask_positions, case["mask_positions"])
    places = (valid.long().cumsum(1) - 1).clamp(min=0)
    expected = case["position_ids"].mT
    assert torch.equal(two_positions(places, prefix)[valid], expected[valid])
    vectors = torch.empty(*ids.shape, 0)
    seen = prefix_mask(model.config, vectors, valid, None, prefix)
    assert torch.equal(seen[:, 0][valid], ~case["attention_mask"][:, 0][valid])
    assert seen.any(-1).all()


@torch.no_grad()
def test_loss_without_a_mask_is_that_of_the_original(model):
    case = case_of("training")
    output = model(input_ids=case["input_ids"], labels=case["labels"])
    assert_close_where(case["valid"], output.logits, case["logits"])
    assert output.loss.item() == pytest.approx(case["loss"].item(), abs=1e-6)


@pytest.mark.parametrize("name", ["embeds", "embeds_batch"])
def test_vectors_in_the_place_of_words_are_those_of_the_original(model, name):
    case = case_of(name)
    vectors = model.get_input_embeddings()(case["input_ids"]).detach().clone()
    where = zip(CASES[name]["splice_starts"], CASES[name]["splice_lengths"], strict=True)
    for row, (start, length) in enumerate(where):
        vectors[row, start : start + length] = case["spliced"][row, :length]
    assert torch.equal(vectors, case["inputs_embeds"])


@pytest.mark.parametrize("dtype", ["float32", "half"])
def test_rotary_tables_are_those_of_the_original(dtype):
    golden = load_file(GOLDEN / "rope.safetensors")
    tables = rotary_tables(
        golden["positions"], 64, torch.float16 if dtype == "half" else torch.float32
    )
    torch.testing.assert_close(tables.cos, golden[f"cos_{dtype}"], atol=1e-6, rtol=0)
    torch.testing.assert_close(tables.sin, golden[f"sin_{dtype}"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("name", INCREMENTAL)
@torch.no_grad()
def test_reading_on_is_reading_at_once(reader, name, step):
    case = case_of(name)
    valid, vectors = case["valid"], reader.embed(case["input_ids"])
    prompt_lengths = case["prefix_lengths"] + 1
    cache, parts = None, []
    edges = [0, *range(CASES[name]["prefill"], valid.shape[1], step), valid.shape[1]]
    for start, end in pairwise(edges):
        part, mask = vectors[:, start:end], valid[:, :end]
        logits, cache = reader.read(part, mask, prompt_lengths, cache)
        parts.append(logits)
    assert_close_where(valid, torch.cat(parts, 1), case["logits"])


# The same answer in every way


def static(model, length):
    return StaticCache(config=model.config, max_cache_len=length)


@pytest.mark.parametrize("make", [lambda model: DynamicCache(), lambda model: static(model, 25)])
@torch.no_grad()
def test_ids_continue_any_cache(model, make):
    case = case_of("incremental_batch")
    cache, ids, valid = make(model), case["input_ids"], case["valid"]
    prefix = {"prefix_lengths": case["prefix_lengths"], "past_key_values": cache}
    parts = [
        model(input_ids=ids[:, :12], attention_mask=valid[:, :12], past_key_values=cache).logits,
        model(input_ids=ids[:, 12:15], attention_mask=valid[:, :15], **prefix).logits,
        model(input_ids=ids[:, 15:], attention_mask=valid, **prefix).logits,
    ]
    assert_close_where(valid, torch.cat(parts, 1), case["logits"])


@pytest.mark.parametrize("name", ["batch_left", "mask_batch", "embeds_batch"])
@pytest.mark.parametrize("options", [{"cache_implementation": "static"}, {"num_beams": 1}])
def test_every_cache_writes_the_same(model, name, options):
    case = case_of(name)
    inputs = inputs_of(case)
    tokens = written(model.generate(**inputs, **GREEDY, **options), inputs)
    assert torch.equal(tokens, case["greedy"])


@pytest.mark.parametrize("beams", [1, 3])
def test_search_without_a_cache_writes_the_same(model, beams):
    inputs = inputs_of(case_of("mask_batch"))
    options = GREEDY | {
        "num_beams": beams, "num_return_sequences": beams, "output_scores": True,
        "return_dict_in_generate": True,
    }  # fmt: skip
    cached = model.generate(**inputs, **options)
    again = model.generate(**inputs, **options, use_cache=False)
    fixed = model.generate(**inputs, **options, cache_implementation="static")
    for other in (again, fixed):
        assert torch.equal(other.sequences, cached.sequences)
        if beams > 1:
            torch.testing.assert_close(other.sequences_scores, cached.sequences_scores)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_writes_in_a_batch_what_it_writes_alone(model, beams):
    case = case_of("embeds_batch")
    together = model.generate(**inputs_of(case), **GREEDY, num_beams=beams)
    for row, length in enumerate(CASES["embeds_batch"]["lengths"]):
        alone = model.generate(
            inputs_embeds=case["inputs_embeds"][row : row + 1, -length:],
            prefix_lengths=case["prefix_lengths"][row : row + 1], num_beams=beams, **GREEDY,
        )  # fmt: skip
        width = alone.shape[1]
        assert torch.equal(together[row, :width], alone[0])
        assert (together[row, width:] == model.config.pad_token_id).all()


def test_words_as_vectors_write_what_ids_write(model, reader):
    case = case_of("batch_left")
    tokens = reader.generate(
        reader.embed(case["input_ids"]), case["valid"], case["prefix_lengths"] + 1, **GREEDY
    )
    assert torch.equal(tokens, case["greedy"])


def test_the_mask_token_may_be_told_with_vectors(model):
    case = case_of("mask_batch")
    tokens = model.generate(
        inputs_embeds=model.get_input_embeddings()(case["input_ids"]),
        attention_mask=case["valid"].long(), prefix_lengths=case["prefix_lengths"],
        mask_positions=case["mask_positions"], **GREEDY,
    )  # fmt: skip
    assert torch.equal(tokens, case["greedy"])


def test_a_seed_fixes_what_is_sampled(model):
    inputs = inputs_of(case_of("batch_left"))
    options = {"do_sample": True, "max_new_tokens": 8, "num_return_sequences": 2}
    runs = []
    for extra in ({}, {"cache_implementation": "static"}, {"use_cache": False}):
        torch.manual_seed(3)
        runs.append(model.generate(**inputs, **options, **extra))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


def test_looking_up_the_prompt_writes_the_same(model):
    inputs = inputs_of(case_of("chat"))
    tokens = model.generate(**inputs, **GREEDY, prompt_lookup_num_tokens=3)
    assert torch.equal(written(tokens, inputs), case_of("chat")["greedy"])


@torch.no_grad()
def test_places_taken_back_leave_no_trace(reader):
    case = case_of("incremental_batch")
    valid, vectors = case["valid"], reader.embed(case["input_ids"])
    lengths = case["prefix_lengths"] + 1
    # A draft of four: right where it is kept, and elsewhere something else.
    kept = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]).bool()
    draft = torch.where(kept[..., None], vectors[:, 12:16], vectors[:, :4])
    mask = torch.cat([valid[:, :12], torch.full((3, 4), True)], 1)
    _, cache = reader.read(torch.cat([vectors[:, :12], draft], 1), mask, lengths)
    starts = (12 + kept.sum(1)).tolist()
    rest = torch.stack([vectors[row, start : start + 5] for row, start in enumerate(starts)])
    mask = torch.cat([valid[:, :12], kept, torch.full((3, 5), True)], 1)
    logits, _ = reader.read(rest, mask, lengths, cache)
    expected = [case["logits"][row, start : start + 5] for row, start in enumerate(starts)]
    torch.testing.assert_close(logits, torch.stack(expected), **CLOSE)


@torch.no_grad()
def test_padding_between_prompt_and_draft_is_not_there(reader):
    case = case_of("answer_batch")
    vectors, lengths = reader.embed(case["input_ids"]), case["prefix_lengths"] + 1
    longest, draft = int(lengths.max()), 4
    parts = torch.ones(len(lengths), longest + draft, reader.width)
    expected = torch.empty(len(lengths), draft, case["logits"].shape[-1])
    for row, length in enumerate(lengths.tolist()):
        parts[row, :length] = vectors[row, :length]
        parts[row, longest:] = vectors[row, length : length + draft]
        expected[row] = case["logits"][row, length : length + draft]
    places = torch.arange(longest + draft)
    mask = (places < lengths[:, None]) | (places >= longest)
    logits, _ = reader.read(parts, mask, lengths, keep=draft)
    torch.testing.assert_close(logits, expected, **CLOSE)


@torch.no_grad()
def test_logits_to_keep_are_the_last_ones(model):
    inputs = inputs_of(case_of("batch_left"))
    everything = model(**inputs).logits
    last = model(**inputs, logits_to_keep=3).logits
    chosen = model(**inputs, logits_to_keep=torch.tensor([2, 9])).logits
    torch.testing.assert_close(last, everything[:, -3:])
    torch.testing.assert_close(chosen, everything[:, [2, 9]])


@torch.no_grad()
def test_what_happens_inside_can_be_seen():
    model = load(attn_implementation="eager")
    inputs = inputs_of(case_of("plain_08"))
    output = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == model.config.num_hidden_layers + 1
    assert [tuple(weights.shape) for weights in output.attentions] == [(1, 4, 8, 8)] * 3
    logits = model.lm_head(model.transformer.final_layernorm(output.hidden_states[-1]))
    torch.testing.assert_close(logits, output.logits)


# Training, saving, types


def test_gradients_reach_every_weight_and_no_padding():
    model = load()
    case = case_of("embeds_batch")
    vectors = case["inputs_embeds"].clone().requires_grad_()
    logits = model(**inputs_of(case) | {"inputs_embeds": vectors}).logits
    logits[:, -4:].square().mean().backward()
    assert vectors.grad.isfinite().all()
    assert not vectors.grad[~case["valid"]].any()
    assert vectors.grad[case["valid"]].any(-1).all()
    for name, weight in model.named_parameters():
        if "word_embeddings" not in name:
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert weight.grad.any(), name


def test_recomputing_activations_gives_the_same_gradients():
    case = case_of("training")
    gradients = []
    for recompute in (False, True):
        model = load().train()
        if recompute:
            model.activation_checkpointing_enable()
        loss = model(input_ids=case["input_ids"], labels=case["labels"], use_cache=False).loss
        loss.backward()
        gradients.append(model.transformer.layers[0].mlp.dense_h_to_4h.weight.grad)
    torch.testing.assert_close(*gradients)


def test_a_saved_model_is_read_back_with_untied_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    again, report = ChatGLM1ForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    expected = model.state_dict()
    assert again.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())
    assert not torch.equal(again.lm_head.weight, again.get_input_embeddings().weight)
    stored = json.loads((tmp_path / "config.json").read_text())
    official = json.loads((GOLDEN / "config.json").read_text())
    for field in ("hidden_size", "inner_hidden_size", "num_layers", "model_type", "gmask_token_id"):
        assert stored[field] == official[field]


def test_state_dict_has_the_official_names_and_no_others(model):
    official = torch.load(GOLDEN / "pytorch_model.bin", weights_only=True)
    names = {name for name in official if not name.endswith("rotary_emb.inv_freq")}
    assert model.state_dict().keys() == names


@torch.no_grad()
def test_image_rows_of_an_old_vocabulary_may_stay_or_go(model):
    pictures, case = 20, case_of("plain_13")
    fields = json.loads((GOLDEN / "config.json").read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"):
        fields[name] += pictures
    del fields["mask_token_id"], fields["gmask_token_id"]
    old = ChatGLM1ForCausalLM(ChatGLM1Config(**fields)).eval()
    weights = model.state_dict()
    for name in ("transformer.word_embeddings.weight", "lm_head.weight"):
        weights[name] = torch.cat([torch.randn(pictures, 64), weights[name]])
    old.load_state_dict(weights)
    logits = old(input_ids=case["input_ids"] + pictures).logits[..., pictures:]
    torch.testing.assert_close(logits, case["logits"], **CLOSE)


def test_ids_of_mask_tokens_follow_from_the_vocabulary():
    assert (ChatGLM1Config().mask_token_id, ChatGLM1Config().gmask_token_id) == (130000, 130001)
    old = ChatGLM1Config(vocab_size=150528, bos_token_id=150004)
    assert (old.mask_token_id, old.gmask_token_id) == (150000, 150001)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 0.1), (torch.bfloat16, 0.8)])
@torch.no_grad()
def test_half_precision_is_near_and_leaves_the_frequencies_alone(dtype, error):
    case = case_of("batch_left")
    inputs, valid = inputs_of(case), case["valid"]
    half, rounded = load(dtype=dtype), load()
    assert (half(**inputs).logits.float() - case["logits"])[valid].abs().max() < error
    rounded.load_state_dict({name: value.float() for name, value in half.state_dict().items()})
    assert torch.equal(half.float()(**inputs).logits, rounded(**inputs).logits)


@torch.no_grad()
def test_angles_can_be_rounded_as_the_half_precision_original_does(model):
    ids = torch.cat([torch.arange(5, 405) % 500, torch.tensor([570, 573])])[None]
    rounded = load(rope_dtype="float16")
    difference = (rounded(input_ids=ids).logits - model(input_ids=ids).logits).abs().max()
    assert 1e-3 < difference < 5


# The protocol


def test_the_model_brings_its_reader(reader, model):
    assert isinstance(reader, ChatGLM1LanguageModel)
    assert reader.width == 64
    assert reader.max_length == 2048
    assert reader.stop_ids == {574}


# Bad input


def short(model):
    config = ChatGLM1Config(**model.config.to_dict() | {"max_sequence_length": 10})
    return ChatGLM1ForCausalLM(config).eval()


def test_a_context_beyond_the_limit_is_refused(model):
    inputs = inputs_of(case_of("plain_13"))
    small = short(model)
    for options in ({}, {"cache_implementation": "static"}):
        with pytest.raises(ValueError, match="13 places; max_sequence_length is 10"):
            small.generate(**inputs, **GREEDY, **options)
        with pytest.raises(ValueError, match="11 places; max_sequence_length is 10"):
            small.generate(**inputs_of(case_of("plain_08")), max_new_tokens=4, do_sample=False)
    padded = torch.cat([torch.full((1, 6), 3), case_of("plain_08")["input_ids"]], 1)
    small(input_ids=padded, attention_mask=padded != 3)


def test_a_row_without_sop_is_refused(model):
    ids = case_of("plain_13")["input_ids"].repeat(2, 1)
    ids[1, -1] = 7
    with pytest.raises(ValueError, match=r"rows \[1\] have no <sop> \(573\)"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match=r"rows \[1\] have no <sop> \(573\)"):
        model.generate(input_ids=ids, **GREEDY)
    ids[1, -2:] = torch.tensor([573, 570])
    with pytest.raises(ValueError, match=r"rows \[1\] have no \[MASK\] \(569\) or \[gMASK\]"):
        model(input_ids=ids)


def test_vectors_without_a_prefix_are_refused(model):
    case = case_of("embeds")
    with pytest.raises(ValueError, match="prefix_lengths is missing"):
        model(inputs_embeds=case["inputs_embeds"])
    with pytest.raises(ValueError, match="prefix_lengths is missing"):
        model.generate(inputs_embeds=case["inputs_embeds"], **GREEDY)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(prefix_lengths=case["prefix_lengths"])


def test_ids_that_continue_a_cache_need_the_prefix(model):
    ids = case_of("incremental")["input_ids"]
    cache = model(input_ids=ids[:, :12]).past_key_values
    with pytest.raises(ValueError, match="prefix_lengths is missing"):
        model(input_ids=ids[:, 12:], past_key_values=cache)
    with pytest.raises(ValueError, match=r"attention_mask is \[1, 8\]; read in all: \[1, 20\]"):
        model(
            input_ids=ids[:, 12:], past_key_values=cache, prefix_lengths=torch.tensor([9]),
            attention_mask=torch.ones(1, 8),
        )  # fmt: skip


def test_half_a_prompt_is_refused(reader):
    case = case_of("embeds")
    vectors = case["inputs_embeds"][:, :9]
    with pytest.raises(ValueError, match=r"prefix_lengths are \[14\]; rows of \[9\] places"):
        reader.read(vectors, torch.full((1, 9), True), torch.tensor([15]))
    with pytest.raises(ValueError, match="a prefix of at least one"):
        reader.read(vectors, torch.full((1, 9), True), torch.tensor([1]))


def test_configurations_of_no_published_model_are_refused():
    with pytest.raises(ValueError, match="hidden_size is 30"):
        ChatGLM1Config(hidden_size=30, num_attention_heads=2)
    with pytest.raises(ValueError, match="position_encoding_2d"):
        ChatGLM1Config(position_encoding_2d=False)
    with pytest.raises(ValueError, match="rope_dtype is 'int8'"):
        ChatGLM1Config(rope_dtype="int8")
