"""The base layer's 12 bits: voicing, pitch and the first codebook in one index, their shares changing from frame to frame.

An unvoiced frame needs no pitch; a voiced one mostly a small step from the frame before, and only where voicing sets in the
pitch itself. So the index runs over three classes of frame: unvoiced with a large codebook, voiced with a pitch step and a
smaller one, onset with the pitch in full and a few entries. Each class reads without knowing the frames before, and after a
lost packet the pitch is right again from the next onset on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNVOICED, VOICED, ONSET = 0, 1, 2


@dataclass(frozen=True)
class BaseIndex:
    """How many codebook entries each class has, and how far the pitch may step.

    The index of an unvoiced frame is its entry; of a voiced one `voiced_start + (step + reach) * voiced_entries + entry`;
    of an onset `onset_start + coarse_pitch * onset_entries + entry`, its pitch being `coarse_pitch * onset_grain` steps.
    """

    n_steps: int
    size: int = 4096
    reach: int = 2
    onset_grain: int = 2

    def __post_init__(self) -> None:
        if self.onset_entries < 1:
            raise ValueError(f"{self.size} indices are too few for {self.n_coarse} onset pitches")

    @property
    def unvoiced_entries(self) -> int:
        return self.size // 4

    @property
    def voiced_entries(self) -> int:
        return self.size // 8

    @property
    def onset_entries(self) -> int:
        """What the other classes leave, shared among the pitches."""
        return (self.size - self.unvoiced_entries - (2 * self.reach + 1) * self.voiced_entries) // self.n_coarse

    @property
    def n_entries(self) -> int:
        """Entries of all three codebooks, laid end to end in the order unvoiced, voiced, onset."""
        return self.unvoiced_entries + self.voiced_entries + self.onset_entries

    @property
    def first_entries(self) -> tuple[int, int, int]:
        """Where each class's entries start."""
        return 0, self.unvoiced_entries, self.unvoiced_entries + self.voiced_entries

    @property
    def n_coarse(self) -> int:
        """Distinct pitches of an onset."""
        return -(-self.n_steps // self.onset_grain)

    @property
    def used(self) -> int:
        """Indices that mean something; the rest up to `size` are never sent."""
        return self.unvoiced_entries + (2 * self.reach + 1) * self.voiced_entries + self.n_coarse * self.onset_entries

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What each index means, int64 `[size]` each: class, pitch (a step or a coarse pitch in steps), entry.

        Unused indices, which only a damaged stream holds, read as index 0.
        """
        index = np.arange(self.size)
        voiced_start = self.unvoiced_entries
        onset_start = voiced_start + (2 * self.reach + 1) * self.voiced_entries
        kind = np.where(index < voiced_start, UNVOICED, np.where(index < onset_start, VOICED, ONSET))
        step, voiced_entry = np.divmod(index - voiced_start, self.voiced_entries)
        coarse, onset_entry = np.divmod(index - onset_start, self.onset_entries)
        pitch = np.choose(kind, [np.zeros_like(index), step - self.reach, coarse * self.onset_grain])
        local = np.choose(kind, [index, voiced_entry, onset_entry])
        entry = local + np.asarray(self.first_entries)[kind]
        unused = index >= self.used
        return tuple(np.where(unused, table[0], table) for table in (kind, pitch, entry))  # type: ignore[return-value]
