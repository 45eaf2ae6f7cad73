"""The image and video interfaces: pixels to vectors of the LM's width.

    pixels -> ViT -> layer norm -> Q-Former with its queries -> adaptor

BLIP-2 (arXiv 2301.12597) as X-LLM (arXiv 2305.04160) uses it. Videos go through the same ViT and
Q-Former frame by frame, with queries and an adaptor of their own.

ViT and Q-Former are transformers', but for two things in which LAVIS, the code of BLIP-2, differs.
The norm that LAVIS calls `ln_vision` is transformers' `post_layernorm` (so says the converter that
made transformers' checkpoints): no other norm follows the last block. In LAVIS it has an epsilon of
its own, runs in float32 and is trained while the ViT is frozen; so it stands beside the ViT here.
And keys of the ViT have no bias there.

Letters: B batch, F frames, N pictures, P patches and the class token, C ViT width, Q queries,
D Q-Former width, H LM width, S side of a picture in pixels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    Blip2VisionModel,
)

from llmasr.config import QFormerConfig, VisionConfig, ViTConfig
from llmasr.modules.masks import valid_mask

MODALITIES = ("image", "video")
# Deviation of fresh weights, as in BERT and LAVIS; transformers' default for the ViT is 1e-10.
SCALE = 0.02


class QueryKeyValue(nn.Module):
    """One linear map to queries, keys and values, of which keys have no bias.

    A bias of the keys would change nothing: it adds the same number to all logits of a query.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3 * width, width) * SCALE)
        self.query_bias = nn.Parameter(torch.zeros(width))
        self.value_bias = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N, P, C] to [N, P, 3 C]."""
        no_bias = torch.zeros_like(self.query_bias)
        return linear(hidden, self.weight, torch.cat([self.query_bias, no_bias, self.value_bias]))


class Float32LayerNorm(nn.LayerNorm):
    """A layer norm computed in float32 whatever it is given, and cast back."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise the last axis."""
        weight, bias = self.weight.float(), self.bias.float()
        normal = layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps)
        return normal.to(input.dtype)


class VisualTrunk(nn.Module):
    """What images and videos share: ViT, layer norm and Q-Former.

    A part whose weights are all frozen (`requires_grad` is False) stays in eval mode.

    Args:
        vit: transformers' model, without a norm at its end.
        norm: over its width.
        qformer: transformers' model; only the path of the queries is used.
    """

    def __init__(
        self, vit: Blip2VisionModel, norm: nn.LayerNorm, qformer: Blip2QFormerModel
    ) -> None:
        super().__init__()
        self.vit = vit
        self.norm = norm
        self.qformer = qformer
        self.train()

    def train(self, mode: bool = True) -> "VisualTrunk":
        """Set the mode of all parts that are not frozen."""
        super().train(mode)
        for part in self.children():
            part.train(mode and any(weight.requires_grad for weight in part.parameters()))
        return self

    def forward(self, pixels: Tensor, queries: Tensor) -> Tensor:
        """Map pictures [N, 3, S, S] and queries [Q, D] to [N, Q, D].

        Raises:
            ValueError: the pictures have another size than the ViT's.
        """
        if not len(pixels):
            # transformers' attention cannot be given nothing
            return queries.expand(0, -1, -1)
        return self.ask(self.see(pixels), queries)

    def see(self, pixels: Tensor) -> Tensor:
        """Map pictures [N, 3, S, S] to patches [N, P, C], the part that is frozen in X-LLM.

        Raises:
            ValueError: the pictures have another size than the ViT's.
        """
        size = self.vit.config.image_size
        if pixels.shape[1:] != (3, size, size):
            raise ValueError(
                f"pixels is {list(pixels.shape)}; allowed: [any number, 3, {size}, {size}]"
            )
        patches: Tensor = self.vit(pixels).last_hidden_state
        return patches

    def ask(self, patches: Tensor, queries: Tensor) -> Tensor:
        """Map patches [N, P, C] and queries [Q, D] to [N, Q, D]."""
        every = queries.expand(len(patches), -1, -1)  # [N, Q, D]
        answers: Tensor = self.qformer(
            every, encoder_hidden_states=self.norm(patches)
        ).last_hidden_state
        return answers


