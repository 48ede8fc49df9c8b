"""The type of plain numpy arrays, whose shape and contents the docstrings tell."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
