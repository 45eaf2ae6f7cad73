"""Answers that are read from drafts: how draft and verify becomes fast.

Trained on transcripts alone, a language model has only ever read right beginnings. Draft and verify
lets it read the whole CIF hypothesis, and what it says behind the first error is of use only if it
can tell the error from what it hears. So in training it reads hypotheses too, and at every place it
has to say how the transcript goes on from there. (Kou et al., arXiv 2403.00835, train language
models to mend their own guesses for the same end.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmasr.decoding.timestamps import align
from llmasr.models.speech import SpeechTokens
from llmasr.models.xllm import XLLM, speech_rows


def draft_loss(model: XLLM, heard: SpeechTokens, answers: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean cross entropy of answers to speech, half of them read from drafts.

    Every other row reads, in the place of its answer, a hypothesis drawn from what CIF heard: on
    speech it was trained on, the likeliest one is too good to learn from.

    Args:
        model: speech interface and language model share their ids.
        heard: what the interface heard, firing freely as in use.
        answers: ids of each answer, with the end id.
    """
    lengths = heard.cif.token_lengths
    chances = heard.token_logits.detach().softmax(-1)  # [B, N, V]; N may be 0
    drawn = (chances / torch.empty_like(chances).exponential_()).argmax(-1).tolist()
    drafts = [list(answer[:-1]) for answer in answers]
    replies = [list(answer) for answer in answers]
    for row in range(0, len(answers), 2):
        drafts[row] = drawn[row][: int(lengths[row])]
        replies[row] = next_ids(drafts[row], answers[row])
    rows = speech_rows(model.speech.adaptor(heard.tokens), lengths)
    return model.losses(rows, replies, drafts=drafts).sum() / sum(map(len, replies))


def next_ids(draft: Sequence[int], answer: Sequence[int]) -> list[int]:
    """Return what comes next in the answer before, between and after the ids of a draft.

    Draft and answer are aligned with the fewest edits. Behind an id that is wrong the answer goes
    on with the id after the one that it stands for, behind one that is too many with the same id
    again, and where ids are missing with the first of them.

    Args:
        draft: K ids.
        answer: ids of the answer with the end id.

    Returns:
        K + 1 ids.
    """
    reached, said = 0, [answer[0]]
    for counterpart in align(draft, answer[:-1]):
        reached = reached if counterpart is None else counterpart + 1
        said.append(answer[reached])
    return said
