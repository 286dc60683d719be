"""The codec as a whole: one forward path, causality, and graphs that equal the networks they came from."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import Session

from linnet.lab.export import export_decoder, export_encoder
from linnet.lab.share import Share
from linnet.lab.systems import make_system
from linnet.lab.systems.remix import HELD_FRAMES, RemixCodec, RemixConfig
from linnet.lab.systems.source_filter import SourceFilterConfig

HOP, FRAMES = 192, 24


def small(head="source-filter", phase_layers=0, **more):
    torch.manual_seed(0)
    kind = RemixConfig if "branch_blocks" in more else SourceFilterConfig
    config = kind(
        latent_dim=16, encoder_channels=16, encoder_hidden=24, encoder_blocks=2, decoder_channels=16,
        decoder_hidden=24, decoder_blocks=2, head=head, phase_layers=phase_layers, phase_channels=16, phase_hidden=24,
        **more,
    )  # fmt: skip
    codec = make_system(config).eval()
    torch.nn.init.normal_(codec.quantizer.predict.weight, std=0.2)
    if codec.enhancer is not None:
        for network in filter(None, (codec.enhancer.frames, codec.enhancer.bands)):
            torch.nn.init.normal_(network.head.weight, std=0.3)
    if codec.guide is not None:
        torch.nn.init.normal_(codec.guide.output.weight, std=0.3)
    if isinstance(codec, RemixCodec):
        for branch in (codec.speech, codec.noise):
            torch.nn.init.normal_(branch.output.weight, std=0.3)
    if codec.phase is not None:
        torch.nn.init.normal_(codec.phase.quantizer.predict.weight, std=0.2)
        torch.nn.init.normal_(codec.decoder.phase_head.weight, std=0.1)
        torch.nn.init.normal_(codec.decoder.phase_skip.weight, std=0.1)
        codec.phase.quantizer.fitted.fill_(True)
    return codec


def speechlike(frames=FRAMES, seed=0):
    rng = np.random.default_rng(seed)
    time = np.arange(frames * HOP) / 16000
    tone = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 9))
    return (0.1 * tone * (np.sin(20 * time) > 0) + 0.01 * rng.standard_normal(len(time))).astype(np.float32)


KINDS = ["source-filter", "free", "phase", "enhancer", "bands", "enhancer and bands", "guide", "guide of two streams", "remix"]


@pytest.fixture(scope="module", params=KINDS)
def codec(request):
    if request.param == "phase":
        return small(phase_layers=2)
    if request.param == "enhancer":
        return small(phase_layers=2, lookahead=1, enhancer_blocks=2, enhancer_channels=16, enhancer_hidden=32)
    if request.param.startswith("guide"):
        streams = 2 if "two" in request.param else 1
        return small(phase_layers=2, guide_blocks=1, guide_channels=16, guide_hidden=24, enhanced_streams=streams)
    if request.param == "remix":
        return small(branch_blocks=2, branch_channels=16, branch_hidden=24)
    if request.param == "bands":
        return small(phase_layers=2, band_channels=8, band_blocks=1)
    if request.param == "enhancer and bands":
        sizes = {"enhancer_blocks": 1, "enhancer_channels": 16, "enhancer_hidden": 32, "band_channels": 8, "band_blocks": 2}
        return small(phase_layers=2, lookahead=1, tracker_channels=32, tracker_enhanced=True, **sizes)
    return small(request.param)


@pytest.fixture(scope="module")
def graphs(codec):
    return Session(export_encoder(codec, eight_bit=False)), Session(export_decoder(codec, eight_bit=False))


@pytest.fixture(scope="module")
def packed(codec):
    return Session(export_encoder(codec)), Session(export_decoder(codec))


def lab_codes(codec, samples):
    with torch.no_grad():
        return codec.encode(torch.from_numpy(samples).unsqueeze(0))


def test_graphs_equal_the_lab(codec, graphs):
    encoder, decoder = graphs
    encoder.reset()
    decoder.reset()
    samples = speechlike()
    codes = encoder(samples)
    # A tie between two entries may fall either way; everything after it in the closed loop then differs too.
    np.testing.assert_array_equal(codes, lab_codes(codec, samples)[0].numpy())
    codes[5] = -1
    codes[9, 3:] = -1
    with torch.no_grad():
        expected = codec.decode(torch.from_numpy(codes).unsqueeze(0))[0].numpy()
    # Where a pulse's closed form is 0 / 0, both have their own way around it.
    difference = np.abs(decoder(codes) - expected) / np.abs(expected).max()
    assert np.median(difference) < 1e-5
    assert difference.max() < 4e-3


def test_eight_bit_graphs_are_near_the_lab(codec, packed):
    encoder, decoder = packed
    encoder.reset()
    decoder.reset()
    samples = speechlike()
    codes, expected = encoder(samples), lab_codes(codec, samples)[0].numpy()
    assert (codes[:, 0] == expected[:, 0]).mean() > 0.5
    with torch.no_grad():
        wanted = codec.decode(torch.from_numpy(codes).unsqueeze(0))[0].numpy()
    heard = decoder(codes)
    assert np.square(heard - wanted).sum() < 0.01 * np.square(wanted).sum()


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, FRAMES - 1), max_size=6), eight_bit=st.booleans())
def test_stream_equals_batch_in_the_graphs(graphs, packed, cuts, eight_bit):
    encoder, decoder = packed if eight_bit else graphs
    samples = speechlike()
    edges = [0, *sorted(set(cuts)), FRAMES]
    pieces = list(itertools.pairwise(edges))
    encoder.reset()
    whole = encoder(samples)
    encoder.reset()
    np.testing.assert_array_equal(np.concatenate([encoder(samples[a * HOP : b * HOP]) for a, b in pieces]), whole)
    decoder.reset()
    heard = decoder(whole)
    decoder.reset()
    parts = np.concatenate([decoder(whole[a:b]) for a, b in pieces])
    np.testing.assert_allclose(parts, heard, atol=1e-4 * np.abs(heard).max())


@pytest.mark.parametrize("eight_bit", [False, True])
def test_streams_in_a_batch_do_not_know_of_each_other(graphs, packed, eight_bit):
    encoder, decoder = packed if eight_bit else graphs
    voices = [speechlike(seed=seed) * np.float32(level) for seed, level in enumerate((1, 0.1, 3))]
    alone = []
    for lost, voice in enumerate(voices):
        encoder.reset()
        decoder.reset()
        codes = encoder(voice)
        codes[lost::7] = -1
        alone.append((codes, decoder(codes)))
    codes, samples = (np.stack(each, 1) for each in zip(*alone, strict=True))
    encoder.reset(3)
    decoder.reset(3)
    together = encoder.together(np.stack(voices, 1).reshape(FRAMES, HOP, 3).transpose(0, 2, 1))
    np.testing.assert_array_equal(together[codes >= 0], codes[codes >= 0])
    heard = decoder.together(codes).transpose(0, 2, 1).reshape(-1, 3)
    np.testing.assert_allclose(heard, samples, atol=1e-5 * np.abs(samples).max())


def test_the_past_does_not_see_the_future(graphs):
    encoder, decoder = graphs
    samples = speechlike()
    changed = samples.copy()
    half = FRAMES // 2
    changed[half * HOP :] = 0.3 * np.random.default_rng(1).standard_normal(len(samples) - half * HOP)
    heard = []
    for signal in (samples, changed):
        encoder.reset()
        decoder.reset()
        codes = encoder(signal)
        heard.append((codes, decoder(codes)))
    np.testing.assert_array_equal(heard[0][0][:half], heard[1][0][:half])
    assert (heard[0][0][half:] != heard[1][0][half:]).any()
    np.testing.assert_allclose(heard[0][1][: half * HOP], heard[1][1][: half * HOP], atol=1e-5)


def test_nothing_breaks_on_silence_or_overload(graphs):
    encoder, decoder = graphs
    for level in (0.0, 1e-6, 50.0):
        encoder.reset()
        decoder.reset()
        codes = encoder(speechlike() * np.float32(level))
        assert codes.min() >= 0
        assert codes.max() < 4096
        assert np.isfinite(decoder(codes)).all()


def test_perturbed_codes_are_neighbours_of_the_upper_layers_alone():
    codec = small(phase_layers=2)
    codes = torch.randint(0, 4000, (40, 30, codec.config.n_layers))
    share = Share(torch.Generator().manual_seed(0), 40)
    perturbed = codec.perturbed(codes, 0.5, share)
    struck = (perturbed != codes).float().mean((0, 1))
    assert struck[0] == 0
    assert struck[codec.config.spectrum_layers] == 0
    # The last layer is struck in four of five clips, those below it less often.
    upper = struck[struck > 0]
    assert len(upper) == codec.config.n_layers - 2
    assert (upper.diff() > 0).all()
    assert upper[-1] == pytest.approx(0.4, abs=0.1)


def test_a_background_without_codes_falls_silent_and_a_lost_frame_goes_on():
    """Speech and background alone add up to both, so a receiver sets the background's level."""
    codec = small(branch_blocks=2, branch_channels=16, branch_hidden=24)
    codes, columns = lab_codes(codec, speechlike()), torch.arange(6)

    def background(codes):
        """What its codes add, a frame's power."""
        added = codec.decode(codes) - codec.decode(torch.where(columns < 4, codes, -1))
        return added.unflatten(1, (FRAMES, HOP)).square().mean(2)[0]

    with torch.no_grad():
        speech, noise = (codec.decode(torch.where(kept, codes, -1)) for kept in (columns < 4, columns >= 4))
        torch.testing.assert_close(speech + noise, codec.decode(codes))
        level = background(codes)[3:9].mean()
        lost, mended, dropped = codes.clone(), codes.clone(), codes.clone()
        lost[:, 9] = -1
        mended[:, 9, 1:] = -1  # a copy has one layer
        dropped[:, 9:, 4:] = -1
        assert background(lost)[9:12].min() > 0.1 * level
        assert background(mended)[9:12].min() > 0.1 * level
        assert background(dropped)[9 + HELD_FRAMES + 3 :].max() == 0


def test_a_remix_of_other_parts_is_refused():
    with pytest.raises(ValueError, match="instead of phase_layers"):
        RemixConfig(phase_layers=2)
    with pytest.raises(ValueError, match="4 of 6; choose 1 to half"):
        RemixConfig(noise_layers=4)


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="source-filter"):
        SourceFilterConfig(head="magic")
    with pytest.raises(ValueError, match="phase_layers"):
        SourceFilterConfig(head="free", phase_layers=2)
