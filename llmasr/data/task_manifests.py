"""Manifests of tasks: what is heard and seen, and what a model should write about it.

A manifest has one JSON object a line; `tools/convert_xllm.py` makes them of X-LLM's files.

| field | what it holds |
| --- | --- |
| `id` | a name, unique in the file |
| `task` | a key of `TASKS` |
| `text` | what the model should write |
| `captions` | descriptions only: several texts in the place of `text`; one is drawn each time |
| `audio` | path of a recording |
| `feats`, `feats_length` | instead of it: path of a `.npy` [L, C] made of it; L, if it is known |
| `image`, `video` | path of a picture, of a video |
| `question` | `answer_about_image`: words of the recording or, without one, of the instruction |
| `history` | `answer_about_image`: questions before, with their answers: [["...", "..."]] |
| `prompt` | an instruction instead of those of the task |
| `split` | lines of another split are passed over |

Paths are relative to the manifest's folder. Other fields are not read. Nothing here opens media;
`llmasr.training.task_batches` does.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Entry = Mapping[str, Any]

SPEECH = ("audio", "feats")


class Kind(NamedTuple):
    """What the items of a task have."""

    needs: tuple[str, ...]  # of "speech", "image", "video"
    may_have: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()  # fields that only some tasks know


# The tasks of `llmasr.prompts.INSTRUCTIONS`.
TASKS = {
    "transcribe": Kind(("speech",)),
    "transcribe_with_image": Kind(("image", "speech")),
    "answer_about_image": Kind(("image",), ("speech",)),
    "describe_image": Kind(("image",), extra=("captions",)),
    "describe_video": Kind(("video",), extra=("captions",)),
}


@dataclass(frozen=True)
class TaskItem:
    """One line of a manifest."""

    id: str
    task: str
    texts: tuple[str, ...]  # right ones, of which one is to be written
    source: str  # manifest, line and id, for messages
    audio: Path | None = None
    feats: Path | None = None
    feats_length: int | None = None
    image: Path | None = None
    video: Path | None = None
    prompt: str | None = None
    question: str | None = None
    history: tuple[tuple[str, str], ...] = ()

    @property
    def is_heard(self) -> bool:
        """Tell whether there is speech."""
        return self.audio is not None or self.feats is not None

    @property
    def spoken(self) -> str | None:
        """Return the words of the recording, if there is one and they are known."""
        if not self.is_heard:
            return None
        return self.question if self.task == "answer_about_image" else self.texts[0]

    @property
    def instruction(self) -> str | None:
        """Return what the item itself says to do; None for the words of its task."""
        return self.prompt or (None if self.is_heard else self.question)


def read_task_manifests(paths: Iterable[Path], split: str = "") -> list[TaskItem]:
    """Return the items of manifests, in order.

    Args:
        paths: of the files.
        split: lines that name another one are passed over; "" for all lines.

    Raises:
        FileNotFoundError: a manifest is missing.
        ValueError: a line is no object, lacks a field or has one of a wrong type, an unknown task,
            other media than its task, or media that are missing; or there is no line. The message
            has the file and the line.
    """
    items = [item for path in paths for item in _read(path, split)]
    if not items:
        named = ", ".join(map(str, paths)) or "no manifest"
        raise ValueError(f"{named}: no line" + (f" of split {split!r}" if split else ""))
    return items


class TaskMix:
    """Draws so many items of each task a step, each item once before any is drawn again.

    Every process draws as many of each task, so that all train the same interfaces in a step.

    Args:
        items: any.
        counts: by task, items in a batch of one process; tasks without a count are not drawn.
        seed: of the order, not negative.

    Raises:
        ValueError: a count is negative, all are 0, or there is no item of a task to be drawn.
    """

    def __init__(self, items: Iterable[TaskItem], counts: Mapping[str, int], seed: int) -> None:
        self.seed = seed
        self.counts = {task: count for task, count in counts.items() if count}
        if not self.counts or min(self.counts.values()) < 0:
            raise ValueError(f"counts is {dict(counts)}; allowed: 0 or more, and not 0 for all")
        self.items: dict[str, list[TaskItem]] = {task: [] for task in self.counts}
        for item in items:
            if item.task in self.items:
                self.items[item.task].append(item)
        if lacking := [task for task, found in self.items.items() if not found]:
            raise ValueError(
                f"counts asks for {', '.join(lacking)}, but there is no such item; allowed: 0"
            )

    def draw(self, step: int, rank: int = 0, processes: int = 1) -> list[TaskItem]:
        """Return the items of one step of one process: a function of these and the seed alone."""
        drawn = []
        for task, count in self.counts.items():
            first = (step * processes + rank) * count
            items = self.items[task]
            for place in range(first, first + count):
                round_number, index = divmod(place, len(items))
                drawn.append(items[_order(self.seed, task, round_number, len(items))[index]])
        return drawn


@lru_cache(maxsize=2 * len(TASKS))
def _order(seed: int, task: str, round_number: int, size: int) -> np.ndarray:
    """Return the order of a round, a permutation of [size]."""
    return np.random.default_rng([seed, round_number, *task.encode()]).permutation(size)


def _read(path: Path, split: str) -> list[TaskItem]:
    items: list[TaskItem] = []
    seen: set[str] = set()
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            source = f"{path}, line {number}"
            try:
                entry = json.loads(line)
                if not isinstance(entry, dict):
                    raise ValueError(f"is {entry!r:.80}; expected an object")
                if split and (_text(entry, "split") or split) != split:
                    continue
                items.append(_item(entry, path.parent, source, seen))
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from error
    return items


def _item(entry: Entry, folder: Path, source: str, seen: set[str]) -> TaskItem:
    name, task = _required(entry, "id"), _required(entry, "task")
    if name in seen:
        raise ValueError(f"id is {name!r}, as on a line before; every line needs its own")
    seen.add(name)
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; allowed: {', '.join(TASKS)}")
    _check_senses(entry, task)
    media = {key: _media(entry, key, folder) for key in (*SPEECH, "image", "video")}
    text = _required(entry, "text", may_be_empty=True)
    return TaskItem(
        name, task, _captions(entry, task) or (text,), f"{source} ({name})", **media,
        feats_length=_length(entry), prompt=_text(entry, "prompt"),
        question=_text(entry, "question"), history=_history(entry, task),
    )  # fmt: skip


def _check_senses(entry: Entry, task: str) -> None:
    """Refuse an item that has other media than its task, or no question."""
    given = {
        sense
        for sense, keys in {"speech": SPEECH, "image": ("image",), "video": ("video",)}.items()
        if any(entry.get(key) is not None for key in keys)
    }
    kind = TASKS[task]
    for problem, senses in (
        ("needs", set(kind.needs) - given),
        ("does not take", given - {*kind.needs, *kind.may_have}),
    ):
        if senses:
            raise ValueError(f"task {task!r} {problem} {' and '.join(sorted(senses))}")
    if all(entry.get(key) is not None for key in SPEECH):
        raise ValueError("audio and feats are given; allowed: one of them")
    unasked = entry.get("question") is None and entry.get("prompt") is None
    if task == "answer_about_image" and "speech" not in given and unasked:
        raise ValueError(f"task {task!r} needs speech, question or prompt")


def _media(entry: Entry, key: str, folder: Path) -> Path | None:
    name = _text(entry, key)
    if name is None:
        return None
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{key} is {name!r}, but {path} is no file")
    return path


def _captions(entry: Entry, task: str) -> tuple[str, ...]:
    captions = entry.get("captions")
    if captions is None:
        return ()
    if "captions" not in TASKS[task].extra:
        raise ValueError(f"captions is given, but an item of task {task!r} has one text")
    return tuple(_listed(captions, "captions", "strings", lambda each: isinstance(each, str)))


def _history(entry: Entry, task: str) -> tuple[tuple[str, str], ...]:
    # X-LLM has dialogues whose questions are transcribed; what was said before is not shown then.
    if task != "answer_about_image" or entry.get("history") in (None, []):
        return ()
    turns = _listed(entry["history"], "history", "pairs of strings", _is_turn)
    return tuple((question, answer) for question, answer in turns)


def _is_turn(turn: object) -> bool:
    return isinstance(turn, list) and len(turn) == 2 and all(isinstance(each, str) for each in turn)


def _listed(value: object, key: str, kind: str, fits: Callable[[object], bool]) -> list[Any]:
    if not isinstance(value, list) or not value or not all(map(fits, value)):
        raise ValueError(f"{key} is {value!r:.80}; expected a list of one or more {kind}")
    return value


def _length(entry: Entry) -> int | None:
    value = entry.get("feats_length")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"feats_length is {value!r:.80}; expected a whole number, 0 or more")
    return value


def _required(entry: Entry, key: str, *, may_be_empty: bool = False) -> str:
    value = _text(entry, key)
    if value is None or not (value or may_be_empty):
        raise ValueError(f"{key} is {'missing' if value is None else 'empty'}")
    return value


def _text(entry: Entry, key: str) -> str | None:
    value = entry.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key} is {value!r:.80}; expected a string")
    return value
