import numpy as np
import pytest
import torch

from linnet.lab.dsp.pitch import PitchScale
from linnet.lab.quant.aimed import AimedQuantizer
from linnet.lab.quant.base_index import ONSET, UNVOICED, VOICED, BaseIndex
from linnet.lab.quant.codebook import EmaCodebook
from linnet.lab.quant.phase import PhaseQuantizer
from linnet.lab.quant.predictive import PredictiveQuantizer
from linnet.lab.quant.residual import ResidualQuantizer


def clusters(n=4096, dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(16, dim, generator=generator) * 3
    rows = torch.randint(16, (n,), generator=generator)
    return centres[rows] + 0.3 * torch.randn(n, dim, generator=generator)


def test_one_step_after_the_fit_leaves_the_norms_alone():
    """The widespread form divides the fresh centroid by its count: norms fell from 2.1 to 0.04 in one step."""
    x = clusters()
    book = EmaCodebook(64, 8)
    book.fit(x, generator=torch.Generator().manual_seed(0))
    before = book.entries.norm(dim=1).mean()
    book.accumulate(x, book.nearest(x))
    book.update()
    assert abs(float(book.entries.norm(dim=1).mean() / before) - 1) < 0.05


def test_neighbours_are_other_entries_and_near_ones_more_often():
    book = EmaCodebook(64, 1)
    book.sums.copy_(torch.arange(64.0).unsqueeze(1))
    indices = torch.full((2000,), 20)
    near = book.neighbours(indices, torch.rand(2000, 4, generator=torch.Generator().manual_seed(0)))
    assert set(near.tolist()) == {18, 19, 21, 22}
    assert ((near - 20).abs() == 1).float().mean() > 0.6


def test_a_revived_entry_is_used_in_the_next_batch():
    """The widespread form overwrites it from stale averages: it was chosen in none of 500 batches."""
    x = clusters()
    book = EmaCodebook(64, 8)
    book.fit(x, generator=torch.Generator().manual_seed(0))
    book.sums[5] = 1000 * book.usage[5]
    for _ in range(600):
        book.accumulate(x, book.nearest(x))
        book.update()
    assert not (book.nearest(x) == 5).any()
    assert book.revive(x, torch.Generator().manual_seed(0)) >= 1
    assert (book.nearest(x) == 5).any()
    book.accumulate(x, book.nearest(x))
    book.update()
    assert (book.nearest(x) == 5).any()


def test_averages_follow_a_moving_source():
    x = clusters()
    book = EmaCodebook(32, 8, decay=0.9)
    book.fit(x, generator=torch.Generator().manual_seed(0))
    error = (book(book.nearest(x + 1)) - x - 1).square().mean()
    for _ in range(60):
        book.accumulate(x + 1, book.nearest(x + 1))
        book.update()
    assert (book(book.nearest(x + 1)) - x - 1).square().mean() < 0.8 * error
    assert 1 < book.perplexity() <= 32


def test_a_small_batch_moves_the_averages_less():
    """By 1 % a step, whatever the batch, each of these entries would be the mean of three vectors: 12 % more error."""
    x, book = clusters(), EmaCodebook(64, 8)
    book.fit(x, generator=torch.Generator().manual_seed(0))
    error = (book(book.nearest(x)) - x).square().mean()
    for part in x.split(2) * 2:
        book.accumulate(part, book.nearest(part))
        book.update()
    assert (book(book.nearest(x)) - x).square().mean() < 1.03 * error


@pytest.mark.parametrize("bits", [10, 12])
def test_base_index_reads_as_it_was_written(bits):
    quantizer = PredictiveQuantizer(8, 2, PitchScale(), size=1 << bits, code_dim=8)
    kinds, pitches, entries = (torch.from_numpy(table) for table in quantizer.index.tables())
    used = torch.arange(quantizer.index.used)
    coarse = torch.where(kinds == ONSET, pitches // quantizer.index.onset_grain, pitches)
    assert (quantizer.base_index(kinds, coarse, entries)[used] == used).all()
    assert set(np.unique(kinds.numpy())) == {UNVOICED, VOICED, ONSET}
    with pytest.raises(ValueError, match="indices"):
        BaseIndex(96, size=256)


def codes_of(quantizer, latent, pitch):
    with torch.no_grad():
        return quantizer(latent, pitch).codes


@pytest.fixture(scope="module")
def fitted():
    torch.manual_seed(0)
    quantizer = PredictiveQuantizer(8, 3, PitchScale(), code_dim=4).eval()
    steps = torch.randint(-2, 3, (2, 40)).cumsum(1) + 40
    pitch = torch.where(torch.arange(40) % 13 < 4, -1, steps)
    latent = torch.randn(2, 40, 8)
    quantizer.fit(latent, pitch, torch.Generator().manual_seed(0))
    # A predictor that says something, so that the closed loop is a loop.
    torch.nn.init.normal_(quantizer.predict.weight, std=0.1)
    return quantizer, latent, pitch


def test_the_receiver_follows_voicing_and_pitch(fitted):
    quantizer, latent, pitch = fitted
    codes = codes_of(quantizer, latent, pitch)
    received, _ = quantizer.decode_pitch(codes[..., 0], quantizer.initial_state(2)[1])
    assert ((received >= 0) == (pitch >= 0)).all()
    assert ((received - pitch).abs() <= 1).all()


def test_more_layers_come_nearer(fitted):
    quantizer, latent, pitch = fitted
    codes = codes_of(quantizer, latent, pitch)
    errors = []
    for layers in (1, 3):
        kept = torch.where(torch.arange(3) < layers, codes, -1)
        decoded, count, _ = quantizer.dequantize(kept, quantizer.initial_state(2)[0])
        assert (count == layers).all()
        errors.append((decoded - latent).square().mean().item())
    assert errors[1] < errors[0]


def test_any_pattern_of_loss_decodes_and_a_lost_frame_keeps_the_pitch(fitted):
    quantizer, latent, pitch = fitted
    codes = codes_of(quantizer, latent, pitch)
    lost = torch.where(torch.rand(2, 40, 1) < 0.5, -1, codes)
    decoded, count, _ = quantizer.dequantize(lost, quantizer.initial_state(2)[0])
    received, _ = quantizer.decode_pitch(lost[..., 0], quantizer.initial_state(2)[1])
    assert torch.isfinite(decoded).all()
    assert (count[lost[..., 0] < 0] == 0).all()
    gone = lost[:, 1:, 0] < 0
    assert (received[:, 1:][gone] == received[:, :-1][gone]).all()
    assert (received >= -1).all()
    assert (received < PitchScale().n_steps).all()


def test_a_missing_lower_layer_silences_those_above(fitted):
    quantizer, latent, pitch = fitted
    codes = codes_of(quantizer, latent, pitch)
    codes[..., 1] = -1
    _, count, _ = quantizer.dequantize(codes, quantizer.initial_state(2)[0])
    assert (count == 1).all()


@pytest.fixture(scope="module")
def turning():
    """A latent that turns by a fixed angle in every frame, as the phase of a steady voice does, from frame 20 the other way."""
    torch.manual_seed(0)
    angle = torch.where(torch.arange(40) < 20, 0.4, -0.4).cumsum(0) + 6 * torch.rand(64, 1)
    latent = 2**0.5 * torch.stack([angle.cos(), angle.sin()], -1)
    quantizer = PhaseQuantizer(2, 2, size=16, memory=16)
    quantizer.fit(latent, torch.Generator().manual_seed(0))
    return quantizer, latent


def test_what_turns_steadily_is_foretold(turning):
    quantizer, latent = turning
    steady = torch.ones(64, 40, dtype=torch.bool)
    arrived = torch.rand(64, 40) > 0.2
    optimiser = torch.optim.Adam(quantizer.parameters(), 1e-2)
    quantizer.train()
    first = quantizer(latent, steady).error
    for _ in range(150):
        quantized = quantizer(latent, steady, arrived)
        optimiser.zero_grad()
        quantized.loss.backward()
        optimiser.step()
        for book in quantizer.codebooks():
            book.update()
    assert first[0].item() == pytest.approx(1, abs=0.01)
    assert quantized.error[0] < 0.3
    assert (quantized.error.diff() < 0).all()


def test_a_phase_that_did_not_arrive_is_zero_and_a_change_of_voicing_forgets(turning):
    quantizer, latent = turning
    quantizer.eval()
    torch.nn.init.normal_(quantizer.predict.weight)
    steady = torch.arange(40).expand(64, 40) % 5 != 0
    codes = quantizer(latent, steady).codes
    lost = torch.where(torch.rand(64, 40, 1) < 0.3, -1, codes)
    decoded, _ = quantizer.dequantize(lost, steady, quantizer.initial_state(64))
    assert (decoded[lost[..., 0] < 0] == 0).all()
    _, told, _ = quantizer.remember(codes[..., 0], steady, quantizer.initial_state(64))
    assert (told[~steady] == 0).all()
    assert (told[:, 1:][steady[:, 1:]] != 0).all()


def test_residual_layers_learn_and_each_comes_nearer():
    generator = torch.Generator().manual_seed(0)
    quantizer = ResidualQuantizer(8, 4, size=64, code_dim=4)
    latent = clusters().view(8, -1, 8)
    quantizer.fit(latent, generator)
    optimiser = torch.optim.Adam(quantizer.parameters(), 1e-3)
    before = quantizer.eval()(latent).error[-1].item()
    quantizer.train()
    for step in range(200):
        loss = quantizer(latent).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for book in quantizer.codebooks():
            book.update()
        if step % 20 == 0:
            quantizer.revive(latent, generator)
    errors = quantizer.eval()(latent).error
    # K-means is near its best from the start.
    assert errors[-1] < before * 1.5
    assert (errors.diff() < 0).all()
    assert all(book.perplexity() > 10 for book in quantizer.codebooks())


def test_a_layer_has_no_more_dimensions_than_the_latent():
    with pytest.raises(ValueError, match="code_dim is 8; a latent of 6 numbers"):
        ResidualQuantizer(6, 2, code_dim=8)


def test_residual_decoding_counts_a_layer_only_above_those_that_arrived():
    quantizer = ResidualQuantizer(8, 4, size=16, code_dim=4).eval()
    latent = torch.randn(32, 5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    quantized = quantizer(latent)
    assert (quantizer.search(latent) == quantized.codes).all()
    decoded = quantizer.dequantize(quantized.codes)
    torch.testing.assert_close((decoded - latent).square().mean(), quantized.error[-1])
    quantized.commitment.backward()
    assert latent.grad.abs().sum() > 0
    holed = quantized.codes.clone()
    holed[..., 2] = -1
    torch.testing.assert_close(quantizer.dequantize(holed), quantizer.dequantize(holed.where(torch.arange(4) < 2, -1)))
    holed[..., 0] = -1
    assert (quantizer.dequantize(holed) == 0).all()


def test_the_first_stream_learns_to_say_what_it_aims_at():
    """A sender hears a clean value and a background side by side: the first stream says the one, the others the rest."""
    torch.manual_seed(0)
    quantizer = AimedQuantizer(8, 4, aimed=1, size=64, code_dim=4)
    clean, background = (clusters(dim=4, seed=seed).unsqueeze(0) for seed in (0, 1))
    heard, clean = torch.cat([clean, background], -1), torch.cat([clean, 0 * background], -1)
    quantizer.fit(heard, torch.Generator().manual_seed(0))

    def distances():
        codes = quantizer.search(heard)
        first = torch.where(torch.arange(4) < 1, codes, -1)
        said, whole = quantizer.dequantize(first), quantizer.dequantize(codes)
        return [((said - clean) ** 2).mean().item(), ((whole - heard) ** 2).mean().item()]

    before = distances()
    optimiser = torch.optim.Adam(quantizer.parameters(), 1e-2)
    for _ in range(100):
        quantized = quantizer(heard, heard, clean)
        optimiser.zero_grad()
        quantized.loss.backward()
        optimiser.step()
        for book in quantizer.codebooks():
            book.update()
    quantizer.eval()
    after = distances()
    assert after[0] < 0.9 * before[0]
    assert after[1] < 0.5 * after[0]
    assert quantized.error[1].item() == pytest.approx(after[0], rel=0.2)
    torch.testing.assert_close(quantizer(heard, heard, clean).codes, quantizer.search(heard, heard))
