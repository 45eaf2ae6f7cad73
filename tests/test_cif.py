"""The CIF operator: the same cases over all back-ends.

Without a GPU the CUDA kernels run in an emulator of CUDA's threads and the Triton kernels in
Triton's interpreter, on the CPU; with one, both run on it. Two slow definitions stand beside them:
a walk over the frames of a row in Python, and the back-end "reference".
"""

import os
import threading
from fractions import Fraction

import cif_emulator
import cif_triton_interpreter
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmasr import cif
from llmasr.ops.cif import (
    CIF_PYTORCH,
    FUNASR,
    TORCH_CIF,
    CIFStream,
    available_backends,
    chosen_backend,
    cif_linear,
    cif_packed,
    function,
    operator,
)
from llmasr.ops.cif.backend import TOKEN, Batch, Rule

HAS_GPU = torch.cuda.is_available()
FUSED = ["numba", "cuda", "triton"]
RULES = [
    {"tail": "drop"},
    {"tail": "fire"},
    {"tail": "normalize"},
    {"tail": "normalize", "threshold": 0.9, "tail_threshold": 0.3},
]
GOLDEN_ALPHA = torch.tensor([[0.2, 0.9, 0.6, 0.6, 0.1, 0.3]])
GOLDEN_HIDDEN = torch.arange(1.0, 7.0)[None, :, None]
SIX = torch.tensor([6])


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> cif_emulator.Emulator:
    return cif_emulator.Emulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch, emulator: cif_emulator.Emulator) -> None:
    """Let every back-end run on the CPU."""

    def stand_in(name: str):
        if name == "cuda" and cif_emulator.missing():
            pytest.skip(cif_emulator.missing())
        if name == "cuda":
            return emulator
        return cif_triton_interpreter.load_interpreted() if name == "triton" else load(name)

    load = operator.load
    if not HAS_GPU:
        monkeypatch.setitem(function.BACKENDS, "cpu", (*FUSED, "reference"))
        monkeypatch.setattr(function, "_is_usable", lambda name: True)
        monkeypatch.setattr(operator, "load", stand_in)


@pytest.fixture(params=[*FUSED, "reference"])
def backend(request: pytest.FixtureRequest, everywhere: None) -> str:
    return request.param


@pytest.fixture(params=FUSED)
def fused(request: pytest.FixtureRequest, everywhere: None) -> str:
    return request.param


def device_of(backend: str) -> str:
    return "cuda" if HAS_GPU and backend in ("cuda", "triton") else "cpu"


def run(backend: str, *inputs, function=cif, **options):
    """Call on the device of a back-end, bring the results back."""
    device = device_of(backend)
    if options.get("target_lengths") is not None:
        options["target_lengths"] = options["target_lengths"].to(device)
    moved = [tensor.to(device) for tensor in inputs]
    output = function(*moved, backend=backend, **options)
    return type(output)(*(tensor.cpu() for tensor in output))


def random_speech(rows, frames, width, seed=0, dtype=torch.float32, scale=1.0):
    rng = torch.Generator().manual_seed(seed)
    hidden = (torch.randn(rows, frames, width, generator=rng) + 0.3).to(dtype)
    alpha = scale * torch.sigmoid(1.5 * torch.randn(rows, frames, generator=rng) - 1)
    lengths = torch.randint(1, frames + 1, (rows,), generator=rng)
    lengths[-1] = frames
    return hidden, alpha, lengths


def by_hand(hidden, alpha, length, threshold=1.0):
    """Walk over the frames of one row as the paper tells it, in exact fractions.

    Returns tokens [N, D], the frames in which they end, and the weight that is left.
    """
    tokens, frames, held = [], [], Fraction(0)
    state = np.zeros(hidden.shape[1])
    for frame in range(length):
        weight, vector = Fraction(float(alpha[frame])), hidden[frame].double().numpy()
        while held + weight >= Fraction(threshold):
            part = Fraction(threshold) - held
            tokens.append(state + float(part) * vector)
            frames.append(frame)
            weight, held, state = weight - part, Fraction(0), np.zeros(hidden.shape[1])
        held, state = held + weight, state + float(weight) * vector
    return torch.tensor(np.array(tokens)).reshape(-1, hidden.shape[1]), frames, float(held)


def gradients(backend, hidden, alpha, lengths, seed=1, **options):
    """Return tokens and the gradients of hidden and alpha for random ones of tokens, quantity."""
    device = device_of(backend)
    hidden = hidden.detach().clone().requires_grad_()
    alpha = alpha.detach().clone().requires_grad_()
    if options.get("target_lengths") is not None:
        options["target_lengths"] = options["target_lengths"].to(device)
    output = cif(
        hidden.to(device), alpha.to(device), lengths.to(device), backend=backend, **options
    )
    rng = torch.Generator().manual_seed(seed)
    d_tokens = torch.randn(output.tokens.shape, generator=rng).to(hidden.dtype).to(device)
    d_quantity = torch.randn(len(lengths), generator=rng).to(device)
    loss = (output.tokens * d_tokens).double().sum() + (output.quantity * d_quantity).sum()
    loss.backward()
    return output.tokens.detach().cpu(), hidden.grad, alpha.grad


# What comes out


