"""Validation: the codec as a listener meets it, on clips that training does not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from linnet.evaluate.conditions.steps import Pair, add_noise, shaped_noise
from linnet.evaluate.metrics import estoi, pesq_wb
from linnet.lab.data.corpus import Packed
from linnet.lab.systems.base import Example, System, keep_layers


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
def listen(system: System, speech: Packed, clip: int, layers: tuple[int, ...], snr_db: float | None = None) -> Heard:
    """One clip without a quantizer and at each number of layers; with `snr_db` at each of these also in stationary noise of the
    clip's own spectrum, which no corpus has to have."""
    system.eval()
    hop = system.config.hop
    reference = speech.samples(clip)
    frames = -(-(len(reference) + system.delay) // hop)
    pitch_hz = np.pad(speech.pitch_of(clip), (system.lookahead, frames))[:frames]

    def example(audio: np.ndarray) -> Example:
        samples = torch.from_numpy(np.pad(audio, (0, frames * hop - len(audio))).astype(np.float32)).unsqueeze(0)
        return Example(samples, samples, torch.from_numpy(pitch_hz).unsqueeze(0))

    def aligned(output: torch.Tensor) -> np.ndarray:
        return output[0, system.delay :][: len(reference)].numpy()

    def coded(audio: np.ndarray) -> dict[str, np.ndarray]:
        codes = system.encode(example(audio).samples)
        return {f"{n} layers": aligned(system.decode(keep_layers(codes, n))) for n in layers}

    outputs = {name: aligned(output) for name, output in system.unquantized(example(reference)).items()}
    if system.codebooks():
        outputs |= coded(reference)
        if snr_db is not None:
            noise = shaped_noise(reference, np.random.default_rng(clip))
            outputs["noisy"] = add_noise(Pair(reference, reference), noise, snr_db).heard.astype(np.float32)
            outputs |= {f"{name}, noisy": output for name, output in coded(outputs["noisy"]).items()}
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
