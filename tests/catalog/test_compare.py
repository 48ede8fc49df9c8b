from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from deeplegato_pp.catalog.compare import compare
from deeplegato_pp.catalog.plots import plot_comparison
from deeplegato_pp.errors import InputError
from deeplegato_pp.scene.parameters import PARAMETERS


def catalogue(seed, sigma=0.1, shift=0.0):
    """A hundred galaxies with independent errors; PA near the seam."""
    rng = np.random.default_rng(seed)
    table = QTable({"id": np.arange(100)})
    for p in PARAMETERS:
        middle = 179.9 if p.period else 0.5 * (p.lower + p.upper)
        values = middle + shift + sigma * rng.standard_normal(100)
        values = values % p.period if p.period else values
        unit = u.Unit(p.unit) if p.unit else u.dimensionless_unscaled
        table[p.name] = values * unit
        table[f"{p.name}_std"] = np.full(100, sigma) * unit
    return table


def test_independent_measurements_scatter_by_their_errors():
    found = compare(catalogue(1), catalogue(2))
    for difference in found.differences:
        figures = difference.figures()
        assert abs(figures["median_sigma"]) < 0.45
        assert 0.7 < figures["spread_sigma"] < 1.3
        assert figures["width_ratio"] == pytest.approx(1.0)


def test_a_shift_shows():
    figures = compare(catalogue(1), catalogue(2, shift=0.5)).differences[0].figures()
    assert figures["median"] == pytest.approx(0.5, abs=0.05)
    assert figures["beyond_3_sigma"] > 0.5


def test_rows_are_matched_by_id_and_what_is_not_in_both_is_counted():
    old, new = catalogue(1), catalogue(1)
    new["id"] = np.arange(100)[::-1]
    new["magnitude"] = new["magnitude"][::-1]
    new["magnitude"][0] = np.nan
    found = compare(old[:90], new[:95])
    assert found.only_old == 5
    assert found.only_new == 10
    assert len(found.matched) == 85
    np.testing.assert_allclose(found.differences[0].plain, 0.0, atol=1e-12)
    assert compare(old, new).lost == 1


def test_the_figure_is_written(tmp_path):
    plot_comparison(compare(catalogue(1), catalogue(2)), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_other_tables_are_refused():
    with pytest.raises(InputError, match="no columns id"):
        compare(QTable({"a": [1]}), catalogue(1))
    other = catalogue(1)
    other["id"] = np.arange(1000, 1100)
    with pytest.raises(InputError, match="no id is in both"):
        compare(catalogue(1), other)
