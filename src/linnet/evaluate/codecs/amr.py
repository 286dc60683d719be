"""AMR narrowband and wideband (3GPP TS 26.071, 26.171) by OpenCORE's and VisualOn's libraries, without DTX.

The mode and the bits of a frame are read from the first byte of the storage format (RFC 4867, section 5.3).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linnet.evaluate.codecs.base import Codec, Coded
from linnet.evaluate.metrics import Samples, to_int16
from linnet.writing import file_identity

_NB_BITS = (95, 103, 118, 134, 148, 159, 204, 244)  # speech bits of a frame of each mode (TS 26.101, table 2)
_WB_BITS = (132, 177, 253, 285, 317, 365, 397, 461, 477)  # (TS 26.201, table 2)
_FRAME_S = 0.020
_MAX_BYTES = 64
_NB_LIBRARY = "libopencore-amrnb.so.0"
_WB_ENCODER, _WB_DECODER = "libvo-amrwbenc.so.0", "libopencore-amrwb.so.0"
_POINTER, _NUMBER = ctypes.c_void_p, ctypes.c_int


@dataclass(frozen=True)
class AmrNb(Codec):
    """AMR-NB, 8 kHz. The delay is its look-ahead of 5 ms."""

    name: str = "amrnb"
    sample_rate = 8000
    bandwidth_hz = 4000
    frame = 160
    rates = tuple(bits / 20 for bits in _NB_BITS)
    usual_kbps = (4.75,)

    def available(self) -> str | None:
        """See `Codec.available`."""
        return _missing((_NB_LIBRARY,), "AMR-NB needs its library: apt install libopencore-amrnb0")

    def identity(self) -> str:
        """See `Codec.identity`."""
        return _identity(_NB_LIBRARY)

    def delay(self, kbps: float) -> int:  # noqa: ARG002
        """See `Codec.delay`."""
        return 40

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        library, mode = ctypes.CDLL(_NB_LIBRARY), self.rates.index(kbps)
        _declare(library, "Encoder_Interface", [_NUMBER])
        _declare(library, "Decoder_Interface", [])
        library.Encoder_Interface_Encode.argtypes = [_POINTER, _NUMBER, _POINTER, ctypes.c_char_p, _NUMBER]
        library.Decoder_Interface_Decode.argtypes = [_POINTER, ctypes.c_char_p, _POINTER, _NUMBER]
        library.Decoder_Interface_Decode.restype = None
        sender, receiver = library.Encoder_Interface_init(0), library.Decoder_Interface_init()

        def step(frame: Any, packet: Any, out: Any) -> None:
            library.Encoder_Interface_Encode(sender, mode, frame, packet, 0)
            library.Decoder_Interface_Decode(receiver, packet, out, 0)

        try:
            return _coded(samples, self.frame, _NB_BITS, step)
        finally:
            library.Encoder_Interface_exit(sender)
            library.Decoder_Interface_exit(receiver)


@dataclass(frozen=True)
class AmrWb(Codec):
    """AMR-WB, 16 kHz, coded at 12.8 kHz. The delay is the look-ahead of 5 ms and the resampling to and fro."""

    name: str = "amrwb"
    bandwidth_hz = 7000
    frame = 320
    rates = tuple(bits / 20 for bits in _WB_BITS)
    usual_kbps = (6.6,)

    def available(self) -> str | None:
        """See `Codec.available`."""
        packages = "libvo-amrwbenc0 libopencore-amrwb0"
        return _missing((_WB_ENCODER, _WB_DECODER), f"AMR-WB needs its libraries: apt install {packages}")

    def identity(self) -> str:
        """See `Codec.identity`."""
        return _identity(_WB_ENCODER, _WB_DECODER)

    def delay(self, kbps: float) -> int:  # noqa: ARG002
        """See `Codec.delay`."""
        return 94

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        encoder, decoder, mode = ctypes.CDLL(_WB_ENCODER), ctypes.CDLL(_WB_DECODER), self.rates.index(kbps)
        _declare(encoder, "E_IF", [])
        _declare(decoder, "D_IF", [])
        encoder.E_IF_encode.argtypes = [_POINTER, _NUMBER, _POINTER, ctypes.c_char_p, _NUMBER]
        decoder.D_IF_decode.argtypes = [_POINTER, ctypes.c_char_p, _POINTER, _NUMBER]
        decoder.D_IF_decode.restype = None
        sender, receiver = encoder.E_IF_init(), decoder.D_IF_init()

        def step(frame: Any, packet: Any, out: Any) -> None:
            encoder.E_IF_encode(sender, mode, frame, packet, 0)
            decoder.D_IF_decode(receiver, packet, out, 0)

        try:
            return _coded(samples, self.frame, _WB_BITS, step)
        finally:
            encoder.E_IF_exit(sender)
            decoder.D_IF_exit(receiver)


def _coded(samples: Samples, frame: int, bits: tuple[int, ...], step: Callable[[Any, Any, Any], None]) -> Coded:
    """Frame by frame through `step(pointer to a frame, packet, pointer to its output)`."""
    pcm = to_int16(samples)
    decoded, packet, spent = np.zeros_like(pcm), ctypes.create_string_buffer(_MAX_BYTES), 0
    for at in range(0, len(pcm), frame):
        step(pcm[at:].ctypes.data_as(_POINTER), packet, decoded[at:].ctypes.data_as(_POINTER))
        spent += bits[packet.raw[0] >> 3 & 15]
    return Coded(decoded / 32768, spent, _FRAME_S * len(pcm) / frame)


def _declare(library: Any, prefix: str, init: list[Any]) -> None:
    start, stop = getattr(library, f"{prefix}_init"), getattr(library, f"{prefix}_exit")
    start.argtypes, start.restype = init, _POINTER
    stop.argtypes, stop.restype = [_POINTER], None


def _missing(libraries: tuple[str, ...], line: str) -> str | None:
    try:
        for library in libraries:
            ctypes.CDLL(library)
    except OSError:
        return line
    return None


def _identity(*libraries: str) -> str:
    """Which builds: the files that the process has mapped; on systems that do not tell, the names alone."""
    for library in libraries:
        ctypes.CDLL(library)
    maps = Path("/proc/self/maps")
    mapped = {line.split()[-1] for line in maps.read_text().splitlines()} if maps.exists() else set()
    told = []
    for library in libraries:
        stem = library.split(".so")[0]
        told += [f"{library} {file_identity(path)}" for path in sorted(mapped) if Path(path).name.startswith(stem)] or [library]
    return "; ".join(told)
