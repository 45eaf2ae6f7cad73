"""LoRA (arXiv 2106.09685) on the language model of an X-LLM, through PEFT.

Adapters live inside the language model, whose layers keep their names and weights under them. A
model folder keeps them in `lora/`, in the format of PEFT, beside a language model without them; so
PEFT itself can put them on that language model, and adapters that PEFT has trained can be put here.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from llmasr.models.language.layers import inner_layers, is_quantised
from llmasr.models.xllm import XLLM

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
INSTALL = 'pip install "llmasr[lora]"'
# PEFT writes the names of weights as they are called inside its own wrapper.
PREFIX = "base_model.model."
# Adapters that train more than updates of layers would leave something behind when taken out.
ALLOWED = {"peft_type": "LORA", "modules_to_save": None, "bias": "none"}


def add_lora(
    model: XLLM,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
) -> dict[str, nn.Parameter]:
    """Add adapters, which change nothing at first, and freeze the rest of the language model.

    What is trainable outside the language model stays so.

    Args:
        model: an X-LLM whose language model has no adapters.
        rank: of the update of each layer's weight.
        alpha: the update is scaled by ``alpha / rank``.
        dropout: share of the inputs that adapters do not see in training.
        targets: last parts of names of layers, such as "q_proj" or "query_key_value"; empty for all
            linear layers of attention and feed-forward.

    Returns:
        The parameters that train, in float32, by their names inside the language model.

    Raises:
        ValueError: a target is not there, the model has adapters already, or a number is wrong.
        ImportError: PEFT is not installed.
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; allowed: 1 and above")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is {dropout}; allowed: from 0 to below 1")
    language_model = model.language_model
    _refuse_adapters(language_model)
    layers = inner_layers(language_model, (nn.Linear, Conv1D), targets)
    _inject(
        language_model,
        _peft().LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=list(layers),
            fan_in_fan_out=all(isinstance(layer, Conv1D) for layer in layers.values()),
            task_type="CAUSAL_LM",
        ),
    )
    return {name: p for name, p in language_model.named_parameters() if p.requires_grad}


def has_lora(model: XLLM) -> bool:
    """Tell whether the language model has adapters, merged or not."""
    return bool(_adapted(model.language_model))


def merge(model: XLLM) -> None:
    """Add the adapters to the weights, so that they cost no time; :func:`unmerge` takes them back.

    A copy of the weights waits in CPU memory; :func:`merge_and_unload` does without.

    Raises:
        ValueError: there are no adapters, they are merged, or the weights under them are int8.
    """
    layers = _require_adapters(model.language_model, is_merged=False)
    _refuse_quantised(model.language_model)
    for layer in layers.values():
        weight = layer.get_base_layer().weight
        layer.unmerged_weight = weight.detach().to("cpu", copy=True)
        layer.merge()


def unmerge(model: XLLM) -> None:
    """Undo :func:`merge`; the weights are what they were, to the bit.

    Raises:
        ValueError: there are no adapters, or they are not merged.
    """
    layers = _require_adapters(model.language_model, is_merged=True)
    for layer in layers.values():
        layer.unmerge()
        with torch.no_grad():
            layer.get_base_layer().weight.copy_(layer.unmerged_weight)
        del layer.unmerged_weight


def merge_and_unload(model: XLLM) -> None:
    """Add the adapters to the weights for good; what remains is a language model without adapters.

    Raises:
        ValueError: there are no adapters, or the weights under them are int8.
    """
    language_model = model.language_model
    _refuse_quantised(language_model)
    for name, layer in _require_adapters(language_model).items():
        if not layer.merged:
            layer.merge()
        language_model.set_submodule(name, layer.get_base_layer())
    del language_model.peft_config


@contextmanager
def without_lora(model: XLLM) -> Iterator[None]:
    """Take adapters, if there are any, out of the language model for a while."""
    language_model = model.language_model
    layers = _adapted(language_model)
    is_merged = any(layer.merged for layer in layers.values())
    if is_merged:
        unmerge(model)
    try:
        for name, layer in layers.items():
            language_model.set_submodule(name, layer.get_base_layer())
        yield
    finally:
        for name, layer in layers.items():
            language_model.set_submodule(name, layer)
        if is_merged:
            merge(model)


