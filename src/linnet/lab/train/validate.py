"""Validation: the codec as a listener meets it, on clips that training does not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

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
def listen(codec: Codec, speech: Packed, clip: int, layers: tuple[int, ...]) -> Heard:
    """One clip without a quantizer, with labelled and tracked pitch, and at each number of layers."""
    codec.eval()
    hop = codec.config.hop
    reference = speech.samples(clip)
    frames = -(-(len(reference) + codec.delay) // hop)
    samples = torch.from_numpy(np.pad(reference, (0, frames * hop - len(reference)))).unsqueeze(0)
    labels = np.pad(speech.pitch_of(clip), (codec.config.lookahead, frames))[:frames]
    labelled = torch.from_numpy(codec.config.pitch.quantize(labels)).unsqueeze(0)
    tracked = codec.track(samples)

    def heard(received: Received) -> np.ndarray:
        return codec.decode(received)[0, codec.delay :][: len(reference)].numpy()

    outputs = {
        "unquantized, labelled pitch": heard(codec.unquantized(samples, labelled)),
        "unquantized": heard(codec.unquantized(samples, tracked)),
    }
    if codec.quantizer.fitted:
        codes = codec.quantize(samples, tracked).codes
        for n_layers in layers:
            received = codec.receive(torch.where(torch.arange(codec.config.n_layers) < n_layers, codes, -1))
            outputs[f"{n_layers} layers"] = heard(received)
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
