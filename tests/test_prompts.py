"""Where speech stands in a prompt, for each generation of language models."""

import json
from pathlib import Path

import pytest
import tokenizers

from llmasr.api import ASSETS
from llmasr.config import ModelConfig, PromptConfig, from_dict, to_dict
from llmasr.models.language.any_tokenizer import load_tokenizer
from llmasr.models.language.json_tokenizer import JsonTokenizer
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.prompts import (
    INSTRUCTIONS,
    LAYOUTS,
    TRANSCRIBE,
    PromptIds,
    choose_prompt,
    lay_out,
)

GOLDEN = Path(__file__).parent / "golden/tokenizers"
PLAIN = Tokenizer(ASSETS / "tiny-test/tokenizer.model")
V1, V2, V3 = (load_tokenizer(GOLDEN / f"chatglm{generation}") for generation in (1, 2, 3))
BY_LAYOUT = {"plain": PLAIN, "chatglm": V1, "xllm": V1, "xllm_question": V1, "chatglm2": V2}
BY_LAYOUT["chatglm3"] = V3
TEXTS = [text for task in INSTRUCTIONS.values() for texts in task.values() for text in texts]
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def json_tokenizer(folder, specials, chat_template=None):
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    model = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    model.add_special_tokens(specials)
    model.save(str(folder / "tokenizer.json"))
    return JsonTokenizer(folder / "tokenizer.json", {}, chat_template)


@pytest.mark.parametrize("instruction", TEXTS)
def test_a_plain_prompt_begins_with_the_begin_id_and_ends_with_the_instruction(instruction):
    prompt = lay_out(PLAIN, instruction)
    assert prompt == PromptIds([PLAIN.bos_id], PLAIN.encode(instruction))


@pytest.mark.parametrize("instruction", ["", *TEXTS])
def test_chatglm_hears_speech_first_inside_the_prefix_that_sees_itself(instruction):
    before, after, _ = lay_out(V1, instruction, "chatglm")
    assert before == []
    assert after == V1.build_chat(instruction)
    assert after[-2:] == [V1.gmask_id, V1.bos_id]


@pytest.mark.parametrize("instruction", TEXTS)
def test_xllm_spells_its_boundaries_as_text(instruction):
    before, after, tags = lay_out(V1, instruction, "xllm")
    assert before == []
    assert after == lay_out(V1, instruction, "chatglm").after
    assert tags["speech"] == (V1.encode("<Speech>"), V1.encode("</Speech>"))
    assert tags["image"] == (V1.encode("<Image>"), V1.encode("</Image>"))
    question = lay_out(V1, instruction, "xllm_question")
    assert V1.decode(question.after).endswith(V1.decode(V1.encode(f"问：{instruction}\n答：")))


@pytest.mark.parametrize("instruction", ["", *TEXTS])
def test_chatglm2_hears_speech_at_the_start_of_its_first_question(instruction):
    before, after, _ = lay_out(V2, instruction, "chatglm2")
    assert before + after == V2.build_chat(instruction)
    assert before[:2] == [V2.gmask_id, V2.sop_id]
    assert V2.decode(before).endswith("问：")


@pytest.mark.parametrize("instruction", TEXTS)
def test_chatglm3_hears_speech_at_the_start_of_the_turn_of_the_user(instruction):
    before, after, _ = lay_out(V3, instruction, "chatglm3")
    line = V3.encode("\n")
    assert before + after == [*V3.build_chat(instruction), *line]
    assert before == [V3.gmask_id, V3.sop_id, V3.id_of("<|user|>"), *line]


def test_glm4_hears_speech_at_the_start_of_the_turn_of_the_user(tmp_path):
    specials = ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>"]
    tokenizer = json_tokenizer(tmp_path, specials)
    gmask, sop, user, assistant = map(tokenizer.id_of, specials)
    line = tokenizer.encode("\n")
    before, after, _ = lay_out(tokenizer, "write", tokenizer.layout)
    assert before == [gmask, sop, user, *line]
    assert after == [*tokenizer.encode("write"), assistant, *line]


def test_any_other_model_hears_speech_in_the_slot_of_its_chat_template(tmp_path):
    specials = ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = json_tokenizer(tmp_path, specials, TEMPLATE)
    user, assistant, end = map(tokenizer.id_of, specials)
    text = "write <|end|>"
    before, after, _ = lay_out(tokenizer, text, tokenizer.layout)
    assert before == [user]
    assert after == [*tokenizer.encode(text), end, assistant]
    assert after.count(end) == 1


