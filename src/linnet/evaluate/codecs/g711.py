"""G.711, the telephone: 8 bits a sample by a logarithmic law (ITU-T G.711), 64 kbit/s at 8 kHz."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from linnet.evaluate.codecs.base import Codec, Coded
from linnet.evaluate.metrics import Samples, to_int16


@dataclass(frozen=True)
class G711(Codec):
    """One of the two laws, `a` or `mu`: each sample is rounded to the middle of its segment's step."""

    name: str
    law: str
    sample_rate = 8000
    bandwidth_hz = 4000
    rates = (64.0,)
    usual_kbps = (64.0,)

    def identity(self) -> str:
        """See `Codec.identity`."""
        return "1"

    def run(self, samples: Samples, kbps: float) -> Coded:  # noqa: ARG002
        """See `Codec.run`."""
        rounded = a_law(to_int16(samples)) if self.law == "a" else mu_law(to_int16(samples))
        return Coded(rounded / 32768, 8 * len(samples), len(samples) / self.sample_rate)


def a_law(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """[samples] through 13-segment A-law and back: 13 bits of magnitude and sign, as table 1a of G.711.

    Segments start at 0, 256, 512 ... 16384 (of 32768); the first two have steps of 16, and each further one twice that.
    """
    # a negative value is the complement of a positive one, so that -1 and 0 are the two smallest codes
    magnitude = np.where(pcm < 0, -pcm.astype(np.int32) - 1, pcm.astype(np.int32))
    step = 16 << np.maximum(_log2(np.maximum(magnitude, 256)) - 8, 0)
    rounded = magnitude // step * step + step // 2
    return np.where(pcm < 0, -rounded, rounded)


def mu_law(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """[samples] through 15-segment mu-law and back, as table 2a of G.711: 14 bits, the law's bias of 33 (132 of 16 bits)."""
    biased = np.minimum(np.abs(pcm.astype(np.int32)), 32635) + 132
    step = 8 << (_log2(biased) - 7)
    rounded = biased // step * step + step // 2 - 132
    return np.where(pcm < 0, -rounded, rounded)


def _log2(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Floor of the binary logarithm of positive integers."""
    return (np.frexp(values)[1] - 1).astype(np.int32)
