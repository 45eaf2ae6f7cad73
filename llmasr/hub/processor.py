"""What lies around the model in the habits of transformers: sound in, ids in, text out.

Sound goes through `llmasr.audio` and ids through our own tokenizer, so both are what a `Recognizer`
would use. Log-mel features are computed inside the model.

Letters: B batch, S samples, L positions.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from transformers import (
    BatchFeature,
    ProcessorMixin,
    SequenceFeatureExtractor,
)

from llmasr.audio import SAMPLE_RATE, load_audio
from llmasr.decoding.segment import sounding_spans
from llmasr.hub.tokenizer import AUDIO_TOKEN, LlmasrTokenizer
from llmasr.prompts import lay_out

RETURN_FORMATS = ("raw", "parsed", "transcription_only")


class LlmasrFeatureExtractor(SequenceFeatureExtractor):
    """Any sounds to one padded batch of waveforms at 16 kHz."""

    model_input_names: ClassVar = ["input_features", "attention_mask"]

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = SAMPLE_RATE,
        padding_value: float = 0.0,
        **kwargs: Any,
    ) -> None:
        if sampling_rate != SAMPLE_RATE:
            raise ValueError(f"sampling_rate is {sampling_rate}; the models hear {SAMPLE_RATE} Hz")
        super().__init__(feature_size, sampling_rate, padding_value, **kwargs)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        padding: bool | str = True,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make a batch.

        Args:
            raw_speech: one sound (samples [S] or whatever else `llmasr.load_audio` reads), or
                several: a list of them, or an array [B, S].
            sampling_rate: Hz, of samples; others than 16 kHz are resampled. None: 16 kHz.
            padding: as in transformers; by default to the longest.
            return_tensors: "pt" or "np".
            kwargs: `max_length`, `truncation`, `return_attention_mask` ... as in transformers.

        Returns:
            `input_features` [B, S] float32 and `attention_mask` [B, S], 1 on samples. Digital
            silence becomes a single sample, in which nothing can be heard.

        Raises:
            AudioError: a sound cannot be read, or holds NaN.
        """
        rate = sampling_rate or self.sampling_rate
        waveforms = [_read(sound, rate) for sound in _as_list(raw_speech)]
        batch = BatchFeature({"input_features": waveforms})
        return self.pad(batch, padding=padding, return_tensors=return_tensors or "np", **kwargs)


