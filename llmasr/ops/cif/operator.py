"""The PyTorch operators behind `cif`: one name for every fused back-end.

`llmasr::cif_fire` and `llmasr::cif_weigh` have shapes for tracing (fake) and gradients, so that
`torch.compile(fullgraph=True)`, `torch.export` and autograd see them as they see any other
operator. Under autocast they take their inputs as they are: sums are float32 in any case.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from llmasr.ops.cif.backend import Backend, Batch, Fired, Rule

MODULES = {"numba": "cpu", "cuda": "gpu_cuda", "triton": "gpu_triton"}

LIBRARY = torch.library.Library("llmasr", "DEF")
Function = Callable[..., Any]
IMPLEMENTATIONS: dict[str, Function] = {}
_RULE = "float threshold, str tail, float tail_threshold, str backend"
_ROWS = "Tensor lengths, Tensor? starts, Tensor? targets"
_FIRED = ", ".join(f"Tensor {field}" for field in Fired._fields)


@cache
def load(name: str) -> Backend:
    """Return the module of a fused back-end."""
    module: Any = import_module(f"llmasr.ops.cif.{MODULES[name]}")
    return module


def fire(
    batch: Batch, prefix: Tensor | None, rule: Rule, width: int, backend: str
) -> tuple[Tensor, ...]:
    """Run `llmasr::cif_fire`; returns the fields of :class:`llmasr.ops.cif.backend.Fired`.

    A plain eager call goes past the dispatcher, which has nothing to add then and takes as long as
    a short utterance does.
    """
    eager = is_eager(batch.hidden)
    if eager and not _needs_gradient(batch[:2]):
        return load(backend).forward(batch, prefix, rule, width)
    arguments = (*batch, prefix, width, *rule, backend)
    fields: tuple[Tensor, ...] = (
        _Fire.apply(*arguments) if eager else torch.ops.llmasr.cif_fire.default(*arguments)
    )
    return fields


def weigh(
    features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, rule: Rule, backend: str
) -> tuple[Tensor, Tensor]:
    """Run `llmasr::cif_weigh`: the weights of frames and their running sum."""
    eager = is_eager(features)
    if eager and not _needs_gradient((features, weight, bias)):
        return load(backend).weigh(features, weight, bias, lengths, rule)
    arguments = (features, weight, bias, lengths, rule.threshold, backend)
    alpha, prefix = (
        _Weigh.apply(*arguments) if eager else torch.ops.llmasr.cif_weigh.default(*arguments)
    )
    return alpha, prefix


def _needs_gradient(tensors: tuple[Tensor | None, ...]) -> bool:
    if not torch.is_grad_enabled():
        return False
    return True in [tensor is not None and tensor.requires_grad for tensor in tensors]


def is_eager(tensor: Tensor) -> bool:
    """Tell whether nobody watches: no compiler, no tracer, no dispatch mode, no tensor subclass."""
    return (
        not torch.compiler.is_compiling()
        and type(tensor) in (Tensor, torch.nn.Parameter)
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._get_tracing_state() is None
    )


def _below_autograd(name: str, arguments: tuple[Any, ...]) -> Any:
    if is_eager(arguments[0]):
        return IMPLEMENTATIONS[name](*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return getattr(torch.ops.llmasr, name).default(*arguments)


def _operator(name: str, schema: str) -> Callable[[Function], Function]:
    LIBRARY.define(f"{name}{schema}", tags=(torch.Tag.pt2_compliant_tag,))

    def register(function: Function) -> Function:
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        IMPLEMENTATIONS[name] = function
        return function

    return register


@_operator(
    "cif_fire",
    f"(Tensor hidden, Tensor alpha, {_ROWS}, Tensor? prefix, SymInt width, {_RULE})"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _fire(
    hidden: Tensor, alpha: Tensor, lengths: Tensor, starts: Tensor | None, targets: Tensor | None,
    prefix: Tensor | None, width: int, threshold: float, tail: Any, tail_threshold: float,
    backend: str,
) -> Fired:  # fmt: skip
    batch = Batch(hidden, alpha, lengths, starts, targets)
    rule = Rule(threshold, tail, tail_threshold)
    fired = load(backend).forward(batch, prefix, rule, width)
    # An operator may not return what it was given.
    return fired if prefix is None else fired._replace(prefix=prefix.new_empty(0))


@torch.library.register_fake("llmasr::cif_fire", lib=LIBRARY)
def _fire_shapes(
    hidden: Tensor, alpha: Tensor, lengths: Tensor, starts: Tensor | None, targets: Tensor | None,
    prefix: Tensor | None, width: int, threshold: float, tail: str, tail_threshold: float,
    backend: str,
) -> tuple[Tensor, ...]:  # fmt: skip
    del targets, threshold, tail, tail_threshold, backend
    unknown = starts is not None or width < 0
    most: Any = torch.library.get_ctx().new_dynamic_size() if unknown else width
    places = (most,) if starts is not None else (len(lengths), most)
    return (
        hidden.new_empty((*places, hidden.shape[-1])),
        torch.empty_like(lengths),
        hidden.new_empty(lengths.shape, dtype=torch.float32),
        lengths.new_empty(places),
        hidden.new_empty(places, dtype=torch.float32),
        lengths.new_empty(alpha.shape if prefix is None else 0),
    )


@_operator(
    "cif_fire_backward",
    f"(Tensor d_tokens, Tensor d_quantity, Tensor hidden, Tensor alpha, {_ROWS}, {_FIRED}, {_RULE},"
    " bool wants_hidden, bool wants_alpha) -> (Tensor, Tensor)",
)
def _fire_backward(
    d_tokens: Tensor, d_quantity: Tensor, hidden: Tensor, alpha: Tensor, lengths: Tensor,
    starts: Tensor | None, targets: Tensor | None, tokens: Tensor, token_lengths: Tensor,
    quantity: Tensor, fire_frames: Tensor, fire_times: Tensor, prefix: Tensor, threshold: float,
    tail: Any, tail_threshold: float, backend: str, wants_hidden: bool, wants_alpha: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    batch = Batch(hidden, alpha, lengths, starts, targets)
    fired = Fired(tokens, token_lengths, quantity, fire_frames, fire_times, prefix)
    d_hidden, d_alpha = load(backend).backward(
        d_tokens.contiguous(), d_quantity.contiguous(), batch, fired,
        Rule(threshold, tail, tail_threshold), (wants_hidden, wants_alpha),
    )  # fmt: skip
    return (
        hidden.new_empty(0) if d_hidden is None else d_hidden,
        alpha.new_empty(0) if d_alpha is None else d_alpha,
    )


@torch.library.register_fake("llmasr::cif_fire_backward", lib=LIBRARY)
def _fire_backward_shapes(
    d_tokens: Tensor, d_quantity: Tensor, hidden: Tensor, alpha: Tensor, *others: Any
) -> tuple[Tensor, Tensor]:
    del d_tokens, d_quantity
    wants_hidden, wants_alpha = others[-2:]
    return (
        hidden.new_empty(hidden.shape if wants_hidden else 0),
        alpha.new_empty(alpha.shape if wants_alpha else 0),
    )


class _Fire(torch.autograd.Function):
    """Gradients of `cif_fire`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        hidden, alpha, lengths, starts, targets, prefix, _, *rule = inputs
        output = _below_autograd("cif_fire", inputs)
        tokens, token_lengths, quantity, frames, times, sums = output
        ctx.mark_non_differentiable(token_lengths, frames, times, sums)
        fired = (tokens, token_lengths, quantity, frames, times, sums if prefix is None else prefix)
        ctx.save_for_backward(hidden, alpha, lengths, starts, targets, *fired)
        ctx.rule = rule
        return tuple(output)

    @staticmethod
    def backward(ctx: Any, d_tokens: Tensor, _: Any, d_quantity: Tensor, *__: Any) -> Any:
        saved, wanted = ctx.saved_tensors, ctx.needs_input_grad[:2]
        arguments = (d_tokens, d_quantity, *saved, *ctx.rule, *wanted)
        d_hidden, d_alpha = _below_autograd("cif_fire_backward", arguments)
        gradients = (d_hidden if wanted[0] else None, d_alpha if wanted[1] else None)
        return *gradients, *[None] * (5 + len(ctx.rule))


