"""Adapters on the language model: what they change, what they leave, and how they are kept."""

import builtins
import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GlmConfig,
    GlmForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from llmasr.api import ASSETS
from llmasr.config import ModelConfig, SpeechConfig
from llmasr.models.checkpoint import Bundle, load_pretrained, save_pretrained
from llmasr.models.language.chatglm1 import ChatGLM1Config, ChatGLM1ForCausalLM
from llmasr.models.language.lora import (
    add_lora,
    has_lora,
    load_lora,
    merge,
    merge_and_unload,
    save_lora,
    unmerge,
)
from llmasr.models.language.quantise import quantise_int8
from llmasr.models.precision import set_precision
from llmasr.models.xllm import XLLM
from llmasr.prompts import PromptIds

SIZES = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
IDS = torch.tensor([[5, 9, 41, 8, 77, 3], [8, 8, 2, 61, 30, 4]])
ANSWERS = [[7, 8, 2], [9, 2]]
# What carries the weight of a block, by the names of each architecture.
LAYERS = {
    "glm": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "chatglm1": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
}


def language_model(kind):
    torch.manual_seed(0)
    if kind == "glm":
        return GlmForCausalLM(GlmConfig(**GATED, pad_token_id=0))
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**GATED, tie_word_embeddings=True))
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_embd=32, n_layer=2, n_head=4))
    special = {"bos_token_id": 94, "eos_token_id": 95, "pad_token_id": 3}
    sizes = {"vocab_size": 96, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 4}
    return ChatGLM1ForCausalLM(ChatGLM1Config(**sizes, **special, inner_hidden_size=64))


def xllm(kind="glm"):
    """Make an X-LLM without interfaces, in eval mode."""
    config = ModelConfig(speech=SpeechConfig(adaptor_width=32))
    return XLLM({}, language_model(kind), PromptIds([1], [6, 7]), config).eval()


def logits(model):
    mask = torch.ones_like(IDS, dtype=torch.bool)
    with torch.no_grad():
        read, _ = model.reader.read(model.reader.embed(IDS), mask, torch.tensor([4, 4]))
    return read


def fill(parameters):
    """Give adapters weights as training would, of a size that moves every logit."""
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters.values():
        parameter.data.normal_(std=0.2, generator=generator)


def adapted(kind="glm", **options):
    model = xllm(kind)
    fill(add_lora(model, rank=4, **options))
    return model


def largest(difference):
    return difference.abs().max().item()


@pytest.fixture
def tiny():
    return load_pretrained(ASSETS / "tiny-test")


@pytest.mark.parametrize("kind", LAYERS)
def test_fresh_adapters_change_nothing_in_any_architecture(kind):
    model = xllm(kind)
    before = logits(model)
    trainable = add_lora(model, rank=4)
    assert torch.equal(logits(model), before)
    assert {name.rpartition(".lora_")[0].rpartition(".")[2] for name in trainable} == LAYERS[kind]


@pytest.mark.parametrize("kind", LAYERS)
def test_merged_adapters_give_the_same_logits_and_unmerge_restores_every_bit(kind):
    model = xllm(kind)
    before = copy.deepcopy(model.language_model.state_dict())
    plain = logits(model)
    fill(add_lora(model, rank=4))
    apart = logits(model)
    assert largest(apart - plain) > 0.01
    merge(model)
    assert largest(logits(model) - apart) < 1e-5
    unmerge(model)
    assert torch.equal(logits(model), apart)
    merge(model)
    unmerge(model)
    after = {
        name.replace(".base_layer", ""): value
        for name, value in model.language_model.state_dict().items()
    }
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kind", LAYERS)
def test_after_merging_for_good_the_model_is_an_ordinary_one(kind):
    model = adapted(kind)
    expected, names = logits(model), xllm(kind).state_dict().keys()
    merge_and_unload(model)
    assert not has_lora(model)
    assert model.state_dict().keys() == names
    assert largest(logits(model) - expected) < 1e-5


