"""Tokenizers of ChatGLM against what the published ones give, and what they must never do."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmasr.models.language.any_tokenizer import encode_inputs, load_tokenizer
from llmasr.models.language.chatglm1_tokenizer import (
    ChatGLM1Tokenizer,
    map_blanks,
    map_newlines,
)
from llmasr.models.language.chatglm_tokenizers import ChatGLM2Tokenizer, ChatGLM3Tokenizer

GOLDEN = Path(__file__).parent / "golden/tokenizers"
KINDS = {1: ChatGLM1Tokenizer, 2: ChatGLM2Tokenizer, 3: ChatGLM3Tokenizer}
CASES = {
    generation: json.loads((GOLDEN / f"chatglm{generation}/cases.json").read_text("utf-8"))
    for generation in KINDS
}
LOADED = {generation: load_tokenizer(GOLDEN / f"chatglm{generation}") for generation in KINDS}


def cases(field, generations=(1, 2, 3)):
    """Every case of a field, as (tokenizer, case), named by generation and number."""
    return [
        pytest.param(LOADED[generation], case, id=f"v{generation}-{number}")
        for generation in generations
        for number, case in enumerate(CASES[generation].get(field, ()))
    ]


def english_clean_up(text):
    """What an old library did to decoded text by default."""
    for before in (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're"):
        text = text.replace(before, before.strip())
    return text


@pytest.mark.parametrize("generation", KINDS)
def test_special_ids_and_size_are_read_from_the_vocabulary(generation):
    tokenizer, case = LOADED[generation], CASES[generation]
    assert type(tokenizer) is KINDS[generation]
    assert len(tokenizer) == case["vocab_size"]
    names, *others = case["special_ids"].items()
    assert {name: tokenizer.id_of(name) for name in names[1]} == names[1]
    pieces = {"end": "</s>", "unk": "<unk>"}
    for name, expected in others:
        known = getattr(tokenizer, f"{name}_id", None)
        assert expected == (tokenizer.id_of(pieces[name]) if known is None else known)
    inputs = tokenizer.pad([[1]])
    assert list(inputs._fields) == case["model_input_names"]
    assert case["padding_side"] == "left"


@pytest.mark.parametrize(("tokenizer", "case"), cases("texts"))
def test_a_text_becomes_the_published_ids(tokenizer, case):
    ids = tokenizer.encode(case["text"])
    assert ids == case["ids"]
    assert tokenizer.pieces(ids) == case["tokens"]
    assert encode_inputs(tokenizer, case["text"]) == case["ids_with_special"]


@pytest.mark.parametrize(("tokenizer", "case"), cases("texts"))
def test_ids_of_a_text_become_the_published_text(tokenizer, case):
    assert tokenizer.decode_with_special(case["ids"]) == case["decoded"]
    with_special = tokenizer.decode_with_special(case["ids_with_special"])
    assert with_special == case["decoded_with_special"]
    assert english_clean_up(case["decoded"]) == case["decoded_clean_up"]
    assert tokenizer.decode_with_special(case["raw_ids"]) == case["raw_decoded"]


@pytest.mark.parametrize(("tokenizer", "case"), cases("texts", [1]))
def test_the_parts_of_the_mapping_of_v1_are_the_published_ones(tokenizer, case):
    text, spell = case["text"], tokenizer.pieces_model.encode
    assert spell(map_blanks(map_newlines(text))) == case["raw_ids"]
    assert spell(map_blanks(text)) == case["raw_ids_no_linebreak"]
    assert spell(map_newlines(text)) == case["raw_ids_no_whitespaces"]
    assert tokenizer.encode_inside(text) == case["raw_ids_no_dummy_prefix"]


@pytest.mark.parametrize(("tokenizer", "case"), cases("texts", [2, 3]))
def test_the_ids_of_later_generations_are_those_of_the_vocabulary(tokenizer, case):
    ids = tokenizer.encode(case["text"])
    assert ids == case["raw_ids"]
    assert [tokenizer.bos_id, *ids, tokenizer.eos_id] == case["raw_ids_bos_eos"]
    assert sorted(tokenizer.pad([ids])._fields) == case["model_inputs"]


@pytest.mark.parametrize(("tokenizer", "case"), cases("decode"))
def test_whatever_a_model_gives_becomes_the_published_text(tokenizer, case):
    text = tokenizer.decode_with_special(case["ids"])
    assert text == case["decoded"]
    assert english_clean_up(text) == case["decoded_clean_up"]


@pytest.mark.parametrize(("tokenizer", "case"), [*cases("decode"), *cases("texts")])
def test_decoded_text_shows_no_special_token(tokenizer, case):
    ids = case.get("ids_with_special", case["ids"])
    text = tokenizer.decode(ids)
    special = {tokenizer.id_of(name) for name in tokenizer.specials}
    kept = [i for i in ids if i not in special]
    assert text == tokenizer.decode_with_special(kept)
    assert text == tokenizer.decode(kept)
    if isinstance(tokenizer, ChatGLM3Tokenizer):
        return  # the published one shows all of them
    published = case["decoded_skip_special"]
    later = case.get("library_dependent", {}).get("decoded_skip_special")
    if case.get("library_dependent", {}).keys() <= {"decoded_skip_special"}:
        assert text == (published if later is None else later)


@pytest.mark.parametrize("generation", KINDS)
def test_ids_outside_the_vocabulary_give_nothing(generation):
    tokenizer = LOADED[generation]
    ids = tokenizer.encode("hello world")
    noisy = [-1, *ids, len(tokenizer), 10**6]
    assert tokenizer.decode(noisy) == tokenizer.decode_with_special(noisy) == "hello world"
    assert tokenizer.pieces(noisy) == ["", *tokenizer.pieces(ids), "", ""]


@pytest.mark.parametrize(("tokenizer", "case"), cases("pairs"))
def test_a_prompt_and_its_answer_become_the_published_ids(tokenizer, case):
    assert encode_inputs(tokenizer, case["text"], case["answer"]) == case["ids"]
    parts = tokenizer.encode(case["text"]), tokenizer.encode(case["answer"])
    assert tokenizer.build_inputs(*parts) == case["built"]


@pytest.mark.parametrize(("tokenizer", "case"), cases("truncated"))
def test_a_text_is_cut_where_that_is_asked_for(tokenizer, case):
    cut = encode_inputs(tokenizer, case["text"], max_length=case["max_length"])
    assert cut == case["ids"]


def test_what_cannot_be_cut_is_not_cut():
    with pytest.raises(ValueError, match="max_length is 4; 6 ids cannot be cut"):
        encode_inputs(LOADED[1], "hello", "hello world", max_length=4)


@pytest.mark.parametrize(("tokenizer", "case"), cases("padded"))
def test_a_batch_is_padded_as_published(tokenizer, case):
    arrays = load_file(tokenizer.path.parent / "padded.safetensors")
    texts = [[text] if isinstance(text, str) else text for text in case["texts"]]
    options = case["options"]
    padded = tokenizer.pad(
        [encode_inputs(tokenizer, *text) for text in texts],
        length=options.get("max_length"),
        multiple=options.get("pad_to_multiple_of", 1),
    )
    for name, value in padded._asdict().items():
        expected = arrays[f"{case['name']}.{name}"]
        assert value.dtype == expected.dtype
        assert torch.equal(value, expected)


@pytest.mark.parametrize("generation", KINDS)
def test_a_row_is_never_cut_by_padding(generation):
    with pytest.raises(ValueError, match="length is 2; the longest row has 3 ids"):
        LOADED[generation].pad([[5], [5, 6, 7]], length=2)
    assert LOADED[generation].pad([]).input_ids.shape == (0, 0)


def test_a_row_of_v1_without_an_answer_is_all_prefix():
    padded = LOADED[1].pad([[300, 301, LOADED[1].gmask_id]])
    assert not padded.attention_mask.any()
    assert padded.position_ids.tolist() == [[[0, 1, 2], [0, 0, 0]]]


def test_an_answer_that_fills_no_mask_counts_on():
    row = [300, 301, LOADED[1].bos_id, 302]
    assert LOADED[1].pad([row]).position_ids.tolist() == [[[0, 1, 2, 3], [0, 0, 1, 2]]]


def test_mask_wins_over_gmask_wherever_it_is():
    tokenizer = LOADED[1]
    row = [tokenizer.gmask_id, 300, tokenizer.mask_id, 301, tokenizer.bos_id, 302]
    assert tokenizer.pad([row]).position_ids.tolist() == [[[0, 1, 2, 3, 2, 2], [0, 0, 0, 0, 1, 2]]]


@pytest.mark.parametrize(("tokenizer", "case"), cases("chat"))
def test_a_conversation_becomes_the_published_ids(tokenizer, case):
    query, history = case["query"], case["history"]
    role = [case["role"]] if "role" in case else []
    assert tokenizer.build_chat(query, history, *role) == case["ids"]
    if "prompt" in case:
        assert tokenizer.chat_prompt(query, history) == case["prompt"]
    if "continuation_ids" in case:
        assert tokenizer.continue_chat(query, history) == case["continuation_ids"]


@pytest.mark.parametrize(("tokenizer", "case"), cases("texts_with_role_tokens"))
def test_role_tokens_in_a_text_are_read_where_that_is_asked_for(tokenizer, case):
    ids = tokenizer.encode_with_roles(case["text"])
    assert ids == case["ids"]
    assert tokenizer.pieces(ids) == case["tokens"]


def test_an_unknown_role_is_named():
    with pytest.raises(ValueError, match="role is 'narrator'; allowed: system, user"):
        LOADED[3].build_chat("hello", [{"role": "narrator", "content": "once"}])


@pytest.mark.parametrize("generation", KINDS)
@pytest.mark.parametrize("text", ["hello world", "你好", "a  b\tc\nd", "[Round 2]\n", " x"])
def test_a_text_that_continues_a_line_gets_no_space(generation, text):
    tokenizer = LOADED[generation]
    ids = tokenizer.encode("hello:") + tokenizer.encode_inside(text)
    assert tokenizer.decode(ids) == "hello:" + text
