"""Any command that codes a file is a codec."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile

from linnet.evaluate.codecs.base import Codec, CodecError, Coded, call
from linnet.evaluate.metrics import Samples, to_int16, to_rate
from linnet.writing import file_identity

_PLACES = ("in", "out", "kbps", "bits")


@dataclass(frozen=True)
class Command(Codec):
    """A shell command with the places {in} and {out} (WAV files, 16 kHz, 16 bits) and, as one likes, {kbps} and {bits}.

    {bits} is a file in which the command leaves the coded bits: its size is the rate. Without it the rate is the one that
    was asked for, and no more is known. The command's delay is unknown, so it is measured in each file; {out} may have
    another sample rate.
    """

    name: str
    template: str
    usual_kbps = (6.0,)

    def __post_init__(self) -> None:
        """Raises CodecError if the command cannot be one."""
        places = set(re.findall(r"\{(\w+)\}", self.template))
        unknown = sorted(places - set(_PLACES))
        if unknown or not {"in", "out"} <= places:
            said = f"has {{{unknown[0]}}}" if unknown else "lacks {in} or {out}"
            raise CodecError(
                f"the command of {self.name!r} {said}: a command has {{in}}, {{out}} and may have {{kbps}}, {{bits}}"
            )

    def available(self) -> str | None:
        """See `Codec.available`."""
        tool = self._tool()
        return None if shutil.which(tool) else f"{tool} not found: install it, or correct the command of {self.name!r}"

    def identity(self) -> str:
        """See `Codec.identity`: the command, and the build of the program that it starts with."""
        path = shutil.which(self._tool())
        return f"{self.template} {file_identity(path) if path else ''}"

    def delay(self, kbps: float) -> None:  # noqa: ARG002
        """See `Codec.delay`."""
        return

    def run(self, samples: Samples, kbps: float) -> Coded:
        """See `Codec.run`."""
        seconds = len(samples) / self.sample_rate
        with TemporaryDirectory(prefix="linnet-") as folder:
            files = {"in": "in.wav", "out": "out.wav", "bits": "coded"}
            places = {place: str(Path(folder, name)) for place, name in files.items()}
            soundfile.write(places["in"], to_int16(samples), self.sample_rate, subtype="PCM_16")
            command = self.template
            for place, value in (places | {"kbps": f"{kbps:g}"}).items():
                command = command.replace(f"{{{place}}}", shlex.quote(value))
            call(command, shell=True)
            try:
                audio, rate = soundfile.read(places["out"], dtype="float64", always_2d=True)
                bits = 8 * Path(places["bits"]).stat().st_size if "{bits}" in self.template else 1000 * kbps * seconds
            except (OSError, soundfile.LibsndfileError) as error:
                raise CodecError(f"the command of {self.name!r} left no readable output: {error}") from error
        return Coded(to_rate(audio[:, 0], rate, self.sample_rate), bits, seconds)

    def _tool(self) -> str:
        words = [word for word in shlex.split(self.template) if "=" not in word.split("/")[0]]  # VARIABLE=value may precede
        return words[0] if words else self.template
