"""X-LLM's speech bridge: CIF vectors from files to vectors of the language model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from llmasr.config import from_dict, to_dict
from llmasr.models.xllm_speech import ContextConfig, FeatureSpeechConfig, build_feature_speech

TINY = FeatureSpeechConfig(
    feature_width=16,
    context=ContextConfig(width=32, num_blocks=2, num_heads=2, mlp_width=48, vocab_size=30),
    adaptor_width=48,
)
LIGHT = replace(TINY, context=None)


def bridge(config=TINY):
    """Return one in eval mode, with weights large enough to tell inputs apart."""
    torch.manual_seed(0)
    interface = build_feature_speech(config).eval()
    for name, weight in interface.named_parameters():
        weight.data += 0.2 * torch.randn_like(weight) * ("norm" not in name.lower())
    return interface


def features(*shape):
    return torch.randn(*shape, 16, generator=torch.Generator().manual_seed(1))


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def test_the_full_size_has_the_parameters_of_x_llm():
    with torch.device("meta"):
        full, light = (
            build_feature_speech(config)
            for config in (FeatureSpeechConfig(), FeatureSpeechConfig(context=None))
        )
    assert count(full.cformer.pre) == 393_984
    assert count(full.cformer.bert) == 102_267_648
    assert count(full.adaptor) == 3_149_824
    assert count(full) == 105_811_456
    assert count(light) == 512 * 4096 + 4096


# check 9
@pytest.mark.parametrize("config", [TINY, LIGHT], ids=["bert", "fc"])
@pytest.mark.parametrize("garbage", [7.0, float("nan")])
def test_padded_features_change_nothing(config, garbage):
    interface, given, lengths = bridge(config), features(3, 6), torch.tensor([6, 4, 1])
    expected, said = interface(given, lengths)
    given[1, 4:], given[2, 1:] = garbage, garbage
    assert torch.equal(interface(given, lengths)[0], expected)
    assert torch.equal(said, lengths)
    assert not expected[1, 4:].any()
    assert not expected[2, 1:].any()
    alone, _ = interface(given[1:2, :4], lengths[1:2])
    assert_close(alone, expected[1:2, :4], atol=1e-5, rtol=1e-5)


def test_a_vector_of_zeros_is_no_padding():
    interface, given = bridge(), features(1, 4)
    given[0, 2] = 0.0
    vectors, _ = interface(given, torch.tensor([4]))
    assert vectors[0, 2].any()
    without, _ = interface(given[:, [0, 1, 3]], torch.tensor([3]))
    assert (vectors[:, :2] - without[:, :2]).abs().max() > 1e-3


def test_every_token_is_read_in_its_context_and_at_its_place():
    interface, given, lengths = bridge(), features(1, 4), torch.tensor([4])
    changed = given.clone()
    changed[0, 3] += 1
    first, second = (interface(each, lengths)[0] for each in (given, changed))
    assert (first[:, :3] - second[:, :3]).abs().max() > 1e-3
    backwards, _ = interface(given.flip(1), lengths)
    assert (backwards.flip(1) - first).abs().max() > 1e-3


# check 10
@pytest.mark.parametrize("config", [TINY, LIGHT], ids=["bert", "fc"])
def test_relu_after_the_adaptor_is_off_unless_asked_for(config):
    signed, lengths = bridge(config)(features(2, 5), torch.tensor([5, 3]))
    positive, _ = bridge(replace(config, adaptor_relu=True))(features(2, 5), lengths)
    assert signed.shape == (2, 5, 48)
    assert signed.min() < 0
    assert positive.min() >= 0
    assert_close(positive, signed.clamp(min=0))


def test_the_light_variant_is_the_adaptor_alone():
    interface = bridge(LIGHT)
    assert [name for name, _ in interface.named_parameters()] == ["adaptor.weight", "adaptor.bias"]
    vectors, _ = interface(features(1, 3), torch.tensor([3]))
    assert_close(vectors, nn.functional.linear(features(1, 3), *interface.parameters()))


def test_the_switch_leaves_names_of_weights_as_they_are():
    with_relu = bridge(replace(TINY, adaptor_relu=True))
    assert with_relu.state_dict().keys() == bridge().state_dict().keys()


def test_features_come_from_an_array_file(tmp_path):
    np.save(tmp_path / "clip.npy", features(7).numpy())
    read = torch.from_numpy(np.load(tmp_path / "clip.npy", allow_pickle=False))
    vectors, lengths = bridge()(read[None], torch.tensor([len(read)]))
    assert vectors.shape == (1, 7, 48)
    assert lengths.tolist() == [7]


@pytest.mark.parametrize("lengths", [[0, 3], [0, 0]])
def test_a_row_without_tokens_has_no_vectors_and_finite_gradients(lengths):
    interface = bridge().train()
    vectors, _ = interface(features(2, 3), torch.tensor(lengths))
    assert not vectors[0].any()
    vectors.square().sum().backward()
    gradients = [weight.grad for weight in interface.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("shape", [(2, 0), (0, 3)])
@pytest.mark.parametrize("config", [TINY, LIGHT], ids=["bert", "fc"])
def test_nothing_becomes_nothing(config, shape):
    vectors, _ = bridge(config)(features(*shape), torch.zeros(shape[0], dtype=torch.int64))
    assert vectors.shape == (*shape, 48)


@pytest.mark.parametrize("config", [TINY, LIGHT], ids=["bert", "fc"])
@pytest.mark.parametrize("shape", [(2, 3, 15), (3, 16)], ids=str)
def test_features_of_another_shape_are_refused(config, shape):
    with pytest.raises(ValueError, match=r"features is \[.*\]; allowed: \[rows, tokens, 16\]"):
        bridge(config)(torch.zeros(shape), torch.tensor([3, 3]))


def test_more_tokens_than_positions_are_refused_and_never_cut():
    short = bridge(replace(TINY, context=replace(TINY.context, max_tokens=4)))
    with pytest.raises(ValueError, match="features has 5 tokens; allowed: up to 4"):
        short(features(1, 5), torch.tensor([5]))


@pytest.mark.parametrize("config", [TINY, LIGHT], ids=["bert", "fc"])
def test_sizes_survive_json(config):
    assert from_dict(FeatureSpeechConfig, to_dict(config)) == config
