"""Cards of a FITS header as plain values, and statements of files about quantities.

Works on any mapping from keywords to values, without a FITS library.
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
        remarks: Mappings from keywords to comments, in order of preference.
    """

    def __init__(self, values: Header | None = None, *remarks: Header) -> None:
        super().__init__(values or {})
        self.remarks = remarks


@dataclass(frozen=True)
class Claim:
    """Statement of a file about a quantity.

    Attributes:
        value: The quantity.
        source: Keyword or other origin, for messages.
    """

    value: float
    source: str


@dataclass(frozen=True)
class Taken:
    """Value adopted for a quantity after comparison of all statements in the file.

    Attributes:
        value: The quantity, or None if the file does not state it.
        source: Its origin, or empty.
        flags: Sum of ``Flag`` bits.
        notes: The choice, rejected values, and all disagreements.
    """

    value: float | None = None
    source: str = ""
    flags: int = 0
    notes: tuple[str, ...] = ()


def header_number(header: Header, keyword: str) -> float | None:
    """Returns the finite number of ``keyword``, or None; logical values are not numbers."""
    value = header.get(keyword)
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def header_text(header: Header, keyword: str) -> str:
    """Returns the text of ``keyword`` without surrounding blanks, or an empty string."""
    value = header.get(keyword)
    return value.strip() if isinstance(value, str) else ""


def comment(header: Header, keyword: str) -> str:
    """Returns the comment of a card, or an empty string."""
    for remarks in getattr(header, "remarks", ()):
        try:
            return str(remarks[keyword])
        except KeyError:
            continue
    return ""


def number_with_unit(header: Header, keyword: str) -> tuple[float, str] | None:
    """Returns a finite number and the unit after it, as in ``'0.262 arcsec'``.

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
