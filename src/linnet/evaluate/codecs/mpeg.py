"""MP3 and AAC-LC by ffmpeg: made for music, heard here at the lowest rates that they have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile

from linnet.evaluate.codecs.base import Codec, CodecError, Coded, call, missing_tools, tool_identity
from linnet.evaluate.metrics import Samples, to_int16

_AAC_FRAME, _ADTS_BYTES = 1024, 7


@dataclass(frozen=True)
class _Ffmpeg(Codec):
    """What the two share. Both are written without the tag that trims the delay, so that it is the same everywhere."""

    name: str
    usual_kbps = (16.0,)

    def available(self) -> str | None:
        """See `Codec.available`."""
        return missing_tools("ffmpeg", package="ffmpeg")

    def identity(self) -> str:
        """See `Codec.identity`."""
        return tool_identity("ffmpeg")

    def _run(self, samples: Samples, suffix: str, *options: str) -> tuple[bytes, Samples]:
        """The coded bytes and the decoded [samples]."""
        with TemporaryDirectory(prefix="linnet-") as folder:
            wav, coded, decoded = (str(Path(folder, name)) for name in ("in.wav", f"coded.{suffix}", "out.wav"))
            soundfile.write(wav, to_int16(samples), self.sample_rate, subtype="PCM_16")
            quiet = ("ffmpeg", "-nostdin", "-v", "error", "-threads", "1")
            call(*quiet, "-i", wav, *options, coded)
            call(*quiet, "-i", coded, "-c:a", "pcm_s16le", decoded)
            return Path(coded).read_bytes(), soundfile.read(decoded, dtype="float64", always_2d=True)[0][:, 0]


@dataclass(frozen=True)
class Mp3(_Ffmpeg):
    """MPEG-2 layer III at 16 kHz by LAME, constant rate. The headers of its frames count: they are part of the stream."""

    name: str = "mp3"
    rates = (8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0, 64.0)

    def delay(self, kbps: float) -> int:  # noqa: ARG002
        """See `Codec.delay`: LAME's 576 samples and the decoder's 529."""
        return 1105

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        bare = ("-write_xing", "0", "-id3v2_version", "0")
        data, audio = self._run(samples, "mp3", "-c:a", "libmp3lame", "-b:a", f"{kbps:g}k", *bare)
        return Coded(audio, 8 * len(data), len(audio) / self.sample_rate)


@dataclass(frozen=True)
class Aac(_Ffmpeg):
    """AAC-LC at 16 kHz by ffmpeg's own encoder, which spends some 10 kbit/s however few it is asked for."""

    name: str = "aac"
    rates = (12.0, 16.0, 24.0, 32.0, 48.0, 64.0)

    def delay(self, kbps: float) -> int:  # noqa: ARG002
        """See `Codec.delay`: one frame of overlap."""
        return _AAC_FRAME

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        data, audio = self._run(samples, "aac", "-c:a", "aac", "-b:a", f"{kbps:g}k")
        frames = at = 0
        while at + _ADTS_BYTES <= len(data):
            size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5  # ISO 14496-3, table 1.A.6
            if size < _ADTS_BYTES:
                raise CodecError("ffmpeg wrote a file that is not ADTS: update ffmpeg")
            frames, at = frames + 1, at + size
        return Coded(audio, 8 * (len(data) - _ADTS_BYTES * frames), frames * _AAC_FRAME / self.sample_rate)
