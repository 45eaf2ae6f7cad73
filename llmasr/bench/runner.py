"""Run systems over test sets: every utterance counts, and only computation is timed.

The protocol of time is that of the Open ASR leaderboard (huggingface/open_asr_leaderboard,
transformers/run_eval.py): what is timed is features, inference and decoding to text, the GPU waited
for before and after; reading and resampling audio is not; some batches run before the clock
starts; RTFx is the sum of the audio's seconds over the sum of the seconds of computation. Beyond
it, utterances are sorted by length, the longest first, an utterance that fails adds its time but
not its audio, and latency is measured apart with one utterance at a time.
"""

import gc
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from llmasr.audio import load_audio
from llmasr.bench import memory
from llmasr.bench.card import commit, fingerprint, load_average, machine
from llmasr.bench.clock import OTHER, now
from llmasr.bench.contract import Sound, System, description, hears, is_here, stages_of, unload
from llmasr.bench.dataset import Clip, Dataset, seconds_of
from llmasr.bench.kept import Heard, Kept
from llmasr.bench.results import Finish, Latency, Result, result_of
from llmasr.files import replace_file
from llmasr.scoring import score

# Of how this file measures; another number makes all earlier runs other experiments.
PROTOCOL = 1

Progress = Callable[[str, str, int, int], None]  # system, data, utterances done, utterances


