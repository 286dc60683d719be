"""Linnet: a neural speech codec for 1 to 6 kbit/s.

codec = linnet.load("clear")
packets = codec.encode(samples, sample_rate, kbps=1)
samples = codec.decode(packets, sample_rate)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linnet.runtime.codec import Codec

__version__ = "0.1.0"


def load(model: str | Path = "clear", threads: int = 1) -> Codec:
    """Load a shipped model by name, or a bundle by its path; LinnetError says what is wrong."""
    # Here, so that `import linnet` stays instant: ONNX Runtime takes a while.
    from linnet.runtime.codec import Codec

    return Codec.open(model, threads)
