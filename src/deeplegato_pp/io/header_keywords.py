"""The cards of a FITS header as plain values, and the claims that files make with them.

Works on any mapping from keywords to values: nothing here needs a FITS library.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Header = Mapping[str, Any]


class Cards(dict[str, Any]):
    """Values by keyword.

    Attributes:
        remarks: What says of a keyword what its card's comment is; mappings, the best first.
    """

    def __init__(self, values: Header | None = None, *remarks: Header) -> None:
        super().__init__(values or {})
        self.remarks = remarks


@dataclass(frozen=True)
class Claim:
    """What one source in a file says of a quantity.

    Attributes:
        value: The quantity.
        source: Where it stands, for readers.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Taken:
    """What was taken for a quantity, after all that the file says of it was compared.

    Attributes:
        value: The quantity, or None where nothing tells it.
        source: Where it stands, or empty.
        flags: Sum of ``Flag`` bits.
        notes: The choice, what was refused, and every disagreement.
    """

    value: float | None = None
    source: str = ""
    flags: int = 0
    notes: tuple[str, ...] = ()


def header_number(header: Header, keyword: str) -> float | None:
    """Returns the finite number under ``keyword``, or None: a logical value is no number."""
    value = header.get(keyword)
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def header_text(header: Header, keyword: str) -> str:
    """Returns the text under ``keyword`` without blanks around it, or an empty one."""
    value = header.get(keyword)
    return value.strip() if isinstance(value, str) else ""


def comment(header: Header, keyword: str) -> str:
    """Returns what a card says about its value, or an empty text."""
    for remarks in getattr(header, "remarks", ()):
        try:
            return str(remarks[keyword])
        except KeyError:
            continue
    return ""


def number_with_unit(header: Header, keyword: str) -> tuple[float, str] | None:
    """Returns a finite number and the unit written behind it, as in ``'0.262 arcsec'``.

    Example:
        >>> number_with_unit({"PIXSCALE": "0.262 arcsec/pix"}, "PIXSCALE")
        (0.262, 'arcsec/pix')
    """
    number = header_number(header, keyword)
    if number is not None:
        return number, ""
    match = re.match(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*(\D.*)?$", header_text(header, keyword))
    if match is None:
        return None
    number = header_number({"": match[1]}, "")
    return None if number is None else (number, (match[2] or "").strip())
