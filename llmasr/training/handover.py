"""What one stage trained, handed over to the next: only those weights, read back strictly.

A stage of X-LLM trains a small part of its model, 0.12 % in the last one. The rest is where it came
from, so that is all there is to keep. Knows no stages: what is trained is what requires a gradient;
see `llmasr.training.stages`. Whole models are `llmasr.models.checkpoint`'s.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


def save_trained(model: nn.Module, path: Path) -> None:
    """Write the parameters that require a gradient, in their dtype, to a safetensors file.

    Raises:
        ValueError: there are none.
    """
    trained = _trained(model)
    if not trained:
        raise ValueError("model has no parameter that requires a gradient; allowed: one or more")
    save_file({name: each.detach().cpu().contiguous() for name, each in trained.items()}, path)


@torch.no_grad()
def load_trained(model: nn.Module, path: Path) -> None:
    """Read what `save_trained` wrote; nothing changes unless the whole file fits.

    Args:
        model: with the same parameters requiring a gradient as when the file was written, so after
            `train_stage` with the stage that the file is from.
        path: of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or names or shapes of its weights are others than the model's.
    """
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged: {error}") from error
    trained = _trained(model)
    problems = {
        "missing": trained.keys() - weights.keys(),
        "unexpected": weights.keys() - trained.keys(),
        "of another shape": {
            name
            for name in trained.keys() & weights.keys()
            if trained[name].shape != weights[name].shape
        },
    }
    told = [
        f"{problem}: {', '.join(sorted(names))}" for problem, names in problems.items() if names
    ]
    if told:
        raise ValueError(f"{path}: weights {'; '.join(told)}; allowed: those that are trained now")
    for name, parameter in trained.items():
        parameter.copy_(weights[name])


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}