def test_golden_tokens_without_tail(backend):
    output = run(backend, GOLDEN_HIDDEN, GOLDEN_ALPHA, SIX)
    torch.testing.assert_close(output.tokens[0, :, 0], torch.tensor([1.8, 3.2]), atol=1e-4, rtol=0)
    assert output.fire_frames.tolist() == [[1, 3]]
    times = torch.tensor([[1 + 0.8 / 0.9, 3 + 0.3 / 0.6]])
    torch.testing.assert_close(output.fire_times, times, atol=1e-5, rtol=0)


def test_golden_tokens_with_completed_tail(backend):
    output = run(backend, GOLDEN_HIDDEN, GOLDEN_ALPHA, SIX, tail="normalize")
    expected = torch.tensor([1.8, 3.2, 5.0])
    torch.testing.assert_close(output.tokens[0, :, 0], expected, atol=1e-4, rtol=0)


def test_golden_tokens_scaled_to_a_target(backend):
    targets = torch.tensor([3])
    output = run(backend, GOLDEN_HIDDEN, GOLDEN_ALPHA, SIX, target_lengths=targets)
    expected = torch.tensor([1.7778, 2.8889, 4.7778])
    torch.testing.assert_close(output.tokens[0, :, 0], expected, atol=1e-4, rtol=0)
    assert output.quantity.item() == pytest.approx(2.7)


