"""Back-end ``cuda``: one launch forward, one backward, of kernels in CUDA C++ (``gpu_cuda_*.cu``).

This file chooses grids and buffers; the kernels are compiled at first use, for one dtype, one
number of elements per load and one GPU. No call synchronises, so that CUDA graphs can capture it,
except a forward pass of unknown width, which reads the number of tokens.

Letters: B rows, T frames, U tokens, D width of a frame, E width of a feature, F all frames of a
packed batch, N all tokens of a packed batch.
"""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from llmasr.ops.cif import nvrtc
from llmasr.ops.cif.backend import Batch, Fired, Rule
from llmasr.ops.cif.gpu_cuda_plan import (
    BLOCK,
    BLOCKS_PER_PROCESSOR,
    GROUP,
    SCAN_FIRST,
    SCAN_THREADS,
    Launch,
    Layout,
    Linear,
    Task,
    addresses,
    best_layout,
    columns_for,
    count_blocks,
    describe,
    size_of,
)

WEIGH_CHUNKS = (64, 32)  # frames of a block, with many and with few blocks
MANY_BLOCKS = 8  # for each multiprocessor
SUM_FRAMES = 16  # least frames for which a block leaves a partial sum

ELEMENTS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
FOLDER = Path(__file__).parent
HEADERS = ("gpu_cuda.cuh", "gpu_cuda_rows.cuh")
SOURCES = {
    "cif_scan": "gpu_cuda_forward.cu",
    "cif_forward": "gpu_cuda_forward.cu",
    "cif_backward": "gpu_cuda_backward.cu",
    "cif_weigh": "gpu_cuda_weigh.cu",
    "cif_weigh_backward": "gpu_cuda_weigh.cu",
}


def is_available() -> bool:
    """Say whether the kernels can be compiled; needs no GPU."""
    return missing() is None


def missing() -> str | None:
    """Say what this back-end lacks on this machine, apart from a GPU; None if nothing."""
    return nvrtc.missing()


