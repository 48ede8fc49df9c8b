"""Chunks of a list: the unit of work of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deeplegato_pp.catalog.sources import SourceList


@dataclass(frozen=True, eq=False)
class Chunk:
    """Sources that are cut, measured and written together.

    Attributes:
        number: Of the chunk in the list.
        sources: Its sources.
        around: Sources of other chunks near them, which are no rows of this one but may be fitted
            together with some; None: there are none, or nothing is fitted together.
    """

    number: int
    sources: SourceList
    around: SourceList | None = None

    def part(self, rows: Sequence[int]) -> Chunk:
        """Returns some of the sources; the others are around them."""
        left = [i for i in range(len(self.sources)) if i not in set(rows)]
        around = self.around
        if left:
            rest = self.sources[left]
            around = rest if around is None else around.joined(rest)
        return Chunk(self.number, self.sources[list(rows)], around)
