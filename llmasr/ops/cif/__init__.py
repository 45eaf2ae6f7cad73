"""Continuous integrate-and-fire: frames in, one vector per token out."""

import torch
from torch import Tensor

from llmasr.ops.cif.reference import CifOutput, Tail, cif_reference

__all__ = ["CifOutput", "chosen_backend", "cif"]

BACKENDS = {"reference": cif_reference}


def chosen_backend(device_type: str) -> str:
    """Name the back-end that ``backend="auto"`` runs on ``device_type`` ("cpu", "cuda", ...)."""
    del device_type  # one back-end serves every device so far
    return "reference"


def cif(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    *,
    target_lengths: Tensor | None = None,
    threshold: float = 1.0,
    tail: Tail = "drop",
    tail_threshold: float = 0.5,
    max_tokens: int | None = None,
    backend: str = "auto",
) -> CifOutput:
    """Integrate and fire (Dong & Xu, arXiv 1905.11235).

    Args:
        hidden: [B, T, D] float, one vector per frame. Frames beyond ``lengths`` are never read.
        alpha: [B, T] float, weight of each frame; NaN and negative values count as 0.
        lengths: [B] int64, valid frames, each in 0..T.
        target_lengths: [B] int64; place the token boundaries so that exactly this many tokens come
            out, each of total weight ``threshold`` (training). A row without weight gives none.
        threshold: accumulated weight that makes a token, > 0.
        tail: what becomes of the weight after the last whole token when there are no targets:
            "drop" it, "fire" it as it is, or "normalize" it to the threshold; the latter two only
            if it is at least ``tail_threshold`` of the threshold.
        tail_threshold: share of the threshold, in 0..1.
        max_tokens: fix U, the second dimension of the result, and cut longer rows to it.
        backend: "auto" or a name of ``BACKENDS``.

    Returns:
        Tokens, their number, the sum of the weights and where each token ends. Differentiable in
        ``hidden`` and ``alpha``; a row gives the same result alone and in any padded batch.

    Raises:
        ValueError: an argument has the wrong shape, dtype or value.
    """
    _check(hidden, alpha, lengths, target_lengths, threshold, tail)
    name = chosen_backend(hidden.device.type) if backend == "auto" else backend
    if name not in BACKENDS:
        raise ValueError(f"backend is {backend!r}; allowed: auto, {', '.join(BACKENDS)}")
    return BACKENDS[name](
        hidden, alpha, lengths, target_lengths=target_lengths, threshold=threshold,
        tail=tail, tail_threshold=tail_threshold, max_tokens=max_tokens,
    )  # fmt: skip


def _check(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    target_lengths: Tensor | None,
    threshold: float,
    tail: str,
) -> None:
    """Raise for shapes and options; values are not read, which would stall a GPU."""
    if hidden.dim() != 3 or not hidden.is_floating_point():
        raise ValueError(f"hidden is {_describe(hidden)}; allowed: [B, T, D] floating point")
    if alpha.shape != hidden.shape[:2] or not alpha.is_floating_point():
        raise ValueError(
            f"alpha is {_describe(alpha)}; allowed: {list(hidden.shape[:2])} floating point"
        )
    for name, tensor in (("lengths", lengths), ("target_lengths", target_lengths)):
        if tensor is not None and (tensor.shape != hidden.shape[:1] or tensor.dtype != torch.int64):
            raise ValueError(f"{name} is {_describe(tensor)}; allowed: [{len(hidden)}] int64")
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; allowed: above 0")
    if tail not in ("drop", "fire", "normalize"):
        raise ValueError(f"tail is {tail!r}; allowed: drop, fire, normalize")


def _describe(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