class ImageInterface(nn.Module):
    """An image as Q vectors.

    Args:
        trunk: may be shared with a :class:`VideoInterface`.
        queries: [Q, D] what to ask the trunk.
        adaptor: D to H.
    """

    def __init__(self, trunk: VisualTrunk, queries: Tensor, adaptor: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.queries = nn.Parameter(queries)
        self.adaptor = adaptor

    def forward(self, pixels: Tensor) -> Tensor:
        """Map images [B, 3, S, S] to LM vectors [B, Q, H]."""
        return self.adaptor(self.trunk(pixels, self.queries))

    def read_patches(self, patches: Tensor) -> Tensor:
        """Map what the ViT made of images, [B, P, C], to LM vectors [B, Q, H]."""
        return self.adaptor(self.trunk.ask(patches, self.queries))


class VideoInterface(nn.Module):
    """A video as Q vectors a frame, in the order of time.

    Args:
        trunk: may be shared with an :class:`ImageInterface`.
        queries: [Q, D] what to ask the trunk of each frame.
        adaptor: D to H.
        positions: [most frames, D], added to the vectors of the first frame, the second and so on;
            X-LLM has none.
    """

    def __init__(
        self,
        trunk: VisualTrunk,
        queries: Tensor,
        adaptor: nn.Module,
        positions: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.queries = nn.Parameter(queries)
        self.adaptor = adaptor
        self.positions = None if positions is None else nn.Parameter(positions)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map videos to LM vectors.

        Args:
            frames: [B, F, 3, S, S].
            mask: [B, F] bool, True on frames that are there; the others are not looked at.

        Returns:
            Vectors [B, F Q, H], those of a video's frames first and zeros after them, and how many
            there are of each video, [B] int64.

        Raises:
            ValueError: a video has more frames than there are positions.
        """
        counts = mask.sum(1)
        tokens = self.trunk(frames[mask], self.queries)  # [N, Q, D], N frames of all videos
        if self.positions is not None:
            tokens = tokens + self._positions_of(mask)[:, None]
        vectors = self.adaptor(tokens)  # [N, Q, H]
        rows = vectors.new_zeros(*mask.shape, *vectors.shape[1:])  # [B, F, Q, H]
        rows[valid_mask(counts, mask.shape[1])] = vectors
        return rows.flatten(1, 2), counts * len(self.queries)

    def _positions_of(self, mask: Tensor) -> Tensor:
        """Return the position of each frame that is there, [N, D]."""
        assert self.positions is not None
        most = int(mask.sum(1).max()) if len(mask) else 0
        if most > len(self.positions):
            raise ValueError(f"a video has {most} frames; allowed: up to {len(self.positions)}")
        return self.positions[(mask.cumsum(1) - 1)[mask]]


def build_vit(config: ViTConfig) -> Blip2VisionModel:
    """Build a ViT with fresh weights, as LAVIS has it: no norm at the end, no bias of keys."""
    vit = Blip2VisionModel(
        Blip2VisionConfig(
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.num_blocks,
            num_attention_heads=config.num_heads,
            image_size=config.image_size,
            patch_size=config.patch_size,
            layer_norm_eps=config.norm_eps,
            initializer_range=SCALE,
        )
    )
    vit.post_layernorm = nn.Identity()
    for layer in vit.encoder.layers:
        layer.self_attn.qkv = QueryKeyValue(config.width)
    return vit.requires_grad_(not config.frozen)


def build_qformer(config: QFormerConfig, vit_width: int) -> Blip2QFormerModel:
    """Build the part of a Q-Former that queries go through, with fresh weights."""
    return Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=config.width,
            num_hidden_layers=config.num_blocks,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_width,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            layer_norm_eps=config.norm_eps,
            cross_attention_frequency=config.cross_every,
            encoder_hidden_size=vit_width,
        )
    )


def build_vision(config: VisionConfig) -> dict[str, ImageInterface | VideoInterface]:
    """Build the interfaces of `config.modalities` with fresh weights and one trunk.

    The trunk is a part of each, so that a state dict names its weights once for each of them;
    `parameters()` gives them once.

    Raises:
        ValueError: a modality is not known.
    """
    unknown = set(config.modalities) - set(MODALITIES)
    if unknown:
        raise ValueError(f"modalities are {config.modalities}; allowed: {', '.join(MODALITIES)}")
    trunk = VisualTrunk(
        build_vit(config.vit),
        Float32LayerNorm(config.vit.width, eps=config.norm_eps),
        build_qformer(config.qformer, config.vit.width),
    )
    width = config.qformer.width
    interfaces: dict[str, ImageInterface | VideoInterface] = {}
    if "image" in config.modalities:
        interfaces["image"] = ImageInterface(
            trunk, fresh(config.num_queries, width), nn.Linear(width, config.adaptor_width)
        )
    if "video" in config.modalities:
        positions = fresh(config.frame_positions, width) if config.frame_positions else None
        interfaces["video"] = VideoInterface(
            trunk,
            fresh(config.num_queries, width),
            nn.Linear(width, config.adaptor_width),
            positions,
        )
    return interfaces


def fresh(count: int, width: int) -> Tensor:
    """Return random embeddings, [count, width]."""
    return torch.randn(count, width) * SCALE
