"""No codec at all: what goes in comes out. Its row shows what a condition costs by itself, and where each metric ends."""

from __future__ import annotations

from dataclasses import dataclass

from linnet.evaluate.codecs.base import Codec, Coded
from linnet.evaluate.metrics import Samples, to_int16


@dataclass(frozen=True)
class Pcm(Codec):
    """Linear PCM of 16 bits at 16 kHz."""

    name = "pcm"
    rates = (256.0,)
    usual_kbps = (256.0,)

    def identity(self) -> str:
        """See `Codec.identity`."""
        return "1"

    def run(self, samples: Samples, kbps: float) -> Coded:  # noqa: ARG002
        """See `Codec.run`."""
        return Coded(to_int16(samples) / 32768, 16 * len(samples), len(samples) / self.sample_rate)
