"""Packets that also carry the first layer of earlier frames, so that a lost packet can be mended by a later one.

Sender and receiver agree on the offsets, as they agree on the model: a packet does not spend a bit on saying them. A packet
with copies is then the packet of a larger layout (`Redundancy.layout`), whose first layer holds the frame's own first layer
and the copies, and everything that holds for packets holds for it: its length tells its layers, and it can be thinned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

from linnet.bits.errors import CodesError, LayoutError
from linnet.bits.packet import MISSING, Codes, Layout, check_codes, pack_packets, unpack_packets

_MAX_OFFSET = 255


@dataclass(frozen=True)
class Redundancy:
    """Which earlier frames' first layers a packet carries.

    Args:
        offsets: how many frames back each copied frame lies, ascending, 1 to 255; none at all is a plain packet.

    Raises:
        LayoutError: if the offsets are not such a list.
    """

    offsets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple(self.offsets))
        if any(not 1 <= offset <= _MAX_OFFSET for offset in self.offsets) or any(a >= b for a, b in pairwise(self.offsets)):
            raise LayoutError(f"copies from {list(self.offsets)} frames back: give ascending numbers from 1 to {_MAX_OFFSET}")

    @classmethod
    def spaced(cls, copies: int, spacing: int) -> Redundancy:
        """`copies` of each frame, each `spacing` frames after the one before it.

        Raises:
            LayoutError: if the copies or the spacing are no such numbers, or the last copy lies too far back.
        """
        if copies < 0 or spacing < 1:
            raise LayoutError(f"{copies} copies at a spacing of {spacing} frames: give 0 copies or more, and 1 frame or more")
        return cls(tuple(spacing * copy for copy in range(1, copies + 1)))

    @property
    def depth(self) -> int:
        """How many frames a receiver must wait until every copy of a frame could have come."""
        return self.offsets[-1] if self.offsets else 0

    def layout(self, layout: Layout) -> Layout:
        """The layout of packets of `layout` with these copies: own first layer, copies, own other layers.

        Raises:
            LayoutError: if two numbers of layers then give packets of as many bytes.
        """
        return _with_copies(layout, len(self.offsets))


def pack_redundant(
    codes: Codes, earlier: Codes, layout: Layout, n_layers: int, redundancy: Redundancy
) -> list[bytes]:  # fmt: skip
    """One packet a frame, with copies of the first layer of earlier frames.

    Args:
        codes: integers [frames, n_codes]; columns of layers above `n_layers` are not looked at.
        earlier: the frames just before the first, [any number, n_codes]. Copies of frames before these are zeros.
        layout: of the columns, without copies.
        n_layers: how many layers of each frame to send.
        redundancy: which copies.

    Raises:
        CodesError: if the codes do not fit the layout. With copies, a lost frame does not: it has none.
        LayoutError: if the layout has no such number of layers.
    """
    if not redundancy.offsets:
        return pack_packets(codes, layout, n_layers)
    layers, base = layout.columns(n_layers), layout.columns(1)
    own = np.full((len(codes), layout.n_codes), MISSING, np.int64)
    own[:, :layers] = check_codes(codes, layout, n_layers)
    history = np.zeros((redundancy.depth, base), np.int64)
    known = check_codes(earlier, layout, 1)[max(0, len(earlier) - redundancy.depth) :]
    history[redundancy.depth - len(known) :] = known
    joined = np.concatenate([history, own[:, :base]])
    copies = [joined[redundancy.depth - offset :][: len(own)] for offset in redundancy.offsets]
    return pack_packets(np.hstack([own[:, :base], *copies, own[:, base:]]), redundancy.layout(layout), n_layers)


def unpack_redundant(packets: Sequence[bytes | None], layout: Layout, redundancy: Redundancy) -> tuple[Codes, Codes]:
    """The codes of packets in order, and the copies of earlier frames that they carry.

    Args:
        packets: one a frame; None or b'' is a lost packet.
        layout: of the columns, without copies.
        redundancy: which copies the sender adds.

    Returns:
        Codes [frames, n_codes], as `unpack_packets` gives them; and copies [frames, len(offsets), n_codes]: at [t, k] the
        first layer of frame `t - offsets[k]`, -1 in its other columns and everywhere if packet t is lost.

    Raises:
        PacketError: if a packet's length fits no number of layers.
    """
    base, count = layout.columns(1), len(redundancy.offsets)
    joined = unpack_packets(packets, redundancy.layout(layout))
    end = base * (1 + count)
    copies = np.full((len(joined), count, layout.n_codes), MISSING, np.int64)
    copies[:, :, :base] = joined[:, base:end].reshape(len(joined), count, base)
    return np.hstack([joined[:, :base], joined[:, end:]]), copies


def recover(codes: Codes, copies: Codes, redundancy: Redundancy) -> Codes:
    """The codes with lost frames replaced by their copies, where one arrived.

    Args:
        codes: [frames, n_codes], rows of -1 for lost frames.
        copies: [frames, len(offsets), n_codes], as `unpack_redundant` gives them.
        redundancy: which copies they are.

    Returns:
        A new array [frames, n_codes]. A recovered frame has its first layer alone.
    """
    if codes.shape[0] != copies.shape[0] or copies.shape[1:] != (len(redundancy.offsets), codes.shape[1]):
        raise CodesError(f"copies of shape {list(copies.shape)} do not belong to codes of shape {list(codes.shape)}")
    mended = codes.copy()
    for number, offset in enumerate(redundancy.offsets):
        # All copies of a frame are the same, so whichever arrived serves.
        target = mended[: max(0, len(codes) - offset)]
        source = copies[offset:, number]
        absent = (target == MISSING).all(axis=1)
        target[absent] = source[absent]
    return mended


@lru_cache(maxsize=64)  # a live stream asks at every packet
def _with_copies(layout: Layout, copies: int) -> Layout:
    base = layout.columns(1)
    sizes = layout.sizes[:base] * (1 + copies) + layout.sizes[base:]
    layers = layout.layers[:base] * (1 + copies) + layout.layers[base:]
    return Layout(sizes, layers, layout.sample_rate, layout.hop)
