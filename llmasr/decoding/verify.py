"""Draft and verify: the language model reads a whole draft at once instead of writing it.

The first call reads [prompt | draft]. The logits of the last prompt place and of every draft place
say what the language model would have written there, so the draft stands up to the first place at
which it disagrees, and there its own token is known too. What was read beyond is taken back, and
the next call reads [that token | what is left of the draft, realigned and mended]. A perfect draft
costs one call, an error at most one more; the answer is that of plain greedy search, token for
token.

Letters: B rows, L places of the prompt, P places before, K draft tokens, H width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from llmasr.decoding.drafts import Draft
from llmasr.decoding.hypothesis import Answer, Request, check_room
from llmasr.models.language.base import LanguageModel
from llmasr.modules.masks import valid_mask

# After an error a draft is read so far ahead, farther if it was good until then: a call that reads
# much more costs more, and a bad draft would be read over and over.
LOOKAHEAD, LOOKAHEAD_PER_AGREED = 16, 4
# A draft is mended behind its first error by tokens of at least so much probability. They were said
# to a beginning that is wrong by then, but mostly the speech decides (measured on dev: with 0.2 and
# 0.3 alike fewest calls, for models that learned to read drafts and for others).
MENDS_FROM = 0.25


@dataclass(frozen=True)
class Acceptance:
    """Which tokens of a draft stand: by default only the best ones, which changes no answer.

    Relaxed, the draft is trusted more than that, answers differ from greedy search, and those that
    do are flagged "relaxed" or "gated".

    Attributes:
        top_k: a token stands that is among so many best; 1 for the best only.
        margin: a token stands whose log-probability is at most so far below the best.
        gate: nats; a CIF hypothesis of which no token has more entropy is the answer, and the
            language model is not asked. None: it is always asked.

    Raises:
        ValueError: `top_k` is below 1, or `margin` or `gate` below 0.
    """

    top_k: int = 1
    margin: float = 0.0
    gate: float | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}; at least 1 is needed")
        if not self.margin >= 0:
            raise ValueError(f"margin is {self.margin}; it must be 0 or more")
        if self.gate is not None and not self.gate >= 0:
            raise ValueError(f"gate is {self.gate}; it must be 0 or more, or None")

    @property
    def takes_best(self) -> bool:
        """Whether only the best tokens stand, once the language model is asked."""
        return self.top_k == 1 and self.margin == 0


EXACT = Acceptance()


def can_take_back(reader: LanguageModel) -> bool:
    """Tell whether places can be taken back from the model's memory: all layers remember all."""
    layers = DynamicCache(config=reader.model.config).layers
    return all(type(layer) is DynamicLayer for layer in layers)


@torch.inference_mode()
def draft_and_verify(
    reader: LanguageModel,
    embeddings: Tensor,
    mask: Tensor,
    requests: Sequence[Request],
    acceptance: Acceptance = EXACT,
) -> list[Answer]:
    """Answer a batch of prompts with few calls of the language model.

    In float32 the answers equal those of :func:`llmasr.decoding.greedy.write`. Finished rows leave.

    Args:
        reader: a language model for which `can_take_back` holds.
        embeddings: [B, L, H] prompts, padded on the left.
        mask: [B, L] bool, True on real places.
        requests: a draft and a bound for each row.
        acceptance: which tokens of a draft stand.

    Raises:
        ValueError: a prompt and its answer do not fit; see :func:`check_room`.
    """
    check_room(reader, mask, requests)
    rows = [_Row(request, reader.stop_ids) for request in requests]
    memory = _Memory(reader, embeddings, mask)
    remaining = rows
    while remaining:
        drafts = [row.next_draft() for row in remaining]
        logits = memory.read([row.unread() for row in remaining], drafts)  # [B, 1 + K, V]
        for row, draft, verdict in zip(
            remaining, drafts, _judge(logits, drafts, acceptance), strict=True
        ):
            row.take(draft, verdict)
        staying = [index for index, row in enumerate(remaining) if not row.answer.finish_reason]
        memory.keep(staying, [row.agreed for row in remaining])
        remaining = [remaining[index] for index in staying]
    return [row.answer for row in rows]


