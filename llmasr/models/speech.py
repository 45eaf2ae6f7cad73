"""The speech interface: waveform to one vector per token, and from there to the LLM's width.

    waveform -> filterbank -> encoder -> CIF -> C-Former -> S-Adaptor

Two heads read it on the way: CTC on the encoder, and a token head on the C-Former whose best token
per fire is the CIF hypothesis, a transcript without any language model.

Letters: B batch, S samples, T hidden frames, N tokens, D width, H LM width, V vocabulary.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from llmasr.config import EncoderConfig, SpeechConfig
from llmasr.filterbank import FilterBank
from llmasr.modules.cif import CifPredictor
from llmasr.modules.conformer import Conformer, ConformerBlock, Subsampling
from llmasr.modules.masks import valid_mask
from llmasr.modules.transformer import TransformerBlock, TransformerEncoder
from llmasr.ops.cif import CifOutput

LOG_MEL_SCALE = 4.0
# Fast speech has more phones than hidden frames, so each frame may say two.
PHONES_PER_FRAME = 2
# What CTC says counts if it gives one token of it at least so much probability; noise gets less.
SURE_OF_SPEECH = 0.55


class Encoder(Protocol):
    """Anything that turns log-mel features into hidden frames."""

    def __call__(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Map [B, F, M] and lengths [B] to [B, T, D], lengths [B] and each block's output."""
        ...


class SpeechFrames(NamedTuple):
    """What the encoder heard."""

    hidden: Tensor  # [B, T, D] encoder output
    lengths: Tensor  # [B] int64, hidden frames
    middle: Tensor | None  # [B, T, D] output of the block that the phone CTC supervises

    def float(self) -> "SpeechFrames":
        """Return the same in float32, for CIF after an encoder under autocast."""
        middle = None if self.middle is None else self.middle.float()
        return SpeechFrames(self.hidden.float(), self.lengths, middle)


class SpeechTokens(NamedTuple):
    """What the interface heard, before the adaptor."""

    tokens: Tensor  # [B, N, D] C-Former output
    token_logits: Tensor  # [B, N, V] CIF hypothesis
    cif: CifOutput
    weights: Tensor  # [B, T] float32, what CIF adds up, before any scaling; 0 on padding
    frames: SpeechFrames


class SpeechInterface(nn.Module):
    """Encoder, CIF, C-Former and S-Adaptor, composed of built parts.

    Args:
        encoder: see :class:`Encoder`.
        predictor: integrates frames into tokens.
        cformer: contextual encoder over tokens.
        config: sizes of the heads and the adaptor.
    """

    def __init__(
        self,
        encoder: nn.Module,
        predictor: CifPredictor,
        cformer: nn.Module,
        config: SpeechConfig,
    ) -> None:
        super().__init__()
        width = config.encoder.width
        self.config = config
        self.filterbank = FilterBank(config.encoder.num_bins)
        self.encoder = encoder
        self.predictor = predictor
        self.cformer = cformer
        self.token_head = nn.Linear(width, config.vocab_size)
        self.ctc_head = nn.Linear(width, config.vocab_size + 1)  # the last class is the blank
        self.adaptor = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.adaptor_width))
        if config.phone_block:
            self.phone_head = nn.Linear(width, PHONES_PER_FRAME * config.num_phones)

    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map waveforms [B, S] and lengths [B] in samples to log-mel [B, F, M] and frames [B]."""
        return self.filterbank(waveforms, lengths)

    def encode(self, features: Tensor, lengths: Tensor) -> SpeechFrames:
        """Turn log-mel features [B, F, M] with lengths [B] in frames into hidden frames."""
        hidden, lengths, blocks = self.encoder(normalise(features, lengths), lengths)
        block = self.config.phone_block
        return SpeechFrames(hidden, lengths, blocks[block - 1] if block else None)

    def integrate(
        self,
        frames: SpeechFrames,
        target_lengths: Tensor | None = None,
        places: Tensor | None = None,
    ) -> SpeechTokens:
        """Turn hidden frames into tokens.

        Args:
            frames: what the encoder heard.
            target_lengths: [B], exactly so many tokens fire (training).
            places: [B, N], a frame of each token of the transcript, -1 where there is none; for
                models that fire where CTC says tokens, which otherwise find them themselves.
        """
        if self.config.fires_with_ctc and target_lengths is None:
            places = spoken_frames(*self.ctc_logits(frames))
        fired, weights = self.predictor(frames.hidden, frames.lengths, target_lengths, places)
        valid = valid_mask(fired.token_lengths, fired.tokens.shape[1])
        tokens = self.cformer(fired.tokens, valid)
        return SpeechTokens(tokens, self.token_head(tokens), fired, weights, frames)

    def listen(
        self, features: Tensor, lengths: Tensor, target_lengths: Tensor | None = None
    ) -> SpeechTokens:
        """Hear log-mel features [B, F, M] with lengths [B]: encode, then integrate."""
        return self.integrate(self.encode(features, lengths), target_lengths)

    def ctc_logits(self, frames: SpeechFrames) -> tuple[Tensor, Tensor]:
        """Return CTC logits [B, T, V + 1], blank last, and lengths [B]."""
        return self.ctc_head(frames.hidden), frames.lengths

    def phone_logits(self, frames: SpeechFrames) -> tuple[Tensor, Tensor]:
        """Return phone CTC logits [B, 2 T, P] and lengths [B], for models with a phone block."""
        if frames.middle is None:
            raise ValueError("phone_block is 0; allowed: a block of the encoder")
        split = (frames.middle.shape[0], -1, self.config.num_phones)
        return self.phone_head(frames.middle).view(split), PHONES_PER_FRAME * frames.lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map log-mel [B, F, M] to LM vectors [B, N, H] and token lengths [B]."""
        heard = self.listen(features, lengths)
        return self.adaptor(heard.tokens), heard.cif.token_lengths


