"""The CUDA kernels of CIF: run by an emulator on the CPU, and compiled for real GPUs."""

import itertools
import os
import re
import shutil
import subprocess
from pathlib import Path

import cif_emulator
import numpy as np
import pytest
import torch
from cif_emulator import GuardedMemory

from llmasr.ops.cif import gpu_cuda, nvrtc
from llmasr.ops.cif.backend import FRAME_LIMIT, ROW_LIMIT, TOKEN, Batch, Rule

DROP = Rule(1.0, "drop", 0.5)
FIRE = Rule(0.9, "fire", 0.3)
NORMALIZE = Rule(1.3, "normalize", 0.1)
RULES = [DROP, FIRE, NORMALIZE]
needs_emulator = pytest.mark.skipif(
    cif_emulator.missing() is not None, reason=str(cif_emulator.missing())
)
needs_nvrtc = pytest.mark.skipif(not gpu_cuda.is_available(), reason=str(gpu_cuda.missing()))


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture
def emulator(folder):
    return cif_emulator.Emulator(folder)


def speech(lengths, width, *, seed=0, loudness=-1.0, dtype=torch.float32, targets=None):
    """A padded batch with NaN on the padding, where nothing may look."""
    rng = torch.Generator().manual_seed(seed)
    rows, frames = len(lengths), max([*lengths, 0])
    lengths = torch.tensor(lengths, dtype=torch.int64)
    hidden = torch.randn(rows, frames, width, generator=rng)
    alpha = torch.sigmoid(1.5 * torch.randn(rows, frames, generator=rng) + loudness)
    padding = torch.arange(frames) >= lengths[:, None]
    hidden[padding], alpha[padding] = torch.nan, torch.nan
    targets = None if targets is None else torch.tensor(targets)
    return Batch(hidden.to(dtype), alpha, lengths, None, targets)


def packed(batch):
    """The same rows one after the other."""
    lengths = batch.lengths.clamp(min=0)
    valid = torch.arange(batch.alpha.shape[1]) < lengths[:, None]
    starts = lengths.cumsum(0) - lengths
    return batch._replace(hidden=batch.hidden[valid], alpha=batch.alpha[valid], starts=starts)


