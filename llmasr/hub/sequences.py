"""Ids around `generate`: prompts that come in, the ends of answers, and both as they go out.

Letters: B prompts, R answers, equally many to each prompt and in the order of the prompts,
L positions of a prompt, A positions of an answer, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from llmasr.prompts import PromptIds


class EndAfterFires(LogitsProcessor):
    """Leaves nothing but the end to an answer that is as long as its fires allow.

    Args:
        bounds: most tokens of each of B answers; 0 for one that must be empty.
        stop_ids: ids that end an answer.
    """

    def __init__(self, bounds: Sequence[int], stop_ids: frozenset[int]) -> None:
        if not stop_ids:
            raise ValueError("generation_config has no eos_token_id; an answer needs an end")
        self.bounds = torch.tensor(bounds)
        self.stop_id = min(stop_ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Mask the scores [R, V] of the next ids after [R, A]."""
        bounds = self.bounds.repeat_interleave(len(scores) // len(self.bounds)).to(scores.device)
        is_over = bounds <= input_ids.shape[1]  # [R]
        end = torch.full_like(scores, -torch.inf)
        end[:, self.stop_id] = 0.0
        return torch.where(is_over[:, None], end, scores)


def after_prompts(input_ids: Tensor, generated: Any) -> Any:
    """Put prompts [B, L] before answers [R, A], which may be a whole output of `generate`."""
    answers = generated if isinstance(generated, Tensor) else generated.sequences
    repeated = input_ids.repeat_interleave(len(answers) // len(input_ids), dim=0)
    joined = torch.cat([repeated, answers], 1)
    if isinstance(generated, Tensor):
        return joined
    generated.sequences = joined
    return generated


def split_prompts(
    input_ids: Tensor | None, attention_mask: Tensor | None, marker: int | None
) -> list[PromptIds] | None:
    """Cut each row of ids [B, L] at the place of the speech; None stays None.

    Args:
        input_ids: prompts, padded anywhere.
        attention_mask: [B, L], 1 on ids that count; None for all.
        marker: the id that stands for the speech.

    Raises:
        ValueError: a row has no place for speech, or several.
    """
    if input_ids is None:
        return None
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    prompts = []
    for row, mask in zip(input_ids, attention_mask.bool(), strict=True):
        ids = row[mask].tolist()
        if ids.count(marker) != 1:
            raise ValueError(
                f"input_ids: {ids.count(marker)} places for speech (id {marker}) in a row; "
                "exactly 1 is needed"
            )
        place = ids.index(marker)
        prompts.append(PromptIds(ids[:place], ids[place + 1 :]))
    return prompts