def spoken_frames(logits: Tensor, lengths: Tensor) -> Tensor:
    """Find the frames in which CTC begins to say a token.

    A row in which it is sure of none, see ``SURE_OF_SPEECH``, is taken for noise and has none.

    Args:
        logits: [B, T, V + 1], blank last.
        lengths: [B] int64 frames.

    Returns:
        [B, N] int64, increasing, -1 beyond the last of each row; N is 1 at least.
    """
    best = logits.argmax(-1)  # [B, T]
    before = nn.functional.pad(best[:, :-1], (1, 0), value=-1)
    begins = (best != logits.shape[-1] - 1) & (best != before)
    begins &= valid_mask(lengths, best.shape[1])
    chance = (logits.amax(-1) - logits.logsumexp(-1)).exp()  # [B, T]
    begins &= (begins & (chance >= SURE_OF_SPEECH)).any(1, keepdim=True)
    counts = begins.sum(1)
    places = torch.full_like(best[:, : max(int(counts.max()), 1)], -1)
    rows, frames = begins.nonzero(as_tuple=True)
    places[rows, begins.cumsum(1)[rows, frames] - 1] = frames
    return places


def normalise(features: Tensor, lengths: Tensor) -> Tensor:
    """Subtract each row's mean over its valid frames and scale: [B, F, M] to the same, 0 beyond."""
    valid = valid_mask(lengths, features.shape[1])[..., None]
    total = torch.where(valid, features, 0.0).sum(1, keepdim=True)
    mean = total / lengths.clamp(min=1)[:, None, None]
    return torch.where(valid, (features - mean) / LOG_MEL_SCALE, 0.0)


def build_encoder(config: EncoderConfig) -> Conformer:
    """Build a conformer of the given sizes."""
    subsampling = Subsampling(
        config.num_bins, config.width, config.subsampling_channels, config.subsampling_layers
    )
    blocks = [
        ConformerBlock(
            config.width, config.num_heads, config.kernel, config.expansion, config.dropout
        )
        for _ in range(config.num_blocks)
    ]
    return Conformer(subsampling, blocks)


def build_speech(config: SpeechConfig) -> SpeechInterface:
    """Build a speech interface with fresh weights."""
    encoder = config.encoder
    blocks = [
        TransformerBlock(
            encoder.width, encoder.num_heads, config.cformer_expansion, encoder.dropout
        )
        for _ in range(config.cformer_blocks)
    ]
    return SpeechInterface(
        build_encoder(encoder),
        CifPredictor(encoder.width, encoder.dropout),
        TransformerEncoder(blocks, encoder.width),
        config,
    )
