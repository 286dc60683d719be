import io
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

LINNET = [sys.executable, "-m", "linnet"]


def run(*arguments, stdin=b""):
    return subprocess.run([*LINNET, *map(str, arguments)], input=stdin, capture_output=True, timeout=120)


def complaint(result):
    """The one line of an error."""
    assert result.returncode == 2, result.stderr
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("linnet: ")
    return lines[0]


def test_there_and_back(recording, tmp_path):
    result = run("roundtrip", recording, tmp_path / "out.wav", "--kbps", 1)
    assert result.returncode == 0, result.stderr
    assert b"1 kbit/s" in result.stdout
    assert b"latency 30 ms" in result.stdout
    assert soundfile.info(tmp_path / "out.wav").frames == soundfile.info(recording).frames


def test_a_network_that_loses_packets(recording, tmp_path):
    options = ("--kbps", 3, "--loss", 0.2, "--burst", "60ms", "--redundancy", 2, "--seed", 1)
    heard = []
    for name in ("a.wav", "b.wav"):
        result = run("roundtrip", recording, tmp_path / name, *options)
        assert result.returncode == 0, result.stderr
        heard.append((tmp_path / name).read_bytes())
    assert heard[0] == heard[1]
    assert b"2 copies of each frame's first layer, 60 and 120 ms later; 3 kbit/s in total, latency 150 ms" in result.stdout
    lost, packets, recovered, concealed = map(
        int, re.search(rb"loss: (\d+) of (\d+) .*; (\d+) frames recovered from copies, (\d+) conc", result.stdout).groups()
    )
    assert recovered + concealed == lost
    assert 0.05 < lost / packets < 0.4
    assert concealed < recovered
    assert soundfile.info(tmp_path / "a.wav").frames == soundfile.info(recording).frames


