"""What a recogniser says to a question. Plain immutable values; knows no model and no file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Reply:
    """An answer, and how far to trust it.

    Attributes:
        text: the answer; empty if there is none.
        status: "ok"; "empty" (the model says nothing); "truncated" (the answer reached its bound);
            "failed" (see `error`).
        finish_reason: "stop"; "length" (it reached its bound); None when it failed.
        context: what was looked at and listened to: "image", "video", "speech".
        flags: what a reader should know: "silence" (nothing was heard in the audio),
            "audio_truncated", "channels_differ", "rescaled", "video_damaged".
        confidence: geometric mean of the probabilities of the tokens, in [0, 1].
        timings: seconds of work, by step.
        model: its name.
        error: why it failed.
    """

    text: str
    status: str = "ok"
    finish_reason: str | None = "stop"
    context: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    confidence: float | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-serialisable values."""
        return {**asdict(self), "context": list(self.context), "flags": list(self.flags)}
