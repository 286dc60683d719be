"""What every system shares: one forward path, declared delay, embedded layers, and traced graphs that equal the lab.

The default system's hand-written graphs have their own tests (test_system.py).
"""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sessions import Session
from torch import nn

from linnet.lab.export import trace_graphs
from linnet.lab.nn.blocks import CausalConv, CausalConvTranspose, Chain, ResidualGru, ResidualLstm, Snake, WindowedAttention
from linnet.lab.quant.residual import ResidualQuantizer
from linnet.lab.share import Share
from linnet.lab.systems.base import Example, keep_layers
from linnet.lab.systems.dual_branch import DualBranchCodec, DualBranchConfig, least_squares
from linnet.lab.systems.lrac import LracBaseline, LracConfig
from linnet.lab.systems.phoenix import PhoenixCodec, PhoenixConfig
from linnet.lab.systems.plain import PlainCodec
from linnet.lab.systems.pure import PureCodec, PureConfig
from linnet.lab.train.recipe import Stage

FRAMES = 12


class Config:
    kind, sample_rate, hop, n_layers = "toy", 16000, 12, 3


class Waveform(nn.Module):
    """A chain of blocks whose input or output, `[batch, n]`, has no axis of channels."""

    def __init__(self, *blocks, sending):
        super().__init__()
        self.chain, self.sending = Chain(*blocks), sending

    def initial_state(self, batch):
        return self.chain.initial_state(batch)

    def forward(self, x, state):
        y, state = self.chain(x.unsqueeze(-1) if self.sending else x, state)
        return (y if self.sending else y.squeeze(-1)), state


def toy():
    """All stock blocks in a row."""
    sending = [CausalConv(1, 8, 7), Snake(8), CausalConv(8, 16, 6, stride=3), CausalConv(16, 16, 8, stride=4)]
    sending += [ResidualGru(16), WindowedAttention(16, 2, 5)]
    receiving = [ResidualLstm(16), CausalConvTranspose(16, 8, 8, 4), CausalConvTranspose(8, 4, 3, 3), CausalConv(4, 1, 5)]
    quantizer = ResidualQuantizer(16, Config.n_layers, size=32, code_dim=4)
    return PlainCodec(Config(), Waveform(*sending, sending=True), quantizer, Waveform(*receiving, sending=False), delay=0)


def pure(guide_blocks):
    sizes = {"channels": 16, "hidden": 16, "blocks": 2, "guide_channels": 16, "guide_hidden": 16, "latent_dim": 12}
    return PureCodec(PureConfig(**sizes, guide_blocks=guide_blocks, bits=5, n_layers=3, code_dim=4))


def dual_branch():
    sizes = {"channels": 16, "hidden": 16, "encoder_blocks": 1, "decoder_blocks": 2, "transformer_layers": 1, "latent_dim": 12}
    return DualBranchCodec(DualBranchConfig(**sizes, heads=2, span=5, bits=5, speech_layers=2, noise_layers=1, code_dim=4))


SYSTEMS = {
    "toy": toy,
    "pure": lambda: pure(0),
    "pure with a guide": lambda: pure(1),
    "dual branch": dual_branch,
    "LRAC, Track 1": lambda: LracBaseline(LracConfig(track=1)),
    "LRAC, Track 2": lambda: LracBaseline(LracConfig(track=2)),
    "phoenix": lambda: PhoenixCodec(PhoenixConfig()),
    "phoenix, F-F": lambda: PhoenixCodec(PhoenixConfig(architecture="F-F")),
    "phoenix, T-T": lambda: PhoenixCodec(PhoenixConfig(architecture="T-T")),
}


@pytest.fixture(scope="module", params=SYSTEMS)
def codec(request):
    torch.manual_seed(0)
    codec = SYSTEMS[request.param]().eval()
    # Codebooks that say something, so that no code is a matter of rounding.
    samples = noise(codec, 400).unsqueeze(0)
    stage = Stage("fit", 1, codec.parts, {"latent": 1.0}, "quantized")
    codec.fit(stage, [Example(samples, samples, samples)], torch.Generator().manual_seed(0))
    return codec.requires_grad_(False)


@pytest.fixture(scope="module")
def graphs(codec):
    return [Session(graph) for graph in trace_graphs(codec)]


def noise(codec, frames=FRAMES, seed=0):
    return 0.1 * torch.randn(frames * codec.config.hop, generator=torch.Generator().manual_seed(seed))


def run(session, *pieces):
    """A graph from silence over consecutive pieces."""
    session.reset()
    return np.concatenate([session(piece) for piece in pieces])


def test_graphs_equal_the_lab(codec, graphs):
    encoder, decoder = graphs
    samples = noise(codec)
    expected = codec.encode(samples.unsqueeze(0))[0].numpy()
    codes = run(encoder, samples.numpy())
    # A tie between two entries may fall either way.
    assert (codes == expected).mean() > 0.95
    codes[3] = -1
    codes[5, 1:] = -1
    wanted = codec.decode(torch.from_numpy(codes).unsqueeze(0))[0].numpy()
    np.testing.assert_allclose(run(decoder, codes), wanted, atol=1e-4 * np.abs(wanted).max())


def test_halved_weights_sound_alike_in_fewer_bytes(codec, graphs):
    codes = run(graphs[0], noise(codec).numpy())
    decoder = trace_graphs(codec, halved=True)[1]
    wanted = run(graphs[1], codes)
    np.testing.assert_allclose(run(Session(decoder), codes), wanted, atol=0.02 * np.abs(wanted).max())
    assert len(decoder) < len(trace_graphs(codec)[1])