@pytest.mark.parametrize("threshold", [1.0, 0.75])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0], ids=["slow", "usual", "several-fires-a-frame"])
def test_tokens_equal_a_walk_over_the_frames(backend, scale, threshold):
    hidden, alpha, lengths = random_speech(5, 37, 5, scale=scale)
    output = run(backend, hidden, alpha, lengths, threshold=threshold)
    for row, length in enumerate(lengths.tolist()):
        expected, frames, _ = by_hand(hidden[row], alpha[row], length, threshold)
        count = len(expected)
        assert output.token_lengths[row] == count
        assert output.fire_frames[row, :count].tolist() == frames
        tokens = output.tokens[row, :count].double()
        torch.testing.assert_close(tokens, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("part", [1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 2.5])
def test_weights_that_end_on_a_boundary(backend, part):
    hidden, alpha = torch.randn(1, 12, 3), torch.full((1, 12), part)
    output = run(backend, hidden, alpha, torch.tensor([12]), tail="fire")
    expected, frames, rest = by_hand(hidden[0], alpha[0], 12)
    count = len(expected)
    assert output.token_lengths.item() == count + (rest >= 0.5)
    assert output.fire_frames[0, :count].tolist() == frames
    torch.testing.assert_close(output.tokens[0, :count].double(), expected, atol=1e-6, rtol=0)


def test_more_targets_than_frames_give_as_many_tokens(backend):
    hidden, alpha, _ = random_speech(1, 5, 3)
    output = run(backend, hidden, alpha, torch.tensor([5]), target_lengths=torch.tensor([12]))
    assert output.token_lengths.tolist() == [12]
    assert output.tokens.abs().sum(-1).gt(0).all()


def test_one_target_is_the_weighted_mean(backend):
    hidden, alpha, lengths = random_speech(3, 20, 4)
    output = run(backend, hidden, alpha, lengths, target_lengths=torch.tensor([1, 1, 1]))
    valid = torch.arange(20) < lengths[:, None]
    weight = torch.where(valid, alpha, 0.0)[..., None]
    mean = (weight * hidden).sum(1) / weight.sum(1)
    torch.testing.assert_close(output.tokens[:, 0], mean, atol=1e-6, rtol=0)


def test_weight_is_conserved(backend):
    _, alpha, lengths = random_speech(8, 60, 1)
    ones = torch.ones(8, 60, 1)
    output = run(backend, ones, alpha, lengths, tail="fire", tail_threshold=0.0)
    torch.testing.assert_close(output.tokens.sum((1, 2)), output.quantity, atol=1e-5, rtol=0)


@pytest.mark.parametrize("frames", [400, 1000, 3000, 30_000])
def test_no_row_loses_a_token_when_scaled_to_its_target(frames):
    rng = torch.Generator().manual_seed(frames)
    lost = 0
    for start in range(0, 512, 64):
        alpha = torch.sigmoid(1.5 * torch.randn(64, frames, generator=rng) - 1.9)
        lengths = torch.randint(frames // 2, frames + 1, (64,), generator=rng)
        targets = (lengths // 6).clamp(min=1) + (torch.arange(64) + start) % 3
        output = cif(torch.ones(64, frames, 1), alpha, lengths, target_lengths=targets)
        exists = torch.arange(output.tokens.shape[1]) < targets[:, None]
        lost += int((output.token_lengths != targets).sum())
        torch.testing.assert_close(output.tokens[..., 0], exists.float(), atol=1e-6, rtol=0)
    assert lost == 0


def test_a_heavy_tail_fires_without_padding(backend):
    alpha = torch.full((1, 4), 0.4)
    output = run(backend, torch.ones(1, 4, 1), alpha, torch.tensor([4]), tail="fire")
    assert output.token_lengths.tolist() == [2]
    torch.testing.assert_close(output.tokens[0, :, 0], torch.tensor([1.0, 0.6]))


def test_times_increase_and_lie_inside_their_frames(backend):
    hidden, alpha, lengths = random_speech(4, 80, 2)
    output = run(backend, hidden, alpha, lengths, tail="normalize")
    for row, count in enumerate(output.token_lengths.tolist()):
        times, frames = output.fire_times[row, :count], output.fire_frames[row, :count]
        assert (times.diff() > 0).all()
        assert times.max() <= lengths[row]
        assert ((times - frames >= 0) & (times - frames <= 1)).all()


def test_silent_and_empty_rows_fire_nothing(backend):
    hidden, alpha = torch.randn(3, 5, 2), torch.zeros(3, 5)
    alpha[1] = 0.9
    targets = torch.tensor([2, 2, 0])
    lengths = torch.tensor([5, 0, 3])
    output = run(backend, hidden, alpha, lengths, target_lengths=targets)
    assert output.token_lengths.tolist() == [0, 0, 0]
    assert output.quantity.tolist() == [0.0, 0.0, 0.0]
    assert run(backend, hidden, alpha, lengths, max_tokens=2).tokens.eq(0).all()


@pytest.mark.parametrize(("rows", "frames"), [(0, 4), (2, 0)])
def test_batches_without_rows_or_frames(backend, rows, frames):
    hidden, alpha = torch.randn(rows, frames, 3), torch.rand(rows, frames)
    output = run(backend, hidden, alpha, torch.zeros(rows, dtype=torch.int64))
    assert output.tokens.shape == (rows, 0, 3)
    assert output.token_lengths.tolist() == [0] * rows
    _, d_hidden, d_alpha = gradients(backend, hidden, alpha, torch.zeros(rows, dtype=torch.int64))
    assert d_hidden.shape == hidden.shape
    assert d_alpha.shape == alpha.shape


def test_negative_and_nan_weights_count_as_nothing(backend):
    alpha = torch.tensor([[0.5, -3.0, float("nan"), 0.5, float("-inf")]])
    output = run(backend, torch.ones(1, 5, 1), alpha, torch.tensor([5]))
    assert output.token_lengths.tolist() == [1]
    assert output.quantity.item() == 1.0
    _, _, d_alpha = gradients(backend, torch.ones(1, 5, 1), alpha, torch.tensor([5]))
    assert d_alpha[0, [1, 2, 4]].eq(0).all()


def test_an_infinite_weight_counts_as_256_tokens(backend):
    alpha = torch.tensor([[0.5, float("inf"), 0.5]])
    output = run(backend, torch.ones(1, 3, 1), alpha, torch.tensor([3]))
    assert output.token_lengths.tolist() == [257]
    torch.testing.assert_close(output.tokens, torch.ones(1, 257, 1))


@pytest.mark.parametrize("width", [0, 2, 40])
def test_max_tokens_fixes_the_width(backend, width):
    hidden, alpha, lengths = random_speech(3, 30, 3)
    whole = run(backend, hidden, alpha, lengths, tail="normalize")
    output = run(backend, hidden, alpha, lengths, tail="normalize", max_tokens=width)
    kept = min(width, whole.tokens.shape[1])
    assert output.tokens.shape == (3, width, 3)
    assert torch.equal(output.token_lengths, whole.token_lengths.clamp(max=width))
    assert torch.equal(output.tokens[:, :kept], whole.tokens[:, :kept])
    assert torch.equal(output.fire_times[:, :kept], whole.fire_times[:, :kept])
    assert output.tokens[:, kept:].eq(0).all()
    assert output.fire_frames[:, kept:].eq(-1).all()


# Every back-end against the reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("targets", [None, [7, 2, 31]], ids=["free", "scaled"])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_outputs_and_gradients_equal_the_reference(fused, rule, targets, dtype):
    hidden, alpha, lengths = random_speech(3, 21, 9, dtype=dtype)
    options = rule | {"target_lengths": None if targets is None else torch.tensor(targets)}
    check_against_reference(fused, hidden, alpha, lengths, **options)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 65, 16), (1, 300, 4)], ids=str)
@pytest.mark.parametrize("scale", [0.2, 5.0])
def test_shapes_equal_the_reference(fused, shape, scale):
    hidden, alpha, lengths = random_speech(*shape, scale=scale)
    check_against_reference(fused, hidden, alpha, lengths, tail="normalize")


def test_gradients_of_a_cut_row_equal_the_reference(fused):
    hidden, alpha, lengths = random_speech(3, 30, 4)
    for options in ({"tail": "normalize"}, {"target_lengths": torch.tensor([9, 2, 14])}):
        check_against_reference(fused, hidden, alpha, lengths, max_tokens=3, **options)


