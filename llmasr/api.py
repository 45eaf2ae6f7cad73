"""The few names a user needs: `transcribe`, and a `Recognizer` that keeps its model loaded.

A recogniser owns what lies around the network: reading audio, cutting it into spans, packing spans
of many inputs into batches, and putting transcripts together. The network itself is a plain module
that knows none of this.
B spans in a batch, S samples.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from numbers import Real
from pathlib import Path
from typing import Any, Unpack, overload

import torch

from llmasr.audio import AudioError, AudioSource
from llmasr.decoding import assembly, summary
from llmasr.decoding.answers import Question, answer, listen
from llmasr.decoding.batching import (
    Piece,
    Recording,
    batches,
    cut,
    pad,
    read,
    read_or_fail,
    windows,
)
from llmasr.decoding.greedy import Decoding, draft_source, recognise
from llmasr.decoding.search import SearchOptions
from llmasr.decoding.segment import Span
from llmasr.decoding.sight import Context, Sight, look
from llmasr.decoding.verify import EXACT, Acceptance
from llmasr.media import MediaError
from llmasr.models.checkpoint import Bundle, load_pretrained, save_pretrained
from llmasr.models.language.quantise import quantise_int8
from llmasr.models.precision import find_dtype, set_precision
from llmasr.options import BATCH_SECONDS, AnswerOptions, Given, Meter, Options, Progress, Settings
from llmasr.prompts import ChosenPrompt, History, choose_prompt
from llmasr.reply import Reply
from llmasr.transcript import Transcript

logger = logging.getLogger(__name__)

ASSETS = Path(__file__).parent / "assets"
# Inputs are read this many batches ahead, so that spans of similar length can share a batch.
BATCHES_AHEAD = 16


class Recognizer:
    """Turns speech into text with a model that stays loaded."""

    def __init__(self, bundle: Bundle, device: torch.device | str = "cpu", *, name: str = ""):
        self.bundle = bundle
        self.device = torch.device(device)
        self.name = name
        bundle.model.to(self.device).eval()

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path = "tiny-en",
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype | None = None,
        quantization: str | None = None,
    ) -> "Recognizer":
        """Load a bundled model by name, or any model from its folder.

        Args:
            name_or_folder: one of `bundled_models()`, or a folder that `save_pretrained` wrote.
            device: "auto" (the GPU if there is one), or any name of a device that torch knows.
            dtype: of the language model: "float32" (the default), "bfloat16" or "float16". The
                acoustic part, which is small and sums over time, stays in float32.
            quantization: "int8" to store the weights of the language model in a quarter of the
                memory of float32; None for none. Needs torchao.
        """
        chosen_device, chosen_dtype = _find_device(device), find_dtype(dtype)
        if quantization not in (None, "int8"):
            raise ValueError(f"quantization is {quantization!r}; allowed: int8")
        folder = _find_model(name_or_folder)
        bundle = load_pretrained(folder)
        set_precision(bundle.model, chosen_dtype)
        if quantization:
            quantise_int8(bundle.model)
        return cls(bundle, chosen_device, name=str(name_or_folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model, so that `from_pretrained(folder)` gives it back."""
        save_pretrained(self.bundle, Path(folder))

    @overload
    def transcribe(self, audio: AudioSource, **options: Unpack[Options]) -> Transcript: ...
    @overload
    def transcribe(
        self, audio: list[Any] | Iterator[Any], **options: Unpack[Options]
    ) -> list[Transcript]: ...
    def transcribe(
        self,
        audio: Any,
        *,
        image: Any = None,
        video: Any = None,
        language: str | None = None,
        batch_seconds: float = BATCH_SECONDS,
        channel: str | int = "mix",
        sample_rate: int | None = None,
        instruction: str | None = None,
        search: SearchOptions | None = None,
        acceptance: Acceptance | None = None,
        alternatives: int = 0,
        on_progress: Progress | None = None,
    ) -> Transcript | list[Transcript]:
        """Recognise one input, or a list of inputs in the order of the list.

        One input that cannot be read raises `AudioError` or, for what is seen, `MediaError`; in a
        list it becomes a transcript with the status "failed", and the others are recognised all
        the same. A picture for all of a list that cannot be read raises at once.

        Args:
            audio: a path, bytes, a file object, samples, `(samples, rate)`, or a list of these.
            image: a picture that helps to recognise, for models that can look: a path, bytes, a
                file object, an array [height, width, 3] or a PIL image; for a list of inputs one
                for all, or a list with one or None for each.
            video: the same: a path, bytes or a file object.
            language: what is spoken, one of the languages of the model; None to leave it open.
            batch_seconds: audio in a batch, padding included; bounds memory, changes no result.
            channel: "mix", "left", "right" or the number of a channel.
            sample_rate: rate of samples that come without one.
            instruction: what the language model is told to do, if not what it was trained with;
                transcripts are then flagged "prompt_changed".
            search: beams or samples, and how many answers: `SearchOptions(beam_size=4, n_best=3)`.
                Other answers are in the segments' `alternatives`. None: greedy, the fastest.
            acceptance: trusts the CIF hypothesis more than exact decoding does, which is faster and
                may change texts; transcripts are then flagged "relaxed" or "gated". None: exact.
            alternatives: likeliest tokens to name for each token of the text, in the segments'
                `tokens`, with log-probability and entropy; 0 for no such details.
            on_progress: called after each batch with the seconds of audio done and known so far.
        """
        settings = Settings(
            image, video, language, batch_seconds, channel, sample_rate, instruction, search,
            acceptance, alternatives, on_progress,
        )  # fmt: skip
        if _is_many(audio):
            return list(self._each(audio, settings))
        settings.check_language(self.bundle.languages)
        recording = read(audio, channel=channel, sample_rate=sample_rate)
        recording = self._attend(recording, Sight(image, video), Context())
        found = self._recognise([recording], settings, Meter(on_progress))[0]
        if found.error is not None:
            raise ValueError(found.error)
        return found

    def transcribe_each(
        self, audios: Iterable[AudioSource], **options: Unpack[Options]
    ) -> Iterator[Transcript]:
        """Recognise any number of inputs in little memory; options as for `transcribe`.

        Inputs are read some batches ahead of their transcripts, which come in the same order.
        """
        return self._each(audios, Settings(**options))

    @overload
    def answer(self, question: str, **options: Unpack[AnswerOptions]) -> Reply: ...
    @overload
    def answer(self, question: list[str], **options: Unpack[AnswerOptions]) -> list[Reply]: ...
    def answer(
        self,
        question: str | list[str],
        *,
        image: Any = None,
        video: Any = None,
        audio: Any = None,
        history: History | Sequence[History] = (),
        max_new_tokens: int = 128,
        search: SearchOptions | None = None,
    ) -> Reply | list[Reply]:
        """Answer a question about what is seen and heard, or a list of questions.

        One picture or sound that cannot be read raises `MediaError` or `AudioError`; in a list the
        reply has the status "failed", and the others are answered all the same. A picture or sound
        for all of a list that cannot be read raises at once.

        Args:
            question: what is asked, in words; with `audio` it says what to do with what is heard.
            image: as for `transcribe`; of a list of questions one for all, or a list.
            video: likewise.
            audio: speech, likewise.
            history: questions asked before about the same, with their answers:
                `[("what is there", "a bear")]`; of a list of questions a list of such lists.
            max_new_tokens: bound of the answer; one that reaches it has the status "truncated".
            search: beams or samples; None for greedy.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; at least 1 is needed")
        is_one = isinstance(question, str)
        questions = [question] if isinstance(question, str) else question
        given = Given(image, video, audio, [history] if is_one else history)
        paired = given.pair(questions)
        common = self._context(*given.shared)
        asked = (self._question(text, before, common, *own) for text, before, own in paired)
        replies = answer(self.bundle, asked, max_new_tokens, search, name=self.name)
        if not is_one:
            return replies
        if replies[0].error is not None:
            raise ValueError(replies[0].error)
        return replies[0]

    def _question(self, text: str, history: History, common: Context, *sources: Any) -> Question:
        """Look and listen for one question of many, where an error is a result."""
        try:
            return Question(text, common.join(self._context(*sources)), history)
        except (AudioError, MediaError, OSError) as error:
            return Question(text, error=str(error))

    def _context(self, image: Any, video: Any, audio: Any) -> Context:
        seen = self._look(Sight(image, video))
        if audio is None:
            return seen
        recording = read(audio, channel="mix", sample_rate=None)
        return seen.join(listen(self.bundle, recording, self.device))

    def _look(self, sight: Sight) -> Context:
        return look(self.bundle.model, sight, self.device)

    def _attend(self, recording: Recording, sight: Sight, common: Context) -> Recording:
        """Add what is seen to what was read."""
        began = time.perf_counter()
        seen = common.join(self._look(sight))
        seconds = recording.seconds + time.perf_counter() - began
        flags = (*recording.flags, *seen.flags)
        return recording._replace(seen=seen.vectors, flags=flags, seconds=seconds)

    def _each(self, audios: Iterable[AudioSource], settings: Settings) -> Iterator[Transcript]:
        settings.check_language(self.bundle.languages)
        inputs = settings.pair(audios)
        common = self._look(settings.shared)
        meter = Meter(settings.on_progress)
        recordings = (self._read(audio, sight, common, settings) for audio, sight in inputs)
        return chain.from_iterable(
            self._recognise(window, settings, meter)
            for window in windows(recordings, BATCHES_AHEAD * settings.batch_seconds)
        )

    def _read(
        self, audio: AudioSource, sight: Sight, common: Context, settings: Settings
    ) -> Recording:
        """Read one input of many and look at what goes with it, where an error is a result."""
        recording = read_or_fail(audio, channel=settings.channel, sample_rate=settings.sample_rate)
        if recording.error is not None:
            return recording
        try:
            return self._attend(recording, sight, common)
        except (MediaError, OSError) as error:
            # Without samples there is nothing to recognise.
            return recording._replace(waveform=recording.waveform[:0], error=str(error))

    def _recognise(
        self, recordings: Sequence[Recording], settings: Settings, meter: Meter
    ) -> list[Transcript]:
        """Pack the spans of all inputs into batches, and put the results back in order."""
        meter.expect(sum(len(recording.waveform) for recording in recordings))
        plain = self._prompt(settings.instruction, "transcribe")
        with_sight = self._prompt(settings.instruction, "transcribe_with_image")
        how = Decoding(
            plain.ids,
            with_sight.ids,
            settings.search,
            settings.acceptance or EXACT,
            settings.alternatives,
            draft_source(self.bundle),
        )
        only_language = self.bundle.languages[0] if len(self.bundle.languages) == 1 else None
        language = settings.language or only_language
        heard: list[list[summary.Heard]] = [[] for _ in recordings]
        for batch in batches(cut(recordings), settings.batch_seconds):
            for piece, found in zip(batch, self._hear(batch, how), strict=True):
                heard[piece.recording].append(found)
            meter.advance(sum(len(piece.waveform) for piece in batch))
        return [
            assembly.transcript(
                recording,
                sorted(parts, key=_span),
                self.bundle.tokenizer,
                language=language,
                model=self.name,
                flags=(with_sight if recording.seen else plain).flags,
            )
            for recording, parts in zip(recordings, heard, strict=True)
        ]

    def _prompt(self, instruction: str | None, task: str) -> ChosenPrompt:
        trained = self.bundle.model.config.prompt
        return choose_prompt(self.bundle.tokenizer, trained, instruction, task)

    def _hear(self, batch: Sequence[Piece], how: Decoding) -> list[summary.Heard]:
        """Run a batch on the device; one that does not fit in memory runs as two halves."""
        padded, lengths = pad(batch)  # [B, S], [B]
        try:
            found = recognise(
                self.bundle.model, padded.to(self.device), lengths.to(self.device), how,
                seen=[piece.seen for piece in batch],
            )  # fmt: skip
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            logger.warning(
                "%d spans did not fit in memory together; they run as halves", len(batch)
            )
        else:
            shares = (lengths / lengths.sum()).tolist()
            return [
                summary.Heard(piece.span, hypothesis, share)
                for piece, hypothesis, share in zip(batch, found, shares, strict=True)
            ]
        # Outside the handler, whose traceback would keep the memory of the failed attempt.
        half = len(batch) // 2
        return [*self._hear(batch[:half], how), *self._hear(batch[half:], how)]


@overload
def transcribe(audio: AudioSource, **options: Any) -> Transcript: ...
@overload
def transcribe(audio: list[Any] | Iterator[Any], **options: Any) -> list[Transcript]: ...
def transcribe(
    audio: Any,
    *,
    model: str | Path = "tiny-en",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    quantization: str | None = None,
    **options: Any,
) -> Transcript | list[Transcript]:
    """Recognise one input (a `Transcript`) or a list of them (a list of `Transcript`).

    The model stays loaded for the next call. Options are those of `Recognizer.transcribe`; `model`,
    `device`, `dtype` and `quantization` those of `Recognizer.from_pretrained`.
    """
    return _loaded(str(model), device, dtype, quantization).transcribe(audio, **options)


def bundled_models() -> tuple[str, ...]:
    """Return the names of the models that come with the package."""
    return tuple(sorted(file.parent.name for file in ASSETS.glob("*/config.json")))


@lru_cache(maxsize=2)
def _loaded(
    model: str,
    device: str | torch.device,
    dtype: str | torch.dtype | None,
    quantization: str | None,
) -> Recognizer:
    return Recognizer.from_pretrained(model, device=device, dtype=dtype, quantization=quantization)


def _is_many(audio: object) -> bool:
    """Tell a list of inputs from one input; `(samples, rate)` and a file object are one."""
    if isinstance(audio, tuple):
        return not (len(audio) == 2 and isinstance(audio[1], Real))
    return isinstance(audio, list) or (isinstance(audio, Iterator) and not hasattr(audio, "read"))


def _span(heard: summary.Heard) -> Span:
    return heard.span


def _find_model(name_or_folder: str | Path) -> Path:
    """Return the folder of a model; a bundled name comes before a folder of the same name."""
    if name_or_folder in bundled_models():
        return ASSETS / name_or_folder
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder).resolve()
    raise ValueError(
        f"model is {str(name_or_folder)!r}; allowed: a folder with a model, or one of "
        + ", ".join(bundled_models())
    )


def _find_device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device is {device!r}; allowed: auto, cpu, cuda, cuda:0, ...") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {str(device)!r}, but torch finds no GPU; allowed here: cpu")
    return found
