"""One forward path: whatever the chunks, a block's output is the same, and nothing looks ahead."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from linnet.lab.nn.blocks import (
    CausalConv,
    CausalConvTranspose,
    Chain,
    ConvNeXt,
    Delay,
    FeedForward,
    Residual,
    ResidualGru,
    ResidualLstm,
    Snake,
    Stateless,
    WindowedAttention,
    flatten_state,
    unflatten_state,
    weight_normalised,
)

FRAMES, CHANNELS = 24, 8
BLOCKS = {
    "convolution": (lambda: CausalConv(CHANNELS, 6, 3, dilation=3), 1),
    "strided": (lambda: CausalConv(CHANNELS, 6, 4, stride=2), 2),
    "transposed": (lambda: CausalConvTranspose(CHANNELS, 6, 5, 2), 1),
    "transposed without overlap": (lambda: CausalConvTranspose(CHANNELS, 6, 3, 3), 1),
    "convnext": (lambda: ConvNeXt(CHANNELS, 16), 1),
    "gru": (lambda: ResidualGru(CHANNELS), 1),
    "lstm": (lambda: ResidualLstm(CHANNELS), 1),
    "attention": (lambda: WindowedAttention(CHANNELS, 2, 5), 1),
    "rotary attention": (lambda: WindowedAttention(CHANNELS, 2, 5, rotary=True), 1),
    "feed forward": (lambda: FeedForward(CHANNELS, 16), 1),
    "snake": (lambda: Snake(CHANNELS), 1),
    "delay": (lambda: Delay(CHANNELS, 3), 1),
    "residual": (lambda: Residual(CHANNELS, CausalConv(CHANNELS, CHANNELS, 5, dilation=2), lookahead=4), 1),
    "residual that is causal": (lambda: Residual(CHANNELS, Stateless(torch.nn.ELU()), CausalConv(CHANNELS, CHANNELS, 3)), 1),
    "chain": (lambda: Chain(ConvNeXt(CHANNELS, 16), ResidualGru(CHANNELS), Snake(CHANNELS)), 1),
}


@pytest.fixture(params=BLOCKS, scope="module")
def block(request):
    torch.manual_seed(0)
    build, multiple = BLOCKS[request.param]
    return build().eval(), multiple


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, FRAMES // 2 - 1), max_size=5))
def test_stream_equals_batch(block, cuts):
    module, multiple = block
    x = torch.randn(2, FRAMES, CHANNELS, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, end = module(x, module.initial_state(2))
        state, parts = module.initial_state(2), []
        edges = [0, *sorted({cut * 2 if multiple == 2 else cut for cut in cuts}), FRAMES]
        for start, stop in itertools.pairwise(edges):
            part, state = module(x[:, start:stop], state)
            parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    for a, b in zip(flatten_state(state), flatten_state(end), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_the_past_does_not_see_the_future(block):
    module, _ = block
    x = torch.randn(1, FRAMES, CHANNELS)
    changed = x.clone()
    changed[:, FRAMES // 2 :] += 1
    with torch.no_grad():
        before, after = (module(signal, module.initial_state(1))[0] for signal in (x, changed))
    half = before.shape[1] // 2
    torch.testing.assert_close(before[:, :half], after[:, :half])
    assert not torch.allclose(before[:, half:], after[:, half:])


def test_state_survives_flattening():
    template = (torch.zeros(1), (torch.ones(2), ()), torch.zeros(3))
    leaves = flatten_state(template)
    assert len(leaves) == 3
    assert unflatten_state(template, leaves) == template


def test_impossible_kernels_are_refused():
    with pytest.raises(ValueError, match="skip samples"):
        CausalConv(4, 4, 2, stride=3)
    with pytest.raises(ValueError, match="gaps"):
        CausalConvTranspose(4, 4, 2, 3)


def test_a_late_residual_is_a_centred_one():
    """What an offline network with zeros on both sides says, as many frames late as it looks ahead."""
    x = torch.randn(2, FRAMES, CHANNELS)
    conv = CausalConv(CHANNELS, CHANNELS, 5, dilation=3)
    late, _ = (block := Residual(CHANNELS, conv, lookahead=6))(x, block.initial_state(2))
    centred = torch.nn.functional.conv1d(x.transpose(1, 2), conv.conv.weight, conv.conv.bias, padding=6, dilation=3)
    torch.testing.assert_close(late[:, 6:], (x + centred.transpose(1, 2))[:, :-6])


def test_weight_normalisation_changes_no_output_but_what_is_learned():
    x = torch.randn(1, FRAMES, CHANNELS)
    block = Chain(CausalConv(CHANNELS, 6, 3), CausalConvTranspose(6, 4, 4, 2), Stateless(torch.nn.Linear(4, 3)))
    before, _ = block(x, block.initial_state(1))
    plain = {name for name, _ in block.named_parameters()}
    after, _ = weight_normalised(block)(x, block.initial_state(1))
    torch.testing.assert_close(after, before)
    assert len(list(block.parameters())) == len(plain) + 3