def check_against_reference(backend, hidden, alpha, lengths, **options):
    half = hidden.dtype != torch.float32
    tolerance = {"rtol": 1e-2 if half else 0, "atol": 1e-2 if half else 2e-6}
    expected, actual = (
        run(name, hidden, alpha, lengths, **options) for name in ("reference", backend)
    )
    assert torch.equal(actual.token_lengths, expected.token_lengths)
    assert torch.equal(actual.fire_frames, expected.fire_frames)
    assert torch.equal(actual.quantity, expected.quantity)
    torch.testing.assert_close(actual.fire_times, expected.fire_times, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(actual.tokens, expected.tokens, **tolerance)
    _, d_hidden, d_alpha = gradients("reference", hidden, alpha, lengths, **options)
    _, actual_hidden, actual_alpha = gradients(backend, hidden, alpha, lengths, **options)
    torch.testing.assert_close(actual_hidden, d_hidden, **tolerance)
    limit = (2e-2 if half else 2e-6) * max(float(d_alpha.abs().max()), 1.0)
    torch.testing.assert_close(actual_alpha, d_alpha, atol=limit, rtol=0)


@pytest.mark.parametrize("targets", [None, [7, 2, 31]], ids=["free", "scaled"])
def test_cuda_tokens_have_the_bits_of_the_cpu(everywhere, targets):
    hidden, alpha, lengths = random_speech(3, 43, 8)
    options = {"target_lengths": None if targets is None else torch.tensor(targets)}
    one, other = (
        run(name, hidden, alpha, lengths, tail="normalize", **options) for name in ("numba", "cuda")
    )
    for field, mine, theirs in zip(one._fields, one, other, strict=True):
        assert torch.equal(mine, theirs), field


@pytest.mark.parametrize("options", [*RULES, {"target_lengths": torch.tensor([4])}], ids=str)
@pytest.mark.parametrize("name", ["reference", "numba"])
def test_gradients_equal_finite_differences(name, options):
    hidden, alpha, _ = random_speech(1, 9, 2, seed=3, dtype=torch.float64)
    alpha = alpha.double()

    def outputs(hidden, alpha):
        output = cif(hidden, alpha, torch.tensor([8]), backend=name, **options)
        return output.tokens, output.quantity.double()

    inputs = (hidden.requires_grad_(), alpha.requires_grad_())
    tokens = lambda *arguments: outputs(*arguments)[0]  # noqa: E731
    assert torch.autograd.gradcheck(tokens, inputs, eps=1e-7, atol=1e-5, nondet_tol=0)


def test_gradient_on_a_boundary_is_the_one_for_more_weight(backend):
    hidden = torch.tensor([[[1.0], [2.0], [5.0], [7.0]]])
    alpha = torch.tensor([[0.5, 0.5, 0.0, 1.0]], requires_grad=True)
    output = cif(
        hidden.to(device_of(backend)), alpha.to(device_of(backend)),
        torch.tensor([4]).to(device_of(backend)), backend=backend,
    )  # fmt: skip
    output.tokens[0, 0, 0].backward()
    # More weight on frame 0 pushes frame 1 out of the token; more on frame 1 goes to the next.
    assert alpha.grad.tolist() == [[-1.0, 0.0, 0.0, 0.0]]


# Same row, same result: alone, padded, packed, streamed, in any order, on any number of threads


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_neighbours_and_padding_do_not_change_a_row(backend, rule):
    hidden, alpha, lengths = random_speech(4, 30, 6)
    valid = torch.arange(30) < lengths[:, None]
    hidden = torch.where(valid[..., None], hidden, torch.nan)
    alpha = torch.where(valid, alpha, torch.nan)
    together = run(backend, hidden, alpha, lengths, **rule)
    _, d_hidden, d_alpha = gradients(backend, hidden, alpha, lengths, **rule)
    assert d_hidden[~valid].eq(0).all()
    assert d_alpha[~valid].eq(0).all()
    for row, length in enumerate(lengths.tolist()):
        part = slice(row, row + 1)
        alone = run(backend, hidden[part, :length], alpha[part, :length], lengths[part], **rule)
        count = int(alone.token_lengths[0])
        assert together.token_lengths[row] == count
        assert torch.equal(together.tokens[row, :count], alone.tokens[0])
        assert torch.equal(together.fire_times[row, :count], alone.fire_times[0])


def test_gradients_do_not_depend_on_neighbours(fused):
    hidden, alpha, _ = random_speech(2, 30, 6)
    lengths = torch.tensor([30, 30])
    tokens, d_hidden, d_alpha = gradients(fused, hidden, alpha, lengths, max_tokens=12)
    order = torch.tensor([1, 0])
    rng = torch.Generator().manual_seed(1)
    d_tokens = torch.randn(tokens.shape, generator=rng)
    d_quantity = torch.randn(2, generator=rng)
    swapped = [tensor[order].to(device_of(fused)) for tensor in (hidden, alpha, lengths)]
    leaves = [tensor.requires_grad_() for tensor in swapped[:2]]
    output = cif(*swapped, max_tokens=12, backend=fused)
    torch.autograd.backward(
        (output.tokens, output.quantity),
        (d_tokens[order].to(device_of(fused)), d_quantity[order].to(device_of(fused))),
    )
    assert torch.equal(leaves[0].grad.cpu()[order], d_hidden)
    assert torch.equal(leaves[1].grad.cpu()[order], d_alpha)


@pytest.mark.parametrize("targets", [None, [5, 0, 9, 2]], ids=["free", "scaled"])
def test_packed_rows_equal_padded_ones(backend, targets):
    hidden, alpha, _ = random_speech(4, 20, 5)
    lengths = torch.tensor([20, 7, 0, 13])
    options = {"target_lengths": None if targets is None else torch.tensor(targets)}
    is_frame = torch.arange(20) < lengths[:, None]
    padded = run(backend, hidden, alpha, lengths, tail="normalize", **options)
    packed = run(
        backend, hidden[is_frame], alpha[is_frame], lengths,
        function=cif_packed, tail="normalize", **options,
    )  # fmt: skip
    is_token = torch.arange(padded.tokens.shape[1]) < padded.token_lengths[:, None]
    assert torch.equal(packed.token_lengths, padded.token_lengths)
    assert torch.equal(packed.quantity, padded.quantity)
    assert torch.equal(packed.tokens, padded.tokens[is_token])
    assert torch.equal(packed.fire_frames, padded.fire_frames[is_token])
    assert torch.equal(packed.fire_times, padded.fire_times[is_token])


def test_gradients_of_packed_rows_equal_padded_ones(fused):
    device = device_of(fused)
    hidden, alpha, lengths = random_speech(3, 20, 5)
    is_frame = torch.arange(20) < lengths[:, None]
    _, d_hidden, d_alpha = gradients(fused, hidden, alpha, lengths, seed=5)
    leaves = [tensor[is_frame].to(device).requires_grad_() for tensor in (hidden, alpha)]
    packed = cif_packed(*leaves, lengths.to(device), backend=fused)
    rng = torch.Generator().manual_seed(5)
    width = int(packed.token_lengths.max())
    d_tokens = torch.randn((3, width, 5), generator=rng)
    d_quantity = torch.randn(3, generator=rng)
    is_token = torch.arange(width) < packed.token_lengths.cpu()[:, None]
    torch.autograd.backward(
        (packed.tokens, packed.quantity), (d_tokens[is_token].to(device), d_quantity.to(device))
    )
    assert torch.equal(leaves[0].grad.cpu(), d_hidden[is_frame])
    assert torch.equal(leaves[1].grad.cpu(), d_alpha[is_frame])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_stream_equals_the_whole_bit_for_bit_over_1000_chunkings(dtype):
    rng = np.random.default_rng(0)
    rows = [
        random_speech(1, 60, 7, seed, dtype, scale=[0.5, 1.0, 4.0][seed % 3]) for seed in range(20)
    ]
    rows[0][1][:] = 0.25  # every fourth frame ends on a boundary
    for trial in range(1000):
        hidden, alpha, lengths = rows[trial % len(rows)]
        rule = RULES[trial % len(RULES)]
        whole = cif(hidden, alpha, lengths, **rule)
        stream = CIFStream(**rule)
        cuts = np.sort(rng.integers(0, 61, rng.integers(1, 12)))
        parts = [
            stream.feed(hidden[0, begin:end], alpha[0, begin:end])
            for begin, end in zip([0, *cuts], [*cuts, 60], strict=True)
        ]
        parts.append(stream.flush())
        assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens[0])
        assert torch.equal(torch.cat([part.fire_frames for part in parts]), whole.fire_frames[0])
        assert torch.equal(torch.cat([part.fire_times for part in parts]), whole.fire_times[0])


