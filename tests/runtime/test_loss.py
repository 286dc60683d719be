from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnet.runtime.loss import GilbertElliott, Independent, LossError, Trace, bursts, loss_model

PACKETS = 200_000


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.4, 0.9])
def test_independent_losses_have_their_rate_and_no_memory(rate):
    lost = Independent(rate, seed=1).draw(PACKETS)
    # 4.5 standard deviations of a mean of independent packets; bursts are then geometric with mean 1 / (1 - rate).
    assert abs(lost.mean() - rate) < 4.5 * (rate * (1 - rate) / PACKETS) ** 0.5
    assert bursts(lost).mean() == pytest.approx(1 / (1 - rate), rel=0.03)
    assert abs(np.corrcoef(lost[1:], lost[:-1])[0, 1]) < 4.5 / PACKETS**0.5


@pytest.mark.parametrize(("rate", "burst"), [(0.05, 2), (0.2, 5), (0.4, 5), (0.2, 20), (0.5, 1), (0.1, 1)])
def test_bursts_have_their_rate_length_and_memory(rate, burst):
    lost = GilbertElliott(rate, burst, seed=2).draw(PACKETS)
    runs = bursts(lost)
    assert runs.mean() == pytest.approx(burst, abs=4.5 * (burst * (burst - 1) / len(runs)) ** 0.5 + 1e-9)
    # The chain forgets by `memory` from packet to packet, which widens the spread of the mean.
    memory = 1 - 1 / burst - rate / (burst * (1 - rate))
    spread = (rate * (1 - rate) * (1 + memory) / (1 - memory) / PACKETS) ** 0.5
    assert abs(lost.mean() - rate) < 4.5 * spread + 1e-4
    assert np.corrcoef(lost[1:], lost[:-1])[0, 1] == pytest.approx(memory, abs=0.02)
    for length in (1, 2, 3):  # geometric
        expected = (1 - 1 / burst) ** length
        assert (runs > length).mean() == pytest.approx(expected, abs=4.5 * (0.25 / len(runs)) ** 0.5)


def test_bursts_start_in_the_stationary_state():
    first = [GilbertElliott(0.3, 10, seed).draw(1)[0] for seed in range(2000)]
    assert np.mean(first) == pytest.approx(0.3, abs=4.5 * (0.21 / 2000) ** 0.5)


def test_bursts_as_short_as_chance_makes_them_are_independent():
    lost = GilbertElliott(0.25, 1 / 0.75, seed=3).draw(PACKETS)
    assert abs(np.corrcoef(lost[1:], lost[:-1])[0, 1]) < 4.5 / PACKETS**0.5


@given(
    st.sampled_from([Independent(0.3, 5), GilbertElliott(0.3, 4, 5), Trace([0, 1, 1, 0, 0])]),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_any_chunks_and_any_repetition_draw_the_same(model, cuts):
    edges = [0, *sorted(cuts), 60]
    model.reset()
    whole = model.draw(60)
    model.reset()
    np.testing.assert_array_equal(np.concatenate([model.draw(b - a) for a, b in pairwise(edges)]), whole)
    assert whole.dtype == np.bool_


def test_seeds_differ():
    assert (GilbertElliott(0.3, 4, 1).draw(200) != GilbertElliott(0.3, 4, 2).draw(200)).any()
    assert (Independent(0.3, 1).draw(200) != Independent(0.3, 2).draw(200)).any()


def test_nothing_and_everything():
    assert not Independent(0).draw(100).any()
    assert Independent(1).draw(100).all()
    assert not GilbertElliott(0, 5).draw(100).any()
    assert GilbertElliott(1, 5).draw(100).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_that_is_none_is_refused(rate):
    for make in (Independent, lambda rate: GilbertElliott(rate, 5)):
        with pytest.raises(LossError, match="0 to 1"):
            make(rate)


@pytest.mark.parametrize(("rate", "burst", "message"), [(0.2, 0.5, "1 or more"), (0.9, 5, "at least 9 packets")])
def test_bursts_that_cannot_be_are_refused(rate, burst, message):
    with pytest.raises(LossError, match=message):
        GilbertElliott(rate, burst)


def test_a_trace_is_read_and_goes_round(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text("0\n1\n1\r\n0 1\n\n0\n")
    np.testing.assert_array_equal(Trace.read(path).draw(8), [0, 1, 1, 0, 1, 0, 0, 1])


@pytest.mark.parametrize(("text", "message"), [("0\n1\n2\n", "line 3: '2'"), ("0\nlost\n", "line 2: 'l'"), (" \n", "empty")])
def test_a_trace_of_anything_else_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "trace.txt"
    path.write_text(text)
    with pytest.raises(LossError, match=message) as caught:
        Trace.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(LossError):
        Trace([])


def test_the_runs_of_losses():
    assert bursts([1, 0, 0, 1, 1, 1, 0, 1]).tolist() == [1, 3, 1]
    assert bursts([0, 0]).tolist() == bursts([]).tolist() == []


def test_options_name_a_model(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text("01")
    np.testing.assert_array_equal(loss_model(0.3, seed=4).draw(99), Independent(0.3, 4).draw(99))
    np.testing.assert_array_equal(loss_model(0.3, 4, seed=4).draw(99), GilbertElliott(0.3, 4, 4).draw(99))
    np.testing.assert_array_equal(loss_model(0, trace=path).draw(4), [0, 1, 0, 1])
    for rate, burst in ((0.1, None), (0, 5)):
        with pytest.raises(LossError, match="leave out"):
            loss_model(rate, burst, path)