class LlmasrProcessor(ProcessorMixin):
    """Feature extractor and tokenizer in one, and the requests a model understands.

    Args:
        feature_extractor, tokenizer: the two.
        default_transcription_prompt: the instruction the model was trained with.
        prompt_layout: how speech and instruction meet; see `llmasr.prompts`.
        languages: codes of what it understands.
    """

    def __init__(
        self,
        feature_extractor: LlmasrFeatureExtractor,
        tokenizer: LlmasrTokenizer,
        default_transcription_prompt: str = "",
        prompt_layout: str = "plain",
        languages: Sequence[str] = (),
        chat_template: None = None,
    ) -> None:
        self.default_transcription_prompt = default_transcription_prompt
        self.prompt_layout = prompt_layout
        self.languages = list(languages)
        super().__init__(feature_extractor, tokenizer, chat_template=chat_template)

    def __call__(
        self,
        audio: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        sampling_rate: int | None = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Make the inputs of a model.

        Args:
            audio: one sound or several, as `LlmasrFeatureExtractor` takes them.
            text: with audio the instruction, one for all or one for each sound; alone the texts to
                turn into ids, each with the end id.
            sampling_rate: Hz, of samples; None: 16 kHz.
            return_tensors: "pt" or "np".
            kwargs: to the feature extractor, or to the tokenizer if there is no audio.

        Returns:
            `input_features` and `attention_mask`; with an instruction `input_ids`,
            `attention_mask`, `input_features` and `input_features_mask`.
        """
        if audio is None:
            if text is None:
                raise ValueError("audio and text are both None; one of them is needed")
            return self.tokenizer(text, return_tensors=return_tensors, **kwargs)
        sounds = self.feature_extractor(
            audio, sampling_rate=sampling_rate, return_tensors=return_tensors, **kwargs
        )
        if text is None:
            return sounds
        prompts = self._prompts(text, len(sounds["input_features"]))
        padded = self.tokenizer.pad(
            {"input_ids": prompts}, padding_side="left", return_tensors=return_tensors
        )
        features, mask = sounds["input_features"], sounds["attention_mask"]
        return BatchFeature({**padded, "input_features": features, "input_features_mask": mask})

    def apply_transcription_request(
        self,
        audio: Any,
        prompt: str | Sequence[str | None] | None = None,
        language: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make the inputs that ask a model to write down what is said.

        Args:
            audio: one sound or several; paths are read.
            prompt: another instruction than that of training, for all or for each sound. Models
                are trained with one instruction: expect less of another.
            language: what is spoken, one of `languages`.
            kwargs: `sampling_rate`, `return_tensors`; as in a call.

        Raises:
            ValueError: the model does not understand the language, or numbers do not match.
        """
        if language is not None and language not in self.languages:
            raise ValueError(
                f"language is {language!r}; this model understands: {', '.join(self.languages)}"
            )
        prompts = prompt if prompt is None or isinstance(prompt, str) else list(prompt)
        default = self.default_transcription_prompt
        if isinstance(prompts, list):
            text: str | list[str] = [default if item is None else item for item in prompts]
        else:
            text = default if prompts is None else prompts
        return self(audio, text, **kwargs)

    def decode(self, token_ids: Any, *, return_format: str = "raw", **kwargs: Any) -> Any:
        """Turn ids into text; one row of ids gives one result, several rows a list.

        Args:
            token_ids: [A], or [B, A].
            kwargs: to the tokenizer: `skip_special_tokens` ...
            return_format: "raw" gives the text as the tokenizer does, "transcription_only" the text
                without special tokens, "parsed" `{"language": ..., "transcription": ...}`, where
                the language is None if the model understands several.
        """
        if return_format not in RETURN_FORMATS:
            raise ValueError(
                f"return_format is {return_format!r}; allowed: {', '.join(RETURN_FORMATS)}"
            )
        if return_format == "raw":
            return self.tokenizer.decode(token_ids, **kwargs)
        texts = self.tokenizer.decode(token_ids, **kwargs | {"skip_special_tokens": True})
        if return_format == "transcription_only":
            return texts
        return self._parsed(texts) if isinstance(texts, str) else [*map(self._parsed, texts)]

    def batch_decode(self, token_ids: Any, **kwargs: Any) -> Any:
        """Do what `decode` does, under the older name."""
        return self.decode(token_ids, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Names of everything a call can return."""
        return ["input_ids", "attention_mask", "input_features", "input_features_mask"]

    def _parsed(self, text: str) -> dict[str, str | None]:
        language = self.languages[0] if len(self.languages) == 1 else None
        return {"language": language, "transcription": text}

    def _prompts(self, text: str | Sequence[str], count: int) -> list[list[int]]:
        instructions = [text] * count if isinstance(text, str) else list(text)
        if len(instructions) != count:
            raise ValueError(f"{len(instructions)} instructions for {count} sounds")
        layouts = [
            lay_out(self.tokenizer.inner, instruction, self.prompt_layout)
            for instruction in instructions
        ]
        marker = self.tokenizer.convert_tokens_to_ids(AUDIO_TOKEN)
        opened = ((layout, *(layout.tags or {}).get("speech", ([], []))) for layout in layouts)
        return [
            [*layout.before, *opening, marker, *closing, *layout.after]
            for layout, opening, closing in opened
        ]


def _as_list(raw_speech: Any) -> list[Any]:
    """Tell several sounds from one: a list of numbers is one, an array [B, S] several."""
    if isinstance(raw_speech, list | tuple):
        is_one = bool(raw_speech) and isinstance(raw_speech[0], int | float)
        return [np.asarray(raw_speech, np.float32)] if is_one else list(raw_speech)
    return list(raw_speech) if getattr(raw_speech, "ndim", 1) == 2 else [raw_speech]


def _read(sound: Any, rate: int) -> np.ndarray:
    if isinstance(sound, list | tuple):
        sound = np.asarray(sound, np.float32)
    waveform = load_audio(sound, sample_rate=rate if hasattr(sound, "ndim") else None)
    return waveform if sounding_spans(waveform) else np.zeros(1, np.float32)
