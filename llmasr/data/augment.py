"""Augmentation of log-mel features: quiet, tempo, vocal tract, noise, band limits, SpecAugment.

All of it works on stored features, where it costs next to nothing. Letters: B batch, T frames,
M mel bins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

FLOOR = -15.9424  # log of the smallest energy the filterbank gives


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities (of quiet for a batch, else for a row) and ranges.

    Signal-to-noise ratios are in dB of mean mel energy.
    """

    quiet_probability: float = 0.3
    max_quiet: int = 120
    noise_probability: float = 0.15
    snr_db: tuple[float, float] = (8.0, 30.0)
    band_limit_probability: float = 0.1
    stretch: float = 0.0
    warp: float = 0.1
    time_masks: int = 1
    time_mask_share: float = 0.05
    max_time_mask: int = 20
    frequency_masks: int = 1
    max_frequency_mask: int = 8


def augment(
    features: Tensor, lengths: Tensor, noise: Tensor, config: AugmentConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return changed features [B, T', M] and their lengths; everything random is from ``rng``.

    Args:
        features: [B, T, M] log-mel.
        lengths: [B] int64.
        noise: [F, M] log-mel of noise, of any length: it is repeated.
        config: what to do how often.
        rng: a generator on the CPU.
    """
    rows = []
    # All rows or none: one row that grows would make all others carry padding.
    is_quiet = _uniform(rng) < config.quiet_probability
    for row, length in zip(features, lengths.tolist(), strict=True):
        speech = row[:length].clone()
        if is_quiet:
            speech = surround(speech, config.max_quiet, rng)
        if config.stretch:
            speech = stretch_time(speech, 1 + config.stretch * (2 * _uniform(rng) - 1))
        if config.warp:
            speech = warp_frequency(speech, 1 + config.warp * (2 * _uniform(rng) - 1))
        if _uniform(rng) < config.noise_probability:
            low, high = config.snr_db
            speech = add_noise(speech, noise, low + (high - low) * _uniform(rng), rng)
        if _uniform(rng) < config.band_limit_probability:
            speech = speech.clone()
            speech[:, 57 + _integer(rng, 6) :] = FLOOR  # bin 60 lies at 4 kHz
        rows.append(mask_blocks(speech, config, rng))
    return pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def surround(features: Tensor, most: int, rng: torch.Generator) -> Tensor:
    """Put 0 to ``most`` quiet frames before and after [T, M], drawn from the quietest of the clip.

    They are made 0 to 5 nats (22 dB) quieter still, as a clip that was cut tightly has none.
    """
    order = features.mean(1).argsort()
    quietest = features[order[: max(len(features) // 8, 1)]] - 5 * _uniform(rng)
    parts = [
        quietest[torch.randint(len(quietest), (_integer(rng, most + 1),), generator=rng)]
        for _ in range(2)
    ]
    return torch.cat([parts[0], features, parts[1]]).clamp(min=FLOOR)


def stretch_time(features: Tensor, factor: float) -> Tensor:
    """Make [T, M] last ``factor`` times as long, as another tempo at the same pitch would."""
    num_frames = max(round(len(features) * factor), 1)
    return _read_between(features, torch.arange(num_frames) / factor)


def warp_frequency(features: Tensor, factor: float) -> Tensor:
    """Stretch the mel axis of [T, M] by ``factor``, as a longer or shorter vocal tract would."""
    return _read_between(features.T, torch.arange(features.shape[1]) * factor).T


def _read_between(rows: Tensor, positions: Tensor) -> Tensor:
    """Interpolate rows [n, ...] at positions [k], up to the last row."""
    positions = positions.clamp(max=len(rows) - 1)
    below = positions.floor().long()
    above = (below + 1).clamp(max=len(rows) - 1)
    share = (positions - below)[:, None]
    return rows[below] * (1 - share) + rows[above] * share


def add_noise(features: Tensor, noise: Tensor, snr_db: float, rng: torch.Generator) -> Tensor:
    """Mix a random stretch of ``noise`` [F, M] into [T, M]: mel energies of both add up."""
    start = _integer(rng, len(noise))
    index = (start + torch.arange(len(features))) % len(noise)
    piece = noise[index]
    difference = features.exp().mean().log() - piece.exp().mean().log()
    return torch.logaddexp(features, piece + difference - snr_db * 0.230_26)


def mask_blocks(features: Tensor, config: AugmentConfig, rng: torch.Generator) -> Tensor:
    """SpecAugment (Park et al., arXiv 1904.08779): fill stripes of [T, M] with the mean."""
    features = features.clone()
    num_frames, num_bins = features.shape
    mean = features.mean()
    longest = min(config.max_time_mask, int(config.time_mask_share * num_frames))
    for _ in range(config.time_masks):
        size = _integer(rng, longest + 1)
        start = _integer(rng, num_frames - size + 1)
        features[start : start + size] = mean
    for _ in range(config.frequency_masks):
        size = _integer(rng, config.max_frequency_mask + 1)
        start = _integer(rng, num_bins - size + 1)
        features[:, start : start + size] = mean
    return features


def _uniform(rng: torch.Generator) -> float:
    return float(torch.rand((), generator=rng))


def _integer(rng: torch.Generator, limit: int) -> int:
    return int(torch.randint(limit, (), generator=rng))