@settings(max_examples=6, deadline=None)
@given(cuts=st.lists(st.integers(1, FRAMES - 1), max_size=5))
def test_stream_equals_batch(codec, graphs, cuts):
    encoder, decoder = graphs
    samples, hop = noise(codec).numpy(), codec.config.hop
    pieces = list(itertools.pairwise([0, *sorted(set(cuts)), FRAMES]))
    codes = run(encoder, samples)
    assert (run(encoder, *(samples[a * hop : b * hop] for a, b in pieces)) == codes).mean() > 0.95
    heard = run(decoder, codes)
    np.testing.assert_allclose(run(decoder, *(codes[a:b] for a, b in pieces)), heard, atol=1e-4 * np.abs(heard).max())


def test_streams_in_a_batch_do_not_know_of_each_other(codec, graphs):
    encoder, decoder = graphs
    voices = [noise(codec, seed=seed).numpy() for seed in range(2)]
    alone = [run(encoder, voice) for voice in voices]
    encoder.reset(2)
    codes = encoder.together(np.stack([voice.reshape(FRAMES, -1) for voice in voices], 1))
    assert (codes == np.stack(alone, 1)).mean() > 0.95
    decoder.reset(2)
    heard = decoder.together(codes)
    for place in range(2):
        expected = run(decoder, codes[:, place])
        np.testing.assert_allclose(heard[:, place].reshape(-1), expected, atol=1e-4 * np.abs(expected).max())


def test_the_delay_is_as_declared(codec):
    """A change of the input is heard within the delay and the frame that it falls into, and never before."""
    hop, place = codec.config.hop, FRAMES // 2 * codec.config.hop
    samples = noise(codec).unsqueeze(0)
    changed = samples.clone()
    changed[:, place:] += noise(codec, seed=1)[place:]
    before, after = (codec.unquantized(Example(x, x, x))["unquantized"] for x in (samples, changed))
    first = int((before != after).any(0).nonzero()[0])
    assert first >= place
    assert first < place + codec.delay + hop


def test_each_layer_comes_nearer(codec):
    latent = codec.latent(noise(codec, 400).unsqueeze(0))
    codes = codec.quantizer.search(latent)
    errors = [
        (codec.quantizer.dequantize(keep_layers(codes, n)) - latent).square().mean().item() for n in range(codes.shape[-1] + 1)
    ]
    assert (np.diff(errors) < 0).all()


def test_silence_and_overload_decode(codec, graphs):
    encoder, decoder = graphs
    for level in (0.0, 500.0):
        codes = run(encoder, level * noise(codec).numpy())
        assert codes.min() >= 0
        assert np.isfinite(run(decoder, codes)).all()


def test_a_branch_without_codes_is_silent():
    """Speech and noise alone add up to what all codes say, so a receiver sets the background's level; and a frame that was lost
    does not interrupt it."""
    torch.manual_seed(0)
    codec = dual_branch().eval().requires_grad_(False)
    codes = codec.encode(noise(codec).unsqueeze(0))
    both, columns = codec.decode(codes), torch.arange(3)
    speech, background = (codec.decode(torch.where(kept, codes, -1)) for kept in (columns < 2, columns >= 2))
    assert speech.square().mean() > 0
    assert background.square().mean() > 0
    torch.testing.assert_close(speech + background, both)
    lost, hop = codes.clone(), codec.config.hop
    lost[:, 5] = -1
    with_gap, speech_with_gap = codec.decode(lost), codec.decode(torch.where(columns < 2, lost, -1))
    assert (with_gap - speech_with_gap)[:, 5 * hop : 6 * hop].square().mean() > 0.1 * background.square().mean()


def test_the_larger_baseline_starts_with_more_than_a_constant():
    torch.manual_seed(0)
    codec = LracBaseline(LracConfig(track=2))
    latent = codec.latent(0.05 * torch.randn(2, 40 * codec.config.hop)).detach()[:, 20:]
    assert latent.mean(1).square().mean() < 0.1 * latent.square().mean()


def test_the_mix_is_the_least_squares_solution():
    speech, background, both = 0.1 * torch.randn(3, 2, 400, generator=torch.Generator().manual_seed(0))
    weights = least_squares(speech, background, 0.5 * speech + 2 * background + 0.1 * both)
    for clip in range(2):
        sources = torch.stack([speech[clip], background[clip]], 1)
        wanted = torch.linalg.lstsq(sources, (0.5 * speech + 2 * background + 0.1 * both)[clip].unsqueeze(1)).solution
        torch.testing.assert_close(weights[clip], wanted.squeeze(1), rtol=2e-2, atol=1e-2)
    assert torch.isfinite(least_squares(0 * speech, background, 0 * both)).all()


def test_clean_speech_is_asked_of_the_enhanced_streams_alone():
    torch.manual_seed(0)
    codec = pure(1).eval().requires_grad_(False)
    clean, scene = (noise(codec, 20, seed).expand(16, -1) for seed in (0, 1))
    share = Share(torch.Generator().manual_seed(0), 16)
    stages = [
        Stage("s", 1, ("decoder",), {"mel": 1.0}, "quantized", enhancement_probability=probability)
        for probability in (0.0, 1.0)
    ]
    never, always = (codec(stage, Example(scene, clean, scene), share).heard[""].wanted for stage in stages)
    torch.testing.assert_close(never, scene[:, : -codec.delay])
    asked = [torch.equal(row, clean[0, : -codec.delay]) for row in always]
    assert 0 < sum(asked) < 16
    assert all(torch.equal(row, scene[0, : -codec.delay]) for row, is_clean in zip(always, asked, strict=True) if not is_clean)
