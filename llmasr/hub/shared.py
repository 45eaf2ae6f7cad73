"""Weights that several interfaces share have one name in a state dict, as in our own model files.

So they are stored once, and a file that holds them twice, or not at all, does not fit.
"""

from typing import Any

from torch import nn


def name_shared_weights_once(model: nn.Module, part: str) -> None:
    """Let the state dicts that ``model`` gives and takes name shared weights of ``part`` once.

    Args:
        model: has the part, now or later.
        part: name of a module in it.
    """

    def leave_out(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for other in _other_names(model.get_submodule(part)):
            state.pop(f"{prefix}{part}.{other}", None)

    def put_back(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for other, name in _other_names(model.get_submodule(part)).items():
            if f"{prefix}{part}.{name}" in state:
                state.setdefault(f"{prefix}{part}.{other}", state[f"{prefix}{part}.{name}"])

    model.register_state_dict_post_hook(leave_out)
    model.register_load_state_dict_pre_hook(put_back)


def _other_names(module: nn.Module) -> dict[str, str]:
    """Return, for every name of a parameter but its first, the first."""
    first: dict[int, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    names = {name: first.setdefault(id(value), name) for name, value in named}
    return {name: known for name, known in names.items() if name != known}
