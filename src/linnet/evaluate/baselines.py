"""The codecs to beat: Opus, Codec 2 and AMR-WB as Debian ships them, behind one protocol.

Each takes and returns 16 kHz audio. The delays that a tool does not trim itself are constants here, measured on speech by
the correlation of log-mel envelopes; rates count the coded bits only, without container or padding. Opus at 6 kbit/s
and Codec 2 are narrowband: their output stops at 4 kHz, which wideband metrics punish and listeners notice.
"""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from linnet.bits.errors import LinnetError
from linnet.evaluate.metrics import RATE, Samples, to_rate

_TIMEOUT_S = 600
_OGG_HEADER_PACKETS = 2  # OpusHead and OpusTags
_AMRWB_FRAME = 320  # samples at 16 kHz, 20 ms
_AMRWB_BITS = (132, 177, 253, 285, 317, 365, 397, 461, 477)  # speech bits a frame of each mode (3GPP TS 26.201, table 2)
_AMRWB_DELAY = 94  # samples at 16 kHz: the look-ahead of 5 ms and the resampling to 12.8 kHz and back
_AMRWB_MAX_BYTES = 64


class BaselineError(LinnetError):
    """A baseline codec that is not installed, or that failed."""


class Baseline(Protocol):
    """A codec to compare with. Instances are small and can be sent to another process."""

    @property
    def name(self) -> str:
        """What tables call it."""

    def available(self) -> str | None:
        """None if it can run here, or one line that says what to install."""

    def run(self, samples: Samples) -> tuple[npt.NDArray[np.float64], float]:
        """Through the codec and back.

        Args:
            samples: [samples] at 16 kHz, full scale 1.0.

        Returns:
            The decoded [samples], of the same length and without the codec's delay, and the measured kbit/s.

        Raises:
            BaselineError: if the codec is missing or fails.
        """


@dataclass(frozen=True)
class Opus:
    """Opus in opus-tools, complexity 10, frames of 20 ms; its default variable rate undershoots what is asked for."""

    kbps: float = 6.0
    hard_cbr: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"opus {self.kbps:g} {'CBR' if self.hard_cbr else 'VBR'}"

    def available(self) -> str | None:
        """None, or the package that is missing."""
        return _need_tools("opusenc", "opusdec", package="opus-tools")

    def run(self, samples: Samples) -> tuple[npt.NDArray[np.float64], float]:
        """See `Baseline.run`. The decoder trims the pre-skip, so nothing is left to compensate."""
        _require(self)
        with TemporaryDirectory(prefix="linnet-") as folder:
            wav, opus, decoded = (Path(folder, name) for name in ("in.wav", "coded.opus", "out.wav"))
            soundfile.write(wav, _to_int16(samples), RATE, subtype="PCM_16")
            rate = ("--bitrate", f"{self.kbps:g}", "--hard-cbr" if self.hard_cbr else "--vbr")
            _call("opusenc", "--quiet", *rate, "--framesize", "20", "--comp", "10", str(wav), str(opus))
            _call("opusdec", "--quiet", "--rate", str(RATE), str(opus), str(decoded))
            packets = list(_ogg_packet_sizes(opus.read_bytes()))[_OGG_HEADER_PACKETS:]
            audio = soundfile.read(decoded, dtype="float64", always_2d=True)[0][:, 0]
        return _aligned(audio, 0, len(samples)), 8 * sum(packets) / (20 * max(1, len(packets)))


