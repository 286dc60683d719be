import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linnet.bits.rangecoder import MAX_TOTAL, RangeDecoder, RangeEncoder

# Rows of frequencies, some of them as lopsided as can be.
FREQUENCIES = st.one_of(
    st.lists(st.integers(1, 5), min_size=1, max_size=20),
    st.lists(st.sampled_from([1, 2, 32768, 65535]), min_size=1, max_size=20),
    st.sampled_from([[MAX_TOTAL - 1, 1], [1, MAX_TOTAL - 1], [MAX_TOTAL]]),
)


@st.composite
def messages(draw):
    """Cumulative frequencies, and one symbol after each of them."""
    rows = [np.cumsum([0, *row]).tolist() for row in draw(st.lists(FREQUENCIES, min_size=1, max_size=3))]
    picks = draw(st.lists(st.tuples(st.integers(0, len(rows) - 1), st.floats(0, 1)), max_size=60))
    chosen = [rows[row] for row, _ in picks]
    return chosen, [int(share * (len(row) - 2)) for row, (_, share) in zip(chosen, picks, strict=True)]


def encode(rows, symbols):
    encoder = RangeEncoder()
    for row, symbol in zip(rows, symbols, strict=True):
        encoder.encode(row[symbol], row[symbol + 1] - row[symbol], row[-1])
    return encoder.finish()


def information(rows, symbols):
    """Bits that the symbols have to cost."""
    return sum(np.log2(row[-1] / (row[symbol + 1] - row[symbol])) for row, symbol in zip(rows, symbols, strict=True))


@given(messages())
def test_decoder_inverts_encoder(message):
    rows, symbols = message
    data = encode(rows, symbols)
    decoder = RangeDecoder(data)
    assert [decoder.decode(row) for row in rows] == symbols
    assert not data.endswith(b"\0")


@given(messages(), st.binary(max_size=30), st.sampled_from([0x00, 0xFF]))
def test_any_bytes_decode_to_symbols(message, data, filling):
    decoder = RangeDecoder(data, filling)
    for row in message[0]:
        assert 0 <= decoder.decode(row) <= len(row) - 2


@pytest.mark.parametrize("frequencies", [[1, 1], [1, 3, 60, 1000, 31704], [65535, 1], [3] * 300])
def test_a_message_is_as_long_as_its_information(frequencies):
    row = np.cumsum([0, *frequencies]).tolist()
    rng = np.random.default_rng(1)
    symbols = rng.choice(len(frequencies), 20_000, p=np.array(frequencies) / row[-1]).tolist()
    rows = [row] * len(symbols)
    bits = information(rows, symbols)
    assert bits / 8 - 1 <= len(encode(rows, symbols)) <= 1.0005 * bits / 8 + 1


@given(messages())
def test_a_short_message_wastes_less_than_two_bytes(message):
    rows, symbols = message
    assert len(encode(rows, symbols)) <= (1.01 * information(rows, symbols) + 15) / 8


def test_carries_reach_back():
    """The last of very many symbols, again and again, leaves the interval close to its upper end: ff bytes, then carries."""
    row = [0, 65535, 65536]
    for length in range(1, 60):
        for last in (0, 1):
            symbols = [1] * length + [0, last]
            decoder = RangeDecoder(encode([row] * len(symbols), symbols))
            assert [decoder.decode(row) for _ in symbols] == symbols
    encoder = RangeEncoder()
    encoder._out, encoder._low, encoder._span = bytearray(b"\x12\xff\xff"), 0xFFFFFF00, 0x1000000
    encoder.encode(3, 1, 4)
    assert encoder.finish()[:3] == b"\x13\x00\x00"


@pytest.mark.parametrize("n_symbols", [2, 40, 4096])
def test_against_constriction(n_symbols):
    """The same symbols by another's range coder, whose words have 4 bytes: as long, and both give them back."""
    constriction = pytest.importorskip("constriction")
    rng = np.random.default_rng(n_symbols)
    frequencies = rng.integers(1, 1000, (30, n_symbols))
    which = rng.integers(0, len(frequencies), 3000)
    symbols = np.array([rng.choice(n_symbols, p=row / row.sum()) for row in frequencies[which]], np.int32)
    probabilities = (frequencies / frequencies.sum(axis=1, keepdims=True)).astype(np.float32)[which]
    family = constriction.stream.model.Categorical(perfect=False)
    theirs = constriction.stream.queue.RangeEncoder()
    theirs.encode(symbols, family, probabilities)
    words = theirs.get_compressed()
    decoded = constriction.stream.queue.RangeDecoder(words).decode(family, probabilities)
    cumulative = [np.cumsum([0, *row]).tolist() for row in frequencies]
    ours = encode([cumulative[row] for row in which], symbols.tolist())
    decoder = RangeDecoder(ours)
    assert [decoder.decode(cumulative[row]) for row in which] == decoded.tolist() == symbols.tolist()
    assert 4 * len(words) - 8 <= len(ours) * 1.0001
    assert len(ours) <= 4 * len(words) * 1.0005 + 1