def walk(hidden, alpha, length, target, rule):
    """One row as README.md defines it, in Python integers: (tokens, frames, times, prefix, S)."""
    prefix, total = [], 0
    for weight in alpha[:length].tolist():
        x = weight * (TOKEN / rule.threshold)
        total = min(total + (int(min(x, float(FRAME_LIMIT)) + 0.5) if x > 0 else 0), ROW_LIMIT)
        prefix.append(total)
    rest, factor = total % TOKEN, None
    if target is None:
        fires = rule.tail != "drop" and 0 < rest >= rule.tail_quanta
        count, scale = total // TOKEN + fires, rule.threshold / TOKEN
        ends = [min((u + 1) * TOKEN, total) for u in range(count)]
        if fires and rule.tail == "normalize":
            factor = np.float32(TOKEN / rest)
    else:
        count = max(target, 0) if total else 0
        scale = count * rule.threshold / (total or 1)
        ends = [(u + 1) * total // count for u in range(count)]
    tokens, frames, times, low, frame = [], [], [], 0, 0
    for high in ends:
        token = np.zeros(hidden.shape[1], np.float32)
        while True:
            before = prefix[frame - 1] if frame else 0
            overlap = min(prefix[frame], high) - max(before, low)
            weight = np.longdouble(np.float32(overlap * scale))
            # exact product, and a sum with so many bits that rounding twice is rounding once
            token = np.float32(weight * hidden[frame].float().numpy() + token)
            if prefix[frame] >= high:
                break
            frame += 1
        tokens.append(token)
        frames.append(frame)
        times.append(np.float32(frame + (high - before) / max(prefix[frame] - before, 1)))
        low = high
    if factor is not None:
        tokens[-1] = np.float32(tokens[-1] * factor)
    return tokens, frames, times, prefix, np.float32(total * (rule.threshold / TOKEN))


def assert_as_defined(fired, batch, rule, width):
    offset = 0
    for row, length in enumerate(batch.lengths.clamp(min=0).tolist()):
        start = row if batch.starts is None else slice(int(batch.starts[row]), None)
        target = None if batch.targets is None else int(batch.targets[row])
        tokens, frames, times, prefix, quantity = walk(
            batch.hidden[start], batch.alpha[start], length, target, rule
        )
        count = len(tokens) if width is None else min(len(tokens), width)
        at = row if batch.starts is None else slice(offset, offset + count)
        offset += count
        assert fired.token_lengths[row] == count
        assert fired.quantity[row] == torch.tensor(quantity)
        assert fired.prefix[start][:length].tolist() == prefix
        assert fired.fire_frames[at].tolist()[:count] == frames[:count]
        assert fired.fire_times[at].numpy()[:count].tolist() == times[:count]
        if count:
            expected = torch.from_numpy(np.stack(tokens[:count])).to(batch.hidden.dtype)
            assert torch.equal(fired.tokens[at][:count], expected)
        if batch.starts is None:
            assert not fired.tokens[row, count:].any()
            assert not fired.fire_times[row, count:].any()
            assert (fired.fire_frames[row, count:] == -1).all()
            assert (fired.prefix[row, length:] == (prefix[-1] if prefix else 0)).all()


def row_tokens(hidden, alpha, target, rule):
    """Tokens of a row and its quantity in float64, differentiable, by one matrix of overlaps.

    Positions count in tokens. They have the exact values of README.md and the gradient of `alpha`.
    """

    def with_value(differentiable, quanta):
        exact = torch.tensor(quanta, dtype=torch.float64).view_as(differentiable) / TOKEN
        return differentiable + (exact - differentiable).detach()

    moves = (alpha >= 0) & (alpha <= 256 * rule.threshold)
    share = torch.where(moves, alpha / rule.threshold, 0.0)
    tokens, _, _, prefix, _ = walk(hidden.detach(), alpha.detach(), len(alpha), target, rule)
    end = with_value(share.cumsum(0), prefix)  # [T]
    start = with_value(share.cumsum(0) - share, [0, *prefix[:-1]] if prefix else [])
    quantity, count, whole = end[-1:].sum(), len(tokens), int((prefix or [0])[-1]) >> 44
    edges, gain = torch.arange(count + 1.0, dtype=torch.float64), torch.ones(count).double()
    is_open = count > (whole if target is None else 0)
    if target is not None and count:
        places = [u * prefix[-1] // count for u in range(count + 1)]
        edges, gain = with_value(edges * (quantity / count), places), gain * count / quantity
    elif is_open and rule.tail == "normalize":
        gain = torch.cat([gain[1:], 1 / (quantity - whole)[None]])
    low, high = edges[:-1, None], edges[1:, None].clone()  # [U, 1]
    if is_open:
        high[count - 1 :] = torch.inf
    right, left = torch.where(end < high, end, high), torch.where(start >= low, start, low)
    overlap = torch.where((end >= low) & (start < high), right - left, 0.0)  # [U, T]
    return (overlap * gain[:, None]) @ hidden * rule.threshold, quantity * rule.threshold


def gradients(emulator, batch, rule, width, wanted=(True, True), seed=5):
    """Gradients of emulator and definition for one random direction: two pairs."""
    fired = emulator.forward(batch, None, rule, width)
    rng = torch.Generator().manual_seed(seed)
    d_tokens = torch.randn(fired.tokens.shape, generator=rng).to(fired.tokens.dtype)
    d_quantity = torch.randn(fired.quantity.shape, generator=rng)
    actual = emulator.backward(d_tokens, d_quantity, batch, fired, rule, wanted)
    hidden = batch.hidden.double().requires_grad_()
    alpha = batch.alpha.double().requires_grad_()
    loss, offset = (0 * hidden.nan_to_num()).sum() + (0 * alpha.nan_to_num()).sum(), 0
    for row, length in enumerate(batch.lengths.tolist()):
        start = int(batch.starts[row]) if batch.starts is not None else 0
        part = slice(start, start + length) if batch.starts is not None else (row, slice(length))
        target = None if batch.targets is None else int(batch.targets[row])
        tokens, quantity = row_tokens(hidden[part], alpha[part], target, rule)
        count = int(fired.token_lengths[row])
        at = slice(offset, offset + count) if batch.starts is not None else (row, slice(count))
        offset += count
        loss = loss + (tokens[:count] * d_tokens[at]).sum() + quantity * d_quantity[row]
    return actual, torch.autograd.grad(loss, (hidden, alpha))


def assert_gradients(emulator, batch, rule, width):
    actual, expected = gradients(emulator, batch, rule, width)
    coarse = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}[batch.hidden.dtype]
    scale = expected[0].abs().max() + 1e-9
    torch.testing.assert_close(actual[0].double() / scale, expected[0] / scale, rtol=0, atol=coarse)
    assert actual[0].dtype == batch.hidden.dtype
    scale = expected[1].abs().max() + 1e-9
    limit = 2e-6 if batch.hidden.dtype == torch.float32 or rule.tail != "normalize" else coarse
    torch.testing.assert_close(actual[1].double() / scale, expected[1] / scale, rtol=0, atol=limit)


LENGTHS = [70, 41, 0, 1, 33]
TARGETS = [12, 7, 3, 1, 0]


@needs_emulator
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.tail)
@pytest.mark.parametrize("width", [8, 3, 30], ids=lambda width: f"D{width}")
@pytest.mark.parametrize("places", [-1, 4, 25], ids=lambda places: f"U{places}")
def test_every_tail_is_as_defined(emulator, rule, width, places):
    batch = speech(LENGTHS, width)
    fired = emulator.forward(batch, None, rule, places)
    assert_as_defined(fired, batch, rule, None if places < 0 else places)
    assert len(emulator.launches) == (2 if places < 0 else 1)
    assert_gradients(emulator, batch, rule, fired.tokens.shape[1])


