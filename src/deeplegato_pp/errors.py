"""Exceptions of the package; each is also a builtin, so that ``except ValueError`` works.

A message says what is wrong, what was got, what was expected and what to do about it, in one line.
"""


class DeepLegatoError(Exception):
    """Base of everything this package raises on purpose."""


class InputError(DeepLegatoError, ValueError):
    """An argument or a file's content cannot be used."""


class ShapeError(InputError):
    """An array has the wrong number of dimensions or the wrong size."""


class RangeError(InputError):
    """A number lies outside the range in which it has a meaning or was tested."""


class FormatError(InputError):
    """A file is missing, is not of the format it should be, or is damaged."""


class ConfigError(DeepLegatoError, ValueError):
    """A configuration key is unknown, or its value makes no sense."""


class ModelNotFoundError(DeepLegatoError, FileNotFoundError):
    """No model of that name is in the package, in the given folder or on the hub."""


class NumericalError(DeepLegatoError, ArithmeticError):
    """A computation gave NaN, or did not converge, where a number was due."""
