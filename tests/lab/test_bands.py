"""Spectra by products, and blocks over them, against plain transforms and complex arithmetic."""

import torch

from linnet.lab.dsp.fourier import RealFourier
from linnet.lab.nn.bands import Analysis, BandsDown, BandsGru, BandsUp, ComplexConv, Synthesis


def test_the_transform_is_the_transform():
    x = torch.randn(2, 3, 480)
    fourier = RealFourier(16, 30)
    expected = torch.fft.rfft(x)
    torch.testing.assert_close(fourier(x), torch.stack([expected.real, expected.imag], -2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fourier.inverse(fourier(x)), x, atol=1e-5, rtol=1e-5)


def test_synthesis_inverts_analysis_late_by_the_overlap():
    samples = 0.1 * torch.randn(2, 20 * 192)
    analysis, synthesis = (kind(RealFourier(16, 30), 192, 0.5) for kind in (Analysis, Synthesis))
    spectrum, _ = analysis(samples, analysis.initial_state(2))
    assert spectrum.shape == (2, 20, 241, 2)
    heard, _ = synthesis(spectrum, synthesis.initial_state(2))
    torch.testing.assert_close(heard[:, 288:], samples[:, :-288], atol=1e-3, rtol=0)


def test_a_complex_convolution_multiplies_complex_numbers():
    conv = ComplexConv(3, 2, 5)
    x = torch.randn(2, 4, 11, 6)
    y = conv(x)
    weight = torch.complex(conv.real, conv.imaginary).detach()
    wanted = torch.nn.functional.conv1d(torch.complex(*x.chunk(2, -1)).flatten(0, 1).mT, weight, padding=2).mT
    got = torch.complex(*y.detach().chunk(2, -1)).flatten(0, 1)
    torch.testing.assert_close(got, wanted)


def test_bands_keep_their_places():
    """A change of one bin changes its band alone, and the bin that is left over none."""
    down, up = BandsDown(4, 6, 5), BandsUp(6, 4, 5)
    x = torch.randn(1, 2, 11, 4)
    moved = x.clone()
    moved[:, :, 7] += 1
    moved[:, :, 10] += 1
    bands, other = down(x), down(moved)
    assert bands.shape == (1, 2, 2, 6)
    torch.testing.assert_close(bands[:, :, 0], other[:, :, 0])
    assert not torch.allclose(bands[:, :, 1], other[:, :, 1])
    assert up(bands).shape == (1, 2, 10, 4)
    torch.testing.assert_close(up(bands)[:, :, :5], up(other)[:, :, :5])


def test_all_bins_share_a_recurrence_but_not_its_memory():
    block = BandsGru(3, 4)
    block.norm = torch.nn.Identity()
    x = torch.randn(2, 5, 3, 4)
    whole, last = block(x, torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)))
    one = BandsGru(1, 4)
    one.norm, one.gru = block.norm, block.gru
    start = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for band in range(3):
        y, end = one(x[:, :, band : band + 1], start[:, band : band + 1])
        torch.testing.assert_close(y, whole[:, :, band : band + 1])
        torch.testing.assert_close(end, last[:, band : band + 1])