@needs_emulator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("places", [-1, 5, 16])
def test_targets_are_met_in_every_dtype(emulator, dtype, places):
    batch = speech(LENGTHS, 40, dtype=dtype, targets=TARGETS)
    fired = emulator.forward(batch, None, DROP, places)
    assert_as_defined(fired, batch, DROP, None if places < 0 else places)
    assert_gradients(emulator, batch, DROP, fired.tokens.shape[1])


@needs_emulator
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.tail)
@pytest.mark.parametrize("targets", [None, TARGETS], ids=["free", "targets"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_rows_are_as_defined(emulator, rule, targets, dtype):
    batch = packed(speech(LENGTHS, 24, dtype=dtype, targets=targets))
    fired = emulator.forward(batch, None, rule, -1)
    assert_as_defined(fired, batch, rule, None)
    assert_gradients(emulator, batch, rule, -1)


@needs_emulator
@pytest.mark.parametrize("targets", [None, [300, 40]], ids=["free", "targets"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.tail)
def test_several_tokens_end_in_a_frame(emulator, rule, targets):
    batch = speech([20, 20], 8, targets=targets)
    batch.alpha[0] *= 9
    batch.alpha[0, 7] = 40
    batch.alpha[1, 3] = 6
    fired = emulator.forward(batch, None, rule, -1)
    assert_as_defined(fired, batch, rule, None)
    assert_gradients(emulator, batch, rule, fired.tokens.shape[1])


@needs_emulator
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.tail)
@pytest.mark.parametrize("targets", [None, [9, 60]], ids=["free", "targets"])
def test_sums_on_a_boundary_count_to_the_right(emulator, rule, targets):
    batch = speech([40, 40], 8, targets=targets)
    rng = torch.Generator().manual_seed(2)
    batch.alpha[:] = torch.randint(0, 5, (2, 40), generator=rng) / 4 * rule.threshold
    fired = emulator.forward(batch, None, rule, -1)
    assert_as_defined(fired, batch, rule, None)
    assert_gradients(emulator, batch, rule, fired.tokens.shape[1])


@needs_emulator
@pytest.mark.parametrize("targets", [None, [2, 5, 1]], ids=["free", "targets"])
def test_a_token_may_be_longer_than_a_block_looks(emulator, targets):
    batch = speech([700, 650, 300], 4, targets=targets)
    batch.alpha[0, 20:690] = 1e-4
    batch.alpha[1] *= 1e-2
    batch.alpha[2] = 0
    for rule in RULES:
        fired = emulator.forward(batch, None, rule, 90)
        assert_as_defined(fired, batch, rule, 90)
        assert_gradients(emulator, batch, rule, 90)


@needs_emulator
def test_long_rows_are_scanned_first(emulator, monkeypatch):
    monkeypatch.setattr(gpu_cuda, "SCAN_FIRST", 64)
    batch = speech([2200, 64, 1], 1)
    fired = emulator.forward(batch, None, FIRE, 40)
    assert [job.kernel for job in emulator.launches] == ["cif_scan", "cif_forward"]
    assert_as_defined(fired, batch, FIRE, 40)


@needs_emulator
@pytest.mark.parametrize("targets", [None, [2, 2**40, 2, -3, 7]], ids=["free", "targets"])
def test_odd_numbers_are_harmless(emulator, targets):
    batch = speech([12, 9, 12, 12, 3], 4, targets=targets)
    batch.alpha[0, 3:8] = torch.tensor([torch.nan, -1.0, torch.inf, -torch.inf, 1e-30])
    batch.alpha[1] = 1e-14  # fewer quanta than tokens
    batch.alpha[2] = 0
    batch.alpha[4, 1] = 300
    fired = emulator.forward(batch, None, FIRE, 20)
    if targets is None:
        assert_as_defined(fired, batch, FIRE, 20)
    d_hidden, d_alpha = emulator.backward(
        torch.ones_like(fired.tokens), torch.ones(5), batch, fired, FIRE, (True, True)
    )
    valid = torch.arange(12) < batch.lengths[:, None]
    stuck = ~(batch.alpha >= 0) | (batch.alpha > 256 * FIRE.threshold)
    assert not d_alpha[stuck | ~valid].any()
    assert not d_hidden[~valid].any()
    assert d_hidden.isfinite().all()
    assert d_alpha.isfinite().all()


@needs_emulator
def test_a_row_fills_up(emulator):
    batch = speech([1100], 1)
    batch.alpha[:] = 256.0
    fired = emulator.forward(batch, None, DROP, 3)
    assert fired.prefix[0, -1] == ROW_LIMIT
    assert fired.prefix[0, 1023] == ROW_LIMIT
    assert fired.prefix[0, 1022] == ROW_LIMIT - FRAME_LIMIT


@needs_emulator
def test_lengths_out_of_range_read_nothing_outside(emulator):
    batch = speech([9, 9, 9], 4)
    wrong = batch._replace(lengths=torch.tensor([99, -5, 9]))
    right = batch._replace(lengths=torch.tensor([9, 0, 9]))
    actual, expected = (emulator.forward(each, None, DROP, 6) for each in (wrong, right))
    assert all(map(torch.equal, actual, expected))
    zero = torch.zeros(3)
    d_wrong, d_right = (
        emulator.backward(torch.ones(3, 6, 4), zero, each, actual, DROP, (True, True))
        for each in (wrong, right)
    )
    assert all(map(torch.equal, d_wrong, d_right))
    lost = packed(right)._replace(
        lengths=torch.tensor([99, -5, 99]), starts=torch.tensor([0, 9, 9])
    )
    fired = emulator.forward(lost, None, DROP, -1)
    emulator.backward(fired.tokens, zero, lost, fired, DROP, (True, True))


@needs_emulator
@pytest.mark.parametrize("lengths", [[], [0, 0]], ids=str)
@pytest.mark.parametrize("places", [-1, 3])
def test_empty_batches(emulator, lengths, places):
    for batch in (speech(lengths, 4), packed(speech(lengths, 4))):
        fired = emulator.forward(batch, None, FIRE, places)
        assert not fired.tokens.any()
        assert not fired.token_lengths.any()
        assert not fired.quantity.any()
        d_hidden, d_alpha = emulator.backward(
            fired.tokens, fired.quantity, batch, fired, FIRE, (True, True)
        )
        assert d_hidden.shape == batch.hidden.shape
        assert d_alpha.shape == batch.alpha.shape


@needs_emulator
@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)])
def test_only_wanted_gradients_are_computed(emulator, wanted):
    batch = speech(LENGTHS, 8)
    both, _ = gradients(emulator, batch, NORMALIZE, 20)
    some, _ = gradients(emulator, batch, NORMALIZE, 20, wanted)
    for is_wanted, one, other in zip(wanted, some, both, strict=True):
        assert torch.equal(one, other) if is_wanted else one is None