def _differentiate(function: Any, name: str, inputs: int) -> None:
    """Register the gradients of an operator, of which the first ``inputs`` are differentiable."""

    def run(*arguments: Any) -> Any:
        if _needs_gradient(arguments[:inputs]):
            return function.apply(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return getattr(torch.ops.llmasr, name).default(*arguments)

    LIBRARY.impl(name, run, "Autograd")


_differentiate(_Fire, "cif_fire", 2)


@_operator(
    "cif_weigh",
    "(Tensor features, Tensor weight, Tensor bias, Tensor lengths, float threshold, str backend)"
    " -> (Tensor, Tensor)",
)
def _weigh(
    features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, threshold: float, backend: str
) -> tuple[Tensor, Tensor]:
    rule = Rule(threshold, "drop", 0.0)
    return load(backend).weigh(features, weight, bias, lengths, rule)


@torch.library.register_fake("llmasr::cif_weigh", lib=LIBRARY)
def _weigh_shapes(
    features: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor, threshold: float, backend: str
) -> tuple[Tensor, Tensor]:
    del weight, bias, threshold, backend
    shape = features.shape[:2]
    return features.new_empty(shape, dtype=torch.float32), lengths.new_empty(shape)


@_operator(
    "cif_weigh_backward",
    "(Tensor d_alpha, Tensor alpha, Tensor features, Tensor weight, Tensor lengths, str backend)"
    " -> (Tensor, Tensor, Tensor)",
)
def _weigh_backward(
    d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    return load(backend).weigh_backward(d_alpha.contiguous(), alpha, features, weight, lengths)


@torch.library.register_fake("llmasr::cif_weigh_backward", lib=LIBRARY)
def _weigh_backward_shapes(
    d_alpha: Tensor, alpha: Tensor, features: Tensor, weight: Tensor, lengths: Tensor, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    del d_alpha, lengths, backend
    d_weight = weight.new_empty(weight.shape, dtype=torch.float32)
    return torch.empty_like(features), d_weight, alpha.new_empty(1)


class _Weigh(torch.autograd.Function):
    """Gradients of `cif_weigh`."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        features, weight, bias, lengths, _, backend = inputs
        alpha, prefix = _below_autograd("cif_weigh", inputs)
        ctx.mark_non_differentiable(prefix)
        ctx.save_for_backward(alpha, features, weight, lengths)
        ctx.bias_type, ctx.backend = bias.dtype, backend
        return alpha, prefix

    @staticmethod
    def backward(ctx: Any, d_alpha: Tensor, _: Any) -> Any:
        alpha, features, weight, lengths = ctx.saved_tensors
        arguments = (d_alpha, alpha, features, weight, lengths, ctx.backend)
        d_features, d_weight, d_bias = _below_autograd("cif_weigh_backward", arguments)
        return d_features, d_weight.to(weight.dtype), d_bias.to(ctx.bias_type), None, None, None


_differentiate(_Weigh, "cif_weigh", 3)
