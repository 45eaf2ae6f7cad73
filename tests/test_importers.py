"""Language models from folders: the numbers of the originals, round trips, and wrong folders."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import GlmConfig, GlmForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from llmasr.importers.chatglm import save_official
from llmasr.importers.chatglm_quantised import dequantise
from llmasr.importers.language import load_language_model
from llmasr.models.language.base import count_places
from llmasr.models.language.chatglm1 import ChatGLM1ForCausalLM

GOLDEN = Path(__file__).parent / "golden"
PLAIN = ["chatglm2", "chatglm3", "chatglm2_32k", "chatglm3_32k"]
QUANTISED = ["int4", "int8", "int4_v1", "int8_v1"]
LOGITS = {"atol": 2e-5, "rtol": 0.0}


def cases(*kinds: str, models: list[str], holding: str = "logits") -> list[Any]:
    """Return (model, case) of the golden files, as parameters."""
    found = []
    for model in models:
        for case in json.loads((GOLDEN / model / "cases.json").read_text("utf-8"))["cases"]:
            if holding in case["tensors"] and (not kinds or case["kind"] in kinds):
                found.append(pytest.param(model, case, id=f"{model}-{case['name']}"))
    return found


@cache
def load(name: str) -> PreTrainedModel:
    return load_language_model(GOLDEN / name)


def tensors(name: str, case: dict) -> dict[str, Tensor]:
    with safe_open(GOLDEN / name / "cases.safetensors", "pt") as file:
        found = {key: file.get_tensor(f"{case['name']}.{key}") for key in case["tensors"]}
    found.setdefault("valid", torch.ones_like(found["input_ids"], dtype=torch.bool))
    return found


def inputs(model: PreTrainedModel, case: dict, golden: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return ids, or for a case with vectors the embeddings with the vectors written in."""
    mask = {"attention_mask": golden["valid"].long()}
    if "spliced" not in golden:
        return {"input_ids": golden["input_ids"]} | mask
    vectors = model.get_input_embeddings()(golden["input_ids"]).detach()
    for row, (start, count) in enumerate(
        zip(case["splice_starts"], case["splice_lengths"], strict=True)
    ):
        vectors[row, start : start + count] = golden["spliced"][row, :count]
    return {"inputs_embeds": vectors} | mask


def generate(model: PreTrainedModel, given: dict[str, Tensor], **options: Any) -> Tensor:
    """Return the tokens that follow."""
    ids = model.generate(**given, max_new_tokens=12, do_sample=False, **options)
    return ids[:, given["input_ids"].shape[1] if "input_ids" in given else 0 :]


