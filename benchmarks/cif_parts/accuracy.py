"""How exact are the implementations of CIF? The errors and checks of `benchmarks/cif.py`.

The measure is `exact`, a float64 definition that shares nothing with the library: the ends of
frames and the ends of tokens cut the axis of accumulated weight into pieces, each of which belongs
to one frame and one token. It needs memory for the frames only, so rows may have any length.

Letters: B rows, T frames, U tokens, D width, P pieces.
"""

from typing import NamedTuple

import torch
from cif_parts.peers import REFERENCE_BYTES, Candidate, Shape, Speech, random_speech
from torch import Tensor
from torch.nn.functional import pad

from llmasr import cif

# Largest error relative to the largest value; one rounding of the result, and some more.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2**-7}
CHECKED = (Shape(1, 1, 4), Shape(2, 63, 16), Shape(3, 500, 80), Shape(5, 257, 33))


class Exact(NamedTuple):
    """Tokens and gradients in float64."""

    tokens: Tensor  # [B, U, D]
    d_hidden: Tensor  # [B, T, D]
    d_alpha: Tensor  # [B, T]


class Errors(NamedTuple):
    """Largest errors over valid frames and tokens; gradients only where they were asked for."""

    max_token_error: float
    max_dh_error: float | None = None
    rel_dalpha_error: float | None = None
    is_close: bool = True  # within TOLERANCE


def incoming(speech: Speech, seed: int = 1) -> Tensor:
    """Draw gradients [B, U, D] of the tokens; 0 beyond the last token of a row."""
    rng = torch.Generator().manual_seed(seed)
    shape = (len(speech.lengths), speech.max_tokens, speech.hidden.shape[2])
    drawn = torch.randn(shape, generator=rng).to(speech.hidden)
    counts = speech.alpha.detach().double().sum(1).long()
    exists = torch.arange(speech.max_tokens, device=drawn.device) < counts[:, None]
    return drawn * exists[..., None]


def exact(speech: Speech, d_tokens: Tensor) -> Exact:
    """Fire and differentiate in float64; without targets, the tail dropped."""
    hidden, alpha = speech.hidden.detach(), speech.alpha.detach()
    result = Exact(
        *(torch.zeros_like(like, dtype=torch.float64) for like in (d_tokens, hidden, alpha))
    )
    for row, length in enumerate(speech.lengths.tolist()):
        parts = _exact_row(hidden[row, :length], alpha[row, :length], d_tokens[row])
        for whole, part in zip(result, parts, strict=True):
            whole[row, : len(part)] = part
    return result


