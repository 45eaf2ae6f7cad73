"""X-LLM as a model of transformers: `generate`, `save_pretrained`, adapters and the rest.

The network is `llmasr.models.xllm.XLLM`, unchanged; the language model inside does the generating,
so whatever it can do (beams, sampling, static caches ...) works here.

Letters: B batch, S samples, N speech tokens, L positions, H LM width, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast

from llmasr.config import to_dict
from llmasr.decoding.drafts import DraftSource, same_ids
from llmasr.decoding.greedy import draft_source
from llmasr.decoding.hypothesis import Request, check_room, max_new_tokens
from llmasr.filterbank import FilterBank
from llmasr.hub.config import LlmasrConfig, language_config
from llmasr.hub.sequences import EndAfterFires, after_prompts, split_prompts
from llmasr.hub.shared import name_shared_weights_once
from llmasr.hub.tokenizer import LlmasrTokenizer
from llmasr.models.checkpoint import Bundle, build_interfaces
from llmasr.models.language.saved import build_language_model
from llmasr.models.speech import SpeechTokens
from llmasr.models.splice import splice
from llmasr.models.xllm import IGNORED, XLLM, speech_rows
from llmasr.prompts import PromptIds

# Options of `from_pretrained` that say where a folder is.
PLACES = {"cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token"}


class LlmasrForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Hears waveforms and writes text.

    Without `input_ids` the model uses the prompt it was trained with, `attention_mask` is that of
    the waveforms, and `generate` returns the answers alone: this is how the pipeline of
    transformers asks. With `input_ids` (from `LlmasrProcessor.apply_transcription_request`)
    `attention_mask` is theirs, `input_features_mask` that of the waveforms, and answers follow
    their `input_ids`.

    A language model with a vocabulary of its own needs more tokens for some words than were heard,
    so `draft`, which knows how many, comes with such a model from its folder.
    """

    config_class = LlmasrConfig
    config: LlmasrConfig
    base_model_prefix = "xllm"
    main_input_name = "input_features"
    input_modalities = ("audio", "text")
    # Its sums over time need the precision, and it is small.
    _keep_in_fp32_modules_strict: ClassVar = ["interfaces"]
    # What attends is the language model, which refuses for itself what it cannot do.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    supports_gradient_checkpointing = True

    def __init__(self, config: LlmasrConfig) -> None:
        super().__init__(config)
        asr = config.model_config
        # transformers builds on the meta device, where the filterbank cannot compute its windows.
        with torch.device("cpu"):
            interfaces = build_interfaces(asr)
        self.xllm = XLLM(
            interfaces,
            build_language_model(config.text_config),
            PromptIds(config.prompt_before or [], config.prompt_after or [], config.prompt_tags),
            asr,
        )
        self.draft: DraftSource | None = None if config.own_vocabulary else same_ids
        name_shared_weights_once(self, "xllm.interfaces")
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load a folder; see transformers.

        Raises:
            ValueError: weights are missing, unknown or of another shape; none stays random. Or a
                file of the tokenizer is missing, where the model needs it.
        """
        folder = pretrained_model_name_or_path
        is_asked = kwargs.pop("output_loading_info", False)
        model, report = super().from_pretrained(folder, *args, output_loading_info=True, **kwargs)
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if names := sorted(str(name) for name in report[problem]):
                raise ValueError(f"{folder}: {problem.replace('_', ' ')}: {', '.join(names[:5])}")
        if model.config.own_vocabulary:
            model.draft = _own_draft(folder, {key: kwargs[key] for key in PLACES & kwargs.keys()})
        return (model, report) if is_asked else model

    @classmethod
    def wrap(cls, bundle: Bundle, audio_token_id: int) -> "LlmasrForConditionalGeneration":
        """Put the model of a bundle, not a copy of it, into a model of transformers."""
        xllm = bundle.model
        config = LlmasrConfig(
            asr_config=to_dict(xllm.config),
            text_config=language_config(xllm.language_model),
            prompt_before=list(xllm.prompt.before),
            prompt_after=list(xllm.prompt.after),
            prompt_tags=xllm.prompt.tags,
            audio_token_id=audio_token_id,
            own_vocabulary=bundle.speech_tokenizer is not None,
        )
        with torch.device("meta"):
            model = cls(config)
        model.xllm = xllm
        model.draft = draft_source(bundle)
        return model.eval()

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write weights and configuration; the dtype on record is that of the language model."""
        super().save_pretrained(save_directory, **kwargs)
        self.config.dtype = self.xllm.language_model.dtype
        self.config.save_pretrained(save_directory)

    @property
    def generation_config(self) -> GenerationConfig:
        """The defaults of `generate`, which are those of the language model."""
        return self.xllm.language_model.generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        # The base class sets one before there is a language model.
        if "xllm" in self._modules:
            self.xllm.language_model.generation_config = value

    def get_input_embeddings(self) -> nn.Module:
        """Return the word vectors of the language model."""
        return self.xllm.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word vectors of the language model."""
        self.xllm.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the last layer of the language model."""
        return self.xllm.language_model.get_output_embeddings()

    def hear(self, input_features: Tensor, attention_mask: Tensor | None = None) -> SpeechTokens:
        """Turn waveforms into acoustic tokens, CIF hypothesis and fires.

        Args:
            input_features: [B, S] float, 16 kHz, padded on the right.
            attention_mask: [B, S], 1 on samples; None if nothing is padding.

        Raises:
            ValueError: the shape is another one, or the padding is not on the right.
        """
        if input_features.ndim != 2:
            raise ValueError(
                f"input_features is {list(input_features.shape)}; waveforms [B, S] are needed"
            )
        if attention_mask is None:
            attention_mask = torch.ones_like(input_features, dtype=torch.int64)
        if (attention_mask.diff(dim=1) > 0).any():
            raise ValueError("attention_mask: waveforms must be padded on the right")
        lengths = attention_mask.sum(1).long()
        return self.xllm.speech.listen(*self.xllm.speech.features(input_features, lengths))

    def get_audio_features(
        self, input_features: Tensor, input_features_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPooling:
        """Return what the language model reads as speech.

        Returns:
            `last_hidden_state` [B, N, H], and in `pooler_output` the valid ones of all rows, one
            after the other.
        """
        heard = self.hear(input_features, input_features_mask)
        vectors = self.xllm.speech.adaptor(heard.tokens)
        rows = zip(vectors, heard.cif.token_lengths.tolist(), strict=True)
        return BaseModelOutputWithPooling(
            last_hidden_state=vectors,
            pooler_output=torch.cat([row[:length] for row, length in rows]),
        )

    def forward(
        self,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        input_ids: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Score answers, or say what comes first.

        Args:
            input_features: waveforms [B, S].
            attention_mask: [B, S], or [B, L] if there are `input_ids`.
            labels: [B, A] ids of the answers with the end id, -100 on padding.
            input_ids: [B, L] prompts with one `audio_token_id` each, or None.
            input_features_mask: [B, S] if there are `input_ids`.

        Returns:
            With labels `loss`, the mean cross entropy of the answers; without `logits` [B, 1, V].
        """
        prompts = split_prompts(input_ids, attention_mask, self.config.audio_token_id)
        mask = attention_mask if prompts is None else input_features_mask
        heard = self.hear(_required(input_features), mask)
        vectors, lengths = self.xllm.speech.adaptor(heard.tokens), heard.cif.token_lengths
        if labels is not None:
            if prompts is not None:
                raise ValueError("labels with input_ids: a model is trained with its own prompt")
            answers = [row[row != IGNORED].tolist() for row in labels]
            return CausalLMOutputWithPast(loss=self.xllm.loss(vectors, lengths, answers))
        embeddings, places = splice(self._pieces(vectors, lengths, prompts))
        logits, _cache = self.xllm.reader.read(embeddings, places, places.sum(1), keep=1)
        return CausalLMOutputWithPast(logits=logits)

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        input_features_mask: Tensor | None = None,
        encoder_outputs: SpeechTokens | None = None,
        **options: Any,
    ) -> Any:
        """Write what is said.

        An answer is no longer than its fires allow, and empty where nothing fired, whatever
        `max_new_tokens` is.

        Args:
            inputs: another name of input_features.
            input_features: waveforms [B, S].
            attention_mask: [B, S], or [B, L] if there are `input_ids`.
            input_ids: [B, L] prompts with one `audio_token_id` each, or None.
            input_features_mask: [B, S] if there are `input_ids`.
            encoder_outputs: what `hear` returned, instead of waveforms.
            options: those of `generate` of transformers: `num_beams`, `do_sample` ...

        Returns:
            Ids [B, A] int64, padded on the right, after `input_ids` if there are any; or the
            output of `generate` that holds them as `sequences`.

        Raises:
            ValueError: the prompt and its longest answer do not fit into the language model; or
                `draft` is None, as it is without a folder if there are two vocabularies.
        """
        prompts = split_prompts(input_ids, attention_mask, self.config.audio_token_id)
        if encoder_outputs is None:
            waveforms = _required(input_features if input_features is not None else inputs)
            mask = attention_mask if prompts is None else input_features_mask
            encoder_outputs = self.hear(waveforms, mask)
        lengths = encoder_outputs.cif.token_lengths
        vectors = self.xllm.speech.adaptor(encoder_outputs.tokens)
        embeddings, places = splice(self._pieces(vectors, lengths, prompts))
        bounds = self._bounds(encoder_outputs)
        reader = self.xllm.reader
        check_room(reader, places, [Request([], bound) for bound in bounds])
        limits = options.get("generation_config") or self.generation_config
        if limits.max_new_tokens is None and limits.max_length is None:
            # Otherwise transformers takes 20; options of the same name come first.
            options = {"max_new_tokens": max(bounds) + 1} | options
        processors = LogitsProcessorList(options.pop("logits_processor", None) or [])
        processors.append(EndAfterFires(bounds, reader.stop_ids))
        generated = reader.generate(
            embeddings, places, places.sum(1), logits_processor=processors, **options
        )
        return generated if input_ids is None else after_prompts(input_ids, generated)

    def _init_weights(self, module: nn.Module) -> None:
        """Fill buffers that are in no file; all else has its weights from its constructor."""
        if isinstance(module, FilterBank):
            for name, value in FilterBank(module.triangles.shape[1]).named_buffers():
                buffer = module.get_buffer(name)
                buffer.data.copy_(value.to(buffer.device))

    def _bounds(self, heard: SpeechTokens) -> list[int]:
        """Return the most tokens of each answer, as many as a `Recognizer` allows."""
        if self.draft is None:
            raise ValueError("draft is None; from_pretrained sets it, or LlmasrTokenizer.draft")
        fires = heard.cif.token_lengths.tolist()
        rows = zip(heard.token_logits.argmax(-1).tolist(), fires, strict=True)
        drafts = [self.draft(row[:count]).ids for row, count in rows]
        return [
            max_new_tokens(max(count, len(draft))) if count else 0
            for count, draft in zip(fires, drafts, strict=True)
        ]

    def _pieces(
        self, vectors: Tensor, lengths: Tensor, prompts: Sequence[PromptIds] | None
    ) -> list[list[Tensor]]:
        """Return the pieces of each prompt; see `XLLM.prompt_pieces`."""
        rows = speech_rows(vectors, lengths)
        if prompts is None:
            return self.xllm.prompt_pieces(rows)
        # Tags that are spelled out are among the ids already.
        if self.xllm.prompt.tags is not None:
            prompts = [prompt._replace(tags={"speech": ([], [])}) for prompt in prompts]
        return self.xllm.prompt_pieces(rows, prompts)


def _required(input_features: Tensor | None) -> Tensor:
    if input_features is None:
        raise ValueError("input_features is None; waveforms [B, S] are needed")
    return input_features


def _own_draft(folder: str, places: dict[str, Any]) -> DraftSource:
    tokenizer = LlmasrTokenizer.from_pretrained(folder, **places)
    if tokenizer.speech is None:
        raise ValueError(
            f"{folder}/tokenizer_config.json: names no language_files, or is missing; a language "
            "model with a vocabulary of its own needs them"
        )
    draft: DraftSource = tokenizer.draft
    return draft
