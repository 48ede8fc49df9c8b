"""Parser of GALFIT's input file (feedme): control parameters and components.

The format is described in the GALFIT user's manual (Peng): lines ``X) value ... # comment``, with
letters A to P for the whole fit, and for each component ``0)`` its type and ``1)``, ``3)``, ... its
parameters, each followed by 1 (free) or 0 (fixed).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from deeplegato_pp.errors import FormatError

CONTROLS = "ABCDEFGHIJKOP"
"""Letters of the control parameters."""

_LINE = re.compile(r"^\s*([A-Za-z]?\d*)\)\s*(.*)$")

_PAIRS = ("1",)
"""Lines with two values and two flags: the position, for all components except the sky."""


@dataclass(frozen=True)
class Component:
    """Component of a feedme.

    Attributes:
        kind: Type as written: ``sersic``, ``sky``, ...
        line: Number of its first line in the file, from 1.
        values: Values of each parameter by its key (``"1"``, ``"3"``, ...).
        free: Whether each of those values is fitted.
        modifiers: Keys of Fourier modes, bending, truncation etc. (``"F1"``, ...).
    """

    kind: str
    line: int
    values: dict[str, tuple[float, ...]] = field(default_factory=dict)
    free: dict[str, tuple[bool, ...]] = field(default_factory=dict)
    modifiers: tuple[str, ...] = ()

    def value(self, key: str, path: Path, place: int = 0) -> float:
        """Returns a value, and raises an error if the component lacks it.

        Raises:
            FormatError: If the component has no such line.
        """
        try:
            return self.values[key][place]
        except (KeyError, IndexError):
            raise FormatError(
                f"{path}: the {self.kind} of line {self.line} has no parameter {key}). Expected "
                "the lines of GALFIT's manual, each a value and 1 (free) or 0 (fixed)."
            ) from None


@dataclass(frozen=True)
class Feedme:
    """Content of a feedme.

    Attributes:
        path: The file.
        controls: Text after each control letter without comments; empty if there is none.
        components: Components, including the sky, in the file's order.
    """

    path: Path
    controls: dict[str, str]
    components: tuple[Component, ...]

    def word(self, letter: str, number: int = 0) -> str:
        """Returns one word of a control line; empty if it is missing or ``none``."""
        words = self.controls.get(letter, "").split()
        word = words[number] if len(words) > number else ""
        return "" if word.lower() == "none" else word

    def numbers(self, letter: str, count: int) -> tuple[float, ...] | None:
        """Returns the numbers of a control line; None if the line is missing or empty.

        Raises:
            FormatError: If there are too few numbers, or a word is not a number.
        """
        words = self.controls.get(letter, "").split()
        if not words:
            return None
        try:
            found = tuple(float(word) for word in words[:count])
        except ValueError:
            found = ()
        if len(found) < count:
            raise FormatError(
                f"{self.path}: line {letter}) must begin with {count} numbers, got "
                f"{self.controls[letter]!r}. See GALFIT's manual for its meaning."
            )
        return found


def read_feedme(path: str | Path) -> Feedme:
    """Reads a feedme.

    Args:
        path: The file, which may have been written by GALFIT (``galfit.01``).

    Raises:
        FormatError: If the file is missing, a line cannot be parsed, or there is no component.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise FormatError(
            f"{path}: cannot be read ({error.strerror}). Give a GALFIT input file."
        ) from error
    return parse_feedme(text, path)


def parse_feedme(text: str, path: Path = Path("feedme")) -> Feedme:
    r"""Parses the text of a feedme; the path is used for messages and to find its files.

    Raises:
        FormatError: See :func:`read_feedme`.

    Example:
        >>> sky = parse_feedme("A) galaxy.fits\n 0) sky\n 1) 1.39  0  # background")
        >>> sky.word("A"), sky.components[0].values["1"], sky.components[0].free["1"]
        ('galaxy.fits', (1.39,), (False,))
    """
    controls: dict[str, str] = {}
    components: list[Component] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.split("#")[0].rstrip()
        match = _LINE.match(content)
        if match is None:
            if content.strip(" =-_\t") and not content.lstrip().startswith(("=", "-")):
                raise FormatError(
                    f"{path}: line {number} is not GALFIT's ({content.strip()[:40]!r}). Expected "
                    "X) value, or a comment that begins with #."
                )
            continue
        key, rest = match[1].upper(), match[2].strip()
        if key == "0":
            components.append(Component(rest.split()[0].lower() if rest else "", number))
        elif key in CONTROLS and key:
            controls[key] = rest
        elif components and key != "Z":
            components[-1] = _with_line(components[-1], key, rest, number, path)
    if not components:
        raise FormatError(
            f"{path}: no component found (a line such as '0) sersic'). Is it a GALFIT input file?"
        )
    return Feedme(path, controls, tuple(components))


def _with_line(component: Component, key: str, rest: str, number: int, path: Path) -> Component:
    """Returns the component with another of its lines."""
    if not key.isdigit():
        return Component(
            component.kind,
            component.line,
            component.values,
            component.free,
            (*component.modifiers, key),
        )
    count = 2 if key in _PAIRS and component.kind != "sky" else 1
    words = rest.split()
    try:
        values = tuple(float(word) for word in words[:count])
        flags = tuple(_flag(word) for word in words[count : 2 * count])
    except ValueError:
        values, flags = (), ()
    if len(values) < count or len(flags) < count:
        raise FormatError(
            f"{path}: line {number}, {key}) of the {component.kind}: expected {count} number(s) "
            f"and as many flags 1 (free) or 0 (fixed), got {rest!r}."
        )
    return Component(
        component.kind,
        component.line,
        component.values | {key: values},
        component.free | {key: flags},
        component.modifiers,
    )


def _flag(word: str) -> bool:
    number = float(word)
    if number not in (-1.0, 0.0, 1.0):  # -1 is GALFIT's mark of a fixed parameter
        raise ValueError(word)
    return number == 1.0
