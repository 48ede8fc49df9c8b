"""Type of numpy arrays whose shape and contents are described in docstrings."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]