def copied(name: str, folder: Path, **changes: Any) -> Path:
    """Copy a golden folder, with fields of `config.json` changed, or removed where None."""
    shutil.copytree(GOLDEN / name, folder, ignore=shutil.ignore_patterns("cases*", "deq*"))
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    config = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def weights_of(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def with_weights(folder: Path, changed: dict[str, Tensor]) -> Path:
    torch.save(changed, folder / "pytorch_model.bin")
    return folder


# parity


@pytest.mark.parametrize(("name", "case"), cases(models=PLAIN + QUANTISED))
@torch.inference_mode()
def test_logits_are_those_of_the_original(name, case):
    golden, model = tensors(name, case), load(name)
    given = inputs(model, case, golden)
    if case["kind"] == "training":
        given.pop("attention_mask")  # the padding is behind the tokens
    logits = model(**given).logits
    valid = golden["valid"]
    assert_close(logits[valid], golden["logits"][valid], **LOGITS)
    if "position_ids" in golden and golden["position_ids"].ndim == 2:
        assert torch.equal(count_places(valid)[valid], golden["position_ids"][valid])


@pytest.mark.parametrize(("name", "case"), cases(models=PLAIN + QUANTISED, holding="greedy"))
@torch.inference_mode()
def test_greedy_tokens_are_those_of_the_original(name, case):
    golden, model = tensors(name, case), load(name)
    assert torch.equal(generate(model, inputs(model, case, golden)), golden["greedy"])


@pytest.mark.parametrize(("name", "case"), cases("training", models=PLAIN))
@torch.inference_mode()
def test_the_loss_is_that_of_the_original(name, case):
    golden = tensors(name, case)
    loss = load(name)(input_ids=golden["input_ids"], labels=golden["labels"]).loss
    assert_close(loss[None], golden["loss"], atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(("name", "case"), cases("incremental", models=PLAIN))
@torch.inference_mode()
def test_token_by_token_with_a_cache_equals_all_at_once(name, case):
    golden, model = tensors(name, case), load(name)
    ids, valid = golden["input_ids"], golden["valid"]
    ends = [case["prefill"], *range(case["prefill"] + 1, ids.shape[1] + 1)]
    start, past, parts = 0, None, []
    for end in ends:
        output = model(
            input_ids=ids[:, start:end], attention_mask=valid[:, :end].long(),
            position_ids=count_places(valid)[:, start:end], past_key_values=past, use_cache=True,
        )  # fmt: skip
        start, past = end, output.past_key_values
        parts.append(output.logits)
    assert_close(torch.cat(parts, 1)[valid], golden["logits"][valid], **LOGITS)


@pytest.mark.parametrize(("name", "case"), cases("embeds", models=PLAIN, holding="inputs_embeds"))
@torch.inference_mode()
def test_vectors_written_into_the_input_are_those_of_the_original(name, case):
    golden = tensors(name, case)
    vectors = inputs(load(name), case, golden)["inputs_embeds"]
    assert torch.equal(vectors[golden["valid"]], golden["inputs_embeds"][golden["valid"]])


@pytest.mark.parametrize(("name", "case"), cases("batch", "embeds", models=PLAIN))
@torch.inference_mode()
def test_beams_with_a_cache_equal_beams_without(name, case):
    model = load(name)
    given = inputs(model, case, tensors(name, case))
    cached = generate(model, given, num_beams=3)
    assert torch.equal(cached, generate(model, given, num_beams=3, use_cache=False))


@pytest.mark.parametrize("name", QUANTISED)
def test_dequantised_weights_are_exact(name):
    folder = GOLDEN / name
    expected, stored = load_file(folder / "dequantised.safetensors"), weights_of(folder)
    bits = json.loads((folder / "config.json").read_text("utf-8"))["quantization_bit"]
    scaled = [key.removesuffix("_scale") for key in stored if key.endswith("weight_scale")]
    assert len(scaled) == 8
    for key in scaled:
        assert torch.equal(dequantise(stored[key], stored[key + "_scale"], bits), expected[key])


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_folder_loads_as_its_plain_weights_do(name, tmp_path):
    plain = copied(name, tmp_path / "plain", quantization_bit=0)
    with_weights(plain, load_file(GOLDEN / name / "dequantised.safetensors"))
    expected = load_language_model(plain).state_dict()
    for key, value in load(name).state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_int4_keeps_every_value_of_both_halves():
    values = torch.arange(-8, 8, dtype=torch.int8)
    even, odd = values.repeat_interleave(16), values.repeat(16)
    packed = ((even << 4) | (odd & 15))[None]
    unpacked = dequantise(packed, torch.tensor([0.5]), 4)
    assert torch.equal(unpacked, torch.stack((even, odd), 1).flatten()[None] * 0.5)


# what a folder becomes


@pytest.mark.parametrize("name", PLAIN)
def test_later_generations_are_native_models(name):
    assert type(load(name)) is GlmForCausalLM
    assert not load(name).training


def test_the_first_generation_is_our_own_model():
    assert type(load("int4_v1")) is ChatGLM1ForCausalLM


def test_answers_of_chatglm3_end_at_the_next_turn_too():
    assert load("chatglm2").generation_config.eos_token_id == 2
    special = json.loads((GOLDEN / "chatglm3" / "cases.json").read_text("utf-8"))["special_ids"]
    user, observation = special["sop"] + 3, special["sop"] + 5
    assert load("chatglm3").generation_config.eos_token_id == [2, user, observation]


@pytest.mark.parametrize("changes", [{"rope_ratio": 500}, {"rope_ratio": 500.0}], ids=str)
def test_glm4_is_read_as_it_configures_itself(tmp_path, changes):
    folder = copied(
        "chatglm3", tmp_path / "m", _name_or_path="THUDM/glm-4-9b-chat", eos_token_id=[7, 9],
        pad_token_id=7, layernorm_epsilon=1.5625e-07, num_hidden_layers=3, **changes,
    )  # fmt: skip
    model = load_language_model(folder)
    assert model.generation_config.eos_token_id == [7, 9]
    assert model.config.rope_parameters["rope_theta"] == 10000.0 * 500
    assert model.config.rms_norm_eps == 1.5625e-07


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["chatglm2", "int4", "int8_v1"])
def test_weights_have_the_type_asked_for(name, dtype):
    model = load_language_model(GOLDEN / name, dtype=dtype)
    assert {value.dtype for value in model.state_dict().values()} == {dtype}
    for key, value in model.state_dict().items():
        assert torch.equal(value, load(name).state_dict()[key].to(dtype)), key


def test_the_generation_is_found_in_other_files_too(tmp_path):
    folder = copied("chatglm2_32k", tmp_path / "m", _name_or_path="mine")
    assert load_language_model(folder).config.rope_parameters["rope_type"] == "linear"
    (folder / "tokenizer_config.json").unlink()
    renamed = folder.rename(tmp_path / "ChatGLM3-6b-32k-mine")
    assert load_language_model(renamed).config.rope_parameters["rope_type"] == "default"


def test_an_unknown_generation_with_a_rope_ratio_is_refused(tmp_path):
    folder = copied("chatglm2_32k", tmp_path / "m", _name_or_path=None)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"rope_ratio is 16, .*set _name_or_path"):
        load_language_model(folder)