def compile_kernels(
    source: str, arch: str = "sm_90", dtype: torch.dtype = torch.float32, vector: int | None = None
) -> bytes:
    """Return the machine code of a file of kernels, which must be one of SOURCES; needs no GPU.

    Args:
        source: name of the file.
        arch: "sm_" and the compute capability of the GPU.
        dtype: of the elements.
        vector: elements per load: 16 bytes' worth, or 1.
    """
    options = ("--std=c++17", "--fmad=false", *defines(dtype, vector or 16 // dtype.itemsize))
    headers = {name: (FOLDER / name).read_text(encoding="utf-8") for name in HEADERS}
    return nvrtc.cubin((FOLDER / source).read_text(encoding="utf-8"), options, arch, headers)


def defines(dtype: torch.dtype, vector: int) -> tuple[str, ...]:
    """Return the compiler options that choose the kernels for a dtype and a width of loads."""
    return f"-DELEMENT={ELEMENTS[dtype]}", f"-DVEC={vector}"


class KernelBackend:
    """The operator by kernels that ``run`` launches: on a GPU, or in an emulator of one."""

    def __init__(
        self, run: Callable[[Launch], None], processors: Callable[[torch.device], int]
    ) -> None:
        """Take the launcher and the function that tells a device's number of multiprocessors."""
        self._run = run
        self._processors = processors
        self._tickets: dict[tuple[torch.device, int], Tensor] = {}

    def forward(self, batch: Batch, prefix: Tensor | None, rule: Rule, width: int) -> Fired:
        """Fire tokens; see :class:`llmasr.ops.cif.backend.Backend`."""
        _check_dtype(batch.hidden)
        hidden, rows = batch.hidden, len(batch.lengths)
        packed = batch.starts is not None
        token_lengths = batch.lengths.new_empty(rows)
        quantity = batch.alpha.new_empty(rows)
        sizes = {"token_lengths": token_lengths, "quantity": quantity}
        known = prefix is not None
        prefix = torch.empty_like(batch.alpha, dtype=torch.int64) if prefix is None else prefix
        counts_first = packed or width < 0
        if rows and (counts_first or not (known or batch.alpha.shape[-1] <= SCAN_FIRST)):
            self._scan(batch, rule, prefix, known, sizes)
            known = True
        token_starts = _token_starts(token_lengths) if packed else None
        if counts_first:
            width = int(token_lengths.sum() if packed else token_lengths.max()) if rows else 0
        shape = (width,) if packed else (rows, width)
        fired = Fired(
            hidden.new_empty(*shape, hidden.shape[-1]),
            token_lengths,
            quantity,
            batch.lengths.new_empty(shape),
            batch.alpha.new_empty(shape),
            prefix,
        )
        if rows:
            self._fire(batch, rule, fired, token_starts, known)
        return fired

    def backward(
        self,
        d_tokens: Tensor,
        d_quantity: Tensor,
        batch: Batch,
        fired: Fired,
        rule: Rule,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients; see :class:`llmasr.ops.cif.backend.Backend`."""
        d_hidden = torch.empty_like(batch.hidden) if wanted[0] else None
        d_alpha = torch.empty_like(batch.alpha) if wanted[1] else None
        if not any(wanted) or not batch.alpha.numel():
            return d_hidden, d_alpha
        d_tokens, d_quantity = d_tokens.to(batch.hidden.dtype).contiguous(), d_quantity.contiguous()
        packed = batch.starts is not None
        tokens = {"tokens": fired.tokens, "d_tokens": d_tokens}
        vector = _vector(batch.hidden, d_hidden, *tokens.values())
        layout = self._layout(batch, vector)
        blocks = count_blocks(size_of(batch), layout)
        rows = len(batch.lengths)
        notes = d_quantity.new_empty((batch.alpha.numel() + 2 * blocks,), dtype=torch.float64)
        buffers = {
            **tokens,
            "d_quantity": d_quantity,
            "token_starts": _token_starts(fired.token_lengths) if packed else None,
            "prefix": fired.prefix,
            "d_hidden": d_hidden,
            "d_alpha": d_alpha,
            "values": notes,
            "sums": notes[batch.alpha.numel() :],
            "tickets": self._zero_tickets(rows, batch.alpha.device, is_fresh=packed),
        }
        task = describe(batch, rule, layout, fired.fire_frames.shape[-1], True, buffers)
        self._launch("cif_backward", batch.hidden, vector, (blocks, 1), layout.threads, task)
        return d_hidden, d_alpha

    def weigh(
        self, features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, rule: Rule
    ) -> tuple[Tensor, Tensor]:
        """Return alpha and its prefix; see :class:`llmasr.ops.cif.backend.Backend`."""
        _check_dtype(features)
        rows, frames, width = features.shape
        alpha = features.new_empty((rows, frames), dtype=torch.float32)
        prefix = lengths.new_empty((rows, frames))
        if not alpha.numel():
            return alpha, prefix
        weight, bias = _same_dtype(weight, bias)
        many = MANY_BLOCKS * self._processors(features.device)
        chunk = WEIGH_CHUNKS[rows * -(-frames // WEIGH_CHUNKS[0]) < many]
        chunks = -(-frames // chunk)
        buffers = {
            "features": features,
            "weight": weight,
            "bias": bias,
            "lengths": lengths,
            "alpha": alpha,
            "prefix": prefix,
            "tickets": self._zero_tickets(rows, features.device),
        }
        parameters = Linear(
            rows=rows,
            frames=frames,
            width=width,
            quanta_per_weight=rule.quanta_per_weight,
            weight_type=ELEMENTS[weight.dtype],
            chunk=chunk,
            chunks=chunks,
            **addresses(buffers),
        )
        vector = _vector(features)
        self._launch("cif_weigh", features, vector, (rows * chunks, 1), BLOCK, parameters)
        return alpha, prefix

    def weigh_backward(
        self, d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return three gradients; see :class:`llmasr.ops.cif.backend.Backend`."""
        rows, frames, width = features.shape
        d_features = torch.empty_like(features)
        d_weight, d_bias = alpha.new_zeros(width), alpha.new_zeros(1)
        if not alpha.numel():
            return d_features, d_weight, d_bias
        d_alpha, (weight,) = d_alpha.contiguous(), _same_dtype(weight)
        vector = _vector(features, d_features)
        columns, walkers, _ = columns_for(width, vector)
        most = BLOCKS_PER_PROCESSOR * self._processors(features.device)
        blocks = max(1, min(most, rows * frames // SUM_FRAMES))
        buffers = {
            "features": features,
            "weight": weight,
            "lengths": lengths,
            "alpha": alpha,
            "d_alpha": d_alpha,
            "d_features": d_features,
            "partials": alpha.new_empty(blocks * (width + 1)),
            "d_weight": d_weight,
            "d_bias": d_bias,
            "tickets": self._zero_tickets(1 + -(-blocks // GROUP), features.device),
        }
        parameters = Linear(
            rows=rows,
            frames=frames,
            width=width,
            weight_type=ELEMENTS[weight.dtype],
            columns=columns,
            **addresses(buffers),
        )
        threads = columns * walkers
        self._launch("cif_weigh_backward", features, vector, (blocks, 1), threads, parameters)
        return d_features, d_weight, d_bias

    def _scan(
        self, batch: Batch, rule: Rule, prefix: Tensor, known: bool, sizes: dict[str, Tensor]
    ) -> None:
        """Write the prefix, unless it is known, and the sizes of the rows."""
        vector = _vector(batch.hidden)
        layout = self._layout(batch, vector)
        # Tokens have no place yet, so that none is cut.
        task = describe(batch, rule, layout, 0, known, {"prefix": prefix, **sizes})
        grid = (len(batch.lengths), 1)
        self._launch("cif_scan", batch.hidden, vector, grid, SCAN_THREADS, task)

    def _fire(
        self, batch: Batch, rule: Rule, fired: Fired, token_starts: Tensor | None, known: bool
    ) -> None:
        """Write the tokens and what belongs to them."""
        vector = _vector(batch.hidden, fired.tokens)
        layout = self._layout(batch, vector)
        buffers = {**fired._asdict(), "token_starts": token_starts}
        task = describe(batch, rule, layout, fired.fire_frames.shape[-1], known, buffers)
        grid = (count_blocks(size_of(batch), layout), layout.slices)
        self._launch("cif_forward", batch.hidden, vector, grid, layout.threads, task)

    def _layout(self, batch: Batch, vector: int) -> Layout:
        return best_layout(size_of(batch), vector, self._processors(batch.hidden.device))

    def _zero_tickets(self, count: int, device: torch.device, *, is_fresh: bool = False) -> Tensor:
        """Return counters that are zero; kernels leave them so, and one stream runs in order.

        Fresh ones are for packed rows, which would leave them otherwise if they overlapped, and
        for CUDA graphs, which may be replayed beside other work of this stream.
        """
        on_gpu = device.type == "cuda"
        if is_fresh or (on_gpu and torch.cuda.is_current_stream_capturing()):
            return torch.zeros(count, dtype=torch.int32, device=device)
        stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
        tickets = self._tickets.get((device, stream))
        if tickets is None or len(tickets) < count:
            tickets = torch.zeros(max(count, 1024), dtype=torch.int32, device=device)
            self._tickets[device, stream] = tickets
        return tickets

    def _launch(
        self,
        kernel: str,
        elements: Tensor,
        vector: int,
        grid: tuple[int, int],
        threads: int,
        parameters: Task | Linear,
    ) -> None:
        self._run(
            Launch(kernel, elements.dtype, vector, grid, threads, parameters, elements.device)
        )


def _vector(*tensors: Tensor | None) -> int:
    """Return the elements of a load: 16 bytes' worth if all rows are aligned so, otherwise one."""
    present = [tensor for tensor in tensors if tensor is not None]
    row_bytes = present[0].shape[-1] * present[0].itemsize
    aligned = all(address % 16 == 0 for address in (row_bytes, *(t.data_ptr() for t in present)))
    return 16 // present[0].itemsize if aligned else 1


def _token_starts(token_lengths: Tensor) -> Tensor:
    return token_lengths.cumsum(0) - token_lengths  # [B]


def _same_dtype(*parameters: Tensor) -> tuple[Tensor, ...]:
    """Return parameters of a linear layer contiguous and in one dtype that kernels can read."""
    dtypes = {parameter.dtype for parameter in parameters}
    common = dtypes.pop() if len(dtypes) == 1 and dtypes <= set(ELEMENTS) else torch.float32
    return tuple(parameter.to(common).contiguous() for parameter in parameters)


def _check_dtype(tensor: Tensor) -> None:
    if tensor.dtype not in ELEMENTS:
        allowed = ", ".join(str(dtype).removeprefix("torch.") for dtype in ELEMENTS)
        raise ValueError(f"dtype is {tensor.dtype}; allowed on a GPU: {allowed}")


@functools.cache
def _kernel(kernel: str, dtype: torch.dtype, vector: int, device: int) -> int:
    return _functions(SOURCES[kernel], dtype, vector, device)(kernel)


@functools.cache
def _functions(source: str, dtype: torch.dtype, vector: int, device: int) -> Callable[[str], int]:
    major, minor = torch.cuda.get_device_capability(device)
    return nvrtc.load(compile_kernels(source, f"sm_{major}{minor}", dtype, vector))


def _run_on_gpu(job: Launch) -> None:
    with torch.cuda.device(job.device):
        function = _kernel(job.kernel, job.dtype, job.vector, torch.cuda.current_device())
        nvrtc.launch(function, job.grid, job.threads, job.parameters)


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


_gpu = KernelBackend(_run_on_gpu, _processors)
forward = _gpu.forward
backward = _gpu.backward
weigh = _gpu.weigh
weigh_backward = _gpu.weigh_backward
