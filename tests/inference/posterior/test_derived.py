from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from deeplegato_pp.inference.posterior.derived import (
    DERIVED,
    derive,
    light_fraction,
    position_angle_sky,
)
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.render.renderer import render_sersic

ONE = np.ones(1)


def observed(shape=(101, 121), **options) -> Observation:
    return Observation.from_array(
        np.random.default_rng(0).normal(size=shape),
        noise=1.0,
        psf_fwhm=3.0,
        pixel_scale=0.2,
        zero_point=25.0,
        **options,
    )


def test_known_values():
    obs = observed()
    sample = np.array([[22.0, 1.0, 1.0, 0.25, 0.0, 2.0, -3.0]])
    d = {k: v[0] for k, v in derive(sample, obs, prepare(obs), 3.0).items()}
    assert set(d) == {q.name for q in DERIVED}
    assert (d["x"], d["y"]) == (62.0, 47.0)
    assert d["effective_radius_pix"] == pytest.approx(5.0)
    assert d["effective_radius_circ"] == pytest.approx(0.5)
    # Half the light on pi q R^2 square arcseconds.
    assert d["surface_brightness"] == pytest.approx(22.0 + 2.5 * np.log10(2 * np.pi * 0.25))
    assert d["flux"] == pytest.approx(3631e9 * 10 ** (-8.8))
    # Elongated along +y: e1 = -(1 - q)/(1 + q).
    assert (d["e1"], d["e2"]) == pytest.approx((-0.6, 0.0), abs=1e-12)
    assert d["radius_over_fwhm"] == pytest.approx(5.0 / 3.0)
    flux = 10 ** (-0.4 * (22.0 - 25.0))
    assert d["snr"] == pytest.approx(0.5 * flux / np.sqrt(2 * np.pi * (25 * 0.25 + 9 / 4)))
    assert np.isnan(d["position_angle_sky"])


def test_light_fraction_is_the_rendered_one():
    params = [torch.tensor([v], dtype=torch.float64) for v in (1.0, 9.0, 2.0, 0.4, 30.0, 4.5, -3.5)]
    psf = torch.ones(1, 1, dtype=torch.float64)
    image = render_sersic(*params, psf, 128)[0].numpy()
    left, right, bottom, top = 49.5, 90.5, 30.5, 75.5
    expected = image[31:76, 50:91].sum()
    got = light_fraction(
        (63.5 + 4.5) * ONE, (63.5 - 3.5) * ONE, 9 * ONE, 2 * ONE, 0.4 * ONE, 30 * ONE,
        (left, right, bottom, top),
    )  # fmt: skip
    assert got[0] == pytest.approx(expected, abs=2e-3)


def test_light_fraction_far_off_is_zero():
    got = light_fraction(-5 * ONE, 5 * ONE, ONE, ONE, ONE, 0 * ONE, (0.0, 10.0, 0.0, 10.0))
    assert got[0] == 0.0


def test_only_what_was_used_counts_as_inside():
    obs = observed((400, 400))
    sample = np.array([[22.0, 10.0, 4.0, 1.0, 0.0, 0.0, 0.0]])
    cut = derive(sample, obs, prepare(obs), 3.0)["light_fraction"][0]
    whole = derive(sample, obs, prepare(obs, bin=4), 0.75)["light_fraction"][0]
    assert cut < whole < 1.0


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[-1, 0], [0, 1]], 30.0),  # north up, east left: counter-clockwise is north through east
        ([[1, 0], [0, 1]], 150.0),  # mirrored
        ([[0, 1], [1, 0]], 120.0),  # +x is north, +y is east: the axis lies 120 deg from north
    ],
)
def test_sky_angle(matrix, expected):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 60.0]
    wcs.wcs.crpix = [51.0, 51.0]
    wcs.wcs.cd = np.array(matrix) * 1e-5
    angle = position_angle_sky(np.array([30.0]), wcs, np.array([50.0]), np.array([50.0]))
    assert angle[0] == pytest.approx(expected, abs=1e-3)