@needs_emulator
@pytest.mark.parametrize("width", [1100, 2100, 300], ids=lambda width: f"D{width}")
def test_wide_frames_are_cut_into_slices(emulator, width):
    batch = speech([21, 13], width)
    batch = batch if width != 300 else batch._replace(hidden=batch.hidden[..., :299].contiguous())
    fired = emulator.forward(batch, None, NORMALIZE, 12)
    assert_as_defined(fired, batch, NORMALIZE, 12)
    assert_gradients(emulator, batch, NORMALIZE, 12)


@needs_emulator
def test_addresses_off_sixteen_bytes_take_the_scalar_kernels(emulator):
    batch = speech([21, 13], 8)
    expected = emulator.forward(batch, None, FIRE, 12)
    shifted = torch.empty(batch.hidden.numel() + 1)[1:].view_as(batch.hidden).copy_(batch.hidden)
    actual = emulator.kernels.forward(batch._replace(hidden=shifted), None, FIRE, 12)
    assert [job.vector for job in emulator.launches] == [4, 1]
    assert torch.equal(actual.tokens, expected.tokens)


@needs_emulator
def test_the_order_of_threads_and_blocks_and_their_number_do_not_matter(folder):
    batch = speech([300, 260, 7], 12, targets=[40, 60, 1])
    results = []
    for reverse, processors in itertools.product((False, True), (1, 40)):
        emulator = cif_emulator.Emulator(folder, reverse=reverse, processors=processors)
        fired = emulator.forward(batch, None, DROP, 60)
        d_tokens = fired.tokens.cos()
        back = emulator.backward(d_tokens, torch.ones(3), batch, fired, DROP, (True, True))
        features = batch.hidden.nan_to_num()
        weighed = emulator.weigh(features, torch.ones(12), torch.ones(1), batch.lengths, DROP)
        results.append((*fired, back[0], *weighed, back[1]))
    for other in results[1:]:
        assert all(map(torch.equal, other[:-1], results[0][:-1]))
        torch.testing.assert_close(other[-1], results[0][-1], rtol=1e-6, atol=1e-7)
    assert torch.equal(results[0][-1], results[2][-1])