def test_a_stream_begins_anew_after_a_flush():
    hidden, alpha, _ = random_speech(1, 20, 3)
    stream = CIFStream(tail="fire")
    first = [stream.feed(hidden[0], alpha[0]), stream.flush()]
    second = [stream.feed(hidden[0], alpha[0]), stream.flush()]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.fire_times, other.fire_times)


def test_a_stream_says_what_is_wrong():
    stream = CIFStream()
    with pytest.raises(ValueError, match="empty"):
        stream.flush()
    stream.feed(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(ValueError, match="hidden is"):
        stream.feed(torch.ones(2, 4), torch.ones(2))
    with pytest.raises(ValueError, match="alpha is"):
        stream.feed(torch.ones(2, 3), torch.ones(3))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_a_bit(threads):
    hidden, alpha, lengths = random_speech(6, 300, 257)
    before = torch.get_num_threads()
    expected = gradients("numba", hidden[:, :, :64], alpha, lengths)
    try:
        torch.set_num_threads(1)
        expected = gradients("numba", hidden, alpha, lengths)
        torch.set_num_threads(threads)
        actual = gradients("numba", hidden, alpha, lengths)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(expected, actual, strict=True):
        assert torch.equal(one, other)


def test_concurrent_callers_get_their_own_results():
    batches = [random_speech(6, 300, 257, seed) for seed in range(4)]
    expected = [gradients("numba", *batch) for batch in batches]
    actual = [None] * 4

    def work(index):
        for _ in range(5):
            actual[index] = gradients("numba", *batches[index])

    callers = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for one, other in zip(expected, actual, strict=True):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_forked_child_computes_after_its_parent_did():
    hidden, alpha, lengths = random_speech(6, 300, 257)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = cif(hidden, alpha, lengths, backend="numba").tokens
        child = os.fork()
        if child == 0:
            tokens = cif(hidden, alpha, lengths, backend="numba").tokens
            same = (tokens.numpy() == expected.numpy()).all()  # PyTorch's own threads hang here
            os._exit(0 if same else 3)
        _, status = os.waitpid(child, 0)
    finally:
        torch.set_num_threads(before)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_result_stays_as_it_is_while_somebody_holds_it():
    batches = [random_speech(6, 600, 1024, seed) for seed in range(3)]  # 15 MB, kept for reuse
    held = [gradients("numba", *batch) for batch in batches]
    views = [d_hidden.numpy()[1:, ::7] for _, d_hidden, _ in held]
    copies = [[tensor.clone() for tensor in result] for result in held]
    for batch in batches * 2:
        gradients("numba", *batch)
    for result, copy in zip(held, copies, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(result, copy, strict=True))
    del held, result
    for batch in batches:
        gradients("numba", *batch)
    for view, (_, d_hidden, _) in zip(views, copies, strict=True):
        assert (view == d_hidden.numpy()[1:, ::7]).all()


def test_memory_of_a_dropped_result_is_used_again():
    hidden, alpha, lengths = random_speech(6, 600, 1024)
    addresses = {gradients("numba", hidden, alpha, lengths)[1].data_ptr() for _ in range(6)}
    assert len(addresses) == 1


# Precision over long rows


def test_an_hour_of_frames_is_as_exact_as_a_second():
    frames, width = 120_000, 4
    rng = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, frames, width, generator=rng) + 0.3
    alpha = torch.sigmoid(1.5 * torch.randn(1, frames, generator=rng) - 1.9)
    lengths = torch.tensor([frames])
    tokens, _, d_alpha = gradients("numba", hidden, alpha, lengths, seed=2)
    expected, fires, _ = by_hand(hidden[0], alpha[0], frames)
    assert tokens.shape[1] == len(expected)
    assert (tokens[0].double() - expected).abs().max() < 1e-6

    # The gradient from its definition, in float64: what a frame adds to the token that goes on
    # after it, and for each later frame with a boundary the difference of the tokens at its ends.
    rng = torch.Generator().manual_seed(2)
    d_tokens = torch.randn(tokens.shape, generator=rng).double()[0]
    d_quantity = torch.randn(1, generator=rng).double()
    padded = torch.cat([d_tokens, torch.zeros(1, width)])
    after = torch.searchsorted(torch.tensor(fires), torch.arange(frames), right=True)
    before = torch.cat([torch.zeros(1, dtype=torch.int64), after[:-1]])
    vectors = hidden[0].double()
    gained = (vectors * padded[after]).sum(-1)
    jumps = gained - (vectors * padded[before]).sum(-1)
    slope = gained + jumps.flip(0).cumsum(0).flip(0) - jumps + d_quantity
    error = (d_alpha[0].double() - slope).abs().max() / slope.abs().max()
    assert error < 1e-6


