"""What each stage of X-LLM trains (arXiv 2305.04160; its code, where the two differ).

Stage 2 teaches one interface to speak to the frozen language model; stage 3 tunes the adaptors of
all interfaces together. Encoders and the language model are frozen throughout. The vectors that
stand around a modality, which X-LLM does not have, are trained with it.
"""

from llmasr.models.xllm import XLLM

# By stage: the parts of the model that are trained, as beginnings of names.
TRAINED = {
    "align-speech": (
        "interfaces.speech.cformer.", "interfaces.speech.token_head.",
        "interfaces.speech.adaptor.", "boundaries.speech",
    ),
    "align-image": (
        "interfaces.image.trunk.norm.", "interfaces.image.trunk.qformer.",
        "interfaces.image.queries", "interfaces.image.adaptor.", "boundaries.image",
    ),
    "align-video": (
        "interfaces.video.queries", "interfaces.video.positions", "interfaces.video.adaptor.",
        "boundaries.video",
    ),
    "joint": (
        "interfaces.speech.adaptor.", "interfaces.image.adaptor.", "interfaces.video.adaptor.",
        "boundaries.",
    ),
}  # fmt: skip
QUERIES = ("interfaces.image.queries", "interfaces.video.queries")


def train_stage(model: XLLM, stage: str, *, queries: bool = False) -> list[str]:
    """Leave of a model to be trained what a stage trains, and return the names of that.

    Call ``model.train()`` after it, not before: what is frozen of the visual trunk then stays in
    eval mode.

    Args:
        model: parts that it does not have are passed over.
        stage: a key of `TRAINED`.
        queries: train the queries of the Q-Former in stage "joint" too, as the code of X-LLM does.

    Raises:
        ValueError: there is no such stage, or the model has nothing that it trains.
    """
    if stage not in TRAINED:
        raise ValueError(f"stage is {stage!r}; allowed: {', '.join(TRAINED)}")
    trained = TRAINED[stage] + (QUERIES if queries and stage == "joint" else ())
    # Both names of what two interfaces share: which comes first is up to who built the model.
    named = dict(model.named_parameters(remove_duplicate=False))
    names = [name for name in named if name.startswith(trained)]
    if not any(name.startswith("interfaces.") for name in names):
        raise ValueError(f"stage is {stage!r}, but the model has no such interface")
    model.requires_grad_(False)
    for name in names:
        named[name].requires_grad_(True)
    return names
