"""Integrate-and-fire: golden vectors, exact counts, invariances, gradients, bad input."""

import pytest
import torch

from llmasr import cif

GOLDEN_ALPHA = torch.tensor([[0.2, 0.9, 0.6, 0.6, 0.1, 0.3]])
GOLDEN_HIDDEN = torch.arange(1.0, 7.0)[None, :, None]
SIX = torch.tensor([6])


def random_speech(rows, frames, width, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, frames, width, generator=rng, dtype=dtype)
    alpha = torch.sigmoid(1.5 * torch.randn(rows, frames, generator=rng, dtype=dtype) - 1)
    lengths = torch.randint(1, frames + 1, (rows,), generator=rng)
    return hidden, alpha, lengths


def by_hand(hidden, alpha, length, threshold=1.0):
    """Walk over the frames of one row as the paper tells it; several tokens may fire in a frame."""
    tokens, held, state = [], 0.0, torch.zeros(hidden.shape[1], dtype=torch.float64)
    for frame in range(length):
        weight = float(alpha[frame])
        while held + weight >= threshold:
            part = threshold - held
            tokens.append(state + part * hidden[frame].double())
            weight, held, state = weight - part, 0.0, torch.zeros_like(state)
        held += weight
        state = state + weight * hidden[frame].double()
    return tokens, held


def test_golden_tokens_without_tail():
    output = cif(GOLDEN_HIDDEN, GOLDEN_ALPHA, SIX)
    torch.testing.assert_close(output.tokens[0, :, 0], torch.tensor([1.8, 3.2]), atol=1e-4, rtol=0)
    assert output.fire_frames.tolist() == [[1, 3]]


def test_golden_tokens_with_completed_tail():
    tokens = cif(GOLDEN_HIDDEN, GOLDEN_ALPHA, SIX, tail="normalize").tokens[0, :, 0]
    torch.testing.assert_close(tokens, torch.tensor([1.8, 3.2, 5.0]), atol=1e-4, rtol=0)


def test_golden_tokens_scaled_to_a_target():
    output = cif(GOLDEN_HIDDEN, GOLDEN_ALPHA, SIX, target_lengths=torch.tensor([3]))
    expected = torch.tensor([1.7778, 2.8889, 4.7778])
    torch.testing.assert_close(output.tokens[0, :, 0], expected, atol=1e-4, rtol=0)
    assert output.quantity.item() == pytest.approx(2.7)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0], ids=["slow", "usual", "several-fires-a-frame"])
def test_tokens_equal_a_walk_over_the_frames(scale):
    hidden, alpha, lengths = random_speech(8, 37, 5)
    output = cif(hidden, scale * alpha, lengths)
    for row, length in enumerate(lengths.tolist()):
        expected, _ = by_hand(hidden[row], scale * alpha[row], length)
        assert output.token_lengths[row] == len(expected)
        if expected:
            actual = output.tokens[row, : len(expected)].double()
            torch.testing.assert_close(actual, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [40, 400, 3000])
def test_no_row_loses_a_token_when_scaled_to_its_target(frames):
    _, alpha, lengths = random_speech(64, frames, 1, seed=frames)
    targets = (lengths // 6).clamp(min=1)
    output = cif(torch.ones(64, frames, 1), alpha, lengths, target_lengths=targets)
    assert torch.equal(output.token_lengths, targets)
    exists = torch.arange(output.tokens.shape[1]) < targets[:, None]
    torch.testing.assert_close(output.tokens[..., 0], exists.float(), atol=1e-6, rtol=0)


def test_more_targets_than_frames_give_as_many_tokens():
    hidden, alpha, _ = random_speech(1, 5, 3)
    output = cif(hidden, alpha, torch.tensor([5]), target_lengths=torch.tensor([12]))
    assert output.token_lengths.tolist() == [12]
    assert output.tokens.abs().sum(-1).gt(0).all()


def test_weight_is_conserved():
    _, alpha, lengths = random_speech(8, 60, 1)
    output = cif(torch.ones(8, 60, 1), alpha, lengths, tail="fire", tail_threshold=0.0)
    torch.testing.assert_close(output.tokens.sum((1, 2)), output.quantity, atol=1e-5, rtol=0)


@pytest.mark.parametrize("tail", ["drop", "fire", "normalize"])
def test_neighbours_and_padding_do_not_change_a_row(tail):
    hidden, alpha, lengths = random_speech(4, 50, 6)
    valid = torch.arange(50) < lengths[:, None]
    hidden = torch.where(valid[..., None], hidden, torch.nan)
    alpha = torch.where(valid, alpha, torch.nan)
    together = cif(hidden, alpha, lengths, tail=tail)
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1)
        alone = cif(hidden[part, :length], alpha[part, :length], lengths[part], tail=tail)
        count = int(alone.token_lengths[0])
        assert together.token_lengths[row] == count
        assert torch.equal(together.tokens[row, :count], alone.tokens[0])
        assert torch.equal(together.fire_times[row, :count], alone.fire_times[0])


