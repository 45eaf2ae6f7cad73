"""`with_vision`: a model that gets interfaces for pictures and videos beside those it has."""

from dataclasses import replace

import torch

from llmasr.config import ModelConfig, PromptConfig, VisionConfig
from llmasr.models.checkpoint import Bundle
from llmasr.models.vision import build_vision
from llmasr.models.xllm import XLLM
from llmasr.prompts import INSTRUCTIONS

# By modality: the tasks that a model with it learns.
TASKS = {
    "image": ("transcribe_with_image", "answer_about_image", "describe_image"),
    "video": ("describe_video",),
}


def with_vision(bundle: Bundle, config: VisionConfig) -> Bundle:
    """Return a model with the interfaces of ``config.modalities``; what it has keeps its weights.

    New interfaces begin at random, except that a video interface shares the trunk of an image
    interface that is there. They get the usual instructions of their tasks, too.

    Args:
        bundle: what hears, and perhaps sees. Its parts are used, not copied.
        config: sizes. Of a model that sees already, its own, with more modalities; `frames`, and
            for a new video interface `frame_positions`, may differ.

    Raises:
        ValueError: sizes differ from those that the model has, a modality would be lost, or the
            adaptors do not suit the language model.
    """
    model = bundle.model
    if model.config.vision is not None:
        _check(model.config.vision, config)
    seeing = build_vision(config)
    for name, interface in seeing.items():
        if name in model.interfaces:
            interface.load_state_dict(model.interfaces[name].state_dict())
    grown = replace(model.config, vision=config, prompt=_prompt(model.config, config))
    interfaces = {"speech": model.interfaces["speech"], **seeing}
    result = XLLM(interfaces, model.language_model, model.prompt, grown)
    with torch.no_grad():
        for name, boundary in model.boundaries.items():
            result.boundaries[name].copy_(boundary)
    result.boundaries.to(model.boundaries["speech"].dtype)
    return replace(bundle, model=result.eval())


def _check(known: VisionConfig, wanted: VisionConfig) -> None:
    lost = set(known.modalities) - set(wanted.modalities)
    if lost:
        raise ValueError(
            f"modalities are {wanted.modalities}; those of the model must be among them:"
            f" {', '.join(known.modalities)}"
        )
    free = {"modalities", "frames"}
    if "video" not in known.modalities:
        free.add("frame_positions")
    for name, value in vars(known).items():
        if name not in free and getattr(wanted, name) != value:
            raise ValueError(f"{name} is {getattr(wanted, name)}; the model has {value}")


def _prompt(trained: ModelConfig, vision: VisionConfig) -> PromptConfig:
    """Add the usual instructions of what is seen, in the first language of the model."""
    language = trained.languages[0]
    tasks = [task for modality in vision.modalities for task in TASKS[modality]]
    usual = {
        task: INSTRUCTIONS[task][language][0] for task in tasks if language in INSTRUCTIONS[task]
    }
    return replace(trained.prompt, tasks=usual | trained.prompt.tasks)
