"""One source never ends a run: what breaks over one of many becomes that one's reason."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from deeplegato_pp.errors import DeepLegatoError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

LONGEST_REASON = 400
"""Longest message of another library that is kept. [characters]"""

MACHINE_ERRORS = ("AcceleratorError",)
"""Errors, by name, of the machine and not of a source: every further source would fail likewise."""


def reason_of(error: BaseException) -> str:
    """Returns in one line why something failed.

    The package's own messages and those of the system are complete; any other error is named.

    Example:
        >>> reason_of(ZeroDivisionError("division by zero"))
        'unexpected ZeroDivisionError: division by zero'
        >>> reason_of(FileNotFoundError(2, "No such file or directory", "a.fits"))
        'a.fits: No such file or directory'
    """
    if isinstance(error, DeepLegatoError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())[:LONGEST_REASON]
    return f"unexpected {type(error).__name__}: {text}".rstrip(": ")


def raise_if_of_the_machine(error: Exception) -> None:
    """Raises an error again that says nothing about the source that was worked on."""
    if type(error).__name__ in MACHINE_ERRORS:
        raise error


def isolated(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[Result]],
    failed: Callable[[Item, Exception], Result],
) -> list[Result]:
    """Works on items together or, where that fails, on each alone.

    An item that breaks takes no other along, and the others come out as if it were not there.

    Args:
        items: What to work on.
        work: Returns a result for each of some items.
        failed: Returns the result of an item on which `work` raised although it was alone.

    Returns:
        One result per item, in order.

    Example:
        >>> isolated([1, 0, 2], lambda xs: [6 // x for x in xs], lambda x, e: -1)
        [6, -1, 3]
    """
    try:
        return work(items)
    except Exception as error:
        raise_if_of_the_machine(error)
        if len(items) == 1:
            expected = isinstance(error, DeepLegatoError | OSError)
            logger.info("failed: %s", reason_of(error), exc_info=None if expected else error)
            return [failed(items[0], error)]
    return [result for item in items for result in isolated([item], work, failed)]