def test_a_heavy_tail_fires_without_padding():
    output = cif(torch.ones(1, 4, 1), torch.full((1, 4), 0.4), torch.tensor([4]), tail="fire")
    assert output.token_lengths.tolist() == [2]
    torch.testing.assert_close(output.tokens[0, :, 0], torch.tensor([1.0, 0.6]))


def test_times_increase_and_lie_inside_their_frames():
    hidden, alpha, lengths = random_speech(6, 80, 2)
    output = cif(hidden, alpha, lengths, tail="normalize")
    for row, count in enumerate(output.token_lengths.tolist()):
        times, frames = output.fire_times[row, :count], output.fire_frames[row, :count]
        assert (times.diff() > 0).all()
        assert times.max() <= lengths[row]
        assert ((times - frames >= 0) & (times - frames <= 1)).all()


@pytest.mark.parametrize("options", [{}, {"tail": "fire"}, {"tail": "normalize"}, {"target": 4}])
def test_gradients_equal_finite_differences(options):
    hidden, alpha, _ = random_speech(1, 9, 2, seed=3, dtype=torch.float64)
    lengths = torch.tensor([8])
    target = options.pop("target", None)
    if target:
        options["target_lengths"] = torch.tensor([target])

    def tokens(hidden, alpha):
        return cif(hidden, alpha, lengths, **options).tokens

    assert torch.autograd.gradcheck(
        tokens, (hidden.requires_grad_(), alpha.requires_grad_()), eps=1e-7, atol=1e-4
    )


def test_silent_and_empty_rows_fire_nothing():
    hidden, alpha = torch.randn(3, 5, 2), torch.zeros(3, 5)
    alpha[1] = 0.9
    output = cif(hidden, alpha, torch.tensor([5, 0, 3]), target_lengths=torch.tensor([2, 2, 0]))
    assert output.token_lengths.tolist() == [0, 0, 0]
    assert output.quantity.tolist() == [0.0, 0.0, 0.0]


def test_negative_and_nan_weights_count_as_nothing():
    alpha = torch.tensor([[0.5, -3.0, float("nan"), 0.5]])
    output = cif(torch.ones(1, 4, 1), alpha, torch.tensor([4]))
    assert output.token_lengths.tolist() == [1]
    assert output.quantity.item() == 1.0


def test_half_precision_input_loses_one_rounding_only():
    hidden, alpha, lengths = random_speech(4, 200, 8)
    half = hidden.bfloat16()
    expected = cif(half.float(), alpha, lengths).tokens
    actual = cif(half, alpha, lengths).tokens
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.float(), expected, rtol=8e-3, atol=8e-3)


def test_max_tokens_fixes_the_width():
    output = cif(torch.ones(2, 9, 1), torch.ones(2, 9), torch.tensor([9, 2]), max_tokens=4)
    assert output.tokens.shape == (2, 4, 1)
    assert output.token_lengths.tolist() == [4, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.ones(2, 3)}, "hidden is"),
        ({"alpha": torch.ones(1, 3)}, "alpha is"),
        ({"lengths": torch.ones(1)}, "lengths is"),
        ({"target_lengths": torch.ones(2, dtype=torch.int64)}, "target_lengths is"),
        ({"threshold": 0.0}, "threshold is"),
        ({"tail": "maybe"}, "tail is"),
        ({"backend": "magic"}, "backend is"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {
        "hidden": torch.ones(1, 4, 2),
        "alpha": torch.ones(1, 4),
        "lengths": torch.tensor([4]),
    }
    with pytest.raises(ValueError, match=message):
        cif(**(arguments | change))
