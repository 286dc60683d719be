"""Codecs over a network that loses packets: a model with and without copies, and Opus with its in-band FEC.

Every clip has its own losses, the same for all senders of one packet duration, so that what is compared has met the same
network. Rates count coded bits only: at these rates the headers of IP, UDP and RTP cost more than the speech, whoever sends it.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from linnet.bits import Redundancy
from linnet.evaluate.codecs.base import Codec, CodecError, Coded
from linnet.evaluate.codecs.bundle import Bundle, opened
from linnet.evaluate.codecs.xiph import opus_bandwidth
from linnet.evaluate.metrics import RATE, Samples
from linnet.runtime.channel import LossyChannel
from linnet.runtime.loss import LossModel, loss_model

_OPUS_FRAME = 320  # samples at 16 kHz, 20 ms
_OPUS_FRAME_MS = 20.0
_OPUS_MAX_BYTES = 1275
_OPUS_VOIP = 2048
_SET_BITRATE, _SET_COMPLEXITY, _SET_INBAND_FEC, _SET_PACKET_LOSS, _GET_LOOKAHEAD = (
    4002,
    4010,
    4012,
    4014,
    4027,
)  # opus_defines.h


@dataclass(frozen=True)
class Network:
    """What is lost: a share of the packets, in bursts of a mean length or (None) independently of each other."""

    rate: float
    burst_ms: float | None = None
    seed: int = 0

    def model(self, samples: Samples, packet_ms: float) -> LossModel:
        """The losses that this clip [samples] meets in packets of this duration.

        Raises:
            LossError: if there is no such network.
        """
        burst = None if self.burst_ms is None else max(1.0, self.burst_ms / packet_ms)
        return loss_model(self.rate, burst, seed=zlib.crc32(np.asarray(samples, np.float32).tobytes(), self.seed))


@dataclass(frozen=True)
class Sender:
    """How a model's frames are sent: so many layers, and copies of the first one, `spacing` frames apart."""

    n_layers: int
    copies: int = 0
    spacing: int = 5

    @property
    def redundancy(self) -> Redundancy:
        """The copies as packets carry them."""
        return Redundancy.spaced(self.copies, self.spacing)

    @property
    def name(self) -> str:
        """What tables call it."""
        layers = f"{self.n_layers} layer{'s' if self.n_layers > 1 else ''}"
        if not self.copies:
            return layers
        back = " and ".join(map(str, self.redundancy.offsets))
        copies, frames = "copy" if self.copies == 1 else "copies", "frame" if back == "1" else "frames"
        return f"{layers}, {self.copies} {copies} ({back} {frames} later)"


@dataclass(frozen=True)
class Received:
    """What a receiver heard: [samples] at 16 kHz, aligned with the input, and what that cost in kbit/s, copies included."""

    label: str
    samples: npt.NDArray[Any]
    kbps: float
    bandwidth_hz: int | None = None


@dataclass(frozen=True)
class LossyBundle:
    """A Linnet model over a network, by several senders that share one encoding."""

    model: str
    senders: tuple[Sender, ...]
    network: Network

    @property
    def name(self) -> str:
        """The model's."""
        return Bundle(self.model).name

    def outputs(self, samples: Samples) -> Iterator[Received]:
        """[samples] at 16 kHz as each sender's receiver hears them, with the total kbit/s."""
        codec = opened(self.model)
        frame_ms = 1000 * codec.card.hop / codec.card.sample_rate
        codes = codec.encode_codes(samples.astype(np.float32), RATE)
        for sender in self.senders:
            losses = self.network.model(samples, frame_ms)
            channel = LossyChannel(codec.layout, sender.n_layers, sender.redundancy, losses)
            received = np.concatenate([channel.push(codes), channel.flush()])
            decoded = np.asarray(codec.decode_codes(received, RATE))[: len(samples)]
            padded = np.pad(decoded, (0, len(samples) - len(decoded)))
            yield Received(f"{self.name}, {sender.name}", padded, channel.kbps)