def _exact_row(hidden: Tensor, alpha: Tensor, d_tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens [U, D] and the gradients [T, D] and [T] of one row without padding."""
    hidden, d_tokens = hidden.double(), d_tokens.double()
    frame_end = alpha.double().cumsum(0)  # [T]
    count = int(frame_end[-1])
    token_end = torch.arange(1, count + 1, device=alpha.device)
    piece_end = torch.cat([frame_end, token_end.double()]).sort().values  # [P]
    weight = piece_end.diff(prepend=piece_end.new_zeros(1))
    middle = piece_end - weight / 2
    frame = torch.searchsorted(frame_end, middle).clamp(max=len(alpha) - 1)
    token = middle.long()
    kept = token < count
    frame_in, token_in, weight_in = frame[kept], token[kept], weight[kept, None]
    tokens = torch.zeros_like(d_tokens).index_add_(0, token_in, weight_in * hidden[frame_in])
    d_hidden = torch.zeros_like(hidden).index_add_(0, frame_in, weight_in * d_tokens[token_in])
    slope = torch.zeros_like(weight)  # of the loss, for each unit of weight in the piece
    slope[kept] = (hidden[frame_in] * d_tokens[token_in]).sum(1)
    # The end of a frame takes weight from the piece after it and gives it to the piece before it;
    # a heavier frame moves its own end and that of all frames that follow.
    before = torch.searchsorted(piece_end, frame_end)
    d_end = slope[before] - pad(slope, (0, 1))[before + 1]
    return tokens, d_hidden, d_end.flip(0).cumsum(0).flip(0)


def errors(found: tuple[Tensor, ...], truth: Exact, speech: Speech) -> Errors:
    """Compare tokens, or tokens and both gradients, with the truth."""
    tolerance = TOLERANCE[speech.hidden.dtype]
    fired, expected = found[0].detach().double(), truth.tokens
    missing = expected.shape[1] - fired.shape[1]
    difference = pad(fired, (0, 0, 0, max(missing, 0)))[:, : expected.shape[1]] - expected
    worst = [_largest(difference)]
    bounds = [tolerance * _largest(expected)]
    valid = torch.arange(speech.alpha.shape[1], device=speech.alpha.device)
    valid = valid < speech.lengths[:, None]
    for gradient, right in zip(found[1:], truth[1:], strict=False):
        worst.append(_largest((gradient.double() - right)[valid]))
        bounds.append(tolerance * _largest(right))
    is_close = all(error <= bound for error, bound in zip(worst, bounds, strict=True))
    if len(found) == 1:
        return Errors(worst[0], is_close=is_close)
    scale = max(_largest(truth.d_alpha), torch.finfo(torch.float64).tiny)
    return Errors(worst[0], worst[1], worst[2] / scale, is_close)


def disagreements(candidates: list[Candidate], device: str) -> dict[str, str]:
    """Hold our back-ends to the reference on small odd shapes; return what is wrong with which."""
    wrong: dict[str, str] = {}
    for shape in CHECKED:
        speech = random_speech(shape, device, seed=shape.frames)
        targets = (speech.lengths // 5).clamp(min=1)
        for wanted in (None, targets):
            expected = _reference(speech, wanted)
            for candidate in filter(lambda candidate: candidate.is_ours, candidates):
                fired = (
                    candidate.fire(speech) if wanted is None else candidate.scale(speech, wanted)
                )
                if not _agrees(fired, expected, speech):
                    label = "without" if wanted is None else "with"
                    wrong[candidate.name] = f"differs from the reference {label} targets at {shape}"
    return wrong


class LostTokens(NamedTuple):
    """What scaling to a target did to the tokens of a batch."""

    lost_rows: int
    max_mass_error: float  # of tokens that were not lost


def lost_tokens(candidate: Candidate, speech: Speech) -> LostTokens:
    """Scale rows of ones to the rounded sums of their weights: every token must weigh 1.

    So a scaled weight stays below 1, which spares the peers several tokens in one frame.
    """
    speech = speech._replace(hidden=torch.ones_like(speech.hidden))
    targets = speech.alpha.detach().sum(1).round().long().clamp(min=1)
    with torch.no_grad():
        mass = candidate.scale(speech, targets)[..., 0]  # [B, U]
    width = int(targets.max())
    mass = pad(mass, (0, max(width - mass.shape[1], 0)))[:, :width]
    wanted = torch.arange(width, device=mass.device) < targets[:, None]
    lost = wanted & (mass.abs() < 0.5)
    kept = mass[wanted & ~lost].double()
    return LostTokens(int(lost.any(1).sum()), _largest(kept - 1))


def fits(candidate: Candidate, speech: Speech) -> bool:
    """Say whether a candidate with an overlap matrix may run on a batch."""
    return not candidate.is_dense or speech.overlap_bytes <= REFERENCE_BYTES


def _reference(speech: Speech, targets: Tensor | None) -> tuple[Tensor, ...]:
    """Return tokens and gradients of the library's definition, in float64."""
    hidden = speech.hidden.detach().double().requires_grad_()
    alpha = speech.alpha.detach().double().requires_grad_()
    tokens = cif(hidden, alpha, speech.lengths, target_lengths=targets, backend="reference").tokens
    return tokens.detach(), *torch.autograd.grad(tokens.square().sum(), (hidden, alpha))


def _agrees(tokens: Tensor, expected: tuple[Tensor, ...], speech: Speech) -> bool:
    if tokens.shape != expected[0].shape:
        return False
    loss = tokens.square().sum()
    gradients = torch.autograd.grad(loss, (speech.hidden, speech.alpha))
    tolerance = TOLERANCE[speech.hidden.dtype]
    return all(
        _largest(actual.detach().double() - right) <= tolerance * max(_largest(right), 1.0)
        for actual, right in zip((tokens, *gradients), expected, strict=True)
    )


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0