@pytest.mark.parametrize("vocab_size", [20128, 128], ids=["old config", "new config"])
def test_image_tokens_of_the_first_vocabulary_are_dropped(tmp_path, vocab_size):
    config = json.loads((GOLDEN / "int8_v1" / "config.json").read_text("utf-8"))
    shift = 20000 if vocab_size > 20000 else 0
    ids = {key: value + shift for key, value in config.items() if key.endswith("token_id")}
    folder = copied("int8_v1", tmp_path / "m", vocab_size=vocab_size, **ids)
    weights = weights_of(folder)
    for name in ("transformer.word_embeddings.weight", "lm_head.weight"):
        weights[name] = torch.cat([torch.full((20000, 32), 9.0).half(), weights[name]])
    model, expected = load_language_model(with_weights(folder, weights)), load("int8_v1")
    assert model.config.eos_token_id == expected.config.eos_token_id
    assert model.config.gmask_token_id == expected.config.gmask_token_id
    for key, value in expected.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


# round trips


@pytest.mark.parametrize("name", [*PLAIN, *QUANTISED])
def test_saving_in_the_layout_of_transformers_round_trips(name, tmp_path):
    load(name).save_pretrained(tmp_path)
    same_model(load_language_model(tmp_path), load(name))


@pytest.mark.parametrize("name", [*PLAIN, "int4"])
def test_saving_in_the_official_layout_round_trips(name, tmp_path):
    save_official(load(name), tmp_path)
    same_model(load_language_model(tmp_path), load(name))
    expected, written = weights_before(name), load_file(tmp_path / "model.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], value) for key, value in expected.items())


def weights_before(name: str) -> dict[str, Tensor]:
    folder = GOLDEN / name
    found = load_file(folder / "dequantised.safetensors") if name == "int4" else {}
    for path in [] if found else [*folder.glob("*.bin"), *folder.glob("model.safetensors")]:
        found |= load_file(path) if path.suffix != ".bin" else torch.load(path, weights_only=True)
    return {key: value for key, value in found.items() if not key.endswith("inv_freq")}


def same_model(actual: PreTrainedModel, expected: PreTrainedModel) -> None:
    assert type(actual) is type(expected)
    for key, value in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[key], value), key
    own, others = actual.config.to_dict(), expected.config.to_dict()
    differing = {key for key in own | others if own.get(key) != others.get(key)}
    assert differing <= {"_name_or_path", "architectures", "transformers_version"}
    assert actual.generation_config.eos_token_id == expected.generation_config.eos_token_id


def test_safetensors_in_shards_and_old_bin_files_load(tmp_path):
    folder = copied("chatglm2_32k", tmp_path / "m")
    weights = weights_of(folder)
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    same_model(load_language_model(folder), load("chatglm2_32k"))
    names = sorted(weights)
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: weights[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "pytorch_model.bin").unlink()
    same_model(load_language_model(folder), load("chatglm2_32k"))


def tiny_llama(folder: Path) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return model


