"""From a trained codec to a bundle's two graphs, written operator by operator.

A graph of single frames is bound by its number of operators and by the bytes of its weights, so both are kept low here:
what depends on trained values alone is multiplied out, what recurs frame by frame is table look-ups and one small product,
transforms are two small products, and weights are 8 bits. Tests hold the graphs to the networks that they came from.
"""

from linnet.lab.export.decoder import export_decoder
from linnet.lab.export.encoder import export_encoder

__all__ = ["export_decoder", "export_encoder"]