def test_a_recorded_trace(recording, tmp_path):
    (tmp_path / "trace.txt").write_text("0\n" * 9 + "1\n")
    result = run("roundtrip", recording, tmp_path / "out.wav", "--trace", tmp_path / "trace.txt")
    assert b" packets (10.0 %), 12 ms in a row" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--burst", "60"), "like 60ms"),
        (("--burst", "0ms"), "like 60ms"),
        (("--loss", 0.9, "--burst", "60ms"), "longer bursts"),
        (("--loss", 0.1, "--trace", "trace.txt"), "leave out"),
        (("--trace", "trace.txt"), "line 1: 'x'"),
        (("--trace", "missing.txt"), "No such file"),
        (("--kbps", 2, "--redundancy", 2), "ask for at least 3"),
        (("--redundancy", 3, "--spacing", "2s"), "1 to 255"),
    ],
)
def test_a_network_that_cannot_be_is_one_line(recording, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trace.txt").write_text("x")
    assert message in complaint(run("roundtrip", recording, "out.wav", *options))
    assert not (tmp_path / "out.wav").exists()


def test_thinning_equals_encoding_at_the_lower_rate(recording, tmp_path):
    for arguments in (("encode", recording, tmp_path / "6.lnt"), ("encode", recording, tmp_path / "2.lnt", "--kbps", 2)):
        assert run(*arguments).returncode == 0
    assert run("thin", tmp_path / "6.lnt", tmp_path / "thin.lnt", "--kbps", 2).returncode == 0
    assert (tmp_path / "thin.lnt").read_bytes() == (tmp_path / "2.lnt").read_bytes()
    for source, options in (("6.lnt", ["--kbps", 2]), ("2.lnt", [])):
        assert run("decode", tmp_path / source, tmp_path / f"{source}.wav", *options).returncode == 0
    heard = [soundfile.read(tmp_path / f"{name}.lnt.wav")[0] for name in (6, 2)]
    np.testing.assert_allclose(*heard, atol=1e-4)
    assert b"2 kbit/s in 2 layers" in run("info", tmp_path / "2.lnt").stdout


def test_ten_seconds_at_one_kilobit_stay_small(speech, tmp_path):
    soundfile.write(tmp_path / "ten.wav", np.resize(speech, 160000), 16000)
    assert run("encode", tmp_path / "ten.wav", tmp_path / "ten.lnt", "--kbps", 1).returncode == 0
    assert (tmp_path / "ten.lnt").stat().st_size <= 1290


def test_pipes(recording, speech, tmp_path):
    wav = io.BytesIO()
    soundfile.write(wav, speech, 16000, format="WAV")
    bits = run("encode", "-", "-", "--kbps", 3, stdin=wav.getvalue())
    assert bits.returncode == 0, bits.stderr
    assert run("encode", recording, tmp_path / "o.lnt", "--kbps", 3).returncode == 0
    assert bits.stdout == (tmp_path / "o.lnt").read_bytes()
    heard = run("decode", "-", "-", stdin=run("thin", "-", "-", "--kbps", 1, stdin=bits.stdout).stdout)
    assert heard.returncode == 0, heard.stderr
    assert len(heard.stdout) == 44 + 2 * len(speech)


def test_stereo_is_mixed_and_the_rate_kept(speech, tmp_path):
    soundfile.write(tmp_path / "in.flac", np.stack([speech, 0.5 * speech], 1), 44100)
    assert run("encode", tmp_path / "in.flac", tmp_path / "o.lnt").stderr == b"linnet: mixed 2 channels to one\n"
    assert run("decode", tmp_path / "o.lnt", tmp_path / "out.ogg").returncode == 0
    info = soundfile.info(tmp_path / "out.ogg")
    assert (info.samplerate, info.channels) == (44100, 1)
    assert run("decode", tmp_path / "o.lnt", tmp_path / "out.wav", "--rate", 8000).returncode == 0
    assert soundfile.info(tmp_path / "out.wav").frames == round(len(speech) * 8000 / 44100)


def test_a_cut_file_decodes_to_the_cut(recording, tmp_path):
    assert run("encode", recording, tmp_path / "o.lnt").returncode == 0
    (tmp_path / "cut.lnt").write_bytes((tmp_path / "o.lnt").read_bytes()[:2000])
    result = run("decode", tmp_path / "cut.lnt", tmp_path / "cut.wav")
    assert result.returncode == 0
    assert b"cut short" in result.stderr
    assert soundfile.info(tmp_path / "cut.wav").frames > 16000


@pytest.fixture
def bad(tmp_path, recording):
    """Inputs that cannot work, by name."""
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no sound")
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0), 16000)
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan] * 500), 16000, subtype="FLOAT")
    assert run("encode", recording, tmp_path / "good.lnt").returncode == 0
    data = bytearray((tmp_path / "good.lnt").read_bytes())
    data[300] ^= 0x40
    (tmp_path / "damaged.lnt").write_bytes(data)
    data = bytearray((tmp_path / "good.lnt").read_bytes())
    (tmp_path / "text.lnt").write_text("not bits")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "missing.wav", "o.lnt"), "does not exist"),
        (("encode", ".", "o.lnt"), "is a folder"),
        (("encode", "empty.wav", "o.lnt"), "not audio"),
        (("encode", "text.wav", "o.lnt"), "not audio"),
        (("encode", "nothing.wav", "o.lnt"), "no audio"),
        (("encode", "nan.wav", "o.lnt"), "finite"),
        (("encode", "good.lnt", "o.lnt"), "not audio"),
        (("encode", "text.wav", "nowhere/o.lnt"), "nowhere"),
        (("encode", "text.wav", "o.lnt", "--kbps", "0.3"), ""),
        (("encode", "text.wav", "o.lnt", "--model", "loud"), "no model 'loud'"),
        (("decode", "damaged.lnt", "o.wav"), "damaged"),
        (("decode", "text.lnt", "o.wav"), "not a .lnt file"),
        (("decode", "missing.lnt", "o.wav"), "No such file"),
        (("decode", "good.lnt", "o.xyz"), ".xyz is not a format"),
        (("decode", "good.lnt", "good.lnt"), "both the input and the output"),
        (("thin", "damaged.lnt", "o.lnt", "--kbps", "1"), "damaged"),
        (("info", "missing.lnt"), "No such file"),
        (("sing",), "sing"),
        (("encode",), "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(bad, monkeypatch, arguments, message):
    monkeypatch.chdir(bad)
    before = {path: path.stat().st_mtime_ns for path in bad.iterdir()}
    assert message in complaint(run(*arguments))
    assert {path: path.stat().st_mtime_ns for path in bad.iterdir()} == before


def test_torch_stays_out():
    code = "import sys, linnet.cli, linnet.files, linnet.evaluate.cli; linnet.load(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "onnxruntime" in loaded
    assert not {"torch", "onnx", "pesq", "pystoi"} & set(loaded)


def test_help_loads_nothing_heavy():
    code = "import sys, linnet.cli; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert not {"torch", "onnxruntime", "soundfile", "soxr"} & loaded
    assert b"roundtrip" in run("--help").stdout
    assert b"clear: 1 to 6 kbit/s" in run("models").stdout
