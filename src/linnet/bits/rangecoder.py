"""A range coder: symbols to bytes at the cost of their probabilities, in integers alone, so that every machine agrees.

The message is an interval [low, low + span) of the numbers below 2**32, imagined as the first 32 bits of an endless
fraction. A symbol with `frequency` of `total` counts, `start` counts before it, keeps its share of the interval:

    unit = span // total;  low += start * unit;  span = frequency * unit

and when the interval is short, its first byte is settled and goes out (a carry may still reach it). An even coin costs
one bit, a symbol of frequency 1 in 1024 ten. The decoder follows with the distance of the code from `low`. G. Martin,
"Range encoding", 1979; carries reach back into the bytes written, as in LZMA, so that no precision is lost to them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

MAX_TOTAL = 1 << 22
"""The largest sum of frequencies: a unit is then 4 or more, and no frequency rounds down to nothing."""

_WORD = 0xFFFFFFFF
_SHORT = 1 << 24


class RangeEncoder:
    """Symbols in, bytes out."""

    def __init__(self) -> None:
        self._out = bytearray()
        self._low = 0
        self._span = _WORD

    def encode(self, start: int, frequency: int, total: int) -> None:
        """Append a symbol of `frequency` >= 1 counts, after `start` counts of others, of `total` <= MAX_TOTAL counts."""
        unit = self._span // total
        self._low += start * unit
        self._span = frequency * unit
        if self._low > _WORD:
            self._carry()
        while self._span < _SHORT:
            self._out.append(self._low >> 24)
            self._low = self._low << 8 & _WORD
            self._span <<= 8

    def finish(self) -> bytes:
        """The message, as short as it can be: behind its end the decoder reads zeros, so zeros at the end are left out."""
        for zeros in range(32, -1, -1):
            code = -(-self._low >> zeros) << zeros
            if code < self._low + self._span:
                break
        self._low = code
        if self._low > _WORD:
            self._carry()
        return bytes(self._out + self._low.to_bytes(4)).rstrip(b"\0")

    def _carry(self) -> None:
        self._low &= _WORD
        place = len(self._out) - 1
        while self._out[place] == 0xFF:
            self._out[place] = 0
            place -= 1
        self._out[place] += 1


class RangeDecoder:
    """Bytes in, symbols out. Any bytes decode to something; behind their end stand `filling` bytes without end."""

    def __init__(self, data: bytes, filling: int = 0) -> None:
        self._data = data
        self._filling = filling
        self._place = 4
        self._code = int.from_bytes((data[:4] + bytes([filling] * 4))[:4])
        self._span = _WORD

    def decode(self, cumulative: Sequence[int]) -> int:
        """The next symbol, as its place in a list of cumulative frequencies: 0, those before symbol 1, ..., the total."""
        total = cumulative[-1]
        unit = self._span // total
        # A code that no encoder writes may lie behind the last symbol.
        symbol = bisect_right(cumulative, min(self._code // unit, total - 1)) - 1
        start = cumulative[symbol]
        self._code -= start * unit
        self._span = (cumulative[symbol + 1] - start) * unit
        while self._span < _SHORT:
            byte = self._data[self._place] if self._place < len(self._data) else self._filling
            self._place += 1
            self._code = (self._code << 8 | byte) & _WORD
            self._span <<= 8
        return symbol
