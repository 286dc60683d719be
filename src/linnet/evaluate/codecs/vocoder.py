"""Codec 2, the open vocoder below 4 kbit/s."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from linnet.evaluate.codecs.base import Codec, Coded, call, missing_tools, tool_identity
from linnet.evaluate.metrics import Samples, to_int16

# By nominal kbit/s: the mode's name, bits and samples of a frame, delay in samples. The delays were measured on speech,
# by the envelopes of octave bands, because the phase is synthetic.
_MODES = {
    0.45: ("450", 18, 320, 216),
    0.7: ("700C", 28, 320, 232),
    1.2: ("1200", 48, 320, 160),
    1.3: ("1300", 52, 320, 160),
    1.4: ("1400", 56, 320, 160),
    1.6: ("1600", 64, 320, 160),
    2.4: ("2400", 48, 160, 152),
    3.2: ("3200", 64, 160, 152),
}


@dataclass(frozen=True)
class Codec2(Codec):
    """Codec 2 (Rowe), 8 kHz. Its files pad a frame to whole bytes, so the bits are counted by frames, not by bytes."""

    name: str = "codec2"
    sample_rate = 8000
    bandwidth_hz = 4000
    frame = 320
    rates = tuple(_MODES)
    usual_kbps = (1.2, 3.2)

    def available(self) -> str | None:
        """See `Codec.available`."""
        return missing_tools("c2enc", "c2dec", package="codec2")

    def identity(self) -> str:
        """See `Codec.identity`."""
        return tool_identity("c2enc", "c2dec")

    def delay(self, kbps: float) -> int:
        """See `Codec.delay`."""
        return _MODES[kbps][3]

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        mode, bits, frame, _ = _MODES[kbps]
        with TemporaryDirectory(prefix="linnet-") as folder:
            raw, coded, decoded = (Path(folder, name) for name in ("in.raw", "coded.bit", "out.raw"))
            raw.write_bytes(to_int16(samples).astype("<i2").tobytes())
            call("c2enc", mode, str(raw), str(coded))
            call("c2dec", mode, str(coded), str(decoded))
            frames = coded.stat().st_size // -(-bits // 8)
            audio = np.frombuffer(decoded.read_bytes(), "<i2") / 32768
        return Coded(audio, bits * frames, frame * frames / self.sample_rate)