def test_a_native_glm_with_tied_embeddings_loads(tmp_path):
    config = load("chatglm3").config.to_dict() | {"tie_word_embeddings": True}
    GlmForCausalLM(GlmConfig(**config)).save_pretrained(tmp_path)
    model = load_language_model(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_any_other_causal_model_loads(tmp_path):
    expected = tiny_llama(tmp_path)
    actual = load_language_model(str(tmp_path))
    assert type(actual) is LlamaForCausalLM
    assert all(
        torch.equal(actual.state_dict()[key], value) for key, value in expected.state_dict().items()
    )


# wrong folders: one error that names the file or key, what was found and what is accepted


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("chatglm2", "add_bias_linear", True),
        ("chatglm2", "add_qkv_bias", False),
        ("chatglm3", "rmsnorm", False),
        ("chatglm3", "multi_query_attention", False),
        ("chatglm3", "original_rope", False),
        ("chatglm2", "tie_word_embeddings", True),
        ("chatglm2", "num_layers", None),
        ("chatglm2", "num_layers", "2"),
        ("chatglm2", "kv_channels", 0),
        ("chatglm2", "kv_channels", 18),
        ("chatglm2", "layernorm_epsilon", None),
        ("chatglm2", "multi_query_group_num", 3),
        ("chatglm2", "rope_ratio", -1),
        ("chatglm2", "eos_token_id", "2"),
        ("chatglm2", "pad_token_id", 480),
        ("chatglm2", "pad_token_id", [0, 1]),
        ("chatglm2", "use_cache", "maybe"),
        ("chatglm3", "padded_vocab_size", 460),
        ("chatglm2", "quantization_bit", 3),
        ("chatglm2", "inner_hidden_size", 160),
        ("chatglm2", "pre_seq_len", 128),
        ("int4_v1", "pre_seq_len", 128),
        ("int4_v1", "position_encoding_2d", False),
        ("int4_v1", "vocab_size", None),
        ("int4_v1", "bos_token_id", 128),
        ("chatglm2", "vision_config", {}),
        ("chatglm2", "model_type", "chatglm9"),
    ],
)
def test_a_field_no_release_has_is_refused_by_name(tmp_path, name, field, value):
    folder = copied(name, tmp_path / "m", **{field: value})
    with pytest.raises(ValueError, match=rf"config\.json: .*{field}"):
        load_language_model(folder)


@pytest.mark.parametrize(("bits", "message"), [(8, r"config.json asks for"), (0, "4 or 8")])
def test_weights_of_another_number_of_bits_are_refused(tmp_path, bits, message):
    folder = copied("int4", tmp_path / "m", quantization_bit=bits)
    with pytest.raises(ValueError, match=message):
        load_language_model(folder)


def test_quantisation_that_is_announced_but_not_there_is_refused(tmp_path):
    folder = copied("chatglm2_32k", tmp_path / "m", quantization_bit=4)
    with pytest.raises(ValueError, match="quantization_bit is 4, but no weight has"):
        load_language_model(folder)


@pytest.mark.parametrize(("config", "weights"), [("int4_v1", "int4"), ("int8", "int8_v1")])
def test_mixed_generations_are_refused(tmp_path, config, weights):
    folder = copied(config, tmp_path / "m")
    shutil.copy(GOLDEN / weights / "pytorch_model.bin", folder)
    with pytest.raises(ValueError, match=r"config\.json describes .*; the weights are of .*"):
        load_language_model(folder)


LAST = "transformer.output_layer.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(LAST), f"1 weights are missing: {LAST}"),
        (lambda w: w.update({"transformer.more": w[LAST]}), "not known .*: transformer.more"),
        (
            lambda w: w.update({LAST: w[LAST][:-1]}),
            rf"{LAST} is \[479, 40\]; .* asks for \[480, 40\]",
        ),
        (lambda w: w.update({LAST: w[LAST].long()}), f"{LAST} is torch.int64; floating point"),
        (
            lambda w: w.update({"transformer.prefix_encoder.embedding.weight": w[LAST]}),
            "transformer.prefix_encoder.embedding.weight: P-tuning prefixes are not supported",
        ),
        (lambda w: w.update({"epoch": 3}), "epoch is a int; a tensor is needed"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, change, message):
    folder = copied("chatglm2_32k", tmp_path / "m")
    weights = weights_of(folder)
    change(weights)
    with pytest.raises(ValueError, match=message):
        load_language_model(with_weights(folder, weights))


