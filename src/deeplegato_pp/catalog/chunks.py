"""Chunks of a list: the unit of work of a catalogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deeplegato_pp.catalog.source_list import SourceList


@dataclass(frozen=True, eq=False)
class Chunk:
    """Sources that are cut out, measured and written together.

    Attributes:
        number: Number of the chunk in the list.
        sources: Its sources.
        around: Nearby sources of other chunks, which may be fitted together with sources of this
            one but are not rows of it; None if there are none or nothing is fitted together.
    """

    number: int
    sources: SourceList
    around: SourceList | None = None

    def part(self, rows: Sequence[int]) -> Chunk:
        """Returns a chunk of some of the sources, with the others around them."""
        left = [i for i in range(len(self.sources)) if i not in set(rows)]
        around = self.around
        if left:
            rest = self.sources[left]
            around = rest if around is None else around.joined(rest)
        return Chunk(self.number, self.sources[list(rows)], around)
