import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import linnet
import linnet.bundle
from linnet import files
from linnet.writing import FileError, replacing

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
        (("--redundancy", 1, "--spacing", "9" * 400 + "s"), "like 60ms"),
        (("--loss", 0.9, "--burst", "60ms"), "longer bursts"),
        (("--loss", 0.1, "--trace", "trace.txt"), "leave out"),
        (("--trace", "trace.txt"), "line 1: 'x'"),
        (("--trace", "missing.txt"), "No such file"),
        (("--kbps", 2, "--redundancy", 2), "ask for at least 3"),
        (("--redundancy", 3, "--spacing", "2s"), "1 to 255"),
        (("--background", "3"), "write 0, -12 or off"),
        (("--background", "quiet"), "write 0, -12 or off"),
        (("--background", "off"), "does not code the background apart"),
    ],
)
def test_options_that_cannot_be_are_one_line(recording, tmp_path, monkeypatch, options, message):
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
    # As docs/bitstream.md says.
    assert run("encode", tmp_path / "ten.wav", tmp_path / "plain.lnt", "--kbps", 1, "--no-entropy").returncode == 0
    assert (tmp_path / "plain.lnt").stat().st_size == 1286


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


@pytest.mark.parametrize("model", linnet.bundle.list_models())
def test_a_file_finds_its_shipped_model(model, recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("encode", recording, "o.lnt", "--kbps", 2, "--model", model).returncode == 0
    for options in ((), ("--model", model)):
        result = run("decode", "o.lnt", f"{len(options)}.wav", *options)
        assert result.returncode == 0, result.stderr
    assert Path("0.wav").read_bytes() == Path("2.wav").read_bytes()
    assert len(run("decode", "-", "-", stdin=Path("o.lnt").read_bytes()).stdout) == Path("0.wav").stat().st_size
    assert f"model {model}, 2 kbit/s".encode() in run("info", "o.lnt").stdout


@pytest.fixture(scope="module")
def with_tables(recording, tmp_path_factory):
    """The model with tables fitted to the recording: whatever the weights are, it gets smaller."""
    folder = tmp_path_factory.mktemp("fitted")
    model = shutil.copytree(Path(linnet.bundle.__file__).parent / "models" / "clear", folder / "model")
    (folder / "speech").mkdir()
    shutil.copy(recording, folder / "speech")
    result = run("tables", model, "--corpus", folder / "speech")
    assert result.returncode == 0, result.stderr
    assert re.search(rb"\d+ bytes of tables, fitted to 0.00 h", result.stdout)
    return model


def test_a_card_takes_what_was_measured(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = shutil.copytree(Path(linnet.bundle.__file__).parent / "models" / "clear", tmp_path / "my-model")
    (tmp_path / "speech").mkdir()
    shutil.copy(recording, tmp_path / "speech")
    folders = (f"--set={tmp_path / 'speech'}", "--cache", tmp_path / "cache")
    options = (*folders, "--kbps", "1,6", "--metrics", "si_sdr", "--jobs", 1)
    result = run("eval", model, *options, "--codec", "pcm", "--card")
    assert result.returncode == 0, result.stderr
    results = linnet.bundle.read_card(model).results
    called = "linnet eval my-model --set=speech --cache cache --kbps 1,6 --metrics si_sdr --jobs 1 --codec pcm --card"
    assert results["command"] == called
    assert [(mean["codec"], mean["condition"], mean["files"]) for mean in results["means"]] == [
        ("my-model 1", "clean", 1), ("my-model 6", "clean", 1),
    ]  # fmt: skip
    assert results["means"][0]["si_sdr"] < results["means"][1]["si_sdr"]
    linnet.bundle.load(model)
    assert b"[[results.means]]" in run("info", model).stdout
    assert "pcm is no model" in complaint(run("eval", "pcm", *options, "--card"))
    assert "--shard" in complaint(run("eval", model, *options, "--card", "--shard", "1/2"))
    zipped = shutil.make_archive(str(tmp_path / "zipped"), "zip", model)
    assert "unpack the bundle" in complaint(run("eval", zipped, *options, "--card"))


def test_entropy_coding_is_smaller_and_changes_nothing(recording, with_tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ("--model", with_tables)
    assert run("encode", recording, "plain.lnt", "--no-entropy", *model).returncode == 0
    assert run("encode", recording, "coded.lnt", *model).returncode == 0
    sizes = [Path(name).stat().st_size for name in ("coded.lnt", "plain.lnt")]
    assert sizes[0] < 0.8 * sizes[1]
    for name in ("plain", "coded"):
        assert run("decode", f"{name}.lnt", f"{name}.wav", *model).returncode == 0
    assert Path("plain.wav").read_bytes() == Path("coded.wav").read_bytes()
    found = re.search(
        r"(\d+) bytes \((\d+) without entropy coding\)", run("roundtrip", recording, "o.wav", *model).stdout.decode()
    )
    assert [int(size) for size in found.groups()] == sizes
    # Without its tables, and by other ones, the file is refused.
    assert "needs model" in complaint(run("decode", "coded.lnt", "o.wav"))
    assert b"not shipped" in run("info", "coded.lnt").stdout
    assert b"entropy-coded, " in run("info", "coded.lnt", *model).stdout


def test_entropy_coded_files_are_thinned_piped_and_cut(recording, with_tables, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ("--model", with_tables)
    assert run("encode", recording, "6.lnt", *model).returncode == 0
    assert run("encode", recording, "1.lnt", "--kbps", 1, *model).returncode == 0
    thinned = run("thin", "-", "-", "--kbps", 1, *model, stdin=Path("6.lnt").read_bytes())
    assert thinned.stdout == Path("1.lnt").read_bytes()
    heard = run("decode", "-", "-", *model, stdin=thinned.stdout)
    assert heard.returncode == 0, heard.stderr
    assert len(heard.stdout) == 44 + 2 * soundfile.info(recording).frames
    Path("cut.lnt").write_bytes(thinned.stdout[:300])
    result = run("decode", "cut.lnt", "cut.wav", *model)
    assert result.returncode == 0
    assert b"cut short" in result.stderr
    assert soundfile.info("cut.wav").frames > 16000
    mangled = bytearray(thinned.stdout)
    mangled[200] ^= 1
    Path("damaged.lnt").write_bytes(mangled)
    for arguments in (("decode", "damaged.lnt", "o.wav"), ("thin", "damaged.lnt", "o.lnt", "--kbps", 1)):
        assert "damaged" in complaint(run(*arguments, *model))
        assert not Path(arguments[2]).exists()


def test_info_tells_what_is_saved(recording, tmp_path):
    if linnet.load("clear").coder is None:
        pytest.skip("the shipped model has no tables")
    assert run("encode", recording, tmp_path / "o.lnt", "--kbps", 1).returncode == 0
    assert run("encode", recording, tmp_path / "p.lnt", "--kbps", 1, "--no-entropy").returncode == 0
    saved = 1 - (tmp_path / "o.lnt").stat().st_size / (tmp_path / "p.lnt").stat().st_size
    assert f"entropy-coded, {100 * saved:.1f} % smaller than without" in run("info", tmp_path / "o.lnt").stdout.decode()
    assert b"entropy" not in run("info", tmp_path / "p.lnt").stdout


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
    header = (tmp_path / "o.lnt").read_bytes()[:14]
    assert b"cut short" in run("decode", "-", tmp_path / "none.wav", stdin=header).stderr


def test_damaged_frames_are_concealed_if_asked(bad):
    result = run("decode", "--conceal", bad / "damaged.lnt", bad / "o.wav")
    assert result.returncode == 0, result.stderr
    assert re.fullmatch(rb"linnet: .*damaged.lnt: 256 damaged frames are concealed\n", result.stderr)
    heard = soundfile.read(bad / "o.wav")[0]
    assert len(heard) == 80280
    assert np.std(heard[16000:40000]) < 1e-4  # in the midst of 3 s
    assert np.std(heard[-16000:]) > 5e-3  # and after them


def test_info_tells_the_length_of_the_sound(recording, tmp_path):
    assert run("encode", recording, tmp_path / "o.lnt").returncode == 0
    told = run("info", tmp_path / "o.lnt").stdout.partition(b": ")[2]
    assert b" 5.02 s, " in told  # 5.04 s of frames
    assert run("info", "-", stdin=(tmp_path / "o.lnt").read_bytes()).stdout.partition(b": ")[2] == told


@pytest.mark.parametrize("ending", ["wav", "aiff", "au"])
def test_a_cut_recording_is_encoded_to_the_cut(speech, tmp_path, ending):
    soundfile.write(tmp_path / f"whole.{ending}", speech, 16000)
    whole = (tmp_path / f"whole.{ending}").read_bytes()
    (tmp_path / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
    assert b"cut short" in run("encode", tmp_path / f"cut.{ending}", tmp_path / "o.lnt").stderr
    assert b"cut short" in run("encode", "-", tmp_path / "o.lnt", stdin=whole[: len(whole) // 2]).stderr
    assert run("encode", "-", tmp_path / "o.lnt", stdin=whole).stderr == b""


def test_a_length_that_was_not_known_is_no_cut(recording, tmp_path):
    assert run("encode", recording, tmp_path / "o.lnt").returncode == 0
    (tmp_path / "piped.wav").write_bytes(run("decode", tmp_path / "o.lnt", "-").stdout)
    assert run("encode", tmp_path / "piped.wav", tmp_path / "o.lnt").stderr == b""


def test_what_cannot_be_read_from_a_pipe(recording, tmp_path):
    assert "from a pipe" in complaint(run("encode", "-", tmp_path / "o.lnt", stdin=recording.read_bytes()))
    mp3 = io.BytesIO()
    soundfile.write(mp3, np.zeros(16000), 16000, format="MP3")
    assert "from a pipe (MP3): name a file" in complaint(run("encode", "-", tmp_path / "o.lnt", stdin=mp3.getvalue()))
    with open(recording, "rb") as file:
        assert subprocess.run([*LINNET, "encode", "-", tmp_path / "o.lnt"], stdin=file, timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [("encode - -", "<&-"), ("decode - o.wav", "<&-"), ("encode s.flac -", ">&-"), ("decode o.lnt -", ">&-")],
)
def test_closed_streams_are_one_line(recording, tmp_path, monkeypatch, arguments, closed):
    monkeypatch.chdir(tmp_path)
    shutil.copy(recording, "s.flac")
    assert run("encode", "s.flac", "o.lnt").returncode == 0
    command = f"{' '.join(LINNET)} {arguments} {closed}"
    assert "is closed" in complaint(subprocess.run(command, shell=True, stderr=subprocess.PIPE, timeout=120))
    assert not Path("o.wav").exists()


@pytest.mark.parametrize("ending", ["xi", "wve", "sd2"])
def test_a_format_that_cannot_hold_the_rate_is_refused(tmp_path, ending):
    with pytest.raises(FileError, match="use"), files.audio_writer(str(tmp_path / f"o.{ending}"), 16000) as write:
        write(np.zeros(1000, np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_recording_beyond_what_its_format_can_say(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_MOST_BYTES", 10000)
    with pytest.raises(FileError, match="4 GiB"), files.audio_writer(str(tmp_path / "o.wav"), 16000) as write:
        write(np.zeros(9000, np.float32))
    assert list(tmp_path.iterdir()) == []
    with files.audio_writer(str(tmp_path / "o.w64"), 16000) as write:
        write(np.zeros(9000, np.float32))
    assert soundfile.info(tmp_path / "o.w64").frames == 9000


def test_names_that_are_no_text_or_long(recording, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, target = os.fsdecode(b"caf\xe9.flac"), "n" * 246 + ".wav"
    shutil.copy(recording, source)
    result = run("roundtrip", source, target)
    assert result.returncode == 0, result.stderr
    assert soundfile.info(target).frames == soundfile.info(recording).frames
    assert sorted(os.listdir()) == [source, target]


def test_more_channels_than_samples(tmp_path):
    soundfile.write(tmp_path / "many.wav", np.full((10, 100), 0.5), 16000)
    with files.open_audio(str(tmp_path / "many.wav")) as audio:
        np.testing.assert_array_equal(files.read_mono(audio), np.full(10, 0.5, np.float32))


def test_a_file_that_may_not_be_read(recording, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may be run by root
    with pytest.raises(FileError, match="permission denied"), files.open_audio(str(recording)):
        pass


def test_the_mode_of_a_file_stays(tmp_path):
    mask = os.umask(0o027)
    try:
        for mode in (0o640, 0o600):
            with replacing(tmp_path / "o") as partial:
                partial.unlink()
                partial.touch(0o666)  # as whoever writes safetensors does
            assert (tmp_path / "o").stat().st_mode & 0o777 == mode
            (tmp_path / "o").chmod(0o600)
    finally:
        os.umask(mask)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(tmp_path, number):
    soundfile.write(tmp_path / "long.wav", np.zeros(120 * 16000, np.float32), 16000)
    with subprocess.Popen([*LINNET, "encode", tmp_path / "long.wav", tmp_path / "o.lnt"], stderr=subprocess.PIPE) as encoding:
        while encoding.poll() is None and len(list(tmp_path.iterdir())) == 1:
            time.sleep(0.01)
        encoding.send_signal(number)
        assert encoding.stderr.read().strip() == b""
    assert encoding.returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_an_import_that_is_interrupted_says_nothing():
    """Whatever error it makes of it."""
    code = """
import os, signal, sys
from linnet.__main__ import main
class Finder:
    def find_spec(self, name, *_):
        if name == "linnet.cli":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("as a module in C does")
sys.meta_path.insert(0, Finder())
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr) == (130, b"", b"")


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
    (tmp_path / "text.lnt").write_text("not bits")
    soundfile.write(tmp_path / "cut.flac", np.random.default_rng(0).uniform(-1, 1, 16000), 16000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "cut.flac").read_bytes()[:9000])
    (tmp_path / "speech").mkdir()
    shutil.copy(tmp_path / "text.wav", tmp_path / "speech")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encode", "missing.wav", "o.lnt"), "does not exist"),
        (("encode", ".", "o.lnt"), "is a folder"),
        (("encode", "empty.wav", "o.lnt"), "not audio"),
        (("encode", "text.wav", "o.lnt"), "not audio"),
        (("encode", "nothing.wav", "o.lnt"), "no audio"),
        (("encode", "nan.wav", "o.lnt"), "nan.wav: audio holds samples that are not finite"),
        (("encode", "cut.flac", "o.lnt"), "cut.flac is damaged"),
        (("encode", "text.wav", "/proc/o.lnt"), "/proc/o.lnt cannot be written"),
        (("encode", "good.lnt", "o.lnt"), "not audio"),
        (("encode", "text.wav", "nowhere/o.lnt"), "nowhere"),
        (("encode", "text.wav", "o.lnt", "--kbps", "0.3"), ""),
        (("encode", "text.wav", "o.lnt", "--model", "loud"), "no model 'loud'"),
        (("decode", "damaged.lnt", "o.wav"), "damaged"),
        (("decode", "text.lnt", "o.wav"), "not a .lnt file"),
        (("decode", "missing.lnt", "o.wav"), "No such file"),
        (("decode", "good.lnt", "o.xyz"), ".xyz is not a format"),
        (("decode", "good.lnt", "o.raw"), ".raw is not a format"),
        (("live", "nothing.wav", "o.wav"), "nothing.wav holds no audio"),
        (("live", "cut.flac", "o.wav"), "cut.flac is damaged"),
        (("send", "text.wav", "127.0.0.1:5004", "--packet", "9" * 400 + "ms"), "like 60ms"),
        (("live", "nan.wav", "nan.wav"), "both the input and the output"),
        (("send", "nothing.wav", "127.0.0.1:5004"), "nothing.wav holds no audio"),
        (("tables", "clear", "--corpus", "speech", "--split", "x"), "text.wav is not audio"),
        (("budget", "clear", "--html", "nowhere/o.html"), "nowhere"),
        (("ratings", "nan.wav"), "nan.wav is no table"),
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


def test_a_cut_file_is_not_said_to_be_small(recording, tmp_path):
    assert run("encode", recording, tmp_path / "o.lnt", "--kbps", 1).returncode == 0
    (tmp_path / "cut.lnt").write_bytes((tmp_path / "o.lnt").read_bytes()[:100])
    told = run("info", tmp_path / "cut.lnt").stdout
    assert b"cut short" in told
    assert b"smaller" not in told


def test_a_named_pipe_is_written_to_and_not_replaced(recording, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.lnt").symlink_to("real.lnt")
    with subprocess.Popen([*LINNET, "encode", recording, tmp_path / "pipe"]) as encoding:
        piped = (tmp_path / "pipe").read_bytes()
    assert encoding.returncode == 0
    assert (tmp_path / "pipe").is_fifo()
    assert run("encode", recording, tmp_path / "link.lnt").returncode == 0
    assert (tmp_path / "link.lnt").is_symlink()
    assert (tmp_path / "real.lnt").read_bytes() == piped


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
