"""What the tests of the bits draw from: layouts, codes, files."""

import io

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linnet.bits import CODED, EntropyCoder, Header, Layout, LayoutError, Tables, Writer
from linnet.bits.tables import ColumnTables, Source

DEFAULT = Layout(sizes=(4096,) * 6, layers=(1, 2, 3, 4, 5, 6), sample_rate=16_000, hop=192)
MODEL_ID = b"\x5a\x17\xc0\xde"
CODED_ID = b"\xc0\xde\x5a\x17"


class Pipe(io.BytesIO):
    """A stream that can only be read or written forwards."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation("seek")

    def tell(self):
        raise io.UnsupportedOperation("tell")


@st.composite
def layouts(draw):
    """Any layout that is allowed, of up to seven columns."""
    bits = draw(st.lists(st.integers(1, 20) | st.just(32), min_size=1, max_size=7))
    steps = draw(st.lists(st.integers(0, 1), min_size=len(bits) - 1, max_size=len(bits) - 1))
    layers = (1, *(1 + np.cumsum(steps, dtype=int)).tolist())
    sample_rate, hop = draw(st.sampled_from([(16_000, 192), (24_000, 320), (44_100, 512)]))
    try:
        return Layout(tuple(2**b for b in bits), layers, sample_rate, hop)
    except LayoutError:  # two numbers of layers with packets of one length: widen every column past a byte
        return Layout(tuple(2 ** min(b + 8, 32) for b in bits), layers, sample_rate, hop)


@st.composite
def codes_of(draw, layout, max_frames=40):
    """Codes [frames, n_codes] that fit the layout, the extremes often among them."""
    frames = draw(st.integers(0, max_frames))
    share = draw(hnp.arrays(np.float64, (frames, layout.n_codes), elements=st.sampled_from([0, 0.3, 0.5, 0.8, 1])))
    return np.floor(share * (np.array(layout.sizes) - 1)).astype(np.int64)


@st.composite
def layouts_and_codes(draw, max_frames=40):
    """A layout, a number of its layers, and codes."""
    layout = draw(layouts())
    return layout, draw(st.integers(1, layout.n_layers)), draw(codes_of(layout, max_frames))


def some_codes(frames, layout=DEFAULT, seed=0):
    """Codes [frames, n_codes], the same for the same seed."""
    return np.random.default_rng(seed).integers(0, layout.sizes, (frames, layout.n_codes))


def file_of(codes, n_layers=1, layout=DEFAULT, samples=None, sample_rate=44_100):
    """The bytes of a `.lnt` file."""
    out = Pipe()
    with Writer(out, Header(MODEL_ID, sample_rate, n_layers), layout) as writer:
        writer.write(codes)
        writer.samples = samples
    return out.getvalue()


def tables_for(layout, seed=0):
    """Tables without sense for any layout of small columns, the same for the same seed."""
    rng = np.random.default_rng(seed)
    columns = []
    n_groups = [min(size, 2 + column % 5) for column, size in enumerate(layout.sizes)]
    for column, size in enumerate(layout.sizes):
        sources = Source(int(rng.integers(column + 1)), int(rng.integers(1, 4))), Source(max(0, column - 1), int(column == 0))
        clusters = rng.integers(0, 2, n_groups[sources[1].column]).astype(np.uint8)
        clusters[0] = 1
        shape = n_groups[sources[0].column], 2, n_groups[column]
        costs = [rng.integers(least, 120, of).astype(np.uint8) for least, of in ((16, size), (0, shape))]
        groups = rng.integers(0, n_groups[column], size).astype(np.uint8)
        columns.append(ColumnTables(sources, groups, costs[0], clusters, costs[1]))
    return Tables(tuple(columns))


def coder_for(layout, seed=0):
    return EntropyCoder(layout, tables_for(layout, seed), CODED_ID)


@st.composite
def small_layouts(draw):
    """Any layout that tables are tested with."""
    bits = draw(st.lists(st.integers(1, 7), min_size=1, max_size=6))
    steps = draw(st.lists(st.integers(0, 1), min_size=len(bits) - 1, max_size=len(bits) - 1))
    layers = (1, *(1 + np.cumsum(steps, dtype=int)).tolist())
    try:
        return Layout(tuple(2**b for b in bits), layers, 16_000, 192)
    except LayoutError:  # as above
        return Layout((256,) * len(bits), layers, 16_000, 192)


def probable_codes(frames, coder, seed=0):
    """Codes [frames, n_codes] that the coder's tables expect: what random bytes decode to."""
    codes = np.zeros((frames, coder.layout.n_codes), np.int64)
    data = np.random.default_rng(seed).bytes(8 * codes.size + 8)
    for layer in range(1, coder.layout.n_layers + 1):
        coder.decode(data[layer:], codes, layer)
    return codes


def coded_file_of(codes, coder, n_layers=1, samples=None, sample_rate=44_100):
    """The bytes of an entropy-coded `.lnt` file."""
    out = Pipe()
    with Writer(out, Header(coder.model_id, sample_rate, n_layers, CODED), coder.layout, coder) as writer:
        writer.write(codes)
        writer.samples = samples
    return out.getvalue()
