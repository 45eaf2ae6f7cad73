"""The functions that people call: `cif`, `cif_packed`, `cif_linear`; the choice of a back-end."""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llmasr.ops.cif import operator
from llmasr.ops.cif.backend import Batch, Rule, Tail
from llmasr.ops.cif.checks import check_frames, check_linear, check_rows, checked_rule
from llmasr.ops.cif.reference import CifOutput, cif_reference

# In the order of choice. CUDA C++ comes first until a GPU has been measured (README.md).
BACKENDS = {"cpu": ("numba", "reference"), "cuda": ("cuda", "triton", "reference")}
REQUIREMENTS = {"cuda": "cuda-bindings with NVRTC", "triton": "triton"}
DTYPES = {
    "numba": (torch.float32, torch.float64, torch.bfloat16, torch.float16),
    "cuda": (torch.float32, torch.bfloat16, torch.float16),
    "triton": (torch.float32, torch.bfloat16, torch.float16),
}


class PackedCifOutput(NamedTuple):
    """Tokens of several rows, one row after the other; N tokens in all."""

    tokens: Tensor  # [N, D], dtype of the hidden vectors
    token_lengths: Tensor  # [B] int64, which add up to N
    quantity: Tensor  # [B] float32, sum of the weights, before any scaling
    fire_frames: Tensor  # [N] int64, frame in which a token ends, counted in its row
    fire_times: Tensor  # [N] float32, end of a token in frames of its row


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

    Exact: weights are counted in quanta of 2^-44 tokens, so that no token is lost to rounding and a
    row gives the same tokens alone, in a padded batch, packed, and in chunks (`CIFStream`).

    Args:
        hidden: [B, T, D] float, one vector per frame. Frames beyond ``lengths`` are never read.
        alpha: [B, T] float, weight of each frame. NaN and negative values count as 0, a value above
            256 thresholds counts as that, without gradient.
        lengths: [B] int64, valid frames, each in 0..T.
        target_lengths: [B] int64; place the token boundaries so that exactly this many tokens come
            out, each of total weight ``threshold`` (training). More than T are fine; a row without
            weight gives none.
        threshold: accumulated weight that makes a token, > 0.
        tail: what becomes of the weight after the last whole token when there are no targets:
            "drop" it, "fire" it as it is, or "normalize" it to the threshold; the latter two only
            if it is at least ``tail_threshold`` of the threshold.
        tail_threshold: share of the threshold, in 0..1.
        max_tokens: fix U, the second dimension of the result. Longer rows are cut to it: those
            whose ``quantity`` holds more tokens than ``token_lengths``. On a GPU this spares the
            one wait for the number of tokens, and a CUDA graph can record the call.
        backend: "auto" or a name of ``available_backends(device type)``.

    Returns:
        Tokens, their number, the sum of the weights and where each token ends. Differentiable in
        ``hidden`` and ``alpha``, through tokens and ``quantity``; on a boundary the derivative is
        the one for more weight. Sums are float32 (float64 for float64) whatever the input is, under
        autocast too.

    Raises:
        ValueError: an argument has the wrong shape, dtype, device or value. On a GPU the values of
            ``lengths`` and ``target_lengths`` are not read, which would stall it: there a length
            outside 0..T counts as the nearest that is allowed, and a negative target as 0.
    """
    check_frames(hidden, alpha, lengths, rank=3)
    rule = checked_rule(threshold, tail, tail_threshold)
    check_rows(lengths, target_lengths, hidden)
    return _fire(hidden, alpha, lengths, target_lengths, None, rule, max_tokens, backend)


def cif_packed(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    *,
    target_lengths: Tensor | None = None,
    threshold: float = 1.0,
    tail: Tail = "drop",
    tail_threshold: float = 0.5,
    backend: str = "auto",
) -> PackedCifOutput:
    """Do as :func:`cif` for rows without padding, one after the other.

    Args:
        hidden: [F, D] float, frames of all rows.
        alpha: [F] float.
        lengths: [B] int64, frames of each row, which add up to F.
        target_lengths: [B] int64, tokens of each row.
        threshold: as for :func:`cif`, and so are ``tail`` and ``tail_threshold``.
        tail: see ``threshold``.
        tail_threshold: see ``threshold``.
        backend: "auto" or a fused back-end.

    Raises:
        ValueError: as for :func:`cif`, and if ``lengths`` do not add up to F.
    """
    check_frames(hidden, alpha, lengths, rank=2)
    rule = checked_rule(threshold, tail, tail_threshold)
    check_rows(lengths, target_lengths, hidden)
    if not torch.compiler.is_compiling() and int(lengths.sum()) != len(hidden):
        raise ValueError(
            f"lengths add up to {int(lengths.sum())}; allowed: {len(hidden)}, as hidden"
        )
    name = _chosen(backend, hidden)
    if name == "reference":
        return _reference_packed(hidden, alpha, lengths, target_lengths, rule)
    starts = lengths.cumsum(0) - lengths
    batch = _batch(hidden, alpha, lengths, starts, target_lengths, name)
    return PackedCifOutput(*operator.fire(batch, None, rule, -1, name)[:5])


def cif_linear(
    hidden: Tensor,
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    lengths: Tensor,
    *,
    target_lengths: Tensor | None = None,
    threshold: float = 1.0,
    tail: Tail = "drop",
    tail_threshold: float = 0.5,
    max_tokens: int | None = None,
    backend: str = "auto",
) -> tuple[CifOutput, Tensor]:
    """Weigh frames with a linear layer and a sigmoid, then integrate and fire.

    The same as ``cif(hidden, sigmoid(features @ weight + bias), lengths, ...)`` with the layer, the
    sigmoid, the mask and the running sum in one pass over the features.

    Args:
        hidden: [B, T, D] float, the vectors to integrate.
        features: [B, T, E] float, what the weights are computed from (``hidden`` itself is fine).
        weight: [E] float, of the linear layer.
        bias: [1] float.
        lengths: as for :func:`cif`, and so are all other arguments.
        target_lengths: see ``lengths``.
        threshold: see ``lengths``.
        tail: see ``lengths``.
        tail_threshold: see ``lengths``.
        max_tokens: see ``lengths``.
        backend: see ``lengths``.

    Returns:
        The result of :func:`cif`, and the weights [B, T] float32, 0 on padding.
    """
    check_linear(hidden, features, weight, bias)
    check_frames(hidden, features[..., 0], lengths, rank=3)
    rule = checked_rule(threshold, tail, tail_threshold)
    check_rows(lengths, target_lengths, hidden)
    name = _chosen(backend, features)
    if name == "reference":
        alpha, prefix = _weigh_reference(features, weight, bias, lengths), None
    else:
        alpha, prefix = operator.weigh(
            features.contiguous(), weight.contiguous(), bias, lengths.contiguous(), rule, name
        )
    return _fire(hidden, alpha, lengths, target_lengths, prefix, rule, max_tokens, backend), alpha


def available_backends(device_type: str) -> tuple[str, ...]:
    """Name the back-ends that can run on a kind of device ("cpu", "cuda", ...), best first."""
    return tuple(
        name
        for name in BACKENDS.get(device_type, ("reference",))
        if name not in REQUIREMENTS or _is_usable(name)
    )


@torch.compiler.assume_constant_result
def chosen_backend(device_type: str, dtype: torch.dtype = torch.float32) -> str:
    """Name the back-end that ``backend="auto"`` runs for hidden vectors of this kind."""
    return _first_that_fits(device_type, dtype)


@cache
def _first_that_fits(device_type: str, dtype: torch.dtype) -> str:
    names = available_backends(device_type)
    return next(name for name in names if dtype in DTYPES.get(name, (dtype,)))


@cache
def _is_usable(name: str) -> bool:
    """Tell whether a GPU back-end can compile on this machine, with or without a GPU."""
    module: Any = operator.load(name)
    return bool(module.is_available())


def _chosen(backend: str, frames: Tensor) -> str:
    """Return the back-end that runs, which a named one does or raises."""
    device, dtype = frames.device.type, frames.dtype
    if backend == "auto":
        return chosen_backend(device, dtype)
    allowed = available_backends(device)
    if backend not in allowed:
        if backend in BACKENDS.get(device, ()):
            raise ValueError(f"backend is {backend!r}, which needs {REQUIREMENTS[backend]}")
        raise ValueError(f"backend is {backend!r}; allowed on {device}: auto, {', '.join(allowed)}")
    if dtype not in DTYPES.get(backend, (dtype,)):
        names = ", ".join(str(each).removeprefix("torch.") for each in DTYPES[backend])
        raise ValueError(f"backend {backend!r} does not take {dtype}; allowed: {names}")
    return backend


def _fire(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    targets: Tensor | None,
    prefix: Tensor | None,
    rule: Rule,
    max_tokens: int | None,
    backend: str,
) -> CifOutput:
    if max_tokens is not None and max_tokens < 0:
        raise ValueError(f"max_tokens is {max_tokens}; allowed: 0 or more")
    name = _chosen(backend, hidden)
    if name == "reference":
        return cif_reference(hidden, alpha, lengths, targets, rule, max_tokens)
    batch = _batch(hidden, alpha, lengths, None, targets, name)
    width = -1 if max_tokens is None else max_tokens
    return CifOutput(*operator.fire(batch, prefix, rule, width, name)[:5])


def _batch(
    hidden: Tensor,
    alpha: Tensor,
    lengths: Tensor,
    starts: Tensor | None,
    targets: Tensor | None,
    backend: str,
) -> Batch:
    """Return what a back-end reads: contiguous, weights in float32; only the CPU reads float64."""
    reads_double = backend == "numba" and alpha.dtype == torch.float64
    return Batch(
        hidden.contiguous(),
        (alpha if reads_double else alpha.float()).contiguous(),
        lengths.contiguous(),
        starts,
        None if targets is None else targets.contiguous(),
    )


def _weigh_reference(features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Return sigmoid(features . weight + bias) in float32, 0 on padding, [B, T]."""
    valid = torch.arange(features.shape[1], device=features.device) < lengths[:, None]
    finite = features.masked_fill(~valid[..., None], 0.0).float()
    return torch.where(valid, (finite @ weight.float() + bias.float()).sigmoid(), 0.0)


def _reference_packed(
    hidden: Tensor, alpha: Tensor, lengths: Tensor, targets: Tensor | None, rule: Rule
) -> PackedCifOutput:
    """Pad, run the definition, and take the padding out again."""
    frames = torch.arange(int(lengths.max()) if len(lengths) else 0, device=hidden.device)
    is_frame = frames < lengths[:, None]  # [B, T]
    padded = hidden.new_zeros(*is_frame.shape, hidden.shape[-1]).masked_scatter(
        is_frame[..., None], hidden
    )
    weights = alpha.new_zeros(is_frame.shape).masked_scatter(is_frame, alpha)
    output = cif_reference(padded, weights, lengths, targets, rule)
    places = torch.arange(output.tokens.shape[1], device=hidden.device)
    is_token = places < output.token_lengths[:, None]  # [B, U]
    return PackedCifOutput(
        output.tokens[is_token],
        output.token_lengths,
        output.quantity,
        output.fire_frames[is_token],
        output.fire_times[is_token],
    )
