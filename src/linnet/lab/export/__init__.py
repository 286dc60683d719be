"""From a trained codec to a bundle's two graphs: the default system's written operator by operator, others' traced.

A graph of single frames is bound by its number of operators and by the bytes of its weights, so both are kept low here:
what depends on trained values alone is multiplied out, what recurs frame by frame is table look-ups and one small product,
transforms are two small products, and weights are 8 bits. Tests hold the graphs to the networks that they came from.
"""

from linnet.lab.export.decoder import export_decoder
from linnet.lab.export.encoder import export_encoder
from linnet.lab.export.traced import trace_graphs
from linnet.lab.systems.base import System
from linnet.lab.systems.codec import Codec
from linnet.lab.systems.plain import StreamingSystem

__all__ = ["export_decoder", "export_encoder", "export_graphs", "trace_graphs"]


def export_graphs(system: System, *, eight_bit: bool = True) -> tuple[bytes, bytes]:
    """The encoder's and the decoder's graph, by hand where there is a hand-written one; traced ones have 16 bits, not 8."""
    if isinstance(system, Codec):
        return export_encoder(system, eight_bit=eight_bit), export_decoder(system, eight_bit=eight_bit)
    if isinstance(system, StreamingSystem):
        return trace_graphs(system, halved=eight_bit)
    raise TypeError(f"{type(system).__name__} has no streaming steps to export")
