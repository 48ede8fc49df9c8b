from __future__ import annotations

import bz2
import pickle

import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp.catalog.mosaics import open_companion, open_mosaic
from deeplegato_pp.errors import FormatError, ShapeError
from deeplegato_pp.io import lazy_images as planes
from deeplegato_pp.io.lazy_images import read_padded
from small_sky import make_wcs

PIXELS = np.random.default_rng(1).normal(100.0, 10.0, (70, 90)).astype(np.float32)
INTEGERS = np.arange(70 * 90, dtype=np.int16).reshape(70, 90)


def write(path, kind):
    """Writes an image in one of the ways in which FITS can."""
    if kind == "float":
        fits.PrimaryHDU(PIXELS).writeto(path)
        return PIXELS
    if kind == "scaled":
        hdu = fits.PrimaryHDU(INTEGERS)
        hdu.header["BLANK"] = 5
        hdu.writeto(path)
        with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
            hdus[0].header["BSCALE"], hdus[0].header["BZERO"] = 0.5, 3.0
        expected = INTEGERS * 0.5 + 3.0
        expected[INTEGERS == 5] = np.nan
        return expected
    if kind == "unsigned":
        fits.PrimaryHDU(INTEGERS.astype(np.uint16)).writeto(path)
        return INTEGERS
    if kind == "compressed":
        hdu = fits.CompImageHDU(INTEGERS, compression_type="RICE_1", tile_shape=(16, 32))
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        return INTEGERS
    fits.PrimaryHDU(PIXELS).writeto(path)
    path.write_bytes(bz2.compress(path.read_bytes()))
    return PIXELS


@pytest.mark.parametrize("kind", ["float", "scaled", "unsigned", "compressed", "bz2"])
def test_rectangles_are_what_astropy_reads(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(planes, "BLOCK", 20)
    monkeypatch.setattr(planes, "CACHE_BYTES", 20_000)
    path = tmp_path / "image.fits"
    expected = write(path, kind).astype(float)
    plane = pickle.loads(pickle.dumps(open_mosaic(path).image))
    assert plane.shape == (70, 90)
    for bottom, top, left, right in ((0, 70, 0, 90), (13, 40, 17, 69), (69, 70, 0, 1)):
        part = plane.read(bottom, top, left, right)
        assert part.dtype == np.float64
        np.testing.assert_array_equal(part, expected[bottom:top, left:right])


def test_outside_the_image_stands_what_is_asked_for(tmp_path):
    plane = planes.ArrayPlane(PIXELS)
    square = read_padded(plane, -3, 80, 20, np.nan)
    np.testing.assert_array_equal(square[3:, :10], PIXELS[:17, 80:])
    assert np.isnan(square[:3]).all()
    assert np.isnan(square[:, 10:]).all()


def test_a_file_with_everything(tmp_path):
    path = tmp_path / "all.fits"
    header = make_wcs().to_header()
    header["MAGZERO"] = 25.0
    sci = [fits.ImageHDU(PIXELS + i, header=header, name="SCI", ver=i + 1) for i in range(2)]
    err = [fits.ImageHDU(PIXELS * 0 + i + 1, name="IVAR", ver=i + 1) for i in range(2)]
    fits.HDUList([fits.PrimaryHDU(), *sci, *err]).writeto(path)
    mosaic = open_mosaic(path, ("SCI", 2))
    assert mosaic.image.read(0, 1, 0, 1)[0, 0] == PIXELS[0, 0] + 1
    assert mosaic.noise_type == "ivar"
    assert mosaic.noise.read(0, 1, 0, 1)[0, 0] == 2
    assert mosaic.pixel_scale == pytest.approx(0.25)
    assert mosaic.zero_point == 25.0
    with pytest.raises(FormatError, match="no extension"):
        open_mosaic(path, "NOTHING")


def test_truncated_missing_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "image.fits"
    write(path, "float")
    path.write_bytes(path.read_bytes()[: 2880 + 70 * 90 * 2])
    with pytest.raises(FormatError, match="damaged or incomplete"):
        open_mosaic(path)
    with pytest.raises(FormatError, match="cannot be read as FITS"):
        open_mosaic(tmp_path / "gone.fits")
    fits.PrimaryHDU(np.zeros((2, 3, 4))).writeto(tmp_path / "cube.fits")
    with pytest.raises(ShapeError, match="must be 2-D"):
        open_mosaic(tmp_path / "cube.fits")


def test_a_companion_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "image.fits"
    write(path, "float")
    other = open_companion(np.zeros((3, 3)), (), "the mask")
    with pytest.raises(ShapeError, match="must have the image's shape"):
        open_mosaic(path).with_planes(mask=other)
