"""Table columns computed from one quantity's draws: value, widths and quantiles."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.stats import weighted as statistics


def names_of(quantity: str) -> list[str]:
    """Returns the names of a quantity's columns, in the order of the tables.

    Example:
        >>> names_of("magnitude")[:4]
        ['magnitude', 'magnitude_std', 'magnitude_std_noise', 'magnitude_q025']
    """
    suffixes = ("std", "std_noise", *statistics.QUANTILES)
    return [quantity, *(f"{quantity}_{suffix}" for suffix in suffixes)]


def lines_on(quantity: str, meaning: str, period: float | None) -> dict[str, str]:
    """Returns a one-line description of each of a quantity's columns."""
    lines = {
        quantity: f"{meaning}: posterior {'circular mean' if period else 'mean'}",
        f"{quantity}_std": f"standard deviation of {quantity}",
        f"{quantity}_std_noise": f"that of {quantity} if the stated noise were all",
    }
    for suffix, probability in statistics.QUANTILES.items():
        lines[f"{quantity}_{suffix}"] = f"{100 * probability:g} % quantile of {quantity}"
    return lines


def columns_of_draws(
    quantity: str,
    draws: Float[Array, " s"],
    noise_draws: Float[Array, " s"],
    weights: Float[Array, " s"] | None,
    period: float | None,
) -> dict[str, Any]:
    """Computes a quantity's columns.

    Args:
        quantity: Name of the quantity.
        draws: Draws as reported, with shape (S,).
        noise_draws: Draws under the stated noise alone, with shape (S,).
        weights: Weights with sum 1; None for equal weights.
        period: Period, for an angle.
    """
    found = statistics.summarise(draws, weights, period)
    own = statistics.summarise(noise_draws, weights, period)
    values = (found.value, found.std, own.std, *found.quantiles)
    return dict(zip(names_of(quantity), values, strict=True))
