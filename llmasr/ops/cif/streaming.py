"""Integrate and fire on a stream: feed chunks as they come, flush at the end.

The state is the weight of the token in progress, in quanta, and its unfinished sum. Nothing is
divided and multiplied back, so that any chunking gives the bits that the whole utterance gives.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmasr.ops.cif.backend import TOKEN, Tail
from llmasr.ops.cif.checks import check_frames, checked_rule


class StreamOutput(NamedTuple):
    """Tokens that a chunk has completed; frames are counted from the start of the stream."""

    tokens: Tensor  # [N, D], dtype and device of the chunk
    fire_frames: Tensor  # [N] int64, frame in which a token ends
    fire_times: Tensor  # [N] float32, end of a token in frames


class CIFStream:
    """One stream of frames.

    Chunks may lie on any device; the few kilobytes of a live chunk are summed on the CPU. No
    gradients.

    Args:
        threshold: as for :func:`llmasr.ops.cif.cif`, and so are the other two.
        tail: what :meth:`flush` does with the rest.
        tail_threshold: share of the threshold, in 0..1.

    Example:
        >>> stream = CIFStream(tail="normalize")
        >>> for hidden, alpha in chunks:  # [t, D], [t]
        ...     tokens = stream.feed(hidden, alpha).tokens
        >>> last = stream.flush().tokens
    """

    def __init__(
        self, *, threshold: float = 1.0, tail: Tail = "drop", tail_threshold: float = 0.5
    ) -> None:
        self._rule = checked_rule(threshold, tail, tail_threshold)
        self._reset()

    def _reset(self) -> None:
        self._phase = 0  # quanta of the token in progress
        self._frames = 0  # frames seen
        self._last = 0  # the last of them that had weight
        self._like: Tensor | None = None  # tells width, dtype and device of the frames
        self._partial: Any = None  # [1, D], the token in progress

    def feed(self, hidden: Tensor, alpha: Tensor) -> StreamOutput:
        """Take the next frames and return the tokens that they complete.

        Args:
            hidden: [t, D] float; t may be 0. Width and dtype stay the same within a stream.
            alpha: [t] float, weight of each frame, as for :func:`llmasr.ops.cif.cif`.

        Raises:
            ValueError: an argument has the wrong shape, dtype or device.
        """
        from llmasr.ops.cif import cpu, cpu_kernels

        check_frames(hidden, alpha, alpha.new_empty(0), rank=2)
        self._begin(hidden)
        frames = cpu.table(hidden.detach().cpu().contiguous())
        wide = alpha.detach().cpu()
        weights = (wide if wide.dtype == torch.float64 else wide.float()).contiguous().numpy()
        prefix = np.empty(len(weights), np.int64)
        total = cpu_kernels.scan_run(
            weights, 0, len(weights), self._rule.quanta_per_weight, self._phase, prefix
        )
        count = total // TOKEN
        tokens = np.zeros((count, frames.shape[1]), self._partial.dtype)
        fire_frames, fire_times = np.empty(count, np.int64), np.empty(count, np.float32)
        cpu_kernels.fire_on(
            frames, prefix, self._phase, self._rule.threshold, self._frames, self._partial,
            tokens, fire_frames, fire_times,
        )  # fmt: skip
        gained = np.flatnonzero(np.diff(prefix, prepend=self._phase))
        self._last = self._frames + int(gained[-1]) if len(gained) else self._last
        self._phase, self._frames = total % TOKEN, self._frames + len(weights)
        return self._output(tokens, fire_frames, fire_times)

    def flush(self) -> StreamOutput:
        """End the stream: return the rest as a token if the rule wants it, and start anew.

        Raises:
            ValueError: no frame was ever fed, so that the width of a token is unknown.
        """
        if self._like is None:
            raise ValueError("the stream is empty; feed frames (0 of them are enough) before flush")
        rest, rule = self._phase, self._rule
        fires = rule.tail != "drop" and rest > 0 and rest >= rule.tail_quanta
        tokens = self._partial[: int(fires)]
        if rule.tail == "normalize" and fires:
            tokens = tokens * tokens.dtype.type(TOKEN / rest)
        frames = np.full(len(tokens), self._last, np.int64)
        output = self._output(tokens, frames, (frames + 1.0).astype(np.float32))
        self._reset()
        return output

    def _begin(self, hidden: Tensor) -> None:
        """Remember what the frames are like, or check that they are as before."""
        if self._like is None:
            self._like = hidden.detach()[:0]
            dtype = np.float64 if hidden.dtype == torch.float64 else np.float32
            self._partial = np.zeros((1, hidden.shape[1]), dtype)
        like = self._like
        if hidden.shape[1] != like.shape[1] or hidden.dtype != like.dtype:
            raise ValueError(
                f"hidden is {list(hidden.shape)} {hidden.dtype}; "
                f"allowed: [t, {like.shape[1]}] {like.dtype}, as the chunks before"
            )

    def _output(self, tokens: Any, frames: Any, times: Any) -> StreamOutput:
        assert self._like is not None
        device = self._like.device
        return StreamOutput(
            torch.from_numpy(tokens).to(device, self._like.dtype),
            torch.from_numpy(frames).to(device),
            torch.from_numpy(times).to(device),
        )
