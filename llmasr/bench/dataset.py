"""The utterances of a manifest that a benchmark is run on, and their hash.

A manifest is JSON lines with `id`, `audio` (relative to the manifest) and `text`, and, if known,
`speaker`, `split` and `duration` in seconds. The hash is that of the chosen lines' ids, texts and
audio names, so that two results with the same hash had the same task.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmasr.audio import SAMPLE_RATE, load_audio


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance of a manifest."""

    id: str
    text: str
    audio: Path
    speaker: str | None
    seconds: float | None  # as the manifest says it


@dataclass(frozen=True)
class Dataset:
    """The utterances to recognise.

    Attributes:
        name: of the manifest's folder, and the split.
        clips: in the order of the manifest.
        digest: 8 hex digits of the sha256 of what is asked.
    """

    name: str
    clips: tuple[Clip, ...]
    digest: str

    @property
    def references(self) -> dict[str, str]:
        """Texts by id."""
        return {clip.id: clip.text for clip in self.clips}

    @property
    def speakers(self) -> dict[str, str] | None:
        """Speakers by id, or None if one of them is not known."""
        known = {clip.id: clip.speaker for clip in self.clips if clip.speaker}
        return known if len(known) == len(self.clips) else None


def read_dataset(
    manifest: str | Path, *, split: str | None = None, limit: int | None = None
) -> Dataset:
    """Read a manifest.

    Args:
        manifest: a file of JSON lines.
        split: take only the lines with this `split`; None takes all.
        limit: take at most so many, evenly spread over the file.

    Raises:
        ValueError: a line is broken, an id occurs twice, nothing is left, or the limit is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; at least 1 is needed")
    path = Path(manifest)
    entries = _entries(path)
    chosen = [entry for entry in entries if split is None or entry.get("split") == split]
    if not chosen:
        splits = sorted({str(entry.get("split")) for entry in entries})
        raise ValueError(f"{path} has no utterance of split {split!r}; its splits: {splits}")
    if limit is not None and len(chosen) > limit:
        chosen = [chosen[index * len(chosen) // limit] for index in range(limit)]
    clips = tuple(_clip(path, entry) for entry in chosen)
    name = path.parent.resolve().name if path.name == "manifest.jsonl" else path.stem
    return Dataset(f"{name}/{split}" if split else name, clips, _digest(chosen))


def seconds_of(clip: Clip) -> float:
    """Return the length of a clip, from the manifest if it is there, else from the audio."""
    return len(load_audio(clip.audio)) / SAMPLE_RATE if clip.seconds is None else clip.seconds


def _entries(path: Path) -> list[dict[str, Any]]:
    entries = []
    seen: set[str] = set()
    # Not str.splitlines, which also splits at separators that may stand inside a text.
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = _checked(json.loads(line))
                if entry["id"] in seen:
                    raise ValueError(f"id {entry['id']!r} occurs twice")
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            seen.add(entry["id"])
            entries.append(entry)
    return entries


def _checked(entry: Any) -> dict[str, Any]:
    for field in ("id", "audio", "text"):
        value = entry.get(field) if isinstance(entry, dict) else None
        if not isinstance(value, str):
            raise ValueError(f"field {field!r} is {value!r}; expected a string")
    if not entry["id"].strip():
        raise ValueError("field 'id' is empty")
    duration = entry.get("duration")
    if duration is not None and not isinstance(duration, int | float):
        raise ValueError(f"field 'duration' is {duration!r}; expected seconds")
    return dict(entry)


def _clip(manifest: Path, entry: Mapping[str, Any]) -> Clip:
    return Clip(
        entry["id"],
        entry["text"],
        manifest.parent / entry["audio"],
        entry.get("speaker") or None,
        entry.get("duration"),
    )


def _digest(entries: list[dict[str, Any]]) -> str:
    asked = [[entry["id"], entry["audio"], entry["text"]] for entry in entries]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]
