"""What can be asked of a transcription, by keyword; `Recognizer.transcribe` describes it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypedDict

from llmasr.audio import SAMPLE_RATE
from llmasr.decoding.search import SearchOptions
from llmasr.decoding.sight import Sight
from llmasr.decoding.verify import Acceptance

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

    def sights(self, count: int | None) -> Iterator[Sight]:
        """Return what goes with each input: of a list one after the other, else always the same.

        Args:
            count: of inputs, if it is known.

        Raises:
            ValueError: a list has another length.
        """
        return map(Sight, each("image", self.image, count), each("video", self.video, count))


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


def each(name: str, value: Any, count: int | None) -> Iterator[Any]:
    """Return the items of a list, or a single value again and again.

    Raises:
        ValueError: a list does not have ``count`` items.
    """
    if not isinstance(value, list):
        return repeat(value)
    if count is not None and len(value) != count:
        raise ValueError(f"{name} is a list of {len(value)}; allowed: one for each of {count}")
    return iter(value)
