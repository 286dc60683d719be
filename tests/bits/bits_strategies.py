"""What the tests of the bits draw from: layouts, codes, files."""

import io

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from linnet.bits import Header, Layout, LayoutError, Writer

DEFAULT = Layout(sizes=(4096,) * 6, layers=(1, 2, 3, 4, 5, 6), sample_rate=16_000, hop=192)
MODEL_ID = b"\x5a\x17\xc0\xde"


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
