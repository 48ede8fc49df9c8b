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
from deeplegato_pp.observation.reconciliation import Given
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
    with pytest.raises(FormatError, match="no such file"):
        open_mosaic(tmp_path / "gone.fits")
    with pytest.raises(FormatError, match=r"--extension 1"):
        open_mosaic(f"{path}[1]")
    fits.PrimaryHDU(np.zeros((2, 3, 4))).writeto(tmp_path / "cube.fits")
    with pytest.raises(ShapeError, match="must be 2-D"):
        open_mosaic(tmp_path / "cube.fits")


def test_a_companion_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "image.fits"
    write(path, "float")
    other = open_companion(np.zeros((3, 3)), (), "the mask").plane
    with pytest.raises(ShapeError, match="must have the image's shape"):
        open_mosaic(path).with_planes(mask=other)


@pytest.mark.parametrize("kind", ["plain", "compressed"])
def test_planes_of_cubes_and_axes_of_length_one(tmp_path, kind):
    cube = np.stack([INTEGERS, INTEGERS + 1000])
    make = fits.ImageHDU if kind == "plain" else fits.CompImageHDU
    for name, data in (("one.fits", INTEGERS[None]), ("two.fits", cube)):
        fits.HDUList([fits.PrimaryHDU(), make(data)]).writeto(tmp_path / name)
    part = open_mosaic(tmp_path / "one.fits").image.read(3, 9, 5, 8)
    np.testing.assert_array_equal(part, INTEGERS[3:9, 5:8])
    second = open_mosaic(tmp_path / "two.fits", given=Given(plane=1)).image.read(3, 9, 5, 8)
    np.testing.assert_array_equal(second, INTEGERS[3:9, 5:8] + 1000.0)


@pytest.mark.parametrize("blank", [None, 7])
def test_compressed_whole_numbers_with_scale_and_blank(tmp_path, blank):
    hdu = fits.CompImageHDU(INTEGERS.astype(np.int32), compression_type="RICE_1")
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 3.0
    if blank is not None:
        hdu.header["BLANK"] = blank
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits.fz")
    expected = fits.getdata(tmp_path / "a.fits.fz", 1)
    found = open_mosaic(tmp_path / "a.fits.fz").image.read(0, 70, 0, 90)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["plain", "compressed", "bz2"])
def test_masks_keep_all_their_bits(tmp_path, kind):
    bits = np.full((20, 30), (1 << 60) + 1, dtype=np.int64)
    bits[4, 5] = 0
    compressed = kind == "compressed"
    mask = fits.CompImageHDU(bits.astype(np.int32) | 4, name="DQ") if compressed else None
    mask = mask or fits.ImageHDU(bits, name="DQ")
    path = tmp_path / "a.fits"
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(PIXELS[:20, :30], name="SCI"), mask]
    fits.HDUList(hdus).writeto(path)
    if kind == "bz2":
        path.write_bytes(bz2.compress(path.read_bytes()))
    found = open_mosaic(path).mask
    part = read_padded(found, -2, -2, 12, 0.0)
    assert part.dtype.kind in "iu"
    expected = (bits.astype(np.int32) | 4) if compressed else bits
    assert part[2:, 2:].tolist() == expected[:10, :10].tolist()


def test_a_damaged_tile_leaves_the_others(tmp_path):
    path = tmp_path / "a.fits.fz"
    hdu = fits.CompImageHDU(PIXELS, compression_type="GZIP_2", tile_shape=(1, 90), quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    raw = bytearray(path.read_bytes())
    with fits.open(path, disable_image_compression=True) as hdus:
        table = hdus[1]
        place, width = table.fileinfo()["datLoc"], table.header["NAXIS1"]
        row = bytes(raw[place + 35 * width : place + 35 * width + 8])
        start = place + table.header["NAXIS2"] * width + int(np.frombuffer(row, ">i4")[1])
    raw[start + 20 : start + 60] = bytes(40)
    path.write_bytes(bytes(raw))
    plane = open_mosaic(path).image
    found = plane.read(0, 70, 0, 90)
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [35]
    np.testing.assert_array_equal(np.delete(found, 35, 0), np.delete(PIXELS, 35, 0))
    assert planes.damaged_pixels(plane, 30, 10, 20) == 20
    assert planes.damaged_pixels(plane, 0, 10, 20) == 0


def test_zero_weights_beside_a_noise_map_and_other_units(tmp_path):
    weight = np.ones(PIXELS.shape, np.float32)
    weight[2, 3] = 0
    hdus = [
        fits.PrimaryHDU(),
        fits.ImageHDU(PIXELS, fits.Header({"BUNIT": "uJy"}), name="SCI"),
        fits.ImageHDU(PIXELS * 0 + 2, fits.Header({"BUNIT": "nJy"}), name="ERR"),
        fits.ImageHDU(weight, name="WHT"),
    ]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    mosaic = open_mosaic(tmp_path / "a.fits")
    assert mosaic.weight.read(2, 3, 3, 4).tolist() == [[0.0]]
    assert mosaic.noise.read(0, 1, 0, 1)[0, 0] == pytest.approx(2e-3)
    assert mosaic.noise_type == "sigma"


def test_asinh_magnitudes_are_read_as_fluxes(tmp_path):
    stored = 2.5 / np.log(10) * np.arcsinh((PIXELS - 1.0) / 8.0)
    header = fits.Header({"BSOFTEN": 4.0, "BOFFSET": 1.0})
    fits.PrimaryHDU(stored, header).writeto(tmp_path / "a.fits")
    found = open_mosaic(tmp_path / "a.fits").image.read(0, 70, 0, 90)
    np.testing.assert_allclose(found, PIXELS, rtol=1e-5)
