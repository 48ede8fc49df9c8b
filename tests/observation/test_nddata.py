from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.nddata import CCDData, NDData, UnknownUncertainty, VarianceUncertainty
from astropy.wcs import WCS

from deeplegato_pp import Observation
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag


@pytest.fixture
def ccd() -> CCDData:
    """An image of 21 x 21 px with everything that a CCDData holds."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.cdelt = -1e-4, 1e-4
    mask = np.zeros((21, 21), dtype=bool)
    mask[3, 4] = True
    psf = np.ones((3, 3))
    psf[1, 1] = 5.0
    return CCDData(
        np.random.default_rng(0).normal(size=(21, 21)),
        unit=u.nJy,
        mask=mask,
        uncertainty=VarianceUncertainty(np.full((21, 21), 4.0)),
        wcs=wcs,
        psf=psf,
    )


def test_everything_is_taken(ccd):
    observation = Observation.from_nddata(ccd)
    assert observation.noise == pytest.approx(np.full((21, 21), 2.0))
    assert np.argwhere(observation.mask).tolist() == [[3, 4]]
    assert observation.psf[1, 1] == pytest.approx(5 / 13)
    assert observation.pixel_scale == pytest.approx(0.36)
    assert observation.zero_point == pytest.approx(31.4, abs=1e-3)
    assert observation.unit == "nJy"
    assert observation.wcs is not None


def test_arguments_win(ccd):
    observation = Observation.from_nddata(
        ccd, noise=3.0, psf_fwhm=2.5, pixel_scale=0.1, zero_point=25.0, name="galaxy"
    )
    assert observation.median_noise == 3.0
    assert observation.flags & Flag.PSF_FROM_FWHM
    assert (observation.pixel_scale, observation.zero_point) == (0.1, 25.0)
    assert observation.name == "galaxy"


def test_a_bare_one_is_flagged():
    observation = Observation.from_nddata(NDData(np.random.default_rng(0).normal(size=(21, 21))))
    missing = Flag.NO_PSF | Flag.NO_NOISE | Flag.NO_PIXEL_SCALE | Flag.NO_ZERO_POINT
    assert observation.flags & missing == missing


def test_what_has_no_meaning_is_refused(ccd):
    with pytest.raises(InputError, match="expected an astropy NDData"):
        Observation.from_nddata(np.ones((5, 5)))
    ccd.uncertainty = UnknownUncertainty(np.ones((21, 21)))
    with pytest.raises(InputError, match="got UnknownUncertainty"):
        Observation.from_nddata(ccd)
