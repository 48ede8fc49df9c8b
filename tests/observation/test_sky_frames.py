import math

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from deeplegato_pp.catalog.mosaics import ShiftedWCS
from deeplegato_pp.inference.posterior.derived import position_angle_sky
from deeplegato_pp.observation.sky_frames import icrs_to_pixel, pixel_to_icrs

CENTRE = SkyCoord(150.1, 2.2, unit="deg")
STEP = 0.2 / 3600


def frame(kind: str) -> WCS:
    """A WCS of 0.2 arcsec per pixel about the same place in several guises."""
    header = fits.Header({"CRPIX1": 200.5, "CRPIX2": 200.5, "CUNIT1": "deg", "CUNIT2": "deg"})
    types, at = ("RA---TAN", "DEC--TAN"), (150.1, 2.2)
    matrix = [[-STEP, 0.0], [0.0, STEP]]
    if kind == "fk4":
        at = (CENTRE.fk4.ra.deg, CENTRE.fk4.dec.deg)
        header["RADESYS"], header["EQUINOX"] = "FK4", 1950.0
    elif kind == "galactic":
        types = ("GLON-TAN", "GLAT-TAN")
        at = (CENTRE.galactic.l.deg, CENTRE.galactic.b.deg)
    elif kind == "swapped":
        types, at, matrix = types[::-1], at[::-1], [[0.0, STEP], [-STEP, 0.0]]
    elif kind == "mirrored":
        matrix = [[STEP, 0.0], [0.0, STEP]]
    elif kind == "pole":
        at = (10.0, 89.99)
    elif kind == "sip":
        types = ("RA---TAN-SIP", "DEC--TAN-SIP")
        header.update({"A_ORDER": 2, "A_2_0": 1e-5, "B_ORDER": 2, "B_0_2": -2e-5})
    for i in (0, 1):
        header[f"CTYPE{i + 1}"], header[f"CRVAL{i + 1}"] = types[i], at[i]
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = matrix[i][j]
    return WCS(header)


KINDS = ["icrs", "fk4", "galactic", "swapped", "mirrored", "pole", "sip"]


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_icrs_and_come_back(kind):
    wcs = frame(kind)
    x, y = np.array([120.0, 280.0]), np.array([100.0, 300.0])
    truth = wcs.pixel_to_world(x, y).icrs
    ra, dec = pixel_to_icrs(wcs, x, y)
    assert SkyCoord(ra, dec, unit="deg").separation(truth).arcsec.max() < 1e-6
    back = icrs_to_pixel(wcs, truth.ra.deg, truth.dec.deg)
    assert np.abs(np.subtract(back, (x, y))).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_angles_are_from_north_of_icrs_through_east(kind):
    wcs = frame(kind)
    angle = math.radians(30.0)
    ends = [120.0, 120 - 0.5 * math.sin(angle)], [100.0, 100 + 0.5 * math.cos(angle)]
    first, second = wcs.pixel_to_world(*ends).icrs
    truth = first.position_angle(second).deg % 180.0
    found = position_angle_sky(np.array([30.0]), wcs, np.array([120.0]), np.array([100.0]))
    assert abs((found[0] - truth + 90.0) % 180.0 - 90.0) < 0.01
    seen = ShiftedWCS(wcs, 100, 90)
    shifted = position_angle_sky(np.array([30.0]), seen, np.array([20.0]), np.array([10.0]))
    assert shifted[0] == pytest.approx(found[0], abs=1e-9)


def test_what_the_projection_does_not_reach():
    x, _ = icrs_to_pixel(frame("icrs"), [330.0], [-2.0])
    assert not abs(x[0]) < 1e5
