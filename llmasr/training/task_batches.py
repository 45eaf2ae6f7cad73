"""Items of task manifests to batches: media are read, prompts are worded, answers become ids.

Every item has in the batch what it has in its manifest and nothing in the place of what it lacks.
Media that cannot be read are an error with the item's name.

Letters: F frames of features or tokens, M mel bins or other features, A items with speech, S side
of a picture in pixels.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from llmasr.audio import load_audio
from llmasr.config import FrameConfig, ModelConfig
from llmasr.data.task_manifests import TaskItem, TaskMix
from llmasr.filterbank import WINDOW_SAMPLES, FilterBank
from llmasr.media import load_image, load_video
from llmasr.models.checkpoint import Bundle
from llmasr.prompts import INSTRUCTIONS, lay_out
from llmasr.training.tasks import Images, Speech, TaskBatch, Videos

# Batches that are read while the model trains.
AHEAD = 2

Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Senses:
    """What a model takes in.

    ``num_features`` is M of log-mel and the width of feature files; a model that ``reads_audio``
    turns waveforms into such features.
    """

    num_features: int = 80
    reads_audio: bool = True
    image_size: int = 224
    frames: FrameConfig = field(default_factory=FrameConfig)


def senses_of(config: ModelConfig) -> Senses:
    """Return what a model with this configuration takes in."""
    num_bins = config.speech.encoder.num_bins
    if config.vision is None:
        return Senses(num_bins)
    return Senses(num_bins, image_size=config.vision.vit.image_size, frames=config.vision.frames)


def usual_instructions(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return by task the one instruction that a model is also used with."""
    prompt = config.prompt
    return {task: (prompt.tasks.get(task, prompt.instruction),) for task in INSTRUCTIONS}


