"""libopus and Codec 2 as subjects of `speed.py`: their own libraries, called frame by frame through ctypes."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from typing import Any

import numpy as np

Array = np.ndarray
Step = Callable[[Sequence], list]  # consecutive frames in, one result a frame

_VOIP, _SET_BITRATE, _SET_COMPLEXITY = 2048, 4002, 4010  # opus_defines.h
_MODE_1200 = 5  # codec2.h
_LARGEST_PACKET = 1275


def library(name: str) -> ctypes.CDLL | None:
    """A shared library by its name without `lib`, None where it is not installed."""
    path = find_library(name)
    return ctypes.CDLL(path) if path else None


def speechlike(seconds: float, sample_rate: int) -> Array:
    """A voice of gliding harmonics with pauses of noise, int16 `[samples]`: what a codec does depends on what it hears."""
    rng = np.random.default_rng(0)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    cycles = np.cumsum(130 + 30 * np.sin(3 * time)) / sample_rate
    voice = sum(np.sin(2 * np.pi * k * cycles) / k for k in range(1, 24))
    noise = rng.standard_normal(len(time))
    voiced = np.sin(8 * time) > -0.3
    return (4000 * np.where(voiced, voice + 0.05 * noise, 0.2 * noise)).astype(np.int16)


class Opus:
    """libopus at 6 kbit/s, complexity 10, for speech, in frames of 20 ms."""

    name, sample_rate, hop = "Opus", 16000, 320

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib = lib
        lib.opus_encoder_create.restype = lib.opus_decoder_create.restype = ctypes.c_void_p

    def encoder(self) -> Step:
        """A new encoder: frames int16 `[hop]` -> packets."""
        state = ctypes.c_void_p(self.lib.opus_encoder_create(self.sample_rate, 1, _VOIP, None))
        self.lib.opus_encoder_ctl(state, _SET_BITRATE, ctypes.c_int(6000))
        self.lib.opus_encoder_ctl(state, _SET_COMPLEXITY, ctypes.c_int(10))
        packet = ctypes.create_string_buffer(_LARGEST_PACKET)

        def encode(frame: Array) -> bytes:
            size = self.lib.opus_encode(state, _pointer(frame), self.hop, packet, _LARGEST_PACKET)
            if size < 0:
                raise RuntimeError(f"opus_encode: error {size}")
            return packet.raw[:size]

        return lambda frames: [encode(frame) for frame in frames]

    def decoder(self) -> Step:
        """A new decoder: packets -> frames."""
        state = ctypes.c_void_p(self.lib.opus_decoder_create(self.sample_rate, 1, None))
        frame = np.zeros(self.hop, np.int16)

        def decode(packet: bytes) -> Array:
            if (count := self.lib.opus_decode(state, packet, len(packet), _pointer(frame), self.hop, 0)) != self.hop:
                raise RuntimeError(f"opus_decode: {count} samples of {self.hop}")
            return frame.copy()

        return lambda packets: [decode(packet) for packet in packets]


class Codec2:
    """Codec 2 at 1200 bit/s, 8 kHz, in frames of 40 ms."""

    name, sample_rate, hop = "Codec 2", 8000, 320

    def __init__(self, lib: ctypes.CDLL) -> None:
        self.lib = lib
        lib.codec2_create.restype = ctypes.c_void_p

    def encoder(self) -> Step:
        """A new encoder: frames int16 `[hop]` -> packets."""
        state = ctypes.c_void_p(self.lib.codec2_create(_MODE_1200))
        packet = ctypes.create_string_buffer((self.lib.codec2_bits_per_frame(state) + 7) // 8)

        def encode(frame: Array) -> bytes:
            self.lib.codec2_encode(state, packet, _pointer(frame))
            return packet.raw

        return lambda frames: [encode(frame) for frame in frames]

    def decoder(self) -> Step:
        """A new decoder: packets -> frames."""
        state = ctypes.c_void_p(self.lib.codec2_create(_MODE_1200))
        frame = np.zeros(self.hop, np.int16)

        def decode(packet: bytes) -> Array:
            self.lib.codec2_decode(state, _pointer(frame), packet)
            return frame.copy()

        return lambda packets: [decode(packet) for packet in packets]


def _pointer(samples: Array) -> Any:
    return samples.ctypes.data_as(ctypes.POINTER(ctypes.c_short))
