"""The two sources of speech, as frames: a harmonic one of given pitch and a noise one.

Both are exact functions of integers (a phase accumulator of 32 fractional bits, a sample counter), so that a stream of
single frames and one call over an hour give the same samples on every machine.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CYCLE = 1 << 32
NOISE_FRAMES = 512
NOISE_PRIME = (1 << 31) - 1
NOISE_MULTIPLIERS = (69621, 39373, 48271)


def phase_increments(frequencies_hz: Tensor, sample_rate: int) -> Tensor:
    """Cycles a sample of each frequency, int64 in units of 2^-32 cycle."""
    return torch.round(frequencies_hz.double() / sample_rate * _CYCLE).long()


def centre_phases(increments: Tensor, voiced: Tensor, hop: int, phase: Tensor, previous: Tensor) -> tuple[Tensor, ...]:
    """The phase at the middle of every frame's window, the pitch gliding linearly from middle to middle.

    Shape: increments int64 `[batch, frames]`, voiced bool `[batch, frames]`, phase and previous int64 `[batch, 1]` (the last
    frame's phase, and its increment or 0 where it was unvoiced) -> phases `[batch, frames]`, phase, previous. A glide needs
    a voiced frame on both sides: at an onset the new pitch stands for the whole hop.
    """
    current = torch.where(voiced, increments, 0)
    before = torch.cat([previous, current], 1)[:, : current.shape[1]]
    advance = (hop // 2) * (torch.where(before > 0, before, increments) + increments)
    phases = (phase + torch.cumsum(advance, 1)) % _CYCLE
    return phases, phases[:, phases.shape[1] - 1 :], current[:, current.shape[1] - 1 :]


def harmonic_frames(phases: Tensor, increments: Tensor, voiced: Tensor, window: int) -> Tensor:
    """All harmonics of the pitch up to half the sample rate, of equal amplitude and unit power together.

    Shape: int64, int64, bool `[batch, frames]` -> float32 `[batch, frames, window]`, 0 where unvoiced. In closed form, the
    Dirichlet kernel: sum_{k=1..K} cos(k p) = (sin((K + 1/2) p) / sin(p / 2) - 1) / 2, scaled by sqrt(2 / K).
    """
    steps = torch.arange(window, device=phases.device) - window // 2
    phase = (phases.unsqueeze(-1) + increments.unsqueeze(-1) * steps) % _CYCLE
    # Not quite to half the rate: the topmost harmonic must stay below it.
    half_cycle = torch.full_like(increments, _CYCLE // 2)
    n_harmonics = torch.div(half_cycle, increments.clamp(min=1), rounding_mode="floor").unsqueeze(-1) - 1
    half = phase.float() * (torch.pi / _CYCLE)
    # The argument is reduced as an integer, where a float of 130 cycles would have lost its low bits.
    numerator = torch.sin(((2 * n_harmonics + 1) * phase % (2 * _CYCLE)).float() * (torch.pi / _CYCLE))
    denominator = torch.sin(half)
    count = n_harmonics.float()
    at_pulse = denominator.abs() < 1e-4
    ratio = torch.where(at_pulse, 2 * count + 1, numerator / torch.where(at_pulse, 1.0, denominator))
    kernel = (ratio - 1) / 2 * torch.sqrt(2 / count)
    return kernel * voiced.unsqueeze(-1)


def noise_frames(counter: Tensor, n_frames: int, window: int, hop: int) -> Tensor:
    """White noise of unit power, cut into the overlapping windows of the frames.

    Shape: counter int64 `[batch, 1]`, the number of the first frame -> float32 `[batch, n_frames, window]`. The noise comes
    back after `NOISE_FRAMES`, 6 s at 12 ms a frame, so that a runtime may keep the spectra of all its frames.
    """
    starts = (counter + torch.arange(n_frames, device=counter.device)) * hop
    return noise_samples((starts.unsqueeze(-1) + torch.arange(window, device=counter.device)) % (NOISE_FRAMES * hop))


def noise_samples(number: Tensor) -> Tensor:
    """A hash of the samples' numbers, int64, as float32 of unit power."""
    # Permutation-like polynomials modulo a Mersenne prime: every product stays below 2^62.
    mixed = (number * 48271 + 12345) % NOISE_PRIME
    for multiplier in NOISE_MULTIPLIERS:
        mixed = (mixed * mixed % NOISE_PRIME * multiplier + number) % NOISE_PRIME
    return (mixed.float() / NOISE_PRIME - 0.5) * 12.0**0.5


def reference_rotation(phases: Tensor, pitch_steps: Tensor, numbers: Tensor, window: int, n_fft: int) -> Tensor:
    """The phase that each low bin has where the harmonic source alone drives it, as a factor of unit modulus.

    `phases` are the source's at the middle of every window, int64 `[batch, frames]`, pitch steps likewise, -1 unvoiced;
    `numbers` int64 `[1 + steps, bins]` say which harmonic a bin belongs to by 1 + step (0 where unvoiced: such a bin is
    referred to the window's middle alone). -> complex `[batch, frames, bins]`.
    """
    bins = torch.arange(numbers.shape[1], device=phases.device)
    middle = (bins * (window // 2) % n_fft) * (_CYCLE // n_fft)
    angle = (numbers[pitch_steps + 1] * phases.unsqueeze(-1) - middle) % _CYCLE
    radians = angle.float() * (2 * torch.pi / _CYCLE)
    return torch.complex(torch.cos(radians), torch.sin(radians))


def harmonic_numbers(frequencies_hz: Tensor, n_bins: int, bin_hz: float) -> Tensor:
    """The harmonic nearest to each of the lowest bins, but never the zeroth: int64 `[1 + steps, bins]`, first row 0."""
    places = torch.arange(n_bins) * bin_hz / frequencies_hz.unsqueeze(1)
    return torch.cat([torch.zeros(1, n_bins), places.round().clamp(min=1)]).long()
