"""Listed sources within one another's fits."""

from __future__ import annotations

import numpy as np
import pytest

from deeplegato_pp.catalog.blends import holds_another, nearest_distances
from deeplegato_pp.catalog.measure import _holds_another
from deeplegato_pp.catalog.sources import as_sources

NAN = np.full(3, np.nan)


def test_distances_are_those_of_the_nearest_other():
    x, y = np.array([10.0, 13.0, 10.0]), np.array([20.0, 24.0, 20.0])
    pixels, sky = nearest_distances(x, y, NAN, NAN)
    assert pixels.tolist() == pytest.approx([5.0, 5.0, 5.0])  # the third is the first again
    assert np.isinf(sky).all()


def test_distances_on_the_sky_are_in_arcsec_and_cross_the_meridian():
    ra, dec = np.array([359.9999, 0.0001, 90.0]), np.array([60.0, 60.0, 0.0])
    pixels, sky = nearest_distances(NAN, NAN, ra, dec)
    assert sky[:2].tolist() == pytest.approx([0.36, 0.36], rel=1e-4)
    assert sky[2] > 1e5
    assert np.isinf(pixels).all()


def test_a_lonely_source_has_no_other():
    assert np.isinf(nearest_distances(*np.array([[1.0], [2.0], [np.nan], [np.nan]]))[0]).all()


@pytest.mark.parametrize(
    ("distance", "radius", "fwhm", "held"),
    [(4.0, 3.0, 2.0, True), (5.0, 3.0, 2.0, False), (2.0, 0.5, 3.0, True)],
)
def test_the_fit_reaches_by_its_radius_or_the_psf(distance, radius, fwhm, held):
    assert holds_another(distance, radius, fwhm) is held


def test_rows_take_pixels_first_and_the_sky_else():
    row = {"effective_radius_pix": 4.0, "pixel_scale": 0.2, "psf_fwhm": 2.0}
    both = as_sources({"id": [1, 2], "x": [10.0, 15.0], "y": [10.0, 10.0]})
    assert _holds_another(both, 0, row)
    apart = as_sources({"id": [1, 2], "x": [10.0, 25.0], "y": [10.0, 10.0]})
    assert not _holds_another(apart, 0, row)
    sky = as_sources({"id": [1, 2], "ra": [10.0, 10.0], "dec": [0.0, 1.0 / 3600.0]})
    assert _holds_another(sky, 1, row)
    assert not _holds_another(both, 0, dict.fromkeys(row))
