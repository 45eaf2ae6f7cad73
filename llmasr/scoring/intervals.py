"""Percentile bootstrap of ratios of sums, such as errors per word.

Items (utterances, or whole speakers) are drawn with replacement, as many as there are, and the
ratio is taken of the sums drawn; the interval lies between the percentiles of many such ratios
(Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation",
ICASSP 2004; percentiles as in Efron and Tibshirani, "An introduction to the bootstrap", 1993,
chapter 13). The mean of the draws is never used: the ratio of the data themselves is the estimate.

The draws of one seed are the same in every process and do not depend on the order of items.
Letters: I items, D distinct items, R replications, C columns to be summed.
"""

from collections.abc import Hashable, Sequence

import numpy as np

REPLICATIONS = 10_000
SEED = 0
CONFIDENCE = 0.95

# To draw how often a distinct item occurs takes so much longer than to draw one item.
COST_OF_A_COUNT = 30
# Values held at a time, which bounds the memory; more would not be faster.
CHUNK = 1 << 18


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    *,
    constant: float = 0.0,
    replications: int = REPLICATIONS,
    seed: int = SEED,
) -> tuple[float, float] | None:
    """Return the 95 % interval of `(sum(numerators) + constant) / sum(denominators)`.

    Args:
        numerators: [I], finite.
        denominators: [I], zero or above. Draws that sum to zero have no ratio and are left out.
        constant: what is in every sum, because it belongs to no item.
        replications: number of draws.
        seed: of the draws.

    Returns:
        Lower and upper end; None below two items, or if all denominators are zero.
    """
    if len(numerators) < 2 or not np.any(denominators):
        return None
    rows = np.stack([numerators, denominators], axis=1)
    above, below = resampled_sums(rows, replications=replications, seed=seed).T
    return percentile_interval((above[below > 0] + constant) / below[below > 0])


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the ends between which the middle 95 % of `values` [R] lie."""
    margin = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [margin, 1 - margin])
    return float(low), float(high)


def sums_by_block(rows: np.ndarray, blocks: Sequence[Hashable]) -> np.ndarray:
    """Sum the rows [I, C] of each block, in order of first occurrence: [blocks, C]."""
    places: dict[Hashable, int] = {}
    place_of = [places.setdefault(block, len(places)) for block in blocks]
    sums = np.zeros((len(places), rows.shape[1]), dtype=rows.dtype)
    np.add.at(sums, place_of, rows)
    return sums


def resampled_sums(
    rows: np.ndarray, *, replications: int = REPLICATIONS, seed: int = SEED
) -> np.ndarray:
    """Draw I of the rows [I, C] with replacement and sum them, again and again: [R, C] float64.

    Rows that are equal need not be told apart. So where few are distinct, one multinomial draw
    says how often each occurs; where many are, rows are drawn one by one, which is then faster.
    Sums of whole numbers are exact up to 2 ** 53.
    """
    if replications < 1:
        raise ValueError(f"replications is {replications}; at least 1 is needed")
    distinct, counts = np.unique(rows.astype(np.float64), axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    if len(distinct) * COST_OF_A_COUNT < len(rows):
        return _sums_of_counts(distinct, counts, replications, generator)
    return _sums_of_draws(np.repeat(distinct, counts, axis=0), replications, generator)


def _sums_of_counts(
    distinct: np.ndarray, counts: np.ndarray, replications: int, generator: np.random.Generator
) -> np.ndarray:
    """Sum the distinct rows [D, C], of which there are `counts` [D]."""
    total = int(counts.sum())
    sums = np.empty((replications, distinct.shape[1]))
    for chunk in _chunks(replications, len(distinct)):
        size = chunk.stop - chunk.start
        drawn = generator.multinomial(total, counts / total, size=size)  # [chunk, D]
        sums[chunk] = np.einsum("rd,dc->rc", drawn, distinct)
    return sums


def _sums_of_draws(
    rows: np.ndarray, replications: int, generator: np.random.Generator
) -> np.ndarray:
    """Sum rows [I, C] that are drawn one by one.

    Two columns travel as one complex number: fetching rows is what takes the time.
    """
    items, columns = rows.shape
    padded = np.zeros((items, columns + columns % 2))
    padded[:, :columns] = rows
    pairs = padded.view(np.complex128).T.copy()  # [C / 2, I]
    sums = np.empty((replications, len(pairs)), dtype=np.complex128)
    for chunk in _chunks(replications, items):
        drawn = generator.integers(items, size=(chunk.stop - chunk.start, items))
        for column, values in enumerate(pairs):
            sums[chunk, column] = values.take(drawn).sum(1)
    return sums.view(np.float64)[:, :columns]


def _chunks(replications: int, width: int) -> list[slice]:
    """Cut the replications into parts that hold about `CHUNK` values of `width` each."""
    size = max(1, CHUNK // width)
    return [slice(i, min(i + size, replications)) for i in range(0, replications, size)]


def bracket(interval: tuple[float, float] | None, digits: int) -> str:
    """Return ` [95 % CI low to high]`, as it stands behind a number; empty without interval."""
    if interval is None:
        return ""
    low, high = interval
    return f" [{100 * CONFIDENCE:.0f} % CI {low:.{digits}f} to {high:.{digits}f}]"
