"""X-LLM (arXiv 2305.04160): interfaces whose vectors a language model reads as if they were words.

Composition only: the parts come built, and any of them can be replaced by a stub. Knows no files
and no tokenizers.

Letters: B batch, N speech tokens, L positions, H LM width, V vocabulary.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from llmasr.config import ModelConfig
from llmasr.models.language.base import as_language_model
from llmasr.models.speech import SpeechInterface
from llmasr.models.splice import splice
from llmasr.models.vision import ImageInterface, VideoInterface
from llmasr.prompts import PromptIds

IGNORED = -100
BOUNDARY_SCALE = 0.02


class XLLM(nn.Module):
    """A language model with interfaces.

    Args:
        interfaces: by modality: "speech", "image", "video".
        language_model: any transformers causal LM, or one of ours, whose width is that of the
            adaptors.
        prompt: ids around the speech, from :func:`llmasr.prompts.lay_out`.
        config: travels with the model and is stored in its checkpoint.

    Raises:
        ValueError: an adaptor and the language model have different widths.
    """

    def __init__(
        self,
        interfaces: Mapping[str, nn.Module],
        language_model: PreTrainedModel,
        prompt: PromptIds,
        config: ModelConfig,
    ) -> None:
        super().__init__()
        # The module holds the weights; the reader is how everything here speaks to it.
        self.reader = as_language_model(language_model)
        width = self.reader.width
        for part in (config.speech, config.vision):
            if part is not None and part.adaptor_width != width:
                raise ValueError(
                    f"adaptor_width is {part.adaptor_width}; the language model needs {width}"
                )
        self.interfaces = nn.ModuleDict(interfaces)
        self.language_model = language_model
        self.prompt = prompt
        self.config = config
        # One vector before and one after what a modality says: [2, H].
        self.boundaries = nn.ParameterDict(
            {name: torch.randn(2, width) * BOUNDARY_SCALE for name in interfaces}
        )

    def train(self, mode: bool = True) -> "XLLM":
        """Set the mode; parts whose weights are all frozen stay in eval mode."""
        super().train(mode)
        parts = [part for interface in self.interfaces.values() for part in interface.children()]
        for part in (*parts, self.language_model):
            part.train(mode and any(weight.requires_grad for weight in part.parameters()))
        return self

    @property
    def speech(self) -> SpeechInterface:
        """Return the speech interface."""
        return self.interfaces["speech"]  # type: ignore[return-value]

    @property
    def image(self) -> ImageInterface:
        """Return the image interface.

        Raises:
            ValueError: the model has none.
        """
        return self._interface("image")  # type: ignore[return-value]

    @property
    def video(self) -> VideoInterface:
        """Return the video interface.

        Raises:
            ValueError: the model has none.
        """
        return self._interface("video")  # type: ignore[return-value]

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Return the LM's word vectors of ``ids``, [len(ids), H]."""
        return self.reader.embed(
            torch.tensor(ids, dtype=torch.int64, device=self.language_model.device)
        )

    def prompt_pieces(
        self,
        rows: Sequence[Mapping[str, Tensor]],
        prompts: Sequence[PromptIds] | None = None,
    ) -> list[list[Tensor]]:
        """Return each row's prompt: ids before, what is seen and heard, ids after.

        What a modality says stands between its two boundary vectors, or between tags where the
        prompt spells them.

        Args:
            rows: by modality, in the order in which they are to be read, vectors [n, H] from the
                adaptor. Rows may have different modalities, or none.
            prompts: of each row; None for that of training.
        """
        prompts = prompts or [self.prompt] * len(rows)
        # Rows of a batch mostly have one prompt between them; its words are looked up once.
        words: dict[int, tuple[Tensor, Tensor]] = {}
        edges: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        pieces = []
        for row, prompt in zip(rows, prompts, strict=True):
            key = id(prompt)
            if key not in words:
                words[key] = self.embed(prompt.before), self.embed(prompt.after)
            before, after = words[key]
            said: list[Tensor] = []
            for name, vectors in row.items():
                if (key, name) not in edges:
                    edges[key, name] = self._edges(name, prompt)
                opening, closing = edges[key, name]
                said += [part.to(before.dtype) for part in (opening, vectors, closing)]
            pieces.append([before, *said, after])
        return pieces

    def _edges(self, modality: str, prompt: PromptIds) -> tuple[Tensor, Tensor]:
        """Return what stands before and after what a modality says, each [n, H]."""
        if prompt.tags is None:
            opening, closing = self.boundaries[modality].split(1)
            return opening, closing
        opening_ids, closing_ids = prompt.tags[modality]
        return self.embed(opening_ids), self.embed(closing_ids)

    def loss(self, speech: Tensor, lengths: Tensor, answers: Sequence[Sequence[int]]) -> Tensor:
        """Return the mean cross entropy of the answers to speech alone, after the usual prompt.

        Args:
            speech: [B, N, H] vectors from the adaptor.
            lengths: [B] int64.
            answers: ids of each answer, with the end id.
        """
        sums = self.losses(speech_rows(speech, lengths), answers)
        return sums.sum() / sum(map(len, answers))

    def losses(
        self,
        rows: Sequence[Mapping[str, Tensor]],
        answers: Sequence[Sequence[int]],
        prompts: Sequence[PromptIds] | None = None,
        drafts: Sequence[Sequence[int]] | None = None,
    ) -> Tensor:
        """Return the cross entropy of each row's answer, summed over its ids: [B].

        Args:
            rows: what each prompt shows and lets hear; see `prompt_pieces`.
            answers: ids of each answer, with the end id.
            prompts: of each row; None for that of training.
            drafts: ids that each row reads in the place of its answer, one fewer than what it
                answers to them; see :func:`llmasr.training.drafts.next_ids`. None: the answers.
        """
        pieces = self.prompt_pieces(rows, prompts)
        prompt_lengths = torch.tensor([sum(map(len, row)) for row in pieces])
        for row, read in zip(pieces, drafts or [answer[:-1] for answer in answers], strict=True):
            row.append(self.embed([*read, 0]))  # the last place is never read from
        embeddings, mask = splice(pieces)
        labels = torch.full(mask.shape, IGNORED, device=mask.device)
        for label, answer in zip(labels, answers, strict=True):
            label[-len(answer) :] = torch.tensor(answer, device=mask.device)
        logits, _ = self.reader.read(embeddings, mask, prompt_lengths.to(mask.device))  # [B, L, V]
        each = cross_entropy(
            logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(),
            ignore_index=IGNORED, reduction="none",
        )  # fmt: skip
        return each.view(len(labels), -1).sum(1)

    def _interface(self, modality: str) -> nn.Module:
        if modality not in self.interfaces:
            known = ", ".join(self.interfaces)
            raise ValueError(f"{modality} is given; this model takes: {known}")
        return self.interfaces[modality]


def speech_rows(vectors: Tensor, lengths: Tensor) -> list[dict[str, Tensor]]:
    """Take padded speech [B, N, H], lengths [B], apart for `XLLM.prompt_pieces`."""
    return [{"speech": row[:length]} for row, length in zip(vectors, lengths.tolist(), strict=True)]
