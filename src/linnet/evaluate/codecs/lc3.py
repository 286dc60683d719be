"""LC3, the codec of Bluetooth LE Audio, by Google's liblc3 in the package `lc3py`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass

import numpy as np

from linnet.evaluate.codecs.base import Codec, Coded
from linnet.evaluate.metrics import Samples

_FRAME_US = 10_000


@dataclass(frozen=True)
class Lc3(Codec):
    """LC3 at 16 kHz in frames of 10 ms, of which the smallest has 20 bytes: 16 kbit/s is the least."""

    name: str = "lc3"
    frame = 160
    rates = tuple(0.8 * size for size in range(20, 101, 5))  # bytes of a frame
    usual_kbps = (16.0,)

    def available(self) -> str | None:
        """See `Codec.available`."""
        return "LC3 needs its package: pip install lc3py" if importlib.util.find_spec("lc3") is None else None

    def identity(self) -> str:
        """See `Codec.identity`."""
        return f"lc3py {importlib.metadata.version('lc3py')}"

    def delay(self, kbps: float) -> int:  # noqa: ARG002
        """See `Codec.delay`: 2.5 ms of overlap beyond the frame."""
        return 40

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        import lc3

        encoder, decoder = (make(_FRAME_US, self.sample_rate, 1) for make in (lc3.Encoder, lc3.Decoder))
        size = round(kbps / 0.8)
        frames = np.asarray(samples, np.float32).reshape(-1, self.frame)
        decoded = [np.asarray(decoder.decode(encoder.encode(frame.tolist(), size)), np.float64) for frame in frames]
        return Coded(np.concatenate(decoded), 8 * size * len(frames), len(samples) / self.sample_rate)