def pad_ids(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Pad lists of ids on the right: ids [B, n], 0 on padding, and mask [B, n]."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.int64)
    lengths = torch.tensor([len(row) for row in rows])
    return ids.to(device), valid_mask(lengths, longest).to(device)


class _Row:
    """One utterance: its answer so far and its draft."""

    def __init__(self, request: Request, stop_ids: frozenset[int]) -> None:
        self.answer = Answer(request.bound, request.heard)
        self.agreed = 0  # tokens of the last draft that stood
        self._stop_ids = stop_ids
        self._draft = Draft([token for token in request.draft if token not in stop_ids])

    def unread(self) -> list[int]:
        """Return what the language model wrote itself and has not read yet."""
        return self.answer.ids[-1:]

    def next_draft(self) -> list[int]:
        """Return what to verify; a token at the bound is verified by nothing after it."""
        room = self.answer.bound - len(self.answer.ids) - 1
        if self.answer.forwards:
            room = min(room, LOOKAHEAD + LOOKAHEAD_PER_AGREED * self.agreed)
        return self._draft.rest(self.answer.ids)[: max(room, 0)]

    def take(self, draft: Sequence[int], verdict: "_Verdict") -> None:
        """Take over the judged tokens, up to the first that the draft had not foreseen."""
        answer = self.answer
        answer.forwards += 1
        self.agreed = 0
        for place, (token, log_prob, is_best) in enumerate(zip(*verdict, strict=True)):
            answer.take(token, log_prob, self._stop_ids)
            if place == len(draft) or token != draft[place]:
                self._mend(verdict, len(draft))
                return
            self.agreed += 1
            answer.accepted += 1
            if not is_best:
                answer.flags = ("relaxed",)

    def _mend(self, verdict: "_Verdict", num_read: int) -> None:
        """Replace what is left of the draft by what the language model said to it, if sure."""
        said = zip(verdict.tokens[:num_read], verdict.log_probs, strict=False)
        self._draft.mend(
            [
                token if log_prob >= log(MENDS_FROM) and token not in self._stop_ids else None
                for token, log_prob in said
            ],
            self.agreed,
        )


class _Memory:
    """What the language model has read for the rows that are still open."""

    def __init__(self, reader: LanguageModel, embeddings: Tensor, mask: Tensor) -> None:
        self.reader = reader
        self.prompts: Tensor | None = embeddings  # [B, L, H] until they are read
        self.mask = mask  # [B, P]
        self.prompt_lengths = mask.sum(1)
        self.cache: Cache | None = None

    def read(self, unread: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]) -> Tensor:
        """Read on in every row; return what comes next before and after each draft token.

        Args:
            unread: the one token of each row that the answer has and the memory lacks; none at
                the first call, which reads the prompts instead.
            drafts: K tokens at most.

        Returns:
            Logits [B, 1 + K, V].
        """
        rows = [[*first, *draft] for first, draft in zip(unread, drafts, strict=True)]
        ids, real = pad_ids(rows, self.mask.device)
        vectors = self.reader.embed(ids)
        if self.prompts is not None:
            vectors, self.prompts = torch.cat([self.prompts, vectors], 1), None
        self.mask = torch.cat([self.mask, real], 1)
        self.num_drafted = max(map(len, drafts))
        logits, self.cache = self.reader.read(
            vectors, self.mask, self.prompt_lengths, self.cache, keep=1 + self.num_drafted
        )
        return logits

    def keep(self, rows: Sequence[int], agreed: Sequence[int]) -> None:
        """Keep these rows, and of the last drafts so many tokens of each row.

        Places that no row keeps leave the cache; others are no longer real in the mask.
        """
        if not rows or self.cache is None:
            return
        if len(rows) < len(self.mask):
            chosen = torch.tensor(rows, device=self.mask.device)
            self.cache.batch_select_indices(chosen)
            self.mask, self.prompt_lengths = self.mask[chosen], self.prompt_lengths[chosen]
        kept = [agreed[row] for row in rows]
        superfluous = self.num_drafted - max(kept)
        if superfluous:
            self.cache.crop(-superfluous)
            self.mask = self.mask[:, :-superfluous]
        if max(kept) > min(kept):
            lengths = torch.tensor(kept, device=self.mask.device)
            self.mask[:, -max(kept) :] = valid_mask(lengths, max(kept))


class _Verdict(NamedTuple):
    """What stands at each of the 1 + K places of a row."""

    tokens: list[int]  # the draft's where it is accepted, else the best
    log_probs: list[float]
    is_best: list[bool]


def _judge(
    logits: Tensor, drafts: Sequence[Sequence[int]], acceptance: Acceptance
) -> list[_Verdict]:
    """Compare logits [B, 1 + K, V] with the drafts they were read from."""
    logits = logits.float()
    highest, best = logits.max(-1)  # [B, 1 + K]
    tokens, chosen = best, highest
    if not acceptance.takes_best:
        drafted, real = pad_ids([[*draft, 0] for draft in drafts], logits.device)
        real &= valid_mask(real.sum(1) - 1, real.shape[1])
        score = logits.gather(-1, drafted[..., None])  # [B, 1 + K, 1]
        rank = (logits > score).sum(-1)
        near = (rank < acceptance.top_k) | (highest - score[..., 0] <= acceptance.margin)
        tokens = torch.where(real & near, drafted, best)
        chosen = torch.where(real & near, score[..., 0], highest)
    log_probs = chosen - logits.logsumexp(-1)
    judged = zip(tokens.tolist(), log_probs.tolist(), (tokens == best).tolist(), strict=True)
    return [_Verdict(*row) for row in judged]