@needs_emulator
def test_a_row_alone_equals_the_row_in_a_batch(emulator):
    batch = speech(LENGTHS, 8)
    together = emulator.forward(batch, None, NORMALIZE, 40)
    for row, length in enumerate(LENGTHS):
        part = slice(row, row + 1)
        alone = Batch(
            batch.hidden[part, :length], batch.alpha[part, :length], batch.lengths[part], None, None
        )
        fired = emulator.forward(alone, None, NORMALIZE, 40)
        assert torch.equal(fired.tokens[0], together.tokens[row])


@needs_emulator
def test_bits_equal_those_of_the_cpu(emulator):
    from llmasr.ops.cif import cpu

    batch = speech(LENGTHS, 20, targets=TARGETS)
    for rule, places in itertools.product(RULES, (-1, 5, 30)):
        for each in (batch, batch._replace(targets=None)):
            actual = emulator.forward(each, None, rule, places)
            expected = cpu.forward(each, None, rule, places)
            assert all(map(torch.equal, actual, expected))
            gradients = expected.tokens.cos(), torch.ones(len(LENGTHS))
            d_actual, d_expected = (
                backend.backward(*gradients, each, expected, rule, (True, True))
                for backend in (emulator, cpu)
            )
            if rule.tail != "normalize" or each.targets is not None:
                assert torch.equal(d_actual[0], d_expected[0])
            torch.testing.assert_close(d_actual, d_expected, rtol=1e-5, atol=1e-5)


