"""A small table of results, for what shows catalogues."""

from __future__ import annotations

import numpy as np
from astropy import units as u
from astropy.table import QTable

from deeplegato_pp.flags import Flag
from deeplegato_pp.scene.parameters import PARAMETERS
from fake_model import TRUTH


def make_table(rows: int = 3) -> QTable:
    """Results of the fake network's galaxy at rising magnitudes; the last one is not measured."""
    table = QTable({"name": [f"<g{i}>" for i in range(rows)], "file": ["g.fits"] * rows})
    for p, value in zip(PARAMETERS, TRUTH.tolist(), strict=True):
        values = np.full(rows, value) + 0.1 * np.arange(rows) * (p.name == "magnitude")
        values[-1] = np.nan
        for suffix, shift in (("", 0), ("_q025", -2), ("_q16", -1), ("_q50", 0), ("_q84", 1), ("_q975", 2)):  # noqa: E501  # fmt: skip
            table[p.name + suffix] = u.Quantity(values + 0.01 * shift, p.unit)
        table[f"{p.name}_std"] = u.Quantity(np.full(rows, 0.01), p.unit)
    table["effective_radius_pix"] = np.full(rows, 4.0) * u.pix
    table["x"], table["y"] = np.full(rows, 64.0), np.full(rows, 62.5)
    table["flags"] = [0] * (rows - 2) + [int(Flag.POOR_FIT), int(Flag.FAILED)]
    table["flag_names"] = [""] * (rows - 2) + ["poor_fit", "failed"]
    table["quality"] = ["good"] * (rows - 2) + ["caution", "bad"]
    table["reason"] = [""] * (rows - 1) + ["no pixel is left"]
    for name, value in (("pixel_scale", 0.25), ("zero_point", 30.5), ("background", 1.0)):
        table[name] = np.full(rows, value)
    table["psf_fwhm"] = np.full(rows, 3.0)
    return table


def make_scene_table() -> QTable:
    """Results of four galaxies: a single profile, bulge and disc, host and point, and none."""
    table = make_table(4)
    table["best_scene"] = ["sersic", "bulge+disc", "sersic+point", ""]
    table["scene_odds"] = [3.0, 12.5, 40.0, np.nan]
    magnitude = table["magnitude"].value
    parts = {
        "bulge": (1, 0.5, 0.2, 4.0),
        "disc": (1, 0.5, 1.5, 1.0),
        "host": (2, 0.8, 1.0, 2.0),
        "point": (2, 0.2, None, None),
    }
    for part, (row, share, radius, index) in parts.items():
        values = {"magnitude": magnitude[row] - 2.5 * np.log10(share)}
        if radius is not None:
            shape = {"axis_ratio": 0.7, "position_angle": 30.0}
            values |= {"effective_radius": radius, "sersic_index": index, **shape}
        for p in PARAMETERS[:5]:
            if p.name in values:
                column = np.full(4, np.nan)
                column[row] = values[p.name]
                table[f"{part}_{p.name}"] = u.Quantity(column, p.unit)
    column = table["bulge_effective_radius"]
    for suffix, shift in (("std", 0), ("q025", -2), ("q16", -1), ("q50", 0), ("q84", 1), ("q975", 2)):  # noqa: E501  # fmt: skip
        table[f"bulge_effective_radius_{suffix}"] = column + 0.01 * shift * u.arcsec
        table[f"disc_effective_radius_{suffix}"] = column + 0.01 * shift * u.arcsec
    table["disc_sersic_index_std"] = [np.nan, 0.0, np.nan, np.nan]
    return table
