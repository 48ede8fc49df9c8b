"""Figure of a galaxy in several bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deeplegato_pp.inference.posterior.band_record import BandRecord, columns_of
from deeplegato_pp.inference.posterior.measurement import Measured
from deeplegato_pp.inference.posterior.plot_style import (
    COLOUR,
    RESIDUAL_LIMIT,
    colours,
    extent,
    visible_part,
    write_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_bands(figure: Figure, measurement: Measured) -> None:
    """Draws image, model and residual of each band in columns, with magnitudes and colours below.

    Image and model of a band share an asinh scale, linear at the noise; the residual is in sigmas.

    Args:
        figure: Empty figure.
        measurement: Measured of a galaxy in several bands.
    """
    record = measurement.bands
    assert record is not None  # noqa: S101  # checked by the caller
    parts: Any = figure.subfigures(2, 1, height_ratios=[6.2, 2.8])
    axes = parts[0].subplots(3, len(record.names), squeeze=False)
    parts[0].subplots_adjust(left=0.08, right=0.99, bottom=0.03, top=0.79, wspace=0.05, hspace=0.05)
    for k in range(len(record.names)):
        _draw_band(axes[:, k], record, k, measurement)
    for axis, label in zip(axes[:, 0], ("image", "model", "residual"), strict=True):
        axis.set_ylabel(label, fontsize=9)
    write_title(parts[0], measurement)
    left, right = parts[1].subplots(1, 2)
    parts[1].subplots_adjust(left=0.1, right=0.98, bottom=0.2, top=0.93, wspace=0.25)
    row = columns_of(record)
    magnitudes = [f"magnitude_{name}" for name in record.names]
    _draw_values(left, record, row, magnitudes, record.names)
    left.invert_yaxis()
    left.set_ylabel("magnitude", fontsize=8)
    others = [name for name in record.draws if "_minus_" in name]
    labels = [name.replace("_minus_", " - ") for name in others]
    _draw_values(right, None, row, others, labels)
    right.set_ylabel("colour [mag]", fontsize=8)


def _draw_band(axes: Any, record: BandRecord, k: int, measurement: Measured) -> None:
    from matplotlib.colors import AsinhNorm

    likelihood = record.likelihood.bands[k]
    model = likelihood.render(0, record.best[None], torch.float64)
    found = likelihood.residual(0, model)
    mask = likelihood.stamps.mask[0].numpy()
    part = visible_part(mask)
    data = np.where(mask, np.nan, likelihood.stamps.image[0].numpy())[part]
    shown = model[0].numpy()[part]
    residual = np.where(mask, np.nan, found.in_sigma[0].numpy())[part]
    peak = max(float(np.nanpercentile(data, 99.8)), float(shown.max()), 5.0)
    norm = AsinhNorm(linear_width=2.0, vmin=-3.0, vmax=peak)
    limits = {"vmin": -RESIDUAL_LIMIT, "vmax": RESIDUAL_LIMIT, "cmap": colours("RdBu_r")}
    scaled = {"norm": norm, "cmap": colours("magma")}
    size = record.likelihood.coordinates.frames[k].size
    scale = measurement.prepared.pixel_scale / size
    edges = extent(part, mask.shape[0], scale)
    pictures = ((data, scaled), (shown, scaled), (residual, limits))
    for axis, (picture, options) in zip(axes, pictures, strict=True):
        axis.imshow(picture, origin="lower", extent=edges, interpolation="nearest", **options)
        axis.tick_params(labelsize=6, labelbottom=False, labelleft=False)
    span = edges[1] - edges[0]
    axes[0].set_title(f'{record.names[k]}  ({span:.3g}")', fontsize=9, pad=3)
    text = f"$\\chi^2$/px {record.chi2[k]:.3g}"
    axes[2].text(0.04, 0.04, text, transform=axes[2].transAxes, fontsize=6.5)


def _draw_values(
    axis: Axes, record: BandRecord | None, row: dict[str, Any], names: Any, labels: Any
) -> None:
    """Plots values with 68 % intervals against wavelength if known, else in the bands' order."""
    waves = None if record is None else record.likelihood.coordinates.wavelengths
    places = np.arange(len(names)) if waves is None else np.asarray(waves)
    values = np.array([row[name] for name in names])
    bounds = np.array([[row[f"{name}_q16"], row[f"{name}_q84"]] for name in names]).T
    errors = np.abs(bounds - values)
    axis.errorbar(places, values, errors, fmt="o", color=COLOUR, markersize=4, capsize=2)
    axis.tick_params(labelsize=7)
    if waves is not None:
        axis.set_xscale("log")
    axis.set_xticks(places, labels, fontsize=7, rotation=30 if len(names) > 4 else 0)
    axis.minorticks_off()
