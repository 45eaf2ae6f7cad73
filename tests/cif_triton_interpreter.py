"""Runs the Triton back-end of CIF on CPU tensors, in any process, whoever has imported Triton.

Triton decides at the decoration of a kernel whether it is compiled or interpreted. Here fresh
copies of our modules are decorated for the interpreter, and Triton itself is put back after each
call, so that the same process may compile other kernels before and after.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import triton
import triton.experimental.gluon  # else Triton imports it inside a patched call, and fails
import triton.language as tl
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction

PACKAGE = "llmasr.ops.cif"
KERNELS = ("rows", "forward", "backward", "weigh")
# What the interpreter replaces inside Triton, in part for good.
BUILDER = interpreter.interpreter_builder
PATCHED = (
    tl, tl.core, tl.standard, tl.math, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base, BUILDER,
)  # fmt: skip


class Helper:
    """A function of a kernel without the interpreter's set-up, which takes milliseconds a call."""

    def __init__(self, function: Any):
        self.fn = function.fn  # what reductions look for
        self.body = function.rewrite()

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.body(*arguments, **options)


@cache
def load_interpreted() -> SimpleNamespace:
    """Return `forward`, `backward`, `weigh` and `weigh_backward` of the back-end for CPU tensors.

    Tiles are small, so that short rows and narrow vectors need several.
    """
    names = [f"{PACKAGE}.gpu_triton{suffix}" for suffix in ("", *(f"_{k}" for k in KERNELS))]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    package = importlib.import_module(PACKAGE)
    attributes = dict(vars(package))
    try:
        with triton.knobs.runtime.scope():
            triton.knobs.runtime.interpret = True
            host, *kernels = [importlib.import_module(name) for name in names]
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(kept)
        _put_back(package, attributes)
    for module in kernels:
        _inline_helpers(module)
    by_name: dict[str, ModuleType] = dict(zip(KERNELS, kernels, strict=True))
    host._kernels = by_name.__getitem__
    host.SCAN_TILE, host.FIRE_FRAMES, host.BACKWARD_FRAMES = 16, 3, 4
    host.WEIGH_FRAMES, host.WEIGH_CHUNK, host.BACKWARD_BLOCK, host.VECTOR = 4, 8, 32, 1
    functions = ("forward", "backward", "weigh", "weigh_backward")
    return SimpleNamespace(**{name: _interpreted(getattr(host, name)) for name in functions})


def _interpreted(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any) -> Any:
        with _interpreting(), np.errstate(over="ignore", invalid="ignore"):
            return function(*arguments)

    return call


@contextmanager
def _interpreting() -> Iterator[None]:
    """Let Triton's own functions, such as `tl.sum`, be interpreted too."""
    helpers = _standard_helpers()
    before = [dict(vars(owner)) for owner in PATCHED]
    try:
        for owner, name, helper in helpers:
            setattr(owner, name, helper)
        interpreter._patch_lang(tl.standard.sum.fn)
        BUILDER.create_fp_trunc, BUILDER.create_fma = _round, _multiply_add
        yield
    finally:
        for owner, attributes in zip(PATCHED, before, strict=True):
            _put_back(owner, attributes)


def _round(source: Any, kind: Any) -> Any:
    """Round to bfloat16 as a GPU does; the interpreter cuts the lower bits off."""
    if kind.scalar != tl.bfloat16:
        return BUILDER.cast_impl(source, kind)
    rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16()
    return interpreter.TensorHandle(rounded.view(torch.uint16).numpy(), tl.bfloat16)


def _multiply_add(x: Any, y: Any, z: Any) -> Any:
    """Round once, as a GPU does; the interpreter rounds the product too."""
    total = x.data.astype(np.float64) * y.data + z.data
    return interpreter.TensorHandle(total.astype(z.data.dtype), z.dtype.scalar)


@cache
def _standard_helpers() -> list[tuple[Any, str, Helper]]:
    return [
        (owner, name, Helper(interpreter.InterpretedFunction(value.fn)))
        for owner in (tl, tl.standard)
        for name, value in list(vars(owner).items())
        if isinstance(value, JITFunction | interpreter.InterpretedFunction)
    ]


def _inline_helpers(module: ModuleType) -> None:
    """Replace constants, and the functions that kernels call; not the kernels, we launch those."""
    for name, value in list(vars(module).items()):
        if isinstance(value, tl.constexpr):
            setattr(module, name, value.value)
        elif isinstance(value, interpreter.InterpretedFunction) and not name.endswith("_kernel"):
            setattr(module, name, Helper(value))


def _put_back(owner: Any, attributes: dict[str, Any]) -> None:
    for name in set(vars(owner)) - set(attributes):
        delattr(owner, name)
    for name, value in attributes.items():
        if vars(owner).get(name) is not value:
            setattr(owner, name, value)
