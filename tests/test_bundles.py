"""Every bundle of the repository, shipped or in `bundles/`, on real speech."""

from pathlib import Path

import numpy as np
import pytest

import linnet
from linnet.bits import LayoutError
from linnet.bundle import BACKGROUND_CUT, BundleError

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(card.parent for folder in ("src/linnet/models", "bundles") for card in (ROOT / folder).glob("*/card.toml"))


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda folder: folder.name)
def bundle(request):
    return linnet.load(request.param)


def test_speech_comes_back(bundle, short):
    heard = bundle.decode(bundle.encode(short, 16000), 16000)
    assert 0 <= len(heard) - len(short) <= (bundle.card.hop + 2) * 16000 / bundle.card.sample_rate
    envelopes = [np.convolve(np.abs(x[: len(short)]), np.ones(800), "same") for x in (short, heard)]
    assert np.corrcoef(*envelopes)[0, 1] > 0.8


def test_a_stream_is_the_whole_file(bundle, speech):
    hop = bundle.card.hop
    frames = speech[: 80 * hop].reshape(-1, hop)
    codes = bundle.encoder_graph.stream()(frames)
    stream = bundle.encoder_graph.stream()
    one_by_one = np.concatenate([stream(frames[t : t + 1]) for t in range(len(frames))])
    # A tie between two entries may fall either way in graphs that compute with floats.
    assert (one_by_one == codes).mean() > 0.99
    whole = bundle.decoder_graph.stream()(codes)
    stream = bundle.decoder_graph.stream()
    parts = np.concatenate([stream(codes[t : t + 1]) for t in range(len(codes))])
    np.testing.assert_allclose(parts, whole, atol=1e-4)


def test_fewer_layers_are_a_prefix_and_no_loss_breaks_the_decoder(bundle, short):
    full, base = bundle.encode(short, 16000), bundle.encode(short, 16000, kbps=1)
    assert all(a[0] == b[0] for a, b in zip(full, base, strict=True))
    mixed = [None if number % 5 == 0 else base[number] if number % 3 else full[number] for number in range(len(full))]
    for packets in (base, mixed, [None] * len(full)):
        heard = bundle.decode(packets)
        assert np.isfinite(heard).all()
        assert np.abs(heard).max() < 4


def test_silence_stays_quiet(bundle):
    heard = bundle.decode(bundle.encode(np.zeros(16000), 16000))
    assert np.abs(heard).max() < 0.05


def test_a_listener_may_hear_the_first_layers_alone(bundle, short):
    full, base = bundle.encode(short, 16000), bundle.encode(short, 16000, kbps=1)
    decoder, batch = bundle.decoder(), bundle.decoders(2)
    wanted = decoder.push(base)
    decoder.reset()
    everything = decoder.push(full)
    for one in (decoder, batch[1]):
        one.kbps = 1
    decoder.reset()
    assert (decoder.kbps, batch[0].kbps) == (1, 6)
    np.testing.assert_array_equal(decoder.push(full), wanted)
    np.testing.assert_allclose(np.stack(batch.push([full, full])), np.stack([everything, wanted]), atol=1e-4)
    with pytest.raises(LayoutError):
        decoder.kbps = 0.1
    assert decoder.kbps == 1


def test_a_background_that_is_coded_apart_can_be_turned_down(bundle, short):
    packets = bundle.encode(short, 16000)
    decoder = bundle.decoder()
    decoder.background = 1
    if bundle.decoder_graph.stream().setting(BACKGROUND_CUT) is None:
        with pytest.raises(BundleError, match="does not code the background apart"):
            decoder.background = 0.5
        return
    whole, none, half = bundle.decode(packets), bundle.decode(packets, background=0), bundle.decode(packets, background=0.5)
    np.testing.assert_allclose(half, 0.5 * (whole + none), atol=1e-5)
    with pytest.raises(ValueError, match="choose 0 to 1"):
        decoder.background = 2
    decoder.background = 0.25
    saved, other = decoder.save(), bundle.decoder()
    decoder.reset()
    decoder.restore(saved)
    other.restore(saved)
    assert (decoder.background, other.background) == (0.25, 1)
    alone = bundle.decoder()
    alone.background = 0
    one_by_one = np.concatenate([alone.push(packet) for packet in packets])[bundle.card.delay :]
    np.testing.assert_allclose(one_by_one, none[: len(one_by_one)], atol=1e-4)
    batch = bundle.decoders(2)
    batch[1].background = 0
    heard = batch.push([packets, packets])
    kept = [own[bundle.card.delay :] for own in heard]
    np.testing.assert_allclose(kept[0], whole[: len(kept[0])], atol=1e-4)
    np.testing.assert_allclose(kept[1], none[: len(kept[1])], atol=1e-4)
