"""How fast a bundle runs here: one frame a call, as in a live stream, on one thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

from linnet.runtime.graph import Graph

_WARM_UP = 10  # calls: the first allocate, the second bind


@dataclass(frozen=True)
class Speed:
    """Median microseconds of a frame's call on each side, and how many times real time both together run at."""

    send_us: float
    receive_us: float
    times_real_time: float


def measure_speed(
    encoder: bytes, decoder: bytes, *, sample_rate: int, hop: int, sizes: Sequence[int], seconds: float = 1.0
) -> Speed:
    """Time a bundle's two serialized graphs on noise and random codes, which take as long as any.

    Args:
        encoder: `encoder.onnx`, by the bundle contract.
        decoder: `decoder.onnx`, likewise.
        sample_rate: of both, in Hz.
        hop: samples a frame.
        sizes: of the code array's columns.
        seconds: of audio that each side is given.
    """
    rng = np.random.default_rng(0)
    frames = max(1, round(seconds * sample_rate / hop))
    samples = rng.uniform(-0.1, 0.1, (1, hop)).astype(np.float32)
    codes = rng.integers(0, sizes, (1, len(sizes)))
    send, receive = (_median_us(graph, first, frames) for graph, first in ((encoder, samples), (decoder, codes)))
    return Speed(send, receive, 1e6 * hop / sample_rate / (send + receive))


def _median_us(graph: bytes, first: npt.NDArray[np.generic], frames: int) -> float:
    stream, spent = Graph(graph).stream(), []
    for _ in range(_WARM_UP + frames):
        start = time.perf_counter()
        stream(first)
        spent.append(time.perf_counter() - start)
    return 1e6 * median(spent[_WARM_UP:])
