"""Reconstruction losses: distances between spectra at several resolutions, and between waveforms where phase is coded."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.dsp.stft import mel_filterbank


class LogMel(nn.Module):
    """Samples `[batch, n]` to log10 mel magnitudes `[batch, 1, frames, mels]`, at a quarter window's hop.

    Magnitudes below `floor` count as silence.
    """

    def __init__(self, sample_rate: int, window: int, n_mels: int, floor: float = 1e-4):
        super().__init__()
        self.window, self.floor = window, floor
        self.register_buffer("taper", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filterbank(sample_rate, window, n_mels), persistent=False)
        self.taper: Tensor
        self.filters: Tensor

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(samples, self.window, self.window // 4, window=self.taper, return_complex=True)
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12) / self.taper.square().sum().sqrt()
        return torch.log10(self.filters.T @ magnitude + self.floor).transpose(1, 2).unsqueeze(1)


class MultiScaleMelLoss(nn.Module):
    """Mean absolute difference of log10 mel magnitudes, averaged over window lengths.

    As DAC (arXiv 2306.06546, section 3.5) and Vocos use it, but relative to each clip's own level, so that a quiet clip
    counts as much as a loud one.
    """

    def __init__(self, sample_rate: int):
        super().__init__()
        bands = {64: 6, 128: 12, 256: 24, 512: 48, 1024: 80, 2048: 128}  # by window length
        self.scales = nn.ModuleList(LogMel(sample_rate, window, n_mels) for window, n_mels in bands.items())

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        output, target = output / level, target / level
        return torch.stack([(scale(output) - scale(target)).abs().mean() for scale in self.scales]).mean()


class CompressedSpectrumLoss(nn.Module):
    """Mean squared difference of spectra whose magnitudes are raised to 0.3: of the magnitudes, and for a share of 0.3 of the
    complex values (Braun and Tashev, arXiv 2009.12286, section 3).

    The power lies between energies, which only the loudest bins decide, and logarithms, to which what is left of noise between
    the harmonics counts as much as the speech. Relative to each clip's own level; for outputs that keep the phase.
    """

    def __init__(self, sample_rate: int, window_s: float = 0.032, power: float = 0.3, complex_share: float = 0.3):
        super().__init__()
        self.window, self.power, self.complex_share = round(window_s * sample_rate), power, complex_share
        self.register_buffer("taper", torch.hann_window(self.window), persistent=False)
        self.taper: Tensor

    def spectrum(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Samples `[batch, n]` -> compressed magnitudes and complex values, `[batch, bins, frames]`."""
        spectrum = torch.stft(samples, self.window, self.window // 4, window=self.taper, return_complex=True)
        spectrum = spectrum / self.taper.square().sum().sqrt()
        energy = spectrum.real**2 + spectrum.imag**2 + 1e-5
        return energy ** (self.power / 2), spectrum * energy ** ((self.power - 1) / 2)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        (magnitude, heard), (wanted_magnitude, wanted) = self.spectrum(output / level), self.spectrum(target / level)
        difference = heard - wanted
        turned = (difference.real**2 + difference.imag**2).mean()
        return (1 - self.complex_share) * (magnitude - wanted_magnitude).square().mean() + self.complex_share * turned


class BalanceLoss(nn.Module):
    """Mean absolute difference of the long-term levels of mel bands, in units of 10 dB.

    Losses on single frames pay for predicting a noisy band too soft: a median is below the mean, and what was left out is
    heard less than what was added. Energies summed over the clip have no such excuse. Bands 60 dB below the clip are empty.
    """

    def __init__(self, sample_rate: int, window: int = 512, bands: int = 16):
        super().__init__()
        self.window = window
        self.register_buffer("taper", torch.hann_window(window), persistent=False)
        self.register_buffer("filters", mel_filterbank(sample_rate, window, bands), persistent=False)
        self.taper: Tensor
        self.filters: Tensor

    def energies(self, samples: Tensor) -> Tensor:
        """Samples `[batch, n]` -> energies of the bands `[batch, bands]`."""
        spectrum = torch.stft(samples, self.window, self.window // 2, window=self.taper, return_complex=True)
        return (spectrum.real**2 + spectrum.imag**2).sum(2) @ self.filters

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        heard, wanted = self.energies(output), self.energies(target)
        floor = 1e-6 * wanted.sum(1, keepdim=True) + 1e-9
        return torch.log10((heard + floor) / (wanted + floor)).abs().mean()


class L1Loss(nn.Module):
    """Mean absolute difference of samples, in units of the target's level: PURE Codec's first term (arXiv 2511.22687)."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        return ((output - target) / level).abs().mean()


class SiSdrLoss(nn.Module):
    """Less the scale-invariant signal-to-distortion ratio, in dB (Le Roux et al., arXiv 1811.02508, section 2).

    The target, scaled as comes nearest to the output, over what is then left of it. An error 50 dB below the output counts as
    none, so that a clip which is right already does not outweigh the others; a target of silence costs what the output's level
    is above -80 dB.
    """

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the mean over the batch, a scalar."""
        output, target = output - output.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
        power = target.square().mean(1, keepdim=True)
        projected = (output * target).mean(1, keepdim=True) / (power + 1e-9) * target
        signal, error = projected.square().mean(1), (output - projected).square().mean(1)
        floor = 1e-5 * output.square().mean(1) + 1e-8
        return -10 * torch.log10((signal + floor) / (error + floor)).mean()


class WaveformDistance(nn.Module):
    """How far the low band's waveform is off: of complex spectra up to `highest_hz`, their magnitudes' roots taken.

    0 for equal signals, 1 for silence, about 2 for the right spectrum with a random phase.
    """

    def __init__(self, sample_rate: int, highest_hz: float, window: int = 512):
        super().__init__()
        self.window, self.n_bins = window, round(highest_hz * window / sample_rate)
        self.register_buffer("taper", torch.hann_window(window), persistent=False)
        self.taper: Tensor

    def spectrum(self, samples: Tensor) -> Tensor:
        """Samples `[batch, n]` -> compressed complex `[batch, bins, frames]`."""
        spectrum = torch.stft(samples, self.window, self.window // 4, window=self.taper, return_complex=True)[:, : self.n_bins]
        return spectrum * (spectrum.real**2 + spectrum.imag**2 + 1e-4) ** -0.25

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Both `[batch, samples]` -> the distance of each clip, `[batch]`."""
        level = target.square().mean(1, keepdim=True).sqrt().clamp(min=1e-4)
        heard, wanted = self.spectrum(output / level), self.spectrum(target / level)
        difference, power = heard - wanted, wanted.real**2 + wanted.imag**2
        return (difference.real**2 + difference.imag**2).sum((1, 2)) / (power.sum((1, 2)) + 1e-3)
