"""Perceptual loss: what a listener would hear of the difference, in loudness over critical bands.

PESQ's model of the ear (Rix et al., ICASSP 2001; Beerends et al., JAES 50(10), 2002) in differentiable form, as PMSQE
(Martin-Donas et al., IEEE SPL 25(11), 2018) proposed for training: band powers become loudness, small differences are
masked, and what the output adds counts more. The standard's alignment in time and its equalisation of filters are left out,
because here the output is aligned by construction and is to keep its timbre. Its tables are replaced by formulas: critical
bands after Traunmueller, the threshold of hearing after Terhardt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Speech is taken to be heard at 79 dB SPL, the listening level of ITU-T P.862.
_LISTENING_DB = 79.0
# Zwicker's law: loudness grows with the intensity to this power.
_ZWICKER = 0.23


class LoudnessLoss(nn.Module):
    """Mean disturbance between two signals.

    `bands` critical bands up to half the sample rate, `window` samples a frame, `hop` between frames. `asymmetry` weighs
    what was added against the difference as a whole.
    """

    def __init__(self, sample_rate: int, bands: int = 49, window: int = 512, hop: int = 128, asymmetry: float = 0.05):
        super().__init__()
        self.window, self.hop, self.asymmetry = window, hop, asymmetry
        self.span = round(0.32 * sample_rate / hop)
        frequencies = torch.arange(window // 2 + 1) * (sample_rate / window)
        edges = torch.linspace(_bark(0.0), _bark(sample_rate / 2), bands + 1)
        # Shares of every bin in every band: a bin is as wide as its spacing, so that narrow bands share bins.
        lower, upper = _bark_of(frequencies - sample_rate / window / 2), _bark_of(frequencies + sample_rate / window / 2)
        overlap = torch.minimum(upper[:, None], edges[1:]) - torch.maximum(lower[:, None], edges[:-1])
        self.register_buffer("shares", overlap.clamp(min=0) / (upper - lower)[:, None], persistent=False)
        self.register_buffer("taper", torch.hann_window(window), persistent=False)
        centres = _hertz((edges[:-1] + edges[1:]) / 2) / 1000
        threshold_db = 3.64 * centres**-0.8 - 6.5 * torch.exp(-0.6 * (centres - 3.3) ** 2) + 1e-3 * centres**4
        self.register_buffer("threshold", 10 ** (threshold_db.clamp(max=60.0) / 10), persistent=False)
        self.shares: Tensor
        self.taper: Tensor
        self.threshold: Tensor

    def band_powers(self, samples: Tensor) -> Tensor:
        """Samples `[batch, n]` of unit power -> powers relative to the reference of hearing `[batch, frames, bands]`."""
        spectrum = torch.stft(samples, self.window, self.hop, window=self.taper, center=True, return_complex=True)
        power = (spectrum.real**2 + spectrum.imag**2).transpose(1, 2) * (2 / (self.window * float(self.taper.square().sum())))
        return power @ self.shares * 10 ** (_LISTENING_DB / 10)

    def loudness(self, powers: Tensor) -> Tensor:
        """Zwicker's loudness of every band in sone per Bark, zero at the threshold of hearing."""
        relative = 0.5 + 0.5 * powers / self.threshold
        return (2 * self.threshold) ** _ZWICKER * (relative**_ZWICKER - 1).clamp(min=0)

    def frame_disturbances(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both `[batch, n]` -> the whole difference and what was added, `[batch, frames]` each."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        heard, wanted = self.band_powers(output / level), self.band_powers(target / level)
        # A frame that is only louder or softer differs little to the ear; levels are the mel loss's business.
        gain = ((wanted.sum(-1, keepdim=True) + 5e3) / (heard.sum(-1, keepdim=True) + 5e3)).clamp(3e-4, 5.0)
        heard = heard * gain.detach()
        loud_heard, loud_wanted = self.loudness(heard), self.loudness(wanted)
        difference = (loud_heard - loud_wanted).abs()
        audible = (difference - 0.25 * torch.minimum(loud_heard, loud_wanted)).clamp(min=0)
        # The offset keeps the ratio of two inaudible powers at one.
        ratio = ((heard + 50) / (wanted + 50)) ** 1.2
        added = audible * torch.where(ratio < 3, 0, ratio.clamp(max=12)).detach()
        # Soft frames count slightly more, as the standard has it.
        weight = ((wanted.sum(-1) + 1e5) / 1e7) ** -0.04
        return (audible.square().mean(-1) + 1e-8).sqrt() * weight, added.mean(-1) * weight

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, n]` -> the mean over the batch, a scalar: within a third of a second the worst counts most."""
        whole, added = self.frame_disturbances(output, target)
        disturbance = (whole + self.asymmetry * added).unsqueeze(1)
        span = min(self.span, disturbance.shape[2])
        worst = functional.avg_pool1d(disturbance**6, span, max(span // 2, 1)) ** (1 / 6)
        return worst.square().mean((1, 2)).sqrt().mean()


def _bark(hertz: float) -> float:
    return float(_bark_of(torch.tensor(hertz)))


def _bark_of(hertz: Tensor) -> Tensor:
    """Traunmueller, JASA 88(1), 1990, eq. 6."""
    return 26.81 * hertz / (1960 + hertz) - 0.53


def _hertz(bark: Tensor) -> Tensor:
    return 1960 * (bark + 0.53) / (26.28 - bark)
