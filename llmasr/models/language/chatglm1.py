"""ChatGLM-6B of the first generation, which transformers has no class for.

The prompt, up to and with its mask token, is a prefix whose places all see each other; from the
``<sop>`` after it on, a place sees what comes before it. Two rotary positions turn the halves of a
head: the first counts the prefix and then stays at the mask token, the second counts from ``<sop>``
on. Both follow from the ordinary position and the length of the prefix, so transformers' caches,
searches and left padding work unchanged. Rules of the final release; weights have its names.

Letters: B rows, L places read now, P places read before, H width, D width of a head, F frequencies,
V vocabulary.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.output_capturing import capture_outputs

from llmasr.models.language.base import CausalLanguageModel, count_places
from llmasr.models.language.chatglm1_prefix import (
    Prefix,
    Rotation,
    find_prefix,
    prefix_mask,
    rotary_tables,
    rotate,
    two_positions,
)

# Published models scale by a depth of 28 whatever their own: their layers are built without it.
RESIDUAL_SCALE = (2 * 28) ** 0.5
# Distance of [MASK] and [gMASK] to <sop> in the vocabulary.
MASK_BEFORE_SOP, GMASK_BEFORE_SOP = 4, 3


class ChatGLM1Config(PreTrainedConfig):
    """Sizes and special ids, under the names of the official ``config.json``.

    Checkpoints of March 2023 have 150528 rows and ids that are 20000 higher. They work as they
    are, with the ids of their own ``config.json``; or drop the first 20000 rows, which are
    pictures, of ``transformer.word_embeddings.weight`` and ``lm_head.weight``, and subtract 20000
    from every id. Ids of the mask tokens that a file does not give follow from that of ``<sop>``.

    ``rope_dtype`` "float16" rounds rotary angles as the published half-precision model does.
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ("past_key_values",)
    attribute_map: ClassVar[dict[str, str]] = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
    }

    vocab_size: int = 130528
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 16384
    layernorm_epsilon: float = 1e-5
    max_sequence_length: int = 2048
    position_encoding_2d: bool = True
    rope_dtype: str = "float32"
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int = 130004
    eos_token_id: int = 130005
    pad_token_id: int = 3
    mask_token_id: int | None = None
    gmask_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Derive absent ids, and check."""
        if self.mask_token_id is None:
            self.mask_token_id = self.bos_token_id - MASK_BEFORE_SOP
        if self.gmask_token_id is None:
            self.gmask_token_id = self.bos_token_id - GMASK_BEFORE_SOP
        if self.hidden_size % (4 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size is {self.hidden_size}; it must be a multiple of 4 for each of "
                f"{self.num_attention_heads} heads"
            )
        if not self.position_encoding_2d:
            raise ValueError("position_encoding_2d is false; every published model has it true")
        if self.rope_dtype not in ("float32", "float16"):
            raise ValueError(f"rope_dtype is {self.rope_dtype!r}; allowed: float32, float16")
        super().__post_init__(**kwargs)


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attend with weights in the open; the mask is added, [B, 1, L, P + L]."""
    del module, kwargs
    scores = query @ key.mT * scaling + mask
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class Attention(nn.Module):
    """Self-attention; query, key and value of one head lie beside each other in the weights."""

    def __init__(self, config: ChatGLM1Config, index: int) -> None:
        super().__init__()
        self.config, self.layer_idx, self.heads = config, index, config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        vectors: Tensor,
        rotation: Rotation,
        mask: Tensor,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Read vectors [B, L, H]; return theirs and, from eager attention, the weights."""
        parts = self.query_key_value(vectors).unflatten(-1, (self.heads, 3, -1))
        query, key, value = parts.transpose(1, 2).unbind(3)  # [B, heads, L, D]
        query, key = rotate(query, rotation), rotate(key, rotation)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        scaling = query.shape[-1] ** -0.5
        heads, weights = attend(self, query, key, value, mask, scaling=scaling, **kwargs)
        return self.dense(heads.flatten(2)), weights  # heads come as [B, L, heads, D]


class FeedForward(nn.Module):
    """Two linear layers with a GELU between, in its form with tanh."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.dense_h_to_4h = nn.Linear(width, inner)
        self.dense_4h_to_h = nn.Linear(inner, width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Read vectors [B, L, H]."""
        return self.dense_4h_to_h(gelu(self.dense_h_to_4h(vectors), approximate="tanh"))


class Block(GradientCheckpointingLayer):
    """Attention, then two linear layers; what is added to their outputs is their scaled input."""

    def __init__(self, config: ChatGLM1Config, index: int) -> None:
        super().__init__()
        width, epsilon = config.hidden_size, config.layernorm_epsilon
        self.input_layernorm = nn.LayerNorm(width, epsilon)
        self.attention = Attention(config, index)
        self.post_attention_layernorm = nn.LayerNorm(width, epsilon)
        self.mlp = FeedForward(width, config.inner_hidden_size)

    def forward(self, vectors: Tensor, rotation: Rotation, mask: Tensor, **kwargs: Any) -> Tensor:
        """Read vectors [B, L, H]."""
        vectors = self.input_layernorm(vectors)
        attended, _ = self.attention(vectors, rotation, mask, **kwargs)
        vectors = self.post_attention_layernorm(vectors * RESIDUAL_SCALE + attended)
        return vectors * RESIDUAL_SCALE + self.mlp(vectors)


class Transformer(nn.Module):
    """Vectors in, vectors out."""

    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, index) for index in range(config.num_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layernorm_epsilon)

    def forward(self, vectors: Tensor, rotation: Rotation, mask: Tensor, **kwargs: Any) -> Tensor:
        """Read vectors [B, L, H]."""
        for layer in self.layers:
            vectors = layer(vectors, rotation, mask, **kwargs)
        return self.final_layernorm(vectors)


class ChatGLM1LanguageModel(CausalLanguageModel):
    """ChatGLM-6B as a language model of this library; every prompt ends in [gMASK] ``<sop>``."""

    @property
    def max_length(self) -> int:
        """Most places of prompt and answer together."""
        return int(self.model.config.max_sequence_length)

    def read(
        self,
        vectors: Tensor,
        mask: Tensor,
        prompt_lengths: Tensor,
        cache: Cache | None = None,
        keep: int = 0,
    ) -> tuple[Tensor, Cache]:
        """Read on; the first call reads at least the whole prompt without its ``<sop>``."""
        output = self.model(
            inputs_embeds=vectors, attention_mask=mask, prefix_lengths=prompt_lengths - 1,
            past_key_values=cache, use_cache=True, logits_to_keep=keep,
        )  # fmt: skip
        return output.logits, output.past_key_values

    def generate(
        self, vectors: Tensor, mask: Tensor, prompt_lengths: Tensor, **options: Any
    ) -> Any:
        """Call ``generate`` of transformers; see :class:`~llmasr.models.language.base`."""
        return self.model.generate(
            inputs_embeds=vectors, attention_mask=mask.long(),
            prefix_lengths=prompt_lengths - 1, **options,
        )  # fmt: skip


class ChatGLM1ForCausalLM(PreTrainedModel, GenerationMixin):
    """The network, with the parameters of the official state dict.

    ``input_ids`` tell the prefix by their ``<sop>``. With ``inputs_embeds``, or with a cache that
    is continued, ``prefix_lengths`` tells it; ``generate`` takes and keeps it likewise.
    """

    config_class = ChatGLM1Config
    base_model_prefix = "transformer"
    language_model_class = ChatGLM1LanguageModel
    supports_gradient_checkpointing = True
    _no_split_modules = ("Block",)
    _skip_keys_device_placement = ("past_key_values",)
    _keys_to_ignore_on_load_unexpected = (r"rotary_emb\.inv_freq",)
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar = {"hidden_states": Block, "attentions": Attention}

    def __init__(self, config: ChatGLM1Config) -> None:
        super().__init__(config)
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embeddings."""
        return self.transformer.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings."""
        self.transformer.word_embeddings = value

    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        prefix_lengths: Tensor | None = None,
        mask_positions: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Read on, and give the logits of the next tokens.

        Args:
            input_ids: [B, L] int64; the first call reads at least the whole prefix.
            attention_mask: [B, P + L], true on real places; or what :func:`prefix_mask` made of it.
            position_ids: [B, L] int64, real places before; counted from the mask if absent.
            past_key_values: what was read before; it is extended in place.
            inputs_embeds: [B, L, H], instead of ids.
            prefix_lengths: [B] int64, real places before ``<sop>``; found in ``input_ids``.
            mask_positions: [B] int64, real places before the mask token; the last one of the prefix
                if absent. Where ids tell and a row has both, [MASK] is meant, not [gMASK].
            labels: [B, L] int64, not shifted, -100 where there is none: gives a loss.
            use_cache: make a cache if none is given; as in the configuration if absent.
            logits_to_keep: only the last so many places, or these; 0 for all.
            kwargs: for the loss and for the attention of transformers. ``output_hidden_states``
                gives what goes into each block and, not yet normalised, what leaves the last.

        Raises:
            ValueError: there is no prefix, the context is too long, or arguments do not agree.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache(config=self.config)
        if attention_mask is None or attention_mask.ndim == 2:
            real = _real_places(attention_mask, inputs_embeds, past_key_values)  # [B, P + L]
            prefix = self._prefix(real, input_ids, prefix_lengths, mask_positions)
            if position_ids is None:
                position_ids = count_places(real)[:, -inputs_embeds.shape[1] :]
            attention_mask = prefix_mask(self.config, inputs_embeds, real, past_key_values, prefix)
        elif position_ids is None or prefix_lengths is None:
            raise ValueError("a mask of 4 dimensions needs position_ids and prefix_lengths")
        else:
            prefix = Prefix.of(prefix_lengths, mask_positions)
        hidden = self.transformer(
            inputs_embeds, self._rotation(position_ids, prefix), attention_mask,
            past_key_values=past_key_values, **kwargs,
        )  # [B, L, H]  # fmt: skip
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        prefix_lengths: Tensor | None = None,
        mask_positions: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Add the prefix to what ``generate`` gives each step."""
        real = attention_mask  # [B, P + L]
        if real is None:  # where nothing is padded
            real = input_ids.new_ones(input_ids.shape[0], kwargs["position_ids"].shape[-1])
        prefix = self._prefix(real.bool(), input_ids, prefix_lengths, mask_positions)
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds,
            prefix_lengths=prefix.lengths, mask_positions=prefix.mask_positions, **kwargs,
        )  # fmt: skip
        cache = kwargs.get("past_key_values")
        if getattr(cache, "is_compileable", False):
            # Here transformers has made the mask already, and without the prefix.
            length = inputs["position_ids"].shape[-1]
            vectors = input_ids.new_empty(input_ids.shape[0], length, 0, dtype=self.dtype)
            inputs["attention_mask"] = prefix_mask(self.config, vectors, real, cache, prefix)
        return inputs

    def _rotation(self, places: Tensor, prefix: Prefix) -> Rotation:
        """Return the rotation of ordinary positions [B, L]."""
        width = self.config.hidden_size // self.config.num_attention_heads // 2
        dtype = getattr(torch, self.config.rope_dtype)
        return rotary_tables(two_positions(places, prefix), width, dtype)

    def _prefix(
        self,
        real: Tensor,
        ids: Tensor | None,
        lengths: Tensor | None,
        mask_positions: Tensor | None,
    ) -> Prefix:
        """Take the prefix as given or find it in ids [B, P + L]; check it and the length."""
        counts = real.sum(1)  # [B]
        limit = self.config.max_sequence_length
        if real.shape[1] > limit and counts.max() > limit:
            raise ValueError(
                f"a context of {int(counts.max())} places; max_sequence_length is {limit}"
            )
        if lengths is None:
            if ids is None or ids.shape != real.shape:
                raise ValueError(
                    "prefix_lengths is missing: inputs_embeds, and ids that continue a cache, "
                    "do not show where <sop> is"
                )
            return find_prefix(ids, real, self.config)
        if ((lengths < 1) | (lengths > counts)).any():
            raise ValueError(
                f"prefix_lengths are {lengths.tolist()}; rows of {counts.tolist()} places need a "
                "prefix of at least one, read whole in the first call"
            )
        return Prefix.of(lengths, mask_positions)


def _real_places(mask: Tensor | None, vectors: Tensor, cache: Cache | None) -> Tensor:
    """Return the real places [B, P + L] of a mask that may be absent."""
    past = 0 if cache is None else int(cache.get_seq_length())
    shape = (vectors.shape[0], past + vectors.shape[1])
    if mask is None:
        return torch.ones(shape, dtype=torch.bool, device=vectors.device)
    if mask.shape != shape:
        raise ValueError(f"attention_mask is {list(mask.shape)}; read in all: {list(shape)}")
    return mask.bool()
