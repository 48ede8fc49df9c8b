"""Isolation of errors: an error of one source does not stop the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from deeplegato_pp.errors import DeepLegatoError

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

LONGEST_REASON = 400
"""Maximum length of a message from another library. [characters]"""

MACHINE_ERRORS = ("AcceleratorError",)
"""Names of errors of the machine, which would occur for all further sources too."""


def reason_of(error: BaseException) -> str:
    """Returns the reason of an error in one line.

    Messages of the package and of the system are complete; the type of other errors is included.

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
    """Raises an error again if its cause is the machine and not the source."""
    if type(error).__name__ in MACHINE_ERRORS:
        raise error


def isolated(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], list[Result]],
    failed: Callable[[Item, Exception], Result],
) -> list[Result]:
    """Processes items together or, if that fails, each one alone.

    An item that fails does not affect the results of the others.

    Args:
        items: Items to process.
        work: Function that returns one result per item.
        failed: Function that returns the result of an item for which `work` failed although it was
            alone.

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
