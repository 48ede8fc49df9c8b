"""Random numbers for a batch, with a row per galaxy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Draw:
    """Random numbers for one batch, from one generator on one device.

    Args:
        batch: Number B of rows.
        generator: Source of randomness; None for torch's default.
        dtype: Type of the numbers.
        device: Device of the numbers, if there is no generator.
    """

    def __init__(
        self,
        batch: int,
        generator: torch.Generator | None,
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> None:
        self.batch = batch
        self.generator = generator
        self.options: dict[str, Any] = {
            "generator": generator,
            "device": device if generator is None else generator.device,
            "dtype": dtype,
        }

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Returns uniform numbers with shape (B, *shape)."""
        u = torch.rand(self.batch, *shape, **self.options)
        return low + (high - low) * u

    def log_uniform(self, bounds: tuple[float, float], *shape: int) -> Tensor:
        """Returns log-uniform numbers with shape (B, *shape)."""
        return self.uniform(math.log(bounds[0]), math.log(bounds[1]), *shape).exp()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Returns booleans that are True with a probability, with shape (B, *shape)."""
        return self.uniform(0.0, 1.0, *shape) < probability

    def normal(self, *shape: int) -> Tensor:
        """Returns standard-normal numbers with shape (B, *shape)."""
        return torch.randn(self.batch, *shape, **self.options)