@dataclass(frozen=True)
class Codec2:
    """Codec 2, 8 kHz, by its modes of 3200 or 1200 bit/s; the vocoder's phase is synthetic."""

    mode: int = 1200

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"codec2 {self.mode}"

    def available(self) -> str | None:
        """None, or the package that is missing."""
        return _need_tools("c2enc", "c2dec", package="codec2")

    def run(self, samples: Samples) -> tuple[npt.NDArray[np.float64], float]:
        """See `Baseline.run`."""
        _require(self)
        frame_ms, delay_ms = {3200: (20, 19), 1200: (40, 20)}[self.mode]
        narrow = _to_int16(to_rate(samples, RATE, 8000))
        frame = 8 * frame_ms
        # c2enc drops an unfinished frame, and the delay pushes the end out by another one
        padded = np.pad(narrow, (0, -len(narrow) % frame + frame))
        with TemporaryDirectory(prefix="linnet-") as folder:
            raw, bits, decoded = (Path(folder, name) for name in ("in.raw", "coded.bit", "out.raw"))
            raw.write_bytes(padded.astype("<i2").tobytes())
            _call("c2enc", str(self.mode), str(raw), str(bits))
            _call("c2dec", str(self.mode), str(bits), str(decoded))
            coded = bits.stat().st_size
            audio = np.frombuffer(decoded.read_bytes(), "<i2") / 32768
        # These two modes fill whole bytes, so the file's size is the payload.
        kbps = 8 * coded / (len(padded) // frame * frame_ms)
        return _aligned(to_rate(audio, 8000, RATE), delay_ms * RATE // 1000, len(samples)), kbps


@dataclass(frozen=True)
class AmrWb:
    """AMR-WB (3GPP TS 26.171), VisualOn's encoder and OpenCORE's decoder, without discontinuous transmission."""

    mode: int = 0  # 0 is 6.60 kbit/s, 8 is 23.85

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"amrwb {_AMRWB_BITS[self.mode] / 20:.2f}"

    def available(self) -> str | None:
        """None, or the packages that are missing."""
        try:
            _amrwb_libraries()
        except OSError:
            return "AMR-WB needs its libraries: apt install libvo-amrwbenc0 libopencore-amrwb0"
        return None

    def run(self, samples: Samples) -> tuple[npt.NDArray[np.float64], float]:
        """See `Baseline.run`."""
        _require(self)
        encoder, decoder = _amrwb_libraries()
        pcm = _to_int16(samples)
        pcm = np.pad(pcm, (0, -len(pcm) % _AMRWB_FRAME + _AMRWB_FRAME))  # a frame more, for the delay
        sender, receiver = ctypes.c_void_p(encoder.E_IF_init()), ctypes.c_void_p(decoder.D_IF_init())
        packet, decoded = ctypes.create_string_buffer(_AMRWB_MAX_BYTES), np.zeros_like(pcm)
        bits = 0
        try:
            for at in range(0, len(pcm), _AMRWB_FRAME):
                frame, out = pcm[at : at + _AMRWB_FRAME], decoded[at : at + _AMRWB_FRAME]
                encoder.E_IF_encode(sender, self.mode, frame.ctypes.data_as(ctypes.c_void_p), packet, 0)
                # bits 3 to 6 of the first byte name the frame's mode (RFC 4867, section 5.3)
                bits += _AMRWB_BITS[packet.raw[0] >> 3 & 15]
                decoder.D_IF_decode(receiver, packet, out.ctypes.data_as(ctypes.c_void_p), 0)
        finally:
            encoder.E_IF_exit(sender)
            decoder.D_IF_exit(receiver)
        return _aligned(decoded / 32768, _AMRWB_DELAY, len(samples)), bits / (20 * (len(pcm) // _AMRWB_FRAME))


BASELINES: dict[str, Callable[[], tuple[Baseline, ...]]] = {
    "opus": lambda: (Opus(), Opus(hard_cbr=True)),
    "codec2": lambda: (Codec2(1200), Codec2(3200)),
    "amrwb": lambda: (AmrWb(),),
}
"""What `linnet eval --baselines` knows, by family."""


def _require(baseline: Baseline) -> None:
    reason = baseline.available()
    if reason is not None:
        raise BaselineError(reason)


def _need_tools(*tools: str, package: str) -> str | None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return f"{' and '.join(missing)} not found: apt install {package}" if missing else None


def _call(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {error.returncode}"]
        raise BaselineError(f"{command[0]} failed: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise BaselineError(f"{command[0]} took more than {_TIMEOUT_S} s: give it shorter files") from error


def _to_int16(samples: Samples) -> npt.NDArray[np.int16]:
    return np.clip(np.round(np.asarray(samples, np.float64) * 32768), -32768, 32767).astype(np.int16)


def _aligned(decoded: npt.NDArray[np.float64], delay: int, length: int) -> npt.NDArray[np.float64]:
    """Without the first `delay` samples, cut or padded with zeros to `length`."""
    kept = decoded[delay : delay + length]
    return np.pad(kept, (0, length - len(kept)))


def _ogg_packet_sizes(data: bytes) -> Iterator[int]:
    """Bytes of each packet of an Ogg stream (RFC 3533, section 6): a lacing value under 255 ends a packet."""
    at, size = 0, 0
    while at + 27 <= len(data):
        magic, segments = struct.unpack_from("<4s22xB", data, at)
        if magic != b"OggS":
            raise BaselineError("opusenc wrote a file that is not Ogg: update opus-tools")
        lacing = data[at + 27 : at + 27 + segments]
        for value in lacing:
            size += value
            if value < 255:
                yield size
                size = 0
        at += 27 + segments + sum(lacing)


def _amrwb_libraries() -> tuple[Any, Any]:
    """Encoder and decoder with their signatures declared.

    Raises:
        OSError: if one is not installed.
    """
    encoder, decoder = ctypes.CDLL("libvo-amrwbenc.so.0"), ctypes.CDLL("libopencore-amrwb.so.0")
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for library, prefix in ((encoder, "E_IF"), (decoder, "D_IF")):
        start, stop = getattr(library, f"{prefix}_init"), getattr(library, f"{prefix}_exit")
        start.argtypes, start.restype = [], pointer
        stop.argtypes, stop.restype = [pointer], None
    encoder.E_IF_encode.argtypes = [pointer, number, pointer, ctypes.c_char_p, number]
    decoder.D_IF_decode.argtypes = [pointer, ctypes.c_char_p, pointer, number]
    decoder.D_IF_decode.restype = None
    return encoder, decoder