def test_weights_of_another_size_are_refused(tmp_path):
    folder = copied("chatglm2_32k", tmp_path / "m", num_layers=3)
    with pytest.raises(ValueError, match=r"7 weights are missing: transformer\.encoder\.layers\.2"):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged"),
        (b"nothing of the kind", "damaged"),
        (b"PK\x03\x04 cut short", "damaged"),
        (b"version of https git-lfs spec", "Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("name", ["chatglm2_32k", "chatglm3"])
def test_a_damaged_file_of_weights_is_named(tmp_path, name, content, message):
    folder = copied(name, tmp_path / "m")
    file = next(path for path in folder.iterdir() if path.stem in ("model", "pytorch_model"))
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file.name}: .*{message}"):
        load_language_model(folder)


def test_a_file_cut_in_half_is_named(tmp_path):
    for name in ("chatglm2_32k", "chatglm3"):
        folder = copied(name, tmp_path / name)
        file = next(path for path in folder.iterdir() if path.stem in ("model", "pytorch_model"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ValueError, match=rf"{file.name}: damaged"):
            load_language_model(folder)


class Evil:
    def __reduce__(self):
        return print, ("unpickled",)


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    folder = copied("chatglm2_32k", tmp_path / "m")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin: damaged, or no file of weights"):
        load_language_model(with_weights(folder, weights_of(folder) | {"x": Evil()}))
    assert "unpickled" not in capsys.readouterr().out


def test_a_missing_shard_is_named(tmp_path):
    folder = copied("chatglm2", tmp_path / "m")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"names 2 files, .* missing: .*-00002-of-00002"):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.pop("weight_map"), "weight_map is missing or empty"),
        (lambda index: index["weight_map"].update(a="../a.bin"), r"'\.\./a\.bin'; a name"),
        (
            lambda index: index["weight_map"].update(a="pytorch_model-00001-of-00002.bin"),
            "00001-of-00002.bin: a is missing, which the index promises",
        ),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, change, message):
    path = copied("chatglm2", tmp_path / "m") / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text("utf-8"))
    change(index)
    path.write_text(json.dumps(index), "utf-8")
    with pytest.raises(ValueError, match=message):
        load_language_model(path.parent)


def test_the_same_weight_in_two_shards_is_refused(tmp_path):
    folder = copied("chatglm2", tmp_path / "m")
    second = folder / "pytorch_model-00002-of-00002.bin"
    first = torch.load(folder / "pytorch_model-00001-of-00002.bin", weights_only=True)
    torch.save(torch.load(second, weights_only=True) | first, second)
    with pytest.raises(ValueError, match="is also in another file"):
        load_language_model(folder)


def test_a_folder_without_weights_or_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder; .*config\.json"):
        load_language_model(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"config\.json: missing"):
        load_language_model(tmp_path)
    shutil.copy(GOLDEN / "chatglm2" / "config.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights; accepted are model\.safetensors"):
        load_language_model(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: (damaged|holds a list)"):
        load_language_model(tmp_path)


@pytest.mark.parametrize("config", [{}, {"model_type": "chatglm"}, {"model_type": "unheard_of"}])
def test_an_unknown_model_type_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json: model_type is .*ChatGLM2, ChatGLM3"):
        load_language_model(tmp_path)


def test_a_model_that_is_no_language_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="'vit', which is no causal language model; accepted are"):
        load_language_model(tmp_path)


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match="PEFT adapter"):
        load_language_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("model.norm.weight"), r"missing keys .*: model\.norm\.weight"),
        (lambda w: w.update(more=w["model.norm.weight"].clone()), "unexpected keys .*: more"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(3)}),
            r"model\.norm\.weight|mismatch",
        ),
    ],
)
def test_other_models_are_read_as_strictly(tmp_path, change, message):
    tiny_llama(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_language_model(tmp_path)


def test_official_weights_beside_a_native_config_are_refused(tmp_path):
    load("chatglm3").save_pretrained(tmp_path)
    shutil.copy(GOLDEN / "chatglm3" / "model.safetensors", tmp_path)
    with pytest.raises(ValueError, match="missing keys"):
        load_language_model(tmp_path)


def test_a_type_that_is_no_floating_point_is_refused():
    with pytest.raises(ValueError, match=r"dtype is torch\.int8"):
        load_language_model(GOLDEN / "chatglm2", dtype=torch.int8)
