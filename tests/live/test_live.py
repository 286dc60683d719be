"""The commands: over loopback, through pipes, to the end, to an interrupt, and into every mistake."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from udp_proxy import Proxy, await_listener, free_port

from linnet.bits import Session
from linnet.live import cli
from linnet.live.devices import LOUDSPEAKER, MICROPHONE, LiveError, open_sink, open_source

LINNET = [sys.executable, "-m", "linnet"]


@pytest.fixture
def clip(short, tmp_path):
    """A second of speech as a file."""
    soundfile.write(tmp_path / "clip.wav", short, 16000)
    return tmp_path / "clip.wav"


def begin(*arguments, **streams):
    return subprocess.Popen([*LINNET, *map(str, arguments)], stderr=subprocess.PIPE, **streams)


def complaint(result):
    """The one line of an error."""
    assert result.exit_code != 0
    return " ".join(str(result.exception).split()) if result.exception else result.output


def test_a_bad_network_and_an_interrupt_leave_a_whole_file(clip, tmp_path):
    port = free_port()
    session, copies = tmp_path / "talk.sdp", ("--redundancy", 2, "--spacing", "24ms")
    receiving = begin("recv", f"127.0.0.1:{port}", tmp_path / "out.flac", "--rate", 24000, *copies)
    await_listener(port, receiving)
    with Proxy(port, delay=0.01, jitter=0.01, loss=0.2, repeat=0.1) as proxy:
        options = ("--kbps", 3, "--packet", "12ms", "--sdp", session, *copies)
        sending = begin("send", clip, f"127.0.0.1:{proxy.port}", *options)
        told = sending.communicate(timeout=60)[1].decode()
        time.sleep(0.2)
        assert not (tmp_path / "out.flac").exists()  # before its end
        receiving.send_signal(signal.SIGINT)
        heard = receiving.communicate(timeout=60)[1].decode()
    assert (sending.returncode, receiving.returncode) == (0, 0), told + heard
    assert re.search(r"sent 1\.06 s in \d+ packets, 3 kbit/s, \d\d\.\d kbit/s with the headers", told)
    assert f"{proxy.forwarded - proxy.lost} packets, " in heard
    assert int(re.search(r"(\d+) recovered", heard)[1]) > 0
    assert soundfile.info(tmp_path / "out.flac").samplerate == 24000
    assert np.abs(soundfile.read(tmp_path / "out.flac")[0]).max() > 0.05
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.wav", "out.flac", "talk.sdp"]
    described = Session.parse(session.read_text())
    assert (described.redundancy.offsets, described.packet_ms) == ((2, 4), 12)


def test_pipes_until_the_stream_has_stopped(clip):
    port = free_port()
    receiving = begin("recv", f"127.0.0.1:{port}", "-", "--idle", "2s", stdout=subprocess.PIPE)
    await_listener(port, receiving)
    sending = begin("send", "-", f"127.0.0.1:{port}", stdin=subprocess.PIPE)
    sending.communicate(clip.read_bytes(), timeout=60)
    assert sending.returncode == 0
    sound, told = receiving.communicate(timeout=60)
    assert receiving.returncode == 0, told
    samples = np.frombuffer(sound[44:], "<i2")
    assert sound[:4] == b"RIFF"
    assert len(samples) > 16000
    assert np.abs(samples.astype(int)).max() > 2000


def test_pauses_are_not_sent(short, tmp_path):
    """In noise, whose level is told and heard."""
    quiet = np.zeros(16000, np.float32)
    noise = 0.003 * np.random.default_rng(0).standard_normal(2 * len(quiet) + 2 * 6000).astype(np.float32)
    soundfile.write(tmp_path / "talk.wav", noise + np.concatenate([short[:6000], quiet, short[:6000], quiet]), 16000)
    port, session = free_port(), tmp_path / "talk.sdp"
    receiving = begin("recv", f"127.0.0.1:{port}", tmp_path / "out.wav", "--idle", "2s")
    await_listener(port, receiving)
    sending = begin("send", tmp_path / "talk.wav", f"127.0.0.1:{port}", "--dtx", "--sdp", session)
    told, heard = (process.communicate(timeout=60)[1].decode() for process in (sending, receiving))
    assert (sending.returncode, receiving.returncode) == (0, 0), told + heard
    packets = int(re.search(r"in (\d+) packets", told)[1])
    assert packets < 32  # of 46
    assert f"{packets} packets, 0 missing" in heard
    assert " 0 refused" in heard
    assert Session.parse(session.read_text()).noise_type == 97
    levels = np.square(soundfile.read(tmp_path / "out.wav")[0][: 3 * 16000]).reshape(-1, 1600).mean(axis=1)
    assert np.sqrt(np.quantile(levels, 0.3)) == pytest.approx(0.003, rel=0.5)


def test_a_loop_back(clip, tmp_path):
    options = ["--loss", "0.2", "--redundancy", "1", "--kbps", "3"]
    result = CliRunner().invoke(cli.live, [str(clip), str(tmp_path / "out.wav"), *options])
    assert result.exit_code == 0, result.output
    delay, load, lost = map(float, re.search(r"delay (\d+) ms, .* load ([\d.]+) %, ([\d.]+) % lost", result.output).groups())
    assert delay == 90  # 30 of the codec and 60 of the wait for the copy
    assert 0 < load < 500
    assert 5 < lost < 40
    frames = soundfile.info(tmp_path / "out.wav").frames
    assert 0 <= frames - soundfile.info(clip).frames < 4 * 192


def test_a_meter_is_shown_on_a_terminal(clip, tmp_path):
    ours, its = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        running = subprocess.Popen([*LINNET, "live", str(clip), str(tmp_path / "out.wav")], stderr=its)
        os.close(its)
        shown = b""
        with suppress(OSError):  # what a terminal says when its other end is closed
            while part := terminal.read(4096):
                shown += part
        assert running.wait(60) == 0
    lines = shown.decode().replace("\x1b[K", "").split("\r")
    assert re.fullmatch(r"delay 30 ms, [\d.]+ ms a frame of 12, load [\d.]+ %, 0\.0 % lost", lines[1])
    assert lines[-2].startswith(f"\nlinnet: {tmp_path / 'out.wav'}: ")


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (cli.recv, ["nowhere", "x.wav"], "no address"),
        (cli.recv, ["127.0.0.1:{port}", "x.txt"], "not a format"),
        (cli.recv, ["127.0.0.1:{port}", "x.wav", "--sdp", "clip.wav"], "no session of linnet"),
        (cli.recv, ["127.0.0.1:{port}", "x.wav", "--sdp", "other.sdp"], "describes model 00000000"),
        (cli.recv, ["127.0.0.1:{port}", "x.wav", "--min-delay", "2s"], "smaller one first"),
        (cli.recv, ["nosuchhost.invalid:5004", "x.wav"], "cannot be used"),
        (cli.send, ["missing.wav", "127.0.0.1:{port}"], "does not exist"),
        (cli.send, ["clip.wav", "127.0.0.1:{port}", "--packet", "1s"], "at most 192 ms"),
        (cli.send, ["clip.wav", "127.0.0.1:{port}", "--kbps", "0.5"], "ask for at least 1"),
        (cli.live, ["clip.wav", "x.wav", "--loss", "0.9", "--burst", "20ms"], "longer bursts"),
        (cli.live, ["missing.wav", "x.wav"], "does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(clip, tmp_path, monkeypatch, command, arguments, message):
    assert clip.parent == tmp_path
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.sdp").write_text(Session(bytes(4), 16000, 5004).describe())
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(command, [part.format(port=free_port()) for part in arguments])
    assert message in complaint(result)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_came(tmp_path, number):
    port = free_port()
    receiving = begin("recv", f"127.0.0.1:{port}", tmp_path / "out.wav")
    await_listener(port, receiving)
    receiving.send_signal(number)
    told = receiving.communicate(timeout=60)[1].decode().splitlines()
    assert (receiving.returncode, len(told)) == (2, 1)
    assert told[0].startswith(f"linnet: nothing of a Linnet stream came to 127.0.0.1:{port} (0 other packets)")
    assert list(tmp_path.iterdir()) == []


class PortAudioError(Exception):
    pass


def fake_sound(spoken=(), rates=(16000,), error=None, after=None):
    """The part of sounddevice that is used; `after` is called when all was spoken."""
    played, left = [], list(spoken)

    class Stream:
        latency = 0.02

        def __init__(self, samplerate, **_):
            if error:
                raise PortAudioError(error)
            self.samplerate = samplerate

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, count):
            part = np.array([left.pop(0) if left else 0 for _ in range(count)], np.float32)
            if not left and after:
                after()
            return part[:, np.newaxis], False

        def write(self, samples):
            assert samples.dtype == np.float32
            played.append(samples[:, 0])

    def check(samplerate, **_):
        if samplerate not in rates:
            raise PortAudioError("Invalid sample rate")

    return SimpleNamespace(
        PortAudioError=PortAudioError, InputStream=Stream, OutputStream=Stream, check_input_settings=check, played=played,
        check_output_settings=check, query_devices=lambda kind: {"default_samplerate": 48000.0},  # noqa: ARG005
    )  # fmt: skip


def test_microphone_to_loudspeaker_until_the_interrupt(monkeypatch, short):
    sound = fake_sound(short[:9600], after=lambda: os.kill(os.getpid(), signal.SIGINT))
    monkeypatch.setitem(sys.modules, "sounddevice", sound)
    before = signal.getsignal(signal.SIGINT)
    result = CliRunner().invoke(cli.live, [])
    assert result.exit_code == 0, result.output
    assert "delay 70 ms" in result.output  # 30 of the codec and 20 of each device
    played = np.concatenate(sound.played)
    assert 9600 <= len(played) <= 9600 + 4 * 192
    assert np.abs(played).max() > 0.05
    assert signal.getsignal(signal.SIGINT) is before


def test_devices_of_another_rate(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sound([0.5, 0.5, np.nan, 7, -np.inf]))
    with open_source(MICROPHONE, 44100) as source, open_sink(LOUDSPEAKER, 44100) as sink:
        assert (source.sample_rate, sink.sample_rate, source.paced, sink.paced) == (48000, 48000, True, True)
        np.testing.assert_array_equal(source.read(6), [0.5, 0.5, 0, 1, 0, 0])
        sink.write(np.array([0.5, -7], np.float32))
    np.testing.assert_array_equal(sys.modules["sounddevice"].played, [[0.5, -1]])


@pytest.mark.parametrize(("kind", "opening"), [("input", open_source), ("output", open_sink)])
def test_devices_that_are_not_there(monkeypatch, kind, opening):
    path = MICROPHONE if kind == "input" else LOUDSPEAKER
    monkeypatch.setitem(sys.modules, "sounddevice", fake_sound(error="Error querying device -1"))
    with pytest.raises(LiveError, match=f"the {kind} device cannot be used.*-1"), opening(path, 16000):
        pass
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(LiveError, match="pip install"), opening(path, 16000):
        pass
