"""Stage 2: teach the speech interface to speak to the frozen language model.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 recipes/tiny_en/align.py

Starts from stage 0 (`language_model.py`) and stage 1 (`acoustic.py`). Trained, as in X-LLM: the
interface behind the encoder (CIF, C-Former, S-Adaptor) and the two boundary vectors; encoder and
language model are frozen. The CIF losses go on, so that the hypothesis stays good. Resumable; the
result is the folder `runs/tiny_en/aligned`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from acoustic import SPEECH
from stage import train_answers
from torch import Tensor
from transformers import GlmForCausalLM

from llmasr.config import ModelConfig, PromptConfig
from llmasr.data.batches import Batch
from llmasr.models.checkpoint import Bundle, load_pretrained, save_pretrained
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.speech import build_speech
from llmasr.models.xllm import XLLM
from llmasr.prompts import TRANSCRIBE, lay_out
from llmasr.training.alignment import alignment_losses
from llmasr.training.loop import from_command_line


@dataclass(frozen=True)
class Recipe:
    """Settings of the stage; every field is a flag."""

    runs: Path = Path("runs/tiny_en")
    steps: int = 1_500
    rate: float = 6e-4
    batch_seconds: float = 60.0
    weight_decay: float = 0.02
    synthetic_draws: int = 5_000
    seed: int = 2
    log_every: int = 50
    save_every: int = 100


def assemble(runs: Path, init: str = "") -> Bundle:
    """Put the results of stages 0 and 1 together; the boundaries begin as the words for them.

    With a finished model ``init`` its language model and boundaries are taken instead of those.
    """
    tokenizer = Tokenizer(runs / "tokenizer.model")
    trained = torch.load(runs / "acoustic/speech.pt", map_location="cpu", weights_only=True)
    weights = {n: v for n, v in trained["model"].items() if not n.startswith("phone_head.")}
    # The phones served training only.
    speech = build_speech(replace(SPEECH, phone_block=0))
    speech.load_state_dict(weights)
    known = load_pretrained(Path(init)).model if init else None
    folder = runs / "language_model/model"
    language_model = known.language_model if known else GlmForCausalLM.from_pretrained(folder)
    config = ModelConfig(speech.config, PromptConfig(TRANSCRIBE["en"]))
    prompt = lay_out(tokenizer, config.prompt.instruction)
    model = XLLM({"speech": speech}, language_model, prompt, config)
    ids = [tokenizer.id_of("<speech>"), tokenizer.id_of("</speech>")]
    with torch.no_grad():
        edges = known.boundaries["speech"] if known else model.embed(ids)
        model.boundaries["speech"].copy_(edges)
    return Bundle(model, tokenizer)


def objective(model: XLLM, batch: Batch, answers: list[list[int]]) -> Tensor:
    """Return the loss of the answers plus the CIF losses, each per token."""
    return alignment_losses(model, batch, answers)["loss"]


def main(recipe: Recipe) -> None:
    """Train, or go on training, and save the model."""
    torch.manual_seed(recipe.seed)
    bundle = assemble(recipe.runs)
    bundle.model.requires_grad_(False)
    speech = bundle.model.speech
    for part in (speech.predictor, speech.cformer, speech.token_head, speech.adaptor):
        part.requires_grad_(True)
    bundle.model.boundaries.requires_grad_(True)
    if train_answers(bundle.model, bundle.tokenizer, recipe, recipe.runs / "align", objective):
        save_pretrained(bundle, recipe.runs / "aligned")


if __name__ == "__main__":
    main(from_command_line(Recipe, __doc__))
