"""Validation: the codec as a listener meets it, on clips that training does not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from linnet.evaluate.conditions.steps import Pair, add_noise, shaped_noise
from linnet.evaluate.metrics import estoi, pesq_wb
from linnet.lab.data.corpus import Packed
from linnet.lab.systems.codec import Codec, Received


@dataclass(frozen=True)
class Heard:
    """One clip through the codec: the reference and, by condition, what came out, float32 `[samples]`, aligned."""

    reference: np.ndarray
    outputs: dict[str, np.ndarray]


def choose_clips(speech: Packed, count: int, shortest_s: float = 2.0, longest_s: float = 8.0) -> list[int]:
    """A fixed choice spread evenly over the recordings, of lengths that PESQ is made for."""
    seconds = np.diff(speech.offsets) / speech.sample_rate
    fit = np.flatnonzero((seconds >= shortest_s) & (seconds <= longest_s))
    return [int(fit[i]) for i in np.linspace(0, len(fit) - 1, min(count, len(fit))).round().astype(int)]


@torch.no_grad()
def listen(codec: Codec, speech: Packed, clip: int, layers: tuple[int, ...], snr_db: float | None = None) -> Heard:
    """One clip without a quantizer, with labelled and tracked pitch, and at each number of layers; with `snr_db` each of these
    also in stationary noise of the clip's own spectrum, which no corpus has to have."""
    codec.eval()
    hop = codec.config.hop
    reference = speech.samples(clip)
    frames = -(-(len(reference) + codec.delay) // hop)

    def batch(audio: np.ndarray) -> Tensor:
        return torch.from_numpy(np.pad(audio, (0, frames * hop - len(audio))).astype(np.float32)).unsqueeze(0)

    samples = batch(reference)
    labels = np.pad(speech.pitch_of(clip), (codec.config.lookahead, frames))[:frames]
    labelled = torch.from_numpy(codec.config.pitch.quantize(labels)).unsqueeze(0)
    tracked = codec.track(samples)

    def heard(received: Received) -> np.ndarray:
        return codec.decode(received)[0, codec.delay :][: len(reference)].numpy()

    def coded(samples: Tensor) -> dict[str, np.ndarray]:
        codes = codec.quantize(samples, codec.track(samples)).codes
        kept = {n: torch.where(torch.arange(codec.config.n_layers) < n, codes, -1) for n in layers}
        return {f"{n} layers": heard(codec.receive(some)) for n, some in kept.items()}

    outputs = {
        "unquantized, labelled pitch": heard(codec.unquantized(samples, labelled)),
        "unquantized": heard(codec.unquantized(samples, tracked)),
    }
    if codec.quantizer.fitted:
        outputs |= coded(samples)
        if snr_db is not None:
            noise = shaped_noise(reference, np.random.default_rng(clip))
            noisy = add_noise(Pair(reference, reference), noise, snr_db).heard
            outputs["noisy"] = noisy.astype(np.float32)
            outputs |= {f"{name}, noisy": output for name, output in coded(batch(noisy)).items()}
    return Heard(reference, outputs)


def score(heard: list[Heard], sample_rate: int) -> dict[str, float]:
    """Mean PESQ-WB and ESTOI of every condition, as `pesq/1 layers` and so on."""
    scores: dict[str, list[float]] = {}
    for clip in heard:
        for name, output in clip.outputs.items():
            scores.setdefault(f"pesq/{name}", []).append(pesq_wb(clip.reference, output, sample_rate))
            scores.setdefault(f"estoi/{name}", []).append(estoi(clip.reference, output, sample_rate))
    return {name: float(np.nanmean(values)) for name, values in scores.items()}


def draw_spectrograms(heard: Heard, sample_rate: int) -> Figure:
    """Reference and outputs one above the other."""
    shown = {"reference": heard.reference, **heard.outputs}
    figure = Figure(figsize=(12, 2.2 * len(shown)), layout="constrained")
    for axis, (name, samples) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
        axis.specgram(samples + 1e-6, NFFT=512, noverlap=384, Fs=sample_rate, vmin=-130, vmax=-30, cmap="magma")
        axis.set_ylabel(name)
    return figure
