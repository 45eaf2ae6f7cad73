"""Hypotheses of an interrupted run, kept with their times so that it can go on.

JSON lines, one an utterance, with `id` and `text`: the file is one of hypotheses for `llmasr score`
and for the system `file:` too. It belongs to one run card, whose fingerprint is in its name.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from llmasr.files import replace_file


@dataclass(frozen=True)
class Heard:
    """What became of one utterance.

    Attributes:
        id: of the reference.
        text: the hypothesis; empty if it failed.
        audio_seconds: its length.
        seconds: of computation, its equal share of the batch.
        load_seconds: of reading and resampling the audio.
        stages: seconds by stage, shares of the batch too; they sum to `seconds`.
        error: why it failed, or None.
    """

    id: str
    text: str
    audio_seconds: float
    seconds: float
    load_seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    error: str | None = None


class Kept:
    """The file of one run.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def resume(self, batches: Iterable[Sequence[str]]) -> dict[str, Heard]:
        """Return what the file has of whole batches without failures, by id, and drop the rest.

        Args:
            batches: ids of each batch of the run.
        """
        if self.path is None:
            return {}
        lines = _read(self.path)
        good = {identifier for identifier, heard in lines.items() if heard.error is None}
        whole = [ids for ids in batches if good.issuperset(ids)]
        kept = {identifier: lines[identifier] for ids in whole for identifier in ids}
        replace_file(self.path, "".join(map(_line, kept.values())))
        return kept

    def add(self, batch: Sequence[Heard]) -> None:
        """Write a finished batch."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write("".join(map(_line, batch)))


def _line(heard: Heard) -> str:
    return json.dumps(asdict(heard), ensure_ascii=False) + "\n"


def _read(path: Path) -> dict[str, Heard]:
    if not path.exists():
        return {}
    found = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                entry: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:  # the line that was being written when the run was killed
                continue
            found[entry["id"]] = Heard(**entry)
    return found
