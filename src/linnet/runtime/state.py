"""Saved states: named arrays, as `np.savez` keeps them and `np.load` gives them back without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from linnet.bits import Codes, Layout, Redundancy, StateError

State = Mapping[str, npt.NDArray]


def taken(state: State, name: str, kind: npt.DTypeLike, ndim: int) -> npt.NDArray:
    """A copy of one array of a saved state.

    Raises:
        StateError: if there is none of this name, type and number of dimensions, or it holds NaN or infinities.
    """
    if name not in state:
        raise StateError(f"a saved state without {name!r}: it is of another kind of stream or another model")
    array = np.asarray(state[name])
    if array.dtype != kind or array.ndim != ndim:
        raise StateError(f"a saved state whose {name!r} is {array.dtype} in {array.ndim} dimensions: it is no state of this")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise StateError(f"a saved state whose {name!r} holds NaN or infinity: it was damaged")
    return array.copy()


def identity(model_id: bytes, redundancy: Redundancy) -> npt.NDArray[np.uint8]:
    """What must agree between the stream that saved a state and the one that takes it: model and offsets."""
    return np.frombuffer(model_id + bytes(redundancy.offsets), np.uint8)


def check_identity(state: State, model_id: bytes, redundancy: Redundancy) -> None:
    """A StateError unless the state is of this model and these copies."""
    saved = taken(state, "identity", np.uint8, 1).tobytes()
    if saved[:4] != model_id:
        raise StateError(f"a saved state of model {saved[:4].hex()}: this stream's is {model_id.hex()}")
    if saved[4:] != bytes(redundancy.offsets):
        raise StateError(f"a saved state with other copies: this stream's are {list(redundancy.offsets)} frames back")


def waiting_codes(state: State, name: str, layout: Layout, redundancy: Redundancy, least: int) -> Codes:
    """Codes of at most `depth` frames, in range or down to `least`, or a StateError."""
    codes = taken(state, name, np.int64, 2)
    if codes.shape[1] != layout.n_codes or len(codes) > redundancy.depth:
        raise StateError(f"a saved state whose {name!r} has the shape {list(codes.shape)}: it is no stream's of this model")
    if (codes < least).any() or (codes >= np.array(layout.sizes)).any():
        raise StateError(f"a saved state whose {name!r} holds codes that this model has not")
    return codes
