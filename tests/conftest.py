import os

# Before anything loads OpenMP: several test processes with a thread a core each wait for each other without end.
os.environ["OMP_NUM_THREADS"] = "1"

import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

import linnet

DATA = Path(__file__).parent / "data"

# A shell's background job, or one under nohup, ignores these, and so would the commands that tests interrupt.
for name, handler in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), handler)


@pytest.fixture(scope="session")
def recording():
    """The path of a real recording: 5 s of speech at 16 kHz."""
    return DATA / "speech.flac"


@pytest.fixture(scope="session")
def speech(recording):
    """Its samples, float32."""
    samples, rate = soundfile.read(recording, dtype="float32")
    assert rate == 16000
    return samples


@pytest.fixture(scope="session")
def codec():
    return linnet.load("clear")


@pytest.fixture(scope="session")
def short(speech):
    """A second and a bit of it."""
    return np.ascontiguousarray(speech[20000:37003])
