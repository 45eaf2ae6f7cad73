"""The Triton back-end of CIF without a GPU: interpreted against definitions, and compiled."""

import inspect
import re
import subprocess
from pathlib import Path

import pytest
import torch

from llmasr.ops.cif import gpu_triton
from llmasr.ops.cif.backend import FRAME_LIMIT, ROW_LIMIT, TOKEN, Batch, Rule

triton = pytest.importorskip("triton")
from cif_triton_interpreter import load_interpreted  # noqa: E402

BITS = TOKEN.bit_length() - 1
DROP, FIRE, NORMALIZE = (Rule(1.0, tail, 0.5) for tail in ("drop", "fire", "normalize"))
FRAMES = 21
LENGTHS = torch.tensor([21, 0, 11, 19])
WIDTH = 70  # of a frame: even, but not a multiple of any tile


def speech(scale=0.6, dtype=torch.float32, targets=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    hidden = torch.randn(4, FRAMES, WIDTH, generator=rng).to(dtype)
    alpha = scale * torch.rand(4, FRAMES, generator=rng)
    hidden[2, 11:] = torch.nan
    alpha[3, 3:16] = 0  # a silent stretch is one long token
    return Batch(hidden, alpha, LENGTHS, None, None if targets is None else torch.tensor(targets))


def odd_weights():
    batch = speech()
    batch.alpha[0, :4] = torch.tensor([torch.nan, -1.0, torch.inf, 0.0])
    batch.alpha[3] = 0.5  # every boundary is the end of a frame
    return batch


def quanta(weight, rule):
    scaled = weight * rule.quanta_per_weight
    return int(min(scaled, float(FRAME_LIMIT)) + 0.5) if scaled > 0 else 0


def ends(total, target, rule):
    """Return the position at which each token of a row ends."""
    if target is not None:
        count = max(target, 0) if total else 0
        return [total * (token + 1) // count for token in range(count)]
    whole, rest = divmod(total, TOKEN)
    fires = rule.tail != "drop" and rest > 0 and rest >= rule.tail_quanta
    return [(token + 1) * TOKEN for token in range(whole)] + [total] * fires


def walk(batch, rule, row):
    """Walk over the frames of a row: prefix, firing frames, firing times and tokens."""
    length = int(batch.lengths[row])
    prefix = [0]
    for weight in batch.alpha[row, :length].tolist():
        prefix.append(min(prefix[-1] + quanta(weight, rule), ROW_LIMIT))
    target = None if batch.targets is None else int(batch.targets[row])
    marks = ends(prefix[-1], target, rule)
    frames, times, tokens = [], [], []
    for token, end in enumerate(marks):
        start = marks[token - 1] if token else 0
        frame = next(t for t in range(length) if prefix[t + 1] >= end)
        frames.append(frame)
        times.append(frame + (end - prefix[frame]) / max(prefix[frame + 1] - prefix[frame], 1))
        value = torch.zeros(WIDTH, dtype=torch.float64)
        scale = rule.threshold / TOKEN
        if target is not None:
            scale = rule.threshold * target / prefix[-1]
        elif rule.tail == "normalize" and end == prefix[-1] and end - start < TOKEN:
            scale = rule.threshold / (end - start)
        for t in range(length):
            overlap = min(prefix[t + 1], end) - max(prefix[t], start)
            if overlap > 0:
                value += overlap * scale * batch.hidden[row, t].double()
        tokens.append(value)
    return prefix[1:], frames, times, tokens


CASES = {
    "drop": (speech(), DROP),
    "fire": (speech(), FIRE),
    "normalize": (speech(), NORMALIZE),
    "threshold": (speech(), Rule(0.7, "normalize", 0.2)),
    "several-fires-a-frame": (speech(4.0), NORMALIZE),
    "odd-weights": (odd_weights(), FIRE),
    "targets": (speech(targets=[7, 3, 1, -2]), DROP),
    "more-targets-than-frames": (speech(targets=[30, 3, 20, 9]), Rule(0.7, "drop", 0.5)),
    "few-quanta": (speech(1e-13, targets=[7, 3, 60, 1]), DROP),
    "many-quanta": (odd_weights()._replace(targets=torch.tensor([97, 3, 31, 12])), DROP),
}
names = pytest.mark.parametrize("name", CASES)


@names
def test_forward_equals_a_walk_over_the_frames(name):
    batch, rule = CASES[name]
    fired = load_interpreted().forward(batch, None, rule, -1)
    for row, length in enumerate(LENGTHS.tolist()):
        prefix, frames, times, tokens = walk(batch, rule, row)
        count = len(frames)
        assert fired.prefix[row, :length].tolist() == prefix
        assert fired.token_lengths[row] == count
        assert fired.fire_frames[row, :count].tolist() == frames
        assert torch.equal(fired.fire_times[row, :count], torch.tensor(times, dtype=torch.float32))
        assert (fired.fire_frames[row, count:] == -1).all()
        assert not fired.fire_times[row, count:].any()
        assert not fired.tokens[row, count:].any()
        quantity = (prefix[-1] if prefix else 0) * (rule.threshold / TOKEN)
        assert fired.quantity[row] == torch.tensor(quantity, dtype=torch.float32)
        if count:
            expected = torch.stack(tokens).float()
            torch.testing.assert_close(fired.tokens[row, :count], expected, rtol=2e-6, atol=1e-5)


def overlap_tokens(hidden, alpha, target, rule):
    """Fire the tokens of one row by a float64 matrix of overlaps, for autograd."""
    end = alpha.cumsum(0)
    start, total = end - alpha, end[-1]
    size = total / max(target, 1) if target is not None else rule.threshold
    whole = int(total.detach() / rule.threshold)
    rest = total - whole * rule.threshold
    fires = target is None and rule.tail != "drop" and rest >= rule.tail_threshold * rule.threshold
    count = max(target, 0) if target is not None else whole + fires
    low = torch.arange(count)[:, None] * size
    high = (torch.arange(count)[:, None] + 1) * size
    if count and (fires or target is not None):
        high = torch.cat([high[:-1], torch.full((1, 1), torch.inf)])  # the last token is open
    overlap = torch.minimum(end, high) - torch.maximum(start, low)
    overlap = torch.where(overlap >= 0, overlap, 0.0)  # `clamp` gives a weight of 0 no gradient
    factor = torch.ones(count, 1, dtype=torch.float64)
    if target is not None:
        factor = factor * rule.threshold / size
    elif fires and rule.tail == "normalize":
        factor = torch.cat([factor[:-1], (rule.threshold / rest).reshape(1, 1)])
    return (overlap * factor) @ hidden, total


SMOOTH = [name for name in CASES if "quanta" not in name and name != "odd-weights"]


@pytest.mark.parametrize(
    ("name", "width"), [*((name, -1) for name in SMOOTH), ("normalize", 2), ("targets", 2)]
)
def test_gradients_equal_those_of_an_overlap_matrix(name, width):
    batch, rule = CASES[name]
    kernels = load_interpreted()
    fired = kernels.forward(batch, None, rule, width)
    d_tokens, d_quantity = torch.randn_like(fired.tokens), torch.randn(4)
    d_hidden, d_alpha = kernels.backward(d_tokens, d_quantity, batch, fired, rule, (True, True))
    for row, length in enumerate(LENGTHS.tolist()):
        assert not d_hidden[row, length:].any()
        assert not d_alpha[row, length:].any()
        if not length:
            continue
        hidden = batch.hidden[row, :length].double().requires_grad_()
        alpha = batch.alpha[row, :length].double().requires_grad_()
        target = None if batch.targets is None else int(batch.targets[row])
        tokens, total = overlap_tokens(hidden, alpha, target, rule)
        count = int(fired.token_lengths[row])
        loss = (tokens[:count] * d_tokens[row, :count]).sum() + total * d_quantity[row]
        expected = torch.autograd.grad(loss, (hidden, alpha))
        tolerance = {"rtol": 1e-5, "atol": 1e-5 * float(expected[1].abs().max())}
        torch.testing.assert_close(
            d_hidden[row, :length].double(), expected[0], rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(d_alpha[row, :length].double(), expected[1], **tolerance)
    only_hidden = kernels.backward(d_tokens, d_quantity, batch, fired, rule, (True, False))
    only_alpha = kernels.backward(d_tokens, d_quantity, batch, fired, rule, (False, True))
    assert only_hidden[1] is None
    assert only_alpha[0] is None
    assert torch.equal(only_hidden[0], d_hidden)
    assert torch.equal(only_alpha[1], d_alpha)


def test_gradient_on_a_boundary_is_the_one_for_more_weight():
    batch = Batch(torch.randn(1, 6, WIDTH), torch.full((1, 6), 0.5), torch.tensor([6]), None, None)
    kernels = load_interpreted()
    fired = kernels.forward(batch, None, DROP, 3)
    d_tokens = torch.randn_like(fired.tokens)
    slope = kernels.backward(d_tokens, torch.zeros(1), batch, fired, DROP, (True, True))[1][0]
    step = 2.0**-12
    for frame in range(6):
        heavier = batch.alpha.clone()
        heavier[0, frame] += step
        tokens = torch.stack(walk(batch._replace(alpha=heavier), DROP, 0)[3])
        before = torch.stack(walk(batch, DROP, 0)[3])
        difference = ((tokens - before) * d_tokens[0]).sum() / step
        assert slope[frame].item() == pytest.approx(difference.item(), rel=1e-4, abs=1e-4)


def test_bad_weights_have_no_gradient():
    batch, rule = CASES["odd-weights"]
    kernels = load_interpreted()
    fired = kernels.forward(batch, None, rule, 5)
    d_tokens = torch.randn_like(fired.tokens)
    slope = kernels.backward(d_tokens, torch.ones(4), batch, fired, rule, (False, True))[1]
    assert slope[0, :3].tolist() == [0, 0, 0]
    assert slope[0, 3] != 0  # a weight of 0 may grow
    assert slope.isfinite().all()


@pytest.mark.parametrize("name", ["normalize", "several-fires-a-frame", "targets"])
def test_packed_rows_equal_padded_rows_to_the_bit(name):
    batch, rule = CASES[name]
    kernels = load_interpreted()
    padded = kernels.forward(batch, None, rule, -1)
    valid = torch.arange(FRAMES) < LENGTHS[:, None]
    starts = LENGTHS.cumsum(0) - LENGTHS
    packed_batch = Batch(batch.hidden[valid], batch.alpha[valid], LENGTHS, starts, batch.targets)
    packed = kernels.forward(packed_batch, None, rule, -1)
    there = torch.arange(padded.tokens.shape[1]) < padded.token_lengths[:, None]
    for field in ("tokens", "fire_frames", "fire_times"):
        assert torch.equal(getattr(packed, field), getattr(padded, field)[there])
    assert torch.equal(packed.prefix, padded.prefix[valid])
    d_tokens, d_quantity = torch.randn_like(padded.tokens), torch.randn(4)
    expected = kernels.backward(d_tokens, d_quantity, batch, padded, rule, (True, True))
    actual = kernels.backward(d_tokens[there], d_quantity, packed_batch, packed, rule, (True, True))
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one, other[valid])


def test_width_cuts_and_fills():
    batch, rule = CASES["normalize"]
    kernels = load_interpreted()
    free = kernels.forward(batch, None, rule, -1)
    most = free.tokens.shape[1]
    for width in (0, 2, most + 3):
        fixed = kernels.forward(batch, free.prefix, rule, width)
        kept = min(width, most)
        assert torch.equal(fixed.token_lengths, free.token_lengths.clamp(max=width))
        assert torch.equal(fixed.tokens[:, :kept], free.tokens[:, :kept])
        assert torch.equal(fixed.fire_frames[:, :kept], free.fire_frames[:, :kept])
        assert not fixed.tokens[:, kept:].any()
        assert (fixed.fire_frames[:, kept:] == -1).all()


def test_lengths_are_clamped():
    batch, rule = CASES["fire"]
    wild = batch._replace(hidden=batch.hidden.nan_to_num(), lengths=torch.tensor([99, -5, 11, 19]))
    fired = load_interpreted().forward(wild, None, rule, 4)
    tame = load_interpreted().forward(batch, None, rule, 4)
    assert torch.equal(fired.tokens, tame.tokens)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_rounded_once(dtype):
    batch, rule = speech(dtype=dtype), NORMALIZE
    kernels = load_interpreted()
    half = kernels.forward(batch, None, rule, 9)
    wide = batch._replace(hidden=batch.hidden.float())
    full = kernels.forward(wide, None, rule, 9)
    assert torch.equal(half.tokens, full.tokens.to(dtype))
    d_tokens, d_quantity = torch.randn_like(half.tokens), torch.randn(4)
    same = full._replace(tokens=half.tokens.float())
    one = kernels.backward(d_tokens, d_quantity, batch, half, rule, (True, True))
    other = kernels.backward(d_tokens.float(), d_quantity, wide, same, rule, (True, True))
    assert torch.equal(one[0], other[0].to(dtype))
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("shape", [(0, 5, 4), (2, 0, 4), (2, 5, 1)], ids=str)
def test_empty_batches_and_one_column(shape):
    rows, frames, _ = shape
    lengths = torch.full((rows,), frames)
    batch = Batch(torch.ones(shape), torch.full((rows, frames), 0.6), lengths, None, None)
    kernels = load_interpreted()
    for width in (-1, 2):
        fired = kernels.forward(batch, None, FIRE, width)
        assert fired.token_lengths.tolist() == [min(frames, 2 if width == 2 else 3)] * rows
        gradient = torch.ones_like(fired.tokens)
        both = kernels.backward(gradient, torch.ones(rows), batch, fired, FIRE, (True, True))
        assert both[0].shape == shape
        assert both[1].shape == shape[:2]


def test_weigh_equals_linear_and_sigmoid():
    rng = torch.Generator().manual_seed(1)
    features = torch.randn(4, 21, 37, generator=rng).requires_grad_()
    weight = (0.3 * torch.randn(37, generator=rng)).requires_grad_()
    bias = torch.tensor([-0.7], requires_grad=True)
    lengths = torch.tensor([21, 0, 9, 99])
    valid = torch.arange(21) < lengths[:, None]
    expected = torch.where(valid, torch.sigmoid(features @ weight + bias), 0.0)
    d_alpha = torch.randn(4, 21, generator=rng)
    gradients = torch.autograd.grad((expected * d_alpha).sum(), (features, weight, bias))
    kernels = load_interpreted()
    inputs = [tensor.detach() for tensor in (features, weight, bias)]
    inputs[0][~valid] = torch.nan
    alpha, prefix = kernels.weigh(*inputs, lengths, FIRE)
    torch.testing.assert_close(alpha, expected.detach())
    batch = Batch(inputs[0], alpha, lengths, None, None)
    assert torch.equal(prefix[valid], kernels.forward(batch, None, FIRE, 0).prefix[valid])
    actual = kernels.weigh_backward(d_alpha, alpha, inputs[0], inputs[1], lengths)
    for one, other in zip(actual, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


TYPES = {
    torch.int64: "*i64", torch.float64: "*fp64", torch.float32: "*fp32", torch.bfloat16: "*bf16",
}  # fmt: skip


class Recorder:
    """Stands for a module of kernels, or one of them, and notes how it would be launched."""

    def __init__(self, target, launches):
        self.target, self.launches = target, launches

    def __getattr__(self, name):
        return Recorder(getattr(self.target, name), self.launches)

    def __getitem__(self, grid):
        return lambda *values, **options: self.launches.append((self.target, values, options))


def launches(monkeypatch, dtype, targets):
    """Call every function of the back-end for a realistic shape; return the launches."""
    found = []
    modules = gpu_triton._kernels
    monkeypatch.setattr(gpu_triton, "_kernels", lambda name: Recorder(modules(name), found))
    rows, frames, width = 2, 300, 1024
    hidden, alpha = torch.empty(rows, frames, width, dtype=dtype), torch.empty(rows, frames)
    lengths = torch.full((rows,), frames)
    batch = Batch(hidden, alpha, lengths, None, lengths if targets else None)
    fired = gpu_triton.forward(batch, None, NORMALIZE, 50)
    gpu_triton.backward(fired.tokens, alpha[:, 0], batch, fired, NORMALIZE, (True, True))
    line = torch.empty(width)
    gpu_triton.weigh(hidden, line, line[:1], lengths, NORMALIZE)
    gpu_triton.weigh_backward(alpha, alpha, hidden, line, lengths)
    return found


def compiled(kernel, values, options, architecture):
    """Compile a launch as the GPU of that architecture would do it; return the binary."""
    names = {name: value for name, value in options.items() if name in kernel.arg_names}
    bound = inspect.signature(kernel.fn).bind(*values, **names).arguments
    tensors = {n: TYPES[v.dtype] for n, v in bound.items() if isinstance(v, torch.Tensor)}
    numbers = {p.name: "i32" for p in kernel.params if p.do_not_specialize}
    constants = {n: v for n, v in bound.items() if n not in tensors and n not in numbers}
    signature = {n: (tensors | numbers).get(n, "constexpr") for n in kernel.arg_names}
    aligned = [(kernel.arg_names.index(name),) for name in tensors]
    source = triton.compiler.ASTSource(
        kernel, signature, constants, {place: [["tt.divisibility", 16]] for place in aligned}
    )
    target = triton.backends.compiler.GPUTarget("cuda", architecture, 32)
    flags = {name: value for name, value in options.items() if name not in names}
    return triton.compile(source, target=target, options=flags).asm["cubin"]


@pytest.mark.parametrize(
    ("architecture", "dtype", "targets"),
    [(80, torch.bfloat16, True), (90, torch.bfloat16, True), (90, torch.float32, False)],
    ids=str,
)
def test_kernels_compile_without_spills(monkeypatch, tmp_path, architecture, dtype, targets):
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not tool.exists() or triton.knobs.runtime.interpret:
        pytest.skip("this Triton brings no cuobjdump, or only interprets")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for kernel, values, options in launches(monkeypatch, dtype, targets):
        name = kernel.__name__
        file = tmp_path / f"{name}.cubin"
        file.write_bytes(compiled(kernel, values, options, architecture))

        def show(option, file=file):
            run = subprocess.run([tool, option, file], capture_output=True, text=True, check=True)
            return run.stdout

        use = show("-res-usage")
        registers, stack, local = (
            int(re.search(rf"{key}:(\d+)", use)[1]) for key in ("REG", "STACK", "LOCAL")
        )
        print(name, architecture, dtype, f"{registers} registers, stack {stack}, local {local}")
        code = show("-sass")
        assert (stack, local) == (0, 0), name
        assert not re.search(r"\b(STL|LDL)\b", code), name
        if name not in ("scan_kernel", "alpha_kernel"):  # these stream the vectors
            assert registers <= gpu_triton.BACKWARD_REGISTERS, name
            assert re.search(r"LDG\.E[.\w]*\.128", code), name
