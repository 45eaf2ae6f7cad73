"""Log-mel filterbank features, batched, on whatever device holds the module.

Equal to ``torchaudio.compliance.kaldi.fbank`` with 80 bins, a 25 ms povey window every 10 ms, no
dither and waveforms at 16-bit scale. Knows nothing of files, models or normalisation.

Letters: B batch, S samples, T frames, M mel bins.
"""

import math

import torch
from torch import Tensor, nn

SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 400
HOP_SAMPLES = 160
FFT_SAMPLES = 512
PREEMPHASIS = 0.97
LOW_HZ, HIGH_HZ = 20.0, SAMPLE_RATE / 2
INT16_SCALE = 32_768.0
FLOOR = torch.finfo(torch.float32).eps


def num_frames(num_samples: Tensor) -> Tensor:
    """Return how many whole windows fit: 0 below 400 samples, else 1 + (n - 400) // 160."""
    return ((num_samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1).clamp(min=0)


class FilterBank(nn.Module):
    """Turn waveforms into log-mel energies.

    Args:
        num_bins: number of mel bins M between 20 Hz and 8 kHz.
    """

    window: Tensor  # [samples of a window]
    triangles: Tensor  # [fft / 2 + 1, M]

    def __init__(self, num_bins: int = 80) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW_SAMPLES, periodic=False, dtype=torch.float64).pow(0.85)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("triangles", _mel_triangles(num_bins), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features; a frame uses only samples of its own window.

        Args:
            waveforms: [B, S] float, 16 kHz, in about [-1, 1], zero padded on the right.
            lengths: [B] int64, valid samples.

        Returns:
            features [B, T, M] float32, natural log of mel energy at 16-bit scale, and
            lengths [B] int64 in frames. Frames beyond a length hold no information.
        """
        missing = WINDOW_SAMPLES - waveforms.shape[1]
        if missing > 0:
            waveforms = nn.functional.pad(waveforms, (0, missing))
        frames = (waveforms.float() * INT16_SCALE).unfold(1, WINDOW_SAMPLES, HOP_SAMPLES)
        frames = frames - frames.mean(dim=2, keepdim=True)  # [B, T, window]
        previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=2)
        frames = (frames - PREEMPHASIS * previous) * self.window
        power = torch.fft.rfft(frames, n=FFT_SAMPLES).abs().square()  # [B, T, fft / 2 + 1]
        return (power @ self.triangles).clamp(min=FLOOR).log(), num_frames(lengths)


def _mel(hertz: float) -> float:
    return 1127.0 * math.log1p(hertz / 700.0)


def _mel_triangles(num_bins: int) -> Tensor:
    """Return triangular filters [fft / 2 + 1, M], linear on the mel scale, none at Nyquist."""
    low, high = _mel(LOW_HZ), _mel(HIGH_HZ)
    edges = torch.linspace(low, high, num_bins + 2, dtype=torch.float64)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hertz = torch.arange(FFT_SAMPLES // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / FFT_SAMPLES
    mel = (1127.0 * torch.log1p(hertz / 700.0))[:, None]
    rising, falling = (mel - left) / (centre - left), (right - mel) / (right - centre)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    triangles[-1] = 0.0
    return triangles.float()
