"""What was measured of a system on a dataset, and how it is stored as JSON."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmasr.bench.card import fingerprint
from llmasr.bench.dataset import Dataset
from llmasr.bench.kept import Heard
from llmasr.bench.memory import Memory
from llmasr.files import replace_file
from llmasr.scoring import Score, score

FORMAT = 1
LOAD = "load"


@dataclass(frozen=True)
class Latency:
    """Seconds from one utterance to its text, alone.

    Attributes:
        utterances: that were measured.
        p50: half are done in this time.
        p95: 95 % are done in this time.
    """

    utterances: int
    p50: float
    p95: float


@dataclass(frozen=True)
class Finish:
    """What is known when a run is complete, besides what is kept of each utterance.

    Attributes:
        ended: date and time, UTC.
        commit: of this library, if it runs from a checkout.
        load_average: of the machine in the last minute; well above the threads in use, others were
            at work and times are too long. None where it cannot be known.
        resumed: utterances that an earlier run had transcribed.
        model_load_seconds: of loading the system.
        latency: None if it was not asked for.
        memory: its peaks; None if the system works in another process.
    """

    ended: str
    commit: str | None
    load_average: float | None
    resumed: int
    model_load_seconds: float
    latency: Latency | None
    memory: Memory | None

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "Finish":
        """Return what `dataclasses.asdict` was made of."""
        latency, memory = entry["latency"], entry["memory"]
        built = {"latency": latency and Latency(**latency), "memory": memory and Memory(**memory)}
        return cls(**{**entry, **built})


@dataclass(frozen=True)
class Result:
    """A system on a dataset.

    Attributes:
        system: its name.
        data: name of the dataset.
        card: what the numbers were made with; see runner.py.
        score: errors; failed utterances are empty hypotheses.
        failures: why they failed, by id.
        rtfx: audio seconds a second of computation; None if nothing was computed.
        audio_seconds: of utterances that did not fail.
        compute_seconds: of all utterances.
        stages: seconds by stage, reading of audio ("load") first; they sum to `wall_seconds`. None
            if the system does not know them.
        finish: what is not of single utterances.
        hypotheses: texts by id.
    """

    system: str
    data: str
    card: dict[str, Any]
    score: Score
    failures: dict[str, str]
    rtfx: float | None
    audio_seconds: float
    compute_seconds: float
    load_seconds: float
    stages: dict[str, float] | None
    finish: Finish
    hypotheses: dict[str, str]

    @property
    def wall_seconds(self) -> float:
        """Reading of audio and computation together."""
        return self.load_seconds + self.compute_seconds

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, without the hypotheses, which are kept beside it."""
        return {
            "system": self.system,
            "data": self.data,
            "fingerprint": fingerprint(self.card),
            "card": self.card,
            "score": {"line": str(self.score), **self.score.to_dict()},
            "rtfx": self.rtfx,
            "audio_seconds": self.audio_seconds,
            "compute_seconds": self.compute_seconds,
            "load_seconds": self.load_seconds,
            "stages": self.stages,
            "failures": self.failures,
            **asdict(self.finish),
        }


def result_of(
    system: str,
    dataset: Dataset,
    card: dict[str, Any],
    heard: Sequence[Heard],
    finish: Finish,
    scoring: tuple[str, str],
    *,
    is_timed: bool,
) -> Result:
    """Add up what was heard, and score it.

    Args:
        system: its name.
        dataset: with the references.
        card: of the run.
        heard: one an utterance of the dataset.
        finish: of the run.
        scoring: metric and normaliser.
        is_timed: whether the seconds are those of a recogniser.
    """
    metric, normalizer = scoring
    hypotheses = {entry.id: entry.text for entry in heard}
    audio, compute, load = (
        math.fsum(getattr(entry, field) for entry in heard)
        for field in ("audio_seconds", "seconds", "load_seconds")
    )
    names = dict.fromkeys(name for entry in heard for name in entry.stages)
    stages = {name: math.fsum(entry.stages.get(name, 0.0) for entry in heard) for name in names}
    return Result(
        system,
        dataset.name,
        card,
        score(
            dataset.references,
            hypotheses,
            metric=metric,
            normalizer=normalizer,
            groups=dataset.speakers,
        ),
        {entry.id: entry.error for entry in heard if entry.error is not None},
        audio / compute if is_timed and audio and compute else None,
        audio,
        compute,
        load,
        {LOAD: load, **stages} if stages else None,
        finish,
        hypotheses,
    )


def write_json(path: Path, results: Sequence[Result]) -> None:
    """Write results at once or not at all."""
    content = {"format": FORMAT, "results": [result.to_dict() for result in results]}
    replace_file(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
