import numpy as np
import pytest
from bits_strategies import coder_for, probable_codes, small_layouts, some_codes
from hypothesis import given
from hypothesis import strategies as st

from linnet.bits import MISSING, EntropyCoder, Layout, TablesError
from linnet.bits.fit import fit_tables

PAIR = Layout((64, 16), (1, 2), 16_000, 192)


@given(small_layouts(), st.integers(0, 40), st.integers(0, 3))
def test_decode_inverts_encode(layout, frames, seed):
    coder = coder_for(layout, seed)
    for codes in (some_codes(frames, layout, seed), probable_codes(frames, coder, seed)):
        decoded = np.full_like(codes, MISSING)
        for layer in range(1, layout.n_layers + 1):
            above = np.where(np.array(layout.layers) > layer, 10**9, codes)  # is not looked at
            coder.decode(coder.encode(above, layer), decoded, layer)
        np.testing.assert_array_equal(decoded, codes)


def test_what_is_expected_is_short():
    coder = coder_for(PAIR)
    frames = 2000
    probable, some = (len(coder.encode(codes, 1)) for codes in (probable_codes(frames, coder), some_codes(frames, PAIR)))
    assert probable < frames * 6 / 8 < some


@given(small_layouts(), st.data())
def test_any_bytes_decode_to_codes(layout, data):
    coder = coder_for(layout)
    codes = np.zeros((30, layout.n_codes), np.int64)
    for layer in range(1, layout.n_layers + 1):
        coder.decode(data.draw(st.binary(max_size=40)), codes, layer)
    assert (codes >= 0).all()
    assert (codes < layout.sizes).all()


@pytest.mark.parametrize("layer", [1, 2])
def test_a_cut_gives_the_certain_frames(layer):
    coder = coder_for(PAIR)
    codes = probable_codes(100, coder)
    data = coder.encode(codes, layer)
    bits = 8 * len(data) / len(codes)
    for length in range(len(data)):
        decoded = codes.copy()
        decoded[:, layer - 1 :] = MISSING
        certain = coder.decode_cut(data[:length], decoded, layer)
        np.testing.assert_array_equal(decoded[:certain, layer - 1], codes[:certain, layer - 1])
        assert (decoded[certain:, layer - 1] == MISSING).all()
        assert certain >= (8 * length - 40) / bits - 8  # all but what the last bytes are needed for


def chain(frames, seed):
    """Codes that have to do with each other: a column that steps, and one that follows it."""
    rng = np.random.default_rng(seed)
    first = np.cumsum(rng.integers(-1, 2, frames)) % 64
    return np.stack([first, (first // 4 + rng.integers(0, 2, frames)) % 16], axis=1)


def test_fitted_tables_save_what_can_be_saved():
    tables = fit_tables([chain(20_000, seed) for seed in range(3)], PAIR)
    coder = EntropyCoder(PAIR, tables, b"abcd")
    codes = chain(5_000, 9)
    for layer, least in ((1, np.log2(3)), (2, 1.0)):
        assert least <= 8 * len(coder.encode(codes, layer)) / len(codes) < least + 0.12


def test_every_code_can_be_coded_after_little_to_learn_from():
    layout = Layout((2, 4096, 256), (1, 1, 2), 16_000, 192)
    coder = EntropyCoder(layout, fit_tables([some_codes(9, layout), some_codes(1, layout)], layout), b"abcd")
    codes = some_codes(300, layout, seed=5)
    decoded = np.zeros_like(codes)
    for layer in (1, 2):
        coder.decode(coder.encode(codes, layer), decoded, layer)
    np.testing.assert_array_equal(decoded, codes)


def test_what_cannot_be_fitted():
    with pytest.raises(TablesError, match="too large"):
        fit_tables([], Layout((1 << 17,), (1,), 16_000, 192))
    for recordings in ([], [some_codes(2, PAIR)]):
        with pytest.raises(TablesError, match="no codes"):
            fit_tables(recordings, PAIR)
