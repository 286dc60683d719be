"""The codecs that can be trained here, by the name that a recipe's `system.kind` has."""

from __future__ import annotations

from linnet.lab.systems.base import System, SystemConfig
from linnet.lab.systems.codec import Codec
from linnet.lab.systems.dual_branch import DualBranchCodec, DualBranchConfig
from linnet.lab.systems.lrac import LracBaseline, LracConfig
from linnet.lab.systems.phoenix import PhoenixCodec, PhoenixConfig
from linnet.lab.systems.pure import PureCodec, PureConfig
from linnet.lab.systems.remix import RemixCodec, RemixConfig
from linnet.lab.systems.source_filter import SourceFilterConfig

SYSTEMS: dict[str, tuple[type, type[System]]] = {
    "source-filter": (SourceFilterConfig, Codec),
    "remix": (RemixConfig, RemixCodec),
    "pure": (PureConfig, PureCodec),
    "dual-branch": (DualBranchConfig, DualBranchCodec),
    "lrac-baseline": (LracConfig, LracBaseline),
    "phoenix": (PhoenixConfig, PhoenixCodec),
}
"""Configuration and system of every kind."""


def make_system(config: SystemConfig) -> System:
    """An untrained system."""
    return SYSTEMS[config.kind][1](config)