@needs_emulator
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("width", [40, 7, 2088], ids=lambda width: f"E{width}")
def test_weights_come_from_features(emulator, dtype, width):
    lengths = torch.tensor([90, 0, 37])
    rng = torch.Generator().manual_seed(3)
    features = torch.randn(3, 90, width, generator=rng).to(dtype)
    features[torch.arange(90) >= lengths[:, None]] = torch.nan
    weight = torch.randn(width, generator=rng).to(dtype) / width**0.5
    bias = torch.tensor([-0.5], dtype=dtype)
    alpha, prefix = emulator.weigh(features, weight, bias, lengths, FIRE)
    valid = torch.arange(90) < lengths[:, None]
    inputs = [each.double().requires_grad_() for each in (features.nan_to_num(), weight, bias)]
    expected = torch.sigmoid(inputs[0] @ inputs[1] + inputs[2]) * valid
    torch.testing.assert_close(alpha.double(), expected.detach(), rtol=1e-6, atol=1e-6)
    quanta = (alpha.double() * FIRE.quanta_per_weight + 0.5).long() * valid
    assert torch.equal(prefix, quanta.cumsum(1))
    d_alpha = torch.randn(3, 90, generator=rng)
    actual = emulator.weigh_backward(d_alpha, alpha, features, weight, lengths)
    for one, other in zip(
        actual, torch.autograd.grad((expected * d_alpha).sum(), inputs), strict=True
    ):
        rtol = 8e-3 if one.dtype == torch.bfloat16 else 1e-3 if one.dtype == torch.float16 else 1e-5
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=1e-5)


@needs_emulator
def test_a_prefix_that_is_known_is_used(emulator):
    batch = speech(LENGTHS, 8)
    expected = emulator.forward(batch, None, FIRE, 30)
    blind = batch._replace(alpha=torch.zeros_like(batch.alpha))
    actual = emulator.forward(blind, expected.prefix, FIRE, 30)
    assert all(map(torch.equal, actual, expected))
    assert [job.kernel for job in emulator.launches] == ["cif_forward"] * 2
    actual = emulator.forward(blind, expected.prefix, FIRE, -1)
    assert torch.equal(actual.token_lengths, expected.token_lengths)


@needs_emulator
def test_the_emulator_notices_what_a_gpu_would_not(emulator):
    batch = speech(LENGTHS, 8)
    emulator.forward(batch, None, FIRE, 8)
    job = emulator.launches[0]
    with GuardedMemory() as memory:
        buffers = memory.copy(torch.zeros(5, 70)), memory.copy(torch.zeros(5, 8, 8))
        job.parameters.alpha, job.parameters.tokens = (each.data_ptr() for each in buffers)
        job.parameters.lengths = memory.copy(torch.full((5,), 70)).data_ptr()
        for name in ("hidden", "fire_frames", "fire_times", "prefix", "token_lengths", "quantity"):
            setattr(job.parameters, name, memory.copy(torch.zeros(5, 70, 8)).data_ptr())
        emulator._run(job)
        memory.check()
        job.parameters.tokens += 16
        with pytest.raises(RuntimeError, match="cif_forward: a thread left its buffers"):
            emulator._run(job)
        job.parameters.tokens -= 32
        emulator._run(job)
        with pytest.raises(AssertionError, match="wrote outside a buffer"):
            memory.check()