def test_unmerge_restores_every_bit_in_half_precision():
    model = adapted()
    set_precision(model, torch.bfloat16)
    before = copy.deepcopy(model.language_model.state_dict())
    merge(model)
    unmerge(model)
    after = model.language_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_step_of_training_changes_adapters_alone():
    model = xllm()
    model.requires_grad_(False)
    trainable = add_lora(model, rank=4, dropout=0.1)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.01
    )
    model.boundaries["speech"] = torch.nn.Parameter(torch.zeros(2, 32), requires_grad=False)
    model.train()
    losses = []
    for _ in range(2):
        loss = model.loss(torch.ones(2, 3, 32), torch.tensor([3, 2]), ANSWERS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # A starts at random and gets its first gradient once B, which starts at zero, has moved.
    assert changed == {f"language_model.{name}" for name in trainable}


def test_what_trains_outside_the_language_model_stays_as_it_was(tiny):
    tiny.model.speech.encoder.requires_grad_(False)
    add_lora(tiny.model)
    assert not any(p.requires_grad for p in tiny.model.speech.encoder.parameters())
    assert all(p.requires_grad for p in tiny.model.speech.adaptor.parameters())


def test_adapters_on_half_precision_train_in_single():
    model = xllm()
    set_precision(model, torch.bfloat16)
    assert {parameter.dtype for parameter in add_lora(model).values()} == {torch.float32}
    assert torch.isfinite(logits(model)).all()


def test_adapters_train_on_int8_weights_but_do_not_merge_into_them():
    pytest.importorskip("torchao")
    model = xllm()
    quantise_int8(model)
    with pytest.warns(UserWarning, match="merge"):
        trainable = add_lora(model, rank=4)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    model.reader.read(model.reader.embed(IDS), mask, mask.sum(1))[0].sum().backward()
    assert all(p.grad is not None for p in trainable.values())
    for attempt in (merge, merge_and_unload):
        with pytest.raises(ValueError, match=r"int8 weights.*load_lora on the original"):
            attempt(model)


def test_targets_choose_layers_by_name():
    trainable = add_lora(xllm("chatglm1"), targets=["query_key_value"])
    assert len(trainable) == 2 * 2
    assert all(".query_key_value.lora_" in name for name in trainable)


@pytest.mark.parametrize("is_merged", [False, True], ids=["apart", "merged"])
def test_a_folder_keeps_adapters_apart_and_gives_the_same_logits(tiny, tmp_path, is_merged):
    fill(add_lora(tiny.model, rank=4))
    expected = logits(tiny.model)
    if is_merged:
        merge(tiny.model)
    before = copy.deepcopy(tiny.model.state_dict())
    save_pretrained(tiny, tmp_path, dtype=torch.float32)
    after = tiny.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    again = load_pretrained(tmp_path).model
    assert torch.equal(logits(again), expected)
    trainable = {n for n, p in again.language_model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(".lora_" in name for name in trainable)


def test_saving_in_half_precision_changes_nothing_in_memory(tiny, tmp_path):
    model = load_pretrained(ASSETS / "tiny-test").model
    fill(dict(model.language_model.named_parameters()))
    before = copy.deepcopy(model.state_dict())
    save_pretrained(Bundle(model, tiny.tokenizer), tmp_path)
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    stored = load_file(tmp_path / "language_model/model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}


def test_a_model_saved_without_adapters_leaves_none_of_an_earlier_one(tiny, tmp_path):
    fill(add_lora(tiny.model, rank=4))
    expected = logits(tiny.model)
    save_pretrained(tiny, tmp_path, dtype=torch.float32)
    merge_and_unload(tiny.model)
    save_pretrained(tiny, tmp_path, dtype=torch.float32)
    again = load_pretrained(tmp_path).model
    assert not has_lora(again)
    assert largest(logits(again) - expected) < 1e-5


def test_peft_reads_what_is_written(tiny, tmp_path):
    peft = pytest.importorskip("peft")
    fill(add_lora(tiny.model, rank=4))
    save_pretrained(tiny, tmp_path, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "language_model", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "lora").eval()
    with torch.no_grad():
        assert largest(theirs(input_ids=IDS).logits - logits(tiny.model)) < 1e-5


def test_what_peft_writes_is_read(tmp_path):
    peft = pytest.importorskip("peft")
    theirs = peft.get_peft_model(
        language_model("llama"),
        peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False),
    ).eval()
    theirs.save_pretrained(tmp_path)
    model = xllm("llama")
    load_lora(model, tmp_path)
    with torch.no_grad():
        assert largest(theirs(input_ids=IDS).logits - logits(model)) < 1e-5


@pytest.mark.parametrize("kind", LAYERS)
def test_adapters_of_any_architecture_survive_saving(kind, tmp_path):
    model = adapted(kind)
    save_lora(model, tmp_path)
    again = xllm(kind)
    load_lora(again, tmp_path)
    assert torch.equal(logits(again), logits(model))


def first(weights):
    return sorted(weights)[0]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w.pop(first(w)), r"missing weights: .*lora_A"),
        (lambda w: w.update(more=torch.ones(1)), "unexpected weights: more"),
        (lambda w: w.update({first(w): torch.ones(4, 9)}), r"is \[4, 9\]; .* asks for \[4, 48\]"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_adapters_that_do_not_fit_are_named(tmp_path, edit, message):
    save_lora(adapted(), tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    edit(weights)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_lora(xllm(), tmp_path)


def test_adapters_of_another_architecture_are_refused(tmp_path):
    save_lora(adapted("chatglm1"), tmp_path)
    with pytest.raises(ValueError, match=r"adapter_config\.json: does not fit GlmForCausalLM"):
        load_lora(xllm("glm"), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; allowed: 'LORA'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]; allowed: None"),
        ({"bias": "all"}, "bias is 'all'; allowed: 'none'"),
    ],
    ids=["kind", "modules", "bias"],
)
def test_other_kinds_of_adapters_are_refused(tmp_path, change, message):
    save_lora(adapted(), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        load_lora(xllm(), tmp_path)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("is_damaged", [False, True], ids=["missing", "damaged"])
def test_a_missing_or_damaged_file_of_adapters_is_named(tiny, tmp_path, name, is_damaged):
    add_lora(tiny.model)
    save_pretrained(tiny, tmp_path)
    (tmp_path / "lora" / name).unlink()
    if is_damaged:
        (tmp_path / "lora" / name).write_bytes(b"not what it was")
    problem = ValueError if is_damaged else FileNotFoundError
    with pytest.raises(problem, match=name):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank is 0; allowed: 1 and above"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed"),
        (
            {"targets": ["q_proj", "wings"]},
            r"targets has wings.*GlmForCausalLM; allowed: down_proj",
        ),
    ],
    ids=["rank", "dropout", "targets"],
)
def test_wrong_options_are_named_with_what_is_allowed(options, message):
    with pytest.raises(ValueError, match=message):
        add_lora(xllm(), **options)


def test_a_call_out_of_order_says_so():
    model = xllm()
    for attempt in (merge, unmerge, merge_and_unload):
        with pytest.raises(ValueError, match=r"no adapters; allowed: after add_lora"):
            attempt(model)
    add_lora(model)
    with pytest.raises(ValueError, match="adapters already; merge_and_unload"):
        add_lora(model)
    with pytest.raises(ValueError, match="not merged"):
        unmerge(model)
    merge(model)
    with pytest.raises(ValueError, match="merged already"):
        merge(model)


def test_without_peft_the_error_says_what_to_install(monkeypatch, tmp_path):
    save_lora(adapted(), tmp_path)
    original = builtins.__import__

    def without_peft(name, *rest):
        if name.partition(".")[0] == "peft":
            raise ImportError("No module named 'peft'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    model = xllm()
    for attempt in (lambda: add_lora(model), lambda: load_lora(model, tmp_path)):
        with pytest.raises(ImportError, match=r'needs PEFT: pip install "llmasr\[lora\]"'):
            attempt()
    assert not has_lora(model)
