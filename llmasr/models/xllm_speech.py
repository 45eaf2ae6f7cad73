"""X-LLM's own bridge from speech to the language model, for CIF vectors computed beforehand.

    features -> linear map, ReLU, BERT encoder (C-Former) -> S-Adaptor

X-LLM (arXiv 2305.04160) never reads a waveform. It trains on one array of CIF vectors a recording,
[L, 512], from an encoder that was not published; `feats` in a manifest that was converted from its
JSON (`llmasr.data.xllm_json`) names such files. This interface reads them, and its parameters equal
X-LLM's to the unit. It stands under "speech" in an `XLLM` to train and to answer from features.
Having no waveform side, it cannot transcribe: that is what `llmasr.models.speech` is for.

Letters: B batch, L tokens of the longest row, C feature width, D C-Former width, H LM width.
"""

from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn.functional import relu
from transformers import BertConfig, BertModel

from llmasr.modules.masks import valid_mask


@dataclass(frozen=True)
class ContextConfig:
    """Contextual half of the C-Former; as given, BERT-base-chinese.

    ``vocab_size`` counts word embeddings that nothing here reads: they are weights of BERT.
    """

    width: int = 768
    num_blocks: int = 12
    num_heads: int = 12
    mlp_width: int = 3072
    vocab_size: int = 21_128
    max_tokens: int = 512
    dropout: float = 0.1


@dataclass(frozen=True)
class FeatureSpeechConfig:
    """X-LLM's speech bridge; as given its sizes, but for the ReLU.

    ``context`` None is X-LLM's light variant `fc`: the S-Adaptor alone. ``adaptor_relu`` is what
    X-LLM does after the S-Adaptor. It leaves speech without negative numbers, which the LM's word
    vectors have; so it is off unless asked for.
    """

    feature_width: int = 512
    context: ContextConfig | None = field(default_factory=ContextConfig)
    adaptor_width: int = 4096
    adaptor_relu: bool = False


class FeatureCFormer(nn.Module):
    """Puts features into the context of each other.

    Args:
        pre: C to D.
        bert: transformers' model; its word embeddings and its pooler are not used.
    """

    def __init__(self, pre: nn.Linear, bert: BertModel) -> None:
        super().__init__()
        self.pre = pre
        self.bert = bert

    def forward(self, features: Tensor, valid: Tensor) -> Tensor:
        """Map [B, L, C] to [B, L, D]; ``valid`` is [B, L] bool. Invalid places are meaningless.

        Raises:
            ValueError: a row has more tokens than BERT has positions.
        """
        most = self.bert.config.max_position_embeddings
        if features.shape[1] > most:
            raise ValueError(f"features has {features.shape[1]} tokens; allowed: up to {most}")
        hidden = relu(self.pre(features))
        if not hidden.numel():
            # transformers' attention cannot be given nothing
            return hidden
        return self.bert(inputs_embeds=hidden, attention_mask=valid).last_hidden_state


class FeatureSpeechInterface(nn.Module):
    """CIF vectors of speech as vectors of the LM.

    Args:
        cformer: see :class:`FeatureCFormer`; None for the adaptor alone.
        adaptor: D, or C, to H.
        activation: what follows the adaptor.
    """

    def __init__(
        self, cformer: FeatureCFormer | None, adaptor: nn.Linear, activation: nn.Module
    ) -> None:
        super().__init__()
        self.cformer = cformer
        self.adaptor = adaptor
        self.activation = activation

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map features [B, L, C] and lengths [B] in tokens to LM vectors [B, L, H] and lengths [B].

        Vectors beyond a row's length are zero.

        Raises:
            ValueError: features have another width, or more tokens than there are positions.
        """
        width = (self.cformer.pre if self.cformer else self.adaptor).in_features
        if features.dim() != 3 or features.shape[2] != width:
            raise ValueError(
                f"features is {list(features.shape)}; allowed: [rows, tokens, {width}]"
            )
        valid = valid_mask(lengths, features.shape[1])
        hidden = features.where(valid[..., None], 0.0)  # whatever stands there, even nan
        if self.cformer:
            hidden = self.cformer(hidden, valid)
        vectors = self.activation(self.adaptor(hidden))
        return vectors.where(valid[..., None], 0.0), lengths


def build_feature_speech(config: FeatureSpeechConfig) -> FeatureSpeechInterface:
    """Build X-LLM's speech bridge with fresh weights."""
    context = config.context
    cformer = build_feature_cformer(config.feature_width, context) if context else None
    adaptor = nn.Linear(context.width if context else config.feature_width, config.adaptor_width)
    return FeatureSpeechInterface(
        cformer, adaptor, nn.ReLU() if config.adaptor_relu else nn.Identity()
    )


def build_feature_cformer(feature_width: int, config: ContextConfig) -> FeatureCFormer:
    """Build the contextual half of the C-Former with fresh weights."""
    bert = BertModel(
        BertConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            num_hidden_layers=config.num_blocks,
            num_attention_heads=config.num_heads,
            intermediate_size=config.mlp_width,
            max_position_embeddings=config.max_tokens,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
        )
    )
    return FeatureCFormer(nn.Linear(feature_width, config.width), bert)
