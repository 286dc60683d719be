"""A causal pitch tracker: a small recurrent classifier over autocorrelations, trained on labels that may look ahead.

It answers for the middle of the synthesis window, so the half window after it is look-ahead that the codec's latency has
paid for already. Classification over pitch steps follows CREPE (Kim et al., arXiv 1802.06182); autocorrelations of two
lengths in place of the waveform make it small: 15 MFLOPS with 96 channels. Behind an enhancer it may read the autocorrelation
of what that lets pass, too: in noise the harmonics are easier to see there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from linnet.lab.dsp.pitch import PitchScale
from linnet.lab.dsp.stft import Stft
from linnet.lab.systems.enhancer import FLOOR


class PitchTracker(nn.Module):
    """Samples `[batch, frames * hop]`, and if it `reads_enhanced` their enhanced spectrum, complex `[batch, frames, bins]`, to
    logits `[batch, frames, 1 + n_steps]`; class 0 is unvoiced."""

    def __init__(self, sample_rate: int, hop: int, scale: PitchScale, channels: int, *, reads_enhanced: bool = False):
        super().__init__()
        self.reads_enhanced = reads_enhanced
        # The enhanced spectrum has as many points as the short one: `SourceFilterConfig` sees to it.
        self.long, self.short = Stft(1024, hop), Stft(512, hop)
        self.lags = (int(sample_rate / scale.frequencies()[-1]), int(sample_rate / scale.lowest_hz) + 2)
        # A product with the few columns wanted, cheaper in every runtime than an inverse transform cut afterwards.
        for name, stft in (("long", self.long), ("short", self.short)):
            cosines = torch.fft.irfft(torch.eye(stft.n_bins), n=stft.n_fft)
            self.register_buffer(f"{name}_lags", cosines[:, self.lags[0] : self.lags[1]].clone(), persistent=False)
            self.register_buffer(f"{name}_power", cosines[:, :1].clone(), persistent=False)
        self.input = nn.Linear((2 + reads_enhanced) * (self.lags[1] - self.lags[0] + 1), channels)
        self.gru = nn.GRU(channels, channels, batch_first=True)
        self.output = nn.Linear(2 * channels, scale.n_steps + 1)

    def initial_state(self, batch: int) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.input.weight.new_zeros(batch, self.gru.hidden_size)
        return self.long.initial_state(batch), self.short.initial_state(batch), hidden

    def forward(self, samples: Tensor, enhanced: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, tuple]:
        long, short, hidden = state
        long_spectrum, long = self.long(samples, long)
        short_spectrum, short = self.short(samples, short)
        features = [self._autocorrelation("long", long_spectrum), self._autocorrelation("short", short_spectrum)]
        if self.reads_enhanced:
            features.append(self._autocorrelation("short", enhanced, FLOOR))
        x = torch.relu(self.input(torch.cat(features, -1)))
        y, last = self.gru(x, hidden.unsqueeze(0).to(x.dtype))
        return self.output(torch.cat([x, y], -1)).float(), (long, short, last.squeeze(0))

    def steps(self, logits: Tensor) -> Tensor:
        """The likeliest pitch step of each frame, -1 where unvoiced: voiced when all pitches together outweigh silence."""
        probability = torch.softmax(logits, -1)
        return torch.where(probability[..., 0] > 0.5, -1, probability[..., 1:].argmax(-1))

    def _autocorrelation(self, name: str, spectrum: Tensor, floor: float = 1e-9) -> Tensor:
        # The square root of the power flattens formants, which would otherwise pass for periods.
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + floor)
        energy = magnitude @ getattr(self, f"{name}_power")
        features = magnitude @ getattr(self, f"{name}_lags") / energy
        return torch.cat([features * 4, torch.log(energy) * 0.25 + 1], -1)