@dataclass(frozen=True)
class LossyOpus:
    """Opus over a network, by libopus itself: the sender knows the loss rate, the receiver uses in-band FEC where it is there.

    Libopus decides by rate and loss whether FEC gets bits. Version 1.3.1 gives it none at 16 kbit/s and less, and at 18
    kbit/s from 10 % of loss on (found by the damage that every fifth packet's loss does).
    """

    kbps: float
    network: Network

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"opus {self.kbps:g} with FEC"

    def outputs(self, samples: Samples) -> Iterator[Received]:
        """[samples] at 16 kHz as the receiver hears them.

        Raises:
            CodecError: if libopus is not installed or refuses.
        """
        library = _libopus()
        pcm = np.pad(samples.astype(np.float32), (0, -len(samples) % _OPUS_FRAME + _OPUS_FRAME))  # a frame for the delay
        packets, lookahead = self._encoded(library, pcm)
        lost = self.network.model(samples, _OPUS_FRAME_MS).draw(len(packets))
        decoded = _opus_decoded(library, [None if gone else packet for gone, packet in zip(lost, packets, strict=True)])
        kbps = 8 * sum(map(len, packets)) / (_OPUS_FRAME_MS * len(packets))
        yield Received(self.name, decoded[lookahead : lookahead + len(samples)], kbps, opus_bandwidth(packets))

    def _encoded(self, library: Any, pcm: npt.NDArray[np.float32]) -> tuple[list[bytes], int]:
        """Packets of 20 ms, and the samples by which the encoder looks ahead."""
        failed, lookahead = ctypes.c_int(), ctypes.c_int()
        encoder = ctypes.c_void_p(library.opus_encoder_create(RATE, 1, _OPUS_VOIP, ctypes.byref(failed)))
        _check_opus(failed.value)
        try:
            settings = {_SET_BITRATE: round(1000 * self.kbps), _SET_COMPLEXITY: 10, _SET_INBAND_FEC: 1}
            settings[_SET_PACKET_LOSS] = round(100 * self.network.rate)
            for request, value in settings.items():
                _check_opus(library.opus_encoder_ctl(encoder, request, ctypes.c_int(value)))
            _check_opus(library.opus_encoder_ctl(encoder, _GET_LOOKAHEAD, ctypes.byref(lookahead)))
            packets, out = [], ctypes.create_string_buffer(_OPUS_MAX_BYTES)
            for frame in pcm.reshape(-1, _OPUS_FRAME):
                data = frame.ctypes.data_as(ctypes.c_void_p)
                size = _check_opus(library.opus_encode_float(encoder, data, _OPUS_FRAME, out, len(out)))
                packets.append(out.raw[:size])
        finally:
            library.opus_encoder_destroy(encoder)
        return packets, lookahead.value


@dataclass(frozen=True)
class NetworkBundle(Bundle):
    """A model whose packets, one a frame and without copies, meet a network; for the laboratory a codec like any other."""

    network: Network

    def identity(self) -> str:
        """See `Codec.identity`."""
        return f"{super().identity()} over {self.network}"

    def runs(self, samples: Samples, rates: Sequence[float]) -> Iterator[Coded]:
        """See `Codec.runs`."""
        layout = opened(self.model).layout
        senders = tuple(Sender(layout.layers_for_kbps(kbps)) for kbps in rates)
        seconds = len(samples) / RATE
        for received in LossyBundle(self.model, senders, self.network).outputs(samples):
            yield Coded(received.samples, 1000 * received.kbps * seconds, seconds)


@dataclass(frozen=True)
class NetworkOpus(Codec):
    """Opus by libopus with in-band FEC, its packets of 20 ms meeting a network."""

    network: Network
    name = "opus"
    least_kbps = 6.0
    usual_kbps = (6.0, 12.0)

    def available(self) -> str | None:
        """See `Codec.available`."""
        try:
            _libopus()
        except CodecError as error:
            return str(error)
        return None

    def identity(self) -> str:
        """See `Codec.identity`."""
        version = _libopus().opus_get_version_string().decode()
        return f"{version} in-band FEC over {self.network}"

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        seconds = len(samples) / RATE
        received = next(LossyOpus(kbps, self.network).outputs(samples))
        bandwidth = min(received.bandwidth_hz or RATE, RATE // 2)
        return Coded(received.samples, 1000 * received.kbps * seconds, seconds, bandwidth)


def _opus_decoded(library: Any, packets: list[bytes | None]) -> npt.NDArray[np.float64]:
    """All frames; a lost one from the FEC of the next packet if that arrived (a receiver 20 ms later), else concealed."""
    failed = ctypes.c_int()
    decoder = ctypes.c_void_p(library.opus_decoder_create(RATE, 1, ctypes.byref(failed)))
    _check_opus(failed.value)
    decoded = np.zeros((len(packets), _OPUS_FRAME), np.float32)
    try:
        for packet, following, frame in zip(packets, [*packets[1:], None], decoded, strict=True):
            data = packet or following
            out = frame.ctypes.data_as(ctypes.c_void_p)
            # Without data it conceals; with the following packet it asks for the FEC, and conceals if there is none.
            by_fec = int(packet is None and following is not None)
            _check_opus(library.opus_decode_float(decoder, data, len(data or b""), out, _OPUS_FRAME, by_fec))
    finally:
        library.opus_decoder_destroy(decoder)
    return decoded.ravel().astype(np.float64)


def _check_opus(result: int) -> int:
    if result < 0:
        raise CodecError(f"libopus refused with error {result}: see opus_defines.h")
    return result


@cache
def _libopus() -> Any:
    """The library with its signatures declared.

    Raises:
        CodecError: if it is not installed.
    """
    try:
        library = ctypes.CDLL("libopus.so.0")
    except OSError as error:
        raise CodecError("Opus over a lossy network needs its library: apt install libopus0") from error
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for side, arguments in (("encoder", [number, number, number, pointer]), ("decoder", [number, number, pointer])):
        create, destroy = getattr(library, f"opus_{side}_create"), getattr(library, f"opus_{side}_destroy")
        create.argtypes, create.restype = arguments, pointer
        destroy.argtypes, destroy.restype = [pointer], None
    library.opus_get_version_string.argtypes, library.opus_get_version_string.restype = [], ctypes.c_char_p
    # The variadic opus_encoder_ctl has no fixed signature: its callers pass ctypes' own values.
    library.opus_encode_float.argtypes = [pointer, pointer, number, ctypes.c_char_p, number]
    library.opus_decode_float.argtypes = [pointer, ctypes.c_char_p, number, pointer, number, number]
    return library
