"""Saved states: named arrays, as `np.savez` keeps them and `np.load` gives them back without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from linnet.bits import StateError

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