@dataclass(frozen=True)
class Options:
    """How to measure and how to score.

    Attributes:
        batch_size: utterances of a call.
        warmup: batches that run before the clock starts; the leaderboard's are 10.
        latency: utterances that are transcribed alone to find the latency; 0 for none.
        metric: what :func:`llmasr.scoring.score` counts.
        normalizer: what both sides go through before that.

    Raises:
        ValueError: a number is too small, or there is no such metric or normaliser.
    """

    batch_size: int = 16
    warmup: int = 10
    latency: int = 20
    metric: str = "wer"
    normalizer: str = "raw"

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("warmup", 0), ("latency", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; at least {least} is needed")
        # Found before hours of work, not after them.
        score({"id": "a"}, {"id": "a"}, metric=self.metric, normalizer=self.normalizer)


def bench(
    systems: Sequence[System],
    datasets: Sequence[Dataset],
    options: Options | None = None,
    *,
    folder: Path | None = None,
    on_progress: Progress | None = None,
) -> list[Result]:
    """Measure every system on every dataset, one system at a time.

    A system is loaded when it is needed first. An utterance that cannot be read or that a system
    fails on is scored as an empty hypothesis and listed, and the run goes on.

    Args:
        systems: see :class:`System`; names must differ.
        datasets: names must differ.
        options: how to measure and how to score.
        folder: where hypotheses and times are kept, so that an interrupted run goes on; only one
            with an equal run card does. None keeps nothing.
        on_progress: called after each batch.

    Raises:
        ValueError: two systems, or two datasets, have the same name.
    """
    for kind, names in (
        ("systems", [system.name for system in systems]),
        ("datasets", [dataset.name for dataset in datasets]),
    ):
        if len(set(names)) < len(names):
            raise ValueError(f"{kind} are {names}; each may be given only once")
    options = options or Options()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    results = []
    for system in systems:
        run = _Run(system, options, folder, on_progress)
        results += [run.measure(dataset) for dataset in datasets]
        unload(system)
    return results


class _Run:
    """One system that is measured."""

    def __init__(
        self,
        system: System,
        options: Options,
        folder: Path | None,
        on_progress: Progress | None,
    ) -> None:
        self.system = system
        self.options = options
        self.folder = folder
        self.on_progress = on_progress
        self.load_seconds: float | None = None
        self.rss_before: int | None = None

    def measure(self, dataset: Dataset) -> Result:
        """Transcribe what is not kept already, and score all of it."""
        card = self._card(dataset)
        stem = None if self.folder is None else self.folder / _stem(self.system, dataset, card)
        kept = Kept(stem and stem.with_name(f"{stem.name}.jsonl"))
        batches = self._batches(dataset)
        heard = kept.resume([[clip.id for clip in batch] for batch in batches])
        finish_path = stem and stem.with_name(f"{stem.name}.json")
        finish = _read_finish(finish_path) if len(heard) == len(dataset.clips) else None
        if finish is None:
            resumed = len(heard)
            self._load()
            todo = [batch for batch in batches if batch[0].id not in heard]
            self._warm_up(todo)
            for batch in todo:
                answers = self._hear(batch)
                kept.add(answers)
                heard |= {answer.id: answer for answer in answers}
                self._show(dataset, len(heard))
            finish = self._finish([clip for batch in batches for clip in batch], resumed)
            if finish_path is not None:
                replace_file(finish_path, json.dumps(asdict(finish)))
        return result_of(
            self.system.name,
            dataset,
            card,
            [heard[clip.id] for clip in dataset.clips],
            finish,
            (self.options.metric, self.options.normalizer),
            is_timed=hears(self.system),
        )

    def _card(self, dataset: Dataset) -> dict[str, Any]:
        """Return all that a number depends on."""
        described = description(self.system)
        return {
            "system": self.system.name,
            "description": described,
            "data": dataset.name,
            "data_hash": dataset.digest,
            "utterances": len(dataset.clips),
            "batch_size": self.options.batch_size,
            "warmup": self.options.warmup,
            "latency": self.options.latency,
            "machine": machine(str(described.get("device", "cpu"))),
            "protocol": PROTOCOL,
        }

    def _batches(self, dataset: Dataset) -> list[list[Clip]]:
        """Put clips of similar length together, the longest first."""
        clips = list(dataset.clips)
        if hears(self.system):
            lengths = {clip.id: _length(clip) for clip in clips}
            clips.sort(key=lambda clip: (-lengths[clip.id], clip.id))
        size = self.options.batch_size
        return [clips[start : start + size] for start in range(0, len(clips), size)]

    def _load(self) -> None:
        """Load the system, once."""
        if self.load_seconds is None:
            gc.collect()
            self.rss_before = memory.start()
            began = now()
            self.system.load()
            self.load_seconds = now() - began

    def _warm_up(self, batches: Sequence[Sequence[Clip]]) -> None:
        if hears(self.system):
            for batch in batches[: self.options.warmup]:
                self._hear(batch)

    def _hear(self, batch: Sequence[Clip]) -> list[Heard]:
        """Transcribe a batch; time and stages are shared out equally, as the leaderboard does."""
        read = [self._read(clip) for clip in batch]
        sounds = [sound for sound, _ in read if isinstance(sound, Sound)]
        began = now()
        answers, stages = self._answer(sounds) if sounds else ([], {})
        seconds = now() - began
        if sounds and hasattr(self.system, "stages"):
            stages[OTHER] = seconds - sum(stages.values())
        share = {name: value / len(sounds) for name, value in stages.items()}
        answered = iter(answers)
        heard = []
        for clip, (sound, load_seconds) in zip(batch, read, strict=True):
            if isinstance(sound, Exception):
                heard.append(Heard(clip.id, "", 0.0, 0.0, load_seconds, {}, _reason(sound)))
                continue
            answer = next(answered)
            is_text = isinstance(answer, str)
            heard.append(
                Heard(
                    clip.id,
                    str(answer) if is_text else "",
                    sound.seconds if is_text else 0.0,
                    seconds / len(sounds),
                    load_seconds,
                    share,
                    None if is_text else _reason(answer),
                )
            )
        return heard

    def _read(self, clip: Clip) -> tuple[Sound | Exception, float]:
        """Read a clip; an error is a result."""
        if not hears(self.system):
            return Sound(clip.id, np.zeros(0, np.float32)), 0.0
        began = time.perf_counter()
        try:
            found: Sound | Exception = Sound(clip.id, load_audio(clip.audio))
        except (ValueError, OSError) as error:
            found = error
        return found, time.perf_counter() - began

    def _answer(self, sounds: Sequence[Sound]) -> tuple[list[Any], dict[str, float]]:
        """Return a text or an exception for each sound, and the seconds by stage as far as known.

        A batch that fails is taken apart, so that its good utterances are not lost.
        """
        try:
            texts = self.system.transcribe(sounds)
            if len(texts) != len(sounds) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"{len(sounds)} texts were expected; got {texts!r:.100}")
        except Exception as error:  # noqa: BLE001  a system of anybody's fails in any way it likes
            failure = error.with_traceback(None)
        else:
            return list(texts), stages_of(self.system)
        # Outside the handler, whose traceback would keep the memory of the failed attempt.
        if len(sounds) == 1:
            return [failure], {}
        answers: list[Any] = []
        total: dict[str, float] = {}
        for sound in sounds:
            alone, stages = self._answer([sound])
            answers += alone
            for name, seconds in stages.items():
                total[name] = total.get(name, 0.0) + seconds
        return answers, total

    def _finish(self, clips: Sequence[Clip], resumed: int) -> Finish:
        return Finish(
            datetime.now(UTC).isoformat(timespec="seconds"),
            commit(),
            load_average(),
            resumed,
            self.load_seconds or 0.0,
            self._latency(clips),
            memory.peak(self.rss_before) if is_here(self.system) else None,
        )

    def _latency(self, clips: Sequence[Clip]) -> Latency | None:
        """Transcribe clips of all lengths alone; `clips` are sorted by length."""
        count = min(self.options.latency, len(clips))
        if not count or not hears(self.system):
            return None
        chosen = [clips[index * len(clips) // count] for index in range(count)]
        sounds = [sound for sound, _ in map(self._read, chosen) if isinstance(sound, Sound)]
        times = list(self._times_alone(sounds))
        if not times:
            return None
        middle, high = np.quantile(times, [0.5, 0.95]).tolist()
        return Latency(len(times), middle, high)

    def _times_alone(self, sounds: Sequence[Sound]) -> Iterator[float]:
        for index, sound in enumerate([*sounds[:1], *sounds]):
            began = now()
            answers, _ = self._answer([sound])
            seconds = now() - began
            if index and isinstance(answers[0], str):  # the first one is a warm-up
                yield seconds

    def _show(self, dataset: Dataset, done: int) -> None:
        if self.on_progress is not None:
            self.on_progress(self.system.name, dataset.name, done, len(dataset.clips))


def _length(clip: Clip) -> float:
    """Return the seconds of a clip; one that cannot be read is listed when its turn comes."""
    try:
        return seconds_of(clip)
    except (ValueError, OSError):
        return 0.0


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _stem(system: System, dataset: Dataset, card: dict[str, Any]) -> str:
    """Return the name of the files of a run: readable, and different for different cards."""
    readable = re.sub(r"[^\w.-]+", "-", f"{system.name}_{dataset.name}").strip("-")
    return f"{readable[-80:]}.{fingerprint(card)}"


def _read_finish(path: Path | None) -> Finish | None:
    if path is None or not path.exists():
        return None
    return Finish.from_dict(json.loads(path.read_text(encoding="utf-8")))
