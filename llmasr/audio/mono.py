"""Many channels at any rate -> one at 16 kHz, without losing speech to silence or anti-phase.

Dimension letters: S samples at the rate of the source, C channels.
"""

import numpy as np

from llmasr.audio.sound import SAMPLE_RATE, AudioError, ChannelWarning, ScaleWarning, Sound

# RMS: the rounding of a constant offset is below this, the noise of any converter above.
NOTHING_HEARD = 2e-7
SILENT_BELOW = 0.01
ANTI_PHASE_BELOW = -0.9
INT16_PEAKS = (8.0, 65_536.0)


def to_mono(sound: Sound, channel: str | int, notes: list[Warning]) -> np.ndarray:
    """Resample every channel that is asked for, then average those worth mixing."""
    import soxr

    wanted = slice(None) if channel == "mix" else _channel_slice(sound, channel)
    channels = len(range(sound.channels)[wanted])
    survey = _Survey(channels)
    nothing = np.zeros((0, channels), np.float32)
    parts = [nothing]
    resampler = None
    if sound.rate != SAMPLE_RATE:
        resampler = soxr.ResampleStream(sound.rate, SAMPLE_RATE, channels, "float32", "HQ")
    for block in sound.blocks:
        block = np.ascontiguousarray(block[:, wanted])
        survey.add(block)
        parts.append(resampler.resample_chunk(block) if resampler else block)
    if resampler:
        parts.append(resampler.resample_chunk(nothing, last=True))
    survey.require_finite(sound)
    mixed = survey.worth_mixing(sound.name, notes)
    waveform = np.concatenate([part[:, mixed].mean(axis=1) for part in parts])
    return waveform * np.float32(survey.scale(sound.name, notes))


def _channel_slice(sound: Sound, channel: str | int) -> slice:
    index = {"left": 0, "right": 1}[channel] if isinstance(channel, str) else channel
    if index >= sound.channels:
        raise AudioError(
            f"channel is {channel!r}, but {sound.name} has channels: {sound.channels}; allowed:"
            f" 'mix' or an index below {sound.channels}"
        )
    return slice(index, index + 1)


class _Survey:
    """What the samples of all channels look like, gathered block by block at the source's rate."""

    def __init__(self, channels: int):
        self.count = 0
        self.num_bad = 0
        self.first_bad = -1
        self.peak = 0.0
        self.level = np.zeros(channels)  # RMS without DC of the loudest block
        self.covariance = np.zeros((channels, channels))

    def add(self, block: np.ndarray) -> None:
        """Take the next samples, [S, C]."""
        finite = np.isfinite(block).all(axis=1)
        if finite.all():
            self.peak = max(self.peak, float(block.max()), -float(block.min()))
            centred = block.astype(np.float64) - block.mean(axis=0, dtype=np.float64)
            covariance = centred.T @ centred
            self.covariance += covariance
            self.level = np.maximum(self.level, np.sqrt(covariance.diagonal() / len(block)))
        else:
            if not self.num_bad:
                self.first_bad = self.count + int(np.argmin(finite))
            self.num_bad += int(len(block) - finite.sum())
        self.count += len(block)

    def require_finite(self, sound: Sound) -> None:
        """Refuse sounds that have NaN or infinity in them."""
        if self.num_bad:
            raise AudioError(
                f"{sound.name} has {self.num_bad} samples that are NaN or infinite, the first at"
                f" index {self.first_bad} ({self.first_bad / sound.rate:.3f} s); allowed: numbers"
            )

    def worth_mixing(self, name: str, notes: list[Warning]) -> list[int]:
        """List the channels that add to the mix, and note why others do not."""
        channels = range(len(self.level))
        if self.level.max() < NOTHING_HEARD:
            return list(channels)
        heard = [c for c in channels if self.level[c] >= SILENT_BELOW * self.level.max()]
        kept: list[int] = []
        for c in heard:
            limits = ANTI_PHASE_BELOW * np.sqrt(self.covariance[c, c] * np.diag(self.covariance))
            if all(self.covariance[c, k] >= limits[k] for k in kept):
                kept.append(c)
        silent = sorted(set(channels) - set(heard))
        cancelling = sorted(set(heard) - set(kept))
        what = [f"channels {silent} are silent"] * bool(silent)
        what += [f"channels {cancelling} are in anti-phase and would cancel"] * bool(cancelling)
        if what:
            notes.append(
                ChannelWarning(
                    f"{name}: {' and '.join(what)}; only channels {kept} are mixed. Choose with"
                    " channel='left', 'right' or an index; correct the wiring of anti-phase ones"
                )
            )
        return kept

    def scale(self, name: str, notes: list[Warning]) -> float:
        """Return the factor that brings the samples to [-1, 1]."""
        low, high = INT16_PEAKS
        if self.peak > high:
            raise AudioError(
                f"{name} has a peak of {self.peak:.6g}; allowed: floats in [-1, 1], or up to"
                f" {high:.0f} on the int16 scale"
            )
        if self.peak <= low:
            return 1.0
        notes.append(
            ScaleWarning(
                f"{name} has a peak of {self.peak:.6g}: taken for the int16 scale and divided by"
                " 32768. Divide by the full scale yourself to silence this"
            )
        )
        return 1 / 32_768
