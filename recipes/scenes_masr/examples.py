"""What stages 2 and 3 read: examples of every task, and batches of them.

Pictures come as patches of the frozen ViT and speech as log-mel features, both from `prepare.py`.
While training, speech is mixed with noise, and pictures are taken away, exchanged or blanked, so
that a model never depends on them (modality dropout).
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sizes import VISION
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from llmasr.data.augment import AugmentConfig, add_noise, augment
from llmasr.media import load_image
from llmasr.models.language.tokenizer import Tokenizer
from llmasr.models.vision import build_vision
from llmasr.prompts import INSTRUCTIONS, TRANSCRIBE, PromptIds, lay_out
from llmasr.training.tasks import Images, Speech, TaskBatch

DESCRIBE = INSTRUCTIONS["describe_image"]["en"][1]
SPOKEN = INSTRUCTIONS["answer_about_image"]["en"][1]
# What `llmasr.prompts` calls the tasks of this recipe; a question is its own instruction.
TASKS = {"transcribe_with_image": TRANSCRIBE["en"], "describe_image": DESCRIBE}
TASKS["answer_about_image"] = SPOKEN
# Shares of what stands beside speech in training: its picture, none, another one, an empty one.
SIGHT_SHARES = {"right": 0.6, "none": 0.2, "wrong": 0.1, "blank": 0.1}
NOISY_SHARE = 0.75
SNR_DB = (-1.0, 16.0)


@dataclass(frozen=True)
class Example:
    """One line of the manifest."""

    task: str
    audio: str | None
    image: str | None
    instruction: str
    answer: str
    spoken: str  # words of the audio


def vision_with_eyes(runs: Path) -> dict[str, nn.Module]:
    """Build the image interface and fill it with what stage 1 learnt."""
    vision = build_vision(VISION)
    learnt = torch.load(runs / "eyes/vision.pt", map_location="cpu", weights_only=True)
    vision["image"].load_state_dict(learnt["model"])
    return vision  # type: ignore[return-value]


def read_examples(data: Path, split: str) -> list[Example]:
    """Read the clean examples of a split."""
    lines = (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    found = []
    for entry in map(json.loads, lines):
        if entry["split"] != split or entry["snr"] is not None:
            continue
        task = entry["task"]
        asked = {"describe": DESCRIBE, "question": entry["prompt"], "vsd": SPOKEN}
        found.append(
            Example(
                task, entry["audio"], entry["image"], asked.get(task, TRANSCRIBE["en"]),
                entry["answer"] or entry["text"], entry["text"],
            )
        )  # fmt: skip
    return found


# From examples, rows of them and a generator to what is heard there.
Listen = Callable[[list[Example], list[int], random.Random], Speech]


class Examples:
    """Examples of one split by task, with what they show and let hear.

    Args:
        data: the folder that `generate.py` made.
        runs: the folder that `prepare.py` filled.
        split: of the manifest.
        tokenizer: of the model.
    """

    def __init__(self, data: Path, runs: Path, split: str, tokenizer: Tokenizer) -> None:
        self.by_task: dict[str, list[Example]] = {}
        for example in read_examples(data, split):
            self.by_task.setdefault(example.task, []).append(example)
        self.features: dict[str, Tensor] = torch.load(runs / "features.pt", mmap=True)
        self.patches: dict[str, Tensor] = torch.load(runs / "patches.pt", mmap=True)
        noise = torch.load(runs / "noise.pt")
        self.noise = torch.cat([value.float() for value in noise.values()])  # [F, M]
        self.tokenizer = tokenizer
        self.prompts: dict[str, PromptIds] = {}
        self.blank = blank_patches(runs)  # [P, C]

    def draw(self, counts: dict[str, int], rng: random.Random) -> list[Example]:
        """Draw so many examples of each task."""
        return [
            example
            for task, count in counts.items()
            for example in rng.sample(self.by_task[task], min(count, len(self.by_task[task])))
        ]

    def collate(
        self, drawn: list[Example], rng: random.Random, listen: Listen | None = None
    ) -> TaskBatch:
        """Put examples into a batch, with noise and with pictures that are changed at random.

        Args:
            drawn: the examples.
            rng: of all that is random.
            listen: gives what is heard in the examples of these rows; None for `hear`.
        """
        heard = [index for index, example in enumerate(drawn) if example.audio]
        seen = [(index, self._sight(drawn[index], rng)) for index in range(len(drawn))]
        shown = [(index, patches.float()) for index, patches in seen if patches is not None]
        return TaskBatch(
            [example.task for example in drawn],
            [self._prompt(example.instruction) for example in drawn],
            [[*self.tokenizer.encode(e.answer), self.tokenizer.eos_id] for e in drawn],
            (listen or self.hear)(drawn, heard, rng) if heard else None,
            Images([i for i, _ in shown], torch.stack([p for _, p in shown])) if shown else None,
        )

    def _prompt(self, instruction: str) -> PromptIds:
        if instruction not in self.prompts:
            self.prompts[instruction] = lay_out(self.tokenizer, instruction)
        return self.prompts[instruction]

    def _sight(self, example: Example, rng: random.Random) -> Tensor | None:
        """Return the patches that stand beside an example."""
        if example.image is None:
            return None
        if example.task != "masr":
            return self.patches[example.image]
        kind = rng.choices(list(SIGHT_SHARES), list(SIGHT_SHARES.values()))[0]
        other = rng.choice(self.by_task["masr"]).image
        assert other is not None, "every sentence of the task has its picture"
        shown = {"right": self.patches[example.image], "wrong": self.patches[other]}
        return {**shown, "none": None, "blank": self.blank}[kind]

    def hear(self, drawn: list[Example], rows: list[int], rng: random.Random) -> Speech:
        """Return the features and transcripts of these rows, most of them with noise."""
        generator = torch.Generator().manual_seed(rng.getrandbits(40))
        said = []
        for row in rows:
            features = self.features[drawn[row].audio or ""].float()
            if rng.random() < NOISY_SHARE:
                features = add_noise(features, self.noise, rng.uniform(*SNR_DB), generator)
            said.append(features)
        lengths = torch.tensor([len(features) for features in said])
        padded, lengths = augment(
            pad_sequence(said, batch_first=True), lengths, self.noise, AugmentConfig(), generator
        )
        spoken = [torch.tensor(self.tokenizer.encode(drawn[row].spoken)) for row in rows]
        transcripts = pad_sequence(spoken, batch_first=True)
        counts = torch.tensor([len(ids) for ids in spoken])
        return Speech(rows, padded, lengths, transcripts, counts)


def blank_patches(runs: Path) -> Tensor:
    """Return what the ViT makes of a picture that is all of one grey, [P, C]."""
    image = vision_with_eyes(runs)["image"].eval()
    size = VISION.vit.image_size
    grey = torch.full((size, size, 3), 0.5).numpy()
    with torch.inference_mode():
        patches: Tensor = image.trunk.see(load_image(grey, size=size)[None])[0]
    return patches.half().clone()


def batches(
    examples: Examples, counts: dict[str, int], seed: str, start: int
) -> Iterator[TaskBatch]:
    """Yield the batches of the steps from ``start`` on, for ever."""
    step = start
    while True:
        rng = random.Random(f"{seed}:{step}")
        yield examples.collate(examples.draw(counts, rng), rng)
        step += 1
