"""What can be asked of a transcription, by keyword; `Recognizer.transcribe` describes it."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, NamedTuple, TypedDict

from llmasr.audio import SAMPLE_RATE
from llmasr.decoding.search import SearchOptions
from llmasr.decoding.sight import Sight
from llmasr.decoding.verify import Acceptance
from llmasr.prompts import History

BATCH_SECONDS = 120.0

Progress = Callable[[float, float], None]  # seconds of audio done, seconds of audio known so far


class Options(TypedDict, total=False):
    """Options of `Recognizer.transcribe`, which describes them."""

    image: Any
    video: Any
    language: str | None
    batch_seconds: float
    channel: str | int
    sample_rate: int | None
    instruction: str | None
    search: SearchOptions | None
    acceptance: Acceptance | None
    alternatives: int
    on_progress: Progress | None


class AnswerOptions(TypedDict, total=False):
    """Options of `Recognizer.answer`, which describes them."""

    image: Any
    video: Any
    audio: Any
    history: History | Sequence[History]
    max_new_tokens: int
    search: SearchOptions | None


@dataclass(frozen=True)
class Settings:
    """The values of `Options`."""

    image: Any = None
    video: Any = None
    language: str | None = None
    batch_seconds: float = BATCH_SECONDS
    channel: str | int = "mix"
    sample_rate: int | None = None
    instruction: str | None = None
    search: SearchOptions | None = None
    acceptance: Acceptance | None = None
    alternatives: int = 0
    on_progress: Progress | None = None

    def __post_init__(self) -> None:
        if not self.batch_seconds > 0:
            raise ValueError(f"batch_seconds is {self.batch_seconds}; it must be above 0")

    def check_language(self, known: Sequence[str]) -> None:
        """Refuse a language that a model does not understand."""
        if self.language is not None and self.language not in known:
            raise ValueError(
                f"language is {self.language!r}; this model understands: {', '.join(known)}"
            )

    @property
    def shared(self) -> Sight:
        """What goes with every input."""
        return Sight(_shared(self.image), _shared(self.video))

    def pair(self, audios: Iterable[Any]) -> Iterator[tuple[Any, Sight]]:
        """Put each input together with what goes with it alone.

        Raises:
            ValueError: a list has another length than the inputs; at once if these have a length,
                otherwise when it shows.
        """
        lists = {"image": self.image, "video": self.video}
        count = len(audios) if isinstance(audios, Sized) else None
        return _pair(audios, lists, [_each(name, value, count) for name, value in lists.items()])


class Given(NamedTuple):
    """What questions are about: of each kind one thing for all of them, or a list."""

    image: Any
    video: Any
    audio: Any
    history: Sequence[Any]  # one for each question; empty for none

    @property
    def shared(self) -> tuple[Any, Any, Any]:
        """Image, video and audio of all questions."""
        return _shared(self.image), _shared(self.video), _shared(self.audio)

    def pair(self, questions: Sequence[str]) -> Iterator[tuple[str, History, tuple[Any, ...]]]:
        """Put each question together with what was asked before, and what it alone is about.

        Raises:
            ValueError: a list has another length than the questions, or a turn of a history is not
                a pair of texts.
        """
        count = len(questions)
        histories = list(_each("history", list(self.history), count)) if self.history else []
        for turn in chain.from_iterable(histories):
            is_pair = isinstance(turn, tuple | list) and len(turn) == 2
            if not is_pair or not all(isinstance(text, str) for text in turn):
                raise ValueError(f"history has {turn!r}; allowed: (question, answer), both texts")
        sources = {"image": self.image, "video": self.video, "audio": self.audio}
        own = zip(*(_each(name, value, count) for name, value in sources.items()), strict=True)
        return zip(questions, histories or repeat(()), own, strict=False)


class Meter:
    """Counts audio, and tells whoever wants to know."""

    def __init__(self, on_progress: Progress | None):
        self.on_progress = on_progress
        self.done = self.known = 0

    def expect(self, samples: int) -> None:
        """Count what is to be done."""
        self.known += samples

    def advance(self, samples: int) -> None:
        """Count what is done."""
        self.done += samples
        if self.on_progress is not None:
            self.on_progress(self.done / SAMPLE_RATE, self.known / SAMPLE_RATE)


def _shared(value: Any) -> Any:
    """Return a value that is the same for all, or None if it is a list with one for each."""
    return None if isinstance(value, list) else value


def _each(name: str, value: Any, count: int | None) -> Iterator[Any]:
    """Return the items of a list, or None again and again for a value that all share.

    Raises:
        ValueError: a list does not have ``count`` items or, where that is None, is used up.
    """
    if not isinstance(value, list):
        return repeat(None)
    if count is not None and len(value) != count:
        raise ValueError(f"{name} is a list of {len(value)}; allowed: one for each of {count}")
    return _items(name, value) if count is None else iter(value)


def _items(name: str, values: list[Any]) -> Iterator[Any]:
    yield from values
    raise ValueError(f"{name} is a list of {len(values)}; allowed: one for each, of which are more")


def _pair(
    audios: Iterable[Any], lists: dict[str, Any], items: list[Iterator[Any]]
) -> Iterator[tuple[Any, Sight]]:
    count = 0
    for audio in audios:
        count += 1
        yield audio, Sight(*map(next, items))
    for name, value in lists.items():
        _each(name, value, count)
