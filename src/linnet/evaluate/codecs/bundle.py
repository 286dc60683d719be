"""A Linnet model as a codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import linnet
from linnet.bits import keep_layers
from linnet.bundle import read_card
from linnet.evaluate.codecs.base import Codec, Coded
from linnet.evaluate.metrics import RATE, Samples

if TYPE_CHECKING:
    from linnet.evaluate.network import Network


@dataclass(frozen=True)
class Bundle(Codec):
    """A model, shipped or by its path. All its rates are prefixes of one encoding, so a file is encoded once."""

    model: str

    @property
    def name(self) -> str:  # type: ignore[override]
        """The model's, short for a path."""
        return Path(self.model).resolve().name.removesuffix(".zip")

    @property
    def bandwidth_hz(self) -> int:  # type: ignore[override]
        """See `Codec.bandwidth_hz`."""
        return min(RATE, read_card(self.model).sample_rate) // 2

    @property
    def rates(self) -> tuple[float, ...]:  # type: ignore[override]
        """See `Codec.rates`: one for each layer."""
        layout = read_card(self.model).layout
        return tuple(layout.kbps(n) for n in range(1, layout.n_layers + 1))

    @property
    def usual_kbps(self) -> tuple[float, ...]:  # type: ignore[override]
        """See `Codec.usual_kbps`: all."""
        return self.rates

    def identity(self) -> str:
        """See `Codec.identity`: the graphs, and what runs them."""
        digests = sorted(read_card(self.model).digests.values())
        return f"{digests} linnet {linnet.__version__} onnxruntime {version('onnxruntime')}"

    def over(self, network: Network) -> Codec:
        """See `Codec.over`: one packet a frame, without copies; what is lost is concealed."""
        from linnet.evaluate.network import NetworkBundle  # which is made of this class

        return NetworkBundle(self.model, network)

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`. The runtime takes the decoder's delay away itself."""
        return next(self.runs(samples, [kbps]))

    def runs(self, samples: Samples, rates: Sequence[float]) -> Iterator[Coded]:
        """See `Codec.runs`."""
        codec = opened(self.model)
        codes = codec.encode_codes(np.asarray(samples, np.float32), RATE)
        for kbps in rates:
            n_layers = codec.layout.layers_for_kbps(kbps)
            decoded = codec.decode_codes(keep_layers(codes, codec.layout, n_layers), RATE)
            # a frame has a fixed number of bits, so the file's rate is the layers'
            seconds = len(codes) * codec.layout.hop / codec.layout.sample_rate
            yield Coded(decoded, 1000 * codec.layout.kbps(n_layers) * seconds, seconds)


@cache
def opened(model: str) -> Any:
    """The model, opened once a process."""
    return linnet.load(model)
