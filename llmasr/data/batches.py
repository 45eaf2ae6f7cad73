"""Batches of stored features, planned so that any step can be found again at once.

The plan of a round is a pure function of (pools, seed, round), so training that was killed goes on
at the very batch where it stopped, without reading what came before.

Letters: B batch, T frames, M mel bins, N tokens.
"""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

# Until this round no cut is longer than so many seconds.
Curriculum = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Pool:
    """Cuts with stored features, and how many of them a round draws (all of them over time)."""

    cuts: CutSet
    draws: int


@dataclass(frozen=True)
class Batch:
    """Padded features and targets of B utterances."""

    features: Tensor  # [B, T, M] float32 log-mel
    lengths: Tensor  # [B] int64 frames
    tokens: Tensor  # [B, N] int64, 0 beyond the length
    token_lengths: Tensor  # [B] int64
    phones: Tensor  # [B, P] int64, 0 beyond the length
    phone_lengths: Tensor  # [B] int64

    def to(self, device: str) -> "Batch":
        """Return the batch on another device."""
        return Batch(**{name: tensor.to(device) for name, tensor in vars(self).items()})


def plan_round(
    pools: Sequence[Pool],
    batch_seconds: float,
    seed: int,
    number: int,
    curriculum: Curriculum = (),
) -> list[list[Cut]]:
    """Return the batches of one round: similar durations together, batches in random order.

    A batch holds at most ``batch_seconds`` of padded audio (one longer cut stands alone). With a
    curriculum the first rounds keep only short cuts, which gets CTC off the ground sooner.
    """
    rng = random.Random(f"{seed}:{number}")
    limits = [seconds for end, seconds in curriculum if number < end]
    longest_allowed = limits[0] if limits else float("inf")
    drawn = [
        cut
        for index, pool in enumerate(pools)
        for cut in _draw(pool, f"{seed}:{index}", number)
        if cut.duration <= longest_allowed
    ]
    # A little noise keeps equal lengths from always meeting the same neighbours.
    drawn.sort(key=lambda cut: cut.duration * rng.uniform(0.93, 1.07))
    batches: list[list[Cut]] = []
    longest = 0.0
    for cut in drawn:
        longest = max(longest, cut.duration)
        if not batches or longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = cut.duration
        batches[-1].append(cut)
    rng.shuffle(batches)
    return batches


def _draw(pool: Pool, seed: str, number: int) -> list[Cut]:
    """Take the ``number``-th slice of ``draws`` cuts from an endless sequence of permutations."""
    cuts = list(pool.cuts)
    drawn: list[Cut] = []
    start = number * pool.draws
    cycle, offset = divmod(start, len(cuts))
    while len(drawn) < pool.draws:
        order = random.Random(f"{seed}:{cycle}").sample(cuts, len(cuts))
        drawn += order[offset : offset + pool.draws - len(drawn)]
        cycle, offset = cycle + 1, 0
    return drawn


def endless(
    pools: Sequence[Pool],
    batch_seconds: float,
    seed: int,
    start: int,
    curriculum: Curriculum = (),
) -> Iterator[list[Cut]]:
    """Yield the cuts of batch ``start`` of all rounds in a row, and so on for ever."""
    rounds = (
        plan_round(pools, batch_seconds, seed, number, curriculum) for number in itertools.count()
    )
    return itertools.islice(itertools.chain.from_iterable(rounds), start, None)


def collate(
    cuts: Sequence[Cut],
    encode: Callable[[str], list[int]],
    spell: Callable[[str], list[int]],
) -> Batch:
    """Load the features of ``cuts`` and encode their texts as tokens and phones."""
    features = [torch.from_numpy(cut.load_features()).float() for cut in cuts]
    texts = [cut.supervisions[0].text or "" for cut in cuts]
    tokens, token_lengths = _pad([encode(text) for text in texts])
    phones, phone_lengths = _pad([spell(text) for text in texts])
    return Batch(
        pad_sequence(features, batch_first=True),
        torch.tensor([len(rows) for rows in features]),
        tokens, token_lengths, phones, phone_lengths,
    )  # fmt: skip


def _pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    padded = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = torch.tensor(row, dtype=torch.int64)
    return padded, lengths
