"""The receiver's buffer: packets in their turn or a little late go in, frames come out once their copies could have come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from linnet.bits import MISSING, Codes, Layout, Redundancy, recover, unpack_packets, unpack_redundant


class RecoveryBuffer:
    """Holds each frame until `redundancy.depth` more packets have come, and mends what is lost from their copies.

    Without redundancy nothing is held. The memory is that of `depth` frames.

    Attributes:
        held: the frames that wait, mended so far, `[frames, n_codes]`, at most `depth` of them.
    """

    def __init__(self, layout: Layout, redundancy: Redundancy):
        self.layout, self.redundancy = layout, redundancy
        self.reset()

    def reset(self) -> None:
        """Empty, as before the first packet."""
        self.held: Codes = np.zeros((0, self.layout.n_codes), np.int64)

    def push(self, packets: Sequence[bytes | None]) -> Codes:
        """The packets of the next frames, None or b'' for what has not come -> the frames that need wait no longer.

        Returns:
            int64 `[frames, n_codes]`, -1 in layers that did not arrive, rows of -1 for what no copy could mend.

        Raises:
            PacketError: if a packet's length fits no number of layers. The buffer is then as it was.
        """
        if not self.redundancy.offsets:
            return unpack_packets(packets, self.layout)
        codes, copies = unpack_redundant(packets, self.layout, self.redundancy)
        before = np.full((len(self.held), *copies.shape[1:]), MISSING, np.int64)
        held = recover(np.concatenate([self.held, codes]), np.concatenate([before, copies]), self.redundancy)
        ready = max(0, len(held) - self.redundancy.depth)
        self.held = held[ready:]
        return held[:ready]

    def late(self, packet: bytes, behind: int) -> bool:
        """A packet that comes after its turn, for the frame `behind` frames before the last one pushed.

        Returns:
            Whether it was in time: a frame that has left the buffer was played, and the packet's copies are older still.

        Raises:
            PacketError: if the packet's length fits no number of layers.
        """
        codes, copies = unpack_redundant([packet], self.layout, self.redundancy)
        place = len(self.held) - 1 - behind
        if behind < 0 or place < 0:
            return False
        if (codes[0] != MISSING).sum() > (self.held[place] != MISSING).sum():
            self.held[place] = codes[0]
        for offset, copy in zip(self.redundancy.offsets, copies[0], strict=True):
            if offset <= place and (self.held[place - offset] == MISSING).all():
                self.held[place - offset] = copy
        return True

    def flush(self) -> Codes:
        """What is left, mended as far as it can be. The buffer is then empty."""
        held = self.held
        self.reset()
        return held
