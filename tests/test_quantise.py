"""Int8 weights and half precision: what they save, what they change, and what they leave alone."""

import builtins

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llmasr.api import ASSETS, Recognizer
from llmasr.config import ModelConfig, SpeechConfig
from llmasr.models.checkpoint import load_pretrained, save_pretrained
from llmasr.models.language.layers import is_quantised, stored_parts
from llmasr.models.language.lora import add_lora, has_lora, merge_and_unload
from llmasr.models.language.quantise import compare_int8, quantise_int8
from llmasr.models.precision import held_as, set_precision
from llmasr.models.xllm import XLLM
from llmasr.prompts import PromptIds

TEXT = "the woman in the red dress is walking to school with her friend"
GPU = pytest.param("cuda", marks=pytest.mark.cuda)


@pytest.fixture(autouse=True)
def _torchao():
    pytest.importorskip("torchao")


@pytest.fixture(scope="module")
def bundle():
    return load_pretrained(ASSETS / "tiny-en")


@pytest.fixture
def tiny():
    return load_pretrained(ASSETS / "tiny-test")


@pytest.fixture(params=["cpu", GPU])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    return request.param


def ids_of(bundle, text=TEXT):
    return torch.tensor([bundle.tokenizer.encode(text)])


def read(model, ids):
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        return model.reader.read(model.reader.embed(ids), mask, mask.sum(1))[0]


def test_int8_takes_a_third_of_the_memory_and_moves_logits_little(bundle):
    before = {name: value.clone() for name, value in bundle.model.state_dict().items()}
    found = compare_int8(bundle.model, ids_of(bundle))
    # Of 12 MB, 1 MB are the vocabularies, which stay as they are.
    assert found.num_bytes_int8 < 0.34 * found.num_bytes
    assert found.largest_logit > 5
    assert 0 < found.largest_deviation < 0.01 * found.largest_logit
    assert "MB" in str(found)
    after = bundle.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_int8_weights_hear_the_same_words(device, dtype, bundle):
    small = Recognizer.from_pretrained("tiny-en", device=device, dtype=dtype, quantization="int8")
    expected = Recognizer(bundle).transcribe(ASSETS / "example.flac")
    actual = small.transcribe(ASSETS / "example.flac")
    assert actual.text == expected.text
    for word, other in zip(actual.words, expected.words, strict=True):
        assert (word.start, word.end) == (other.start, other.end)
        assert word.confidence == pytest.approx(other.confidence, abs=0.05)


def test_a_quantised_row_is_off_by_half_a_step_at_most(tiny):
    layer = tiny.model.language_model.model.layers[0].self_attn.q_proj
    weight = layer.weight.detach().clone()
    quantise_int8(tiny.model)
    step = weight.abs().amax(1, keepdim=True) / 127
    # torchao counts 255 steps between both ends, so its step may be a little wider.
    assert ((layer.weight.dequantize() - weight).abs() <= 0.505 * step + 1e-9).all()


def test_vocabularies_and_everything_acoustic_stay_as_they_are(tiny):
    language_model = tiny.model.language_model
    embedding = language_model.get_input_embeddings().weight.detach().clone()
    output = language_model.get_output_embeddings().weight.detach().clone()
    quantise_int8(tiny.model)
    assert torch.equal(language_model.get_input_embeddings().weight, embedding)
    assert torch.equal(language_model.get_output_embeddings().weight, output)
    assert not is_quantised(tiny.model.interfaces)
    kinds = {
        part.dtype for p in language_model.model.layers.parameters() for part in stored_parts(p)
    }
    assert torch.int8 in kinds
    linear = [m for m in language_model.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    assert all(len(stored_parts(layer.weight)) > 1 for layer in linear)


def test_adapters_are_merged_before_weights_become_int8(tiny):
    generator = torch.Generator().manual_seed(0)
    for parameter in add_lora(tiny.model, rank=4).values():
        parameter.data.normal_(std=0.1, generator=generator)
    ids = torch.tensor([[5, 9, 41, 8]])
    found = compare_int8(tiny.model, ids)
    assert has_lora(tiny.model)
    expected = read(tiny.model, ids)
    quantise_int8(tiny.model)
    assert not has_lora(tiny.model)
    assert (read(tiny.model, ids) - expected).abs().max() == pytest.approx(found.largest_deviation)
    assert found.largest_deviation < 0.05 * found.largest_logit


def test_adapters_merge_into_half_precision_before_int8(tiny):
    set_precision(tiny.model, torch.bfloat16)
    add_lora(tiny.model, rank=4)
    merge_and_unload(tiny.model)
    quantise_int8(tiny.model)
    assert torch.isfinite(read(tiny.model, torch.tensor([[5, 9]]))).all()


def test_int8_weights_are_quantised_once_and_never_saved(tiny, tmp_path):
    quantise_int8(tiny.model)
    with pytest.raises(ValueError, match="quantised already"):
        quantise_int8(tiny.model)
    with pytest.raises(ValueError, match="int8 weights is not saved"):
        save_pretrained(tiny, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_without_linear_layers_says_what_was_looked_for():
    language_model = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1))
    config = ModelConfig(speech=SpeechConfig(adaptor_width=8))
    model = XLLM({}, language_model, PromptIds([], []), config)
    with pytest.raises(ValueError, match="no Linear among the inner layers of GPT2LMHeadModel"):
        quantise_int8(model)


def test_an_unknown_quantization_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match="quantization is 'int3'; allowed: int8"):
        Recognizer.from_pretrained("tiny-test", quantization="int3")


def test_without_torchao_the_error_says_what_to_install(monkeypatch, tiny):
    original = builtins.__import__

    def without_torchao(name, *rest):
        if name.partition(".")[0] == "torchao":
            raise ImportError("No module named 'torchao'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_torchao)
    with pytest.raises(ImportError, match=r'need torchao.*: pip install "llmasr\[int8\]"'):
        quantise_int8(tiny.model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_for_the_language_model_alone(tiny, dtype):
    frequencies = tiny.model.language_model.model.rotary_emb.inv_freq.clone()
    set_precision(tiny.model, dtype)
    assert {p.dtype for p in tiny.model.language_model.parameters()} == {dtype}
    assert {p.dtype for p in tiny.model.boundaries.parameters()} == {dtype}
    assert {p.dtype for p in tiny.model.interfaces.parameters()} == {torch.float32}
    # Rounded frequencies would turn late positions by the wrong angle.
    assert torch.equal(tiny.model.language_model.model.rotary_emb.inv_freq, frequencies)
    assert tiny.model.language_model.dtype == dtype


def test_parameters_held_in_another_dtype_come_back_to_the_bit(tiny):
    model = tiny.model.language_model
    for parameter in model.parameters():
        parameter.data.add_(1e-6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with held_as(model, torch.float16):
        assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
