"""A speech recognition pipeline of transformers that knows when each word was said.

The stock pipeline runs our models too, but it has no times for them, cuts long audio blindly and
needs FFmpeg for files. This one cuts long audio at quiet places, as a `Recognizer` does, unless
`chunk_length_s` asks for chunks that overlap.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import AutomaticSpeechRecognitionPipeline

from llmasr.audio import SAMPLE_RATE, load_audio
from llmasr.decoding.batching import Recording, cut
from llmasr.decoding.hypothesis import Hypothesis
from llmasr.decoding.timestamps import times_at, words_from
from llmasr.text import join
from llmasr.transcript import Word

OWN_KEYS = ("is_last", "part", "tokens", "draft", "fires", "fire_times")


class Part(NamedTuple):
    """A stretch of one input, and which of its words count; all in samples of the input."""

    start: int
    end: int
    first: int  # words whose middle lies before this are those of the part before
    last: int  # and from here on those of the part after


class LlmasrPipeline(AutomaticSpeechRecognitionPipeline):
    """Transcribes; with `return_timestamps="word"` also tells when each word was said.

    Use it as `pipeline("automatic-speech-recognition", model=folder,
    pipeline_class=LlmasrPipeline)`. Inputs and results are those of the stock pipeline.
    """

    def _sanitize_parameters(
        self,
        chunk_length_s: float | None = None,
        stride_length_s: float | Sequence[float] | None = None,
        return_timestamps: str | None = None,
        **kwargs: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if return_timestamps not in (None, False, "word"):
            raise ValueError(f"return_timestamps is {return_timestamps!r}; allowed: None, 'word'")
        preprocess, forward, postprocess = super()._sanitize_parameters(**kwargs)
        if chunk_length_s is not None:
            preprocess["chunk_length_s"] = chunk_length_s
        if stride_length_s is not None:
            preprocess["stride_length_s"] = stride_length_s
        if return_timestamps is not None:
            postprocess["return_timestamps"] = return_timestamps
        return preprocess, forward, postprocess

    def preprocess(
        self,
        inputs: Any,
        chunk_length_s: float = 0,
        stride_length_s: float | Sequence[float] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Read one input and give its parts.

        Args:
            inputs: a path, bytes, samples at 16 kHz, or `{"raw" or "array", "sampling_rate"}`.
            chunk_length_s: seconds of a part; 0 to cut at quiet places.
            stride_length_s: seconds by which a part looks to the left and right; a sixth of the
                part by default.
        """
        waveform, extra = _read(inputs)
        if chunk_length_s:
            if stride_length_s is None:
                stride_length_s = chunk_length_s / 6
            parts = chunks(len(waveform), chunk_length_s, stride_length_s)
        else:
            spans = [piece.span for piece in cut([Recording(waveform, (), 0.0, None)])]
            parts = [Part(*span, span.start, span.end + 1) for span in spans]
        # Even silence needs one part.
        parts = parts or [Part(0, 0, 0, 0)]
        for index, part in enumerate(parts):
            features = self.feature_extractor(
                waveform[part.start : part.end], sampling_rate=SAMPLE_RATE, return_tensors="pt"
            )
            yield {"is_last": index == len(parts) - 1, "part": tuple(part), **features, **extra}

    def _forward(self, model_inputs: dict[str, Any], **generate_kwargs: Any) -> dict[str, Any]:
        heard = self.model.hear(
            model_inputs.pop("input_features"), model_inputs.pop("attention_mask")
        )
        generated = self.model.generate(
            encoder_outputs=heard, **self._prepare_generate_kwargs(generate_kwargs)
        )
        seconds = self.model.config.model_config.speech.encoder.frame_seconds
        return {
            "tokens": getattr(generated, "sequences", generated),
            "draft": heard.token_logits.argmax(-1),
            "fires": heard.cif.token_lengths,
            "fire_times": heard.cif.fire_times * seconds,
            **model_inputs,
        }

    def postprocess(
        self,
        model_outputs: Sequence[dict[str, Any]],
        return_timestamps: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Join the parts of one input to `{"text": ...}`, with times also `"chunks"`."""
        texts: list[str] = []
        words: list[Word] = []
        extra: dict[str, list[Any]] = {}
        for output in model_outputs:
            part = Part(*output["part"])
            said = self._words(output, (part.end - part.start) / SAMPLE_RATE)
            kept = [word for word in _shifted(said, part) if _counts(word, part)]
            words += kept
            texts.append(
                self.tokenizer.decode(output["tokens"][0], skip_special_tokens=True)
                if len(kept) == len(said)
                else join(word.text for word in kept)
            )
            for key in output.keys() - OWN_KEYS:
                extra.setdefault(key, []).append(output[key])
        result: dict[str, Any] = {"text": join(texts)}
        if return_timestamps:
            result["chunks"] = [
                {"text": word.text, "timestamp": (round(word.start, 3), round(word.end, 3))}
                for word in words
            ]
        return result | extra

    def _words(self, output: Mapping[str, Any], duration: float) -> list[Word]:
        fires = int(output["fires"][0])
        stop_ids = self.model.xllm.reader.stop_ids
        ids = [*takewhile(lambda token: token not in stop_ids, output["tokens"][0].tolist())]
        draft = self.tokenizer.draft(output["draft"][0, :fires].tolist())
        hypothesis = Hypothesis(
            token_ids=ids,
            log_probs=[0.0] * len(ids),  # this pipeline reports no confidence
            draft_ids=draft.ids,
            draft_times=times_at(draft.ends, output["fire_times"][0, :fires].tolist()),
            finish_reason="stop",
        )
        return words_from(hypothesis, self.tokenizer.inner, duration)


def chunks(samples: int, seconds: float, stride: float | Sequence[float]) -> list[Part]:
    """Cut so many samples into parts that overlap by the strides at their left and right ends.

    Raises:
        ValueError: the strides leave nothing of a part.
    """
    left, right = (stride, stride) if isinstance(stride, int | float) else stride
    length, left_samples, right_samples = (
        round(value * SAMPLE_RATE) for value in (seconds, left, right)
    )
    step = length - left_samples - right_samples
    if step <= 0:
        raise ValueError(
            f"chunk_length_s is {seconds}; it must be above the strides together, {left + right}"
        )
    starts = [0]
    while starts[-1] + length < samples:
        starts.append(starts[-1] + step)
    # What two parts share belongs to the first up to its own stride.
    edges = [0, *(start + left_samples for start in starts[1:]), samples + 1]
    return [
        Part(start, min(start + length, samples), first, last)
        for start, (first, last) in zip(starts, pairwise(edges), strict=True)
    ]


def _read(inputs: Any) -> tuple[np.ndarray, dict[str, Any]]:
    """Return samples at 16 kHz, and what else a dictionary holds."""
    if not isinstance(inputs, Mapping):
        rate = None if isinstance(inputs, str | Path | bytes) else SAMPLE_RATE
        return load_audio(inputs, sample_rate=rate), {}
    extra = {key: value for key, value in inputs.items() if key != "path"}
    samples, array, rate = (extra.pop(key, None) for key in ("raw", "array", "sampling_rate"))
    samples = array if samples is None else samples
    if samples is None or rate is None:
        raise ValueError(
            f"a dictionary needs raw or array, and sampling_rate; this one has: {', '.join(inputs)}"
        )
    return load_audio(samples, sample_rate=rate), extra


def _shifted(words: Sequence[Word], part: Part) -> list[Word]:
    begin = part.start / SAMPLE_RATE
    return [
        Word(word.text, word.start + begin, word.end + begin, word.confidence) for word in words
    ]


def _counts(word: Word, part: Part) -> bool:
    middle = (word.start + word.end) / 2 * SAMPLE_RATE
    return part.first <= middle < part.last or (part.first == part.start and middle < part.last)
