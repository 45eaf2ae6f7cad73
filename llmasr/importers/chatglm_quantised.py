"""The int4 and int8 layouts of ChatGLM checkpoints, turned back into plain weights.

Linear layers hold `weight` in int8 and one `weight_scale` per row; a weight is their product. Two
int4 columns share a byte: the even one is the high half, the odd one the low half, both signed.

Letters: O outputs, I inputs.
"""

import torch
from torch import Tensor

SCALE = "_scale"
ACCEPTED_BITS = (4, 8)


def dequantise(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return integers times scales, exact in float32.

    Args:
        weight: int8, [O, I] for 8 bits, [O, I / 2] for 4.
        scale: [O], floating point.
        bits: 4 or 8.

    Returns:
        [O, I] float32.
    """
    if bits == 4:
        low = torch.bitwise_left_shift(weight, 4) >> 4  # through the sign bit and back
        weight = torch.stack((weight >> 4, low), dim=-1).flatten(1)  # [O, I]
    return weight.float() * scale.float()[:, None]


def dequantise_all(weights: dict[str, Tensor], bits: int, dtype: torch.dtype) -> None:
    """Replace, in place, each quantised weight and its scale by one plain weight of ``dtype``.

    Raises:
        ValueError: ``bits`` and what is stored disagree, or a weight does not fit its scale.
    """
    scaled = sorted(name.removesuffix(SCALE) for name in weights if name.endswith(f"weight{SCALE}"))
    if bits and not scaled:
        raise ValueError(f"quantization_bit is {bits}, but no weight has a weight_scale")
    if scaled and bits not in ACCEPTED_BITS:
        raise ValueError(f"{scaled[0]} is quantised; quantization_bit is {bits}, 4 or 8 are needed")
    for name in scaled:
        scale = weights.pop(name + SCALE)
        _check_pair(name, weights.get(name), scale)
        weights[name] = dequantise(weights[name], scale, bits).to(dtype)


def _check_pair(name: str, weight: Tensor | None, scale: Tensor) -> None:
    if weight is None:
        raise ValueError(f"{name} is missing; only its scale is there")
    if weight.dtype != torch.int8 or weight.ndim != 2:
        raise ValueError(f"{name} is {weight.dtype} {list(weight.shape)}; int8 with rows is needed")
    if not scale.is_floating_point() or scale.shape != weight.shape[:1]:
        raise ValueError(
            f"{name}{SCALE} is {scale.dtype} {list(scale.shape)}; "
            f"one floating-point scale for each of {weight.shape[0]} rows is needed"
        )
