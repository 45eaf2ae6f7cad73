"""What this library asks of a language model, and how a transformers model answers.

A language model reads vectors and remembers what it has read. Which positions it counts and what
may look at what follows from two things alone: which places are real, and how long the prompt is.
So left padding, padding between prompt and draft, and places that were taken back all work alike.

Letters: B rows, L places read now, P places read before, H width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor
from transformers import Cache, PreTrainedModel


class LanguageModel(Protocol):
    """A decoder of text that reads vectors of width H."""

    model: PreTrainedModel

    @property
    def width(self) -> int:
        """Width H of what it reads."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    @property
    def max_length(self) -> int | None:
        """Most places of prompt and answer together; None if there is no limit."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Return the vectors of ids [..], [.., H]."""
        ...

    def read(
        self,
        vectors: Tensor,
        mask: Tensor,
        prompt_lengths: Tensor,
        cache: Cache | None = None,
        keep: int = 0,
    ) -> tuple[Tensor, Cache]:
        """Read on, and say what comes next.

        Args:
            vectors: [B, L, H].
            mask: [B, P + L] bool, True on real places, those in the cache included.
            prompt_lengths: [B] int64, real places of the whole prompt, which come first in a row.
            cache: what was read before; it is extended in place.
            keep: give the logits of the last so many places only; 0 for all.

        Returns:
            Logits [B, keep or L, V], and the cache.
        """
        ...

    def generate(
        self, vectors: Tensor, mask: Tensor, prompt_lengths: Tensor, **options: Any
    ) -> Any:
        """Call ``generate`` of transformers on a prompt [B, L, H], mask [B, L]."""
        ...


class CausalLanguageModel:
    """Any causal LM of transformers; every place sees the real ones before it."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def width(self) -> int:
        """Width H of what it reads."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        configured = self.model.generation_config.eos_token_id
        return frozenset([configured] if isinstance(configured, int) else configured or ())

    @property
    def max_length(self) -> int | None:
        """Most places of prompt and answer together; None if the configuration names none."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the vectors of ids [..], [.., H]."""
        vectors: Tensor = self.model.get_input_embeddings()(ids)
        return vectors

    def read(
        self,
        vectors: Tensor,
        mask: Tensor,
        prompt_lengths: Tensor,
        cache: Cache | None = None,
        keep: int = 0,
    ) -> tuple[Tensor, Cache]:
        """Read on; see :class:`LanguageModel`."""
        del prompt_lengths
        output = self.model(
            inputs_embeds=vectors, attention_mask=mask.long(),
            position_ids=count_places(mask)[:, -vectors.shape[1] :], past_key_values=cache,
            use_cache=True, logits_to_keep=keep,
        )  # fmt: skip
        return output.logits, output.past_key_values

    def generate(
        self, vectors: Tensor, mask: Tensor, prompt_lengths: Tensor, **options: Any
    ) -> Any:
        """Call ``generate`` of transformers; see :class:`LanguageModel`."""
        del prompt_lengths
        return self.model.generate(inputs_embeds=vectors, attention_mask=mask.long(), **options)


def count_places(mask: Tensor) -> Tensor:
    """Count the real places of each row of a mask [B, L] from 0; on others, the next real one's."""
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def as_language_model(model: PreTrainedModel) -> LanguageModel:
    """Wrap a transformers model in what this library asks for.

    A model of ours that reads otherwise than a causal LM names its ``language_model_class``.
    """
    wrap: Callable[[PreTrainedModel], LanguageModel] = getattr(
        model, "language_model_class", CausalLanguageModel
    )
    return wrap(model)
