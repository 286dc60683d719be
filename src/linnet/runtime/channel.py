"""A sender, a network that loses packets, and a receiver in one object: what simulations and measurements go through."""

from __future__ import annotations

import numpy as np

from linnet.bits import MISSING, Codes, Layout, Redundancy, pack_redundant
from linnet.runtime.loss import LossModel, bursts
from linnet.runtime.recovery import RecoveryBuffer


class LossyChannel:
    """Codes in, codes out as a receiver has them: packed with copies, lost by the model, recovered from the copies.

    Args:
        layout: of the codes, without copies.
        n_layers: how many layers are sent.
        redundancy: the copies that packets carry.
        model: which packets are lost.
    """

    def __init__(self, layout: Layout, n_layers: int, redundancy: Redundancy, model: LossModel):
        self.layout, self.n_layers, self.redundancy, self.model = layout, n_layers, redundancy, model
        self.reset()

    def reset(self) -> None:
        """A new call through the same network: the same packets are lost again."""
        self.model.reset()
        self._buffer = RecoveryBuffer(self.layout, self.redundancy)
        self._sent: Codes = np.zeros((0, self.layout.n_codes), np.int64)
        self._lost: list[np.ndarray] = []
        self.concealed = 0

    def push(self, codes: Codes) -> Codes:
        """The next frames `[frames, n_codes]`, none of them lost -> those that the receiver plays, late by its depth.

        Raises:
            CodesError: if the codes do not fit the layout.
        """
        packets = pack_redundant(codes, self._sent, self.layout, self.n_layers, self.redundancy)
        self._sent = np.concatenate([self._sent, codes])[max(0, len(self._sent) + len(codes) - self.redundancy.depth) :]
        lost = self.model.draw(len(packets))
        self._lost.append(lost)
        return self._played(self._buffer.push([b"" if gone else packet for gone, packet in zip(lost, packets, strict=True)]))

    def flush(self) -> Codes:
        """The frames that the receiver still holds."""
        return self._played(self._buffer.flush())

    @property
    def packets(self) -> int:
        """Packets sent so far."""
        return sum(map(len, self._lost))

    @property
    def lost(self) -> int:
        """Packets lost so far. Of their frames, all but the `concealed` were recovered, once the channel is flushed."""
        return sum(int(part.sum()) for part in self._lost)

    @property
    def mean_burst(self) -> float:
        """Packets lost in a row, in the mean; 0 if none was."""
        runs = bursts(np.concatenate([np.zeros(0, np.bool_), *self._lost]))
        return float(runs.mean()) if len(runs) else 0.0

    @property
    def kbps(self) -> float:
        """The rate in all, copies included, without filling bits."""
        return self.redundancy.layout(self.layout).kbps(self.n_layers)

    def _played(self, codes: Codes) -> Codes:
        self.concealed += int((codes == MISSING).all(axis=1).sum())
        return codes