def save_lora(model: XLLM, folder: Path) -> None:
    """Write the adapters to ``folder``, made if missing, in the dtype they have.

    Raises:
        ValueError: there are no adapters.
    """
    language_model = model.language_model
    _require_adapters(language_model)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        PREFIX + name: value.detach().cpu().contiguous()
        for name, value in _weights(language_model).items()
    }
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    language_model.peft_config["default"].save_pretrained(folder)


def load_lora(model: XLLM, folder: Path) -> None:
    """Put the adapters of ``folder`` on the language model; they are trainable, the rest is not.

    Args:
        model: an X-LLM whose language model has no adapters.
        folder: written by :func:`save_lora`, or by PEFT for the same language model.

    Raises:
        FileNotFoundError: a file of the folder is missing.
        ValueError: adapters of another kind, or weights that do not fit the language model.
        ImportError: PEFT is not installed.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name}: missing; a folder of adapters needs it")
    language_model = model.language_model
    _refuse_adapters(language_model)
    config = _read_config(folder / CONFIG_FILE)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE}: damaged: {error}") from error
    try:
        _inject(language_model, config)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{folder / CONFIG_FILE}: does not fit {type(language_model).__name__}: {error}"
        ) from error
    weights = {name.removeprefix(PREFIX): value for name, value in weights.items()}
    _check_fit(folder / WEIGHTS_FILE, weights, _weights(language_model))
    _peft().set_peft_model_state_dict(language_model, weights)


def are_adapters_in(folder: Path) -> bool:
    """Tell whether a folder holds adapters, or a part of them."""
    return any((folder / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE))


def remove_lora(folder: Path) -> None:
    """Delete the adapters of ``folder``, if there are any."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (folder / name).unlink(missing_ok=True)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError(f"LoRA needs PEFT: {INSTALL}") from error
    return peft


def _inject(language_model: PreTrainedModel, config: Any) -> None:
    """Put adapters into the layers, in place, float32 and in the mode of the language model."""
    _peft().inject_adapter_in_model(config, language_model)
    for parameter in language_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    language_model.train(language_model.training)


def _read_config(path: Path) -> Any:
    try:
        stated = dict(json.loads(path.read_text(encoding="utf-8")))
        for name, allowed in ALLOWED.items():
            if stated.get(name, allowed) != allowed:
                raise ValueError(f"{name} is {stated[name]!r}; allowed: {allowed!r}")
        config = _peft().LoraConfig.from_pretrained(path.parent)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    config.inference_mode = False
    return config


def _weights(language_model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the weights of the adapters by the names they have in files, without the prefix."""
    weights: dict[str, Tensor] = _peft().get_peft_model_state_dict(
        language_model, save_embedding_layers=False
    )
    return weights


def _check_fit(path: Path, actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for problem, names in (
        ("missing", expected.keys() - actual.keys()),
        ("unexpected", actual.keys() - expected.keys()),
    ):
        if names:
            raise ValueError(f"{path}: {problem} weights: {', '.join(sorted(names)[:5])}")
    for name, value in actual.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{path}: {name} is {list(value.shape)}; the language model asks for "
                f"{list(expected[name].shape)}"
            )


def _adapted(language_model: PreTrainedModel) -> dict[str, Any]:
    """Return the layers with adapters by name; PEFT is not imported where there are none."""
    if not hasattr(language_model, "peft_config"):
        return {}
    from peft.tuners.lora import LoraLayer

    return {
        name: module
        for name, module in language_model.named_modules()
        if isinstance(module, LoraLayer)
    }


def _require_adapters(
    language_model: PreTrainedModel, is_merged: bool | None = None
) -> dict[str, Any]:
    layers = _adapted(language_model)
    if not layers:
        raise ValueError("the language model has no adapters; allowed: after add_lora or load_lora")
    if is_merged is not None and any(layer.merged != is_merged for layer in layers.values()):
        raise ValueError(f"the adapters are {'not merged' if is_merged else 'merged already'}")
    return layers


def _refuse_adapters(language_model: PreTrainedModel) -> None:
    if _adapted(language_model):
        raise ValueError("the language model has adapters already; merge_and_unload makes room")


def _refuse_quantised(language_model: PreTrainedModel) -> None:
    if is_quantised(language_model):
        raise ValueError(
            "adapters cannot be merged into int8 weights; save_lora, and load_lora on the original"
        )
