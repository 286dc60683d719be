"""Where live sound comes from and goes to: recordings, pipes, and PortAudio's devices behind the same small interface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import soundfile

from linnet import files
from linnet.bits import LinnetError
from linnet.runtime.audio import Samples, to_mono

MICROPHONE, LOUDSPEAKER = "mic", "speaker"
"""What to write in the place of a path; a recording of this name is ./mic."""


class LiveError(LinnetError):
    """A device that is not there, an address that is none, a network from which nothing came."""


class Source(Protocol):
    """Gives samples.

    Attributes:
        sample_rate: in Hz.
        paced: whether `read` waits for what is yet to sound, so that it sets the pace.
        latency_s: how long a sound takes from the air to `read`, at least.
    """

    sample_rate: int
    paced: bool
    latency_s: float

    def read(self, count: int) -> Samples:
        """The next `count` samples, float32 `[count]`; fewer at the end, and then none."""


class Sink(Protocol):
    """Takes samples.

    Attributes:
        sample_rate: in Hz.
        paced: whether `write` waits until there is room, so that it sets the pace.
        latency_s: how long a sound takes from `write` to the air, at least.
    """

    sample_rate: int
    paced: bool
    latency_s: float

    def write(self, samples: Samples) -> None:
        """The next samples, float32 `[n]`."""


class RecordingSource:
    """A recording or a pipe; several channels are mixed to one."""

    paced, latency_s = False, 0.0

    def __init__(self, audio: soundfile.SoundFile):
        self.audio, self.sample_rate = audio, int(audio.samplerate)
        self._begun = False

    def read(self, count: int) -> Samples:
        """See `Source.read`. A FileError for a recording that is empty or damaged."""
        samples = files.read_mono(self.audio, count)
        if not self._begun and len(samples) == 0:
            raise files.FileError(f"{files.name_of(self.audio)} holds no audio")
        self._begun = True
        return samples


class RecordingSink:
    """A recording or a pipe, of one channel."""

    paced, latency_s = False, 0.0

    def __init__(self, write: Callable[[Samples], object], sample_rate: int):
        self._write, self.sample_rate = write, sample_rate

    def write(self, samples: Samples) -> None:
        """See `Sink.write`."""
        self._write(samples)


class Microphone:
    """PortAudio's input device."""

    paced = True

    def __init__(self, stream: Any):
        self.stream, self.sample_rate, self.latency_s = stream, int(stream.samplerate), float(stream.latency)

    def read(self, count: int) -> Samples:
        """See `Source.read`. What was not fetched in time is missing, and what a driver leaves unfilled is silence."""
        samples, _ = self.stream.read(count)
        return to_mono(np.clip(np.nan_to_num(samples, posinf=0, neginf=0), -1, 1))


class Loudspeaker:
    """PortAudio's output device."""

    paced = True

    def __init__(self, stream: Any):
        self.stream, self.sample_rate, self.latency_s = stream, int(stream.samplerate), float(stream.latency)

    def write(self, samples: Samples) -> None:
        """See `Sink.write`. What was not brought in time is silence."""
        self.stream.write(np.ascontiguousarray(np.clip(samples, -1, 1)[:, np.newaxis], np.float32))


@contextmanager
def open_source(path: str, sample_rate: int) -> Iterator[Source]:
    """The microphone, at `sample_rate` if it can, or a recording at its own; '-' is standard input."""
    if path != MICROPHONE:
        with files.open_audio(path) as audio:
            yield RecordingSource(audio)
        return
    with _opened("input", sample_rate) as stream:
        yield Microphone(stream)


@contextmanager
def open_sink(path: str, sample_rate: int) -> Iterator[Sink]:
    """The loudspeaker, at `sample_rate` if it can, or a recording, which appears, whole, at the end; '-' is standard output."""
    if path != LOUDSPEAKER:
        with files.audio_writer(path, sample_rate) as write:
            yield RecordingSink(write, sample_rate)
        return
    with _opened("output", sample_rate) as stream:
        yield Loudspeaker(stream)


@contextmanager
def _opened(kind: str, sample_rate: int) -> Iterator[Any]:
    """The default input or output device, running."""
    sound = _portaudio()
    check, open_stream = (
        (sound.check_input_settings, sound.InputStream)
        if kind == "input"
        else (sound.check_output_settings, sound.OutputStream)
    )
    settings = {"channels": 1, "dtype": "float32"}
    try:
        try:
            check(samplerate=sample_rate, **settings)
        except sound.PortAudioError:
            sample_rate = int(sound.query_devices(kind=kind)["default_samplerate"])
        with open_stream(samplerate=sample_rate, latency="low", **settings) as stream:
            yield stream
    except sound.PortAudioError as error:
        message = " ".join(str(error).split())
        raise LiveError(f"the {kind} device cannot be used ({message}): name a file, or '-'") from error


def _portaudio() -> ModuleType:
    try:
        import sounddevice
    except ImportError as error:
        raise LiveError("microphone and loudspeaker need sounddevice: pip install 'linnet[live]'") from error
    except OSError as error:  # the package without the library
        raise LiveError(f"microphone and loudspeaker need PortAudio ({error}): install it, say libportaudio2") from error
    return sounddevice