def varied_instructions(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Return by task all instructions in the first language of a model.

    Raises:
        ValueError: there are none in that language.
    """
    language = config.languages[0]
    known = sorted(set.intersection(*(set(texts) for texts in INSTRUCTIONS.values())))
    if language not in known:
        raise ValueError(f"language is {language!r}; there are instructions in: {', '.join(known)}")
    return {task: texts[language] for task, texts in INSTRUCTIONS.items()}


@dataclass(frozen=True)
class Collator:
    """Makes batches for one model.

    Args:
        bundle: the model and its tokenizers.
        instructions: by task; one is drawn for each item that has none of its own.
        senses: what the model takes in, from :func:`senses_of` or, for another interface under
            "speech", written down.
    """

    bundle: Bundle
    instructions: Mapping[str, Sequence[str]]
    senses: Senses

    def __call__(self, items: Sequence[TaskItem], rng: random.Random) -> TaskBatch:
        """Return a batch of any items.

        Raises:
            ValueError: media of an item cannot be read, or do not suit the model.
        """
        tokenizer, layout = self.bundle.tokenizer, self.bundle.model.config.prompt.layout
        wordings = [item.instruction or rng.choice(self.instructions[item.task]) for item in items]
        answers = [tokenizer.encode(rng.choice(item.texts)) for item in items]
        spoken = self.bundle.speech_tokenizer or tokenizer
        return TaskBatch(
            [item.task for item in items],
            [
                lay_out(tokenizer, wording, layout, item.history)
                for wording, item in zip(wordings, items, strict=True)
            ],
            [[*answer, tokenizer.eos_id] for answer in answers],
            read_speech(items, self.senses, spoken.encode),
            read_images(items, self.senses),
            read_videos(items, self.senses),
        )


def task_batches(
    mix: TaskMix,
    collate: Callable[[Sequence[TaskItem], random.Random], TaskBatch],
    start: int,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[TaskBatch]:
    """Yield the batches of the steps from ``start`` on, for ever; a thread reads ahead.

    A batch depends on the mix, its step and the process alone, so a run can go on anywhere.
    """

    def make(step: int) -> TaskBatch:
        rng = random.Random(f"{mix.seed}:{step}:{rank}")
        return collate(mix.draw(step, rank, processes), rng)

    # One thread only: readers of pictures change the filters of warnings for a moment.
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(make, step) for step in range(start, start + AHEAD))
        for step in count(start + AHEAD):
            yield waiting.popleft().result()
            waiting.append(pool.submit(make, step))
    finally:
        pool.shutdown(cancel_futures=True)


def read_speech(items: Sequence[TaskItem], senses: Senses, encode: Encode) -> Speech | None:
    """Return what is heard in the items, or None if none has speech.

    Transcripts are there if the words of every recording are known.

    Args:
        items: any.
        senses: of the model.
        encode: transcripts to ids in the vocabulary of the speech interface.
    """
    rows = [index for index, item in enumerate(items) if item.is_heard]
    if not rows:
        return None
    heard = [_hear(items[row], senses) for row in rows]
    lengths = torch.tensor([len(features) for features in heard])
    features = pad_sequence(heard, batch_first=True)  # [A, F, M]
    words = [items[row].spoken for row in rows]
    ids = [torch.tensor(encode(text), dtype=torch.int64) for text in words if text is not None]
    if len(ids) < len(rows):
        return Speech(rows, features, lengths)
    counts = torch.tensor([len(each) for each in ids])
    return Speech(rows, features, lengths, pad_sequence(ids, batch_first=True), counts)


def read_images(items: Sequence[TaskItem], senses: Senses) -> Images | None:
    """Return the pictures of the items, or None if there is none."""
    rows, pixels = [], []
    for row, item in enumerate(items):
        if item.image is not None:
            with _naming(item):
                pixels.append(load_image(item.image, size=senses.image_size))
            rows.append(row)
    return Images(rows, torch.stack(pixels)) if rows else None


def read_videos(items: Sequence[TaskItem], senses: Senses) -> Videos | None:
    """Return the videos of the items, or None if there is none."""
    rows, videos = [], []
    for row, item in enumerate(items):
        if item.video is not None:
            with _naming(item):
                video = load_video(item.video, size=senses.image_size, config=senses.frames)
            videos.append(video)
            rows.append(row)
    if not rows:
        return None
    frames = torch.stack([video.frames for video in videos])  # [n, T, 3, S, S]
    return Videos(rows, frames, torch.stack([video.mask for video in videos]))


def _hear(item: TaskItem, senses: Senses) -> Tensor:
    """Return the features of an item with speech, [F, M] float32."""
    with _naming(item):
        if item.audio is None:
            return _stored(item, senses.num_features)
        if not senses.reads_audio:
            raise ValueError("audio is given; this model takes feats only")
        waveform = torch.from_numpy(load_audio(item.audio))
        if len(waveform) < WINDOW_SAMPLES:
            raise ValueError(
                f"{item.audio} has {len(waveform)} samples at 16 kHz; allowed: {WINDOW_SAMPLES}"
                " or more"
            )
        features, lengths = _filterbank(senses.num_features)(
            waveform[None], torch.tensor([len(waveform)])
        )
        return features[0, : int(lengths[0])]


def _stored(item: TaskItem, width: int) -> Tensor:
    """Read a feature file, [F, M] float32."""
    assert item.feats is not None, "an item with speech has audio or feats"
    features = np.load(item.feats, allow_pickle=False)
    if features.ndim != 2 or features.shape[1] != width or features.dtype.kind != "f":
        raise ValueError(
            f"{item.feats} holds {features.dtype} {list(features.shape)}; this model takes floats"
            f" [any number, {width}]"
        )
    if item.feats_length not in (None, len(features)):
        raise ValueError(
            f"feats_length is {item.feats_length}, but {item.feats} has {len(features)} rows"
        )
    return torch.from_numpy(features).float()


@lru_cache(maxsize=1)
def _filterbank(num_bins: int) -> FilterBank:
    return FilterBank(num_bins)


@contextmanager
def _naming(item: TaskItem) -> Iterator[None]:
    """Say which item it was if media cannot be read."""
    try:
        yield
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{item.source}: {error}") from error
