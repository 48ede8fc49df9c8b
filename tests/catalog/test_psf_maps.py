from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp.catalog.psf_maps import CELL, open_psf_map, resampled
from deeplegato_pp.errors import FormatError, InputError
from deeplegato_pp.observation.effective_psf import moffat_psf, psf_fwhm

WIDTHS = (3.0, 4.0, 5.0)
PLACES = [(63.5, 63.5), (1000.0, 63.5), (2000.0, 2000.0)]


def planes(side=41):
    cut = [moffat_psf(w)[0] for w in WIDTHS]
    return np.array([c[(s := (len(c) - side) // 2) : s + side, s : s + side] if len(c) > side else
                     np.pad(c, (side - len(c)) // 2) for c in cut])  # fmt: skip


def write_cube(path, cube, rows=3, names=("x", "y")):
    places = np.array(PLACES)[:rows]
    columns = [fits.Column(n, "D", array=places[:, i]) for i, n in enumerate(names)]
    table = fits.BinTableHDU.from_columns(columns)
    fits.HDUList([fits.PrimaryHDU(cube), table]).writeto(path)


def test_one_image_is_the_psf_everywhere(tmp_path):
    fits.PrimaryHDU(planes()[0]).writeto(tmp_path / "psf.fits")
    psf = open_psf_map(tmp_path / "psf.fits")
    np.testing.assert_array_equal(psf(0.0, 0.0).image, psf(4000.0, 10.0).image)


def test_a_cube_gives_its_planes_at_their_places_and_mixes_between(tmp_path):
    write_cube(tmp_path / "cube.fits", planes())
    psf = open_psf_map(tmp_path / "cube.fits")
    assert psf_fwhm(psf(63.5, 63.5).image) == pytest.approx(3.0, rel=0.01)
    between = psf_fwhm(psf(530.0, 63.5).image)
    assert 3.2 < between < 3.9
    assert psf(64.0, 60.0) is psf(70.0, 90.0)  # within a cell


def test_an_unusable_plane_is_left_out_and_named(tmp_path):
    cube = planes()
    cube[0, 3, 3] = np.nan
    write_cube(tmp_path / "cube.fits", cube)
    found = open_psf_map(tmp_path / "cube.fits")(63.5, 63.5)
    assert np.isfinite(found.image).all()
    assert "plane 0" in found.notes[0]
    assert psf_fwhm(found.image) > 3.9
    write_cube(tmp_path / "nan.fits", cube * np.nan)
    with pytest.raises(InputError, match="none of the 3 PSFs"):
        open_psf_map(tmp_path / "nan.fits")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rows": 2}, "2 rows for 3 PSFs"), ({"names": ("a", "b")}, "needs a table")],
)
def test_a_cube_without_its_places_is_refused(tmp_path, options, message):
    write_cube(tmp_path / "cube.fits", planes(), **options)
    with pytest.raises(FormatError, match=message):
        open_psf_map(tmp_path / "cube.fits")


def write_psfex(path, sampling=1.0, planes_=None, **cards):
    """A model 3 + 2 x + y (reduced) times one Moffat."""
    base = moffat_psf(4.0)[0]
    mask = np.array([3.0 * base, 2.0 * base, base]) if planes_ is None else planes_
    column = fits.Column("PSF_MASK", f"{mask.size}E", dim=str(mask.shape[::-1]), array=mask[None])
    hdu = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    header = {"POLNAXIS": 2, "POLNAME1": "X_IMAGE", "POLNAME2": "Y_IMAGE", "POLZERO1": 1001.0,
              "POLZERO2": 1001.0, "POLSCAL1": 1000.0, "POLSCAL2": 1000.0, "POLNGRP": 1,
              "POLDEG1": 1, "PSF_SAMP": sampling}  # fmt: skip
    hdu.header.update(header | cards)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return base


def test_a_psfex_model_follows_its_polynomial(tmp_path):
    base = write_psfex(tmp_path / "m.psf")
    psf = open_psf_map(tmp_path / "m.psf")
    x = 10.5 * CELL - 0.5  # a cell's centre
    factor = 3.0 + 2.0 * (x - 1000.0) / 1000.0 + (x - 1000.0) / 1000.0
    np.testing.assert_allclose(psf(x, x).image, factor * base, rtol=1e-6)
    assert psf(x, x).oversampling == 1


def test_a_psfex_model_of_odd_sampling_comes_on_a_whole_grid(tmp_path):
    write_psfex(tmp_path / "m.psf", sampling=0.45)
    found = open_psf_map(tmp_path / "m.psf")(1000.0, 1000.0)
    assert found.oversampling == 2
    assert found.image.shape[0] % 2 == 1
    assert psf_fwhm(found.image, 2) == pytest.approx(4.0 * 0.45, rel=0.01)


def test_a_psfex_model_that_varies_with_something_else_is_refused(tmp_path):
    write_psfex(tmp_path / "m.psf", POLNAME1="MAG_AUTO")
    with pytest.raises(FormatError, match="varies with MAG_AUTO"):
        open_psf_map(tmp_path / "m.psf")
    write_psfex(tmp_path / "n.psf", POLDEG1=2)
    with pytest.raises(FormatError, match="3 planes for a polynomial of degree 2, expected 6"):
        open_psf_map(tmp_path / "n.psf")


def test_resampling_keeps_the_shape():
    fine = resampled(moffat_psf(6.0)[0], 1.5)
    assert psf_fwhm(fine) == pytest.approx(4.0, rel=0.01)
