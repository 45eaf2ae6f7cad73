"""Int8 weights for the language model, through torchao, on CPU and GPU.

Each row of a weight is stored as int8 with one float32 scale, and is scaled back where it is used:
a quarter of the memory of float32, half of that of bfloat16. Activations stay as they are. It saves
memory, not time: on a CPU the scaling back costs more than the smaller weights save.

Only the linear layers inside the model are quantised. The embedding table is not, since it holds
the vectors that speech stands beside, and the output layer is not, since its error would go
straight into the choice of a token.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from llmasr.models.language.layers import inner_layers, is_quantised, stored_parts
from llmasr.models.language.lora import has_lora, merge_and_unload
from llmasr.models.xllm import XLLM

INSTALL = 'pip install "llmasr[int8]"'


class Comparison(NamedTuple):
    """What int8 weights save, and what they change."""

    num_bytes: int  # of the language model as it is
    num_bytes_int8: int
    largest_logit: float  # absolute, as it is
    largest_deviation: float  # absolute, of any logit

    def __str__(self) -> str:
        """Return one line."""
        return (
            f"{self.num_bytes / 1e6:.1f} MB to {self.num_bytes_int8 / 1e6:.1f} MB; a logit moves "
            f"by at most {self.largest_deviation:.3g}, where the largest is "
            f"{self.largest_logit:.3g}"
        )


def quantise_int8(model: XLLM) -> None:
    """Turn the weights of the language model into int8, in place and for good.

    Adapters are merged first. The weights can then be neither trained nor saved; new adapters on
    top of them can be both, but not merged.

    Args:
        model: in the dtype it will be used in, on any device; it can move afterwards.

    Raises:
        ValueError: the weights are int8 already, or there is no linear layer.
        ImportError: torchao is not installed, or does not fit torch.
    """
    torchao = _torchao()
    if is_quantised(model.language_model):
        raise ValueError("the language model is quantised already")
    if has_lora(model):
        merge_and_unload(model)
    layers = set(inner_layers(model.language_model, (nn.Linear,)).values())
    torchao.quantize_(
        model.language_model,
        # The second argument would change settings of torch.compile for the whole process.
        torchao.Int8WeightOnlyConfig(set_inductor_config=False),
        filter_fn=lambda module, name: module in layers,
    )


@torch.inference_mode()
def compare_int8(model: XLLM, ids: Tensor) -> Comparison:
    """Quantise a copy of the model and compare what both say after ``ids``; change nothing.

    Args:
        model: not quantised.
        ids: [B, L] int64, text of the kind it will read, on its device.
    """
    twin = copy.deepcopy(model)
    quantise_int8(twin)
    before, after = _read(model, ids), _read(twin, ids)  # [B, L, V]
    return Comparison(
        num_bytes=_num_bytes(model.language_model),
        num_bytes_int8=_num_bytes(twin.language_model),
        largest_logit=before.abs().max().item(),
        largest_deviation=(after - before).abs().max().item(),
    )


def _torchao() -> Any:
    try:
        from torchao import quantization
    except ImportError as error:
        raise ImportError(f"int8 weights need torchao ({error}): {INSTALL}") from error
    return quantization


def _read(model: XLLM, ids: Tensor) -> Tensor:
    mask = torch.ones_like(ids, dtype=torch.bool)
    logits, _ = model.reader.read(model.reader.embed(ids), mask, mask.sum(1))
    return logits.float()


def _num_bytes(module: nn.Module) -> int:
    tensors = [*module.parameters(), *module.buffers()]
    return sum(part.nbytes for tensor in tensors for part in stored_parts(tensor))
