"""Codecs over networks: what is compared is really the same, and the libopus behind it really does FEC."""

import ctypes
from dataclasses import replace

import numpy as np
import pytest

from linnet.evaluate import network
from linnet.evaluate.codecs import through
from linnet.evaluate.codecs.base import CodecError
from linnet.evaluate.codecs.bundle import Bundle
from linnet.evaluate.codecs.xiph import Opus
from linnet.evaluate.metrics import log_mel_distance
from linnet.evaluate.network import LossyBundle, LossyOpus, Network, Sender

NETWORK = Network(0.2, 60.0)


@pytest.fixture
def opus():
    try:
        ctypes.CDLL("libopus.so.0")
    except OSError:
        pytest.skip("libopus0 is not installed")
    return LossyOpus(16, NETWORK)


def test_without_loss_a_network_changes_nothing(short):
    found = list(LossyBundle("clear", (Sender(1), Sender(1, 2), Sender(2, 1)), Network(0)).outputs(short))
    plain = [output.samples for output in through(Bundle("clear"), short, (1, 2))]
    for output, expected in zip(found, (plain[0], plain[0], plain[1]), strict=True):
        np.testing.assert_array_equal(output.samples, expected)
    assert [output.kbps for output in found] == [1, 3, 3]
    assert found[1].label == "clear, 1 layer, 2 copies (5 and 10 frames later)"


def test_copies_help_and_runs_repeat(speech):
    senders = (Sender(1), Sender(1, 2))
    bare, copied = (output.samples for output in LossyBundle("clear", senders, NETWORK).outputs(speech))
    again = [output.samples for output in LossyBundle("clear", senders, NETWORK).outputs(speech)]
    np.testing.assert_array_equal([bare, copied], again)
    clean = next(LossyBundle("clear", (Sender(1),), Network(0)).outputs(speech)).samples
    assert log_mel_distance(clean, copied, 16000) < 0.7 * log_mel_distance(clean, bare, 16000)


def test_each_clip_and_seed_has_its_own_losses(speech):
    draws = [
        net.model(samples, 12).draw(400).tolist()
        for net, samples in ((NETWORK, speech), (NETWORK, speech[1:]), (replace(NETWORK, seed=1), speech))
    ]
    assert len({tuple(draw) for draw in draws}) == 3
    assert NETWORK.model(speech, 12).draw(400).tolist() == draws[0]


def test_opus_without_loss_is_as_good_as_its_tools(opus, speech):
    heard = next(replace(opus, network=Network(0)).outputs(speech))
    assert heard.samples.shape == speech.shape
    assert 14 < heard.kbps < 17
    tools = Opus()
    if tools.available() is not None:
        pytest.skip("opus-tools are not installed")
    ours, theirs = (
        log_mel_distance(speech, samples, 16000)
        for samples in (heard.samples, next(iter(through(tools, speech, (16,)))).samples)
    )
    assert ours == pytest.approx(theirs, abs=0.5)


@pytest.mark.usefixtures("opus")
def test_opus_recovers_single_losses_by_fec(speech):
    """Every fifth packet is lost: where FEC has bits, the sound stays nearer to the undisturbed one."""

    def damage(kbps):
        library = network._libopus()
        codec = LossyOpus(kbps, NETWORK)
        packets, _ = codec._encoded(library, np.resize(speech, 320 * 200).astype(np.float32))
        lost = [None if number % 5 == 4 else packet for number, packet in enumerate(packets)]
        clean, heard = (network._opus_decoded(library, list(sent)) for sent in (packets, lost))
        return log_mel_distance(clean, heard, 16000)

    assert damage(18) < 0.7 * damage(6)


def test_a_missing_library_is_one_clear_line(monkeypatch, short):
    def missing(name):
        raise OSError(name)

    network._libopus.cache_clear()
    monkeypatch.setattr(network.ctypes, "CDLL", missing)
    with pytest.raises(CodecError, match="apt install libopus0"):
        next(LossyOpus(6, NETWORK).outputs(short))
    network._libopus.cache_clear()
