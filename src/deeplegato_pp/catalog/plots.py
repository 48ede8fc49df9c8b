"""Figures of catalogues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deeplegato_pp.catalog.compare import Comparison
from deeplegato_pp.io.files import check_output, written_whole

SUFFIXES = (".png", ".pdf", ".svg", ".jpg")

LIMIT = 6.0
"""Range of differences shown, in sigmas."""


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """Plots the differences of two catalogues against magnitude, for each parameter.

    Beside each panel is the histogram of the differences in units of their errors, with the
    standard normal expected for independent measurements.

    Args:
        comparison: Comparison of two catalogues.
        path: Output file; its suffix selects the format.

    Raises:
        InputError: If the file cannot be written.
    """
    import matplotlib.pyplot as plt

    check_output(path, SUFFIXES, "plot")
    number = len(comparison.differences)
    figure, axes = plt.subplots(
        number,
        2,
        figsize=(8.0, 1.6 * number),
        width_ratios=[3, 1],
        sharey=True,
        sharex="col",
        layout="constrained",
    )
    grid = np.linspace(-LIMIT, LIMIT, 121)
    for (left, right), difference in zip(axes, comparison.differences, strict=True):
        good = comparison.both_measured & np.isfinite(difference.scaled)
        scaled = np.clip(difference.scaled[good], -LIMIT, LIMIT)
        left.plot(comparison.magnitude[good], scaled, ".", ms=2, color="#20639b", alpha=0.5)
        left.axhline(0.0, color="black", lw=0.7)
        figures: dict[str, Any] = difference.figures()
        left.set_title(
            f"{difference.parameter.symbol}: median {figures['median_sigma']:+.2f}, spread "
            f"{figures['spread_sigma']:.2f}, beyond 3: {100 * figures['beyond_3_sigma']:.1f} %",
            fontsize=8,
        )
        left.set_ylabel(r"$\Delta / \sigma$", fontsize=8)
        right.hist(scaled, bins=grid[::4], density=True, orientation="horizontal", color="#20639b")
        right.plot(np.exp(-0.5 * grid**2) / np.sqrt(2 * np.pi), grid, color="black", lw=0.7)
        for axis in (left, right):
            axis.tick_params(labelsize=7)
    axes[-1, 0].set_xlabel("magnitude (old)", fontsize=8)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=160)
    plt.close(figure)