@pytest.mark.parametrize("layout", BY_LAYOUT)
def test_the_words_of_an_instruction_are_all_there(layout):
    tokenizer = BY_LAYOUT[layout]
    text = "write what is said"
    assert text in tokenizer.decode(lay_out(tokenizer, text, layout).after)


@pytest.mark.parametrize("token", ["[MASK]", "[gMASK]", "<sop>", "<eop>", "［gMASK］"])
@pytest.mark.parametrize("layout", ["chatglm", "xllm", "xllm_question"])
def test_an_instruction_cannot_move_the_answer(layout, token):
    with pytest.raises(ValueError, match="must not contain special tokens"):
        lay_out(V1, f"write {token} this", layout)


@pytest.mark.parametrize("token", ["[gMASK]", "sop", "<|assistant|>", "</s>"])
@pytest.mark.parametrize("layout", ["chatglm2", "chatglm3"])
def test_special_tokens_in_an_instruction_are_only_text(layout, token):
    tokenizer = BY_LAYOUT[layout]
    special = set(tokenizer.ids.values())
    plain = lay_out(tokenizer, "write", layout)
    forged = lay_out(tokenizer, f"write {token}", layout)
    assert sum(i in special for i in forged.after) == sum(i in special for i in plain.after)


def test_an_unknown_layout_is_named():
    with pytest.raises(ValueError, match=r"layout is 'gpt'; allowed: plain, chatglm, chatglm2"):
        lay_out(PLAIN, "", "gpt")


@pytest.mark.parametrize("layout", set(LAYOUTS) - {"plain", "template"})
def test_a_layout_for_another_tokenizer_names_the_token_that_is_missing(layout):
    with pytest.raises(ValueError, match=r"tokenizer\.model: no piece '\[g?MASK\]'"):
        lay_out(PLAIN, "", layout)


@pytest.mark.parametrize("tokenizer", [V1, V2, V3], ids=["v1", "v2", "v3"])
def test_a_tokenizer_names_a_layout_that_suits_it(tokenizer):
    assert lay_out(tokenizer, TRANSCRIBE["zh"], tokenizer.layout).after


def test_only_xllm_has_no_learnt_boundaries():
    spelled = {
        layout for layout, tokenizer in BY_LAYOUT.items() if lay_out(tokenizer, "", layout).tags
    }
    assert spelled == {"xllm", "xllm_question"}


def test_every_task_has_instructions_in_both_languages_and_none_twice():
    assert all(task.keys() == {"zh", "en"} for task in INSTRUCTIONS.values())
    assert len(TEXTS) == len(set(TEXTS))
    assert all(text == text.strip() != "" for text in TEXTS)


# The prompt of training, and others.


def test_the_prompt_of_training_is_used_without_a_flag():
    trained = PromptConfig(TRANSCRIBE["zh"], "chatglm2")
    expected = lay_out(V2, TRANSCRIBE["zh"], "chatglm2")
    assert choose_prompt(V2, trained) == (expected, ())
    assert choose_prompt(V2, trained, TRANSCRIBE["zh"]) == (expected, ())


@pytest.mark.parametrize("instruction", ["", "write"])
def test_another_prompt_is_used_and_flagged(instruction):
    trained = PromptConfig(TRANSCRIBE["zh"], "chatglm2")
    expected = lay_out(V2, instruction, "chatglm2")
    assert choose_prompt(V2, trained, instruction) == (expected, ("prompt_changed",))


def test_a_checkpoint_keeps_its_layout():
    config = ModelConfig(prompt=PromptConfig("write", "chatglm3"))
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_checkpoint_from_before_layouts_has_the_plain_one():
    values = to_dict(ModelConfig(prompt=PromptConfig("write")))
    del values["prompt"]["layout"]
    assert from_dict(ModelConfig, values).prompt == PromptConfig("write", "plain")
    del values["prompt"]["instruction"]
    with pytest.raises(ValueError, match="PromptConfig: missing instruction"):
        from_dict(ModelConfig, values)


@pytest.mark.parametrize("name", ["tiny-en", "tiny-test"])
def test_the_bundled_models_keep_their_prompt(name):
    values = json.loads((ASSETS / name / "config.json").read_text("utf-8"))
    trained = from_dict(ModelConfig, values).prompt
    tokenizer = Tokenizer(ASSETS / name / "tokenizer.model")
    ids, flags = choose_prompt(tokenizer, trained)
    assert ids == PromptIds([tokenizer.bos_id], tokenizer.encode("write what is said"))
    assert flags == ()
