"""Which layers of a language model hold most of its weights, and how these are stored.

Layers are found by type and place, not by name, so that a fused `query_key_value` is found as well
as separate projections. The output layer is left out: it belongs to the vocabulary.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel


def inner_layers(
    model: PreTrainedModel, kinds: tuple[type[nn.Module], ...], names: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """Return the layers of these kinds by their full names, without the output layer.

    Args:
        model: a causal language model.
        kinds: types of layers.
        names: last parts of full names, such as "q_proj"; empty for all.

    Raises:
        ValueError: the model has no such layer, or none of one of the names.
    """
    output = model.get_output_embeddings()
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module is not output
    }
    last_parts = {name.rpartition(".")[2] for name in found}
    subject = f"the inner layers of {type(model).__name__}"
    if not found:
        raise ValueError(f"no {' or '.join(kind.__name__ for kind in kinds)} among {subject}")
    if missing := sorted(set(names) - last_parts):
        raise ValueError(
            f"targets has {', '.join(missing)}, which is not among {subject}; "
            f"allowed: {', '.join(sorted(last_parts))}"
        )
    return {
        name: module
        for name, module in found.items()
        if not names or name.rpartition(".")[2] in names
    }


def is_quantised(model: nn.Module) -> bool:
    """Tell whether a parameter is stored in parts, as int8 and scale are."""
    return any(len(stored_parts(parameter)) > 1 for parameter in model.parameters())


def stored_parts(tensor: Tensor) -> list[Tensor]:
    """Return the tensors that a tensor is stored as: itself, unless it wraps others."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [getattr(tensor, name) for name in names]