def test_half_precision_input_loses_one_rounding_only(backend):
    hidden, alpha, lengths = random_speech(2, 60, 8)
    half = hidden.bfloat16()
    expected = run(backend, half.float(), alpha, lengths).tokens
    actual = run(backend, half, alpha, lengths).tokens
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual, expected.bfloat16(), rtol=0, atol=0)


# PyTorch around it


@pytest.mark.parametrize(
    "options", [{"max_tokens": 9}, {"target_lengths": torch.tensor([5, 3])}, {}], ids=str
)
@pytest.mark.filterwarnings("error")
def test_compiled_without_a_graph_break(options):
    torch._dynamo.reset()
    hidden, alpha, lengths = random_speech(2, 20, 4)

    def loss(hidden, alpha):
        output = cif(hidden, alpha, lengths, tail="normalize", **options)
        return output.tokens.square().sum() + output.quantity.sum()

    def both(function):
        leaves = [tensor.clone().requires_grad_() for tensor in (hidden, alpha)]
        value = function(*leaves)
        return value.detach(), *torch.autograd.grad(value, leaves)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for one, other in zip(both(loss), both(compiled), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("width", [12, -1])
@pytest.mark.parametrize("targets", [None, torch.tensor([5, 3, 9])], ids=["free", "scaled"])
def test_operators_keep_pytorch_s_rules(everywhere, width, targets):
    hidden, alpha, _ = random_speech(3, 20, 4)
    lengths = torch.tensor([20, 0, 13])
    arguments = (lengths, None, targets, None, width, 1.0, "normalize", 0.5, "numba")
    torch.library.opcheck(
        torch.ops.llmasr.cif_fire.default,
        (hidden.requires_grad_(), alpha.requires_grad_(), *arguments),
    )


def test_operators_of_packed_rows_and_weights_keep_pytorch_s_rules():
    hidden, alpha, _ = random_speech(1, 20, 4)
    lengths, starts = torch.tensor([12, 8]), torch.tensor([0, 12])
    arguments = (lengths, starts, None, None, -1, 1.0, "fire", 0.5, "numba")
    leaves = (hidden[0].requires_grad_(), alpha[0].requires_grad_())
    torch.library.opcheck(torch.ops.llmasr.cif_fire.default, (*leaves, *arguments))
    weight, bias = torch.randn(4, requires_grad=True), torch.randn(1, requires_grad=True)
    features = hidden.detach().requires_grad_()
    torch.library.opcheck(
        torch.ops.llmasr.cif_weigh.default,
        (features, weight, bias, torch.tensor([15]), 1.0, "numba"),
    )


def test_autocast_changes_nothing():
    hidden, alpha, lengths = random_speech(2, 20, 4)
    expected = cif(hidden, alpha, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        actual = cif(hidden, alpha, lengths)
    assert actual.tokens.dtype == torch.float32
    assert torch.equal(actual.tokens, expected.tokens)


def test_second_call_gives_the_same_bits(fused):
    hidden, alpha, lengths = random_speech(3, 30, 8)
    one, other = (gradients(fused, hidden, alpha, lengths, tail="normalize") for _ in range(2))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def test_inputs_need_not_be_contiguous(fused):
    hidden, alpha, lengths = random_speech(3, 20, 6)
    expected = gradients(fused, hidden, alpha, lengths)
    turned = hidden.transpose(1, 2).contiguous().transpose(1, 2)
    actual = gradients(fused, turned, alpha.t().contiguous().t(), lengths)
    assert all(torch.equal(one, other) for one, other in zip(expected, actual, strict=True))


def test_only_the_wanted_gradient_is_computed(fused):
    hidden, alpha, lengths = random_speech(2, 20, 4)
    device = device_of(fused)
    _, d_hidden, d_alpha = gradients(fused, hidden, alpha, lengths)
    rng = torch.Generator().manual_seed(1)
    for index, expected in enumerate((d_hidden, d_alpha)):
        inputs = [hidden.to(device), alpha.to(device)]
        inputs[index] = inputs[index].clone().requires_grad_()
        output = cif(*inputs, lengths.to(device), backend=fused)
        rng.manual_seed(1)
        d_tokens = torch.randn(output.tokens.shape, generator=rng).to(device)
        d_quantity = torch.randn(2, generator=rng).to(device)
        loss = (output.tokens * d_tokens).double().sum() + (output.quantity * d_quantity).sum()
        loss.backward()
        assert torch.equal(inputs[index].grad.cpu(), expected)


# The linear layer in front


@pytest.mark.parametrize("targets", [None, torch.tensor([5, 2])], ids=["free", "scaled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_linear_layer_and_sigmoid_equal_pytorch_s(fused, dtype, targets):
    rng = torch.Generator().manual_seed(0)
    device = device_of(fused)
    lengths = torch.tensor([20, 13]).to(device)
    sources = [torch.randn(shape, generator=rng) for shape in ((2, 20, 6), (2, 20, 9), (9,), (1,))]
    targets = None if targets is None else targets.to(device)
    results = []
    for name in ("reference", fused):
        leaves = [source.to(dtype).to(device).requires_grad_() for source in sources]
        output, alpha = cif_linear(
            *leaves, lengths, target_lengths=targets, max_tokens=6, tail="normalize", backend=name
        )
        (output.tokens.float().square().sum() + output.quantity.sum()).backward()
        results.append([output.tokens, alpha, *(leaf.grad for leaf in leaves)])
    tolerance = (
        {"rtol": 0, "atol": 5e-6} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
    )
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)


def test_padding_of_features_is_never_read(fused):
    device = device_of(fused)
    hidden, features = torch.randn(2, 9, 4), torch.randn(2, 9, 3)
    features[1, 5:], hidden[1, 5:] = torch.nan, torch.nan
    leaves = [
        hidden.to(device),
        features.to(device),
        torch.randn(3).to(device),
        torch.randn(1).to(device),
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    output, alpha = cif_linear(
        *leaves, torch.tensor([9, 5]).to(device), max_tokens=5, backend=fused
    )
    output.tokens.sum().backward()
    assert alpha[1, 5:].eq(0).all()
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


# What other implementations do with the tail


@pytest.mark.parametrize(
    ("preset", "rest", "fires"),
    [(FUNASR, 0.5, False), (FUNASR, 0.5625, True), (CIF_PYTORCH, 0.5, False),
     (CIF_PYTORCH, 0.5625, True), (TORCH_CIF, 0.5, True), (TORCH_CIF, 0.4375, False)],
)  # fmt: skip
def test_presets_decide_on_the_tail_as_their_originals(backend, preset, rest, fires):
    alpha = torch.tensor([[0.5, 0.5, rest]])
    output = run(backend, torch.ones(1, 3, 1), alpha, torch.tensor([3]), **preset)
    assert output.token_lengths.item() == 1 + fires
    if fires:
        weight = rest if preset is FUNASR else 1.0
        assert output.tokens[0, 1, 0].item() == pytest.approx(weight)


# Anything at all

# Not a few quanta a token: there their rounding would be most of the gradient.
finite = st.floats(2**-10, 3, width=32) | st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 300.0])
weights = finite | st.sampled_from([-1.0, float("nan"), float("inf")])


ANYTHING = {
    "rows": st.lists(st.lists(weights, max_size=12), min_size=1, max_size=3),
    "tail": st.sampled_from(["drop", "fire", "normalize"]),
    "threshold": st.sampled_from([1.0, 0.5, 0.9, 3.0]),
    "targets": st.none() | st.lists(st.integers(0, 30), min_size=3, max_size=3),
    "width": st.none() | st.integers(0, 5),
}


@pytest.mark.parametrize(("name", "examples"), [("numba", 150), ("cuda", 40), ("triton", 10)])
def test_anything_gives_what_the_reference_gives(everywhere, name, examples):
    found = given(name=st.just(name), **ANYTHING)(check_anything)
    settings(max_examples=examples, deadline=None, database=None)(found)()


def check_anything(name, rows, tail, threshold, targets, width):
    lengths = torch.tensor([len(row) for row in rows])
    alpha = torch.zeros(len(rows), int(lengths.max()))
    for index, row in enumerate(rows):
        alpha[index, : len(row)] = torch.tensor(row)
    hidden = torch.randn(*alpha.shape, 3, generator=torch.Generator().manual_seed(0))
    goals = None if targets is None else torch.tensor(targets[: len(rows)])
    options = {"tail": tail, "threshold": threshold, "max_tokens": width, "target_lengths": goals}
    expected, actual = (
        run(each, hidden, alpha, lengths, **options) for each in ("reference", name)
    )
    for field, one, other in zip(expected._fields, expected, actual, strict=True):
        torch.testing.assert_close(
            other, one, atol=1e-5, rtol=1e-5, msg=lambda m, f=field: f"{f}: {m}"
        )
    _, d_hidden, d_alpha = gradients("reference", hidden, alpha, lengths, **options)
    _, actual_hidden, actual_alpha = gradients(name, hidden, alpha, lengths, **options)
    torch.testing.assert_close(actual_hidden, d_hidden, atol=1e-5, rtol=1e-5)
    # Scaling divides by the quantity of a row, rounding errors included.
    gain = 1 / expected.quantity.double().where(expected.quantity > 0, 1.0)[:, None]
    scale = torch.maximum(gain, d_alpha.double().abs()).clamp(min=1.0)
    torch.testing.assert_close(actual_alpha / scale, d_alpha / scale, atol=1e-5, rtol=0)


# Wrong arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.ones(2, 3)}, "hidden is"),
        ({"hidden": torch.ones(1, 4, 2, dtype=torch.int64)}, "hidden is"),
        ({"alpha": torch.ones(1, 3)}, "alpha is"),
        ({"alpha": torch.ones(1, 4, dtype=torch.int64)}, "alpha is"),
        ({"alpha": torch.ones(1, 4, device="meta")}, "alpha is on meta"),
        ({"lengths": torch.ones(1)}, "lengths is"),
        ({"lengths": torch.tensor([4, 4])}, "lengths is"),
        ({"lengths": torch.tensor([5])}, r"lengths is \[5\]; allowed: 0..4"),
        ({"lengths": torch.tensor([-1])}, "lengths is"),
        ({"lengths": torch.ones(1, dtype=torch.int64, device="meta")}, "lengths is on meta"),
        ({"target_lengths": torch.ones(2, dtype=torch.int64)}, "target_lengths is"),
        ({"target_lengths": torch.tensor([-2])}, "target_lengths is"),
        ({"threshold": 0.0}, "threshold is"),
        ({"threshold": float("nan")}, "threshold is"),
        ({"tail": "maybe"}, "tail is"),
        ({"tail_threshold": 1.5}, "tail_threshold is"),
        ({"max_tokens": -1}, "max_tokens is"),
        ({"backend": "magic"}, "backend is"),
        ({"backend": "cuda"}, "backend is 'cuda'; allowed on cpu"),
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


def test_wrong_arguments_of_the_other_forms_are_named():
    with pytest.raises(ValueError, match="lengths add up to 3"):
        cif_packed(torch.ones(4, 2), torch.ones(4), torch.tensor([1, 2]))
    hidden, features = torch.ones(1, 4, 2), torch.ones(1, 4, 3)
    with pytest.raises(ValueError, match="weight is"):
        cif_linear(hidden, features, torch.ones(2), torch.ones(1), torch.tensor([4]))
    with pytest.raises(ValueError, match="features is"):
        cif_linear(hidden, features[:, :3], torch.ones(3), torch.ones(1), torch.tensor([3]))


def test_kernels_never_leave_their_arrays(fused, everywhere):
    hidden, alpha, _ = random_speech(2, 6, 3)
    device = device_of(fused)
    lengths, targets = torch.tensor([99, -5]), torch.tensor([-3, 4])
    batch = Batch(*(t.to(device) for t in (hidden, alpha, lengths)), None, None)
    module, rule = operator.load(fused), Rule(1.0, "fire", 0.5)
    fired = module.forward(batch, None, rule, -1)
    expected = cif(hidden, alpha, torch.tensor([6, 0]), tail="fire", backend="reference")
    assert torch.equal(fired.token_lengths.cpu(), expected.token_lengths)
    torch.testing.assert_close(fired.tokens.cpu(), expected.tokens)
    scaled = module.forward(batch._replace(targets=targets.to(device)), None, rule, 3)
    assert scaled.token_lengths.tolist() == [0, 0]


def test_a_named_backend_runs_or_raises():
    assert chosen_backend("cpu") == "numba"
    assert chosen_backend("mps") == "reference"
    assert chosen_backend("cuda", torch.float64) == "reference"
    assert available_backends("cpu") == ("numba", "reference")


def test_quanta_of_small_weights_are_exact():
    alpha = torch.full((1, 4), 2.0**-21)
    output = cif(torch.ones(1, 4, 1), alpha, torch.tensor([4]))
    assert output.quantity.item() == 2.0**-19
    assert 2.0**-21 * TOKEN == 2**23
