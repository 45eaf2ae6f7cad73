"""All stages on a tiny made-up world, two steps each: does everything fit together?

    python recipes/xllm/smoke.py

Takes less than a minute on a CPU. Each stage starts from the folder of the one before it. At the
end the model transcribes with a picture and answers a question about a video; its words mean
nothing, after two steps. `--out FOLDER` keeps the folders.
"""

import argparse
import logging
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import stage1_speech
import stage2
import stage3
import torch
from synthetic import make_world
from transformers.utils import logging as transformers_logging

from llmasr import Recognizer
from llmasr.data.task_manifests import TASKS

SHORT = {"steps": 2, "warmup": 1, "log_every": 1, "save_every": 1}


def run_stages(folder: Path, world: Path) -> None:
    """Run the five trainings, each from the result of the one before."""
    speech, image, video = (
        str(world / f"{stage2.TASKS[name]}.jsonl") for name in ("speech", "image", "video")
    )
    short = {**SHORT, "rate": 1e-2, "batch_size": 3}
    stage1_speech.main(
        stage1_speech.Recipe(
            manifests=speech,
            tokenizer=world / "tokenizer.model",
            size="tiny",
            out=folder / "stage1",
            **short,
        )
    )
    start = folder / "stage1/model"
    for modality, manifest in (("speech", speech), ("image", image), ("video", video)):
        out = folder / f"stage2_{modality}"
        stage2.main(
            stage2.Recipe(
                modality=modality,
                init=start,
                manifests=manifest,
                out=out,
                vision="tiny",
                language_model=world / "language_model",
                **short,
            )
        )
        start = out / "model"
    manifests = ",".join(str(world / f"{task}.jsonl") for task in TASKS)
    recipe = stage3.Recipe(init=start, manifests=manifests, out=folder / "stage3", rate=1e-2)
    stage3.main(replace(recipe, **SHORT))


def use(model: Path, world: Path) -> None:
    """Let the result look, hear and answer."""
    recognizer = Recognizer.from_pretrained(model, device="cpu")
    name = "red-circle"
    transcript = recognizer.transcribe(
        world / f"audio/{name}.flac", image=world / f"images/{name}.png"
    )
    print(f"transcript with a picture: {transcript.text!r} ({transcript.status})")
    reply = recognizer.answer("what moves?", video=world / f"videos/{name}.mkv", max_new_tokens=8)
    print(f"answer about a video: {reply.text!r} ({reply.status})")


def main(folder: Path) -> None:
    """Make the world, train, use, and tell how long it took."""
    began = time.perf_counter()
    torch.manual_seed(0)
    transformers_logging.disable_progress_bar()
    (folder / "world").mkdir(parents=True)
    world = make_world(folder / "world")
    run_stages(folder, world)
    use(folder / "stage3/model", world)
    print(f"{time.perf_counter() - began:.1f} seconds")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
    else:
        main(out)
