"""What every fused back-end computes, and the numbers they share. Formulas: README.md.

Letters: B rows, T frames, U tokens, D width of a frame, E width of a feature, F all frames of a
packed batch, N all tokens of a packed batch.
"""

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Tail = Literal["drop", "fire", "normalize"]
TAILS: tuple[Tail, ...] = ("drop", "fire", "normalize")

QUANTUM_BITS = 44
TOKEN = 1 << QUANTUM_BITS  # quanta of one token
FRAME_LIMIT = 256 * TOKEN  # a heavier frame counts as this
ROW_LIMIT = TOKEN << 18  # a heavier row counts as this


class Rule(NamedTuple):
    """How weight becomes tokens."""

    threshold: float
    tail: Tail
    tail_threshold: float

    @property
    def quanta_per_weight(self) -> float:
        """Factor from a weight to quanta."""
        return TOKEN / self.threshold

    @property
    def tail_quanta(self) -> int:
        """Least rest of a row that becomes a token, if the tail is not dropped."""
        return int(self.tail_threshold * TOKEN + 0.5)


class Batch(NamedTuple):
    """Frames of several rows, padded to [B, T] or packed one row after the other.

    All tensors are contiguous and on one device; a packed batch has ``starts``.
    """

    hidden: Tensor  # [B, T, D] or [F, D]
    alpha: Tensor  # [B, T] or [F] float32 (on the CPU float64 too)
    lengths: Tensor  # [B] int64
    starts: Tensor | None  # [B] int64, first frame of each row in the packed frames
    targets: Tensor | None  # [B] int64


class Fired(NamedTuple):
    """Result of a forward pass; with a packed batch [N] stands where [B, U] is written."""

    tokens: Tensor  # [B, U, D], dtype of hidden
    token_lengths: Tensor  # [B] int64
    quantity: Tensor  # [B] float32
    fire_frames: Tensor  # [B, U] int64
    fire_times: Tensor  # [B, U] float32
    prefix: Tensor  # [B, T] or [F] int64, C of the README; anything on padding


class Backend(Protocol):
    """The functions of a module that implements the operator."""

    def forward(self, batch: Batch, prefix: Tensor | None, rule: Rule, width: int) -> Fired:
        """Fire tokens; ``width`` is U, or -1 for as many as the longest row has (packed: always).

        ``prefix`` is given if :meth:`weigh` has computed it already.
        """

    def backward(
        self,
        d_tokens: Tensor,
        d_quantity: Tensor,
        batch: Batch,
        fired: Fired,
        rule: Rule,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients of hidden and of alpha (dtypes of both), each if it is wanted."""

    def weigh(
        self, features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, rule: Rule
    ) -> tuple[Tensor, Tensor]:
        """Return alpha = sigmoid(features . weight + bias), 0 on padding, and its prefix.

        alpha [B, T] float32, prefix [B, T] int64; features [B, T, E], weight [E] and bias [1] in
        any float dtype; sums in float32.
        """

    def weigh_backward(
        self, d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of features (their dtype), weight [E] and bias [1] (float32)."""
