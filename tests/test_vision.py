"""Image and video interfaces: sizes, what freezes, and what a frame or a mask may change."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import Blip2VisionConfig, Blip2VisionModel

from llmasr.config import QFormerConfig, VisionConfig, ViTConfig, from_dict, to_dict
from llmasr.models.vision import (
    Float32LayerNorm,
    ImageInterface,
    VideoInterface,
    VisualTrunk,
    build_vision,
    build_vit,
)

TINY = VisionConfig(
    vit=ViTConfig(image_size=28, patch_size=14, width=32, num_blocks=2, num_heads=2, mlp_width=48),
    qformer=QFormerConfig(width=32, num_blocks=2, num_heads=2, mlp_width=48),
    num_queries=4,
    adaptor_width=48,
)
# What two cores can train: pictures of 112 pixels, 49 patches.
SMALL = VisionConfig(
    vit=ViTConfig(112, 16, width=128, num_blocks=4, num_heads=4, mlp_width=512, frozen=False),
    qformer=QFormerConfig(width=128, num_blocks=2, num_heads=4, mlp_width=512),
    adaptor_width=192,
)


def interfaces(config: VisionConfig = TINY) -> tuple[ImageInterface, VideoInterface]:
    """Return both, in eval mode, with weights large enough to tell inputs apart."""
    torch.manual_seed(0)
    both = build_vision(config)
    for name, weight in nn.ModuleDict(both).named_parameters():
        weight.data += 0.3 * torch.randn_like(weight) * ("norm" not in name.lower())
    return both["image"].eval(), both["video"].eval()


def pictures(*shape: int) -> Tensor:
    return torch.randn(*shape, 3, 28, 28, generator=torch.Generator().manual_seed(1))


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_full_size_has_the_parameters_of_x_llm():
    with torch.device("meta"):
        both = build_vision(VisionConfig())
    image, video = both["image"], both["video"]
    assert count(image.trunk.vit) == 985_894_528
    assert count(image.trunk.norm) == 2_816
    assert count(image.trunk.qformer) == 105_137_664
    assert image.queries.numel() == video.queries.numel() == 24_576
    assert count(image.adaptor) == count(video.adaptor) == 3_149_824
    shared = 985_894_528 + 2_816 + 105_137_664
    assert count(nn.ModuleDict(both)) == shared + 2 * (24_576 + 3_149_824)


def test_an_image_becomes_as_many_vectors_as_there_are_queries():
    image, _ = interfaces()
    assert image(pictures(3)).shape == (3, 4, 48)


@pytest.mark.parametrize("shape", [(3, 14, 14), (3, 42, 42), (1, 28, 28)], ids=str)
def test_pictures_of_another_size_are_refused(shape):
    image, _ = interfaces()
    with pytest.raises(
        ValueError, match=r"pixels is \[2, .*\]; allowed: \[any number, 3, 28, 28\]"
    ):
        image(torch.zeros(2, *shape))


def test_an_image_is_seen_alone_as_in_a_batch():
    image, _ = interfaces()
    both = pictures(2)
    assert_close(image(both)[1:], image(both[1:]), atol=1e-5, rtol=1e-5)


def test_images_and_queries_make_a_difference():
    image, video = interfaces()
    first, second = image(pictures(2))
    assert (first - second).abs().max() > 0.01
    assert (first[0] - first[1]).abs().max() > 0.01
    assert not torch.equal(image.queries, video.queries)


def test_the_order_of_image_tokens_changes_nothing_for_the_queries():
    trunk = interfaces()[0].trunk
    seen, queries = torch.randn(2, 5, 32), torch.randn(2, 4, 32)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert_close(
        trunk.qformer(queries, encoder_hidden_states=seen).last_hidden_state,
        trunk.qformer(queries, encoder_hidden_states=seen[:, order]).last_hidden_state,
    )


@pytest.mark.parametrize("every", [1, 2, 3])
def test_only_every_so_many_layers_look_at_the_image(every):
    qformer = replace(TINY.qformer, num_blocks=5, cross_every=every)
    trunk = build_vision(replace(TINY, qformer=qformer))["image"].trunk
    looking = [
        n for n, layer in enumerate(trunk.qformer.encoder.layer) if layer.has_cross_attention
    ]
    assert looking == list(range(0, 5, every))


def test_there_is_no_text_path():
    names = [name for name, _ in interfaces()[0].named_parameters()]
    assert not [name for name in names if "word" in name or ".intermediate." in name]


def test_the_vit_is_that_of_transformers_without_its_last_norm():
    vit = build_vit(TINY.vit)
    theirs = Blip2VisionModel(
        Blip2VisionConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            image_size=28, patch_size=14,
        )
    )  # fmt: skip
    weights = {name: torch.randn_like(value) * 0.3 for name, value in vit.state_dict().items()}
    vit.load_state_dict(weights)
    for name in [name for name in weights if name.endswith("qkv.query_bias")]:
        stem = name.removesuffix("query_bias")
        query, value = weights.pop(name), weights.pop(f"{stem}value_bias")
        weights[f"{stem}bias"] = torch.cat([query, torch.randn(32), value])  # any bias of the keys
    theirs.load_state_dict(weights | {"post_layernorm.weight": torch.ones(32),
                                      "post_layernorm.bias": torch.zeros(32)})  # fmt: skip
    theirs.post_layernorm = nn.Identity()
    pixels = pictures(2)
    assert_close(vit(pixels).last_hidden_state, theirs.eval()(pixels).last_hidden_state)


def test_the_norm_is_computed_in_float32_with_the_epsilon_of_lavis():
    assert build_vision(TINY)["image"].trunk.norm.eps == 1e-5
    norm = Float32LayerNorm(32).half()
    large = torch.randn(4, 32).half() * 6000  # squares overflow half precision
    expected = nn.LayerNorm(32)(large.float())
    assert norm(large).dtype == torch.float16
    assert_close(norm(large).float(), expected, atol=2e-3, rtol=1e-3)


def test_a_frozen_vit_stays_in_eval_mode_and_gets_no_gradient():
    image, _ = interfaces()
    image.train()
    assert image.training
    assert image.trunk.qformer.training
    assert not any(module.training for module in image.trunk.vit.modules())
    image(pictures(2)).sum().backward()
    assert all(weight.grad is None for weight in image.trunk.vit.parameters())
    assert image.queries.grad is not None
    assert image.trunk.norm.weight.grad is not None


def test_a_frozen_vit_is_in_eval_mode_as_built():
    assert not build_vision(TINY)["image"].trunk.vit.training


def test_a_frozen_q_former_drops_nothing_out_in_training():
    image, _ = interfaces()
    image.trunk.qformer.requires_grad_(False)
    image.train()
    assert torch.equal(image(pictures(1)), image(pictures(1)))


def test_a_vit_that_is_trained_is_in_training_mode_and_gets_gradients():
    image = build_vision(SMALL)["image"].train()
    assert image.trunk.vit.training
    image(torch.randn(2, 3, 112, 112)).square().sum().backward()
    assert all(weight.grad is not None for weight in image.parameters())


def test_fresh_weights_of_the_vit_are_not_near_zero():
    weight = build_vit(SMALL.vit).encoder.layers[0].mlp.fc1.weight
    assert 0.015 < weight.std() < 0.025


def test_images_and_videos_share_one_trunk_whose_weights_count_once():
    image, video = interfaces()
    assert image.trunk is video.trunk
    both = nn.ModuleDict({"image": image, "video": video})
    own = count(image) - count(image.trunk) + count(video) - count(video.trunk)
    assert count(both) == count(image.trunk) + own


def test_a_modality_alone_has_its_own_parts_only():
    assert list(build_vision(replace(TINY, modalities=("video",)))) == ["video"]


def test_an_unknown_modality_is_refused():
    with pytest.raises(ValueError, match=r"modalities are \('smell',\); allowed: image, video"):
        build_vision(replace(TINY, modalities=("smell",)))


def test_sizes_survive_json():
    assert from_dict(VisionConfig, to_dict(SMALL)) == SMALL


def test_every_frame_is_seen_like_an_image():
    _, video = interfaces()
    frames = pictures(2, 3)
    vectors, lengths = video(frames, torch.ones(2, 3, dtype=torch.bool))
    alike = ImageInterface(video.trunk, video.queries, video.adaptor).eval()
    assert lengths.tolist() == [12, 12]
    assert_close(vectors, alike(frames.flatten(0, 1)).view(2, 12, 48), atol=1e-5, rtol=1e-5)


def test_identical_frames_become_identical_vectors():
    _, video = interfaces()
    vectors, _ = video(pictures(1, 1).expand(1, 3, -1, -1, -1), torch.ones(1, 3).bool())
    first, second, third = vectors.view(3, 4, 48)
    assert_close(first, second)
    assert_close(first, third)


def test_frames_keep_their_order():
    _, video = interfaces()
    frames, mask = pictures(1, 3), torch.ones(1, 3).bool()
    forwards, backwards = video(frames, mask)[0], video(frames.flip(1), mask)[0]
    assert_close(forwards.view(3, 4, 48), backwards.view(3, 4, 48).flip(0), atol=1e-5, rtol=1e-5)
    assert (forwards - backwards).abs().max() > 0.01


def test_masked_frames_have_no_influence():
    _, video = interfaces()
    frames = pictures(2, 3)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    vectors, lengths = video(frames, mask)
    frames[0, 2] = float("nan")
    assert torch.equal(video(frames, mask)[0], vectors)
    assert lengths.tolist() == [8, 12]
    assert not vectors[0, 8:].any()
    alone, _ = video(frames[:1, :2], mask[:1, :2])
    assert_close(vectors[:1, :8], alone, atol=1e-5, rtol=1e-5)


def test_frames_behind_a_hole_move_up():
    _, video = interfaces()
    frames = pictures(1, 3)
    vectors, lengths = video(frames, torch.tensor([[True, False, True]]))
    closed, _ = video(frames[:, [0, 2]], torch.ones(1, 2).bool())
    assert lengths.tolist() == [8]
    assert_close(vectors[:, :8], closed, atol=1e-5, rtol=1e-5)


def test_a_batch_of_videos_without_any_frame_is_empty():
    _, video = interfaces()
    vectors, lengths = video(pictures(2, 3), torch.zeros(2, 3).bool())
    assert not vectors.any()
    assert lengths.tolist() == [0, 0]


def test_positions_tell_identical_frames_apart_by_their_rank():
    _, video = interfaces(replace(TINY, frame_positions=3))
    frames = pictures(1, 1).expand(1, 3, -1, -1, -1)
    vectors, _ = video(frames, torch.ones(1, 3).bool())
    assert (vectors[:, :4] - vectors[:, 4:8]).abs().max() > 0.01
    behind, _ = video(frames, torch.tensor([[False, True, True]]))
    assert_close(behind[:, :8], vectors[:, :8], atol=1e-5, rtol=1e-5)


def test_more_frames_than_positions_are_refused():
    _, video = interfaces(replace(TINY, frame_positions=2))
    with pytest.raises(ValueError, match="a video has 3 frames; allowed: up to 2"):
        video(pictures(1, 3), torch.ones(1, 3).bool())


def test_parts_can_be_any_modules():
    class Vit(nn.Module):
        config = Blip2VisionConfig(image_size=28)

        def forward(self, pixels):
            return type("Output", (), {"last_hidden_state": pixels.mean(1)})

    class QFormer(nn.Module):
        def forward(self, queries, encoder_hidden_states):
            hidden = queries + encoder_hidden_states.mean((1, 2))[:, None, None]
            return type("Output", (), {"last_hidden_state": hidden})

    trunk = VisualTrunk(Vit(), nn.Identity(), QFormer())
    image = ImageInterface(trunk, torch.zeros(4, 8), nn.Identity())
    assert_close(image(torch.ones(2, 3, 28, 28)), torch.ones(2, 4, 8))
