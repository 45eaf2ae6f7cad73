"""The CUDA back-end without a GPU: its kernels compiled by g++, its grids and buffers as they are.

Every buffer ends at a page that must not be touched and begins behind bytes that must not change,
and holds NaN or -1 before it is written.
"""

import ctypes
import mmap
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmasr.ops.cif import gpu_cuda

HEADER = Path(__file__).with_name("cuda_emulator.h")
FLAGS = (
    "-std=c++17", "-O1", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE", "-w",
)  # fmt: skip
ALLOCATORS = {
    torch.ops.aten.empty.memory_format,
    torch.ops.aten.empty_like.default,
    torch.ops.aten.new_empty.default,
    torch.ops.aten.new_zeros.default,
    torch.ops.aten.zeros.default,
}
ZEROED = {torch.ops.aten.new_zeros.default, torch.ops.aten.zeros.default}
MARGIN = 0xA5


def missing() -> str | None:
    return None if shutil.which("g++") else "no g++, which compiles the kernels for the emulator"


class Margin(NamedTuple):
    region: mmap.mmap
    begin: int
    end: int


class GuardedMemory(TorchDispatchMode):
    """Within it, new tensors lie in guarded memory."""

    def __init__(self):
        super().__init__()
        self.margins = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func not in ALLOCATORS or not result.numel():
            return result
        guarded = self.allocate(result.shape, result.dtype)
        return guarded.zero_() if func in ZEROED else guarded

    def allocate(self, shape, dtype):
        size = shape.numel() * dtype.itemsize
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        region = mmap.mmap(-1, room + 2 * mmap.PAGESIZE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(region))
        for page in (address, address + mmap.PAGESIZE + room):
            assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), mmap.PAGESIZE, 0) == 0
        # Aligned as the allocator of a GPU aligns, as far as 128-bit loads care.
        begin = mmap.PAGESIZE + (room - size) // 16 * 16
        region[mmap.PAGESIZE : mmap.PAGESIZE + room] = bytes([MARGIN]) * room
        region[begin : begin + size] = b"\xff" * size
        self.margins += [
            Margin(region, mmap.PAGESIZE, begin),
            Margin(region, begin + size, mmap.PAGESIZE + room),
        ]
        return torch.frombuffer(region, dtype=dtype, count=shape.numel(), offset=begin).view(shape)

    def copy(self, tensor):
        if tensor is None or not tensor.numel():
            return tensor
        return self.allocate(tensor.shape, tensor.dtype).copy_(tensor)

    def check(self):
        for region, begin, end in self.margins:
            assert set(region[begin:end]) <= {MARGIN}, "a kernel wrote outside a buffer"


class Emulator:
    """The functions of ``llmasr.ops.cif.backend.Backend`` on CPU tensors."""

    def __init__(self, folder, *, reverse=False, processors=2):
        self.folder, self.reverse = Path(folder), reverse
        self.kernels = gpu_cuda.KernelBackend(self._run, lambda device: processors)
        self.launches = []

    def forward(self, batch, prefix, rule, width):
        with GuardedMemory() as memory:
            batch = type(batch)(*map(memory.copy, batch))
            result = self.kernels.forward(batch, memory.copy(prefix), rule, width)
        return self._checked(memory, result)

    def backward(self, d_tokens, d_quantity, batch, fired, rule, wanted):
        with GuardedMemory() as memory:
            batch = type(batch)(*map(memory.copy, batch))
            fired = type(fired)(*map(memory.copy, fired))
            gradients = (memory.copy(d_tokens), memory.copy(d_quantity))
            result = self.kernels.backward(*gradients, batch, fired, rule, wanted)
        return self._checked(memory, result)

    def weigh(self, features, weight, bias, lengths, rule):
        with GuardedMemory() as memory:
            inputs = map(memory.copy, (features, weight, bias, lengths))
            result = self.kernels.weigh(*inputs, rule)
        return self._checked(memory, result)

    def weigh_backward(self, d_alpha, alpha, features, weight, lengths):
        with GuardedMemory() as memory:
            inputs = map(memory.copy, (d_alpha, alpha, features, weight, lengths))
            result = self.kernels.weigh_backward(*inputs)
        return self._checked(memory, result)

    def _checked(self, memory, result):
        memory.check()
        for tickets in self.kernels._tickets.values():
            assert not tickets.any(), "a counter was not reset"
        return result

    def _run(self, job):
        self.launches.append(job)
        grid = (ctypes.c_uint * 3)(*job.grid, job.threads)
        function = getattr(compiled(self.folder, job.dtype, job.vector), f"run_{job.kernel}")
        function.restype = ctypes.c_char_p
        problem = function(ctypes.byref(job.parameters), grid, ctypes.c_int(self.reverse))
        if problem:
            raise RuntimeError(f"{job.kernel}: {problem.decode()}")


def compiled(folder, dtype, vector):
    """Return the kernels as a library, compiled at the first call."""
    path = folder / f"cif_{gpu_cuda.ELEMENTS[dtype]}_{vector}.so"
    if not path.exists():
        source = path.with_suffix(".cpp")
        source.write_text(_source(), encoding="utf-8")
        options = (*FLAGS, *gpu_cuda.defines(dtype, vector))
        subprocess.run(["g++", *options, str(source), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


def _source():
    entries = "".join(
        f'extern "C" const char* run_{kernel}(const {structure}* p, const unsigned* grid, int back)'
        f" {{ return emulator::run([=] {{ {kernel}(*p); }}, grid[0], grid[1], grid[2], back); }}\n"
        for kernel in gpu_cuda.SOURCES
        for structure in ["Linear" if "weigh" in kernel else "Task"]
    )
    sizes = "".join(
        f"static_assert(sizeof({name}) == {ctypes.sizeof(getattr(gpu_cuda, name))});\n"
        for name in ("Task", "Linear")
    )
    files = (HEADER, *(gpu_cuda.FOLDER / name for name in sorted(set(gpu_cuda.SOURCES.values()))))
    return "".join(f'#include "{file}"\n' for file in files) + sizes + entries