def test_a_dtype_without_kernels_is_named():
    with pytest.raises(ValueError, match=r"dtype is torch\.float64; allowed on a GPU: float32"):
        gpu_cuda.forward(speech([3], 4, dtype=torch.float64), None, DROP, 2)


def tool(name):
    """Path of a CUDA tool: Triton's wheel has some."""
    triton = pytest.importorskip("triton")
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / name
    found = str(path) if path.exists() else shutil.which(name)
    return found or pytest.skip(f"no {name}, neither in Triton's wheel nor in PATH")


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_kernels_spill_nothing_and_load_128_bits(arch, dtype, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMASR_CACHE", str(tmp_path))
    environment = os.environ | {"PATH": f"{Path(tool('nvdisasm')).parent}:{os.environ['PATH']}"}
    path = tmp_path / "kernels.cubin"

    def dump(*options):
        command = [tool("cuobjdump"), *options, str(path)]
        return subprocess.check_output(command, text=True, env=environment)

    # Every kernel reads frames by 16 bytes, as many at a time as are on their way, and writes so.
    loads = {"cif_forward": 4, "cif_backward": 8, "cif_weigh": 4, "cif_weigh_backward": 4}
    for source in sorted(set(gpu_cuda.SOURCES.values())):
        path.write_bytes(gpu_cuda.compile_kernels(source, arch, dtype))
        usage = re.findall(
            r"Function (\w+):\s+REG:(\d+) STACK:(\d+).*LOCAL:(\d+)", dump("-res-usage")
        )
        assert {name for name, *_ in usage} == {
            name for name, file in gpu_cuda.SOURCES.items() if file == source
        }
        for kernel, registers, stack, local in usage:
            assert (int(stack), int(local)) == (0, 0), kernel
            assert int(registers) <= 80, kernel
            if kernel in loads:
                machine_code = dump("-sass", "-fun", kernel)
                assert machine_code.count("LDG.E.128") >= loads[kernel], kernel
                assert "STG.E.128" in machine_code or kernel == "cif_weigh", kernel


@needs_nvrtc
def test_compiled_kernels_are_kept_and_repaired(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMASR_CACHE", str(tmp_path))
    compiled = []
    compile_once = nvrtc._compile

    def count(*arguments):
        compiled.append(arguments)
        return compile_once(*arguments)

    monkeypatch.setattr(nvrtc, "_compile", count)
    source = 'extern "C" __global__ void one(int* x) { *x = 1; }'
    code = nvrtc.cubin(source, (), "sm_90")
    assert nvrtc.cubin(source, (), "sm_90") == code
    assert len(compiled) == 1
    (path,) = nvrtc.cache_folder().iterdir()
    for damage in (b"", path.read_bytes()[:-5], b"\0" * 500):
        path.write_bytes(damage)
        assert nvrtc.cubin(source, (), "sm_90") == code
    assert len(compiled) == 4
    nvrtc.cubin(source, (), "sm_80")
    nvrtc.cubin(source + "\n", (), "sm_90")
    assert len(compiled) == 6
    assert len(list(nvrtc.cache_folder().iterdir())) == 3


@needs_nvrtc
def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch, caplog):
    (tmp_path / "cubin").write_text("a file, not a folder")
    monkeypatch.setenv("LLMASR_CACHE", str(tmp_path))
    assert nvrtc.cubin('extern "C" __global__ void one() {}', (), "sm_90")
    assert "LLMASR_CACHE" in caplog.text


@needs_nvrtc
def test_a_compiler_error_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMASR_CACHE", str(tmp_path))
    with pytest.raises(RuntimeError, match="no_such_thing"):
        nvrtc.cubin("int x = no_such_thing;", (), "sm_90")


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(nvrtc.importlib, "import_module", fail)
    assert not gpu_cuda.is_available()
    with pytest.raises(RuntimeError, match=r"cuda\.bindings.*pip install"):
        gpu_cuda.compile_kernels("gpu_cuda_forward.cu")
